"""The words of evt3: their codes, and where the register that they are folded into keeps them."""

# mypy: no-check-untyped-defs
# (compiled kernels: numba infers their types)

from __future__ import annotations

import numpy as np

from spike_depth_ros.events.codecs.memory import put_trigger
from spike_depth_ros.events.compiled import compiled

ADDR_Y, ADDR_X, VECT_BASE_X, VECT_12, VECT_8, TIME_LOW, CONTINUED_4, TIME_HIGH = (
    0, 2, 3, 4, 5, 6, 7, 8,
)  # fmt: skip
EXT_TRIGGER, OTHERS, CONTINUED_12 = 10, 14, 15
UNKNOWN = 0b0011_1010_0000_0010
"""Bit k is set if code k is not defined."""

GLITCH = 10
"""A TIME_HIGH that falls by more than this has wrapped; a smaller fall is a glitch."""

ROW_AT, LOW_AT, HIGH_AT, WORD_AT, BASE_AT = 0, 12, 24, 36, 52
"""Fields of the register: row, time low and high, last emitting word, vector base. The base has
its polarity on top, as in its word; past 2047, where no sensor is, it runs over into that."""


def by_code(entries: dict[int, int]) -> np.ndarray:
    """A (16,) table by code, 0 where `entries` says nothing."""
    return np.array([entries.get(code, 0) for code in range(16)], np.int64)


EMITTING = (ADDR_X, VECT_12, VECT_8, EXT_TRIGGER)
EMITS = by_code(dict.fromkeys(EMITTING, 1))


@compiled(_nrt=False)
def put_trigger_word(triggers, m, t_ns, word):
    """Writes trigger m if the word is one, and returns how many there are then."""
    if (word >> 12) & 0xF == EXT_TRIGGER:
        put_trigger(triggers, m, t_ns, (word >> 8) & 0xF, word & 1)
        m += 1
    return m
