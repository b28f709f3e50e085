"""Weather and time of day, drawn from a table, and the light that falls on the ground."""

from __future__ import annotations

import math

import numpy as np

from spike_depth_ros.events.compiled import compiled
from spike_depth_ros.sim import geometry as geo
from spike_depth_ros.sim.geometry import Light, Solids
from spike_depth_ros.sim.motion import mesh_height

# Radiance of sun, ambient, zenith, horizon; ranges of clouds and of the sun's elevation [deg];
# glare; night.
SKIES: dict[str, tuple] = {
    'clear': ((3.0, 2.8, 2.4), (0.45, 0.55, 0.75), (0.22, 0.42, 0.95), (0.9, 1.0, 1.15),
              (0.0, 0.35), (22, 65), 0.15, 0.0),
    'cloudy': ((1.7, 1.6, 1.45), (0.65, 0.72, 0.82), (0.35, 0.5, 0.9), (1.0, 1.05, 1.1),
               (0.45, 0.85), (25, 60), 0.1, 0.0),
    'overcast': ((0.12, 0.12, 0.12), (0.95, 0.98, 1.02), (1.1, 1.13, 1.18), (0.85, 0.88, 0.92),
                 (0.9, 1.2), (35, 70), 0.0, 0.0),
    'low sun': ((2.6, 1.9, 1.1), (0.34, 0.38, 0.52), (0.2, 0.33, 0.7), (1.35, 1.0, 0.65),
                (0.0, 0.5), (6, 15), 1.0, 0.0),
    'dusk': ((0.10, 0.06, 0.04), (0.10, 0.11, 0.17), (0.05, 0.08, 0.20), (0.42, 0.27, 0.20),
             (0.1, 0.7), (3, 6), 0.0, 0.65),
    'night': ((0.004, 0.005, 0.007), (0.010, 0.011, 0.016), (0.004, 0.005, 0.010),
              (0.028, 0.020, 0.014), (0.0, 0.8), (30, 60), 0.0, 1.0),
}  # fmt: skip
SHARES = (0.24, 0.18, 0.18, 0.14, 0.11, 0.15)
"""Relative frequency of each entry of `SKIES`."""

LAMP_COLOURS = ((0.75, 0.48, 0.22), (0.6, 0.6, 0.62), (0.7, 0.6, 0.42))
HEADLIGHTS = (1.5, 1.45, 1.3)
MAP_CELLS = 3_000_000
SHADOW_REACH_M = 70.0


def draw_weather(rng: np.random.Generator, heading_rad: float) -> tuple[str, Light]:
    """Draws a sky, fog and rain; the light maps are still empty.

    Args:
        rng: random generator.
        heading_rad: initial heading of the drive; a low sun is often ahead.

    Returns:
        The condition in words, and the light.
    """
    name = list(SKIES)[int(rng.choice(len(SKIES), p=SHARES))]
    sun, ambient, zenith, horizon, clouds, height, glare, night = SKIES[name]
    spread = 0.7 if name == 'low sun' and rng.random() < 0.6 else math.pi
    azimuth = heading_rad + rng.uniform(-spread, spread)
    up = math.radians(rng.uniform(*height))
    fog = rng.uniform(0.0003, 0.002)
    words = [name]
    if rng.random() < 0.16:
        fog = math.exp(rng.uniform(math.log(0.008), math.log(0.035)))
        sun, glare = tuple(0.35 * c for c in sun), 0.5 * glare
        words.append('fog')
    rain = 0.0
    if name in ('overcast', 'dusk', 'night', 'cloudy') and rng.random() < 0.3:
        rain = rng.uniform(0.1, 0.5)
        words.append('rain')
    lamps = LAMP_COLOURS[int(rng.integers(len(LAMP_COLOURS)))]
    exposure = rng.uniform(0.75, 1.3)
    table = np.array([sun, ambient, zenith, horizon, lamps, HEADLIGHTS]) * exposure
    direction = (math.cos(azimuth) * math.cos(up), math.sin(azimuth) * math.cos(up), math.sin(up))
    return ' '.join(words), Light(
        sun=np.array(direction),
        table=table,
        fog_per_m=float(fog),
        rain=float(rain),
        clouds=float(rng.uniform(*clouds)),
        glare=float(glare),
        night=float(night),
        grid=np.array([0.0, 0.0, 1.0]),
        maps=np.zeros((2, 1, 1), np.uint8),
    )


def draw_lamps(rng: np.random.Generator) -> tuple[str, Light]:
    """Draws the uniform light of a room; a dim room is forty times darker than a bright one.

    Returns:
        The condition in words, and the light.
    """
    level = math.exp(float(rng.uniform(math.log(0.02), math.log(0.8))))
    warm = np.array([1.0, rng.uniform(0.8, 1.0), rng.uniform(0.55, 1.0)])
    table = np.array([0.5, 0.9, 0.6, 0.5, 0.0, 0.0])[:, None] * warm * level
    direction = np.array([rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5), 1.0])
    name = 'lit' if level > 0.15 else 'dim'
    return name, Light(
        sun=direction / np.linalg.norm(direction),
        table=table,
        fog_per_m=0.0,
        rain=0.0,
        clouds=0.0,
        glare=0.0,
        night=0.0,
        grid=np.array([0.0, 0.0, 1.0]),
        maps=np.zeros((2, 1, 1), np.uint8),
        artificial=1.0,
    )


