"""Payload bytes to events and back: one decoder class, one table of encodings.

A decoder serves one stream of one sensor. It raises no error for any payload; it skips invalid
parts and counts them in `Decoder.counts`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray
from numpy.typing import NDArray

from spike_depth_ros.events.arrays import (
    EVENT_DTYPE,
    TRIGGER_DTYPE,
    Decoded,
    empty_events,
    empty_triggers,
    read_only,
)
from spike_depth_ros.events.codecs import evt2, evt3, evt4, self_contained
from spike_depth_ros.events.codecs.decoder_state import (
    CLOCK,
    CLOCK_SIZE,
    EPOCH_US,
    EVENT_END,
    HEIGHT,
    JUMPED,
    LAST_NS,
    MAX_EVENTS,
    NEVER,
    OVERSIZED,
    SIZE,
    SLACK,
    START,
    SYNC,
    TRIGGER_END,
    WIDTH,
    DecodeCounts,
    add_counts,
    counts,
    follow_highs,
)
from spike_depth_ros.events.codecs.encoders import (
    EncodeError,
    encode_event_array,
    encode_evt3,
    encode_libcaer_cmp,
    encode_mono,
    evt3_state,
)
from spike_depth_ros.events.codecs.evt3_words import GLITCH, HIGH_BITS, NEAR

__all__ = [
    'CODECS',
    'EVT2_CLOCK',
    'EVT3_CLOCK',
    'MAX_EVENTS',
    'MAX_SENSOR_PX',
    'SMALL_BYTES',
    'DecodeCounts',
    'Decoder',
    'EncodeError',
    'HighClock',
    'add_counts',
    'encode_event_array',
    'encode_evt3',
    'encode_libcaer_cmp',
    'encode_mono',
    'evt3_state',
]

MAX_SENSOR_PX = 4096
"""Largest accepted height or width of a sensor, so that tables of its pixels fit into memory."""

SMALL_BYTES = 1 << 14
"""Smaller payloads get memory for the worst case; in larger ones the events are counted first."""
BLOCK_SIZE = 1 << 17
"""Number of records in a block of memory that packets share (1.7 MB of events)."""
NO_TRIGGERS = empty_triggers()
NOTHING = Decoded(empty_events(), NO_TRIGGERS)
_decoded = functools.partial(tuple.__new__, Decoded)  # twice as fast as Decoded(...)


class Encoding(NamedTuple):
    """Kernels of one encoding."""

    expansion: int  # maximum number of events per byte
    bound: Callable[..., tuple[int, int]]  # kernel: payload -> bounds of events and triggers
    decode: Callable[
        ..., tuple[int, int]
    ]  # kernel: payload, time_base_ns, events, triggers, memory


ENCODINGS: dict[str, Encoding] = {
    'evt3': Encoding(6, evt3.bound, evt3.decode),
    'evt2': Encoding(1, self_contained.bound(4), evt2.evt2),
    'evt21': Encoding(4, evt2.evt21_bound, evt2.evt21),
    'evt4': Encoding(8, evt4.bound, evt4.decode),
    'mono': Encoding(1, self_contained.bound(8), self_contained.mono),
    'trigger': Encoding(1, self_contained.bound(8), self_contained.trigger),
    'libcaer': Encoding(1, self_contained.bound(8), self_contained.libcaer),
    'libcaer_cmp': Encoding(4, self_contained.libcaer_cmp_bound, self_contained.libcaer_cmp),
    'event_array': Encoding(1, self_contained.bound(16), self_contained.event_array),
}


class HighClock(NamedTuple):
    """The upper bits of a sensor's clock, which words of the type TIME_HIGH hold."""

    bits: int
    shift: int  # from them to us
    back: int  # a step back by more is a wrap
    near: int  # a step ahead by more is a jump

    @property
    def wrap_us(self) -> int:
        """Length of one round of the clock."""
        return 1 << (self.bits + self.shift)

    def state(self) -> NDArray[Any]:
        """The state of `epochs_us` before the first value."""
        return np.zeros(CLOCK_SIZE, np.int64)

    def epochs_us(self, highs: NDArray[Any], state: NDArray[Any]) -> NDArray[Any]:
        """What the wraps add up to, as the decoders count them.

        Args:
            highs: (N,) int64 successive values of the upper bits.
            state: from `state`, updated.

        Returns:
            (N,) int64 us, for each of them.
        """
        epochs_us = np.empty_like(highs)
        follow_highs(highs, *self, state, epochs_us)
        return epochs_us


