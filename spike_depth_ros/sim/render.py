"""Renders a world: radiance, exact depth and image flow for any camera at any time.

A numba ray-caster on one core; see `visibility.py` for how a ray finds its surface, and
`shading.py` for what it sees there. Worker processes scale it over cores.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numba
import numpy as np

from spike_depth_ros.camera import Camera
from spike_depth_ros.sim import motion as mo
from spike_depth_ros.sim import shading
from spike_depth_ros.sim.geometry import WHITE_LUMINANCE, World
from spike_depth_ros.sim.textures import JIT, noise_levels
from spike_depth_ros.sim.visibility import (
    TILE_PX,
    place_solids,
    ray_table,
    tile_lists,
    trace_tile,
)


class Frame(NamedTuple):
    """One rendered image.

    Attributes:
        radiance: (H, W, 3) float32 linear RGB, unbounded (HDR), a sunlit white wall is about 1.
        depth_m: (H, W) float32 z-depth along the optical axis, +inf for the sky, NaN where
            the lens model has no ray.
    """

    radiance: np.ndarray
    depth_m: np.ndarray


class Gray(NamedTuple):
    """One rendered luminance image.

    Attributes:
        luminance: (H, W) float32, linear, in the unit of `Frame.radiance`.
        depth_m: (H, W) float32, as in `Frame`.
    """

    luminance: np.ndarray
    depth_m: np.ndarray


def render(world: World, camera: Camera, time_s: float, pose: np.ndarray | None = None) -> Frame:
    """Renders linear RGB and depth.

    Args:
        world: what to look at.
        camera: intrinsics with lens distortion.
        time_s: time within the world; moving things stand where they are then.
        pose: (4, 4) camera to world; the world's own drive by default.
    """
    radiance, depth_m = _image(world, camera, time_s, pose, 3)
    return Frame(radiance, depth_m)


def render_luminance(
    world: World, camera: Camera, time_s: float, pose: np.ndarray | None = None
) -> Gray:
    """Renders luminance and depth, without colour arithmetic; arguments as `render`."""
    luminance, depth_m = _image(world, camera, time_s, pose, 1)
    return Gray(luminance[..., 0], depth_m)


def image_flow(
    world: World, camera: Camera, time_s: float, stride: int = 4, step_s: float = 1e-3
) -> np.ndarray:
    """How fast the image moves, at every `stride`-th pixel: camera and things both.

    Args:
        world: what to look at.
        camera: intrinsics; the flow is that of the undistorted image of the same focal length.
        time_s: the time.
        stride: pixels per sample, along both axes.
        step_s: the two poses that are compared lie this far apart.

    Returns:
        (ceil(H / stride), ceil(W / stride), 2) float32 flow along x and y [px/s].
    """
    rays = ray_table(camera, stride)
    before, after = world.pose(time_s), world.pose(time_s + step_s)
    depth, solid = _traced(world, rays, time_s, before)
    actor = np.where(solid >= 0, world.solids.actor[solid], -1)
    xy1 = np.concatenate([rays.xy, np.ones((*rays.xy.shape[:2], 1))], axis=2)
    far = ~np.isfinite(depth)
    points = xy1 * np.where(far, 1.0, depth)[..., None] @ before[:3, :3].T
    points += np.where(far[..., None], after[:3, 3], before[:3, 3])
    if len(world.motion.mode):
        poses = [mo.actor_poses(world.motion, t) for t in (time_s, time_s + step_s)]
        points = np.where((actor >= 0)[..., None], _carried(points, actor, *poses), points)
    seen = (points - after[:3, 3]) @ after[:3, :3]
    moved = seen[..., :2] / np.maximum(seen[..., 2:], 1e-3) - rays.xy
    return (moved * (camera.fx / step_s, camera.fy / step_s)).astype(np.float32)


def flow_bound(world: World, camera: Camera, time_s: float, percentile: float = 98.0) -> float:
    """The image speed [px/s] that `percentile` per cent of the pixels stay below."""
    flow = image_flow(world, camera, time_s)
    return float(np.nanpercentile(np.hypot(flow[..., 0], flow[..., 1]), percentile))


def _carried(
    points: np.ndarray, actor: np.ndarray, before: np.ndarray, after: np.ndarray
) -> np.ndarray:
    """World points (H, W, 3) after the actors that they belong to have moved on."""
    a, b = before[actor], after[actor]
    dx, dy = points[..., 0] - a[..., 0], points[..., 1] - a[..., 1]
    cos = a[..., 3] * b[..., 3] + a[..., 4] * b[..., 4]
    sin = a[..., 3] * b[..., 4] - a[..., 4] * b[..., 3]
    rise = points[..., 2] + b[..., 2] - a[..., 2]
    return np.stack(
        [b[..., 0] + cos * dx - sin * dy, b[..., 1] + sin * dx + cos * dy, rise], axis=-1
    )


@functools.lru_cache(maxsize=8)
def _palettes(world: World, channels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours of the solids, the ground and the light, in 3 channels or as luminance."""
    to_channels = np.eye(3) if channels == 3 else WHITE_LUMINANCE[:, None]
    solids, floor, table = world.solids.colour, world.ground.colour, world.light.table
    return solids @ to_channels, floor @ to_channels, table @ to_channels


