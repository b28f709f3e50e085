"""Appearance of surfaces: families of textures, drawn for a viewing distance.

The size of the features is proportional to the distance, so that a cup at 0.3 m and a wall at 30 m
have similar detail per pixel. Colours are linear RGB; contrasts within a surface range from 3 %
for plain paint to 20 : 1 for print.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from spike_depth_ros.sim import geometry as geo
from spike_depth_ros.sim.build import RGB, Place, SolidList

Generator = np.random.Generator


class Finish(NamedTuple):
    """The finish of a surface: material, two colours and parameters, see `geometry.Solids`."""

    material: int
    colour: RGB
    second: RGB
    detail: tuple[float, float, float, float]


def cover(
    solids: SolidList,
    place: Place,
    shape: int,
    finish: Finish,
    centre_m: tuple[float, float, float],
    half_m: tuple[float, float, float],
    **turn: Any,
) -> None:
    """Adds one solid with a finish; `turn` is as in `SolidList.add`."""
    solids.add(place, shape, finish.material, centre_m, half_m, finish.colour, finish.second,
               detail=finish.detail, **turn)  # fmt: skip


def any_colour(rng: Generator, low: float = 0.03, high: float = 0.8) -> RGB:
    """Draws a colour of log-uniform brightness, from grey to saturated."""
    level, hue = _log_uniform(rng, low, high), rng.uniform(0.3, 1.0, 3)
    grey = float(rng.random()) ** 0.5
    r, g, b = level * (grey + (1 - grey) * hue / hue.max())
    return float(r), float(g), float(b)


def two_colours(rng: Generator, ratio: float) -> tuple[RGB, RGB]:
    """Draws two colours in random order whose brightness differs by about a factor."""
    r, g, b = any_colour(rng, min(0.03 * ratio, 0.5), 0.85)
    tint = rng.uniform(0.75, 1.0, 3) / ratio
    dark = (r * float(tint[0]), g * float(tint[1]), b * float(tint[2]))
    return ((r, g, b), dark) if rng.random() < 0.5 else (dark, (r, g, b))


def _log_uniform(rng: Generator, low: float, high: float) -> float:
    return math.exp(float(rng.uniform(math.log(low), math.log(high))))


def _seed(rng: Generator) -> float:
    return float(rng.integers(1, 2000))


def _clouds(rng: Generator, far_m: float) -> Finish:
    """Draws 1/f noise, from soft clouds to blots with hard edges."""
    size, sharp = far_m * _log_uniform(rng, 0.05, 0.6), _log_uniform(rng, 0.25, 4.0)
    detail = (size, sharp, float(rng.uniform(0.2, 1.0)), _seed(rng))
    return Finish(geo.FRACTAL, *two_colours(rng, _log_uniform(rng, 1.3, 8.0)), detail)


def _leaves(rng: Generator, far_m: float) -> Finish:
    hue = float(rng.uniform(0.5, 1.5))
    leaf, dark = (0.09 * hue, 0.15, 0.04), (0.03 * hue, 0.05, 0.015)
    size = far_m * _log_uniform(rng, 0.02, 0.12)
    return Finish(geo.FOLIAGE, leaf, dark, (size, float(rng.uniform(0.5, 1.0)), 0.0, _seed(rng)))


def _bricks(rng: Generator, far_m: float) -> Finish:
    long = far_m * _log_uniform(rng, 0.06, 0.4)
    high = long * float(rng.uniform(0.25, 1.0))
    joint = float(rng.uniform(0.03, 0.1))
    first, second = two_colours(rng, _log_uniform(rng, 1.3, 4.0))
    return Finish(geo.BRICK, first, second, (long, high, joint, _seed(rng)))


def _print(rng: Generator, far_m: float) -> Finish:
    """Draws pages of text and pictures; sometimes light on dark, as on screens."""
    line = far_m * _log_uniform(rng, 0.012, 0.08)
    paper, ink = any_colour(rng, 0.4, 0.85), any_colour(rng, 0.02, 0.08)
    if rng.random() < 0.2:
        paper, ink = ink, paper
    detail = (line, float(rng.uniform(8, 30)), float(rng.uniform(0.0, 0.5)), _seed(rng))
    return Finish(geo.PRINT, paper, ink, detail)


def _tags(rng: Generator, far_m: float) -> Finish:
    pitch = far_m * _log_uniform(rng, 0.1, 0.6)
    detail = (pitch, float(rng.integers(3, 8)), 0.0, _seed(rng))
    return Finish(geo.TAG, (0.75, 0.75, 0.73), (0.03, 0.03, 0.03), detail)


def _checker(rng: Generator, far_m: float) -> Finish:
    size = far_m * _log_uniform(rng, 0.03, 0.25)
    high = size * (1.0 if rng.random() < 0.7 else float(rng.uniform(0.4, 2.5)))
    detail = (size, high, float(rng.uniform(0.0, 0.15)), _seed(rng))
    return Finish(geo.CHECKER, *two_colours(rng, _log_uniform(rng, 1.5, 15.0)), detail)


def _stripes(rng: Generator, far_m: float) -> Finish:
    period = far_m * _log_uniform(rng, 0.02, 0.2)
    detail = (period, float(rng.uniform(0, math.pi)), float(rng.uniform(0.25, 0.75)), _seed(rng))
    return Finish(geo.GRATING, *two_colours(rng, _log_uniform(rng, 1.4, 10.0)), detail)


def _wood(rng: Generator, far_m: float) -> Finish:
    base = rng.uniform(0.08, 0.5) * np.array([1.0, rng.uniform(0.6, 0.8), rng.uniform(0.3, 0.55)])
    light = (float(base[0]), float(base[1]), float(base[2]))
    ratio = float(rng.uniform(0.35, 0.75))
    dark = (ratio * light[0], ratio * light[1], ratio * light[2])
    board, grain = far_m * _log_uniform(rng, 0.1, 0.6), far_m * _log_uniform(rng, 0.015, 0.05)
    return Finish(geo.WOOD, light, dark, (board, grain, float(rng.uniform(0.3, 1.0)), _seed(rng)))


def _plain(rng: Generator, far_m: float) -> Finish:
    """Draws paint with a faint grain: nearly no texture."""
    first, second = two_colours(rng, float(rng.uniform(1.03, 1.15)))
    detail = (far_m * _log_uniform(rng, 0.02, 0.5), 0.5, 1.0, _seed(rng))
    return Finish(geo.FRACTAL, first, second, detail)


FAMILIES: dict[str, tuple[float, Callable[[Generator, float], Finish]]] = {
    'clouds': (0.24, _clouds),
    'leaves': (0.08, _leaves),
    'bricks': (0.10, _bricks),
    'print': (0.16, _print),
    'tags': (0.08, _tags),
    'checker': (0.07, _checker),
    'stripes': (0.08, _stripes),
    'wood': (0.10, _wood),
    'plain': (0.09, _plain),
}
"""Family -> relative frequency, and draw(rng, viewing distance in m)."""

_SHARES = np.cumsum([share for share, _ in FAMILIES.values()])


def draw_finish(rng: Generator, far_m: float, family: str | None = None) -> Finish:
    """Draws the finish of a surface.

    Args:
        rng: random generator.
        far_m: usual viewing distance [m].
        family: a key of `FAMILIES`; drawn at random if None.
    """
    if family is None:
        family = list(FAMILIES)[int(np.searchsorted(_SHARES, rng.random() * _SHARES[-1]))]
    return FAMILIES[family][1](rng, far_m)
