"""Compiled loops of the training step on the CPU: normalise, charge, fire, and all of it back.

Arrays are (T, N), or (N,) for all steps at once: time by everything else, the channel running
fastest; float32, or bfloat16 as its bits in uint16. What belongs to a channel comes as a tile
(K,) that repeats it, K a multiple of the number of channels, so that few channels fill the
vectors too. Every kernel works on the columns from `begin` to `end`, whole pixels, and leaves the
others alone. An argument that may be None leaves its part out at compile time.
"""

from __future__ import annotations

import numpy as np

from spike_depth_ros.events.compiled import compiled
from spike_depth_ros.network import training_tiles as tiles

_FLUSH = 16
"""Rows of a tile whose sums are kept in float32 before they go into float64."""

_kernel = compiled(error_model='numpy')


@_kernel
def moments(x, centre, begin, end):
    """Sums over pixels of x - centre and of its square: (2, K) float64, for x (N,)."""
    tile = centre.size
    total = np.zeros((2, tile))
    some = np.zeros((2, tile), np.float32)
    for row, start in enumerate(range(begin, end, tile)):
        n = min(tile, end - start)
        tiles.moments(x[start : start + n], centre[:n], some[0], some[1])
        if row % _FLUSH == 0:
            tiles.flush(some, total)
    tiles.flush(some, total)
    return total


@_kernel
def normalise(x, scale, shift, residual, out, begin, end):
    """Fills out (N,) with x * scale + shift + residual (N,), which may be None."""
    tile = scale.size
    here = np.empty(tile, np.float32)
    for start in range(begin, end, tile):
        n = min(tile, end - start)
        part = slice(start, start + n)
        tiles.scaled(x[part], scale[:n], shift[:n], here[:n])
        if residual is not None:
            tiles.plus(residual[part], here[:n])
        tiles.write(here[:n], out[part])


@_kernel
def correlate(grad, x, centre, begin, end):
    """Sums over pixels of grad and of grad * (x - centre): (2, K) float64, for (N,)."""
    tile = centre.size
    total = np.zeros((2, tile))
    some = np.zeros((2, tile), np.float32)
    for row, start in enumerate(range(begin, end, tile)):
        n = min(tile, end - start)
        part = slice(start, start + n)
        tiles.correlate(grad[part], x[part], centre[:n], some[0], some[1])
        if row % _FLUSH == 0:
            tiles.flush(some, total)
    tiles.flush(some, total)
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
        tiles.combine(grad[part], x[part], by_grad[:n], by_x[:n], constant[:n], here[:n])
        tiles.write(here[:n], out[part])


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
                tiles.charge_and_fire(x[t, part], v, spikes[t, part], share, tau, threshold)
            else:
                tiles.scaled(x[t, part], scale[:n], shift[:n], normalised)
                if residual is not None:
                    tiles.plus(residual[t, part], normalised)
                if current is not None:
                    tiles.write(normalised, current[t, part])
                    tiles.read(current[t, part], normalised)
                tiles.charge_and_fire(normalised, v, spikes[t, part], share, tau, threshold)


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
                tiles.charge_and_reset(x[t, part], v, h, force, share, tau, threshold)
            else:
                tiles.scaled(x[t, part], scale[:n], shift[:n], g)
                tiles.charge_and_reset(g, v, h, force, share, tau, threshold)
        if grad_after is None:
            v[:] = np.float32(0)
        else:
            v[:] = grad_after[part]
        for t in range(steps - 1, -1, -1):
            h = charged[t, :n]
            if is_atan:
                tiles.back_atan(grad[t, part], h, v, g, share, tau, threshold, alpha)
            else:
                tiles.back_sigmoid(grad[t, part], h, v, g, share, tau, threshold, alpha)
            if learns:
                tiles.add_product(g, driven[t, :n], some[2, :n])
            if grad_current is not None:
                tiles.plus(grad_current[t, part], g)
            tiles.write(g, out[t, part])
            if normalised is not None:
                tiles.correlate(out[t, part], normalised[t, part], centre[:n], some[0], some[1])
        if grad_before is not None:
            grad_before[part] = v
        if row % _FLUSH == 0:
            tiles.flush(some, total)
    tiles.flush(some, total)
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
            tiles.add_product(x[t, part], weights[t, :n], out[part])


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
            tiles.product(grad[part], weights[t, :n], out[t, part])
            tiles.add_product(x[t, part], grad[part], some[t])
        if row % _FLUSH == 0:
            tiles.flush(some, total)
    tiles.flush(some, total)
    return total
