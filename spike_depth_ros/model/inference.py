"""The spiking transformer on a CPU, for one stream: the same maps with far less work around it.

`SpikingTransformer` says what is computed, this says it again for speed: convolutions whose
weights are laid out once, sums and rectifiers done while a convolution writes its result, one
compiled pass for a layer of neurons, none for reshaping. It knows the shape of network that
`tiny` and `small` have; `serves` says of which network.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeGuard

import numba
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spike_depth_ros.model import inference_kernels as kernels
from spike_depth_ros.model.encoder import MAX_COUNT, coordinates
from spike_depth_ros.model.head import LOG_SCALE_CENTRE, LOG_SCALE_REACH
from spike_depth_ros.model.neurons import Neuron
from spike_depth_ros.model.spiking_transformer import SpikingTransformer


class Memory(NamedTuple):
    """What is carried from window to window; the next window changes it in place.

    Attributes:
        seen: number of steps since rest.
        arrays: float32 membranes and running sums, in the order in which they are used.
    """

    seen: int
    arrays: tuple[np.ndarray, ...]


def serves(model: nn.Module) -> TypeGuard[SpikingTransformer]:
    """Whether `CpuInference` knows this network."""
    if not isinstance(model, SpikingTransformer):
        return False
    config = model.config
    spiking = config.neuron in ('lif', 'plif') and not config.head_spiking
    return spiking and config.stem == 'stride' and config.head == 'fusion'


class CpuInference:
    """A network prepared for inference.

    Args:
        model: one that this `serves`.
        dtype: of weights and maps, float32 or bfloat16; membranes and sums stay float32. int8 is
            for the weights of what sees spikes, see `SpikeConvolution`; the rest is float32 then.
        threads: to use.
    """

    def __init__(self, model: SpikingTransformer, dtype: torch.dtype, threads: int) -> None:
        self._model: Any = model.folded()
        in_bytes = dtype == torch.int8
        dtype = torch.float32 if in_bytes else dtype
        self._dtype = dtype
        self._spike_dtype = torch.uint8 if in_bytes else dtype
        self._threads = min(threads, numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
        numba.set_num_threads(self._threads)
        torch.set_num_threads(threads)  # now: numba's threads, as they start, change torch's
        self._table = torch.arange(256.0).clamp(max=MAX_COUNT).sqrt().to(dtype)
        self._places: dict[tuple[int, ...], Tensor] = {}
        head: Any = self._model.head
        _order_by_pixel(head.up4.conv)
        _order_by_pixel(head.up2.conv)
        for name, module in list(self._model.named_modules()):
            if isinstance(module, nn.Conv2d) and name != 'place':
                parent, _, child = name.rpartition('.')
                sees_spikes = not name.startswith(('head.', 'stem.convs.0'))
                ready = (
                    SpikeConvolution(module)
                    if in_bytes and sees_spikes
                    else Convolution(module, dtype)
                )
                setattr(self._model.get_submodule(parent), child, ready)
        head.context.to(dtype)
        self._averages = [_Average(readout) for readout in self._model.readouts]
        attentions: list[Any] = [block.attention for block in self._model.blocks]
        self._norms = {
            part: (_tiled(part.norm.scale.numpy()), _tiled(part.norm.shift.numpy()))
            for part in attentions
        }
        self._neurons = {
            neuron: (_tiled(_share(neuron)), np.float32(neuron.threshold))
            for neuron in self._model.modules()
            if isinstance(neuron, Neuron)
        }

    @torch.inference_mode()
    def step(self, counts: np.ndarray, memory: Memory | None) -> tuple[np.ndarray, Memory]:
        """Continues a stream.

        Args:
            counts: (T, 2, H, W) uint8, H and W multiples of 8.
            memory: what the call before returned, or None to begin at rest. It is used up.

        Returns:
            (3, H, W) float32 maps, and the memory after the window.

        Raises:
            ValueError: the memory is of another image size.
        """
        numba.set_num_threads(self._threads)  # of the calling thread, whichever that is
        model, tape = self._model, _Tape(memory)
        seen = len(counts) + (memory.seen if memory else 0)
        fired = self._compress(counts)
        averages: list[Tensor] = []
        for i, neuron in enumerate(model.stem.neurons):
            x = model.stem.convs[i](fired)
            if i < 2:
                averages.append(self._maps(1, x.shape[-2:], x.shape[1]))
                fired = self._average_and_fire(i, neuron, x, tape, seen, averages[i])
            else:
                fired = self._fire(neuron, x, tape)
        x = model.stem.convs[3](fired, add_to=self._place(fired))
        joined = self._maps(1, x.shape[-2:], len(model.blocks) * x.shape[1])
        fired = self._fire(model.blocks[0].attention.act_in, x, tape)
        for i, block in enumerate(model.blocks):
            x = self._block(block, x, fired, tape)
            place = (joined, i * x.shape[1])
            if i + 1 < len(model.blocks):
                neuron = model.blocks[i + 1].attention.act_in
                fired = self._average_and_fire(2 + i, neuron, x, tape, seen, *place)
            else:
                kernels.average(*self._averages[2 + i].prepare(x, tape, seen, *place))
        raw = self._head(model.head, averages, joined)
        return _enlarged_prediction(raw), Memory(seen, tuple(tape.arrays))

    def _maps(self, count: int, size: Sequence[int], channels: int) -> Tensor:
        """Fresh maps (N, C, H, W), the channels last in memory."""
        return _empty((count, channels, *size), self._dtype)

    def _compress(self, counts: np.ndarray) -> Tensor:
        """As `compress`: (T, 2, H, W)."""
        out = self._maps(len(counts), counts.shape[-2:], 2)
        kernels.look_up(np.ascontiguousarray(counts), _bits(self._table), _pixels(out))
        return out

    def _place(self, like: Tensor) -> Tensor:
        """A copy per step of what the network knows of the place of every token."""
        shape = (like.shape[0], *like.shape[-2:])
        if shape not in self._places:
            place = self._model.place(coordinates(like)).to(self._dtype)
            out = self._maps(like.shape[0], like.shape[-2:], place.shape[1])
            self._places = {shape: out.copy_(place.expand_as(out))}
        return self._places[shape].clone()

    def _fire(
        self, neuron: Neuron, x: Tensor, tape: _Tape, norm: Any = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:  # fmt: skip
        """Spikes (T, C, H, W) of a layer for x, or for x times a scale plus a shift."""
        steps = len(x)
        spikes = _empty(x.shape, dtype or self._spike_dtype)
        remembered = tape.next((x[0].numel(),))
        rows, fired = _pixels(x).reshape(steps, -1), _pixels(spikes).reshape(steps, -1)
        if norm is None:
            kernels.fire(rows, fired, *remembered, *self._neurons[neuron])
        else:
            kernels.fire_scaled(rows, *norm, fired, *remembered, *self._neurons[neuron])
        return spikes

    def _average_and_fire(
        self, which: int, neuron: Neuron, x: Tensor, tape: _Tape, seen: int, into: Tensor,
        first: int = 0,
    ) -> Tensor:  # fmt: skip
        """Averages of x (T, C, H, W) into channels of `into`, and the spikes of a layer for x."""
        arguments = self._averages[which].prepare(x, tape, seen, into, first)
        spikes = _empty(x.shape, self._spike_dtype)
        rows = arguments[0]
        membranes, _ = tape.next(rows.shape[1:])
        kernels.average_and_fire(
            *arguments, _pixels(spikes).reshape(rows.shape), membranes, *self._neurons[neuron]
        )
        return spikes

    def _block(self, block: Any, x: Tensor, fired: Tensor, tape: _Tape) -> Tensor:
        """Adds both branches of a block to x (T, D, h, w), in place; `fired` of its `act_in`."""
        attention, mlp = block.attention, block.mlp
        currents = attention.qkv(fired)
        mixed = self._attend(attention, currents, tape)
        scale, shift = self._norms[attention]
        norm = (scale * np.float32(1 / mixed[0, 0].numel()), shift)
        attention.project(self._fire(attention.act_out, mixed, tape, norm), add_to=x)
        hidden = mlp.conv1(self._fire(mlp.act1, x, tape))
        mlp.conv2(self._fire(mlp.act2, hidden, tape), add_to=x)
        return x

    def _attend(self, attention: Any, currents: Tensor, tape: _Tape) -> Tensor:
        """Currents of q, k, v (T, 3D, h, w) to sums over all tokens (T, D, h, w)."""
        steps, _, height, width = currents.shape
        fired = self._fire(attention.act_qkv, currents, tape, dtype=torch.uint8)
        parts = fired.view(torch.int8).permute(0, 2, 3, 1)
        parts = parts.reshape(steps, height * width, 3, attention.heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4).flatten(1, 2)  # (T * heads, N, d)
        mixed = torch.bmm(q.to(self._dtype), _coincidences(k, v).to(self._dtype))
        mixed = mixed.unflatten(0, (steps, attention.heads)).transpose(1, 2)
        return mixed.reshape(steps, height, width, -1).permute(0, 3, 1, 2)

    def _head(self, head: Any, stem: list[Tensor], joined: Tensor) -> Tensor:
        """As `FusionHead`, from rectified averages: raw maps (1, 3, H/2, W/2)."""
        f8 = head.fuse(joined)
        f16 = head.down16.conv(f8.relu())
        f32 = head.down32.conv(f16.relu())
        f32 += head.context(f32.mean((-1, -2)))[..., None, None]
        for block in head.deep32:
            f32 = _residual(block, f32)
        self._enlarge(f32, f16)
        for block in head.deep16:
            f16 = _residual(block, f16)
        f8 = self._enlarge(f16, f8)
        f4 = _unfolded(head.up4.conv(f8), head.up4.skip(stem[1]))
        f2 = _unfolded(head.up2.conv(head.smooth4(f4, relu=True)), head.up2.skip(stem[0]))
        return head.out(head.smooth2(f2, relu=True))

    def _enlarge(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Adds to `fine` (1, C, H, W) the coarser map, enlarged; the sum rectified."""
        rectified = self._maps(1, fine.shape[-2:], fine.shape[1])
        rows, shares_y = _between(coarse.shape[2], fine.shape[2])
        columns, shares_x = _between(coarse.shape[3], fine.shape[3])
        maps = [_pixels(x)[0] for x in (coarse, fine, rectified)]
        kernels.enlarge(*maps, rows, columns, shares_y, shares_x)
        return rectified


