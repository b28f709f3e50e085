"""Batch normalisations: their statistics, measured for the weights that they belong to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from spike_depth_ros.learning.batches import Batch


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    """All batch normalisations of a network."""
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


@torch.no_grad()
def measure_norms(network: Any, batches: Iterable[Batch]) -> None:
    """Replaces the running statistics by the mean of those of `batches`, for the present weights.

    A moving average of statistics lags behind the weights, and more so behind their own moving
    average (stochastic weight averaging measures them anew too: Izmailov et al., UAI 2018,
    section 3.2). Only the normalisations are in training mode meanwhile. Every window counts;
    the state runs through the windows of a clip.

    Args:
        network: with `step`.
        batches: at least one; on the device of the network.
    """
    found = [(norm, norm.momentum, norm.training) for norm in norms(network)]
    for norm, _, _ in found:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all calls
        norm.train()
    try:
        for batch in batches:
            state = None
            for k in range(len(batch.spikes)):
                _, state = network.step(network_input(network, batch, k), state)
    finally:
        for norm, momentum, training in found:
            norm.momentum = momentum
            norm.train(training)


def network_input(network: nn.Module, batch: Batch, k: int) -> Tensor:
    """The network's input of window k: spikes (T, B, 2, H, W), or the image (B, 3, H, W).

    Raises:
        ValueError: the network reads images and the data lacks one.
    """
    if getattr(network, 'reads', 'spikes') == 'spikes':
        return batch.spikes[k]
    if batch.image is None or not batch.pictured[k].all():
        raise ValueError(f'{type(network).__name__} reads images, and this data set lacks some')
    return batch.image[k]


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with all its tensors on a device."""
    moved = {name: part.to(device) for name, part in batch._asdict().items() if part is not None}
    return batch._replace(**moved)
