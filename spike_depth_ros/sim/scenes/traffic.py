"""Moving objects on a street: oncoming and leading cars, cyclists, pedestrians."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from spike_depth_ros.sim import motion, route
from spike_depth_ros.sim.build import Place, SolidList
from spike_depth_ros.sim.scenes.roadside import Road
from spike_depth_ros.sim.things import vehicles

Generator = np.random.Generator
CROSSWALK_M = 3.5
"""Centre of a crosswalk, from the edge of the side street."""

Kind = Callable[[SolidList, Place, Generator], tuple[float, float]]
"""Adds the solids of an actor and returns half its length and width [m]."""


def populate(
    solids: SolidList, road: Road, rng: Generator, speed: np.ndarray, fast_m_s: float
) -> list[tuple]:
    """Adds the parts of everything that moves; returns (mode, course) of each actor."""
    actors: list[tuple] = []
    length = len(road.path) * route.STEP_M
    own, density = road.hand * road.lane_m / 2, float(rng.uniform(0.2, 1.0))
    for _ in range(int(length / 35 * density)):
        pace = -float(rng.uniform(0.5, 1.1)) * fast_m_s
        lane = -own * (1.0 if road.lanes == 1 or rng.random() < 0.5 else 3.0)
        kind = vehicles.truck if rng.random() < 0.12 else vehicles.car
        start = float(rng.uniform(60, length + 1.2 * length))
        _join(solids, actors, rng, kind, motion.FOLLOW, (start, pace, lane, 0, 0, 0))
    if rng.random() < 0.65:
        gap = float(rng.uniform(8, 16))
        for _ in range(int(rng.integers(1, 4))):
            kind = vehicles.truck if rng.random() < 0.2 else vehicles.car
            lag = float(rng.uniform(0.8, 2.5))
            _join(solids, actors, rng, kind, motion.LEAD, (gap, lag, own, 0, 0, 0))
            gap += float(rng.uniform(14, 22))
    if road.lanes > 1:
        for _ in range(int(length / 70 * density)):
            pace, start = float(rng.uniform(0.5, 1.2)) * fast_m_s, float(rng.uniform(-100, length))
            _join(
                solids, actors, rng, vehicles.car, motion.FOLLOW, (start, pace, 3 * own, 0, 0, 0)
            )
    edge = road.half_m - road.parking_m - 0.45
    for _ in range(int(rng.integers(0, 5))):
        pace, start = float(rng.uniform(3, 6)), float(rng.uniform(30, length * 0.6))
        side = 1 if rng.random() < 0.5 else -1
        course = (start, pace * side, road.hand * side * edge, 0, 0, 0)
        _join(solids, actors, rng, vehicles.bicycle, motion.FOLLOW, course)
    _walkers(solids, actors, road, rng)
    _crossers(solids, actors, road, rng, speed)
    return actors


def _join(
    solids: SolidList, actors: list, rng: Generator, kind: Kind, mode: int,
    course: tuple[float, ...],
) -> None:  # fmt: skip
    half_length, half_width = kind(solids, Place(actor=len(actors)), rng)
    actors.append((mode, (*course, half_length, half_width)))


def _walkers(solids: SolidList, actors: list, road: Road, rng: Generator) -> None:
    """Adds pedestrians who walk back and forth on the pavements."""
    for _ in range(int(len(road.path) * route.STEP_M / 22 * rng.uniform(0.1, 1.0))):
        s, reach = float(rng.uniform(20, len(road.path) - 40)), float(rng.uniform(8, 18))
        d = (1 if rng.random() < 0.5 else -1) * (
            road.half_m + road.walk_m * float(rng.uniform(0.3, 0.9))
        )
        a, b = road.place(s, d), road.place(s + reach, d)
        bend = road.place(s + reach / 2, d)
        middle = math.hypot(bend.x_m - (a.x_m + b.x_m) / 2, bend.y_m - (a.y_m + b.y_m) / 2)
        if middle > 0.4:
            continue
        span = reach / float(rng.uniform(0.9, 1.7))
        course = (a.x_m, a.y_m, b.x_m, b.y_m, span, float(rng.uniform(0, 2)))
        _join(solids, actors, rng, vehicles.pedestrian, motion.SHUTTLE, course)


def _crossers(
    solids: SolidList, actors: list, road: Road, rng: Generator, speed: np.ndarray
) -> None:
    """Adds pedestrians at crosswalks, who wait on the pavement while the camera passes."""
    if not road.crosswalks:
        return
    times = np.arange(0.0, speed[-1, 0], 0.25)
    reached = np.array([motion.travelled(speed, float(t))[0] for t in times])
    for b in road.side:
        s = float(b[6]) - b[4] - CROSSWALK_M
        passes = float(times[min(int(np.searchsorted(reached, s)), len(times) - 1)])
        for _ in range(int(rng.integers(0, 4))):
            at, rim = s + float(rng.uniform(-1.2, 1.2)), road.half_m + 0.8
            a, c = road.place(at, -rim), road.place(at, rim)
            span = 2 * rim / float(rng.uniform(1.0, 1.8))
            phase = (float(rng.uniform(-0.12, 0.12)) - passes / span) % 2.0
            course = (a.x_m, a.y_m, c.x_m, c.y_m, span, phase)
            _join(solids, actors, rng, vehicles.pedestrian, motion.SHUTTLE, course)
