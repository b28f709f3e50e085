"""Kernels for encodings without state between packets: mono, trigger, libcaer(_cmp), Event[].

Sources: ros-event-camera/event_camera_codecs (README and decoders); for the `Event[]` body the
CDR rules of OMG DDS-XTYPES 7.4.
"""

# mypy: no-check-untyped-defs
# (compiled kernels: numba infers their types)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.events.codecs.decoder_state import (
    EPOCH_US,
    EVENT_END,
    EVENT_WRITTEN,
    HEIGHT,
    INVALID,
    JUMPED,
    LAST_NS,
    SLACK,
    START,
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


def bound(record_bytes: int) -> Callable[[NDArray[Any]], tuple[int, int]]:
    """Returns the bound of an encoding whose records have one size and hold one item each."""

    def of(payload: NDArray[Any]) -> tuple[int, int]:
        most = payload.size // record_bytes + SLACK
        return most, most

    return of


@compiled(_nrt=False)
def mono(payload, time_base_ns, events, triggers, memory):
    """Decodes mono words: bits 0-31 dt [ns], 32-47 x, 48-62 y, 63 polarity; t = base + dt."""
    height, width = memory[HEIGHT], memory[WIDTH]
    events = events.view(EVENT_WRITTEN)
    words = payload[: payload.shape[0] // 8 * 8].view(np.uint64)
    memory[TRUNCATED_BYTES] += payload.shape[0] % 8
    last_ns = memory[LAST_NS]
    n, on, out = memory[EVENT_END], 0, 0
    for i in range(words.shape[0]):
        dt_ns = np.int64(words[i] & np.uint64(0xFFFFFFFF))
        head = np.int64(words[i] >> np.uint64(32))
        x, y, p = head & 0xFFFF, (head >> 16) & 0x7FFF, head >> 31
        if x >= width or y >= height:
            out += 1
            continue
        t_ns = time_base_ns + dt_ns
        if t_ns < last_ns:
            note_backward(memory, last_ns, t_ns)
        last_ns = t_ns
        put(events, n, t_ns, x, y, p)
        n += 1
        on += p
    return end_packet(memory, n, memory[TRIGGER_END], on, out, last_ns)


@compiled(_nrt=False)
def trigger(payload, time_base_ns, events, triggers, memory):
    """Decodes trigger words: bits 0-31 dt [ns], 48-62 id, 63 edge; t = base + dt."""
    triggers = triggers.view(TRIGGER_WRITTEN)
    words = payload[: payload.shape[0] // 8 * 8].view(np.uint64)
    memory[TRUNCATED_BYTES] += payload.shape[0] % 8
    start = memory[TRIGGER_END]
    for i in range(words.shape[0]):
        head = np.int64(words[i] >> np.uint64(48))
        t_ns = time_base_ns + np.int64(words[i] & np.uint64(0xFFFFFFFF))
        put_trigger(triggers, start + i, t_ns, head & 0x7FFF, head >> 15)
    end = start + words.shape[0]
    return end_packet(memory, memory[EVENT_END], end, 0, 0, memory[LAST_NS])


LIBCAER_BITS = 31
LIBCAER_MOST_BACK_US = 1 << 30
LIBCAER_NEAR_US = 1 << 18


@compiled(_nrt=False)
def libcaer(payload, time_base_ns, events, triggers, memory):
    """Decodes pairs of u32: bit 0 valid, 1 polarity, 2-16 y, 17-31 x; then i32 us.

    t = base + us * 1000. The clock has 31 bits: within a packet, a fall by more than half of its
    span is a wrap, and a rise by half or more is a step back over a wrap (see `follow_high`).
    """
    height, width = memory[HEIGHT], memory[WIDTH]
    events = events.view(EVENT_WRITTEN)
    words = payload[: payload.shape[0] // 8 * 8].view(np.uint64)
    memory[TRUNCATED_BYTES] += payload.shape[0] % 8
    last_ns, before_us = memory[LAST_NS], np.int64(0)
    memory[EPOCH_US] = memory[JUMPED] = 0
    memory[START] = -1  # the first fall may be a wrap
    n, on, out = memory[EVENT_END], 0, 0
    for i in range(words.shape[0]):
        data = np.int64(words[i] & np.uint64(0xFFFFFFFF))
        t_us = np.int64(np.int32(np.uint32(words[i] >> np.uint64(32))))
        step_us = t_us - before_us if i else 0
        if step_us < 0 or step_us > LIBCAER_NEAR_US or memory[JUMPED] != 0:
            follow_high(before_us, t_us, LIBCAER_BITS, 0, LIBCAER_MOST_BACK_US, LIBCAER_NEAR_US,
                        memory)  # fmt: skip
        before_us = t_us
        x, y, p = data >> 17, (data >> 2) & 0x7FFF, (data >> 1) & 1
        if not data & 1:
            memory[INVALID] += 1
        elif x >= width or y >= height:
            out += 1
        else:
            t_ns = time_base_ns + (memory[EPOCH_US] + t_us) * 1000
            if t_ns < last_ns:
                note_backward(memory, last_ns, t_ns)
            last_ns = t_ns
            put(events, n, t_ns, x, y, p)
            n += 1
            on += p
    return end_packet(memory, n, memory[TRIGGER_END], on, out, last_ns)


(
    LIBCAER_TIME_HIGH, LIBCAER_TIME_LOW, LIBCAER_X, LIBCAER_Y, LIBCAER_BASE_Y, LIBCAER_VECT_8,
) = range(6)  # fmt: skip


@compiled(_nrt=False)
def libcaer_cmp_bound(payload):
    """Upper bounds of the numbers of events and triggers in libcaer_cmp words."""
    words = payload[: payload.shape[0] // 2 * 2].view(np.uint16)
    events = SLACK
    for i in range(words.shape[0]):
        code = words[i] >> 12
        if code == LIBCAER_Y:
            events += 1
        elif code == LIBCAER_VECT_8:
            events += 8
    return events, 0


@compiled(_nrt=False)
def libcaer_cmp(payload, time_base_ns, events, triggers, memory):
    """Decodes compressed libcaer words; each packet starts with a new state.

    Code in the top 4 bits: TIME_HIGH (12), TIME_LOW (12), ADDR_X (11), ADDR_Y (11, bit 11 the
    polarity; an event), VECT_BASE_Y (11, polarity), VECT_8 (mask over y, then base += 8).
    t = base + 1000 * (high << 12 | low).
    """
    height, width = memory[HEIGHT], memory[WIDTH]
    events = events.view(EVENT_WRITTEN)
    words = payload[: payload.shape[0] // 2 * 2].view(np.uint16)
    memory[TRUNCATED_BYTES] += payload.shape[0] % 2
    last_ns = memory[LAST_NS]
    high = low = x = base_y = base_p = np.int64(0)
    n, on, out = memory[EVENT_END], 0, 0
    for i in range(words.shape[0]):
        word = np.int64(words[i])
        code = word >> 12
        # without branches, because their order is unpredictable
        low = word & 0xFFF if code == LIBCAER_TIME_LOW else low
        x = word & 0x7FF if code == LIBCAER_X else x
        if code == LIBCAER_Y:  # nearly all events, written without the loop over a mask
            t_ns = time_base_ns + ((high << 12) | low) * 1000
            y, p = word & 0x7FF, (word >> 11) & 1
            if x >= width or y >= height:
                out += 1
                continue
            if t_ns < last_ns:
                note_backward(memory, last_ns, t_ns)
            last_ns = t_ns
            put(events, n, t_ns, x, y, p)
            n += 1
            on += p
        elif code == LIBCAER_VECT_8:
            t_ns = time_base_ns + ((high << 12) | low) * 1000
            for y in range(base_y, base_y + 8):
                if not word >> (y - base_y) & 1:
                    continue
                if x >= width or y >= height:
                    out += 1
                    continue
                if t_ns < last_ns:
                    note_backward(memory, last_ns, t_ns)
                last_ns = t_ns
                put(events, n, t_ns, x, y, base_p)
                n += 1
                on += base_p
            base_y += 8
        elif code == LIBCAER_TIME_HIGH:
            high = word & 0xFFF
        elif code == LIBCAER_BASE_Y:
            base_y, base_p = word & 0x7FF, (word >> 11) & 1
        elif code > LIBCAER_VECT_8:
            memory[UNKNOWN_CODES] += 1
    return end_packet(memory, n, memory[TRIGGER_END], on, out, last_ns)


ROW_BYTES, LAST_ROW_BYTES = 16, 13
"""Bytes per row of an `Event[]` body in CDR; the last row has no padding."""


@compiled(_nrt=False)
def event_array(payload, time_base_ns, events, triggers, memory):
    """Decodes the `Event[]` body of a legacy EventArray: x, y u16, sec i32, nanosec u32, polarity.

    CDR aligns numbers, not structs: row k has sec at offset 4, nanosec at 8, polarity at 12; x and
    y are at 0 and 2 in the first row and at -2 and 0 in all others.
    """
    height, width = memory[HEIGHT], memory[WIDTH]
    events = events.view(EVENT_WRITTEN)
    rows = (payload.shape[0] + ROW_BYTES - LAST_ROW_BYTES) // ROW_BYTES
    used = rows * ROW_BYTES - (ROW_BYTES - LAST_ROW_BYTES if rows else 0)
    memory[TRUNCATED_BYTES] += payload.shape[0] - used
    last_ns = memory[LAST_NS]
    n, on, out = memory[EVENT_END], 0, 0
    for k in range(rows):
        o = k * ROW_BYTES
        xy = o - 2 if k else o
        x = np.int64(payload[xy]) | np.int64(payload[xy + 1]) << 8
        y = np.int64(payload[xy + 2]) | np.int64(payload[xy + 3]) << 8
        if x >= width or y >= height:
            out += 1
            continue
        sec = nanosec = np.int64(0)
        for b in range(4):
            sec |= np.int64(payload[o + 4 + b]) << 8 * b
            nanosec |= np.int64(payload[o + 8 + b]) << 8 * b
        t_ns = np.int64(np.int32(np.uint32(sec))) * 1_000_000_000 + nanosec
        p = np.int64(payload[o + 12] != 0)
        if t_ns < last_ns:
            note_backward(memory, last_ns, t_ns)
        last_ns = t_ns
        put(events, n, t_ns, x, y, p)
        n += 1
        on += p
    return end_packet(memory, n, memory[TRIGGER_END], on, out, last_ns)
