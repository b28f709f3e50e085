"""Events to spike tensors: binning in time and space.

Data sets, evaluation and the node call the same `accumulate` with the same `PixelMap`, so a
network gets the same input on a robot as in training.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.events.arrays import EVENT_DTYPE, read_only
from spike_depth_ros.events.camera import CalibrationError, Camera
from spike_depth_ros.events.compiled import compiled, prefetch
from spike_depth_ros.events.config import SpikeConfig, require

OFF, ON = 0, 1
"""Channel order of every spike tensor: the channel is the polarity."""

DROPPED = -1

BLOCK_EVENTS = 128
"""Number of events that are processed together; their working data fits the L1 cache."""


LEAST_REGION_PX = 16
"""A region of interest is at least so wide and high."""


class Region(NamedTuple):
    """A region of interest, in pixels of the sensor or of its rectified image."""

    x: int
    y: int
    width: int
    height: int

    def check(self, sensor_height: int, sensor_width: int) -> None:
        """Raises a `ConfigError` unless the region lies within a sensor of that size."""
        inside = self.x + self.width <= sensor_width and self.y + self.height <= sensor_height
        require(inside, 'roi', ' '.join(map(str, self)),
                f'a region within the {sensor_width}x{sensor_height} sensor')  # fmt: skip


def region_of(text: str) -> Region | None:
    """Reads 'x y width height' [px]; None for an empty text.

    Raises:
        ConfigError: not four whole numbers, or no region.
    """
    if not text.strip():
        return None
    try:
        region = Region(*(int(word) for word in text.replace(',', ' ').split()))
    except (ValueError, TypeError):
        region = Region(-1, -1, 0, 0)
    require(min(region.x, region.y) >= 0 and min(region[2:]) >= LEAST_REGION_PX, 'roi', text,
            "'x y width height' in pixels of the sensor, x and y 0 or more, "
            f'width and height {LEAST_REGION_PX} or more')  # fmt: skip
    return region


class PixelMap(NamedTuple):
    """Position of each sensor pixel in the network's grid: binning, rectification, crop, padding.

    The image occupies the rows [0, image_height) and columns [0, image_width) of the grid. The
    rest is padding to the multiple that the network needs.
    """

    table: NDArray[Any]  # (sensor_height, sensor_width) int32: flat grid index or DROPPED
    height: int  # grid rows, padded
    width: int  # grid columns, padded
    image_height: int
    image_width: int
    factor: int  # k of the binning by k x k
    left: int = 0  # columns of the grid that a region of interest leaves out on the left
    top: int = 0  # rows that it leaves out above


def binning_factor(sensor_width: int, config: SpikeConfig) -> int:
    """Returns the smallest k for which a sensor binned k x k is at most `max_width_px` wide."""
    return -(-sensor_width // config.max_width_px)


def pixel_map(
    sensor_height: int,
    sensor_width: int,
    config: SpikeConfig,
    camera: Camera | None = None,
    rectified_xy: NDArray[Any] | None = None,
    region: Region | None = None,
) -> PixelMap:
    """Builds the table from sensor pixels to the network's grid.

    Args:
        sensor_height: sensor rows [px].
        sensor_width: sensor columns [px].
        config: binning and padding.
        camera: if given, events are moved to their position in the image of
            `camera.rectified()`; events that leave the image are dropped.
        rectified_xy: (sensor_height, sensor_width, 2) target columns and rows at sensor
            resolution, as in DSEC's `rectify_map.h5`; replaces `camera`.
        region: part of the (rectified) image to keep, rounded outwards to whole grid pixels. The
            binning stays that of the whole sensor.

    Raises:
        CalibrationError: the camera or the map is for a sensor of another size.
        ConfigError: the region does not lie within the sensor.
    """
    factor = binning_factor(sensor_width, config)
    region = region or Region(0, 0, sensor_width, sensor_height)
    region.check(sensor_height, sensor_width)
    left, top = region.x // factor, region.y // factor
    image_height = -(-(region.y + region.height) // factor) - top
    image_width = -(-(region.x + region.width) // factor) - left
    height, width = (_round_up(n, config.multiple_px) for n in (image_height, image_width))
    if rectified_xy is None and camera is not None:
        camera.check_sensor(sensor_height, sensor_width)
        rectified_xy = _rectified_coordinates(camera)
    if rectified_xy is None:
        rows, columns = np.mgrid[0:sensor_height, 0:sensor_width] // factor
    else:
        if rectified_xy.shape != (sensor_height, sensor_width, 2):
            raise CalibrationError(
                f'rectification map has shape {rectified_xy.shape}, '
                f'expected {(sensor_height, sensor_width, 2)}'
            )
        columns, rows = (
            np.floor((pixels + 0.5) / factor) for pixels in np.moveaxis(rectified_xy, 2, 0)
        )
    rows, columns = rows - top, columns - left
    # False for NaN
    inside = (columns >= 0) & (columns < image_width) & (rows >= 0) & (rows < image_height)
    with np.errstate(invalid='ignore'):  # pixels that are not inside may be NaN
        places = rows * width + columns
    table = np.where(inside, places, DROPPED).astype(np.int32)
    table.flags.writeable = False
    return PixelMap(table, height, width, image_height, image_width, factor, left, top)


def accumulate(
    events: NDArray[Any],
    t0_ns: int,
    t1_ns: int,
    steps: int,
    height: int,
    width: int,
    pixels: PixelMap | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Counts events per time bin, polarity and pixel.

    Bin k holds the times with floor((t - t0) * steps / (t1 - t0)) == k: bins are half-open, so no
    event is lost or counted twice. Events outside the window [t0_ns, t1_ns) are ignored. The order
    of the events does not matter. Counts saturate at 255. The input is not modified.

    Args:
        events: (N,) `EVENT_DTYPE`, coordinates within the sensor.
        t0_ns: start of the window, included.
        t1_ns: end of the window, excluded.
        steps: number T of time bins.
        height: rows of the result, and of the sensor unless `pixels` is given.
        width: columns of the result, and of the sensor unless `pixels` is given.
        pixels: binning, padding and rectification; its grid must be `height` x `width`.
        out: (T, 2, H, W) uint8 to add to, for a window that arrives in parts.

    Returns:
        (T, 2, H, W) uint8, channel 0 OFF and 1 ON: `out` if given.

    Raises:
        ValueError: the window is empty, `out` or `pixels` does not fit, or an event lies outside
            the sensor.
    """
    if t1_ns <= t0_ns or steps < 1:
        raise ValueError(f'window [{t0_ns}, {t1_ns}) ns with {steps} steps is empty')
    if events.dtype != EVENT_DTYPE or events.ndim != 1:
        raise ValueError(f'events are {events.ndim}-d {events.dtype}, expected 1-d EVENT_DTYPE')
    shape = (steps, 2, height, width)
    if out is None:
        out = np.zeros(shape, np.uint8)
    elif out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
        raise ValueError(f'out is {out.dtype} {out.shape}, expected contiguous uint8 {shape}')
    sensor_height, sensor_width, table = height, width, None
    if pixels is not None:
        if (pixels.height, pixels.width) != (height, width):
            raise ValueError(
                f'pixels map to {pixels.height}x{pixels.width}, expected {height}x{width}'
            )
        sensor_height, sensor_width = pixels.table.shape
        table = pixels.table.reshape(-1)
    stray = _accumulate(events, bin_edges_ns(t0_ns, t1_ns, steps), sensor_height, sensor_width,
                        table, height * width, out.reshape(-1))  # fmt: skip
    if stray:
        raise ValueError(f'{stray} events lie outside the sensor: check its geometry')
    return out


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


