"""Measures depth on whole recordings, once for each source of its metric scale.

The network runs once per window. Its depth is scaled as each source says and compared with the
ground truth of the recording, so that all sources are measured on the same depth maps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.estimation.depth_frame import (
    DepthFrame,
    Limits,
    expected_deviation,
    interpret,
    unscaled_m,
)
from spike_depth_ros.estimation.engine import Engine
from spike_depth_ros.estimation.estimator import DepthEstimator, EstimatorOptions
from spike_depth_ros.estimation.motion import (
    TWIST_TYPES,
    Mount,
    Odometry,
    StampedTwist,
    Twist,
    mount_of,
    mount_of_transform,
    pose_of,
    twist_of,
)
from spike_depth_ros.estimation.scale import LONGEST_NS
from spike_depth_ros.estimation.tracking import ScaleTracker, between
from spike_depth_ros.events.arrays import empty_events, join_events
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.learning.datasets.sample import bin_depth
from spike_depth_ros.learning.metrics import depth_errors, log_scale
from spike_depth_ros.learning.pages import Table
from spike_depth_ros.learning.settings import OdometryErrors, ScaleSettings
from spike_depth_ros.network.checkpoint import Checkpoint
from spike_depth_ros.recordings import BagError, Recording, open_recording

NO_LIMITS = Limits(0.0, math.inf, 0.0)

TRUTH_TOPIC = '/ground_truth/depth'

APART_NS = 12_000_000
"""A depth map is compared with the ground truth nearest in time, at most this far from it."""

LATEST_NS = 60_000_000
"""Odometry up to this much newer than a depth map is used for it, as in depth_node."""


class ScaleFigures(NamedTuple):
    """The figures of one source of the scale on one recording, means over its depth maps.

    Attributes:
        maps: number of depth maps compared.
        abs_rel: Abs Rel.
        delta1: fraction of pixels within a factor of 1.25.
        ln_scale_error: |ln s|, see `learning.metrics`.
        jitter: root mean square of the steps of ln scale from map to map, of the factor applied.
        known: fraction of the maps for which the source had a scale.
        look_ms: median processor time of one measurement of the scale; NaN where there is none.
    """

    maps: int
    abs_rel: float
    delta1: float
    ln_scale_error: float
    jitter: float
    known: float
    look_ms: float


class _Tally:
    """Collects the figures of one source."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, float, float]] = []
        self.steps: list[float] = []
        self.known: list[bool] = []
        self.look_ms: list[float] = []
        self.last = math.nan

    def step(self, ln_scale: float, known: bool) -> None:
        """Notes the scale of one map."""
        self.known.append(known)
        if known and math.isfinite(self.last):
            self.steps.append(ln_scale - self.last)
        self.last = ln_scale if known else math.nan

    def figures(self) -> ScaleFigures:
        """The means."""
        abs_rel, delta1, error = np.nanmean(self.rows, axis=0).tolist()
        jitter = float(np.sqrt(np.mean(np.square(self.steps)))) if self.steps else math.nan
        look_ms = float(np.median(self.look_ms)) if self.look_ms else math.nan
        return ScaleFigures(
            len(self.rows), abs_rel, delta1, error, jitter, float(np.mean(self.known)), look_ms
        )


def measure(
    path: str | Path,
    checkpoint: Checkpoint,
    settings: ScaleSettings,
    engine: str | Engine = 'torch',
    device: str = 'auto',
    threads: int = 1,
) -> dict[str, ScaleFigures]:
    """Measures one recording.

    Args:
        path: a recording with events, their calibration, ground truth and, if asked for, odometry.
        checkpoint: to measure.
        settings: what to measure.
        engine: see `DepthEstimator`, as the next two.
        device: see there.
        threads: see there.

    Returns:
        Source of the scale -> its figures.

    Raises:
        BagError: the recording lacks one of these, or is damaged.
        MotionError: the pose of the camera is invalid.
    """
    with open_recording(path) as recording:
        camera = recording.camera()
        if camera is None:
            raise BagError(f'{path} holds no calibration of the events (camera_info)')
        estimator = DepthEstimator(
            checkpoint, camera.height, camera.width, camera, EstimatorOptions(streaming=True),
            engine, device, threads,
        )  # fmt: skip
        run = _Run(recording, estimator, camera, settings)
        recent = empty_events()
        for events in recording.events():
            recent = join_events([recent, events])
            for window in estimator.windower.push(events):
                run.take(estimator.maps(window), window.t1_ns, recent)
            recent = between(recent, int(recent['t_ns'][-1]) - 2 * LONGEST_NS, 2**62)
    return run.figures()


