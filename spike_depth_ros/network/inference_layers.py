"""Layers of inference on the CPU, prepared once from those of a network.

Maps are (N, C, H, W) tensors whose channels lie last in memory. What a call costs however little
there is to do counts here: 60 us for a convolution of oneDNN, 3 us for a product of matrices.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spike_depth_ros.network import inference_kernels as kernels
from spike_depth_ros.network.neurons import Neuron

COUNTS_BYTES = torch.backends.mkldnn.is_available() and torch.cpu._is_avx2_supported()
"""Whether products of bytes are fast here; on ARM torch has but plain loops for them."""

MAX_PACKED = 4
"""Shapes of maps that a convolution keeps its weights laid out for."""


class Convolution:
    """A convolution, its weights laid out once for each shape of maps.

    The layout for another shape would do, but a map of 240x320 then takes a quarter longer.

    Args:
        conv: the convolution.
        dtype: of weights and maps.
    """

    packs = torch.backends.mkldnn.is_available()
    """Whether oneDNN is here, by the operators that torch's own compiler puts into its code."""

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype) -> None:
        self._weight = conv.weight.detach().to(dtype)
        self._bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self._where: tuple[Any, ...] = (
            list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups
        )  # fmt: skip
        self._packed: dict[torch.Size, Tensor] = {}

    def __call__(self, x: Tensor, add_to: Tensor | None = None, relu: bool = False) -> Tensor:
        """The convolution of x (N, C, H, W), rectified or not; or it is added to `add_to`."""
        padding, stride, dilation, groups = self._where
        if not self.packs:
            y = F.conv2d(x, self._weight, self._bias, stride, padding, dilation, groups)
            if add_to is not None:
                return add_to.add_(y)
            return y.relu_() if relu else y
        oneDNN = torch.ops.mkldnn
        weight = self._packed.get(x.shape)
        if weight is None:
            weight = oneDNN._reorder_convolution_weight(self._weight, *self._where, list(x.shape))
            make_room(self._packed, MAX_PACKED)
            self._packed[x.shape] = weight
        if add_to is None:
            return oneDNN._convolution_pointwise.default(
                x, weight, self._bias, *self._where, 'relu' if relu else 'none', [], ''
            )
        return oneDNN._convolution_pointwise_.binary(
            add_to, x, weight, self._bias, *self._where, 'add', 1.0, None, [], ''
        )


class SpikeConvolution:
    """A convolution of spikes in bytes by weights in bytes: its products and sums are exact.

    Every output channel has a scale of its own. What is lost is the rounding of the weights.

    Args:
        conv: the convolution.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        self._weight, self._scale = in_bytes(conv)
        self._zero = torch.zeros(len(self._weight), dtype=torch.int64)
        self._bias = None if conv.bias is None else conv.bias.detach()
        self._where: tuple[Any, ...] = (
            list(conv.stride), list(conv.padding), list(conv.dilation), conv.groups
        )  # fmt: skip
        self._packed: dict[torch.Size, Tensor] = {}

    @staticmethod
    @functools.cache
    def is_available() -> bool:
        """Whether this torch can do it on this processor."""
        spikes = torch.ones((1, 8, 3, 3), dtype=torch.uint8).to(memory_format=torch.channels_last)
        conv = nn.Conv2d(8, 8, 3, bias=False).requires_grad_(False)
        conv.weight.fill_(1.0)
        try:
            sums = SpikeConvolution(conv)(spikes)
        except (RuntimeError, AttributeError):
            return False
        return torch.allclose(sums, torch.full_like(sums, 72.0))

    def __call__(self, x: Tensor) -> Tensor:
        """The convolution of x (N, C, H, W) uint8: float32."""
        oneDNN = torch.ops.onednn
        weight = self._packed.get(x.shape)
        if weight is None:
            weight = oneDNN.qconv_prepack(
                self._weight, self._scale, 1.0, 0, *self._where, list(x.shape)
            )
            make_room(self._packed, MAX_PACKED)
            self._packed[x.shape] = weight
        return oneDNN.qconv2d_pointwise.default(
            x, 1.0, 0, weight, self._scale, self._zero, self._bias, *self._where, 1.0, 0,
            torch.float32, 'none', [], '',
        )  # fmt: skip


class Product:
    """A 1x1 convolution of spikes as the product of two matrices, without its bias.

    Args:
        conv: the convolution.
        dtype: of weights and spikes; int8 for spikes in bytes, whose sums are int32.

    Attributes:
        outputs: O.
        scale: (O,) what the sums must be multiplied by.
        shift: (O,) what must be added then.
        dtype: of the sums.
    """

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype) -> None:
        weight = conv.weight.detach()
        self.outputs = len(weight)
        self.shift = torch.zeros(len(weight)) if conv.bias is None else conv.bias.detach()
        self.scale, self.dtype = torch.ones(len(weight)), dtype
        if dtype == torch.int8:
            weight, self.scale = in_bytes(conv)
            self.dtype = torch.int32
        self._matrix = weight.flatten(1).T.to(dtype).contiguous()  # (C, O)

    def __call__(self, rows: Tensor, out: Tensor) -> None:
        """Fills out (N, O) for spikes (N, C)."""
        if self.dtype == torch.int32:
            torch._int_mm(rows.view(torch.int8), self._matrix, out=out)
        else:
            torch.mm(rows, self._matrix, out=out)


class Pointwise:
    """A 1x1 convolution of maps as the product of two matrices.

    Args:
        conv: the convolution.
        dtype: of weights and maps.
    """

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype) -> None:
        self._weight = conv.weight.detach().flatten(1).to(dtype)
        self._bias = None if conv.bias is None else conv.bias.detach().to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to (N, O, H, W)."""
        return F.linear(x.permute(0, 2, 3, 1), self._weight, self._bias).permute(0, 3, 1, 2)


