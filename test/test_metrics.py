"""Metrics against hand-made numbers and a second implementation that loops over pixels."""

import math

import numpy as np
import pytest
import torch

from spike_depth_ros.learning.metrics import (
    SCALARS,
    DepthMetrics,
    align,
    frame_metrics,
    log_scale,
)

NAN, INF = math.nan, math.inf


def figures(depth, truth, confidence=None, **options):
    depth, truth = np.array([depth], np.float32), np.array([truth], np.float32)
    sure = np.ones_like(depth) if confidence is None else np.array([confidence], np.float32)
    metrics = DepthMetrics()
    metrics.update(frame_metrics(depth, sure, truth, **options))
    return metrics.compute()


def test_by_hand():
    got = figures([12.0, 5.0, 40.0], [10.0, 5.0, 20.0])
    assert got['abs_rel'] == pytest.approx((0.2 + 0 + 1) / 3)
    assert got['sq_rel'] == pytest.approx((4 / 10 + 0 + 400 / 20) / 3)
    assert got['sq_rel_gt2'] == pytest.approx((0.04 + 0 + 1) / 3)
    assert got['mae'] == pytest.approx(22 / 3)
    assert got['mae_10m'] == pytest.approx(1)
    assert got['mae_20m'] == pytest.approx(22 / 3)
    assert got['rmse'] == pytest.approx(math.sqrt(404 / 3))
    logs = [math.log(1.2), 0, math.log(2)]
    assert got['rmse_log'] == pytest.approx(math.sqrt(sum(x * x for x in logs) / 3))
    variance = sum(x * x for x in logs) / 3 - (sum(logs) / 3) ** 2
    assert got['silog_var'] == pytest.approx(variance)
    assert got['silog'] == pytest.approx(math.sqrt(variance))
    assert (got['delta1'], got['delta2'], got['delta3']) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert got['abs_rel_0_10m'] == pytest.approx(0.1)
    assert got['abs_rel_10_20m'] == pytest.approx(1)
    assert math.isnan(got['abs_rel_40_80m'])


def test_a_ratio_of_exactly_the_threshold_is_outside():
    assert figures([1.25, 1.5625], [1.0, 1.0])['delta1'] == 0


def test_the_cap_masks_truth_and_clips_answers():
    got = figures([10.0, 70.0, 500.0, INF], [10.0, 90.0, 40.0, 40.0], cap_m=80.0)
    assert got['abs_rel'] == pytest.approx((0 + 1 + 1) / 3)
    assert figures([10.0, 70.0], [10.0, 90.0], cap_m=100.0)['abs_rel'] == pytest.approx(1 / 9)


def test_unanswered_pixels_lower_the_coverage_only():
    got = figures([10.0, NAN, 30.0, 5.0], [10.0, 20.0, NAN, 0.0])
    assert got['abs_rel'] == 0
    assert got['coverage'] == pytest.approx(1 / 2)


def test_false_and_missed_obstacles():
    got = figures([10.0, 39.9, 41.0, INF, -INF, INF, 20.0], [INF, INF, INF, INF, INF, 8.0, 20.0])
    assert got['false_obstacles'] == pytest.approx(3 / 5)
    assert got['missed_obstacles'] == pytest.approx(1 / 2)


def test_frames_weigh_the_same_and_shares_are_pooled():
    metrics = DepthMetrics()
    one = np.ones((1, 1), np.float32)
    half_sky = np.r_[np.ones(50), np.full(50, INF)][None].astype(np.float32)
    hundred = np.ones((1, 100), np.float32)
    for frame in ((one * 2, one, one), (hundred, hundred, half_sky), (one * INF, one, one * INF)):
        metrics.update(frame_metrics(*frame))
    got = metrics.compute()
    assert got['abs_rel'] == pytest.approx((1 + 0) / 2)  # the third frame has no pixel to count
    assert got['false_obstacles'] == pytest.approx(50 / 51)
    assert got['frames'] == 3


def test_alignment():
    truth = np.array([2.0, 4.0, 9.0])
    assert align(truth / 2, truth, 'none') == pytest.approx(truth / 2)
    assert align(truth / 2, truth, 'median') == pytest.approx(truth)
    assert align(truth * 3 - 5, truth, 'lsq') == pytest.approx(truth)
    for factor in (0.01, 0.5, 100):  # before the cap, which is of metres
        answers = [factor * d for d in (2.0, 4.0, 79.0)]
        for alignment in ('median', 'lsq'):
            assert figures(answers, [2.0, 4.0, 79.0], alignment=alignment)['abs_rel'] < 1e-6
    beyond = figures([1.0, 2.0, INF], [2.0, 4.0, 80.0], alignment='median')
    assert beyond['abs_rel'] < 1e-12
    with pytest.raises(ValueError, match='alignment'):
        align(truth, truth, 'best')


