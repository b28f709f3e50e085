"""Kernels for evt2 and evt21, the 32- and 64-bit words of Prophesee sensors.

Sources: docs.prophesee.ai, "EVT 2.0 format" and "EVT 2.1 format"; field order as in the OpenEB
headers evt2_event_types.h and evt21_event_types.h. Tested against the documentation only, because
no recordings were available.
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
    WIDTH,
    end_packet,
    follow_high,
    note_backward,
    put,
    put_trigger,
)
from spike_depth_ros.events.compiled import compiled

CD_OFF, CD_ON, EVT2_TIME_HIGH, EVT2_TRIGGER, EVT2_OTHERS, EVT2_CONTINUED = 0, 1, 8, 10, 14, 15
HAS_TIME = 1
HIGH_BITS = 28
"""TIME_HIGH wraps after 2^34 us, or 4.8 h."""
MOST_BACK = 1 << 27
"""A fall by more than half the span is a wrap, a rise by half or more a step back over one."""
NEAR = 1 << 12
"""Steps of TIME_HIGH (0.26 s) that are no jump."""


@compiled(_nrt=False)
def take_high(high, memory):
    """Updates the clock by a 28-bit TIME_HIGH and returns the time [us]."""
    follow_high(memory[CLOCK], high, HIGH_BITS, 6, MOST_BACK, NEAR, memory)
    memory[CLOCK] = high
    memory[SYNC] |= HAS_TIME
    return memory[EPOCH_US] + (high << 6)


@compiled(_nrt=False)
def evt2(payload, time_base_ns, events, triggers, memory):
    """Decodes evt2 words: type @28 (4 bits), time low @22 (6), x @11 and y @0 (11 each)."""
    height, width = memory[HEIGHT], memory[WIDTH]
    events = events.view(EVENT_WRITTEN)
    triggers = triggers.view(TRIGGER_WRITTEN)
    words = payload[: payload.shape[0] // 4 * 4].view(np.uint32)
    memory[TRUNCATED_BYTES] += payload.shape[0] % 4
    high_us = memory[EPOCH_US] + (memory[CLOCK] << 6)
    last_ns = memory[LAST_NS]
    n, m, on, out = memory[EVENT_END], memory[TRIGGER_END], 0, 0
    for i in range(words.shape[0]):
        word = np.int64(words[i])
        code = word >> 28
        if code == EVT2_TIME_HIGH:
            high_us = take_high(word & 0xFFFFFFF, memory)
            continue
        if code != CD_OFF and code != CD_ON and code != EVT2_TRIGGER:
            memory[UNKNOWN_CODES] += np.int64(code != EVT2_OTHERS and code != EVT2_CONTINUED)
            continue
        if memory[SYNC] != HAS_TIME:
            memory[BEFORE_TIME] += 1
            continue
        t_ns = (high_us + ((word >> 22) & 0x3F)) * 1000
        if code == EVT2_TRIGGER:
            put_trigger(triggers, m, t_ns, (word >> 8) & 0x1F, word & 1)
            m += 1
            continue
        x, y = (word >> 11) & 0x7FF, word & 0x7FF
        if x >= width or y >= height:
            out += 1
            continue
        if t_ns < last_ns:
            note_backward(memory, last_ns, t_ns)
        last_ns = t_ns
        put(events, n, t_ns, x, y, code)
        n += 1
        on += code
    return end_packet(memory, n, m, on, out, last_ns)


@compiled(_nrt=False)
def evt21_bound(payload):
    """Upper bounds of the numbers of events and triggers in evt21 words."""
    words = payload[: payload.shape[0] // 8 * 8].view(np.uint64)
    events, triggers = SLACK, 0
    for i in range(words.shape[0]):
        code = words[i] >> np.uint64(60)
        if code <= CD_ON:
            mask = words[i] & np.uint64(0xFFFFFFFF)
            while mask != 0:
                mask &= mask - np.uint64(1)
                events += 1
        triggers += np.int64(code == EVT2_TRIGGER)
    return events, triggers


@compiled(_nrt=False)
def evt21(payload, time_base_ns, events, triggers, memory):
    """Decodes evt21 words of a GenX320: 64 bits, little-endian.

    Type in bits 60-63, time low @54 (6 bits), x @43, y @32 (11 bits each), then a 32-bit mask:
    bit k is an event at x + k. TIME_HIGH holds 28 bits @32, a trigger its id @40 and edge @32.
    """
    height, width = memory[HEIGHT], memory[WIDTH]
    events = events.view(EVENT_WRITTEN)
    triggers = triggers.view(TRIGGER_WRITTEN)
    words = payload[: payload.shape[0] // 8 * 8].view(np.uint64)
    memory[TRUNCATED_BYTES] += payload.shape[0] % 8
    high_us = memory[EPOCH_US] + (memory[CLOCK] << 6)
    last_ns = memory[LAST_NS]
    n, m, on, out = memory[EVENT_END], memory[TRIGGER_END], 0, 0
    for i in range(words.shape[0]):
        head = np.int64(words[i] >> np.uint64(32))
        code = head >> 28
        if code == EVT2_TIME_HIGH:
            high_us = take_high(head & 0xFFFFFFF, memory)
            continue
        if code != CD_OFF and code != CD_ON and code != EVT2_TRIGGER:
            memory[UNKNOWN_CODES] += np.int64(code != EVT2_OTHERS and code != EVT2_CONTINUED)
            continue
        t_ns = (high_us + ((head >> 22) & 0x3F)) * 1000
        if code == EVT2_TRIGGER:
            if memory[SYNC] != HAS_TIME:
                memory[BEFORE_TIME] += 1
                continue
            put_trigger(triggers, m, t_ns, (head >> 8) & 0x1F, head & 1)
            m += 1
            continue
        x, y, mask = (head >> 11) & 0x7FF, head & 0x7FF, np.int64(words[i] & np.uint64(0xFFFFFFFF))
        while mask != 0:
            if mask & 1:
                if memory[SYNC] != HAS_TIME:
                    memory[BEFORE_TIME] += 1
                elif x >= width or y >= height:
                    out += 1
                else:
                    if t_ns < last_ns:
                        note_backward(memory, last_ns, t_ns)
                    last_ns = t_ns
                    put(events, n, t_ns, x, y, code)
                    n += 1
                    on += code
            mask >>= 1
            x += 1
    return end_packet(memory, n, m, on, out, last_ns)
