"""Fits how much the confidence falls in windows that are unlike those of the calibration.

The network's own confidence is right on average for clips like those that it was calibrated on, so
these alone cannot show what distance from them costs. The same clips disturbed as no training
disturbs them can: their truth is known, and their windows lie far away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from spike_depth_ros.estimation.depth_frame import GOOD_RATIO, Limits, interpret
from spike_depth_ros.estimation.engine import ENGINES
from spike_depth_ros.estimation.familiarity import Describer, Familiarity
from spike_depth_ros.events.config import ConfigError, DepthRange
from spike_depth_ros.learning.datasets.augment import add_noise, drop_events
from spike_depth_ros.learning.datasets.sample import Sample
from spike_depth_ros.network.checkpoint import Checkpoint

PIXELS_PER_WINDOW = 500
SHARE_FAMILIAR = 0.95
"""Fraction of the windows of the calibration whose confidence stays as it is."""

SHRINKAGE = 0.3
"""Weight of uncorrelated features in the covariance, which is estimated from few clips."""

LEAST_DEVIATION = 0.01
"""For features that hardly vary among the clips."""

POWERS = np.linspace(0.0, 2.0, 41)
FOLDS = 5
COLLAGE = 4
"""Pieces along each side of a collage."""


class Seen(NamedTuple):
    """N windows as the node sees them, and P pixels of each with known truth."""

    clip: np.ndarray  # (N,) number of the clip
    features: np.ndarray  # (N, F)
    confidence: np.ndarray  # (N, P) of the network alone
    right: np.ndarray  # (N, P) bool


def turned(clip: list[Sample]) -> list[Sample]:
    """Turns a clip by 180 degrees, as from a camera mounted upside down."""
    return _moved(clip, lambda image: image[..., ::-1, ::-1])


def collage(clip: list[Sample], rng: np.random.Generator) -> list[Sample]:
    """Shuffles the pieces of a clip, all windows alike: each is right, their layout is not."""
    order = rng.permutation(COLLAGE * COLLAGE)

    def shuffle(image: np.ndarray) -> np.ndarray:
        height, width = (size // COLLAGE for size in image.shape[-2:])

        def piece(number: int) -> tuple[Any, ...]:
            top, left = number // COLLAGE * height, number % COLLAGE * width
            return np.s_[..., top : top + height, left : left + width]

        result = image.copy()
        for place, number in enumerate(order):
            result[piece(place)] = image[piece(int(number))]
        return result

    return _moved(clip, shuffle)


def _moved(clip: list[Sample], move: Callable[[np.ndarray], np.ndarray]) -> list[Sample]:
    """Applies a change of place to the image part of spikes, depth and validity."""

    def one(sample: Sample) -> Sample:
        height, width = sample.depth_m.shape
        spikes = sample.spikes.copy()
        spikes[..., :height, :width] = move(sample.spikes[..., :height, :width])
        depth_m, valid = (np.ascontiguousarray(move(x)) for x in (sample.depth_m, sample.valid))
        return sample._replace(spikes=spikes, depth_m=depth_m, valid=valid, image=None)

    return [one(sample) for sample in clip]


DISTURBANCES: dict[str, Callable[[list[Sample], np.random.Generator], list[Sample]]] = {
    'few events': lambda clip, rng: drop_events(clip, 0.92, rng),
    'noise': lambda clip, rng: add_noise(clip, 25.0, rng),
    'upside down': lambda clip, rng: turned(clip),
    'collage': collage,
}
"""Name -> what happens to a clip."""


def look(checkpoint: Checkpoint, clips: Iterable[list[Sample]]) -> tuple[Seen, Seen]:
    """Runs a calibrated network through clips as they are, and each with one disturbance in turn.

    The first window of a clip, in which the network begins at rest, counts only where it is alone.

    Raises:
        ConfigError: the clips hold no known depth.
    """
    engine = ENGINES['torch'](checkpoint, 'cpu', 1)
    kinds, rng = list(DISTURBANCES.values()), np.random.default_rng(0)
    rows: tuple[list[tuple[Any, ...]], ...] = ([], [])
    for number, clip in enumerate(clips):
        disturbed = kinds[number % len(kinds)](clip, rng)
        for chosen, found in zip((clip, disturbed), rows, strict=True):
            describe, state = Describer(), None
            for k, sample in enumerate(chosen):
                inside = np.s_[..., : sample.depth_m.shape[0], : sample.depth_m.shape[1]]
                maps, state = engine.infer(sample.spikes, state)
                features = describe(sample.spikes[inside], maps[inside], k == 0)
                pixels = _pixels(sample, maps[inside], checkpoint.depth_range)
                if pixels is not None and (k or len(chosen) == 1):
                    found.append((number, features, *pixels))
    if not all(rows):
        raise ConfigError('the clips for calibration hold no known depth')
    clean, far = (Seen(*map(np.array, zip(*found, strict=True))) for found in rows)
    return clean, far


def _pixels(
    sample: Sample, maps: np.ndarray, depth_range: DepthRange
) -> tuple[np.ndarray, np.ndarray] | None:
    """Confidence and whether it is right at some pixels of known truth; None without any."""
    known = np.flatnonzero(~np.isnan(sample.depth_m))
    if not known.size:
        return None
    chosen = known[np.linspace(0, known.size - 1, PIXELS_PER_WINDOW).round().astype(np.int64)]
    metres = float(sample.meta['focal_px']) / depth_range.focal_px
    depth_m, confidence = interpret(maps, depth_range, metres, Limits(0.0, math.inf, 0.0))
    answer, truth = depth_m.flat[chosen], sample.depth_m.flat[chosen]
    beyond = truth >= depth_range.max_m * metres
    with np.errstate(divide='ignore', invalid='ignore'):
        close = np.abs(np.log(answer) - np.log(truth)) < math.log(GOOD_RATIO)
    return confidence.flat[chosen], np.where(np.isposinf(answer), beyond, close & ~beyond)


def fit_familiarity(clean: Seen, far: Seen) -> Familiarity:
    """Fits the statistics to familiar windows, and the cost of distance to all.

    The limit is the `SHARE_FAMILIAR` quantile of the distances of `clean`; the power is the one
    of `POWERS` with the greatest likelihood of all pixels. Both use distances from the statistics
    of other clips, because clips are nearer to their own. The power is 0, so that nothing changes,
    where lower confidence would not help.

    Args:
        clean: windows of the calibration.
        far: the same, disturbed.
    """
    distances: list[np.ndarray] = [np.empty(len(seen.clip)) for seen in (clean, far)]
    for fold in range(FOLDS):
        others = clean.clip % FOLDS != fold
        features = clean.features[others if others.any() else ...]
        found = Familiarity(*_statistics(features), limit=1.0, power=0.0)
        for seen, distance in zip((clean, far), distances, strict=True):
            here = seen.clip % FOLDS == fold
            distance[here] = found.distance(seen.features[here])
    limit = float(np.quantile(distances[0], SHARE_FAMILIAR))
    ratio = (limit / np.maximum(np.concatenate(distances), limit))[:, None]
    confidence = np.concatenate([clean.confidence, far.confidence])
    right = np.concatenate([clean.right, far.right])

    def loss(power: float) -> float:
        sure = np.clip(confidence * ratio**power, 1e-4, 1 - 1e-4)
        return float(-np.log(np.where(right, sure, 1 - sure)).mean())

    power = float(min(POWERS, key=loss))
    return Familiarity(*_statistics(clean.features), limit, power)


def _statistics(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and whitening of features (N, F), with a covariance shrunk to its diagonal."""
    count = np.maximum((~np.isnan(features)).sum(axis=0), 1)
    mean = np.nansum(features, axis=0) / count
    difference = np.nan_to_num(features - mean)
    deviation = np.maximum(np.sqrt((difference**2).sum(axis=0) / count), LEAST_DEVIATION)
    normal = difference / deviation
    covariance = (1 - SHRINKAGE) * (normal.T @ normal) / len(normal)
    covariance += SHRINKAGE * np.eye(len(mean))
    return mean, np.linalg.inv(np.linalg.cholesky(covariance)) / deviation
