"""The sample that every data set provides, and how clips of samples are cut from a sequence.

A clip is `clip_windows` consecutive windows without gaps; the last one ends at the stamp of a
depth map. The earlier ones have depth if a map lies close to their end; otherwise their depth is
unknown everywhere, and they only fill the membranes.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.config import SpikeConfig
from spike_depth_ros.events.spikes import PixelMap, accumulate

STAMP_TOLERANCE = 0.1
"""Maximum distance of a depth map from the end of its window, as a fraction of the window."""


class DatasetError(ValueError):
    """A file of a data set is missing or damaged; the message names it and what is needed."""


class Sample(NamedTuple):
    """One window of events and the depth at its end.

    The spike tensor is padded on the right and below; the other arrays cover the image part only.
    `meta` holds focal_px, cx_px, cy_px (intrinsics of the image part), dataset, sensor
    ('640x480'), sequence, index (of the clip's depth map), stamp_ns (end of the window),
    window_ns, event_count, night (bool, or None if unknown) and contrast (the threshold in log
    intensity, or None).
    """

    spikes: np.ndarray  # (T, 2, H, W) uint8, channel 0 OFF and 1 ON
    depth_m: np.ndarray  # (h, w) float32: NaN unknown, +inf sky or beyond the measured range
    valid: np.ndarray  # (h, w) bool: depth_m is finite; False for sky
    image: np.ndarray | None  # (h, w, 3) uint8 RGB
    meta: dict[str, Any]


class DepthSequence(Protocol):
    """The interface of one recording of a data set."""

    stamps_ns: np.ndarray  # (N,) int64, ascending: stamps of the depth maps
    window_ns: int  # length of one window

    @property
    def start_ns(self) -> int:
        """Returns the time of the first events."""

    @property
    def end_ns(self) -> int:
        """Returns the time of the last events."""

    @property
    def pixels(self) -> PixelMap:
        """Returns the map from sensor pixels to the network grid."""

    def spikes(self, t0_ns: int, t1_ns: int) -> tuple[np.ndarray, int]:
        """Returns the (T, 2, H, W) spikes of [t0, t1) and the number of events in it."""

    def depth_m(self, index: int) -> np.ndarray:
        """Returns (height, width) float32 at sensor resolution of depth map `index`."""

    def image(self, stamp_ns: int) -> np.ndarray | None:
        """Returns (h, w, 3) uint8 RGB in the image part of the network grid, or None."""

    def meta(self) -> dict[str, Any]:
        """Returns the entries of `Sample.meta` shared by all samples of the recording."""


class Clips(Sequence[list[Sample]]):
    """All clips of some sequences: one per `stride`-th depth map with enough events before it.

    Depth maps after the end of the events, as in an incomplete download, are omitted.
    """

    def __init__(self, sequences: Iterable[DepthSequence], clip_windows: int, stride: int) -> None:
        if clip_windows < 1 or stride < 1:
            raise DatasetError(
                f'clip_windows is {clip_windows} and stride {stride}, expected at least 1'
            )
        self._sequences = list(sequences)
        self._clip_windows = clip_windows
        self._stride = stride
        self._first = [self._first_index(sequence) for sequence in self._sequences]
        counts = [
            len(range(first, self._stop_index(sequence), stride))
            for first, sequence in zip(self._first, self._sequences, strict=True)
        ]
        self._ends = list(itertools.accumulate(counts))
        if not self._ends or not self._ends[-1]:
            raise DatasetError(
                f'no depth map in {len(self._sequences)} sequences has {clip_windows} windows of '
                'events before it: use shorter clips or a shorter window'
            )

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> list[Sample]:  # type: ignore[override]
        if not -len(self) <= index < len(self):
            raise IndexError(f'clip {index} of {len(self)}')
        index %= len(self)
        which = bisect.bisect_right(self._ends, index)
        within = index - (self._ends[which - 1] if which else 0)
        sequence = self._sequences[which]
        return read_clip(sequence, self._first[which] + within * self._stride, self._clip_windows)

    def sizes(self) -> list[tuple[int, int]]:
        """Returns height and width of the spike tensor of every clip, without reading any."""
        starts = [0, *self._ends]
        return [
            (sequence.pixels.height, sequence.pixels.width)
            for sequence, start, end in zip(self._sequences, starts, self._ends, strict=False)
            for _ in range(start, end)
        ]

    def _first_index(self, sequence: DepthSequence) -> int:
        earliest = sequence.start_ns + self._clip_windows * sequence.window_ns
        return int(np.searchsorted(sequence.stamps_ns, earliest))

    @staticmethod
    def _stop_index(sequence: DepthSequence) -> int:
        latest = sequence.end_ns + round(STAMP_TOLERANCE * sequence.window_ns)
        return int(np.searchsorted(sequence.stamps_ns, latest, side='right'))


def read_clip(sequence: DepthSequence, index: int, clip_windows: int) -> list[Sample]:
    """Reads the windows up to depth map `index`, oldest first."""
    end_ns = int(sequence.stamps_ns[index])
    window_ns = sequence.window_ns
    ends = [end_ns - back * window_ns for back in reversed(range(clip_windows))]
    return [_read_sample(sequence, index, t1_ns) for t1_ns in ends]


def _read_sample(sequence: DepthSequence, index: int, t1_ns: int) -> Sample:
    pixels = sequence.pixels
    spikes, event_count = sequence.spikes(t1_ns - sequence.window_ns, t1_ns)
    nearest = nearest_stamp(sequence.stamps_ns, t1_ns, STAMP_TOLERANCE * sequence.window_ns)
    if nearest is None:
        depth_m = np.full((pixels.image_height, pixels.image_width), np.nan, np.float32)
    else:
        depth_m = bin_depth(sequence.depth_m(nearest), pixels.factor)
    meta = sequence.meta() | {
        'index': index,
        'stamp_ns': t1_ns,
        'window_ns': sequence.window_ns,
        'event_count': event_count,
    }
    return Sample(spikes, depth_m, np.isfinite(depth_m), sequence.image(t1_ns), meta)


def nearest_stamp(stamps_ns: np.ndarray, t_ns: int, tolerance_ns: float) -> int | None:
    """Returns the index of the ascending stamp nearest to `t_ns`, or None if all are too far."""
    after = int(np.searchsorted(stamps_ns, t_ns))
    near = [i for i in (after - 1, after) if 0 <= i < len(stamps_ns)]
    best = min(near, key=lambda i: abs(int(stamps_ns[i]) - t_ns), default=None)
    if best is None or abs(int(stamps_ns[best]) - t_ns) > tolerance_ns:
        return None
    return best


def spikes_of(
    pieces: Iterable[np.ndarray], t0_ns: int, t1_ns: int, config: SpikeConfig, pixels: PixelMap
) -> tuple[np.ndarray, int]:
    """Accumulates a window that is read in pieces, with one piece in memory at a time.

    Args:
        pieces: arrays of `EVENT_DTYPE`, times within [t0_ns, t1_ns).
        t0_ns: start of the window, inclusive.
        t1_ns: end of the window, exclusive.
        config: provides the number of steps.
        pixels: map from the sensor to the network grid.

    Returns:
        (T, 2, H, W) uint8 and the number of events in the pieces.
    """
    spikes = np.zeros((config.steps, 2, pixels.height, pixels.width), np.uint8)
    count = 0
    for events in pieces:
        accumulate(
            events, t0_ns, t1_ns, config.steps, pixels.height, pixels.width, pixels, out=spikes
        )
        count += len(events)
    return spikes, count


def grid_meta(dataset: str, sequence: str, camera: Camera, pixels: PixelMap) -> dict[str, Any]:
    """Returns the entries of `Sample.meta` that follow from the sensor's (rectified) camera."""
    grid = camera.binned(pixels.factor)
    return {
        'dataset': dataset,
        'sequence': sequence,
        'sensor': f'{camera.width}x{camera.height}',
        'focal_px': float(grid.fx),
        'cx_px': float(grid.cx),
        'cy_px': float(grid.cy),
        'night': None,
        'contrast': None,
    }


def bin_depth(depth_m: np.ndarray, factor: int) -> np.ndarray:
    """Returns the depth of the binned image: the lower median of each k x k block.

    The result is a measured depth on the surface that covers most of the block, or on the nearer
    one of two equal parts. A mean would create points in free space at every edge.

    Args:
        depth_m: (H, W) metres, NaN unknown, +inf sky; partial blocks at the edge count.
        factor: k.

    Returns:
        (ceil(H / k), ceil(W / k)) float32; NaN where no depth of a block is known.
    """
    depth_m = np.asarray(depth_m, np.float32)
    if factor == 1:
        return depth_m
    rows, columns = (-(-n // factor) for n in depth_m.shape)
    margin = [(0, rows * factor - depth_m.shape[0]), (0, columns * factor - depth_m.shape[1])]
    padded = np.pad(depth_m, margin, constant_values=np.nan)
    blocks = padded.reshape(rows, factor, columns, factor).swapaxes(1, 2)
    ordered = np.sort(blocks.reshape(rows, columns, -1), axis=-1)  # NaN last, +inf before it
    known = np.count_nonzero(~np.isnan(ordered), axis=-1)
    middle = np.maximum(known - 1, 0)[..., None] // 2
    return np.take_along_axis(ordered, middle, axis=-1)[..., 0]


def bin_image(image: np.ndarray, factor: int) -> np.ndarray:
    """Averages an (H, W, 3) uint8 image over k x k blocks, partial blocks included."""
    if factor == 1:
        return image
    import cv2

    height, width = image.shape[:2]
    rows, columns = -(-height // factor), -(-width // factor)
    below, right = rows * factor - height, columns * factor - width
    padded = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE)
    return cv2.resize(padded, (columns, rows), interpolation=cv2.INTER_AREA)


def bin_sample(sample: Sample, factor: int, multiple_px: int) -> Sample:
    """Returns the sample on a grid that is coarser by k: counts of k x k pixels are added.

    Args:
        sample: sample to bin.
        factor: k.
        multiple_px: height and width of the new spike tensor are multiples of this.
    """
    if factor == 1:
        return sample
    depth_m = bin_depth(sample.depth_m, factor)
    steps, _, *padded = sample.spikes.shape
    height, width = (-(-n // multiple_px) * multiple_px for n in depth_m.shape)
    spikes = np.zeros((steps, 2, height * factor, width * factor), np.uint8)
    rows, columns = (min(n, k * factor) for n, k in zip(padded, (height, width), strict=True))
    spikes[..., :rows, :columns] = sample.spikes[..., :rows, :columns]
    totals = np.zeros((steps, 2, height, width), np.uint32)
    for row, column in np.ndindex(factor, factor):  # ten times as fast as a sum over two axes
        totals += spikes[..., row::factor, column::factor]
    counts = np.minimum(totals, 255).astype(np.uint8)
    centre = {key: (sample.meta[key] + 0.5) / factor - 0.5 for key in ('cx_px', 'cy_px')}
    meta = sample.meta | centre | {'focal_px': sample.meta['focal_px'] / factor}
    image = None if sample.image is None else bin_image(sample.image, factor)
    return Sample(counts, depth_m, np.isfinite(depth_m), image, meta)
