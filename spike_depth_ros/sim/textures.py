"""Band-limited surface patterns: detail finer than a pixel fades to its mean.

Aliasing would cause false events. Lines and windows are therefore box-filtered exactly over the
pixel's footprint, and noise comes from a mip chain sampled at the footprint's level.
A pattern returns (mix, gain, gloss, glow): the share of the main colour (the rest is the second
colour), a factor on it, the share of mirrored sky, and the emitted light.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from spike_depth_ros.events.compiled import compiled
from spike_depth_ros.sim import geometry as geo

NOISE_SIZE = 256
JIT: dict[str, Any] = {
    'error_model': 'numpy',
    'fastmath': {'contract', 'nsz', 'arcp', 'reassoc'},
    # Reference counting of all arrays that a pixel reads would cost five times the shading.
    '_nrt': False,
}
"""Compiler options of all shading code, which owns no arrays."""

INLINE: dict[str, Any] = JIT | {'forceinline': True}
"""Options for functions that receive the scene: a call would copy some hundred array fields for
every pixel.
"""


@functools.cache
def noise_levels() -> np.ndarray:
    """Returns the mip chain of one tileable fractal noise of mean 0 and deviation about 1.

    Returns:
        float32, the concatenated levels 256^2, 128^2, ... 1.
    """
    rng = np.random.Generator(np.random.PCG64(20240917))
    image = np.zeros((NOISE_SIZE, NOISE_SIZE))
    for octave in range(3, 9):
        size = 2**octave
        grain = rng.random((size, size)) - 0.5
        repeat = NOISE_SIZE // size
        grown = np.kron(grain, np.ones((repeat, repeat)))
        for axis in (0, 1):
            for _ in range(2 if repeat > 1 else 0):
                total = np.cumsum(np.concatenate([grown, grown], axis), axis)
                upper = np.take(total, range(repeat, repeat + NOISE_SIZE), axis)
                grown = (upper - np.take(total, range(NOISE_SIZE), axis)) / repeat
        image += grown * size**-0.3
    image = np.clip((image - image.mean()) / image.std(), -2.5, 2.5)
    levels = []
    while True:
        levels.append(image.ravel())
        if image.shape[0] == 1:
            break
        image = image.reshape(image.shape[0] // 2, 2, image.shape[1] // 2, 2).mean(axis=(1, 3))
    return np.concatenate(levels).astype(np.float32)


@compiled(**JIT)
def noise(levels, u, v, footprint):
    """Returns trilinear noise at (u, v) in texels of the finest level; `footprint` in texels."""
    start, size, scale = 0, NOISE_SIZE, 1.0
    while footprint > 2.0 and size > 1:
        start += size * size
        size >>= 1
        scale *= 0.5
        footprint *= 0.5
    if size == 1:
        return 0.0
    fine = _bilinear(levels, start, size, u * scale, v * scale)
    if footprint <= 1.5:
        return fine
    # Blending over half an octave is smooth enough, and most points then need one level only.
    coarse = _bilinear(levels, start + size * size, size >> 1, u * scale * 0.5, v * scale * 0.5)
    return fine + (2.0 * footprint - 3.0) * (coarse - fine)


@compiled(**JIT)
def _bilinear(levels, start, size, u, v):
    u, v = u - 0.5, v - 0.5
    fu, fv = np.floor(u), np.floor(v)
    i, j = int(fu) & (size - 1), int(fv) & (size - 1)
    i1, j1 = (i + 1) & (size - 1), (j + 1) & (size - 1)
    a, b = u - fu, v - fv
    low = levels[start + j * size + i] * (1 - a) + levels[start + j * size + i1] * a
    high = levels[start + j1 * size + i] * (1 - a) + levels[start + j1 * size + i1] * a
    return low * (1 - b) + high * b


@compiled(**JIT)
def chance(i, j, seed):
    """Returns a number in [0, 1) that is fixed for a pair of integers and a seed."""
    h = np.uint32(np.uint32(i) * np.uint32(0x9E3779B1)) ^ np.uint32(j) * np.uint32(0x85EBCA77)
    h = np.uint32(h ^ np.uint32(seed) * np.uint32(0xC2B2AE3D))
    h = np.uint32((h ^ (h >> np.uint32(15))) * np.uint32(0x2C1B3C6D))
    h = np.uint32((h ^ (h >> np.uint32(12))) * np.uint32(0x297A2D39))
    h = np.uint32(h ^ (h >> np.uint32(15)))
    return (h >> np.uint32(8)) * (1.0 / (1 << 24))


@compiled(**JIT)
def pulse(x, low, high, width):
    """Returns the share of the footprint [x - width/2, x + width/2] that lies in [low, high]."""
    width = max(width, 1e-4)
    covered = min(x + width / 2, high) - max(x - width / 2, low)
    return min(max(covered / width, 0.0), 1.0)


@compiled(**JIT)
def pulses(x, duty, width):
    """Returns the same as `pulse` for the intervals [k, k + duty] of all integers k."""
    width = max(width, 1e-4)
    a, b = x - width / 2, x + width / 2
    fa, fb = np.floor(a), np.floor(b)
    return ((fb - fa) * duty + min(b - fb, duty) - min(a - fa, duty)) / width


@compiled(**JIT)
def seen(cells):
    """Returns 1 where a cell is much larger than the footprint of `cells` cells, else less."""
    return min(max(1.5 - 1.5 * cells, 0.0), 1.0)


@compiled(**JIT)
def _facade(levels, u, v, fu, fv, detail, face):
    """Evaluates windows in storeys. detail: window pitch [m], storey [m], share of glass, seed."""
    if face == 2:
        return 1.0, 0.8 + 0.1 * noise(levels, u * 3, v * 3, fu * 3), 0.0, 0.0
    seed = int(detail[3])
    x, y = u / detail[0], v / detail[1]
    wx, wy = fu / detail[0], fv / detail[1]
    tall = min(0.85, detail[2] * (0.9 + 0.5 * chance(1, 2, seed)))
    wide, sill = detail[2], 0.25 + 0.15 * chance(3, 4, seed)
    if y < 1.0 and chance(5, 6, seed) < 0.5:
        wide, tall, sill = 0.86, 0.7, 0.08
    frame = 0.06
    glass = pulses(x - 0.1, wide, wx) * pulses(y - sill, tall, wy)
    outer = pulses(x - 0.1 + frame, wide + 2 * frame, wx) * pulses(
        y - sill + frame, tall + 2 * frame, wy
    )
    cross = 1.0 - 0.6 * pulse(x - 0.1 - np.floor(x - 0.1), wide / 2 - 0.02, wide / 2 + 0.02, wx)
    glass *= cross
    near = seen(max(wx, wy))
    cell = chance(int(np.floor(x - 0.1)), int(np.floor(y - sill)), seed)
    band = pulses(y, 0.05 + 0.06 * chance(7, 8, seed), wy)
    stain = 0.09 * noise(levels, u * 6, v * 4, fu * 6) + 0.06 * noise(
        levels, u * 60, v * 60, fu * 60
    )
    wall = (1.0 + stain) * (1.0 + (0.9 * chance(9, 1, seed) - 0.45) * band)
    wall *= 1.0 + (0.9 * chance(2, 9, seed) - 0.3) * max(outer - glass, 0.0)
    pane = 1.0 + near * (2.4 * cell * cell - 0.8)
    lit = glass * (
        (1 - near) * 0.3 + near * (1.4 * chance(int(cell * 9999), 3, seed) if cell < 0.3 else 0.0)
    )
    return 1.0 - glass, wall * (1 - glass) + pane * glass, 0.35 * glass, lit


@compiled(**JIT)
def _paint(levels, u, v, fu, fv, detail, face):
    """Evaluates a car body. detail: door pitch [m], height of the dark sill [m], spare, seed."""
    door = detail[0]
    seam = pulses(u / door, 0.03 / door, fu / door) if face == 1 and door > 0.1 else 0.0
    sill = pulse(v, -9.0, detail[1], fv)
    grille = pulse(abs(u), 0.0, 0.45, fu) * pulse(v, 0.15, 0.4, fv) if face == 0 else 0.0
    dirt = 0.05 * noise(levels, u * 12, v * 12, fu * 12)
    dark = max(max(0.7 * seam, sill), 0.8 * grille)
    return 1.0 - dark, 1.0 + dirt, 0.14 * (1 - dark) if face != 2 else 0.28, 0.0


@compiled(**JIT)
def _glass(levels, u, v, fu, fv, detail, face):
    """Evaluates car windows between pillars. detail: pitch [m], 0 for one pane.

    The pillars have the second colour.
    """
    if face == 2:
        return 0.0, 1.0, 0.2, 0.0
    pitch = max(detail[0], 0.1)
    pillar = pulses(u / pitch, 0.09, fu / pitch) if detail[0] > 0 and face == 1 else 0.0
    shade = 1.0 + 0.3 * noise(levels, u * 5 + detail[3], v * 5, fu * 5)
    return 1.0 - pillar, shade, 0.22 * (1 - pillar) + 0.08, 0.0


@compiled(**JIT)
def _foliage(levels, u, w, v, fu, fv, detail):
    """Evaluates leaves, with strong contrast at two scales.

    detail: leaf size [m], contrast, spare, seed. The two scales use different axes (u and w),
    because a single one would show its grain from the side.
    """
    rate = 3.0 / max(detail[0], 0.02)
    fine = noise(levels, u * rate + detail[3], v * rate, max(fu, fv) * rate)
    clump = noise(levels, w * 14 + detail[3], v * 14, max(fu, fv) * 14)
    gain = 1.0 + detail[1] * (0.9 * fine + 0.5 * clump)
    return min(max(0.5 + 0.6 * clump, 0.0), 1.0), min(max(gain, 0.1), 3.0), 0.0, 0.0


@compiled(**JIT)
def _brick(levels, u, v, fu, fv, detail):
    """Evaluates bricks or slabs with joints. detail: length [m], height [m], joint share, seed."""
    y = v / detail[1]
    row = int(np.floor(y))
    x = u / detail[0] + 0.5 * (row & 1)
    wx, wy = fu / detail[0], fv / detail[1]
    joint = 1.0 - pulses(x, 1 - detail[2], wx) * pulses(y, 1 - 2 * detail[2], wy)
    tint = seen(max(wx, wy)) * (0.5 * chance(int(np.floor(x)), row, int(detail[3])) - 0.25)
    grain = 0.1 * noise(levels, u * 40, v * 40, max(fu, fv) * 40)
    return 1.0 - joint, 1.0 + tint + grain + 0.08 * noise(levels, u * 5, v * 5, fu * 5), 0.0, 0.0


@compiled(**JIT)
def _sign(levels, u, v, fu, fv, detail, face):
    """Evaluates a board with a border and glyph-like blocks.

    detail: width, height, glyph [m], seed.
    """
    edge = 0.06 * min(detail[0], detail[1])
    inner = pulse(u, -detail[0] / 2 + edge, detail[0] / 2 - edge, fu)
    inner *= pulse(v, edge, detail[1] - edge, fv)
    x, y = u / detail[2], v / (1.6 * detail[2])
    near = seen(max(fu, fv) / detail[2])
    block = 1.0 if chance(int(np.floor(x)), int(np.floor(y)), int(detail[3])) < 0.45 else 0.0
    block = near * block + (1 - near) * 0.45
    return 1.0 - inner * (1.0 - 0.85 * block) if face != 2 else 0.4, 1.0, 0.05, 0.0


@compiled(**JIT)
def _shelf(levels, u, v, fu, fv, detail):
    """Evaluates compartments of varying brightness.

    detail: pitch u, pitch v [m], board share, seed.
    """
    x, y = u / detail[0], v / detail[1]
    wx, wy = fu / detail[0], fv / detail[1]
    hole = pulses(x, 1 - detail[2], wx) * pulses(y, 1 - detail[2], wy)
    near = seen(max(wx, wy))
    tone = chance(int(np.floor(x)), int(np.floor(y)), int(detail[3]))
    grain = 0.15 * noise(levels, u * 25, v * 25, max(fu, fv) * 25)
    return 1.0 - hole, 1.0 + grain + hole * near * (1.8 * tone - 0.9), 0.04, 0.0


@compiled(**JIT)
def _plank(levels, u, v, fu, fv, detail):
    """Evaluates long grain with joints, as of wood, bark and roof tiles.

    detail: width [m], joint, contrast, seed.
    """
    plank = max(detail[0], 0.05)
    x = u / plank
    joint = 1.0 - pulses(x, 1 - detail[1], fu / plank)
    tint = seen(fu / plank) * (0.6 * chance(int(np.floor(x)), 7, int(detail[3])) - 0.3)
    grain = detail[2] * noise(levels, u * 50 + detail[3], v * 7, max(fu * 50, fv * 7))
    return 1.0 - 0.7 * joint, max(1.0 + tint + grain, 0.1), 0.02, 0.0


@compiled(**JIT)
def pattern(levels, material, face, u, w, v, fu, fv, detail, radius):
    """Evaluates the pattern of a material; the result is described in the module docstring.

    Args:
        levels: result of `noise_levels()`.
        material: a material of `geometry`.
        face: axis of the face's normal: 0 front and back, 1 sides, 2 top and bottom.
        u: horizontal position on the surface [m].
        w: position along another direction [m], for round solids.
        v: height above the foot of the solid [m].
        fu: footprint of the pixel along u [m].
        fv: footprint along v [m].
        detail: (4,) parameters of the material.
        radius: distance from the solid's y axis as a share of its half size (wheels).
    """
    if material == geo.FACADE:
        return _facade(levels, u, v, fu, fv, detail, face)
    if material == geo.FOLIAGE:
        return _foliage(levels, u, w, v, fu, fv, detail)
    if material == geo.PAINT:
        return _paint(levels, u, v, fu, fv, detail, face)
    if material == geo.GLASS:
        return _glass(levels, u, v, fu, fv, detail, face)
    if material == geo.BARK or material == geo.ROOF:
        return _plank(levels, u, v, fu, fv, detail)
    if material == geo.BRICK or material == geo.FLOOR:
        return _brick(levels, u, v, fu, fv, detail)
    if material == geo.SIGN:
        return _sign(levels, u, v, fu, fv, detail, face)
    if material == geo.SHELF or material == geo.PANEL:
        return _shelf(levels, u, v, fu, fv, detail)
    if material == geo.GLOW:
        return 1.0, 1.0, 0.0, detail[0]
    if material == geo.WHEEL:
        hub = pulse(radius, 0.0, 0.62, fu * 3)
        return hub, 1.0 + 0.25 * hub * noise(levels, u * 40, v * 40, fu * 40), 0.05, 0.0
    if material == geo.STRIPE:
        period = max(detail[0], 0.02)
        return pulses(v / period + detail[1] * u / period, 0.5, fv / period), 1.0, 0.05, 0.0
    grain = 0.12 * noise(levels, u * 20 + detail[3], v * 20, max(fu, fv) * 20)
    if material == geo.CLOTH:
        upper = pulse(v, detail[0], 99.0, fv)
        return (
            upper,
            1.0 + grain + 0.25 * noise(levels, u * 6 + detail[3], v * 6, fu * 6),
            0.0,
            0.0,
        )
    return 1.0, 1.0 + (1.0 + detail[0]) * grain, detail[1], 0.0
