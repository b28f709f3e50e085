"""Now and then, what a depth map of the present scene would cost on spiking hardware."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import nn

from spike_depth_ros.energy import EnergyReport, measure_energy

FIRST_S = 3.0
"""The first measurement is this long after the first depth map."""


class EnergyMeter:
    """Measures the network on a window of the live stream, at most once per period.

    Args:
        model: the network; it is not touched.

    Attributes:
        report: the last measurement; None before the first.
    """

    def __init__(self, model: nn.Module) -> None:
        self.report: EnergyReport | None = None
        self._model = model
        self._next_s: float | None = None

    def look(self, spikes: np.ndarray, period_s: float) -> None:
        """Measures on this window if it is time to.

        Args:
            spikes: (T, 2, H, W) uint8.
            period_s: time between two measurements; 0 for none.
        """
        now_s = time.monotonic()
        if self._next_s is None:
            self._next_s = now_s + min(FIRST_S, period_s)
        if period_s > 0 and now_s >= self._next_s:
            self._next_s = now_s + period_s
            batch = torch.from_numpy(spikes)[:, None].float()  # (T, 1, 2, H, W)
            self.report = measure_energy(self._model, batch)

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
