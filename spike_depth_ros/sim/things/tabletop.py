"""Small objects on desks and shelves; z = 0 is the supporting surface, -y their front."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from spike_depth_ros.sim.build import RGB, Place, SolidList
from spike_depth_ros.sim.geometry import BALL, BOX, CONE, FOLIAGE, PLAIN
from spike_depth_ros.sim.things.colours import CAR_PAINTS, STEEL, pick
from spike_depth_ros.sim.things.surfaces import any_colour, cover, draw_finish

Generator = np.random.Generator

NEAR_M = 0.7
"""Viewing distance of the textures of small objects."""

BLACK: RGB = (0.03, 0.03, 0.033)
SOIL: RGB = (0.06, 0.04, 0.03)


def _u(rng: Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def _pile_of_books(solids: SolidList, place: Place, rng: Generator) -> None:
    z = 0.0
    for _ in range(int(rng.integers(1, 7))):
        half = (_u(rng, 0.07, 0.13), _u(rng, 0.09, 0.15), _u(rng, 0.006, 0.025))
        finish = draw_finish(rng, NEAR_M, 'print' if rng.random() < 0.5 else None)
        cover(solids, place, BOX, finish, (0, 0, z + half[2]), half, yaw_rad=_u(rng, -0.4, 0.4))
        z += 2 * half[2]


def row_of_books(solids: SolidList, place: Place, rng: Generator, wide_m: float = 0.3) -> None:
    """Adds books side by side along x, some of them leaning."""
    x = -wide_m / 2
    while x < wide_m / 2:
        thick, tall = _u(rng, 0.012, 0.05), _u(rng, 0.16, 0.28)
        colour, deep = any_colour(rng), _u(rng, 0.07, 0.1)
        lean = _u(rng, -0.15, 0.15) if rng.random() < 0.15 else 0.0
        solids.add(place, BOX, PLAIN, (x + thick / 2, 0, tall / 2), (thick / 2, deep, tall / 2),
                   colour, pitch_rad=lean, detail=(0.5, 0.02, 0, 0))  # fmt: skip
        if rng.random() < 0.6:  # the title on the spine
            finish = draw_finish(rng, 0.5, 'print')
            title = (0.38 * thick, 0.001, _u(rng, 0.15, 0.35) * tall)
            cover(solids, place, BOX, finish, (x + thick / 2, -deep, _u(rng, 0.4, 0.6) * tall),
                  title, pitch_rad=lean)  # fmt: skip
        x += thick + 0.002


def _screen(solids: SolidList, place: Place, rng: Generator) -> None:
    """Adds a monitor on its foot, with text, pictures or a blank screen."""
    wide, tall = _u(rng, 0.2, 0.33), _u(rng, 0.12, 0.19)
    middle = 0.1 + tall
    solids.add(place, BOX, PLAIN, (0, 0.06, 0.006), (0.12, 0.09, 0.006), BLACK)
    solids.add(place, BOX, PLAIN, (0, 0.08, 0.1), (0.03, 0.015, 0.1), BLACK)
    solids.add(place, BOX, PLAIN, (0, 0.05, middle), (wide, 0.02, tall), BLACK)
    family = ('print', 'clouds', None)[int(rng.integers(3))]
    cover(solids, place, BOX, draw_finish(rng, NEAR_M, family), (0, 0.03, middle),
          (wide - 0.012, 0.002, tall - 0.012))  # fmt: skip


def _laptop(solids: SolidList, place: Place, rng: Generator) -> None:
    body = any_colour(rng, 0.03, 0.5)
    solids.add(place, BOX, PLAIN, (0, 0, 0.008), (0.16, 0.11, 0.008), body)
    keys = draw_finish(rng, 0.5, 'checker')._replace(detail=(0.018, 0.018, 0.0, 1.0))
    cover(solids, place, BOX, keys, (0, 0.02, 0.017), (0.14, 0.05, 0.001))
    tilt = _u(rng, 0.05, 0.5)
    z, y = 0.1 * math.cos(tilt), 0.11 + 0.1 * math.sin(tilt)
    solids.add(place, BOX, PLAIN, (0, y, z + 0.012), (0.16, 0.005, 0.105), body, roll_rad=-tilt)
    cover(solids, place, BOX, draw_finish(rng, NEAR_M, 'print'), (0, y - 0.006, z + 0.012),
          (0.15, 0.002, 0.095), roll_rad=-tilt)  # fmt: skip


def _keyboard(solids: SolidList, place: Place, rng: Generator) -> None:
    solids.add(place, BOX, PLAIN, (0, 0, 0.01), (0.2, 0.07, 0.01), any_colour(rng, 0.02, 0.6))
    keys = draw_finish(rng, 0.5, 'tags')._replace(detail=(0.019, 1.0, 0.0, _u(rng, 1, 99)))
    cover(solids, place, BOX, keys, (0, 0, 0.02), (0.19, 0.06, 0.004))
    solids.add(place, BALL, PLAIN, (0.15, -0.12, 0.01), (0.03, 0.05, 0.025), BLACK)


def _cup(solids: SolidList, place: Place, rng: Generator) -> None:
    radius, tall = _u(rng, 0.03, 0.045), _u(rng, 0.04, 0.06)
    finish = draw_finish(rng, 0.4)
    cover(solids, place, CONE, finish, (0, 0, tall), (radius, radius, tall),
          taper=(_u(rng, 0.0, 0.25), 0, 0), pitch_rad=math.pi)  # fmt: skip
    turn = _u(rng, 0, 6.28)
    centre = (1.2 * radius * math.cos(turn), 1.2 * radius * math.sin(turn), tall)
    solids.add(place, BALL, PLAIN, centre, (0.02, 0.006, 0.03), finish.colour, yaw_rad=turn)


def _bottle(solids: SolidList, place: Place, rng: Generator) -> None:
    radius, tall = _u(rng, 0.025, 0.045), _u(rng, 0.07, 0.11)
    colour = any_colour(rng)
    solids.add(place, CONE, PLAIN, (0, 0, tall), (radius, radius, tall), colour,
               detail=(0, 0.15, 0, 0))  # fmt: skip
    cover(solids, place, CONE, draw_finish(rng, 0.4, 'print'), (0, 0, 0.9 * tall),
          (1.02 * radius, 1.02 * radius, 0.5 * tall))  # fmt: skip
    solids.add(place, CONE, PLAIN, (0, 0, 2.3 * tall), (radius, radius, 0.3 * tall), colour,
               taper=(0.65, 0, 0))  # fmt: skip
    solids.add(place, CONE, PLAIN, (0, 0, 2.7 * tall), (0.36 * radius, 0.36 * radius, 0.1 * tall),
               any_colour(rng))  # fmt: skip


def _box(solids: SolidList, place: Place, rng: Generator) -> None:
    half = (_u(rng, 0.03, 0.16), _u(rng, 0.03, 0.11), _u(rng, 0.02, 0.13))
    cover(solids, place, BOX, draw_finish(rng, NEAR_M), (0, 0, half[2]), half,
          yaw_rad=_u(rng, -0.8, 0.8))  # fmt: skip


def _ball(solids: SolidList, place: Place, rng: Generator) -> None:
    r = _u(rng, 0.02, 0.1)
    cover(solids, place, BALL, draw_finish(rng, NEAR_M), (0, 0, r), (r, r, r))


def _lamp(solids: SolidList, place: Place, rng: Generator) -> None:
    paint, lean, tall = pick(rng, CAR_PAINTS), _u(rng, -0.5, 0.5), _u(rng, 0.3, 0.38)
    solids.add(place, CONE, PLAIN, (0, 0, 0.012), (0.08, 0.08, 0.012), paint)
    solids.add(place, CONE, PLAIN, (0.5 * tall * math.tan(lean) / 2, 0, tall / 2),
               (0.008, 0.008, tall / 2), STEEL, pitch_rad=lean / 2)  # fmt: skip
    solids.add(place, CONE, PLAIN, (0.08 * math.sin(lean), -0.04, tall), (0.08, 0.08, 0.06),
               paint, taper=(0.6, 0, 0), roll_rad=0.4)  # fmt: skip


def _plant(solids: SolidList, place: Place, rng: Generator) -> None:
    pot = _u(rng, 0.04, 0.08)
    cover(solids, place, CONE, draw_finish(rng, NEAR_M), (0, 0, pot), (pot, pot, pot),
          taper=(0.25, 0, 0), pitch_rad=math.pi)  # fmt: skip
    solids.add(place, CONE, PLAIN, (0, 0, 2 * pot), (0.9 * pot, 1.1 * pot, 0.004), SOIL)
    hue = _u(rng, 0.5, 1.5)
    leaf, dark = (0.08 * hue, 0.14, 0.04), (0.03 * hue, 0.05, 0.02)
    for _ in range(int(rng.integers(5, 14))):
        turn, up = _u(rng, 0, 6.28), _u(rng, 0.2, 1.4)
        long = _u(rng, 0.05, 0.11)
        centre = (0.6 * long * math.cos(turn) * math.cos(up),
                  0.6 * long * math.sin(turn) * math.cos(up),
                  2 * pot + long * (0.3 + 0.7 * math.sin(up)))  # fmt: skip
        solids.add(place, BALL, FOLIAGE, centre, (long, 0.3 * long, 0.006), leaf, dark,
                   detail=(0.02, 0.4, 0, _u(rng, 0, 99)), yaw_rad=turn, pitch_rad=-up)  # fmt: skip


def _papers(solids: SolidList, place: Place, rng: Generator) -> None:
    for k in range(int(rng.integers(1, 5))):
        half, at = (0.105, 0.148, 0.0006), (_u(rng, -0.05, 0.05), _u(rng, -0.02, 0.02))
        cover(solids, place, BOX, draw_finish(rng, 0.5, 'print'), (*at, 0.0008 + 0.0015 * k),
              half, yaw_rad=_u(rng, -0.6, 0.6))  # fmt: skip


def _pens(solids: SolidList, place: Place, rng: Generator) -> None:
    cover(solids, place, CONE, draw_finish(rng, 0.4), (0, 0, 0.05), (0.035, 0.035, 0.05))
    for _ in range(int(rng.integers(2, 7))):
        turn, lean = _u(rng, 0, 6.28), _u(rng, 0.05, 0.3)
        centre = (0.02 * math.cos(turn), 0.02 * math.sin(turn), 0.11)
        solids.add(place, CONE, PLAIN, centre, (0.004, 0.004, 0.07), any_colour(rng),
                   yaw_rad=turn, pitch_rad=lean)  # fmt: skip


def _books_upright(solids: SolidList, place: Place, rng: Generator) -> None:
    row_of_books(solids, place, rng, _u(rng, 0.1, 0.3))


THINGS: dict[str, tuple[float, Callable[[SolidList, Place, Generator], None]]] = {
    'pile of books': (0.13, _pile_of_books),
    'books': (0.06, _books_upright),
    'screen': (0.08, _screen),
    'laptop': (0.06, _laptop),
    'keyboard': (0.06, _keyboard),
    'cup': (0.12, _cup),
    'bottle': (0.09, _bottle),
    'box': (0.14, _box),
    'ball': (0.06, _ball),
    'lamp': (0.04, _lamp),
    'plant': (0.05, _plant),
    'papers': (0.07, _papers),
    'pens': (0.04, _pens),
}
"""Object -> relative frequency, and the function that adds it. All are below 0.5 m in size."""

SMALL = ('pile of books', 'cup', 'bottle', 'box', 'ball', 'papers', 'pens')
"""Objects that fit below a shelf of 0.3 m."""

_SHARES = np.cumsum([share for share, _ in THINGS.values()])


def small_thing(solids: SolidList, place: Place, rng: Generator) -> None:
    """Adds one object that fits on a shelf."""
    THINGS[SMALL[int(rng.integers(len(SMALL)))]][1](solids, place, rng)


def any_thing(solids: SolidList, place: Place, rng: Generator) -> None:
    """Adds one of `THINGS`."""
    kinds = list(THINGS.values())
    kinds[int(np.searchsorted(_SHARES, rng.random() * _SHARES[-1]))][1](solids, place, rng)
