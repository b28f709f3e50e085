"""Changes of a trained network's last layer: its depth range, and the calibration of confidence.

Both are affine maps of the raw outputs, which the last convolution absorbs: the checkpoint's
format and every engine stay as they are.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spike_depth_ros.estimation.depth_frame import GOOD_RATIO
from spike_depth_ros.events.config import ConfigError, DepthRange
from spike_depth_ros.learning import losses
from spike_depth_ros.learning.batches import collate
from spike_depth_ros.learning.datasets.sample import Sample
from spike_depth_ros.learning.norms import network_input
from spike_depth_ros.network.checkpoint import Checkpoint
from spike_depth_ros.network.head import LOG_SCALE_CENTRE, LOG_SCALE_REACH

PIXELS_PER_CLIP = 2000
"""Confidence is fitted to at most this many pixels of each clip, evenly spread."""

DEPTH, RANGE, SCALE = range(3)
"""Channels of the last convolution, see `Prediction`."""


class Outputs(NamedTuple):
    """Raw outputs and truth of N pixels whose truth is known."""

    scale_raw: Tensor  # (N,) the output from which ln b comes, before it is bounded
    range_logit: Tensor  # (N,)
    in_range: Tensor  # (N,) bool
    hit: Tensor  # (N,) bool: depth within a factor GOOD_RATIO of the truth


class Calibration(NamedTuple):
    """Affine maps of two raw outputs: gain * x + offset; the range's sign never changes."""

    scale_gain: float
    scale_offset: float
    range_gain: float


def output_layer(network: nn.Module) -> nn.Conv2d:
    """The convolution that gives depth, range and scale.

    Raises:
        ConfigError: the network has none.
    """
    found = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.out_channels == 3]
    if not found:
        raise ConfigError(
            f'{type(network).__name__} has no last convolution of 3 channels, so its range and '
            'confidence cannot be changed'
        )
    return found[-1]


@torch.no_grad()
def _scale_channel(layer: nn.Conv2d, channel: int, gain: float, offset: float) -> None:
    """Makes a channel give gain * x + offset where it gave x."""
    assert layer.bias is not None
    layer.weight[channel] *= gain
    layer.bias[channel] = gain * layer.bias[channel] + offset


def change_range(network: nn.Module, old: DepthRange, new: DepthRange) -> None:
    """Fits the depth output of a network to another `DepthRange`, in place.

    The logit of normalised log depth in the new range is nearly an affine function of the old
    one; the least-squares line between 5 and 95 % of the old range starts a fine-tuning within
    a few percent of the old depth there.
    """
    normalised = np.linspace(0.05, 0.95, 91)
    canonical = old.denormalise(normalised) * (new.focal_px / old.focal_px)
    other = np.clip(new.normalise(canonical), 1e-3, 1 - 1e-3)
    logits = [np.log(x / (1 - x)) for x in (normalised, other)]
    gain, offset = np.polyfit(logits[0], logits[1], 1)
    _scale_channel(output_layer(network), DEPTH, float(gain), float(offset))


def interpolate(
    first: Checkpoint, second: Checkpoint, share: float, onto: Checkpoint | None = None
) -> nn.Module:
    """The network `onto` + share * (second - first), in the second's depth range.

    Args:
        first: before fine-tuning.
        second: after fine-tuning.
        share: fraction of the change of the weights to apply.
        onto: the network that receives the change; None for the first.

    Raises:
        ConfigError: they are different networks.
    """
    onto = onto or first
    for other in (first, onto):
        if other.model_config != second.model_config:
            raise ConfigError(
                f'the networks are {other.model_config} and {second.model_config}, expected the '
                'same'
            )
    start, mixed = copy.deepcopy(first.model), copy.deepcopy(onto.model)
    for network, checkpoint in ((start, first), (mixed, onto)):
        if checkpoint.depth_range != second.depth_range:
            change_range(network, checkpoint.depth_range, second.depth_range)
    after, before = second.model.state_dict(), start.state_dict()
    with torch.no_grad():
        for name, weight in mixed.state_dict().items():
            if weight.is_floating_point():
                weight.add_(after[name] - before[name], alpha=share)
    return mixed


