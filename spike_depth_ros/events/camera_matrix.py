"""Cameras from the matrices of a calibration; implausible numbers are rejected."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from spike_depth_ros.events.camera import CalibrationError, Camera

MODEL_ALIASES = {
    'fisheye': 'equidistant',
    'equi': 'equidistant',
    'radtan': 'plumb_bob',
    'none': '',
}
"""Other names of these models in ROS 1, OpenCV and Kalibr."""

MOST_ASPECT = 1.5
"""Largest plausible ratio of fx and fy, because the pixels of sensors are square."""

MOST_ZOOM = 10.0
"""Focal lengths of K and P that differ by this factor are of two image sizes."""

MOST_WIDE, MOST_NARROW = 10, 100
"""Width over focal length of the widest lens, focal length over width of the narrowest."""

TINY = 1e-6


def camera_from_matrix(
    k: Sequence[float],
    width: int,
    height: int,
    distortion_model: str,
    distortion: Sequence[float],
    source: str = 'calibration',
    r: Sequence[float] = (),
    p: Sequence[float] = (),
) -> Camera:
    """Builds a camera from its intrinsic matrix and rejects implausible numbers.

    Args:
        k: the 9 numbers of K, row by row.
        width: columns of the image [px].
        height: rows [px].
        distortion_model: a key of `camera.DISTORTION_MODELS` or of `MODEL_ALIASES`.
        distortion: its coefficients.
        source: name of the calibration in error messages.
        r: the 9 numbers of the rectification matrix; none, or only zeros: the identity.
        p: the 12 numbers of the projection matrix, of which the fourth column is not used: depth
            is that of this camera, not of the first camera of a stereo pair. None, or only
            zeros: K.

    Raises:
        CalibrationError: impossible or implausible numbers; the message contains the matrix.
    """
    model = MODEL_ALIASES.get(distortion_model, distortion_model)
    if len(k) != 9:
        raise CalibrationError(f'{source}: the camera matrix has {len(k)} numbers, not 9')
    try:
        camera = Camera(
            width, height, k[0], k[4], k[2], k[5], model, tuple(map(float, distortion))
        )
        intrinsics = _intrinsics('camera', k, width, height)
        rotation = _rotation(r) if np.any(r) else ()
        projection = intrinsics
        if np.any(p):
            if len(p) != 12:
                raise CalibrationError(f'the projection matrix has {len(p)} numbers, not 12')
            left = [*p[0:3], *p[4:7], *p[8:11]]
            projection = _intrinsics('projection', left, width, height)
    except CalibrationError as error:
        raise CalibrationError(f'{source}: {error}') from error
    if not 1 / MOST_ZOOM < projection[0] / intrinsics[0] < MOST_ZOOM:
        raise CalibrationError(
            f'{source}: the focal length is {intrinsics[0]:g} px in the camera matrix and '
            f'{projection[0]:g} px in the projection matrix: are they of two image sizes?'
        )
    return dataclasses.replace(
        camera, rotation=rotation, projection=() if projection == intrinsics else projection
    )


def _intrinsics(
    name: str, numbers: Sequence[float], width: int, height: int
) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy of the 9 numbers of a camera matrix, or of the left part of a projection."""
    fx, skew, cx, below, fy, cy, *last = (float(number) for number in numbers)
    rows = [list(numbers[row : row + 3]) for row in (0, 3, 6)]
    found = f'the {name} matrix is {rows} for {width}x{height} px'
    if not (np.isfinite(numbers).all() and fx > 0 and fy > 0):
        raise CalibrationError(f'{found}, expected a focal length > 0: is it calibrated?')
    if abs(last[0]) > TINY or abs(last[1]) > TINY or abs(below) > TINY or abs(last[2] - 1) > TINY:
        hint = ': is it transposed?' if cx == cy == 0 else ''
        raise CalibrationError(f'{found}, expected [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]{hint}')
    if not 1 / MOST_ASPECT < fx / fy < MOST_ASPECT or abs(skew) > TINY * fx:
        raise CalibrationError(
            f'{found}: fx and fy of {fx:g} and {fy:g} do not fit square pixels, expected a ratio '
            f'below {MOST_ASPECT} and no skew'
        )
    if not 1 / MOST_WIDE < fx / max(width, height) < MOST_NARROW:
        raise CalibrationError(
            f'{found}: a focal length of {fx:g} px belongs to no lens, expected '
            f'{max(width, height) / MOST_WIDE:g} to {max(width, height) * MOST_NARROW:g} px. '
            'Is it in other units?'
        )
    if not (-0.5 <= cx <= width - 0.5 and -0.5 <= cy <= height - 0.5):
        raise CalibrationError(
            f'{found}: the principal point ({cx:g}, {cy:g}) lies outside the image. Is it the '
            'calibration of another image size?'
        )
    return fx, fy, cx, cy


def _rotation(numbers: Sequence[float]) -> tuple[float, ...]:
    """The 9 numbers of a rectification matrix; empty for the identity."""
    rotation = np.array(numbers, np.float64)
    is_rotation = rotation.shape == (9,) and np.isfinite(rotation).all()
    if is_rotation:
        rows = rotation.reshape(3, 3)
        is_rotation = np.allclose(rows @ rows.T, np.eye(3), atol=1e-3) and np.linalg.det(rows) > 0
    if not is_rotation:
        raise CalibrationError(
            f'the rectification matrix is {list(numbers)}, expected 9 numbers of a rotation'
        )
    return () if np.array_equal(rows, np.eye(3)) else tuple(rotation.tolist())
