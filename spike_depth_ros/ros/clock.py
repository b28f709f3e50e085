"""From sensor time to ROS time: an offset that is learnt from message stamps.

An event camera counts time from its own start. The driver stamps each message with the host's
time when the first of its data arrived. `stamp - sensor time of the first event` is therefore the
offset plus a transport delay, which is never negative: the smallest difference is the best
estimate. It is taken over the last seconds, to follow the drift between the two clocks.

Which event times to believe, and when sensor time has jumped, is decided by
`spike_depth_ros.events.jumps` before this.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

HORIZON_NS = 5_000_000_000
"""The smallest difference of the last 5 s counts; crystals drift 0.25 ms in that time at most."""

JUMP_NS = 1_000_000_000
"""A difference that is off by more is a jump of one of the clocks, or one belated message."""

JUMP_MESSAGES = 3
"""The offset follows a jump of the stamps after so many messages in a row that show it."""


class _Sample(NamedTuple):
    sensor_ns: int
    offset_ns: int


class SensorClock:
    """Learns the offset between sensor time and ROS time.

    Attributes:
        offset_ns: ROS time minus sensor time; None before the first message.
        jumps: how often the offset was learnt anew.
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
        """Takes one message, or a part of one.

        Args:
            stamp_ns: ROS time in its header.
            first_ns: earliest sensor time of its events.
            last_ns: latest sensor time of its events; None: there is but one.
            jump_ns: by how much sensor time jumped before it, as `events.jumps.Run` has it.

        Returns:
            True if a clock has jumped: what was gathered from earlier messages is void.
        """
        difference = stamp_ns - first_ns
        far = self.offset_ns is not None and abs(difference - self.offset_ns) > JUMP_NS
        self._outliers = self._outliers + 1 if far else 0
        # ahead, sensor time may have moved together with the stamps: nothing happened for a while
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
        """ROS time [ns] of a sensor time [ns]; the sensor time itself before any message."""
        return sensor_ns + (self.offset_ns or 0)

    @property
    def drift_ppm(self) -> float:
        """How much faster ROS time runs than sensor time [1e-6]; 0 for the first 10 s.

        The first messages may be delayed more than later ones. Therefore the offset of the first
        whole `HORIZON_NS` is compared with the present one.
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
    """For messages whose event times are ROS time already: they are left as they are.

    Unless the stamps contradict: a player moves stamps to the present and leaves the events their
    recorded times, and some drivers fill in sensor time. The offset is then learnt.
    """

    def to_ros(self, sensor_ns: int) -> int:
        """See `SensorClock.to_ros`."""
        is_ros_time = abs(self.offset_ns or 0) < JUMP_NS
        return sensor_ns if is_ros_time else super().to_ros(sensor_ns)
