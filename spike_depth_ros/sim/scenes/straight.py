"""Shared parts of scenes on a straight path: the motion, closed halls, a gliding camera."""

from __future__ import annotations

import math

import numpy as np

from spike_depth_ros.sim import geometry as geo
from spike_depth_ros.sim import motion as mo
from spike_depth_ros.sim import route
from spike_depth_ros.sim.build import Place, SolidList
from spike_depth_ros.sim.geometry import quantised
from spike_depth_ros.sim.things.surfaces import cover, draw_finish

Generator = np.random.Generator

SPARE_M = 40.0
"""Length of the path beyond the end of the drive."""


def straight_motion(
    rng: Generator, duration_s: float, fast_m_s: float, stops: float = 0.0
) -> tuple[mo.Motion, float]:
    """Returns a drive along the x axis over flat ground, without actors.

    Args:
        rng: random generator of the speeds.
        duration_s: duration of the drive.
        fast_m_s: maximum speed.
        stops: probability that a knot of the speed profile is a stop.

    Returns:
        The motion, and the distance travelled at the end [m].
    """
    length = fast_m_s * (duration_s + 15) + SPARE_M
    path = mo.trace_path(np.zeros(math.ceil(length / route.STEP_M)), route.STEP_M, 0.0)
    speed = route.speed_profile(rng, path, duration_s, fast_m_s, stops)
    speed = speed - np.array([0.0, speed[0, 1], 0.0])
    flat = np.array([-1e3, -1e3, 1e4])
    moving = route.motion_of(path, speed, (np.zeros((2, 2)), flat), np.zeros((0, 4)), [])
    return moving, float(mo.travelled(speed, duration_s)[0])


def hall(
    solids: SolidList,
    rng: Generator,
    span_m: tuple[float, float],
    sides_m: tuple[float, float],
    high_m: float,
    far_m: float,
    floor_m: float = 0.0,
) -> None:
    """Adds a closed hall along the x axis; walls, floor and ceiling vary along the path.

    Args:
        solids: the list to add to.
        rng: random generator.
        span_m: x of its ends.
        sides_m: y of its right and of its left wall.
        high_m: z of its ceiling.
        far_m: viewing distance of the textures.
        floor_m: z of its floor.
    """
    low, high = span_m
    right, left = sides_m
    thick = 0.1 * far_m
    middle, half = (left + right) / 2, (left - right) / 2 + 2 * thick
    level, tall = (floor_m + high_m) / 2, high_m - floor_m
    for x in (low - thick, high + thick):
        finish = draw_finish(rng, far_m)
        cover(solids, Place(), geo.BOX, finish, (x, middle, level), (thick, half, tall))
    count = max(round((high - low) / (12 * far_m)), 1)
    step = (high - low) / count / 2
    for k in range(count):
        x = low + (2 * k + 1) * step
        for y in (right - thick, left + thick):
            finish = draw_finish(rng, far_m)
            cover(solids, Place(), geo.BOX, finish, (x, y, level), (step, thick, tall))
        for z in (floor_m - thick, high_m + thick):
            finish = draw_finish(rng, far_m)
            cover(solids, Place(), geo.BOX, finish, (x, middle, z), (step, half, thick))


def gliding(
    rng: Generator, height_m: float, pitch_rad: float, yaw_rad: float, size_m: float
) -> geo.Ego:
    """Returns a camera on a slide or in a steady hand: slow sways of position and direction.

    Args:
        rng: random generator.
        height_m: above the floor.
        pitch_rad: mean pitch, positive looks down.
        yaw_rad: mean yaw, to the left of the path.
        size_m: typical distance of the scene; sways are up to 7 % of it.
    """
    calm = float(rng.uniform(0.0, 1.0))
    sway = [
        (1, 0.25 * size_m, (0.05, 0.4)),
        (2, 0.25 * size_m, (0.05, 0.4)),
        (3, 0.5, (0.05, 0.3)),
        (4, 0.5, (0.05, 0.3)),
        (5, 0.8, (0.04, 0.3)),
        (3, 0.012, (1.0, 6.0)),
        (4, 0.012, (1.0, 6.0)),
        (5, 0.012, (1.0, 6.0)),
    ]
    shake = [
        (axis, calm * most * rng.uniform(0.1, 1.0), rng.uniform(*rates), rng.uniform(0, 6.28))
        for axis, most, rates in sway
    ]
    return geo.Ego(0.0, height_m, pitch_rad, 0.0, 0.0, np.array(shake), yaw_rad)


def with_actors(moving: mo.Motion, actors: list[tuple]) -> mo.Motion:
    """Returns the motion with actors: (mode, course) pairs, see `motion.Motion`."""
    if not actors:
        return moving
    mode = np.array([actor[0] for actor in actors], np.int32)
    return moving._replace(mode=mode, course=quantised([actor[1] for actor in actors]))
