"""Collects solids part by part, in the frame of the object that they belong to."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from spike_depth_ros.sim import geometry as geo
from spike_depth_ros.sim.geometry import Solids, quantised

RGB = tuple[float, float, float]
NONE3 = (0.0, 0.0, 0.0)


class Place(NamedTuple):
    """A frame for the parts of an object: x forward, y left, z up.

    Attributes:
        x_m: position of the origin.
        y_m: position of the origin.
        z_m: position of the origin.
        heading_rad: direction of its x axis.
        slope_x: terrain gradient along which the object is sheared.
        slope_y: as `slope_x`.
        actor: row of `Motion.course` that moves the frame, -1 for the world.
    """

    x_m: float = 0.0
    y_m: float = 0.0
    z_m: float = 0.0
    heading_rad: float = 0.0
    slope_x: float = 0.0
    slope_y: float = 0.0
    actor: int = -1


class SolidList:
    """A growing list of solids; `solids` converts it to arrays."""

    def __init__(self) -> None:
        self.rows: list[tuple] = []

    def add(
        self,
        place: Place,
        shape: int,
        material: int,
        centre_m: tuple[float, float, float],
        half_m: tuple[float, float, float],
        colour: RGB,
        second: RGB | None = None,
        glow: RGB = NONE3,
        detail: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0),
        taper: tuple[float, float, float] = NONE3,
        yaw_rad: float = 0.0,
        pitch_rad: float = 0.0,
        roll_rad: float = 0.0,
    ) -> None:
        """Adds one part, given in the frame of `place`; see `geometry.Solids`."""
        self.rows.append(
            (shape, material, place.actor, place.x_m, place.y_m, place.z_m,
             math.cos(place.heading_rad), math.sin(place.heading_rad), place.slope_x,
             place.slope_y, *centre_m, *half_m, yaw_rad, pitch_rad, roll_rad, *taper,
             *detail, *colour, *(colour if second is None else second), *glow)
        )  # fmt: skip

    def solids(self) -> Solids:
        """Returns all parts in the frames that they are fixed to: the world or an actor."""
        rows = np.array(self.rows, np.float64).reshape(-1, 35)
        count = len(rows)
        cy, sy = np.cos(rows[:, 16]), np.sin(rows[:, 16])
        cp, sp = np.cos(rows[:, 17]), np.sin(rows[:, 17])
        cr, sr = np.cos(rows[:, 18]), np.sin(rows[:, 18])
        zero = np.zeros(count)
        turn = np.stack(
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr,
             sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr,
             -sp, cp * sr, cp * cr], axis=1
        ).reshape(count, 3, 3)  # fmt: skip
        axes = turn * rows[:, None, 13:16]
        cos, sin, gx, gy = rows[:, 6], rows[:, 7], rows[:, 8], rows[:, 9]
        frame = np.stack(
            [cos, -sin, zero, sin, cos, zero,
             gx * cos + gy * sin, gy * cos - gx * sin, np.ones(count)], axis=1
        ).reshape(count, 3, 3)  # fmt: skip
        centre = np.einsum('nij,nj->ni', frame, rows[:, 10:13]) + rows[:, 3:6]
        integer = rows[:, :3].astype(np.int32)
        columns = Solids(
            shape=integer[:, 0],
            material=integer[:, 1],
            actor=integer[:, 2],
            centre_m=quantised(centre),
            axes_m=quantised(np.einsum('nij,njk->nik', frame, axes)),
            taper=quantised(rows[:, 19:22]),
            detail=rows[:, 22:26],
            colour=rows[:, 26:35].reshape(count, 3, 3),
        )
        # Same memory layout as from `World.only`; another one would compile all kernels again.
        return Solids(*map(np.ascontiguousarray, columns))


def terrain_patches(
    solids: SolidList, heights_m: np.ndarray, terrain: np.ndarray, keep: np.ndarray
) -> None:
    """Adds one bilinear patch of ground for every terrain cell that is kept.

    Args:
        solids: the list to add to.
        heights_m: (ny + 1, nx + 1) heights at the corners.
        terrain: corner x, corner y, cell size [m].
        keep: (ny, nx) bool, the cells to draw.
    """
    half = float(terrain[2]) / 2
    for j, i in zip(*np.nonzero(keep), strict=True):
        a, b = float(heights_m[j, i]), float(heights_m[j, i + 1])
        c, d = float(heights_m[j + 1, i]), float(heights_m[j + 1, i + 1])
        bends = ((b + d - a - c) / 4, (c + d - a - b) / 4, (a + d - b - c) / 4)
        tall = max(sum(map(abs, bends)), 0.02)
        solids.add(
            Place(),
            geo.PATCH,
            geo.GROUND,
            (
                terrain[0] + (2 * i + 1) * half,
                terrain[1] + (2 * j + 1) * half,
                (a + b + c + d) / 4,
            ),
            (half, half, tall),
            (0.2, 0.2, 0.2),
            taper=(bends[0] / tall, bends[1] / tall, bends[2] / tall),
        )
