"""Data sets' HDF5 files as event sources: DSEC's events.h5, M3ED, MVSEC."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spike_depth_ros.events.arrays import EVENT_DTYPE, read_only, seconds_to_ns
from spike_depth_ros.events.codecs import MAX_SENSOR_PX
from spike_depth_ros.recordings.packets import Packetiser
from spike_depth_ros.recordings.source import (
    EVENT_PACKET,
    EVENTS_TOPIC,
    FRAME_ID,
    BagError,
    EventSource,
    RawMessage,
    Topic,
    choose_event_topic,
)

READ_EVENTS = 1 << 19
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError)
"""What h5py raises, depending on where a file is damaged or what is missing."""


class EventFile:
    """The events of an HDF5 file as if they were one array, read slice by slice.

    This is for reading a file of any layout from its start to its end, by one process;
    `data.dsec.EventsH5` finds windows at random by `ms_to_idx`, in data loaders that fork.

    Attributes:
        layout: whose file it is: 'dsec', 'm3ed' or 'mvsec'.
        file: the open h5py file.
        count: events in it.
        geometry: (height, width) of the sensor [px].
    """

    def __init__(self, path: Path) -> None:
        """Opens the file.

        Raises:
            BagError: not HDF5, damaged, or of no known layout.
        """
        import h5py
        import hdf5plugin  # noqa: F401 - registers Blosc with HDF5

        self.path = path
        self.layout = layout_of(path)
        self.file = h5py.File(path, 'r')
        try:
            self._columns = LAYOUTS[self.layout].columns(self.file)
            self.geometry = LAYOUTS[self.layout].geometry(self.file, path)
            if not all(1 <= size <= MAX_SENSOR_PX for size in self.geometry):
                raise BagError(f'{path} is damaged: its sensor is {self.geometry} px')
        except BagError:
            self.file.close()
            raise
        except _DAMAGE as error:
            self.file.close()
            raise BagError(f'{path} is damaged, or lacks what its kind has: {error}') from error
        self.count = self._columns.length

    def read(self, start: int, stop: int) -> np.ndarray:
        """Events `start` to `stop`, (N,) `EVENT_DTYPE`, absolute time.

        Raises:
            BagError: the file is damaged there.
        """
        try:
            events = read_only(self._columns.read(start, stop))
        except _DAMAGE as error:
            raise BagError(f'{self.path} is damaged at events {start}-{stop}: {error}') from error
        if len(events):
            self._check(events, start)
        return events

    def _check(self, events: np.ndarray, start: int) -> None:
        """Refuses what no packet can tell, and what a wrong idea of the sensor would drop."""
        height, width = self.geometry
        x, y, t_ns = int(events['x'].max()), int(events['y'].max()), int(events['t_ns'].min())
        if x >= width or y >= height or t_ns < 0:
            raise BagError(
                f'{self.path} after event {start}: x up to {x}, y up to {y}, t from {t_ns} ns; '
                f'expected a {width}x{height} sensor and t >= 0. Is it damaged, or of another '
                'sensor? events.h5 can tell its size in the attributes height and width of /events'
            )

    def time_ns(self, index: int) -> int:
        """Absolute time of one event."""
        return int(self.read(index, index + 1)['t_ns'][0])

    def first_at(self, t_ns: int) -> int:
        """Index of the first event at or after a time, by bisection: a few small reads."""
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            if self.time_ns(middle) < t_ns:
                low = middle + 1
            else:
                high = middle
        return low


class Columns(NamedTuple):
    """How many events there are, and how a slice of them is read."""

    length: int
    read: Callable[[int, int], np.ndarray]


class Layout(NamedTuple):
    """One data set's way to keep events."""

    probe: str  # a data set that only it has
    columns: Callable[[Any], Columns]
    geometry: Callable[[Any, Path], tuple[int, int]]


def _separate(group: str) -> Callable[[Any], Columns]:
    """Columns p, t, x, y of their own under `group`; t in us, after t_offset if there is one."""

    def columns(file: Any) -> Columns:
        p, t, x, y = (file[f'{group}/{name}'] for name in 'ptxy')
        offset_us = int(file['t_offset'][()]) if 't_offset' in file else 0
        sizes = {len(p), len(t), len(x), len(y)}
        if len(sizes) > 1:
            raise BagError(f'{file.filename}: the columns of {group} differ in length: {sizes}')

        def read(start: int, stop: int) -> np.ndarray:
            events = np.empty(stop - start, EVENT_DTYPE)
            # assigning casts while it copies; int64 comes first, since t may be uint32
            events['t_ns'] = (t[start:stop].astype(np.int64) + offset_us) * 1000
            events['x'], events['y'] = x[start:stop], y[start:stop]
            events['p'] = p[start:stop] > 0
            return events

        return Columns(len(t), read)

    return columns


