"""Compiled loops of inference on the CPU, on all threads: one pass where eager torch makes many.

Maps lie with the channels last. Every kernel takes float32, or bfloat16 as its bits in uint16,
since numpy has no such type; sums are float32 in any case. `share` is 1 / tau of the neurons.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange, types
from numba.extending import overload

from spike_depth_ros.compiled import compiled

CHUNK = 2048
"""Elements that one thread takes at a time: their membranes stay in its first-level cache."""

_HALF_WORD = np.uint32(16)
_inline = compiled(error_model='numpy', inline='always')
_parallel = compiled(error_model='numpy', parallel=True)


def _wide(value: Any) -> Any:
    """A number of any kind that the kernels take, as float32."""


def _narrow(value: Any, like: Any) -> Any:
    """A float32 as a number of the kind of `like`, bfloat16 rounded to even."""


@overload(_wide, inline='always')
def _wide_as_typed(value):
    if isinstance(value, types.Integer):
        return lambda value: np.uint32(np.uint32(value) << _HALF_WORD).view(np.float32)
    return lambda value: value


@overload(_narrow, inline='always')
def _narrow_as_typed(value, like):
    if not isinstance(like, types.Integer):
        return lambda value, like: value

    def rounded(value, like):
        bits = np.float32(value).view(np.uint32)
        half = np.uint32(0x7FFF) + ((bits >> _HALF_WORD) & np.uint32(1))
        return np.uint16((bits + half) >> _HALF_WORD)

    return rounded


@_parallel
def look_up(counts, table, out):
    """Fills out (T, H, W, 2) with table[counts (T, 2, H, W)]."""
    steps, _, height, width = counts.shape
    for k in prange(steps * height):
        t, y = k // height, k % height
        first, second, row = counts[t, 0, y], counts[t, 1, y], out[t, y]
        for i in range(width):
            row[i, 0] = table[first[i]]
            row[i, 1] = table[second[i]]


@_inline
def _begin(here, before, part):
    if before.size:
        here[:] = before[part]
    else:
        here[:] = np.float32(0)


@_inline
def _fire(x, spikes, v, share, threshold):
    one, zero = np.float32(1), np.float32(0)
    for i in range(x.size):
        charged = v[i] + (_wide(x[i]) - v[i]) * share
        fired = charged >= threshold
        spikes[i] = _narrow(one if fired else zero, spikes[i])
        v[i] = zero if fired else charged


@_inline
def _fire_shifted(x, shift, spikes, v, share, threshold):
    one, zero = np.float32(1), np.float32(0)
    for i in range(x.size):
        charged = v[i] + (_wide(x[i]) + shift[i] - v[i]) * share
        fired = charged >= threshold
        spikes[i] = _narrow(one if fired else zero, spikes[i])
        v[i] = zero if fired else charged


@_parallel
def fire(x, spikes, before, after, share, threshold):
    """All steps of a layer of leaky integrate-and-fire neurons.

    Args:
        x: (T, N) currents.
        spikes: (T, N) to fill with 0 and 1.
        before: (N,) float32 membranes, or of size 0 for rest.
        after: (N,) float32 membranes to fill.
        share: of the current in a step.
        threshold: at and above which a neuron fires.
    """
    steps, n = x.shape
    for k in prange((n + CHUNK - 1) // CHUNK):
        part = slice(k * CHUNK, min((k + 1) * CHUNK, n))
        here = after[part]
        _begin(here, before, part)
        for t in range(steps):
            _fire(x[t, part], spikes[t, part], here, share, threshold)


@_parallel
def fire_shifted(x, shift, spikes, before, after, share, threshold):
    """As `fire`, the currents being x + shift; `shift` (M,) float32 repeats along N."""
    steps, n = x.shape
    m = shift.size
    for k in prange((n + m - 1) // m):
        part = slice(k * m, min((k + 1) * m, n))
        here = after[part]
        _begin(here, before, part)
        for t in range(steps):
            _fire_shifted(x[t, part], shift, spikes[t, part], here, share, threshold)


@_parallel
def fire_apart(x, spikes, before, after, share, threshold):
    """As `fire`, for currents that several layers share, each layer's spikes in one piece.

    Args:
        x: (T, N, P * D) currents of N tokens.
        spikes: (P, T, N, D) to fill.
        before: (N, P * D) membranes, or of size 0 for rest.
        after: (N, P * D) membranes to fill.
        share: of the current in a step.
        threshold: at and above which a neuron fires.
    """
    parts, steps, tokens, width = spikes.shape
    one, zero = np.float32(1), np.float32(0)
    for n in prange(tokens):
        v = np.empty(parts * width, np.float32)  # fresh: the compiler sees no overlap
        _begin(v, before, n)
        for t in range(steps):
            for p in range(parts):
                for i in range(width):
                    old = v[p * width + i]
                    charged = old + (_wide(x[t, n, p * width + i]) - old) * share
                    fired = charged >= threshold
                    spikes[p, t, n, i] = _narrow(one if fired else zero, spikes[p, t, n, i])
                    v[p * width + i] = zero if fired else charged
        after[n, :] = v


@_parallel
def average(x, before, after, decay, norm, out, first):
    """The leaky average of `Readout`, rectified.

    Args:
        x: (T, R, C) maps.
        before: (R, C) float32 running sums, or of size 0 for rest.
        after: (R, C) float32 running sums to fill.
        decay: (C,) float32.
        norm: (C,) float32 that makes averages of sums.
        out: (R, first + C or more) to fill from column `first` on.
        first: see there.
    """
    steps, rows, channels = x.shape
    one, zero = np.float32(1), np.float32(0)
    for r in prange(rows):
        total = after[r]
        _begin(total, before, r)
        for t in range(steps):
            for c in range(channels):
                total[c] = decay[c] * total[c] + (one - decay[c]) * _wide(x[t, r, c])
        for c in range(channels):
            out[r, first + c] = _narrow(max(total[c] * norm[c], zero), out[r, first + c])


@_parallel
def enlarge(coarse, fine, rectified, rows, columns, shares_y, shares_x):
    """Adds to `fine` a coarser map, enlarged bilinearly, and keeps max(fine, 0) besides.

    Args:
        coarse: (h, w, C).
        fine: (H, W, C), changed in place.
        rectified: (H, W, C) to fill.
        rows: (H,) the upper of the two rows of `coarse` that a row is between.
        columns: (W,) likewise.
        shares_y: (H,) float32 share of the lower one.
        shares_x: (W,) float32 share of the right one.
    """
    height, width, channels = fine.shape
    for y in prange(height):
        upper, lower = rows[y], min(rows[y] + 1, coarse.shape[0] - 1)
        blended = np.empty((coarse.shape[1], channels), np.float32)
        for x in range(coarse.shape[1]):
            for i in range(channels):
                top = _wide(coarse[upper, x, i])
                blended[x, i] = top + (_wide(coarse[lower, x, i]) - top) * shares_y[y]
        for x in range(width):
            left, right = columns[x], min(columns[x] + 1, coarse.shape[1] - 1)
            along = shares_x[x]
            for i in range(channels):
                here = blended[left, i] + (blended[right, i] - blended[left, i]) * along
                value = _wide(fine[y, x, i]) + here
                fine[y, x, i] = _narrow(value, fine[y, x, i])
                rectified[y, x, i] = _narrow(max(value, np.float32(0)), fine[y, x, i])


@_parallel
def double(maps, out):
    """Doubles (C, h, w) bilinearly to (C, 2h, 2w), float32: shares of 1/4 and 3/4."""
    channels, height, width = maps.shape
    near, far = np.float32(0.75), np.float32(0.25)
    for k in prange(channels * height * 2):
        c, y = k // (2 * height), k % (2 * height)
        main = maps[c, y // 2]
        other = maps[c, min(max(y // 2 + (1 if y % 2 else -1), 0), height - 1)]
        row = out[c, y]
        blended = np.empty(width, np.float32)
        for x in range(width):
            blended[x] = near * main[x] + far * other[x]
        row[0], row[2 * width - 1] = blended[0], blended[width - 1]
        for x in range(width - 1):
            row[2 * x + 1] = near * blended[x] + far * blended[x + 1]
            row[2 * x + 2] = near * blended[x + 1] + far * blended[x]
