"""The fusion head of inference on the CPU: `FusionHead` from averages that are rectified."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spike_depth_ros.network import inference_kernels as kernels
from spike_depth_ros.network.inference_layers import Convolution, Pointwise, pixels


class Head:
    """The layers of a fusion head.

    Args:
        head: folded; it is changed.
        dtype: of weights and maps.
    """

    def __init__(self, head: Any, dtype: torch.dtype) -> None:
        _order_by_pixel(head.up4.conv)
        _order_by_pixel(head.up2.conv)
        self._fuse = Pointwise(head.fuse, dtype)
        self._down16, self._down32, self._smooth4, self._smooth2, self._out = (
            Convolution(conv, dtype)
            for conv in (head.down16.conv, head.down32.conv, head.smooth4, head.smooth2, head.out)
        )
        self._context = head.context.to(dtype)
        self._deep32, self._deep16 = (
            [(Convolution(b.conv1, dtype), Convolution(b.conv2, dtype)) for b in blocks]
            for blocks in (head.deep32, head.deep16)
        )
        self._up4, self._skip4, self._up2, self._skip2 = (
            Pointwise(conv, dtype)
            for conv in (head.up4.conv, head.up4.skip, head.up2.conv, head.up2.skip)
        )

    def __call__(self, stem2: Tensor, stem4: Tensor, joined: Tensor) -> Tensor:
        """Maps (1, C, h, w) at strides 2, 4 and 8 to raw maps (1, 3, H/2, W/2)."""
        f8 = self._fuse(joined)
        f16 = self._down16(f8.relu())
        f32 = self._down32(f16.relu())
        f32 += self._context(f32.mean((-1, -2)))[..., None, None]
        for conv1, conv2 in self._deep32:
            f32 = conv2(conv1(f32.relu(), relu=True), add_to=f32)
        _enlarge(f32, f16)
        for conv1, conv2 in self._deep16:
            f16 = conv2(conv1(f16.relu(), relu=True), add_to=f16)
        f8 = _enlarge(f16, f8)
        f4 = _unfolded(self._up4(f8), self._skip4(stem4))
        f2 = _unfolded(self._up2(self._smooth4(f4, relu=True)), self._skip2(stem2))
        return self._out(self._smooth2(f2, relu=True))


def _order_by_pixel(conv: nn.Conv2d) -> None:
    """Channels of one of four pixels after the other, where `pixel_shuffle` has them mixed."""
    for values in (conv.weight, conv.bias):
        assert values is not None, 'a folded convolution has a bias'
        values.copy_(values.unflatten(0, (-1, 4)).transpose(0, 1).flatten(0, 1).clone())


def _enlarge(coarse: Tensor, fine: Tensor) -> Tensor:
    """Adds to `fine` (1, C, H, W) the coarser map, enlarged; the sum rectified."""
    rectified = torch.empty_like(fine)
    rows, shares_y = _between(coarse.shape[2], fine.shape[2])
    columns, shares_x = _between(coarse.shape[3], fine.shape[3])
    maps = [pixels(x)[0] for x in (coarse, fine, rectified)]
    kernels.enlarge(*maps, rows, columns, shares_y, shares_x)
    return rectified


def _unfolded(four: Tensor, fine: Tensor) -> Tensor:
    """Adds to `fine` (1, C, 2h, 2w) the pixels that (1, 4C, h, w) holds; rectified, in place."""
    kernels.unfold(pixels(four)[0], pixels(fine)[0])
    return fine


@functools.lru_cache(maxsize=64)
def _between(few: int, many: int) -> tuple[np.ndarray, np.ndarray]:
    """For `many` pixel centres among `few`: index of the one before, share of the one after."""
    place = np.maximum((np.arange(many) + 0.5) * (few / many) - 0.5, 0)
    first = np.minimum(place.astype(np.int64), few - 1)
    return first, (place - first).astype(np.float32)
