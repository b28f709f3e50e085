"""Maps as the rows of compiled loops, and the threads that share these rows."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

_TILE = 1536
"""Elements that a loop works on at a time: all their steps stay in the caches of the core."""

_WORTH_A_THREAD = 2**17
"""Elements below which a second thread costs more than it saves."""


def by_head(maps: Tensor, heads: int) -> Tensor:
    """(T, B, D, h, w) to (T*B, heads, h*w, D / heads), without gaps if there is one head.

    A product of bfloat16 matrices with gaps would copy them, every time anew.
    """
    tokens = maps.flatten(0, 1).flatten(2).transpose(1, 2).contiguous()
    return tokens.unflatten(2, (heads, -1)).transpose(1, 2)


def tokens(by_head: Tensor) -> Tensor:
    """(N, heads, h*w, d) to (N, h*w, heads * d)."""
    return by_head.transpose(1, 2).flatten(2)


def as_maps(tokens: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(T*B, h*w, C) to (T, B, C, h, w) over the same memory, `shape` having the other sizes."""
    return tokens.mT.unflatten(2, shape[3:]).unflatten(0, shape[:2])


def alike(x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Both of one type, the channels last in memory."""
    if residual is not None:
        residual = channels_last(residual.to(x.dtype))
    return channels_last(x), residual


def channels_last(x: Tensor) -> Tensor:
    """The same (T, B, C, H, W), each pixel's channels next to each other."""
    return x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)


def dense(x: Tensor) -> Tensor:
    """(T, B, C, H, W) without gaps: as it is in the usual order or with the channels last."""
    return x if x.is_contiguous() else channels_last(x)


def like(x: Tensor, other: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """`x` in the layout of `other`, and in its type if no other is given."""
    dtype = dtype or other.dtype
    if x.dtype == dtype and x.stride() == other.stride():
        return x.detach()
    return torch.empty_like(other, dtype=dtype).copy_(x)


def rows(x: Tensor | None) -> Any:
    """A dense (T, B, C, H, W) as (T, N) over the same memory; bfloat16 as its bits."""
    if x is None:
        return None
    x = x if x.is_contiguous() else x.permute(0, 1, 3, 4, 2)
    x = x.view(torch.uint16) if x.dtype == torch.bfloat16 else x
    return x.detach().view(x.shape[0], -1).numpy()


def row(x: Tensor | None) -> Any:
    """A dense (B, C, H, W) as (N,) over the same memory."""
    return None if x is None else rows(x[None])[0]


def tensor(values: np.ndarray) -> Tensor:
    """The values as float32."""
    return torch.from_numpy(values.astype(np.float32))


def floats(row: np.ndarray) -> np.ndarray:
    """A row of kernels' elements as float32."""
    return row if row.dtype == np.float32 else (row.astype(np.uint32) << 16).view(np.float32)


def flat(x: Tensor | None) -> Any:
    """A dense (T, B, C, H, W) as (T * N,) over the same memory."""
    return None if x is None else rows(x).reshape(-1)


def tile(channels: int) -> int:
    """Elements of a tile: whole pixels."""
    return channels * max(1, _TILE // channels)


def tiled(values: np.ndarray) -> np.ndarray:
    """(..., C) repeated to a tile (..., K) of float32."""
    *others, channels = values.shape
    out = np.empty((*others, max(1, _TILE // channels), channels), np.float32)
    out[...] = values[..., None, :]  # a third of the time of np.tile
    return out.reshape(*others, -1)


def spread(work: Callable[[int, int], Any], columns: int, channels: int) -> list[Any]:
    """Runs `work` on all columns from begin to end, in parts by as many threads as torch uses."""
    threads = torch.get_num_threads() if columns >= _WORTH_A_THREAD else 1
    if threads == 1:
        return [work(0, columns)]
    bounds = np.linspace(0, columns // channels, threads + 1).astype(int) * channels
    return list(pool(threads).map(work, bounds[:-1], bounds[1:]))


def summed(work: Callable[[int, int], np.ndarray], columns: int, channels: int) -> np.ndarray:
    """What `work` sums up in tiles (..., K), of all columns: (..., C)."""
    tiles = sum(spread(work, columns, channels))
    return tiles.reshape(*tiles.shape[:-1], -1, channels).sum(-2)


@functools.cache
def pool(threads: int) -> ThreadPoolExecutor:
    """The threads that `spread` uses; they remain for the next call."""
    return ThreadPoolExecutor(threads, 'fused')
