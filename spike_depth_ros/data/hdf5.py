"""HDF5 files that survive a fork, and whose errors name the file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from spike_depth_ros.data.sample import DatasetError


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
        return int(self._read(name, ()))

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) of a data set."""
        return self._read(name, slice(start, stop))

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
        try:
            return self._file[name]
        except KeyError as error:
            raise self.damaged(f'has no data set {name!r}') from error

    def _read(self, name: str, selection: Any) -> Any:
        dataset = self._dataset(name)
        try:
            return dataset[selection]
        except (OSError, RuntimeError, ValueError, IndexError) as error:
            raise self.damaged(f'cannot be read at {name}[{selection}] ({error})') from error

    def damaged(self, what: str) -> DatasetError:
        """The error that says so, with the advice."""
        return DatasetError(f'{self.path} {what}: {self._advice}')
