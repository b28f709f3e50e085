"""Payload bytes to events, and back: one decoder class, one table of encodings.

A decoder is for one sensor and one stream. It never raises on what a payload holds: what cannot
be used is skipped and counted in `Decoder.counts`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from spike_depth_ros.codecs import evt2, evt3, plain
from spike_depth_ros.codecs.encoders import (
    EncodeError,
    encode_event_array,
    encode_evt3,
    encode_mono,
    evt3_state,
)
from spike_depth_ros.codecs.memory import (
    LAST_NS,
    MAX_EVENTS,
    NEVER,
    OVERSIZED,
    SIZE,
    SYNC,
    TOTALS,
    TRUNCATED_BYTES,
    DecodeCounts,
    add_counts,
    counts,
)
from spike_depth_ros.events import (
    EVENT_DTYPE,
    TRIGGER_DTYPE,
    Decoded,
    empty_events,
    empty_triggers,
)

__all__ = [
    'CODECS',
    'MAX_EVENTS',
    'MAX_SENSOR_PX',
    'DecodeCounts',
    'Decoder',
    'EncodeError',
    'add_counts',
    'encode_event_array',
    'encode_evt3',
    'encode_mono',
    'evt3_state',
]

MAX_SENSOR_PX = 16384
"""Largest sensor height or width that is believed."""


NOTHING = Decoded(empty_events(), empty_triggers())


class Encoding(NamedTuple):
    """How one encoding is decoded."""

    word: str  # numpy dtype of one word
    bound: Callable  # words -> (most events, most triggers) that they may hold
    decode: Callable  # kernel: (words, time_base_ns, height, width, events, triggers, memory)


def _one_event_each(words: np.ndarray) -> tuple[int, int]:
    return len(words), 0


def _one_trigger_each(words: np.ndarray) -> tuple[int, int]:
    return 0, len(words)


def _one_event_each_row(body: np.ndarray) -> tuple[int, int]:
    return len(body) // plain.ROW_BYTES + 1, 0


ENCODINGS: dict[str, Encoding] = {
    'evt3': Encoding('<u2', evt3.bound, evt3.decode),
    'evt2': Encoding('<u4', evt2.evt2_bound, evt2.evt2),
    'evt21': Encoding('<u8', evt2.evt21_bound, evt2.evt21),
    'mono': Encoding('<u8', _one_event_each, plain.mono),
    'trigger': Encoding('<u8', _one_trigger_each, plain.trigger),
    'libcaer': Encoding('<u8', _one_event_each, plain.libcaer),
    'libcaer_cmp': Encoding('<u2', plain.libcaer_cmp_bound, plain.libcaer_cmp),
    'event_array': Encoding('u1', _one_event_each_row, plain.event_array),
}


class Decoder:
    """Decodes the payloads of one stream, in order; state runs on between them."""

    def __init__(self, encoding: str, height: int, width: int) -> None:
        """Prepares for a sensor of `height` x `width` px.

        Raises:
            ValueError: the sensor's size is not from 1 to `MAX_SENSOR_PX`.
        """
        if not (1 <= height <= MAX_SENSOR_PX and 1 <= width <= MAX_SENSOR_PX):
            raise ValueError(
                f'sensor is {width}x{height} px, expected 1 to {MAX_SENSOR_PX} each way'
            )
        self.key = encoding, height, width
        self.height, self.width = height, width
        word, self._bound, self._kernel = ENCODINGS[encoding]
        self._word = np.dtype(word)
        self._memory = np.zeros(SIZE, np.int64)
        self._no_triggers = np.empty(0, TRIGGER_DTYPE)
        self.reset()

    def decode(self, payload: np.ndarray | memoryview | bytes, time_base_ns: int = 0) -> Decoded:
        """Decodes one payload.

        Args:
            payload: the bytes, without header; not kept.
            time_base_ns: what the packet's times are relative to, where the encoding uses it.

        Returns:
            Events and triggers in stream order, read-only.
        """
        words = self._words(payload)
        most_events, most_triggers = self._bound(words)
        if most_events > MAX_EVENTS:
            self._memory[OVERSIZED] += 1
            return NOTHING
        events = np.empty(most_events, EVENT_DTYPE)
        triggers = np.empty(most_triggers, TRIGGER_DTYPE) if most_triggers else self._no_triggers
        n, m = self._kernel(
            words, time_base_ns, self.height, self.width, events, triggers, self._memory
        )
        events = events[:n]
        events.setflags(write=False)
        if not m:
            return Decoded(events, NOTHING.triggers)
        triggers = triggers[:m]
        triggers.setflags(write=False)
        return Decoded(events, triggers)

    def _words(self, payload: np.ndarray | memoryview | bytes) -> np.ndarray:
        """The whole words of a payload: a view, or an aligned copy where a view would not be."""
        if not isinstance(payload, np.ndarray):
            payload = np.frombuffer(payload, np.uint8)
        rest = payload.size % self._word.itemsize
        if rest:
            self._memory[TRUNCATED_BYTES] += rest
            payload = payload[:-rest]
        words = payload.view(self._word)
        flags = words.flags
        if not flags.aligned:
            words = words.copy()
        if flags.writeable or not flags.aligned:
            words.setflags(write=False)  # one compiled version for all
        return words

    @property
    def counts(self) -> DecodeCounts:
        """Running totals since the decoder was made."""
        return counts(self._memory)

    def reset(self) -> None:
        """Forgets time and addresses, as after a restart of the camera; totals stay."""
        self._memory[TOTALS:] = 0
        self._memory[LAST_NS] = NEVER

    def resync(self) -> None:
        """Waits for a fresh time, as after lost packets; the count of wraps stays."""
        self._memory[SYNC] = 0


CODECS: dict[str, Callable[[int, int], Decoder]] = {
    name: functools.partial(Decoder, name) for name in ENCODINGS
}
"""Encoding name -> factory(height, width) of its decoder."""