class Firing:
    """A layer of neurons, and what makes their currents of the sums that come in.

    Args:
        neuron: the layer.
        scale: (C,) what sums are multiplied by; None for 1.
        shift: (C,) what is added then; None for 0.
    """

    def __init__(
        self, neuron: Neuron, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> None:
        channels = neuron.channels
        learnt = neuron.share()
        share = torch.full((channels,), 1 / neuron.tau) if learnt is None else learnt.detach()
        self.share = tiled(share)
        self.threshold = np.float32(neuron.threshold)
        self.scale = tiled(torch.ones(channels) if scale is None else scale)
        self.shift = tiled(torch.zeros(channels) if shift is None else shift)


class Average:
    """`Readout`, with what does not change from window to window computed once.

    Args:
        readout: what to do.
    """

    def __init__(self, readout: Any) -> None:
        self._decay = torch.sigmoid(readout.logit.detach()).numpy()

    def prepare(self, x: np.ndarray, into: np.ndarray, tape: Any) -> tuple[np.ndarray, ...]:
        """What the kernels take: rows of x, running sums, decay, norm, rows of `into`.

        Args:
            x: (T, h, w, C) currents.
            into: (1, h, w, C or more) averages.
            tape: hands out the sums.
        """
        steps, height, width, channels = x.shape
        # several pixels make a row, so that few channels fill its vectors too
        pixels = math.gcd(height * width, max(1, 512 // channels))
        rows = x.reshape(steps, -1, pixels * channels)
        if len(self._decay) != pixels * channels:
            self._decay = np.tile(self._decay[:channels], pixels)
        norm = 1 / (1 - self._decay**tape.seen)
        out = into.reshape(rows.shape[1], pixels, -1)
        return rows, tape.next(rows.shape[1:]), self._decay, norm, out


def in_bytes(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weights as int8, and the scale of each output channel.

    The least is -127: -128 would saturate the sums of two by which processors without VNNI go.
    """
    weight = conv.weight.detach()
    scale = weight.abs().amax((1, 2, 3)).clamp(min=1e-12) / 127
    return (weight / scale.view(-1, 1, 1, 1)).round().to(torch.int8), scale


def coincidences(k: Tensor, v: Tensor) -> Tensor:
    """How often pairs of channels fire together: (B, N, d) int8 twice to (B, d, d)."""
    if not COUNTS_BYTES:
        return torch.bmm(k.float().transpose(1, 2), v.float())
    pairs = torch.empty((len(k), k.shape[2], v.shape[2]), dtype=torch.int32)
    for one, other, counts in zip(k.unbind(), v.unbind(), pairs.unbind(), strict=True):
        torch._int_mm(one.T, other, out=counts)
    return pairs


def bits(x: Tensor) -> np.ndarray:
    """A tensor as an array over the same memory; bfloat16 as its bits."""
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()


def pixels(x: Tensor) -> np.ndarray:
    """Maps (N, C, H, W), channels last in memory, as (N, H, W, C) over the same memory."""
    return bits(x.permute(0, 2, 3, 1))


def tiled(channels: Tensor) -> np.ndarray:
    """One number per channel, repeated to what a thread takes at a time."""
    return np.tile(channels.float().numpy(), max(1, kernels.CHUNK // len(channels)))


def make_room(kept: dict[Any, Any], most: int) -> None:
    """Drops what was kept first, so that one more makes at most `most`."""
    while len(kept) >= most:
        del kept[next(iter(kept))]
