"""Colours of objects: linear RGB, reflectance or radiance."""

from __future__ import annotations

import numpy as np

from spike_depth_ros.sim.build import RGB

Generator = np.random.Generator

CAR_PAINTS: tuple[RGB, ...] = (
    (0.75, 0.76, 0.78),
    (0.03, 0.03, 0.035),
    (0.30, 0.31, 0.33),
    (0.12, 0.13, 0.15),
    (0.45, 0.03, 0.03),
    (0.05, 0.10, 0.32),
    (0.55, 0.52, 0.45),
    (0.08, 0.20, 0.12),
    (0.62, 0.42, 0.05),
    (0.25, 0.35, 0.45),
)
WALLS: tuple[RGB, ...] = (
    (0.55, 0.50, 0.42),
    (0.62, 0.60, 0.57),
    (0.35, 0.18, 0.13),
    (0.45, 0.36, 0.26),
    (0.28, 0.27, 0.27),
    (0.66, 0.55, 0.36),
    (0.50, 0.30, 0.22),
    (0.40, 0.45, 0.48),
    (0.72, 0.70, 0.66),
    (0.20, 0.21, 0.24),
)
CLOTHES: tuple[RGB, ...] = (
    (0.05, 0.05, 0.06),
    (0.10, 0.14, 0.30),
    (0.55, 0.53, 0.50),
    (0.40, 0.06, 0.06),
    (0.12, 0.25, 0.12),
    (0.60, 0.50, 0.10),
    (0.25, 0.20, 0.16),
    (0.35, 0.38, 0.42),
)
SKIN: RGB = (0.45, 0.29, 0.21)
RUBBER: RGB = (0.02, 0.02, 0.02)
PANE: RGB = (0.025, 0.03, 0.035)
STEEL: RGB = (0.30, 0.31, 0.32)
WHITE_GLOW: RGB = (26.0, 25.0, 22.0)
RED_GLOW: RGB = (1.6, 0.06, 0.03)


def pick(rng: Generator, table: tuple[RGB, ...], spread: float = 0.15) -> RGB:
    """Draws a colour of a table with a small variation."""
    r, g, b = table[int(rng.integers(len(table)))]
    f = 1.0 + rng.uniform(-spread, spread)
    return r * f, g * f, b * f
