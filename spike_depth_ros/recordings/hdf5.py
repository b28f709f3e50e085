"""HDF5 files that survive a fork, and whose errors name the file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.recordings.ecf import ECF_FILTER, EcfError, decode_ecf
from spike_depth_ros.recordings.source import BagError

DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError)
"""What h5py raises on a damaged file, depending on where the damage is."""

COPY_AGAIN = 'is it complete? Copy it again'
MOST_DATASETS = 1000
"""How many data sets of a file are listed at most."""


class DatasetInfo(NamedTuple):
    """One data set of an HDF5 file."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Hdf5File:
    """An HDF5 file that is opened at the first read, and again in every process.

    A handle that crosses a fork shares its file position with the parent; data loaders fork.

    Args:
        path: the file.
        advice: what to do if it is missing or damaged.
    """

    def __init__(self, path: Path, advice: str = COPY_AGAIN) -> None:
        self.path = path
        self.advice = advice
        self._process: int | None = None
        self._file: Any = None
        if not path.is_file():
            raise BagError(f'{path} is missing: {advice}')

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {'_process': None, '_file': None}

    def __contains__(self, name: str) -> bool:
        """Whether there is a data set of that name."""
        import h5py

        with self._reading(name):
            return isinstance(self._open().get(name), h5py.Dataset)

    def is_group(self, name: str) -> bool:
        """Whether there is a group of that name."""
        import h5py

        with self._reading(name):
            return isinstance(self._open().get(name), h5py.Group)

    def datasets(self) -> list[DatasetInfo]:
        """The data sets of the file, the first `MOST_DATASETS` of them."""
        import h5py

        found: list[DatasetInfo] = []

        def visit(name: str, item: Any) -> bool | None:
            is_text = isinstance(name, str)  # bytes, if it is damaged
            if is_text and isinstance(item, h5py.Dataset) and item.shape is not None:
                found.append(DatasetInfo(name, item.shape, item.dtype))
            return True if len(found) >= MOST_DATASETS else None

        with self._reading('/'):
            self._open().visititems(visit)
        return found

    def attributes(self, name: str = '/') -> dict[str, Any]:
        """The attributes of a group or data set; empty if there is none of that name."""
        with self._reading(f'the attributes of {name}'):
            item = self._open().get(name)
            return {} if item is None else dict(item.attrs)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a data set."""
        return tuple(int(size) for size in self._dataset(name).shape)

    def dtype(self, name: str) -> np.dtype[Any]:
        """Type of the values of a data set."""
        with self._reading(name):
            found: np.dtype[Any] = np.dtype(self._dataset(name).dtype)
            return found

    def length(self, name: str) -> int:
        """Number of rows of a data set.

        Raises:
            BagError: it is a single value.
        """
        shape = self.shape(name)
        if not shape:
            raise self.damaged(f'holds a single value as {name}, not rows')
        return shape[0]

    def scalar(self, name: str) -> int:
        """The one integer that a data set holds."""
        value = np.asarray(self._read(name, ()))
        if value.size != 1 or value.dtype.kind not in 'iu':
            raise self.damaged(f'holds {value.dtype} {value.shape} as {name}, not one integer')
        return int(value.item())

    def rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows [start, stop) of a data set."""
        rows = self._read(name, slice(start, stop))
        if len(rows) != stop - start:
            raise self.damaged(f'has {len(rows)} rows of {name} from {start} on, not the '
                               f'{stop - start} that belong together')  # fmt: skip
        return np.asarray(rows)

    def row(self, name: str, index: int) -> Any:
        """One row of a data set."""
        return self._read(name, slice(index, index + 1))[0]

    def whole(self, name: str) -> NDArray[Any]:
        """All of a data set that is known to be small."""
        return np.asarray(self._read(name, ()))

    def close(self) -> None:
        """Closes the file; the next read opens it again."""
        if self._file is not None and self._process == os.getpid():
            self._file.close()
        self._process = self._file = None

    def damaged(self, what: str) -> BagError:
        """The error that says so, with the advice."""
        return BagError(f'{self.path} {what}: {self.advice}')

    def _open(self) -> Any:
        import h5py
        import hdf5plugin  # noqa: F401 - registers Blosc with HDF5

        if self._process != os.getpid():
            try:
                self._file = h5py.File(self.path, 'r')
            except OSError as error:
                raise self.damaged(f'cannot be opened as HDF5 ({error})') from error
            self._process = os.getpid()
        return self._file

    def _dataset(self, name: str) -> Any:
        import h5py

        with self._reading(name):
            dataset = self._open().get(name)
        if not isinstance(dataset, h5py.Dataset):
            raise self.damaged(f'has no data set {name!r}')
        return dataset

    def _read(self, name: str, selection: Any) -> Any:
        dataset = self._dataset(name)
        with self._reading(f'{name}[{selection}]'):
            if isinstance(selection, slice) and _is_ecf(dataset):
                return _ecf_rows(dataset, selection.start, min(selection.stop, len(dataset)))
            return dataset[selection]

    @contextlib.contextmanager
    def _reading(self, place: str) -> Iterator[None]:
        """Turns what h5py raises on a damaged file into a `BagError`."""
        try:
            yield
        except BagError:
            raise
        except EcfError as error:
            raise BagError(
                f'{self.path} is coded with the ECF filter (0x8ECF) of Prophesee, and cannot be '
                f'decoded at {place}: {error}. Is the file complete? If it is, set '
                'HDF5_PLUGIN_PATH to the folder of the hdf5_ecf plugin, which is part of OpenEB'
            ) from error
        except DAMAGE as error:
            raise self.damaged(f'cannot be read at {place} ({error})') from error


def _is_ecf(dataset: Any) -> bool:
    """Whether a data set is ECF-coded and HDF5 has no filter for it."""
    import h5py

    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(k)[0] for k in range(properties.get_nfilters())]
    return filters == [ECF_FILTER] and not h5py.h5z.filter_avail(ECF_FILTER)


def _ecf_rows(dataset: Any, start: int, stop: int) -> NDArray[Any]:
    """Rows of an ECF-coded data set, decoded chunk by chunk."""
    parts = [np.empty(0, dataset.dtype), *_ecf_chunks(dataset, start, stop)]
    return np.concatenate(parts)


def _ecf_chunks(dataset: Any, start: int, stop: int) -> Iterator[NDArray[Any]]:
    size = dataset.chunks[0]
    for first in range(start // size * size, stop, size):
        unfiltered, chunk = dataset.id.read_direct_chunk((first,))
        if unfiltered:
            rows = np.frombuffer(chunk, dataset.dtype)
        else:
            rows = decode_ecf(chunk).astype(dataset.dtype)
        if len(rows) < min(size, len(dataset) - first):
            raise EcfError(f'{len(rows)} events in the chunk at {first}, expected {size}')
        yield rows[max(start - first, 0) : stop - first]
