"""Registers depth to another camera: each depth pixel is projected into that camera's image."""

from __future__ import annotations

import numpy as np

from spike_depth_ros.estimation.motion import Mount
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.compiled import compiled

MOST_HALF_PX = 16.0
"""Half the edge of the largest square that one depth pixel covers in the other image: bounds the
work where points pass close by the other camera."""

OVERLAP_PX = 1e-4
"""Squares of neighbours overlap by this much, so that rounding leaves no gap between them."""


def register(
    depth_m: np.ndarray,
    confidence: np.ndarray,
    view: Camera,
    rays: np.ndarray,
    other: Camera,
    pose: Mount,
    fill: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Forward-projects depth and its confidence into the image of another camera.

    Where several points meet, the nearest wins. Pixels that nothing reaches are NaN. A ray
    "beyond range" (+inf) is projected by its direction and loses against every finite depth; "too
    near" (-inf) has no known place in the other image and is left out.

    Args:
        depth_m: (H, W) depth along z with the marks of REP 117.
        confidence: (H, W).
        view: the camera of `depth_m`.
        rays: (H, W, 3) of `view`, with z = 1.
        other: the other camera, rectified.
        pose: of the other camera's optical frame in that of `view`.
        fill: each depth pixel covers a square as large as its area in the other image; false: the
            one pixel that its centre falls into, as depth_image_proc does by default.

    Returns:
        Depth along the other camera's z and confidence, both (other.height, other.width) float32.
    """
    registered_m = np.full((other.height, other.width), np.nan, np.float32)
    registered_confidence = registered_m.copy()
    lens = np.array([other.fx, other.fy, other.cx, other.cy], np.float64)
    half = 0.5 * np.array([other.fx / view.fx, other.fy / view.fy]) if fill else np.zeros(2)
    # copies: numba compiles a kernel anew for arrays that are read-only or not contiguous
    given = (np.array(part, np.float32, order='C') for part in (depth_m, confidence, rays))
    _project(
        *given,
        np.ascontiguousarray(pose.rotation.T, np.float64), pose.translation_m.astype(np.float64),
        lens, half, registered_m, registered_confidence,
    )  # fmt: skip
    return registered_m, registered_confidence


@compiled(error_model='numpy')
def _project(depth_m, confidence, rays, rotation, origin_m, lens, half, out_m, out_confidence):
    """Writes into `out_m` and `out_confidence`.

    Args:
        depth_m: (H, W) float32.
        confidence: (H, W) float32.
        rays: (H, W, 3) float32.
        rotation: (3, 3) takes directions to the other camera's axes.
        origin_m: (3,) of the other camera.
        lens: (4,) fx, fy, cx, cy of the other camera.
        half: (2,) half width and height of a depth pixel in the other image at equal depth [px].
        out_m: (H', W') float32, NaN.
        out_confidence: (H', W') float32, NaN.
    """
    height, width = out_m.shape
    for row in range(depth_m.shape[0]):
        for column in range(depth_m.shape[1]):
            depth = np.float64(depth_m[row, column])
            if not depth > 0.0:  # NaN and -inf
                continue
            is_far = depth == np.inf
            x, y = np.float64(rays[row, column, 0]), np.float64(rays[row, column, 1])
            z = 1.0
            if not is_far:
                x, y, z = x * depth - origin_m[0], y * depth - origin_m[1], depth - origin_m[2]
            ahead = rotation[2, 0] * x + rotation[2, 1] * y + rotation[2, 2] * z
            if not ahead > 1e-6:  # behind the other camera, or without a ray
                continue
            across = (rotation[0, 0] * x + rotation[0, 1] * y + rotation[0, 2] * z) / ahead
            down = (rotation[1, 0] * x + rotation[1, 1] * y + rotation[1, 2] * z) / ahead
            u, v = across * lens[0] + lens[2], down * lens[1] + lens[3]
            if not (-1e6 < u < 1e6 and -1e6 < v < 1e6):
                continue
            nearer = (1.0 if is_far else depth) / ahead
            half_u = min(half[0] * nearer, MOST_HALF_PX) + OVERLAP_PX
            half_v = min(half[1] * nearer, MOST_HALF_PX) + OVERLAP_PX
            left, right = np.int64(np.ceil(u - half_u)), np.int64(np.ceil(u + half_u)) - 1
            top, bottom = np.int64(np.ceil(v - half_v)), np.int64(np.ceil(v + half_v)) - 1
            if right - left < 1:
                left = right = np.int64(np.floor(u + 0.5))
            if bottom - top < 1:
                top = bottom = np.int64(np.floor(v + 0.5))
            seen = np.float32(np.inf) if is_far else np.float32(ahead)
            for r in range(max(top, 0), min(bottom, height - 1) + 1):  # type: ignore[call-overload]
                for c in range(max(left, 0), min(right, width - 1) + 1):  # type: ignore[call-overload]
                    if not out_m[r, c] <= seen:  # farther, or NaN
                        out_m[r, c] = seen
                        out_confidence[r, c] = confidence[row, column]
