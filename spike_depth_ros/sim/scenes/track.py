"""What scenes on a winding way over open country share: terrain, the way's look, places on it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from spike_depth_ros.sim import geometry as geo
from spike_depth_ros.sim import motion, route
from spike_depth_ros.sim.build import Place

Generator = np.random.Generator

CELL_M = 2.0
"""Cells of `Ground.nearest`."""


class Track(NamedTuple):
    """A way over terrain; see `motion.Motion` for the arrays."""

    path: np.ndarray
    waves: np.ndarray
    heights: np.ndarray
    terrain: np.ndarray
    keep: np.ndarray

    def place(self, s_m: float, d_m: float, turn_rad: float = 0.0) -> Place:
        """The frame at an offset to the left of the way, turned against its direction."""
        x, y, heading, _ = motion.along(self.path, route.STEP_M, s_m)
        x, y = x - d_m * math.sin(heading), y + d_m * math.cos(heading)
        z, gx, gy = motion.mesh_height(self.heights, self.terrain, x, y)
        return Place(x, y, z, heading + turn_rad, gx, gy)

    def clear(self, place: Place, away_m: float) -> bool:
        """True if a place is at least so far from every point of the way."""
        gap = np.hypot(self.path[:, 0] - place.x_m, self.path[:, 1] - place.y_m).min()
        return bool(gap >= away_m)

    @property
    def length_m(self) -> float:
        """How long the way is."""
        return (len(self.path) - 1) * route.STEP_M


def draw_track(
    rng: Generator,
    length_m: float,
    bends: float,
    hills: tuple[float, float],
    reach_m: float,
    cell_m: float,
) -> Track:
    """A way with gentle bends over smooth hills.

    Args:
        rng: the source.
        length_m: how long.
        bends: factor on the bends of `route.curvature_profile`.
        hills: greatest slope, and shortest wave [m].
        reach_m: how far the terrain reaches to the sides.
        cell_m: cells of the terrain.
    """
    curvature = route.curvature_profile(rng, length_m, [], bends)
    path = motion.trace_path(curvature, route.STEP_M, 0.0)
    waves = route.terrain_waves(rng, *hills)
    return Track(path, waves, *route.terrain_mesh(waves, path[:, :2], reach_m, cell_m))


def way_ground(track: Track, marks: tuple[float, ...], colour: np.ndarray) -> geo.Ground:
    """The ground with the way on it.

    Args:
        track: where the way is.
        marks: `Ground.layout`.
        colour: `Ground.colour`.
    """
    half = marks[0]
    margin = half + 12.0
    low = np.floor(track.path[:, :2].min(axis=0) - margin)
    span = track.path[:, :2].max(axis=0) + margin - low
    grid = np.array([low[0], low[1], CELL_M])
    nx, ny = np.ceil(span / CELL_M).astype(int)
    side = np.zeros((0, 8))
    nearest = route.nearest_roads(track.path, side, grid, ny, nx, half + 8.0)
    return geo.Ground(1, grid, nearest, side, np.array(marks), colour)


def soil_path(half_m: float) -> tuple[float, ...]:
    """`Ground.layout` of a path without any marks; its paint must have the colour of its soil."""
    return (half_m, 50.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
