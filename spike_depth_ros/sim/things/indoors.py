"""Furniture, shelves and wall objects; z = 0 is the floor."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from spike_depth_ros.sim.build import Place, SolidList
from spike_depth_ros.sim.geometry import (
    BALL,
    BARK,
    BOX,
    CLOTH,
    CONE,
    FOLIAGE,
    GLOW,
    PANEL,
    PLAIN,
    SHELF,
    SIGN,
    STRIPE,
)
from spike_depth_ros.sim.things.colours import CAR_PAINTS, CLOTHES, RGB, STEEL, WALLS, pick

Generator = np.random.Generator

WOODS = ((0.30, 0.20, 0.11), (0.45, 0.33, 0.2), (0.14, 0.09, 0.06), (0.6, 0.58, 0.54))


def _legs(solids: SolidList, place: Place, x: float, y: float, z: float, colour: RGB) -> None:
    for sx in (-1, 1):
        for sy in (-1, 1):
            solids.add(place, BOX, PLAIN, (sx * x, sy * y, z / 2), (0.025, 0.025, z / 2), colour)


def desk(solids: SolidList, place: Place, rng: Generator) -> None:
    """Adds a desk with a screen, objects on it, and a chair."""
    wood, seed = pick(rng, WOODS), float(rng.integers(1000))
    solids.add(
        place, BOX, BARK, (0, 0, 0.73), (0.7, 0.38, 0.02), wood, detail=(0.5, 0, 0.15, seed)
    )
    _legs(solids, place, 0.64, 0.32, 0.72, STEEL)
    solids.add(place, BOX, PLAIN, (0, 0.15, 1.02), (0.28, 0.02, 0.18), (0.03, 0.03, 0.03))
    solids.add(place, BOX, SIGN, (0, 0.12, 1.02), (0.26, 0.015, 0.16), (0.5, 0.55, 0.6),
               (0.05, 0.08, 0.2), detail=(0.52, 0.32, 0.02, seed))  # fmt: skip
    solids.add(place, BOX, PLAIN, (0, 0.15, 0.8), (0.04, 0.04, 0.08), (0.05, 0.05, 0.05))
    for _ in range(int(rng.integers(1, 5))):
        x, y = float(rng.uniform(-0.6, 0.6)), float(rng.uniform(-0.3, 0.1))
        size = (
            float(rng.uniform(0.03, 0.12)),
            float(rng.uniform(0.03, 0.1)),
            float(rng.uniform(0.02, 0.14)),
        )
        solids.add(place, BOX, PLAIN, (x, y, 0.75 + size[2]), size, pick(rng, CAR_PAINTS))
    chair(solids, place, rng, -0.65)


def chair(solids: SolidList, place: Place, rng: Generator, y: float) -> None:
    """Adds a chair that faces along y."""
    cloth = pick(rng, CLOTHES)
    solids.add(place, BOX, CLOTH, (0, y, 0.46), (0.23, 0.22, 0.04), cloth)
    solids.add(place, BOX, CLOTH, (0, y - 0.22, 0.78), (0.22, 0.03, 0.25), cloth)
    solids.add(place, CONE, PLAIN, (0, y, 0.24), (0.03, 0.03, 0.2), STEEL)
    solids.add(place, CONE, PLAIN, (0, y, 0.05), (0.28, 0.28, 0.03), STEEL, taper=(0.7, 0, 0))


def rack(solids: SolidList, place: Place, rng: Generator, high_m: float) -> None:
    """Adds shelves with goods, along x."""
    tall = min(float(rng.uniform(1.6, 2.4)), high_m - 0.2)
    seed = float(rng.integers(10000))
    solids.add(
        place,
        BOX,
        SHELF,
        (0, 0, tall / 2),
        (1.2, 0.3, tall / 2),
        pick(rng, WOODS),
        pick(rng, CAR_PAINTS, 0.4),
        detail=(float(rng.uniform(0.12, 0.4)), float(rng.uniform(0.25, 0.45)), 0.09, seed),
    )
    for k in range(int(rng.integers(0, 4))):
        size = float(rng.uniform(0.1, 0.22))
        solids.add(place, BOX, BARK, (-0.8 + 0.5 * k, 0, tall + size), (size, size, size),
                   (0.35, 0.25, 0.15), detail=(0.3, 0.05, 0.1, seed))  # fmt: skip


def _sofa(solids: SolidList, place: Place, rng: Generator) -> None:
    cloth, seed = pick(rng, CLOTHES), float(rng.integers(100))
    solids.add(place, BOX, CLOTH, (0, 0, 0.22), (0.9, 0.42, 0.22), cloth, detail=(0, 0, 0, seed))
    solids.add(
        place, BOX, CLOTH, (0, -0.36, 0.6), (0.9, 0.12, 0.28), cloth, detail=(0, 0, 0, seed)
    )
    for x in (-0.85, 0.85):
        solids.add(place, BOX, CLOTH, (x, 0, 0.5), (0.1, 0.4, 0.12), cloth, detail=(0, 0, 0, seed))


def _table(solids: SolidList, place: Place, rng: Generator) -> None:
    wood = pick(rng, WOODS)
    half = float(rng.uniform(0.4, 0.8))
    solids.add(place, BOX, BARK, (0, 0, 0.72), (half, half * 0.8, 0.025), wood,
               detail=(0.3, 0.03, 0.25, 1))  # fmt: skip
    _legs(solids, place, half * 0.85, half * 0.65, 0.7, wood)
    chair(solids, place, rng, -half)
    solids.add(place, CONE, PLAIN, (0.1, 0, 0.85), (0.06, 0.06, 0.11), pick(rng, CAR_PAINTS))


def _cupboard(solids: SolidList, place: Place, rng: Generator) -> None:
    tall, wide = float(rng.uniform(0.7, 2.1)), float(rng.uniform(0.35, 0.7))
    solids.add(place, BOX, PANEL, (0, 0, tall / 2), (wide, 0.28, tall / 2), pick(rng, WOODS),
               (0.06, 0.05, 0.04),
               detail=(wide, tall / 2, 0.03, float(rng.integers(100))))  # fmt: skip


def _plant(solids: SolidList, place: Place, rng: Generator) -> None:
    solids.add(place, CONE, PLAIN, (0, 0, 0.18), (0.17, 0.17, 0.18), (0.35, 0.16, 0.1),
               taper=(-0.25, 0, 0))  # fmt: skip
    for k in range(6):
        angle, tilt = k * 1.05, float(rng.uniform(0.3, 0.9))
        solids.add(place, BALL, FOLIAGE, (0.2 * math.cos(angle), 0.2 * math.sin(angle), 0.75),
                   (0.09, 0.05, 0.42), (0.06, 0.14, 0.04), detail=(0.06, 0.4, 0, k), yaw_rad=angle,
                   pitch_rad=tilt)  # fmt: skip


def _lamp(solids: SolidList, place: Place, rng: Generator) -> None:
    solids.add(place, CONE, PLAIN, (0, 0, 0.75), (0.015, 0.015, 0.75), STEEL)
    solids.add(place, CONE, PLAIN, (0, 0, 0.02), (0.15, 0.15, 0.02), STEEL)
    solids.add(place, CONE, GLOW, (0, 0, 1.55), (0.2, 0.2, 0.14), (0.7, 0.6, 0.45),
               glow=(1.6, 1.2, 0.7), detail=(1, 1, 0, 0), taper=(0.35, 0, 0))  # fmt: skip


def _boxes(solids: SolidList, place: Place, rng: Generator) -> None:
    z = 0.0
    for k in range(int(rng.integers(1, 4))):
        r = float(rng.uniform(0.18, 0.35))
        solids.add(place, BOX, SIGN, (0.05 * k, 0, z + r), (r, r * 1.1, r), (0.38, 0.28, 0.17),
                   (0.2, 0.14, 0.08), detail=(2.2 * r, 2 * r, 0.08, float(rng.integers(99))),
                   yaw_rad=0.3 * k)  # fmt: skip
        z += 2 * r


FURNITURE = (_sofa, _table, _cupboard, _plant, _lamp, _boxes)


def furniture(solids: SolidList, place: Place, rng: Generator) -> None:
    """Adds a sofa, table with chair, cupboard, plant, lamp or pile of boxes."""
    FURNITURE[int(rng.integers(len(FURNITURE)))](solids, place, rng)


class _Spot(NamedTuple):
    """Position and size of an object along a wall."""

    x_m: float
    side: int
    wide_m: float
    half_m: float
    high_m: float


def _door(solids: SolidList, rng: Generator, place: Place, spot: _Spot) -> None:
    x, side, y = spot.x_m, spot.side, spot.side * (spot.half_m - 0.01)
    seed = float(rng.integers(10000))
    solids.add(place, BOX, PANEL, (x, y, 1.03), (0.45, 0.03, 1.03), pick(rng, WOODS),
               (0.1, 0.08, 0.06), detail=(0.45, 1.03, 0.06, seed))  # fmt: skip
    solids.add(place, BALL, PLAIN, (x + 0.36, y - side * 0.06, 1.0), (0.06, 0.03, 0.02), STEEL)


def _picture(solids: SolidList, rng: Generator, place: Place, spot: _Spot) -> None:
    x, y, wide = spot.x_m, spot.side * (spot.half_m - 0.01), spot.wide_m
    seed = float(rng.integers(10000))
    tall = float(rng.uniform(0.25, 0.6))
    solids.add(
        place, BOX, PLAIN, (x, y, 1.55), (wide + 0.04, 0.02, tall + 0.04), (0.08, 0.06, 0.05)
    )
    solids.add(place, BOX, SHELF, (x, y, 1.55), (wide, 0.03, tall), pick(rng, CLOTHES, 0.5),
               pick(rng, WALLS),
               detail=(wide * 0.7, tall * 0.6, float(rng.uniform(0.05, 0.5)), seed))  # fmt: skip


def _window(solids: SolidList, rng: Generator, place: Place, spot: _Spot) -> None:
    x, side, y, wide = spot.x_m, spot.side, spot.side * (spot.half_m - 0.01), spot.wide_m
    seed = float(rng.integers(10000))
    tall = min(0.7, (spot.high_m - 1.0) / 2 - 0.1)
    solids.add(place, BOX, SHELF, (x, y, 1.0 + tall), (wide, 0.02, tall), (0.6, 0.6, 0.6),
               (0.5, 0.55, 0.6), detail=(wide, tall, 0.06, seed))  # fmt: skip
    solids.add(place, BOX, STRIPE, (x, y - side * 0.05, 0.4), (wide, 0.05, 0.3), (0.6, 0.6, 0.58),
               (0.4, 0.4, 0.4), detail=(0.001, 0, 0, 0))  # fmt: skip


def _notice(solids: SolidList, rng: Generator, place: Place, spot: _Spot) -> None:
    x, y, wide = spot.x_m, spot.side * (spot.half_m - 0.01), spot.wide_m
    seed = float(rng.integers(10000))
    solids.add(place, BOX, SIGN, (x, y, 1.5), (wide, 0.02, 0.45), (0.65, 0.64, 0.6),
               pick(rng, CLOTHES), detail=(2 * wide, 0.9, 0.12, seed), yaw_rad=0.0)  # fmt: skip


def _bookcase(solids: SolidList, rng: Generator, place: Place, spot: _Spot) -> None:
    x, side, wide = spot.x_m, spot.side, spot.wide_m
    seed = float(rng.integers(10000))
    deep = float(rng.uniform(0.12, 0.25))
    solids.add(place, BOX, SHELF, (x, side * (spot.half_m - deep), 0.9), (wide, deep, 0.9),
               pick(rng, WOODS), pick(rng, CAR_PAINTS),
               detail=(0.07, 0.3, 0.12, seed))  # fmt: skip


def _nothing(solids: SolidList, rng: Generator, place: Place, spot: _Spot) -> None:
    """Leaves the wall bare."""


WALL = (_door, _picture, _window, _notice, _bookcase, _nothing)


def along_wall(
    solids: SolidList,
    rng: Generator,
    place: Place,
    side: int,
    span_m: float,
    half_m: float,
    high_m: float,
) -> None:
    """Adds doors, pictures, windows, boards and bookcases along a wall at y = side * half."""
    x = -span_m + 1.0
    while x < span_m - 1.0:
        wide = float(rng.uniform(0.3, 0.9))
        kind = WALL[int(rng.integers(len(WALL)))]
        if kind is not _bookcase or half_m > 1.4:
            kind(solids, rng, place, _Spot(x, side, wide, half_m, high_m))
        x += wide + float(rng.uniform(0.7, 2.2))
