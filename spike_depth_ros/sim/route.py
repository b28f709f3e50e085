"""The route of a drive and the ground around it, from which every scene starts."""

from __future__ import annotations

import math

import numpy as np

from spike_depth_ros.events.compiled import compiled
from spike_depth_ros.sim import geometry as geo
from spike_depth_ros.sim import motion as mo
from spike_depth_ros.sim.geometry import quantised

STEP_M = 1.0
GRIP = 2.2
"""Maximum lateral acceleration of a drive [m/s^2]."""


def curvature_profile(
    rng: np.random.Generator,
    length_m: float,
    turns: list[tuple[float, float, float]],
    winding: float = 1.0,
) -> np.ndarray:
    """Returns the (S,) curvature every `STEP_M`: gentle bends and the given turns, continuous.

    Args:
        rng: random generator of the gentle bends.
        length_m: length of the path.
        turns: start [m], radius [m] and signed angle [rad] of each sharp turn.
        winding: factor on the gentle bends.
    """
    s = np.arange(0.0, length_m + STEP_M, STEP_M)
    bend = np.zeros_like(s)
    for _ in range(3):
        wave_m, strength = rng.uniform(90, 260), rng.uniform(0.0, 0.0035)
        bend += winding * strength * np.sin(2 * np.pi * s / wave_m + rng.uniform(0, 2 * np.pi))
    for start_m, radius_m, angle in turns:
        span = abs(angle) * radius_m * 1.5
        u = np.clip((s - start_m) / span, 0, 1)
        shape = np.clip(np.minimum(u, 1 - u) * 3, 0, 1)
        shape = shape * shape * (3 - 2 * shape)
        total = shape.sum() * STEP_M
        bend = np.where((u > 0) & (u < 1), 0.0, bend) + shape * angle / max(total, 1e-9)
    return bend


def speed_profile(
    rng: np.random.Generator, path: np.ndarray, duration_s: float, fast_m_s: float, stops: float
) -> np.ndarray:
    """Draws (K, 3) knots of `Motion.speed`: random speeds, limited by curves and stops.

    Args:
        rng: random generator.
        path: (S, 6) `Motion.path`.
        duration_s: time to cover.
        fast_m_s: maximum speed to draw.
        stops: probability that a knot is a stop.
    """
    knots = [(0.0, 15.0, float(rng.uniform(0.4, 1.0)) * fast_m_s)]
    while knots[-1][0] < duration_s + 10.0:
        time, s, speed = knots[-1]
        span = float(rng.uniform(2.5, 5.0))
        wish = fast_m_s * float(rng.uniform(0.35, 1.0))
        wish = 0.0 if rng.random() < stops and speed > 0.5 else wish
        wish = min(max(wish, speed - 3.5 * span * 0.6), speed + 2.5 * span * 0.6)
        ahead = slice(int(s), int(s + speed * span * 2) + 25)
        tightest = float(np.abs(path[ahead, 3]).max(initial=1e-4))
        wish = max(min(wish, math.sqrt(GRIP / tightest)), 0.0)
        knots.append((time + span, s + span * (speed + wish) / 2, wish))
    return quantised(knots)


def terrain_waves(rng: np.random.Generator, steepness: float, shortest_m: float) -> np.ndarray:
    """Draws (4, 4) `Motion.waves` whose slopes add up to at most `steepness`."""
    waves = np.zeros((4, 4))
    for k in range(4):
        wave_m = shortest_m * (1.0 + 0.9 * k) * rng.uniform(0.9, 1.2)
        direction, number = rng.uniform(0, 2 * np.pi), 2 * np.pi / wave_m
        slope = steepness * rng.uniform(0.3, 1.0) / 4
        waves[k] = (number * math.cos(direction), number * math.sin(direction),
                    rng.uniform(0, 2 * np.pi), slope / number)  # fmt: skip
    return waves


