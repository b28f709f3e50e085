"""Training losses: depth, range, uncertainty, and imitation of a teacher.

Every loss is a mean over the images of a batch of a mean within each image, so that the gradient
of one process with a large batch equals the average over processes with parts of it. Residuals
are of the natural log of depth; a difference of normalised log depth is that over alpha.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from spike_depth_ros.events.config import DepthRange
from spike_depth_ros.learning.settings import LossConfig
from spike_depth_ros.network.head import Prediction

MAX_TOKENS = 256
"""The semantic loss compares all pairs of at most this many patches per image."""


class Target(NamedTuple):
    """Ground truth in the units of the network."""

    log_depth: Tensor  # (B, 1, H, W) natural log of canonical metres, 0 where not in range
    in_range: Tensor  # (B, 1, H, W) bool: depth is known and nearer than `DepthRange.max_m`
    beyond: Tensor  # (B, 1, H, W) bool: known to be farther than that, or sky


def target(depth_m: Tensor, focal_px: Tensor, depth_range: DepthRange) -> Target:
    """Converts depth maps to targets.

    Args:
        depth_m: (B, 1, H, W) metres, NaN unknown, +inf beyond any range (sky).
        focal_px: (B,) focal length of the network's grid.
        depth_range: defines canonical depth = depth * focal_px(canonical) / focal_px; nearer
            depth counts as `min_m`, the nearest that the network can express.
    """
    canonical = depth_m * (depth_range.focal_px / focal_px).view(-1, 1, 1, 1)
    known = canonical > 0  # False for NaN
    in_range = known & (canonical < depth_range.max_m)
    clamped = torch.where(in_range, canonical, 1.0).clamp(min=depth_range.min_m)
    return Target(torch.where(in_range, clamped.log(), 0.0), in_range, known & ~in_range)


def natural_log(log_depth: Tensor, depth_range: DepthRange) -> Tensor:
    """Normalised log depth to the natural log of canonical metres: `DepthRange` inverted."""
    return (log_depth - 1.0) * depth_range.alpha + math.log(depth_range.max_m)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the images of the mean over the pixels in `mask`; 0 for an image without any.

    Args:
        values: (B, ...) finite everywhere.
        mask: bool, of a shape that broadcasts to that of `values`.
    """
    weight = mask.expand_as(values).to(values.dtype).flatten(1)
    return ((values.flatten(1) * weight).sum(1) / weight.sum(1).clamp(min=1.0)).mean()


def scale_invariant(residual: Tensor, mask: Tensor, balance: float) -> Tensor:
    """mean(d^2) - balance * mean(d)^2 per image (Eigen et al., NeurIPS 2014, eq. 4).

    With balance 1 a common factor of all depths has no cost; metres then need another loss.
    """
    weight = mask.to(residual.dtype).flatten(1)
    count = weight.sum(1).clamp(min=1.0)
    d = residual.flatten(1) * weight
    return (d.square().sum(1) / count - balance * (d.sum(1) / count).square()).mean()


def relative_error(residual: Tensor, mask: Tensor) -> Tensor:
    """|d_predicted / d - 1|, the metric Abs Rel, of residuals of log depth.

    Where an edge may lie on either side of a pixel, a log loss is minimised by the likelier
    depth, this one by the nearer depth unless the farther is several times as likely. Beyond e
    times the true depth it grows logarithmically, so that single pixels do not dominate.
    """
    bounded = residual.clamp(max=1.0)
    return masked_mean(((1.0 + residual - bounded) * bounded.exp() - 1.0).abs(), mask)


def multi_scale_gradient(residual: Tensor, mask: Tensor, scales: int) -> Tensor:
    """Sum over scales of mean |dR/dx| + |dR/dy| (MegaDepth, CVPR 2018, eq. 3; E2Depth, eq. 4).

    Scale s takes every 2^s-th pixel of the residual R; a difference counts where both of its
    pixels are in the mask.
    """
    total = residual.new_zeros(())
    for scale in range(scales):
        r, m = (x[..., :: 2**scale, :: 2**scale] for x in (residual, mask))
        dx, both_x = r[..., 1:] - r[..., :-1], m[..., 1:] & m[..., :-1]
        dy, both_y = r[..., 1:, :] - r[..., :-1, :], m[..., 1:, :] & m[..., :-1, :]
        total = total + masked_mean(dx.abs(), both_x) + masked_mean(dy.abs(), both_y)
    return total


