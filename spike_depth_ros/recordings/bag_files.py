"""The files of a bag: which of them are played, and what is said about damaged ones."""

from __future__ import annotations

import contextlib
import errno
import filecmp
import logging
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from spike_depth_ros.events.yaml_file import read_yaml
from spike_depth_ros.recordings.source import BagError, visible
from spike_depth_ros.recordings.unpack import inner_suffix, is_packed, unpacked

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

log = logging.getLogger(__name__)

STORAGE_SUFFIXES = ('.mcap', '.db3')
NOT_DAMAGE = (errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EMFILE)
"""What the system may say of a bag that is whole."""
FOREIGN = {
    'Profile is not ros2': 'was not recorded by ROS 2; of ROS 1, the .bag is read',
    **{
        f"'{kind}'": f'has channels of {kind}, which ROS 2 does not know; copy the others: '
        'mcap filter IN --include-topic-regex TOPICS --output OUT'
        for kind in ('flatbuffer', 'jsonschema', 'protobuf', 'ros1msg')
    },
}
"""What the storage library says of an MCAP file that is whole but not of ROS 2 -> what it is."""
_REPAIRED = re.compile('recover|repair|reindex|fix', re.IGNORECASE)
"""What the name of a repaired copy holds."""


class BagFile(NamedTuple):
    """One file of a bag, open."""

    path: Path
    reader: Any  # of rosbags


def open_ros1(path: Path, stack: contextlib.ExitStack) -> list[BagFile]:
    """Opens a ROS 1 bag.

    Raises:
        BagError: it is damaged.
    """
    from rosbags.rosbag1 import Reader

    with damage(path):
        return [BagFile(path, stack.enter_context(Reader(path)))]


def open_ros2(path: Path, stack: contextlib.ExitStack) -> list[BagFile]:
    """Opens the files of a ROS 2 bag: a folder, or one file.

    Of a folder's metadata.yaml only the list of files counts: a recorder that was killed leaves
    none, and where its QoS was edited it no longer fits its files. In the place of a damaged file
    a repaired copy beside it is opened; the log names both.

    Raises:
        BagError: a file is damaged, and there is no repaired copy.
    """
    if not path.is_dir():
        return [_open_file(path, stack)]
    present = storage_files(path)
    if not present:
        raise BagError(f'{path} holds no bag file, expected one of {list(STORAGE_SUFFIXES)}')
    chosen = _listed(path, present)
    if len(chosen) < len(present):
        left_out = sorted(p.name for p in set(present) - set(chosen))
        log.info('%s: not played, since metadata.yaml does not list them: %s', path, left_out)
    chosen = [p for p in chosen if not _is_superseded(p, chosen)]
    chosen = _without_empty_and_copies(chosen)
    opened: dict[Path, BagFile] = {}
    for file in chosen:
        try:
            opened[file] = _open_file(file, stack)
        except BagError as error:
            repaired = _open_repaired(file, [p for p in present if p != file], opened, stack)
            if repaired is None:
                raise
            log.warning('%s. Played instead: %s', error, repaired)
    return list(opened.values())


def storage_files(folder: Path) -> list[Path]:
    """The bag files directly inside a folder, by name; none twice, packed and unpacked."""
    files = [p for p in visible(folder.iterdir()) if inner_suffix(p) in STORAGE_SUFFIXES]
    return [p for p in files if not (is_packed(p) and p.with_suffix('') in files)]


def _listed(folder: Path, present: list[Path]) -> list[Path]:
    """The files that metadata.yaml lists; all if it lists none of them."""
    try:
        about = read_yaml(folder / 'metadata.yaml')['rosbag2_bagfile_information']
        names = [Path(str(name)).name for name in about['relative_file_paths']]
    except (OSError, ValueError, KeyError, TypeError):
        return present
    stems = {Path(n).stem if is_packed(Path(n)) else n for n in names}
    chosen = [p for p in present if (p.stem if is_packed(p) else p.name) in stems]
    found = {p.stem if is_packed(p) else p.name for p in chosen}
    if chosen and len(found) < len(stems):
        log.warning('%s lacks %s, which its metadata.yaml lists', folder, sorted(stems - found))
    return chosen or present


