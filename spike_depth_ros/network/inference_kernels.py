"""Compiled loops of inference on the CPU, on all threads: one pass where eager torch makes many.

Maps lie with the channels last. Every kernel takes float32, or bfloat16 as its bits, see
`kernels`, spikes may be bytes, and sums of spikes int32. `scale`, `shift` and `share` are one
number per channel, repeated to M elements, as many as one thread takes at a time. Membranes and
running sums are float32 and change in place, which spares the caches a second copy; with `rest`
they begin at 0.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from spike_depth_ros.events.compiled import compiled
from spike_depth_ros.network.kernels import leak, narrow, wide

CHUNK = 2048
"""Most elements that one thread takes at a time: their membranes stay in its first-level cache."""

_inline = compiled(error_model='numpy', inline='always')
_parallel = compiled(error_model='numpy', parallel=True)


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
def _begin(here, rest):
    if rest:
        here[:] = np.float32(0)


@_inline
def _fire(x, spikes, v, share, threshold):
    one, zero = np.float32(1), np.float32(0)
    for i in range(x.size):
        charged = v[i] + (wide(x[i]) - v[i]) * share[i]
        fired = charged >= threshold
        spikes[i] = narrow(one if fired else zero, spikes[i])
        v[i] = zero if fired else charged


@_inline
def _fire_scaled(x, scale, shift, spikes, v, share, threshold):
    one, zero = np.float32(1), np.float32(0)
    for i in range(x.size):
        charged = v[i] + (wide(x[i]) * scale[i] + shift[i] - v[i]) * share[i]
        fired = charged >= threshold
        spikes[i] = narrow(one if fired else zero, spikes[i])
        v[i] = zero if fired else charged


@_inline
def _add(total, x, scale, shift):
    for i in range(x.size):
        total[i] = narrow(wide(total[i]) + (wide(x[i]) * scale[i] + shift[i]), total[i])


@_inline
def _rectify(total, norm, out, first):
    pixels, channels = out.shape[0], total.size // out.shape[0]
    for p in range(pixels):
        for c in range(channels):
            mean = total[p * channels + c] * norm[p * channels + c]
            out[p, first + c] = narrow(max(mean, np.float32(0)), out[p, first + c])


@_parallel
def fire(x, scale, shift, spikes, membranes, rest, share, threshold):
    """All steps of a layer of leaky integrate-and-fire neurons.

    Args:
        x: (T, N) sums; scale * x + shift are the currents.
        scale: (M,) float32 that repeats along N.
        shift: (M,) likewise.
        spikes: (T, N) to fill with 0 and 1.
        membranes: (N,) float32.
        rest: whether they are at rest, whatever they hold.
        share: (M,) likewise: what a membrane takes of what drives it.
        threshold: at and above which a neuron fires.
    """
    steps, n = x.shape
    m = share.size
    for k in prange((n + m - 1) // m):
        part = slice(k * m, min((k + 1) * m, n))
        here = membranes[part]
        _begin(here, rest)
        for t in range(steps):
            _fire_scaled(x[t, part], scale, shift, spikes[t, part], here, share, threshold)


@_parallel
def add_and_fire(total, x, scale, shift, spikes, membranes, rest, share, threshold):
    """Adds scale * x + shift to `total` (T, N), whose sums are the currents then. See `fire`."""
    steps, n = x.shape
    m = share.size
    for k in prange((n + m - 1) // m):
        part = slice(k * m, min((k + 1) * m, n))
        here = membranes[part]
        _begin(here, rest)
        for t in range(steps):
            _add(total[t, part], x[t, part], scale, shift)
            _fire(total[t, part], spikes[t, part], here, share, threshold)


@_parallel
def average_and_fire(
    x, sums, decay, norm, out, first, spikes, membranes, rest, share, threshold
):  # fmt: skip
    """The leaky average of `Readout`, rectified, and the spikes of a layer for the same currents.

    Args:
        x: (T, R, P * C) currents: R rows of P pixels.
        sums: (R, P * C) float32 running sums.
        decay: (P * C,) float32.
        norm: (P * C,) float32 that makes averages of sums.
        out: (R, P, first + C or more) to fill from channel `first` on.
        first: see there.
        spikes: (T, R, P * C) to fill with 0 and 1.
        membranes: (R, P * C) float32.
        rest: whether sums and membranes begin, whatever they hold.
        share: (P * C or more,) float32, see `fire`.
        threshold: see `fire`.
    """
    for r in prange(x.shape[1]):
        total, here = sums[r], membranes[r]
        _begin(total, rest)
        _begin(here, rest)
        for t in range(x.shape[0]):
            leak(x[t, r], total, decay)
            _fire(x[t, r], spikes[t, r], here, share, threshold)
        _rectify(total, norm, out[r], first)


@_parallel
def add_average_and_fire(
    x, added, scale, shift, sums, decay, norm, out, first, spikes, membranes, rest, share,
    threshold,
):  # fmt: skip
    """Adds scale * added + shift to x, then `average_and_fire`."""
    for r in prange(x.shape[1]):
        total, here = sums[r], membranes[r]
        _begin(total, rest)
        _begin(here, rest)
        for t in range(x.shape[0]):
            _add(x[t, r], added[t, r], scale, shift)
            leak(x[t, r], total, decay)
            _fire(x[t, r], spikes[t, r], here, share, threshold)
        _rectify(total, norm, out[r], first)


@_parallel
def add_and_average(x, added, scale, shift, sums, decay, norm, out, first, rest):
    """Adds scale * added + shift to x, and averages; see `average_and_fire`."""
    for r in prange(x.shape[1]):
        total = sums[r]
        _begin(total, rest)
        for t in range(x.shape[0]):
            _add(x[t, r], added[t, r], scale, shift)
            leak(x[t, r], total, decay)
        _rectify(total, norm, out[r], first)


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
                top = wide(coarse[upper, x, i])
                blended[x, i] = top + (wide(coarse[lower, x, i]) - top) * shares_y[y]
        for x in range(width):
            left, right = columns[x], min(columns[x] + 1, coarse.shape[1] - 1)
            along = shares_x[x]
            for i in range(channels):
                here = blended[left, i] + (blended[right, i] - blended[left, i]) * along
                value = wide(fine[y, x, i]) + here
                fine[y, x, i] = narrow(value, fine[y, x, i])
                rectified[y, x, i] = narrow(max(value, np.float32(0)), fine[y, x, i])


@_parallel
def unfold(four, fine):
    """Adds to `fine` (2h, 2w, C) the 2 x 2 pixels in each of `four` (h, w, 4C), and rectifies."""
    height, width, channels = fine.shape
    for y in prange(height):
        first = 2 * (y % 2) * channels
        for x in range(width // 2):
            both = fine[y, 2 * x : 2 * x + 2].reshape(2 * channels)
            added = four[y // 2, x, first : first + 2 * channels]
            for i in range(2 * channels):
                value = max(wide(both[i]) + wide(added[i]), np.float32(0))
                both[i] = narrow(value, both[i])


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