class _Run:
    """One recording while it is measured."""

    def __init__(
        self,
        recording: Recording,
        estimator: DepthEstimator,
        camera: Camera,
        settings: ScaleSettings,
    ) -> None:
        assert estimator.camera is not None
        self._path, self._settings, self._estimator = recording.path, settings, estimator
        self._truth = _Truth(recording, camera, estimator.pixels.factor)
        self._trackers = {
            name: ScaleTracker(camera, estimator.camera)
            for name in settings.scales
            if name in ('odometry', 'height')
        }
        self._odometry, self._mount = Odometry(), mount_of(np.eye(3), np.zeros(3))
        self._samples: Iterator[StampedTwist] = iter(())
        if 'odometry' in settings.scales:
            topic = _odometry_topic(recording)
            self._mount = _mount(recording, topic, settings.camera_pose)
            self._samples = with_errors(
                map(twist_of, recording.messages(topic)), settings.odometry_errors
            )
        self._next = next(self._samples, None)
        self._tallies = {name: _Tally() for name in settings.scales}
        self._start_ns: int | None = None

    def take(self, maps: NDArray[Any], stamp_ns: int, events: NDArray[Any]) -> None:
        """Takes the maps of the network at one time, and the events before it."""
        if self._start_ns is None:
            self._start_ns = stamp_ns
        truth_m = self._truth.at(stamp_ns)
        counts = stamp_ns >= self._start_ns + round(self._settings.skip_s * 1e9)
        plain_m, _ = self._depth(maps, 0.0)
        for name, tally in self._tallies.items():
            ln_scale, known = self._scale(name, plain_m, truth_m)
            depth_m, confidence = self._depth(maps, ln_scale)
            if counts and truth_m is not None:
                error = abs(log_scale(depth_m, truth_m, self._settings.cap_m))
                errors = depth_errors(depth_m, truth_m, self._settings.cap_m)
                tally.rows.append((errors['abs_rel'], errors['delta1'], error))
                tally.step(ln_scale, known)
            if name in self._trackers:
                frame = DepthFrame(stamp_ns, depth_m, confidence, ln_scale)
                start_s = time.thread_time()
                self._look(name, frame, events)
                tally.look_ms.append((time.thread_time() - start_s) * 1e3)

    def figures(self) -> dict[str, ScaleFigures]:
        """The figures so far.

        Raises:
            BagError: no depth map was compared.
        """
        if not all(tally.rows for tally in self._tallies.values()):
            raise BagError(
                f'{self._path} has no ground truth within {APART_NS / 1e6:g} ms of a depth map '
                f'after the first {self._settings.skip_s:g} s: is it longer, and of one clock?'
            )
        return {name: tally.figures() for name, tally in self._tallies.items()}

    def _scale(
        self, name: str, plain_m: NDArray[Any], truth_m: NDArray[Any] | None
    ) -> tuple[float, bool]:
        """Returns ln scale of the next map by one source, and whether it has one."""
        if name == 'oracle':
            found = math.nan
            if truth_m is not None:
                found = -log_scale(plain_m, truth_m, self._settings.cap_m)
            return (found, True) if math.isfinite(found) else (0.0, False)
        if name == 'none':
            return 0.0, True
        state = self._trackers[name].state
        return state.ln_scale, state.known

    def _look(self, name: str, frame: DepthFrame, events: NDArray[Any]) -> None:
        tracker = self._trackers[name]
        if name == 'height':
            tracker.look_down(unscaled_m(frame), frame.stamp_ns, self._settings.camera_height_m)
            return
        while self._next is not None and self._next.stamp_ns <= frame.stamp_ns + LATEST_NS:
            self._odometry.add(self._next.stamp_ns, self._next.twist)
            self._next = next(self._samples, None)
        tracker.look(
            unscaled_m(frame), frame.stamp_ns, events, self._motion, expected_deviation(frame)
        )

    def _motion(self, start_ns: int, end_ns: int) -> tuple[Twist | None, str]:
        base, reason = self._odometry.mean(start_ns, end_ns)
        return (None if base is None else self._mount.camera_twist(base)), reason

    def _depth(self, maps: NDArray[Any], ln_scale: float) -> tuple[NDArray[Any], NDArray[Any]]:
        metres = self._estimator.metres_per_canonical * math.exp(ln_scale)
        return interpret(maps, self._estimator.checkpoint.depth_range, metres, NO_LIMITS)


def with_errors(samples: Iterator[StampedTwist], errors: OdometryErrors) -> Iterator[StampedTwist]:
    """Adds errors to odometry; the same noise in every run."""
    rng = np.random.default_rng(0)
    due_ns: int | None = None
    for sample in samples:
        if errors.rate_hz:
            if due_ns is not None and sample.stamp_ns < due_ns:
                continue
            due_ns = sample.stamp_ns + round(1e9 / errors.rate_hz) - 1_000_000
        velocity = sample.twist.velocity_mps * errors.factor
        twist = Twist(
            velocity + rng.normal(0.0, errors.noise_mps, 3),
            sample.twist.rate_radps + rng.normal(0.0, errors.noise_radps, 3),
        )
        late_ns = round(errors.late_ms * 1e6)
        yield sample._replace(stamp_ns=sample.stamp_ns + late_ns, twist=twist)


def _odometry_topic(recording: Recording) -> str:
    found = [name for name, kind in recording.types.items() if kind in TWIST_TYPES]
    if len(found) != 1:
        raise BagError(f'{recording.path} has {found or "no"} topics of odometry, expected one')
    return found[0]


