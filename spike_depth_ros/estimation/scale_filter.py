"""The metric scale over time: a Bayes filter on the estimates of single windows."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from spike_depth_ros.estimation.scale import (
    ENOUGH_GAIN,
    LEAST_GAIN,
    LN_SCALES,
    NEAR,
    OWN_DEVIATION,
    STEP,
    Plan,
    ScaleEstimate,
    around,
    moments,
)

WIDE_EVERY = 10
"""Every so many-th window looks at all scales, though one is known, and so does the one after a
window that agreed with none."""

GUESSES = (0.0, -1.2, -2.4, 1.2)
"""ln scales that windows are cut for while nothing is known: no length suits all of them."""

MOST_SUPPORT = 12.0
"""No window counts for more, in log likelihood: a few that are wrong do not carry the others."""

LOOKS = 10.0
"""Windows of one memory count as so many independent ones: they share the errors of the maps."""

LEAST_OWN, MOST_OWN, TAIL = 0.08, 0.6, 3.0
"""Limits of that deviation, and degrees of freedom of its Student's t distribution: a network in
an unknown place may be off by a factor of ten."""

MEMORY_S = 1.0
"""What a window has said counts 1/e after this time."""

SMOOTH_S = 0.5
"""The scale that is shown follows the one that is believed within this time."""

RESTART_S = 5.0
"""After a longer pause, or a jump in time, everything is forgotten."""

DRIFT = 0.03
"""Standard deviation of how far ln scale goes astray in a second."""

FLOOR = 0.03
"""Deviation that remains: windows share the errors of the depth maps."""


class ScaleState(NamedTuple):
    """What the filter knows.

    Attributes:
        ln_scale: depth in metres is depth_m * exp(ln_scale); 0 while nothing is known.
        deviation: standard deviation of ln_scale; infinite while nothing is known.
        known: whether a scale has been found.
        agreement: recent mean of `ScaleEstimate.gain`, of 0 to `ENOUGH_GAIN`; NaN before the
            first window that moved.
        age_s: time since a window last said something; infinite before the first.
    """

    ln_scale: float
    deviation: float
    known: bool
    agreement: float
    age_s: float


class ScaleFilter:
    """Follows the scale over time: a Bayes filter on `LN_SCALES`.

    A histogram rather than a Kalman filter, because the contrast often has several peaks, of
    which only one stays from window to window. What windows said is forgotten within `MEMORY_S`;
    while they say nothing the scale is held, and its uncertainty grows.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._log = np.zeros(len(LN_SCALES))
        self._stamp_ns: int | None = None
        self._informed_ns: int | None = None
        self._windows = self._informative = 0
        self._ln_own = math.log(OWN_DEVIATION)
        self._agreement = math.nan
        self._known = self._lost = False
        self._shown, self._shown_s = 0.0, 0.0

    def plan(self) -> Plan:
        """How to look at the next window."""
        number = self._windows
        if not self._known:
            return Plan(GUESSES[number % len(GUESSES)], True, number)
        wide = self._lost or number % WIDE_EVERY == 0
        return Plan(self._summary()[0], wide, number)

    def update(
        self, stamp_ns: int, estimate: ScaleEstimate, own_deviation: float = OWN_DEVIATION
    ) -> ScaleState:
        """Takes what one window says, and returns what is known then.

        Args:
            stamp_ns: end of the window.
            estimate: from it.
            own_deviation: of the network's own ln scale, as far as it knows.
        """
        passed_s = 0.0 if self._stamp_ns is None else (stamp_ns - self._stamp_ns) * 1e-9
        if not 0 <= passed_s < RESTART_S:
            self.reset()
            passed_s = 0.0
        self._stamp_ns, was_known = stamp_ns, self._known
        self._spread(passed_s)
        self._windows += 1
        own = math.log(min(max(own_deviation, LEAST_OWN), MOST_OWN))
        share = 1.0 if self._windows == 1 else min(1.0, passed_s / MEMORY_S)
        self._ln_own += share * (own - self._ln_own)
        self._lost = not estimate.reason and not estimate.gain > LEAST_GAIN
        if not estimate.reason and math.isfinite(estimate.gain):
            gain = min(max(estimate.gain, 0.0), ENOUGH_GAIN)
            if math.isnan(self._agreement):
                self._agreement = gain
            self._agreement += min(1.0, passed_s / MEMORY_S) * (gain - self._agreement)
        if estimate.gain > LEAST_GAIN:
            self._take(estimate, passed_s)
            self._informed_ns = stamp_ns
            if self._known:
                self._shown_s = self._shown_s + passed_s if was_known else 0.0
                step = 1.0 - math.exp(-passed_s / min(SMOOTH_S, max(self._shown_s, 1e-3)))
                away = self._summary()[0] - self._shown
                self._shown += away if abs(away) > NEAR * STEP else step * away
        return self.state(stamp_ns)

    def state(self, stamp_ns: int) -> ScaleState:
        """What is known at a time at or after the last update."""
        age_s = math.inf if self._informed_ns is None else (stamp_ns - self._informed_ns) * 1e-9
        if not self._known:
            return ScaleState(0.0, math.inf, False, self._agreement, age_s)
        _, deviation, _ = self._summary()
        return ScaleState(self._shown, math.hypot(deviation, FLOOR), True, self._agreement, age_s)

    def _take(self, estimate: ScaleEstimate, passed_s: float) -> None:
        kept = math.exp(-max(passed_s, 0.0) / MEMORY_S)
        weight = min(1.0, (estimate.gain - LEAST_GAIN) / (ENOUGH_GAIN - LEAST_GAIN)) ** 2
        support = np.maximum(estimate.log_likelihood, estimate.log_likelihood.max() - MOST_SUPPORT)
        self._log = kept * self._log + LOOKS * (1.0 - kept) * weight * support
        self._log -= self._log.max()
        self._informative += 1
        _, deviation, mass = self._summary()
        if self._informative >= len(GUESSES) and mass > 0.9 and deviation < 0.2:
            self._known = True

    def _spread(self, passed_s: float) -> None:
        """The scale may have changed meanwhile: diffuses the histogram."""
        share = min(0.25, 0.5 * DRIFT**2 * passed_s / STEP**2)
        weight = np.exp(self._log - self._log.max())
        padded = np.pad(weight, 1, mode='edge')
        weight = (1 - 2 * share) * weight + share * (padded[:-2] + padded[2:])
        self._log = np.log(np.maximum(weight, 1e-30))

    def _summary(self) -> tuple[float, float, float]:
        """Mean and deviation of the greatest mode, and the share of the weight that it has."""
        own = (LN_SCALES / math.exp(self._ln_own)) ** 2
        log = self._log - 0.5 * (TAIL + 1.0) * np.log1p(own / TAIL)
        weight = np.exp(log - log.max())
        mode = around(int(weight.argmax()), 2 * NEAR)
        mean, variance = moments(weight[mode], LN_SCALES[mode])
        return mean, math.sqrt(variance), float(weight[mode].sum() / weight.sum())
