"""Data sets whose events come with more: the files of DSEC, MVSEC and M3ED.

What stands in files of its own there becomes topics here, so that converting or replaying one
is the same as with a bag. A part that is missing is a topic that is missing.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spike_depth_ros.events.arrays import seconds_to_ns
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.recordings.h5_file import H5FileSource
from spike_depth_ros.recordings.messages import (
    CAMERA_INFO,
    IMAGE,
    TF,
    camera_info_cdr,
    image_cdr,
    quaternion,
    transform_cdr,
)
from spike_depth_ros.recordings.source import FRAME_ID, BagError, RawMessage, Topic

RECTIFIED_FRAME_ID = 'event_camera_rectified_optical_frame'
COLOUR_FRAME_ID = 'camera_rectified_optical_frame'
WORLD_FRAME_ID = 'map'
TRUTH_TOPIC = '/ground_truth/depth'
TRUTH_INFO_TOPIC = '/ground_truth/camera_info'
INFO_PERIOD_NS = 100_000_000


class Series(NamedTuple):
    """Messages of one topic whose times are known and whose content is read when asked for."""

    topic: str
    type: str
    stamps_ns: np.ndarray  # (N,) int64
    pack: Callable[[int, int], memoryview]  # index, stamp -> CDR


class DataSetSource(H5FileSource):
    """Events of an HDF5 file, and the series that belong to them."""

    def __init__(self, path: Path, topic: str | None, encoding: str) -> None:
        super().__init__(path, topic, encoding)
        try:
            self._series = self._find_series()
        except BaseException:
            self.close()
            raise
        self.topics += tuple(Topic(s.topic, s.type, len(s.stamps_ns)) for s in self._series)

    def _find_series(self) -> list[Series]:
        raise BagError(f'{self.path} has no series')  # each data set has its own

    def messages(
        self,
        topics: Collection[str] | None = None,
        start_ns: int = 0,
        duration_ns: int | None = None,
    ) -> Iterator[RawMessage]:
        """See `EventSource.messages`."""
        begin_ns = (self.start_ns or 0) + start_ns
        end_ns = None if duration_ns is None else begin_ns + duration_ns
        streams = [super().messages(topics, start_ns, duration_ns)]
        for series in self._series:
            if topics is not None and series.topic in topics:
                streams.append(_play(series, begin_ns if start_ns else None, end_ns))
        return heapq.merge(*streams, key=lambda message: message.stamp_ns)

    def _camera_series(self, topic: str, frame_id: str, camera: Camera) -> Series:
        """The calibration of the events, ten times a second."""
        return Series(
            topic,
            CAMERA_INFO,
            self._ticks_ns(),
            lambda index, stamp_ns: camera_info_cdr(stamp_ns, frame_id, camera),
        )

    def _static_series(self, child: str, rotation: np.ndarray, origin_m: np.ndarray) -> Series:
        """Where a frame is in that of the events, once."""
        q = quaternion(rotation)
        return Series(
            '/tf_static',
            TF,
            np.array([self.start_ns or 0]),
            lambda index, stamp_ns: transform_cdr(stamp_ns, FRAME_ID, child, origin_m, q),
        )

    def _ticks_ns(self) -> np.ndarray:
        start_ns, end_ns = self.start_ns or 0, self.end_ns or 0
        count = min(max(1, (end_ns - start_ns) // INFO_PERIOD_NS), 1 << 20)
        return start_ns + INFO_PERIOD_NS * np.arange(count)


class DsecFolderSource(DataSetSource):
    """A sequence folder in DSEC's layout."""

    def __init__(self, path: str | Path, topic: str | None = None, encoding: str = 'evt3') -> None:
        """Opens the folder's events.h5 and looks what lies beside it.

        Raises:
            BagError: events.h5 is unreadable.
            DatasetError: a calibration or a list of times is there, but damaged.
        """
        self._folder = Path(path)
        super().__init__(self._folder / 'events' / 'left' / 'events.h5', topic, encoding)
        self.path = self._folder

    def _find_series(self) -> list[Series]:
        from spike_depth_ros.learning.datasets.dsec import read_dsec_calibration

        path = self._folder / 'calibration' / 'cam_to_cam.yaml'
        calibration = read_dsec_calibration(path) if path.is_file() else None
        images = _stamped_files(self._folder / 'images' / 'left' / 'rectified',
                                self._folder / 'images' / 'timestamps.txt')  # fmt: skip
        maps = _stamped_files(self._folder / 'disparity' / 'event',
                              self._folder / 'disparity' / 'timestamps.txt')  # fmt: skip
        found = []
        if images is not None:
            found.append(_image_series('/camera/image_rect', COLOUR_FRAME_ID, *images))
        if calibration is None:
            return found
        cameras = _DsecCameras(path)
        found.append(self._camera_series('/event_camera/camera_info', FRAME_ID, cameras.raw))
        if images is not None:
            found.append(_info_series('/camera/camera_info', COLOUR_FRAME_ID, images[0],
                                      cameras.colour))  # fmt: skip
        if maps is not None:

            def depth(index: int, stamp_ns: int) -> memoryview:
                depth_m = calibration.depth_m(_read_image(maps[1][index]))
                return image_cdr(stamp_ns, RECTIFIED_FRAME_ID, depth_m)

            found.append(Series(TRUTH_TOPIC, IMAGE, maps[0], depth))
            found.append(_info_series(TRUTH_INFO_TOPIC, RECTIFIED_FRAME_ID, maps[0],
                                      calibration.camera))  # fmt: skip
        nowhere = np.zeros(3)
        found.append(self._static_series(RECTIFIED_FRAME_ID, cameras.rectified_in_raw, nowhere))
        found.append(self._static_series(COLOUR_FRAME_ID, cameras.colour_in_raw,
                                         cameras.colour_origin_m))  # fmt: skip
        return found


