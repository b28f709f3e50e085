"""From maps to metres by hand, and the estimator next to a dumber composition of its parts."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scale_scene import scene_events, twist
from untrained import untrained_checkpoint

from spike_depth_ros.estimation.depth_frame import (
    DepthFrame,
    Limits,
    expected_deviation,
    interpret,
)
from spike_depth_ros.estimation.engine import ENGINES
from spike_depth_ros.estimation.estimator import DepthEstimator, EstimatorOptions, make_windower
from spike_depth_ros.events.arrays import join_events, make_events
from spike_depth_ros.events.camera import CalibrationError, Camera
from spike_depth_ros.events.config import ConfigError, DepthRange, SpikeConfig
from spike_depth_ros.events.spikes import Region, accumulate, pixel_map, region_of
from spike_depth_ros.events.windows import Begun, Window
from spike_depth_ros.network.inference_layers import SpikeConvolution

NAN, INF, MS = np.nan, np.inf, 1_000_000
NO_LIMITS = Limits(0.0, INF, 0.0)
RANGE = DepthRange(min_m=1.0, max_m=100.0)  # log depth 0, 0.5, 1 is 1, 10, 100 m
HEIGHT, WIDTH = 44, 60  # binned 2x2: 22 x 30, padded to 24 x 32
LENS = Camera(WIDTH, HEIGHT, 120.0, 120.0, 29.5, 21.5, 'plumb_bob', (-0.2, 0.0, 0.0, 0.0, 0.0))


def maps(log_depth, range_logit=20.0, log_scale=-20.0) -> np.ndarray:
    """(3, 1, W) float32 from a list of log depths and what goes with each."""
    rows = np.broadcast_arrays(log_depth, range_logit, log_scale)
    return np.array(rows, np.float32)[:, None]


def told(*arguments, metres_per_canonical=1.0, limits=NO_LIMITS):
    depth_m, confidence = interpret(maps(*arguments), RANGE, metres_per_canonical, limits)
    assert depth_m.dtype == confidence.dtype == np.float32
    return depth_m[0], confidence[0]


def test_log_depth_becomes_metres():
    depth_m, _ = told([0.0, 0.5, 1.0, 0.25])
    np.testing.assert_allclose(depth_m, [1, 10, 100, math.sqrt(10)], rtol=1e-5)


def test_canonical_metres_scale_with_the_focal_length():
    depth_m, _ = told([0.0, 0.5, 1.0], metres_per_canonical=0.3)
    np.testing.assert_allclose(depth_m, [0.3, 3, 30], rtol=1e-5)


def test_confidence_of_a_finite_depth_is_the_mass_within_a_factor_of_1_25():
    b = [math.log(1.25), 2 * math.log(1.25), 1e-9, 1e9]
    depth_m, confidence = told([0.5] * 4, 20.0, np.log(b))
    assert np.isfinite(depth_m).all()
    expected = [1 - math.exp(-1), 1 - math.exp(-0.5), 1, 0]  # 0.632, 0.393
    np.testing.assert_allclose(confidence, expected, atol=1e-6)
    # a second way: draw errors of ln depth from that Laplace distribution, and count
    error = np.random.default_rng(0).laplace(scale=b[1], size=200_000)
    within = np.mean(np.abs(error) < math.log(1.25))
    assert within == pytest.approx(confidence[1], abs=0.005)


def test_beyond_range_is_infinite_and_its_confidence_the_probability_of_that():
    depth_m, confidence = told([0.5, 0.5, 0.5], [-math.log(3), -100.0, 0.0], -20.0)
    np.testing.assert_allclose(depth_m, [INF, INF, 10], rtol=1e-5)
    np.testing.assert_allclose(confidence, [0.75, 1, 0.5], rtol=1e-6)


def test_what_would_be_far_is_called_beyond_only_when_that_is_sure():
    # metres: 39.8, 40.7; the probability of being within range is 0.4, 0.4, 0.13, 0.11
    log_depth = [0.8, 0.805, 0.805, 0.805]
    odds = np.array([0.4, 0.4, 0.13, 0.11]) / (1 - np.array([0.4, 0.4, 0.13, 0.11]))
    depth_m, confidence = told(log_depth, np.log(odds), np.log(math.log(1.25)))
    np.testing.assert_allclose(depth_m, [INF, 40.74, 40.74, INF], rtol=1e-3)
    within = 1 - math.exp(-1)
    np.testing.assert_allclose(confidence, [0.6, 0.4 * within, 0.13 * within, 0.89], rtol=1e-4)


def test_limits_mark_by_rep_117():
    limits = Limits(min_depth_m=5.0, max_depth_m=50.0, min_confidence=0.0)
    depth_m, _ = told([0.0, 0.5, 1.0, 0.0], [20, 20, 20, -20], limits=limits)
    np.testing.assert_allclose(depth_m, [-INF, 10, INF, INF], rtol=1e-5)


def test_what_is_less_certain_than_asked_for_is_unknown():
    limits = Limits(0.0, INF, min_confidence=0.5)
    b = [math.log(1.25), 2 * math.log(1.25), 1.0, 1.0]  # 0.632 and 0.393; the others are beyond
    depth_m, confidence = told([0.5] * 4, [20, 20, -0.1, 0.1], np.log(b), limits=limits)
    np.testing.assert_allclose(depth_m, [10, NAN, INF, NAN], rtol=1e-5)
    assert confidence[1] == pytest.approx(1 - math.exp(-0.5), rel=1e-5)  # said all the same


def test_a_network_that_answers_nan_has_no_answer():
    depth_m, confidence = told([NAN, 0.5, 0.5], 20.0, [0.0, NAN, -20.0])
    np.testing.assert_array_equal(np.isnan(depth_m), [True, True, False])
    assert confidence[1] == 0
    assert np.isfinite(confidence).all()


@pytest.fixture(scope='module')
def checkpoint():
    """Untrained, in windows of 20 ms and 4 steps; sensors of 60 columns are binned 2x2."""
    torch.set_num_threads(1)
    spikes = SpikeConfig(window_ms=20.0, steps=4, max_width_px=32)
    return dataclasses.replace(untrained_checkpoint('tiny'), spikes=spikes)


@pytest.fixture(scope='module')
def engine(checkpoint):
    return ENGINES['torch'](checkpoint, 'cpu', 1)


def stream(end_ms, count=4000, start_ms=0):
    rng = np.random.default_rng(start_ms)
    times = np.sort(rng.integers(start_ms * MS, end_ms * MS, count))
    times[0], times[-1] = start_ms * MS, end_ms * MS  # the last one completes the last window
    x, y, p = (rng.integers(0, n, count) for n in (WIDTH, HEIGHT, 2))
    return make_events(times, x, y, p)


def assert_same(frame, stamp_ns, depth_m, confidence):
    assert frame.stamp_ns == stamp_ns
    np.testing.assert_array_equal(frame.depth_m, depth_m)
    np.testing.assert_array_equal(frame.confidence, confidence)


def binned_by_hand(events, t0_ns, t1_ns, steps):
    """(T, 2, 24, 32): what the network of these tests reads, one event after the other."""
    counts = np.zeros((steps, 2, 24, 32), np.uint8)
    for t_ns, x, y, p in events.tolist():
        if t0_ns <= t_ns < t1_ns:
            counts[(t_ns - t0_ns) * steps // (t1_ns - t0_ns), p, y // 2, x // 2] += 1
    return counts


def test_push_equals_the_composition_by_hand(checkpoint, engine):
    camera = dataclasses.replace(LENS, distortion=())
    events = stream(60)
    frames = DepthEstimator(checkpoint, HEIGHT, WIDTH, camera, engine=engine).push(events)
    assert len(frames) == 3
    # 120 px of the sensor are 60 px of the grid
    metres_per_canonical = 60.0 / checkpoint.depth_range.focal_px
    for k, frame in enumerate(frames):
        spikes = binned_by_hand(events, k * 20 * MS, (k + 1) * 20 * MS, 4)
        answer, _ = engine.infer(spikes, None)
        image = answer[:, :22, :30]
        assert frame.depth_m.shape == (22, 30)
        assert np.isfinite(frame.depth_m).any()
        wanted = interpret(image, checkpoint.depth_range, metres_per_canonical, NO_LIMITS)
        assert_same(frame, (k + 1) * 20 * MS, *wanted)


def test_packets_do_not_matter(checkpoint, engine):
    events = stream(60)
    whole = DepthEstimator(checkpoint, HEIGHT, WIDTH, engine=engine).push(events)
    estimator = DepthEstimator(checkpoint, HEIGHT, WIDTH, engine=engine)
    pieces = [f for part in np.array_split(events, 37) for f in estimator.push(part)]
    assert len(pieces) == len(whole)
    for piece, frame in zip(pieces, whole, strict=True):
        assert_same(piece, *frame[:3])


def test_events_are_rectified_unless_told_otherwise(checkpoint, engine):
    events = stream(20)
    spikes = checkpoint.spikes
    for rectify in (True, False):
        options = EstimatorOptions(rectify=rectify)
        estimator = DepthEstimator(checkpoint, HEIGHT, WIDTH, LENS, options, engine)
        assert estimator.camera.is_distorted is not rectify
        table = pixel_map(HEIGHT, WIDTH, spikes, LENS if rectify else None)
        tensor = accumulate(events, 0, 20 * MS, 4, table.height, table.width, table)
        answer = engine.infer(tensor, None)[0][:, :22, :30]
        scale = estimator.metres_per_canonical
        (frame,) = estimator.push(events)
        assert_same(frame, 20 * MS, *interpret(answer, checkpoint.depth_range, scale, NO_LIMITS))


def test_without_a_calibration_metres_are_canonical(checkpoint, engine):
    estimator = DepthEstimator(checkpoint, HEIGHT, WIDTH, engine=engine)
    assert estimator.camera is None
    assert estimator.metres_per_canonical == 1.0
    calibrated = DepthEstimator(checkpoint, HEIGHT, WIDTH, LENS, engine=engine)
    assert calibrated.metres_per_canonical == 60.0 / checkpoint.depth_range.focal_px


class Remembering:
    """An engine whose state is the number of calls that it has had in a row."""

    device, carries = 'none', True

    def __init__(self):
        self.states, self.steps = [], []

    def infer(self, spikes, state):
        self.states.append(state)
        self.steps.append(len(spikes))
        return np.zeros((3, *spikes.shape[2:]), np.float32), (state or 0) + 1

    def carry(self, spikes, state):
        return self.infer(spikes, state)[1]


def window(t0_ms, t1_ms, fresh=False):
    return Window(t0_ms * MS, t1_ms * MS, np.zeros((4, 2, 24, 32), np.uint8), 0, fresh)


def test_state_is_carried_only_across_windows_that_touch(checkpoint):
    engine = Remembering()
    options = EstimatorOptions(streaming=True)
    estimator = DepthEstimator(checkpoint, HEIGHT, WIDTH, None, options, engine)
    for ends in ((0, 20, True), (20, 40), (40, 60), (80, 100), (100, 120), (120, 140, True)):
        estimator.infer(window(*ends))
    assert engine.states == [None, 1, 2, None, 1, None]
    estimator.reset()
    estimator.infer(window(140, 160))
    assert engine.states[-1] is None


def test_without_streaming_every_window_starts_from_rest(checkpoint):
    engine = Remembering()
    estimator = DepthEstimator(checkpoint, HEIGHT, WIDTH, engine=engine)
    assert len(estimator.push(stream(60))) == 3
    assert engine.states == [None] * 3


def test_streaming_windows_are_one_stride_and_equal_one_long_run(checkpoint, engine):
    events = stream(40)
    options = EstimatorOptions(streaming=True, stride_ms=10.0)
    estimator = DepthEstimator(checkpoint, HEIGHT, WIDTH, None, options, engine)
    frames = estimator.push(events)
    assert [f.stamp_ns for f in frames] == [10 * MS, 20 * MS, 30 * MS, 40 * MS]
    long, _ = engine.infer(binned_by_hand(events, 0, 40 * MS, steps=8), None)
    wanted = interpret(long[:, :22, :30], checkpoint.depth_range, 1.0, NO_LIMITS)[0]
    np.testing.assert_allclose(frames[-1].depth_m, wanted, rtol=1e-5)


def test_a_map_at_every_step_changes_none_of_the_others(checkpoint, engine):
    events = stream(100)
    each, last = (
        DepthEstimator(checkpoint, HEIGHT, WIDTH, None, options, engine).push(events)
        for options in (
            EstimatorOptions(streaming=True, stride_ms=5.0), EstimatorOptions(streaming=True)
        )
    )  # fmt: skip
    assert len(each) == 4 * len(last) == 20
    assert_same_frames(each[3::4], last)


def test_a_jump_in_time_starts_from_rest(checkpoint):
    engine = Remembering()
    options = EstimatorOptions(streaming=True)
    estimator = DepthEstimator(checkpoint, HEIGHT, WIDTH, None, options, engine)
    estimator.push(stream(60, start_ms=0))
    estimator.push(stream(5060, start_ms=5000))
    estimator.push(stream(60, start_ms=0))
    assert engine.states == [None, 1, 2] * 3
    assert estimator.windower.jumps == 2


def by_steps(estimator, parts):
    """Frames of a stream whose steps are run as soon as they are over."""
    frames = []
    for part in parts:
        frames += estimator.push(part)
        begun = estimator.windower.begun()
        if begun is not None:
            estimator.run_ahead(begun)
    return frames


def assert_same_frames(frames, wanted):
    assert len(frames) == len(wanted) > 0
    for frame, other in zip(frames, wanted, strict=True):
        assert_same(frame, *other[:3])


@pytest.mark.parametrize('name', ['torch', 'torch_bf16', 'torch_int8'])
@pytest.mark.parametrize(
    'options',
    [{}, {'stride_ms': 5.0}, {'streaming': True}, {'streaming': True, 'stride_ms': 10.0}],
)
def test_steps_run_ahead_change_no_bit(checkpoint, options, name):
    if name == 'torch_int8' and not SpikeConvolution.is_available():
        pytest.skip('this torch has no 8-bit convolutions here')
    engine = ENGINES[name](checkpoint, 'cpu', 1)
    late = stream(60).copy()  # two events change places: one is late for its step
    late[[2000, 2600]] = late[[2600, 2000]]
    restart = join_events([stream(60), stream(60, start_ms=1), stream(5060, start_ms=5000)])
    for events in (stream(100), late, restart):
        whole, early = (
            DepthEstimator(checkpoint, HEIGHT, WIDTH, None, EstimatorOptions(**options), engine)
            for _ in range(2)
        )
        parts = np.array_split(events, 61)
        wanted = [frame for part in parts for frame in whole.push(part)]
        assert_same_frames(by_steps(early, parts), wanted)


def test_what_was_run_ahead_is_not_run_again(checkpoint):
    engine = Remembering()
    options = EstimatorOptions(streaming=True)
    estimator = DepthEstimator(checkpoint, HEIGHT, WIDTH, None, options, engine)
    by_steps(estimator, np.array_split(stream(60), 240))
    assert engine.steps == [1] * 12
    assert engine.states == [None, *range(1, 12)]


def test_a_window_that_is_revised_is_run_from_its_beginning(checkpoint):
    engine = Remembering()
    options = EstimatorOptions(streaming=True)
    estimator = DepthEstimator(checkpoint, HEIGHT, WIDTH, None, options, engine)
    times_ms = (0, 19, 20, 26, 24, 31, 41)  # 24: its step is over
    by_steps(estimator, [make_events([t * MS], [0], [0], [1]) for t in times_ms])
    calls = list(zip(engine.steps, engine.states, strict=True))
    assert calls == [(3, None), (1, 1), (1, 2), (4, 2)]  # two calls per window


def test_steps_that_fail_ahead_are_run_with_their_window(checkpoint, monkeypatch):
    engine = Remembering()
    options = EstimatorOptions(streaming=True)
    estimator = DepthEstimator(checkpoint, HEIGHT, WIDTH, None, options, engine)
    first, second = window(0, 20, True), window(20, 40)
    estimator.infer(first)
    estimator.run_ahead(Begun(20 * MS, second.spikes, 1, False))
    monkeypatch.setattr(engine, 'carry', lambda spikes, state: {}['no such kernel'])
    with pytest.raises(KeyError):
        estimator.run_ahead(Begun(20 * MS, second.spikes, 2, False))
    estimator.infer(second)
    assert (engine.steps, engine.states) == ([4, 1, 4], [None, 1, 1])


def test_steps_of_a_window_that_was_dropped_are_of_no_other(checkpoint):
    engine = Remembering()
    options = EstimatorOptions(streaming=True)
    estimator = DepthEstimator(checkpoint, HEIGHT, WIDTH, None, options, engine)
    first, dropped, last = window(0, 20, True), window(20, 40), window(40, 60)
    estimator.infer(first)
    estimator.run_ahead(Begun(20 * MS, dropped.spikes, 3, False))
    estimator.infer(last)
    assert engine.states == [None, 1, None]
    # after a restart the same times come again
    estimator.run_ahead(Begun(60 * MS, np.zeros_like(last.spikes), 3, False))
    again = window(60, 80, True)
    estimator.run_ahead(Begun(60 * MS, again.spikes, 2, True))
    estimator.infer(again)
    assert engine.states[3:] == [1, None, 1]
    estimator.run_ahead(Begun(80 * MS, last.spikes, 3, False))
    estimator.reset()
    estimator.infer(last)
    assert engine.states[6:] == [2, None]


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        ({'window_ms': 0.1}, 'window_ms is 0.1, expected 0, or 0.5 to 10000'),
        ({'stride_ms': -1.0}, 'stride_ms is -1.0'),
        ({'min_depth_m': 9.0, 'max_depth_m': 5.0}, 'min_depth_m is 9.0, expected 0 <= '),
        ({'min_confidence': 1.5}, 'min_confidence is 1.5, expected 0 to 1'),
        ({'min_confidence': NAN}, 'min_confidence is nan'),
    ],
)  # fmt: skip
def test_contradictory_options_are_refused(changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        EstimatorOptions(**changes)


def test_a_stride_that_would_lose_events_is_refused(checkpoint):
    with pytest.raises(ConfigError, match='stride_ms is 30, expected more than 0 and at most'):
        DepthEstimator(checkpoint, HEIGHT, WIDTH, options=EstimatorOptions(stride_ms=30.0),
                  engine=Remembering())  # fmt: skip
    # a window of streaming is one stride, so that nothing is lost: 6 steps of 5 ms
    options = EstimatorOptions(stride_ms=30.0, streaming=True)
    pixels = pixel_map(HEIGHT, WIDTH, checkpoint.spikes)
    (cut,) = make_windower(pixels, checkpoint.spikes, options).push(stream(30))
    assert (cut.t0_ns, cut.t1_ns, len(cut.spikes)) == (0, 30 * MS, 6)


def test_a_calibration_of_another_size_is_refused(checkpoint):
    with pytest.raises(CalibrationError, match='for 60x44, the events come from a 120x88 sensor'):
        DepthEstimator(checkpoint, 88, 120, LENS, engine=Remembering())


def test_an_unknown_engine_is_refused(checkpoint):
    with pytest.raises(ConfigError, match="engine is 'steam', expected one of"):
        DepthEstimator(checkpoint, HEIGHT, WIDTH, engine='steam')


class Wall:
    """An engine that sees 10 m everywhere, in terms of `RANGE`."""

    device = 'none'

    def infer(self, spikes, state):
        maps = np.zeros((3, *spikes.shape[2:]), np.float32)
        maps[0], maps[1], maps[2] = 0.5, 20.0, -20.0
        return maps, None


@pytest.mark.parametrize('roi', [None, Region(16, 8, 128, 96)])
def test_a_twist_gives_depth_its_scale(checkpoint, roi):
    """Before a wall at 2 m, with a network that says 10 m."""
    camera = Camera(160, 120, 110.0, 110.0, 79.5, 59.5)
    depth_range = dataclasses.replace(RANGE, focal_px=110.0)
    spikes = SpikeConfig(window_ms=20.0, steps=4, max_width_px=160)
    wall = dataclasses.replace(checkpoint, spikes=spikes, depth_range=depth_range)
    motion = twist(vx=0.8)
    true_m = np.full((120, 160), 2.0, np.float32)
    events = scene_events(motion, true_m, 2000 * MS, span_ms=600, each=60, points=900)
    options = EstimatorOptions(roi=roi)
    estimator = DepthEstimator(wall, 120, 160, camera, options, engine=Wall())
    frames = estimator.push(events, motion)
    first, last = frames[0], frames[-1]
    np.testing.assert_allclose(first.depth_m, 10.0, rtol=1e-5)
    np.testing.assert_allclose(last.depth_m, 2.0, rtol=0.05)
    assert last.ln_scale == pytest.approx(math.log(0.2), abs=0.05)
    estimator.reset()
    assert estimator.infer(window(0, 20)._replace(spikes=np.zeros((4, 2, 120, 160), np.uint8))
                           ).ln_scale == 0  # fmt: skip


def test_a_region_of_interest_is_all_that_the_network_computes(checkpoint):
    """A region of 24 x 17 px from (11, 8): grid columns 5 to 17, rows 4 to 12."""
    spy = Remembering()
    options = EstimatorOptions(roi=Region(11, 8, 24, 17))
    estimator = DepthEstimator(checkpoint, HEIGHT, WIDTH, LENS, options, spy)
    part, whole = estimator.pixels, pixel_map(HEIGHT, WIDTH, checkpoint.spikes, LENS)
    assert (part.left, part.top, part.image_width, part.image_height) == (5, 4, 13, 9)
    assert (part.width, part.height) == (16, 16)
    camera = LENS.rectified().binned(2)
    np.testing.assert_allclose(estimator.camera.rays(), camera.rays()[4:13, 5:18], atol=1e-6)
    assert (estimator.camera.cx, estimator.camera.cy) == (camera.cx - 5, camera.cy - 4)
    events = stream(20)
    tensor = accumulate(events, 0, 20 * MS, 4, whole.height, whole.width, whole)
    (window,) = estimator.windower.push(events)
    np.testing.assert_array_equal(window.spikes[..., :9, :13], tensor[..., 4:13, 5:18])
    assert not window.spikes[..., 9:, :].any()
    assert not window.spikes[..., 13:].any()


@pytest.mark.parametrize(
    ('text', 'region'),
    [
        ('', None),
        ('  ', None),
        ('0 0 16 16', Region(0, 0, 16, 16)),
        ('10, 20, 300, 40', Region(10, 20, 300, 40)),
    ],
)
def test_regions_are_read(text, region):
    assert region_of(text) == region


@pytest.mark.parametrize('text', ['1 2 3', '0 0 64 x', '-1 0 64 64', '0 0 64 15', '0 0 1e3 64'])
def test_a_region_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match=f"roi is '?{text}'?, expected 'x y width height' in"):
        region_of(text)


def test_a_region_beyond_the_sensor_is_refused(checkpoint):
    options = EstimatorOptions(roi=Region(40, 0, 24, 16))
    with pytest.raises(ConfigError, match=r'roi is .*40 0 24 16.*within the 60x44 sensor'):
        DepthEstimator(checkpoint, HEIGHT, WIDTH, LENS, options, Remembering())


@pytest.mark.parametrize('scale_confidence', [1.0, 0.4])
def test_the_network_says_how_far_its_depth_may_be_off(scale_confidence):
    """Half of the map is sky, of which the confidence says nothing about depth."""
    right = 1 - math.exp(-math.log(1.25) / 0.2)  # a Laplace distribution of scale 0.2
    depth_m = np.full((61, 80), 3.0, np.float32)
    depth_m[:, ::2] = np.inf
    confidence = np.where(np.isfinite(depth_m), right * scale_confidence, 0.99)
    frame = DepthFrame(0, depth_m, confidence, 0.0, scale_confidence)
    assert expected_deviation(frame) == pytest.approx(0.2)
    assert expected_deviation(frame._replace(depth_m=np.full((61, 80), np.inf))) == 0.4
