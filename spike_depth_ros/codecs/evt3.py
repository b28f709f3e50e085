"""Kernels for evt3, the 16-bit words of Prophesee's larger sensors.

Sources: docs.prophesee.ai, "EVT 3.0 format"; ros-event-camera/event_camera_codecs for how real
streams misbehave. Checked event for event on a real recording.

What an event is depends on words before it, and which words come is unpredictable, so a loop
with a branch per word spends its time on mispredicted branches. Blocks of words are therefore
decoded in two loops without such branches: `_gather` folds every word into one 64-bit register
(row, clock, vector base) by table and keeps the register only after words that emit something;
`_expand` turns the registers kept into records. Blocks in which the clock may have wrapped, and
the words before the stream is in sync, take `_walk`: one word after the other.
"""

# mypy: no-check-untyped-defs
# (compiled kernels: numba infers their types)

from __future__ import annotations

import numpy as np

from spike_depth_ros.codecs.memory import (
    BEFORE_TIME,
    CLOCK,
    EPOCH_US,
    EVENT_END,
    EVENTS,
    LAST_NS,
    ON,
    OUT_OF_BOUNDS,
    SCRATCH,
    SCRATCH_SIZE,
    SLACK,
    SYNC,
    TRIGGER_END,
    TRIGGERS,
    TRUNCATED_BYTES,
    UNKNOWN_CODES,
    WRAPS,
    note_backward,
)
from spike_depth_ros.compiled import compiled

ADDR_Y, ADDR_X, VECT_BASE_X, VECT_12, VECT_8, TIME_LOW, CONTINUED_4, TIME_HIGH = (
    0, 2, 3, 4, 5, 6, 7, 8,
)  # fmt: skip
EXT_TRIGGER, OTHERS, CONTINUED_12 = 10, 14, 15
UNKNOWN = 0b0011_1010_0000_0010
"""Bit k is set if code k is not defined."""

NONE, ONE, EIGHT, TWELVE, UNKNOWN_16 = (np.uint16(n) for n in (0, 1, 8, 12, UNKNOWN))
HEAD_X, HEAD_12, HEAD_8, HEAD_TRIGGER, HEAD_HIGH = (
    np.uint16(code << 12) for code in (ADDR_X, VECT_12, VECT_8, EXT_TRIGGER, TIME_HIGH)
)
LAST_HIGH = np.uint16(TIME_HIGH << 12 | 0xFFF)
COUNT_BLOCK = 4096
"""Words whose most events, 12 each, still fit 16 bits."""

GLITCH = 10
"""A TIME_HIGH that falls by more than this has wrapped; a smaller fall is a glitch."""

HAS_HIGH, HAS_TIME, HAS_ROW = 1, 2, 4
IN_SYNC = HAS_HIGH | HAS_TIME | HAS_ROW

ROW_AT, LOW_AT, HIGH_AT, WORD_AT, BASE_AT = 0, 12, 24, 36, 52
"""Fields of the register: row, time low and high, last emitting word, vector base. The base has
its polarity on top, as in its word; past 2047, where no sensor is, it runs over into that."""


def _table(entries: dict[int, int]) -> np.ndarray:
    """A (16,) table by code, 0 where `entries` says nothing."""
    return np.array([entries.get(code, 0) for code in range(16)], np.int64)


EMITTING = (ADDR_X, VECT_12, VECT_8, EXT_TRIGGER)
EMITS = _table(dict.fromkeys(EMITTING, 1))
FIELD = _table(
    {
        ADDR_Y: 0xFFF << ROW_AT,
        TIME_LOW: 0xFFF << LOW_AT,
        TIME_HIGH: 0xFFF << HIGH_AT,
        VECT_BASE_X: -1 << BASE_AT,
    }
    | dict.fromkeys(EMITTING, 0xFFFF << WORD_AT)
)
KEEP = ~FIELD
"""What a word of each code leaves of the register."""
PLACE = _table(
    {
        ADDR_Y: 1 << ROW_AT,
        TIME_LOW: 1 << LOW_AT,
        TIME_HIGH: 1 << HIGH_AT,
        VECT_BASE_X: 1 << BASE_AT,
    }
    | dict.fromkeys(EMITTING, 1 << WORD_AT)
)
"""What to multiply a word by to bring its value into its field."""
ADVANCE = _table({VECT_12: 12 << BASE_AT, VECT_8: 8 << BASE_AT})
"""What a word adds to the register: vector words move the base on."""

