"""One way to open any recording of events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from spike_depth_ros.recordings.aedat4_file import Aedat4Source
from spike_depth_ros.recordings.array_source import ArraySource
from spike_depth_ros.recordings.bag_files import storage_files
from spike_depth_ros.recordings.dat_file import DatEvents
from spike_depth_ros.recordings.dsec import DsecFolder
from spike_depth_ros.recordings.hdf5_events import Hdf5Events
from spike_depth_ros.recordings.m3ed import M3edFiles
from spike_depth_ros.recordings.mvsec import MvsecFiles
from spike_depth_ros.recordings.raw_file import RawFileSource
from spike_depth_ros.recordings.rosbag import RosbagSource
from spike_depth_ros.recordings.source import BagError, EventSource, parse_sensor
from spike_depth_ros.recordings.unpack import inner_suffix, is_packed, unpacked

_EXPECTED = (
    'a rosbag2 folder, a .bag, .db3, .mcap, .h5, .hdf5, .raw, .dat or .aedat4 file, each also '
    'with .zst or .zstd, or a folder in DSEC layout'
)
_MOST_HINTS = 3


class _Options(NamedTuple):
    """What the user says about a recording; see `open_source`."""

    topic: str | None
    encoding: str
    any_of_several: bool
    sensor: tuple[int, int] | None
    time_unit: str


def open_source(
    path: str | Path,
    topic: str | None = None,
    encoding: str = 'evt3',
    any_of_several: bool = False,
    sensor: str | tuple[int, int] | None = None,
    time_unit: str = '',
) -> EventSource:
    """Opens a recording of events.

    Args:
        path: ROS 1 .bag; rosbag2 folder, .db3 or .mcap; DSEC sequence folder; HDF5 file of DSEC,
            M3ED, MVSEC, Prophesee or with columns of events; Prophesee .raw or .dat; AEDAT4. Each
            file may be packed as .zst or .zstd.
        topic: topic of the events; None if there is only one.
        encoding: of the packets that are made from files without packets, 'evt3' or 'mono'.
        any_of_several: of a bag with several topics of events take the first instead of asking
            for one: for a caller that reads them all.
        sensor: size where the recording does not state it: 'WIDTHxHEIGHT', or (height, width).
        time_unit: 's', 'ms', 'us' or 'ns' where an HDF5 file does not show it; '' to find out.

    Returns:
        The source, open; use it as a context manager.

    Raises:
        BagError: nothing at the path, not a recording, damaged, or without such events.
    """
    path = Path(path).expanduser()
    if isinstance(sensor, str):
        sensor = parse_sensor(sensor)
    options = _Options(topic, encoding, any_of_several, sensor, time_unit)
    if not path.exists():
        raise BagError(f'nothing at {path}: expected {_EXPECTED}')
    if path.name.startswith('._'):
        raise BagError(
            f'{path} is what macOS keeps beside a file on a foreign disk: give '
            f'{path.with_name(path.name[2:])}'
        )
    if path.is_dir():
        return _open_folder(path, options)
    if path.name.lower().endswith('.active'):
        raise BagError(
            f'{path} is what a ROS 1 recorder leaves when it is killed: mend it with '
            f'`rosbag reindex {path.name}`, then rename it to {path.name[: -len(".active")]}'
        )
    opener = _OPENERS.get(inner_suffix(path))
    if opener is None:
        raise BagError(f'{path} is not a recording: expected {_EXPECTED}')
    return _open_packed(path, options, opener) if is_packed(path) else opener(path, options)


def recordings_in(path: str | Path) -> list[Path]:
    """Returns the recordings directly in a folder; the path itself if it is one, or no folder."""
    path = Path(path).expanduser()
    if not path.is_dir() or _looks_like_recording(path):
        return [path]
    return [child for child in sorted(path.iterdir()) if _looks_like_recording(child)] or [path]


def _open_packed(path: Path, options: _Options, opener: _Opener) -> EventSource:
    """Opens a file that was compressed as a whole, from a temporary copy."""
    copy = unpacked(path)
    try:
        source = opener(copy.path, options)
    except BagError as error:
        copy.close()
        raise BagError(str(error).replace(str(copy.path), str(path))) from error
    source.resources.callback(copy.close)
    source.path = path
    return source


def _open_folder(path: Path, options: _Options) -> EventSource:
    if _is_bag(path):
        return _open_rosbag(path, options)
    if _is_dsec(path):
        folder = DsecFolder(path, options.sensor)
        return _arrays(path, folder, options)
    inside = [p for p in sorted(path.iterdir()) if _looks_like_recording(p)]
    names = [str(p) for p in inside[:_MOST_HINTS]]
    more = f' and {len(inside) - _MOST_HINTS} more' if len(inside) > _MOST_HINTS else ''
    hint = f'; in it are {", ".join(names)}{more}: give one of them' if inside else ''
    raise BagError(f'{path} is a folder, but not a recording: expected {_EXPECTED}{hint}')


def _looks_like_recording(path: Path) -> bool:
    """Whether a name, or the files of a folder, are those of a recording."""
    if path.name.startswith('.'):
        return False
    if path.is_dir():
        return _is_bag(path) or _is_dsec(path)
    return inner_suffix(path) in _OPENERS


def _is_bag(path: Path) -> bool:
    return (path / 'metadata.yaml').is_file() or bool(storage_files(path))


def _is_dsec(path: Path) -> bool:
    return (path / 'events' / 'left' / 'events.h5').is_file()


def _open_rosbag(path: Path, options: _Options) -> EventSource:
    return RosbagSource(path, options.topic, options.any_of_several, options.sensor)


def _open_raw(path: Path, options: _Options) -> EventSource:
    return RawFileSource(path, options.topic, options.sensor)


def _open_dat(path: Path, options: _Options) -> EventSource:
    events = DatEvents(path, options.sensor)
    source = ArraySource(path, events, options.topic, options.encoding)
    source.dropped = events.dropped + Counter(source.dropped)
    return source


def _open_aedat4(path: Path, options: _Options) -> EventSource:
    return Aedat4Source(path, options.topic, options.encoding, options.sensor)


def _open_hdf5(path: Path, options: _Options) -> EventSource:
    """An HDF5 file, with what lies beside it if it is of a known data set."""
    events = Hdf5Events(path, options.sensor, options.time_unit)
    events.close()
    if events.kind == 'mvsec':
        return _arrays(path, MvsecFiles(path, options.sensor), options)
    if events.kind == 'm3ed':
        return _arrays(path, M3edFiles(path, options.sensor), options)
    return ArraySource(path, events, options.topic, options.encoding)


def _arrays(
    path: Path, files: DsecFolder | MvsecFiles | M3edFiles, options: _Options
) -> EventSource:
    return ArraySource(path, files.events, options.topic, options.encoding, files.series())


_Opener = Callable[[Path, _Options], EventSource]
_OPENERS: dict[str, _Opener] = {
    '.bag': _open_rosbag,
    '.db3': _open_rosbag,
    '.mcap': _open_rosbag,
    '.raw': _open_raw,
    '.dat': _open_dat,
    '.aedat4': _open_aedat4,
    '.aedat': _open_aedat4,
    '.h5': _open_hdf5,
    '.hdf5': _open_hdf5,
}
"""Ending of a file, in lower case -> what opens it."""