def fit_calibration(outputs: Outputs) -> Calibration:
    """Finds the calibration with the greatest likelihood.

    Two independent fits of logistic loss (Platt scaling; Guo et al., ICML 2017, section 4): the
    Laplace mass within a factor `GOOD_RATIO` against the hits among pixels within range, and the
    probability of being within range against that of all pixels. The sign of the range logit is
    kept, so that calibration changes no decision at 0.
    """
    near = outputs.in_range

    def scale_loss(gain: Tensor, offset: Tensor) -> Tensor:
        raw = gain * outputs.scale_raw[near] + offset
        return F.binary_cross_entropy(_mass(raw), outputs.hit[near].float())

    def range_loss(gain: Tensor, _: Tensor) -> Tensor:
        logit = gain * outputs.range_logit
        return F.binary_cross_entropy_with_logits(logit, near.float())

    scale_gain, scale_offset = _minimise(scale_loss) if near.any() else (1.0, 0.0)
    mixed = near.any() and not near.all()
    range_gain = _minimise(range_loss)[0] if mixed else 1.0
    return Calibration(scale_gain, scale_offset, range_gain)


def apply_calibration(network: nn.Module, calibration: Calibration) -> None:
    """Builds a calibration into the last layer of a network, in place."""
    layer = output_layer(network)
    _scale_channel(layer, SCALE, calibration.scale_gain, calibration.scale_offset)
    _scale_channel(layer, RANGE, calibration.range_gain, 0.0)


@torch.no_grad()
def collect_outputs(checkpoint: Checkpoint, clips: Iterable[list[Sample]]) -> Outputs:
    """Runs a network through clips, with its state, and collects outputs at their ends."""
    parts = []
    for clip in clips:
        batch, state = collate([clip]), None
        for k in range(len(clip)):
            seen = network_input(checkpoint.model, batch, k)
            answer, state = checkpoint.model.step(seen, state)  # type: ignore[operator]
        truth = losses.target(batch.depth_m[-1], batch.focal_px, checkpoint.depth_range)
        known = torch.nonzero((truth.in_range | truth.beyond).flatten()).flatten()
        if not len(known):
            continue
        count = min(len(known), PIXELS_PER_CLIP)
        chosen = known[torch.linspace(0, len(known) - 1, count).round().long()]
        log_depth, range_logit, log_scale, true_log, in_range = (
            maps.flatten()[chosen] for maps in (*answer, truth.log_depth, truth.in_range)
        )
        error = losses.natural_log(log_depth, checkpoint.depth_range) - true_log
        bounded = ((log_scale - LOG_SCALE_CENTRE) / LOG_SCALE_REACH).clamp(-0.999, 0.999)
        hit = in_range & (error.abs() < math.log(GOOD_RATIO))
        parts.append(Outputs(LOG_SCALE_REACH * bounded.atanh(), range_logit, in_range, hit))
    if not parts:
        raise ConfigError('the clips for calibration hold no known depth')
    return Outputs(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _mass(scale_raw: Tensor) -> Tensor:
    """P(|error| < ln GOOD_RATIO) of the Laplace distribution whose raw scale output this is."""
    log_scale = LOG_SCALE_CENTRE + LOG_SCALE_REACH * torch.tanh(scale_raw / LOG_SCALE_REACH)
    mass = -torch.expm1(-math.log(GOOD_RATIO) * torch.exp(-log_scale))
    return mass.clamp(1e-6, 1 - 1e-6)


def _minimise(loss: Callable[[Tensor, Tensor], Tensor]) -> tuple[float, float]:
    """Gain (positive) and offset of the least loss."""
    values = torch.zeros(2, dtype=torch.float64, requires_grad=True)  # ln gain, offset
    optimizer = torch.optim.LBFGS([values], max_iter=200, line_search_fn='strong_wolfe')

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(values[0].exp().float(), values[1].float())
        value.backward()
        return value

    optimizer.step(closure)
    return float(values[0].detach().exp()), float(values[1].detach())
