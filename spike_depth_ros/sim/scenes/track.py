"""Shared parts of scenes on winding paths over open country: terrain, appearance, places."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from spike_depth_ros.sim import geometry as geo
from spike_depth_ros.sim import motion, route
from spike_depth_ros.sim.build import Place

Generator = np.random.Generator

CELL_M = 2.0
"""Cell size of `Ground.nearest`."""


class Track(NamedTuple):
    """A path over terrain; see `motion.Motion` for the arrays."""

    path: np.ndarray
    waves: np.ndarray
    heights: np.ndarray
    terrain: np.ndarray
    keep: np.ndarray

    def place(self, s_m: float, d_m: float, turn_rad: float = 0.0) -> Place:
        """Returns the frame at an offset to the left of the path, rotated from its direction."""
        x, y, heading, _ = motion.along(self.path, route.STEP_M, s_m)
        x, y = x - d_m * math.sin(heading), y + d_m * math.cos(heading)
        z, gx, gy = motion.mesh_height(self.heights, self.terrain, x, y)
        return Place(x, y, z, heading + turn_rad, gx, gy)

    def clear(self, place: Place, away_m: float) -> bool:
        """Returns True if a place is at least this far from every point of the path."""
        gap = np.hypot(self.path[:, 0] - place.x_m, self.path[:, 1] - place.y_m).min()
        return bool(gap >= away_m)

    @property
    def length_m(self) -> float:
        """Returns the length of the path."""
        return (len(self.path) - 1) * route.STEP_M


def draw_track(
    rng: Generator,
    length_m: float,
    bends: float,
    hills: tuple[float, float],
    reach_m: float,
    cell_m: float,
) -> Track:
    """Draws a path with gentle bends over smooth hills.

    Args:
        rng: random generator.
        length_m: length of the path.
        bends: factor on the bends of `route.curvature_profile`.
        hills: maximum slope, and shortest wave [m].
        reach_m: extent of the terrain to the sides.
        cell_m: cell size of the terrain.
    """
    curvature = route.curvature_profile(rng, length_m, [], bends)
    path = motion.trace_path(curvature, route.STEP_M, 0.0)
    waves = route.terrain_waves(rng, *hills)
    return Track(path, waves, *route.terrain_mesh(waves, path[:, :2], reach_m, cell_m))


def way_ground(track: Track, marks: tuple[float, ...], colour: np.ndarray) -> geo.Ground:
    """Returns the ground with the path on it.

    Args:
        track: the path.
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
    """Returns `Ground.layout` of an unmarked path; its paint must have the colour of its soil."""
    return (half_m, 50.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
