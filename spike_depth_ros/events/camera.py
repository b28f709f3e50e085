"""The pinhole camera with lens distortion: intrinsics, rectification, binning, cropping, rays.

Pixel centres lie on integers: (0, 0) is the centre of the top-left pixel, as in ROS and OpenCV.
Optical axes: x right, y down, z forward (REP 103). With a rectification matrix R, as in a stereo
pair, they are the axes of the rectified image, as in image_proc and stereo_image_proc.
"""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

WIDEST_TAN = 57.0
"""Tangent of 89 degrees: pixels farther from the axis have no ray."""

MOST_ERROR_PX = 0.1
"""Largest distance between a pixel and the projection of its ray through the lens."""

MOST_SMOOTH_ERROR_PX = 1e-3
"""Largest difference between the ray of the polynomial and that of the lens model."""

SMOOTH_NODES = 24
"""Rows and columns of pixels that the polynomial of a lens interpolates."""

AT_ONCE = 10_240
"""Pixels that one thread undistorts at a time, so that the working data fits the cache."""

DISTORTION_MODELS: dict[str, tuple[int, ...]] = {
    '': (0,),
    'plumb_bob': (0, 4, 5),
    'rational_polynomial': (0, 8, 12, 14),
    'equidistant': (0, 4),
}
"""Distortion model (sensor_msgs/CameraInfo) -> allowed numbers of coefficients."""

MOST_SIDE_PX = 1 << 14
"""Largest height or width of an image."""


class CalibrationError(ValueError):
    """A calibration is unreadable, incomplete, or for another sensor."""


