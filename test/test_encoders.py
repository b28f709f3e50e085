"""Encoders by round trip, and what they refuse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spike_depth_ros.events.arrays import make_events
from spike_depth_ros.events.codecs import (
    CODECS,
    EncodeError,
    encode_event_array,
    encode_evt3,
    encode_libcaer_cmp,
    encode_mono,
    evt3_state,
)

HEIGHT, WIDTH = 48, 64

EVENTS = st.lists(
    st.tuples(st.integers(0, 3000), st.integers(0, 63), st.integers(0, 5), st.integers(0, 1)),
    max_size=40,
)


def as_events(rows, start_us=0, sort=True):
    rows = sorted(rows, key=lambda row: (row[0], row[2], row[3], row[1])) if sort else rows
    t, x, y, p = (list(column) for column in zip(*rows, strict=True)) if rows else ([],) * 4
    return make_events((np.array(t, np.int64) + start_us) * 1000, x, y, p)


@settings(max_examples=30, deadline=None)
@given(
    parts=st.lists(EVENTS, max_size=3), start_us=st.integers(0, 2**24 - 4000), sort=st.booleans()
)
def test_evt3_round_trip(parts, start_us, sort):
    state, decoder = evt3_state(), CODECS['evt3'](HEIGHT, WIDTH)
    for rows in parts:
        events = as_events(rows, start_us, sort)
        payload = encode_evt3(events, state)
        assert decoder.decode(payload).events.tolist() == events.tolist()


def test_evt3_round_trip_over_pauses_and_far_steps_back():
    t_us = [16_000_000, 100, 5, 3 * 2**24 + 7, 3 * 2**24 + 9_000_000, 3 * 2**24]
    events = make_events(np.array(t_us) * 1000, range(6), range(6), [0, 1] * 3)
    decoder = CODECS['evt3'](HEIGHT, WIDTH)
    assert decoder.decode(encode_evt3(events)).events.tolist() == events.tolist()
    assert decoder.counts.wraps == 3


def test_evt3_vector_words_save_space():
    x = np.concatenate([np.arange(12), [13, 15, 17]])
    events = make_events(np.zeros(15, np.int64), x, np.zeros(15), np.ones(15))
    assert len(encode_evt3(events)) // 2 == 3 + 3  # time, row, then base and two masks


def test_evt3_says_what_it_cannot_express():
    for t_us in ([2**24, 2**24 - 1], [0, 10**12]):
        events = make_events(np.array(t_us) * 1000, [0, 0], [0, 0], [0, 0])
        with pytest.raises(EncodeError, match=f'from {t_us[0]} us to {t_us[1]} us'):
            encode_evt3(events)
    with pytest.raises(EncodeError, match='x 2048'):
        encode_evt3(make_events([0], [2048], [0], [0]))


@settings(max_examples=30, deadline=None)
@given(rows=EVENTS)
def test_other_round_trips(rows):
    events = as_events(rows, start_us=1_700_000_000_000_000, sort=False)
    base_ns = 1_700_000_000_000_000_000
    mono = CODECS['mono'](HEIGHT, WIDTH).decode(encode_mono(events, base_ns), base_ns)
    assert mono.events.tolist() == events.tolist()
    libcaer_cmp = CODECS['libcaer_cmp'](HEIGHT, WIDTH)
    payload = encode_libcaer_cmp(events, base_ns)
    assert libcaer_cmp.decode(payload, base_ns).events.tolist() == events.tolist()
    array = CODECS['event_array'](HEIGHT, WIDTH).decode(encode_event_array(events))
    assert array.events.tolist() == events.tolist()


def test_others_say_what_they_cannot_express():
    with pytest.raises(EncodeError, match='later base'):
        encode_libcaer_cmp(make_events([2**24 * 1000], [0], [0], [0]), 0)
    with pytest.raises(EncodeError, match='later base'):
        encode_mono(make_events([2**32], [0], [0], [0]), 0)
    with pytest.raises(EncodeError, match='32 bits'):
        encode_event_array(make_events([2**31 * 10**9], [0], [0], [0]))
