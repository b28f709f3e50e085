"""Parts of a training step as single nodes of the graph, compiled for the CPU.

Batch normalisation by the statistics of the batch, charging and firing read a map once or twice
where separate layers pass over it a dozen times; the way back computes the membranes anew
instead of keeping them. Maps are (T, B, C, H, W), float32 or bfloat16, normalised over all but C.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from spike_depth_ros.network import fused_layout as layout
from spike_depth_ros.network import training_kernels as kernels


class Dynamics(NamedTuple):
    """Constants of a layer of leaky integrate-and-fire neurons."""

    tau: float
    threshold: float
    surrogate: str
    alpha: float

    def numbers(self, share: Tensor | None) -> tuple[Any, np.float32, np.float32]:
        """What the kernels call share, tau and threshold; `share` as in `fire`."""
        exact = math.frexp(self.tau)[0] == 0.5
        part: Any = np.float32(1 / self.tau) if exact else None
        if share is not None:
            part = layout.tiled(share.detach().numpy())
        return part, np.float32(self.tau), np.float32(self.threshold)


def fits(x: Tensor, backend: str = 'auto') -> bool:
    """Whether what is here is for `x`: to learn from on the CPU, with no other backend chosen."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    known = x.device.type == 'cpu' and x.dtype in (torch.float32, torch.bfloat16)
    return known and backend in ('auto', 'fused') and torch.is_grad_enabled() and not traced


def normalise(x: Tensor, norm: nn.BatchNorm2d, residual: Tensor | None = None) -> Tensor:
    """norm(x) + residual by the statistics of this batch; those kept by `norm` follow.

    Args:
        x: (T, B, C, H, W) or (B, C, H, W).
        norm: a batch normalisation in training.
        residual: like x.
    """
    if x.ndim == 4:
        return normalise(x[None], norm, None if residual is None else residual[None])[0]
    x, residual = layout.alike(x, residual)
    return _Normalise.apply(x, norm.weight, norm.bias, residual, norm)


