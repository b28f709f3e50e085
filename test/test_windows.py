import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spike_depth_ros.events.arrays import make_events
from spike_depth_ros.events.config import ConfigError, SpikeConfig
from spike_depth_ros.events.spikes import accumulate, pixel_map
from spike_depth_ros.events.windows import TimeWindower, in_order

MS = 1_000_000
PIXELS = pixel_map(16, 24, SpikeConfig())


def stream(times_ns, seed=0):
    rng = np.random.default_rng(seed)
    n = len(times_ns)
    return make_events(
        times_ns, rng.integers(0, 24, n), rng.integers(0, 16, n), rng.integers(0, 2, n)
    )


def random_stream(milliseconds, count, seed=0):
    rng = np.random.default_rng(seed)
    return stream(np.sort(rng.integers(0, milliseconds * MS, count)), seed)


def test_ends_lie_on_the_stride_and_windows_equal_accumulate():
    events = random_stream(100, 5000)
    windower = TimeWindower(PIXELS, steps=4, window_ns=20 * MS, stride_ns=5 * MS)
    windows = list(windower.push(events))
    first_end = -(-(int(events['t_ns'][0]) + 20 * MS) // (5 * MS)) * 5 * MS
    ends = [w.t1_ns for w in windows]
    assert ends == list(range(first_end, 100 * MS - 5 * MS + 1, 5 * MS))
    for w in windows:
        assert w.t1_ns - w.t0_ns == 20 * MS
        expected = accumulate(events, w.t0_ns, w.t1_ns, 4, PIXELS.height, PIXELS.width, PIXELS)
        np.testing.assert_array_equal(w.spikes, expected)
        inside = sum(w.t0_ns <= t < w.t1_ns for t in events['t_ns'].tolist())
        assert w.event_count == inside


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 3000), max_size=12))
def test_packets_do_not_matter(cuts):
    events = random_stream(60, 3000, seed=3)
    whole = list(TimeWindower(PIXELS, 3, 10 * MS, 10 * MS).push(events))
    windower = TimeWindower(PIXELS, 3, 10 * MS, 10 * MS)
    pieces = []
    for part in np.split(events, sorted(cuts)):
        pieces += windower.push(part)
    assert [w[:2] + w[3:] for w in pieces] == [w[:2] + w[3:] for w in whole]
    for a, b in zip(pieces, whole, strict=True):
        np.testing.assert_array_equal(a.spikes, b.spikes)


def test_when_the_stream_was_joined_does_not_matter():
    events = random_stream(100, 5000, seed=4)
    whole = {w.t1_ns: w for w in TimeWindower(PIXELS, 3, 20 * MS, 5 * MS).push(events)}
    late = list(TimeWindower(PIXELS, 3, 20 * MS, 5 * MS).push(events[1234:]))
    assert (len(late), late[0].fresh, late[1].fresh) == (10, True, False)
    for window in late:
        np.testing.assert_array_equal(window.spikes, whole[window.t1_ns].spikes)


