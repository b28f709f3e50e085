"""Compiles kernels and caches their machine code, which is never older than its source.

numba's cache checks the file of the outermost function only. After an update, a kernel that calls
one of another file would use the old version of it. Here a change of any file in the folder
invalidates the cache, so kernels may call kernels of their own folder only.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

log = logging.getLogger(__name__)


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorates a kernel: numba's njit without the GIL, cached on disk.

    Args:
        options: further options of `numba.njit`, such as `error_model` or `fastmath`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            kernel = numba.njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # numba finds no writable folder
            _say_uncached()
            return numba.njit(nogil=True, **options)(function)
        _stamp(kernel, folder_digest(Path(function.__code__.co_filename).parent))
        return kernel

    return decorate


def _stamp(kernel: Any, digest: str) -> None:
    """Invalidates the cached machine code of a kernel unless the digest is the same.

    numba's cache compares `_source_stamp`, a private attribute; no other module uses private names
    of numba. Kernels that numba does not cache have no cache file.
    """
    index = getattr(getattr(kernel, '_cache', None), '_cache_file', None)
    if index is not None:
        index._source_stamp = (index._source_stamp, digest)


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
    log.warning('no writable folder for compiled kernels: each start takes a minute longer; '
                'set NUMBA_CACHE_DIR to a writable folder')  # fmt: skip


@functools.cache
def folder_digest(folder: Path) -> str:
    """Digest of the Python files of a folder at the time of the first call."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob('*.py')):
        digest.update(path.name.encode() + b'\0' + path.read_bytes() + b'\0')
    return digest.hexdigest()
