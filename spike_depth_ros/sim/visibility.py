"""Finds the first solid that each ray hits: exact depth, tile by tile.

Solids are transformed into the camera once per frame, sorted by their nearest depth and listed for
the image tiles that they may touch. Within a tile, each solid is intersected with all rays in one
branchless loop that the compiler vectorises. Rays have z = 1, so the ray parameter is the z-depth.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.compiled import compiled
from spike_depth_ros.sim import motion as mo
from spike_depth_ros.sim.geometry import BALL, BOX, CONE
from spike_depth_ros.sim.intersect import (
    NEAR_M,
    greatest,
    meet_box,
    meet_patch,
    meet_round,
)

TILE_PX = 16
SHADOWS_M = 50.0
"""Distance beyond which moving objects cast no shadow."""

SMALLEST_PX = 0.6
"""Apparent radius below which solids are omitted."""


class RayTable(NamedTuple):
    """Viewing rays of one camera and the bounds for tile culling.

    Attributes:
        xy: (H, W, 2) float32 ray x and y at z = 1; NaN where the lens model has no inverse.
        columns: (tile columns, 2) minimum and maximum ray x in each column of tiles.
        rows: (tile rows, 2) minimum and maximum ray y in each row of tiles.
        pixel_rad: angle between neighbouring pixels.
    """

    xy: np.ndarray
    columns: np.ndarray
    rows: np.ndarray
    pixel_rad: float


class Scope(NamedTuple):
    """V solids in view at one time, nearest first, in camera coordinates.

    Attributes:
        solid: (V,) row in `Solids`.
        origin: (V, 3) camera centre in the solid's unit space.
        turn: (V, 3, 3) transform of camera rays to unit space.
        near_m: (V,) minimum z-depth.
        tiles: (V, 4) first and past-last tile column, first and past-last tile row.
        half_m: (V, 3) half sizes of the solid.
        sun: (V, 3) direction to the sun in the solid's metric frame.
        up: (V, 3) world up direction in the solid's metric frame.
        blobs: (K, 7) shadows of moving objects, see `shadow_blobs`.
        level: ray y of the horizon straight ahead.
    """

    solid: np.ndarray
    origin: np.ndarray
    turn: np.ndarray
    near_m: np.ndarray
    tiles: np.ndarray
    half_m: np.ndarray
    sun: np.ndarray
    up: np.ndarray
    blobs: np.ndarray
    level: float


@functools.lru_cache(maxsize=16)
def ray_table(camera: Camera, stride: int = 1) -> RayTable:
    """Returns the rays of every `stride`-th pixel of a camera, cached for the whole drive."""
    xy = np.ascontiguousarray(camera.rays()[::stride, ::stride, :2])
    height, width = xy.shape[:2]
    parts = [
        np.take(xy[..., axis], range(start, min(start + TILE_PX, size)), 1 - axis)
        for axis, size in ((0, width), (1, height))
        for start in range(0, size, TILE_PX)
    ]
    # NaN where no pixel has a ray: such a tile sees nothing and can be skipped.
    spans = [
        (np.nanmin(part), np.nanmax(part)) if np.isfinite(part).any() else (np.nan, np.nan)
        for part in parts
    ]
    columns = -(-width // TILE_PX)
    table = np.array(spans, np.float64)
    pixel = 2.0 / (camera.fx + camera.fy)
    return RayTable(xy, table[:columns], table[columns:], pixel)


@compiled(error_model='numpy')
def place_solids(solids, motion, time_s, eye, turn, rays, window, sun):
    """Transforms the solids that may be visible at a time into the camera.

    Args:
        solids: `geometry.Solids`.
        motion: `motion.Motion`.
        time_s: time within the world.
        eye: (3,) centre of the camera in the world [m].
        turn: (3, 3) rotation from the camera to the world.
        rays: `RayTable`.
        window: first and past-last column, first and past-last row of the tiles of interest.
        sun: (3,) unit vector to the sun.

    Returns:
        A `Scope`, sorted by nearest depth.
    """
    poses = mo.actor_poses(motion, time_s)
    count = solids.shape.shape[0]
    chosen, tiles = np.empty(count, np.int32), np.empty((count, 4), np.int32)
    near_m, origin, maps = np.empty(count), np.empty((count, 3)), np.empty((count, 3, 3))
    metric = np.empty((3, count, 3))
    centre, axes, c, m = np.empty(3), np.empty((3, 3)), np.empty(3), np.empty((3, 3))
    x, y = rays.columns, rays.rows
    edges = (x[window[0], 0], x[window[1] - 1, 1], y[window[2], 0], y[window[3] - 1, 1])
    kept = 0
    for n in range(count):
        in_world(solids, poses, n, centre, axes)
        size = np.sqrt((axes * axes).sum())
        _rotated(turn, centre, eye, c)
        tiny = size < SMALLEST_PX * rays.pixel_rad * (c[2] - size)
        if tiny or c[2] + size < NEAR_M or _beside(edges, c, size):
            continue
        _turned(turn, axes, m)
        reach = abs(m[2, 0]) + abs(m[2, 1]) + abs(m[2, 2])
        first, last = _span(x, window[0], window[1], c[0], c[2], m[0], m[2])
        if first >= last or c[2] + reach < NEAR_M:
            continue
        top, bottom = _span(y, window[2], window[3], c[1], c[2], m[1], m[2])
        if top >= bottom:
            continue
        inverted(m, maps[kept])
        _measured(c, axes, sun, maps[kept], origin[kept], metric[:, kept])
        near_m[kept] = c[2] - reach
        tiles[kept, 0], tiles[kept, 1], tiles[kept, 2], tiles[kept, 3] = first, last, top, bottom
        chosen[kept] = n
        kept += 1
    order = np.argsort(near_m[:kept])
    return Scope(
        chosen[order],
        origin[order],
        maps[order],
        near_m[order],
        tiles[order],
        metric[0][order],
        metric[1][order],
        metric[2][order],
        shadow_blobs(motion, poses, eye, turn, sun),
        turn[2, 2] / max(-turn[2, 1], 1e-3),
    )


@compiled()
def _beside(edges, c, size):
    """Returns True if a ball of radius `size` at `c` lies outside the wedges of the window."""
    for axis in range(2):
        low, high = edges[2 * axis], edges[2 * axis + 1]
        if low * c[2] - c[axis] > size * np.sqrt(1 + low * low):
            return True
        if c[axis] - high * c[2] > size * np.sqrt(1 + high * high):
            return True
    return False


@compiled()
def in_world(solids, poses, n, centre, axes):
    """Sets `centre` (3,) and `axes` (3, 3) to those of a solid at the time of `poses`."""
    actor = solids.actor[n]
    if actor < 0:
        for i in range(3):
            centre[i] = solids.centre_m[n, i]
            for k in range(3):
                axes[i, k] = solids.axes_m[n, i, k]
        return
    cos, sin, gx, gy = poses[actor, 3], poses[actor, 4], poses[actor, 5], poses[actor, 6]
    lift, lean = gx * cos + gy * sin, gy * cos - gx * sin
    x, y, z = solids.centre_m[n, 0], solids.centre_m[n, 1], solids.centre_m[n, 2]
    centre[0] = poses[actor, 0] + cos * x - sin * y
    centre[1] = poses[actor, 1] + sin * x + cos * y
    centre[2] = poses[actor, 2] + lift * x + lean * y + z
    for k in range(3):
        x, y, z = solids.axes_m[n, 0, k], solids.axes_m[n, 1, k], solids.axes_m[n, 2, k]
        axes[0, k] = cos * x - sin * y
        axes[1, k] = sin * x + cos * y
        axes[2, k] = lift * x + lean * y + z


@compiled()
def _rotated(turn, point, eye, c):
    """Sets `c` (3,) to a world point in camera coordinates."""
    x, y, z = point[0] - eye[0], point[1] - eye[1], point[2] - eye[2]
    for i in range(3):
        c[i] = turn[0, i] * x + turn[1, i] * y + turn[2, i] * z


@compiled()
def _turned(turn, axes, m):
    """Sets `m` (3, 3) to half axes in camera coordinates."""
    for k in range(3):
        for i in range(3):
            m[i, k] = turn[0, i] * axes[0, k] + turn[1, i] * axes[1, k] + turn[2, i] * axes[2, k]


@compiled(error_model='numpy')
def _measured(c, axes, sun, inverse, origin, metric):
    """Sets the camera in unit space, and (3, 3): half sizes, sun and up in the metric frame."""
    for i in range(3):
        origin[i] = -(inverse[i, 0] * c[0] + inverse[i, 1] * c[1] + inverse[i, 2] * c[2])
        half = np.sqrt(axes[0, i] ** 2 + axes[1, i] ** 2 + axes[2, i] ** 2)
        along_sun = axes[0, i] * sun[0] + axes[1, i] * sun[1] + axes[2, i] * sun[2]
        metric[0, i], metric[1, i], metric[2, i] = half, along_sun / half, axes[2, i] / half


@compiled(error_model='numpy')
def inverted(m, out):
    """Sets `out` to the inverse of a (3, 3) matrix, by cofactors."""
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        for a in range(3):
            b, c = (a + 1) % 3, (a + 2) % 3
            out[a, i] = m[j, b] * m[k, c] - m[j, c] * m[k, b]
    volume = m[0, 0] * out[0, 0] + m[0, 1] * out[1, 0] + m[0, 2] * out[2, 0]
    for a in range(3):
        for i in range(3):
            out[a, i] /= volume


@compiled()
def shadow_blobs(motion, poses, eye, turn, sun):
    """Returns soft shadows of the moving objects near the camera.

    Returns:
        (K, 7) centre x, y, heading cosine, sine, half length, half width [m], reach squared.
    """
    blobs = np.empty((poses.shape[0], 7))
    count = 0
    for a in range(poses.shape[0]):
        half_length, half_width = motion.course[a, 6], motion.course[a, 7]
        dx, dy = poses[a, 0] - eye[0], poses[a, 1] - eye[1]
        ahead = dx * turn[0, 2] + dy * turn[1, 2]
        if half_length <= 0 or dx * dx + dy * dy > SHADOWS_M**2 or ahead < -2 * half_length:
            continue
        shift = min(half_width, 0.6) / max(sun[2], 0.35)
        blobs[count, 0] = poses[a, 0] - sun[0] * shift
        blobs[count, 1] = poses[a, 1] - sun[1] * shift
        blobs[count, 2:4] = poses[a, 3:5]
        blobs[count, 4], blobs[count, 5] = half_length * 1.1, half_width * 1.15
        blobs[count, 6] = 2.0 * (half_length + half_width) ** 2
        count += 1
    return blobs[:count]


@compiled()
def _span(spans, first, last, c, cz, m, mz):
    """Returns the first and past-last tile along one axis that the solid's box may touch."""
    while first < last:
        edge = spans[first, 1]
        slack = abs(m[0] - edge * mz[0]) + abs(m[1] - edge * mz[1]) + abs(m[2] - edge * mz[2])
        if c - edge * cz - slack <= 0:
            break
        first += 1
    while last > first:
        edge = spans[last - 1, 0]
        slack = abs(m[0] - edge * mz[0]) + abs(m[1] - edge * mz[1]) + abs(m[2] - edge * mz[2])
        if c - edge * cz + slack >= 0:
            break
        last -= 1
    return first, last


