"""DSEC as a data set: driving at 640x480 with LiDAR depth, read from the downloaded files.

Events have raw pixel coordinates and are moved to the rectified view by `rectify_map.h5`; the
disparity maps are in that view. The files are read by `recordings.dsec`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
from pathlib import Path
from typing import Any

import numpy as np

from spike_depth_ros.events.config import SpikeConfig
from spike_depth_ros.events.spikes import PixelMap, pixel_map
from spike_depth_ros.learning.datasets.sample import (
    Clips,
    DatasetError,
    bin_image,
    grid_meta,
    nearest_stamp,
    spikes_of,
)
from spike_depth_ros.recordings.dsec import SITE, DsecFolder
from spike_depth_ros.recordings.source import BagError

FOUND = 'found'
"""The split that contains every sequence in the folder, for example synthetic drives."""
IMAGE_TOLERANCE_NS = 30_000_000
IMAGE_OVERSAMPLING = 2
"""The colour camera has twice the focal length, so it is warped at double size, then averaged."""


@dataclasses.dataclass(frozen=True)
class DsecConfig:
    """Configuration of DSEC.

    Attributes:
        root: folder that holds the sequences, or `train/` with the sequences.
        split: a list of `learning/datasets/splits` (all_41, train_29, evaluation_12, train_31,
            validation_10, night), the path of such a file, or 'found' for every sequence in the
            folder.
        clip_windows: windows per clip; the last one ends at a depth map.
        stride: one clip for each `stride`-th depth map.
        images: also load the colour image, warped to the event view, for a teacher.
        spikes: conversion of events to spikes.
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
        DatasetError: the split does not exist.
        BagError: a file is missing or damaged.
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
    """Returns the sequence names of a split file: one per line, `#` starts a comment.

    Args:
        split: a name in `spike_depth_ros/learning/datasets/splits` or the path of a text file.

    Raises:
        DatasetError: it is neither of the two.
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


class DsecSequence:
    """One recording in DSEC's layout (a `DepthSequence`).

    Args:
        folder: the recording.
        config: conversion of events to spikes.
        images: True to load colour images.
    """

    def __init__(self, folder: Path, config: SpikeConfig, images: bool = False) -> None:
        self._files = DsecFolder(folder)
        self._config = config
        self._with_images = images
        self._calibration = self._files.calibration
        if len(self._files.depth_maps.stamps_ns) < 2:
            raise BagError(f'{folder} has fewer than two disparity maps: get its train_disparity')
        # before the first map there are no events
        self.stamps_ns = self._files.depth_maps.stamps_ns[1:]
        self.window_ns = config.window_ns

    @property
    def start_ns(self) -> int:
        """Returns the absolute time of the first event."""
        return self._files.events.start_ns

    @property
    def end_ns(self) -> int:
        """Returns the absolute time of the last event."""
        return self._files.events.end_ns

    @functools.cached_property
    def pixels(self) -> PixelMap:
        """Returns the map from raw sensor pixels to the rectified grid of the network."""
        camera = self._calibration.camera
        xy = self._files.rectified_xy()
        return pixel_map(camera.height, camera.width, self._config, rectified_xy=xy)

    def spikes(self, t0_ns: int, t1_ns: int) -> tuple[np.ndarray, int]:
        """Returns the spikes of [t0, t1) and the number of events in it."""
        pieces = self._files.events.pieces(t0_ns, t1_ns)
        return spikes_of(pieces, t0_ns, t1_ns, self._config, self.pixels)

    def depth_m(self, index: int) -> np.ndarray:
        """Returns map `index` in metres, NaN where nothing was measured."""
        return self._files.depth_m(index + 1)

    def image(self, stamp_ns: int) -> np.ndarray | None:
        """Returns the colour image nearest in time, warped to the rectified event camera."""
        if not self._with_images:
            return None
        nearest = nearest_stamp(self._files.images.stamps_ns, stamp_ns, IMAGE_TOLERANCE_NS)
        if nearest is None:
            return None
        import cv2

        camera = self._calibration.camera
        zoom = IMAGE_OVERSAMPLING
        zoomed = np.array([[zoom, 0, (zoom - 1) / 2], [0, zoom, (zoom - 1) / 2], [0, 0, 1]])
        warped = cv2.warpPerspective(
            self._files.image(nearest),
            zoomed @ self._calibration.image_to_event,
            (camera.width * zoom, camera.height * zoom),
        )
        return bin_image(warped, zoom * self.pixels.factor)

    def meta(self) -> dict[str, Any]:
        """Returns the metadata shared by all samples of the recording."""
        name = self._files.path.name
        shared = grid_meta('dsec', name, self._calibration.camera, self.pixels)
        known = name in read_split('all_41')
        return shared | {'night': name in read_split('night') if known else None}


def _found(folder: Path) -> list[str]:
    names = sorted(p.name for p in folder.glob('*') if (p / 'events' / 'left').is_dir())
    if not names:
        raise DatasetError(
            f'{folder} holds no sequence in the layout of DSEC: download one from {SITE}'
        )
    return names
