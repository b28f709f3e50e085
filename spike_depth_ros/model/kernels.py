"""Compiled loops of inference on the CPU: what eager torch does in a dozen passes, in one.

Arrays are (T, N): time by everything else, in any order of the elements that all arguments
share. bfloat16 travels as its bits in uint16, since numpy has no such type. Loops over whole
rows, given as slices of their own, are what the compiler can vectorise.
"""

from __future__ import annotations

import numba
import numpy as np

_CHUNK = 4096
"""Elements whose membrane stays in the first-level cache over all steps."""

_ONE_BF16 = np.uint16(0x3F80)
_HALF_WORD = np.uint32(16)


@numba.njit(nogil=True, error_model='numpy', inline='always')
def _from_bf16(bits):
    return np.uint32(np.uint32(bits) << _HALF_WORD).view(np.float32)


@numba.njit(nogil=True, error_model='numpy', inline='always')
def _to_bf16(value):
    bits = np.float32(value).view(np.uint32)
    rounded = bits + (np.uint32(0x7FFF) + ((bits >> _HALF_WORD) & np.uint32(1)))
    return np.uint16(rounded >> _HALF_WORD)


@numba.njit(nogil=True, error_model='numpy', inline='always')
def _fire(x, spikes, v, tau, threshold):
    zero, one = np.float32(0), np.float32(1)
    for i in range(x.size):
        charged = v[i] + (x[i] - v[i]) / tau
        fired = charged >= threshold
        spikes[i] = one if fired else zero
        v[i] = zero if fired else charged


@numba.njit(nogil=True, error_model='numpy', inline='always')
def _fire_bf16(x, spikes, v, tau, threshold):
    zero, off = np.float32(0), np.uint16(0)
    for i in range(x.size):
        charged = v[i] + (_from_bf16(x[i]) - v[i]) / tau
        fired = charged >= threshold
        spikes[i] = _ONE_BF16 if fired else off
        v[i] = zero if fired else charged


@numba.njit(cache=True, nogil=True, error_model='numpy')
def lif_infer(x, spikes, before, after, tau, threshold):
    """Leaky integrate-and-fire: x, spikes float32 (T, N); `before` of size 0 means rest."""
    steps, n = x.shape
    v = np.empty(_CHUNK, np.float32)
    for start in range(0, n, _CHUNK):
        part = slice(start, min(start + _CHUNK, n))
        here = v[: part.stop - start]
        if before.size:
            here[:] = before[part]
        else:
            here[:] = np.float32(0)
        for t in range(steps):
            _fire(x[t, part], spikes[t, part], here, tau, threshold)
        after[part] = here


@numba.njit(cache=True, nogil=True, error_model='numpy')
def lif_infer_bf16(x, spikes, before, after, tau, threshold):
    """As `lif_infer`, x and spikes bfloat16 as uint16; membranes stay float32."""
    steps, n = x.shape
    v = np.empty(_CHUNK, np.float32)
    for start in range(0, n, _CHUNK):
        part = slice(start, min(start + _CHUNK, n))
        here = v[: part.stop - start]
        if before.size:
            here[:] = before[part]
        else:
            here[:] = np.float32(0)
        for t in range(steps):
            _fire_bf16(x[t, part], spikes[t, part], here, tau, threshold)
        after[part] = here


@numba.njit(nogil=True, error_model='numpy', inline='always')
def _leak(values, total, decay):
    one = np.float32(1)
    for c in range(values.size):
        total[c] = decay[c] * total[c] + (one - decay[c]) * values[c]


@numba.njit(nogil=True, error_model='numpy', inline='always')
def _leak_bf16(values, total, decay):
    one = np.float32(1)
    for c in range(values.size):
        total[c] = decay[c] * total[c] + (one - decay[c]) * _from_bf16(values[c])


@numba.njit(cache=True, nogil=True, error_model='numpy')
def readout(x, before, total, average, decay, norm):
    """The leaky average of `Readout` over channels-last maps.

    Args:
        x: (T, R, C) float32.
        before: (R, C) float32 running sum before, or of size 0 for rest.
        total: (R, C) float32 to fill: the running sum after.
        average: (R, C) float32 to fill: total * norm.
        decay: (C,) float32.
        norm: (C,) float32.
    """
    steps, rows, _ = x.shape
    for r in range(rows):
        here, mean = total[r], average[r]
        if before.size:
            here[:] = before[r]
        else:
            here[:] = np.float32(0)
        for t in range(steps):
            _leak(x[t, r], here, decay)
        for c in range(mean.size):
            mean[c] = here[c] * norm[c]


@numba.njit(cache=True, nogil=True, error_model='numpy')
def readout_bf16(x, before, total, average, decay, norm):
    """As `readout`, x and average bfloat16 as uint16, the latter rounded to even."""
    steps, rows, _ = x.shape
    for r in range(rows):
        here, mean = total[r], average[r]
        if before.size:
            here[:] = before[r]
        else:
            here[:] = np.float32(0)
        for t in range(steps):
            _leak_bf16(x[t, r], here, decay)
        for c in range(mean.size):
            mean[c] = _to_bf16(here[c] * norm[c])


@numba.njit(cache=True, nogil=True, error_model='numpy')
def look_up(counts, table, out):
    """Fills out (N, H * W, 2) with table[counts (N, 2, H * W)]: channels last."""
    for n in range(counts.shape[0]):
        first, second, pixels = counts[n, 0], counts[n, 1], out[n]
        for i in range(first.size):
            pixels[i, 0] = table[first[i]]
            pixels[i, 1] = table[second[i]]
