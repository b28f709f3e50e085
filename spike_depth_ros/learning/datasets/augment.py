"""Augmentation of clips: pure functions that keep spikes, depth, image and intrinsics consistent.

Each function takes a clip (a list of samples of one size) and returns a new one in which all
windows are changed in the same way; the input is not modified. Depth stays in metres and is never
interpolated. `scale` changes the focal length in `meta` and therefore the *canonical* depth.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from spike_depth_ros.events.config import ConfigError, require
from spike_depth_ros.learning.datasets.sample import Sample


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Strength of the augmentation; `NO_AUGMENTATION` changes nothing.

    Attributes:
        crop_height: rows of the result, a multiple of what the network requires; 0 for no crop.
        crop_width: columns of the result; 0 for no crop. Set both or neither.
        flip: probability of a horizontal flip.
        min_scale: minimum zoom.
        max_scale: maximum zoom; each clip draws one from a log-uniform distribution.
        max_drop: maximum fraction of dropped events; each clip draws uniformly from 0.
        max_noise_hz: maximum rate of added events per pixel and second.
        swap_polarity: probability of exchanging ON and OFF.
        max_hot_pixels: maximum number of pixels that fire continuously.
        halt: probability that the camera stops: from some window on nearly all events are dropped,
            so depth can only come from memory.
        flash: probability of a sudden change of light: every pixel fires at one step.
    """

    crop_height: int = 0
    crop_width: int = 0
    flip: float = 0.5
    min_scale: float = 0.8
    max_scale: float = 1.4
    max_drop: float = 0.3
    max_noise_hz: float = 0.5
    swap_polarity: float = 0.1
    max_hot_pixels: int = 8
    halt: float = 0.03
    flash: float = 0.03

    def __post_init__(self) -> None:
        require(self.crop_height >= 0, 'crop_height', self.crop_height, 'at least 0')
        require(self.crop_width >= 0, 'crop_width', self.crop_width, 'at least 0')
        if bool(self.crop_height) != bool(self.crop_width):
            raise ConfigError(
                f'crop_height is {self.crop_height} and crop_width {self.crop_width}: set both '
                'or neither'
            )
        for name in ('flip', 'max_drop', 'swap_polarity', 'halt', 'flash'):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), '0 to 1')
        limits = f'0.1 to {self.max_scale}, and that at most 10'
        require(0.1 <= self.min_scale <= self.max_scale <= 10, 'min_scale', self.min_scale, limits)
        require(self.max_noise_hz >= 0, 'max_noise_hz', self.max_noise_hz, 'at least 0')
        require(self.max_hot_pixels >= 0, 'max_hot_pixels', self.max_hot_pixels, 'at least 0')


NO_AUGMENTATION = AugmentConfig(
    flip=0, min_scale=1, max_scale=1, max_drop=0, max_noise_hz=0, swap_polarity=0,
    max_hot_pixels=0, halt=0, flash=0,
)  # fmt: skip


def augment(clip: list[Sample], config: AugmentConfig, rng: np.random.Generator) -> list[Sample]:
    """Draws one augmentation and applies it to all windows of a clip.

    Args:
        clip: windows of one size.
        config: strength of the augmentation.
        rng: the only source of randomness; the same state gives the same result.
    """
    factor = float(np.exp(rng.uniform(np.log(config.min_scale), np.log(config.max_scale))))
    size = (config.crop_height, config.crop_width)
    if all(size):
        # Crop first, so that only visible pixels are zoomed.
        wanted = [math.ceil(n / factor) + 1 if factor != 1 else n for n in size]
        needed = np.minimum(wanted, clip[0].valid.shape)
        spare = clip[0].valid.shape - needed
        top, left = (int(rng.integers(0, n + 1)) for n in spare)
        clip = crop(clip, top, left, *needed.tolist())
    if factor != 1:
        clip = scale(clip, factor)
    if all(size):
        clip = crop(clip, 0, 0, *np.minimum(size, clip[0].valid.shape).tolist())
    if rng.random() < config.flip:
        clip = flip(clip)
    if rng.random() < config.swap_polarity:
        clip = swap_polarity(clip)
    if config.max_drop > 0:
        clip = drop_events(clip, rng.uniform(0, config.max_drop), rng)
    if rng.random() < config.halt:
        first = int(rng.integers(len(clip)))
        clip = clip[:first] + drop_events(clip[first:], rng.uniform(0.9, 1), rng)
    if rng.random() < config.flash:
        clip = add_flash(clip, rng)
    if config.max_noise_hz > 0:
        clip = add_noise(clip, rng.uniform(0, config.max_noise_hz), rng)
    if config.max_hot_pixels:
        clip = add_hot_pixels(clip, int(rng.integers(0, config.max_hot_pixels + 1)), rng)
    return crop(clip, 0, 0, *size) if all(size) else clip  # padding comes last, as in the node


