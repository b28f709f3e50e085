"""Planarity: how flat the depth of a plane is.

The inverse depth of a plane is affine in pixel coordinates, whatever the pinhole camera.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

ROUNDS = 20
HUBER = 0.1
"""Residuals of ln depth above this count linearly in the fit, not quadratically."""

STRIDE_PX = 3
"""The plane is fitted to every third pixel of every third row."""

LEAST_PIXELS = 10


class PlaneFit(NamedTuple):
    """The plane 1 / depth = a x + b y + c that is closest to a depth map."""

    coefficients: np.ndarray  # (3,) a, b [1/m per px], c [1/m]
    spread: float  # 1.4826 x median |r|, r = ln depth - ln depth of the plane
    rms: float  # root mean square of r


def fit_plane(depth_m: np.ndarray) -> PlaneFit | None:
    """Fits a plane to the finite, positive depths of a map.

    Gauss-Newton on the residuals of ln depth with Huber's weights, from the least-squares
    solution of depth * (a x + b y + c) = 1. Coordinates need no calibration.

    Args:
        depth_m: (H, W); NaN and infinities do not count.

    Returns:
        The fit; None for fewer than `LEAST_PIXELS` such pixels.
    """
    thin = np.asarray(depth_m[::STRIDE_PX, ::STRIDE_PX], np.float64)
    rows, columns = np.nonzero(np.isfinite(thin) & (thin > 0))
    if len(rows) < LEAST_PIXELS:
        return None
    depth = thin[rows, columns]
    ones = np.ones(len(rows))
    design = np.stack([STRIDE_PX * columns, STRIDE_PX * rows, ones], axis=1).astype(np.float64)
    theta = np.linalg.lstsq(design * depth[:, None], ones, rcond=None)[0]
    floor = 1e-3 / np.median(depth)  # beyond its horizon a plane is far, not behind the camera
    for _ in range(ROUNDS):
        inverse = np.maximum(design @ theta, floor)
        residual = np.log(depth * inverse)
        weight = np.sqrt(np.minimum(1.0, HUBER / np.maximum(np.abs(residual), 1e-12)))
        slope = design / inverse[:, None]
        change = np.linalg.lstsq(slope * weight[:, None], -residual * weight, rcond=None)[0]
        theta = theta + change
        if np.abs(slope @ change).max() < 1e-6:
            break
    residual = np.log(depth * np.maximum(design @ theta, floor))
    spread = 1.4826 * np.median(np.abs(residual))  # the standard deviation of a normal r
    return PlaneFit(theta, float(spread), float(np.sqrt(np.mean(residual**2))))
