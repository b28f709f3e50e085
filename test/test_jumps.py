"""Which event times are believed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spike_depth_ros.events.arrays import make_events
from spike_depth_ros.events.jumps import (
    FEW_EVENTS,
    GOES_ON_NS,
    JUMP_EVENTS,
    MAX_GAP_NS,
    NEAR_NS,
    JumpFilter,
)

MS, S = 1_000_000, 1_000_000_000


def stream(t_ns):
    return make_events(np.asarray(t_ns), *np.zeros((3, len(t_ns)), int))


def judged(*messages, end=False):
    """(times, jump) of each run, and the number of dropped events."""
    judge = JumpFilter()
    runs = [run for t_ns in messages for run in judge.push(stream(t_ns))]
    runs += judge.finish() if end else []
    for run in runs:
        times = run.events['t_ns'].tolist()
        assert (run.first_ns, run.last_ns) == (min(times), max(times))
        assert not run.events.flags.writeable
    return [(run.events['t_ns'].tolist(), run.jump_ns) for run in runs], judge.dropped


def by_hand(t_ns):
    """The rule once more, on lists: [(index, jump)] of what is kept, and how many are dropped."""
    kept, held, newest, held_newest, dropped = [], [], None, None, 0
    for i, t in enumerate(t_ns):
        if newest is None or abs(t - newest) <= NEAR_NS:
            dropped += len(held)
            held, newest = [], t if newest is None else max(newest, t)
            kept.append((i, 0))
            continue
        continues = bool(held) and t >= held_newest - NEAR_NS
        if continues and held_newest < newest:
            continues = t <= held_newest + MAX_GAP_NS
        if not continues:
            dropped += len(held)
            held, held_newest = [], t
        held.append(i)
        held_newest = max(held_newest, t)
        goes_on = held_newest - t_ns[held[0]] >= GOES_ON_NS
        if len(held) >= JUMP_EVENTS or (len(held) >= FEW_EVENTS and goes_on):
            for k in held:
                step = t_ns[k] - newest
                jumps = step < -NEAR_NS or step > MAX_GAP_NS
                kept.append((k, step if jumps else 0))
                newest = t_ns[k] if jumps else max(newest, t_ns[k])
            held = []
    return kept, dropped


def test_a_steady_stream_is_one_run_and_nothing_is_copied():
    judge, events = JumpFilter(), stream([0, 10, 5, 50 * MS])
    (run,) = judge.push(events)
    assert run.events is events
    assert (run[1:], judge.newest_ns, judge.dropped) == ((0, 50 * MS, 0), 50 * MS, 0)
    assert judge.push(stream([])) == []


@pytest.mark.parametrize('wrong', [-51 * MS, -S, 52 * MS, 999 * MS, 2**62, -(2**62)])
def test_one_or_two_wrong_times_are_dropped_wherever_they_stand(wrong):
    assert judged([0, 1, wrong, 2]) == ([([0, 1, 2], 0)], 1)
    assert judged([0, 1], [wrong, 2, 3]) == ([([0, 1], 0), ([2, 3], 0)], 1)
    assert judged([0, 1, wrong, wrong + 1], [2, 3]) == ([([0, 1], 0), ([2, 3], 0)], 2)


@pytest.mark.parametrize('step', [-51 * MS, -S, S + 1, 2**62])
def test_several_in_a_row_are_a_jump_and_none_of_them_is_lost(step):
    there = [step + k for k in range(JUMP_EVENTS)]
    assert judged([0], there[:-1]) == ([([0], 0)], 0)
    assert judged([0, *there]) == ([([0], 0), (there, step)], 0)
    assert judged([0], there[:3], there[3:]) == ([([0], 0), (there, step)], 0)


def test_few_whose_time_goes_on_are_enough():
    there = [500 * S, 505 * S // 10 * 10, 510 * S]
    assert judged([0, *there[:2]]) == ([([0], 0)], 0)
    back = [-S, -S + 5 * MS, -S + 10 * MS]
    assert judged([0, *back]) == ([([0], 0), (back, -S)], 0)
    assert judged([0, *back[:2]]) == ([([0], 0)], 0)


def test_silence_is_a_jump_only_if_it_is_long():
    pause = [900 * MS, 905 * MS, 910 * MS]
    assert judged([0, *pause]) == ([([0, *pause], 0)], 0)
    longer = [1001 * MS, 1005 * MS, 1012 * MS]
    assert judged([0, *longer]) == ([([0], 0), (longer, 1001 * MS)], 0)


def test_a_stream_with_pauses_only_goes_on():
    t = [k * 2 * S for k in range(10)]
    runs, dropped = judged(t)
    assert runs == [([0], 0), *[([k], 2 * S) for k in t[1:]]]
    assert dropped == 0


def test_left_overs_of_an_earlier_run_are_one_jump():
    stale = [1234 * S + k for k in range(30)]
    fresh = list(range(2004, 2100))
    assert judged([*stale, *fresh]) == ([(stale, 0), (fresh, 2004 - stale[-1])], 0)


def test_what_is_held_at_the_end():
    assert judged([0, 3 * S], end=True) == ([([0], 0)], 1)
    assert judged([0, S], end=True) == ([([0], 0), ([S], 0)], 0)
    assert judged([0, -S], end=True) == ([([0], 0)], 1)
    assert judged([0, 3 * S, 3 * S + 1], end=True) == ([([0], 0), ([3 * S, 3 * S + 1], 3 * S)], 0)


def test_times_at_the_ends_of_int64():
    last, first = 2**63 - 1, -(2**63)
    there = [first] * JUMP_EVENTS
    assert judged([last, *there]) == ([([last], 0), (there, -last)], 0)
    assert judged([first, last, first + 1]) == ([([first, first + 1], 0)], 1)


TIMES = st.one_of(
    st.integers(0, 300 * MS),
    st.sampled_from([0, NEAR_NS, NEAR_NS + 1, MAX_GAP_NS, MAX_GAP_NS + 1, 5 * S, -S]),
)


@settings(max_examples=200, deadline=None)
@given(
    parts=st.lists(st.tuples(TIMES, st.integers(1, 20), st.integers(0, 6 * MS)), max_size=12),
    cuts=st.lists(st.integers(0, 240), max_size=6),
)
def test_the_rule_by_hand_however_the_stream_is_cut(parts, cuts):
    t = np.concatenate([np.empty(0, int), *(at + np.arange(n) * by for at, n, by in parts)])
    t = t.astype(np.int64)
    kept, dropped = by_hand(t.tolist())
    runs, found_dropped = judged(*np.split(t, sorted(cuts)))
    found = [(t_ns, jump if k == 0 else 0) for times, jump in runs for k, t_ns in enumerate(times)]
    assert found == [(int(t[i]), jump) for i, jump in kept]
    assert found_dropped == dropped
