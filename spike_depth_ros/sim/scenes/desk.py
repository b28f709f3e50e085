"""Desks and shelves with objects on them, 0.2 to 3 m away; the camera moves past or over them."""

from __future__ import annotations

import math

import numpy as np

from spike_depth_ros.sim import geometry as geo
from spike_depth_ros.sim import route, weather
from spike_depth_ros.sim.build import Place, SolidList
from spike_depth_ros.sim.geometry import Free, World
from spike_depth_ros.sim.scenes.straight import gliding, hall, straight_motion
from spike_depth_ros.sim.things.colours import STEEL
from spike_depth_ros.sim.things.surfaces import cover, draw_finish
from spike_depth_ros.sim.things.tabletop import any_thing, row_of_books, small_thing

Generator = np.random.Generator

BEFORE_M, AFTER_M = 3.0, 4.0
"""Extent of the room before the start and beyond the end of the path."""

TALLEST_M = 0.5
"""Maximum height of objects on a table."""

OVER_M = 0.15
"""Minimum height of the camera above the highest objects on the table below it."""


def build_desk(seed: int, duration_s: float) -> World:
    """Builds a slow path between desks and shelves, or above a long table."""
    rng = np.random.Generator(np.random.PCG64(seed))
    fast = math.exp(float(rng.uniform(math.log(0.12), math.log(0.8))))
    moving, far = straight_motion(rng, duration_s, fast)
    solids = SolidList()
    span = (-BEFORE_M, far + AFTER_M)
    over = rng.random() < 0.35
    near = rng.uniform(0.55, 1.2, 2) if over else np.exp(rng.uniform(-1.2, 0.1, 2))
    deep = rng.uniform(0.3, 0.8, 2)
    wall = near + deep + 0.02
    high = float(rng.uniform(2.3, 3.2))
    hall(solids, rng, span, (-float(wall[0]), float(wall[1])), high, 1.2)
    for k, heading in enumerate((math.pi, 0.0)):
        _row(solids, rng, span, heading, float(near[k]), float(deep[k]))
    condition, light = weather.draw_lamps(rng)
    if over:
        top = float(rng.uniform(0.4, 0.8))
        _long_table(solids, rng, span, top, float(near.min()) - 0.12)
        height = top + TALLEST_M + float(rng.uniform(OVER_M, 0.5))
        pitch, yaw = float(rng.uniform(0.45, 1.35)), float(rng.uniform(-math.pi, math.pi))
        free = Free(top + TALLEST_M + OVER_M, high - 0.25, float(near.min()) - 0.15)
    else:
        height, pitch = float(rng.uniform(0.75, 1.4)), float(rng.uniform(-0.1, 0.6))
        yaw = math.radians(rng.uniform(35, 110)) * (1 if rng.random() < 0.5 else -1)
        free = Free(0.12, high - 0.25, float(near.min()) - 0.12)
    ego = gliding(rng, height, pitch, yaw, 0.5 * float(near.min()))
    ground = route.plain_ground(np.zeros(8), np.zeros((5, 3)))
    return World('desk', seed, duration_s, condition, solids.solids(), moving, ground, light,
                 ego, free)  # fmt: skip


def _row(
    solids: SolidList,
    rng: Generator,
    span_m: tuple[float, float],
    heading_rad: float,
    near_m: float,
    deep_m: float,
) -> None:
    """Adds furniture side by side along a wall; its front is `near_m` from the path."""
    side = 1.0 if heading_rad == 0.0 else -1.0
    x, shelved = span_m[0] + 0.2, float(rng.uniform(0.1, 0.9))
    while x < span_m[1] - 1.6:
        half = float(rng.uniform(0.4, 0.9))
        place = Place(x + half, side * (near_m + deep_m / 2), 0.0, heading_rad)
        kind = rng.random()
        if kind < 0.5:
            _desk(solids, place, rng, half, deep_m / 2)
        elif kind < 0.5 + 0.4 * shelved:
            _shelves(solids, place, rng, half, deep_m / 2)
        else:
            _cabinet(solids, place, rng, half, deep_m / 2)
        x += 2 * half + (float(rng.uniform(0.02, 0.6)) if rng.random() < 0.4 else 0.01)


def _set_out(
    solids: SolidList, place: Place, rng: Generator, half_x: float, half_y: float, z_m: float
) -> None:
    """Adds objects in random order on a flat top, without overhang."""
    crowd = float(rng.uniform(0.2, 0.5))
    for x in np.arange(-half_x + 0.18, half_x - 0.17, crowd):
        for y in np.arange(-half_y + 0.17, half_y - 0.1, 0.3):
            if rng.random() < 0.75:
                dx, dy = rng.uniform(-0.05, 0.05, 2)
                any_thing(solids, _on(place, float(x + dx), float(y + max(dy, 0)), z_m), rng)


