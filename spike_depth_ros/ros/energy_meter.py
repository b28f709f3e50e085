"""Measures periodically the energy of a depth map on spiking hardware."""

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
"""Time from the first depth map to the first measurement."""

SHARE = 0.1
"""Largest share of one core that a measurement uses, because inference continues meanwhile."""

STRETCH_S = 0.005
"""Computing time between two pauses; a single operator may take longer."""


class _StoppedError(Exception):
    """The measurement was cancelled."""


class EnergyMeter:
    """Measures the network on windows of the live stream, at most once per period, with low load.

    Args:
        model: the network. A copy of it is measured once on an empty window here, so that kernels
            are not compiled while the first depth maps are computed.
        spikes: input of the network.

    Attributes:
        report: the last measurement; None before the first one.
    """

    def __init__(self, model: nn.Module, spikes: SpikeConfig) -> None:
        self.report: EnergyReport | None = None
        self._model = measurable(model)
        side_px = 4 * spikes.multiple_px
        count_energy(self._model, torch.zeros(spikes.steps, 1, 2, side_px, side_px))
        self._next_s: float | None = None

    def look(self, spikes: np.ndarray, period_s: float, stopped: threading.Event) -> None:
        """Measures this window if a measurement is due; takes seconds because of its pauses.

        Args:
            spikes: (T, 2, H, W) uint8.
            period_s: time between two measurements; 0 disables them.
            stopped: cancels the measurement when set; the next one starts `FIRST_S` after the next
                depth map.
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
        """Returns energy and firing rate for /diagnostics; empty before the first measurement."""
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
    """Returns a function that pauses so that computing takes at most `SHARE` of the time."""
    resumed_s = time.thread_time()

    def pause() -> None:
        nonlocal resumed_s
        worked_s = time.thread_time() - resumed_s
        if worked_s >= STRETCH_S:
            if stopped.wait(worked_s * (1 / SHARE - 1)):
                raise _StoppedError
            resumed_s = time.thread_time()

    return pause
