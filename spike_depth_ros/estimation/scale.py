"""Metric scale from the camera's own motion, without ROS.

A network that sees one camera guesses the metre from what it was trained on. A robot knows how
fast it moves; how fast the image then flows tells how far things are. `scale` compares the flow
that depth and velocity predict with the events of one window. `scale_filter` follows the scale
over time.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from spike_depth_ros.estimation.contrast import BLOCK_PX, TILES, contrast, turns, warp
from spike_depth_ros.estimation.motion import Twist
from spike_depth_ros.events.camera import Camera

STEP = 0.05
LN_SCALES = np.arange(-60, 33) * STEP
"""The scales that are told apart: 1/20 to 5, as logarithms."""

COARSE = 4
"""Over the whole range every so many-th of them is tried, all of them only near the best."""

NEAR = 6
"""How far from the scale that is known the others are tried, in steps."""

NARROW = (-6, -4, -2, -1, 0, 1, 2, 4, 6)
"""Which of them, from the one that is known."""

SHIFT_PX, PERCENTILE = 8.0, 75.0
"""A window is as long as that share of its events needs to move by less than this."""

SHORTEST_NS, LONGEST_NS = 3_000_000, 300_000_000
"""Limits of that length."""

PART_NS, STEPS = 40_000_000, 32
"""The motion is asked for once per such part of a window, and interpolated to so many steps."""

SAMPLE = 500
"""Events that are asked how fast they move."""

MOST_EVENTS, SHARE = 6_000, 2.2
"""Events that are warped, more would take longer than they help; and events that are looked at for
each of them."""

TURN = 97
"""Of 256 parts of the image, another one comes first in each window."""

MOST_SEEN = 200_000
"""Events that are looked at: the window is cut shorter where there are more."""

LEAST_EVENTS, LEAST_SHIFT_PX = 500, 1.0
"""With fewer events, or less motion in the longest window, there is no answer."""

TRUST = 0.5
"""Log likelihood per standard deviation of the contrast of a tile."""

OUTLIERS = 0.5
"""Share of the tiles that may move by themselves, flicker, or have a depth of their own."""

LEAST_GAIN, ENOUGH_GAIN = 3.0, 10.0
"""Windows with less gain say nothing about the scale, those with enough count fully: noise has
0 +- 1, but rain, crowds and a wrong shape of the depth may have 3 to 6."""

OWN_DEVIATION = 0.4
"""Deviation of the network's own ln scale where nothing is known about it."""


class Plan(NamedTuple):
    """How to look at one window.

    Attributes:
        near: ln scale, as far as it is known.
        wide: looks at all scales, not only around `near`.
        number: of the window; where there are too many events, windows take turns at the parts of
            the image.
    """

    near: float = 0.0
    wide: bool = True
    number: int = 0


FIRST = Plan()


class ScaleEstimate(NamedTuple):
    """What one window says of the scale: depth in metres is depth_m * exp(ln_scale).

    Attributes:
        ln_scale: most likely; 0 if the window says nothing.
        variance: of ln_scale; infinite if the window says nothing.
        gain: contrast at that scale over the contrast of the rotation alone, in standard
            deviations: about 0 where depth and motion do not explain the events, at most 0 where
            the best scale is at an end of those that were tried.
        log_likelihood: (len(LN_SCALES),) with a mean likelihood of 1.
        reason: why the window says nothing; empty if it does.
    """

    ln_scale: float
    variance: float
    gain: float
    log_likelihood: np.ndarray
    reason: str


