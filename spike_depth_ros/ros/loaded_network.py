"""A network that is ready to run: its weights, its engine and compiled kernels."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spike_depth_ros.estimation.depth_frame import DepthFrame
from spike_depth_ros.estimation.engine import ENGINES, Engine
from spike_depth_ros.estimation.estimator import (
    SHIPPED,
    DepthEstimator,
    EstimatorOptions,
    cut_times_ns,
    window_steps,
)
from spike_depth_ros.estimation.motion import Mount, Twist
from spike_depth_ros.estimation.registration import register
from spike_depth_ros.events.arrays import make_events
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.codecs import CODECS, SMALL_BYTES
from spike_depth_ros.events.config import ConfigError, shipped
from spike_depth_ros.events.jumps import JumpFilter
from spike_depth_ros.events.windows import Begun, Window, in_order
from spike_depth_ros.network.checkpoint import Checkpoint, load_checkpoint
from spike_depth_ros.ros import network_choice
from spike_depth_ros.ros.compressed_depth import rvl_encode
from spike_depth_ros.ros.depth_parameters import DepthParameters
from spike_depth_ros.ros.resource_url import local_path

log = logging.getLogger(__name__)

MOST_BUSY = 0.6
"""Share of the time from window to window that inference may take: the rest of the node and its
neighbours need the processor too."""

WARM_UP_BYTES = 2 * SMALL_BYTES
"""A decoder first counts the events of a payload of this size: that is a kernel of its own."""

USUAL_SENSOR = (480, 640)
"""Rows and columns of the sensor that is prepared for where none is known."""

TRIALS = 12
"""Windows that are timed: the shortest time depends least on the load of the machine."""

STEP_TRIALS = 5
"""The same for windows that are run step by step, which are timed at every start."""


class LoadedNetwork(NamedTuple):
    """A network that is ready to run.

    Attributes:
        path: of its checkpoint.
        checkpoint: weights and configuration.
        engine: what runs it.
        step_s: mean time per step of a window whose steps are run one by one, with its map [s].
    """

    path: Path
    checkpoint: Checkpoint
    engine: Engine
    step_s: float = math.inf

    def estimator(
        self, height: int, width: int, camera: Camera | None, options: EstimatorOptions
    ) -> DepthEstimator:
        """An estimator for a sensor of that many rows and columns; it shares the engine."""
        return DepthEstimator(self.checkpoint, height, width, camera, options, self.engine)

    def usual_estimator(self, options: EstimatorOptions, camera: Camera | None) -> DepthEstimator:
        """An estimator for the camera, or for the whole `USUAL_SENSOR` if it is None."""
        if camera is not None:
            return self.estimator(camera.height, camera.width, camera, options)
        return self.estimator(*USUAL_SENSOR, None, dataclasses.replace(options, roi=None))

    def runs_early(self, parameters: DepthParameters) -> bool:
        """Whether the steps of a window are run as their events come, see `early_steps`."""
        if parameters.early_steps != 'auto' or not self.engine.carries:
            return parameters.early_steps == 'on'
        options = parameters.estimator_options
        stride_s = 1e-9 * cut_times_ns(self.checkpoint.spikes, options)[1]
        steps = window_steps(self.checkpoint.spikes, options)
        return steps * self.step_s <= MOST_BUSY * stride_s

    def check(self, parameters: DepthParameters) -> None:
        """Raises a `ConfigError` if the parameters do not fit this network."""
        cut_times_ns(self.checkpoint.spikes, parameters.estimator_options)
        if parameters.early_steps == 'on' and not self.engine.carries:
            raise ConfigError(
                "early_steps is 'on', but this network needs whole windows, being a "
                f'{self.checkpoint.model_name}: use auto or off'
            )

    def run_empty_window(self, options: EstimatorOptions, camera: Camera | None) -> float:
        """Runs an empty window of the camera, of `USUAL_SENSOR` if it is None.

        The first in a thread takes longer, for libraries keep some of their work for each thread.

        Returns:
            How long it took [s]. Of wall clock and processor time the shorter, for with one thread
            the processor time does not depend on the load of the machine.
        """
        return _run_s(self.usual_estimator(options, camera))


def load_network(parameters: DepthParameters, camera: Camera | None) -> LoadedNetwork:
    """Loads and warms up the network that the parameters ask for.

    With `network: auto` that is the one that was chosen before on this machine; the first time,
    the more accurate one if it leaves enough of the time to others, else the faster one.

    Args:
        parameters: of the node.
        camera: the camera whose events are expected, if it is known.

    Raises:
        CheckpointError, ConfigError, EngineError, RuntimeError, MemoryError: it cannot be run.
    """
    if parameters.checkpoint:
        path = Path(local_path(parameters.checkpoint, 'checkpoint')).expanduser()
        return _load(path, parameters, camera)
    if parameters.network != 'auto':
        return _load(shipped(SHIPPED[parameters.network]), parameters, camera)
    with network_choice.remembered(parameters, camera) as choice:
        if choice.network:
            log.info(choice.sentence())
            return _load(shipped(SHIPPED[choice.network]), parameters, camera)
        loaded, choice.network = _choose(parameters, camera, choice)
        log.info(choice.sentence())
    return loaded


def _choose(
    parameters: DepthParameters, camera: Camera | None, choice: network_choice.Choice
) -> tuple[LoadedNetwork, str]:
    """Times the networks from the most accurate one on and takes the first that is fast enough."""
    options, took = parameters.estimator_options, list[str]()
    for name, file in SHIPPED.items():
        loaded = _load(shipped(file), parameters, camera)
        window_s = min(loaded.run_empty_window(options, camera) for _ in range(TRIALS))
        stride_s = 1e-9 * cut_times_ns(loaded.checkpoint.spikes, options)[1]
        took.append(f'{name} {1e3 * window_s:.0f} ms')
        allowed_ms = MOST_BUSY * 1e3 * stride_s
        choice.reason = f'a window takes {", ".join(took)} of {allowed_ms:.0f} ms allowed'
        if window_s <= MOST_BUSY * stride_s:
            break
    return loaded, name


def _load(path: Path, parameters: DepthParameters, camera: Camera | None) -> LoadedNetwork:
    checkpoint, options = load_checkpoint(path), parameters.estimator_options
    cut_times_ns(checkpoint.spikes, options)  # raises before the long work, not after it
    start_s = time.monotonic()
    log.info(f'loading {path}')
    engine = ENGINES[parameters.engine](checkpoint, parameters.device, parameters.num_threads)
    loaded = LoadedNetwork(path, checkpoint, engine)
    loaded.check(parameters)
    warm_up(loaded, options, camera)
    if engine.carries:
        loaded = loaded._replace(step_s=time_steps(loaded, options, camera))
    log.debug(f'loading and warming up took {time.monotonic() - start_s:.1f} s')
    return loaded


def warm_up(loaded: LoadedNetwork, options: EstimatorOptions, camera: Camera | None) -> None:
    """Compiles all kernels, or loads them, and runs the network: the first message need not wait.

    Args:
        loaded: the network.
        options: the number of time steps of a window follows from them.
        camera: the camera whose events are expected, if it is known.

    Raises:
        EngineError, RuntimeError, MemoryError: the network does not run here.
    """
    for decoder in CODECS.values():
        decoder(8, 8).decode(np.zeros(WARM_UP_BYTES, np.uint8))
    rvl_encode(np.zeros((8, 8), np.uint16))
    # less than the full width by one multiple: shows whether the network takes every multiple
    spikes = loaded.checkpoint.spikes
    odd_px = spikes.max_width_px - spikes.multiple_px
    whole = dataclasses.replace(options, roi=None)
    _run_s(loaded.estimator(3 * odd_px // 4, odd_px, None, whole))
    _measure_scale(loaded, whole)
    view, depth_m = Camera(8, 8, 8, 8, 4, 4), np.ones((8, 8), np.float32)
    register(depth_m, depth_m, view, view.rays(), view, Mount(np.eye(3), np.zeros(3)))
    loaded.run_empty_window(options, camera)


def _measure_scale(loaded: LoadedNetwork, options: EstimatorOptions) -> None:
    """Measures the scale of a flat wall that passes by, with events that come out of order."""
    side_px, end_ns = 64, 100_000_000
    camera = Camera(side_px, side_px, side_px, side_px, side_px / 2, side_px / 2)
    estimator = loaded.estimator(side_px, side_px, camera, options)
    index = np.arange(side_px * side_px)
    x, y = index % side_px, index // side_px
    passing = make_events(end_ns - 1 - index[::-1], x, y, (x + y) % 2)
    late = make_events([0, end_ns, 0], [0, 0, 0], [0, 0, 0], [1, 1, 1])
    filtered = JumpFilter()
    for events in (passing, late):
        filtered.push(events)
    in_order(late)
    over_windows = make_events(50_000 * index, x, y, (x + y) % 2)
    for _ in estimator.windower.push(over_windows):
        pass
    sideways = Twist(np.array([5.0, 0.0, 0.0]), np.zeros(3))
    ones = np.ones((side_px, side_px), np.float32)
    wall = DepthFrame(end_ns, 2 * ones, 0.5 * ones, 0.0)
    estimator.look(wall, passing, lambda start_ns, end_ns: (sideways, ''))


def time_steps(loaded: LoadedNetwork, options: EstimatorOptions, camera: Camera | None) -> float:
    """Runs windows step by step: `LoadedNetwork.step_s`, measured as by `run_empty_window`.

    A window has the steps of the training, or fewer. First one is run in two parts, in every way:
    shapes that are new take longer.
    """
    estimator = loaded.usual_estimator(options, camera)
    steps = min(loaded.checkpoint.spikes.steps, window_steps(loaded.checkpoint.spikes, options))
    spikes = np.zeros((steps, 2, estimator.pixels.height, estimator.pixels.width), np.uint8)
    for ready in range(1, steps):
        _run_parts_s(estimator, spikes, (ready,))
    one_by_one = tuple(range(1, steps))
    times_s = [_run_parts_s(estimator, spikes, one_by_one) for _ in range(STEP_TRIALS)]
    return min(times_s) / steps


def _run_parts_s(estimator: DepthEstimator, spikes: np.ndarray, ready: Iterable[int]) -> float:
    """Runs the window `spikes` in parts that end after so many steps [s]."""
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    for steps in ready:
        estimator.run_ahead(Begun(0, spikes, steps, fresh=True))
    estimator.infer(Window(0, 1, spikes, 0, fresh=True))
    return min(time.perf_counter() - start_s, time.process_time() - start_cpu_s)


def _run_s(estimator: DepthEstimator) -> float:
    """Has a few events accumulated and runs an empty window: how long the latter took [s]."""
    several = make_events([0, 1, 400_000_000], [0, 0, 0], [0, 0, 0], [1, 1, 1])
    for _ in estimator.windower.push(in_order(several)):  # across the ends of windows
        pass
    steps = window_steps(estimator.checkpoint.spikes, estimator.options)
    spikes = np.zeros((steps, 2, estimator.pixels.height, estimator.pixels.width), np.uint8)
    return _run_parts_s(estimator, spikes, ())
