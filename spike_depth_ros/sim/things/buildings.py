"""Blocks and houses; their front faces along y, z = 0 is the street."""

from __future__ import annotations

import numpy as np

from spike_depth_ros.sim.build import Place, SolidList
from spike_depth_ros.sim.geometry import BOX, BRICK, FACADE, PLAIN, ROOF, SHELF, SIGN, STRIPE
from spike_depth_ros.sim.things.colours import CAR_PAINTS, PANE, WALLS, pick

Generator = np.random.Generator


def block(
    solids: SolidList, place: Place, rng: Generator, wide_m: float, deep_m: float, storeys: int
) -> None:
    """Adds a town house or an office block; its front faces along y."""
    storey, pitch = float(rng.uniform(2.9, 3.6)), float(rng.uniform(1.8, 3.6))
    half_x = pitch * max(round(wide_m / 2 / pitch), 1)
    half_y = pitch * max(round(deep_m / 2 / pitch), 1)
    high = storey * storeys
    wall = pick(rng, WALLS, 0.3)
    seed = float(rng.integers(100000))
    pane = (0.05, 0.06, 0.075)
    warm = (1.0, 0.75, 0.42)
    solids.add(place, BOX, FACADE, (0, 0, high / 2 - 0.5), (half_x, half_y, high / 2 + 0.5), wall,
               pane, warm,
               detail=(pitch, storey, float(rng.uniform(0.35, 0.72)), seed))  # fmt: skip
    size = (half_x, half_y, high)
    _roof(solids, place, rng, size, pitched=bool(rng.random() < 0.4 and storeys < 7))
    if rng.random() < 0.5:
        _balconies(solids, place, rng, size, pitch, storey)
    if rng.random() < 0.5:
        _shop(solids, place, rng, size)


def _roof(solids: SolidList, place: Place, rng: Generator, size: tuple, pitched: bool) -> None:
    """Adds a gable roof, or a flat one with a parapet and a lift housing."""
    half_x, half_y, high = size
    seed = float(rng.integers(1000))
    if pitched:
        rise = float(rng.uniform(1.2, 3.0))
        solids.add(place, BOX, ROOF, (0, 0, high + rise), (half_x + 0.3, half_y + 0.3, rise),
                   pick(rng, ((0.30, 0.12, 0.08), (0.12, 0.12, 0.13), (0.2, 0.15, 0.12))),
                   detail=(0.35, 0.1, 0.3, seed), taper=(0, 0.95, 0))  # fmt: skip
    else:
        solids.add(place, BOX, PLAIN, (0, 0, high + 0.25), (half_x + 0.15, half_y + 0.15, 0.3),
                   pick(rng, WALLS))  # fmt: skip
        solids.add(
            place, BOX, PLAIN, (half_x * 0.3, 0, high + 1.2), (1.2, 1.2, 1.2), (0.35, 0.35, 0.35)
        )


def _balconies(
    solids: SolidList, place: Place, rng: Generator, size: tuple, pitch: float, storey: float
) -> None:
    half_x, half_y, high = size
    rail = pick(rng, WALLS)
    for k in range(1, min(round(high / storey), 6)):
        for x in np.arange(-half_x + pitch, half_x - pitch / 2, 2 * pitch)[:4]:
            solids.add(place, BOX, STRIPE, (float(x), half_y + 0.5, k * storey + 0.45),
                       (pitch * 0.45, 0.55, 0.5), rail, PANE, detail=(0.25, 0, 0, 0))  # fmt: skip


def _shop(solids: SolidList, place: Place, rng: Generator, size: tuple) -> None:
    """Adds a sign board over the ground floor, and an awning."""
    half_x, half_y, _ = size
    seed = float(rng.integers(1000))
    sign_z = float(rng.uniform(2.7, 3.3))
    solids.add(place, BOX, SIGN, (0, half_y + 0.08, sign_z), (half_x * 0.7, 0.08, 0.3),
               pick(rng, CAR_PAINTS), pick(rng, WALLS), (0.5, 0.4, 0.3),
               detail=(half_x, 0.6, 0.25, seed))  # fmt: skip
    solids.add(place, BOX, STRIPE, (0, half_y + 0.6, 2.6), (half_x * 0.6, 0.6, 0.05),
               pick(rng, CAR_PAINTS))  # fmt: skip


def house(solids: SolidList, place: Place, rng: Generator) -> None:
    """Adds a detached house with a gable roof; its front faces along y."""
    pitch, storey = 2.2, 2.8
    half_x, half_y = pitch * float(rng.integers(2, 4)), pitch * 2.0
    storeys = int(rng.integers(1, 3))
    high = storey * storeys
    wall, seed = pick(rng, WALLS, 0.3), float(rng.integers(100000))
    solids.add(place, BOX, FACADE, (0, 0, high / 2 - 0.5), (half_x, half_y, high / 2 + 0.5), wall,
               (0.05, 0.06, 0.07), (1.0, 0.72, 0.4),
               detail=(pitch, storey, 0.42, seed))  # fmt: skip
    rise = float(rng.uniform(1.4, 2.2))
    roof = pick(rng, ((0.28, 0.11, 0.07), (0.11, 0.11, 0.12), (0.22, 0.16, 0.11)))
    solids.add(place, BOX, ROOF, (0, 0, high + rise), (half_x + 0.5, half_y + 0.5, rise), roof,
               (0.05, 0.04, 0.04), detail=(0.3, 0.12, 0.3, seed),
               taper=(0.02, 0.98, 0))  # fmt: skip
    solids.add(place, BOX, BRICK, (half_x * 0.5, half_y * 0.3, high + rise * 1.6),
               (0.35, 0.35, 1.2), (0.3, 0.14, 0.1), (0.4, 0.38, 0.35),
               detail=(0.25, 0.08, 0.1, 1))  # fmt: skip
    solids.add(place, BOX, SHELF, (pitch * 0.5, half_y + 0.03, 1.05), (0.5, 0.04, 1.05),
               pick(rng, CAR_PAINTS), (0.1, 0.07, 0.05), detail=(0.5, 0.7, 0.2, seed))  # fmt: skip
