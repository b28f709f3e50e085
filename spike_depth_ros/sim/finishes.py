"""Surface patterns for any viewing distance: noise, print, tags, checkers, stripes, wood.

The scale of each pattern is a parameter, so that it works at 0.2 m and at 60 m. All are
band-limited like those of `textures.py`: cells and lines are box-filtered over the footprint of
the pixel, noise is sampled at the footprint's level.
A pattern returns (mix, gain, gloss): the share of the main colour (the rest is the second colour),
a factor on it, and the share of mirrored light.
"""

from __future__ import annotations

import numpy as np

from spike_depth_ros.events.compiled import compiled
from spike_depth_ros.sim import geometry as geo
from spike_depth_ros.sim.textures import JIT, chance, noise, pulse, pulses, seen

COARSEST_TEXELS = 32.0
"""Size of the coarsest features of `textures.noise_levels`."""

BLOCK_LINES = 14.0
"""Lines of text in one block of a printed page."""

PRINT_INK = 0.3
"""Share of black of a page that is too far away to resolve its blocks."""


@compiled(**JIT)
def cells(u, v, wu, wv, duty, seed):
    """Returns the share of the footprint covered by unit cells that are randomly black.

    It is exact for footprints up to one cell and fades to `duty` between one and two cells.

    Args:
        u: position in cells.
        v: position in cells.
        wu: width of the footprint along u, in cells.
        wv: the same along v.
        duty: share of black cells.
        seed: selects the pattern.
    """
    a, b = min(max(wu, 1e-4), 1.0), min(max(wv, 1e-4), 1.0)
    left, low = u - a / 2, v - b / 2
    i, j = int(np.floor(left)), int(np.floor(low))
    right = min(max((left + a - i - 1.0) / a, 0.0), 1.0)
    upper = min(max((low + b - j - 1.0) / b, 0.0), 1.0)
    total = 0.0
    if chance(i, j, seed) < duty:
        total += (1 - right) * (1 - upper)
    if right > 0 and chance(i + 1, j, seed) < duty:
        total += right * (1 - upper)
    if upper > 0:
        if chance(i, j + 1, seed) < duty:
            total += (1 - right) * upper
        if right > 0 and chance(i + 1, j + 1, seed) < duty:
            total += right * upper
    near = min(max(2.0 - max(wu, wv), 0.0), 1.0)
    return duty + near * (total - duty)


@compiled(**JIT)
def _fractal(levels, u, v, fu, fv, detail):
    """Evaluates 1/f noise. detail: coarsest feature [m], sharpness, share of fine grain, seed.

    Sharpness 0.3 gives soft clouds, 5 gives blots with hard edges.
    """
    rate = COARSEST_TEXELS / detail[0]
    wide = max(fu, fv) * rate
    seed = detail[3]
    coarse = noise(levels, u * rate + 17.0 * seed, v * rate + 5.0 * seed, wide)
    x, y = 0.8 * u - 0.6 * v, 0.6 * u + 0.8 * v
    fine = noise(levels, x * rate * 21.0 + seed, y * rate * 21.0, wide * 21.0)
    value = coarse + detail[2] * fine
    sharp = detail[1] / (1.0 + 0.25 * detail[1] * wide)
    return min(max(0.5 + sharp * value, 0.0), 1.0), 1.0 + 0.1 * fine, 0.0


@compiled(**JIT)
def _print(levels, u, v, fu, fv, detail):
    """Evaluates columns of text, headings and pictures.

    detail: line [m], column [lines], pictures, seed.
    """
    line, seed = detail[0], int(detail[3])
    wide, tall = detail[1] * line, BLOCK_LINES * line
    column, block = u / wide, v / tall
    i, j = int(np.floor(column)), int(np.floor(block))
    inside = pulses(column, 0.9, fu / wide) * pulses(block, 0.93, fv / tall)
    kind = chance(i, j, seed)
    near = seen(max(fu / wide, fv / tall))
    if kind < detail[2]:
        rate = COARSEST_TEXELS / (0.4 * wide)
        tone = noise(levels, u * rate + seed, v * rate, max(fu, fv) * rate)
        ink = inside * min(max(0.55 + 0.5 * tone, 0.1), 1.0)
        return 1.0 - PRINT_INK - near * (ink - PRINT_INK), 1.0, 0.04
    size = line * (2.6 if kind > 0.9 else 1.0)
    x, y = u / (0.5 * size), v / size
    wx, wy = fu / (0.5 * size), fv / size
    letters = 1.0 - cells(x, y, wx, wy, 0.18, seed + 1)
    strokes = cells(4.0 * x, 5.0 * y, 4.0 * wx, 5.0 * wy, 0.55, seed + 2)
    ink = inside * letters * strokes * pulses(y, 0.7, wy)
    return 1.0 - PRINT_INK - near * (ink - PRINT_INK), 1.0, 0.04


