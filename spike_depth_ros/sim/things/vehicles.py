"""Cars, trucks, bicycles and people. Each function returns half length and half width [m].

x points forward, z = 0 is the foot.
"""

from __future__ import annotations

import numpy as np

from spike_depth_ros.sim.build import Place, SolidList
from spike_depth_ros.sim.geometry import (
    BALL,
    BOX,
    CLOTH,
    FACADE,
    GLASS,
    GLOW,
    PAINT,
    PLAIN,
    SIGN,
    WHEEL,
)
from spike_depth_ros.sim.things.colours import (
    CAR_PAINTS,
    CLOTHES,
    PANE,
    RED_GLOW,
    RUBBER,
    SKIN,
    WHITE_GLOW,
    pick,
)

Generator = np.random.Generator

# length, width, body foot, body top, cabin top, cabin centre and half length, taper of the cabin
CARS: dict[str, tuple[float, ...]] = {
    'hatchback': (3.9, 1.72, 0.28, 0.92, 1.46, -0.25, 1.35, 0.42),
    'sedan': (4.6, 1.80, 0.27, 0.92, 1.42, -0.20, 1.30, 0.50),
    'estate': (4.7, 1.82, 0.27, 0.95, 1.47, -0.55, 1.70, 0.35),
    'suv': (4.5, 1.88, 0.36, 1.10, 1.72, -0.35, 1.55, 0.30),
    'van': (5.2, 1.95, 0.35, 1.15, 2.05, -0.25, 2.30, 0.22),
}


def _wheels(
    solids: SolidList, place: Place, xs: tuple[float, ...], y: float, radius: float
) -> None:
    for x in xs:
        for side in (-1, 1):
            solids.add(place, BALL, WHEEL, (x, side * y, radius), (radius, 0.13, radius),
                       (0.2, 0.2, 0.21), RUBBER)  # fmt: skip


def _lamps(solids: SolidList, place: Place, x: float, y: float, z: float) -> None:
    for side in (-1, 1):
        solids.add(place, BOX, GLOW, (x, side * y, z), (0.05, 0.16, 0.08), (0.7, 0.7, 0.7),
                   glow=WHITE_GLOW, detail=(1, 0.01, 0, 0))  # fmt: skip
        solids.add(place, BOX, GLOW, (-x, side * y, z + 0.08), (0.05, 0.13, 0.09),
                   (0.35, 0.02, 0.02), glow=RED_GLOW, detail=(1, 0.12, 0, 0))  # fmt: skip


def _plate(solids: SolidList, place: Place, x: float, z: float, seed: float) -> None:
    solids.add(place, BOX, SIGN, (x, 0, z), (0.02, 0.26, 0.06), (0.6, 0.6, 0.55), RUBBER,
               detail=(0.52, 0.12, 0.06, seed))  # fmt: skip


def car(solids: SolidList, place: Place, rng: Generator) -> tuple[float, float]:
    """Adds a car of a random kind; returns its half length and half width [m]."""
    row = list(CARS.values())[int(rng.choice(len(CARS), p=(0.28, 0.27, 0.13, 0.22, 0.10)))]
    length, width, foot, top, roof, centre, cabin, taper = row
    paint = pick(rng, CAR_PAINTS)
    seed = float(rng.integers(1000))
    half, wide, body, nose = length / 2, width / 2, (top - foot) / 2, 0.16 * length
    solids.add(place, BOX, PAINT, (-nose / 2, 0, foot + body), (half - nose / 2, wide, body),
               paint, RUBBER, detail=(1.05, 0.12, 0, seed), taper=(0.03, 0.06, 0))  # fmt: skip
    solids.add(place, BOX, PAINT, (half - nose, 0, foot + 0.85 * body),
               (nose, wide * 0.97, body * 0.85), paint, RUBBER, detail=(0, 0.1, 0, seed),
               taper=(0.10, 0.08, 0))  # fmt: skip
    solids.add(place, BOX, GLASS, (centre, 0, (top + roof) / 2),
               (cabin, wide * 0.93, (roof - top) / 2), PANE, paint, detail=(1.0, 0, 0, seed),
               taper=(taper, 0.24, 0))  # fmt: skip
    solids.add(place, BOX, PAINT, (centre, 0, roof + 0.02),
               (cabin * (1 - taper) * 1.02, wide * 0.93 * 0.77, 0.03), paint)  # fmt: skip
    _plate(solids, place, -half - 0.01, foot + 0.3, seed)
    _wheels(
        solids, place, (-0.30 * length, 0.31 * length), wide - 0.08, 0.31 if foot < 0.33 else 0.35
    )
    _lamps(solids, place, half - 0.03, wide - 0.28, foot + 0.40)
    return half, wide


