"""Events as plain data: one structured array layout, shared by every module.

Time is int64 nanoseconds of the sensor clock, polarity is 1 for ON (brighter) and 0 for OFF.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Events: TypeAlias = NDArray[np.void]
"""(N,) array of `EVENT_DTYPE`."""

_Array = TypeVar('_Array', bound=NDArray[Any])

EVENT_DTYPE = np.dtype([('t_ns', '<i8'), ('x', '<u2'), ('y', '<u2'), ('p', 'u1')])
"""One event: sensor time [ns], column and row [px], polarity in {0, 1}. Packed, 13 bytes."""

TRIGGER_DTYPE = np.dtype([('t_ns', '<i8'), ('id', '<u2'), ('edge', 'u1')])
"""One external trigger: sensor time [ns], channel, edge in {0, 1} (1 = rising)."""


class Decoded(NamedTuple):
    """Content of one payload in stream order. Both arrays are read-only."""

    events: Events  # (N,) EVENT_DTYPE
    triggers: NDArray[np.void]  # (M,) TRIGGER_DTYPE


def empty_events() -> Events:
    """Returns a read-only (0,) array of `EVENT_DTYPE`."""
    return read_only(np.empty(0, EVENT_DTYPE))


def empty_triggers() -> NDArray[np.void]:
    """Returns a read-only (0,) array of `TRIGGER_DTYPE`."""
    return read_only(np.empty(0, TRIGGER_DTYPE))


def read_only(array: _Array) -> _Array:
    """Marks `array` read-only and returns it, because threads share event arrays."""
    array.flags.writeable = False
    return array


def seconds_to_ns(seconds: ArrayLike) -> NDArray[np.int64]:
    """Converts float64 seconds to int64 ns, rounded to us.

    The resolution of float64 is 0.24 us at present-day Unix times.
    """
    return np.rint(np.asarray(seconds, np.float64) * 1e6).astype(np.int64) * 1000


def join_events(parts: Iterable[Events]) -> Events:
    """Joins event arrays into one read-only array, which is empty if there are no parts.

    The arrays are copied as bytes: numpy copies structured arrays field by field, which takes
    20 times as long.
    """
    whole = np.dtype((np.void, EVENT_DTYPE.itemsize))
    arrays = [part.view(whole) for part in (empty_events(), *parts)]
    return read_only(np.concatenate(arrays).view(EVENT_DTYPE))


def make_events(t_ns: ArrayLike, x: ArrayLike, y: ArrayLike, p: ArrayLike) -> Events:
    """Builds a read-only event array from four equally long columns.

    Args:
        t_ns: (N,) sensor times in ns.
        x: (N,) columns in px.
        y: (N,) rows in px.
        p: (N,) polarities, 0 or 1 (or bool).

    Returns:
        (N,) array of `EVENT_DTYPE`.

    Raises:
        ValueError: the columns differ in length.
    """
    given = {'t_ns': t_ns, 'x': x, 'y': y, 'p': p}
    columns = {name: np.asarray(column) for name, column in given.items()}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f'event columns must be equally long, got {lengths}')
    events = np.empty(lengths['t_ns'], EVENT_DTYPE)
    for name, column in columns.items():
        events[name] = column
    return read_only(events)