def flip(clip: list[Sample]) -> list[Sample]:
    """Flips left and right; the padding stays on the right, and cx becomes w - 1 - cx."""

    def mirror(sample: Sample) -> Sample:
        width = sample.depth_m.shape[1]
        spikes = sample.spikes.copy()
        spikes[..., :width] = sample.spikes[..., width - 1 :: -1] if width else spikes
        return sample._replace(
            spikes=spikes,
            depth_m=np.ascontiguousarray(sample.depth_m[:, ::-1]),
            valid=np.ascontiguousarray(sample.valid[:, ::-1]),
            image=None if sample.image is None else np.ascontiguousarray(sample.image[:, ::-1]),
            meta=sample.meta | {'cx_px': width - 1 - sample.meta['cx_px']},
        )

    return [mirror(sample) for sample in clip]


def crop(clip: list[Sample], top: int, left: int, height: int, width: int) -> list[Sample]:
    """Crops to height x width pixels, including the spike tensor; the outside is padded.

    A smaller image is padded on the right and below: no spikes, unknown depth.
    """

    def cut(sample: Sample) -> Sample:
        rows, columns = sample.depth_m.shape
        inside = np.s_[top : min(top + height, rows), left : min(left + width, columns)]
        depth_m = sample.depth_m[inside]
        spikes = np.zeros((*sample.spikes.shape[:2], height, width), np.uint8)
        spikes[..., : depth_m.shape[0], : depth_m.shape[1]] = sample.spikes[(..., *inside)]
        padding = [(0, height - depth_m.shape[0]), (0, width - depth_m.shape[1])]
        image = sample.image
        if image is not None:
            image = np.pad(image[inside], [*padding, (0, 0)])
        centre = {'cx_px': sample.meta['cx_px'] - left, 'cy_px': sample.meta['cy_px'] - top}
        return _with_spikes(sample, spikes)._replace(
            depth_m=np.pad(depth_m, padding, constant_values=np.nan),
            valid=np.pad(sample.valid[inside], padding, constant_values=False),
            image=image,
            meta=sample.meta | centre | {'event_count': int(spikes.sum())},
        )

    return [cut(sample) for sample in clip]


