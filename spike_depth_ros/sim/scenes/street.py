"""Streets: a drive through towns, suburbs, parks and fields, with traffic and pedestrians."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from spike_depth_ros.sim import geometry as geo
from spike_depth_ros.sim import motion, route, weather
from spike_depth_ros.sim.build import SolidList, terrain_patches
from spike_depth_ros.sim.geometry import World
from spike_depth_ros.sim.scenes import roadside, traffic
from spike_depth_ros.sim.scenes.roadside import Road

TERRAIN_REACH_M = 220.0
TERRAIN_CELL_M = 18.0
NEAREST_CELL_M = 2.0
NEAREST_REACH_M = 26.0

FLOORS = np.array(
    [
        [[0.085, 0.085, 0.09], [0.55, 0.55, 0.53], [0.24, 0.23, 0.22], [0.055, 0.105, 0.03],
         [0.17, 0.13, 0.08]],
        [[0.13, 0.13, 0.12], [0.60, 0.59, 0.55], [0.30, 0.29, 0.27], [0.075, 0.115, 0.035],
         [0.22, 0.17, 0.10]],
        [[0.055, 0.055, 0.06], [0.50, 0.50, 0.50], [0.20, 0.19, 0.18], [0.05, 0.09, 0.035],
         [0.12, 0.10, 0.07]],
        [[0.16, 0.15, 0.14], [0.62, 0.52, 0.18], [0.33, 0.28, 0.23], [0.13, 0.13, 0.05],
         [0.28, 0.22, 0.14]],
    ]
)  # fmt: skip
"""Asphalt, paint, pavement, vegetation and soil of four countries, linear RGB."""


class _Crossing(NamedTuple):
    """A junction: its position and the turn of the drive there (0 for straight on)."""

    s_m: float
    angle_rad: float
    radius_m: float


def build_street(seed: int, duration_s: float) -> World:
    """Builds a drive along a curved street with junctions."""
    rng = np.random.Generator(np.random.PCG64(seed))
    fast = float(rng.uniform(7, 15))
    length = fast * (duration_s + 12) + 300
    crossings = _crossings(rng, length)
    turns = [(c.s_m, c.radius_m, c.angle_rad) for c in crossings if c.angle_rad]
    path = motion.trace_path(route.curvature_profile(rng, length, turns), route.STEP_M, 0.0)
    speed = route.speed_profile(rng, path, duration_s, fast, 0.12)
    waves = route.terrain_waves(rng, float(rng.choice([0.01, 0.06, 0.14])), 110.0)
    heights, terrain, keep = route.terrain_mesh(
        waves, path[:, :2], TERRAIN_REACH_M, TERRAIN_CELL_M
    )
    road = _road(rng, path, crossings, heights, terrain)
    condition, light = weather.draw_weather(rng, float(path[20, 2]))
    solids = SolidList()
    terrain_patches(solids, heights, terrain, keep)
    lamps = roadside.furnish(solids, road, rng)
    actors = traffic.populate(solids, road, rng, speed, fast)
    arrays = solids.solids()
    moving = route.motion_of(path, speed, (heights, terrain), waves, actors)
    light = weather.with_maps(light, arrays, heights, terrain, path[:, :2], lamps)
    ground = _ground(rng, road)
    ego = _mount(rng, road)
    return World('street', seed, duration_s, condition, arrays, moving, ground, light, ego)


def _crossings(rng: np.random.Generator, length_m: float) -> list[_Crossing]:
    """Draws junctions every 100 to 200 m; turns alternate so that the path never returns."""
    crossings, s, heading = [], float(rng.uniform(50, 110)), 0
    while s < length_m - 60:
        turns = rng.random() < 0.4
        angle = 0.0
        if turns:
            way = -heading if heading else int(rng.choice([-1, 1]))
            heading += way
            angle = way * math.pi / 2 * float(rng.uniform(0.85, 1.0))
        crossings.append(_Crossing(s, angle, float(rng.uniform(9, 15))))
        s += float(rng.uniform(80, 210)) + (30 if turns else 0)
    return crossings


def _road(
    rng: np.random.Generator,
    path: np.ndarray,
    crossings: list[_Crossing],
    heights: np.ndarray,
    terrain: np.ndarray,
) -> Road:
    lane = float(rng.uniform(2.9, 3.6))
    lanes = int(rng.choice([1, 1, 1, 2]))
    parking = float(rng.choice([0.0, 2.1, 2.2]))
    sides = []
    for c in crossings:
        x, y, heading, _ = motion.along(path, route.STEP_M, c.s_m)
        half, reach = float(rng.uniform(2.8, 5.0)), float(rng.uniform(60, 130))
        low = -reach
        if c.angle_rad:
            low = -2.0
        else:
            heading += math.pi / 2 * (1 + float(rng.uniform(-0.18, 0.18)))
        sides.append((x, y, math.cos(heading), math.sin(heading), half, reach, c.s_m, low))
    side = geo.quantised(sides).reshape(-1, 8)
    return Road(path=path, side=side, lane_m=lane, lanes=lanes, half_m=lane * lanes + parking,
                parking_m=parking, walk_m=float(rng.uniform(1.6, 4.0)),
                hand=-1 if rng.random() < 0.75 else 1, heights=heights, terrain=terrain,
                zones=roadside.draw_zones(rng, len(path) * route.STEP_M),
                crosswalks=bool(rng.random() < 0.7))  # fmt: skip


def _ground(rng: np.random.Generator, road: Road) -> geo.Ground:
    low = np.floor(road.path[:, :2].min(axis=0) - 60)
    span = road.path[:, :2].max(axis=0) + 60 - low
    grid = np.array([low[0], low[1], NEAREST_CELL_M])
    nx, ny = np.ceil(span / NEAREST_CELL_M).astype(int)
    nearest = route.nearest_roads(road.path, road.side, grid, ny, nx, NEAREST_REACH_M)
    paved, edge_line = float(rng.random() < 0.75), float(rng.random() < 0.7)
    age = float(rng.uniform(0, 1))
    marks = (
        road.half_m,
        road.lane_m,
        road.walk_m,
        paved,
        edge_line,
        float(road.crosswalks),
        age,
        0.0,
    )
    colour = FLOORS[int(rng.integers(len(FLOORS)))] * rng.uniform(0.85, 1.2, (5, 1))
    return geo.Ground(1, grid, nearest, road.side, np.array(marks), colour)


def _mount(rng: np.random.Generator, road: Road) -> geo.Ego:
    shake = [
        (2, rng.uniform(0.004, 0.015), rng.uniform(1.1, 1.9), rng.uniform(0, 6)),
        (4, rng.uniform(0.001, 0.005), rng.uniform(1.0, 1.8), rng.uniform(0, 6)),
        (3, rng.uniform(0.001, 0.004), rng.uniform(0.7, 1.5), rng.uniform(0, 6)),
        (4, rng.uniform(0.0001, 0.0008), rng.uniform(9, 16), rng.uniform(0, 6)),
        (3, rng.uniform(0.0001, 0.0006), rng.uniform(10, 18), rng.uniform(0, 6)),
        (5, rng.uniform(0.001, 0.004), rng.uniform(0.1, 0.3), rng.uniform(0, 6)),
        (1, rng.uniform(0.05, 0.25), rng.uniform(0.05, 0.12), rng.uniform(0, 6)),
    ]
    return geo.Ego(offset_m=road.hand * road.lane_m / 2 + float(rng.uniform(-0.2, 0.2)),
                   height_m=float(rng.uniform(1.2, 1.8)),
                   pitch_rad=float(rng.uniform(-0.04, 0.10)),
                   bank=float(rng.uniform(0.002, 0.012)), follow=1.0,
                   shake=np.array(shake))  # fmt: skip
