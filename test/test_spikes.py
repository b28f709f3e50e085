"""Spike tensors: every event once, in the bin and the block that arithmetic says."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spike_depth_ros.events.arrays import empty_events, make_events
from spike_depth_ros.events.camera import CalibrationError, Camera
from spike_depth_ros.events.config import SpikeConfig
from spike_depth_ros.events.spikes import (
    BLOCK_EVENTS,
    OFF,
    ON,
    accumulate,
    binning_factor,
    pixel_map,
)

HEIGHT, WIDTH = 5, 15
CONFIG = SpikeConfig(max_width_px=8, multiple_px=4)


def oracle(events, t0_ns, t1_ns, steps, height, width):
    """One event after the other, in exact arithmetic."""
    counts = np.zeros((steps, 2, height, width), np.int64)
    for t_ns, x, y, p in events.tolist():
        if t0_ns <= t_ns < t1_ns:
            step = int(Fraction((t_ns - t0_ns) * steps, t1_ns - t0_ns))
            counts[step, p, y, x] += 1
    return np.minimum(counts, 255)


def events_of(rows):
    t, x, y, p = zip(*rows, strict=True) if rows else ((),) * 4
    return make_events(np.array(t, np.int64), x, y, p)


ROWS = st.lists(
    st.tuples(
        st.integers(-20, 130) | st.integers(0, 3),
        st.integers(0, WIDTH - 1),
        st.integers(0, HEIGHT - 1),
        st.integers(0, 1),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(-5, 5), st.integers(1, 120), st.integers(1, 9))
def test_counts_are_those_of_the_oracle(rows, t0_ns, span_ns, steps):
    events = events_of(rows)
    found = accumulate(events, t0_ns, t0_ns + span_ns, steps, HEIGHT, WIDTH)
    assert found.dtype == np.uint8
    assert (found == oracle(events, t0_ns, t0_ns + span_ns, steps, HEIGHT, WIDTH)).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(-(2**62), 2**62 - 1), st.integers(1, 2**61), st.integers(1, 1024), st.data())
def test_bins_are_exact_whatever_the_times(t0_ns, span_ns, steps, data):
    edges = [t0_ns + -(-k * span_ns // steps) for k in range(steps + 1)]
    near = st.sampled_from(edges).map(lambda edge: min(edge, t0_ns + span_ns - 1))
    inside = st.integers(t0_ns, t0_ns + span_ns - 1)
    times = data.draw(st.lists(near | near.map(lambda t: max(t0_ns, t - 1)) | inside, max_size=9))
    events = events_of([(t, 0, 0, ON) for t in times])
    found = accumulate(events, t0_ns, t0_ns + span_ns, steps, 1, 1)
    assert (found == oracle(events, t0_ns, t0_ns + span_ns, steps, 1, 1)).all()


@pytest.mark.parametrize('mapped', [False, True])
@pytest.mark.parametrize('ordered', [False, True])
@pytest.mark.parametrize('count', [BLOCK_EVENTS, 5 * BLOCK_EVENTS + 3])
def test_blocks_of_events_change_nothing(count, ordered, mapped):
    rng = np.random.default_rng(count)
    t, x, y, p = (rng.integers(low, high, count) for low, high in
                  ((-20, 130), (0, WIDTH), (0, HEIGHT), (0, 2)))  # fmt: skip
    events = make_events(np.sort(t) if ordered else t, x, y, p)
    pixels = pixel_map(HEIGHT, WIDTH, SpikeConfig(multiple_px=1)) if mapped else None
    found = accumulate(events, 0, 110, 7, HEIGHT, WIDTH, pixels)
    assert (found == oracle(events, 0, 110, 7, HEIGHT, WIDTH)).all()


def test_events_off_the_sensor_are_counted_in_all_blocks():
    rows = [(k, WIDTH if k % 3 else 0, 0, 1) for k in range(3 * BLOCK_EVENTS)]
    with pytest.raises(ValueError, match=f'^{2 * BLOCK_EVENTS} events lie outside'):
        accumulate(events_of(rows), 0, len(rows), 2, HEIGHT, WIDTH)


def test_bins_are_half_open_and_channel_is_polarity():
    events = events_of([(-1, 0, 0, 1), (0, 1, 0, 0), (49, 1, 0, 1), (50, 2, 3, 1), (100, 0, 0, 1)])
    found = accumulate(events, 0, 100, 2, HEIGHT, WIDTH)
    assert found.sum() == 3
    assert (found[0, OFF, 0, 1], found[0, ON, 0, 1], found[1, ON, 3, 2]) == (1, 1, 1)


def test_counts_saturate_and_pieces_add_up():
    events = events_of([(0, 0, 0, 1)] * 200)
    out = accumulate(events, 0, 10, 1, 1, 1)
    assert out[0, ON, 0, 0] == 200
    assert accumulate(events, 0, 10, 1, 1, 1, out=out) is out
    assert out[0, ON, 0, 0] == 255


def test_binning_is_the_sum_over_blocks():
    assert binning_factor(WIDTH, CONFIG) == 2
    rng = np.random.default_rng(0)
    events = events_of(
        [(int(t), int(rng.integers(WIDTH)), int(rng.integers(HEIGHT)), int(t) % 2)
         for t in rng.integers(0, 40, 300)]
    )  # fmt: skip
    pixels = pixel_map(HEIGHT, WIDTH, CONFIG)
    assert (pixels.height, pixels.width) == (4, 8)
    assert (pixels.image_height, pixels.image_width) == (3, 8)
    fine = oracle(events, 0, 40, 3, HEIGHT, WIDTH)
    fine = np.pad(fine, ((0, 0), (0, 0), (0, 3), (0, 1)))
    blocks = fine.reshape(3, 2, 4, 2, 8, 2).sum(axis=(3, 5))
    found = accumulate(events, 0, 40, 3, pixels.height, pixels.width, pixels)
    assert (found == blocks).all()


@pytest.mark.filterwarnings('error::RuntimeWarning')
def test_rectification_moves_events_and_drops_those_that_leave():
    xy = np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), axis=2).astype(float)
    xy[..., 0] += 1  # everything one column to the right: the last column leaves
    xy[0, 0] = np.nan
    xy[1, 1] = np.inf, -np.inf  # as a map that was divided by nothing may hold
    pixels = pixel_map(HEIGHT, WIDTH, SpikeConfig(multiple_px=1), rectified_xy=xy)
    events = events_of([(0, 0, 0, 1), (0, 1, 0, 1), (0, 1, 1, 1), (0, WIDTH - 1, 2, 1)])
    found = accumulate(events, 0, 1, 1, HEIGHT, WIDTH, pixels)
    assert np.argwhere(found).tolist() == [[0, ON, 0, 2]]


def test_the_input_is_not_touched_and_no_events_give_zeros():
    events = events_of([(5, 1, 1, 1), (3, 2, 2, 0)])
    before = events.copy()
    accumulate(events, 0, 10, 2, HEIGHT, WIDTH)
    assert (events == before).all()
    assert not accumulate(empty_events(), 0, 10, 2, HEIGHT, WIDTH).any()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'t1_ns': 0}, 'is empty'),
        ({'steps': 0}, 'is empty'),
        ({'events': np.zeros(3)}, 'EVENT_DTYPE'),
        ({'out': np.zeros((1, 2, HEIGHT, WIDTH))}, 'contiguous uint8'),
        ({'events': events_of([(0, WIDTH, 0, 0)])}, 'outside the sensor'),
        ({'height': HEIGHT + 1, 'pixels': pixel_map(HEIGHT, WIDTH, SpikeConfig())}, 'pixels map'),
    ],
)
def test_misuse_is_refused_by_name(change, message):
    values = {'events': empty_events(), 't0_ns': 0, 't1_ns': 10, 'steps': 1}
    values |= {'height': HEIGHT, 'width': WIDTH}
    with pytest.raises(ValueError, match=message):
        accumulate(**(values | change))


def test_a_calibration_of_another_size_is_refused():
    with pytest.raises(CalibrationError, match='9x9'):
        pixel_map(HEIGHT, WIDTH, CONFIG, camera=Camera(9, 9, 5, 5, 4, 4))
    with pytest.raises(CalibrationError, match='shape'):
        pixel_map(HEIGHT, WIDTH, CONFIG, rectified_xy=np.zeros((2, 2, 2)))
