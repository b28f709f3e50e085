"""Writes `events.h5` as DSEC has it: events/{p,t,x,y}, ms_to_idx, t_offset, Blosc-zstd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.events.arrays import join_events
from spike_depth_ros.events.atomic_write import PartialPath
from spike_depth_ros.events.jumps import JumpFilter, Run
from spike_depth_ros.recordings.source import BagError, Target

CHUNK_EVENTS = 1 << 16
_COLUMNS = (('p', 'u1'), ('t', 'u4'), ('x', 'u2'), ('y', 'u2'))
_SLACK_US = 1000  # sensors step back by microseconds: no time may fall before t_offset
STALE_NS = 1_000_000_000
"""What a file begins with is left over from an earlier run of the camera, if it is shorter than
this and sensor time then jumps back to before it."""


class EventsH5Writer(Target):
    """Appends events to a DSEC-style file, which appears under its name only when complete.

    Times are whole microseconds after `t_offset`, rounded down. ms_to_idx[k] is the
    index of the first event at or after k ms, with a last entry that equals the event count.

    Attributes:
        count: events written.
    """

    def __init__(self, path: str | Path, height: int, width: int) -> None:
        """Opens a temporary file beside `path`.

        Raises:
            BagError: `path` exists or cannot be created.
        """
        import h5py
        import hdf5plugin

        self.path = Path(path)
        if self.path.exists():
            raise BagError(f'{self.path} exists already: remove it or choose another name')
        try:
            self._partial = PartialPath(self.path)
            self._file = h5py.File(self._partial.path, 'w')
        except OSError as error:
            raise BagError(f'cannot write {self.path}: {error}') from error
        group = self._file.create_group('events')
        group.attrs['height'], group.attrs['width'] = height, width
        self._blosc = hdf5plugin.Blosc(cname='zstd', clevel=1, shuffle=hdf5plugin.Blosc.SHUFFLE)
        self._columns = {
            name: group.create_dataset(
                name, (0,), dtype, maxshape=(None,), chunks=(CHUNK_EVENTS,), **self._blosc
            )
            for name, dtype in _COLUMNS
        }
        self._pending: list[NDArray[Any]] = []
        self._pending_count = 0
        self._ms_to_idx: list[NDArray[Any]] = []
        self._ms_count = 0
        self._filter = JumpFilter()
        self._first_ns: int | None = None  # earliest time of what was added since the last start
        self._offset_us: int | None = None
        self.count = 0
        self._early = 0

    @property
    def dropped(self) -> int:
        """Number of events left out, since their times do not fit the others.

        These are single wrong times (see `events.jumps`) and, where the clock jumps back to
        before the start of the file, what comes before that if it is of `STALE_NS` or less, else
        what comes after it.
        """
        return self._early + self._filter.dropped

    def add(self, events: NDArray[Any]) -> None:
        """Appends events, (N,) `EVENT_DTYPE`, in stream order.

        Raises:
            BagError: the recording is longer than the 2^32 us that the format can hold.
        """
        for run in self._filter.push(events):
            self._add(run)

    def _add(self, run: Run) -> None:
        if run.jump_ns < 0 and self._first_ns is not None and run.first_ns < self._first_ns:
            newest_ns = run.first_ns - run.jump_ns
            if newest_ns - self._first_ns <= STALE_NS:
                self._discard()
        self._first_ns = run.first_ns if self._first_ns is None else self._first_ns
        self._pending.append(run.events)
        self._pending_count += len(run.events)
        if self._pending_count >= 8 * CHUNK_EVENTS:
            self._write_pending(CHUNK_EVENTS)

    def _discard(self) -> None:
        """Removes all events so far, and counts them."""
        self._early += self.count + self._pending_count
        for column in self._columns.values():
            column.resize((0,))
        self._pending, self._ms_to_idx = [], []
        self.count = self._pending_count = self._ms_count = 0
        self._first_ns = self._offset_us = None

    def close(self) -> None:
        """Completes the file and gives it its name."""
        for run in self._filter.finish():
            self._add(run)
        self._write_pending(1)
        index = [*self._ms_to_idx, np.array([self.count] if self.count else [], np.uint64)]
        self._file.create_dataset('ms_to_idx', data=np.concatenate(index), **self._blosc)
        self._file.create_dataset('t_offset', data=np.int64(self._offset_us or 0))
        self._file.close()
        self._partial.commit()

    def abort(self) -> None:
        """Removes what was written."""
        self._file.close()
        self._partial.discard()

    def _write_pending(self, multiple: int) -> None:
        """Writes a multiple of so many events: whole chunks are compressed only once."""
        if not self._pending_count:
            return
        events = self._pending[0] if len(self._pending) == 1 else join_events(self._pending)
        whole = len(events) // multiple * multiple
        self._pending, self._pending_count = [events[whole:]], len(events) - whole
        self._write(events[:whole])

    def _write(self, events: NDArray[Any]) -> None:
        t_us = events['t_ns'] // 1000
        if self._offset_us is None:
            self._offset_us = max(0, (int(t_us[0]) - _SLACK_US) // 1000 * 1000)
        t_us -= self._offset_us
        if t_us.min() < 0:
            keep = t_us >= 0
            self._early += len(events) - int(keep.sum())
            events, t_us = events[keep], t_us[keep]
        if not len(events):
            return
        if t_us.max() >= 1 << 32:
            raise BagError(
                f'{self.path}: events.h5 holds times up to 2^32 us (71 min) after its start, '
                f'the recording reaches {t_us.max() / 60e6:.0f} min: convert it in parts with '
                '--start and --duration'
            )
        self._index(t_us)
        stop = self.count + len(events)
        for name, dtype in _COLUMNS:
            column = self._columns[name]
            column.resize((stop,))
            column[self.count : stop] = (t_us if name == 't' else events[name]).astype(dtype)
        self.count = stop

    def _index(self, t_us: NDArray[Any]) -> None:
        """Extends ms_to_idx; where time steps back, the first event that reaches a ms counts."""
        latest_us = np.maximum.accumulate(t_us)
        ms = np.arange(self._ms_count, int(latest_us[-1]) // 1000 + 1)
        if len(ms):
            found = np.searchsorted(latest_us, ms * 1000) + self.count
            self._ms_to_idx.append(found.astype(np.uint64))
            self._ms_count += len(ms)
