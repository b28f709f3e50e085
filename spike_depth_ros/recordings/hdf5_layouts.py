"""Where HDF5 files keep their events: known data sets, else whatever columns look like events."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.events.wire import MAX_TIME_NS
from spike_depth_ros.recordings.hdf5 import DatasetInfo, Hdf5File
from spike_depth_ros.recordings.source import BagError, sensor_size
from spike_depth_ros.recordings.time_units import UNITS_NS, find_time_unit

COLUMN_NAMES = {
    't': ('t', 'ts', 'timestamp', 'timestamps', 'time', 'times'),
    'x': ('x', 'xs'),
    'y': ('y', 'ys'),
    'p': ('p', 'ps', 'pol', 'polarity', 'polarities', 'on'),
}
"""Names under which files keep the columns."""

Places = tuple[tuple[str, int | str | None], ...]
"""Of t, x, y, p: the data set, and the column or field of it; None if it is the column."""

SAMPLE_EVENTS = 4096
"""Events that the unit of time is found from."""


@dataclasses.dataclass(frozen=True)
class Times:
    """What the times of a file mean: (t + offset) * unit_ns."""

    unit_ns: int
    offset: int = 0

    def to_ns(self, t: NDArray[Any], file: Hdf5File, start: int) -> NDArray[Any]:
        """Times to int64 ns; floats are rounded to whole microseconds.

        Raises:
            BagError: a time is negative, not a number, or beyond the year 2116.
        """
        low, high = t.min(), t.max()
        in_range = (float(low) + self.offset) * self.unit_ns >= 0 and (
            float(high) + self.offset
        ) * self.unit_ns <= MAX_TIME_NS
        if low < 0 <= high + self.offset and self.offset == 0:
            raise BagError(
                f'{file.path} has negative times, from {low} on after event {start}: add the '
                'same number to all of them'
            )
        if not in_range:  # also where a time is NaN
            raise file.damaged(
                f'has times from {low} to {high} after event {start}, expected 0 to 2^62 ns'
            )
        if t.dtype.kind != 'f':
            return (t.astype(np.int64) + self.offset) * self.unit_ns
        us = np.rint(t.astype(np.float64) * (self.unit_ns / 1000)).astype(np.int64)
        return us * 1000 + self.offset * self.unit_ns


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where one file keeps its events.

    Attributes:
        kind: whose layout it is.
        places: see `Places`.
        count: number of events.
        geometry: (height, width) of the sensor [px].
        times: what the times mean.
        index: name of an index by milliseconds, as DSEC has it.
    """

    kind: str
    places: Places
    count: int
    geometry: tuple[int, int]
    times: Times
    index: str | None = None

    def columns(self, file: Hdf5File, start: int, stop: int) -> list[NDArray[Any]]:
        """Rows [start, stop) of t, x, y and p, as they are stored."""
        names = dict.fromkeys(name for name, _ in self.places)
        rows = {name: file.rows(name, start, stop) for name in names}
        return [_pick(rows[name], key) for name, key in self.places]

    def times_of(self, file: Hdf5File, start: int, stop: int) -> NDArray[Any]:
        """Times of the events [start, stop), as they are stored."""
        name, key = self.places[0]
        return _pick(file.rows(name, start, stop), key)


def _pick(rows: NDArray[Any], key: int | str | None) -> NDArray[Any]:
    if key is None:
        return rows
    return rows[:, key] if isinstance(key, int) else rows[key]


def find_layout(file: Hdf5File, sensor: tuple[int, int] | None, time_unit: str) -> Layout:
    """Finds the events of a file. The arguments are those of `Hdf5Events`.

    Raises:
        BagError: no events, columns that do not fit, or no size.
    """
    if time_unit and time_unit not in UNITS_NS:
        raise BagError(f'time unit is {time_unit!r}, expected one of {list(UNITS_NS)}')
    kind, places, index = _find_columns(file)
    sizes = {name: file.length(name) for name, _ in places}
    if len(set(sizes.values())) > 1:
        raise file.damaged(f'has columns that differ in length: {sizes}')
    count = next(iter(sizes.values()))
    for name, key in places:
        dtype = file.dtype(name)
        column = dtype[key] if isinstance(key, str) else dtype
        if column.kind not in 'biuf':
            raise file.damaged(f'holds {column} in {name}, expected numbers')
    geometry = sensor_size(file.path, *_sizes(file, kind, places, sensor))
    layout = Layout(kind, places, count, geometry, Times(1000), index)
    times = Times(_unit_ns(file, layout, time_unit), _offset(file, kind))
    return dataclasses.replace(layout, times=times)


