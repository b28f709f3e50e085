"""Now and then, what a depth map of the present scene would cost on spiking hardware."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from spike_depth_ros.events.config import SpikeConfig
from spike_depth_ros.network.energy import EnergyReport, count_energy, measurable

FIRST_S = 3.0
"""The first measurement is this long after the first depth map."""

SHARE = 0.1
"""Of the time of one core, while it measures: inference goes on beside it."""

STRETCH_S = 0.005
"""It works for so long between two pauses; longer only where one operator does."""


class _StoppedError(Exception):
    """Nobody waits for the measurement any more."""


class EnergyMeter:
    """Measures the network on a window of the live stream, at most once per period, at leisure.

    Args:
        model: the network; a copy of it is measured, here on nothing, so that kernels which are
            compiled for that do not take the processor from the first depth maps.
        spikes: what the network sees.

    Attributes:
        report: the last measurement; None before the first.
    """

    def __init__(self, model: nn.Module, spikes: SpikeConfig) -> None:
        self.report: EnergyReport | None = None
        self._model = measurable(model)
        side_px = 4 * spikes.multiple_px
        count_energy(self._model, torch.zeros(spikes.steps, 1, 2, side_px, side_px))
        self._next_s: float | None = None

    def look(self, spikes: np.ndarray, period_s: float, stopped: threading.Event) -> None:
        """Measures on this window if it is time to: seconds, of which it works a few tenths.

        Args:
            spikes: (T, 2, H, W) uint8.
            period_s: time between two measurements; 0 for none.
            stopped: once it is set the measurement ends without a report, and begins anew
                `FIRST_S` after the next depth map.
        """
        now_s = time.monotonic()
        if self._next_s is None:
            self._next_s = now_s + min(FIRST_S, period_s)
        if period_s > 0 and now_s >= self._next_s:
            self._next_s = now_s + period_s
            batch = torch.from_numpy(spikes)[:, None].float()  # (T, 1, 2, H, W)
            try:
                self.report = count_energy(self._model, batch, _pacing(stopped))
            except _StoppedError:
                self._next_s = None

    def summary(self) -> dict[str, str]:
        """Energy and firing rate for /diagnostics; empty before the first measurement."""
        if self.report is None:
            return {}
        spiking = [layer for layer in self.report.layers if layer.spiking]
        dense = sum(layer.dense_macs for layer in spiking)
        rate = sum(layer.rate * layer.dense_macs for layer in spiking) / max(dense, 1.0)
        return {
            'energy per depth map uJ (encoder, head)': (
                f'{1e-6 * self.report.compute_pj("encoder"):.2f}, '
                f'{1e-6 * self.report.compute_pj("head"):.2f}'
            ),
            'spike rate in the network': f'{rate:.4f}',
        }


def _pacing(stopped: threading.Event) -> Callable[[], None]:
    """What waits, between two stretches of work, so long that they take no more than `SHARE`."""
    resumed_s = time.thread_time()

    def pause() -> None:
        nonlocal resumed_s
        worked_s = time.thread_time() - resumed_s
        if worked_s >= STRETCH_S:
            if stopped.wait(worked_s * (1 / SHARE - 1)):
                raise _StoppedError
            resumed_s = time.thread_time()

    return pause
