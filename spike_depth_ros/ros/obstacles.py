"""Point sets for costmaps: what marks a cell as occupied, and what clears the cells before it.

Nav2's obstacle and voxel layers mark the cell of every point and clear the cells on the ray from
the camera to every point. Before that, they drop points outside their height band, and NaN with
them. Depth therefore goes out as two clouds, so that each can have a band of its own:

* obstacles: finite depth that is confident enough, and answers that are too near to measure;
* free space: the end points of rays along which nothing was seen.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class ObstacleOptions(NamedTuple):
    """Which depth a costmap may rely on.

    Attributes:
        min_confidence: less certain depth neither marks nor clears.
        near_m: depth that stands for "too near" (-inf): it marks and never clears; 0 drops it.
        clear_m: length of the ray that "beyond range" (+inf) clears; 0 clears nothing there.
        voxel_m: edge of the cells of which one point each is kept; 0 keeps all points.
        stride: every n-th row and column is used.
    """

    min_confidence: float = 0.5
    near_m: float = 0.0
    clear_m: float = 0.0
    voxel_m: float = 0.0
    stride: int = 1


def obstacle_points(
    depth_m: np.ndarray, confidence: np.ndarray, rays: np.ndarray, options: ObstacleOptions
) -> np.ndarray:
    """Selects the points that mark obstacles.

    Args:
        depth_m: (H, W) depth along z with the marks of REP 117.
        confidence: (H, W).
        rays: (H, W, 3) with z = 1, of `Camera.rays`.
        options: which depth counts.

    Returns:
        (N, 4) float32: x, y, z [m] in the optical frame, and confidence.
    """
    depth_m, confidence, rays = _strided(depth_m, confidence, rays, options.stride)
    near = np.isneginf(depth_m) & (options.near_m > 0)
    depth_m = np.where(near, np.float32(options.near_m), depth_m)
    marks = np.isfinite(depth_m) & (confidence >= options.min_confidence)
    return _decimated(_points(depth_m, confidence, rays, marks), options.voxel_m)


def free_space_points(
    depth_m: np.ndarray, confidence: np.ndarray, rays: np.ndarray, options: ObstacleOptions
) -> np.ndarray:
    """Selects the end points of rays that are free; arguments and result as `obstacle_points`.

    A ray to a surface is free up to it. A ray to "beyond range" is free for `clear_m` metres along
    the ray, not along z, so that the clearing does not grow towards the corners of the image.
    """
    depth_m, confidence, rays = _strided(depth_m, confidence, rays, options.stride)
    clear_z_m = options.clear_m / np.linalg.norm(rays, axis=-1)
    beyond = np.isposinf(depth_m) & (options.clear_m > 0)
    depth_m = np.where(beyond, clear_z_m, depth_m)
    clears = np.isfinite(depth_m) & (confidence >= options.min_confidence)
    return _decimated(_points(depth_m, confidence, rays, clears), options.voxel_m)


def _strided(
    depth_m: np.ndarray, confidence: np.ndarray, rays: np.ndarray, stride: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return depth_m[::stride, ::stride], confidence[::stride, ::stride], rays[::stride, ::stride]


def _points(
    depth_m: np.ndarray, confidence: np.ndarray, rays: np.ndarray, chosen: np.ndarray
) -> np.ndarray:
    """(N, 4) float32 of the chosen pixels; a pixel without a ray (NaN) has no point."""
    chosen = chosen & np.isfinite(rays).all(axis=-1)
    points = np.empty((int(chosen.sum()), 4), np.float32)
    points[:, :3] = rays[chosen] * depth_m[chosen][:, None]
    points[:, 3] = confidence[chosen]
    return points


def _decimated(points: np.ndarray, voxel_m: float) -> np.ndarray:
    if voxel_m <= 0:
        return points
    kept: np.ndarray = points[surest_of_each_voxel(points[:, :3], points[:, 3], voxel_m)]
    return kept


def surest_of_each_voxel(
    points_m: np.ndarray, confidence: np.ndarray, voxel_m: float
) -> np.ndarray:
    """Selects the most confident point of each voxel.

    Args:
        points_m: (N, 3), finite.
        confidence: (N,).
        voxel_m: edge of the voxels, > 0.

    Returns:
        Indices of the points that are kept, in order of falling confidence.
    """
    order = np.argsort(-confidence, kind='stable')
    if not len(order):
        return order
    cells = np.floor(points_m[order] / voxel_m).astype(np.int64)
    cells -= cells.min(axis=0)
    span = cells.max(axis=0) + 1
    index = (cells[:, 0] * span[1] + cells[:, 1]) * span[2] + cells[:, 2]
    _, first = np.unique(index, return_index=True)
    kept: np.ndarray = order[np.sort(first)]
    return kept
