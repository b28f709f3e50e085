"""Parts that move with the camera: a bonnet, an arm, dirt on the lens, the rim of a hood.

A part is a shape in the field of view. Directions (a, b) are the angle from the optical axis over
half of the horizontal field of view, so that one part fits any lens. The part passes a share
`keep` of the scene's light and adds its own light, which is constant and causes no events.

Depth behind an opaque part (`keep` below `OPAQUE`) is unknown (NaN): a robot knows its own parts,
so a network is neither trained nor measured there. Depth behind dirt is that of the scene.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from spike_depth_ros.events.camera import Camera

OPAQUE = 0.15
EDGE = 0.02
"""Width of a part's edge, in half fields of view."""


class StaticPart(NamedTuple):
    """A part that moves with the camera.

    Attributes:
        kind: a key of `STATIC_PARTS`.
        half_rad: half of the horizontal field of view that it was drawn for.
        seed: determines its shape and its light.
    """

    kind: str
    half_rad: float
    seed: int


class Cover(NamedTuple):
    """The effect of a part on an image.

    Attributes:
        keep: (H, W) float32 share of the scene's light that passes.
        own: (H, W) float32 added light, relative to the scene's mean.
    """

    keep: np.ndarray
    own: np.ndarray


def draw_part(rng: np.random.Generator, kind: str, field_of_view_deg: float) -> StaticPart:
    """Draws a part of a kind for a field of view."""
    return StaticPart(kind, math.radians(field_of_view_deg) / 2, int(rng.integers(2**31)))


@functools.lru_cache(maxsize=8)
def cover(part: StaticPart, camera: Camera) -> Cover:
    """Returns the effect of a part on the images of a camera."""
    xy = camera.rays()[..., :2].astype(np.float64)
    radius = np.hypot(xy[..., 0], xy[..., 1])
    scale = np.where(radius > 1e-9, np.arctan(radius) / np.maximum(radius, 1e-9), 1.0)
    scale /= part.half_rad
    a, b = xy[..., 0] * scale, xy[..., 1] * scale
    keep, own = STATIC_PARTS[part.kind](np.random.default_rng(part.seed), a, b)
    return Cover(keep.astype(np.float32), own.astype(np.float32))


def covered_depth(part: StaticPart | None, camera: Camera, depth_m: np.ndarray) -> np.ndarray:
    """Returns depth with NaN behind opaque parts."""
    if part is None:
        return depth_m
    return np.where(cover(part, camera).keep < OPAQUE, np.float32(np.nan), depth_m)


Shape = Callable[[np.random.Generator, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def _bonnet(rng: np.random.Generator, a: np.ndarray, b: np.ndarray) -> tuple:
    """Draws the front of the vehicle along the lower edge, which mirrors some sky."""
    aspect = float(np.nanmax(b)) if b.size else 1.0
    top = aspect * rng.uniform(0.45, 0.9)
    bow, centre = rng.uniform(0.05, 0.3), rng.uniform(-0.3, 0.3)
    inside = _step(b - top - bow * (a - centre) ** 2)
    shade = rng.uniform(0.05, 0.6) + rng.uniform(0.0, 0.8) * np.clip(1 - (b - top) / 0.3, 0, 1)
    return 1 - inside, inside * shade


def _arm(rng: np.random.Generator, a: np.ndarray, b: np.ndarray) -> tuple:
    """Draws a robot's arm of two links that extends from an edge of the image."""
    angle = rng.uniform(0.15, 0.85) * math.pi  # mostly from below
    foot = np.array([math.cos(angle), math.sin(angle)]) * 1.3
    elbow = foot * rng.uniform(0.45, 0.75)
    hand = elbow * rng.uniform(0.2, 0.8) + rng.uniform(-0.25, 0.25, 2)
    width = rng.uniform(0.05, 0.16)
    inside = np.zeros_like(a)
    own = np.zeros_like(a)
    for start, end, half in ((foot, elbow, width), (elbow, hand, 0.7 * width)):
        along = end - start
        length = float(np.hypot(*along))
        da, db = a - start[0], b - start[1]
        u = np.clip((da * along[0] + db * along[1]) / length**2, 0, 1)
        gap = np.hypot(da - u * along[0], db - u * along[1])
        link = _step(half - gap)
        stripes = 1.0 + 0.3 * np.sign(np.sin(u * rng.uniform(6, 30)))
        shade = rng.uniform(0.1, 1.2) * stripes * (1 - 0.5 * gap / half)
        own = np.where(link > inside, link * np.maximum(shade, 0.02), own)
        inside = np.maximum(inside, link)
    return 1 - inside, own


def _dirt(rng: np.random.Generator, a: np.ndarray, b: np.ndarray) -> tuple:
    """Draws soft spots of dust, drops and fingerprints, which reduce contrast."""
    keep = np.ones_like(a)
    for _ in range(int(rng.integers(3, 14))):
        size = math.exp(rng.uniform(math.log(0.03), math.log(0.35)))
        stretch, turn = rng.uniform(0.5, 1.0), rng.uniform(0, math.pi)
        da, db = a - rng.uniform(-1.1, 1.1), b - rng.uniform(-0.9, 0.9)
        u = (da * math.cos(turn) + db * math.sin(turn)) / size
        v = (db * math.cos(turn) - da * math.sin(turn)) / (size * stretch)
        keep *= 1 - rng.uniform(0.15, 0.8) * np.exp(-((u * u + v * v) ** 2))
    keep = np.maximum(keep, 0.2)
    return keep, (1 - keep) * rng.uniform(0.3, 1.0)


def _rim(rng: np.random.Generator, a: np.ndarray, b: np.ndarray) -> tuple:
    """Draws the dark rim of a hood or tube around a round view."""
    radius = rng.uniform(0.75, 1.05)
    outside = _step(np.hypot(a - rng.uniform(-0.1, 0.1), b - rng.uniform(-0.1, 0.1)) - radius)
    return 1 - outside, outside * rng.uniform(0.005, 0.1)


def _step(distance: np.ndarray) -> np.ndarray:
    """Returns a smooth step from 0 to 1 over `EDGE` around zero."""
    return np.clip(distance / EDGE + 0.5, 0.0, 1.0)


STATIC_PARTS: dict[str, Shape] = {'bonnet': _bonnet, 'arm': _arm, 'dirt': _dirt, 'rim': _rim}
"""Kind -> function of directions (a, b) that returns `keep` and `own`."""
