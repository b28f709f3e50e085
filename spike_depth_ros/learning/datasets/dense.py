"""DENSE and DENSE-spike: CARLA drives at 346x260 with 30 exact depth maps per second.

Layout of a sequence (Hidalgo-Carrio et al., 3DV 2020; Zhang et al., ECCV 2022):
`events/data/events_%010d.npy` (N, 4) columns t [ns], x, y, p; `depth/data/depth_%010d.npy` (H, W)
metres; `rgb/frames/frame_%010d.png`; `spike/r128/spike_%010d.npy` (128, H, W) of {0, 1}; each
folder has a `timestamps.txt` with lines "index seconds".
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from spike_depth_ros.events.arrays import make_events
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.config import SpikeConfig, require
from spike_depth_ros.events.spikes import ON, PixelMap, pixel_map
from spike_depth_ros.learning.datasets.sample import (
    Clips,
    DatasetError,
    bin_image,
    grid_meta,
    nearest_stamp,
    spikes_of,
)

HEIGHT, WIDTH = 260, 346
SKY_M = 999.0
"""CARLA's far plane is at 1000 m; depth there is sky."""
ADVICE = 'get DENSE from https://rpg.ifi.uzh.ch/E2DEPTH.html'
SPIKE_ADVICE = 'get DENSE-spike from https://github.com/Leozhangjiyuan/MDE-SpikingCamera'
STAMP_SLACK_NS = 1_000_000
MOST_S = 1e6
"""A recording whose last time is greater is in nanoseconds: no drive lasts eleven days."""


@dataclasses.dataclass(frozen=True)
class DenseConfig:
    """Configuration of DENSE.

    Attributes:
        root: folder that holds the folder of the split.
        split: train, validation or test; '' if the sequences are in `root` itself.
        clip_windows: windows per clip; the last one ends at a depth map.
        stride: one clip for each `stride`-th depth map.
        images: also load the colour image, for a teacher.
        field_of_view_deg: horizontal, of the simulated camera.
        spikes: conversion of events to spikes.
    """

    root: str
    split: str = 'train'
    clip_windows: int = 1
    stride: int = 1
    images: bool = False
    field_of_view_deg: float = 83.0
    spikes: SpikeConfig = dataclasses.field(default_factory=SpikeConfig)

    def __post_init__(self) -> None:
        degrees = self.field_of_view_deg
        require(0 < degrees < 180, 'field_of_view_deg', degrees, '0 to 180')


@dataclasses.dataclass(frozen=True)
class DenseSpikeConfig(DenseConfig):
    """Configuration of DENSE-spike: as for DENSE, but only the `steps` of the window are used.

    Each depth map has its own 128 frames, so a window is as long as the interval between maps.
    """


