"""State of a decoder between packets: one int64 array of running totals and registers.

Kernels receive it as a plain array, which is fast to pass; `DecodeCounts` is its readable form.
Kernels allocate no arrays and are compiled with `_nrt=False`, so numba counts no references:
in small packets, reference counting would take a fifth of the decoding time.
"""

# mypy: no-check-untyped-defs
# (compiled kernels: numba infers their types)

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.events.arrays import EVENT_DTYPE, TRIGGER_DTYPE
from spike_depth_ros.events.compiled import compiled


@dataclasses.dataclass(frozen=True)
class DecodeCounts:
    """Running totals of one decoder.

    Attributes:
        events: number of decoded events.
        on: number of these events with polarity ON.
        triggers: number of decoded external triggers.
        out_of_bounds: number of events dropped because they lie outside the sensor.
        before_time: events and triggers dropped because no time (evt3: or row) was known yet.
        invalid: events dropped because the sensor marked them as invalid or (evt3) because their
            row does not hold contrast events.
        unknown_codes: skipped words whose code the encoding does not define.
        truncated_bytes: skipped bytes at the end of payloads that do not fill a word.
        oversized: payloads rejected because they would expand beyond `MAX_EVENTS`.
        wraps: overflows of the sensor clock, minus steps back across an overflow.
        backward_steps: number of events earlier than the event before them.
        max_backward_ns: the largest such step.
    """

    events: int = 0
    on: int = 0
    triggers: int = 0
    out_of_bounds: int = 0
    before_time: int = 0
    invalid: int = 0
    unknown_codes: int = 0
    truncated_bytes: int = 0
    oversized: int = 0
    wraps: int = 0
    backward_steps: int = 0
    max_backward_ns: int = 0


TOTALS = len(dataclasses.fields(DecodeCounts))
(
    EVENTS, ON, TRIGGERS, OUT_OF_BOUNDS, BEFORE_TIME, INVALID, UNKNOWN_CODES, TRUNCATED_BYTES,
    OVERSIZED, WRAPS, BACKWARD_STEPS, MAX_BACKWARD_NS,
) = range(TOTALS)  # fmt: skip

LAST_NS = TOTALS  # time of the last event, or NEVER
SYNC = TOTALS + 1  # bits, defined per format: parts of the state received since the start
EPOCH_US = TOTALS + 2  # sum of the wraps of the clock
CLOCK = TOTALS + 3  # the state that words change, packed per format
EVENT_END = TOTALS + 4  # where a kernel continues to write in its arrays
TRIGGER_END = TOTALS + 5
HEIGHT, WIDTH = TOTALS + 6, TOTALS + 7  # of the sensor [px]
VECTOR = TOTALS + 8  # a word that is completed by the next one
JUMPED = TOTALS + 9  # 1 + the TIME_HIGH before a jump of the clock; 0: it did not just jump
JUMP_EPOCH_US = TOTALS + 10  # EPOCH_US before that jump
START = TOTALS + 11  # 1 + the first TIME_HIGH; 0: there was none, -1: it does not matter
CLOCK_SIZE = TOTALS + 12
SCRATCH = CLOCK_SIZE  # from here on: memory that is not kept between packets
SCRATCH_SIZE = 3072  # words in a block; most messages of a VGA camera fit in one
TIMES = SCRATCH + SCRATCH_SIZE
PIXELS = TIMES + SCRATCH_SIZE
MASKS = PIXELS + SCRATCH_SIZE
SIZE = MASKS + SCRATCH_SIZE

NEVER = int(np.iinfo(np.int64).min)

SLACK = 12
"""Number of records after the last one that kernels may overwrite."""
MAX_EVENTS = 1 << 24
"""Maximum number of events of one payload (218 MB)."""


def _as_written(record: np.dtype[np.void]) -> np.dtype[np.void]:
    """Record layout for writing by two stores: the last 8 bytes, then the time over them."""
    offsets, size = [record.itemsize - 8, 0], record.itemsize
    fields = {'names': ['tail', 't_ns'], 'formats': ['<i8', '<i8'], 'offsets': offsets}
    return np.dtype(fields | {'itemsize': size})  # type: ignore[call-overload, no-any-return]


EVENT_WRITTEN, TRIGGER_WRITTEN = _as_written(EVENT_DTYPE), _as_written(TRIGGER_DTYPE)

X_AT, Y_AT, P_AT = 24, 40, 56
"""Fields of the last 8 bytes of an event; the 3 lowest bytes belong to its time."""


def counts(memory: NDArray[Any]) -> DecodeCounts:
    """Returns the totals in `memory` by name."""
    return DecodeCounts(*memory[:TOTALS].tolist())