def _find_columns(file: Hdf5File) -> tuple[str, Places, str | None]:
    """The kind of file, the places of t, x, y, p, and the index by milliseconds."""
    if 'prophesee/left/t' in file:
        return 'm3ed', _columns_of('prophesee/left'), None
    if 'davis/left/events' in file:
        shape = file.shape('davis/left/events')
        if len(shape) != 2 or shape[1] != 4:
            raise file.damaged(f'holds events of shape {shape}, expected (N, 4)')
        return 'mvsec', tuple(('davis/left/events', k) for k in (2, 0, 1, 3)), None
    datasets = file.datasets()
    candidates = [*_groups(datasets), *_tables(datasets)]
    if not candidates:
        listing = ', '.join(f'{d.name} {d.dtype} {d.shape}' for d in datasets[:12]) or 'nothing'
        raise BagError(
            f'{file.path} holds no events that are recognised. It has {listing}; expected columns '
            f'of one length in one group, or fields of one table, named {COLUMN_NAMES}'
        )
    chosen = [c for c in candidates if 'left' in c[0].lower()] if len(candidates) > 1 else []
    name, places = (chosen or candidates)[0]
    if len(candidates) > 1 and len(chosen) != 1:
        raise BagError(
            f'{file.path} holds events in {[c[0] for c in candidates]}, expected one of them: '
            'copy it to a file of its own (h5copy)'
        )
    if name == 'CD/events':
        return 'prophesee', places, None
    is_dsec = name == 'events' and 'ms_to_idx' in file
    return ('dsec' if name == 'events' else 'hdf5'), places, 'ms_to_idx' if is_dsec else None


def _columns_of(group: str) -> Places:
    return tuple((f'{group}/{name}', None) for name in 'txyp')


def _groups(datasets: Iterable[DatasetInfo]) -> Iterable[tuple[str, Places]]:
    """Groups that have a one-dimensional column of every kind."""
    by_group: dict[str, dict[str, str]] = {}
    for dataset in datasets:
        group, _, name = dataset.name.rpartition('/')
        if len(dataset.shape) == 1:
            by_group.setdefault(group, {})[name.lower()] = dataset.name
    for group, names in by_group.items():
        places = _match(names)
        if places is not None:
            yield group, tuple((names[name], None) for name in places)


def _tables(datasets: Iterable[DatasetInfo]) -> Iterable[tuple[str, Places]]:
    """One-dimensional tables that have a field of every kind."""
    for dataset in datasets:
        fields = {name.lower(): name for name in dataset.dtype.names or ()}
        places = _match(fields)
        if places is not None and len(dataset.shape) == 1:
            yield dataset.name, tuple((dataset.name, fields[name]) for name in places)


def _match(names: Iterable[str]) -> list[str] | None:
    """The names of the columns t, x, y and p among others; None if one is missing."""
    known = set(names)
    found = [next((n for n in COLUMN_NAMES[c] if n in known), None) for c in 'txyp']
    return None if None in found else [name for name in found if name is not None]


def _sizes(
    file: Hdf5File, kind: str, places: Places, sensor: tuple[int, int] | None
) -> tuple[tuple[int, int] | None, tuple[int, int] | None, tuple[int, int] | None]:
    """The sizes that `sensor_size` chooses from: stored, given, assumed."""
    if kind == 'mvsec':
        return (260, 346), sensor, None
    if kind == 'm3ed':
        resolution = 'prophesee/left/calib/resolution'
        if resolution not in file:
            return None, sensor, (720, 1280)
        width, height = (int(v) for v in file.whole(resolution)[:2])
        return (height, width), sensor, None
    name = places[0][0]
    parents = ['/', *itertools.accumulate(name.split('/'), lambda a, b: f'{a}/{b}')]
    for parent in reversed(parents):
        stored = _size_in(file.attributes(parent))
        if stored:
            return stored, sensor, None
    beside = file.path.with_name('rectify_map.h5')
    if kind == 'dsec' and beside.is_file():
        height, width = Hdf5File(beside, file.advice).shape('rectify_map')[:2]
        return (height, width), sensor, None
    dsec = kind == 'dsec' and 't_offset' in file and 'ms_to_idx' in file
    return None, sensor, (480, 640) if dsec else None


def _size_in(attributes: dict[str, Any]) -> tuple[int, int] | None:
    """(height, width) that attributes state; of two numbers the larger one is the width."""
    try:
        if 'height' in attributes and 'width' in attributes:
            return int(attributes['height']), int(attributes['width'])
        for name in ('geometry', 'sensor_resolution', 'resolution', 'sensor_size'):
            value = attributes.get(name)
            if isinstance(value, bytes):
                value = value.decode('ascii', 'replace')
            if isinstance(value, str):
                value = re.findall(r'\d+', value)
            numbers = [int(v) for v in np.atleast_1d(value)] if value is not None else []
            if len(numbers) == 2:
                return min(numbers), max(numbers)
    except (TypeError, ValueError, OverflowError):
        return None
    return None


def _offset(file: Hdf5File, kind: str) -> int:
    """What is added to the times of DSEC; the other kinds have absolute times."""
    return file.scalar('t_offset') if kind == 'dsec' and _has(file, 't_offset') else 0


def _has(file: Hdf5File, name: str) -> bool:
    """Whether the root holds anything of that name: a group in its place is damage."""
    return name in file or file.is_group(name)


def _unit_ns(file: Hdf5File, layout: Layout, time_unit: str) -> int:
    """Nanoseconds of one unit of the stored times.

    Raises:
        BagError: the times fit several units.
    """
    if time_unit:
        return UNITS_NS[time_unit]
    if layout.kind == 'mvsec':
        return UNITS_NS['s']
    if layout.kind in ('m3ed', 'prophesee') or not layout.count:
        return UNITS_NS['us']
    sample = layout.times_of(file, 0, min(SAMPLE_EVENTS, layout.count))
    if layout.index is not None and sample.dtype.kind != 'f':
        return UNITS_NS['us']  # the index counts milliseconds of us
    last = layout.times_of(file, max(layout.count - 3, 0), layout.count)
    return find_time_unit(file.path, sample, layout.count, last)