class DenseSequence:
    """One DENSE recording (a `DepthSequence`)."""

    def __init__(self, folder: Path, config: DenseConfig) -> None:
        self._folder = folder
        self._config = config
        self.stamps_ns, self._depths = _stamped(folder / 'depth' / 'data', 'depth', 'npy', ADVICE)
        self.window_ns = config.spikes.window_ns
        focal_px = WIDTH / 2 / math.tan(math.radians(config.field_of_view_deg) / 2)
        self._camera = Camera(WIDTH, HEIGHT, focal_px, focal_px, (WIDTH - 1) / 2, (HEIGHT - 1) / 2)

    @functools.cached_property
    def start_ns(self) -> int:
        """Returns the time of the first event."""
        return int(self._nonempty(self._event_files[1])['t_ns'][0])

    @functools.cached_property
    def end_ns(self) -> int:
        """Returns the time of the last event."""
        return int(self._nonempty(self._event_files[1][::-1])['t_ns'][-1])

    @functools.cached_property
    def pixels(self) -> PixelMap:
        """Returns the map from sensor pixels to the network grid."""
        return pixel_map(HEIGHT, WIDTH, self._config.spikes)

    def spikes(self, t0_ns: int, t1_ns: int) -> tuple[np.ndarray, int]:
        """Returns the spikes of [t0, t1) and the number of events in it."""
        config = self._config.spikes
        return spikes_of(self._pieces(t0_ns, t1_ns), t0_ns, t1_ns, config, self.pixels)

    def depth_m(self, index: int) -> np.ndarray:
        """Returns map `index` in metres; +inf at the far plane, NaN where no number is stored."""
        depth_m = _read_npy(self._depths[index], (HEIGHT, WIDTH), ADVICE).astype(np.float32)
        depth_m[depth_m <= 0] = np.nan
        depth_m[depth_m >= SKY_M] = np.inf
        return depth_m

    def image(self, stamp_ns: int) -> np.ndarray | None:
        """Returns the colour image of the same time, if images are enabled."""
        if not self._config.images:
            return None
        stamps_ns, paths = self._frames
        nearest = nearest_stamp(stamps_ns, stamp_ns, STAMP_SLACK_NS * 10)
        if nearest is None:
            return None
        import cv2

        image = cv2.imread(str(paths[nearest]), cv2.IMREAD_COLOR)
        if image is None or image.shape != (HEIGHT, WIDTH, 3):
            raise DatasetError(f'{paths[nearest]} is not a {WIDTH}x{HEIGHT} image: {ADVICE}')
        return bin_image(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), self.pixels.factor)

    def meta(self) -> dict[str, Any]:
        """Returns the metadata shared by all samples of the recording."""
        return grid_meta('dense', self._folder.name, self._camera, self.pixels)

    @functools.cached_property
    def _event_files(self) -> tuple[np.ndarray, list[Path]]:
        return _stamped(self._folder / 'events' / 'data', 'events', 'npy', ADVICE)

    @functools.cached_property
    def _frames(self) -> tuple[np.ndarray, list[Path]]:
        return _stamped(self._folder / 'rgb' / 'frames', 'frame', 'png', ADVICE)

    @functools.cached_property
    def _in_seconds(self) -> bool:
        """Returns True if times are in seconds, as in some exports; CARLA counts nanoseconds."""
        for path in reversed(self._event_files[1]):
            table = _read_npy(path, (None, 4), ADVICE)
            if len(table):
                return bool(table[-1, 0] < MOST_S)
        return False

    def _nonempty(self, paths: list[Path]) -> np.ndarray:
        """Returns the events of the first file that holds any."""
        for path in paths:
            events = _read_events(path, self._in_seconds)
            if len(events):
                return events
        raise DatasetError(f'{self._folder}/events/data holds no events: {ADVICE}')

    def _pieces(self, t0_ns: int, t1_ns: int) -> Iterator[np.ndarray]:
        """Yields the events of [t0, t1), with one file more at each end.

        A file's stamp may be that of its first or its last event.
        """
        stamps_ns, paths = self._event_files
        first, last = np.searchsorted(stamps_ns, (t0_ns, t1_ns))
        for path in paths[max(first - 1, 0) : last + 1]:
            events = _read_events(path, self._in_seconds)
            yield events[(events['t_ns'] >= t0_ns) & (events['t_ns'] < t1_ns)]


class DenseSpikeSequence(DenseSequence):
    """One DENSE-spike recording: the input is a spike camera, not an event camera.

    A spike camera integrates brightness and fires, so spikes go to the ON channel and OFF stays
    empty. The 128 frames are grouped into T steps by the rule of `accumulate`: frame k counts in
    step floor(k T / 128). With T = 128 the network sees the binary frames themselves.
    """

    def __init__(self, folder: Path, config: DenseSpikeConfig) -> None:
        super().__init__(folder, config)
        self._spike_files = _stamped(folder / 'spike' / 'r128', 'spike', 'npy', SPIKE_ADVICE)
        self.window_ns = int(np.median(np.diff(self.stamps_ns)))

    @functools.cached_property
    def start_ns(self) -> int:
        """Returns the time one window before the first spike file's stamp."""
        return int(self._spike_files[0][0]) - self.window_ns - STAMP_SLACK_NS

    @functools.cached_property
    def end_ns(self) -> int:
        """Returns the last spike file's stamp."""
        return int(self._spike_files[0][-1])

    def spikes(self, t0_ns: int, t1_ns: int) -> tuple[np.ndarray, int]:
        """Returns the frames with stamp `t1_ns`, as (T, 2, H, W), and the number of spikes."""
        stamps_ns, paths = self._spike_files
        nearest = nearest_stamp(stamps_ns, t1_ns, self.window_ns / 2)
        if nearest is None:
            raise DatasetError(
                f'{self._folder}/spike/r128 has no frames at {t1_ns / 1e9} s: {SPIKE_ADVICE}'
            )
        frames = _read_npy(paths[nearest], (None, HEIGHT, WIDTH), SPIKE_ADVICE)
        if frames.dtype.kind not in 'biuf' or ((frames != 0) & (frames != 1)).any():
            raise DatasetError(f'{paths[nearest]} must hold 0 and 1 only: {SPIKE_ADVICE}')
        return group_frames(frames.astype(np.uint8), self._config.spikes.steps, self.pixels)

    def meta(self) -> dict[str, Any]:
        """Returns the metadata shared by all samples of the recording."""
        return super().meta() | {'dataset': 'dense_spike'}


