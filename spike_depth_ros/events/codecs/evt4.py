"""Kernels for evt4, the 32-bit words of OpenEB 5.

Word layout as in OpenEB's evt4_event_types.h. No recordings were available for tests.
"""

# mypy: no-check-untyped-defs
# (compiled kernels: numba infers their types)

from __future__ import annotations

import numpy as np

from spike_depth_ros.events.codecs.decoder_state import (
    BEFORE_TIME,
    CLOCK,
    EPOCH_US,
    EVENT_END,
    EVENT_WRITTEN,
    HEIGHT,
    LAST_NS,
    SLACK,
    SYNC,
    TRIGGER_END,
    TRIGGER_WRITTEN,
    TRUNCATED_BYTES,
    UNKNOWN_CODES,
    VECTOR,
    WIDTH,
    end_packet,
    note_backward,
    put,
    put_trigger,
)
from spike_depth_ros.events.codecs.evt2 import HAS_TIME, take_high
from spike_depth_ros.events.compiled import compiled

OTHER, CONTINUED, TRIGGER, CD_OFF, CD_ON = 6, 7, 9, 10, 11
VECTOR_OFF, VECTOR_ON, TIME_HIGH, PADDING = 12, 13, 14, 15

HAS_VECTOR = 2
"""Bit of `SYNC`: the next word is the mask of the vector word in `VECTOR`."""


@compiled(_nrt=False)
def bound(payload):
    """Upper bounds of the numbers of events and triggers in evt4 words."""
    words = payload[: payload.shape[0] // 4 * 4].view(np.uint32)
    events, triggers = 32 + SLACK, 0  # the first word may be a mask
    for i in range(words.shape[0]):  # a mask is counted as the type that its bits represent
        code = words[i] >> 28
        events += 32 if code in (VECTOR_OFF, VECTOR_ON) else 0
        events += np.int64(code in (CD_OFF, CD_ON))
        triggers += np.int64(code == TRIGGER)
    return events, triggers


@compiled(_nrt=False)
def decode(payload, time_base_ns, events, triggers, memory):
    """Decodes evt4 words; keeps its state between packets and ignores `time_base_ns`.

    The type is in bits 28-31. Events and vectors hold time low @22 (6 bits), x @11 and y @0 (11
    each); the word after a vector is its mask, bit k an event at x + k. TIME_HIGH has 28 bits, a
    trigger its time low @22, its id @8 (5 bits) and its edge @0.
    """
    height, width = memory[HEIGHT], memory[WIDTH]
    events = events.view(EVENT_WRITTEN)
    triggers = triggers.view(TRIGGER_WRITTEN)
    words = payload[: payload.shape[0] // 4 * 4].view(np.uint32)
    memory[TRUNCATED_BYTES] += payload.shape[0] % 4
    high_us = memory[EPOCH_US] + (memory[CLOCK] << 6)
    last_ns = memory[LAST_NS]
    n, m, on, out = memory[EVENT_END], memory[TRIGGER_END], 0, 0
    for i in range(words.shape[0]):
        word, mask = np.int64(words[i]), np.int64(1)
        if memory[SYNC] & HAS_VECTOR:
            word, mask = memory[VECTOR], word
            memory[SYNC] &= ~HAS_VECTOR
        elif word >> 28 == VECTOR_OFF or word >> 28 == VECTOR_ON:
            memory[VECTOR] = word
            memory[SYNC] |= HAS_VECTOR
            continue
        code = word >> 28
        if code == TIME_HIGH:
            high_us = take_high(word & 0xFFFFFFF, memory)
            continue
        if code < TRIGGER or code == PADDING:
            memory[UNKNOWN_CODES] += np.int64(code not in (OTHER, CONTINUED, PADDING))
            continue
        t_ns = (high_us + ((word >> 22) & 0x3F)) * 1000
        if code == TRIGGER:
            if memory[SYNC] & HAS_TIME:
                put_trigger(triggers, m, t_ns, (word >> 8) & 0x1F, word & 1)
            memory[BEFORE_TIME] += np.int64(memory[SYNC] & HAS_TIME == 0)
            m += memory[SYNC] & HAS_TIME
            continue
        x, y, p = (word >> 11) & 0x7FF, word & 0x7FF, code & 1
        while mask != 0:
            if mask & 1:
                if not memory[SYNC] & HAS_TIME:
                    memory[BEFORE_TIME] += 1
                elif x >= width or y >= height:
                    out += 1
                else:
                    if t_ns < last_ns:
                        note_backward(memory, last_ns, t_ns)
                    last_ns = t_ns
                    put(events, n, t_ns, x, y, p)
                    n += 1
                    on += p
            mask >>= 1
            x += 1
    return end_packet(memory, n, m, on, out, last_ns)
