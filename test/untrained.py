"""Checkpoints of seeded random weights, for tests that need a network but not its depth."""

import torch
from torch import nn

from spike_depth_ros.events.config import DepthRange
from spike_depth_ros.network.checkpoint import Checkpoint
from spike_depth_ros.network.registry import PRESETS, build, preset_spikes
from spike_depth_ros.network.spiking_transformer import SpikingTransformer


def untrained_checkpoint(preset: str, seed: int = 0) -> Checkpoint:
    """Seeded random weights; the card says so."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(preset)
        if isinstance(model, SpikingTransformer):
            _settle(model, preset_spikes(preset).steps)
    card = {'trained': False, 'preset': preset, 'seed': seed}
    return Checkpoint(
        model.eval().requires_grad_(False), PRESETS[preset][0], preset_spikes(preset),
        DepthRange(), card,
    )  # fmt: skip


def _settle(model: SpikingTransformer, steps: int) -> None:
    """Gives the normalisations the statistics of random events: else no neuron would fire."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # an average over all that is seen
    model.train()
    with torch.no_grad():
        for rate in (0.02, 0.1, 0.3):
            model(torch.poisson(torch.full((steps, 1, 2, 64, 96), rate)))
    for norm in norms:
        norm.momentum = 0.1