SIX_BITS = [[k for k in range(6) if mask >> k & 1] for mask in range(64)]
BIT_COUNT = np.array([len(bits) for bits in SIX_BITS], np.int64)
BIT_AT = np.array([bits + [0] * (6 - len(bits)) for bits in SIX_BITS], np.uint8)
"""(64, 6): the positions of the set bits of a 6-bit mask, filled up with zeros."""


@compiled()
def bound(payload):
    """Upper bounds of the numbers of events and triggers in evt3 words."""
    words = payload[: payload.shape[0] // 2 * 2].view(np.uint16)
    events, triggers = SLACK, 0
    for start in range(0, words.shape[0], COUNT_BLOCK):
        block = words[start : start + COUNT_BLOCK]
        some = few = np.uint16(0)  # 16-bit sums: twice as many words per vector instruction
        for i in range(block.shape[0]):
            head = block[i] & np.uint16(0xF000)
            most = ONE if head == HEAD_X else NONE
            most = TWELVE if head == HEAD_12 else most
            some = np.uint16(some + (EIGHT if head == HEAD_8 else most))
            few = np.uint16(few + (ONE if head == HEAD_TRIGGER else NONE))
        events += np.int64(some)
        triggers += np.int64(few)
    return events, triggers


@compiled()
def decode(payload, time_base_ns, height, width, events, triggers, memory):
    """Decodes evt3 words; the state runs on across packets and `time_base_ns` is not used.

    t [us] = wraps << 24 | high << 12 | low. Events come from ADDR_X (one) and VECT_12, VECT_8
    (masks over x from the base on).
    """
    words = payload[: payload.shape[0] // 2 * 2].view(np.uint16)
    i, size = 0, words.shape[0]
    event_start, trigger_start = memory[EVENT_END], memory[TRIGGER_END]
    if memory[SYNC] != IN_SYNC:
        i = _walk(words, 0, size, True, height, width, events, triggers, memory)
    while i < size:
        stop = min(i + SCRATCH_SIZE, size)
        if _is_calm(words[i:stop], memory):
            count = _gather(words[i:stop], memory)
            _expand(count, height, width, events, triggers, memory)
            i = stop
        else:
            i = _walk(words, i, stop, False, height, width, events, triggers, memory)
    memory[TRUNCATED_BYTES] += payload.shape[0] % 2
    memory[EVENTS] += memory[EVENT_END] - event_start
    memory[TRIGGERS] += memory[TRIGGER_END] - trigger_start
    return memory[EVENT_END], memory[TRIGGER_END]


@compiled()
def _is_calm(words, memory):
    """Whether no TIME_HIGH in the block can be a wrap; counts unknown codes if so."""
    lowest, highest, unknown = LAST_HIGH, NONE, NONE
    for i in range(words.shape[0]):
        word = words[i]
        is_high = word & np.uint16(0xF000) == HEAD_HIGH
        lowest = min(lowest, word if is_high else LAST_HIGH)
        highest = max(highest, word if is_high else NONE)
        unknown = np.uint16(unknown + (UNKNOWN_16 >> (word >> TWELVE) & ONE))
    before = (memory[CLOCK] >> HIGH_AT) & 0xFFF
    fall = max(np.int64(highest) & 0xFFF, before) - (np.int64(lowest) & 0xFFF)
    if highest != 0 and fall > GLITCH:
        return False
    memory[UNKNOWN_CODES] += np.int64(unknown)
    return True


@compiled()
def _gather(words, memory):
    """Folds words into the register; what it was after emitting ones is left in the scratch."""
    register, n = memory[CLOCK], np.uintp(0)
    scratch = memory[SCRATCH:]
    for i in range(words.shape[0]):
        word = words[i]
        code = word >> 12
        keep = KEEP[code]
        register = (register & keep) + ((np.int64(word) * PLACE[code] & ~keep) | ADVANCE[code])
        scratch[n] = register
        n += np.uintp(EMITS[code])
    memory[CLOCK] = register
    return np.int64(n)


@compiled()
def _put(events, n, t_ns, x, y, p):
    event = events[n]
    event['t_ns'] = t_ns
    event['x'] = x
    event['y'] = y
    event['p'] = p


@compiled()
def _put_trigger(triggers, m, t_ns, word):
    trigger = triggers[m]
    trigger['t_ns'] = t_ns
    trigger['id'] = (word >> 8) & 0xF
    trigger['edge'] = word & 1


@compiled()
def _put_bits(events, n, t_ns, x, y, p, mask, height, width, memory):
    """Writes an event for every bit of a mask, one by one; those off the sensor are counted."""
    for k in range(12):
        if mask >> k & 1:
            if x + k < width and y < height:
                _put(events, n, t_ns, x + k, y, p)
                n += 1
            else:
                memory[OUT_OF_BOUNDS] += 1
    return n


@compiled()
def _expand(count, height, width, events, triggers, memory):
    """Turns the registers that `_gather` kept into events and triggers."""
    epoch_ns, last_ns = memory[EPOCH_US] * 1000, memory[LAST_NS]
    n, m, on = np.uintp(memory[EVENT_END]), memory[TRIGGER_END], np.int64(0)
    for i in range(SCRATCH, SCRATCH + count):
        register = memory[i]
        word = (register >> WORD_AT) & 0xFFFF
        code = word >> 12
        y = register & 0x7FF
        t_ns = epoch_ns + ((register >> LOW_AT) & 0xFFFFFF) * 1000
        before = n
        if code == ADDR_X:
            x, p = word & 0x7FF, (word >> 11) & 1
            if x >= width or y >= height:
                memory[OUT_OF_BOUNDS] += 1
                continue
            _put(events, n, t_ns, x, y, p)
            n += np.uintp(1)
            on += p
        elif code == EXT_TRIGGER:
            _put_trigger(triggers, m, t_ns, word)
            m += 1
            continue
        else:
            mask = word & (0xFFF if code == VECT_12 else 0xFF)
            base = (register - ADVANCE[code]) >> BASE_AT
            x, p = base & 0x7FF, (base >> 11) & 1
            if x + 12 <= width and y < height:
                left, right = mask & 0x3F, mask >> 6
                for k in range(6):  # always six: cheaper than a loop of unpredictable length
                    _put(events, n + np.uintp(k), t_ns, x + BIT_AT[left, k], y, p)
                n += np.uintp(BIT_COUNT[left])
                for k in range(6):
                    _put(events, n + np.uintp(k), t_ns, x + 6 + BIT_AT[right, k], y, p)
                n += np.uintp(BIT_COUNT[right])
            else:
                end = _put_bits(events, np.int64(n), t_ns, x, y, p, mask, height, width, memory)
                n = np.uintp(end)
            if n == before:
                continue
            on += p * np.int64(n - before)
        if t_ns < last_ns:
            note_backward(memory, last_ns, t_ns)
        last_ns = t_ns
    memory[LAST_NS] = last_ns
    memory[ON] += on
    memory[EVENT_END], memory[TRIGGER_END] = np.int64(n), m


@compiled()
def _walk(words, i, stop, until_sync, height, width, events, triggers, memory):
    """Decodes words one by one and returns where it ended."""
    register, n, m = memory[CLOCK], memory[EVENT_END], memory[TRIGGER_END]
    while i < stop and not (until_sync and memory[SYNC] == IN_SYNC):
        word = np.int64(words[i])
        code = word >> 12
        i += 1
        if UNKNOWN >> code & 1:
            memory[UNKNOWN_CODES] += 1
        if code == TIME_HIGH:
            if ((register >> HIGH_AT) & 0xFFF) - (word & 0xFFF) > GLITCH:
                memory[EPOCH_US] += 1 << 24
                memory[WRAPS] += 1
            memory[SYNC] |= HAS_HIGH
        elif code == TIME_LOW and memory[SYNC] & HAS_HIGH:
            memory[SYNC] |= HAS_TIME
        elif code == ADDR_Y:
            memory[SYNC] |= HAS_ROW
        base = register >> BASE_AT
        register = (register & KEEP[code]) + ((word * PLACE[code] & ~KEEP[code]) | ADVANCE[code])
        if not EMITS[code]:
            continue
        t_ns = (memory[EPOCH_US] + ((register >> LOW_AT) & 0xFFFFFF)) * 1000
        if code == EXT_TRIGGER:
            if memory[SYNC] & HAS_TIME:
                _put_trigger(triggers, m, t_ns, word)
                m += 1
            else:
                memory[BEFORE_TIME] += 1
            continue
        if code == ADDR_X:
            base, mask = word, 1
        else:
            mask = word & (0xFFF if code == VECT_12 else 0xFF)
        x, p = base & 0x7FF, (base >> 11) & 1
        if memory[SYNC] != IN_SYNC:
            memory[BEFORE_TIME] += BIT_COUNT[mask & 0x3F] + BIT_COUNT[mask >> 6]
            continue
        before = n
        n = _put_bits(events, n, t_ns, x, register & 0x7FF, p, mask, height, width, memory)
        if n > before:
            if t_ns < memory[LAST_NS]:
                note_backward(memory, memory[LAST_NS], t_ns)
            memory[LAST_NS] = t_ns
            memory[ON] += p * (n - before)
    memory[CLOCK], memory[EVENT_END], memory[TRIGGER_END] = register, n, m
    return i
