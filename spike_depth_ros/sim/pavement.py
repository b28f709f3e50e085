"""The pattern of the ground: roads with markings, pavements, meadows, junctions."""

from __future__ import annotations

import numpy as np

from spike_depth_ros.events.compiled import compiled
from spike_depth_ros.sim.textures import INLINE, JIT, chance, noise, pulse, pulses, seen

ASPHALT, PAINT, PAVING, GREEN, SOIL = range(5)
"""Rows of `Ground.colour`."""

PARCEL_M = (38.0, 55.0)
"""Size of the parcels of open country."""

ROW_M = 1.1
"""Distance between the rows of crops."""

DASH_M = 9.0
CROSSING_M = (2.0, 5.0)
"""Distance of a crosswalk from the edge of the junction, along the road."""


@compiled(**INLINE)
def road_coordinates(ground, path, step_m, x_m, y_m):
    """Returns the position of a point relative to the main road and the nearest side street.

    Returns:
        Arc length, offset to the left, heading cosine and sine on the main road; distance along
        and offset from the side street, and its row. Offsets are 1e6 and rows -1 if far away.
    """
    i = int((x_m - ground.grid[0]) / ground.grid[2])
    j = int((y_m - ground.grid[1]) / ground.grid[2])
    s, d, cos, sin = 0.0, 1e6, 1.0, 0.0
    along, across, side = 0.0, 1e6, -1
    if 0 <= i < ground.nearest.shape[2] and 0 <= j < ground.nearest.shape[1]:
        n, side = ground.nearest[0, j, i], int(ground.nearest[1, j, i])
        if n >= 0:
            a = path[n]
            cos, sin = a[4], a[5]
            for _ in range(2):
                u = (x_m - a[0]) * cos + (y_m - a[1]) * sin
                d = (y_m - a[1]) * cos - (x_m - a[0]) * sin
                stretch = 1.0 - a[3] * d
                ds = u / stretch if stretch > 0.2 else u
                moved = int(np.round(ds / step_m))
                if moved == 0 or not 0 <= n + moved < path.shape[0]:
                    break
                n += moved
                a = path[n]
                cos, sin = a[4], a[5]
            s = n * step_m + ds
            d -= 0.5 * a[3] * ds * ds
        if side >= 0:
            b = ground.side[side]
            along = (x_m - b[0]) * b[2] + (y_m - b[1]) * b[3]
            across = (y_m - b[1]) * b[2] - (x_m - b[0]) * b[3]
    return s, d, cos, sin, along, across, side


@compiled(**JIT)
def _marks(layout, s, d, fs, fd, gap, half):
    """Returns the share of paint of one road; `gap` is the distance to the next junction edge."""
    clear = pulse(gap, 0.0, 1e6, fs)
    centre = pulse(d, -0.07, 0.07, fd) * pulses(s / DASH_M, 0.35, fs / DASH_M)
    lane = layout[1]
    lanes = max(int(half / lane + 0.3), 1)
    for k in range(1, lanes):
        for sign in (-1.0, 1.0):
            at = sign * k * lane
            centre += pulse(d, at - 0.07, at + 0.07, fd) * pulses(s / 6.0, 0.5, fs / 6.0)
    edge = half - 0.35
    border = pulse(abs(d), edge - 0.07, edge + 0.07, fd) * layout[4]
    paint = (centre + border) * clear
    if layout[5] > 0:
        inside = pulse(abs(d), 0.0, half - 0.5, fd)
        zebra = pulse(gap, CROSSING_M[0], CROSSING_M[1], fs) * pulses(d, 0.5, fd)
        stop = pulse(gap, CROSSING_M[1] + 1.0, CROSSING_M[1] + 1.4, fs)
        open_road = pulse(gap, CROSSING_M[1] + 1.4, 1e6, fs)
        paint = paint * open_road + inside * (zebra + stop * pulse(d, -half, 0.0, fd))
    return min(paint, 1.0)


@compiled(**INLINE)
def _meadow(levels, x, y, longest, middle, coarse, fine, lush):
    """Returns the pattern of open country: parcels with their own crop, tracks, bare spots."""
    blade = noise(levels, x * 9.0, y * 9.0 + 50, middle * 9.0)
    u, v = 0.87 * x + 0.5 * y, 0.87 * y - 0.5 * x
    i = int(np.floor(u / PARCEL_M[0]))
    v += PARCEL_M[1] * chance(i, 3, 1)
    j = int(np.floor(v / PARCEL_M[1]))
    near = seen(longest / 12.0)
    tone, crop = chance(i, j, 2), chance(i, j, 3)
    along = v if crop < 0.5 else u
    rows = pulses(along / ROW_M, 0.5, longest / ROW_M) - 0.5 if abs(crop - 0.5) < 0.3 else 0.0
    du, dv = u - PARCEL_M[0] * i, v - PARCEL_M[1] * j
    track = pulse(du, 0.0, 1.6, longest) + pulse(dv, 0.0, 0.8, longest)
    bare = 0.5 + 1.1 * coarse + 0.3 * blade + near * (1.4 * tone - 0.7) + 0.9 * rows - lush
    bare = min(max(max(bare, track), 0.0), 1.0)
    gain = (1.0 + near * (0.7 * crop - 0.35)) * (1.0 + 0.22 * fine + 0.2 * blade)
    return 0.0, 0.0, 1.0 - bare, bare, max(gain, 0.1)