EVT2_CLOCK = HighClock(evt2.HIGH_BITS, 6, evt2.MOST_BACK, evt2.NEAR)
EVT3_CLOCK = HighClock(HIGH_BITS, 12, GLITCH, NEAR)


class Decoder:
    """Decodes the payloads of one stream in order and keeps its state between them."""

    def __init__(self, encoding: str, height: int, width: int) -> None:
        """Creates a decoder for a sensor of `height` x `width` px.

        Raises:
            ValueError: the sensor's size is not from 1 to `MAX_SENSOR_PX`.
        """
        if not (1 <= height <= MAX_SENSOR_PX and 1 <= width <= MAX_SENSOR_PX):
            raise ValueError(
                f'sensor is {width}x{height} px, expected 1 to {MAX_SENSOR_PX} each way'
            )
        self.key = encoding, height, width
        self._expansion, self._bound, self._kernel = ENCODINGS[encoding]
        self._memory = np.zeros(SIZE, np.int64)
        self._memory[[HEIGHT, WIDTH]] = height, width
        self._events, self._shown_events = _block(0, EVENT_DTYPE)
        self._triggers, self._shown_triggers = _block(0, TRIGGER_DTYPE)
        self._event_end = self._trigger_end = self._event_room = self._trigger_room = 0
        self.reset()

    def decode(self, payload: NDArray[Any] | memoryview | bytes, time_base_ns: int = 0) -> Decoded:
        """Decodes one payload.

        Args:
            payload: the bytes without header; the decoder keeps no reference.
            time_base_ns: reference of the packet's times, if the encoding has one.

        Returns:
            Events and triggers in stream order, read-only. The arrays of consecutive packets are
            slices of one block of memory, which exists as long as any of them.
        """
        if not isinstance(payload, ndarray) or payload.flags.writeable:
            payload = np.frombuffer(memoryview(payload).toreadonly(), np.uint8)  # type: ignore[arg-type]
        size = payload.size
        if size > SMALL_BYTES:
            most_events, most_triggers = self._bound(payload)
            if most_events > MAX_EVENTS:
                self._memory[OVERSIZED] += 1
                return NOTHING
        else:
            most_events, most_triggers = size * self._expansion + SLACK, size
        event_start, trigger_start = self._event_end, self._trigger_end
        if event_start + most_events > self._event_room:
            self._events, self._shown_events = _block(most_events, EVENT_DTYPE)
            self._event_room = self._shown_events.size
            self._memory[EVENT_END] = event_start = 0
        if trigger_start + most_triggers > self._trigger_room:
            self._triggers, self._shown_triggers = _block(most_triggers, TRIGGER_DTYPE)
            self._trigger_room = self._shown_triggers.size
            self._memory[TRIGGER_END] = trigger_start = 0
        self._event_end, self._trigger_end = event_end, trigger_end = self._kernel(
            payload, time_base_ns, self._events, self._triggers, self._memory
        )
        triggers = NO_TRIGGERS
        if trigger_end > trigger_start:  # rare; the slice takes a tenth of the time of this method
            triggers = self._shown_triggers[trigger_start:trigger_end]
        return _decoded((self._shown_events[event_start:event_end], triggers))

    @property
    def counts(self) -> DecodeCounts:
        """Running totals since the decoder was created."""
        return counts(self._memory)

    def reset(self) -> None:
        """Forgets time and addresses, as after a restart of the camera, but not the totals."""
        self._memory[[SYNC, EPOCH_US, CLOCK, JUMPED, START]] = 0
        self._memory[LAST_NS] = NEVER

    def resync(self) -> None:
        """Waits for the next full time, as after lost packets; keeps the number of wraps."""
        self._memory[SYNC] = 0


def _block(size: int, dtype: np.dtype[np.void]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Allocates records; returns their bytes, for writing, and read-only records."""
    block = np.empty((max(size, BLOCK_SIZE) if size else 0) * dtype.itemsize, np.uint8)
    return block, read_only(block.view(dtype))


CODECS: dict[str, Callable[[int, int], Decoder]] = {
    name: functools.partial(Decoder, name) for name in ENCODINGS
}
"""Encoding name -> factory(height, width) of its decoder."""
