"""All steps of a layer of neurons as one kernel on a GPU, and as one more on the way back.

Written in Triton, which comes with torch for GPUs; `fits` says whether it is here. The way back
computes the membranes anew instead of keeping them, as `fused` does on a CPU.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spike_depth_ros.network.fused import Dynamics

try:
    import triton
    import triton.language as tl
except ImportError:  # torch without a GPU: the kernels are never called then
    triton = None

_kernel: Any = triton.jit if triton is not None else lambda function: function

log = logging.getLogger(__name__)

_BLOCK = 1024
"""Membranes that one program carries through all steps."""

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def fits(x: Tensor) -> bool:
    """Whether `fire` can take these currents."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return x.device.type == 'cuda' and x.dtype in _DTYPES and not traced and _runs(x.device)


@functools.cache
def _runs(device: torch.device) -> bool:
    """Whether kernels can be made for a GPU: Triton asks for a C compiler and Python's headers."""
    if triton is None:
        return False
    try:
        fire(torch.zeros(1, 1, 1, 1, 1, device=device), Dynamics(2.0, 1.0, 'atan', 2.0), None)
    except Exception as error:  # whatever its compilers may say
        log.warning(
            'Triton makes no kernels for %s, neurons run in many small ones: %r', device, error
        )
        return False
    return True


def fire(
    x: Tensor, dynamics: Dynamics, membrane: Tensor | None, share: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """All steps of a layer of neurons; see `fused.fire`.

    Args:
        x: (T, B, C, H, W) its input.
        dynamics: of the neurons.
        membrane: (B, C, H, W) float32 at the beginning, None at rest.
        share: (C,) of what drives it, that a membrane of a channel takes in a step; None: 1 / tau.

    Returns:
        Spikes like x, and the last membrane, float32.
    """
    return _Fire.apply(x, membrane, share, dynamics)


class _Fire(torch.autograd.Function):
    """h = v + (x - v) share, s = [h >= threshold], v' = (1 - s) h; the reset has no gradient."""

    @staticmethod
    def forward(ctx, x, membrane, share, dynamics):
        x = _dense(x)
        before = None if membrane is None else _like(membrane, x[0], torch.float32)
        spikes, after = torch.empty_like(x), torch.empty_like(x[0], dtype=torch.float32)
        _launch(_fire, x, before, share, dynamics, (spikes, after))
        ctx.save_for_backward(x, before, share)
        ctx.set_materialize_grads(False)
        ctx.dynamics = dynamics
        return spikes, after

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, grad_after):
        x, before, share = ctx.saved_tensors
        grad = torch.zeros_like(x) if grad is None else _like(grad, x, x.dtype)
        at_end = None if grad_after is None else _like(grad_after, x[0], torch.float32)
        charged = torch.empty_like(x, dtype=torch.float32)
        by_x, by_before = torch.empty_like(x), torch.empty_like(x[0], dtype=torch.float32)
        by_share = None if share is None else torch.empty_like(by_before)
        _launch(
            _fire_backward, x, before, share, ctx.dynamics,
            (charged, grad, at_end, by_x, by_before, by_share),
        )  # fmt: skip
        if by_share is not None:
            by_share = by_share.sum((0, 2, 3))
        return by_x, by_before if ctx.needs_input_grad[1] else None, by_share, None


def _launch(
    kernel: Any, x: Tensor, before: Tensor | None, share: Tensor | None, dynamics: Dynamics,
    others: tuple[Tensor | None, ...],
) -> None:  # fmt: skip
    """Runs a kernel over all membranes of x (T, B, C, H, W)."""
    columns, channels = x[0].numel(), x.shape[2]
    inner = 1 if x.stride(2) == 1 else x.shape[3] * x.shape[4]  # between neighbouring channels
    with torch.cuda.device_of(x):
        kernel[(triton.cdiv(columns, _BLOCK),)](
            x, before, share, *others, columns, channels, inner, x.shape[0], dynamics.tau,
            dynamics.threshold, dynamics.alpha, dynamics.surrogate == 'atan', _BLOCK,
            enable_fp_fusion=False,  # a product that is not rounded gives other spikes
        )  # fmt: skip


def _dense(x: Tensor) -> Tensor:
    """(T, B, C, H, W) without gaps: as it is in the usual order or with the channels last."""
    if x.is_contiguous() or x.permute(0, 1, 3, 4, 2).is_contiguous():
        return x
    return x.contiguous()


def _like(x: Tensor, other: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` in the layout of `other`."""
    if x.dtype == dtype and x.stride() == other.stride():
        return x.detach()
    return torch.empty_like(other, dtype=dtype).copy_(x)


@_kernel
def _fire(
    x, before, share, spikes, after, columns, channels, inner, steps, tau, threshold, alpha,
    atan: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Spikes (T, N) and the last membranes (N,), of x (T, N), membranes and shares or None."""
    i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    here = i < columns
    v = tl.zeros((block,), tl.float32)
    if before is not None:
        v = tl.load(before + i, mask=here)
    part = tl.full((block,), 1.0, tl.float32) / tau
    if share is not None:
        part = tl.load(share + i // inner % channels, mask=here)
    for _ in range(steps):
        driven = tl.load(x + i, mask=here).to(tl.float32) - v
        h = v + driven * part
        fired = h >= threshold
        tl.store(spikes + i, tl.where(fired, 1.0, 0.0).to(spikes.dtype.element_ty), mask=here)
        v = tl.where(fired, 0.0, h)
        x += columns
        spikes += columns
    tl.store(after + i, v, mask=here)


@_kernel
def _fire_backward(
    x, before, share, charged, grad, at_end, by_x, by_before, by_share, columns, channels, inner,
    steps, tau, threshold, alpha, atan: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Gradients by x (T, N), by the first membranes (N,) and by each one's share (N,)."""
    i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    here = i < columns
    start = tl.zeros((block,), tl.float32)
    if before is not None:
        start = tl.load(before + i, mask=here)
    part = tl.full((block,), 1.0, tl.float32) / tau
    if share is not None:
        part = tl.load(share + i // inner % channels, mask=here)
    v, at = start, i
    for _ in range(steps):
        driven = tl.load(x + at, mask=here).to(tl.float32) - v
        h = v + driven * part
        tl.store(charged + at, h, mask=here)
        v = tl.where(h >= threshold, 0.0, h)
        at += columns
    tl.debug_barrier()
    by_v = tl.zeros((block,), tl.float32)
    if at_end is not None:
        by_v = tl.load(at_end + i, mask=here)
    total = tl.zeros((block,), tl.float32)
    for back in range(steps):
        at -= columns
        h = tl.load(charged + at, mask=here)
        above = h - threshold
        if atan:
            reach = 1.5707963267948966 * alpha * above
            slope = alpha / 2 / (1 + reach * reach)
        else:
            y = 1 / (1 + tl.exp(-alpha * above))
            slope = alpha * y * (1 - y)
        by_h = tl.where(above >= 0, 0.0, by_v)
        by_h += tl.load(grad + at, mask=here).to(tl.float32) * slope
        if share is not None:
            earlier = tl.load(charged + at - columns, mask=here & (back < steps - 1), other=0.0)
            kept = tl.where(earlier >= threshold, 0.0, earlier)
            v = tl.where(back < steps - 1, kept, start)
            total += by_h * (tl.load(x + at, mask=here).to(tl.float32) - v)
        tl.store(by_x + at, (by_h * part).to(by_x.dtype.element_ty), mask=here)
        by_v = by_h - by_h * part
    tl.store(by_before + i, by_v, mask=here)
    if share is not None:
        tl.store(by_share + i, total, mask=here)
