"""`spike_depth bench infer`: measures depth maps per second, by engine and image size."""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.cli.report import BenchRow, bench_row, print_bench, time_jobs

if TYPE_CHECKING is True:  # jsonargparse executes a plain TYPE_CHECKING block
    from torch import nn

    from spike_depth_ros.estimation.engine import Engine
    from spike_depth_ros.network.checkpoint import Checkpoint

SIZES_PX: dict[str, tuple[int, int]] = {
    '346x260 native': (264, 352),
    '640x480 binned 2x2': (240, 320),
    '640x480 native': (480, 640),
}
"""Image size in words -> height and width of the spike tensor, padded to multiples of 8."""

UNIT = 'maps/s'
PEER = 'e2depth_published'

STREAMED_STEPS = 4
"""Time steps of the full window that a single streaming step is compared with."""

log = logging.getLogger(__name__)


def infer(
    checkpoint: str,
    json: bool = False,
    engines: tuple[str, ...] = ('torch', 'torch_bf16', 'torch_int8', 'cuda'),
    threads: int = 0,
    rounds: int = 15,
) -> None:
    """Measures the engines on a stream of windows, batch 1, next to E2Depth and spikingjelly.

    Engines that this machine does not support are skipped and named in the log.

    Args:
        checkpoint: the spiking transformer to run.
        json: print one JSON object instead of a table.
        engines: keys of `ENGINES`.
        threads: number of threads for inference; 0: all cores.
        rounds: number of runs; the table shows their median and spread.
    """
    from spike_depth_ros.network.checkpoint import load_checkpoint

    cores = threads or len(os.sched_getaffinity(0))
    print_bench(list(infer_rows(load_checkpoint(checkpoint), engines, cores, rounds)), json)


def infer_rows(
    checkpoint: Checkpoint, names: tuple[str, ...], threads: int, rounds: int
) -> Iterator[BenchRow]:
    """Yields the rows of `infer`."""
    running = _start(checkpoint, names, threads)
    first_size_s: dict[str, NDArray[np.float64]] = {}
    for image, size in SIZES_PX.items():
        spikes = _spikes(checkpoint.spikes.steps, *size)
        jobs = [_stream(engine, spikes) for engine in running.values()]
        for name, time_s in zip(running, time_jobs(jobs, rounds), strict=True):
            yield bench_row(f'{name}, {image}', 1 / time_s, UNIT)
            if image == next(iter(SIZES_PX)):
                first_size_s[name] = time_s
    yield from _peer_rows(checkpoint, running, threads, rounds)
    for name, engine in running.items():
        yield from _step_rows(name, engine, rounds)
    for name, time_s in first_size_s.items():
        yield _roofline_row(name, checkpoint, time_s, rounds)


def _start(checkpoint: Checkpoint, names: tuple[str, ...], threads: int) -> dict[str, Engine]:
    """Starts those of the named engines that this machine supports."""
    from spike_depth_ros.estimation.engine import ENGINES, EngineError, has_bfloat16

    running: dict[str, Engine] = {}
    for name in names:
        if name.endswith('bf16') and not has_bfloat16():
            log.info('skipping %s: this processor would emulate bfloat16', name)
            continue
        try:
            running[name] = ENGINES[name](checkpoint, 'cuda' if name == 'cuda' else 'cpu', threads)
        except EngineError as error:
            log.info('skipping %s: %s', name, error)
    return running