@compiled(**JIT)
def _tag(levels, u, v, fu, fv, detail):
    """Evaluates a sheet of square tags. detail: pitch [m], bits along a side, spare, seed.

    Each tag has a white rim of one cell, a black frame of one cell, and random bits.
    """
    count = detail[1] + 4.0
    x, y = u / detail[0], v / detail[0]
    wx, wy = fu / detail[0], fv / detail[0]
    frame, core = (count - 2.0) / count, (count - 4.0) / count
    outer = pulses(x - 1.0 / count, frame, wx) * pulses(y - 1.0 / count, frame, wy)
    inner = pulses(x - 2.0 / count, core, wx) * pulses(y - 2.0 / count, core, wy)
    bits = cells(x * count, y * count, wx * count, wy * count, 0.5, int(detail[3]))
    grain = 0.04 * noise(levels, u * 400.0, v * 400.0, max(fu, fv) * 400.0)
    return 1.0 - outer + inner * (1.0 - bits), 1.0 + grain, 0.03


@compiled(**JIT)
def _checker(levels, u, v, fu, fv, detail):
    """Evaluates a chequerboard. detail: length [m], height [m], strength of stains, seed."""
    a = 2.0 * pulses(u / (2 * detail[0]), 0.5, fu / (2 * detail[0])) - 1.0
    b = 2.0 * pulses(v / (2 * detail[1]), 0.5, fv / (2 * detail[1])) - 1.0
    rate = 6.0 / detail[0]
    stain = noise(levels, u * rate + detail[3], v * rate, max(fu, fv) * rate)
    return 0.5 + 0.5 * a * b, 1.0 + detail[2] * stain, 0.05


@compiled(**JIT)
def _grating(levels, u, v, fu, fv, detail):
    """Evaluates stripes of different tones. detail: period [m], angle [rad], duty, seed."""
    cos, sin = np.cos(detail[1]), np.sin(detail[1])
    x = (u * cos + v * sin) / detail[0]
    width = (fu * abs(cos) + fv * abs(sin)) / detail[0]
    tone = seen(width) * (chance(int(np.floor(x)), 5, int(detail[3])) - 0.5)
    rate = 12.0 / detail[0]
    grain = 0.08 * noise(levels, u * rate, v * rate, max(fu, fv) * rate)
    return pulses(x, detail[2], width), 1.0 + tone + grain, 0.02


@compiled(**JIT)
def _wood(levels, u, v, fu, fv, detail):
    """Evaluates boards with grain along u. detail: width [m], grain size [m], contrast, seed."""
    seed = int(detail[3])
    board = v / detail[0]
    k = int(np.floor(board))
    joint = pulse(board - k, 0.0, 0.02, fv / detail[0])
    shift = 300.0 * chance(k, 1, seed)
    rate = COARSEST_TEXELS / (4.0 * detail[1])
    bend = noise(
        levels, u * rate * 0.05 + shift, v * rate * 0.25, max(fu * 0.05, fv * 0.25) * rate
    )
    fibre = noise(levels, u * rate * 0.12 + shift, v * rate * 2.0, max(fu * 0.12, fv * 2.0) * rate)
    ring = v / detail[1] + 1.5 * bend
    ring = 2.0 * abs(2.0 * (ring - np.floor(ring)) - 1.0) - 1.0
    ring *= seen(fv / detail[1])
    tone = 0.5 * seen(fv / detail[0]) * (chance(k, 2, seed) - 0.5)
    mix = 0.6 + detail[2] * (0.5 * ring + 0.4 * fibre) + tone
    return min(max(mix - joint, 0.0), 1.0), 1.0 + 0.1 * fibre, 0.04


@compiled(**JIT)
def finish_pattern(levels, material, u, v, fu, fv, detail):
    """Evaluates a material from `geometry.FRACTAL` on; see the module docstring.

    Args:
        levels: result of `textures.noise_levels()`.
        material: a material of `geometry`.
        u: horizontal position on the surface [m].
        v: height above the foot of the solid [m].
        fu: footprint of the pixel along u [m].
        fv: footprint along v [m].
        detail: (4,) parameters of the material.
    """
    if material == geo.FRACTAL:
        return _fractal(levels, u, v, fu, fv, detail)
    if material == geo.PRINT:
        return _print(levels, u, v, fu, fv, detail)
    if material == geo.TAG:
        return _tag(levels, u, v, fu, fv, detail)
    if material == geo.CHECKER:
        return _checker(levels, u, v, fu, fv, detail)
    if material == geo.GRATING:
        return _grating(levels, u, v, fu, fv, detail)
    return _wood(levels, u, v, fu, fv, detail)
