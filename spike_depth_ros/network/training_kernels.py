"""Compiled loops of the training step on the CPU: normalise, charge, fire, and all of it back.

Arrays are (T, N), or (N,) for all steps at once: time by everything else, the channel running
fastest; float32, or bfloat16 as its bits in uint16. What belongs to a channel comes as a tile
(K,) that repeats it, K a multiple of the number of channels, so that few channels fill the
vectors too. Every kernel works on the columns from `begin` to `end`, whole pixels, and leaves the
others alone. An argument that may be None leaves its part out at compile time.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import overload

from spike_depth_ros.events.compiled import compiled

_FLUSH = 16
"""Rows of a tile whose sums are kept in float32 before they go into float64."""


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
_kernel = compiled(error_model='numpy')


@_inner
def _read(x, out):
    for k in range(x.size):
        out[k] = _load(x[k])


@_inner
def _write(values, out):
    for k in range(out.size):
        out[k] = _as(out, values[k])


@_inner
def _scaled(x, scale, shift, out):
    for k in range(x.size):
        out[k] = _load(x[k]) * scale[k] + shift[k]


@_inner
def _plus(x, out):
    for k in range(x.size):
        out[k] += _load(x[k])


@_inner
def _charge_and_fire(x, v, spikes, share, tau, threshold):
    """One step of charge, spike and reset; advances the membranes v."""
    zero, off, on = np.float32(0), _as(spikes, np.float32(0)), _as(spikes, np.float32(1))
    for k in range(x.size):
        h = v[k] + _taken(_load(x[k]) - v[k], share, tau, k)
        spikes[k] = on if h >= threshold else off
        v[k] = zero if h >= threshold else h


@_inner
def _charge_and_reset(x, v, charged, driven, share, tau, threshold):
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
def _back_atan(grad, h, carry, out, share, tau, threshold, alpha):
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
def _back_sigmoid(grad, h, carry, out, share, tau, threshold, alpha):
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
def _moments(x, centre, sums, products):
    for k in range(x.size):
        d = _load(x[k]) - centre[k]
        sums[k] += d
        products[k] += d * d


@_inner
def _correlate(grad, x, centre, sums, products):
    for k in range(x.size):
        g = _load(grad[k])
        sums[k] += g
        products[k] += g * (_load(x[k]) - centre[k])


@_inner
def _combine(grad, x, by_grad, by_x, constant, out):
    for k in range(x.size):
        out[k] = _load(grad[k]) * by_grad[k] + _load(x[k]) * by_x[k] + constant[k]


@_inner
def _product(x, weight, out):
    for k in range(x.size):
        out[k] = _as(out, x[k] * weight[k])


@_inner
def _add_product(x, weight, out):
    for k in range(x.size):
        out[k] += _load(x[k]) * weight[k]


@_inner
def _flush(some, total):
    """Moves the sums of a few rows, float32, to those of all, float64."""
    for i in range(some.shape[0]):
        part, sums = some[i], total[i]
        for k in range(part.size):
            sums[k] += part[k]
            part[k] = np.float32(0)


@_kernel
def moments(x, centre, begin, end):
    """Sums over pixels of x - centre and of its square: (2, K) float64, for x (N,)."""
    tile = centre.size
    total = np.zeros((2, tile))
    some = np.zeros((2, tile), np.float32)
    for row, start in enumerate(range(begin, end, tile)):
        n = min(tile, end - start)
        _moments(x[start : start + n], centre[:n], some[0], some[1])
        if row % _FLUSH == 0:
            _flush(some, total)
    _flush(some, total)
    return total


@_kernel
def normalise(x, scale, shift, residual, out, begin, end):
    """Fills out (N,) with x * scale + shift + residual (N,), which may be None."""
    tile = scale.size
    here = np.empty(tile, np.float32)
    for start in range(begin, end, tile):
        n = min(tile, end - start)
        part = slice(start, start + n)
        _scaled(x[part], scale[:n], shift[:n], here[:n])
        if residual is not None:
            _plus(residual[part], here[:n])
        _write(here[:n], out[part])


@_kernel
def correlate(grad, x, centre, begin, end):
    """Sums over pixels of grad and of grad * (x - centre): (2, K) float64, for (N,)."""
    tile = centre.size
    total = np.zeros((2, tile))
    some = np.zeros((2, tile), np.float32)
    for row, start in enumerate(range(begin, end, tile)):
        n = min(tile, end - start)
        part = slice(start, start + n)
        _correlate(grad[part], x[part], centre[:n], some[0], some[1])
        if row % _FLUSH == 0:
            _flush(some, total)
    _flush(some, total)
    return total


@_kernel
def combine(grad, x, by_grad, by_x, constant, out, begin, end):
    """Fills out (N,) with grad * by_grad + x * by_x + constant: back through a normalisation.

    `out` may be `grad`: what is computed first goes to a place that nothing else shares.
    """
    tile = constant.size
    here = np.empty(tile, np.float32)
    for start in range(begin, end, tile):
        n = min(tile, end - start)
        part = slice(start, start + n)
        _combine(grad[part], x[part], by_grad[:n], by_x[:n], constant[:n], here[:n])
        _write(here[:n], out[part])


@_kernel
def fire(
    x, scale, shift, residual, current, before, spikes, after, share, tau, threshold, tile,
    begin, end,
):  # fmt: skip
    """Normalisation, if any, then all steps of a layer of neurons.

    Args:
        x: (T, N) what is normalised, or the neurons' input where scale is None.
        scale: (K,) or None.
        shift: (K,) or None.
        residual: (T, N) to add to what is normalised, or None.
        current: (T, N) to fill with the neurons' input, or None.
        before: (N,) float32 membranes, None at rest.
        spikes: (T, N) to fill.
        after: (N,) float32 membranes to fill.
        share: of what drives it, that a membrane takes: 1 / tau if the product is the quotient
            to the bit, else None; or (K,) float32, each channel its own.
        tau: membrane time constant.
        threshold: membrane at which a neuron fires.
        tile: K.
        begin: first column.
        end: column after the last.
    """
    here = np.empty(tile, np.float32)
    for start in range(begin, end, tile):
        n = min(tile, end - start)
        part = slice(start, start + n)
        v, normalised = after[part], here[:n]
        if before is None:
            v[:] = np.float32(0)
        else:
            v[:] = before[part]
        for t in range(x.shape[0]):
            if scale is None:
                _charge_and_fire(x[t, part], v, spikes[t, part], share, tau, threshold)
            else:
                _scaled(x[t, part], scale[:n], shift[:n], normalised)
                if residual is not None:
                    _plus(residual[t, part], normalised)
                if current is not None:
                    _write(normalised, current[t, part])
                    _read(current[t, part], normalised)
                _charge_and_fire(normalised, v, spikes[t, part], share, tau, threshold)


@_kernel
def fire_backward(
    grad, grad_current, x, scale, shift, before, grad_after, grad_before, out, normalised, centre,
    share, tau, threshold, alpha, is_atan, learns, tile, begin, end,
):  # fmt: skip
    """Back through `fire` to the neurons' input, whose steps are computed anew.

    Args:
        grad: (T, N) by spikes.
        grad_current: (T, N) by the neurons' input from elsewhere, or None.
        x: (T, N) as in `fire`, or the current that it filled, scale and shift being None then.
        scale: (K,) or None.
        shift: (K,) or None.
        before: (N,) float32 or None.
        grad_after: (N,) float32 by the last membranes, or None.
        grad_before: (N,) float32 to fill: by the first membranes, or None.
        out: (T, N) to fill: by the neurons' input.
        normalised: (T, N) what was normalised, or None.
        centre: (K,) or None.
        share: as in `fire`.
        tau: as in `fire`.
        threshold: as in `fire`.
        alpha: steepness of the surrogate.
        is_atan: whether that is 'atan', otherwise 'sigmoid'.
        learns: whether the third sum is asked for.
        tile: K.
        begin: first column.
        end: column after the last.

    Returns:
        Sums over pixels and steps of out, of out * (normalised - centre) and, where every channel
        has its own share, of the gradient by the charge times the charge: (3, K) float64.
    """
    steps = x.shape[0]
    charged = np.empty((steps, tile), np.float32)
    driven = np.empty((steps, tile if learns else 0), np.float32)
    carried, gradient = np.empty((2, tile), np.float32)
    total = np.zeros((3, tile))
    some = np.zeros((3, tile), np.float32)
    for row, start in enumerate(range(begin, end, tile)):
        n = min(tile, end - start)
        part = slice(start, start + n)
        v, g = carried[:n], gradient[:n]
        if before is None:
            v[:] = np.float32(0)
        else:
            v[:] = before[part]
        for t in range(steps):
            h = charged[t, :n]
            force = driven[t, :n]
            if scale is None:
                _charge_and_reset(x[t, part], v, h, force, share, tau, threshold)
            else:
                _scaled(x[t, part], scale[:n], shift[:n], g)
                _charge_and_reset(g, v, h, force, share, tau, threshold)
        if grad_after is None:
            v[:] = np.float32(0)
        else:
            v[:] = grad_after[part]
        for t in range(steps - 1, -1, -1):
            h = charged[t, :n]
            if is_atan:
                _back_atan(grad[t, part], h, v, g, share, tau, threshold, alpha)
            else:
                _back_sigmoid(grad[t, part], h, v, g, share, tau, threshold, alpha)
            if learns:
                _add_product(g, driven[t, :n], some[2, :n])
            if grad_current is not None:
                _plus(grad_current[t, part], g)
            _write(g, out[t, part])
            if normalised is not None:
                _correlate(out[t, part], normalised[t, part], centre[:n], some[0], some[1])
        if grad_before is not None:
            grad_before[part] = v
        if row % _FLUSH == 0:
            _flush(some, total)
    _flush(some, total)
    return total


@_kernel
def weighted_sum(x, weights, out, begin, end):
    """Fills out (N,) float32 with the sum over steps of x (T, N) * weights (T, K) float32."""
    tile = weights.shape[1]
    for start in range(begin, end, tile):
        n = min(tile, end - start)
        part = slice(start, start + n)
        out[part] = np.float32(0)
        for t in range(x.shape[0]):
            _add_product(x[t, part], weights[t, :n], out[part])


@_kernel
def weighted_sum_backward(grad, x, weights, out, begin, end):
    """Fills out (T, N) with grad (N,) * weights; sums over pixels of grad * x: (T, K) float64."""
    steps, tile = weights.shape
    total = np.zeros((steps, tile))
    some = np.zeros((steps, tile), np.float32)
    for row, start in enumerate(range(begin, end, tile)):
        n = min(tile, end - start)
        part = slice(start, start + n)
        for t in range(steps):
            _product(grad[part], weights[t, :n], out[t, part])
            _add_product(x[t, part], grad[part], some[t])
        if row % _FLUSH == 0:
            _flush(some, total)
    _flush(some, total)
    return total
