"""One way to open any recording of events."""

from __future__ import annotations

from pathlib import Path

from spike_depth_ros.recordings.array_source import ArraySource
from spike_depth_ros.recordings.dsec import DsecFolder
from spike_depth_ros.recordings.hdf5_events import Hdf5Events
from spike_depth_ros.recordings.m3ed import M3edFiles
from spike_depth_ros.recordings.mvsec import MvsecFiles
from spike_depth_ros.recordings.raw_file import RawFileSource
from spike_depth_ros.recordings.rosbag import (
    STORAGE_SUFFIXES,
    RosbagSource,
    storage_files,
    storage_suffix,
)
from spike_depth_ros.recordings.source import BagError, EventSource

_EXPECTED = (
    'a rosbag2 folder, a .bag, .db3, .mcap, .h5, .hdf5 or .raw file, or a folder in DSEC layout'
)


def open_source(
    path: str | Path,
    topic: str | None = None,
    encoding: str = 'evt3',
    any_of_several: bool = False,
) -> EventSource:
    """Opens a recording of events.

    Args:
        path: ROS 1 .bag; rosbag2 folder, .db3 or .mcap (each also .zstd); DSEC sequence folder;
            events.h5 of DSEC; M3ED `*_data.h5`; MVSEC `*_data.hdf5`; Prophesee .raw.
        topic: topic of the events; None if there is only one.
        encoding: of the packets that are made from an HDF5 file, 'evt3' or 'mono'.
        any_of_several: of a bag with several topics of events take the first, instead of asking
            for one: for who reads them all.

    Returns:
        The source, open; use it as a context manager.

    Raises:
        BagError: nothing at the path, not a recording, damaged, or without such events.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise BagError(f'nothing at {path}: expected {_EXPECTED}')
    if path.is_dir():
        return _open_folder(path, topic, encoding, any_of_several)
    suffix = storage_suffix(path)
    if suffix == '.bag' or suffix in STORAGE_SUFFIXES:
        return RosbagSource(path, topic, any_of_several)
    if suffix == '.raw':
        return RawFileSource(path, topic)
    if suffix in ('.h5', '.hdf5'):
        return _open_hdf5(path, topic, encoding)
    raise BagError(f'{path} is not a recording: expected {_EXPECTED}')


def _open_folder(
    path: Path, topic: str | None, encoding: str, any_of_several: bool
) -> EventSource:
    if (path / 'metadata.yaml').is_file() or storage_files(path):
        return RosbagSource(path, topic, any_of_several)
    if (path / 'events' / 'left' / 'events.h5').is_file():
        folder = DsecFolder(path)
        return ArraySource(path, folder.events, topic, encoding, folder.series())
    inside = [str(p) for p in sorted(path.iterdir()) if p.is_dir() and storage_files(p)][:3]
    hint = f'; {" and ".join(inside)} would be' if inside else ''
    raise BagError(f'{path} is a folder, but not a recording: expected {_EXPECTED}{hint}')


def _open_hdf5(path: Path, topic: str | None, encoding: str) -> EventSource:
    """An HDF5 file, with what lies beside it if it is of a known data set."""
    events = Hdf5Events(path)
    if events.kind == 'mvsec':
        files: MvsecFiles | M3edFiles = MvsecFiles(path)
    elif events.kind == 'm3ed':
        files = M3edFiles(path)
    else:
        return ArraySource(path, events, topic, encoding)
    events.close()
    return ArraySource(path, files.events, topic, encoding, files.series())
