"""Rooms and corridors: walls, doors, furniture, shelves, lamps and people."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from spike_depth_ros.sim import geometry as geo
from spike_depth_ros.sim import motion, route, weather
from spike_depth_ros.sim.build import RGB, Place, SolidList
from spike_depth_ros.sim.geometry import World
from spike_depth_ros.sim.things import indoors, vehicles

Generator = np.random.Generator


class _Room(NamedTuple):
    """A stretch of the path: a box of free space around it."""

    start_m: float
    end_m: float
    half_m: float
    high_m: float
    kind: str


def build_indoor(seed: int, duration_s: float) -> World:
    """Builds a walk or a robot's drive through a row of rooms with occasional turns."""
    rng = np.random.Generator(np.random.PCG64(seed))
    fast = float(rng.uniform(0.6, 2.2))
    length = fast * (duration_s + 12) + 60
    rooms, path = _rooms(rng, length)
    speed = route.speed_profile(rng, path, duration_s, fast, 0.1)
    speed = speed - np.array([0.0, 12.0, 0.0])
    flat = np.array([path[:, 0].min() - 50, path[:, 1].min() - 50, 1e4])
    solids = SolidList()
    look = _look(rng)
    for k, room in enumerate(rooms):
        _shell(solids, rng, path, room, look, k + 1 == len(rooms))
        FURNITURE[room.kind](solids, rng, path, room)
    actors = _people(solids, rng, path, rooms)
    arrays = solids.solids()
    moving = route.motion_of(path, speed, (np.zeros((2, 2)), flat), np.zeros((0, 4)), actors)
    condition, light = weather.draw_lamps(rng)
    ground = route.plain_ground(np.zeros(8), np.zeros((5, 3)))
    return World('indoor', seed, duration_s, condition, arrays, moving, ground, light,
                 _mount(rng), geo.Free(high_m=2.1))  # fmt: skip


def _rooms(rng: Generator, length_m: float) -> tuple[list[_Room], np.ndarray]:
    """Returns straight rooms, joined by quarter turns inside square halls."""
    rooms: list[_Room] = []
    turns, s, heading = [], 0.0, 0
    while s < length_m:
        kind = list(FURNITURE)[int(rng.choice(len(FURNITURE), p=(0.3, 0.25, 0.2, 0.25, 0.0)))]
        span = float(rng.uniform(7, 18))
        half = float(rng.uniform(1.1, 1.7)) if kind == 'corridor' else float(rng.uniform(2.4, 5.5))
        high = float(rng.uniform(2.4, 4.2))
        rooms.append(_Room(s, s + span, half, high, kind))
        s += span
        if rng.random() < 0.4:
            way = -heading if heading else int(rng.choice([-1, 1]))
            heading += way
            turns.append((s + 1.5, 2.2, way * math.pi / 2))
            hall = 2.2 * 1.5 * math.pi / 2 + 3.0
            rooms.append(_Room(s, s + hall, 0.0, 3.0, 'turn'))
            s += hall
    return rooms, motion.trace_path(_curvature(s + 30, turns), route.STEP_M, 0.0)


def _curvature(length_m: float, turns: list[tuple[float, float, float]]) -> np.ndarray:
    """Returns `route.curvature_profile` without bends between the turns: walls are straight."""
    return route.curvature_profile(np.random.Generator(np.random.PCG64(0)), length_m, turns, 0.0)


class _Look(NamedTuple):
    wall: RGB
    floor: RGB
    joint: RGB
    ceiling: RGB
    slab_m: float
    grain: float


def _look(rng: Generator) -> _Look:
    base = float(rng.uniform(0.3, 0.75))
    tint = rng.uniform(0.85, 1.1, 3)
    floor = rng.uniform(0.08, 0.45) * rng.uniform(0.8, 1.1, 3)
    wall = (base * tint[0], base * tint[1], base * tint[2])
    return _Look(wall=wall, floor=(float(floor[0]), float(floor[1]), float(floor[2])),
                 joint=(0.08, 0.08, 0.08), ceiling=(0.7, 0.7, 0.68),
                 slab_m=float(rng.uniform(0.2, 0.8)),
                 grain=float(rng.uniform(-0.95, 0.3)))  # fmt: skip


def _frame(path: np.ndarray, s_m: float, d_m: float = 0.0, turn_rad: float = 0.0) -> Place:
    x, y, heading, _ = motion.along(path, route.STEP_M, s_m)
    x, y = x - d_m * math.sin(heading), y + d_m * math.cos(heading)
    return Place(x, y, 0.0, heading + turn_rad)


