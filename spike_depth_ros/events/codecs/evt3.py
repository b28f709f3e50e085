"""Kernels for evt3, the 16-bit words of Prophesee's larger sensors.

Sources: docs.prophesee.ai, "EVT 3.0 format"; ros-event-camera/event_camera_codecs for deviations
of real streams. Tested event by event on a real recording.

An event depends on the words before it, and the sequence of word types is unpredictable, so a
loop with a branch per word spends most of its time on mispredicted branches. Blocks of words are
therefore decoded in loops without such branches. `_gather` updates one 64-bit register (row,
clock, vector base) by each word, using tables, and stores the register after each word that emits
events. `_prepare` computes times and pixels from the stored registers, in vector instructions.
`_write` writes the records. Blocks without vector words have shorter loops, in `evt3_singles`.
`_walk` decodes word by word where the clock may have wrapped, where rows hold other events than
contrast events, and before the stream is in sync.
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
    EVENTS,
    HEIGHT,
    INVALID,
    LAST_NS,
    MASKS,
    ON,
    OUT_OF_BOUNDS,
    P_AT,
    PIXELS,
    SCRATCH,
    SCRATCH_SIZE,
    SLACK,
    SYNC,
    TIMES,
    TRIGGER_END,
    TRIGGER_WRITTEN,
    TRIGGERS,
    TRUNCATED_BYTES,
    UNKNOWN_CODES,
    WIDTH,
    X_AT,
    follow_high,
    note_backward,
    pixel_bits,
    put,
    put_pixel,
)
from spike_depth_ros.events.codecs.evt3_singles import decode_singles
from spike_depth_ros.events.codecs.evt3_words import (
    ADDR_X,
    ADDR_Y,
    BASE_AT,
    EMITS,
    EMITTING,
    EXT_TRIGGER,
    GLITCH,
    HIGH_AT,
    HIGH_BITS,
    LOW_AT,
    NEAR,
    OTHER_Y,
    ROW_AT,
    TIME_HIGH,
    TIME_LOW,
    UNKNOWN,
    VECT_8,
    VECT_12,
    VECT_BASE_X,
    WORD_AT,
    by_code,
    put_trigger_word,
)
from spike_depth_ros.events.compiled import compiled

NONE, ONE, EIGHT, TWELVE, UNKNOWN_16 = (np.uint16(n) for n in (0, 1, 8, 12, UNKNOWN))
ODD = int(np.iinfo(np.int64).min)
"""Marks the pixel of a word that may emit a trigger or events outside the sensor."""
HEAD_OTHER, HEAD_X, HEAD_BASE, HEAD_12, HEAD_8, HEAD_TRIGGER, HEAD_HIGH = (
    np.uint16(code << 12)
    for code in (OTHER_Y, ADDR_X, VECT_BASE_X, VECT_12, VECT_8, EXT_TRIGGER, TIME_HIGH)
)
LAST_HIGH = np.uint16(TIME_HIGH << 12 | 0xFFF)
COUNT_BLOCK = 4096
"""Number of words whose maximum number of events, 12 each, fits in 16 bits."""

HAS_HIGH, HAS_TIME, HAS_ROW, IS_OTHER = 1, 2, 4, 8
IN_SYNC = HAS_HIGH | HAS_TIME | HAS_ROW
"""IS_OTHER: the current row does not hold contrast events."""

FIELD = by_code(
    {
        ADDR_Y: 0xFFF << ROW_AT,
        TIME_LOW: 0xFFF << LOW_AT,
        TIME_HIGH: 0xFFF << HIGH_AT,
        VECT_BASE_X: -1 << BASE_AT,
    }
    | dict.fromkeys(EMITTING, 0xFFFF << WORD_AT)
)
KEEP = ~FIELD
"""Mask per code: the bits of the register that a word keeps."""
PLACE = by_code(
    {
        ADDR_Y: 1 << ROW_AT,
        TIME_LOW: 1 << LOW_AT,
        TIME_HIGH: 1 << HIGH_AT,
        VECT_BASE_X: 1 << BASE_AT,
    }
    | dict.fromkeys(EMITTING, 1 << WORD_AT)
)
"""Factor per code that shifts the value of a word into its field."""
FLIP = by_code(
    {
        TIME_LOW: TIME_LOW << 12 << LOW_AT,
        TIME_HIGH: TIME_HIGH << 12 << HIGH_AT,
        VECT_12: 12 << BASE_AT,
        VECT_8: 8 << BASE_AT,
    }
)
"""Bits per code to flip afterwards: clears the code, and lets vector words advance the base."""

SIX_BITS = [[k for k in range(6) if mask >> k & 1] for mask in range(64)]
BIT_COUNT = np.array([len(bits) for bits in SIX_BITS], np.int64)
BIT_AT = np.array([bits + [0] * (6 - len(bits)) for bits in SIX_BITS], np.int64) << X_AT
"""(64, 6): offsets of `pixel_bits` for the set bits of a 6-bit mask, padded with zeros."""
SIX = 6 << X_AT


@compiled(_nrt=False)
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


@compiled(_nrt=False)
def decode(payload, time_base_ns, events, triggers, memory):
    """Decodes evt3 words; keeps its state between packets and ignores `time_base_ns`.

    t [us] = wraps << 24 | high << 12 | low. ADDR_X emits one event, VECT_12 and VECT_8 emit events
    by a mask over x, starting at the base.
    """
    height, width = memory[HEIGHT], memory[WIDTH]
    events, triggers = events.view(EVENT_WRITTEN), triggers.view(TRIGGER_WRITTEN)
    words = payload[: payload.shape[0] // 2 * 2].view(np.uint16)
    i, size = 0, words.shape[0]
    event_start, trigger_start = memory[EVENT_END], memory[TRIGGER_END]
    while i < size:
        if memory[SYNC] != IN_SYNC:
            i = _walk(words, i, size, True, height, width, events, triggers, memory)
            continue
        stop = min(i + SCRATCH_SIZE, size)
        is_calm, has_vectors = _survey(words[i:stop], memory)
        if not is_calm:
            i = _walk(words, i, stop, False, height, width, events, triggers, memory)
            continue
        block = words[i:stop]
        if has_vectors or not decode_singles(block, height, width, events, triggers, memory):
            count = _gather(block, memory)
            _prepare(count, height, width, memory)
            _write(count, height, width, events, triggers, memory)
        i = stop
    memory[TRUNCATED_BYTES] += payload.shape[0] % 2
    memory[EVENTS] += memory[EVENT_END] - event_start
    memory[TRIGGERS] += memory[TRIGGER_END] - trigger_start
    return memory[EVENT_END], memory[TRIGGER_END]


@compiled(_nrt=False)
def _survey(words, memory):
    """Returns whether a block is calm and whether it holds vectors or bases.

    A block is calm if its TIME_HIGH neither jumps nor crosses a wrap and all rows hold contrast
    events. Unknown codes of calm blocks are counted here.
    """
    lowest, highest, unknown, vectors, others = LAST_HIGH, NONE, NONE, NONE, NONE
    for i in range(words.shape[0]):
        word = words[i]
        head = word & np.uint16(0xF000)
        is_high = head == HEAD_HIGH
        lowest = min(lowest, word if is_high else LAST_HIGH)
        highest = max(highest, word if is_high else NONE)
        unknown = np.uint16(unknown + (UNKNOWN_16 >> (word >> TWELVE) & ONE))
        others = max(others, ONE if head == HEAD_OTHER else NONE)
        vectors = max(vectors, ONE if HEAD_BASE <= head <= HEAD_8 else NONE)
    before, high = (memory[CLOCK] >> HIGH_AT) & 0xFFF, np.int64(highest) & 0xFFF
    fall = max(high, before) - (np.int64(lowest) & 0xFFF)
    keeps_epoch = highest == 0 or (fall <= GLITCH and high - before <= NEAR)
    is_calm = keeps_epoch and others == 0
    if is_calm:
        memory[UNKNOWN_CODES] += np.int64(unknown)
    return is_calm, vectors != 0


@compiled(_nrt=False)
def _fold(register, word, code):
    """Returns the register after a word with this code."""
    return (register & KEEP[code]) + (word * PLACE[code] ^ FLIP[code])


@compiled(_nrt=False)
def _gather(words, memory):
    """Updates the register by words; stores it in the scratch after words that emit events."""
    register, n = memory[CLOCK], np.uintp(0)
    scratch = memory[SCRATCH:]
    for i in range(words.shape[0]):
        code = words[i] >> 12
        register = _fold(register, np.int64(words[i]), code)
        scratch[n] = register
        n += np.uintp(EMITS[code])
    memory[CLOCK] = register
    return np.int64(n)


@compiled(_nrt=False)
def _prepare(count, height, width, memory):
    """Converts registers to times, pixels and masks over the pixels from there on.

    A pixel is marked `ODD` if the word may emit a trigger or events outside the sensor.
    """
    registers = memory[SCRATCH : SCRATCH + count]
    times_ns, pixels = memory[TIMES : TIMES + count], memory[PIXELS : PIXELS + count]
    masks = memory[MASKS : MASKS + count]
    epoch_ns = memory[EPOCH_US] * 1000
    for i in range(count):
        register = registers[i]
        times_ns[i] = epoch_ns + ((register >> LOW_AT) & 0xFFFFFF) * 1000
        word = (register >> WORD_AT) & 0xFFFF
        code = word >> 12
        length = 12 if code == VECT_12 else 8
        base = (register >> BASE_AT) - length
        mask = word & (0xFFF if code == VECT_12 else 0xFF)
        length, base, mask = (1, word, 1) if code == ADDR_X else (length, base, mask)
        mask = 0 if code == EXT_TRIGGER else mask
        x, y, p = base & 0x7FF, register & 0x7FF, (base >> 11) & 1
        is_plain = (x + length <= width) & (y < height) & (mask != 0)
        pixels[i] = pixel_bits(x, y, p) | (0 if is_plain else ODD)
        masks[i] = mask


@compiled(_nrt=False)
def _write(count, height, width, events, triggers, memory):
    """Writes the events and triggers from the results of `_prepare`."""
    times_ns, pixels = memory[TIMES : TIMES + count], memory[PIXELS : PIXELS + count]
    masks = memory[MASKS : MASKS + count]
    last_ns, n, on = memory[LAST_NS], memory[EVENT_END], 0
    for i in range(count):
        t_ns, pixel = times_ns[i], pixels[i]
        if pixel < 0:
            memory[LAST_NS] = last_ns
            n = _write_odd(i, n, height, width, events, triggers, memory)
            last_ns = memory[LAST_NS]
            continue
        left, right = masks[i] & 0x3F, masks[i] >> 6
        for k in range(6):  # always six: faster than a loop of unpredictable length
            put_pixel(events, n + k, t_ns, pixel + BIT_AT[left, k])
        middle = n + BIT_COUNT[left]
        for k in range(6):
            put_pixel(events, middle + k, t_ns, pixel + SIX + BIT_AT[right, k])
        end = middle + BIT_COUNT[right]
        on += (pixel >> P_AT) * (end - n)
        n = end
        if t_ns < last_ns:
            note_backward(memory, last_ns, t_ns)
        last_ns = t_ns
    memory[EVENT_END], memory[LAST_NS] = n, last_ns
    memory[ON] += on


@compiled(_nrt=False)
def _write_odd(i, n, height, width, events, triggers, memory):
    """Writes the trigger or events of a word that is marked `ODD`, with all checks."""
    t_ns, pixel, mask = memory[TIMES + i], memory[PIXELS + i], memory[MASKS + i]
    if mask == 0:
        word = memory[SCRATCH + i] >> WORD_AT
        memory[TRIGGER_END] = put_trigger_word(triggers, memory[TRIGGER_END], t_ns, word)
    x, y, p = (pixel >> 24) & 0xFFFF, (pixel >> 40) & 0xFFFF, (pixel >> P_AT) & 1
    return _put_bits(events, n, t_ns, x, y, p, mask, height, width, memory)


@compiled(_nrt=False)
def _put_bits(events, n, t_ns, x, y, p, mask, height, width, memory):
    """Writes an event for each bit of a mask; counts events outside the sensor."""
    before = n
    for k in range(12):
        if mask >> k & 1:
            if x + k < width and y < height:
                put(events, n, t_ns, x + k, y, p)
                n += 1
            else:
                memory[OUT_OF_BOUNDS] += 1
    if n > before:
        if t_ns < memory[LAST_NS]:
            note_backward(memory, memory[LAST_NS], t_ns)
        memory[LAST_NS] = t_ns
        memory[ON] += p * (n - before)
    return n


@compiled(_nrt=False)
def _walk(words, i, stop, until_sync, height, width, events, triggers, memory):
    """Decodes words one by one and returns the ends of the records."""
    register, n = memory[CLOCK], memory[EVENT_END]
    while i < stop and not (until_sync and memory[SYNC] == IN_SYNC):
        word = np.int64(words[i])
        code = word >> 12
        i += 1
        if UNKNOWN >> code & 1:
            memory[UNKNOWN_CODES] += 1
        if code == TIME_HIGH:
            before = (register >> HIGH_AT) & 0xFFF
            follow_high(before, word & 0xFFF, HIGH_BITS, 12, GLITCH, NEAR, memory)
            memory[SYNC] |= HAS_HIGH
        elif code == TIME_LOW and memory[SYNC] & HAS_HIGH:
            memory[SYNC] |= HAS_TIME
        elif code == ADDR_Y:
            memory[SYNC] = (memory[SYNC] | HAS_ROW) & ~IS_OTHER
        elif code == OTHER_Y:
            memory[SYNC] |= IS_OTHER
        base = register >> BASE_AT
        register = _fold(register, word, code)
        if not EMITS[code]:
            continue
        t_ns = (memory[EPOCH_US] + ((register >> LOW_AT) & 0xFFFFFF)) * 1000
        if code == EXT_TRIGGER:
            if memory[SYNC] & HAS_TIME:
                memory[TRIGGER_END] = put_trigger_word(triggers, memory[TRIGGER_END], t_ns, word)
            else:
                memory[BEFORE_TIME] += 1
            continue
        mask = word & (0xFFF if code == VECT_12 else 0xFF)
        base, mask = (word, 1) if code == ADDR_X else (base, mask)
        x, p = base & 0x7FF, (base >> 11) & 1
        if memory[SYNC] != IN_SYNC:
            reason = INVALID if memory[SYNC] & IS_OTHER else BEFORE_TIME
            memory[reason] += BIT_COUNT[mask & 0x3F] + BIT_COUNT[mask >> 6]
            continue
        n = _put_bits(events, n, t_ns, x, register & 0x7FF, p, mask, height, width, memory)
    memory[CLOCK], memory[EVENT_END] = register, n
    return i
