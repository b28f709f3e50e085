"""Draws depth, events and clouds with the same colours in RViz, reports and the README.

All pictures are (H, W, 3) uint8 RGB.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from spike_depth_ros.events.spikes import OFF, ON

COLOR_MAPS: dict[str, int] = {
    'turbo': cv2.COLORMAP_TURBO,
    'viridis': cv2.COLORMAP_VIRIDIS,
    'magma': cv2.COLORMAP_MAGMA,
    'inferno': cv2.COLORMAP_INFERNO,
    'jet': cv2.COLORMAP_JET,
    'bone': cv2.COLORMAP_BONE,
}

UNKNOWN_RGB, BEYOND_RGB = (0, 0, 0), (70, 70, 80)
ON_RGB, OFF_RGB = (230, 60, 40), (40, 90, 230)


def depth_colors(depth_m: np.ndarray, color_map: str, min_m: float, max_m: float) -> np.ndarray:
    """Colours depth on a logarithmic scale; near depth has the last colour of the map.

    Returns:
        (H, W, 3) uint8 RGB; unknown is black, beyond range dark grey.
    """
    with np.errstate(divide='ignore', invalid='ignore'):
        far = np.log(np.maximum(depth_m, 0.0) / min_m) / np.log(max_m / min_m)
    shade = np.rint(255 * (1.0 - np.clip(np.nan_to_num(far, nan=1.0), 0.0, 1.0)))
    colors: np.ndarray = cv2.applyColorMap(shade.astype(np.uint8), COLOR_MAPS[color_map])
    colors = colors[..., ::-1].copy()
    colors[np.isnan(depth_m)] = UNKNOWN_RGB
    colors[np.isposinf(depth_m)] = BEYOND_RGB
    return colors


def event_colors(spikes: np.ndarray) -> np.ndarray:
    """Colours a spike tensor: ON red, OFF blue (the more frequent one), no events white.

    Args:
        spikes: (T, 2, H, W) uint8.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    counts = spikes.sum(axis=0, dtype=np.int32)  # (2, H, W)
    colors = np.full((*counts.shape[1:], 3), 255, np.uint8)
    colors[(counts[ON] >= counts[OFF]) & (counts[ON] > 0)] = ON_RGB
    colors[counts[OFF] > counts[ON]] = OFF_RGB
    return colors


def confidence_colors(confidence: np.ndarray) -> np.ndarray:
    """Colours (H, W) confidence in [0, 1]: black is 0, bright is 1."""
    shade = np.rint(255 * np.clip(np.nan_to_num(confidence), 0.0, 1.0)).astype(np.uint8)
    colors: np.ndarray = cv2.applyColorMap(shade, cv2.COLORMAP_VIRIDIS)[..., ::-1].copy()
    return colors


def height_colors(height_m: np.ndarray, color_map: str, most_m: float) -> np.ndarray:
    """Colours height from -most_m (first colour of the map) to most_m (its last); NaN is black."""
    shade = np.rint(255 * np.clip(0.5 + 0.5 * np.nan_to_num(height_m) / most_m, 0.0, 1.0))
    colors = cv2.applyColorMap(shade.astype(np.uint8), COLOR_MAPS[color_map])[..., ::-1].copy()
    colors[np.isnan(height_m)] = UNKNOWN_RGB
    return colors


def cloud_picture(
    points_m: np.ndarray,
    colors: np.ndarray,
    size: tuple[int, int] = (480, 640),
    reach_m: float = 40.0,
) -> np.ndarray:
    """Draws a cloud as seen from above and behind the camera.

    Args:
        points_m: (N, 3) in the optical frame; non-finite points are omitted.
        colors: (N, 3) uint8 RGB.
        size: rows and columns of the picture.
        reach_m: approximate distance ahead at the centre of the view.
    """
    keep = np.isfinite(points_m).all(axis=1) & (points_m[:, 2] < 2 * reach_m)
    points, colors = points_m[keep].astype(np.float64), colors[keep]
    tilt = np.deg2rad(28.0)
    rotation = np.array(
        [[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]
    )
    eye = np.array([0.0, -0.35 * reach_m, -0.45 * reach_m])
    seen = (points - eye) @ rotation.T
    focal_px = 0.9 * size[1]
    column = np.rint(seen[:, 0] / seen[:, 2] * focal_px + size[1] / 2)
    row = np.rint(seen[:, 1] / seen[:, 2] * focal_px + 0.5 * size[0])
    picture = np.full((*size, 3), 18, np.uint8)
    inside = (column >= 1) & (column < size[1] - 1) & (row >= 1) & (row < size[0] - 1)
    order = np.argsort(-seen[inside, 2])  # near points are painted last, over far ones
    row, column = row[inside][order].astype(int), column[inside][order].astype(int)
    for dy in (0, 1):
        for dx in (0, 1):
            picture[row + dy, column + dx] = colors[inside][order]
    return picture


def beside(pictures: Iterable[np.ndarray], height_px: int = 260, gap_px: int = 4) -> np.ndarray:
    """Places pictures in a row, scaled to one height."""
    scaled = []
    for picture in pictures:
        width = round(picture.shape[1] * height_px / picture.shape[0])
        scaled.append(cv2.resize(picture, (width, height_px), interpolation=cv2.INTER_AREA))
        scaled.append(np.full((height_px, gap_px, 3), 255, np.uint8))
    return np.concatenate(scaled[:-1], axis=1)


def png(picture: np.ndarray) -> bytes:
    """Encodes an RGB picture as PNG."""
    return bytes(cv2.imencode('.png', picture[..., ::-1])[1])


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Writes an RGB picture; the suffix selects the format."""
    if not cv2.imwrite(str(path), picture[..., ::-1]):
        raise OSError(
            f'cannot write the picture {str(path)!r}: check that its folder exists and is writable'
        )


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Suppresses output of C libraries: FFmpeg warns about the VP8 tag in WebM."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def write_video(path: Path, pictures: Iterable[np.ndarray], fps: float) -> None:
    """Writes RGB pictures of one size as VP8 in WebM, which every browser plays.

    Raises:
        OSError: this build of OpenCV cannot write it.
    """
    writer = None
    for picture in pictures:
        if writer is None:
            size = (picture.shape[1], picture.shape[0])
            with _without_stderr():
                writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'VP80'), fps, size)
            if not writer.isOpened():
                raise OSError(f'this OpenCV has no VP8 encoder for {str(path)!r}')
        writer.write(np.ascontiguousarray(picture[..., ::-1]))
    if writer is not None:
        writer.release()