def _shell(
    solids: SolidList, rng: Generator, path: np.ndarray, room: _Room, look: _Look, last: bool
) -> None:
    """Adds floor, ceiling with lamps, walls with pictures and doors, and the next door frame."""
    if room.kind == 'turn':
        _hall(solids, path, room, look)
        return
    span, high = (room.end_m - room.start_m) / 2, room.high_m
    place = _frame(path, room.start_m + span)
    seed = float(rng.integers(1000))
    slab = (look.slab_m, look.slab_m, 0.02, seed)
    half = room.half_m
    solids.add(place, geo.BOX, geo.FLOOR, (0, 0, -0.1), (span, half, 0.1), look.floor, look.joint,
               detail=slab)  # fmt: skip
    solids.add(place, geo.BOX, geo.FLOOR, (0, 0, high + 0.1), (span, half, 0.1), look.ceiling,
               (0.4, 0.4, 0.4), detail=(0.6, 0.6, 0.015, seed))  # fmt: skip
    for x in np.arange(-span + 1.5, span - 0.5, 3.0):
        solids.add(place, geo.BOX, geo.GLOW, (float(x), 0, high - 0.02), (0.6, 0.15, 0.03),
                   (0.8, 0.8, 0.8), glow=(5.0, 5.0, 4.8), detail=(1, 1, 0, 0))  # fmt: skip
    for side in (-1, 1):
        y = side * (half + 0.1)
        solids.add(place, geo.BOX, geo.PLAIN, (0, y, high / 2), (span, 0.1, high / 2), look.wall,
                   detail=(look.grain, 0, 0, seed))  # fmt: skip
        solids.add(place, geo.BOX, geo.PLAIN, (0, side * half, 0.05), (span, 0.015, 0.05),
                   look.joint)  # fmt: skip
        indoors.along_wall(solids, rng, place, side, span, half, high)
    _end_walls(solids, place, room, look, last)


def _end_walls(solids: SolidList, place: Place, room: _Room, look: _Look, last: bool) -> None:
    """Adds walls at both ends with an opening of 1.8 x 2.2 m for the path."""
    span, high, wide = (room.end_m - room.start_m) / 2, room.high_m, room.half_m
    rest = (wide - 0.9) / 2
    for end in (-1, 1):
        x = end * (span - 0.05)
        for side in (-1, 1):
            solids.add(place, geo.BOX, geo.PLAIN, (x, side * (0.9 + rest), high / 2),
                       (0.06, max(rest, 0.05), high / 2), look.wall,
                       detail=(look.grain, 0, 0, 1))  # fmt: skip
            solids.add(place, geo.BOX, geo.BARK, (x, side * 0.93, 1.1), (0.1, 0.05, 1.1),
                       (0.3, 0.22, 0.15), detail=(0.2, 0, 0.2, 1))  # fmt: skip
        above = (high - 2.2) / 2
        solids.add(place, geo.BOX, geo.PLAIN, (x, 0, 2.2 + above), (0.06, 1.0, max(above, 0.05)),
                   look.wall, detail=(look.grain, 0, 0, 1))  # fmt: skip
    if last:
        solids.add(place, geo.BOX, geo.PANEL, (span, 0, 1.1), (0.04, 0.95, 1.15),
                   (0.4, 0.3, 0.2), (0.1, 0.1, 0.1), detail=(0.9, 1.1, 0.1, 3))  # fmt: skip


def _hall(solids: SolidList, path: np.ndarray, room: _Room, look: _Look) -> None:
    """Adds a square hall around a quarter turn: floor and ceiling cover all of it."""
    a, b = _frame(path, room.start_m), _frame(path, room.end_m)
    ahead = (b.x_m - a.x_m) * math.cos(a.heading_rad) + (b.y_m - a.y_m) * math.sin(a.heading_rad)
    left = (b.y_m - a.y_m) * math.cos(a.heading_rad) - (b.x_m - a.x_m) * math.sin(a.heading_rad)
    way = 1.0 if left > 0 else -1.0
    deep, side, high = ahead + 1.4, abs(left), room.high_m
    slab = (look.slab_m, look.slab_m, 0.02, 5.0)
    # The hall extends 1.4 m beyond the path on its outer sides.
    middle = (deep / 2, way * (side - 1.4) / 2)
    half = (deep / 2, (side + 1.4) / 2)
    solids.add(a, geo.BOX, geo.FLOOR, (*middle, -0.1), (*half, 0.1), look.floor, look.joint,
               detail=slab)  # fmt: skip
    solids.add(a, geo.BOX, geo.FLOOR, (*middle, high + 0.1), (*half, 0.1), look.ceiling,
               (0.4, 0.4, 0.4), detail=(0.6, 0.6, 0.015, 2))  # fmt: skip
    solids.add(a, geo.BOX, geo.GLOW, (*middle, high - 0.02), (0.5, 0.5, 0.03), (0.8, 0.8, 0.8),
               glow=(5.0, 5.0, 4.8), detail=(1, 1, 0, 0))  # fmt: skip
    low, far = middle[1] - half[1], middle[1] + half[1]
    outer, inner = (low, far) if way > 0 else (far, low)
    walls = (
        ((deep + 0.1, middle[1]), (0.1, half[1])),
        ((deep / 2, outer - way * 0.1), (deep / 2, 0.1)),
        (((ahead - 1.4) / 2, inner + way * 0.1), (max(ahead - 1.4, 0.2) / 2, 0.1)),
        ((0.0, way * (side + 1.4) / 2), (0.1, max(side - 1.4, 0.2) / 2)),
    )
    for (x, y), (hx, hy) in walls:
        solids.add(a, geo.BOX, geo.PANEL, (x, y, high / 2), (hx, hy, high / 2), look.wall,
                   (0.3, 0.25, 0.2), detail=(1.2, high * 0.5, 0.03, 4))  # fmt: skip


