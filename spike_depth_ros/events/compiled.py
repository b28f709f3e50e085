"""Compiles kernels and caches their machine code, which is never older than its source.

numba's cache checks the file of the outermost function only. After an update, a kernel that calls
one of another file would use the old version of it. Here a change of any file in the folder
invalidates the cache, so kernels may call kernels of their own folder only.

Machine code lies beside its source, or in `NUMBA_CACHE_DIR`. A user who may not write there reads
it all the same and keeps what is missing in the user's cache folder; numba would compile all of it
again. This module uses private names of numba, no other does.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils
from numba.core.caching import CompileResultCacheImpl, FunctionCache, NullCache, _CacheLocator
from numba.extending import intrinsic

from spike_depth_ros.events.config import cache_folder

log = logging.getLogger(__name__)


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorates a kernel: numba's njit without the GIL, cached on disk.

    Args:
        options: further options of `numba.njit`, such as `error_model` or `fastmath`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        kernel = numba.njit(nogil=True, **options)(function)
        kernel._cache = KernelCache(function)
        return kernel

    return decorate


class _BesideSource(_CacheLocator):
    """Machine code beside the source, or in `NUMBA_CACHE_DIR`; valid for the present sources."""

    def __init__(self, function: Callable[..., Any], file: str) -> None:
        self._py_file = file  # numba names it in its warnings
        self._line = function.__code__.co_firstlineno

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> _BesideSource:
        return cls(function, file)

    def get_cache_path(self) -> str:
        given = getattr(numba.config, 'CACHE_DIR', '')
        if given:
            return str(Path(given, self.get_suitable_cache_subpath(self._py_file)))
        return str(Path(self._py_file).parent / '__pycache__')

    def get_source_stamp(self) -> str:
        return folder_digest(Path(self._py_file).parent)

    def get_disambiguator(self) -> str:
        return str(self._line)


class _OfUser(_BesideSource):
    """Machine code in the cache folder of the user."""

    def get_cache_path(self) -> str:
        subpath = self.get_suitable_cache_subpath(self._py_file)
        return str(cache_folder() / 'kernels' / subpath)


def _cache_in(place: type[_BesideSource]) -> Any:
    """A cache class of numba that keeps machine code in one place."""
    code = type('Code', (CompileResultCacheImpl,), {'_locator_classes': [place]})
    return type('Cache', (FunctionCache,), {'_impl_class': code})


_PLACES = _cache_in(_BesideSource), _cache_in(_OfUser)


class KernelCache(NullCache):
    """Reads the machine code of a kernel from where it lies and writes it where it may.

    Whatever is wrong with files on disk, the kernel is compiled again.

    Args:
        function: the kernel as a Python function.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    @functools.cached_property
    def _caches(self) -> list[Any]:
        caches = []
        for make in _PLACES:
            try:
                caches.append(make(self._function))
            except OSError as error:  # a user without a home
                log.debug('%s', error)
        return caches

    def load_overload(self, signature: Any, target: Any) -> Any:
        """The machine code for these argument types; None if there is none."""
        for cache in self._caches:
            try:
                code = cache.load_overload(signature, target)
            except OSError as error:
                log.debug('%s', error)
            except Exception:  # of unpickling: a file that a power failure cut off
                log.warning('%s holds a damaged kernel: compiling it again', cache.cache_path)
                with contextlib.suppress(OSError):
                    cache.flush()
            else:
                if code is not None:
                    return code
        return None

    def save_overload(self, signature: Any, code: Any) -> None:
        """Keeps machine code in the first place that may be written to."""
        for cache in self._caches:
            try:
                cache.save_overload(signature, code)
                return
            except OSError as error:
                log.debug('%s', error)
        _say_uncached()


def _prefetch(_typing: Any, array: Any, index: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        data = context.make_array(kind)(context, builder, arguments[0])
        place = cgutils.get_item_pointer(context, builder, kind, data, [arguments[1]])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        form = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, form, 'llvm.prefetch.p0')
        to_read, keep, data_cache = number(0), number(3), number(1)
        builder.call(function, [builder.bitcast(place, byte), to_read, keep, data_cache])
        return context.get_dummy_value()

    return numba.types.void(array, index), build


prefetch: Any = intrinsic(_prefetch)
"""prefetch(array, index), for kernels: starts loading an element into the CPU cache and does not
wait for it. The index may lie beyond the end."""


@functools.cache
def _say_uncached() -> None:
    log.warning('no writable folder for compiled kernels: each start takes a minute longer; set '
                'NUMBA_CACHE_DIR or XDG_CACHE_HOME to a writable folder')  # fmt: skip


@functools.cache
def folder_digest(folder: Path) -> str:
    """Digest of the Python files of a folder at the time of the first call."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob('*.py')):
        digest.update(path.name.encode() + b'\0' + path.read_bytes() + b'\0')
    return digest.hexdigest()
