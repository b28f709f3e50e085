"""Compiles kernels, and keeps machine code on disk that is never older than its source.

numba's cache compares the file of the outermost function only: after an update, a kernel that
calls one of another file would run with the old one. Here all files of the folder count, so
kernels may call kernels of their own folder only.
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
        options: more of numba's own, such as `error_model` or `fastmath`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            kernel = numba.njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # of numba, which finds no folder that it may write to
            _say_uncached()
            return numba.njit(nogil=True, **options)(function)
        _stamp(kernel, folder_digest(Path(function.__code__.co_filename).parent))
        return kernel

    return decorate


def _stamp(kernel: Any, digest: str) -> None:
    """Makes a kernel's machine code on disk void unless the digest is the same.

    The one place where private interfaces of numba are touched: its cache compares
    `_source_stamp`. A kernel that numba does not cache has no such file.
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
"""In kernels, of an array and an index: starts to bring an element into the cache, without waiting
for it. The index may lie beyond the end."""


@functools.cache
def _say_uncached() -> None:
    log.warning('no folder for compiled kernels can be written: each start takes a minute longer; '
                'give one by NUMBA_CACHE_DIR')  # fmt: skip


@functools.cache
def folder_digest(folder: Path) -> str:
    """Digest of the Python files of a folder, as they are when it is first asked for."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob('*.py')):
        digest.update(path.name.encode() + b'\0' + path.read_bytes() + b'\0')
    return digest.hexdigest()