def span_ns(
    events: np.ndarray, depth_m: np.ndarray, camera: Camera, view: Camera, twist: Twist,
    ln_scale: float = 0.0,
) -> int:  # fmt: skip
    """How long the events of a window should be, if depth is off by about that scale.

    Returns:
        0 if what the events show moves too little for any window to say something.
    """
    sample = events[:: max(1, len(events) // SAMPLE)]
    x, y = _rays(camera)[sample['y'], sample['x']].T
    if not view.is_rectified:
        factor = round(camera.width / view.width)
        column, row = sample['x'] // factor, sample['y'] // factor
    else:
        with np.errstate(invalid='ignore'):
            column = np.rint(x * view.fx + view.cx).astype(np.int64)
            row = np.rint(y * view.fy + view.cy).astype(np.int64)
    inside = (column >= 0) & (column < view.width) & (row >= 0) & (row < view.height)
    depth = depth_m[row[inside], column[inside]]
    vx, vy, vz = twist.velocity_mps
    speed = np.hypot((x[inside] * vz - vx) * view.fx, (y[inside] * vz - vy) * view.fy)
    known = np.isfinite(depth) & (depth > 0)
    if not known.any():
        return 0
    flow_pxps = float(np.percentile(speed[known] / depth[known], PERCENTILE)) * math.exp(-ln_scale)
    if not flow_pxps * LONGEST_NS * 1e-9 > LEAST_SHIFT_PX:
        return 0
    return min(max(round(1e9 * SHIFT_PX / flow_pxps), SHORTEST_NS), LONGEST_NS)


def scale(
    events: np.ndarray,
    depth_m: np.ndarray,
    stamp_ns: int,
    camera: Camera,
    view: Camera,
    twists: np.ndarray,
    plan: Plan = FIRST,
) -> ScaleEstimate:
    """Finds the scale at which depth and motion explain the events before a depth map best.

    Args:
        events: (N,) `EVENT_DTYPE` before `stamp_ns`, for as long as `span_ns` says.
        depth_m: (H, W) of a `DepthFrame`.
        stamp_ns: its time.
        camera: the sensor with its lens.
        view: the camera of `depth_m`.
        twists: (M, 6) mean velocities [m/s] and turning rates [rad/s] of the camera from a time
            to `stamp_ns`; the times divide that of the events evenly, the last is its start.
        plan: how to look at them.
    """
    if not np.isfinite(twists).all():
        return nothing('the twist is not finite')
    if not len(events):
        return nothing('no events')
    factor = round(camera.width / view.width)
    lens = np.array([view.fx, view.fy, view.cx, view.cy, 0 if view.is_rectified else factor])
    newest = events[-MOST_SEEN:]
    last_turn = min(255, int(255 * SHARE * MOST_EVENTS / len(newest)))
    table, step_ns = _table(twists, stamp_ns - int(events['t_ns'][0]))
    warped = warp(newest, _rays(camera), depth_m, lens, table, step_ns, stamp_ns,
                  math.exp(-plan.near), _turns(camera, factor), plan.number * TURN % 256,
                  last_turn)  # fmt: skip
    if len(warped[2]) < LEAST_EVENTS:
        return nothing(f'{len(warped[2])} events on what has a depth')
    log, gain = _likelihood(warped, depth_m.shape, plan)
    place = int(log.argmax())
    mode = slice(max(place - 10, 0), place + 11)
    mean, variance = moments(np.exp(log[mode] - log[place]), LN_SCALES[mode])
    return ScaleEstimate(mean, variance, gain, log, '')


def _table(twists: np.ndarray, span_ns: int) -> tuple[np.ndarray, int]:
    """Twists by the age of events in steps of an `STEPS`-th of a time, and that step [ns]."""
    ages = (np.arange(STEPS) + 0.5) / STEPS * len(twists) - 1.0
    rows = np.stack([np.interp(ages, np.arange(len(twists)), row) for row in twists.T], axis=1)
    return rows, max(1, -(-span_ns // STEPS))


def nothing(reason: str) -> ScaleEstimate:
    """The estimate of a window that says nothing."""
    return ScaleEstimate(0.0, math.inf, 0.0, np.zeros(len(LN_SCALES)), reason)


@functools.lru_cache(maxsize=4)
def _rays(camera: Camera) -> np.ndarray:
    """(height, width, 2) float32 ray of each sensor pixel."""
    return np.ascontiguousarray(camera.rays()[..., :2])


@functools.lru_cache(maxsize=4)
def _turns(camera: Camera, factor: int) -> np.ndarray:
    return turns(camera.height, camera.width, BLOCK_PX * factor)


def _likelihood(
    warped: tuple[np.ndarray, ...], shape: tuple[int, ...], plan: Plan
) -> tuple[np.ndarray, float]:
    """Log likelihood of all `LN_SCALES` from one warp, and the gain over the rotation alone."""
    count = np.bincount(warped[3], minlength=TILES)
    deviation = np.sqrt(np.maximum(count, 1))
    grid = np.array(shape)

    def contrast_at(chosen: np.ndarray) -> np.ndarray:  # (K, TILES)
        tiles: np.ndarray = contrast(*warped, np.exp(-LN_SCALES[chosen]), grid)
        shares: np.ndarray = tiles / deviation
        return shares

    best = int(np.abs(LN_SCALES - plan.near).argmin())
    tried = np.arange(0, len(LN_SCALES), COARSE) if plan.wide else best + np.array(NARROW)
    tried = tried[(tried >= 0) & (tried < len(LN_SCALES))]
    found = contrast_at(tried)
    if plan.wide:
        best = int(tried[_votes(found).argmax()])
        fine = np.setdiff1d(around(best, COARSE), tried)
        order = np.argsort(np.concatenate([tried, fine]))
        tried = np.concatenate([tried, fine])[order]
        found = np.concatenate([found, contrast_at(fine)])[order]
    votes = _votes(found)
    log = np.interp(np.arange(len(LN_SCALES)), tried, votes, votes.min(), votes.min())
    still = contrast(*warped, np.zeros(1), grid)[0] / deviation
    place = int(votes.argmax())
    gain = float((found[place] - still).sum() / math.sqrt(np.count_nonzero(count) or 1))
    if place in (0, len(tried) - 1):  # the best is beyond what was tried, or nowhere
        gain = min(gain, 0.0)
    return log - log.max() - np.log(np.mean(np.exp(log - log.max()))), gain


def around(place: int, reach: int) -> np.ndarray:
    """Indices of `LN_SCALES` from `place` - `reach` to `place` + `reach`."""
    return np.arange(max(place - reach, 0), min(place + reach + 1, len(LN_SCALES)))


def _votes(found: np.ndarray) -> np.ndarray:
    """(K,) log likelihood of scales from the (K, TILES) contrast in standard deviations.

    A tile has its say, or moves by itself (`OUTLIERS`).
    """
    likelihood = np.exp(TRUST * (found - found.max(axis=0)))
    likelihood /= likelihood.mean(axis=0)
    votes: np.ndarray = np.log(OUTLIERS + (1.0 - OUTLIERS) * likelihood).sum(axis=1)
    return votes


def moments(weight: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Mean, and variance at least that of one step."""
    mean = float(np.average(values, weights=weight))
    return mean, float(np.average((values - mean) ** 2, weights=weight)) + STEP**2 / 12