def laplace_nll(residual: Tensor, log_scale: Tensor, mask: Tensor, beta: float) -> Tensor:
    """stop(b^beta) * (|d| / b + ln 2b), b = exp(log_scale), the likelihood of a Laplace error.

    beta 0 is the plain likelihood (Kendall and Gal, NeurIPS 2017, eq. 8): pixels thought to be
    uncertain stop teaching depth. With beta 1 the depth gets the gradient of |d| everywhere
    (beta-NLL, Seitzer et al., ICLR 2022, eq. 5).
    """
    log_scale = log_scale.clamp(-7.0, 4.0)
    nll = residual.abs() * (-log_scale).exp() + log_scale + math.log(2.0)
    return masked_mean(nll * (beta * log_scale.detach()).exp(), mask)


def range_loss(range_logit: Tensor, truth: Target) -> Tensor:
    """Binary cross-entropy of "nearer than `DepthRange.max_m`" where that is known."""
    near = truth.in_range.to(range_logit.dtype)
    loss = F.binary_cross_entropy_with_logits(range_logit, near, reduction='none')
    return masked_mean(loss, truth.in_range | truth.beyond)


def depth_losses(
    answer: Prediction, truth: Target, depth_range: DepthRange, config: LossConfig
) -> dict[str, Tensor]:
    """All losses without a teacher, each times its weight; those of weight 0 are omitted."""
    answer = Prediction(*(maps.float() for maps in answer))
    predicted = natural_log(answer.log_depth, depth_range)
    mask = truth.in_range
    residual = torch.where(mask, predicted - truth.log_depth, 0.0)
    terms: dict[str, tuple[float, Callable[[], Tensor]]] = {
        'laplace': (config.laplace, lambda: laplace_nll(
            residual, answer.log_scale, mask, config.laplace_beta)),
        'scale_invariant': (config.scale_invariant, lambda: scale_invariant(
            residual, mask, config.scale_invariant_balance)),
        'relative': (config.relative, lambda: relative_error(residual, mask)),
        'gradient': (config.gradient, lambda: multi_scale_gradient(
            residual, mask, config.gradient_scales)),
        'range': (config.range, lambda: range_loss(answer.range_logit, truth)),
        # sky that is taken for "in range" should at least not look like an obstacle
        'beyond': (config.beyond, lambda: masked_mean(
            (1.0 - answer.log_depth) * depth_range.alpha, truth.beyond)),
    }  # fmt: skip
    return {name: weight * loss() for name, (weight, loss) in terms.items() if weight}


def domain_loss(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean |s - t| of features, each token normalised over its channels (layer norm).

    The domain loss of the method is an L1 distance of features (arXiv 2404.17335, section 3.4).
    The normalisation keeps the few large channels of a vision transformer from dominating it.

    Args:
        student: (B, C, h, w), after its adapter.
        teacher: (B, C, h, w).
        mask: (B, 1, h, w) bool: patches to compare; None for all.
    """
    distance = (_normalised(student) - _normalised(teacher)).abs()
    mask = mask if mask is not None else torch.ones_like(distance[:, :1], dtype=torch.bool)
    return masked_mean(distance, mask)


def semantic_loss(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean |cos(s_i, s_j) - cos(t_i, t_j)| over pairs of patches.

    Similarity-preserving distillation (Tung and Mori, ICCV 2019, eq. 2 to 4; Liu et al., CVPR
    2019, eq. 3, for dense maps) with an L1 distance. Maps of more than `MAX_TOKENS` patches are
    subsampled evenly. Needs no adapter: widths may differ.

    Args:
        student: (B, C, h, w).
        teacher: (B, C', h, w).
        mask: (B, 1, h, w) bool: both patches of a pair must be in it; None for all.
    """
    stride = 1
    while (-(-student.shape[-2] // stride)) * (-(-student.shape[-1] // stride)) > MAX_TOKENS:
        stride += 1
    mask = mask if mask is not None else torch.ones_like(student[:, :1], dtype=torch.bool)
    thin = [x[..., ::stride, ::stride].flatten(2) for x in (student, teacher, mask)]
    with torch.autocast(student.device.type, enabled=False):  # cosines need full precision
        unit = [F.normalize(x.float(), dim=1) for x in thin[:2]]
        similar = [x.transpose(1, 2) @ x for x in unit]  # (B, N, N)
    pairs = thin[2].transpose(1, 2) & thin[2]  # (B, N, N)
    return masked_mean((similar[0] - similar[1]).abs(), pairs)


def patches_with_events(spikes: Tensor, stride_px: int) -> Tensor:
    """(T, B, 2, H, W) -> (B, 1, H / stride, W / stride) bool: patches with at least one event."""
    events = (spikes > 0).any(dim=0).any(dim=1, keepdim=True).float()
    return F.max_pool2d(events, stride_px, ceil_mode=True) > 0


def _normalised(features: Tensor) -> Tensor:
    tokens = features.float().movedim(1, -1)
    return F.layer_norm(tokens, tokens.shape[-1:]).movedim(-1, 1)
