"""Events in, metric depth out: the heart of the package, free of ROS.

A windower cuts the event stream into spike tensors by sensor time; a `DepthEstimator` turns each
of them into a `DepthFrame`. The two may run in two threads; `DepthEstimator.push` does both.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spike_depth_ros.estimation.depth_frame import (
    GOOD_RATIO,
    DepthFrame,
    Limits,
    expected_deviation,
    interpret,
    unscaled_m,
)
from spike_depth_ros.estimation.engine import ENGINES, Engine
from spike_depth_ros.estimation.familiarity import Describer, from_card
from spike_depth_ros.estimation.motion import Twist
from spike_depth_ros.estimation.scale import LONGEST_NS
from spike_depth_ros.estimation.tracking import Motion, ScaleTracker, between
from spike_depth_ros.events.arrays import empty_events, join_events
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.config import ConfigError, SpikeConfig, require, shipped
from spike_depth_ros.events.spikes import PixelMap, Region, pixel_map
from spike_depth_ros.events.windows import Begun, TimeWindower, Window, check_cuts
from spike_depth_ros.network.checkpoint import Checkpoint, load_checkpoint

MAX_STEPS = 128
"""Time steps of a window that runs on from the one before: more would be seconds of work."""


@dataclasses.dataclass(frozen=True)
class EstimatorOptions:
    """What a user of the estimator may choose; zero means: as the checkpoint was trained.

    Attributes:
        window_ms: length of a window; 0 for the checkpoint's.
        stride_ms: time from one depth map to the next; 0 for the window's length.
        streaming: membrane state is carried from window to window, each covering one stride.
        rectify: undistort events by the calibration, so that depth is of the ideal pinhole.
        min_depth_m: nearer answers become -inf.
        max_depth_m: farther answers become +inf.
        min_confidence: less certain answers become NaN.
        roi: the only part of the image that the network computes; None for all of it.
    """

    window_ms: float = 0.0
    stride_ms: float = 0.0
    streaming: bool = False
    rectify: bool = True
    min_depth_m: float = 0.0
    max_depth_m: float = math.inf
    min_confidence: float = 0.0
    roi: Region | None = None

    def __post_init__(self) -> None:
        for name in ('window_ms', 'stride_ms'):
            value = getattr(self, name)
            require(value == 0 or 0.5 <= value <= 10_000, name, value, '0, or 0.5 to 10000')
        require(0 <= self.min_depth_m < self.max_depth_m, 'min_depth_m', self.min_depth_m,
                f'0 <= min_depth_m < max_depth_m = {self.max_depth_m}')  # fmt: skip
        require(0 <= self.min_confidence <= 1, 'min_confidence', self.min_confidence, '0 to 1')

    @functools.cached_property
    def limits(self) -> Limits:
        """Which answers become marks."""
        return Limits(self.min_depth_m, self.max_depth_m, self.min_confidence)

    @functools.cached_property
    def without_limits(self) -> EstimatorOptions:
        """The same with every answer shown."""
        return dataclasses.replace(self, min_depth_m=0.0, max_depth_m=math.inf, min_confidence=0.0)


SHIPPED = {'default': 'models/default.safetensors', 'fast': 'models/fast.safetensors'}
"""Name -> checkpoint that comes with the package, the most accurate one first."""


def checkpoint_path(checkpoint: str | Path) -> Path:
    """Returns the path of a checkpoint: that of a shipped one for a key of `SHIPPED`."""
    name = str(checkpoint)
    return shipped(SHIPPED[name]) if name in SHIPPED else Path(checkpoint)


class _Ahead(NamedTuple):
    """How far the network has come in a window that may still take events."""

    spikes: np.ndarray  # of the window, and of no other
    steps: int
    state: Any


class DepthEstimator:
    """Runs one checkpoint on the events of one sensor.

    Args:
        checkpoint: a loaded one, the name of a shipped one ('default', 'fast'), or a path.
        sensor_height: rows of the sensor [px].
        sensor_width: columns of the sensor [px].
        camera: calibration of the sensor. Without one, depth is in metres only as far as the
            lens is like the training's.
        options: what the user chose.
        engine: a key of `ENGINES`, or an engine of this checkpoint to share.
        device: 'auto', 'cpu' or 'cuda'; not used for a shared engine.
        threads: for inference; 0 for all cores but one; not used for a shared engine.

    Attributes:
        pixels: how sensor pixels map to the network's grid.
        camera: intrinsics of the depth frames' grid, None without a calibration.
        engine: what runs the network.
        windower: what cuts the stream.
        familiarity: factor on the confidence of the last window, below 1 where the window is
            unlike those of the calibration; always 1 for a checkpoint without such statistics.
        tracker: what follows the scale of depth by the camera's motion; None without a
            calibration.

    Raises:
        CalibrationError: the calibration is for another sensor.
        CheckpointError: the checkpoint is missing or damaged.
        ConfigError: the options contradict each other, or the region is not on the sensor.
        EngineError: the engine or the device is not to be had.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | str | Path,
        sensor_height: int,
        sensor_width: int,
        camera: Camera | None = None,
        options: EstimatorOptions | None = None,
        engine: str | Engine = 'torch',
        device: str = 'auto',
        threads: int = 0,
    ) -> None:
        self.options = options or EstimatorOptions()
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = load_checkpoint(checkpoint_path(checkpoint))
        self.checkpoint = checkpoint
        if camera is not None:
            camera.check_sensor(sensor_height, sensor_width)
        rectifying = camera if self.options.rectify else None
        self.pixels = pixel_map(
            sensor_height, sensor_width, checkpoint.spikes, rectifying, region=self.options.roi
        )
        self.camera = None
        self.tracker: ScaleTracker | None = None
        if camera is not None:
            seen = camera.rectified() if self.options.rectify else camera
            self._view = seen.binned(self.pixels.factor)
            self.camera = self._view.cropped(
                self.pixels.left,
                self.pixels.top,
                self.pixels.image_width,
                self.pixels.image_height,
            )
            self.tracker = ScaleTracker(camera, self._view)
        self._recent = empty_events()
        self.windower = make_windower(self.pixels, checkpoint.spikes, self.options)
        if isinstance(engine, str):
            if engine not in ENGINES:
                raise ConfigError(f'engine is {engine!r}, expected one of {sorted(ENGINES)}')
            engine = ENGINES[engine](checkpoint, device, threads)
        self.engine: Engine = engine
        self.familiarity = 1.0
        self._known, self._describe = from_card(checkpoint.card), Describer()
        self._state: Any = None  # at the end of the last window
        self._last_end_ns: int | None = None
        self._ahead: _Ahead | None = None

    @property
    def metres_per_canonical(self) -> float:
        """Ratio f / f_canonical of the depth frames' grid; 1 where f is not known."""
        if self.camera is None:
            return 1.0
        focal_px = math.sqrt(self.camera.fx * self.camera.fy)
        return focal_px / self.checkpoint.depth_range.focal_px

    def infer(self, window: Window, limits: Limits | None = None) -> DepthFrame:
        """Estimates depth at the end of one window.

        Args:
            window: the next one, of `windower`.
            limits: which answers become marks; by default those of the options.

        Windows come in order, see `maps`.
        """
        maps, ln_scale, right = self.maps(window), 0.0, 1.0
        if self.tracker is not None:
            ln_scale = self.tracker.state.ln_scale
            right = self.tracker.confidence(GOOD_RATIO)
        trust = self.familiarity * right
        metres = self.metres_per_canonical * math.exp(ln_scale)
        depth_m, confidence = interpret(
            maps, self.checkpoint.depth_range, metres, limits or self.options.limits, trust
        )
        return DepthFrame(window.t1_ns, depth_m, confidence, ln_scale, right)

    def maps(self, window: Window) -> np.ndarray:
        """Runs the network on the next window; returns its maps for `interpret`.

        Carried state is kept only across windows that touch: after a jump, or where a window was
        dropped, the network starts from rest. Steps that `run_ahead` has done are not run again.
        """
        before, ahead = self._state_at(window), self._ahead
        if ahead is None or ahead.spikes is not window.spikes or window.revised:
            ahead = _Ahead(window.spikes, 0, before)
        self._state = self._ahead = None  # they serve once, also if this fails
        maps, state = self.engine.infer(window.spikes[ahead.steps :], ahead.state)
        self._state = state if self.options.streaming else None
        self._last_end_ns = window.t1_ns
        inside = np.s_[..., : self.pixels.image_height, : self.pixels.image_width]
        if self._known is not None:
            features = self._describe(window.spikes[inside], maps[inside], before is None)
            self.familiarity = float(self._known.factor(features))
        return maps[inside]

    def run_ahead(self, begun: Begun) -> None:
        """Runs the steps of a window that are over, so that fewer remain when it is complete.

        The depth is the same without it: a window that is revised is run from its beginning.
        """
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead.spikes is not begun.spikes:
            # a copy, for a state serves once
            ahead = _Ahead(begun.spikes, 0, copy.deepcopy(self._state_at(begun)))
        state = self.engine.carry(begun.spikes[ahead.steps : begun.ready], ahead.state)
        self._ahead = _Ahead(begun.spikes, begun.ready, state)

    def _state_at(self, window: Window | Begun) -> Any:
        """The state at the beginning of a window; None for rest."""
        touches = not window.fresh and window.t0_ns == self._last_end_ns
        return self._state if touches and self.options.streaming else None

    def look(self, frame: DepthFrame, events: np.ndarray, motion: Motion) -> None:
        """Learns the scale of later frames from this one; may run in a thread of its own.

        Args:
            frame: from `infer`.
            events: (N,) `EVENT_DTYPE` in order of time, of the last `LONGEST_NS` before it.
            motion: of the camera, in its optical frame.
        """
        if self.tracker is not None:
            self.tracker.look(
                self._unscaled_m(frame), frame.stamp_ns, events, motion, expected_deviation(frame)
            )

    def look_down(self, frame: DepthFrame, camera_height_m: float) -> None:
        """Learns the scale of later frames from the ground in this one, likewise."""
        if self.tracker is not None:
            self.tracker.look_down(self._unscaled_m(frame), frame.stamp_ns, camera_height_m)

    def _unscaled_m(self, frame: DepthFrame) -> np.ndarray:
        """Depth of the network alone on the grid of the whole sensor, NaN outside the region."""
        if self.options.roi is None:
            return unscaled_m(frame)
        depth_m = np.full((self._view.height, self._view.width), np.nan, np.float32)
        pixels = self.pixels
        depth_m[pixels.top : pixels.top + pixels.image_height,
                pixels.left : pixels.left + pixels.image_width] = unscaled_m(frame)  # fmt: skip
        return depth_m

    def push(self, events: np.ndarray, twist: Twist | None = None) -> list[DepthFrame]:
        """Takes the next events of the stream, returns the depth frames that they complete.

        Args:
            events: (N,) `EVENT_DTYPE`.
            twist: how the camera moves meanwhile, in its optical frame, for the scale of depth.
        """
        if twist is None:
            return [self.infer(window) for window in self.windower.push(events)]
        self._recent = join_events([self._recent, events])
        frames = []
        for window in self.windower.push(events):
            frames.append(self.infer(window))
            self.look(frames[-1], self._recent, lambda start_ns, end_ns: (twist, ''))
        if len(self._recent):
            newest_ns = int(self._recent['t_ns'][-1])
            self._recent = between(self._recent, newest_ns - LONGEST_NS, newest_ns + 1)
        return frames

    def reset(self) -> None:
        """Forgets all events and all carried state."""
        self.windower.reset()
        self._recent = empty_events()
        if self.tracker is not None:
            self.tracker.reset()
        self._state = self._ahead = self._last_end_ns = None


