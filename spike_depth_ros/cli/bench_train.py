"""`spike_depth bench train`: measures a training step, next to spikingjelly's neurons."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from spike_depth_ros.cli.report import BenchRow, bench_row, print_bench, time_jobs
from spike_depth_ros.events.config import DepthRange
from spike_depth_ros.learning.settings import LossConfig

if TYPE_CHECKING is True:  # jsonargparse executes a plain TYPE_CHECKING block
    from torch import Tensor

GPU_FACTOR = 8
"""Batch size on a GPU as a multiple of that on the CPU."""


def train(
    json: bool = False,
    preset: str = 'small',
    batch_size: int = 8,
    height: int = 128,
    width: int = 176,
    steps: int = 4,
    rounds: int = 5,
    threads: int = 1,
) -> None:
    """Times forward pass, backward pass and optimiser step of one batch.

    The peers run in turns with it: the same network, weights, loss and optimiser with
    spikingjelly's own multi-step neurons between torch's own layers, and the U-Net of equal size
    on the same events. With a GPU, the last row is measured there with eight times the batch size,
    which keeps it busy.

    Args:
        json: print one JSON object instead of a table.
        preset: spiking network to train.
        batch_size: windows per step.
        height: image height, a multiple of 8.
        width: image width, a multiple of 8.
        steps: time bins T.
        rounds: number of steps; the table shows their median and spread.
        threads: number of torch threads; one is the safest choice on a machine with other load.
    """
    import torch

    torch.set_num_threads(threads)
    shape = (steps, batch_size, 2, height, width)
    print_bench(list(step_rows(preset, shape, rounds)), json)


def step_rows(
    preset: str, shape: tuple[int, int, int, int, int], rounds: int
) -> Iterator[BenchRow]:
    """Yields the rows of `train`."""
    import torch

    from spike_depth_ros.learning.run import keep_freed_memory

    keep_freed_memory()
    spikes = torch.poisson(torch.full(shape, 0.1), torch.Generator().manual_seed(0)).byte()
    for bfloat16 in (False, True):
        yield _row(preset, bfloat16, spikes, rounds)
    (rival,) = time_jobs([_step('unet_small', 'auto', False, spikes)], rounds)
    size = _size(spikes)
    yield bench_row(
        f'unet_small, training step, {size}, float32', 1e3 * rival / shape[1], 'ms/window'
    )
    if torch.cuda.is_available():
        many = spikes.repeat(1, GPU_FACTOR, 1, 1, 1).cuda()
        yield _row(preset, True, many, rounds, f', {torch.cuda.get_device_name()}')


def _size(spikes: Tensor) -> str:
    steps, batch, _, height, width = spikes.shape
    return f'{height}x{width}, T={steps}, batch {batch}'


def _row(preset: str, bfloat16: bool, spikes: Tensor, rounds: int, where: str = '') -> BenchRow:
    """Compares a step to spikingjelly's on the device of the spikes (T, B, 2, H, W)."""
    jobs = [_step(preset, backend, bfloat16, spikes) for backend in ('auto', 'spikingjelly')]
    ours, peer = (1e3 * seconds / spikes.shape[1] for seconds in time_jobs(jobs, rounds))
    precision = 'bfloat16' if bfloat16 else 'float32'
    return bench_row(
        f'{preset}, training step, {_size(spikes)}, {precision}{where}', ours, 'ms/window',
        "spikingjelly's loop", peer, less_is_better=True,
    )  # fmt: skip


def _step(name: str, backend: str, bfloat16: bool, spikes: Tensor) -> Callable[[], float]:
    """Returns a function that trains the network by one step and returns the loss before it.

    It runs on the device of the spikes.
    """
    import torch

    from spike_depth_ros.learning import losses
    from spike_depth_ros.network.neurons import set_backend
    from spike_depth_ros.network.registry import build

    torch.manual_seed(0)
    device = spikes.device.type
    network = build(name, steps=len(spikes)).to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    set_backend(network, backend)
    optimizer = torch.optim.AdamW(network.parameters(), foreach=True)
    _, batch, _, height, width = spikes.shape
    depth_m = torch.rand(batch, 1, height, width) * 120
    depth_range = DepthRange()
    focal_px = torch.full((batch,), depth_range.focal_px)
    truth = losses.target(depth_m.to(device), focal_px.to(device), depth_range)

    def step() -> float:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            answer = network(spikes)
        terms = losses.depth_losses(answer, truth, depth_range, LossConfig())
        loss = torch.stack(list(terms.values())).sum()
        loss.backward()
        optimizer.step()
        return float(loss.detach())  # reading a value synchronises with the GPU

    return step
