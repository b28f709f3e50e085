"""Encodes events as evt3, mono, libcaer_cmp and Event[] payloads, for writers and tests."""

# mypy: no-check-untyped-defs
# (compiled kernels: numba infers their types)

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.events.arrays import EVENT_DTYPE
from spike_depth_ros.events.codecs.evt3_words import (
    ADDR_X,
    ADDR_Y,
    GLITCH,
    HIGH_SPAN,
    TIME_HIGH,
    TIME_LOW,
    VECT_12,
    VECT_BASE_X,
)
from spike_depth_ros.events.codecs.self_contained import (
    LAST_ROW_BYTES,
    LIBCAER_TIME_HIGH,
    LIBCAER_TIME_LOW,
    LIBCAER_X,
    LIBCAER_Y,
    ROW_BYTES,
)
from spike_depth_ros.events.compiled import compiled

EVT3_MAX_PX = 2048
MAX_WRAPS = 1 << 12
"""Largest number of clock wraps (16.8 s each) between two evt3 events: 19 hours."""

HALFWAY = HIGH_SPAN // 2
"""Intermediate TIME_HIGH of a rise that would otherwise be read as a step back over a wrap."""

MONO_MAX_X, MONO_MAX_Y = 0xFFFF, 0x7FFF


class EncodeError(ValueError):
    """The encoding cannot represent the events."""


def evt3_state() -> NDArray[Any]:
    """Returns a new state of `encode_evt3`: (2,) int64, the last time [us] and 'used'."""
    return np.zeros(2, np.int64)


def encode_evt3(events: NDArray[Any], state: NDArray[Any] | None = None) -> bytes:
    """Encodes events as evt3 words, using vector words where they save space.

    Every payload begins with its full time and row, so that a decoder recovers after a loss. Times
    are truncated to microseconds. The format holds their lower 24 bits: a decoder returns the true
    time minus a multiple of 2^24 us that is constant for the stream. Extra TIME_HIGH words encode
    pauses of several wraps, and steps back as a series of falls that are too small to be read as a
    wrap. A step back across a wrap cannot be encoded.

    Args:
        events: (N,) `EVENT_DTYPE`, coordinates below 2048.
        state: result of `evt3_state()`, updated; holds the time of the last payload.

    Raises:
        EncodeError: a coordinate does not fit, a step back crosses a multiple of 2^24 us, or a
            pause lasts longer than `MAX_WRAPS` wraps.
    """
    _check(events, EVT3_MAX_PX - 1, EVT3_MAX_PX - 1, 'evt3')
    state = evt3_state() if state is None else state
    room, fault = _evt3_room(events, state)
    if fault >= 0:
        before_us = events[fault - 1]['t_ns'] // 1000 if fault else state[0]
        raise EncodeError(
            f'evt3 cannot go from {before_us} us to {events[fault]["t_ns"] // 1000} us (event '
            f'{fault}): a step back across a multiple of 2^24 us or a pause over {MAX_WRAPS} '
            'wraps; sort the events or split the stream'
        )
    words = np.empty(room, '<u2')
    return words[: _encode_evt3(events, state, words)].tobytes()


def encode_mono(events: NDArray[Any], time_base_ns: int) -> bytes:
    """Encodes events as mono words; times lie in [time_base_ns, time_base_ns + 2^32).

    Raises:
        EncodeError: a time or coordinate does not fit.
    """
    _check(events, MONO_MAX_X, MONO_MAX_Y, 'mono')
    dt_ns = events['t_ns'] - time_base_ns
    if len(dt_ns) and not (dt_ns.min() >= 0 and dt_ns.max() < 1 << 32):
        raise EncodeError(
            f'mono times must lie within 2^32 ns after the base {time_base_ns}, '
            f'got {events["t_ns"].min()} to {events["t_ns"].max()} ns: use a later base'
        )
    words = dt_ns.astype('<u8')
    for field, shift in (('x', 32), ('y', 48), ('p', 63)):
        words |= events[field].astype('<u8') << np.uint64(shift)
    return words.tobytes()


def encode_event_array(events: NDArray[Any]) -> bytes:
    """Encodes events as the CDR body of a legacy `Event[]`, without the count before it.

    Raises:
        EncodeError: a time is not within the 32-bit seconds of a ROS stamp.
    """
    _check(events, 0xFFFF, 0xFFFF, 'event_array')
    if not len(events):
        return b''
    sec, nanosec = np.divmod(events['t_ns'], 1_000_000_000)
    if sec.min() < -(1 << 31) or sec.max() >= 1 << 31:
        raise EncodeError(f'event times of {sec.min()} to {sec.max()} s do not fit 32 bits')
    rows = np.zeros(ROW_BYTES * len(events), 'u1')
    table = rows.reshape(-1, ROW_BYTES)
    table[:, 4:8] = _bytes_of(sec, '<i4')
    table[:, 8:12] = _bytes_of(nanosec, '<u4')
    table[:, 12] = events['p']
    xy = np.concatenate([_bytes_of(events['x'], '<u2'), _bytes_of(events['y'], '<u2')], axis=1)
    table[0, 0:4] = xy[0]
    table[1:, 0:2] = xy[1:, 2:]
    table[:-1, 14:16] = xy[1:, :2]
    return rows[: len(rows) - ROW_BYTES + LAST_ROW_BYTES].tobytes()