def open_dense(config: DenseConfig) -> Clips:
    """Opens the sequences of a split of DENSE; a `DatasetError` names what is missing."""
    folders = _sequences(config, 'events', ADVICE)
    return Clips((DenseSequence(f, config) for f in folders), config.clip_windows, config.stride)


def open_dense_spike(config: DenseSpikeConfig) -> Clips:
    """Opens the sequences of a split of DENSE-spike; a `DatasetError` names what is missing."""
    folders = _sequences(config, 'spike', SPIKE_ADVICE)
    return Clips(
        (DenseSpikeSequence(f, config) for f in folders), config.clip_windows, config.stride
    )


def group_frames(frames: np.ndarray, steps: int, pixels: PixelMap) -> tuple[np.ndarray, int]:
    """Sums (F, H, W) binary frames into T steps of the network grid, in the ON channel.

    Returns:
        (T, 2, H', W') uint8, saturated at 255, and the number of spikes.
    """
    step = np.arange(len(frames)) * steps // len(frames)
    inside = pixels.table >= 0
    spikes = np.zeros((steps, 2, pixels.height * pixels.width), np.uint8)
    for k in np.unique(step):
        counts = frames[step == k].sum(axis=0, dtype=np.int64)
        binned = np.bincount(pixels.table[inside], counts[inside], spikes.shape[2])
        spikes[k, ON] = np.minimum(binned, 255)
    return spikes.reshape(steps, 2, pixels.height, pixels.width), int(frames.sum())


def _sequences(config: DenseConfig, needs: str, advice: str) -> list[Path]:
    folder = Path(config.root) / config.split
    found = sorted(p for p in folder.glob('*') if (p / needs).is_dir())
    if not found:
        raise DatasetError(f'{folder} holds no sequence with a folder {needs!r}: {advice}')
    return found


def _stamped(folder: Path, stem: str, suffix: str, advice: str) -> tuple[np.ndarray, list[Path]]:
    """Reads the times [ns] and files of a folder from its `timestamps.txt`."""
    stamps = folder / 'timestamps.txt'
    try:
        rows = np.loadtxt(stamps, np.float64, ndmin=2)
        indices = rows[:, 0].astype(np.int64)
        stamps_ns = np.round(rows[:, 1] * 1e9).astype(np.int64)
    except (OSError, ValueError, IndexError) as error:
        raise DatasetError(f'{stamps} cannot be read ({error}): {advice}') from error
    if len(stamps_ns) < 2 or (np.diff(stamps_ns) <= 0).any():
        raise DatasetError(f'{stamps} must hold at least two increasing times: {advice}')
    return stamps_ns, [folder / f'{stem}_{index:010d}.{suffix}' for index in indices]


def _read_npy(path: Path, shape: tuple[int | None, ...], advice: str) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f'{path} cannot be read ({error}): {advice}') from error
    fits = (
        array.dtype.kind in 'biuf'
        and array.ndim == len(shape)
        and all(want in (None, have) for want, have in zip(shape, array.shape, strict=True))
    )
    if not fits:
        raise DatasetError(
            f'{path} holds {array.dtype} {array.shape}, expected numbers {shape}: {advice}'
        )
    return array


def _read_events(path: Path, in_seconds: bool) -> np.ndarray:
    """Reads (N,) `EVENT_DTYPE` from a file; polarity may be {0, 1} or {-1, 1}, time in ns or s."""
    table = _read_npy(path, (None, 4), ADVICE)
    x, y = table[:, 1], table[:, 2]
    if not (np.isfinite(table).all() and ((x >= 0) & (x < WIDTH) & (y >= 0) & (y < HEIGHT)).all()):
        raise DatasetError(f'{path} holds events outside of {WIDTH}x{HEIGHT} pixels: {ADVICE}')
    t_ns = np.round(table[:, 0] * (1e9 if in_seconds else 1.0)).astype(np.int64)
    return make_events(t_ns, x.astype(np.uint16), y.astype(np.uint16), table[:, 3] > 0)
