"""What must be ready before the first events: weights, their engine, compiled kernels."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spike_depth_ros.estimation.engine import ENGINES, Engine
from spike_depth_ros.estimation.estimator import (
    Estimator,
    EstimatorOptions,
    cut_times_ns,
    window_steps,
)
from spike_depth_ros.events.arrays import make_events
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.codecs import CODECS, SMALL_BYTES
from spike_depth_ros.events.config import shipped
from spike_depth_ros.events.windows import Window
from spike_depth_ros.network.checkpoint import Checkpoint, load_checkpoint
from spike_depth_ros.ros.depth_parameters import DepthParameters

CHECKPOINTS = ('models/default.safetensors', 'models/fast.safetensors')
"""What a node runs that is given none: the first whose windows leave time to spare here."""

MOST_BUSY = 0.6
"""Share of the time from window to window that inference may take, alone on an idle machine: the
rest of the node and its neighbours want the processor and the interpreter too."""

WARM_UP_BYTES = 2 * SMALL_BYTES
"""Decoders count first what a payload of so many may hold: that is a kernel too."""

USUAL_SENSOR = (480, 640)
"""Rows and columns of what is prepared for where nothing is known of the camera."""

TRIALS = 3
"""Windows that the warm-up runs to find out how long one takes."""


class Prepared(NamedTuple):
    """A network that is ready to run."""

    path: Path
    checkpoint: Checkpoint
    engine: Engine
    window_s: float  # that a window takes here


def prepare(parameters: DepthParameters, camera: Camera | None, log: Any) -> Prepared:
    """Gets the checkpoint of the parameters ready, or of those that are shipped one that keeps up.

    Args:
        parameters: of the node.
        camera: whose events are awaited, if that is known.
        log: has `info` and `warning` for sentences.

    Raises:
        CheckpointError, ConfigError, EngineError, RuntimeError, MemoryError: it cannot be run.
    """
    given = parameters.checkpoint
    paths = [Path(given)] if given else [shipped(path) for path in CHECKPOINTS]
    for path in paths[:-1]:
        ready = _prepare(path, parameters, camera, log)
        options = parameters.estimator_options
        stride_s = 1e-9 * cut_times_ns(ready.checkpoint.spikes, options)[1]
        if ready.window_s <= MOST_BUSY * stride_s:
            return ready
        log.warning(
            f'{path.name} takes {1e3 * ready.window_s:.0f} ms for each {1e3 * stride_s:.0f} ms '
            'here: taking one that is faster and errs more; give `checkpoint` to decide yourself'
        )
    return _prepare(paths[-1], parameters, camera, log)


def _prepare(path: Path, parameters: DepthParameters, camera: Camera | None, log: Any) -> Prepared:
    path = path.expanduser()
    checkpoint, options = load_checkpoint(path), parameters.estimator_options
    cut_times_ns(checkpoint.spikes, options)  # raises before the long work, not after it
    log.info(f'preparing engine {parameters.engine} and kernels; the first time takes a while')
    engine = ENGINES[parameters.engine](checkpoint, parameters.device, parameters.num_threads)
    return Prepared(path, checkpoint, engine, warm_up(checkpoint, engine, options, camera))


def warm_up(
    checkpoint: Checkpoint, engine: Engine, options: EstimatorOptions, camera: Camera | None
) -> float:
    """Compiles the kernels and runs the network, so that the first messages need not wait.

    Args:
        checkpoint: what is to be run.
        engine: what runs it.
        options: how: the number of time steps of a window follows from them.
        camera: whose events are awaited, if that is known; a VGA sensor's otherwise.

    Returns:
        Seconds that a window of that camera takes from now on.

    Raises:
        EngineError, RuntimeError, MemoryError: the network does not run here.
    """
    for decoder in CODECS.values():
        decoder(8, 8).decode(np.zeros(WARM_UP_BYTES, np.uint8))
    # one step below the full width: shows whether the network takes any multiple it claims to
    odd = checkpoint.spikes.max_width_px - checkpoint.spikes.multiple_px
    _run_s(Estimator(checkpoint, 3 * odd // 4, odd, None, options, engine))
    return min(empty_window_s(checkpoint, engine, options, camera) for _ in range(TRIALS))


def empty_window_s(
    checkpoint: Checkpoint, engine: Engine, options: EstimatorOptions, camera: Camera | None
) -> float:
    """Runs an empty window as `warm_up` does: how long it took [s].

    The first in a thread takes longer, for libraries keep some of their work for each.
    """
    sensor = (camera.height, camera.width) if camera else USUAL_SENSOR
    return _run_s(Estimator(checkpoint, *sensor, camera, options, engine))


def _run_s(estimator: Estimator) -> float:
    """Has one event accumulated and runs an empty window: how long the latter took [s]."""
    for _ in estimator.windower.push(make_events([0], [0], [0], [1])):
        pass
    steps = window_steps(estimator.checkpoint.spikes, estimator.options)
    spikes = np.zeros((steps, 2, estimator.pixels.height, estimator.pixels.width), np.uint8)
    start_s = time.perf_counter()
    estimator.infer(Window(0, 1, spikes, 0, fresh=True))
    return time.perf_counter() - start_s
