"""Sequences in DSEC's layout: events, images, disparity and calibration of the left cameras.

Source: Gehrig et al., RA-L 2021, and https://dsec.ifi.uzh.ch/data-format/.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.yaml_file import read_yaml
from spike_depth_ros.recordings.array_source import (
    COLOUR_FRAME_ID,
    INFO_TOPIC,
    RECTIFIED_FRAME_ID,
    TRUTH_INFO_TOPIC,
    TRUTH_TOPIC,
    Series,
    image_series,
    info_series,
    info_ticks,
    static_series,
)
from spike_depth_ros.recordings.hdf5 import Hdf5File
from spike_depth_ros.recordings.hdf5_events import Hdf5Events
from spike_depth_ros.recordings.source import FRAME_ID, BagError, visible

SITE = 'https://dsec.ifi.uzh.ch/dsec-datasets/download/'


class StampedFiles(NamedTuple):
    """The PNGs of a folder and their times."""

    stamps_ns: NDArray[Any]  # (N,) int64, ascending
    paths: list[Path]


class DsecFolder:
    """The left cameras of one sequence; its parts are read when they are asked for.

    Objects can be pickled. A part that is missing or damaged is a `BagError` that says which
    archive holds it.

    Args:
        path: the folder of the sequence.
        sensor: (height, width) [px], where the files do not state it.

    Attributes:
        path: the folder.
        events: its events, in raw pixels.

    Raises:
        BagError: events.h5 is missing or damaged.
    """

    def __init__(self, path: str | Path, sensor: tuple[int, int] | None = None) -> None:
        self.path = Path(path)
        self.events = Hdf5Events(self._left / 'events.h5', sensor, advice=self._get('events'))

    @functools.cached_property
    def calibration(self) -> DsecCalibration:
        """The calibration of the left pair."""
        path = self._calibration_path
        return read_dsec_calibration(path, self._get('calibration'))

    @functools.cached_property
    def images(self) -> StampedFiles:
        """The images of the left colour camera, rectified."""
        return _stamped_pngs(
            self.path / 'images' / 'left' / 'rectified',
            self.path / 'images' / 'timestamps.txt',
            self._get('images'),
        )

    @functools.cached_property
    def depth_maps(self) -> StampedFiles:
        """The disparity maps in the rectified view of the events."""
        return _stamped_pngs(
            self.path / 'disparity' / 'event',
            self.path / 'disparity' / 'timestamps.txt',
            self._get('disparity'),
        )

    def rectified_xy(self) -> NDArray[Any]:
        """(H, W, 2) where each raw pixel of the events lies in the rectified view."""
        return Hdf5File(self._left / 'rectify_map.h5', self._get('events')).whole('rectify_map')

    def image(self, index: int) -> NDArray[Any]:
        """(H, W, 3) uint8 RGB of image `index`."""
        return _read_png(self.images.paths[index], np.uint8, None, self._get('images'))

    def depth_m(self, index: int) -> NDArray[Any]:
        """(H, W) float32 metres of map `index`, NaN where nothing was measured."""
        camera = self.calibration.camera
        size = (camera.height, camera.width)
        path = self.depth_maps.paths[index]
        return self.calibration.depth_m(_read_png(path, np.uint16, size, self._get('disparity')))

    def series(self) -> list[Series]:
        """What lies beside the events, as topics; a part that is missing has no topic.

        Raises:
            BagError: a part is there, but damaged.
        """
        found = []
        has_images = _is_there(self.path / 'images', 'left/rectified')
        if has_images:
            found.append(image_series('/camera/image_rect', COLOUR_FRAME_ID,
                                      self.images.stamps_ns, self.image))  # fmt: skip
        if not self._calibration_path.is_file():
            return found
        cameras = self.calibration
        if cameras.raw is not None:
            found.append(info_series(INFO_TOPIC, FRAME_ID, info_ticks(self.events), cameras.raw))
        if has_images:
            found.append(info_series('/camera/camera_info', COLOUR_FRAME_ID,
                                     self.images.stamps_ns, cameras.colour))  # fmt: skip
        if _is_there(self.path / 'disparity', 'event'):
            stamps_ns = self.depth_maps.stamps_ns
            found.append(image_series(TRUTH_TOPIC, RECTIFIED_FRAME_ID, stamps_ns, self.depth_m))
            found.append(info_series(TRUTH_INFO_TOPIC, RECTIFIED_FRAME_ID, stamps_ns,
                                     cameras.camera))  # fmt: skip
        colour_in_raw = cameras.r_10.T @ cameras.r_rect1.T
        colour_origin_m = -cameras.r_10.T @ cameras.t_10_m
        found.append(
            static_series(self.events, RECTIFIED_FRAME_ID, cameras.r_rect0.T, np.zeros(3))
        )
        found.append(static_series(self.events, COLOUR_FRAME_ID, colour_in_raw, colour_origin_m))
        return found

    @property
    def _left(self) -> Path:
        return self.path / 'events' / 'left'

    @property
    def _calibration_path(self) -> Path:
        return self.path / 'calibration' / 'cam_to_cam.yaml'

    def _get(self, part: str) -> str:
        name = self.path.name
        return f'get train_{part}.zip (or the files of {name} alone) from {SITE}'


@dataclasses.dataclass(frozen=True)
class DsecCalibration:
    """What `cam_to_cam.yaml` says about the left pair.

    Attributes:
        camera: the rectified left event camera.
        raw: the same camera before rectification, with its lens; None if the file lacks it.
        colour: the rectified left colour camera.
        q23: Q[2][3] of `disparity_to_depth.cams_03`: its focal length [px].
        q32: Q[3][2]: one over the baseline [1/m].
        r_10: (3, 3) rotation of T_10, which takes points of camera 0 to camera 1.
        t_10_m: (3,) translation of T_10 [m].
        r_rect0: (3, 3) takes points of camera 0 to its rectified view.
        r_rect1: (3, 3) the same of camera 1.
    """

    camera: Camera
    raw: Camera | None
    colour: Camera
    q23: float
    q32: float
    r_10: NDArray[Any]
    t_10_m: NDArray[Any]
    r_rect0: NDArray[Any]
    r_rect1: NDArray[Any]

    @property
    def image_to_event(self) -> NDArray[Any]:
        """(3, 3) homography from rectified colour pixels to rectified event pixels.

        It is exact for a scene at infinity: x_r0 ~ K_r0 R_r0 R_10^T R_r1^T K_r1^-1 x_r1.
        """
        rotation = self.r_rect0 @ self.r_10.T @ self.r_rect1.T
        homography: NDArray[Any] = (
            self.camera.matrix @ rotation @ np.linalg.inv(self.colour.matrix)
        )
        return homography

    def depth_m(self, code: NDArray[Any]) -> NDArray[Any]:
        """Metres: Q[2][3] / (disparity * Q[3][2]), NaN where there is no disparity.

        Args:
            code: (H, W) uint16, disparity in 1/256 px, 0 unknown.
        """
        with np.errstate(divide='ignore'):
            depth_m = np.float32(self.q23 / self.q32 * 256) / code.astype(np.float32)
        return np.where(code > 0, depth_m, np.float32(np.nan))


def read_dsec_calibration(path: Path, advice: str) -> DsecCalibration:
    """Reads `cam_to_cam.yaml`: camera 0 is the left event camera, 1 the left colour camera.

    Raises:
        BagError: missing, unreadable or incomplete.
    """
    try:
        values = read_yaml(path)
        intrinsics, extrinsics = values['intrinsics'], values['extrinsics']
        t_10 = np.array(extrinsics['T_10'], np.float64)
        q = np.array(values['disparity_to_depth']['cams_03'], np.float64)
        calibration = DsecCalibration(
            camera=_camera(intrinsics['camRect0']),
            raw=_camera(intrinsics['cam0']) if 'cam0' in intrinsics else None,
            colour=_camera(intrinsics['camRect1']),
            q23=float(q[2, 3]),
            q32=float(q[3, 2]),
            r_10=t_10[:3, :3],
            t_10_m=t_10[:3, 3],
            r_rect0=np.array(extrinsics['R_rect0'], np.float64).reshape(3, 3),
            r_rect1=np.array(extrinsics['R_rect1'], np.float64).reshape(3, 3),
        )
    except OSError as error:
        raise BagError(f'{path} cannot be read ({error.strerror}): {advice}') from error
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise BagError(f'{path} is not a DSEC calibration ({error!r}): {advice}') from error
    if not (calibration.q23 > 0 and calibration.q32 > 0):
        raise BagError(
            f'{path}: Q[2][3] = {calibration.q23} and Q[3][2] = {calibration.q32}, '
            'expected both > 0'
        )
    return calibration


def _camera(values: dict[str, Any]) -> Camera:
    fx, fy, cx, cy = (float(v) for v in values['camera_matrix'])
    width, height = (int(v) for v in values['resolution'])
    distortion = tuple(float(v) for v in values.get('distortion_coeffs', ()))
    return Camera(width, height, fx, fy, cx, cy, 'plumb_bob', distortion)


def _is_there(folder: Path, pictures: str) -> bool:
    """Whether a folder holds pictures and their times."""
    return (folder / 'timestamps.txt').is_file() and any((folder / pictures).glob('*.png'))


def _stamped_pngs(folder: Path, stamps: Path, advice: str) -> StampedFiles:
    """The times [ns] of a `timestamps.txt` in us, and the PNGs that belong to them in order."""
    paths = visible(folder.glob('*.png'))
    try:
        stamps_ns = np.loadtxt(stamps, dtype=np.int64, ndmin=1) * 1000
    except (OSError, ValueError) as error:
        raise BagError(f'{stamps} cannot be read ({error}): {advice}') from error
    if len(paths) != len(stamps_ns):
        raise BagError(
            f'{folder} holds {len(paths)} PNGs, {stamps} {len(stamps_ns)} times: {advice}'
        )
    if (np.diff(stamps_ns) <= 0).any():
        raise BagError(f'{stamps} must hold times that rise: {advice}')
    return StampedFiles(stamps_ns, paths)


def _read_png(
    path: Path, dtype: type[np.generic], shape: tuple[int, int] | None, advice: str
) -> NDArray[Any]:
    """An image as stored; colour as RGB."""
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != dtype or shape not in (None, image.shape):
        found = 'nothing readable' if image is None else f'{image.dtype} {image.shape}'
        raise BagError(
            f'{path} holds {found}, expected a {np.dtype(dtype)} PNG'
            f'{"" if shape is None else f" of shape {shape}"}: {advice}'
        )
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
