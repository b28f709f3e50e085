"""Street furniture: lamps, signs, lights, fences, benches; z = 0 is its foot."""

from __future__ import annotations

import numpy as np

from spike_depth_ros.sim.build import Place, SolidList
from spike_depth_ros.sim.geometry import (
    BALL,
    BARK,
    BOX,
    BRICK,
    CONE,
    FOLIAGE,
    GLASS,
    GLOW,
    PAINT,
    PLAIN,
    SIGN,
    STRIPE,
    WHEEL,
)
from spike_depth_ros.sim.things.colours import CLOTHES, STEEL, WALLS, pick

Generator = np.random.Generator


def lamp_post(solids: SolidList, place: Place, tall_m: float, arm_m: float) -> None:
    """Adds a street lamp whose arm extends along x."""
    solids.add(
        place, CONE, PLAIN, (0, 0, tall_m / 2), (0.09, 0.09, tall_m / 2), STEEL, taper=(0.4, 0, 0)
    )
    solids.add(place, BOX, PLAIN, (arm_m / 2, 0, tall_m), (arm_m / 2, 0.04, 0.04), STEEL)
    solids.add(place, BOX, GLOW, (arm_m, 0, tall_m - 0.04), (0.32, 0.13, 0.06), (0.5, 0.5, 0.5),
               glow=(22.0, 18.0, 12.0), detail=(1, 0, 0, 0))  # fmt: skip


def sign_post(solids: SolidList, place: Place, rng: Generator) -> None:
    """Adds a traffic sign on a pole, facing along -x."""
    tall, size = float(rng.uniform(2.1, 2.8)), float(rng.uniform(0.28, 0.42))
    solids.add(place, CONE, PLAIN, (0, 0, tall / 2), (0.035, 0.035, tall / 2), STEEL)
    colour = ((0.5, 0.03, 0.03), (0.03, 0.1, 0.4), (0.6, 0.45, 0.05), (0.03, 0.25, 0.08))[
        int(rng.integers(4))
    ]
    if rng.random() < 0.5:
        solids.add(place, BALL, WHEEL, (-0.06, 0, tall), (size, 0.03, size), (0.7, 0.7, 0.7),
                   colour, yaw_rad=np.pi / 2)  # fmt: skip
    else:
        wide = size * float(rng.uniform(1.0, 2.2))
        solids.add(place, BOX, SIGN, (-0.06, 0, tall), (0.02, wide, size), (0.7, 0.7, 0.68),
                   colour,
                   detail=(2 * wide, 2 * size, 0.13, float(rng.integers(1000))))  # fmt: skip


def traffic_light(solids: SolidList, place: Place, rng: Generator, arm_m: float) -> None:
    """Adds traffic lights on a pole and on an arm that extends along y, facing along -x."""
    solids.add(place, CONE, PLAIN, (0, 0, 2.8), (0.08, 0.08, 2.8), (0.15, 0.15, 0.16))
    solids.add(
        place, BOX, PLAIN, (0, arm_m / 2, 5.5), (0.05, abs(arm_m) / 2, 0.05), (0.15, 0.15, 0.16)
    )
    state = int(rng.integers(3))
    glows = ((3.0, 0.1, 0.05), (2.6, 1.4, 0.1), (0.1, 2.4, 0.9))
    for y, z in ((0.0, 2.9), (arm_m, 5.3)):
        solids.add(place, BOX, PLAIN, (-0.15, y, z), (0.1, 0.16, 0.45), (0.03, 0.03, 0.03))
        solids.add(place, BALL, GLOW, (-0.26, y, z + 0.28 - 0.28 * state), (0.04, 0.1, 0.1),
                   (0.3, 0.3, 0.3), glow=glows[state], detail=(1, 0.6, 0, 0))  # fmt: skip


