"""What a decoder keeps between packets: one int64 array of running totals, then registers.

Compiled kernels get it as a plain array, because that is cheap to hand over; `DecodeCounts` is
its readable form. Kernels make no arrays; `_nrt=False` says so to numba, which then counts no
references: on small packets that counting takes as long as a fifth of the decoding.
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
        events: events decoded.
        on: those of them with polarity ON.
        triggers: external triggers decoded.
        out_of_bounds: events dropped because they lie off the sensor.
        before_time: events and triggers dropped because no time (evt3: or no row) was known yet.
        invalid: events that the sensor itself marked invalid, or (evt3) that are in a row of
            another kind than contrast events; dropped.
        unknown_codes: words of a kind that the encoding does not define; skipped.
        truncated_bytes: bytes at the end of payloads that do not fill a word; skipped.
        oversized: payloads refused because they would expand beyond `MAX_EVENTS`.
        wraps: times that the sensor clock ran over and started again, less steps back over that.
        backward_steps: events earlier than the event before them.
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

LAST_NS = TOTALS  # time of the event before, or NEVER
SYNC = TOTALS + 1  # how much of the state was seen since the start; the bits are the format's
EPOCH_US = TOTALS + 2  # what the wraps of the clock add up to
CLOCK = TOTALS + 3  # the state that words change, packed as the format likes it
EVENT_END = TOTALS + 4  # where in the arrays given to a kernel it goes on writing
TRIGGER_END = TOTALS + 5
HEIGHT, WIDTH = TOTALS + 6, TOTALS + 7  # of the sensor [px]
VECTOR = TOTALS + 8  # a word that the next one completes
SCRATCH = TOTALS + 9  # and from here on, room that keeps nothing between packets
SCRATCH_SIZE = 3072  # words in a block: most messages of a VGA camera are one
TIMES = SCRATCH + SCRATCH_SIZE
PIXELS = TIMES + SCRATCH_SIZE
MASKS = PIXELS + SCRATCH_SIZE
SIZE = MASKS + SCRATCH_SIZE

NEVER = int(np.iinfo(np.int64).min)

SLACK = 12
"""Records behind the last that a kernel may scribble on."""
MAX_EVENTS = 1 << 24
"""Most events that one payload may expand to (218 MB)."""


def _as_written(record: np.dtype[np.void]) -> np.dtype[np.void]:
    """A record as kernels write it, in two stores: the last 8 bytes, then the time over them."""
    offsets, size = [record.itemsize - 8, 0], record.itemsize
    fields = {'names': ['tail', 't_ns'], 'formats': ['<i8', '<i8'], 'offsets': offsets}
    return np.dtype(fields | {'itemsize': size})  # type: ignore[call-overload, no-any-return]


EVENT_WRITTEN, TRIGGER_WRITTEN = _as_written(EVENT_DTYPE), _as_written(TRIGGER_DTYPE)

X_AT, Y_AT, P_AT = 24, 40, 56
"""Fields of the last 8 bytes of an event; the 3 bytes below are of its time."""


def counts(memory: NDArray[Any]) -> DecodeCounts:
    """The totals in `memory` by name."""
    return DecodeCounts(*memory[:TOTALS].tolist())


def add_counts(one: DecodeCounts, two: DecodeCounts) -> DecodeCounts:
    """The totals of two decoders together; steps are not added up but the larger one kept."""
    names = [field.name for field in dataclasses.fields(DecodeCounts)]
    both = {name: getattr(one, name) + getattr(two, name) for name in names}
    both['max_backward_ns'] = max(one.max_backward_ns, two.max_backward_ns)
    return DecodeCounts(**both)


@compiled(_nrt=False)
def pixel_bits(x, y, p):
    """The last 8 bytes of an event, all but its time."""
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
    trigger['tail'] = channel << 40 | edge << 56  # the 5 bytes below are of its time
    trigger['t_ns'] = t_ns


@compiled(_nrt=False)
def end_packet(memory, event_end, trigger_end, on, out_of_bounds, last_ns):
    """Writes back what kernels keep in local variables, and returns where the records end."""
    memory[EVENTS] += event_end - memory[EVENT_END]
    memory[TRIGGERS] += trigger_end - memory[TRIGGER_END]
    memory[EVENT_END], memory[TRIGGER_END] = event_end, trigger_end
    memory[ON] += on
    memory[OUT_OF_BOUNDS] += out_of_bounds
    memory[LAST_NS] = last_ns
    return event_end, trigger_end


@compiled(_nrt=False)
def note_backward(memory, last_ns, t_ns):
    """Counts a step from `last_ns` back to `t_ns`."""
    memory[BACKWARD_STEPS] += 1
    memory[MAX_BACKWARD_NS] = max(memory[MAX_BACKWARD_NS], last_ns - t_ns)
