"""Stairs with landings, walls and hand rails; the camera moves up and down with them.

The smooth terrain that the camera follows is a rounded triangle wave; each step lies where that
wave crosses a multiple of the riser.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from spike_depth_ros.sim import geometry as geo
from spike_depth_ros.sim import motion as mo
from spike_depth_ros.sim import route, weather
from spike_depth_ros.sim.build import Place, SolidList
from spike_depth_ros.sim.geometry import Free, World
from spike_depth_ros.sim.scenes.straight import hall, straight_motion
from spike_depth_ros.sim.things.surfaces import Finish, any_colour, cover, draw_finish

Generator = np.random.Generator

SAMPLE_M = 0.01
RAIL_M = 0.9
"""Height of a hand rail above the stairs."""


class _Stairs(NamedTuple):
    """Positions of the steps: their starts and ends along x, and their heights."""

    start_m: np.ndarray
    end_m: np.ndarray
    top_m: np.ndarray


def build_stairs(seed: int, duration_s: float) -> World:
    """Builds a walk up and down flights of stairs in a stairwell or in a hall."""
    rng = np.random.Generator(np.random.PCG64(seed))
    moving, far = straight_motion(rng, duration_s, float(rng.uniform(0.35, 1.1)))
    waves = _waves(rng)
    moving = moving._replace(waves=waves)
    span = (-4.0, far + 8.0)
    stairs = _steps(waves, span, float(rng.uniform(0.14, 0.19)))
    solids = SolidList()
    wide = float(rng.uniform(0.6, 1.6))
    low, top = float(stairs.top_m.min()), float(stairs.top_m.max())
    high = top + float(rng.uniform(2.3, 3.2))
    sides = wide + np.where(rng.random(2) < 0.5, rng.uniform(0.02, 0.3, 2),
                            rng.uniform(1.5, 5.0, 2))  # fmt: skip
    hall(solids, rng, span, (-float(sides[0]), float(sides[1])), high, 2.0, low - 0.4)
    _treads(solids, rng, stairs, wide, low - 0.5)
    for side, gap in ((-1, sides[0]), (1, sides[1])):
        if gap - wide > 1.0 or rng.random() < 0.6:
            _rail(solids, rng, waves, span, side * (wide - 0.05), gap - wide > 1.0)
    _things(solids, rng, span, sides, wide, low - 0.4)
    condition, light = weather.draw_lamps(rng)
    ground = route.plain_ground(np.zeros(8), np.zeros((5, 3)))
    return World('stairs', seed, duration_s, condition, solids.solids(), moving, ground, light,
                 _mount(rng), Free(0.3, 2.0, wide - 0.35))  # fmt: skip


def _waves(rng: Generator) -> np.ndarray:
    """Returns rows of `Motion.waves`: a sine and its third harmonic, of nearly constant slope."""
    rise = float(rng.uniform(0.9, 2.2))
    number = float(rng.uniform(0.5, 0.8)) / rise
    phase = float(rng.uniform(0, 2 * math.pi))
    return np.array([[number, 0.0, phase, rise], [3 * number, 0.0, 3 * phase, -rise / 9]])


def _steps(waves: np.ndarray, span_m: tuple[float, float], riser_m: float) -> _Stairs:
    """Returns stretches along x over which the wave is nearest to one multiple of the riser."""
    x = np.arange(span_m[0] - 0.5, span_m[1] + 0.5, SAMPLE_M)
    z = np.array([mo.smooth_height(waves, at, 0.0)[0] for at in x])
    level = np.round(z / riser_m).astype(int)
    edges = np.concatenate([[0], np.flatnonzero(np.diff(level)) + 1, [len(x)]])
    ends = np.append(x, x[-1] + SAMPLE_M)[edges]
    return _Stairs(ends[:-1], ends[1:], riser_m * level[edges[:-1]])


def _treads(
    solids: SolidList, rng: Generator, stairs: _Stairs, wide_m: float, foot_m: float
) -> None:
    """Adds one block per step, with its nosing in another colour."""
    finish, edge = draw_finish(rng, 1.5), draw_finish(rng, 1.0, 'plain')
    marked = rng.random() < 0.7
    columns = [column.tolist() for column in stairs]
    before = columns[2][0]
    for start, end, top in zip(*columns, strict=True):
        half, tall = (end - start) / 2, (top - foot_m) / 2
        cover(solids, Place(), geo.BOX, finish, (start + half, 0.0, top - tall),
              (half, wide_m, tall))  # fmt: skip
        if marked:
            x = start + 0.025 if top > before else start - 0.025
            z = max(top, before)
            cover(solids, Place(), geo.BOX, edge, (x, 0.0, z), (0.025, wide_m * 0.99, 0.004))
        before = top


def _rail(
    solids: SolidList,
    rng: Generator,
    waves: np.ndarray,
    span_m: tuple[float, float],
    y_m: float,
    fence: bool,
) -> None:
    """Adds a hand rail along the stairs, with balusters or panels where the side is open."""
    colour, radius = any_colour(rng), float(rng.uniform(0.018, 0.03))
    panel = draw_finish(rng, 1.2) if fence and rng.random() < 0.35 else None
    step = 0.4
    for x in np.arange(span_m[0], span_m[1] - step, step):
        z0, z1 = (mo.smooth_height(waves, at, 0.0)[0] for at in (x, x + step))
        lean, half = -math.atan2(z1 - z0, step), math.hypot(z1 - z0, step) / 2
        middle = (float(x) + step / 2, y_m, (z0 + z1) / 2 + RAIL_M)
        solids.add(Place(), geo.BOX, geo.PLAIN, middle, (half + 0.01, radius, radius), colour,
                   pitch_rad=lean)  # fmt: skip
        if panel is not None:
            _panel(solids, panel, middle, half, lean)
        elif fence:
            for at in (x + 0.1, x + 0.3):
                z = mo.smooth_height(waves, float(at), 0.0)[0] + RAIL_M / 2
                solids.add(Place(), geo.CONE, geo.PLAIN, (float(at), y_m, z),
                           (0.01, 0.01, RAIL_M / 2), colour)  # fmt: skip


def _panel(
    solids: SolidList,
    finish: Finish,
    middle_m: tuple[float, float, float],
    half_m: float,
    lean_rad: float,
) -> None:
    centre = (middle_m[0], middle_m[1], middle_m[2] - RAIL_M / 2)
    cover(solids, Place(), geo.BOX, finish, centre, (half_m, 0.01, RAIL_M / 2 - 0.05),
          pitch_rad=lean_rad)  # fmt: skip


def _things(
    solids: SolidList,
    rng: Generator,
    span_m: tuple[float, float],
    sides_m: np.ndarray,
    wide_m: float,
    floor_m: float,
) -> None:
    """Adds pictures on near walls, and pillars and boxes if the hall is wider than the stairs."""
    for side, gap in ((-1.0, float(sides_m[0])), (1.0, float(sides_m[1]))):
        for x in np.arange(span_m[0] + 1, span_m[1] - 1, float(rng.uniform(1.5, 4.0))):
            at = (float(x), side * (gap - 0.01))
            half = (float(rng.uniform(0.2, 0.7)), 0.012, float(rng.uniform(0.2, 0.6)))
            z = floor_m + float(rng.uniform(1.0, 4.0))
            cover(solids, Place(), geo.BOX, draw_finish(rng, 1.5), (*at, z), half)
            if gap - wide_m > 1.2 and rng.random() < 0.6:
                r = float(rng.uniform(0.1, 0.35))
                y, tall = (
                    side * float(rng.uniform(wide_m + r + 0.15, gap - r)),
                    rng.uniform(0.4, 4),
                )
                shape = geo.CONE if rng.random() < 0.5 else geo.BOX
                centre = (float(x), y, floor_m + float(tall) / 2)
                cover(solids, Place(), shape, draw_finish(rng, 2.0), centre,
                      (r, r, float(tall) / 2))  # fmt: skip


def _mount(rng: Generator) -> geo.Ego:
    """Returns a camera carried by a person or a climbing robot; it looks along the stairs."""
    step, phase = float(rng.uniform(1.2, 2.0)), float(rng.uniform(0, 6.28))
    shake = [
        (2, rng.uniform(0.01, 0.03), step, phase),
        (1, rng.uniform(0.01, 0.03), step / 2, phase),
        (4, rng.uniform(0.01, 0.05), step, phase + 1),
        (3, rng.uniform(0.01, 0.05), step / 2, phase + 2),
        (5, rng.uniform(0.1, 0.8), rng.uniform(0.05, 0.2), phase + 3),
        (4, rng.uniform(0.05, 0.3), rng.uniform(0.05, 0.2), phase + 4),
    ]
    return geo.Ego(offset_m=0.0, height_m=float(rng.uniform(0.4, 1.7)),
                   pitch_rad=float(rng.uniform(-0.2, 0.5)), bank=0.0,
                   follow=float(rng.uniform(0.0, 0.8)), shake=np.array(shake))  # fmt: skip
