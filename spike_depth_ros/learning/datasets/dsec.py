"""DSEC: driving at 640x480 with LiDAR depth, straight from the downloaded files.

Events lie in raw pixels and are taken to the rectified view by `rectify_map.h5`, where the
disparity maps live. Only the window that is asked for is read (`ms_to_idx`), piece by piece.
Source: Gehrig et al., RA-L 2021, and https://dsec.ifi.uzh.ch/data-format/.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from spike_depth_ros.events.arrays import EVENT_DTYPE
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.compiled import compiled
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

SITE = 'https://dsec.ifi.uzh.ch/dsec-datasets/download/'
FOUND = 'found'
"""The split that takes every sequence that lies in the folder, as for synthetic drives."""
PIECE_EVENTS = 1 << 21
"""Events in memory at a time: 2 Mi, 27 MB."""
IMAGE_TOLERANCE_NS = 30_000_000
IMAGE_OVERSAMPLING = 2
"""The colour camera has twice the focal length: it is warped to twice the size, then averaged."""


@dataclasses.dataclass(frozen=True)
class DsecConfig:
    """What to read of DSEC, and how.

    Attributes:
        root: folder that holds the sequences, or `train/` with the sequences.
        split: a list of `learning/datasets/splits` (all_41, train_29, evaluation_12,
            train_31, validation_10, night), the path of such a file, or 'found' for every
            sequence in the folder.
        clip_windows: windows per clip; the last one ends at a depth map.
        stride: one clip for each `stride`-th depth map.
        images: also load the colour image, warped to the event view, for a teacher.
        spikes: how events become spikes.
    """

    root: str
    split: str = 'train_29'
    clip_windows: int = 1
    stride: int = 1
    images: bool = False
    spikes: SpikeConfig = dataclasses.field(default_factory=SpikeConfig)


def open_dsec(config: DsecConfig) -> Clips:
    """Opens the sequences of a split.

    Raises:
        DatasetError: no such split, or a file is missing or damaged.
    """
    if config.split == 'test_12':
        raise DatasetError(
            'split test_12 is the official test set, whose depth is not public: nothing can be '
            'trained or measured on it. Its events can be played (spike_depth replay FOLDER)'
        )
    root = Path(config.root)
    folder = root / 'train' if (root / 'train').is_dir() else root
    names = _found(folder) if config.split == FOUND else read_split(config.split)
    return Clips(
        (DsecSequence(folder / name, config.spikes, config.images) for name in names),
        config.clip_windows,
        config.stride,
    )


@functools.cache
def read_split(split: str) -> tuple[str, ...]:
    """Sequence names of a split: one per line, `#` starts a comment.

    Args:
        split: a name in `spike_depth_ros/learning/datasets/splits` or the path of a text file.

    Raises:
        DatasetError: neither of the two.
    """
    shipped = importlib.resources.files('spike_depth_ros.learning.datasets') / 'splits'
    if (shipped / f'{split}.txt').is_file():
        text = (shipped / f'{split}.txt').read_text(encoding='utf-8')
    elif Path(split).is_file():
        text = Path(split).read_text(encoding='utf-8')
    else:
        known = sorted(p.name.removesuffix('.txt') for p in shipped.iterdir())
        raise DatasetError(f'split {split!r} is neither a file nor one of {[FOUND, *known]}')
    lines = (line.partition('#')[0].strip() for line in text.splitlines())
    return tuple(line for line in lines if line)


class EventsH5:
    """Events of an `events.h5`, by time and in any order; memory does not depend on its length.

    This is for windows at random, in data loaders that fork; `bags.h5_file.EventFile` reads
    files of several layouts from their start to their end.

    Args:
        path: the file.
        advice: what to download if it is missing or damaged.
    """

    def __init__(self, path: Path, advice: str) -> None:
        self._file = Hdf5File(path, advice)

    @functools.cached_property
    def t_offset_us(self) -> int:
        """What to add to the times in the file to get the clock of images and depth."""
        return self._file.scalar('t_offset')

    @functools.cached_property
    def start_ns(self) -> int:
        """Absolute time of the first event."""
        if not self._file.length('events/t'):
            raise self._file.damaged('holds no events')
        return (int(self._file.row('events/t', 0)) + self.t_offset_us) * 1000

    @functools.cached_property
    def end_ns(self) -> int:
        """Absolute time of the last event."""
        last = self._file.length('events/t') - 1
        return (int(self._file.row('events/t', last)) + self.t_offset_us) * 1000

    def pieces(self, t0_ns: int, t1_ns: int) -> Iterator[np.ndarray]:
        """Yields the events of the absolute times [t0, t1) as arrays of `EVENT_DTYPE`."""
        offset_ns = self.t_offset_us * 1000
        start, stop = self._span(t0_ns - offset_ns, t1_ns - offset_ns)
        for first in range(start, stop, PIECE_EVENTS):
            last = min(first + PIECE_EVENTS, stop)
            t_us, x, y, p = (self._file.rows(f'events/{name}', first, last) for name in 'txyp')
            events = np.empty(last - first, EVENT_DTYPE)
            yield events[: _pack(t_us, x, y, p, offset_ns, t0_ns, t1_ns, events)]

    def _span(self, t0_ns: int, t1_ns: int) -> tuple[int, int]:
        """Rows that cover the times [t0, t1) of the file's own clock.

        One millisecond is read beyond the end: sensors step back in time by microseconds, so
        an event of this window may stand after the first one of the next.
        """
        entries, total = self._file.length('ms_to_idx'), self._file.length('events/t')
        first_ms = min(max(t0_ns // 1_000_000, 0), entries - 1)
        last_ms = -(-t1_ns // 1_000_000) + 1
        if t1_ns <= 0:
            return 0, 0
        if entries < 1:
            raise self._file.damaged('has an empty index ms_to_idx')
        start = int(self._file.row('ms_to_idx', first_ms))
        stop = int(self._file.row('ms_to_idx', last_ms)) if last_ms < entries else total
        fits = 0 <= start <= stop <= total
        if fits and start < stop:
            fits = self._file.row('events/t', start) >= first_ms * 1000
        if fits and stop < total:
            fits = self._file.row('events/t', stop) >= (last_ms - 1) * 1000
        if not fits:
            raise self._file.damaged(f'has an index ms_to_idx that does not fit at {first_ms} ms')
        return start, stop


class DsecSequence:
    """One recording in DSEC's layout (a `DepthSequence`).

    Args:
        folder: the recording.
        config: how events become spikes.
        images: whether colour images are wanted.
    """

    def __init__(self, folder: Path, config: SpikeConfig, images: bool = False) -> None:
        self._folder = folder
        self._config = config
        self._with_images = images
        self._events = EventsH5(
            folder / 'events' / 'left' / 'events.h5', _get('train_events.zip', folder.name)
        )
        calibration = read_dsec_calibration(folder / 'calibration' / 'cam_to_cam.yaml')
        self._calibration = calibration
        maps = _stamped_pngs(
            folder / 'disparity' / 'event',
            folder / 'disparity' / 'timestamps.txt',
            _get('train_disparity.zip', folder.name),
        )
        # before the first map there are no events
        self.stamps_ns, self._disparities = maps[0][1:], maps[1][1:]
        self.window_ns = config.window_ns

    @functools.cached_property
    def start_ns(self) -> int:
        """Absolute time of the first event."""
        return self._events.start_ns

    @property
    def end_ns(self) -> int:
        """Absolute time of the last event."""
        return self._events.end_ns

    @functools.cached_property
    def pixels(self) -> PixelMap:
        """Raw sensor pixels to the rectified grid of the network."""
        camera = self._calibration.camera
        path = self._folder / 'events' / 'left' / 'rectify_map.h5'
        rectify = Hdf5File(path, _get('train_events.zip', self._folder.name))
        return pixel_map(
            camera.height, camera.width, self._config, rectified_xy=rectify.whole('rectify_map')
        )

    def spikes(self, t0_ns: int, t1_ns: int) -> tuple[np.ndarray, int]:
        """The spikes of [t0, t1) and the number of events in it."""
        pieces = self._events.pieces(t0_ns, t1_ns)
        try:
            return spikes_of(pieces, t0_ns, t1_ns, self._config, self.pixels)
        except DatasetError:
            raise
        except ValueError as error:
            advice = _get('train_events.zip', self._folder.name)
            raise DatasetError(f'{self._folder}: {error}; {advice}') from error

    def depth_m(self, index: int) -> np.ndarray:
        """Metres of map `index`, NaN where nothing was measured."""
        path = self._disparities[index]
        camera = self._calibration.camera
        size = (camera.height, camera.width)
        advice = _get('train_disparity.zip', self._folder.name)
        raw = _read_png(path, np.uint16, size, advice)
        return self._calibration.depth_m(raw)

    def image(self, stamp_ns: int) -> np.ndarray | None:
        """The colour image nearest in time, as the rectified event camera would see it."""
        if not self._with_images:
            return None
        stamps_ns, paths = self._images
        nearest = nearest_stamp(stamps_ns, stamp_ns, IMAGE_TOLERANCE_NS)
        if nearest is None:
            return None
        import cv2

        advice = _get('train_images.zip', self._folder.name)
        image = _read_png(paths[nearest], np.uint8, None, advice)
        camera = self._calibration.camera
        zoom = IMAGE_OVERSAMPLING
        zoomed = np.array([[zoom, 0, (zoom - 1) / 2], [0, zoom, (zoom - 1) / 2], [0, 0, 1]])
        warped = cv2.warpPerspective(
            image,
            zoomed @ self._calibration.image_to_event,
            (camera.width * zoom, camera.height * zoom),
        )
        return bin_image(warped, zoom * self.pixels.factor)

    def meta(self) -> dict[str, Any]:
        """What all samples of the recording share."""
        name = self._folder.name
        shared = grid_meta('dsec', name, self._calibration.camera, self.pixels)
        known = name in read_split('all_41')
        return shared | {'night': name in read_split('night') if known else None}

    @functools.cached_property
    def _images(self) -> tuple[np.ndarray, list[Path]]:
        return _stamped_pngs(
            self._folder / 'images' / 'left' / 'rectified',
            self._folder / 'images' / 'timestamps.txt',
            _get('train_images.zip', self._folder.name),
        )


@compiled()
def _pack(t_us, x, y, p, offset_ns, t0_ns, t1_ns, events):
    """Writes the events of [t0, t1) to the front of `events`; returns how many."""
    count = 0
    for i in range(len(t_us)):
        t_ns = np.int64(t_us[i]) * 1000 + offset_ns
        if t0_ns <= t_ns < t1_ns:
            event = events[count]
            event['t_ns'], event['x'], event['y'], event['p'] = t_ns, x[i], y[i], p[i] != 0
            count += 1
    return count


@dataclasses.dataclass(frozen=True)
class DsecCalibration:
    """What `cam_to_cam.yaml` says about the left pair.

    Attributes:
        camera: the rectified left event camera.
        q23: Q[2][3] of `disparity_to_depth.cams_03`: its focal length [px].
        q32: Q[3][2]: one over the baseline [1/m].
        image_to_event: (3, 3) homography from rectified colour pixels to rectified event
            pixels, exact for a scene at infinity.
    """

    camera: Camera
    q23: float
    q32: float
    image_to_event: np.ndarray

    def depth_m(self, code: np.ndarray) -> np.ndarray:
        """Metres: Q[2][3] / (disparity * Q[3][2]), NaN where there is no disparity.

        Args:
            code: (H, W) uint16, disparity in 1/256 px, 0 unknown.
        """
        with np.errstate(divide='ignore'):
            depth_m = np.float32(self.q23 / self.q32 * 256) / code.astype(np.float32)
        return np.where(code > 0, depth_m, np.float32(np.nan))


def read_dsec_calibration(path: Path) -> DsecCalibration:
    """Reads `cam_to_cam.yaml`: camera 0 is the left event camera, 1 the left colour camera.

    x_r0 ~ K_r0 R_r0 R_10^T R_r1^T K_r1^-1 x_r1, where T_10 takes points of 0 to 1.

    Raises:
        DatasetError: missing, unreadable or incomplete.
    """
    import yaml

    advice = _get('train_calibration.zip', path.parents[1].name)
    try:
        values = yaml.safe_load(path.read_text(encoding='utf-8'))
        intrinsics, extrinsics = values['intrinsics'], values['extrinsics']
        event, colour = (_matrix(intrinsics[f'camRect{n}']['camera_matrix']) for n in (0, 1))
        width, height = (int(n) for n in intrinsics['camRect0']['resolution'])
        q = np.array(values['disparity_to_depth']['cams_03'], np.float64)
        r_10 = np.array(extrinsics['T_10'], np.float64)[:3, :3]
        r_0, r_1 = (np.array(extrinsics[f'R_rect{n}'], np.float64) for n in (0, 1))
        homography = event @ r_0 @ r_10.T @ r_1.T @ np.linalg.inv(colour)
        camera = Camera(width, height, event[0, 0], event[1, 1], event[0, 2], event[1, 2])
        q23, q32 = float(q[2, 3]), float(q[3, 2])
    except OSError as error:
        raise DatasetError(f'{path} cannot be read ({error.strerror}): {advice}') from error
    except (
        KeyError, TypeError, ValueError, IndexError, OverflowError, yaml.YAMLError
    ) as error:  # fmt: skip
        raise DatasetError(f'{path} is not a DSEC calibration ({error!r}): {advice}') from error
    if not (q23 > 0 and q32 > 0):
        raise DatasetError(f'{path}: Q[2][3] = {q23} and Q[3][2] = {q32}, expected both > 0')
    return DsecCalibration(camera, q23, q32, homography)


def _matrix(camera_matrix: list[float]) -> np.ndarray:
    fx, fy, cx, cy = (float(number) for number in camera_matrix)
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def _get(archive: str, name: str) -> str:
    return f'get {archive} (or the files of {name} alone) from {SITE}'


def _found(folder: Path) -> list[str]:
    names = sorted(p.name for p in folder.glob('*') if (p / 'events' / 'left').is_dir())
    if not names:
        raise DatasetError(f'{folder} holds no sequence in DSEC layout: get one from {SITE}')
    return names


def _stamped_pngs(folder: Path, stamps: Path, advice: str) -> tuple[np.ndarray, list[Path]]:
    """The times [ns] of a `timestamps.txt` in us, and the PNGs that belong to them in order."""
    paths = sorted(folder.glob('*.png'))
    try:
        stamps_ns = np.loadtxt(stamps, dtype=np.int64, ndmin=1) * 1000
    except (OSError, ValueError) as error:
        raise DatasetError(f'{stamps} cannot be read ({error}): {advice}') from error
    if len(paths) != len(stamps_ns):
        raise DatasetError(
            f'{folder} holds {len(paths)} PNGs, {stamps} {len(stamps_ns)} times: {advice}'
        )
    if len(stamps_ns) < 2 or (np.diff(stamps_ns) <= 0).any():
        raise DatasetError(f'{stamps} must hold at least two times that rise: {advice}')
    return stamps_ns, paths


def _read_png(path: Path, dtype: type, shape: tuple[int, int] | None, advice: str) -> np.ndarray:
    """An image as stored; colour as RGB."""
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != dtype or shape not in (None, image.shape):
        found = 'nothing readable' if image is None else f'{image.dtype} {image.shape}'
        raise DatasetError(
            f'{path} holds {found}, expected a {np.dtype(dtype)} PNG'
            f'{"" if shape is None else f" of shape {shape}"}: {advice}'
        )
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
