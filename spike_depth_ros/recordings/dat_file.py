"""Prophesee .dat files: decoded contrast events, 8 bytes each.

After lines that start with '% ' come two bytes, type and size of an event, then the events: 32
bits of time [us], and 32 bits of x (14), y (14) and polarity (4).
Source: docs.prophesee.ai, "DAT File Format".
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.events.arrays import EVENT_DTYPE, read_only
from spike_depth_ros.events.codecs import HighClock
from spike_depth_ros.recordings.array_source import HEAD_EVENTS, first_at
from spike_depth_ros.recordings.packets import stale_head
from spike_depth_ros.recordings.raw_header import HEADER_BYTES, read_fields, stated_size
from spike_depth_ros.recordings.source import BagError, sensor_size

EVENT_TYPES = (0x00, 0x0C)
"""Event2d and EventCD: the types whose layout this is."""
EVENT_BYTES = 8
CLOCK = HighClock(bits=32, shift=0, back=1 << 31, near=1 << 18)
_ROW = np.dtype([('t', '<u4'), ('xyp', '<u4')])


class DatEvents:
    """The events of a .dat file, read by index; memory does not depend on its length.

    Attributes:
        path: the file.
        kind: 'dat'.
        geometry: (height, width) of the sensor [px].
        count: number of events.
        dropped: bytes at the end that are no whole event.
    """

    kind = 'dat'

    def __init__(self, path: Path, sensor: tuple[int, int] | None = None) -> None:
        """Reads the header.

        Raises:
            BagError: not a .dat file, of another type of event, or without a size.
        """
        self.path = path
        try:
            with path.open('rb') as file:
                start = file.read(HEADER_BYTES)
        except OSError as error:
            raise BagError(f'cannot read {path}: {error}') from error
        values, length = read_fields(start, path)
        kind = tuple(start[length : length + 2])
        if values.get('version', '2') != '2' or len(kind) < 2:
            raise BagError(f'{path} is of version {values.get("version")!r}, expected 2')
        if kind[0] not in EVENT_TYPES or kind[1] != EVENT_BYTES:
            raise BagError(
                f'{path} holds events of type {kind[0]:#x} with {kind[1]} bytes, expected '
                f'contrast events: type 0x0 or 0xc with {EVENT_BYTES} bytes'
            )
        self.geometry = sensor_size(path, stated_size(values, {}, path), sensor)
        size = path.stat().st_size - length - 2
        self.count, rest = divmod(size, EVENT_BYTES)
        self.dropped = Counter({'truncated bytes': rest} if rest else {})
        self._rows: NDArray[Any] = (
            np.memmap(path, _ROW, 'r', length + 2, (self.count,))
            if self.count
            else np.empty(0, _ROW)
        )
        head_us = self._rows['t'][:HEAD_EVENTS].astype(np.int64)
        stale = stale_head(head_us * 1000, CLOCK.wrap_us * 1000)
        if stale:
            self._rows = self._rows[stale:]
            self.count -= stale
            self.dropped['events of an earlier run'] = stale
        self._steps, self._rounds = self._find_wraps()

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Events [start, stop), (N,) `EVENT_DTYPE`.

        Raises:
            BagError: events that are not of this sensor.
        """
        rows = self._rows[start:stop]
        events = np.empty(len(rows), EVENT_DTYPE)
        steps = np.searchsorted(self._steps, np.arange(start, start + len(rows)), side='right')
        events['t_ns'] = (rows['t'].astype(np.int64) + self._rounds[steps] * CLOCK.wrap_us) * 1000
        x, y = rows['xyp'] & 0x3FFF, rows['xyp'] >> 14 & 0x3FFF
        height, width = self.geometry
        if len(rows) and (x.max() >= width or y.max() >= height):
            raise BagError(
                f'{self.path} after event {start}: x up to {x.max()}, y up to {y.max()}, expected '
                f'a {width}x{height} sensor (--sensor states another size)'
            )
        events['x'], events['y'], events['p'] = x, y, rows['xyp'] >> 28 > 0
        return read_only(events)

    def time_ns(self, index: int) -> int:
        """Time of one event."""
        return int(self.read(index, index + 1)['t_ns'][0])

    def first_at(self, t_ns: int) -> int:
        """Index of the first event at or after a time, by bisection."""
        return first_at(t_ns, self.count, lambda start, stop: self.read(start, stop)['t_ns'])

    def close(self) -> None:
        """Gives the file back."""
        self._rows = np.empty(0, _ROW)
        self.count = 0

    def _find_wraps(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Finds where the clock wraps or steps back over a wrap.

        Returns:
            Indices of those events, and the rounds of the clock before the first and after each.
        """
        indices: list[NDArray[Any]] = [np.empty(0, np.int64)]
        rounds: list[NDArray[Any]] = [np.zeros(1, np.int64)]
        state = CLOCK.state()
        block = 1 << 20
        for start in range(0, self.count, block):
            t_us = self._rows['t'][start : start + block].astype(np.int64)
            found = CLOCK.epochs_us(t_us, state) // CLOCK.wrap_us
            at = np.flatnonzero(np.diff(found, prepend=rounds[-1][-1]))
            indices.append(at + start)
            rounds.append(found[at])
            rounds = [part for part in rounds if len(part)]
        return np.concatenate(indices), np.concatenate(rounds)
