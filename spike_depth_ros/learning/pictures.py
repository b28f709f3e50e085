"""Draws one sample as a row of pictures: events, ground truth, depth, confidence."""

from __future__ import annotations

import numpy as np

from spike_depth_ros.estimation.pictures import confidence_colors, depth_colors, event_colors

NEAR_M, FAR_M, COLOR_MAP = 2.0, 100.0, 'turbo'


def sample_picture(
    spikes: np.ndarray, truth_m: np.ndarray, depth_m: np.ndarray, confidence: np.ndarray
) -> np.ndarray:
    """Draws the pictures of one sample side by side.

    Args:
        spikes: (T, 2, H, W) uint8.
        truth_m: (H, W) metres.
        depth_m: (H, W) metres, as predicted.
        confidence: (H, W) in [0, 1].

    Returns:
        (H, 4 W + gaps, 3) uint8 RGB.
    """
    parts = [
        event_colors(spikes),
        depth_colors(truth_m, COLOR_MAP, NEAR_M, FAR_M),
        depth_colors(depth_m, COLOR_MAP, NEAR_M, FAR_M),
        confidence_colors(confidence),
    ]
    gap = np.full((truth_m.shape[0], 4, 3), 255, np.uint8)
    row = [part for picture in parts for part in (picture, gap)]
    return np.concatenate(row[:-1], axis=1)
