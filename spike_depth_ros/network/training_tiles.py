"""What the loops of the training step do to one tile: part of a row, inlined into each loop.

Elements are float32, or bfloat16 as its bits in uint16; arithmetic is in float32.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import overload


def _load(value: Any) -> Any:
    """A float32 of an element; for kernels only."""


def _as(like: Any, value: Any) -> Any:
    """A float32 in the type of the elements of `like`, rounded to even; for kernels only."""


@overload(_load, inline='always')
def _load_typed(value):
    if value == types.float32:
        return lambda value: value
    return lambda value: np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)


def _to_bf16(like, value):
    bits = np.float32(value).view(np.uint32)
    rounded = bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
    return np.uint16(rounded >> np.uint32(16))


@overload(_as, inline='always')
def _as_typed(like, value):
    return (lambda like, value: value) if like.dtype == types.float32 else _to_bf16


def _taken(value: Any, share: Any, tau: Any, k: Any) -> Any:
    """What a membrane takes of `value`: value / tau; for kernels only.

    By the product with `share` if that is a number, or one per element.
    """


@overload(_taken, inline='always')
def _taken_typed(value, share, tau, k):
    if isinstance(share, types.NoneType):
        return lambda value, share, tau, k: value / tau
    if isinstance(share, types.Array):
        return lambda value, share, tau, k: value * share[k]
    return lambda value, share, tau, k: value * share


_inner = numba.njit(nogil=True, error_model='numpy', inline='always')


@_inner
def read(x, out):
    """Copies a tile as float32."""
    for k in range(x.size):
        out[k] = _load(x[k])


@_inner
def write(values, out):
    """Copies float32 into a tile of the type of `out`."""
    for k in range(out.size):
        out[k] = _as(out, values[k])


@_inner
def scaled(x, scale, shift, out):
    """Writes x * scale + shift."""
    for k in range(x.size):
        out[k] = _load(x[k]) * scale[k] + shift[k]


@_inner
def plus(x, out):
    """Adds x to `out`."""
    for k in range(x.size):
        out[k] += _load(x[k])


@_inner
def charge_and_fire(x, v, spikes, share, tau, threshold):
    """One step of charge, spike and reset; advances the membranes v."""
    zero, off, on = np.float32(0), _as(spikes, np.float32(0)), _as(spikes, np.float32(1))
    for k in range(x.size):
        h = v[k] + _taken(_load(x[k]) - v[k], share, tau, k)
        spikes[k] = on if h >= threshold else off
        v[k] = zero if h >= threshold else h


@_inner
def charge_and_reset(x, v, charged, driven, share, tau, threshold):
    """The same step for the way back, which asks for the charged membrane.

    And for what drove it, x - v, unless `driven` has no room.
    """
    zero = np.float32(0)
    for k in range(driven.size):
        driven[k] = _load(x[k]) - v[k]
    for k in range(x.size):
        h = v[k] + _taken(_load(x[k]) - v[k], share, tau, k)
        charged[k] = h
        v[k] = zero if h >= threshold else h


@_inner
def back_atan(grad, h, carry, out, share, tau, threshold, alpha):
    """Back through a step: from its successor's membrane in `carry` to its predecessor's there.

    The gradient of the input goes into `out`.
    """
    half, zero, one = alpha * np.float32(0.5), np.float32(0), np.float32(1)
    stretch = np.float32(math.pi) * half
    for k in range(h.size):
        scaled = stretch * (h[k] - threshold)
        slope = half / (one + scaled * scaled)
        later = carry[k]
        g = _load(grad[k]) * slope + (zero if h[k] >= threshold else later)
        part = _taken(g, share, tau, k)
        out[k] = part
        carry[k] = g - part


@_inner
def back_sigmoid(grad, h, carry, out, share, tau, threshold, alpha):
    """As `back_atan`, with the derivative of a sigmoid."""
    zero, one = np.float32(0), np.float32(1)
    for k in range(h.size):
        y = one / (one + np.exp(-alpha * (h[k] - threshold)))
        slope = alpha * y * (one - y)
        later = carry[k]
        g = _load(grad[k]) * slope + (zero if h[k] >= threshold else later)
        part = _taken(g, share, tau, k)
        out[k] = part
        carry[k] = g - part


@_inner
def moments(x, centre, sums, products):
    """Adds x - centre to `sums`, and its square to `products`."""
    for k in range(x.size):
        d = _load(x[k]) - centre[k]
        sums[k] += d
        products[k] += d * d


@_inner
def correlate(grad, x, centre, sums, products):
    """Adds grad to `sums`, and its product with x - centre to `products`."""
    for k in range(x.size):
        g = _load(grad[k])
        sums[k] += g
        products[k] += g * (_load(x[k]) - centre[k])


@_inner
def combine(grad, x, by_grad, by_x, constant, out):
    """Writes grad * by_grad + x * by_x + constant."""
    for k in range(x.size):
        out[k] = _load(grad[k]) * by_grad[k] + _load(x[k]) * by_x[k] + constant[k]


@_inner
def product(x, weight, out):
    """Writes x * weight."""
    for k in range(x.size):
        out[k] = _as(out, x[k] * weight[k])


@_inner
def add_product(x, weight, out):
    """Adds x * weight to `out`."""
    for k in range(x.size):
        out[k] += _load(x[k]) * weight[k]


@_inner
def flush(some, total):
    """Moves the sums of a few rows, float32, to those of all, float64."""
    for i in range(some.shape[0]):
        part, sums = some[i], total[i]
        for k in range(part.size):
            sums[k] += part[k]
            part[k] = np.float32(0)