def _without_empty_and_copies(files: list[Path]) -> list[Path]:
    """Leaves out empty files, if others are not, and files that are equal to another."""
    filled = [p for p in files if p.stat().st_size] or files
    for file in set(files) - set(filled):
        log.warning('%s is empty and not played: the recorder was cut off', file)
    kept: list[Path] = []
    for file in filled:
        twin = next((p for p in kept if filecmp.cmp(p, file, shallow=False)), None)
        if twin is None:
            kept.append(file)
        else:
            log.warning('%s is not played: it equals %s', file, twin.name)
    return kept


def _is_copy(copy: Path, original: Path) -> bool:
    """Whether a file is by its name a repaired copy of another."""
    stem = original.name.split('.')[0]
    rest = copy.name.removeprefix(stem)
    return rest != copy.name and _REPAIRED.search(rest) is not None


def _is_superseded(file: Path, chosen: list[Path]) -> bool:
    """Whether a repaired copy of the file is among those chosen."""
    if _REPAIRED.search(file.name):
        return False
    copies = [p for p in chosen if p != file and _is_copy(p, file)]
    if copies:
        log.warning('%s is not played, since %s is its repaired copy', file, copies[0])
    return bool(copies)


def _open_repaired(
    broken: Path, others: list[Path], opened: dict[Path, BagFile], stack: contextlib.ExitStack
) -> Path | None:
    """Opens the repaired copy of a file; None if there is none."""
    stem = broken.name.split('.')[0]
    likely = [p for p in others if _is_copy(p, broken)]
    likely += [p for p in others if p.name.startswith(stem) and p not in likely]
    for file in likely:
        if file in opened:
            return file
        with contextlib.suppress(BagError):
            opened[file] = _open_file(file, stack)
            return file
    return None


def _open_file(file: Path, stack: contextlib.ExitStack) -> BagFile:
    from rosbags.rosbag2 import Reader

    with damage(file):
        log_file = file.with_name(f'{file.name}-wal')  # rosbags does not look into it
        if log_file.is_file() and log_file.stat().st_size:
            raise BagError(
                f'{file} has messages in {log_file.name} still, as after a recorder that was '
                f'killed: move them with sqlite3 {file.name} "pragma wal_checkpoint(truncate)"'
            )
        readable = file
        if is_packed(file) or file.suffix not in STORAGE_SUFFIXES:
            copy = unpacked(file)
            stack.callback(copy.close)
            readable = copy.path
        return BagFile(file, stack.enter_context(Reader(readable)))


@contextlib.contextmanager
def damage(path: Path) -> Iterator[None]:
    """Turns whatever the storage libraries raise on a damaged file into a `BagError`.

    They check little, so a damaged byte may surface as any of these.
    """
    import apsw
    from rosbags.rosbag1 import ReaderError as Ros1Error
    from rosbags.rosbag2 import ReaderError as Ros2Error
    from rosbags.serde import SerdeError

    kinds = (Ros1Error, Ros2Error, SerdeError, apsw.Error, zstd.ZstdError, EOFError, KeyError,
             ValueError, TypeError, IndexError, AssertionError, RuntimeError, OSError,
             OverflowError, MemoryError, struct.error)  # fmt: skip
    try:
        yield
    except BagError:
        raise
    except kinds as error:
        reason = str(error).rstrip('.') or type(error).__name__
        first = error.__cause__ or error  # the libraries wrap what the system says
        if isinstance(first, MemoryError) or getattr(first, 'errno', None) in NOT_DAMAGE:
            raise BagError(f'{path} cannot be read: {reason}') from error
        if reason in FOREIGN:
            raise BagError(f'{path} {FOREIGN[reason]}') from error
        if path.is_file() and not path.stat().st_size:
            raise BagError(
                f'{path} is empty: the recorder was cut off, or a copy failed'
            ) from error
        if isinstance(error, TypeError | IndexError | KeyError | AssertionError | struct.error):
            reason = f'a part of it is missing or damaged ({reason})'
        raise BagError(
            f'{path} is not a complete bag: {reason}. If the recorder was cut off, repair it: '
            f'{_repair(path)}'
        ) from error


def _repair(path: Path) -> str:
    """The command that mends a file of that kind."""
    kind = inner_suffix(path)
    if kind == '.bag':
        return f'rosbag reindex {path.name}'
    if kind == '.mcap':
        return f'mcap recover {path.name} -o {path.name.split(".")[0]}_recovered.mcap'
    return f'ros2 bag reindex -s sqlite3 {path if path.is_dir() else path.parent}'