def _empty(solids: SolidList, rng: Generator, path: np.ndarray, room: _Room) -> None:
    """Leaves a corridor empty."""


def _office(solids: SolidList, rng: Generator, path: np.ndarray, room: _Room) -> None:
    for s in np.arange(room.start_m + 1.6, room.end_m - 1.6, float(rng.uniform(2.2, 3.5))):
        for side in (-1, 1):
            d = side * float(rng.uniform(1.6, max(room.half_m - 0.7, 1.61)))
            place = _frame(path, float(s), d, float(rng.choice([0.0, math.pi / 2, math.pi])))
            if rng.random() < 0.8:
                indoors.desk(solids, place, rng)


def _store(solids: SolidList, rng: Generator, path: np.ndarray, room: _Room) -> None:
    for d in np.arange(1.5, room.half_m - 0.3, 2.0):
        for side in (-1, 1):
            for s in np.arange(room.start_m + 1.5, room.end_m - 1.5, 2.6):
                if rng.random() < 0.85:
                    place = _frame(path, float(s), side * float(d))
                    indoors.rack(solids, place, rng, room.high_m)


def _living(solids: SolidList, rng: Generator, path: np.ndarray, room: _Room) -> None:
    for _ in range(int(rng.integers(3, 9))):
        side = 1 if rng.random() < 0.5 else -1
        d = side * float(rng.uniform(1.5, max(room.half_m - 0.5, 1.51)))
        s = float(rng.uniform(room.start_m + 1.2, room.end_m - 1.2))
        indoors.furniture(solids, _frame(path, s, d, float(rng.uniform(0, 6.28))), rng)


FURNITURE = {'corridor': _empty, 'office': _office, 'store': _store, 'living': _living,
             'turn': _empty}  # fmt: skip


def _people(
    solids: SolidList, rng: Generator, path: np.ndarray, rooms: list[_Room]
) -> list[tuple]:
    """Adds people who walk back and forth beside the camera's path."""
    actors: list[tuple] = []
    for room in rooms:
        if room.kind == 'turn' or rng.random() < 0.55:
            continue
        d = (1 if rng.random() < 0.5 else -1) * min(room.half_m - 0.35, 1.25)
        a, b = _frame(path, room.start_m + 0.8, d), _frame(path, room.end_m - 0.8, d)
        size = vehicles.pedestrian(solids, Place(actor=len(actors)), rng)
        span = (room.end_m - room.start_m) / float(rng.uniform(0.8, 1.5))
        course = (a.x_m, a.y_m, b.x_m, b.y_m, span, float(rng.uniform(0, 2)), *size)
        actors.append((motion.SHUTTLE, course))
    return actors


def _mount(rng: Generator) -> geo.Ego:
    """Returns a camera carried by a walking person or mounted on a small, vibrating robot."""
    walks = rng.random() < 0.5
    step, phase = float(rng.uniform(1.6, 2.1)), float(rng.uniform(0, 6.28))
    swing = [
        (2, 0.02 if walks else 0.001, step, phase),
        (1, 0.015 if walks else 0.001, step / 2, phase),
        (4, rng.uniform(0.004, 0.015) if walks else 0.002, step, phase + 1),
        (3, rng.uniform(0.004, 0.012) if walks else 0.001, step / 2, phase + 2),
        (5, rng.uniform(0.05, 0.3), rng.uniform(0.08, 0.2), phase + 3),
        (4, rng.uniform(0.01, 0.08), rng.uniform(0.07, 0.2), phase + 4),
        (4, 0.0006, rng.uniform(8, 14), phase),
    ]
    return geo.Ego(offset_m=float(rng.uniform(-0.15, 0.15)),
                   height_m=float(rng.uniform(1.3, 1.75) if walks else rng.uniform(0.25, 1.0)),
                   pitch_rad=float(rng.uniform(-0.15, 0.2)), bank=0.0, follow=0.0,
                   shake=np.array(swing))  # fmt: skip
