"""The spike camera of DENSE-spike: every pixel integrates light and fires when it is full.

Unlike an event camera it responds to light itself, not to its change: the spike rate of a pixel is
proportional to its luminance (Zhang et al., "Spike Transformer: Monocular Depth Estimation for
Spiking Camera", ECCV 2022, section 3).
"""

from __future__ import annotations

import numpy as np


class SpikeCamera:
    """One simulated integrate-and-fire sensor, which stores the charge of every pixel."""

    def __init__(self, height: int, width: int, seed: int, full_luminance: float = 1.0) -> None:
        """Starts all pixels at charges drawn from `seed`, so that they do not fire in step.

        Args:
            height: rows [px].
            width: columns [px].
            seed: determines the initial charges.
            full_luminance: luminance that fires in every frame; the sensor's gain.

        Raises:
            ValueError: `full_luminance` is not positive.
        """
        if not full_luminance > 0:
            raise ValueError(f'full_luminance is {full_luminance}, expected above 0')
        rng = np.random.default_rng((seed, 0x5B))
        self._charge = rng.random((height, width), np.float32)
        self._gain = 1.0 / full_luminance

    def expose(self, luminance: np.ndarray) -> np.ndarray:
        """Integrates the light of one frame and reads out the pixels that are full.

        Args:
            luminance: (H, W) mean relative luminance over the frame, 0 or more.

        Returns:
            (H, W) uint8 in {0, 1}. A spike takes one unit of charge. The remainder is kept up to
            one unit, so luminance above `full_luminance` does not fire faster.
        """
        charge = self._charge
        charge += np.minimum(luminance * self._gain, 1.0)
        spikes = charge >= 1.0
        charge -= spikes
        return spikes.view(np.uint8)