def _mount(recording: Recording, topic: str, camera_pose: str) -> Mount:
    """Where the camera is in the frame of the odometry's twist.

    Raises:
        BagError: nothing says so.
        MotionError: the pose is invalid.
    """
    if camera_pose:
        return pose_of(camera_pose)
    info, first = recording.camera_info(), next(recording.messages(topic), None)
    base = '' if first is None else twist_of(first).frame_id
    found = static_mount(recording, base, info.header.frame_id)
    if found is None:
        raise BagError(
            f'{topic} of {recording.path} is the motion of {base!r}, the events are in '
            f'{info.header.frame_id!r}: give camera_pose'
        )
    return found


def static_mount(recording: Recording, parent: str, child: str) -> Mount | None:
    """The pose of one frame in another by one transform on /tf_static; None if there is none."""
    if parent == child:
        return mount_of(np.eye(3), np.zeros(3))
    if '/tf_static' not in recording.types:
        return None
    for message in recording.messages('/tf_static'):
        for stamped in message.transforms:
            if (stamped.header.frame_id, stamped.child_frame_id) == (parent, child):
                return mount_of_transform(stamped.transform)
    return None


class _Truth:
    """The ground truth of a recording on the pixels of the depth frames.

    Raises:
        BagError: the recording has no ground truth, or no calibration of it.
    """

    def __init__(self, recording: Recording, camera: Camera, factor: int) -> None:
        truth, info = recording.camera(TRUTH_TOPIC), recording.camera_info()
        if TRUTH_TOPIC not in recording.types or truth is None:
            raise BagError(f'{recording.path} has no {TRUTH_TOPIC} with a camera_info')
        frame = recording.camera_info(TRUTH_TOPIC).header.frame_id
        mount = static_mount(recording, info.header.frame_id, frame)
        if mount is None:
            raise BagError(
                f'{recording.path} has no transform from {info.header.frame_id!r} to {frame!r}'
            )
        self._maps, self._factor = recording.depth(TRUTH_TOPIC), factor
        self._last = self._next = next(self._maps, None)
        to_view = camera.to_rectified() @ mount.rotation @ truth.to_rectified().T
        self._at, self._stretch = pixels_of_view(camera.rectified(), truth, to_view)

    def at(self, stamp_ns: int) -> NDArray[Any] | None:
        """(H, W) float32 metres near a time that does not fall; None without a map there."""
        while self._next is not None and self._next.stamp_ns <= stamp_ns:
            self._last, self._next = self._next, next(self._maps, None)
        near = [image for image in (self._last, self._next) if image is not None]
        image = min(near, key=lambda image: abs(image.stamp_ns - stamp_ns), default=None)
        if image is None or abs(image.stamp_ns - stamp_ns) > APART_NS:
            return None
        columns, rows = self._at
        seen_m = cv2.remap(
            image.pixels, columns, rows, cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_CONSTANT, borderValue=math.nan,
        )  # fmt: skip
        return bin_depth(seen_m * self._stretch, self._factor)


def pixels_of_view(
    view: Camera, other: Camera, rotation: NDArray[Any]
) -> tuple[tuple[NDArray[Any], NDArray[Any]], NDArray[Any]]:
    """Where another camera at the same place sees what each pixel of a view sees.

    Args:
        view: without distortion.
        other: with any lens.
        rotation: (3, 3) takes directions of the other camera to those of the view.

    Returns:
        Columns and rows, (H, W) float32, NaN behind the other camera; and (H, W) float32 depth in
        the view over depth in the other camera.
    """
    rays = view.rays().reshape(-1, 3).astype(np.float64) @ rotation
    with np.errstate(divide='ignore', invalid='ignore'):
        flat = np.where(rays[:, 2:] > 0, rays[:, :2] / rays[:, 2:], np.nan)
    pixels = other.project(flat).reshape(view.height, view.width, 2).astype(np.float32)
    stretch = (1.0 / rays[:, 2]).reshape(view.height, view.width).astype(np.float32)
    return (np.ascontiguousarray(pixels[..., 0]), np.ascontiguousarray(pixels[..., 1])), stretch


def recording_table(results: dict[str, dict[str, ScaleFigures]]) -> Table:
    """Returns Abs Rel of each recording by source of the scale."""
    scales = list(next(iter(results.values())))
    rows = [[name, *(found[scale].abs_rel for scale in scales)] for name, found in results.items()]
    return Table(['Abs Rel', *scales], rows)


def mean_table(results: dict[str, dict[str, ScaleFigures]]) -> Table:
    """Returns the means over the recordings of all figures by source of the scale."""
    names = ['maps', 'Abs Rel', 'δ<1.25', 'error of ln scale', 'jitter of the scale',
             'maps with a scale', 'ms per measurement']  # fmt: skip
    rows: list[list[Any]] = []
    for scale in next(iter(results.values())):
        columns = np.array([found[scale] for found in results.values()], np.float64).T
        means = [float(c[~np.isnan(c)].mean()) if np.isfinite(c).any() else math.nan
                 for c in columns[1:]]  # fmt: skip
        rows.append([scale, int(columns[0].sum()), *means])
    return Table([f'{len(results)} recordings', *names], rows)