MAX_PACKED = 4
"""Shapes of maps that a convolution keeps its weights laid out for."""


class Convolution(nn.Module):
    """A convolution of maps whose channels lie last, its weights laid out once for each shape.

    The layout for another shape would do, but a map of 240x320 then takes a quarter longer.

    Args:
        conv: the convolution.
        dtype: of weights and maps.
    """

    packs = torch.backends.mkldnn.is_available()
    """Whether oneDNN is here, by the operators that torch's own compiler puts into its code."""

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype) -> None:
        super().__init__()
        self._weight = conv.weight.detach().to(dtype)
        self._bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self._where: tuple[Any, ...] = (
            list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups
        )  # fmt: skip
        self._packed: dict[torch.Size, Tensor] = {}

    def forward(self, x: Tensor, add_to: Tensor | None = None, relu: bool = False) -> Tensor:
        """The convolution of x (N, C, H, W), rectified or not; or it is added to `add_to`."""
        padding, stride, dilation, groups = self._where
        if not self.packs:
            y = F.conv2d(x, self._weight, self._bias, stride, padding, dilation, groups)
            if add_to is not None:
                return add_to.add_(y)
            return y.relu_() if relu else y
        oneDNN = torch.ops.mkldnn
        if x.shape not in self._packed:
            _make_room(self._packed)
            self._packed[x.shape] = oneDNN._reorder_convolution_weight(
                self._weight, *self._where, list(x.shape)
            )
        weight = self._packed[x.shape]
        if add_to is None:
            return oneDNN._convolution_pointwise.default(
                x, weight, self._bias, *self._where, 'relu' if relu else 'none', [], ''
            )
        return oneDNN._convolution_pointwise_.binary(
            add_to, x, weight, self._bias, *self._where, 'add', 1.0, None, [], ''
        )