@compiled(**INLINE)
def _asphalt(levels, layout, x, y, s, d, fd, middle, longest, fine, coarse):
    """Returns the brightness of asphalt: grain, mended patches, wheel tracks, cracks."""
    age = layout[6]
    patch = chance(int(np.floor(s / 7.0)), int(np.floor((d + 20.0) / 2.6)), 5)
    mend = seen(longest / 4.0) * (0.35 if patch < 0.13 * age else 0.0)
    track = 0.08 * pulse(abs(abs(d) - layout[1] / 2), 0.45, 1.0, fd)
    sharp, split = seen(middle / 0.15) * age, 0.0
    if sharp > 0:
        crack = noise(levels, x * 2.1, y * 2.1 + 70, middle * 2.1)
        split = 0.4 * sharp * pulse(crack, -0.03, 0.03, 0.03)
    return 1.0 + 0.13 * fine + (0.05 + 0.11 * age) * coarse - mend - split + track


@compiled(**INLINE)
def _slabs(s, d, fs, fd, longest):
    """Returns the brightness of a pavement: slabs of 0.6 m and their joints."""
    near = seen(longest / 0.6)
    joint = pulses(s / 0.6, 0.05, fs / 0.6) + pulses(d / 0.6, 0.05, fd / 0.6)
    tone = chance(int(np.floor(s / 0.6)), int(np.floor(d / 0.6)), 11)
    return 1.0 - 0.35 * min(joint, 1.0) + near * (0.24 * tone - 0.12)


@compiled(**INLINE)
def ground_pattern(levels, ground, path, step_m, x, y, dx, dy, cos_in, fp):
    """Returns the shares of the ground's colours at a point.

    Args:
        levels: result of `textures.noise_levels()`.
        ground: `geometry.Ground`.
        path: `Motion.path`.
        step_m: `Motion.step_m`.
        x: position [m].
        y: position [m].
        dx: x component of the unit viewing ray.
        dy: y component of the unit viewing ray.
        cos_in: cosine between the ray and the ground's normal.
        fp: width of the pixel's cone at the point [m].

    Returns:
        Shares of paint, paving, green and soil (the rest is asphalt), and a factor on all.
    """
    flat = max(np.sqrt(dx * dx + dy * dy), 1e-6)
    longest = fp * min(1.0 / max(cos_in, 1e-3), 60.0)
    middle = np.sqrt(fp * longest)
    coarse = noise(levels, x * 1.3 + 31.0, y * 1.3, longest * 1.3)
    fine = noise(levels, x * 23.0, y * 23.0, middle * 23.0)
    if ground.style == 0:
        return _meadow(levels, x, y, longest, middle, coarse, fine, ground.layout[6])
    s, d, cos, sin, along, across, side = road_coordinates(ground, path, step_m, x, y)
    toward = abs(dx * cos + dy * sin) / flat
    fs = fp + (longest - fp) * toward
    fd = fp + (longest - fp) * (1.0 - toward * toward)
    half, walk = ground.layout[0], ground.layout[2]
    main = pulse(abs(d), -1.0, half, fd)
    cross, paint, gap = 0.0, 0.0, 1e3
    if side >= 0:
        b = ground.side[side]
        cross = pulse(abs(across), -1.0, b[4], fs) * pulse(along, b[7], b[5], fd)
        if abs(d) > half:
            paint = cross * _marks(ground.layout, along, across, fd, fs, abs(d) - half, b[4])
        gap = abs(across) - b[4] if b[7] < along < b[5] else 1e3
    if abs(d) <= half + fd:
        paint = max(paint, main * _marks(ground.layout, s, d, fs, fd, gap, half))
    road = max(main, cross)
    # The kerb is a bright stone with a dark foot, at the edge of the nearer road.
    beyond = min(abs(d) - half, gap)
    kerb = pulse(beyond, 0.0, 0.18, fd)
    foot = pulse(beyond, -0.1, 0.0, fd)
    wear = 0.8 + 0.12 * fine + 0.1 * coarse
    tar = _asphalt(levels, ground.layout, x, y, s, d, fd, middle, longest, fine, coarse)
    pave = pulse(beyond, 0.0, walk, fd)
    slab = 1.0
    if pave > 0 and ground.layout[3] > 0:
        slab = _slabs(s, d, fs, fd, longest)
    green = (1 - road) * (1 - pave)
    blade = noise(levels, x * 9.0, y * 9.0 + 50, middle * 9.0) if green > 0 else 0.0
    soil = green * min(max(0.2 + 0.8 * coarse, 0.0), 1.0)
    gain = road * (1 - paint) * tar + paint * wear + pave * slab * (1.0 + 0.1 * fine + 0.5 * kerb)
    gain += green * max(1.0 + 0.25 * fine + 0.2 * blade, 0.1)
    gain *= 1.0 - 0.45 * foot
    return paint, pave * (1 - road), green - soil, soil, max(gain, 0.05)