class MvsecSource(DataSetSource):
    """An MVSEC `NAME_data.hdf5`, with `NAME_gt.hdf5` and the scene's calibration beside it."""

    def __init__(self, path: str | Path, topic: str | None = None, encoding: str = 'evt3') -> None:
        """Opens the file of events and what lies beside it.

        Raises:
            BagError: a file is unreadable.
            DatasetError: the calibration is there, but damaged.
        """
        self._truth: Any = None
        super().__init__(Path(path), topic, encoding)

    def close(self) -> None:
        """See `EventSource.close`."""
        super().close()
        if self._truth is not None:
            self._truth.close()

    def _find_series(self) -> list[Series]:
        import h5py

        from spike_depth_ros.learning.datasets.mvsec import read_mvsec_calibration

        name = self.path.stem.removesuffix('_data')
        scene = name.rstrip('0123456789')
        truth = self.path.with_name(f'{name}_gt.hdf5')
        calibration = self.path.with_name(f'camchain-imucam-{scene}.yaml')
        found = _h5_series(self.events.file, 'davis/left/image_raw', '/event_camera/image_raw',
                           FRAME_ID)  # fmt: skip
        if truth.is_file():
            try:
                self._truth = h5py.File(truth, 'r')
            except OSError as error:
                raise BagError(f'cannot read {truth} as HDF5: {error}') from error
            found += _h5_series(self._truth, 'davis/left/depth_image_rect', TRUTH_TOPIC,
                                RECTIFIED_FRAME_ID)  # fmt: skip
            found += _pose_series(self._truth)
        if not calibration.is_file():
            return found
        cameras = read_mvsec_calibration(calibration)
        found.append(self._camera_series('/event_camera/camera_info', FRAME_ID, cameras.camera))
        found += [
            _info_series(TRUTH_INFO_TOPIC, RECTIFIED_FRAME_ID, s.stamps_ns, cameras.rectified)
            for s in found
            if s.topic == TRUTH_TOPIC
        ]
        found.append(self._static_series(RECTIFIED_FRAME_ID, cameras.rotation.T, np.zeros(3)))
        return found


class M3edSource(DataSetSource):
    """An M3ED `NAME_data.h5`: the left Prophesee camera and its calibration."""

    def __init__(self, path: str | Path, topic: str | None = None, encoding: str = 'evt3') -> None:
        """Opens the file.

        Raises:
            BagError: unreadable, or its calibration is damaged.
        """
        super().__init__(Path(path), topic, encoding)

    def _find_series(self) -> list[Series]:
        names = ('intrinsics', 'distortion_coeffs', 'resolution')
        group = 'prophesee/left/calib'
        if not all(f'{group}/{name}' in self.events.file for name in names):
            return []
        lens, distortion, size = (
            self.events.file[f'{group}/{name}'][:].tolist() for name in names
        )
        try:
            (fx, fy, cx, cy), (width, height) = lens, map(int, size)
            camera = Camera(width, height, fx, fy, cx, cy, 'plumb_bob', tuple(distortion))
        except (TypeError, ValueError) as error:
            raise BagError(f'{self.path}: {group} is no calibration: {error}') from error
        return [self._camera_series('/event_camera/camera_info', FRAME_ID, camera)]