class SpikeConvolution(nn.Module):
    """A convolution of spikes in bytes by weights in bytes: its products and sums are exact.

    Every output channel has a scale of its own. What is lost is the rounding of the weights.

    Args:
        conv: the convolution.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        weight = conv.weight.detach()
        self._scale = weight.abs().amax((1, 2, 3)).clamp(min=1e-12) / 127
        self._zero = torch.zeros(len(weight), dtype=torch.int64)
        self._weight = (weight / self._scale.view(-1, 1, 1, 1)).round().to(torch.int8)
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
        except (RuntimeError, AttributeError, NotImplementedError):
            return False
        return torch.allclose(sums, torch.full_like(sums, 72.0))

    def forward(self, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        """The convolution of x (N, C, H, W) uint8, float32; or it is added to `add_to`."""
        oneDNN = torch.ops.onednn
        if x.shape not in self._packed:
            _make_room(self._packed)
            self._packed[x.shape] = oneDNN.qconv_prepack(
                self._weight, self._scale, 1.0, 0, *self._where, list(x.shape)
            )
        factors = (x, 1.0, 0, self._packed[x.shape], self._scale, self._zero)
        rest = (self._bias, *self._where, 1.0, 0, torch.float32)
        if add_to is None:
            return oneDNN.qconv2d_pointwise.default(*factors, *rest, 'none', [], '')
        return oneDNN.qconv2d_pointwise.binary(
            *factors, add_to, *rest, 1.0, 0, 'sum', 1.0, 'none', [], ''
        )


def _make_room(packed: dict[torch.Size, Tensor]) -> None:
    """Drops what was laid out first, where there is too much."""
    if len(packed) == MAX_PACKED:
        del packed[next(iter(packed))]


class _Tape:
    """Hands out what is remembered in the order of use, as `Tape` does."""

    def __init__(self, memory: Memory | None) -> None:
        self._before = None if memory is None else iter(memory.arrays)
        self.arrays: list[np.ndarray] = []

    def next(self, shape: tuple[int, ...]) -> tuple[np.ndarray, bool]:
        """What is remembered, to be changed in place; and whether it is at rest, and unset."""
        array = np.empty(shape, np.float32) if self._before is None else next(self._before)
        if array.shape != shape:
            raise ValueError('the state is of another image size; begin at rest')
        self.arrays.append(array)
        return array, self._before is None


class _Average:
    """`Readout`, with what does not change from window to window computed once.

    Args:
        readout: what to do.
    """

    def __init__(self, readout: Any) -> None:
        self._decay = torch.sigmoid(readout.logit.detach()).numpy()

    def prepare(
        self, x: Tensor, tape: _Tape, seen: int, into: Tensor, first: int = 0
    ) -> tuple[Any, ...]:
        """What `kernels.average` takes for x (T, C, H, W) into channels of `into`."""
        steps, channels, height, width = x.shape
        # several pixels make one row of the loop, so that few channels fill its vectors too
        whole = into.shape[1] == channels
        pixels = math.gcd(height * width, max(1, 512 // channels)) if whole else 1
        rows = _pixels(x).reshape(steps, -1, pixels * channels)
        out = _pixels(into).reshape(rows.shape[1], -1)
        sums, rest = tape.next(rows.shape[1:])
        if len(self._decay) != pixels * channels:
            self._decay = np.tile(self._decay[:channels], pixels)
        norm = 1 / (1 - self._decay**seen)
        return rows, sums, rest, self._decay, norm, out, first


def _coincidences(k: Tensor, v: Tensor) -> Tensor:
    """How often pairs of channels fire together: (B, N, d) int8 twice to (B, d, d)."""
    if not Convolution.packs:
        return torch.bmm(k.float().transpose(1, 2), v.float())
    return torch.stack([torch._int_mm(one.T, other) for one, other in zip(k, v, strict=True)])


def _share(neuron: Neuron) -> np.ndarray:
    """(C,) what membranes take in a step of what drives them."""
    learnt = neuron.share()
    if learnt is None:
        return np.full(neuron.channels, 1 / neuron.tau, np.float32)
    return learnt.detach().numpy()


def _residual(block: Any, x: Tensor) -> Tensor:
    """As `Residual`, in place."""
    return block.conv2(block.conv1(x.relu(), relu=True), add_to=x)


def _order_by_pixel(conv: nn.Conv2d) -> None:
    """Channels of one of four pixels after the other, where `pixel_shuffle` has them mixed."""
    for values in (conv.weight, conv.bias):
        assert values is not None, 'a folded convolution has a bias'
        values.copy_(values.unflatten(0, (-1, 4)).transpose(0, 1).flatten(0, 1).clone())


def _unfolded(four: Tensor, fine: Tensor) -> Tensor:
    """Adds to `fine` (1, C, 2h, 2w) the pixels that (1, 4C, h, w) holds; rectified, in place."""
    kernels.unfold(_pixels(four)[0], _pixels(fine)[0])
    return fine


def _enlarged_prediction(raw: Tensor) -> np.ndarray:
    """As `to_prediction`: (1, 3, H/2, W/2) to (3, H, W)."""
    maps = raw[0].float().contiguous()
    maps[0].sigmoid_()
    maps[2].div_(LOG_SCALE_REACH).tanh_().mul_(LOG_SCALE_REACH).add_(LOG_SCALE_CENTRE)
    out = np.empty((3, 2 * maps.shape[1], 2 * maps.shape[2]), np.float32)
    kernels.double(maps.numpy(), out)
    return out


def _empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Fresh maps (N, C, H, W), the channels last in memory."""
    return torch.empty(shape, dtype=dtype, memory_format=torch.channels_last)


def _tiled(channels: np.ndarray) -> np.ndarray:
    """One number per channel, repeated to what a thread takes at a time."""
    return np.tile(channels, max(1, kernels.CHUNK // len(channels)))


@functools.lru_cache(maxsize=64)
def _between(few: int, many: int) -> tuple[np.ndarray, np.ndarray]:
    """For `many` pixel centres among `few`: index of the one before, share of the one after."""
    place = np.maximum((np.arange(many) + 0.5) * (few / many) - 0.5, 0)
    first = np.minimum(place.astype(np.int64), few - 1)
    return first, (place - first).astype(np.float32)


def _bits(x: Tensor) -> np.ndarray:
    """A tensor as an array over the same memory; bfloat16 as its bits."""
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()


def _pixels(x: Tensor) -> np.ndarray:
    """Maps (N, C, H, W), channels last in memory, as (N, H, W, C) over the same memory."""
    return _bits(x.permute(0, 2, 3, 1))
