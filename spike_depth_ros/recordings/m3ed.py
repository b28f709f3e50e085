"""M3ED: the left Prophesee camera at 1280x720, with LiDAR depth and poses.

Files of a recording (Chaney et al., CVPRW 2023): `NAME_data.h5` with `prophesee/left/{x,y,t,p}`
and `calib`; `NAME_depth_gt.h5` with `depth/prophesee/left` (N, 720, 1280) metres in the raw,
distorted view of the events, +inf where nothing was measured, `ts` (N,) us of the events' clock,
and `Cn_T_C0` (N, 4, 4), which takes points of the first camera pose to the n-th.
Source: github.com/daniilidis-group/m3ed, build_system/lidar_depth.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.events.camera import Camera
from spike_depth_ros.recordings.array_source import (
    INFO_TOPIC,
    TRUTH_INFO_TOPIC,
    TRUTH_TOPIC,
    Series,
    image_series,
    info_series,
    info_ticks,
    odometry_series,
    pose_series,
)
from spike_depth_ros.recordings.hdf5 import Hdf5File
from spike_depth_ros.recordings.hdf5_events import Hdf5Events
from spike_depth_ros.recordings.source import FRAME_ID, BagError

SITE = 'https://m3ed.io/download/'
DEPTH, STAMPS, POSE = 'depth/prophesee/left', 'ts', 'Cn_T_C0'
CALIBRATION = 'prophesee/left/calib'


class M3edFiles:
    """The left event camera of one recording; its parts are read when they are asked for.

    Objects can be pickled. A part that is missing or damaged is a `BagError` that says where to
    get it.

    Args:
        path: the `NAME_data.h5`; `NAME_depth_gt.h5` lies beside it.
        sensor: (height, width) [px] that the user states.

    Attributes:
        name: the recording, such as car_urban_day_horse.
        events: its events, in raw pixels.

    Raises:
        BagError: the file is missing or damaged.
    """

    def __init__(self, path: str | Path, sensor: tuple[int, int] | None = None) -> None:
        self.path = Path(path)
        self.name = self.path.stem.removesuffix('_data')
        self.events = Hdf5Events(self.path, sensor, advice=f'get {self.path.name} from {SITE}')

    @functools.cached_property
    def camera(self) -> Camera:
        """The event camera with its lens; depth is in the same view."""
        file = self.events.file
        try:
            fx, fy, cx, cy = file.whole(f'{CALIBRATION}/intrinsics').tolist()
            distortion = file.whole(f'{CALIBRATION}/distortion_coeffs').tolist()
            height, width = self.events.geometry
            return Camera(width, height, fx, fy, cx, cy, 'plumb_bob', tuple(distortion))
        except (TypeError, ValueError) as error:
            raise BagError(f'{self.path}: {CALIBRATION} is no calibration: {error}') from error

    @functools.cached_property
    def truth(self) -> Hdf5File:
        """The file of depth and poses."""
        return Hdf5File(self._truth_path, f'get {self._truth_path.name} from {SITE}')

    @functools.cached_property
    def depth_stamps_ns(self) -> NDArray[Any]:
        """(N,) times of the depth maps and poses, of the events' clock."""
        stamps_ns: NDArray[Any] = np.rint(self.truth.whole(STAMPS)).astype(np.int64) * 1000
        if (np.diff(stamps_ns) <= 0).any():
            raise self.truth.damaged('has depth times that do not rise')
        return stamps_ns

    def depth_m(self, index: int) -> NDArray[Any]:
        """(H, W) float32 metres of map `index`, NaN where the LiDAR saw nothing."""
        depth_m = np.array(self.truth.row(DEPTH, index), np.float32)
        if depth_m.shape != self.events.geometry:
            raise self.truth.damaged(f'holds depth of shape {depth_m.shape}')
        depth_m[~((depth_m > 0) & np.isfinite(depth_m))] = np.nan
        return depth_m

    def pose(self, index: int) -> NDArray[Any]:
        """(4, 4) takes points of the camera at map `index` to its first pose."""
        return np.linalg.inv(np.asarray(self.truth.row(POSE, index), np.float64))

    def series(self) -> list[Series]:
        """What lies beside the events, as topics; a part that is missing has no topic.

        Raises:
            BagError: a part is there, but damaged.
        """
        found = []
        names = ('intrinsics', 'distortion_coeffs')
        has_camera = all(f'{CALIBRATION}/{name}' in self.events.file for name in names)
        if has_camera:
            ticks_ns = info_ticks(self.events)
            found.append(info_series(INFO_TOPIC, FRAME_ID, ticks_ns, self.camera))
        if not self._truth_path.is_file():
            return found
        if DEPTH in self.truth:
            stamps_ns = self.depth_stamps_ns
            found.append(image_series(TRUTH_TOPIC, FRAME_ID, stamps_ns, self.depth_m))
            if has_camera:
                found.append(info_series(TRUTH_INFO_TOPIC, FRAME_ID, stamps_ns, self.camera))
        if POSE in self.truth:
            found += [
                pose_series(self.depth_stamps_ns, self.pose),
                odometry_series(self.depth_stamps_ns, self.pose),
            ]
        return found

    @property
    def _truth_path(self) -> Path:
        return self.path.with_name(f'{self.name}_depth_gt.h5')