def _spikes(steps: int, height: int, width: int) -> NDArray[np.uint8]:
    """Returns a window as dense as in driving: a tenth of the pixels fire per step, clustered."""
    rng = np.random.default_rng(0)
    rate = np.kron(rng.random((height // 8, width // 8)) ** 4, np.ones((8, 8)))
    return rng.poisson(0.5 * rate, (steps, 2, height, width)).astype(np.uint8)


def _stream(engine: Engine, spikes: NDArray[np.uint8]) -> Callable[[], None]:
    """Returns a function that runs one more window of a stream, as the node does."""
    state = None

    def window() -> None:
        nonlocal state
        _, state = engine.infer(spikes, state)

    return window


def _peer_rows(
    checkpoint: Checkpoint, running: dict[str, Engine], threads: int, rounds: int
) -> Iterator[BenchRow]:
    """Compares with E2Depth in the same engine, and with spikingjelly's neurons."""
    import torch

    from spike_depth_ros.estimation.engine import ENGINES
    from spike_depth_ros.network.registry import build

    image, size = next(iter(SIZES_PX.items()))
    spikes = _spikes(checkpoint.spikes.steps, *size)
    # the same windows, split into the same number of bins
    peer = dataclasses.replace(checkpoint, model=build(PEER, steps=len(spikes)).eval())
    for name in ('torch', 'torch_bf16'):
        if name in running:
            rival = ENGINES[name](peer, 'cpu', threads)
            ours_s, theirs_s = time_jobs(
                [_stream(running[name], spikes), _stream(rival, spikes)], rounds
            )
            title = f'{name} against E2Depth, {image}'
            weights = f'{sum(p.numel() for p in peer.model.parameters()) / 1e6:.1f} M'
            yield bench_row(title, 1 / ours_s, UNIT, f'E2Depth, {weights}', 1 / theirs_s)
    reference = _as_written(checkpoint.model)
    batch = torch.from_numpy(spikes)[:, None]
    state = None

    def eager() -> None:
        nonlocal state
        with torch.inference_mode():
            _, state = reference.step(batch, state)  # type: ignore[operator]

    for name, engine in running.items():
        ours_s, theirs_s = time_jobs([_stream(engine, spikes), eager], rounds)
        title = f'{name} against spikingjelly in eager torch, {image}'
        yield bench_row(title, 1 / ours_s, UNIT, 'spikingjelly', 1 / theirs_s)


def _as_written(model: nn.Module) -> nn.Module:
    """Copies the model layer by layer: convolution, normalisation, spikingjelly neuron."""
    from torch import nn

    from spike_depth_ros.network.layers import ConvBN
    from spike_depth_ros.network.neurons import set_backend

    plain = set_backend(copy.deepcopy(model), 'spikingjelly')
    for parent in list(plain.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ConvBN):
                setattr(parent, name, nn.Sequential(child.conv, child.bn))
    return plain.eval()


def _step_rows(name: str, engine: Engine, rounds: int) -> Iterator[BenchRow]:
    """Compares the last step of a window, and all steps one by one, to the window at once."""
    image, size = next(iter(SIZES_PX.items()))
    spikes = _spikes(STREAMED_STEPS, *size)
    state = None

    def one_by_one() -> None:
        nonlocal state
        for step in range(STREAMED_STEPS - 1):
            state = engine.carry(spikes[step : step + 1], state)
        _, state = engine.infer(spikes[-1:], state)

    jobs = [_stream(engine, spikes[:1]), one_by_one, _stream(engine, spikes)]
    step_s, steps_s, window_s = time_jobs(jobs, rounds)
    for what, time_s in (('streaming step', step_s), ('all steps one by one', steps_s)):
        title = f'{name}, {what} of {STREAMED_STEPS}, {image}'
        yield bench_row(title, 1e3 * time_s, 'ms', 'window', 1e3 * window_s, less_is_better=True)


def _roofline_row(
    name: str, checkpoint: Checkpoint, time_s: NDArray[np.float64], rounds: int
) -> BenchRow:
    """Compares multiply-accumulates per second to those of a large matrix product."""
    import torch

    from spike_depth_ros.network.energy import measure_energy

    dtype, where = {
        'torch_bf16': (torch.bfloat16, 'cpu'),
        'torch_int8': (torch.int8, 'cpu'),
        'cuda': (torch.float16, 'cuda'),
    }.get(name, (torch.float32, 'cpu'))
    _, size = next(iter(SIZES_PX.items()))
    spikes = torch.from_numpy(_spikes(checkpoint.spikes.steps, *size))[:, None]
    macs = sum(layer.dense_macs for layer in measure_energy(checkpoint.model, spikes).layers)
    a = torch.ones(2048, 2048, dtype=dtype, device=where)

    def product() -> float:
        y = torch._int_mm(a, a) if dtype == torch.int8 else a @ a
        return float(y[0, 0])  # reading a value synchronises with the GPU

    jobs = [product]
    if dtype != torch.int8:
        # Also as a convolution, because BLAS does not reach the peak of every processor.
        x = torch.ones(1, 2048, 32, 64, dtype=dtype, device=where)
        x = x.to(memory_format=torch.channels_last)
        jobs.append(lambda: float(torch.nn.functional.conv2d(x, a[:, :, None, None])[0, 0, 0, 0]))
    peak = 2048**3 / min(float(np.median(job_s)) for job_s in time_jobs(jobs, rounds)) * 1e-9
    title = f'{name}, share of the matrix product peak'
    return bench_row(title, macs / time_s * 1e-9, 'GMAC/s', 'matrix product', peak)
