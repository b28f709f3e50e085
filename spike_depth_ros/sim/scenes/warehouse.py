"""Aisles of a warehouse: racks with pallets and boxes, people on foot, fork lifts."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from spike_depth_ros.sim import geometry as geo
from spike_depth_ros.sim import motion, route, weather
from spike_depth_ros.sim.build import RGB, Place, SolidList
from spike_depth_ros.sim.geometry import Free, World
from spike_depth_ros.sim.scenes.straight import hall, straight_motion, with_actors
from spike_depth_ros.sim.things import vehicles
from spike_depth_ros.sim.things.surfaces import any_colour, cover, draw_finish

Generator = np.random.Generator

BAY_M = 2.7
DEEP_M = 1.1
"""Width of a bay and depth of a rack."""

SECOND_M = 3.0
"""Width of the aisle behind the racks."""

CARDBOARD: RGB = (0.36, 0.25, 0.15)
PALLET: RGB = (0.42, 0.31, 0.18)
STEELS: tuple[RGB, ...] = (
    (0.03, 0.08, 0.3),
    (0.55, 0.2, 0.03),
    (0.3, 0.3, 0.32),
    (0.5, 0.4, 0.05),
)


class _Store(NamedTuple):
    """Properties shared by all racks of one warehouse."""

    level_m: float
    levels: int
    full: float
    upright: RGB
    beam: RGB


def build_warehouse(seed: int, duration_s: float) -> World:
    """Builds a drive along an aisle; cross aisles open between blocks of racks."""
    rng = np.random.Generator(np.random.PCG64(seed))
    fast = float(rng.uniform(0.6, 3.0))
    moving, far = straight_motion(rng, duration_s, fast, 0.1)
    solids = SolidList()
    aisle = float(rng.uniform(1.1, 2.2))
    store = _Store(level_m=float(rng.uniform(0.6, 1.9)), levels=int(rng.integers(2, 6)),
                   full=float(rng.uniform(0.5, 1.0)),
                   upright=STEELS[int(rng.integers(len(STEELS)))],
                   beam=STEELS[int(rng.integers(len(STEELS)))])  # fmt: skip
    high = store.level_m * store.levels + float(rng.uniform(1.5, 3.0))
    span = (-12.0, far + 40.0)
    wall = aisle + DEEP_M + SECOND_M + DEEP_M + 0.3
    hall(solids, rng, span, (-wall, wall), max(high, 3.4), 6.0)
    _lamps(solids, span, max(high, 3.4))
    gaps = _racks(solids, rng, span, aisle, store)
    actors = _people(solids, rng, span, aisle, gaps)
    condition, light = weather.draw_lamps(rng)
    ground = route.plain_ground(np.zeros(8), np.zeros((5, 3)))
    free = Free(0.1, 3.0, min(aisle - 0.35, 0.7) - (0.3 if actors else 0.0))
    return World('warehouse', seed, duration_s, condition, solids.solids(),
                 with_actors(moving, actors), ground, light, _mount(rng), free)  # fmt: skip


def _lamps(solids: SolidList, span_m: tuple[float, float], high_m: float) -> None:
    for x in np.arange(span_m[0] + 2, span_m[1] - 1, 5.0):
        solids.add(Place(), geo.BOX, geo.GLOW, (float(x), 0, high_m - 0.05), (1.2, 0.12, 0.04),
                   (0.8, 0.8, 0.8), glow=(5.0, 5.0, 4.8), detail=(1, 1, 0, 0))  # fmt: skip


def _racks(
    solids: SolidList, rng: Generator, span_m: tuple[float, float], aisle_m: float, store: _Store
) -> list[float]:
    """Adds blocks of bays on both sides, near ones in detail; returns x of the cross aisles."""
    gaps, x = [], span_m[0] + 0.5
    while x < span_m[1] - BAY_M - 4:
        for _ in range(int(rng.integers(3, 10))):
            if x > span_m[1] - BAY_M - 0.5:
                break
            for side in (-1, 1):
                near = Place(x + BAY_M / 2, side * (aisle_m + DEEP_M / 2), 0.0,
                             0.0 if side > 0 else math.pi)  # fmt: skip
                _bay(solids, near, rng, store)
                back = aisle_m + DEEP_M + SECOND_M + DEEP_M / 2
                _plain_bay(solids, Place(near.x_m, side * back, 0.0, near.heading_rad), rng, store)
            x += BAY_M
        gaps.append(x + 1.75)
        x += 3.5
    return gaps


def _bay(solids: SolidList, place: Place, rng: Generator, store: _Store) -> None:
    """Adds uprights, beams and goods of one bay; its front faces -y."""
    tall, half, deep = store.level_m * store.levels, BAY_M / 2, DEEP_M / 2
    for y in (-deep, deep):
        solids.add(place, geo.BOX, geo.STRIPE, (half, y, tall / 2), (0.05, 0.04, tall / 2),
                   store.upright, detail=(0.1, 0, 0, 0))  # fmt: skip
    for level in range(store.levels):
        z = level * store.level_m
        if level > 0:
            for y in (-deep, deep):
                solids.add(place, geo.BOX, geo.PLAIN, (0, y, z - 0.06), (half, 0.025, 0.06),
                           store.beam)  # fmt: skip
            if store.level_m < 1.2:  # shelves for boxes, not for pallets
                solids.add(place, geo.BOX, geo.PLAIN, (0, 0, z - 0.01), (half, deep, 0.012),
                           (0.4, 0.38, 0.35))  # fmt: skip
        for x in (-half / 2, half / 2):
            if rng.random() < store.full:
                spot = place._replace(
                    x_m=place.x_m + math.cos(place.heading_rad) * x, z_m=z + 0.005
                )
                _goods(solids, spot, rng, store.level_m - 0.2)


def _goods(solids: SolidList, place: Place, rng: Generator, high_m: float) -> None:
    """Adds a pallet with boxes, one wrapped block, or loose boxes, at most `high_m` high."""
    z = 0.0
    if high_m > 0.8:
        solids.add(place, geo.BOX, geo.STRIPE, (0, 0, 0.07), (0.5, 0.45, 0.07), PALLET,
                   (0.05, 0.04, 0.03), detail=(0.14, 0, 0, 0))  # fmt: skip
        z = 0.145
    top = z + (high_m - z) * float(rng.uniform(0.35, 1.0))
    if rng.random() < 0.35:
        finish = draw_finish(rng, 3.0)
        cover(solids, place, geo.BOX, finish, (0, 0, (z + top) / 2), (0.5, 0.45, (top - z) / 2))
        return
    rows, kind = int(rng.integers(1, 3)), rng.random()
    colour = CARDBOARD if kind < 0.7 else any_colour(rng)
    layer = min(float(rng.uniform(0.2, 0.5)), high_m - z)
    while z < top and z + layer <= high_m:
        for k in range(rows):
            half = 0.47 / rows
            tint = float(rng.uniform(0.75, 1.2))
            shade = (colour[0] * tint, colour[1] * tint, colour[2] * tint)
            x = (2 * k + 1) * half - 0.47
            y = float(rng.uniform(-0.04, 0.04))
            solids.add(place, geo.BOX, geo.BARK, (x, y, z + layer / 2),
                       (0.97 * half, 0.4, layer / 2 - 0.004), shade,
                       (0.6 * shade[0], 0.6 * shade[1], 0.6 * shade[2]),
                       detail=(half, 0.06, 0.06, float(rng.integers(99))))  # fmt: skip
            if rng.random() < 0.5:
                label = draw_finish(rng, 1.0, 'tags' if rng.random() < 0.4 else 'print')
                cover(solids, place, geo.BOX, label, (x, y - 0.401, z + 0.55 * layer),
                      (min(0.09, 0.6 * half), 0.002, 0.3 * layer))  # fmt: skip
        z += layer


def _plain_bay(solids: SolidList, place: Place, rng: Generator, store: _Store) -> None:
    """Adds a simplified bay that is only seen through others: one block of goods per level."""
    for level in range(store.levels):
        tall = (store.level_m - 0.2) * float(rng.uniform(0.4, 1.0)) / 2
        z = level * store.level_m + tall
        cover(solids, place, geo.BOX, draw_finish(rng, 6.0), (0, 0, z), (1.2, 0.5, tall))
        solids.add(place, geo.BOX, geo.PLAIN, (0, -0.55, level * store.level_m + 0.01),
                   (BAY_M / 2, 0.03, 0.06), store.beam)  # fmt: skip


def _people(
    solids: SolidList,
    rng: Generator,
    span_m: tuple[float, float],
    aisle_m: float,
    gaps: list[float],
) -> list[tuple]:
    """Adds people walking beside the camera's path, and fork lifts in aisles behind the racks."""
    actors: list[tuple] = []
    if aisle_m > 1.5:
        for _ in range(int((span_m[1] - span_m[0]) / 25 * rng.uniform(0.0, 1.0))):
            x, y = float(rng.uniform(*span_m)), float(rng.choice([-1.0, 1.0])) * (aisle_m - 0.4)
            size = vehicles.pedestrian(solids, Place(actor=len(actors)), rng)
            reach = float(rng.uniform(4, 12))
            course = (x, y, x + reach, y, reach / float(rng.uniform(0.8, 1.5)),
                      float(rng.uniform(0, 2)), *size)  # fmt: skip
            actors.append((motion.SHUTTLE, course))
    for x in gaps:
        if rng.random() < 0.5:
            side = 1.0 if rng.random() < 0.5 else -1.0
            y, reach = side * (aisle_m + DEEP_M + SECOND_M / 2), float(rng.uniform(5, 20))
            size = _fork_lift(solids, Place(actor=len(actors)), rng)
            course = (x - reach, y, x + reach, y, 2 * reach / float(rng.uniform(1.0, 3.0)),
                      float(rng.uniform(0, 2)), *size)  # fmt: skip
            actors.append((motion.SHUTTLE, course))
        elif rng.random() < 0.5:
            side = 1.0 if rng.random() < 0.5 else -1.0
            place = Place(x, side * (aisle_m + 1.3), 0.0, float(rng.uniform(-0.4, 0.4)))
            _fork_lift(solids, place, rng)
    return actors


