"""Compiled loops of inference on the CPU: what eager torch does in a dozen passes, in one.

Arrays are (T, N): time by everything else, in any order of the elements that all arguments
share. Every kernel takes float32, or bfloat16 as its bits in uint16, since numpy has no such
type; membranes and sums are float32 in any case. Loops over whole rows, given as slices of their
own, are what the compiler can vectorise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from spike_depth_ros.events.compiled import compiled

_HALF_WORD = np.uint32(16)
_kernel = compiled(error_model='numpy')
_inline = compiled(error_model='numpy', inline='always')


def wide(value: Any) -> Any:
    """A number of any kind that the kernels take, as float32; uint16 are bits of bfloat16."""


def narrow(value: Any, like: Any) -> Any:
    """A float32 as a number of the kind of `like`, bfloat16 rounded to even."""


@overload(wide, inline='always')
def _wide_as_typed(value):
    if value == types.uint16:
        return lambda value: np.uint32(np.uint32(value) << _HALF_WORD).view(np.float32)
    if isinstance(value, types.Integer):
        return lambda value: np.float32(value)
    return lambda value: value


@overload(narrow, inline='always')
def _narrow_as_typed(value, like):
    if like == types.uint8:
        return lambda value, like: np.uint8(value)
    if like != types.uint16:
        return lambda value, like: value

    def rounded(value, like):
        bits = np.float32(value).view(np.uint32)
        half = np.uint32(0x7FFF) + ((bits >> _HALF_WORD) & np.uint32(1))
        return np.uint16((bits + half) >> _HALF_WORD)

    return rounded


@_inline
def leak(values, total, decay):
    """Takes values into a leaky average: total = decay * total + (1 - decay) * value."""
    one = np.float32(1)
    for c in range(values.size):
        total[c] = decay[c] * total[c] + (one - decay[c]) * wide(values[c])


@_kernel
def readout(x, before, total, average, decay, norm):
    """The leaky average of `Readout` over channels-last maps.

    Args:
        x: (T, R, C).
        before: (R, C) float32 running sum before, or of size 0 for rest.
        total: (R, C) float32 to fill: the running sum after.
        average: (R, C) to fill: total * norm, of the kind of x.
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
            leak(x[t, r], here, decay)
        for c in range(mean.size):
            mean[c] = narrow(here[c] * norm[c], mean[c])


@_kernel
def look_up(counts, table, out):
    """Fills out (N, H * W, 2) with table[counts (N, 2, H * W)]: channels last."""
    for n in range(counts.shape[0]):
        first, second, pixels = counts[n, 0], counts[n, 1], out[n]
        for i in range(first.size):
            pixels[i, 0] = table[first[i]]
            pixels[i, 1] = table[second[i]]
