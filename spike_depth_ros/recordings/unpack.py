"""Files that were compressed as a whole with zstd, and endings in upper case."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from spike_depth_ros.recordings.source import BagError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACKED_SUFFIXES = ('.zst', '.zstd')
COPY_BYTES = 1 << 20


class TemporaryCopy(NamedTuple):
    """A file in a temporary folder of its own."""

    path: Path
    folder: tempfile.TemporaryDirectory[str]

    def close(self) -> None:
        """Removes it."""
        self.folder.cleanup()


def is_packed(path: Path) -> bool:
    """Whether a file is compressed as a whole, by its name."""
    return path.suffix.lower() in PACKED_SUFFIXES


def inner_suffix(path: Path) -> str:
    """The ending of a file in lower case, below that of a compression."""
    return Path(path.stem).suffix.lower() if is_packed(path) else path.suffix.lower()


def unpacked(path: Path) -> TemporaryCopy:
    """A decompressed copy of a file, its ending in lower case; a link to one that is not packed.

    Raises:
        BagError: the file is not zstd, damaged, or does not fit on the disk.
    """
    folder = tempfile.TemporaryDirectory(prefix='spike_depth_')
    stem = Path(path.stem).stem if is_packed(path) else path.stem
    copy = Path(folder.name) / f'{stem}{inner_suffix(path)}'
    try:
        if is_packed(path):
            with zstd.open(path, 'rb') as packed, copy.open('wb') as out:
                shutil.copyfileobj(packed, out, COPY_BYTES)
        else:
            copy.symlink_to(path.resolve())
    except (OSError, EOFError, zstd.ZstdError) as error:
        folder.cleanup()
        raise BagError(f'{path} cannot be unpacked: {error}. Is it complete?') from error
    return TemporaryCopy(copy, folder)