def test_only_the_first_window_is_fresh_until_time_jumps():
    windower = TimeWindower(PIXELS, 1, 10 * MS, 10 * MS)
    fresh = [w.fresh for w in windower.push(random_stream(50, 500))]
    assert fresh == [True, *[False] * (len(fresh) - 1)]
    assert list(windower.push(stream([0]))) == []  # 50 ms back at most: no jump
    ahead = stream(np.arange(0, 30 * MS, MS // 2) + 5 * 10**9)
    assert [w.fresh for w in windower.push(ahead)] == [True, False]
    assert windower.jumps == 1
    again = stream(np.arange(0, 30 * MS, MS // 2))
    assert [w.fresh for w in windower.push(again)] == [True, False]
    assert windower.jumps == 2


def test_late_events_are_counted():
    windower = TimeWindower(PIXELS, 1, 10 * MS, 10 * MS)
    assert len(list(windower.push(stream([0, 5 * MS, 21 * MS])))) == 2
    assert list(windower.push(stream([9 * MS, 22 * MS]))) == []
    assert windower.late_events == 1


def test_short_silence_gives_empty_windows_and_no_jump():
    windower = TimeWindower(PIXELS, 1, 10 * MS, 10 * MS)
    assert len(list(windower.push(stream([0, 11 * MS])))) == 1
    windows = list(windower.push(stream([45 * MS])))
    assert [w.event_count for w in windows] == [1, 0, 0]
    assert windower.jumps == 0


def test_a_long_packet_gives_the_windows_of_many_short_ones_whatever_its_order():
    events = random_stream(3000, 3000, seed=5)
    short = TimeWindower(PIXELS, 2, 20 * MS, 10 * MS)
    expected = [window for event in np.split(events, 3000) for window in short.push(event)]
    rng = np.random.default_rng(0)  # out of order by less than 50 ms, which is no jump
    shuffled = np.concatenate([rng.permutation(part) for part in np.split(events, 100)])
    for order in (events, shuffled):
        found = list(TimeWindower(PIXELS, 2, 20 * MS, 10 * MS).push(order))
        assert len(found) == len(expected) > 290
        for one, wanted in zip(found, expected, strict=True):
            assert one[:2] + one[3:] == wanted[:2] + wanted[3:]
            np.testing.assert_array_equal(one.spikes, wanted.spikes)


def test_too_many_open_windows_are_refused():
    TimeWindower(PIXELS, 1, 128 * MS, MS)
    with pytest.raises(ConfigError, match='stride_ms is 1, expected at least 1/128 of the window'):
        TimeWindower(PIXELS, 1, 129 * MS, MS)


def test_events_are_put_in_order_only_if_they_are_not():
    ordered = stream([3, 7, 7, 40])
    assert in_order(ordered) is ordered
    mixed = stream([100, 3, 40, 44, 43, 7])
    found = in_order(mixed)
    assert found['t_ns'].tolist() == [3, 7, 40, 43, 44, 100]
    assert found['x'].tolist() == mixed['x'][[1, 5, 2, 4, 3, 0]].tolist()


def test_stride_beyond_the_window_is_refused():
    with pytest.raises(ConfigError, match='stride_ms is 20'):
        TimeWindower(PIXELS, 1, 10 * MS, 20 * MS)


def windows_of(events, cuts=()):
    """What a windower gives for events in messages, and the windower."""
    windower = TimeWindower(PIXELS, 2, 20 * MS, 10 * MS)
    return [w for part in np.split(events, sorted(cuts)) for w in windower.push(part)], windower


def assert_same(found, wanted):
    assert [w[:2] + w[3:] for w in found] == [w[:2] + w[3:] for w in wanted]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one.spikes, other.spikes)


@settings(max_examples=100, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 900), max_size=20),
    wrong=st.lists(
        st.tuples(
            st.integers(0, 899),
            st.sampled_from([-999, -99, -60, 60, 99, 999, 5000, 10**10, -(10**10)]),
            st.integers(1, 20),
        ),
        max_size=6,
    ),
    leap_ms=st.sampled_from([0, 0, -300, 700, 5000]),
)
def test_packets_do_not_matter_whatever_the_times(cuts, wrong, leap_ms):
    t = np.sort(np.random.default_rng(2).integers(0, 100 * MS, 900))
    t[500:] += leap_ms * MS
    for at, by_ms, count in wrong:
        t[at : at + count] += by_ms * MS
    events = stream(t, seed=2)
    whole, windower = windows_of(events)
    found, parted = windows_of(events, cuts)
    assert_same(found, whole)
    assert (parted.jumps, parted.late_events) == (windower.jumps, windower.late_events)


@pytest.mark.parametrize('by_ms', [-999, -99, 99, 999, 10**9])
@pytest.mark.parametrize('cuts', [(), (0, 1000, 2000, 3000)])  # each wrong event opens a message
def test_wrong_times_cost_only_themselves(by_ms, cuts):
    t = np.sort(np.random.default_rng(0).integers(0, 400 * MS, 4000))
    wrong = [1000, 2000, 3000]
    wanted, _ = windows_of(np.delete(stream(t), wrong))
    t[wrong] += by_ms * MS
    found, windower = windows_of(stream(t), cuts)
    assert_same(found, wanted)
    assert (windower.jumps, windower.late_events) == (0, 3)


def test_times_before_zero_are_times_as_any():
    t = np.array([-200, -190, -180, -170]) * MS
    windower = TimeWindower(PIXELS, 2, 10 * MS, 10 * MS)
    windows = [w for part in np.array_split(stream(t), 2) for w in windower.push(part)]
    assert windower.jumps == windower.late_events == 0
    assert [(w.t0_ns, w.event_count) for w in windows] == [
        (-200 * MS, 1), (-190 * MS, 1), (-180 * MS, 1)]  # fmt: skip


def binned_by_hand(events, t0_ns, t1_ns, steps):
    """(T, 2, 16, 24): the spikes of a window, one event after the other."""
    counts = np.zeros((steps, 2, PIXELS.height, PIXELS.width), np.uint8)
    for t_ns, x, y, p in events.tolist():
        if t0_ns <= t_ns < t1_ns:
            counts[(t_ns - t0_ns) * steps // (t1_ns - t0_ns), p, y, x] += 1
    return counts


@settings(max_examples=30, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 2000), max_size=40),
    stride_ms=st.sampled_from([5, 10, 20]),
    steps=st.integers(1, 5),
)
def test_steps_that_have_begun_are_those_of_the_window(cuts, stride_ms, steps):
    events = random_stream(100, 2000, seed=6)
    windower = TimeWindower(PIXELS, steps, 20 * MS, stride_ms * MS)
    begun = []
    for part in np.split(events, sorted(cuts)):
        for window in windower.push(part):
            assert not window.revised
            for one, given_then in begun:
                if one.spikes is window.spikes:
                    assert (one.t0_ns, one.fresh) == (window.t0_ns, window.fresh)
                    np.testing.assert_array_equal(given_then, window.spikes[: one.ready])
        one = windower.begun()
        assert windower.begun() is None, 'the same step is given once'
        if one is not None:
            assert 0 < one.ready < steps
            begun.append((one, one.spikes[: one.ready].copy()))