def terrain_mesh(
    waves: np.ndarray, xy_m: np.ndarray, reach_m: float, cell_m: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples the smooth terrain on a grid around points.

    Returns:
        (ny + 1, nx + 1) heights, (3,) corner x, y and cell size, and (ny, nx) bool: the cells
        within `reach_m` of a point.
    """
    low = np.floor((xy_m.min(axis=0) - reach_m) / cell_m) * cell_m
    nx, ny = np.ceil((xy_m.max(axis=0) + reach_m - low) / cell_m).astype(int)
    x = low[0] + cell_m * np.arange(nx + 1)
    y = low[1] + cell_m * np.arange(ny + 1)
    angle = np.einsum('k,x->kx', waves[:, 0], x)[:, None, :]
    angle = angle + (np.einsum('k,y->ky', waves[:, 1], y) + waves[:, 2:3])[:, :, None]
    heights = quantised(np.einsum('k,kyx->yx', waves[:, 3], np.sin(angle)))
    keep = np.zeros((ny, nx), np.bool_)
    _stamp(keep, xy_m[::4], low, cell_m, reach_m)
    return heights, np.array([low[0], low[1], cell_m]), keep


@compiled()
def _stamp(keep, xy_m, low, cell_m, reach_m):
    """Marks the cells whose centre lies within `reach_m` of any point."""
    span = int(reach_m / cell_m) + 1
    for k in range(xy_m.shape[0]):
        ci, cj = int((xy_m[k, 0] - low[0]) / cell_m), int((xy_m[k, 1] - low[1]) / cell_m)
        for j in range(max(cj - span, 0), min(cj + span + 1, keep.shape[0])):
            for i in range(max(ci - span, 0), min(ci + span + 1, keep.shape[1])):
                dx = low[0] + (i + 0.5) * cell_m - xy_m[k, 0]
                dy = low[1] + (j + 0.5) * cell_m - xy_m[k, 1]
                keep[j, i] |= dx * dx + dy * dy < reach_m * reach_m


@compiled()
def nearest_roads(path, side, grid, ny, nx, reach_m):
    """Returns (2, ny, nx) int16 `Ground.nearest`, by stamping path samples and side streets."""
    nearest = np.full((2, ny, nx), -1, np.int16)
    best = np.full((2, ny, nx), reach_m * reach_m, np.float32)
    span = int(reach_m / grid[2]) + 1
    for k in range(path.shape[0]):
        _claim(nearest[0], best[0], grid, span, path[k, 0], path[k, 1], k)
    for k in range(side.shape[0]):
        for along in range(int(side[k, 7]), int(side[k, 5]) + 1, 2):
            x, y = side[k, 0] + along * side[k, 2], side[k, 1] + along * side[k, 3]
            _claim(nearest[1], best[1], grid, span, x, y, k)
    return nearest


@compiled()
def _claim(nearest, best, grid, span, x, y, label):
    ci, cj = int((x - grid[0]) / grid[2]), int((y - grid[1]) / grid[2])
    for j in range(max(cj - span, 0), min(cj + span + 1, nearest.shape[0])):
        for i in range(max(ci - span, 0), min(ci + span + 1, nearest.shape[1])):
            dx = grid[0] + (i + 0.5) * grid[2] - x
            dy = grid[1] + (j + 0.5) * grid[2] - y
            square = dx * dx + dy * dy
            if square < best[j, i]:
                best[j, i] = square
                nearest[j, i] = label


def plain_ground(row: np.ndarray, colour: np.ndarray) -> geo.Ground:
    """Returns a ground without roads; `row` is `Ground.layout`, `colour` is `Ground.colour`."""
    nowhere = np.full((2, 1, 1), -1, np.int16)
    return geo.Ground(0, np.array([0.0, 0.0, 1.0]), nowhere, np.zeros((0, 8)), row, colour)


def no_actors() -> tuple[np.ndarray, np.ndarray]:
    """Returns empty `Motion.mode` and `Motion.course`."""
    return np.zeros(0, np.int32), np.zeros((0, 8))


def motion_of(
    path: np.ndarray,
    speed: np.ndarray,
    mesh: tuple[np.ndarray, np.ndarray],
    waves: np.ndarray,
    actors: list[tuple],
) -> mo.Motion:
    """Packs `motion.Motion`; `actors` are (mode, course) pairs."""
    mode, course = no_actors()
    if actors:
        mode = np.array([actor[0] for actor in actors], np.int32)
        course = quantised([actor[1] for actor in actors])
    return mo.Motion(quantised(path), STEP_M, speed, mesh[0], mesh[1], waves, mode, course)