def cut_times_ns(spikes: SpikeConfig, options: EstimatorOptions) -> tuple[int, int]:
    """Length of a window, and time from one to the next: zeros are as the checkpoint says [ns].

    Raises:
        ConfigError: the stride is longer than the window or very much shorter, or, when
            streaming, of more than `MAX_STEPS` time steps.
    """
    window_ms = options.window_ms or spikes.window_ms
    window_ns, stride_ns = round(window_ms * 1e6), round((options.stride_ms or window_ms) * 1e6)
    if not options.streaming:
        check_cuts(window_ns, stride_ns)
    if options.streaming and spikes.steps * stride_ns > MAX_STEPS * window_ns:
        raise ConfigError(
            f'stride_ms is {stride_ns / 1e6:g}, expected at most {MAX_STEPS} time steps of '
            f'{window_ns / spikes.steps / 1e6:g} ms'
        )
    return window_ns, stride_ns


def make_windower(
    pixels: PixelMap, spikes: SpikeConfig, options: EstimatorOptions
) -> TimeWindower:
    """Builds the windower that the options ask for.

    When streaming, a window covers one stride, in as many steps of the trained length as fit.

    Raises:
        ConfigError: see `cut_times_ns`.
    """
    window_ns, stride_ns = cut_times_ns(spikes, options)
    steps = window_steps(spikes, options)
    return TimeWindower(pixels, steps, stride_ns if options.streaming else window_ns, stride_ns)


def window_steps(spikes: SpikeConfig, options: EstimatorOptions) -> int:
    """Number T of time bins in the windows of `make_windower`."""
    if not options.streaming:
        return spikes.steps
    window_ns, stride_ns = cut_times_ns(spikes, options)
    return max(1, round(spikes.steps * stride_ns / window_ns))
