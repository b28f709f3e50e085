"""A low flight over hills, woods and villages, looking ahead and down."""

from __future__ import annotations

import math

import numpy as np

from spike_depth_ros.sim import geometry as geo
from spike_depth_ros.sim import motion, route, weather
from spike_depth_ros.sim.build import Place, SolidList, terrain_patches
from spike_depth_ros.sim.geometry import World
from spike_depth_ros.sim.scenes.street import FLOORS
from spike_depth_ros.sim.things import buildings, plants, vehicles

REACH_M = 260.0
CELL_M = 24.0
FREE = geo.Free(4.0, 60.0, 1.0)
STRIP_M = 110.0
"""Maximum distance of objects to the sides of the path."""


def build_flight(seed: int, duration_s: float) -> World:
    """Builds a drone's flight at 4 to 30 m above ground."""
    rng = np.random.Generator(np.random.PCG64(seed))
    fast = float(rng.uniform(5, 14))
    length = fast * (duration_s + 12) + 260
    bends = route.curvature_profile(rng, length, []) * float(rng.uniform(1.0, 2.2))
    path = motion.trace_path(bends, route.STEP_M, 0.0)
    speed = route.speed_profile(rng, path, duration_s, fast, 0.08)
    waves = route.terrain_waves(rng, float(rng.uniform(0.1, 0.6)), 90.0)
    heights, terrain, keep = route.terrain_mesh(waves, path[:, :2], REACH_M, CELL_M)
    condition, light = weather.draw_weather(rng, 0.0)
    altitude = math.exp(float(rng.uniform(math.log(4.0), math.log(30.0))))
    solids = SolidList()
    terrain_patches(solids, heights, terrain, keep)
    _scatter(solids, rng, path, heights, terrain, altitude)
    actors = _movers(solids, rng, path, heights, terrain)
    arrays = solids.solids()
    moving = route.motion_of(path, speed, (heights, terrain), waves, actors)
    light = weather.with_maps(light, arrays, heights, terrain, path[:, :2], np.zeros((0, 3)))
    return World('flight', seed, duration_s, condition, arrays, moving, _meadow(rng), light,
                 _mount(rng, altitude), FREE)  # fmt: skip


def _meadow(rng: np.random.Generator) -> geo.Ground:
    colour = FLOORS[int(rng.integers(len(FLOORS)))] * rng.uniform(0.8, 1.25, (5, 1))
    layout_row = np.array([0, 0, 0, 0, 0, 0, float(rng.uniform(0.1, 0.9)), 0])
    return route.plain_ground(layout_row, colour)


def _scatter(
    solids: SolidList,
    rng: np.random.Generator,
    path: np.ndarray,
    heights: np.ndarray,
    terrain: np.ndarray,
    altitude_m: float,
) -> None:
    """Adds trees, bushes, boulders and villages; tall ones keep clear of the camera's path."""
    wooded, built = float(rng.uniform(0.2, 1.0)), float(rng.uniform(0.0, 1.0))
    for _ in range(int(len(path) * 2.2 * wooded)):
        place, d = _spot(rng, path, heights, terrain, STRIP_M)
        tall = float(rng.uniform(4, 13))
        if abs(d) < 5 and tall > altitude_m * 0.6:
            continue
        if rng.random() < 0.7:
            plants.tree(solids, place, rng, tall)
        elif rng.random() < 0.6:
            plants.bush(solids, place, rng)
        else:
            r = float(rng.uniform(0.3, 1.8))
            solids.add(place, geo.BALL, geo.PLAIN, (0, 0, r * 0.3), (r, r * 0.8, r * 0.6),
                       (0.25, 0.24, 0.22), detail=(2, 0, 0, 5))  # fmt: skip
    for _ in range(int(len(path) / 9 * built)):
        place, d = _spot(rng, path, heights, terrain, STRIP_M)
        if abs(d) < 14:
            continue
        if rng.random() < 0.75:
            buildings.house(solids, place, rng)
        else:
            size = float(rng.uniform(10, 20))
            buildings.block(solids, place, rng, size, 10, int(rng.integers(2, 7)))
    for _ in range(int(len(path) / 40 * built)):
        place, d = _spot(rng, path, heights, terrain, 60.0)
        if abs(d) > 3 or altitude_m > 5:
            vehicles.car(solids, place, rng)


def _spot(
    rng: np.random.Generator,
    path: np.ndarray,
    heights: np.ndarray,
    terrain: np.ndarray,
    reach_m: float,
) -> tuple[Place, float]:
    """Returns a random place beside the path and its distance from the path."""
    at = path[int(rng.integers(len(path)))]
    d = float(rng.uniform(-reach_m, reach_m))
    x, y = at[0] - d * at[5], at[1] + d * at[4]
    z, gx, gy = motion.mesh_height(heights, terrain, x, y)
    nearest = float(np.hypot(path[:, 0] - x, path[:, 1] - y).min())
    return Place(x, y, z, float(rng.uniform(0, 6.28)), gx, gy), nearest


def _movers(
    solids: SolidList,
    rng: np.random.Generator,
    path: np.ndarray,
    heights: np.ndarray,
    terrain: np.ndarray,
) -> list[tuple]:
    """Adds cars and pedestrians that move back and forth across the country."""
    actors: list[tuple] = []
    for _ in range(int(rng.integers(0, len(path) // 25))):
        place, _ = _spot(rng, path, heights, terrain, 40.0)
        kind = vehicles.car if rng.random() < 0.4 else vehicles.pedestrian
        reach = float(rng.uniform(20, 60)) if kind is vehicles.car else float(rng.uniform(8, 20))
        pace = float(rng.uniform(4, 10)) if kind is vehicles.car else 1.4
        size = kind(solids, Place(actor=len(actors)), rng)
        ends = (
            place.x_m,
            place.y_m,
            place.x_m + reach * math.cos(place.heading_rad),
            place.y_m + reach * math.sin(place.heading_rad),
        )
        course = (*ends, reach / pace, float(rng.uniform(0, 2)), *size)
        actors.append((motion.SHUTTLE, course))
    return actors


def _mount(rng: np.random.Generator, altitude_m: float) -> geo.Ego:
    """Returns a drone's mount, which banks into turns, pitches, bobs and vibrates."""
    swing = [
        (2, 0.15 * altitude_m, rng.uniform(0.03, 0.08)),
        (1, rng.uniform(0.3, 1.5), rng.uniform(0.04, 0.1)),
        (4, rng.uniform(0.02, 0.09), rng.uniform(0.08, 0.3)),
        (3, rng.uniform(0.02, 0.10), rng.uniform(0.08, 0.35)),
        (5, rng.uniform(0.02, 0.15), rng.uniform(0.05, 0.15)),
        (3, rng.uniform(0.0002, 0.001), rng.uniform(15, 25)),
        (4, rng.uniform(0.0002, 0.001), rng.uniform(15, 25)),
    ]
    return geo.Ego(offset_m=0.0, height_m=altitude_m,
                   pitch_rad=0.05 + 0.8 * float(rng.random()) ** 1.7,
                   bank=-float(rng.uniform(0.03, 0.1)), follow=0.2,
                   shake=np.array([(*row, rng.uniform(0, 6.28)) for row in swing]))  # fmt: skip