def _image(
    world: World,
    camera: Camera,
    time_s: float,
    pose: np.ndarray | None,
    channels: int,
) -> tuple[np.ndarray, np.ndarray]:
    rays = ray_table(camera)
    pose = world.pose(time_s) if pose is None else np.asarray(pose, np.float64)
    colours, floor, table = _palettes(world, channels)
    height, width = rays.xy.shape[:2]
    out = np.empty((height, width, channels), np.float32)
    depth = np.empty((height, width), np.float32)
    eye, turn = np.ascontiguousarray(pose[:3, 3]), np.ascontiguousarray(pose[:3, :3])
    scope = place_solids(world.solids, world.motion, time_s, eye, turn, rays, world.light.sun)
    env = (scope, world.solids, world.motion, world.ground, world.light, colours, floor, table,
           noise_levels(), eye, rays.pixel_rad)  # fmt: skip
    _shade_image(env, turn, time_s, rays, out, depth)
    return out, depth


def _traced(world, rays, time_s, pose):
    """Depth (H, W) and row in `Solids` (H, W), -1 for the sky, without any shading."""
    depth = np.empty(rays.xy.shape[:2], np.float32)
    solid = np.empty(rays.xy.shape[:2], np.int32)
    eye, turn = np.ascontiguousarray(pose[:3, 3]), np.ascontiguousarray(pose[:3, :3])
    scope = place_solids(world.solids, world.motion, time_s, eye, turn, rays, world.light.sun)
    _trace_image(scope, world.solids, rays, depth, solid)
    return depth, solid


@numba.njit(cache=True, nogil=True)
def _tile_rays(xy, top, left, x, y):
    """Copies the rays of the tile at (top, left) into `x` and `y`; returns rows and columns."""
    rows, columns = min(TILE_PX, xy.shape[0] - top), min(TILE_PX, xy.shape[1] - left)
    for r in range(rows):
        for c in range(columns):
            x[r * columns + c], y[r * columns + c] = xy[top + r, left + c]
    return rows, columns


@numba.njit(cache=True, nogil=True)
def _trace_image(scope, solids, rays, depth, solid):
    across, down = rays.columns.shape[0], rays.rows.shape[0]
    starts, members = tile_lists(scope.tiles, across, down)
    area = TILE_PX * TILE_PX
    x, y, near = np.empty(area, np.float32), np.empty(area, np.float32), np.empty(area, np.float32)
    who = np.empty(area, np.int32)
    for tile in range(across * down):
        top, left = tile // across * TILE_PX, tile % across * TILE_PX
        rows, columns = _tile_rays(rays.xy, top, left, x, y)
        n = rows * columns
        trace_tile(
            scope,
            solids,
            members[starts[tile] : starts[tile + 1]],
            x[:n],
            y[:n],
            near[:n],
            who[:n],
        )
        for k in range(n):
            row, column = top + k // columns, left + k % columns
            depth[row, column] = near[k]
            solid[row, column] = scope.solid[who[k]] if who[k] >= 0 else -1


@numba.njit(**JIT)
def _shade_image(env, turn, time_s, rays, out, depth):
    scope, solids, light, table, levels, eye = env[0], env[1], env[4], env[7], env[8], env[9]
    across, down = rays.columns.shape[0], rays.rows.shape[0]
    starts, members = tile_lists(scope.tiles, across, down)
    area = TILE_PX * TILE_PX
    x, y, near = np.empty(area, np.float32), np.empty(area, np.float32), np.empty(area, np.float32)
    who = np.empty(area, np.int32)
    sun = light.sun
    sun_seen = shading.map_value(light, 0, eye[0], eye[1])
    for tile in range(across * down):
        top, left = tile // across * TILE_PX, tile % across * TILE_PX
        rows, columns = _tile_rays(rays.xy, top, left, x, y)
        n = rows * columns
        trace_tile(
            scope,
            solids,
            members[starts[tile] : starts[tile + 1]],
            x[:n],
            y[:n],
            near[:n],
            who[:n],
        )
        for k in range(n):
            row, column = top + k // columns, left + k % columns
            rx, ry, t = float(x[k]), float(y[k]), float(near[k])
            pixel = out[row, column]
            if not (rx == rx and ry == ry):
                pixel[:] = 0.0
                depth[row, column] = np.nan
                continue
            norm = np.sqrt(1 + rx * rx + ry * ry)
            wx = (turn[0, 0] * rx + turn[0, 1] * ry + turn[0, 2]) / norm
            wy = (turn[1, 0] * rx + turn[1, 1] * ry + turn[1, 2]) / norm
            wz = (turn[2, 0] * rx + turn[2, 1] * ry + turn[2, 2]) / norm
            if who[k] < 0:
                shading.sky(light, table, levels, wx, wy, wz, rays.pixel_rad, time_s, pixel)
            else:
                shading.surface(env, who[k], rx, ry, t, wx, wy, wz, norm, pixel)
            cos_sun = wx * sun[0] + wy * sun[1] + wz * sun[2]
            streak = 0.0
            if light.rain > 0:
                streak = shading.rain_streak(light.rain, -ry, rx, time_s)
            shading.through_air(light, table, t * norm, cos_sun, sun_seen, streak, pixel)
            depth[row, column] = near[k]