def _fork_lift(solids: SolidList, place: Place, rng: Generator) -> tuple[float, float]:
    """Adds a fork lift and driver, fork to the front; returns half length and half width [m]."""
    paint = ((0.65, 0.3, 0.02), (0.7, 0.55, 0.03), (0.5, 0.04, 0.04))[int(rng.integers(3))]
    black = (0.03, 0.03, 0.03)
    solids.add(place, geo.BOX, geo.PAINT, (-0.35, 0, 0.65), (0.75, 0.5, 0.4), paint, black,
               detail=(0, 0.1, 0, 1), taper=(0.15, 0.05, 0))  # fmt: skip
    for x in (-0.8, 0.25):
        for y in (-0.45, 0.45):
            solids.add(place, geo.BOX, geo.PLAIN, (x, y, 1.55), (0.03, 0.03, 0.55), black)
            solids.add(place, geo.BALL, geo.WHEEL, (x, y, 0.28), (0.28, 0.1, 0.28),
                       (0.2, 0.2, 0.2), black)  # fmt: skip
    solids.add(place, geo.BOX, geo.PLAIN, (-0.27, 0, 2.1), (0.6, 0.5, 0.03), black)
    for y in (-0.25, 0.25):
        solids.add(place, geo.BOX, geo.PLAIN, (0.5, y, 1.2), (0.04, 0.05, 1.1), black)
        solids.add(place, geo.BOX, geo.PLAIN, (1.0, y, 0.12), (0.5, 0.06, 0.02), black)
    if rng.random() < 0.6:
        _goods(solids, place._replace(z_m=place.z_m + 0.15), rng, 0.9)
    coat = any_colour(rng)
    solids.add(place, geo.BALL, geo.CLOTH, (-0.25, 0, 1.3), (0.17, 0.22, 0.38), coat)
    solids.add(place, geo.BALL, geo.PLAIN, (-0.22, 0, 1.75), (0.11, 0.1, 0.14), (0.45, 0.3, 0.2))
    return 1.2, 0.55


def _mount(rng: Generator) -> geo.Ego:
    """Returns a mount on a cart or a small robot that vibrates and pans a little."""
    shake = [
        (2, 0.003, rng.uniform(1, 3)),
        (4, rng.uniform(0.001, 0.008), rng.uniform(0.8, 2.0)),
        (3, rng.uniform(0.001, 0.006), rng.uniform(0.7, 2.0)),
        (5, rng.uniform(0.02, 0.4), rng.uniform(0.05, 0.2)),
        (4, 0.002, rng.uniform(8, 15)),
        (1, rng.uniform(0.0, 0.3), rng.uniform(0.05, 0.15)),
    ]
    return geo.Ego(offset_m=0.0, height_m=float(rng.uniform(0.3, 2.2)),
                   pitch_rad=float(rng.uniform(-0.2, 0.25)), bank=0.0, follow=0.0,
                   shake=np.array([(*row, rng.uniform(0, 6.28)) for row in shake]),
                   yaw_rad=float(rng.normal(0.0, 0.4)))  # fmt: skip
