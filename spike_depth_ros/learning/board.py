"""A test on real events without ground truth: how flat a flat board is."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from spike_depth_ros.estimation.estimator import DepthEstimator, EstimatorOptions
from spike_depth_ros.events.wire import EventStream
from spike_depth_ros.learning.planarity import fit_plane
from spike_depth_ros.network.checkpoint import Checkpoint
from spike_depth_ros.recordings import BagError, open_source


class BoardMap(NamedTuple):
    """One depth map of a flat board."""

    spread: float  # see `PlaneFit`; NaN without a fit
    rms: float  # likewise
    confidence: float  # mean
    beyond: float  # fraction of pixels answered beyond range
    median_m: float  # of the finite depths


def board_maps(
    checkpoint: Checkpoint, recording: str | Path, topic: str | None = None, threads: int = 1
) -> list[BoardMap]:
    """Runs the streaming estimator over a recording that shows nothing but a flat board.

    Args:
        checkpoint: to test.
        recording: see `open_source`.
        topic: of the events; None if there is only one.
        threads: for inference.

    Returns:
        One entry per window.

    Raises:
        BagError: the recording cannot be read, or is shorter than a window.
    """
    estimator: DepthEstimator | None = None
    maps = []
    with open_source(recording, topic) as source:
        stream = EventStream(source.event_topic.type)
        for message in source.messages():
            decoded = stream.feed(message.cdr)
            if decoded is None:
                continue
            packet, events = decoded
            if estimator is None:
                estimator = DepthEstimator(
                    checkpoint, packet.height, packet.width, None,
                    EstimatorOptions(streaming=True), 'torch', 'cpu', threads,
                )  # fmt: skip
            maps += [_board_map(f.depth_m, f.confidence) for f in estimator.push(events.events)]
    if not maps:
        raise BagError(
            f'{recording} gave no window of {checkpoint.spikes.window_ms:g} ms: expected a '
            'recording that is longer'
        )
    return maps


def _board_map(depth_m: np.ndarray, confidence: np.ndarray) -> BoardMap:
    fit = fit_plane(depth_m)
    finite = depth_m[np.isfinite(depth_m)]
    return BoardMap(
        np.nan if fit is None else fit.spread,
        np.nan if fit is None else fit.rms,
        float(confidence.mean()),
        float(np.isposinf(depth_m).mean()),
        float(np.median(finite)) if finite.size else np.nan,
    )
