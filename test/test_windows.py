import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spike_depth_ros.events.arrays import make_events
from spike_depth_ros.events.config import ConfigError, SpikeConfig
from spike_depth_ros.events.spikes import accumulate, pixel_map
from spike_depth_ros.events.windows import (
    MAX_BACKWARD_NS,
    MAX_GAP_NS,
    CountWindower,
    TimeWindower,
    slices_of_time,
    split_at_jumps,
)

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


def told(piece):
    return (piece.events['t_ns'].tolist(), *piece[1:])


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
    back = stream(np.arange(0, 50 * MS - 1, MS // 2)[:100])
    assert list(windower.push(back[:1])) == []  # 50 ms back at most: no jump yet
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


def test_slices_of_time_lose_nothing():
    (piece,) = split_at_jumps(stream([7, 3, 40]), None)
    assert slices_of_time(piece, 10) == [piece]
    (piece,) = split_at_jumps(stream([100, 3, 40, 44, 43, 7]), None)
    parts = slices_of_time(piece, 10)  # slices begin at 3, 43, 83
    assert [told(part) for part in parts] == [
        ([3, 7, 40], 3, 40, False),
        ([43, 44], 43, 44, False),
        ([100], 100, 100, False),
    ]


def test_stride_beyond_the_window_is_refused():
    with pytest.raises(ConfigError, match='stride_ms is 20'):
        TimeWindower(PIXELS, 1, 10 * MS, 20 * MS)


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 2000), max_size=8), window_events=st.integers(100, 700))
def test_count_windows_partition_the_stream(cuts, window_events):
    events = stream(np.unique(np.random.default_rng(1).integers(0, 80 * MS, 2000)))
    windower = CountWindower(PIXELS, 2, window_events, max_window_ns=10**9)
    windows = []
    for part in np.split(events, sorted(cuts)):
        windows += windower.push(part)
    assert len(windows) == len(events) // window_events
    assert all(w.event_count == window_events for w in windows)
    for k, w in enumerate(windows):
        ours = events[k * window_events : (k + 1) * window_events]
        expected = accumulate(ours, w.t0_ns, w.t1_ns, 2, PIXELS.height, PIXELS.width, PIXELS)
        np.testing.assert_array_equal(w.spikes, expected)
        assert w.t1_ns == ours['t_ns'][-1] + 1
    assert [w.t0_ns for w in windows[1:]] == [w.t1_ns for w in windows[:-1]]


def test_late_events_fill_no_count_window():
    windower = CountWindower(PIXELS, 1, 100, max_window_ns=10**9)
    assert len(list(windower.push(stream(np.arange(100) * MS)))) == 1
    assert list(windower.push(stream(np.arange(60, 100) * MS).repeat(10))) == []
    assert windower.late_events == 400
    (window,) = windower.push(stream(np.arange(100, 200) * MS))
    assert (window.event_count, window.t0_ns, window.t1_ns) == (100, 99 * MS + 1, 199 * MS + 1)


def test_a_quiet_scene_still_gets_count_windows():
    windower = CountWindower(PIXELS, 2, 1000, max_window_ns=20 * MS)
    windows = list(windower.push(stream(np.arange(0, 61 * MS, MS))))
    assert [(w.t0_ns, w.t1_ns) for w in windows] == [
        (0, 20 * MS), (20 * MS, 40 * MS), (40 * MS, 60 * MS)]  # fmt: skip
    assert [w.event_count for w in windows] == [20, 20, 20]


@pytest.mark.parametrize('packets', [1, 3])
def test_a_clock_that_falls_in_small_steps_has_jumped_when_it_is_far_whatever_the_packets(packets):
    for windower in (
        TimeWindower(PIXELS, 2, 20 * MS, 20 * MS),
        CountWindower(PIXELS, 2, 2, 100 * MS),
    ):
        # 20 is too far behind 100, then 0 and -20 are near enough to 20, and -40 is not
        for part in np.array_split(stream(np.array([100, 60, 20, 0, -20, -40]) * MS), packets):
            list(windower.push(part))
        assert windower.jumps == 2


def test_times_before_zero_are_times_as_any():
    t = np.array([-200, -190, -180, -170]) * MS
    for windower in (
        TimeWindower(PIXELS, 2, 10 * MS, 10 * MS),
        CountWindower(PIXELS, 2, 2, 100 * MS),
    ):
        windows = [w for part in np.array_split(stream(t), 2) for w in windower.push(part)]
        assert windower.jumps == windower.late_events == 0
        assert sum(w.event_count for w in windows) >= 2
        assert all(-220 * MS <= w.t0_ns < w.t1_ns <= -160 * MS for w in windows)


def test_split_at_jumps_by_hand():
    late = 10 + MAX_GAP_NS  # of the newest, not of the last
    t = np.array([0, 10, 5, late + 1, late + 2, 100])
    assert [told(piece) for piece in split_at_jumps(stream(t), None)] == [
        ([0, 10, 5], 0, 10, False),
        ([late + 1, late + 2], late + 1, late + 2, True),
        ([100], 100, 100, True),
    ]
    (piece,) = split_at_jumps(stream([0]), MAX_BACKWARD_NS + 1)
    assert told(piece) == ([0], 0, 0, True)
    assert split_at_jumps(stream([]), 5) == []


@pytest.mark.parametrize('epoch_ns', [0, 1_700_000_000_000_000_001, -(2**63) + MAX_BACKWARD_NS])
def test_the_limits_of_a_jump_are_exact_whatever_else_is_in_the_packet(epoch_ns):
    near = [epoch_ns + MAX_BACKWARD_NS, epoch_ns]
    far = [epoch_ns + MAX_BACKWARD_NS + 1, epoch_ns]
    leap = epoch_ns + MAX_GAP_NS + MAX_BACKWARD_NS
    for times, jumps in ((near, 0), (far, 1), ([*near, leap], 0), ([*near, leap + 1], 1)):
        pieces = split_at_jumps(stream(times), None)
        assert sum(piece.jumped for piece in pieces) == jumps
        pieces = split_at_jumps(stream([*times, times[-1] + 2 * MAX_GAP_NS]), None)
        assert sum(piece.jumped for piece in pieces) == jumps + 1


def test_times_at_the_ends_of_int64_are_jumps():
    t = [2**63 - 2, -(2**63) + 5, -(2**63) + 6]
    assert [told(piece) for piece in split_at_jumps(stream(t), None)] == [
        (t[:1], t[0], t[0], False),
        (t[1:], t[1], t[2], True),
    ]