def test_a_step_is_over_at_the_first_event_at_or_after_its_end():
    windower = TimeWindower(PIXELS, 4, 20 * MS, 20 * MS)
    for t_ns, ready in ((0, None), (5 * MS - 1, None), (5 * MS, 1), (9 * MS, None),
                        (17 * MS, 3), (19 * MS, None), (20 * MS, None), (25 * MS, 1)):  # fmt: skip
        assert len(list(windower.push(stream([t_ns])))) == (t_ns == 20 * MS)
        begun = windower.begun()
        assert (begun and begun.ready) == ready, t_ns
    windower.reset()
    assert windower.begun() is None


def test_events_late_for_a_step_are_counted_and_make_the_window_revised():
    windower = TimeWindower(PIXELS, 4, 20 * MS, 20 * MS)
    events = stream([0, 6 * MS, 4 * MS, 12 * MS, 21 * MS, 27 * MS, 26 * MS, 41 * MS])
    list(windower.push(events[:2]))
    assert windower.begun().ready == 1
    list(windower.push(events[2:3]))
    list(windower.push(events[3:4]))
    assert windower.begun() is None, 'work on it would be lost'
    (first,) = windower.push(events[4:6])
    assert (first.revised, first.event_count, windower.late_events) == (True, 4, 0)
    np.testing.assert_array_equal(first.spikes, binned_by_hand(events, 0, 20 * MS, 4))
    assert windower.begun().ready == 1
    assert list(windower.push(events[6:7])) == []  # of the step that goes on
    (second,) = windower.push(events[7:])
    assert (second.revised, second.event_count) == (False, 3)