@dataclasses.dataclass(frozen=True)
class Camera:
    """Intrinsics of one image grid.

    Attributes:
        width: columns [px].
        height: rows [px].
        fx: focal length along x [px].
        fy: focal length along y [px].
        cx: principal point column [px].
        cy: principal point row [px].
        distortion_model: a key of `DISTORTION_MODELS`.
        distortion: coefficients of that model; empty for a rectified grid.
        rotation: 9 numbers of R of a CameraInfo, row by row: takes rays of the lens to the axes of
            the rectified image; empty for the identity.
        projection: fx, fy, cx, cy of P of a CameraInfo, the intrinsics of the rectified image;
            empty for the intrinsics above.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion_model: str = 'plumb_bob'
    distortion: tuple[float, ...] = ()
    rotation: tuple[float, ...] = ()
    projection: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        numbers = (self.fx, self.fy, self.cx, self.cy, *self.distortion, *self.rotation,
                   *self.projection)  # fmt: skip
        if not np.isfinite(numbers).all():
            raise CalibrationError(f'calibration holds numbers that are not finite: {numbers}')
        if not (1 <= self.width <= MOST_SIDE_PX and 1 <= self.height <= MOST_SIDE_PX):
            raise CalibrationError(
                f'calibration is for a {self.width}x{self.height} image, expected 1 to '
                f'{MOST_SIDE_PX} px each way: is it calibrated?'
            )
        if self.fx <= 0 or self.fy <= 0:
            raise CalibrationError(
                f'focal length is ({self.fx}, {self.fy}) px, expected > 0: is it calibrated?'
            )
        if self.distortion_model not in DISTORTION_MODELS:
            raise CalibrationError(
                f'distortion model {self.distortion_model!r} is unknown, '
                f'expected one of {sorted(DISTORTION_MODELS)}'
            )
        allowed = DISTORTION_MODELS[self.distortion_model]
        if len(self.distortion) not in allowed:
            raise CalibrationError(
                f'{self.distortion_model!r} has {len(self.distortion)} distortion '
                f'coefficients, expected one of {allowed}'
            )

    @property
    def matrix(self) -> NDArray[Any]:
        """(3, 3) float64 intrinsic matrix K."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], np.float64)

    @property
    def is_distorted(self) -> bool:
        """True unless this is a pinhole; a fisheye with zero coefficients is distorted, too."""
        return any(self.distortion) or (
            self.distortion_model == 'equidistant' and bool(self.distortion)
        )

    @property
    def is_rectified(self) -> bool:
        """True if rectification moves no pixel."""
        return not (self.is_distorted or self.rotation or self.projection)

    def to_rectified(self) -> NDArray[Any]:
        """(3, 3) rotation from the axes of the lens to those of the rectified image."""
        return np.reshape(self.rotation, (3, 3)) if self.rotation else np.eye(3)

    def check_sensor(self, height: int, width: int) -> None:
        """Raises a `CalibrationError` unless this is the camera of a `height` x `width` sensor."""
        if (self.height, self.width) != (height, width):
            raise CalibrationError(
                f'calibration is for {self.width}x{self.height}, the events come from a '
                f'{width}x{height} sensor: give the calibration of that sensor, at full size'
            )

    def binned(self, factor: int) -> Camera:
        """The camera after binning by `factor` x `factor`; partial blocks count as pixels."""
        fx, fy, cx, cy = _binned((self.fx, self.fy, self.cx, self.cy), factor)
        return dataclasses.replace(
            self,
            width=-(-self.width // factor),
            height=-(-self.height // factor),
            fx=fx,
            fy=fy,
            cx=cx,
            cy=cy,
            projection=_binned(self.projection, factor),
        )

    def cropped(self, left: int, top: int, width: int, height: int) -> Camera:
        """The camera of a part of the image [px]; the part becomes an image of its own."""
        shift = np.array([0, 0, left, top])
        return dataclasses.replace(
            self,
            width=width,
            height=height,
            cx=self.cx - left,
            cy=self.cy - top,
            projection=tuple((self.projection - shift).tolist()) if self.projection else (),
        )

    def rectified(self) -> Camera:
        """The pinhole camera of the rectified image, by P where it is given."""
        fx, fy, cx, cy = self.projection or (self.fx, self.fy, self.cx, self.cy)
        return dataclasses.replace(
            self, fx=fx, fy=fy, cx=cx, cy=cy, distortion=(), rotation=(), projection=()
        )

    def rays(self) -> NDArray[Any]:
        """Viewing rays with z = 1 through all pixel centres: distortion removed, R applied.

        Returns:
            (H, W, 3) float32: multiply by depth along z to get points in the optical frame.
        """
        rays = np.ones((self.height, self.width, 3), np.float32)
        smooth = self._smooth_rays() if self.is_distorted else None
        if smooth is None:
            smooth = self._undistorted_grid(np.arange(self.width), np.arange(self.height))
        rays[..., :2] = smooth
        return rays

    def _undistorted_grid(self, columns: NDArray[Any], rows: NDArray[Any]) -> NDArray[Any]:
        """(rows, columns, 2): `undistort` of each column in each row."""
        pixels = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
        return self.undistort(pixels).reshape(len(rows), len(columns), 2)

    def _smooth_rays(self) -> NDArray[Any] | None:
        """Interpolates the rays' x and y by a polynomial through a few pixels.

        The inverse of a lens model is smooth, so that interpolation at Chebyshev nodes takes a
        thirtieth of the time of solving for every pixel.

        Returns:
            (H, W, 2), or None if check pixels, among them borders and corners, differ from the
            lens model: the lens is not smooth, or some pixels have no ray.
        """
        ends = np.array([self.width - 1, self.height - 1])
        nodes = chebyshev.chebpts1(SMOOTH_NODES)
        to_coefficients = np.linalg.inv(chebyshev.chebvander(nodes, SMOOTH_NODES - 1))
        columns, rows = (0.5 * (nodes[:, None] + 1) * ends).T
        known = np.moveaxis(self._undistorted_grid(columns, rows), 2, 0)
        coefficients = to_coefficients @ known @ to_coefficients.T

        def at(columns: NDArray[Any], rows: NDArray[Any]) -> NDArray[Any]:
            """(rows, columns, 2): evaluates the polynomial."""
            across, down = (
                chebyshev.chebvander(2 * pixels / max(end, 1) - 1, SMOOTH_NODES - 1)
                for pixels, end in zip((columns, rows), ends, strict=True)
            )
            return np.moveaxis(down @ coefficients @ across.T, 0, 2)

        columns, rows = (np.linspace(0, end, 2 * SMOOTH_NODES + 1) for end in ends)
        error_px = (at(columns, rows) - self._undistorted_grid(columns, rows)) * (self.fx, self.fy)
        if not np.abs(error_px).max() < MOST_SMOOTH_ERROR_PX:
            return None
        return at(np.arange(self.width), np.arange(self.height))

    def undistort(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Converts pixels to normalised coordinates (x/z, y/z): distortion removed, R applied.

        Args:
            pixels: (N, 2) columns and rows [px].

        Returns:
            (N, 2) float64; NaN where the model cannot be inverted or the ray points backwards.
        """
        xy = self._without_distortion(pixels)
        if not self.rotation:
            return xy
        rotation = np.reshape(self.rotation, (3, 3))
        rotated = xy @ rotation[:, :2].T + rotation[:, 2]
        rotated[~(rotated[:, 2] > 1 / WIDEST_TAN)] = np.nan
        return np.asarray(rotated[:, :2] / rotated[:, 2:])

    def _without_distortion(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """`undistort` before R is applied."""
        if not self.is_distorted:
            return (np.asarray(pixels, np.float64) - (self.cx, self.cy)) / (self.fx, self.fy)
        if len(pixels) > AT_ONCE:
            parts = (pixels[i : i + AT_ONCE] for i in range(0, len(pixels), AT_ONCE))
            with ThreadPoolExecutor() as pool:
                return np.concatenate(list(pool.map(self._without_distortion, parts)))
        import cv2

        points = np.ascontiguousarray(pixels, np.float64).reshape(-1, 1, 2)
        coefficients = np.array(self.distortion)
        if self.distortion_model == 'equidistant':
            undistorted = cv2.fisheye.undistortPoints(points, self.matrix, coefficients)
            # the tangent changes its sign at 90 degrees
            behind = (undistorted * (points - (self.cx, self.cy))).sum(-1) < 0
            too_wide = np.hypot(undistorted[..., 0], undistorted[..., 1]) > WIDEST_TAN
            undistorted[behind | too_wide] = np.nan
        else:
            criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-4)  # px
            # undistortPointsIter of OpenCV 4 is undistortPoints in OpenCV 5
            solve: Any = getattr(cv2, 'undistortPointsIter', cv2.undistortPoints)
            undistorted = solve(
                points, self.matrix, coefficients, R=np.eye(3), P=np.eye(3), criteria=criteria
            )
            # the solver always returns something: keep rays that the lens projects to their pixel
            rays = np.concatenate([undistorted, np.ones_like(undistorted[..., :1])], axis=-1)
            zero = np.zeros(3)
            seen, _ = cv2.projectPoints(rays, zero, zero, self.matrix, coefficients)
            undistorted[~(np.abs(seen - points).max(-1) < MOST_ERROR_PX)] = np.nan
        return undistorted.reshape(-1, 2)

    def project(self, points: NDArray[Any]) -> NDArray[Any]:
        """Normalised image coordinates (x/z, y/z) to pixels: the inverse of `undistort`.

        Args:
            points: (N, 2); NaN gives NaN.

        Returns:
            (N, 2) float64 columns and rows [px].
        """
        points = np.asarray(points, np.float64)
        if self.rotation:
            rotation = np.reshape(self.rotation, (3, 3))
            rays = points @ rotation[:2] + rotation[2]  # (x, y, 1) by the inverse of R
            points = rays[:, :2] / rays[:, 2:]
        if not self.is_distorted:
            return points * (self.fx, self.fy) + (self.cx, self.cy)
        import cv2

        coefficients = np.array(self.distortion)
        if self.distortion_model == 'equidistant':
            flat = np.ascontiguousarray(points, np.float64).reshape(-1, 1, 2)
            return cv2.fisheye.distortPoints(flat, self.matrix, coefficients).reshape(-1, 2)
        rays = np.concatenate([points, np.ones((len(points), 1))], axis=1)
        zero = np.zeros(3)
        return cv2.projectPoints(rays, zero, zero, self.matrix, coefficients)[0].reshape(-1, 2)


def _binned(intrinsics: tuple[float, ...], factor: int) -> tuple[float, ...]:
    """fx, fy, cx, cy after `factor` x `factor` pixels have become one; empty stays empty."""
    if not intrinsics:
        return ()
    fx, fy, cx, cy = intrinsics
    return fx / factor, fy / factor, (cx + 0.5) / factor - 0.5, (cy + 0.5) / factor - 0.5
