"""HDF5 files that survive a fork, and whose errors name the file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from spike_depth_ros.learning.datasets.sample import DatasetError


class Hdf5File:
    """An HDF5 file, opened at the first read and anew in every process.

    A handle that crosses a fork shares its file position with the parent; data loaders fork.

    Args:
        path: the file.
        advice: what to download if it is missing or damaged.
    """

    def __init__(self, path: Path, advice: str) -> None:
        self.path = path
        self._advice = advice
        self._process: int | None = None
        self._file: Any = None
        if not path.is_file():
            raise DatasetError(f'{path} is missing: {advice}')

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {'_process': None, '_file': None}

    def length(self, name: str) -> int:
        """Number of rows of a data set."""
        return int(self._dataset(name).shape[0])

    def scalar(self, name: str) -> int:
        """The one integer that a data set holds."""
        value = np.asarray(self._read(name, ()))
        if value.size != 1 or value.dtype.kind not in 'iu':
            raise self.damaged(f'holds {value.dtype} {value.shape} as {name}, not one integer')
        return int(value.item())

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) of a data set."""
        rows = self._read(name, slice(start, stop))
        if len(rows) != stop - start:
            raise self.damaged(f'has {len(rows)} rows of {name} from {start} on, not the '
                               f'{stop - start} that belong together')  # fmt: skip
        return rows

    def row(self, name: str, index: int) -> Any:
        """One row of a data set."""
        return self._read(name, index)

    def whole(self, name: str) -> np.ndarray:
        """A data set that is known to be small."""
        return self._read(name, ())

    def _dataset(self, name: str) -> Any:
        import h5py
        import hdf5plugin  # noqa: F401 - registers the Blosc filter

        if self._process != os.getpid():
            try:
                self._file = h5py.File(self.path, 'r')
            except OSError as error:
                raise self.damaged(f'cannot be opened ({error})') from error
            self._process = os.getpid()
        dataset = self._file.get(name)
        if not isinstance(dataset, h5py.Dataset):
            raise self.damaged(f'has no data set {name!r}')
        return dataset

    def _read(self, name: str, selection: Any) -> Any:
        dataset = self._dataset(name)
        try:
            return dataset[selection]
        except (OSError, RuntimeError, TypeError, ValueError, IndexError) as error:
            raise self.damaged(f'cannot be read at {name}[{selection}] ({error})') from error

    def damaged(self, what: str) -> DatasetError:
        """The error that says so, with the advice."""
        return DatasetError(f'{self.path} {what}: {self._advice}')
