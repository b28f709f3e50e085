"""Windows unlike those of the calibration: described by hand, and what they cost in confidence."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from untrained import untrained_checkpoint

from spike_depth_ros.estimation.estimator import DepthEstimator, EstimatorOptions
from spike_depth_ros.estimation.familiarity import (
    CARD_KEY,
    FEATURES,
    Describer,
    Familiarity,
    from_card,
    to_card,
)
from spike_depth_ros.events.config import ConfigError
from spike_depth_ros.events.windows import Window
from spike_depth_ros.learning.datasets.sample import Sample
from spike_depth_ros.learning.unfamiliar import (
    DISTURBANCES,
    SHARE_FAMILIAR,
    Seen,
    collage,
    fit_familiarity,
    look,
    turned,
)
from spike_depth_ros.network.checkpoint import CheckpointError

torch.set_num_threads(1)
SIZE = len(FEATURES)
NAN = math.nan


def simple(limit=1.0, power=2.0, mean=0.0) -> Familiarity:
    return Familiarity(np.full(SIZE, mean), 2 * np.eye(SIZE), limit, power)


def described(spikes, maps, rest=True, describer=None) -> dict[str, float]:
    values = (describer or Describer())(spikes, maps, rest)
    return dict(zip(FEATURES, values.tolist(), strict=True))


def test_events_by_hand():
    spikes = np.zeros((2, 2, 7, 13), np.uint8)  # rows 0, 6 and columns 0, 6, 12 are used
    spikes[0, 1, 0, 0], spikes[1, 1, 0, 6], spikes[1, 0, 6, 12] = 4, 1, 1
    spikes[:, :, 1:6] = 200  # between them
    found = described(spikes, np.zeros((3, 7, 13), np.float32))
    assert found['ln_events'] == pytest.approx(math.log(6 / (6 * 2) + 1e-3))
    assert found['ln_repeats'] == pytest.approx(math.log(7 / 4))
    assert found['on_share'] == pytest.approx((5 + 1) / (6 + 2))
    assert found['burst'] == pytest.approx(1 / (3 + 1))  # 4 and 2 events: deviation 1, mean 3
    # rows have 5/3 and 1/3 events per pixel, columns 2, 1/2 and 1/2
    assert found['row_spread'] == pytest.approx((2 / 3) / 1.001, rel=1e-5)
    assert found['column_spread'] == pytest.approx(math.sqrt(0.5) / 1.001, rel=1e-5)


def test_maps_by_hand():
    maps = np.zeros((3, 13, 7), np.float32)
    maps[0] = np.linspace(0.2, 0.8, 13)[:, None]  # rows 0, 6, 12: 0.2, 0.5, 0.8
    maps[1], maps[2] = 20.0, -1.0
    maps[2, :, 6] = -2.0
    found = described(np.zeros((1, 2, 13, 7), np.uint8), maps)
    assert found['depth_mean'] == pytest.approx(0.5)
    assert found['depth_std'] == pytest.approx(0.3 * math.sqrt(2 / 3), rel=1e-5)
    assert found['depth_rows'] == pytest.approx(0.3, rel=1e-5)
    assert found['depth_columns'] == pytest.approx(0.0, abs=1e-6)
    assert (found['range_mean'], found['scale_mean'], found['scale_std']) == (8.0, -1.5, 0.5)
    assert (found['ln_events'], found['burst'], found['on_share']) == (math.log(1e-3), 0.0, 0.5)


def test_the_change_from_the_map_before():
    describer, spikes = Describer(), np.zeros((1, 2, 13, 7), np.uint8)
    maps = np.full((3, 13, 7), 0.5, np.float32)
    assert math.isnan(described(spikes, maps, True, describer)['ln_change'])
    maps[0] += 0.25  # the describer keeps no view of an array that an engine fills again
    found = described(spikes, maps, False, describer)
    assert found['ln_change'] == pytest.approx(math.log(0.25 + 1e-3), rel=1e-5)
    assert math.isnan(described(spikes, maps, True, describer)['ln_change'])


def test_distance_and_factor_by_hand():
    features = np.full(SIZE, 3.0)
    assert simple(mean=1.0).distance(features) == pytest.approx(4.0)
    assert simple(mean=1.0).factor(features) == pytest.approx((1 / 4) ** 2)
    assert simple(mean=1.0, limit=3.0, power=1.0).factor(features) == pytest.approx(3 / 4)
    assert simple(mean=1.0, limit=4.1).factor(features) == 1.0
    features[0] = NAN  # unknown: as the mean
    assert simple(mean=1.0).distance(features) == pytest.approx(4 * math.sqrt(1 - 1 / SIZE))
    assert 0 < simple().factor(np.full(SIZE, 1e6)) < 1e-12


def test_a_card_holds_it():
    whiten = np.random.default_rng(0).normal(size=(SIZE, SIZE))
    stored = Familiarity(np.arange(SIZE) * 1.0, whiten, 1.5, 0.7)
    found = from_card({CARD_KEY: to_card(stored)})
    assert found is not None
    np.testing.assert_array_equal(found.mean, stored.mean)
    np.testing.assert_array_equal(found.whiten, whiten)
    assert (found.limit, found.power) == (1.5, 0.7)
    assert from_card({'trained': True}) is None


@pytest.mark.parametrize(
    ('field', 'value'),
    [('features', ['other']), ('mean', [0.0]), ('whiten', 'x'), ('limit', 0.0), ('power', -1.0),
     ('power', NAN), ('limit', None)],
)  # fmt: skip
def test_a_card_that_does_not_fit_is_refused(field, value):
    with pytest.raises(CheckpointError, match='calibrate it again'):
        from_card({CARD_KEY: to_card(simple()) | {field: value}})
    with pytest.raises(CheckpointError, match='calibrate it again'):
        from_card({CARD_KEY: 'familiar'})


def windows(count=2, seed=0):
    rng = np.random.default_rng(seed)
    for k in range(count):
        spikes = rng.poisson(0.3, (4, 2, 32, 48)).astype(np.uint8)
        yield Window(k * 50, k * 50 + 50, spikes, int(spikes.sum()), k == 0)


def test_the_estimator_lowers_the_confidence():
    plain = untrained_checkpoint('tiny')
    options = EstimatorOptions(streaming=True, min_confidence=0.0)
    before = [DepthEstimator(plain, 30, 45, None, options, threads=1)]
    card = plain.card | {CARD_KEY: to_card(simple(limit=0.5, power=1.0))}
    after = DepthEstimator(dataclasses.replace(plain, card=card), 30, 45, None, options, threads=1)
    describer = Describer()
    for k, window in enumerate(windows()):
        frame, lower = before[0].infer(window), after.infer(window)
        maps = DepthEstimator(plain, 30, 45, None, options, threads=1)
        for earlier in list(windows())[: k + 1]:
            image = maps.maps(earlier)
        features = describer(window.spikes[..., :30, :45], image, k == 0)
        factor = min(0.5 / (2 * math.sqrt(np.nansum(features**2) / SIZE)), 1.0)
        assert 0 < factor < 1
        assert after.familiarity == pytest.approx(factor, rel=1e-6)
        np.testing.assert_allclose(lower.confidence, factor * frame.confidence, rtol=1e-5)
        np.testing.assert_array_equal(lower.depth_m, frame.depth_m)
        assert before[0].familiarity == 1.0


def test_the_least_confidence_holds_for_what_is_published():
    plain = untrained_checkpoint('tiny')
    window = next(windows())
    sure = DepthEstimator(plain, 30, 45, None, threads=1).infer(window).confidence
    card = plain.card | {CARD_KEY: to_card(simple(limit=0.1, power=1.0))}
    checkpoint = dataclasses.replace(plain, card=card)
    options = EstimatorOptions(min_confidence=0.9 * float(sure.min()))
    frame = DepthEstimator(checkpoint, 30, 45, None, options, threads=1).infer(window)
    np.testing.assert_array_equal(
        np.isnan(frame.depth_m), frame.confidence < options.min_confidence
    )
    assert np.isnan(frame.depth_m).any()


def test_the_fit_finds_what_made_the_data():
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(SIZE, SIZE)) + 3 * np.eye(SIZE)
    familiar = 5 + rng.normal(size=(4000, SIZE)) @ mix.T
    familiar[::7, -1] = NAN
    far = 5 + 4 * rng.normal(size=(4000, SIZE)) @ mix.T
    clips, sure = np.arange(4000), np.full((4000, 20), 0.8)
    clean = Seen(clips, familiar, sure, rng.random((4000, 20)) < 0.8)
    found = fit_familiarity(clean, clean._replace(features=far))
    inside = np.mean(found.distance(familiar) <= found.limit)
    assert inside == pytest.approx(SHARE_FAMILIAR, abs=0.01)
    assert found.power == 0.0  # as often right there: nothing to lower
    truth = found._replace(power=1.5)
    hits = rng.random((4000, 20)) < 0.8 * truth.factor(far)[:, None]
    found = fit_familiarity(clean, clean._replace(features=far, right=hits))
    assert found.power == pytest.approx(1.5, abs=0.1)


def test_a_clip_is_measured_by_the_others():
    rng = np.random.default_rng(0)
    clips = np.arange(20)
    seen = Seen(clips, rng.normal(size=(20, SIZE)), np.full((20, 5), 0.5), np.zeros((20, 5), bool))
    found = fit_familiarity(seen, seen)
    # twenty points lie nearer to their own mean and covariance than any new one
    own = found.distance(seen.features)
    assert own.max() < found.limit
    new = found.distance(rng.normal(size=(1000, SIZE)))
    assert 0.8 < np.mean(new <= found.limit) < 1.0


def clip(count=2, height=31, width=45):
    """Events where depth has the same number, so that both can be followed."""
    rng = np.random.default_rng(1)
    samples = []
    for _ in range(count):
        depth_m = rng.integers(1, 9, (height, width)).astype(np.float32)
        spikes = np.zeros((4, 2, 32, 48), np.uint8)
        spikes[..., :height, :width] = depth_m
        valid = np.isfinite(depth_m)
        meta = {'focal_px': 256.0, 'window_ns': 50_000_000}
        samples.append(Sample(spikes, depth_m, valid, None, meta))
    return samples


@pytest.mark.parametrize('move', [turned, lambda c: collage(c, np.random.default_rng(0))])
def test_moved_events_stay_with_their_depth(move):
    before = clip()
    for old, new in zip(before, move(before), strict=True):
        np.testing.assert_array_equal(new.spikes[2, 1, :31, :45], new.depth_m)
        assert not np.array_equal(new.depth_m, old.depth_m)
        np.testing.assert_array_equal(np.sort(new.depth_m, None), np.sort(old.depth_m, None))
        assert not new.spikes[..., 31:, :].any()
        assert not new.spikes[..., 45:].any()
    assert turned(before)[0].depth_m[0, 0] == before[0].depth_m[-1, -1]


def test_windows_are_seen_as_they_are_and_disturbed():
    checkpoint = untrained_checkpoint('tiny')
    clean, far = look(checkpoint, [clip() for _ in range(5)])
    assert clean.features.shape == far.features.shape == (5, SIZE)  # the first windows are out
    assert clean.right.shape == clean.confidence.shape == (5, 500)
    few = list(DISTURBANCES).index('few events')
    assert far.features[few, 0] < clean.features[few, 0] - 2  # ln of 8 %
    assert np.isfinite(clean.features).all()
    estimator = DepthEstimator(checkpoint, 31, 45, None, EstimatorOptions(streaming=True),
                               threads=1)  # fmt: skip
    for k, sample in enumerate(clip()):
        frame = estimator.infer(Window(k * 50, k * 50 + 50, sample.spikes, 1, k == 0))
    chosen = np.linspace(0, 31 * 45 - 1, 500).round().astype(int)
    np.testing.assert_allclose(clean.confidence[0], frame.confidence.flat[chosen], rtol=1e-4)
    depth_m = frame.depth_m.flat[chosen] * 256.0 / checkpoint.depth_range.focal_px
    truth = sample.depth_m.flat[chosen]
    right = np.abs(np.log(depth_m / truth)) < math.log(1.25)
    np.testing.assert_array_equal(clean.right[0], right)
    unknown = [s._replace(depth_m=np.full_like(s.depth_m, NAN)) for s in clip()]
    with pytest.raises(ConfigError, match='no known depth'):
        look(checkpoint, [unknown])