def test_confidence_that_ranks_errors_has_no_excess_risk():
    truth, depth = [10.0] * 4, [10.0, 11.0, 12.0, 13.0]
    good = figures(depth, truth, [0.9, 0.8, 0.2, 0.1])
    bad = figures(depth, truth, [0.1, 0.2, 0.8, 0.9])
    assert good['ause'] == pytest.approx(0)
    assert bad['ause'] > 0.1
    assert good['aurc'] < good['abs_rel'] < bad['aurc']
    # coverages are 5 % steps: of 4 pixels, 1 to 4 are kept for five steps each
    assert good['aurc'] == pytest.approx(np.mean([0, 0.05, 0.1, 0.15]))


def test_calibration_by_hand():
    got = figures([10.0, 10.0, INF, INF], [10.0, 20.0, INF, 30.0], [0.95, 0.95, 0.35, 0.35])
    # two bins: 95 % said and 50 % right, 35 % said and 50 % right
    assert got['ece'] == pytest.approx((0.45 + 0.15) / 2, abs=1e-6)


def dumb(depth, confidence, truth, cap):
    """The same figures, pixel by pixel, as the definitions say them."""
    pairs = [
        (min(max(d, 0.1), cap), t, c)
        for d, c, t in zip(depth.flat, confidence.flat, truth.flat, strict=True)
        if math.isfinite(t) and 0 < t <= cap and not math.isnan(d)
    ]
    n = len(pairs)
    logs = [math.log(d) - math.log(t) for d, t, _ in pairs]

    def mean(values):
        values = list(values)
        return sum(values) / len(values) if values else NAN

    out = {
        'abs_rel': mean(abs(d - t) / t for d, t, _ in pairs),
        'sq_rel': mean((d - t) ** 2 / t for d, t, _ in pairs),
        'sq_rel_gt2': mean((d - t) ** 2 / t**2 for d, t, _ in pairs),
        'mae': mean(abs(d - t) for d, t, _ in pairs),
        'rmse': math.sqrt(mean((d - t) ** 2 for d, t, _ in pairs)),
        'rmse_log': math.sqrt(mean(x * x for x in logs)),
        'silog_var': mean(x * x for x in logs) - mean(logs) ** 2,
    }
    out['silog'] = math.sqrt(out['silog_var'])
    for i in (1, 2, 3):
        out[f'delta{i}'] = mean(max(d / t, t / d) < 1.25**i for d, t, _ in pairs)
    for cut in (10, 20, 30):
        out[f'mae_{cut}m'] = mean(abs(d - t) for d, t, _ in pairs if t <= cut)
    for low, high in ((0, 10), (10, 20), (20, 40), (40, 80)):
        out[f'abs_rel_{low}_{high}m'] = mean(
            abs(d - t) / t for d, t, _ in pairs if low < t <= high
        )
    known = [t for t in truth.flat if math.isfinite(t) and 0 < t <= cap]
    out['coverage'] = n / len(known)
    by_confidence = sorted(pairs, key=lambda p: -p[2])
    by_error = sorted(pairs, key=lambda p: abs(p[0] - p[1]) / p[1])
    areas = []
    for order in (by_confidence, by_error):
        risks = []
        for k in range(1, 21):
            kept = order[: math.ceil(round(k * 0.05 * n, 9))]
            risks.append(mean(abs(d - t) / t for d, t, _ in kept))
        areas.append(mean(risks))
    out |= {'aurc': areas[0], 'ause': areas[0] - areas[1]}
    finite = sorted(
        math.log(min(max(d, 0.1), cap) / t)
        for d, t in zip(depth.flat, truth.flat, strict=True)
        if math.isfinite(d) and 0 < t <= cap
    )
    half = len(finite) // 2
    middle = finite[half] if len(finite) % 2 else (finite[half - 1] + finite[half]) / 2
    raw = [
        (d, t)
        for d, t in zip(depth.flat, truth.flat, strict=True)
        if 0 < t <= cap and not math.isnan(d)
    ]
    out['scale_error'] = abs(middle)
    out['abs_rel_scaled'] = mean(
        abs(min(max(d / math.exp(middle), 0.1), cap) - t) / t for d, t in raw
    )
    out['confidence_minus_hits'] = mean(c for _, _, c in pairs) - out['delta1']
    out['scale_jitter'] = out['planarity'] = NAN
    most = (max(d for d, _, _ in pairs), max(t for _, t, _ in pairs))
    own = [(max(80 * d / most[0], 0.1), 80 * t / most[1]) for d, t, _ in pairs]
    out['dsec_abs_rel'] = mean(abs(d - t) / t for d, t in own)
    out['dsec_rmse'] = math.sqrt(mean((d - t) ** 2 for d, t in own))
    out['dsec_rmse_log'] = math.sqrt(mean(math.log(d / t) ** 2 for d, t in own))
    out['dsec_delta1'] = mean(max(d / t, t / d) < 1.25 for d, t in own)
    return out