def fence(solids: SolidList, place: Place, rng: Generator, length_m: float) -> None:
    """Adds a fence along x: rails and posts, a wall, a hedge, or a guard rail."""
    half = length_m / 2
    kind = int(rng.integers(4))
    if kind == 0:
        wood = pick(rng, WALLS)
        for z in (0.35, 0.75, 1.1):
            solids.add(
                place, BOX, BARK, (0, 0, z), (half, 0.025, 0.06), wood, detail=(0.9, 0.02, 0.2, 1)
            )
        for k in range(int(length_m / 1.6) + 1):
            solids.add(place, BOX, BARK, (k * 1.6 - half, 0, 0.6), (0.06, 0.06, 0.68), wood)
    elif kind == 1:
        solids.add(place, BOX, BRICK, (0, 0, 0.6), (half, 0.12, 0.65), pick(rng, WALLS),
                   (0.4, 0.38, 0.35),
                   detail=(0.25, 0.08, 0.08, float(rng.integers(99))))  # fmt: skip
        solids.add(place, BOX, PLAIN, (0, 0, 1.29), (half, 0.17, 0.05), (0.45, 0.44, 0.42))
    elif kind == 2:
        solids.add(place, BOX, FOLIAGE, (0, 0, 0.7), (half, 0.4, 0.75), (0.05, 0.1, 0.025),
                   (0.03, 0.05, 0.01), detail=(0.1, 0.5, 0, float(rng.integers(99))),
                   taper=(0, 0.2, 0))  # fmt: skip
    else:
        solids.add(place, BOX, STRIPE, (0, 0, 0.65), (half, 0.04, 0.16), STEEL, (0.22, 0.22, 0.23),
                   detail=(0.2, 0, 0, 0))  # fmt: skip
        for k in range(int(length_m / 2) + 1):
            solids.add(place, BOX, PLAIN, (k * 2.0 - half, -0.08, 0.35), (0.05, 0.06, 0.4), STEEL)


def _bin(solids: SolidList, place: Place, rng: Generator) -> None:
    dark = pick(rng, CLOTHES)
    solids.add(place, CONE, PLAIN, (0, 0, 0.5), (0.28, 0.28, 0.5), dark)


def _bench(solids: SolidList, place: Place, rng: Generator) -> None:
    solids.add(place, BOX, BARK, (0, 0, 0.45), (0.8, 0.25, 0.04), (0.25, 0.16, 0.09),
               detail=(0.1, 0.1, 0.3, 0))  # fmt: skip
    solids.add(place, BOX, BARK, (0, -0.25, 0.75), (0.8, 0.03, 0.2), (0.25, 0.16, 0.09),
               detail=(0.4, 0, 0.3, 0))  # fmt: skip
    for x in (-0.7, 0.7):
        solids.add(place, BOX, PLAIN, (x, 0, 0.22), (0.04, 0.22, 0.22), (0.05, 0.05, 0.05))


def _bollards(solids: SolidList, place: Place, rng: Generator) -> None:
    for k in range(4):
        solids.add(place, CONE, STRIPE, (1.5 * k, 0, 0.45), (0.07, 0.07, 0.45), (0.6, 0.6, 0.58),
                   (0.5, 0.05, 0.04), detail=(0.5, 0, 0, 0))  # fmt: skip


def _cabinet(solids: SolidList, place: Place, rng: Generator) -> None:
    solids.add(place, BOX, PAINT, (0, 0, 0.6), (0.5, 0.22, 0.6), (0.3, 0.33, 0.3),
               detail=(0.5, 0.05, 0, 0))  # fmt: skip


def _column(solids: SolidList, place: Place, rng: Generator) -> None:
    dark = pick(rng, CLOTHES)
    seed = float(rng.integers(1000))
    solids.add(place, CONE, SIGN, (0, 0, 1.6), (0.65, 0.65, 1.6), pick(rng, WALLS), dark,
               detail=(9, 3.2, 0.3, seed))  # fmt: skip


def _shelter(solids: SolidList, place: Place, rng: Generator) -> None:
    dark = pick(rng, CLOTHES)
    seed = float(rng.integers(1000))
    solids.add(place, BOX, GLASS, (0, 0, 1.2), (1.8, 0.04, 1.15), (0.12, 0.14, 0.15), STEEL,
               detail=(1.2, 0, 0, 0))  # fmt: skip
    solids.add(place, BOX, PLAIN, (0, 0.6, 2.45), (1.9, 0.75, 0.06), STEEL)
    solids.add(place, BOX, SIGN, (1.8, 0.6, 1.2), (0.06, 0.6, 1.0), pick(rng, WALLS), dark,
               detail=(1.2, 2.0, 0.2, seed))  # fmt: skip


SMALL = (_bin, _bench, _bollards, _cabinet, _column, _shelter)


def small_things(solids: SolidList, place: Place, rng: Generator) -> None:
    """Adds a bin, bench, bollards, electricity cabinet, advertising column or bus shelter."""
    SMALL[int(rng.integers(len(SMALL)))](solids, place, rng)
