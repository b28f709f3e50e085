"""Decodes blocks of evt3 words without vectors, as VGA cameras send them."""

# mypy: no-check-untyped-defs
# (compiled kernels: numba infers their types)

from __future__ import annotations

import numpy as np

from spike_depth_ros.events.codecs.decoder_state import (
    CLOCK,
    EPOCH_US,
    EVENT_END,
    LAST_NS,
    ON,
    OUT_OF_BOUNDS,
    P_AT,
    PIXELS,
    SCRATCH,
    TIMES,
    TRIGGER_END,
    pixel_bits,
    put_pixel,
)
from spike_depth_ros.events.codecs.evt3_words import (
    ADDR_X,
    ADDR_Y,
    EMITS,
    EMITTING,
    HIGH_AT,
    LOW_AT,
    TIME_HIGH,
    TIME_LOW,
    WORD_AT,
    by_code,
    put_trigger_word,
)
from spike_depth_ros.events.compiled import compiled

OFF_SENSOR, NO_EVENT = -1, -2
"""Pixel value of words that emit no event."""

SINGLE_LOW_AT, SINGLE_HIGH_AT, SINGLE_WORD_AT = 16, 32, 48
"""Fields of the register, after the row, if there are no vector words. Without a base the register
has room for whole words, so no bits need to be flipped."""
SINGLE_KEEP = ~by_code(
    {
        ADDR_Y: 0xFFFF,
        TIME_LOW: 0xFFFF << SINGLE_LOW_AT,
        TIME_HIGH: 0xFFFF << SINGLE_HIGH_AT,
    }
    | dict.fromkeys(EMITTING, -1 << SINGLE_WORD_AT)
)
SINGLE_PLACE = by_code(
    {ADDR_Y: 1, TIME_LOW: 1 << SINGLE_LOW_AT, TIME_HIGH: 1 << SINGLE_HIGH_AT}
    | dict.fromkeys(EMITTING, 1 << SINGLE_WORD_AT)
)


@compiled(_nrt=False)
def decode_singles(words, height, width, events, triggers, memory):
    """Decodes a block without vector words, unless times decrease in it.

    Returns True if it did; otherwise nothing has changed.
    """
    count, clock = _gather_singles(words, memory)
    if not _prepare_singles(count, height, width, memory):
        return False
    _write_singles(count, events, triggers, memory)
    memory[CLOCK] = clock
    return True


@compiled(_nrt=False)
def _gather_singles(words, memory):
    """Like `_gather`, for blocks without vector words; returns the clock with the count."""
    clock, n = memory[CLOCK], np.uintp(0)
    low, high = (clock >> LOW_AT) & 0xFFF, (clock >> HIGH_AT) & 0xFFF
    register = (clock & 0xFFF) | low << SINGLE_LOW_AT | high << SINGLE_HIGH_AT
    scratch = memory[SCRATCH:]
    for i in range(words.shape[0]):
        code = words[i] >> 12
        register = (register & SINGLE_KEEP[code]) + np.int64(words[i]) * SINGLE_PLACE[code]
        scratch[n] = register
        n += np.uintp(EMITS[code])
    low, high = (register >> SINGLE_LOW_AT) & 0xFFF, (register >> SINGLE_HIGH_AT) & 0xFFF
    clock = (clock >> WORD_AT << WORD_AT) | high << HIGH_AT | low << LOW_AT | (register & 0xFFF)
    return np.int64(n), clock


@compiled(_nrt=False)
def _prepare_singles(count, height, width, memory):
    """Converts registers of `_gather_singles` to times and pixels.

    Returns True if times do not decrease, which `_write_singles` requires.
    """
    registers = memory[SCRATCH : SCRATCH + count]
    times_ns, pixels = memory[TIMES : TIMES + count], memory[PIXELS : PIXELS + count]
    epoch_ns, falls = memory[EPOCH_US] * 1000, 0
    for i in range(count):
        register = registers[i]
        low, high = (register >> SINGLE_LOW_AT) & 0xFFF, (register >> SINGLE_HIGH_AT) & 0xFFF
        times_ns[i] = epoch_ns + (high << 12 | low) * 1000
        word = register >> SINGLE_WORD_AT
        x, y, p = word & 0x7FF, register & 0x7FF, (word >> 11) & 1
        pixel = pixel_bits(x, y, p) if (x < width) & (y < height) else OFF_SENSOR
        pixels[i] = pixel if (word >> 12) & 0xF == ADDR_X else NO_EVENT
    for i in range(1, count):
        falls += times_ns[i] < times_ns[i - 1]
    return falls == 0 and (count == 0 or times_ns[0] >= memory[LAST_NS])


@compiled(_nrt=False)
def _write_singles(count, events, triggers, memory):
    """Writes the events and triggers from the results of `_prepare_singles`."""
    times_ns, pixels = memory[TIMES : TIMES + count], memory[PIXELS : PIXELS + count]
    n, m, on, out = memory[EVENT_END], memory[TRIGGER_END], 0, 0
    for i in range(count):
        pixel = pixels[i]
        if pixel >= 0:
            put_pixel(events, n, times_ns[i], pixel)
            n += 1
            on += pixel >> P_AT
        elif pixel == OFF_SENSOR:
            out += 1
        else:
            m = put_trigger_word(triggers, m, times_ns[i], memory[SCRATCH + i] >> SINGLE_WORD_AT)
    if n > memory[EVENT_END]:
        memory[LAST_NS] = events[n - 1]['t_ns']
    memory[EVENT_END], memory[TRIGGER_END] = n, m
    memory[ON] += on
    memory[OUT_OF_BOUNDS] += out