@pytest.mark.parametrize('seed', range(4))
def test_against_a_loop_over_pixels(seed):
    rng = np.random.default_rng(seed)
    truth = np.exp(rng.uniform(-1, 4.8, (13, 17)))
    depth = truth * np.exp(rng.normal(0, 0.4, truth.shape))
    confidence = rng.random(truth.shape)
    truth[rng.random(truth.shape) < 0.2] = INF
    truth[rng.random(truth.shape) < 0.2] = NAN
    depth[rng.random(truth.shape) < 0.1] = NAN
    depth[rng.random(truth.shape) < 0.1] = INF
    frame = frame_metrics(depth, confidence, truth, cap_m=80.0)
    expected = dumb(depth, confidence, truth, 80.0)
    assert set(expected) == set(SCALARS)
    for name, value in zip(SCALARS, frame.scalars, strict=True):
        assert value == pytest.approx(expected[name], rel=1e-9, nan_ok=True), name


def test_two_halves_add_up_to_the_whole():
    rng = np.random.default_rng(0)
    whole, halves = DepthMetrics(), [DepthMetrics(), DepthMetrics()]
    for i in range(6):
        truth = rng.uniform(1, 90, (5, 6)).astype(np.float32)
        frame = frame_metrics(truth * 1.1, rng.random(truth.shape), truth)
        whole.update(frame)
        halves[i % 2].update(frame)
    for name in whole._defaults:  # what torchmetrics does between processes: sum each state
        summed = sum(getattr(half, name) for half in halves)
        torch.testing.assert_close(summed, getattr(whole, name))
        assert whole._reductions[name].__name__ == 'dim_zero_sum'


def test_one_scale_per_map_by_hand():
    # ratios 2, 2, 4: the median is 2, so one pixel is left that is twice too far
    got = figures([4.0, 20.0, 40.0], [2.0, 10.0, 10.0])
    assert got['abs_rel_scaled'] == pytest.approx((0 + 0 + 1) / 3)
    assert got['scale_error'] == pytest.approx(math.log(2))
    # beyond range is no scale, but it is an error: the cap of 80 m for 10 m
    got = figures([4.0, 20.0, INF], [2.0, 10.0, 10.0])
    assert got['abs_rel_scaled'] == pytest.approx((0 + 0 + 7) / 3)
    assert got['scale_error'] == pytest.approx(math.log(2))
    # too near counts as much as too far
    assert figures([1.0], [2.0])['scale_error'] == pytest.approx(math.log(2))


def test_scale_jitter_by_hand():
    depth, truth = np.full((1, 3), 20.0), np.full((1, 3), 10.0)
    # ln s was 0, then ln 4, and is ln 2: steps of ln 4 and -ln 2
    metrics = DepthMetrics()
    frame = frame_metrics(depth, depth * 0, truth, earlier_scales=(0.0, math.log(4)))
    metrics.update(frame)
    steps = (math.log(4), math.log(2))
    expected = math.sqrt(sum(x * x for x in steps) / 2)
    assert metrics.compute()['scale_jitter'] == pytest.approx(expected)
    assert log_scale(depth, truth) == pytest.approx(math.log(2))
    assert math.isnan(log_scale(depth * NAN, truth))
    assert math.isnan(figures([1.0], [1.0])['scale_jitter'])


def test_confidence_minus_hits_by_hand():
    got = figures([10.0, 10.0], [10.0, 20.0], [0.9, 0.7])
    assert got['confidence_minus_hits'] == pytest.approx(0.8 - 0.5)


def test_beyond_range_in_rooms_by_hand():
    assert figures([INF, 5.0, 5.0, NAN], [3.0, 5.0, 5.0, 5.0])['beyond_in_rooms'] == 0.25
    assert math.isnan(figures([INF, 5.0], [3.0, INF])['beyond_in_rooms'])
    assert math.isnan(figures([INF, 5.0], [3.0, 50.0])['beyond_in_rooms'])


def test_the_protocol_of_the_dsec_tables_by_hand():
    # both maxima become 80 m: 20 of 40 m is 40 m, 10 of 20 m as well
    got = figures([20.0, 40.0], [10.0, 20.0])
    assert got['dsec_abs_rel'] == got['dsec_rmse'] == got['dsec_rmse_log'] == 0
    assert got['dsec_delta1'] == 1
    got = figures([30.0, 40.0], [10.0, 20.0])  # 60 m against 40 m
    assert got['dsec_abs_rel'] == pytest.approx((0.5 + 0) / 2)
    assert got['dsec_rmse'] == pytest.approx(math.sqrt(20**2 / 2))
    assert got['dsec_rmse_log'] == pytest.approx(math.log(1.5) / math.sqrt(2))
    assert got['dsec_delta1'] == 0.5


def test_nothing_to_count_is_nan_not_zero():
    got = figures([10.0], [NAN])
    assert math.isnan(got['abs_rel'])
    assert math.isnan(got['false_obstacles'])


def test_shapes_must_agree():
    with pytest.raises(ValueError, match='one shape'):
        frame_metrics(np.ones((2, 3)), np.ones((2, 3)), np.ones((3, 2)))
