"""A network whose sums are exact in float32, so that no order of summation moves a spike.

Random weights turn one flipped spike into another picture, and a sum of rounded numbers near the
threshold may flip with the order in which a machine adds. Weights that are multiples of 1/32,
normalisations that are powers of two and 64 tokens leave nothing to round in the encoder.
"""

import numpy as np
import torch
from torch import nn

from spike_depth_ros.network.encoder import SpikingTransformerConfig
from spike_depth_ros.network.neurons import Neuron
from spike_depth_ros.network.spiking_transformer import SpikingTransformer

CONFIG = SpikingTransformerConfig(dim=32, depth=2, heads=2, head_dim=16)
HEIGHT_PX = WIDTH_PX = 64


def exact_counts(steps: int = 4, batch: int = 1, seed: int = 0) -> torch.Tensor:
    """(T, B, 2, 64, 64) uint8 counts of 0, 1, 4 and 9: their roots are whole."""
    rng = np.random.default_rng(seed)
    shape = (steps, batch, 2, HEIGHT_PX, WIDTH_PX)
    counts = rng.choice([0, 1, 4, 9], shape, p=[0.85, 0.1, 0.03, 0.02])
    return torch.from_numpy(counts.astype(np.uint8))


def exact_network(config: SpikingTransformerConfig = CONFIG) -> SpikingTransformer:
    """Seeded weights and the statistics of `exact_counts`, all rounded to few binary digits."""
    torch.manual_seed(0)
    model = SpikingTransformer(config).train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for name, parameter in model.named_parameters():
        if not name.startswith(('head', 'readouts')):
            parameter.data = (parameter.data * 32).round() / 32
    for module in model.modules():
        if isinstance(module, Neuron) and module.kind == 'plif':
            nn.init.normal_(module.leak, 0.0, 0.1)  # rounds, but everywhere alike
    for norm in norms:
        norm.momentum = None  # the mean of all that is seen
    with torch.no_grad():
        model(exact_counts(batch=2, seed=1))
    for norm in norms:
        scale = norm.weight.data / norm.running_var.sqrt()
        norm.weight.data = torch.exp2(scale.log2().round().clamp(0, 6))
        norm.running_mean = (norm.running_mean * 32).round() / 32
        norm.running_var.fill_(1)
        norm.eps = 0.0
    return model.eval()