def with_maps(
    light: Light,
    solids: Solids,
    heights_m: np.ndarray,
    terrain: np.ndarray,
    xy_m: np.ndarray,
    lamps_m: np.ndarray,
) -> Light:
    """Adds the maps of sunlight and lamplight on the ground around a path.

    Args:
        light: result of `draw_weather`.
        solids: solids; the static ones cast shadows.
        heights_m: terrain heights, see `motion.mesh_height`.
        terrain: terrain grid.
        xy_m: (S, 2) the path.
        lamps_m: (L, 3) x, y, and height of each lamp above the ground.
    """
    low = xy_m.min(axis=0) - 45.0
    span = xy_m.max(axis=0) + 45.0 - low
    cell = max(0.5, math.sqrt(span[0] * span[1] / MAP_CELLS))
    grid = np.array([low[0], low[1], cell])
    shape = (math.ceil(span[1] / cell), math.ceil(span[0] / cell))
    maps = np.zeros((2, *shape), np.uint8)
    maps[0] = 255
    if light.table[0].max() > 0.2:
        _cast_shadows(maps[0], grid, solids, heights_m, terrain, light.sun)
    if light.night > 0 and len(lamps_m):
        _shine(maps[1], grid, lamps_m)
    return light._replace(grid=grid, maps=maps)


@compiled()
def _shine(cells, grid, lamps_m):
    """Adds the light of lamps above the ground: cos / r^2, 1 straight below."""
    for k in range(lamps_m.shape[0]):
        x, y, h = lamps_m[k]
        reach = 4.5 * h
        i0, i1 = int((x - reach - grid[0]) / grid[2]), int((x + reach - grid[0]) / grid[2])
        j0, j1 = int((y - reach - grid[1]) / grid[2]), int((y + reach - grid[1]) / grid[2])
        for j in range(max(j0, 0), min(j1 + 1, cells.shape[0])):
            for i in range(max(i0, 0), min(i1 + 1, cells.shape[1])):
                dx = grid[0] + (i + 0.5) * grid[2] - x
                dy = grid[1] + (j + 0.5) * grid[2] - y
                square = (dx * dx + dy * dy) / (h * h)
                fade = max(1.0 - square / 20.0, 0.0)
                value = cells[j, i] + 230.0 * fade / (1.0 + square) ** 1.5
                cells[j, i] = np.uint8(min(value, 255.0))


@compiled(error_model='numpy')
def _cast_shadows(cells, grid, solids, heights_m, terrain, sun):
    """Darkens the cells from which a solid hides the sun."""
    slope = 1.0 / max(sun[2], 0.08)
    for n in range(solids.shape.shape[0]):
        if solids.actor[n] >= 0 or solids.material[n] == geo.GROUND:
            continue
        c, m = solids.centre_m[n], solids.axes_m[n]
        rx = abs(m[0, 0]) + abs(m[0, 1]) + abs(m[0, 2])
        ry = abs(m[1, 0]) + abs(m[1, 1]) + abs(m[1, 2])
        rz = abs(m[2, 0]) + abs(m[2, 1]) + abs(m[2, 2])
        foot = mesh_height(heights_m, terrain, c[0], c[1])[0] - 1.0
        throw = min(max(c[2] + rz - foot, 0.0) * slope, SHADOW_REACH_M)
        sx, sy = -sun[0] * throw, -sun[1] * throw
        i0 = int((c[0] - rx + min(sx, 0.0) - grid[0]) / grid[2])
        i1 = int((c[0] + rx + max(sx, 0.0) - grid[0]) / grid[2])
        j0 = int((c[1] - ry + min(sy, 0.0) - grid[1]) / grid[2])
        j1 = int((c[1] + ry + max(sy, 0.0) - grid[1]) / grid[2])
        i0, i1, j0, j1 = (
            max(i0, 0),
            min(i1, cells.shape[1] - 1),
            max(j0, 0),
            min(j1, cells.shape[0] - 1),
        )
        if i0 > i1 or j0 > j1:
            continue
        inverse = np.linalg.inv(m)
        dark = 70 if solids.material[n] == geo.FOLIAGE else 0
        for j in range(j0, j1 + 1):
            for i in range(i0, i1 + 1):
                if cells[j, i] <= dark:
                    continue
                x, y = grid[0] + (i + 0.5) * grid[2], grid[1] + (j + 0.5) * grid[2]
                z = mesh_height(heights_m, terrain, x, y)[0]
                if _hides(solids.shape[n], inverse, x - c[0], y - c[1], z - c[2], sun):
                    cells[j, i] = dark


@compiled(error_model='numpy')
def _hides(shape, inverse, x, y, z, sun):
    """Returns True if the ray to the sun from (x, y, z), relative to the solid, hits the solid."""
    low, high = 0.0, 1e9
    oo, od, dd = 0.0, 0.0, 0.0
    for k in range(3):
        row = inverse[k]
        o = row[0] * x + row[1] * y + row[2] * z
        d = row[0] * sun[0] + row[1] * sun[1] + row[2] * sun[2]
        oo, od, dd = oo + o * o, od + o * d, dd + d * d
        a, b = (-1.0 - o) / d, (1.0 - o) / d
        low, high = max(low, min(a, b)), min(high, max(a, b))
    if shape == geo.BALL:
        return od * od - dd * (oo - 1.0) > 0 and high > 0
    return low <= high
