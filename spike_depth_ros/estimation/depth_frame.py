"""Depth maps in metres with their confidence, from the maps of the network."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from spike_depth_ros.estimation.scale import OWN_DEVIATION
from spike_depth_ros.events.config import DepthRange

GOOD_RATIO = 1.25
"""Confidence is the probability that depth is right within this factor (the delta < 1.25)."""

CONFIDENCE_STEP = 61
"""One of so many pixels tells the confidence of a whole map."""

FAR_M = 40.0
"""Below a range logit of 0 the answer is "beyond range", but from this depth on only below
`SURELY_BEYOND`: a sky taken for 60 m is nobody's obstacle, a far house taken for sky is one."""

SURELY_BEYOND = -2.0
"""A probability of 12 % to be within range."""


class DepthFrame(NamedTuple):
    """What is known about depth at one instant, on the image part of the network's grid.

    Depth is along the optical axis [m] with the marks of REP 117: NaN no answer, +inf beyond
    range, -inf too close. Confidence is the probability that the network is right: within a
    factor `GOOD_RATIO` where it gives a depth (also one that the limits turn into a mark), truly
    beyond range where it sees none.
    """

    stamp_ns: int  # end of the window, sensor time
    depth_m: np.ndarray  # (H, W) float32
    confidence: np.ndarray  # (H, W) float32 in [0, 1]
    ln_scale: float = 0.0  # from the camera's motion, already in depth_m
    scale_confidence: float = 1.0  # that the scale is right, already in confidence


class Limits(NamedTuple):
    """What the user wants to see of the answers, in metres and probability."""

    min_depth_m: float
    max_depth_m: float
    min_confidence: float


def unscaled_m(frame: DepthFrame) -> np.ndarray:
    """(H, W) float32 depth as the network alone would have it [m]."""
    return frame.depth_m * np.float32(math.exp(-frame.ln_scale))


def expected_deviation(frame: DepthFrame) -> float:
    """Deviation of ln depth that the network itself expects: the median over a sample of pixels.

    Confidence is the mass of a Laplace distribution within +-ln `GOOD_RATIO`.
    """
    sample = frame.confidence.ravel()[::CONFIDENCE_STEP]
    finite = np.isfinite(frame.depth_m.ravel()[::CONFIDENCE_STEP])
    if not finite.any():
        return OWN_DEVIATION
    right = float(np.median(sample[finite])) / max(frame.scale_confidence, 1e-3)
    return -math.log(GOOD_RATIO) / math.log1p(-min(max(right, 0.01), 0.99))


def interpret(
    maps: np.ndarray,
    depth_range: DepthRange,
    metres_per_canonical: float,
    limits: Limits,
    trust: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Turns the network's three maps into metres and confidence.

    Args:
        maps: (3, H, W) float32: normalised log depth; logit of being within range; ln of the
            Laplace scale b of the error of ln depth.
        depth_range: of the checkpoint.
        metres_per_canonical: f / f_canonical, see `DepthRange`.
        limits: marks answers outside as -inf, +inf or NaN.
        trust: factor on the confidence of the whole map.

    Returns:
        depth_m and confidence, both (H, W) float32, as `DepthFrame` describes them. The
        confidence of a finite depth is the probability of being within range, times
        1 - exp(-ln(1.25) / b), the mass of a Laplace distribution within +-ln(1.25), times
        `trust`.
    """
    log_depth, range_logit, log_scale = maps
    with np.errstate(over='ignore'):
        close = -np.expm1(-math.log(GOOD_RATIO) * np.exp(-log_scale))
        beyond = 1.0 / (1.0 + np.exp(range_logit))
    depth_m = depth_range.denormalise(log_depth) * np.float32(metres_per_canonical)
    out_of_range = range_logit < np.where(depth_m < FAR_M, 0.0, SURELY_BEYOND)
    depth_m[depth_m < limits.min_depth_m] = -np.inf
    depth_m[out_of_range | (depth_m > limits.max_depth_m)] = np.inf
    confidence = np.where(out_of_range, beyond, (1.0 - beyond) * close).astype(np.float32)
    confidence *= np.float32(trust)
    unknown = ~(confidence >= limits.min_confidence) | np.isnan(depth_m)
    depth_m[unknown] = np.nan
    return depth_m, np.nan_to_num(confidence, nan=0.0)
