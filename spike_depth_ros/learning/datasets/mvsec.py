"""MVSEC as a data set: a car, a motorcycle and a hexacopter, with LiDAR depth at 20 Hz.

Events have raw pixel coordinates, depth is rectified; events are moved to the rectified view by
the calibration. The files are read by `recordings.mvsec`.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np

from spike_depth_ros.events.config import SpikeConfig
from spike_depth_ros.events.spikes import PixelMap, pixel_map
from spike_depth_ros.learning.datasets.sample import (
    Clips,
    bin_image,
    grid_meta,
    nearest_stamp,
    spikes_of,
)
from spike_depth_ros.recordings.mvsec import MvsecFiles

IMAGE_TOLERANCE_NS = 40_000_000
SPLITS: dict[str, tuple[str, ...]] = {
    'train': ('outdoor_day2',),
    'test': ('outdoor_day1', 'outdoor_night1', 'outdoor_night2', 'outdoor_night3'),
    'indoor': ('indoor_flying1', 'indoor_flying2', 'indoor_flying3'),
}
"""Split -> recordings; outdoor training and test recordings as in E2Depth (3DV 2020)."""


@dataclasses.dataclass(frozen=True)
class MvsecConfig:
    """Configuration of MVSEC.

    Attributes:
        root: folder that holds the files of a scene, or a folder per scene with them.
        split: train, test or indoor; or the name of one recording, such as indoor_flying4.
        clip_windows: windows per clip; the last one ends at a depth map.
        stride: one clip for each `stride`-th depth map.
        images: also load the grey image as three channels, rectified, for a teacher.
        spikes: conversion of events to spikes.
    """

    root: str
    split: str = 'train'
    clip_windows: int = 1
    stride: int = 1
    images: bool = False
    spikes: SpikeConfig = dataclasses.field(default_factory=SpikeConfig)


class MvsecSequence:
    """One MVSEC recording (a `DepthSequence`).

    Args:
        root: see `MvsecConfig.root`.
        name: the recording, such as outdoor_day1.
        config: configuration of the data set.
    """

    def __init__(self, root: Path, name: str, config: MvsecConfig) -> None:
        folder = root / name.rstrip('0123456789')
        file = f'{name}_data.hdf5'
        self._files = MvsecFiles((folder if (folder / file).is_file() else root) / file)
        self._config = config
        self._calibration = self._files.calibration
        self.stamps_ns = self._files.depth_stamps_ns
        self.window_ns = config.spikes.window_ns

    @property
    def start_ns(self) -> int:
        """Returns the time of the first event."""
        return self._files.events.start_ns

    @property
    def end_ns(self) -> int:
        """Returns the time of the last event."""
        return self._files.events.end_ns

    @functools.cached_property
    def pixels(self) -> PixelMap:
        """Returns the map from raw sensor pixels to the rectified grid of the network."""
        camera = self._calibration.camera
        xy = self._calibration.rectified_xy()
        return pixel_map(camera.height, camera.width, self._config.spikes, rectified_xy=xy)

    def spikes(self, t0_ns: int, t1_ns: int) -> tuple[np.ndarray, int]:
        """Returns the spikes of [t0, t1) and the number of events in it."""
        pieces = self._files.events.pieces(t0_ns, t1_ns)
        return spikes_of(pieces, t0_ns, t1_ns, self._config.spikes, self.pixels)

    def depth_m(self, index: int) -> np.ndarray:
        """Returns map `index` in metres, rectified; NaN where the LiDAR has no return."""
        return self._files.depth_m(index)

    def image(self, stamp_ns: int) -> np.ndarray | None:
        """Returns the grey image nearest in time, rectified, as RGB."""
        if not self._config.images:
            return None
        nearest = nearest_stamp(self._files.image_stamps_ns, stamp_ns, IMAGE_TOLERANCE_NS)
        if nearest is None:
            return None
        grey = self._calibration.rectify(self._files.image(nearest))
        return bin_image(np.repeat(grey[..., None], 3, axis=2), self.pixels.factor)

    def meta(self) -> dict[str, Any]:
        """Returns the metadata shared by all samples of the recording."""
        name = self._files.name
        shared = grid_meta('mvsec', name, self._calibration.rectified, self.pixels)
        return shared | {'night': 'night' in name}


def open_mvsec(config: MvsecConfig) -> Clips:
    """Opens the recordings of a split; a `BagError` names a missing file."""
    names = SPLITS.get(config.split, (config.split,))
    root = Path(config.root)
    return Clips(
        (MvsecSequence(root, name, config) for name in names), config.clip_windows, config.stride
    )
