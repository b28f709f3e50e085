"""Converts sensor time to ROS time by an offset that is estimated from message stamps.

Sensor time starts with the camera. The driver stamps each message with the host time at which
its first data arrived, so `stamp - sensor time of the first event` is the offset plus a transport
delay. The delay is never negative, so the smallest difference is the best estimate. It is taken
over the last seconds to follow the drift between the clocks.

`spike_depth_ros.events.jumps` rejects wrong event times and detects jumps before this step.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

HORIZON_NS = 5_000_000_000
"""Period of the smallest difference, 5 s, in which crystals drift by at most 0.25 ms."""

JUMP_NS = 1_000_000_000
"""A larger change of the difference is a jump of a clock or a single delayed message."""

JUMP_MESSAGES = 3
"""Number of consecutive messages that confirm a jump of the stamps."""


class _Sample(NamedTuple):
    sensor_ns: int
    offset_ns: int


class SensorClock:
    """Estimates the offset between sensor time and ROS time.

    Attributes:
        offset_ns: ROS time minus sensor time; None before the first message.
        jumps: number of restarts of the estimate.
    """

    def __init__(self) -> None:
        self.offset_ns: int | None = None
        self.jumps = 0
        self._smallest: deque[_Sample] = deque()  # ascending in both fields
        self._first: _Sample | None = None
        self._newest_ns: int | None = None
        self._outliers = 0

    def update(
        self, stamp_ns: int, first_ns: int, last_ns: int | None = None, jump_ns: int = 0
    ) -> bool:
        """Updates the estimate by a message or a part of one.

        Args:
            stamp_ns: ROS time in its header.
            first_ns: earliest sensor time of its events.
            last_ns: latest sensor time of its events; None if there is only one event.
            jump_ns: size of the jump of sensor time before it, see `events.jumps.Run`.

        Returns:
            True if a clock has jumped, which invalidates data of earlier messages.
        """
        difference = stamp_ns - first_ns
        far = self.offset_ns is not None and abs(difference - self.offset_ns) > JUMP_NS
        self._outliers = self._outliers + 1 if far else 0
        # if sensor time and stamps moved forwards together, there was a pause without events
        jumped = jump_ns < 0 or (far and jump_ns > 0) or self._outliers >= JUMP_MESSAGES
        if jumped:
            self.reset()
            self.jumps += 1
        elif far:
            return False
        latest_ns = first_ns if last_ns is None else last_ns
        self._newest_ns = max(latest_ns, self._newest_ns or latest_ns)
        self._learn(_Sample(first_ns, difference))
        return jumped

    def reset(self) -> None:
        """Forgets the offset."""
        self.offset_ns = self._first = self._newest_ns = None
        self._outliers = 0
        self._smallest.clear()

    def to_ros(self, sensor_ns: int) -> int:
        """Converts sensor time to ROS time [ns]; returns the sensor time before any message."""
        return sensor_ns + (self.offset_ns or 0)

    @property
    def drift_ppm(self) -> float:
        """Drift of ROS time relative to sensor time [1e-6]; 0 for the first 10 s.

        The first messages may be delayed more than later ones. Therefore the current offset is
        compared with that of the first whole `HORIZON_NS`.
        """
        if self._first is None or self.offset_ns is None or self._newest_ns is None:
            return 0.0
        span_ns = self._newest_ns - self._first.sensor_ns
        if span_ns < 2 * HORIZON_NS:
            return 0.0
        return 1e6 * (self.offset_ns - self._first.offset_ns) / span_ns

    def _learn(self, sample: _Sample) -> None:
        while self._smallest and self._smallest[-1].offset_ns >= sample.offset_ns:
            self._smallest.pop()
        self._smallest.append(sample)
        while self._smallest[0].sensor_ns < sample.sensor_ns - HORIZON_NS:
            self._smallest.popleft()
        self.offset_ns = self._smallest[0].offset_ns
        if self._first is None or sample.sensor_ns - self._first.sensor_ns < HORIZON_NS:
            first_ns = sample.sensor_ns if self._first is None else self._first.sensor_ns
            self._first = _Sample(first_ns, self.offset_ns)


class RosTimeClock(SensorClock):
    """Clock for messages whose event times already are ROS times, which it does not change.

    If the stamps contradict, the offset is estimated: players move the stamps to the present but
    not the event times, and some drivers write sensor times.
    """

    def to_ros(self, sensor_ns: int) -> int:
        """See `SensorClock.to_ros`."""
        is_ros_time = abs(self.offset_ns or 0) < JUMP_NS
        return sensor_ns if is_ros_time else super().to_ros(sensor_ns)