def add_counts(one: DecodeCounts, two: DecodeCounts) -> DecodeCounts:
    """Adds the totals of two decoders; of `max_backward_ns` the larger one is kept."""
    names = [field.name for field in dataclasses.fields(DecodeCounts)]
    both = {name: getattr(one, name) + getattr(two, name) for name in names}
    both['max_backward_ns'] = max(one.max_backward_ns, two.max_backward_ns)
    return DecodeCounts(**both)


@compiled(_nrt=False)
def pixel_bits(x, y, p):
    """Returns the last 8 bytes of an event: all fields except its time."""
    return x << X_AT | y << Y_AT | p << P_AT


@compiled(_nrt=False)
def put_pixel(events, n, t_ns, pixel):
    """Writes event n, given its `pixel_bits`."""
    event = events[np.uintp(n)]
    event['tail'] = pixel
    event['t_ns'] = t_ns


@compiled(_nrt=False)
def put(events, n, t_ns, x, y, p):
    """Writes event n."""
    put_pixel(events, n, t_ns, pixel_bits(x, y, p))


@compiled(_nrt=False)
def put_trigger(triggers, m, t_ns, channel, edge):
    """Writes trigger m."""
    trigger = triggers[np.uintp(m)]
    trigger['tail'] = channel << 40 | edge << 56  # the 5 lowest bytes belong to the time
    trigger['t_ns'] = t_ns


@compiled(_nrt=False)
def end_packet(memory, event_end, trigger_end, on, out_of_bounds, last_ns):
    """Writes the local variables of kernels back and returns the ends of the records."""
    memory[EVENTS] += event_end - memory[EVENT_END]
    memory[TRIGGERS] += trigger_end - memory[TRIGGER_END]
    memory[EVENT_END], memory[TRIGGER_END] = event_end, trigger_end
    memory[ON] += on
    memory[OUT_OF_BOUNDS] += out_of_bounds
    memory[LAST_NS] = last_ns
    return event_end, trigger_end


@compiled(_nrt=False)
def follow_high(before, high, bits, shift, back, near, memory):
    """Counts the wraps of a clock between two values of it.

    Modulo its span, a step back by at most `back` is one, and all other steps are ahead, with two
    exceptions. One wrong value is no wrap: where the clock jumps by more than `near` and at once
    returns to where it was, the epoch returns as well. And what a stream begins with may be left
    over from an earlier run: the first jump down is no wrap if the clock has hardly risen before.

    Args:
        before: the value before.
        high: the present value.
        bits: number of bits of a value.
        shift: number of bits of a microsecond clock below those.
        back: see above.
        near: see above.
        memory: of the decoder.
    """
    if memory[START] == 0:
        memory[START] = high + 1
        return
    span, wrap_us = 1 << bits, 1 << (bits + shift)
    is_back = (before - high) % span <= back
    wraps = np.int64(high < before and not is_back) - np.int64(high > before and is_back)
    epoch_us = max(memory[EPOCH_US] + wraps * wrap_us, 0)
    start = memory[JUMPED] - 1
    is_step = (high - before) % span <= near or (before - high) % span <= min(back, near)
    if start >= 0 and (high - start) % span <= near:
        epoch_us = memory[JUMP_EPOCH_US] + (wrap_us if high < start else 0)
        memory[JUMPED] = 0
    elif is_step and (wraps >= 0 or memory[EPOCH_US] > 0):
        memory[JUMPED] = memory[JUMPED] if high == before else 0
    else:
        memory[JUMPED], memory[JUMP_EPOCH_US] = before + 1, memory[EPOCH_US]
        is_young = memory[START] > 0 and (before + 1 - memory[START]) % span <= 4 * near
        if wraps > 0 and is_young and memory[EPOCH_US] == 0:
            epoch_us, memory[START] = 0, -1
    memory[WRAPS] += (epoch_us - memory[EPOCH_US]) // wrap_us
    memory[EPOCH_US] = epoch_us


@compiled(_nrt=False)
def follow_highs(highs, bits, shift, back, near, memory, epochs_us):
    """Does as `follow_high` for (N,) int64 values, and writes the epoch of each."""
    for i in range(highs.shape[0]):
        follow_high(memory[CLOCK], highs[i], bits, shift, back, near, memory)
        memory[CLOCK], epochs_us[i] = highs[i], memory[EPOCH_US]


@compiled(_nrt=False)
def note_backward(memory, last_ns, t_ns):
    """Counts a step from `last_ns` back to `t_ns`."""
    memory[BACKWARD_STEPS] += 1
    memory[MAX_BACKWARD_NS] = max(memory[MAX_BACKWARD_NS], last_ns - t_ns)
