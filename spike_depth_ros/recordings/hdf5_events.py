"""The events of HDF5 files of any layout: by index, by time, or from start to end.

One class reads them for training (windows at random), for conversion and for replay. What differs
between data sets is where the columns are and what their times count from: `hdf5_layouts`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.events.arrays import EVENT_DTYPE, read_only
from spike_depth_ros.recordings.array_source import first_at
from spike_depth_ros.recordings.hdf5 import COPY_AGAIN, Hdf5File
from spike_depth_ros.recordings.hdf5_layouts import find_layout
from spike_depth_ros.recordings.source import BagError

PIECE_EVENTS = 1 << 19
"""Events in memory at a time: 7 MB."""
MARGIN_NS = 1_000_000
"""How far the time of an event may lie behind that of an earlier row: sensors step back by us."""
MOST_PROBES = 1 << 16


class Hdf5Events:
    """The events of an HDF5 file; memory does not depend on its length.

    Objects can be pickled, and used after a fork.

    Attributes:
        path: the file.
        kind: whose layout it has: 'dsec', 'm3ed', 'mvsec', 'prophesee' or 'hdf5'.
        geometry: (height, width) of the sensor [px].
        count: number of events.
        file: the open file, for what lies in it beside the events.
    """

    def __init__(
        self,
        path: Path,
        sensor: tuple[int, int] | None = None,
        time_unit: str = '',
        advice: str = COPY_AGAIN,
    ) -> None:
        """Opens the file and finds its columns.

        Args:
            path: the file.
            sensor: (height, width) [px] where the file does not state it.
            time_unit: 's', 'ms', 'us' or 'ns' where the times do not show it; '' to find out.
            advice: what to do if the file is missing or damaged.

        Raises:
            BagError: not HDF5, damaged, of no known layout, or without a size.
        """
        self.path = path
        self.file = Hdf5File(path, advice)
        try:
            self._layout = find_layout(self.file, sensor, time_unit)
        except BaseException:
            self.file.close()
            raise
        self.kind, self.geometry = self._layout.kind, self._layout.geometry
        self.count = self._layout.count
        self._probes: dict[int, NDArray[Any]] = {}

    @functools.cached_property
    def start_ns(self) -> int:
        """Time of the first event.

        Raises:
            BagError: there is none.
        """
        if not self.count:
            raise self.file.damaged('holds no events')
        return self.time_ns(0)

    @functools.cached_property
    def end_ns(self) -> int:
        """Time of the last event.

        Raises:
            BagError: there is none.
        """
        if not self.count:
            raise self.file.damaged('holds no events')
        return self.time_ns(self.count - 1)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Events [start, stop) in the order of the file, (N,) `EVENT_DTYPE`, absolute times.

        Raises:
            BagError: the file is damaged there, or its events are not of this sensor.
        """
        t, x, y, p = self._layout.columns(self.file, start, stop)
        if not len(t):
            return read_only(np.empty(0, EVENT_DTYPE))
        self._check(x, y, p, start)
        events = np.empty(len(t), EVENT_DTYPE)
        events['t_ns'] = self._layout.times.to_ns(t, self.file, start)
        events['x'], events['y'], events['p'] = x, y, p > 0
        return read_only(events)

    def pieces(self, t0_ns: int, t1_ns: int) -> Iterator[NDArray[Any]]:
        """Yields the events of the times [t0, t1), at most `PIECE_EVENTS` at a time."""
        start, stop = self._rows_of(t0_ns, t1_ns)
        for first in range(start, stop, PIECE_EVENTS):
            events = self.read(first, min(first + PIECE_EVENTS, stop))
            inside = np.flatnonzero((events['t_ns'] >= t0_ns) & (events['t_ns'] < t1_ns))
            if not len(inside):
                continue
            begin, end = int(inside[0]), int(inside[-1]) + 1
            yield events[begin:end] if end - begin == len(inside) else read_only(events[inside])

    def time_ns(self, index: int) -> int:
        """Time of one event."""
        return int(self._times_ns(index, index + 1)[0])

    def first_at(self, t_ns: int) -> int:
        """Index of the first event at or after a time, by bisection: a few small reads."""
        return first_at(t_ns, self.count, self._times_ns)

    def _times_ns(self, start: int, stop: int) -> NDArray[Any]:
        """Times of a few events; the first probes of every bisection are the same and are kept."""
        if start not in self._probes or len(self._probes[start]) < stop - start:
            if len(self._probes) > MOST_PROBES:
                self._probes.clear()
            t = self._layout.times_of(self.file, start, stop)
            self._probes[start] = self._layout.times.to_ns(t, self.file, start)
        return self._probes[start][: stop - start]

    def close(self) -> None:
        """Closes the file; the next read opens it again."""
        self.file.close()

    def _rows_of(self, t0_ns: int, t1_ns: int) -> tuple[int, int]:
        """Rows that cover the times [t0, t1), with a margin for times that step back."""
        if self._layout.index is None:
            return self.first_at(t0_ns - MARGIN_NS), self.first_at(t1_ns + MARGIN_NS)
        offset_ns = self._layout.times.offset * self._layout.times.unit_ns
        return self._rows_by_index(self._layout.index, t0_ns - offset_ns, t1_ns - offset_ns)

    def _rows_by_index(self, index: str, t0_ns: int, t1_ns: int) -> tuple[int, int]:
        """The same by the index of DSEC: its entry k is the first event at or after k ms.

        Times are those of the file's own clock. One millisecond is read beyond the end, since an
        event of this window may stand after the first one of the next.
        """
        entries = self.file.length(index)
        first_ms = min(max(t0_ns // 1_000_000, 0), entries - 1)
        last_ms = -(-t1_ns // 1_000_000) + 1
        if t1_ns <= 0:
            return 0, 0
        if entries < 1:
            raise self.file.damaged(f'has an empty index {index}')
        start = int(self.file.row(index, first_ms))
        stop = int(self.file.row(index, last_ms)) if last_ms < entries else self.count
        fits = 0 <= start <= stop <= self.count
        offset_ns = self._layout.times.offset * self._layout.times.unit_ns
        if fits and start < stop:
            fits = self.time_ns(start) - offset_ns >= first_ms * 1_000_000
        if fits and stop < self.count:
            fits = self.time_ns(stop) - offset_ns >= (last_ms - 1) * 1_000_000
        if not fits:
            raise self.file.damaged(f'has an index {index} that does not fit at {first_ms} ms')
        return start, stop

    def _check(self, x: NDArray[Any], y: NDArray[Any], p: NDArray[Any], start: int) -> None:
        """Refuses columns that cannot become events without a change.

        Raises:
            BagError: positions that are no whole pixels or off the sensor, or other polarities.
        """
        height, width = self.geometry
        for name, column, size in (('x', x, width), ('y', y, height)):
            if column.dtype.kind == 'f' and not np.array_equal(column, np.rint(column)):
                odd = column[np.flatnonzero(column != np.rint(column))[0]]
                raise BagError(
                    f'{self.path} after event {start}: {name} is {odd}, expected whole pixels of '
                    'the sensor. Were the events rectified? Give the recording before that'
                )
            low, high = column.min(), column.max()
            if low < 0 or high >= size:
                raise self.file.damaged(
                    f'has events outside the sensor after event {start}: {name} from {low} to '
                    f'{high}, expected 0 to {size - 1} of {width}x{height} px (--sensor states '
                    'another size)'
                )
        if p.dtype.kind != 'b' and (p.min() < -1 or p.max() > 1):
            raise BagError(
                f'{self.path} after event {start}: polarities from {p.min()} to {p.max()}, '
                'expected 0 and 1, or -1 and 1'
            )
