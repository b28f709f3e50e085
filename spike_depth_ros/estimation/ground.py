"""Metric scale from the ground: for a robot on wheels whose camera has a known height."""

from __future__ import annotations

import math

import numpy as np

from spike_depth_ros.estimation.scale import LN_SCALES, ScaleEstimate, nothing
from spike_depth_ros.events.camera import Camera

SAMPLES, TRIES = 600, 60
"""Points of the lower half of the image, and planes that are tried through three of them."""

CLOSE = 0.06
"""A point is on the plane if its inverse depth is right within this share."""

LEAST_SHARE = 0.45
"""Share of the points that must be on the plane: otherwise it is a wall, a table, or nothing."""

MOST_TILT_RAD = math.radians(40)
"""How far the plane may be from level in the image, whatever the pitch and roll of the mount."""

DEVIATION = 0.06
"""Of ln scale from a plane that all points are on: floors are not flat, heights not exact."""


def ground_scale(depth_m: np.ndarray, view: Camera, camera_height_m: float) -> ScaleEstimate:
    """Finds the scale at which the ground lies `camera_height_m` below the camera.

    The points of a plane n . X = h that a camera sees along the rays r at the depths d satisfy
    1 / d = (n / h) . r, which is linear in n / h. It is fitted to the lower half of the image by
    sampling (Fischler and Bolles, CACM 1981) and least squares over what is close to it.

    Args:
        depth_m: (H, W) of a `DepthFrame`.
        view: its camera, without distortion.
        camera_height_m: of the optical centre above the ground.
    """
    if not view.is_rectified:
        return nothing('the ground is a plane in rectified depth only: set rectify')
    rows, columns = np.mgrid[view.height // 2 : view.height, 0 : view.width]
    depth = depth_m[view.height // 2 :]
    known = np.isfinite(depth) & (depth > 0)
    if np.count_nonzero(known) < SAMPLES:
        return nothing('the lower half of the image has too little depth to see the ground in')
    rng = np.random.default_rng(0)
    chosen = rng.choice(np.flatnonzero(known), SAMPLES, replace=False)
    rays = np.stack(
        [
            (columns.ravel()[chosen] - view.cx) / view.fx,
            (rows.ravel()[chosen] - view.cy) / view.fy,
            np.ones(SAMPLES),
        ],
        axis=1,
    )
    inverse = 1.0 / depth.ravel()[chosen].astype(np.float64)
    triples = rng.integers(0, SAMPLES, (TRIES, 3))
    solvable = np.abs(np.linalg.det(rays[triples])) > 1e-3
    planes = np.linalg.solve(rays[triples[solvable]], inverse[triples[solvable]][..., None])[
        ..., 0
    ]
    planes = planes[_is_level(planes)]
    if not len(planes):
        return nothing('no plane in the lower half of the image is level')
    on_plane = np.abs(planes @ rays.T - inverse) < CLOSE * inverse  # (planes, SAMPLES)
    inside = on_plane[on_plane.sum(axis=1).argmax()]
    for _ in range(3):
        weight = 1.0 / inverse[inside]
        plane = np.linalg.lstsq(rays[inside] * weight[:, None], np.ones(inside.sum()), rcond=None)[
            0
        ]
        inside = np.abs(rays @ plane - inverse) < CLOSE * inverse
        if np.count_nonzero(inside) < 3:
            break
    share = float(inside.mean())
    if share < LEAST_SHARE or not _is_level(plane[None])[0]:
        return nothing(f'the ground fills {100 * share:.0f} % of the lower half of the image, '
                       f'expected {100 * LEAST_SHARE:.0f} % or more')  # fmt: skip
    ln_scale = math.log(camera_height_m * float(np.linalg.norm(plane)))
    if not LN_SCALES[0] <= ln_scale <= LN_SCALES[-1]:
        return nothing(f'the ground would ask for a scale of {math.exp(ln_scale):.3g}')
    variance = (DEVIATION / share) ** 2
    log = -0.5 * (LN_SCALES - ln_scale) ** 2 / variance
    return ScaleEstimate(ln_scale, variance, math.inf, log, '')


def _is_level(planes: np.ndarray) -> np.ndarray:
    """Which of (N, 3) planes n / h have a normal that points down, roughly along y."""
    length = np.linalg.norm(planes, axis=1)
    level: np.ndarray = planes[:, 1] > math.cos(MOST_TILT_RAD) * np.maximum(length, 1e-9)
    return level