def scale(clip: list[Sample], factor: float) -> list[Sample]:
    """Zooms as if the lens had `factor` times the focal length.

    When enlarging, each pixel is repeated. When reducing, the counts of pixels that coincide are
    added, as in binning. Depth takes the value of one pixel. Depth in metres is unchanged;
    focal_px changes, and with it the canonical depth.
    """

    def zoom(sample: Sample) -> Sample:
        source = [_sources(n, factor) for n in sample.depth_m.shape]
        pick = np.ix_(*source)
        height, width = len(source[0]), len(source[1])
        multiple = _padding_multiple(sample)
        spikes = np.zeros(
            (*sample.spikes.shape[:2], -(-height // multiple) * multiple,
             -(-width // multiple) * multiple), np.uint8,
        )  # fmt: skip
        spikes[..., :height, :width] = _zoom_counts(sample, factor, source)
        meta = sample.meta
        centre = {key: (meta[key] + 0.5) * factor - 0.5 for key in ('cx_px', 'cy_px')}
        return sample._replace(
            spikes=spikes,
            depth_m=sample.depth_m[pick],
            valid=sample.valid[pick],
            image=None if sample.image is None else sample.image[pick],
            meta=meta | centre | {
                'focal_px': meta['focal_px'] * factor, 'event_count': int(spikes.sum())
            },
        )  # fmt: skip

    return [zoom(sample) for sample in clip]


def swap_polarity(clip: list[Sample]) -> list[Sample]:
    """Exchanges ON and OFF: the same scene with dark and bright exchanged."""
    return [s._replace(spikes=np.ascontiguousarray(s.spikes[:, ::-1])) for s in clip]


def drop_events(clip: list[Sample], part: float, rng: np.random.Generator) -> list[Sample]:
    """Drops each event with probability `part`."""

    def thin(sample: Sample) -> Sample:
        spikes = sample.spikes.copy()
        flat = spikes.reshape(-1)
        # Most counts are 1, for which a uniform draw is a much faster binomial draw.
        ones, more = np.flatnonzero(flat == 1), np.flatnonzero(flat > 1)
        flat[ones] = rng.random(len(ones), np.float32) >= part
        flat[more] = rng.binomial(flat[more], 1 - part)
        return _with_spikes(sample, spikes)

    return [thin(sample) for sample in clip]


def add_noise(clip: list[Sample], rate_hz: float, rng: np.random.Generator) -> list[Sample]:
    """Adds events at random pixels, times and polarities, `rate_hz` per pixel and second."""

    def sprinkle(sample: Sample) -> Sample:
        height, width = sample.depth_m.shape
        mean = rate_hz * height * width * sample.meta['window_ns'] * 1e-9
        count = rng.poisson(mean)
        steps = sample.spikes.shape[0]
        where = [rng.integers(0, n, count) for n in (steps, 2, height, width)]
        counts = sample.spikes.astype(np.uint16)
        np.add.at(counts, tuple(where), 1)
        return _with_spikes(sample, np.minimum(counts, 255).astype(np.uint8))

    return [sprinkle(sample) for sample in clip]


def add_hot_pixels(clip: list[Sample], count: int, rng: np.random.Generator) -> list[Sample]:
    """Makes `count` pixels fire 1 to 8 ON events in every step of every window of the clip."""
    height, width = clip[0].depth_m.shape
    rows, columns = rng.integers(0, height, count), rng.integers(0, width, count)
    rates = rng.integers(1, 9, count)

    def heat(sample: Sample) -> Sample:
        spikes = sample.spikes.copy()
        hot = spikes[:, 1, rows, columns].astype(np.int64) + rates
        spikes[:, 1, rows, columns] = np.minimum(hot, 255)
        return _with_spikes(sample, spikes)

    return [heat(sample) for sample in clip]


def add_flash(clip: list[Sample], rng: np.random.Generator) -> list[Sample]:
    """Changes the light at one step of one window: all pixels fire with one polarity.

    The mean change is 0.5 to 6 thresholds, log-uniformly distributed. A pixel fires once for each
    whole threshold in the sum of its share of the change and its previous contrast.
    """
    which = int(rng.integers(len(clip)))
    sample = clip[which]
    height, width = sample.depth_m.shape
    step, polarity = int(rng.integers(sample.spikes.shape[0])), int(rng.integers(2))
    change = np.exp(rng.uniform(np.log(0.5), np.log(6)))
    fired = change * rng.normal(1, 0.1, (height, width)) + rng.random((height, width))
    spikes = sample.spikes.copy()
    lit = spikes[step, polarity, :height, :width]
    np.minimum(lit + fired.clip(min=0).astype(np.int64), 255, out=lit, casting='unsafe')
    return [*clip[:which], _with_spikes(sample, spikes), *clip[which + 1 :]]


def _with_spikes(sample: Sample, spikes: np.ndarray) -> Sample:
    meta = sample.meta | {'event_count': int(spikes.sum())}
    return sample._replace(spikes=spikes, meta=meta)


def _sources(length: int, factor: float) -> np.ndarray:
    """Returns for each pixel of the zoomed axis the source pixel at its centre."""
    zoomed = np.arange(max(int(length * factor), 1))
    return np.clip(((zoomed + 0.5) / factor).astype(np.int64), 0, length - 1)


def _zoom_counts(sample: Sample, factor: float, source: list[np.ndarray]) -> np.ndarray:
    """Returns the (T, 2, h', w') counts of the image part."""
    height, width = sample.depth_m.shape
    image = sample.spikes[..., :height, :width]
    if factor >= 1:
        return image[:, :, source[0][:, None], source[1]]
    for axis, length, zoomed in ((2, height, len(source[0])), (3, width, len(source[1]))):
        target = np.minimum(((np.arange(length) + 0.5) * factor).astype(np.int64), zoomed - 1)
        starts = np.searchsorted(target, np.arange(zoomed))
        image = np.add.reduceat(image, starts, axis=axis, dtype=np.uint32)
    counts: np.ndarray = np.minimum(image, 255)
    return counts


def _padding_multiple(sample: Sample) -> int:
    """Returns the greatest power of two up to 32 that divides the size of the tensor."""
    sizes = np.array(sample.spikes.shape[-2:])
    return next(m for m in (32, 16, 8, 4, 2, 1) if not (sizes % m).any())