@functools.lru_cache(maxsize=1)
def _rectified_coordinates(camera: Camera) -> NDArray[Any] | None:
    """(H, W, 2) columns and rows in the rectified image; None if no pixel moves."""
    if camera.is_rectified:
        return None
    x, y = np.moveaxis(camera.rays()[..., :2], 2, 0)
    image = camera.rectified()
    # separately, because numpy is slow if the last axis is short
    columns = np.multiply(x, image.fx, dtype=np.float64) + image.cx
    rows = np.multiply(y, image.fy, dtype=np.float64) + image.cy
    return read_only(np.stack([columns, rows], axis=-1))


@functools.lru_cache(maxsize=256)
def bin_edges_ns(t0_ns: int, t1_ns: int, steps: int) -> NDArray[Any]:
    """(steps + 1,) int64: bin k holds the times from edge k up to, excluding, edge k + 1."""
    span_ns = t1_ns - t0_ns
    return read_only(np.array([t0_ns - -k * span_ns // steps for k in range(steps + 1)], np.int64))


@compiled()
def _bin_of(t_ns, edges_ns):
    """Bin of a time inside the window: a floating-point estimate, corrected by the edges."""
    steps = edges_ns.shape[0] - 1
    fraction = (t_ns - edges_ns[0]) / (edges_ns[steps] - edges_ns[0])
    step = min(np.int64(fraction * steps), steps - 1)
    while t_ns < edges_ns[step]:
        step -= 1
    while t_ns >= edges_ns[step + 1]:
        step += 1
    return step


@compiled()
def _look_up(indices, count, table, out):
    """Replaces pixels by indices of `out`; returns the number of those that are not dropped."""
    kept = np.uintp(0)
    for k in range(count):
        place = np.int64(table[indices[np.uintp(k)]])
        index = indices[np.uintp(k + BLOCK_EVENTS)] + np.uintp(place)
        prefetch(out, index)
        indices[kept] = index
        kept += np.uintp(place >= 0)
    return kept


@compiled()
def _accumulate(events, edges_ns, height, width, table, area, out):
    """Adds events to `out`, a flat tensor; returns the number of events outside the sensor.

    Memory latency dominates, because the counts are scattered over `out`. Therefore blocks of
    events pass through one step at a time, and each step prefetches the data of the next one: the
    events of the next block, the table entries, the counts.

    Args:
        events: (N,) events.
        edges_ns: edges of the T bins.
        height: sensor rows.
        width: sensor columns.
        table: (height * width,) grid index of each sensor pixel; None for the identity.
        area: number of pixels of the grid.
        out: (T * 2 * area,) uint8.
    """
    first_ns, end_ns = edges_ns[0], edges_ns[-1]
    indices = np.empty(2 * BLOCK_EVENTS, np.uintp)  # with a table: pixels, then channel offsets
    i, size, stray = 0, events.shape[0], 0
    while i < size:
        stop, count = min(i + BLOCK_EVENTS, size), np.uintp(0)
        while i < stop:
            t_ns = events[np.uintp(i)]['t_ns']
            if t_ns < first_ns or t_ns >= end_ns:
                i += 1
                continue
            step = _bin_of(t_ns, edges_ns)
            low, high, base = edges_ns[step], edges_ns[step + 1], step * 2 * area
            while i < stop:  # events of the same bin
                event = events[np.uintp(i)]
                t_ns = event['t_ns']
                if t_ns < low or t_ns >= high:
                    break
                i += 1
                prefetch(events, np.uintp(i + BLOCK_EVENTS))
                x, y = np.int64(event['x']), np.int64(event['y'])
                if (x >= width) | (y >= height):
                    stray += 1
                    continue
                pixel = y * width + x
                channel = base + np.int64(event['p'] != 0) * area
                if table is None:
                    index = np.uintp(channel + pixel)
                    prefetch(out, index)
                    indices[count] = index
                else:
                    prefetch(table, np.uintp(pixel))
                    indices[count] = np.uintp(pixel)
                    indices[count + np.uintp(BLOCK_EVENTS)] = np.uintp(channel)
                count += np.uintp(1)
        if table is not None:
            count = _look_up(indices, count, table, out)
        for k in range(count):
            index = indices[np.uintp(k)]
            if out[index] < 255:
                out[index] += 1
    return stray