@compiled()
def _tile_lists(tiles, across, down):
    """Returns for every tile the scope rows that may touch it, nearest first.

    Returns:
        (across * down + 1,) starts, and the concatenated lists.
    """
    starts = np.zeros(across * down + 1, np.int64)
    for n in range(tiles.shape[0]):
        for j in range(tiles[n, 2], tiles[n, 3]):
            for i in range(tiles[n, 0], tiles[n, 1]):
                starts[j * across + i + 1] += 1
    starts = np.cumsum(starts)
    fill = starts.copy()
    members = np.empty(starts[-1], np.int32)
    for n in range(tiles.shape[0]):
        for j in range(tiles[n, 2], tiles[n, 3]):
            for i in range(tiles[n, 0], tiles[n, 1]):
                members[fill[j * across + i]] = n
                fill[j * across + i] += 1
    return starts, members


@compiled()
def trace(scope, solids, rays, tiles, depth, row):
    """Finds the first hit of every ray of some tiles.

    Args:
        scope: `Scope`.
        solids: `geometry.Solids`.
        rays: `RayTable`.
        tiles: (K,) row-major numbers of the tiles.
        depth: (H, W) float32, set to the z-depth, +inf for none, NaN where there is no ray.
        row: (H, W) int32, set to the row of the scope, -1 for none.
    """
    across, down = rays.columns.shape[0], rays.rows.shape[0]
    starts, members = _tile_lists(scope.tiles, across, down)
    area = TILE_PX * TILE_PX
    x, y, near = np.empty(area, np.float32), np.empty(area, np.float32), np.empty(area, np.float32)
    who = np.empty(area, np.int32)
    for tile in tiles:
        top, left = tile // across * TILE_PX, tile % across * TILE_PX
        rows, columns = min(TILE_PX, depth.shape[0] - top), min(TILE_PX, depth.shape[1] - left)
        n = rows * columns
        for r in range(rows):
            for c in range(columns):
                k = r * columns + c
                x[k], y[k] = rays.xy[top + r, left + c, 0], rays.xy[top + r, left + c, 1]
        listed = members[starts[tile] : starts[tile + 1]]
        _trace_tile(scope, solids, listed, x[:n], y[:n], near[:n], who[:n])
        for r in range(rows):
            for c in range(columns):
                k = r * columns + c
                depth[top + r, left + c] = near[k] if x[k] == x[k] else np.nan
                row[top + r, left + c] = who[k]


@compiled(error_model='numpy', forceinline=True)
def _trace_tile(scope, solids, members, x, y, depth, winner):
    """Finds the first hit of each ray of one tile.

    Args:
        scope: `Scope`.
        solids: `geometry.Solids`.
        members: rows of the scope to try, nearest first.
        x: (R,) float32 ray x.
        y: (R,) float32 ray y.
        depth: (R,) float32, set to the z-depth, +inf for none.
        winner: (R,) int32, set to the row of the scope, -1 for none.
    """
    depth[:] = np.inf
    winner[:] = -1
    farthest = np.float32(np.inf)
    for n in members:
        if scope.near_m[n] > farthest:
            break
        solid = scope.solid[n]
        shape = solids.shape[solid]
        origin, turn, taper = scope.origin[n], scope.turn[n], solids.taper[solid]
        if shape == BOX:
            meet_box(origin, turn, taper, n, x, y, depth, winner)
        elif shape in (BALL, CONE):
            meet_round(shape == CONE, origin, turn, taper, n, x, y, depth, winner)
        else:
            meet_patch(origin, turn, taper, n, x, y, depth, winner)
        farthest = greatest(depth)