def fire(
    x: Tensor,
    dynamics: Dynamics,
    membrane: Tensor | None,
    norm: nn.BatchNorm2d | None = None,
    residual: Tensor | None = None,
    share: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """All steps of a layer of neurons.

    Args:
        x: (T, B, C, H, W) its input; or what `norm` makes that input of.
        dynamics: of the neurons.
        membrane: (B, C, H, W) float32 at the beginning, None at rest.
        norm: a batch normalisation in training, whose statistics follow the batch.
        residual: (T, B, C, H, W) to be added to what is normalised.
        share: (C,) of what drives it, that a membrane of a channel takes in a step; None: 1 / tau.

    Returns:
        Spikes like x; the last membrane; norm(x) + residual, but only with a residual.
    """
    if norm is None:
        x = x if share is None else layout.channels_last(x)
        return *_Fire.apply(x, None, None, None, membrane, share, None, dynamics), None
    x, residual = layout.alike(x, residual)
    spikes, after, *current = _Fire.apply(
        x, norm.weight, norm.bias, residual, membrane, share, norm, dynamics
    )
    return spikes, after, current[0] if current else None


def weighted_sum(x: Tensor, weights: Tensor) -> Tensor:
    """(T, B, C, H, W) times (T, C), summed over the steps: (B, C, H, W) float32."""
    return _WeightedSum.apply(x, weights)


def attend(qkv: Tensor, scale: Tensor, heads: int) -> Tensor:
    """The products q (k^T v * scale) of every step, without softmax.

    Args:
        qkv: (T, B, 3D, h, w) q, k and v.
        scale: (D,) of the channels of v.
        heads: number of heads.

    Returns:
        (T, B, D, h, w).
    """
    return _Attend.apply(qkv, scale, heads)


class _Statistics:
    """What a batch normalisation finds in a batch, and what follows from it.

    Args:
        x: (T, B, C, H, W) the batch.
        norm: its averages follow.

    Attributes:
        tiles: scale and shift that normalise the batch.
    """

    def __init__(self, x: Tensor, norm: nn.BatchNorm2d) -> None:
        flat = layout.flat(x)
        channels = norm.num_features
        self.count = flat.size // channels
        centre = layout.floats(flat[:channels])
        tile = layout.tiled(centre)
        sums = layout.summed(lambda *span: kernels.moments(flat, tile, *span), flat.size, channels)
        shift, square = sums / self.count
        variance = np.maximum(square - shift**2, 0)
        # rounded before anything else is made of it: the way back refers to the same mean
        self.mean = (centre + shift).astype(np.float32)
        self.inverse_std = 1 / np.sqrt(variance + norm.eps)
        self.scale = norm.weight.detach().numpy() * self.inverse_std
        shift = norm.bias.detach().numpy() - self.mean * self.scale
        self.tiles = layout.tiled(self.scale), layout.tiled(shift)
        _follow(norm, self.mean, variance * self.count / max(self.count - 1, 1))

    def back(
        self, grad: Tensor, x: Tensor, sums: Sequence[np.ndarray], out: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients by x, in `out`, and by the weight and the bias of the normalisation.

        Args:
            grad: by what was normalised.
            x: what was to be normalised.
            sums: two (C,), of grad and of grad * (x - mean).
            out: like x; may be `grad`.
        """
        plain, product = sums
        by_x = -self.scale * self.inverse_std**2 * product / self.count
        constant = -self.scale * plain / self.count - by_x * self.mean
        flats = layout.flat(grad), layout.flat(x)
        tiles = self.tiles[0], layout.tiled(by_x), layout.tiled(constant)
        target = layout.flat(out)
        layout.spread(
            lambda *span: kernels.combine(*flats, *tiles, target, *span),
            target.size,
            self.mean.size,
        )
        return out, layout.tensor(product * self.inverse_std), layout.tensor(plain)


def _follow(norm: nn.BatchNorm2d, mean: np.ndarray, variance: np.ndarray) -> None:
    """The running statistics take in those of a batch, as torch has it."""
    if norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    part = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    for running, here in ((norm.running_mean, mean), (norm.running_var, variance)):
        running.lerp_(layout.tensor(here), part)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, residual, norm):
        out = torch.empty_like(x)
        statistics = _Statistics(x, norm)
        arrays = layout.flat(x), *statistics.tiles, layout.flat(residual), layout.flat(out)
        layout.spread(
            lambda *span: kernels.normalise(*arrays, *span), x.numel(), norm.num_features
        )
        ctx.save_for_backward(x)
        ctx.statistics, ctx.has_residual = statistics, residual is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        grad, statistics = layout.like(grad, x), ctx.statistics
        arrays = layout.flat(grad), layout.flat(x), layout.tiled(statistics.mean)
        sums = layout.summed(
            lambda *span: kernels.correlate(*arrays, *span), x.numel(), statistics.mean.size
        )
        by_x, by_weight, by_bias = statistics.back(grad, x, sums, torch.empty_like(x))
        return by_x, by_weight, by_bias, grad if ctx.has_residual else None, None


class _Fire(torch.autograd.Function):
    """h = v + (x - v) share, s = [h >= threshold], v' = (1 - s) h; the reset has no gradient."""

    @staticmethod
    def forward(ctx, x, weight, bias, residual, membrane, share, norm, dynamics):
        x = layout.dense(x)
        before = None if membrane is None else layout.like(membrane, x[0], torch.float32)
        spikes, after = torch.empty_like(x), torch.empty_like(x[0], dtype=torch.float32)
        current = None if residual is None else torch.empty_like(x)
        statistics = None if norm is None else _Statistics(x, norm)
        channels = 1 if norm is None and share is None else x.shape[2]
        numbers = dynamics.numbers(share)
        arrays = (
            layout.rows(x),
            *(_NO_NORM if statistics is None else statistics.tiles),
            layout.rows(residual),
            layout.rows(current),
            layout.row(before),
            layout.rows(spikes),
            layout.row(after),
            *numbers,
            layout.tile(channels),
        )
        layout.spread(lambda *span: kernels.fire(*arrays, *span), x[0].numel(), channels)
        ctx.save_for_backward(x, current, before, share)
        ctx.set_materialize_grads(False)
        ctx.statistics, ctx.dynamics, ctx.channels = statistics, dynamics, channels
        ctx.numbers = numbers
        return (spikes, after) if current is None else (spikes, after, current)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, grad_after, grad_current=None):
        x, current, before, share = ctx.saved_tensors
        statistics, dynamics, channels = ctx.statistics, ctx.dynamics, ctx.channels
        grad = torch.zeros_like(x) if grad is None else layout.like(grad, x)
        grad_current = None if grad_current is None else layout.like(grad_current, x)
        grad_after = None if grad_after is None else layout.like(grad_after, x[0], torch.float32)
        grad_before = torch.empty_like(before) if ctx.needs_input_grad[4] else None
        out = torch.empty_like(x)
        recomputed = statistics is not None and current is None
        normalised = (
            _NO_NORM if statistics is None else (layout.rows(x), layout.tiled(statistics.mean))
        )
        arrays = (
            layout.rows(grad),
            layout.rows(grad_current),
            layout.rows(x if current is None else current),
            *(statistics.tiles if recomputed else _NO_NORM),
            layout.row(before),
            layout.row(grad_after),
            layout.row(grad_before),
            layout.rows(out),
            *normalised,
            *ctx.numbers,
            np.float32(dynamics.alpha),
            dynamics.surrogate == 'atan',
            share is not None,
            layout.tile(channels),
        )
        *sums, charges = layout.summed(
            lambda *span: kernels.fire_backward(*arrays, *span), x[0].numel(), channels
        )
        by_share = None if share is None else layout.tensor(charges / share.numpy())
        if statistics is None:
            return out, None, None, None, grad_before, by_share, None, None
        by_residual = None if current is None else out
        by_x = out if by_residual is None else torch.empty_like(x)
        by_x, by_weight, by_bias = statistics.back(out, x, sums, by_x)
        return by_x, by_weight, by_bias, by_residual, grad_before, by_share, None, None


_NO_NORM = (None, None)


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weights):
        x = layout.channels_last(x)
        out = torch.empty_like(x[0], dtype=torch.float32)
        arrays = layout.rows(x), layout.tiled(weights.detach().numpy()), layout.row(out)
        layout.spread(
            lambda *span: kernels.weighted_sum(*arrays, *span), out.numel(), weights.shape[1]
        )
        ctx.save_for_backward(x, weights)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weights = ctx.saved_tensors
        out, channels = torch.empty_like(x), weights.shape[1]
        arrays = (
            layout.row(layout.like(grad, x[0], torch.float32)),
            layout.rows(x),
            layout.tiled(weights.detach().numpy()),
            layout.rows(out),
        )
        sums = layout.summed(
            lambda *span: kernels.weighted_sum_backward(*arrays, *span), x[0].numel(), channels
        )
        return out, layout.tensor(sums)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv, scale, heads):
        q, k, v = (layout.by_head(part, heads) for part in qkv.chunk(3, 2))
        pairs = k.mT @ v
        # by (heads, 1, d): the scale meets the small matrix instead of all tokens
        scaled = (pairs * scale.view(heads, 1, -1)).to(q.dtype)
        ctx.save_for_backward(q, k, v, scale, pairs, scaled)
        ctx.shape = qkv.shape
        return layout.as_maps(layout.tokens(q @ scaled), qkv.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        q, k, v, scale, pairs, scaled = ctx.saved_tensors
        heads = q.shape[1]
        g = layout.by_head(grad.to(q.dtype), heads)
        by_scaled = q.mT @ g
        by_pairs = (by_scaled * scale.view(heads, 1, -1)).to(q.dtype)
        parts = [layout.tokens(part) for part in (g @ scaled.mT, v @ by_pairs.mT, k @ by_pairs)]
        by_scale = None
        if ctx.needs_input_grad[1]:
            by_scale = (by_scaled * pairs).float().sum((0, 2)).view(-1)
        return layout.as_maps(torch.cat(parts, -1), ctx.shape), by_scale, None