def truck(solids: SolidList, place: Place, rng: Generator) -> tuple[float, float]:
    """Adds a truck with a box body, or a bus; returns its half length and half width [m]."""
    half, wide = float(rng.uniform(3.2, 5.5)), 1.22
    paint = pick(rng, CAR_PAINTS)
    seed = float(rng.integers(1000))
    if rng.random() < 0.4:
        solids.add(place, BOX, FACADE, (0, 0, 1.75), (half, wide, 1.40), paint, PANE,
                   detail=(half / 3.5, 2.8, 0.8, seed))  # fmt: skip
        solids.add(place, BOX, GLASS, (half, 0, 2.0), (0.03, 1.1, 0.7), PANE, paint)
    else:
        box = pick(rng, CAR_PAINTS)
        solids.add(place, BOX, SIGN, (-0.9, 0, 2.1), (half - 0.9, wide, 1.25), box,
                   pick(rng, CAR_PAINTS), detail=(2 * wide, 2.5, 0.35, seed))  # fmt: skip
        solids.add(place, BOX, PAINT, (half - 0.85, 0, 1.1), (0.85, wide * 0.97, 0.65), paint,
                   RUBBER, detail=(0.0, 0.15, 0, seed))  # fmt: skip
        solids.add(place, BOX, GLASS, (half - 0.85, 0, 2.2), (0.84, wide * 0.95, 0.48), PANE,
                   paint, taper=(0.2, 0.1, 0))  # fmt: skip
        solids.add(place, BOX, PLAIN, (0, 0, 0.7), (half - 0.2, 0.5, 0.15), (0.05, 0.05, 0.05))
    _wheels(solids, place, (-half * 0.62, half - 1.2), wide - 0.12, 0.48)
    _lamps(solids, place, half, wide - 0.3, 0.75)
    return half, wide


def bicycle(solids: SolidList, place: Place, rng: Generator) -> tuple[float, float]:
    """Adds a bicycle with its rider; returns its half length and half width [m]."""
    coat = pick(rng, CLOTHES)
    for x in (-0.52, 0.52):
        solids.add(
            place, BALL, WHEEL, (x, 0, 0.34), (0.34, 0.03, 0.34), (0.25, 0.25, 0.25), RUBBER
        )
    solids.add(
        place, BOX, PLAIN, (0.0, 0, 0.55), (0.45, 0.025, 0.03), (0.4, 0.1, 0.1), pitch_rad=-0.35
    )
    solids.add(
        place, BOX, PLAIN, (0.5, 0, 0.75), (0.03, 0.22, 0.3), (0.1, 0.1, 0.1), taper=(0, -0.5, 0)
    )
    for side in (-1, 1):
        solids.add(
            place, BALL, CLOTH, (0.0, side * 0.11, 0.68), (0.13, 0.09, 0.34), (0.06, 0.07, 0.1)
        )
    solids.add(place, BALL, CLOTH, (0.08, 0, 1.2), (0.19, 0.2, 0.38), coat, pitch_rad=0.45)
    solids.add(place, BALL, PLAIN, (0.26, 0, 1.66), (0.12, 0.1, 0.14), SKIN)
    solids.add(place, BALL, PLAIN, (0.25, 0, 1.74), (0.14, 0.11, 0.09), pick(rng, CAR_PAINTS))
    return 0.85, 0.3


def pedestrian(solids: SolidList, place: Place, rng: Generator) -> tuple[float, float]:
    """Adds a person; returns half length and half width [m]."""
    tall = float(rng.uniform(0.82, 1.08))
    coat, trousers = pick(rng, CLOTHES), pick(rng, CLOTHES)
    stride = float(rng.uniform(0.05, 0.2))
    for side in (-1, 1):
        solids.add(place, BALL, CLOTH, (side * stride, side * 0.09, 0.42 * tall),
                   (0.09, 0.085, 0.46 * tall), trousers, pitch_rad=-side * stride)  # fmt: skip
        solids.add(place, BALL, CLOTH, (-side * stride, side * 0.25, 1.08 * tall),
                   (0.07, 0.06, 0.33 * tall), coat, pitch_rad=side * stride * 1.4)  # fmt: skip
    solids.add(place, BALL, CLOTH, (0, 0, 1.12 * tall), (0.16, 0.23, 0.38 * tall), coat, trousers,
               detail=(0.2, 0, 0, float(rng.integers(99))))  # fmt: skip
    solids.add(place, BALL, PLAIN, (0.02, 0, 1.62 * tall), (0.11, 0.09, 0.14), SKIN)
    solids.add(place, BALL, PLAIN, (-0.02, 0, 1.68 * tall), (0.12, 0.10, 0.10), pick(rng, CLOTHES))
    return 0.25, 0.25
