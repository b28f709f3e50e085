"""Heaps of random textured solids, from tabletop to hall size: parallax without semantics."""

from __future__ import annotations

import math

import numpy as np

from spike_depth_ros.sim import geometry as geo
from spike_depth_ros.sim import route, weather
from spike_depth_ros.sim.build import Place, SolidList
from spike_depth_ros.sim.geometry import Free, World
from spike_depth_ros.sim.scenes.straight import gliding, hall, straight_motion
from spike_depth_ros.sim.things.surfaces import cover, draw_finish

Generator = np.random.Generator

WIDE, HIGH = 3.6, 3.2
"""Half width and height of the scene, in units of its size."""

LOW, TOP, SIDE = 0.3, 1.9, 0.38
"""Free space: between these heights, and up to this distance from the path."""


def build_solids(seed: int, duration_s: float) -> World:
    """Builds a path between boxes, balls and cones of all sizes, standing, lying or floating."""
    rng = np.random.Generator(np.random.PCG64(seed))
    size = math.exp(float(rng.uniform(math.log(0.3), math.log(9.0))))
    moving, far = straight_motion(rng, duration_s, size * float(rng.uniform(0.25, 1.2)))
    solids = SolidList()
    span = (-3.0 * size, far + 8.0 * size)
    if size > 3.0 and rng.random() < 0.6:
        condition, light = weather.draw_weather(rng, 0.0)
        _yard(solids, rng, span, size)
    else:
        condition, light = weather.draw_lamps(rng)
        hall(solids, rng, span, (-WIDE * size, WIDE * size), HIGH * size, 1.5 * size)
    crowd = float(rng.uniform(4.0, 16.0))
    for _ in range(int((span[1] - span[0]) / size * crowd)):
        _solid(solids, rng, span, size)
    height = size * float(rng.uniform(LOW + 0.15, TOP - 0.15))
    yaw = math.radians(float(rng.normal(0.0, 50.0)))
    ego = gliding(rng, height, float(rng.uniform(-0.3, 0.5)), yaw, 0.6 * size)
    free = Free(LOW * size, TOP * size, 0.9 * SIDE * size)
    ground = route.plain_ground(np.zeros(8), np.zeros((5, 3)))
    return World('solids', seed, duration_s, condition, solids.solids(), moving, ground, light,
                 ego, free)  # fmt: skip


def _yard(solids: SolidList, rng: Generator, span_m: tuple[float, float], size_m: float) -> None:
    """Adds open ground up to the horizon."""
    half, reach = (span_m[1] - span_m[0]) / 2, 400.0
    centre = ((span_m[1] + span_m[0]) / 2, 0.0, -1.0)
    cover(solids, Place(), geo.BOX, draw_finish(rng, size_m), centre, (half + reach, reach, 1.0))


def _solid(solids: SolidList, rng: Generator, span_m: tuple[float, float], size_m: float) -> None:
    """Adds one solid that stands, lies or floats beside, below or above the path."""
    half = size_m * np.exp(rng.uniform(math.log(0.05), math.log(0.7), 3))
    if rng.random() < 0.5:
        half[:] = np.clip(half.mean() * rng.uniform(0.7, 1.4, 3), 0, 0.7 * size_m)
    upright = rng.random() < 0.5
    yaw = float(rng.uniform(0, 2 * math.pi))
    pitch, roll = (0.0, 0.0) if upright else rng.uniform(-1.5, 1.5, 2)
    reach = float(np.linalg.norm(half))
    x, y = float(rng.uniform(*span_m)), size_m * float(rng.uniform(-WIDE + 0.2, WIDE - 0.2))
    hangs = rng.random() < 0.35
    z = float(half[2]) if upright else 0.7 * reach
    z = size_m * float(rng.uniform(0.1, HIGH - 0.1)) if hangs else z
    tall = float(half[2]) if upright else reach
    above, below = z - tall > (TOP + 0.12) * size_m, z + tall < (LOW - 0.12) * size_m
    if abs(y) < reach + SIDE * size_m and not above and not below:
        return
    shape = (geo.BOX, geo.BOX, geo.BALL, geo.CONE)[int(rng.integers(4))]
    taper = (0.0, 0.0, 0.0)
    if shape != geo.BALL and rng.random() < 0.4:
        taper = (float(rng.uniform(0, 0.95)), float(rng.uniform(0, 0.95)), 0.0)
    cover(solids, Place(), shape, draw_finish(rng, 1.2 * size_m), (x, y, z),
          (float(half[0]), float(half[1]), float(half[2])), taper=taper, yaw_rad=yaw,
          pitch_rad=float(pitch), roll_rad=float(roll))  # fmt: skip
