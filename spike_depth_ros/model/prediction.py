"""What every network answers: three maps per image, the same from each."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

MAPS = 3
"""Channels of a head: depth, range, scale, in this order."""

START_LOG_SCALE = -1.5
"""Added to the raw scale map, so that an untrained network claims an error of e^-1.5 = 22 %."""


class Prediction(NamedTuple):
    """Depth, whether there is any within range, and how sure the network is."""

    log_depth: Tensor  # (B, 1, H, W) normalised log depth in [0, 1], see `DepthRange`
    range_logit: Tensor  # (B, 1, H, W) logit that the pixel is nearer than `DepthRange.max_m`
    log_scale: Tensor  # (B, 1, H, W) ln of the Laplace scale b of the natural-log depth error


def prediction(maps: Tensor) -> Prediction:
    """Reads the raw maps (B, 3, H, W) of a head; depth passes a sigmoid (E2Depth, Spike-T)."""
    depth, range_logit, scale = maps.split(1, dim=1)
    return Prediction(depth.sigmoid(), range_logit, scale + START_LOG_SCALE)
