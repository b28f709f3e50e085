"""MVSEC: a DAVIS at 346x260 with LiDAR depth at 20 Hz, and its calibration.

Files of a recording (Zhu et al., RA-L 2018): `NAME_data.hdf5` with `davis/left/events` (N, 4)
columns x, y, t [s], p; `NAME_gt.hdf5` with `davis/left/depth_image_rect` (M, H, W) metres and NaN;
and the calibration of its scene, `camchain-imucam-SCENE.yaml`. Events are raw, depth is rectified.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.events.arrays import seconds_to_ns
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.yaml_file import read_yaml
from spike_depth_ros.recordings.array_source import (
    INFO_TOPIC,
    RECTIFIED_FRAME_ID,
    TRUTH_INFO_TOPIC,
    TRUTH_TOPIC,
    Series,
    image_series,
    info_series,
    info_ticks,
    odometry_series,
    pose_series,
    static_series,
)
from spike_depth_ros.recordings.hdf5 import Hdf5File
from spike_depth_ros.recordings.hdf5_events import Hdf5Events
from spike_depth_ros.recordings.source import FRAME_ID, BagError

SITE = 'https://daniilidis-group.github.io/mvsec/download/'
DEPTH, POSE = 'davis/left/depth_image_rect', 'davis/left/pose'
IMAGE = 'davis/left/image_raw'


class MvsecFiles:
    """The left camera of one recording; its parts are read when they are asked for.

    Objects can be pickled. A part that is missing or damaged is a `BagError` that says where to
    get it.

    Args:
        path: the `NAME_data.hdf5`. The other files lie beside it, or in a folder of their scene.
        sensor: (height, width) [px] that the user states.

    Attributes:
        name: the recording, such as outdoor_day1.
        events: its events, in raw pixels.

    Raises:
        BagError: the file is missing or damaged.
    """

    def __init__(self, path: str | Path, sensor: tuple[int, int] | None = None) -> None:
        self.path = Path(path)
        self.name = self.path.stem.removesuffix('_data')
        self._scene = self.name.rstrip('0123456789')
        self.events = Hdf5Events(self.path, sensor, advice=_get(self.path.name))

    @functools.cached_property
    def truth(self) -> Hdf5File:
        """The file of depth and poses."""
        return Hdf5File(self._truth_path, _get(self._truth_path.name))

    @functools.cached_property
    def calibration(self) -> MvsecCalibration:
        """The calibration of the left camera."""
        return read_mvsec_calibration(self._calibration_path)

    @functools.cached_property
    def depth_stamps_ns(self) -> NDArray[Any]:
        """(M,) times of the depth maps."""
        stamps_ns = seconds_to_ns(self.truth.whole(f'{DEPTH}_ts'))
        if (np.diff(stamps_ns) <= 0).any():
            raise self.truth.damaged('has depth times that do not rise')
        return stamps_ns

    @functools.cached_property
    def image_stamps_ns(self) -> NDArray[Any]:
        """(N,) times of the images."""
        return seconds_to_ns(self.events.file.whole(f'{IMAGE}_ts'))

    def depth_m(self, index: int) -> NDArray[Any]:
        """(260, 346) float32 metres of map `index`, rectified; NaN where the LiDAR saw nothing."""
        depth_m = np.array(self.truth.row(DEPTH, index), np.float32)
        if depth_m.shape != self.events.geometry:
            raise self.truth.damaged(f'holds depth of shape {depth_m.shape}')
        depth_m[~(depth_m > 0)] = np.nan
        return depth_m

    def image(self, index: int) -> NDArray[Any]:
        """(260, 346) uint8 image `index`, raw."""
        return np.asarray(self.events.file.row(IMAGE, index))

    def series(self) -> list[Series]:
        """What lies beside the events, as topics; a part that is missing has no topic.

        Raises:
            BagError: a part is there, but damaged.
        """
        found, has_depth = [], False
        if IMAGE in self.events.file and f'{IMAGE}_ts' in self.events.file:
            found.append(image_series('/event_camera/image_raw', FRAME_ID, self.image_stamps_ns,
                                      self.image))  # fmt: skip
        if self._truth_path.is_file():
            has_depth = DEPTH in self.truth and f'{DEPTH}_ts' in self.truth
            if has_depth:
                found.append(image_series(TRUTH_TOPIC, RECTIFIED_FRAME_ID, self.depth_stamps_ns,
                                          self.depth_m))  # fmt: skip
            if POSE in self.truth and f'{POSE}_ts' in self.truth:
                stamps_ns = seconds_to_ns(self.truth.whole(f'{POSE}_ts'))
                read = functools.partial(self.truth.row, POSE)
                found += [pose_series(stamps_ns, read), odometry_series(stamps_ns, read)]
        if not self._calibration_path.is_file():
            return found
        cameras = self.calibration
        found.append(info_series(INFO_TOPIC, FRAME_ID, info_ticks(self.events), cameras.camera))
        if has_depth:
            found.append(info_series(TRUTH_INFO_TOPIC, RECTIFIED_FRAME_ID, self.depth_stamps_ns,
                                     cameras.rectified))  # fmt: skip
        found.append(
            static_series(self.events, RECTIFIED_FRAME_ID, cameras.rotation.T, np.zeros(3))
        )
        return found

    @property
    def _truth_path(self) -> Path:
        return self._locate(f'{self.name}_gt.hdf5')

    @property
    def _calibration_path(self) -> Path:
        return self._locate(f'camchain-imucam-{self._scene}.yaml')

    def _locate(self, file: str) -> Path:
        """The first place where a file of the scene may lie, or the one where it should."""
        beside = self.path.parent
        calibrations = f'{self._scene}_calib'
        places = [folder / file for folder in (
            beside, beside / calibrations, beside / self._scene, beside.parent,
            beside / self._scene / calibrations, beside.parent / calibrations,
        )]  # fmt: skip
        return next((place for place in places if place.is_file()), places[0])


@dataclasses.dataclass(frozen=True)
class MvsecCalibration:
    """The left DAVIS: raw intrinsics K and D, and the rectified view R and P."""

    camera: Camera  # raw, equidistant
    rotation: NDArray[Any]  # (3, 3) raw to rectified
    rectified: Camera

    def rectified_xy(self) -> NDArray[Any]:
        """(H, W, 2) where each raw pixel lies in the rectified image."""
        import cv2

        height, width = self.camera.height, self.camera.width
        y, x = np.mgrid[0:height, 0:width].astype(np.float64)
        pixels = np.stack([x.ravel(), y.ravel()], axis=1).reshape(-1, 1, 2)
        moved = cv2.fisheye.undistortPoints(
            pixels,
            self.camera.matrix,
            self._coefficients,
            R=self.rotation,
            P=self.rectified.matrix,
        )
        return moved.reshape(height, width, 2)

    def rectify(self, image: NDArray[Any]) -> NDArray[Any]:
        """The raw image as the rectified camera sees it."""
        import cv2

        size = (self.rectified.width, self.rectified.height)
        columns, rows = cv2.fisheye.initUndistortRectifyMap(
            self.camera.matrix,
            self._coefficients,
            self.rotation,
            self.rectified.matrix,
            size,
            cv2.CV_32FC1,
        )
        return cv2.remap(image, columns, rows, cv2.INTER_LINEAR)

    @property
    def _coefficients(self) -> NDArray[Any]:
        return np.array(self.camera.distortion)


def read_mvsec_calibration(path: Path) -> MvsecCalibration:
    """Reads the left camera of a `camchain-imucam-SCENE.yaml` (Kalibr, with R and P added).

    Raises:
        BagError: unreadable or incomplete.
    """
    try:
        left = read_yaml(path)['cam0']
        fx, fy, cx, cy = (float(number) for number in left['intrinsics'])
        width, height = (int(number) for number in left['resolution'])
        coefficients = tuple(float(number) for number in left['distortion_coeffs'])
        projection = np.array(left['projection_matrix'], np.float64)
        rotation = np.array(left['rectification_matrix'], np.float64).reshape(3, 3)
        return MvsecCalibration(
            Camera(width, height, fx, fy, cx, cy, 'equidistant', coefficients),
            rotation,
            Camera(width, height, *projection[[0, 1, 0, 1], [0, 1, 2, 2]].tolist()),
        )
    except (OSError, KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise BagError(
            f'{path} is not a calibration of MVSEC ({error!r}): get it from {SITE}'
        ) from error


def _get(file: str) -> str:
    return f'get {file} from {SITE}'
