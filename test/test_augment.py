"""Augmentation by geometry: what one array shows at a pixel, all others show there too."""

import dataclasses

import numpy as np
import pytest

from spike_depth_ros.events.config import ConfigError
from spike_depth_ros.learning.datasets.augment import (
    NO_AUGMENTATION,
    AugmentConfig,
    add_flash,
    add_hot_pixels,
    add_noise,
    augment,
    crop,
    drop_events,
    flip,
    scale,
    swap_polarity,
)
from spike_depth_ros.learning.datasets.sample import Sample

HEIGHT, WIDTH, PADDED = 20, 30, (24, 32)
FOCAL_PX, CX_PX, CY_PX = 25.0, 14.2, 9.7


def point(sample, row, column):
    """The camera-frame direction (x/z, y/z) of a pixel."""
    meta = sample.meta
    return np.array(
        [(column - meta['cx_px']) / meta['focal_px'], (row - meta['cy_px']) / meta['focal_px']]
    )


def clip_of(windows=3, seed=0):
    """Every pixel is told apart by its depth; spikes and image say the same thing as depth."""
    rng = np.random.default_rng(seed)
    clip = []
    for k in range(windows):
        depth_m = rng.permutation(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.float32) + 1
        image = np.stack([depth_m % 251, depth_m % 13, depth_m // 3], axis=-1).astype(np.uint8)
        spikes = np.zeros((4, 2, *PADDED), np.uint8)
        spikes[..., :HEIGHT, :WIDTH] = depth_m % 7
        spikes[1, 0] //= 2
        meta = {'focal_px': FOCAL_PX, 'cx_px': CX_PX, 'cy_px': CY_PX, 'window_ns': 50_000_000,
                'event_count': int(spikes.sum()), 'index': k}  # fmt: skip
        clip.append(Sample(spikes, depth_m, depth_m > 100, image, meta))
    return clip


def assert_arrays_agree(sample):
    """Spikes, valid and image still follow from depth, pixel by pixel."""
    depth_m = sample.depth_m
    known = np.isfinite(depth_m)
    height, width = depth_m.shape
    np.testing.assert_array_equal(sample.spikes[0, 1, :height, :width][known], depth_m[known] % 7)
    np.testing.assert_array_equal(
        sample.spikes[1, 0, :height, :width][known], depth_m[known] % 7 // 2
    )
    np.testing.assert_array_equal(sample.valid, depth_m > 100)
    np.testing.assert_array_equal(sample.image[..., 1][known], depth_m[known] % 13)
    assert not sample.spikes[..., height:, :].any()
    assert not sample.spikes[..., width:].any()


def frozen(clip):
    for sample in clip:
        for array in (sample.spikes, sample.depth_m, sample.valid, sample.image):
            array.flags.writeable = False
    return clip


def test_flip_mirrors_the_scene():
    before = clip_of()
    after = flip(before)
    for old, new in zip(before, after, strict=True):
        assert_arrays_agree(new)
        np.testing.assert_array_equal(new.depth_m, old.depth_m[:, ::-1])
        # the same thing is seen at the mirrored direction
        x, y = point(old, 3, 4)
        np.testing.assert_allclose(point(new, 3, WIDTH - 1 - 4), (-x, y), atol=1e-12)
    for old, again in zip(before, flip(after), strict=True):
        np.testing.assert_array_equal(again.spikes, old.spikes)
        assert again.meta['cx_px'] == pytest.approx(CX_PX)


def test_crop_keeps_directions():
    before = clip_of()
    for old, new in zip(before, crop(before, 3, 5, 8, 16), strict=True):
        assert_arrays_agree(new)
        assert new.spikes.shape == (4, 2, 8, 16)
        np.testing.assert_array_equal(new.depth_m, old.depth_m[3:11, 5:21])
        np.testing.assert_allclose(point(new, 2, 6), point(old, 5, 11))
        assert new.meta['event_count'] == old.spikes[..., 3:11, 5:21].sum()


def test_crop_pads_what_is_too_small():
    (new,) = crop(clip_of(1), 0, 0, 32, 40)
    assert new.spikes.shape == (4, 2, 32, 40)
    assert new.depth_m.shape == new.valid.shape == (32, 40)
    assert new.image.shape == (32, 40, 3)
    assert np.isnan(new.depth_m[HEIGHT:]).all()
    assert np.isnan(new.depth_m[:, WIDTH:]).all()
    assert_arrays_agree(new)


@pytest.mark.parametrize('factor', [1.0, 1.3, 2.0, 2.7])
def test_enlarging_repeats_pixels_and_lengthens_the_lens(factor):
    before = clip_of()
    for old, new in zip(before, scale(before, factor), strict=True):
        assert_arrays_agree(new)
        assert new.depth_m.shape == (int(HEIGHT * factor), int(WIDTH * factor))
        assert new.meta['focal_px'] == FOCAL_PX * factor
        for row, column in [(0, 0), (7, 11), new.depth_m.shape - np.array(1)]:
            (r, c), *_ = np.argwhere(old.depth_m == new.depth_m[row, column])
            error = point(new, row, column) - point(old, r, c)
            assert np.abs(error).max() <= 0.5 / FOCAL_PX + 1e-9  # half an old pixel


@pytest.mark.parametrize('factor', [0.5, 0.7, 0.9])
def test_reducing_adds_up_events_and_picks_a_depth(factor):
    before = clip_of()
    for old, new in zip(before, scale(before, factor), strict=True):
        height, width = new.depth_m.shape
        assert new.spikes[..., :height, :width].sum() == old.spikes.sum()
        np.testing.assert_array_equal(new.valid, new.depth_m > 100)
        for row, column in [(0, 0), (4, 7), (height - 1, width - 1)]:
            (r, c), *_ = np.argwhere(old.depth_m == new.depth_m[row, column])
            error = point(new, row, column) - point(old, r, c)
            assert np.abs(error).max() <= 0.5 / FOCAL_PX + 1e-9


def test_halving_is_binning():
    old, new = clip_of(1)[0], scale(clip_of(1), 0.5)[0]
    blocks = old.spikes[..., :HEIGHT, :WIDTH].reshape(4, 2, 10, 2, 15, 2).sum((3, 5))
    np.testing.assert_array_equal(new.spikes[..., :10, :15], blocks)
    assert new.spikes.shape[-2:] == (16, 16)
    assert new.meta['cx_px'] == pytest.approx((CX_PX + 0.5) / 2 - 0.5)


def test_swap_polarity():
    (new,) = swap_polarity(clip_of(1))
    np.testing.assert_array_equal(new.spikes[:, ::-1], clip_of(1)[0].spikes)


def test_drop_events_loses_the_given_part():
    before = clip_of()
    after = drop_events(before, 0.25, np.random.default_rng(1))
    for old, new in zip(before, after, strict=True):
        assert (new.spikes <= old.spikes).all()
        assert new.meta['event_count'] == new.spikes.sum()
        assert new.spikes.sum() == pytest.approx(0.75 * old.spikes.sum(), rel=0.03)
    (nothing,) = drop_events(clip_of(1), 1.0, np.random.default_rng(1))
    assert not nothing.spikes.any()


def test_noise_has_the_rate_asked_for_and_stays_in_the_image():
    before = [s._replace(spikes=np.zeros_like(s.spikes)) for s in clip_of(20)]
    after = add_noise(before, 100.0, np.random.default_rng(2))
    mean = 100 * HEIGHT * WIDTH * 0.05
    total = sum(int(s.spikes.sum()) for s in after)
    assert abs(total - 20 * mean) < 5 * np.sqrt(20 * mean)
    assert not any(s.spikes[..., HEIGHT:, :].any() or s.spikes[..., WIDTH:].any() for s in after)


def test_noise_saturates():
    full = [s._replace(spikes=np.full_like(s.spikes, 255)) for s in clip_of(1)]
    (new,) = add_noise(full, 1000.0, np.random.default_rng(3))
    assert (new.spikes == 255).all()


def test_hot_pixels_are_the_same_in_all_windows():
    before = clip_of()
    after = add_hot_pixels(before, 3, np.random.default_rng(4))
    places = []
    for old, new in zip(before, after, strict=True):
        more = new.spikes.astype(int) - old.spikes
        assert not more[:, 0].any()
        assert (more[:, 1] == more[:1, 1]).all()
        places.append(more[0, 1])
    assert 1 <= np.count_nonzero(places[0]) <= 3
    assert all((place == places[0]).all() for place in places)


def test_a_flash_makes_all_pixels_of_one_step_fire_alike():
    before = frozen(clip_of())
    after = add_flash(before, np.random.default_rng(5))
    more = np.stack([a.spikes.astype(int) - b.spikes for a, b in zip(after, before, strict=True)])
    (window,), (step,), (polarity,) = (np.unique(axis) for axis in np.nonzero(more)[:3])
    lit = more[window, step, polarity, :HEIGHT, :WIDTH]
    assert lit.max() - lit.min() <= 1 + 0.8 * lit.mean()
    assert lit.sum() == more.sum() > 0, 'the padding stays empty'
    assert after[window].meta['event_count'] == after[window].spikes.sum()


def test_a_camera_that_halts_sees_hardly_anything_from_then_on():
    clip = [s._replace(spikes=np.ones_like(s.spikes)) for s in clip_of()]
    config = dataclasses.replace(NO_AUGMENTATION, halt=1.0)
    seen = set()
    for seed in range(8):
        left = [s.spikes.mean() for s in augment(clip, config, np.random.default_rng(seed))]
        seen.add(tuple(share < 0.2 for share in left))
        assert all(share == 1 or share < 0.2 for share in left)
    assert seen == {tuple(k >= first for k in range(len(clip))) for first in range(len(clip))}


def test_augment_is_pure_and_follows_its_generator():
    config = AugmentConfig(crop_height=16, crop_width=16)
    clip = frozen(clip_of())
    for seed in range(8):
        first = augment(clip, config, np.random.default_rng(seed))
        second = augment(clip, config, np.random.default_rng(seed))
        assert len({(s.spikes.shape, s.meta['focal_px'], s.meta['cx_px']) for s in first}) == 1
        for a, b in zip(first, second, strict=True):
            assert a.spikes.shape == (4, 2, 16, 16)
            assert a.depth_m.shape == (16, 16)
            assert a.spikes.dtype == np.uint8
            np.testing.assert_array_equal(a.spikes, b.spikes)
            np.testing.assert_array_equal(a.depth_m, b.depth_m)
            np.testing.assert_array_equal(a.image[..., 1][a.valid], a.depth_m[a.valid] % 13)
    for old, same in zip(
        clip, augment(clip, NO_AUGMENTATION, np.random.default_rng(0)), strict=True
    ):
        np.testing.assert_array_equal(same.spikes, old.spikes)
        assert same.meta == old.meta


@pytest.mark.parametrize('zoom', [0.5, 1.0, 1.5])
def test_padding_is_right_and_below_and_empty_whatever_happened_before(zoom):
    config = AugmentConfig(
        48,
        56,
        flip=1.0,
        min_scale=zoom,
        max_scale=zoom,
        max_noise_hz=200.0,
        max_hot_pixels=50,
        flash=1.0,
    )
    clip = clip_of(2)
    rows, columns = (round(n * zoom) for n in clip[0].valid.shape)
    for sample in augment(clip, config, np.random.default_rng(0)):
        assert sample.spikes.shape[-2:] == sample.valid.shape == (48, 56)
        assert not sample.spikes[..., rows:, :].any()
        assert not sample.spikes[..., columns:].any()
        assert sample.spikes[..., :rows, :columns].any()
        assert np.isnan(sample.depth_m[rows:]).all()
        assert np.isnan(sample.depth_m[:, columns:]).all()
        assert sample.valid[:rows, :columns].any()
        assert sample.meta['event_count'] == sample.spikes.sum()


def test_nonsense_is_refused():
    with pytest.raises(ConfigError, match='flip'):
        AugmentConfig(flip=2)
    with pytest.raises(ConfigError, match='min_scale'):
        AugmentConfig(min_scale=2, max_scale=1)
