"""Objects beside a road: buildings, trees, lamps, signs, parked cars, bridges."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from spike_depth_ros.sim import geometry as geo
from spike_depth_ros.sim import motion, route
from spike_depth_ros.sim.build import Place, SolidList
from spike_depth_ros.sim.things import buildings, colours, furniture, plants, vehicles

Generator = np.random.Generator


class Road(NamedTuple):
    """The main road and its surroundings.

    Attributes:
        path: (S, 6) `Motion.path`.
        side: (J, 8) `Ground.side`.
        lane_m: width of a lane.
        lanes: lanes in each direction.
        half_m: half width of the asphalt.
        parking_m: width of the parking lane within it, 0 for none.
        walk_m: width of the pavements.
        hand: -1 if traffic keeps right, 1 if left: the sign of the offset of its own lane.
        heights: terrain heights.
        terrain: terrain grid.
        zones: start [m] and kind (a key of `ZONES`) of each stretch.
        crosswalks: True if junctions have crosswalks.
    """

    path: np.ndarray
    side: np.ndarray
    lane_m: float
    lanes: int
    half_m: float
    parking_m: float
    walk_m: float
    hand: int
    heights: np.ndarray
    terrain: np.ndarray
    zones: list[tuple[float, str]]
    crosswalks: bool

    def place(self, s_m: float, d_m: float, turn_rad: float = 0.0, actor: int = -1) -> Place:
        """Returns the frame at an offset to the left of the road, rotated from its direction."""
        x, y, heading, _ = motion.along(self.path, route.STEP_M, s_m)
        x, y = x - d_m * math.sin(heading), y + d_m * math.cos(heading)
        z, gx, gy = motion.mesh_height(self.heights, self.terrain, x, y)
        return Place(x, y, z, heading + turn_rad, gx, gy, actor)

    def clear(self, x_m: float, y_m: float, radius_m: float, margin_m: float = 0.0) -> bool:
        """Returns True if a disc touches neither the main road (plus margin) nor a side street."""
        gap = np.hypot(self.path[:, 0] - x_m, self.path[:, 1] - y_m).min()
        return gap > self.half_m + margin_m + radius_m and self.off_side(x_m, y_m, radius_m)

    def off_side(self, x_m: float, y_m: float, radius_m: float) -> bool:
        """Returns True if a disc touches no side street."""
        if not len(self.side):
            return True
        b = self.side.T
        along = (x_m - b[0]) * b[2] + (y_m - b[1]) * b[3]
        across = np.abs((y_m - b[1]) * b[2] - (x_m - b[0]) * b[3])
        inside = (along > b[7] - radius_m) & (along < b[5] + radius_m)
        return not bool((inside & (across < b[4] + 1.5 + radius_m)).any())


Circle = tuple[float, float, float]
"""x, y and radius of a place that is taken [m]."""


def draw_zones(rng: Generator, length_m: float) -> list[tuple[float, str]]:
    """Draws a sequence of stretches; a town stretch is often followed by another."""
    weights = rng.dirichlet([1.2, 0.9, 0.6, 0.6])
    zones, s = [], 0.0
    while s < length_m:
        zones.append((s, list(ZONES)[int(rng.choice(len(ZONES), p=weights))]))
        s += float(rng.uniform(70, 220))
    return zones


def furnish(solids: SolidList, road: Road, rng: Generator) -> np.ndarray:
    """Adds all objects along the road; returns (L, 3) lamps x, y, height [m]."""
    taken: list[Circle] = []
    ends = [zone[0] for zone in road.zones[1:]] + [len(road.path) * route.STEP_M - 5]
    for (start, kind), end in zip(road.zones, ends, strict=True):
        for side in (-1, 1):
            ZONES[kind](solids, road, rng, side, start, end, taken)
    _parked(solids, road, rng)
    _junctions(solids, road, rng)
    _bridges(solids, road, rng)
    return _lamps(solids, road, rng)


def _fits(road: Road, taken: list[Circle], place: Place, radius_m: float) -> bool:
    """Reserves a place if a building of this radius fits there; returns True if so."""
    x, y = place.x_m, place.y_m
    if not road.clear(x, y, radius_m * 0.75, 0.3):
        return False
    if any((x - a) ** 2 + (y - b) ** 2 < (0.72 * (radius_m + r)) ** 2 for a, b, r in taken[-40:]):
        return False
    taken.append((x, y, radius_m))
    return True


def _facing(side: int) -> float:
    """Returns the rotation of an object whose front (y axis) faces the road; side 1 is left."""
    return math.pi if side > 0 else 0.0


def _town(
    solids: SolidList, road: Road, rng: Generator, side: int, start: float, end: float,
    taken: list[Circle],
) -> None:  # fmt: skip
    s = start
    tallest = int(rng.integers(3, 9))
    back = road.half_m + road.walk_m + float(rng.choice([0.2, 0.6, 3.0]))
    while s < end:
        wide, deep = float(rng.uniform(9, 24)), float(rng.uniform(9, 14))
        place = road.place(s + wide / 2, side * (back + deep / 2), _facing(side))
        if road.clear(place.x_m, place.y_m, deep / 2 - 0.4) and _apart(
            road, taken, place, wide, deep
        ):
            buildings.block(
                solids, place, rng, wide * 0.96, deep, int(rng.integers(2, tallest + 1))
            )
        s += wide + (0.0 if rng.random() < 0.8 else float(rng.uniform(3, 14)))
    for at in np.arange(start, end, float(rng.uniform(28, 50))):
        place = road.place(float(at), side * (back + float(rng.uniform(32, 60))), _facing(side))
        if _fits(road, taken, place, 13.0):
            buildings.block(solids, place, rng, 20, 18, int(rng.integers(5, 14)))
    _row_of_trees(solids, road, rng, side, start, end, road.half_m + 1.3, 0.6)
    _clutter(solids, road, rng, side, start, end)


def _apart(road: Road, taken: list[Circle], place: Place, wide_m: float, deep_m: float) -> bool:
    """Reserves a place if a block fits between side streets and blocks; returns True if so."""
    cos, sin = math.cos(place.heading_rad), math.sin(place.heading_rad)
    for step in (-0.5, -0.25, 0.0, 0.25, 0.5):
        x, y = place.x_m + step * wide_m * cos, place.y_m + step * wide_m * sin
        if not road.clear(x, y, deep_m / 2 - 0.6):
            return False
    radius = max(wide_m, deep_m) / 2
    near = [(a, b, r) for a, b, r in taken if abs(a - place.x_m) + abs(b - place.y_m) < 60]
    for a, b, r in near:
        dx, dy = a - place.x_m, b - place.y_m
        along, across = abs(dx * cos + dy * sin), abs(dy * cos - dx * sin)
        if along < wide_m / 2 + r - 3.0 and across < deep_m / 2 + r - 3.0:
            return False
    taken.append((place.x_m, place.y_m, radius))
    return True


def _suburb(
    solids: SolidList, road: Road, rng: Generator, side: int, start: float, end: float,
    taken: list[Circle],
) -> None:  # fmt: skip
    s = start + 4
    edge = road.half_m + road.walk_m
    while s < end:
        back = edge + float(rng.uniform(7, 14))
        place = road.place(s, side * back, _facing(side) + float(rng.uniform(-0.15, 0.15)))
        if _fits(road, taken, place, 7.5):
            buildings.house(solids, place, rng)
            for _ in range(int(rng.integers(1, 4))):
                spot = road.place(
                    s + float(rng.uniform(-9, 9)), side * (edge + float(rng.uniform(1.5, 4)))
                )
                if road.clear(spot.x_m, spot.y_m, 1.5):
                    plants.bush(solids, spot, rng)
            if rng.random() < 0.5:
                drive = road.place(s + 8, side * (edge + 4), math.pi / 2)
                if road.clear(drive.x_m, drive.y_m, 2.3):
                    vehicles.car(solids, drive, rng)
        s += float(rng.uniform(15, 24))
    _fences(solids, road, rng, side, start, end, edge + 0.4, 0.7)
    _row_of_trees(solids, road, rng, side, start, end, edge + 2.5, 0.5)
    _woods(solids, road, rng, side, start, end, edge + 24, 45.0, 0.05)
    _clutter(solids, road, rng, side, start, end)


def _park(
    solids: SolidList, road: Road, rng: Generator, side: int, start: float, end: float,
    taken: list[Circle],
) -> None:  # fmt: skip
    edge = road.half_m + road.walk_m
    _fences(solids, road, rng, side, start, end, edge + 0.3, 0.3)
    _row_of_trees(solids, road, rng, side, start, end, edge + 1.5, 0.9)
    _woods(solids, road, rng, side, start, end, edge + 4, 50.0, 0.16)
    _clutter(solids, road, rng, side, start, end)


def _fields(
    solids: SolidList, road: Road, rng: Generator, side: int, start: float, end: float,
    taken: list[Circle],
) -> None:  # fmt: skip
    edge = road.half_m + road.walk_m
    _fences(solids, road, rng, side, start, end, road.half_m + 1.0, 0.5)
    _woods(solids, road, rng, side, start, end, edge + 5, 90.0, 0.035)
    if rng.random() < 0.5:
        for s in np.arange(start, end, 40.0):
            place = road.place(float(s), side * (edge + 6))
            if road.clear(place.x_m, place.y_m, 0.3):
                brown = (0.16, 0.12, 0.09)
                solids.add(place, geo.CONE, geo.BARK, (0, 0, 4.5), (0.16, 0.16, 4.6), brown)
                solids.add(place, geo.BOX, geo.PLAIN, (0, 0, 8.3), (0.06, 1.1, 0.08), brown)
    for s in np.arange(start + 30, end, 90.0):
        place = road.place(
            float(s), side * (edge + float(rng.uniform(20, 70))), float(rng.uniform(0, 6))
        )
        if rng.random() < 0.6 and _fits(road, taken, place, 9.0):
            buildings.house(solids, place, rng)


ZONES: dict[str, Callable] = {'town': _town, 'suburb': _suburb, 'park': _park, 'fields': _fields}


def _row_of_trees(
    solids: SolidList, road: Road, rng: Generator, side: int, start: float, end: float,
    d: float, share: float,
) -> None:  # fmt: skip
    gap, tall = float(rng.uniform(7, 13)), float(rng.uniform(4.5, 9.0))
    if rng.random() > share + 0.2:
        return
    for s in np.arange(start + 3, end, gap):
        place = road.place(float(s), side * d, float(rng.uniform(0, 6)))
        if rng.random() < 0.85 and road.clear(place.x_m, place.y_m, 0.35):
            plants.tree(solids, place, rng, tall * float(rng.uniform(0.8, 1.2)))


def _woods(
    solids: SolidList, road: Road, rng: Generator, side: int, start: float, end: float,
    nearest: float, depth: float, density: float,
) -> None:  # fmt: skip
    count = int((end - start) * density * depth / 30)
    for _ in range(count):
        d = nearest + depth * float(rng.random()) ** 1.5
        place = road.place(float(rng.uniform(start, end)), side * d, float(rng.uniform(0, 6)))
        if road.clear(place.x_m, place.y_m, 1.5, 2.0):
            if rng.random() < 0.75:
                plants.tree(solids, place, rng, float(rng.uniform(5, 14)))
            else:
                plants.bush(solids, place, rng)


def _fences(
    solids: SolidList, road: Road, rng: Generator, side: int, start: float, end: float,
    d: float, share: float,
) -> None:  # fmt: skip
    for s in np.arange(start, end, 8.0):
        place = road.place(float(s) + 4, side * d, _facing(side))
        if (
            rng.random() < share
            and road.clear(place.x_m, place.y_m, 0.3)
            and road.off_side(place.x_m, place.y_m, 4.0)
        ):
            furniture.fence(solids, place, rng, 7.9)


def _clutter(
    solids: SolidList, road: Road, rng: Generator, side: int, start: float, end: float
) -> None:
    for s in np.arange(start, end, float(rng.uniform(9, 20))):
        d = road.half_m + float(rng.choice([0.5, max(road.walk_m - 0.4, 0.5)]))
        place = road.place(
            float(s) + float(rng.uniform(0, 6)), side * d, math.pi if side > 0 else 0
        )
        if not road.clear(place.x_m, place.y_m, 0.3):
            continue
        chance = rng.random()
        if chance < 0.3:
            furniture.small_things(solids, place, rng)
        elif chance < 0.5:
            furniture.sign_post(solids, place, rng)
        elif chance < 0.7:
            vehicles.pedestrian(solids, place._replace(heading_rad=float(rng.uniform(0, 6))), rng)


def _parked(solids: SolidList, road: Road, rng: Generator) -> None:
    if road.parking_m <= 0:
        return
    full = float(rng.uniform(0.2, 0.9))
    for side in (-1, 1):
        s = 10.0
        while s < len(road.path) * route.STEP_M - 20:
            place = road.place(
                s, side * (road.half_m - 1.0), 0.0 if side == road.hand else math.pi
            )
            if rng.random() < full and road.off_side(place.x_m, place.y_m, 5.0):
                kind = vehicles.car if rng.random() < 0.92 else vehicles.truck
                kind(solids, place, rng)
                s += 4.5 if kind is vehicles.truck else 0.0
            s += float(rng.uniform(5.4, 7.0))


def _junctions(solids: SolidList, road: Road, rng: Generator) -> None:
    lights = rng.random() < 0.5
    for b in road.side:
        for sign in (-1, 1):
            s = float(b[6]) + sign * (b[4] + 6.5)
            hand = road.hand if sign < 0 else -road.hand
            place = road.place(s, hand * (road.half_m + 0.6), 0.0 if sign < 0 else math.pi)
            if not road.clear(place.x_m, place.y_m, 0.1):
                continue
            if lights:
                furniture.traffic_light(solids, place, rng, -road.hand * (road.half_m * 0.5 + 0.6))
            else:
                furniture.sign_post(solids, place, rng)


def _bridges(solids: SolidList, road: Road, rng: Generator) -> None:
    """Adds occasional bridges over the road."""
    s = float(rng.uniform(100, 500))
    while s < len(road.path) * route.STEP_M - 60:
        if all(abs(s - b[6]) > 45 for b in road.side) and abs(road.path[int(s), 3]) < 0.005:
            place = road.place(s, 0.0, math.pi / 2)
            concrete = colours.pick(rng, ((0.36, 0.35, 0.33), (0.3, 0.25, 0.2)))
            span, wide = road.half_m + road.walk_m + 7, float(rng.uniform(2.5, 5.5))
            detail = (2.4, 1.2, 0.03, 3.0)
            solids.add(
                place, geo.BOX, geo.BRICK, (0, 0, 6.0), (span, wide, 0.5), concrete, detail=detail
            )
            for y in (-wide, wide):
                solids.add(place, geo.BOX, geo.STRIPE, (0, y, 7.0), (span, 0.06, 0.5),
                           colours.STEEL, concrete, detail=(0.25, 0, 0, 0))  # fmt: skip
            for x in (-span + 3.2, span - 3.2):
                solids.add(place, geo.BOX, geo.BRICK, (x, 0, 2.4), (3.0, wide, 3.4), concrete,
                           (0.2, 0.2, 0.2), detail=detail, taper=(0.0, 0, 0))  # fmt: skip
        s += float(rng.uniform(250, 900))


def _lamps(solids: SolidList, road: Road, rng: Generator) -> np.ndarray:
    lamps = []
    gap, tall = float(rng.uniform(22, 38)), float(rng.uniform(5, 9))
    both = rng.random() < 0.6
    for k, s in enumerate(np.arange(12.0, len(road.path) * route.STEP_M - 10, gap)):
        for side in (-1, 1) if both else (1 - 2 * (k % 2),):
            place = road.place(float(s), side * (road.half_m + 0.5), -side * math.pi / 2)
            if not road.clear(place.x_m, place.y_m, 0.1):
                continue
            furniture.lamp_post(solids, place, tall, 1.4)
            x = place.x_m + 1.4 * math.cos(place.heading_rad)
            lamps.append((x, place.y_m + 1.4 * math.sin(place.heading_rad), tall))
    return np.array(lamps, np.float64).reshape(-1, 3)
