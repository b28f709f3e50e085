"""MVSEC: a DAVIS at 346x260 on a car, a motorcycle and a hexacopter, with LiDAR depth at 20 Hz.

Files of a recording (Zhu et al., RA-L 2018): `NAME_data.hdf5` with `davis/left/events` (N, 4)
columns x, y, t [s], p; `NAME_gt.hdf5` with `davis/left/depth_image_rect` (M, H, W) metres and NaN;
and the calibration of its scene, `camchain-imucam-SCENE.yaml`. Events are raw, depth is rectified:
events are moved to the rectified view by the calibration.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from spike_depth_ros.events.arrays import make_events, seconds_to_ns
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.config import SpikeConfig
from spike_depth_ros.events.spikes import PixelMap, pixel_map
from spike_depth_ros.learning.datasets.hdf5 import Hdf5File
from spike_depth_ros.learning.datasets.sample import (
    Clips,
    DatasetError,
    bin_image,
    grid_meta,
    nearest_stamp,
    spikes_of,
)

SITE = 'https://daniilidis-group.github.io/mvsec/download/'
PIECE_EVENTS = 1 << 20
IMAGE_TOLERANCE_NS = 40_000_000
SPLITS: dict[str, tuple[str, ...]] = {
    'train': ('outdoor_day2',),
    'test': ('outdoor_day1', 'outdoor_night1', 'outdoor_night2', 'outdoor_night3'),
    'indoor': ('indoor_flying1', 'indoor_flying2', 'indoor_flying3'),
}
"""Who trains and tests on what: outdoors as in E2Depth (3DV 2020)."""


@dataclasses.dataclass(frozen=True)
class MvsecConfig:
    """What to read of MVSEC, and how.

    Attributes:
        root: folder that holds the files of a scene, or a folder per scene with them.
        split: train, test or indoor; or one recording's name, such as indoor_flying4.
        clip_windows: windows per clip; the last one ends at a depth map.
        stride: one clip for each `stride`-th depth map.
        images: also load the grey image as three channels, rectified, for a teacher.
        spikes: how events become spikes.
    """

    root: str
    split: str = 'train'
    clip_windows: int = 1
    stride: int = 1
    images: bool = False
    spikes: SpikeConfig = dataclasses.field(default_factory=SpikeConfig)


@dataclasses.dataclass(frozen=True)
class MvsecCalibration:
    """The left DAVIS: raw intrinsics K and D, and the rectified view R and P."""

    camera: Camera  # raw, equidistant
    rotation: np.ndarray  # (3, 3) raw to rectified
    rectified: Camera

    def rectified_xy(self) -> np.ndarray:
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

    def rectify(self, image: np.ndarray) -> np.ndarray:
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
    def _coefficients(self) -> np.ndarray:
        return np.array(self.camera.distortion)


class MvsecSequence:
    """One MVSEC recording (a `DepthSequence`).

    Args:
        root: see `MvsecConfig.root`.
        name: the recording, such as outdoor_day1.
        config: what to read, and how.
    """

    def __init__(self, root: Path, name: str, config: MvsecConfig) -> None:
        scene = name.rstrip('0123456789')
        self._name = name
        self._config = config
        self._data = _open(root, scene, f'{name}_data.hdf5')
        self._truth = _open(root, scene, f'{name}_gt.hdf5')
        self._calibration = read_mvsec_calibration(
            _locate(root, scene, f'camchain-imucam-{scene}.yaml')
        )
        self.stamps_ns = seconds_to_ns(self._truth.whole('davis/left/depth_image_rect_ts'))
        if (np.diff(self.stamps_ns) <= 0).any():
            raise self._truth.damaged('has depth times that do not rise')
        self.window_ns = config.spikes.window_ns
        self._times: dict[int, float] = {}

    @functools.cached_property
    def start_ns(self) -> int:
        """Time of the first event."""
        if not self._count:
            raise self._data.damaged('holds no events')
        return int(seconds_to_ns(self._time_s(0)))

    @functools.cached_property
    def end_ns(self) -> int:
        """Time of the last event."""
        return int(seconds_to_ns(self._time_s(self._count - 1)))

    @functools.cached_property
    def pixels(self) -> PixelMap:
        """Raw sensor pixels to the rectified grid of the network."""
        camera = self._calibration.camera
        xy = self._calibration.rectified_xy()
        return pixel_map(camera.height, camera.width, self._config.spikes, rectified_xy=xy)

    def spikes(self, t0_ns: int, t1_ns: int) -> tuple[np.ndarray, int]:
        """The spikes of [t0, t1) and the number of events in it."""
        config = self._config.spikes
        return spikes_of(self._pieces(t0_ns, t1_ns), t0_ns, t1_ns, config, self.pixels)

    def depth_m(self, index: int) -> np.ndarray:
        """Metres of map `index`, rectified; NaN where the LiDAR saw nothing."""
        camera = self._calibration.camera
        depth_m = np.array(self._truth.row('davis/left/depth_image_rect', index), np.float32)
        if depth_m.shape != (camera.height, camera.width):
            raise self._truth.damaged(f'holds depth of shape {depth_m.shape}')
        depth_m[~(depth_m > 0)] = np.nan
        return depth_m

    def image(self, stamp_ns: int) -> np.ndarray | None:
        """The grey image nearest in time, rectified, as RGB."""
        if not self._config.images:
            return None
        nearest = nearest_stamp(self._image_stamps_ns, stamp_ns, IMAGE_TOLERANCE_NS)
        if nearest is None:
            return None
        grey = self._calibration.rectify(self._data.row('davis/left/image_raw', nearest))
        return bin_image(np.repeat(grey[..., None], 3, axis=2), self.pixels.factor)

    def meta(self) -> dict[str, Any]:
        """What all samples of the recording share."""
        shared = grid_meta('mvsec', self._name, self._calibration.rectified, self.pixels)
        return shared | {'night': 'night' in self._name}

    @functools.cached_property
    def _count(self) -> int:
        return self._data.length('davis/left/events')

    @functools.cached_property
    def _image_stamps_ns(self) -> np.ndarray:
        return seconds_to_ns(self._data.whole('davis/left/image_raw_ts'))

    def _pieces(self, t0_ns: int, t1_ns: int) -> Iterator[np.ndarray]:
        start, stop = self._index_at(t0_ns), self._index_at(t1_ns)
        camera = self._calibration.camera
        for first in range(start, stop, PIECE_EVENTS):
            table = self._data.rows('davis/left/events', first, min(first + PIECE_EVENTS, stop))
            if table.ndim != 2 or table.shape[1] < 4:
                raise self._data.damaged(f'holds events of shape {table.shape}')
            x, y = table[:, 0], table[:, 1]
            inside = (x >= 0) & (x < camera.width) & (y >= 0) & (y < camera.height)
            if not inside.all():
                raise self._data.damaged(f'holds events off the sensor after event {first}')
            t_ns = seconds_to_ns(table[:, 2])
            yield make_events(t_ns, x.astype(np.uint16), y.astype(np.uint16), table[:, 3] > 0)

    def _index_at(self, t_ns: int) -> int:
        """Index of the first event at or after `t_ns`, by bisection in the file."""
        low, high = 0, self._count
        while low < high:
            middle = (low + high) // 2
            if seconds_to_ns(self._time_s(middle)) < t_ns:
                low = middle + 1
            else:
                high = middle
        return low

    def _time_s(self, index: int) -> float:
        """Time of one event; the first probes of every bisection are the same and are kept."""
        if index not in self._times:
            if len(self._times) > 1 << 16:
                self._times.clear()
            self._times[index] = float(self._data.row('davis/left/events', index)[2])
        return self._times[index]


def open_mvsec(config: MvsecConfig) -> Clips:
    """Opens the recordings of a split; `DatasetError` names what is missing."""
    names = SPLITS.get(config.split, (config.split,))
    root = Path(config.root)
    return Clips(
        (MvsecSequence(root, name, config) for name in names), config.clip_windows, config.stride
    )


def read_mvsec_calibration(path: Path) -> MvsecCalibration:
    """Reads the left camera of a `camchain-imucam-SCENE.yaml` (Kalibr, with R and P added).

    Raises:
        DatasetError: unreadable or incomplete.
    """
    import yaml

    try:
        left = yaml.safe_load(path.read_text(encoding='utf-8'))['cam0']
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
    except (
        OSError, KeyError, TypeError, ValueError, IndexError, OverflowError, yaml.YAMLError
    ) as error:  # fmt: skip
        raise DatasetError(
            f'{path} is not a calibration of MVSEC ({error!r}): get it from {SITE}'
        ) from error


def _locate(root: Path, scene: str, file: str) -> Path:
    """The first place where a file of a scene may lie, or the one where it should."""
    places = [root / scene / file, root / file, root / scene / f'{scene}_calib' / file]
    return next((place for place in places if place.is_file()), places[0])


def _open(root: Path, scene: str, file: str) -> Hdf5File:
    return Hdf5File(_locate(root, scene, file), f'get {file} from {SITE}')
