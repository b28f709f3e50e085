"""Codes of evt3 words and the fields of the register that they update."""

# mypy: no-check-untyped-defs
# (compiled kernels: numba infers their types)

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.events.codecs.decoder_state import put_trigger
from spike_depth_ros.events.compiled import compiled

ADDR_Y, OTHER_Y, ADDR_X, VECT_BASE_X, VECT_12, VECT_8, TIME_LOW, CONTINUED_4, TIME_HIGH = range(9)
EXT_TRIGGER, OTHERS, CONTINUED_12 = 10, 14, 15
UNKNOWN = 0b0011_1010_0000_0000
"""Bit k is set if code k is not defined."""

HIGH_BITS, HIGH_SPAN = 12, 1 << 12
"""TIME_HIGH has 12 bits: it wraps after 2^24 us, or 16.8 s."""
GLITCH = 10
"""Largest step back of TIME_HIGH; all other changes, modulo its span, are forwards."""

NEAR = 64
"""Steps of TIME_HIGH (0.26 s) that are no jump."""

ROW_AT, LOW_AT, HIGH_AT, WORD_AT, BASE_AT = 0, 12, 24, 36, 52
"""Fields of the register: row, time low and high, last emitting word, vector base. The top bit of
the base is its polarity, as in its word; a base above 2047, outside any sensor, runs into it."""


def by_code(entries: dict[int, int]) -> NDArray[Any]:
    """Returns a (16,) table by code, 0 for codes that are not in `entries`."""
    return np.array([entries.get(code, 0) for code in range(16)], np.int64)


EMITTING = (ADDR_X, VECT_12, VECT_8, EXT_TRIGGER)
EMITS = by_code(dict.fromkeys(EMITTING, 1))


@compiled(_nrt=False)
def put_trigger_word(triggers, m, t_ns, word):
    """Writes trigger m if the word is a trigger; returns the new number of triggers."""
    if (word >> 12) & 0xF == EXT_TRIGGER:
        put_trigger(triggers, m, t_ns, (word >> 8) & 0xF, word & 1)
        m += 1
    return m