class _DsecCameras:
    """What cam_to_cam.yaml tells beyond `DsecCalibration`: raw view, colour camera, frames."""

    def __init__(self, path: Path) -> None:
        import yaml

        values = yaml.safe_load(path.read_text(encoding='utf-8'))
        intrinsics, extrinsics = values['intrinsics'], values['extrinsics']
        try:
            self.raw = _dsec_camera(intrinsics['cam0'])
            self.colour = _dsec_camera(intrinsics['camRect1'])
            t_10 = np.array(extrinsics['T_10'], np.float64)
            r_0, r_1 = (np.array(extrinsics[f'R_rect{n}'], np.float64) for n in (0, 1))
        except (KeyError, TypeError, ValueError) as error:
            raise BagError(f'{path} is not a complete DSEC calibration: {error!r}') from error
        self.rectified_in_raw = r_0.T  # R_rect0 takes points of camera 0 to its rectified view
        self.colour_in_raw = t_10[:3, :3].T @ r_1.T  # T_10 takes points of camera 0 to 1
        self.colour_origin_m = -t_10[:3, :3].T @ t_10[:3, 3]


def _dsec_camera(values: dict[str, Any]) -> Camera:
    fx, fy, cx, cy = (float(v) for v in values['camera_matrix'])
    width, height = (int(v) for v in values['resolution'])
    distortion = tuple(float(v) for v in values.get('distortion_coeffs', ()))
    return Camera(width, height, fx, fy, cx, cy, 'plumb_bob', distortion)


def _play(series: Series, begin_ns: int | None, end_ns: int | None) -> Iterator[RawMessage]:
    for index, stamp in enumerate(series.stamps_ns):
        stamp_ns = int(stamp)
        if begin_ns is not None and stamp_ns < begin_ns:
            if series.topic != '/tf_static':
                continue
            stamp_ns = begin_ns  # it holds for whoever comes later too
        if end_ns is not None and stamp_ns >= end_ns:
            return
        yield RawMessage(series.topic, series.type, stamp_ns, series.pack(index, stamp_ns))


def _info_series(topic: str, frame_id: str, stamps_ns: np.ndarray, camera: Camera) -> Series:
    """The calibration of an image, beside every one of them."""
    return Series(
        topic,
        CAMERA_INFO,
        stamps_ns,
        lambda index, stamp_ns: camera_info_cdr(stamp_ns, frame_id, camera),
    )


def _image_series(topic: str, frame_id: str, stamps_ns: np.ndarray, files: list[Path]) -> Series:
    return Series(
        topic,
        IMAGE,
        stamps_ns,
        lambda index, stamp_ns: image_cdr(stamp_ns, frame_id, _read_image(files[index])),
    )


def _h5_series(file: Any, name: str, topic: str, frame_id: str) -> list[Series]:
    """The images of a (N, H, W) data set whose times [s] are in NAME_ts; none if it lacks it."""
    if name not in file or f'{name}_ts' not in file:
        return []
    images = file[name]
    stamps_ns = seconds_to_ns(file[f'{name}_ts'][:])

    def pack(index: int, stamp_ns: int) -> memoryview:
        return image_cdr(stamp_ns, frame_id, images[index])

    return [Series(topic, IMAGE, stamps_ns, pack)]


def _pose_series(file: Any) -> list[Series]:
    """davis/left/pose: (N, 4, 4), takes points of the camera to the world."""
    if 'davis/left/pose' not in file or 'davis/left/pose_ts' not in file:
        return []
    poses = file['davis/left/pose']

    def pack(index: int, stamp_ns: int) -> memoryview:
        pose = poses[index]
        q = quaternion(pose[:3, :3])
        return transform_cdr(stamp_ns, WORLD_FRAME_ID, FRAME_ID, pose[:3, 3], q)

    return [Series('/tf', TF, seconds_to_ns(file['davis/left/pose_ts'][:]), pack)]


def _stamped_files(folder: Path, stamps: Path) -> tuple[np.ndarray, list[Path]] | None:
    """Times [ns] from a file of us, and the PNGs they belong to; None if there are none."""
    files = sorted(folder.glob('*.png'))
    if not files or not stamps.is_file():
        return None
    try:
        stamps_ns = np.loadtxt(stamps, np.int64, ndmin=1) * 1000
    except ValueError as error:
        raise BagError(f'{stamps} is no list of times in us: {error}') from error
    if len(stamps_ns) != len(files):
        raise BagError(f'{stamps} has {len(stamps_ns)} times for {len(files)} PNGs in {folder}')
    return stamps_ns, files


def _read_image(path: Path) -> np.ndarray:
    """(H, W) as stored, or (H, W, 3) RGB."""
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise BagError(f'{path} is not a readable image: copy it anew')
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
