"""Flat textured boards at any angle, 0.2 to 10 m away, that fill the view partly or wholly."""

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

NEAREST, FARTHEST = 0.45, 1.7
"""Distance of a board from the path, in units of the scene's size."""

HIGH, EYE = 2.4, 1.2
"""Height of the hall and of the camera in that unit."""

CLEAR = 0.4
"""Half width of the free path, and minimum distance of floor and ceiling."""


def build_board(seed: int, duration_s: float) -> World:
    """Builds a glide past folding screens of boards on both sides in a closed hall."""
    rng = np.random.Generator(np.random.PCG64(seed))
    size = math.exp(float(rng.uniform(math.log(0.45), math.log(5.5))))
    moving, far = straight_motion(rng, duration_s, size * float(rng.uniform(0.25, 1.2)))
    solids = SolidList()
    span = (-3.0 * size, far + 6.0 * size)
    hall(solids, rng, span, (-2.2 * size, 2.2 * size), HIGH * size, size)
    for side in (-1, 1):
        _screen(solids, rng, span, side, size)
    if rng.random() < 0.4:
        _loose(solids, rng, span, size)
    condition, light = weather.draw_lamps(rng)
    ego = gliding(rng, EYE * size, float(rng.uniform(-0.4, 0.5)), _yaw(rng), size)
    ego = ego._replace(shake=_held(ego.shake, size))
    free = Free(CLEAR * size, (HIGH - CLEAR) * size, 0.8 * CLEAR * size)
    ground = route.plain_ground(np.zeros(8), np.zeros((5, 3)))
    return World('board', seed, duration_s, condition, solids.solids(), moving, ground, light,
                 ego, free)  # fmt: skip


def _yaw(rng: Generator) -> float:
    """Draws a yaw: mostly towards a board, sometimes oblique, sometimes along the path."""
    side, way = 1.0 if rng.random() < 0.5 else -1.0, rng.random()
    if way < 0.6:
        return side * math.radians(rng.uniform(60, 120))
    return side * math.radians(rng.uniform(20, 60) if way < 0.85 else rng.uniform(0, 20))


def _held(shake: np.ndarray, size_m: float) -> np.ndarray:
    """Limits lateral sway to the free width of the path."""
    shake = shake.copy()
    aside = shake[:, 0] == 1
    shake[aside, 1] = np.minimum(shake[aside, 1], 0.7 * CLEAR * size_m)
    return shake


def _screen(
    solids: SolidList, rng: Generator, span_m: tuple[float, float], side: int, size_m: float
) -> None:
    """Adds boards joined like a folding screen; each leans as far as the free path allows."""
    x, y = span_m[0], size_m * float(rng.uniform(NEAREST, FARTHEST))
    flat = rng.random() < 0.3
    while x < span_m[1]:
        step = size_m * float(rng.uniform(1.0, 5.0))
        next_y = y if flat else size_m * float(rng.uniform(NEAREST, FARTHEST))
        steep = (min(y, next_y) - CLEAR * size_m) / ((EYE - CLEAR) * size_m)
        lean = float(rng.uniform(-1, 1)) * math.atan(min(steep, 1.0))
        half = (math.hypot(step, next_y - y) / 2, 0.01 * size_m, 1.8 * size_m)
        centre = (x + step / 2, side * (y + next_y) / 2, EYE * size_m)
        cover(solids, Place(), geo.BOX, draw_finish(rng, size_m), centre, half,
              yaw_rad=math.atan2(side * (next_y - y), step), roll_rad=lean)  # fmt: skip
        x, y = x + step, next_y


def _loose(solids: SolidList, rng: Generator, span_m: tuple[float, float], size_m: float) -> None:
    """Adds smaller boards in the air between the path and the screens."""
    for x in np.arange(span_m[0], span_m[1], size_m * float(rng.uniform(0.8, 3.0))):
        wide, high = size_m * rng.uniform(0.08, 0.4, 2)
        aside = CLEAR * size_m + math.hypot(wide, high) + size_m * float(rng.uniform(0.0, 0.6))
        centre = (float(x), float(rng.choice([-1.0, 1.0])) * aside,
                  size_m * float(rng.uniform(0.4, 2.0)))  # fmt: skip
        yaw, pitch, roll = rng.uniform(-0.9, 0.9, 3)
        cover(solids, Place(), geo.BOX, draw_finish(rng, size_m), centre,
              (float(wide), 0.005 * size_m, float(high)), yaw_rad=float(yaw),
              pitch_rad=float(pitch), roll_rad=float(roll))  # fmt: skip
