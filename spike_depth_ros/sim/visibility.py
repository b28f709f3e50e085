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
def place_solids(solids, motion, time_s, eye, turn, rays, sun):
    """Brings the solids that may be seen at a time into the camera.

    Args:
        solids: `geometry.Solids`.
        motion: `motion.Motion`.
        time_s: the time.
        eye: (3,) centre of the camera in the world [m].
        turn: (3, 3) rotation from the camera to the world.
        rays: `RayTable`.
        sun: (3,) unit vector to the sun.

    Returns:
        A `Scope`, sorted by nearest depth.
    """
    poses = mo.actor_poses(motion, time_s)
    count = solids.shape.shape[0]
    chosen = np.empty(count, np.int32)
    near_m = np.empty(count)
    tiles = np.empty((count, 4), np.int32)
    origin = np.empty((count, 3))
    maps = np.empty((count, 3, 3))
    metric = np.empty((3, count, 3))
    kept = 0
    for n in range(count):
        centre, axes = solids.centre_m[n], solids.axes_m[n]
        actor = solids.actor[n]
        if actor >= 0:
            centre, axes = _moved(poses[actor], centre, axes)
        offset = centre - eye
        c = turn.T @ offset
        m = turn.T @ axes
        size = np.sqrt((m * m).sum())
        reach = np.abs(m[2, 0]) + np.abs(m[2, 1]) + np.abs(m[2, 2])
        if c[2] + reach < NEAR_M or size < SMALLEST_PX * rays.pixel_rad * (c[2] - reach):
            continue
        first, last = _span(rays.columns, c[0], c[2], m[0], m[2])
        if first >= last:
            continue
        top, bottom = _span(rays.rows, c[1], c[2], m[1], m[2])
        if top >= bottom:
            continue
        inverse = np.linalg.inv(m)
        origin[kept] = -(inverse @ c)
        maps[kept] = inverse
        near_m[kept] = c[2] - reach
        tiles[kept] = (first, last, top, bottom)
        for k in range(3):
            half = np.sqrt(m[0, k] ** 2 + m[1, k] ** 2 + m[2, k] ** 2)
            metric[0, kept, k] = half
            along_sun = axes[0, k] * sun[0] + axes[1, k] * sun[1] + axes[2, k] * sun[2]
            metric[1, kept, k] = along_sun / half
            metric[2, kept, k] = axes[2, k] / half
        chosen[kept] = n
        kept += 1
    order = np.argsort(near_m[:kept])
    return Scope(
        chosen[:kept][order],
        origin[:kept][order],
        maps[:kept][order],
        near_m[:kept][order],
        tiles[:kept][order],
        metric[0, :kept][order],
        metric[1, :kept][order],
        metric[2, :kept][order],
        shadow_blobs(motion, poses, eye, sun),
        turn[2, 2] / max(-turn[2, 1], 1e-3),
    )


@numba.njit(cache=True, nogil=True)
def _moved(pose, centre, axes):
    """The centre and half axes of a solid that is fixed to an actor's frame."""
    frame = np.array(
        [
            [pose[3], -pose[4], 0.0],
            [pose[4], pose[3], 0.0],
            [pose[5] * pose[3] + pose[6] * pose[4], pose[6] * pose[3] - pose[5] * pose[4], 1.0],
        ]
    )
    return frame @ centre + pose[:3], frame @ axes


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
def _span(spans, c, cz, m, mz):
    """First and past-last tile whose wedge of rays the solid's box may touch along one axis."""
    first, last = 0, spans.shape[0]
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
def tile_lists(tiles, across, down):
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


@numba.njit(cache=True, nogil=True, error_model='numpy')
def trace_tile(scope, solids, members, x, y, depth, winner):
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
