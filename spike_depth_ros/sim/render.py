"""Renders a world: radiance, exact depth and image flow for any camera at any time.

A numba ray caster on one core: `visibility.py` finds the surface of each ray, `shading.py` its
colour. Worker processes use further cores.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from spike_depth_ros.events.camera import Camera
from spike_depth_ros.sim import motion as mo
from spike_depth_ros.sim import shading
from spike_depth_ros.sim.geometry import WHITE_LUMINANCE, World
from spike_depth_ros.sim.shading import Env
from spike_depth_ros.sim.textures import noise_levels
from spike_depth_ros.sim.visibility import (
    TILE_PX,
    RayTable,
    Scope,
    place_solids,
    ray_table,
    trace,
)


class Frame(NamedTuple):
    """One rendered image.

    Attributes:
        radiance: (H, W, 3) float32 linear RGB, unbounded (HDR); a sunlit white wall is about 1.
        depth_m: (H, W) float32 z-depth along the optical axis, +inf for the sky, NaN where the
            lens model has no ray.
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
        world: the world.
        camera: intrinsics with lens distortion.
        time_s: time within the world, which determines the poses of moving objects.
        pose: (4, 4) camera to world; that of the world's own drive by default.
    """
    radiance, depth_m = _image(world, camera, time_s, pose, 3)
    return Frame(radiance, depth_m)


def render_luminance(
    world: World,
    camera: Camera,
    time_s: float,
    pose: np.ndarray | None = None,
    tiles: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> Gray:
    """Renders luminance and depth, without colour arithmetic.

    Args:
        world: the world.
        camera: intrinsics with lens distortion.
        time_s: time within the world.
        pose: (4, 4) camera to world; that of the world's own drive by default.
        tiles: (K,) int32, row-major numbers of the `TILE_PX` x `TILE_PX` tiles to render; all by
            default. Depth is NaN elsewhere.
        out: (H, W) float32 that receives the luminance of those tiles; the rest is unchanged.
    """
    luminance, depth_m = _image(world, camera, time_s, pose, 1, tiles, out)
    return Gray(luminance[..., 0], depth_m)


def lamp_share(world: World, camera: Camera, time_s: float) -> np.ndarray:
    """Returns the share of each pixel's light that comes from lamps and so may flicker.

    Returns:
        (H, W) float32 from 0 to 1.
    """
    if world.light.artificial == 1.0:
        return np.ones((camera.height, camera.width), np.float32)
    total = render_luminance(world, camera, time_s).luminance
    steady = render_luminance(_without_lamps(world), camera, time_s).luminance
    return 1 - np.minimum(steady / np.maximum(total, 1e-9), 1)


@functools.lru_cache(maxsize=4)
def _without_lamps(world: World) -> World:
    """Returns the world lit only by light that does not flicker; headlights do not flicker."""
    table = world.light.table.copy()
    table[: shading.LAMPS] *= 1 - world.light.artificial
    table[shading.LAMPS] = 0.0
    colour = world.solids.colour.copy()
    colour[:, 2] = 0.0
    return dataclasses.replace(
        world,
        light=world.light._replace(table=table),
        solids=world.solids._replace(colour=colour),
    )


def image_flow(
    world: World, camera: Camera, time_s: float, stride: int = 4, step_s: float = 1e-3
) -> np.ndarray:
    """Computes the image motion at every `stride`-th pixel, due to the camera and moving objects.

    Args:
        world: the world.
        camera: intrinsics. The flow is that of the undistorted image of the same focal length; for
            a fisheye, which shrinks the border of its image, that of the image itself.
        time_s: time within the world.
        stride: pixels per sample, along both axes.
        step_s: time between the two poses that are compared.

    Returns:
        (ceil(H / stride), ceil(W / stride), 2) float32 flow along x and y [px/s].
    """
    rays = ray_table(camera, stride)
    before, after = world.pose(time_s), world.pose(time_s + step_s)
    everywhere = np.arange(len(rays.columns) * len(rays.rows), dtype=np.int32)
    depth, row, scope, _ = _traced(world, rays, time_s, before, everywhere)
    actor = np.where(row >= 0, np.append(world.solids.actor[scope.solid], -1)[row], -1)
    xy1 = np.concatenate([rays.xy, np.ones((*rays.xy.shape[:2], 1))], axis=2)
    far = ~np.isfinite(depth)
    points = xy1 * np.where(far, 1.0, depth)[..., None] @ before[:3, :3].T
    points += np.where(far[..., None], after[:3, 3], before[:3, 3])
    if len(world.motion.mode):
        poses = [mo.actor_poses(world.motion, t) for t in (time_s, time_s + step_s)]
        points = np.where((actor >= 0)[..., None], _carried(points, actor, *poses), points)
    seen = (points - after[:3, 3]) @ after[:3, :3]
    moved = seen[..., :2] / np.maximum(seen[..., 2:], 1e-3) - rays.xy
    flow = moved * (camera.fx / step_s, camera.fy / step_s)
    if camera.distortion_model == 'equidistant' and camera.is_distorted:
        # The derivative of tan(angle) is 1 / cos^2(angle), that of the fisheye image is 1.
        flow /= 1.0 + (rays.xy**2).sum(-1, keepdims=True)
    return flow.astype(np.float32)


def in_sight(world: World, camera: Camera, time_s: float) -> np.ndarray:
    """Returns an (N,) bool mask of the solids visible in some pixel at a time.

    The others may be omitted (`World.only`) within a few milliseconds of that time.
    """
    rays = ray_table(camera)
    everywhere = np.arange(len(rays.columns) * len(rays.rows), dtype=np.int32)
    _, row, scope, _ = _traced(world, rays, time_s, world.pose(time_s), everywhere)
    hit = np.bincount(row.ravel() + 1, minlength=len(scope.solid) + 1)[1:] > 0
    seen = np.zeros(len(world.solids.shape), bool)
    seen[scope.solid[hit]] = True
    return seen


def _carried(
    points: np.ndarray, actor: np.ndarray, before: np.ndarray, after: np.ndarray
) -> np.ndarray:
    """Moves world points (H, W, 3) along with the actors that they belong to."""
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
    """Returns the colours of the solids, ground and light, in 3 channels or as luminance."""
    to_channels = np.eye(3) if channels == 3 else WHITE_LUMINANCE[:, None]
    solids, floor, table = world.solids.colour, world.ground.colour, world.light.table
    return solids @ to_channels, floor @ to_channels, table @ to_channels


def _image(
    world: World,
    camera: Camera,
    time_s: float,
    pose: np.ndarray | None,
    channels: int,
    tiles: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    rays = ray_table(camera)
    pose = world.pose(time_s) if pose is None else np.asarray(pose, np.float64)
    height, width = rays.xy.shape[:2]
    if tiles is None:
        tiles = np.arange(len(rays.columns) * len(rays.rows), dtype=np.int32)
    out = np.zeros((height, width, channels), np.float32) if out is None else out[..., None]
    depth, row, scope, turn = _traced(world, rays, time_s, pose, tiles)
    colours, floor, table = _palettes(world, channels)
    env = Env(scope, world.solids, world.motion, world.ground, world.light, colours, floor, table,
              noise_levels(), np.ascontiguousarray(pose[:3, 3]), rays.pixel_rad)  # fmt: skip
    shading.shade(env, turn, time_s, rays, tiles, TILE_PX, depth, row, out)
    return out, depth


def _traced(
    world: World, rays: RayTable, time_s: float, pose: np.ndarray, tiles: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Scope, np.ndarray]:
    """Returns depth (H, W), scope row (H, W) (-1 for the sky), the scope, and the rotation."""
    depth = np.full(rays.xy.shape[:2], np.nan, np.float32)
    row = np.full(rays.xy.shape[:2], -1, np.int32)
    eye, turn = np.ascontiguousarray(pose[:3, 3]), np.ascontiguousarray(pose[:3, :3])
    down, across = tiles // len(rays.columns), tiles % len(rays.columns)
    window = (int(across.min()), int(across.max()) + 1, int(down.min()), int(down.max()) + 1)
    sun = world.light.sun
    scope = place_solids(world.solids, world.motion, time_s, eye, turn, rays, window, sun)
    trace(scope, world.solids, rays, tiles, depth, row)
    return depth, row, scope, turn
