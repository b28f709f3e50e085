"""Which solid each ray meets first, and where: exact depth, tile by tile.

Solids are brought into the camera once per frame, sorted by their nearest depth and listed for
the image tiles that they may touch. Within a tile, each solid meets all rays in one branchless
loop that the compiler turns into SIMD. Rays have z = 1, so the ray parameter is the z-depth.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numba
import numpy as np

from spike_depth_ros.camera import Camera
from spike_depth_ros.sim import motion as mo
from spike_depth_ros.sim.geometry import BALL, BOX, CONE

TILE_PX = 16
NEAR_M = 0.05
SMALLEST_PX = 0.35
"""Solids that appear smaller than this radius are left out."""

FAST = {'contract', 'reassoc', 'nsz', 'arcp'}
"""Fast arithmetic that still respects NaN and infinity."""


class RayTable(NamedTuple):
    """Viewing rays of one camera, with what tile culling needs.

    Attributes:
        xy: (H, W, 2) float32 ray x and y at z = 1; NaN where the lens model has no inverse.
        columns: (tile columns, 2) least and greatest ray x in each column of tiles.
        rows: (tile rows, 2) least and greatest ray y in each row of tiles.
        pixel_rad: angle between neighbouring pixels.
    """

    xy: np.ndarray
    columns: np.ndarray
    rows: np.ndarray
    pixel_rad: float


class Scope(NamedTuple):
    """V solids in view at one time, nearest first, in the terms of the camera.

    Attributes:
        solid: (V,) row in `Solids`.
        origin: (V, 3) the camera's centre in the solid's unit space.
        turn: (V, 3, 3) takes camera rays to unit space.
        near_m: (V,) least z-depth.
        tiles: (V, 4) first and past-last tile column, first and past-last tile row.
        half_m: (V, 3) half sizes of the solid.
        sun: (V, 3) the direction to the sun in the solid's metric frame.
        up: (V, 3) the world's up in the solid's metric frame.
        blobs: (K, 7) shadows of moving things, see `shadow_blobs`.
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
    """Rays of every `stride`-th pixel of a camera; kept, since a drive asks every frame."""
    xy = np.ascontiguousarray(camera.rays()[::stride, ::stride, :2])
    height, width = xy.shape[:2]
    spans = [
        (np.nanmin(part), np.nanmax(part))
        for axis, size in ((0, width), (1, height))
        for start in range(0, size, TILE_PX)
        for part in [np.take(xy[..., axis], range(start, min(start + TILE_PX, size)), 1 - axis)]
    ]
    columns = -(-width // TILE_PX)
    table = np.array(spans, np.float64)
    pixel = 2.0 / (camera.fx + camera.fy)
    return RayTable(xy, table[:columns], table[columns:], pixel)


@numba.njit(cache=True, nogil=True, error_model='numpy')
def place_solids(solids, motion, time_s, eye, turn, rays, window, sun):
    """Brings the solids that may be seen at a time into the camera.

    Args:
        solids: `geometry.Solids`.
        motion: `motion.Motion`.
        time_s: the time.
        eye: (3,) centre of the camera in the world [m].
        turn: (3, 3) rotation from the camera to the world.
        rays: `RayTable`.
        window: first and past-last column, first and past-last row of the tiles that matter.
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
    kept = 0
    for n in range(count):
        _in_world(solids, poses, n, centre, axes)
        size = np.sqrt((axes * axes).sum())
        _rotated(turn, centre, eye, c)
        if c[2] + size < NEAR_M or size < SMALLEST_PX * rays.pixel_rad * (c[2] - size):
            continue
        for k in range(3):
            for i in range(3):
                m[i, k] = (
                    turn[0, i] * axes[0, k] + turn[1, i] * axes[1, k] + turn[2, i] * axes[2, k]
                )
        reach = abs(m[2, 0]) + abs(m[2, 1]) + abs(m[2, 2])
        if c[2] + reach < NEAR_M:
            continue
        first, last = _span(rays.columns, window[0], window[1], c[0], c[2], m[0], m[2])
        if first >= last:
            continue
        top, bottom = _span(rays.rows, window[2], window[3], c[1], c[2], m[1], m[2])
        if top >= bottom:
            continue
        _inverted(m, maps[kept])
        for i in range(3):
            row = maps[kept, i]
            origin[kept, i] = -(row[0] * c[0] + row[1] * c[1] + row[2] * c[2])
            half = np.sqrt(m[0, i] ** 2 + m[1, i] ** 2 + m[2, i] ** 2)
            along_sun = axes[0, i] * sun[0] + axes[1, i] * sun[1] + axes[2, i] * sun[2]
            metric[0, kept, i] = half
            metric[1, kept, i] = along_sun / half
            metric[2, kept, i] = axes[2, i] / half
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
        shadow_blobs(motion, poses, eye, sun),
        turn[2, 2] / max(-turn[2, 1], 1e-3),
    )


@numba.njit(cache=True, nogil=True)
def _in_world(solids, poses, n, centre, axes):
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


@numba.njit(cache=True, nogil=True)
def _rotated(turn, point, eye, c):
    """Sets `c` (3,) to a world point seen from the camera."""
    x, y, z = point[0] - eye[0], point[1] - eye[1], point[2] - eye[2]
    for i in range(3):
        c[i] = turn[0, i] * x + turn[1, i] * y + turn[2, i] * z


@numba.njit(cache=True, nogil=True, error_model='numpy')
def _inverted(m, out):
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


@numba.njit(cache=True, nogil=True)
def shadow_blobs(motion, poses, eye, sun):
    """Soft shadows of the moving things near the camera.

    Returns:
        (K, 7) centre x, y, heading cosine, sine, half length, half width [m], reach squared.
    """
    blobs = np.empty((poses.shape[0], 7))
    count = 0
    for a in range(poses.shape[0]):
        half_length, half_width = motion.course[a, 6], motion.course[a, 7]
        dx, dy = poses[a, 0] - eye[0], poses[a, 1] - eye[1]
        if half_length <= 0 or dx * dx + dy * dy > 70.0**2 or poses[a, 2] < -1e5:
            continue
        shift = min(half_width, 0.6) / max(sun[2], 0.35)
        blobs[count, 0] = poses[a, 0] - sun[0] * shift
        blobs[count, 1] = poses[a, 1] - sun[1] * shift
        blobs[count, 2:4] = poses[a, 3:5]
        blobs[count, 4], blobs[count, 5] = half_length * 1.1, half_width * 1.15
        blobs[count, 6] = 2.0 * (half_length + half_width) ** 2
        count += 1
    return blobs[:count]


@numba.njit(cache=True, nogil=True)
def _span(spans, first, last, c, cz, m, mz):
    """First and past-last tile whose wedge of rays the solid's box may touch along one axis."""
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


@numba.njit(cache=True, nogil=True)
def _tile_lists(tiles, across, down):
    """For every tile, the rows of the scope that may touch it, nearest first.

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


@numba.njit(cache=True, nogil=True)
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
        for k in range(n):
            x[k], y[k] = rays.xy[top + k // columns, left + k % columns]
        listed = members[starts[tile] : starts[tile + 1]]
        _trace_tile(scope, solids, listed, x[:n], y[:n], near[:n], who[:n])
        for k in range(n):
            depth[top + k // columns, left + k % columns] = near[k] if x[k] == x[k] else np.nan
            row[top + k // columns, left + k % columns] = who[k]


@numba.njit(cache=True, nogil=True, error_model='numpy')
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
            _box(origin, turn, taper, n, x, y, depth, winner)
        elif shape in (BALL, CONE):
            _round(shape == CONE, origin, turn, taper, n, x, y, depth, winner)
        else:
            _patch(origin, turn, taper, n, x, y, depth, winner)
        farthest = depth.max()


@numba.njit(cache=True, nogil=True, error_model='numpy', fastmath=FAST)
def _box(origin, turn, taper, n, x, y, depth, winner):
    """Cube |q| <= 1 whose half widths shrink linearly by `taper` from bottom to top."""
    f = np.float32
    ox, oy, oz = f(origin[0]), f(origin[1]), f(origin[2])
    m00, m01, m02 = f(turn[0, 0]), f(turn[0, 1]), f(turn[0, 2])
    m10, m11, m12 = f(turn[1, 0]), f(turn[1, 1]), f(turn[1, 2])
    m20, m21, m22 = f(turn[2, 0]), f(turn[2, 1]), f(turn[2, 2])
    kx, ky, one = f(taper[0] / 2), f(taper[1] / 2), f(1.0)
    # Each pair of walls is q . (1, k) <= 1 - k and q . (-1, k) <= 1 - k in the (x or y, z) plane.
    for i in range(x.shape[0]):
        dx = m00 * x[i] + m01 * y[i] + m02
        dy = m10 * x[i] + m11 * y[i] + m12
        dz = m20 * x[i] + m21 * y[i] + m22
        ax, bx = dx + kx * dz, kx * dz - dx
        ay, by = dy + ky * dz, ky * dz - dy
        t0 = (one - kx - ox - kx * oz) / ax
        t1 = (one - kx + ox - kx * oz) / bx
        t2 = (one - ky - oy - ky * oz) / ay
        t3 = (one - ky + oy - ky * oz) / by
        t4 = (one - oz) / dz
        t5 = (-one - oz) / dz
        low, high = f(-np.inf), f(np.inf)
        low = max(low, t0 if ax < 0 else f(-np.inf))
        high = min(high, t0 if ax > 0 else f(np.inf))
        low = max(low, t1 if bx < 0 else f(-np.inf))
        high = min(high, t1 if bx > 0 else f(np.inf))
        low = max(low, t2 if ay < 0 else f(-np.inf))
        high = min(high, t2 if ay > 0 else f(np.inf))
        low = max(low, t3 if by < 0 else f(-np.inf))
        high = min(high, t3 if by > 0 else f(np.inf))
        low = max(low, min(t4, t5))
        high = min(high, max(t4, t5))
        t = low if low > f(NEAR_M) else high
        hit = (low <= high) & (t > f(NEAR_M)) & (t < depth[i])
        depth[i] = t if hit else depth[i]
        winner[i] = n if hit else winner[i]


@numba.njit(cache=True, nogil=True, error_model='numpy', fastmath=FAST)
def _round(is_cone, origin, turn, taper, n, x, y, depth, winner):
    """Unit ball, or the cone x^2 + y^2 <= r(z)^2, |z| <= 1, r from 1 down to 1 - taper.

    The ray starts anew at its point nearest to the centre, or thin far poles lose all digits.
    """
    f = np.float32
    ox, oy, oz = f(origin[0]), f(origin[1]), f(origin[2])
    m00, m01, m02 = f(turn[0, 0]), f(turn[0, 1]), f(turn[0, 2])
    m10, m11, m12 = f(turn[1, 0]), f(turn[1, 1]), f(turn[1, 2])
    m20, m21, m22 = f(turn[2, 0]), f(turn[2, 1]), f(turn[2, 2])
    slope = f(-taper[0] / 2) if is_cone else f(0.0)
    radius = f(1 - taper[0] / 2)
    flat = f(0.0) if is_cone else f(1.0)
    zero, one = f(0.0), f(1.0)
    for i in range(x.shape[0]):
        dx = m00 * x[i] + m01 * y[i] + m02
        dy = m10 * x[i] + m11 * y[i] + m12
        dz = m20 * x[i] + m21 * y[i] + m22
        middle = -(ox * dx + oy * dy + oz * dz) / (dx * dx + dy * dy + dz * dz)
        px, py, pz = ox + middle * dx, oy + middle * dy, oz + middle * dz
        r0, r1 = radius + slope * pz, slope * dz
        a = dx * dx + dy * dy - r1 * r1 + flat * dz * dz
        b = px * dx + py * dy - r0 * r1 + flat * pz * dz
        c = px * px + py * py - r0 * r0 + flat * pz * pz
        disc = b * b - a * c
        root = np.sqrt(max(disc, zero))
        enter, leave = (-b - root) / a, (-b + root) / a
        t4, t5 = (one - pz) / dz, (-one - pz) / dz
        if is_cone:
            enter, leave = max(enter, min(t4, t5)), min(leave, max(t4, t5))
        enter, leave = enter + middle, leave + middle
        t = enter if enter > f(NEAR_M) else leave
        hit = (disc > zero) & (a > zero) & (enter <= leave) & (t > f(NEAR_M)) & (t < depth[i])
        depth[i] = t if hit else depth[i]
        winner[i] = n if hit else winner[i]


@numba.njit(cache=True, nogil=True, error_model='numpy', fastmath=FAST)
def _patch(origin, turn, taper, n, x, y, depth, winner):
    """Ground z = a x + b y + c x y over |x|, |y| <= 1: a quadratic, solved without loss."""
    f = np.float32
    ox, oy, oz = f(origin[0]), f(origin[1]), f(origin[2])
    m00, m01, m02 = f(turn[0, 0]), f(turn[0, 1]), f(turn[0, 2])
    m10, m11, m12 = f(turn[1, 0]), f(turn[1, 1]), f(turn[1, 2])
    m20, m21, m22 = f(turn[2, 0]), f(turn[2, 1]), f(turn[2, 2])
    a, b, c = f(taper[0]), f(taper[1]), f(taper[2])
    above = oz - a * ox - b * oy - c * ox * oy
    edge, zero = f(1.0 + 1e-4), f(0.0)
    for i in range(x.shape[0]):
        dx = m00 * x[i] + m01 * y[i] + m02
        dy = m10 * x[i] + m11 * y[i] + m12
        dz = m20 * x[i] + m21 * y[i] + m22
        quad = -c * dx * dy
        lin = dz - a * dx - b * dy - c * (ox * dy + oy * dx)
        disc = lin * lin - 4 * quad * above
        root = np.sqrt(max(disc, zero))
        q = f(-0.5) * (lin + (root if lin > zero else -root))
        t0, t1 = above / q, q / quad
        in0 = (abs(ox + t0 * dx) <= edge) & (abs(oy + t0 * dy) <= edge) & (t0 > f(NEAR_M))
        in1 = (abs(ox + t1 * dx) <= edge) & (abs(oy + t1 * dy) <= edge) & (t1 > f(NEAR_M))
        t0 = t0 if in0 else f(np.inf)
        t1 = t1 if in1 else f(np.inf)
        t = min(t0, t1)
        hit = (disc >= zero) & (t < depth[i])
        depth[i] = t if hit else depth[i]
        winner[i] = n if hit else winner[i]
