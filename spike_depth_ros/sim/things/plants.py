"""Trees and bushes; z = 0 is their foot."""

from __future__ import annotations

import math

import numpy as np

from spike_depth_ros.sim.build import Place, SolidList
from spike_depth_ros.sim.geometry import BALL, BARK, CONE, FOLIAGE

Generator = np.random.Generator


def _fir(solids: SolidList, place: Place, tall_m: float, colours: tuple, detail: tuple) -> None:
    dark, leaf, wood = colours
    solids.add(place, CONE, BARK, (0, 0, 0.6), (0.16, 0.16, 0.7), wood, detail=(0.3, 0.1, 0.3, 0))
    for k in range(4):
        z, r = tall_m * (0.22 + 0.2 * k), tall_m * (0.24 - 0.045 * k)
        solids.add(place, CONE, FOLIAGE, (0, 0, z), (r, r, tall_m * 0.17), dark, leaf,
                   detail=detail, taper=(0.93, 0, 0))  # fmt: skip


def tree(solids: SolidList, place: Place, rng: Generator, tall_m: float) -> None:
    """Adds a broad-leaved tree or sometimes a fir."""
    hue = rng.uniform(0.6, 1.4)
    leaf = (0.075 * hue, 0.13, 0.03)
    dark = (0.035 * hue, 0.06, 0.018)
    wood = (0.11, 0.085, 0.06)
    seed = float(rng.integers(1000))
    detail = (float(rng.uniform(0.12, 0.35)), float(rng.uniform(0.45, 0.9)), 0, seed)
    if rng.random() < 0.2:
        _fir(solids, place, tall_m, (dark, leaf, wood), detail)
        return
    trunk = 0.42 * tall_m
    girth = 0.028 * tall_m + 0.04
    solids.add(place, CONE, BARK, (0, 0, trunk / 2 - 0.1), (girth, girth, trunk / 2 + 0.1), wood,
               (0.04, 0.03, 0.02), detail=(0.25, 0.12, 0.4, seed), taper=(0.4, 0, 0))  # fmt: skip
    crown = float(rng.uniform(0.19, 0.25)) * tall_m
    high = float(rng.uniform(0.9, 1.5))
    core = 0.72 * crown
    middle = (0.0, 0.0, 0.68 * tall_m)
    solids.add(place, BALL, FOLIAGE, middle, (core, core, core * high), dark, leaf, detail=detail)
    for k in range(int(rng.integers(10, 16))):
        angle, up = 2.4 * k + float(rng.uniform(-0.5, 0.5)), float(rng.uniform(-0.8, 1.0))
        out = crown * math.sqrt(1 - 0.8 * up * up) * float(rng.uniform(0.55, 0.9))
        r = crown * float(rng.uniform(0.25, 0.5))
        centre = (out * math.cos(angle), out * math.sin(angle), middle[2] + up * crown * high)
        solids.add(place, BALL, FOLIAGE, centre, (r, r * 0.9, r * 0.75), leaf, dark, detail=detail,
                   yaw_rad=angle, pitch_rad=0.5 * up)  # fmt: skip


def bush(solids: SolidList, place: Place, rng: Generator) -> None:
    """Adds a bush or a piece of hedge."""
    leaf = (0.06 * rng.uniform(0.7, 1.5), 0.11, 0.03)
    detail = (0.12, 0.5, 0, float(rng.integers(1000)))
    r = float(rng.uniform(0.4, 1.1))
    for k in range(2):
        solids.add(place, BALL, FOLIAGE, (k * r * 0.8, 0.3 * k * r, 0.55 * r),
                   (r, r * 0.8, r * 0.8), leaf, (0.03, 0.05, 0.015), detail=detail)  # fmt: skip
