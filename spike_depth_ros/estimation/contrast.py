"""Sharpness of warped events: the kernels behind `scale`.

Events of one edge that are moved along its flow to one instant come to lie on each other; those
that are moved along a wrong flow stay apart (Gallego, Rebecq and Scaramuzza, CVPR 2018). Here the
flow has one unknown, the scale of the depth.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from spike_depth_ros.events.compiled import compiled

TILE_ROWS, TILE_COLUMNS = 4, 5
TILES = TILE_ROWS * TILE_COLUMNS
"""Parts of the image that vote on their own."""

MOST = 2
"""Events of one pixel and polarity that count: a pixel that fires often looks sharp in a warp that
moves nothing."""

BLOCK_PX = 16
"""Where there are too many events, whole blocks of so many grid pixels are left out: thinning all
of them evenly would part the events that lie on each other."""

MARGIN_PX = 24
"""Events may be warped so far out of the image and still count."""


class Warp(NamedTuple):
    """Events at the end of a window, as functions of the inverse scale q: position = at + q by.

    Attributes:
        at: (N, 2) float32 column and row [px] after the rotation alone.
        by: (N, 2) float32 what the translation adds at scale 1 [px].
        sign: (N,) float32 1 for ON, -1 for OFF, less the mean of the tile.
        tile: (N,) int32 part of the image, row by row.
    """

    at: np.ndarray
    by: np.ndarray
    sign: np.ndarray
    tile: np.ndarray


def turns(height: int, width: int, block_px: int) -> np.ndarray:
    """(height, width) uint8 numbers by which whole blocks of pixels are taken, evenly spread."""
    rows, columns = -(-height // block_px), -(-width // block_px)
    blocks = np.random.default_rng(0).permutation(rows * columns) * 256 // (rows * columns)
    tiled = blocks.reshape(rows, columns).astype(np.uint8)
    return tiled.repeat(block_px, axis=0).repeat(block_px, axis=1)[:height, :width].copy()


@compiled(error_model='numpy')
def warp(
    events,
    rays,
    depth_m,
    lens,
    twists,
    step_ns,
    end_ns,
    inverse_scale,
    turn,
    first_turn,
    last_turn,
):
    """Prepares the warp of a window's events to its end.

    The flow of a static point at ray (x, y, 1) and depth d, seen by a camera that moves with v
    and turns with w, is (Longuet-Higgins and Prazdny, Proc. R. Soc. 1980)
        dx/dt = (x vz - vx) / d + x y wx - (1 + x^2) wy + y wz
        dy/dt = (y vz - vy) / d + (1 + y^2) wx - x y wy - x wz
    and with d the depth at the end of the window its first line is exact for the translation.
    Depth is taken from where the point has come to by then. Events on what has no depth, such as
    the sky, are left out. Of each pixel and polarity the first `MOST` events count.

    Args:
        events: `EVENT_DTYPE`, not after `end_ns`.
        rays: (height, width, 2) float32 x and y of the ray of each sensor pixel, NaN for none.
        depth_m: (H, W) float32 at `end_ns`.
        lens: (5,) fx, fy, cx, cy of the depth grid; sensor pixels per grid pixel if the grid is
            distorted as the sensor is, else 0.
        twists: (M, 6) v [m/s] and w [rad/s] in the optical frame, means from a time to the end:
            row k for times that are k + 1/2 steps before the end.
        step_ns: that step.
        end_ns: time of the depth.
        inverse_scale: at which to look for where a point has come to.
        turn: (height, width) uint8 of `turns`.
        first_turn: is added to those numbers modulo 256, so that other blocks come first.
        last_turn: events on pixels of a greater number are left out.

    Returns:
        The fields of a `Warp`.
    """
    height, width = depth_m.shape
    fx, fy, cx, cy = lens[0], lens[1], lens[2], lens[3]
    seen = np.zeros((rays.shape[0], rays.shape[1], 2), np.uint8)
    at = np.empty((len(events), 2), np.float32)
    by = np.empty((len(events), 2), np.float32)
    sign = np.empty(len(events), np.float32)
    tile = np.empty(len(events), np.int32)
    n = 0
    for i in range(len(events)):
        event = events[i]
        column, row, p = np.int64(event.x), np.int64(event.y), np.int64(event.p)
        late = np.uint8(turn[row, column] + first_turn) > last_turn
        if late or seen[row, column, p] >= MOST:
            continue
        seen[row, column, p] += 1
        x, y = np.float64(rays[row, column, 0]), np.float64(rays[row, column, 1])
        age_s = (end_ns - event.t_ns) * 1e-9
        twist = twists[min((end_ns - event.t_ns) // step_ns, len(twists) - 1)]
        vx, vy, vz, wx, wy, wz = twist[0], twist[1], twist[2], twist[3], twist[4], twist[5]
        turned_x = (x * y * wx - (1.0 + x * x) * wy + y * wz) * age_s * fx
        turned_y = ((1.0 + y * y) * wx - x * y * wy - x * wz) * age_s * fy
        moved_x, moved_y = (x * vz - vx) * age_s * fx, (y * vz - vy) * age_s * fy
        start_x, start_y = x * fx + cx + turned_x, y * fy + cy + turned_y
        look_x, look_y = start_x, start_y
        if lens[4] > 0.0:  # the grid shows the distorted image: look it up where the event is
            look_x, look_y = column / lens[4], row / lens[4]
        inverse = 0.0
        for _ in range(2):
            if not (-0.5 <= look_x < width - 0.5 and -0.5 <= look_y < height - 0.5):  # or NaN
                inverse = 0.0
                break
            depth = depth_m[np.int64(look_y + 0.5), np.int64(look_x + 0.5)]
            if not 0.0 < depth < np.inf:
                inverse = 0.0
                break
            inverse = 1.0 / depth
            if lens[4] > 0.0:
                break
            look_x = start_x + inverse_scale * inverse * moved_x
            look_y = start_y + inverse_scale * inverse * moved_y
        if inverse == 0.0:
            continue
        at[n, 0], at[n, 1] = start_x, start_y
        by[n, 0], by[n, 1] = moved_x * inverse, moved_y * inverse
        sign[n] = 2.0 * p - 1.0
        across = min(max((x * fx + cx) / width, 0.0), 0.999)
        down = min(max((y * fy + cy) / height, 0.0), 0.999)
        tile[n] = int(down * TILE_ROWS) * TILE_COLUMNS + int(across * TILE_COLUMNS)
        n += 1
    total, count = np.zeros(TILES), np.zeros(TILES)
    for i in range(n):
        total[tile[i]] += sign[i]
        count[tile[i]] += 1.0
    for i in range(n):
        sign[i] -= total[tile[i]] / count[tile[i]]
    return at[:n], by[:n], sign[:n], tile[:n]


@compiled(fastmath=True, error_model='numpy')
def contrast(at, by, sign, tile, inverse_scales, shape):
    """Sharpness of the events of each tile, warped at several inverse scales.

    The image of warped events has one pixel per grid pixel, each event spread bilinearly; OFF
    counts negative. What is summed is its square without what an event has in common with
    itself: over all pairs of events, how far they overlap, with the sign of their polarities. It
    is 0 on average for events without order, however much the warp draws them together.

    Args:
        at: see `Warp`.
        by: see `Warp`.
        sign: see `Warp`.
        tile: see `Warp`.
        inverse_scales: (K,) q.
        shape: (2,) rows and columns of the depth grid.

    Returns:
        (K, TILES) float64.
    """
    result = np.zeros((len(inverse_scales), TILES))
    height, width = shape[0] + 2 * MARGIN_PX, shape[1] + 2 * MARGIN_PX
    image = np.empty((height, width), np.float32)
    margin, one = np.float32(MARGIN_PX), np.float32(1.0)
    for k in range(len(inverse_scales)):
        q = np.float32(inverse_scales[k])
        image[:] = np.float32(0.0)
        for i in range(len(sign)):
            x, y = at[i, 0] + q * by[i, 0] + margin, at[i, 1] + q * by[i, 1] + margin
            if not (0.0 <= x < width - 1 and 0.0 <= y < height - 1):
                continue
            column, row = np.int32(x), np.int32(y)
            u, v, s = x - np.float32(column), y - np.float32(row), sign[i]
            a, b = (one - u) * (one - v) * s, u * (one - v) * s
            c, d = (one - u) * v * s, u * v * s
            top, low = image[row], image[row + 1]
            common = a * top[column] + b * top[column + 1]
            common += c * low[column] + d * low[column + 1]
            result[k, tile[i]] += common
            top[column] += a
            top[column + 1] += b
            low[column] += c
            low[column + 1] += d
    return 2.0 * result