def encode_libcaer_cmp(events: NDArray[Any], time_base_ns: int) -> bytes:
    """Encodes events as libcaer_cmp words, without vector words; times are truncated to us.

    Raises:
        EncodeError: a coordinate exceeds 2047 or a time is not within 2^24 us after the base.
    """
    _check(events, 0x7FF, 0x7FF, 'libcaer_cmp')
    t_us = (events['t_ns'] - time_base_ns) // 1000
    if len(t_us) and not (t_us.min() >= 0 and t_us.max() < 1 << 24):
        raise EncodeError(
            f'libcaer_cmp times must lie within 2^24 us after the base {time_base_ns} ns, '
            f'got {t_us.min()} to {t_us.max()} us after it: use a later base'
        )
    y = events['y'] | events['p'].astype('<u2') << np.uint16(11)
    values = np.stack([t_us >> 12, t_us & 0xFFF, events['x'], y], axis=1).astype('<u2')
    changed = np.ones(values.shape, np.bool_)
    changed[1:, :3] = values[1:, :3] != values[:-1, :3]
    codes = np.array([LIBCAER_TIME_HIGH, LIBCAER_TIME_LOW, LIBCAER_X, LIBCAER_Y], '<u2')
    words: NDArray[np.uint16] = (values | codes << np.uint16(12))[changed]
    return words.tobytes()


def _bytes_of(column: NDArray[Any], dtype: str) -> NDArray[Any]:
    return np.ascontiguousarray(column, dtype).view('u1').reshape(len(column), -1)


def _check(events: NDArray[Any], max_x: int, max_y: int, encoding: str) -> None:
    if events.dtype != EVENT_DTYPE or events.ndim != 1:
        raise EncodeError(f'events are {events.ndim}-d {events.dtype}, expected 1-d EVENT_DTYPE')
    if not len(events):
        return
    x, y, p = _greatest(events)
    if x > max_x or y > max_y or p > 1:
        raise EncodeError(
            f'{encoding} holds x <= {max_x}, y <= {max_y}, p <= 1; got up to x {x}, y {y}, p {p}'
        )


@compiled()
def _greatest(events):
    """Returns the greatest x, y and p."""
    x = y = p = 0
    for i in range(events.shape[0]):
        x, y, p = max(x, events[i]['x']), max(y, events[i]['y']), max(p, events[i]['p'])
    return x, y, p


@compiled()
def _evt3_room(events, state):
    """Returns a bound of the number of words and the index of an event that cannot be encoded."""
    words = 0
    before_us = state[0]
    for i in range(events.shape[0]):
        t_us = events[i]['t_ns'] // 1000
        words += 4
        if i > 0 or state[1]:
            wraps = (t_us >> 24) - (before_us >> 24)
            if wraps < 0 or wraps > MAX_WRAPS:
                return words, i
            words += 3 * wraps + 1
            if t_us < before_us:
                words += ((before_us - t_us) >> 12) // GLITCH + 1
        before_us = t_us
    return words, -1


@compiled()
def _move_high(before_us, t_us, words, n):
    """Writes the TIME_HIGH words that move a decoder from one time to another."""
    high, before = (t_us >> 12) & 0xFFF, (before_us >> 12) & 0xFFF
    for _ in range((t_us >> 24) - (before_us >> 24)):
        words[n] = TIME_HIGH << 12 | max(before, HALFWAY)
        words[n + 1], words[n + 2] = TIME_HIGH << 12 | 0xFFF, TIME_HIGH << 12
        n += 3
        before = 0
    if high - before >= HIGH_SPAN - GLITCH:
        words[n] = TIME_HIGH << 12 | HALFWAY
        n += 1
    while before - high > GLITCH:
        before -= GLITCH
        words[n] = TIME_HIGH << 12 | before
        n += 1
    words[n] = TIME_HIGH << 12 | high
    return n + 1


@compiled()
def _encode_evt3(events, state, words):
    before_us, started = state[0], state[1]
    n, i, count = 0, 0, events.shape[0]
    row, base_x, base_p = -1, -1, -1
    while i < count:
        event = events[i]
        t_us, x, y, p = event['t_ns'] // 1000, np.int64(event['x']), event['y'], event['p']
        if row < 0 or t_us != before_us:
            if row < 0 or t_us >> 12 != before_us >> 12:
                n = _move_high(before_us if started else t_us, t_us, words, n)
            words[n] = TIME_LOW << 12 | (t_us & 0xFFF)
            n += 1
            before_us, started = t_us, 1
        if y != row:
            row = np.int64(y)
            words[n] = ADDR_Y << 12 | row
            n += 1
        run, mask, last_x = i + 1, 1, x
        follows = p == base_p and base_x <= x < base_x + 12
        first_x = base_x if follows else x
        mask = 1 << (x - first_x)
        while run < count:
            peer = events[run]
            if peer['t_ns'] // 1000 != t_us or peer['y'] != y or peer['p'] != p:
                break
            if peer['x'] <= last_x or peer['x'] >= first_x + 12:
                break
            last_x = np.int64(peer['x'])
            mask |= 1 << (last_x - first_x)
            run += 1
        if run - i < 2:
            words[n] = ADDR_X << 12 | np.int64(p) << 11 | x
            n += 1
        else:
            if not follows:
                words[n] = VECT_BASE_X << 12 | np.int64(p) << 11 | x
                n += 1
            words[n] = VECT_12 << 12 | mask
            n += 1
            base_x, base_p = first_x + 12, np.int64(p)
        i = run
    state[0], state[1] = before_us, started
    return n
