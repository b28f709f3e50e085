"""The pinhole camera with lens distortion: intrinsics, binning, rays, calibration files.

Pixel centres lie on integers: (0, 0) is the centre of the top-left pixel, as in ROS and OpenCV.
Optical axes: x right, y down, z forward (REP 103).
"""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev

WIDEST_TAN = 57.0
"""Tangent of 89 degrees: what lies farther off the axis has no depth along it to speak of."""

MOST_ERROR_PX = 0.1
"""How far from its pixel a ray may come back through the lens."""

MOST_SMOOTH_ERROR_PX = 1e-3
"""How far the ray that a polynomial gives a pixel may be from that which the lens gives it."""

SMOOTH_NODES = 24
"""Rows and columns of pixels through whose rays the polynomial of a lens goes."""

AT_ONCE = 10_240
"""Pixels that one thread undistorts at a time: what OpenCV keeps of each then fits its cache."""

DISTORTION_MODELS: dict[str, tuple[int, ...]] = {
    '': (0,),
    'plumb_bob': (0, 4, 5),
    'rational_polynomial': (0, 8, 12, 14),
    'equidistant': (0, 4),
}
"""Distortion model (sensor_msgs/CameraInfo) -> the numbers of coefficients that it may have."""


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
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion_model: str = 'plumb_bob'
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        numbers = (self.fx, self.fy, self.cx, self.cy, *self.distortion)
        if not np.isfinite(numbers).all():
            raise CalibrationError(f'calibration holds numbers that are not finite: {numbers}')
        if self.width < 1 or self.height < 1:
            raise CalibrationError(
                f'calibration is for a {self.width}x{self.height} image: is it calibrated?'
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
    def matrix(self) -> np.ndarray:
        """(3, 3) float64 intrinsic matrix K."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], np.float64)

    @property
    def is_distorted(self) -> bool:
        """True unless rays are those of a pinhole; a fisheye of zeros is the ideal fisheye."""
        return any(self.distortion) or (
            self.distortion_model == 'equidistant' and bool(self.distortion)
        )

    def check_sensor(self, height: int, width: int) -> None:
        """Raises a `CalibrationError` unless this is the camera of a `height` x `width` sensor."""
        if (self.height, self.width) != (height, width):
            raise CalibrationError(
                f'calibration is for {self.width}x{self.height}, the events come from a '
                f'{width}x{height} sensor: give the calibration of that sensor, at full size'
            )

    def binned(self, factor: int) -> Camera:
        """The camera after `factor` x `factor` pixels have become one; partial blocks count."""
        return dataclasses.replace(
            self,
            width=-(-self.width // factor),
            height=-(-self.height // factor),
            fx=self.fx / factor,
            fy=self.fy / factor,
            cx=(self.cx + 0.5) / factor - 0.5,
            cy=(self.cy + 0.5) / factor - 0.5,
        )

    def rectified(self) -> Camera:
        """The same pinhole without distortion: what undistorted events are seen by."""
        return dataclasses.replace(self, distortion=())

    def rays(self) -> np.ndarray:
        """Viewing rays with z = 1 through every pixel centre, distortion removed.

        Returns:
            (H, W, 3) float32: multiply by depth along z to get points in the optical frame.
        """
        rays = np.ones((self.height, self.width, 3), np.float32)
        smooth = self._smooth_rays() if self.is_distorted else None
        if smooth is None:
            smooth = self._undistorted_grid(np.arange(self.width), np.arange(self.height))
        rays[..., :2] = smooth
        return rays

    def _undistorted_grid(self, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(rows, columns, 2) `undistort` of each column in each row."""
        pixels = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
        return self.undistort(pixels).reshape(len(rows), len(columns), 2)

    def _smooth_rays(self) -> np.ndarray | None:
        """(H, W, 2) the rays' x and y, as a polynomial through those of few pixels.

        An inverse lens is smooth: interpolation at Chebyshev nodes gives it in a thirtieth of
        the time that solving for every pixel takes.

        Returns:
            None for a lens that is not smooth, or that leaves pixels without a ray: where other
            pixels, borders and corners among them, get other rays than the lens gives them.
        """
        ends = np.array([self.width - 1, self.height - 1])
        nodes = chebyshev.chebpts1(SMOOTH_NODES)
        to_coefficients = np.linalg.inv(chebyshev.chebvander(nodes, SMOOTH_NODES - 1))
        columns, rows = (0.5 * (nodes[:, None] + 1) * ends).T
        known = np.moveaxis(self._undistorted_grid(columns, rows), 2, 0)
        coefficients = to_coefficients @ known @ to_coefficients.T

        def at(columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
            """(rows, columns, 2) the polynomial there."""
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

    def undistort(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels to normalised image coordinates (x/z, y/z), distortion removed.

        Args:
            pixels: (N, 2) columns and rows [px].

        Returns:
            (N, 2) float64; NaN where the model cannot be inverted, or sees behind the camera.
        """
        if not self.is_distorted:
            return (np.asarray(pixels, np.float64) - (self.cx, self.cy)) / (self.fx, self.fy)
        if len(pixels) > AT_ONCE:
            parts = (pixels[i : i + AT_ONCE] for i in range(0, len(pixels), AT_ONCE))
            with ThreadPoolExecutor() as pool:
                return np.concatenate(list(pool.map(self.undistort, parts)))
        import cv2

        points = np.ascontiguousarray(pixels, np.float64).reshape(-1, 1, 2)
        coefficients = np.array(self.distortion)
        if self.distortion_model == 'equidistant':
            undistorted = cv2.fisheye.undistortPoints(points, self.matrix, coefficients)
            # beyond 90 degrees the tangent changes its sign
            behind = (undistorted * (points - (self.cx, self.cy))).sum(-1) < 0
            too_wide = np.hypot(undistorted[..., 0], undistorted[..., 1]) > WIDEST_TAN
            undistorted[behind | too_wide] = np.nan
        else:
            criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-4)  # px
            # OpenCV 5 has given undistortPoints what was undistortPointsIter in OpenCV 4
            solve: Any = getattr(cv2, 'undistortPointsIter', cv2.undistortPoints)
            undistorted = solve(
                points, self.matrix, coefficients, R=np.eye(3), P=np.eye(3), criteria=criteria
            )
            # the solver answers everywhere: a ray is one that the lens sends back to its pixel
            rays = np.concatenate([undistorted, np.ones_like(undistorted[..., :1])], axis=-1)
            zero = np.zeros(3)
            seen, _ = cv2.projectPoints(rays, zero, zero, self.matrix, coefficients)
            undistorted[~(np.abs(seen - points).max(-1) < MOST_ERROR_PX)] = np.nan
        return undistorted.reshape(-1, 2)


def camera_from_calibration(values: Any, source: str = 'calibration') -> Camera:
    """Builds a camera from the fields of a ROS calibration file (camera_calibration_parsers).

    Args:
        values: the parsed YAML: image_width, image_height, camera_matrix.data (9),
            distortion_model, distortion_coefficients.data.
        source: what to call it in an error.

    Raises:
        CalibrationError: a field is missing or not of the form expected.
    """
    try:
        k = [float(number) for number in values['camera_matrix']['data']]
        if len(k) != 9:
            raise CalibrationError(f'{source}: camera_matrix.data has {len(k)} numbers, not 9')
        distortion = values.get('distortion_coefficients') or {'data': []}
        return Camera(
            width=int(values['image_width']),
            height=int(values['image_height']),
            fx=k[0],
            fy=k[4],
            cx=k[2],
            cy=k[5],
            distortion_model=str(values.get('distortion_model', 'plumb_bob')),
            distortion=tuple(float(number) for number in distortion['data']),
        )
    except CalibrationError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CalibrationError(
            f'{source} is not a ROS camera calibration ({error!r}); expected image_width, '
            'image_height, camera_matrix.data, distortion_model, distortion_coefficients.data'
        ) from error


def read_calibration(path: str | Path) -> Camera:
    """Reads a ROS calibration YAML; a leading `file://` is accepted, as in `camera_info_url`.

    Raises:
        CalibrationError: no such file, not YAML, or not a calibration.
    """
    import yaml

    file = Path(str(path).removeprefix('file://')).expanduser()
    try:
        values = yaml.safe_load(file.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CalibrationError(
            f'cannot read the calibration {str(file)!r}: {error}; expected a YAML file as '
            'camera_calibration writes it'
        ) from error
    return camera_from_calibration(values, str(file))
