"""Compiles kernels, and keeps machine code on disk that is never older than its source.

numba's cache looks at the file of the outermost function alone: a kernel that calls one of
another file would run with the old one after an update. Here all files of the folder count, so
kernels call kernels of their own folder only.
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


def compiled(**options: Any) -> Callable[[Callable], Any]:
    """Decorates a kernel: numba's njit without the GIL, cached on disk.

    Args:
        options: more of numba's own, such as `error_model` or `fastmath`.
    """

    def decorate(function: Callable) -> Any:
        try:
            kernel = numba.njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # of numba, which finds no folder that it may write to
            _say_uncached()
            return numba.njit(nogil=True, **options)(function)
        # where numba keeps what a cached kernel must be as fresh as; nowhere if it is switched off
        index = getattr(getattr(kernel, '_cache', None), '_cache_file', None)
        if index is not None:
            folder = Path(function.__code__.co_filename).parent
            index._source_stamp = (index._source_stamp, folder_digest(folder))
        return kernel

    return decorate


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
