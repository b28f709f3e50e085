"""The scale of one camera's depth while it runs: which window is looked at, and what is known."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable

import numpy as np

from spike_depth_ros.estimation.ground import ground_scale
from spike_depth_ros.estimation.motion import Twist
from spike_depth_ros.estimation.scale import (
    LEAST_GAIN,
    LONGEST_NS,
    OWN_DEVIATION,
    PART_NS,
    ScaleEstimate,
    nothing,
    scale,
    span_ns,
)
from spike_depth_ros.estimation.scale_filter import ScaleFilter, ScaleState
from spike_depth_ros.events.camera import Camera

Motion = Callable[[int, int], tuple[Twist | None, str]]
"""Mean twist of the camera between two sensor times [ns], or None and why there is none."""

RECENT_NS = 50_000_000
"""The motion in this time says how long a window should be."""

DISAGREEING = 0.5
"""Factor on the confidence of depth that does not agree with the motion."""


class ScaleTracker:
    """Finds the scale of depth frames and holds it.

    One thread measures, another reads `state`.

    Args:
        camera: the sensor with its lens.
        view: the camera of the depth frames.

    Attributes:
        state: what is known now.
        reason: why the last window said nothing; empty if it did say something.
        looked_ns: time of the depth map that was looked at last.
    """

    def __init__(self, camera: Camera, view: Camera) -> None:
        self.reason = 'no window has been looked at yet'
        self.looked_ns: int | None = None
        self._camera, self._view = camera, view
        self._axes = camera.to_rectified()
        self._filter = ScaleFilter()
        self.state: ScaleState = self._filter.state(0)

    def reset(self) -> None:
        """Forgets the scale."""
        self._filter = ScaleFilter()
        self.state = self._filter.state(0)

    def look(
        self,
        depth_m: np.ndarray,
        stamp_ns: int,
        events: np.ndarray,
        motion: Motion,
        own_deviation: float = OWN_DEVIATION,
    ) -> ScaleState:
        """Looks at the events before one depth map.

        Args:
            depth_m: (H, W) without any scale applied.
            stamp_ns: its time.
            events: (N,) `EVENT_DTYPE` in order of time, at least of the last `LONGEST_NS`.
            motion: of the camera in its optical frame.
            own_deviation: of the ln scale of `depth_m`, as far as the network knows.
        """
        estimate = self._estimate(depth_m, stamp_ns, events, motion)
        return self._take(stamp_ns, estimate, own_deviation)

    def look_down(self, depth_m: np.ndarray, stamp_ns: int, camera_height_m: float) -> ScaleState:
        """Looks at the ground in one depth map, without any scale applied."""
        return self._take(stamp_ns, ground_scale(depth_m, self._view, camera_height_m))

    @property
    def agrees(self) -> bool:
        """False once depth and motion together do not explain the events."""
        return not self.state.agreement < LEAST_GAIN

    def confidence(self, ratio: float) -> float:
        """Probability that the scale is right within a factor, 1 while there is none."""
        factor = 1.0 if self.agrees else DISAGREEING
        if not self.state.known:
            return factor
        return factor * math.erf(math.log(ratio) / (self.state.deviation * math.sqrt(2.0)))

    def _take(
        self, stamp_ns: int, estimate: ScaleEstimate, own: float = OWN_DEVIATION
    ) -> ScaleState:
        self.reason = estimate.reason
        self.state = self._filter.update(stamp_ns, estimate, own)
        self.looked_ns = stamp_ns
        return self.state

    def _estimate(
        self, depth_m: np.ndarray, stamp_ns: int, events: np.ndarray, motion: Motion
    ) -> ScaleEstimate:
        plan = self._filter.plan()
        recent = between(events, stamp_ns - LONGEST_NS, stamp_ns)
        twist, reason = motion(stamp_ns - RECENT_NS, stamp_ns)
        if twist is None:
            return nothing(reason)
        if not np.isfinite([twist.velocity_mps, twist.rate_radps]).all():
            return nothing('the twist is not finite')
        if not np.any(twist.velocity_mps):
            return nothing('the camera stands still, or only turns')
        twist = Twist(*(self._axes @ part for part in twist))
        long_ns = span_ns(recent, depth_m, self._camera, self._view, twist, plan.near)
        if not long_ns:
            return nothing('the camera moves too slowly for what it sees')
        parts = -(-long_ns // PART_NS)
        twists = []
        for k in range(1, parts + 1):
            twist, reason = motion(stamp_ns - long_ns * k // parts, stamp_ns)
            if twist is None:
                return nothing(reason)
            twists.append(np.concatenate([self._axes @ part for part in twist]))
        chosen = between(recent, stamp_ns - long_ns, stamp_ns)
        return scale(chosen, depth_m, stamp_ns, self._camera, self._view, np.array(twists), plan)


def between(events: np.ndarray, start_ns: int, end_ns: int) -> np.ndarray:
    """The events with times in [start, end).

    `bisect` reads few elements, where `np.searchsorted` would first copy the unaligned times.
    """
    times_ns = events['t_ns']
    first = bisect_left(times_ns, start_ns)
    return events[first : bisect_left(times_ns, end_ns, first)]
