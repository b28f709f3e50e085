"""How far a window lies from those that the confidence was calibrated on.

A network may be as sure of itself in a place that it has never seen as in its training. A few
numbers that need no ground truth describe a window: how many events there are and how they are
spread, the shape of the depth map, what the network says about its error, and how much the map
differs from the one before. The Mahalanobis distance of these numbers from those of the clips of
`spike_depth calibrate` (Lee et al., NeurIPS 2018, eq. 2) lowers the confidence.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from spike_depth_ros.network.checkpoint import CheckpointError

CARD_KEY = 'familiarity'
"""Entry of a checkpoint's card that holds a `Familiarity`."""

STRIDE_PX = 6
"""Every sixth row and column of a window is used."""

FEATURES = (
    'ln_events', 'ln_repeats', 'on_share', 'burst', 'row_spread', 'column_spread',
    'depth_mean', 'depth_std', 'depth_rows', 'depth_columns', 'range_mean', 'scale_mean',
    'scale_std', 'ln_change',
)  # fmt: skip
"""The numbers of `Describer`, in order."""

SMALLEST = 1e-3
"""Added to densities before their logarithm and where they divide."""

SUREST_LOGIT = 8.0
"""Range logits are clipped to this; beyond it nothing changes."""


class Familiarity(NamedTuple):
    """Statistics of familiar windows, and what distance from them costs.

    Attributes:
        mean: (F,) mean of `FEATURES`.
        whiten: (F, F) maps a difference from the mean to uncorrelated numbers of variance 1.
        limit: distance up to which a window is familiar.
        power: the confidence of a window at a greater distance is multiplied by
            (limit / distance)^power.
    """

    mean: np.ndarray
    whiten: np.ndarray
    limit: float
    power: float

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Root mean square of the whitened features, near 1 for familiar windows.

        Args:
            features: (..., F); NaN where unknown, which counts as the mean.

        Returns:
            (...) float64.
        """
        difference = np.nan_to_num(features - self.mean, nan=0.0)
        distance: np.ndarray = np.sqrt(np.mean((difference @ self.whiten.T) ** 2, axis=-1))
        return distance

    def factor(self, features: np.ndarray) -> np.ndarray:
        """The factor on the confidence of windows with features (..., F): (...), in (0, 1]."""
        excess = np.maximum(self.distance(features), self.limit) / self.limit
        factor: np.ndarray = excess**-self.power
        return factor


class Describer:
    """Describes the windows of one stream in order; it remembers the last depth map."""

    def __init__(self) -> None:
        self._before: np.ndarray | None = None

    def __call__(self, spikes: np.ndarray, maps: np.ndarray, rest: bool) -> np.ndarray:
        """Describes the next window.

        Args:
            spikes: (T, 2, h, w) uint8, the image part.
            maps: (3, h, w) float32 log_depth, range_logit and log_scale as in `Prediction`.
            rest: whether the network began at rest.

        Returns:
            (F,) float64, see `FEATURES`; `ln_change` is NaN for a network that began at rest.
        """
        log_depth, range_logit, log_scale = maps[:, ::STRIDE_PX, ::STRIDE_PX].copy()
        before, self._before = None if rest else self._before, log_depth
        change = math.nan
        if before is not None and before.shape == log_depth.shape:
            change = math.log(float(np.abs(log_depth - before).mean()) + SMALLEST)
        down, across = (_ramp(size) for size in log_depth.shape)
        return np.array([
            *_describe_events(spikes[:, :, ::STRIDE_PX, ::STRIDE_PX].astype(np.float32)),
            log_depth.mean(),
            log_depth.std(),
            log_depth.mean(axis=1) @ down,
            log_depth.mean(axis=0) @ across,
            np.clip(range_logit, -SUREST_LOGIT, SUREST_LOGIT).mean(),
            log_scale.mean(),
            log_scale.std(),
            change,
        ], np.float64)  # fmt: skip


def _describe_events(counts: np.ndarray) -> tuple[float, ...]:
    """Density, repetition, share of ON, unsteadiness, spread over rows and columns.

    Args:
        counts: (T, 2, rows, columns) float32.
    """
    per_step, per_pixel = counts.sum(axis=(2, 3)), counts.sum(axis=(0, 1))
    events, steps = float(per_step.sum()), per_step.sum(axis=1)
    rows, columns = (per_pixel.mean(axis=axis) for axis in (1, 0))
    return (
        math.log(events / counts[:, 0].size + SMALLEST),
        math.log((events + 1) / (np.count_nonzero(per_pixel) + 1)),
        (float(per_step[:, 1].sum()) + 1) / (events + 2),
        float(steps.std() / (steps.mean() + 1)),
        float(rows.std() / (rows.mean() + SMALLEST)),
        float(columns.std() / (columns.mean() + SMALLEST)),
    )


def _ramp(size: int) -> np.ndarray:
    """(size,) weights whose product with a line of values is the slope of its best line."""
    ramp = np.linspace(-1.0, 1.0, size) if size > 1 else np.zeros(1)
    return ramp / max(float(ramp @ ramp), 1.0)


def to_card(familiarity: Familiarity) -> dict[str, Any]:
    """Returns the familiarity in JSON types."""
    mean, whiten, limit, power = familiarity
    return {'features': list(FEATURES), 'mean': mean.tolist(), 'whiten': whiten.tolist(),
            'limit': limit, 'power': power}  # fmt: skip


def from_card(card: dict[str, Any]) -> Familiarity | None:
    """Reads the familiarity from the card of a checkpoint; None if it changes no confidence.

    Raises:
        CheckpointError: it is not what `to_card` writes.
    """
    if CARD_KEY not in card:
        return None
    stored, size = card[CARD_KEY], len(FEATURES)
    try:
        names = tuple(stored['features'])
        mean, whiten = (np.array(stored[key], np.float64) for key in ('mean', 'whiten'))
        limit, power = float(stored['limit']), float(stored['power'])
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(
            f'the {CARD_KEY} of the checkpoint cannot be read ({error!r}): calibrate it again'
        ) from error
    fits = names == FEATURES and mean.shape == (size,) and whiten.shape == (size, size)
    finite = all(np.isfinite(part).all() for part in (mean, whiten, limit, power))
    if not (fits and finite and limit > 0 and power >= 0):
        raise CheckpointError(
            f'the {CARD_KEY} of the checkpoint has features {names}, shapes {mean.shape} and '
            f'{whiten.shape}, limit {limit} and power {power}, expected {FEATURES}, ({size},), '
            f'({size}, {size}), finite numbers, limit > 0 and power >= 0: calibrate it again'
        )
    return Familiarity(mean, whiten, limit, power) if power else None