def _mvsec_columns(file: Any) -> Columns:
    """One table [x, y, t, p]: t in seconds of the epoch, meant to the us; p is -1 or 1."""
    table = file['davis/left/events']

    def read(start: int, stop: int) -> np.ndarray:
        rows = table[start:stop]
        events = np.empty(stop - start, EVENT_DTYPE)
        events['t_ns'] = seconds_to_ns(rows[:, 2])
        events['x'], events['y'] = rows[:, 0], rows[:, 1]
        events['p'] = rows[:, 3] > 0
        return events

    return Columns(len(table), read)


def _dsec_geometry(file: Any, path: Path) -> tuple[int, int]:
    """The size that the file tells, else that of the rectification map beside it, else DSEC's."""
    import h5py

    told = file['events'].attrs
    if 'height' in told and 'width' in told:
        return int(told['height']), int(told['width'])
    beside = path.with_name('rectify_map.h5')
    if beside.is_file():
        with h5py.File(beside, 'r') as other:
            height, width = other['rectify_map'].shape[:2]
        return int(height), int(width)
    return 480, 640


def _m3ed_geometry(file: Any, path: Path) -> tuple[int, int]:
    calibration = 'prophesee/left/calib/resolution'
    if calibration not in file:
        return 720, 1280
    width, height = (int(v) for v in file[calibration][:2])
    return height, width


def layout_of(path: Path) -> str:
    """Whose file it is: a key of `LAYOUTS`.

    Raises:
        BagError: not HDF5, or of no known layout.
    """
    import h5py

    try:
        with h5py.File(path, 'r') as file:
            found = [name for name, layout in LAYOUTS.items() if layout.probe in file]
    except _DAMAGE as error:
        raise BagError(f'cannot read {path} as HDF5, is it complete? {error}') from error
    if not found:
        probes = [layout.probe for layout in LAYOUTS.values()]
        raise BagError(f'{path} has no events: expected one of the data sets {probes}')
    return found[0]


LAYOUTS: dict[str, Layout] = {
    'dsec': Layout('events/t', _separate('events'), _dsec_geometry),
    'm3ed': Layout('prophesee/left/t', _separate('prophesee/left'), _m3ed_geometry),
    'mvsec': Layout('davis/left/events', _mvsec_columns, lambda file, path: (260, 346)),
}


class H5FileSource(EventSource):
    """Events of an HDF5 file, packed into EventPackets as they are read."""

    def __init__(self, path: str | Path, topic: str | None = None, encoding: str = 'evt3') -> None:
        """Opens the file.

        Raises:
            BagError: unreadable, damaged, or of no known layout.
        """
        self.path = Path(path)
        self.events = EventFile(self.path)
        self.kind = self.events.layout
        self.geometry = self.events.geometry
        self._encoding = encoding
        self._done = 0
        self.topics = (Topic(EVENTS_TOPIC, EVENT_PACKET, None),)
        self.event_topic = choose_event_topic(self.topics, topic, self.path)
        if self.events.count:
            self.start_ns = self.events.time_ns(0)
            self.end_ns = self.events.time_ns(self.events.count - 1)

    def messages(
        self,
        topics: Collection[str] | None = None,
        start_ns: int = 0,
        duration_ns: int | None = None,
    ) -> Iterator[RawMessage]:
        """See `EventSource.messages`."""
        if topics is not None and EVENTS_TOPIC not in topics:
            return
        assert self.geometry is not None
        packetiser = Packetiser(*self.geometry, FRAME_ID, self._encoding)
        for events in self.slices(start_ns, duration_ns):
            for stamp_ns, cdr in packetiser.push(events):
                yield RawMessage(EVENTS_TOPIC, EVENT_PACKET, stamp_ns, cdr)
        for stamp_ns, cdr in packetiser.flush():
            yield RawMessage(EVENTS_TOPIC, EVENT_PACKET, stamp_ns, cdr)

    def slices(self, start_ns: int = 0, duration_ns: int | None = None) -> Iterator[np.ndarray]:
        """The events themselves, a slice of the file at a time."""
        begin_ns = (self.start_ns or 0) + start_ns
        first = self.events.first_at(begin_ns) if start_ns else 0
        last = self.events.count
        if duration_ns is not None:
            last = self.events.first_at(begin_ns + duration_ns)
        for start in range(first, last, READ_EVENTS):
            stop = min(start + READ_EVENTS, last)
            self._done = stop
            yield self.events.read(start, stop)

    def progress(self) -> float:
        """See `EventSource.progress`."""
        return self._done / max(1, self.events.count)

    def close(self) -> None:
        """See `EventSource.close`."""
        self.events.file.close()