def _on(place: Place, x_m: float, y_m: float, z_m: float) -> Place:
    """Returns a frame placed within another one, with the same heading."""
    cos, sin = math.cos(place.heading_rad), math.sin(place.heading_rad)
    return place._replace(
        x_m=place.x_m + cos * x_m - sin * y_m,
        y_m=place.y_m + sin * x_m + cos * y_m,
        z_m=place.z_m + z_m,
    )


def _desk(solids: SolidList, place: Place, rng: Generator, half_x: float, half_y: float) -> None:
    """Adds a table top on legs or on a chest of drawers, with objects on it."""
    z = float(rng.uniform(0.66, 0.8))
    finish = draw_finish(rng, 0.8, 'wood' if rng.random() < 0.6 else None)
    cover(solids, place, geo.BOX, finish, (0, 0, z - 0.015), (half_x, half_y, 0.015))
    for x in (-half_x + 0.05, half_x - 0.05):
        for y in (-half_y + 0.05, half_y - 0.05):
            solids.add(place, geo.BOX, geo.PLAIN, (x, y, z / 2 - 0.015),
                       (0.02, 0.02, z / 2 - 0.015), STEEL)  # fmt: skip
    if rng.random() < 0.5:
        drawers = draw_finish(rng, 1.0)
        cover(solids, place, geo.BOX, drawers, (0.5 * half_x, 0, z / 2 - 0.02),
              (0.4 * half_x, 0.9 * half_y, z / 2 - 0.03))  # fmt: skip
    _set_out(solids, place, rng, half_x, half_y, z)
    if rng.random() < 0.35:  # a shelf on the wall
        up, deep = z + float(rng.uniform(0.55, 0.8)), min(0.13, half_y)
        back = half_y - deep
        cover(solids, place, geo.BOX, finish, (0, back, up), (half_x, deep, 0.012))
        row_of_books(solids, _on(place, 0.0, back, up + 0.012), rng, 1.2 * half_x)


def _shelves(
    solids: SolidList, place: Place, rng: Generator, half_x: float, half_y: float
) -> None:
    """Adds an open bookcase with books and small objects."""
    tall, gap = float(rng.uniform(1.2, 2.1)), float(rng.uniform(0.3, 0.4))
    finish = draw_finish(rng, 1.0, 'wood' if rng.random() < 0.6 else None)
    deep = min(half_y, 0.2)
    place = _on(place, 0.0, half_y - deep, 0.0)
    for x in (-half_x, half_x):
        cover(solids, place, geo.BOX, finish, (x, 0, tall / 2), (0.01, deep, tall / 2))
    cover(solids, place, geo.BOX, draw_finish(rng, 1.0), (0, deep - 0.005, tall / 2),
          (half_x, 0.005, tall / 2))  # fmt: skip
    for z in np.arange(0.05, tall, gap):
        cover(solids, place, geo.BOX, finish, (0, 0, float(z)), (half_x, deep, 0.01))
        x = -half_x + 0.15
        while x < half_x - 0.14:
            here = _on(place, x, float(rng.uniform(-0.2, 0.1)) * deep, float(z) + 0.01)
            if rng.random() < 0.5:
                row_of_books(solids, here, rng, 0.22)
            elif rng.random() < 0.8:
                small_thing(solids, here, rng)
            x += float(rng.uniform(0.25, 0.35))


def _cabinet(
    solids: SolidList, place: Place, rng: Generator, half_x: float, half_y: float
) -> None:
    """Adds a closed cabinet with objects on top."""
    tall = float(rng.uniform(0.4, 1.3))
    cover(solids, place, geo.BOX, draw_finish(rng, 1.0), (0, 0, tall / 2),
          (half_x, half_y, tall / 2))  # fmt: skip
    for z in np.arange(0.2, tall - 0.05, 0.25):
        solids.add(place, geo.BOX, geo.PLAIN, (0, -half_y, float(z)), (0.08, 0.01, 0.008), STEEL)
    _set_out(solids, place, rng, half_x, half_y, tall)


def _long_table(
    solids: SolidList, rng: Generator, span_m: tuple[float, float], top_m: float, half_y: float
) -> None:
    """Adds a table below the path, from end to end, in sections with different finishes."""
    x, half_y = span_m[0] + 0.1, min(half_y, 0.6)
    while x < span_m[1] - 1.0:
        half = float(rng.uniform(0.4, 1.1))
        place = Place(x + half, 0.0, 0.0, 0.0)
        cover(solids, place, geo.BOX, draw_finish(rng, 0.8), (0, 0, top_m - 0.02),
              (half, half_y, 0.02))  # fmt: skip
        _set_out(solids, place, rng, half, half_y, top_m)
        x += 2 * half + 0.01
