"""The spiking transformer on a CPU, for one stream: the same maps with far less work around it.

`SpikingTransformer` says what is computed, this says it again for speed: weights laid out once,
1x1 convolutions of spikes as products of matrices, one compiled pass for a layer of neurons and
the sums before it, and no memory asked for that is there already. It knows the shape of network
that `tiny` and `small` have; `serves` says of which network.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeGuard

import numba
import numpy as np
import torch
from torch import Tensor, nn

from spike_depth_ros.model import inference_kernels as kernels
from spike_depth_ros.model.encoder import MAX_COUNT, coordinates
from spike_depth_ros.model.head import LOG_SCALE_CENTRE, LOG_SCALE_REACH
from spike_depth_ros.model.inference_layers import (
    Average,
    Convolution,
    Firing,
    Pointwise,
    Product,
    SpikeConvolution,
    coincidences,
    make_room,
    tiled,
)
from spike_depth_ros.model.spiking_transformer import SpikingTransformer

MAX_SHAPES = 2
"""Shapes of windows whose maps are kept to be filled again."""


class Memory(NamedTuple):
    """What is carried from window to window; the next window changes it in place.

    Attributes:
        seen: number of steps since rest.
        arrays: float32 membranes and running sums, in the order in which they are used.
    """

    seen: int
    arrays: tuple[np.ndarray, ...]


class Maps(NamedTuple):
    """Maps in one piece of memory, in three views."""

    images: Tensor  # (T, C, h, w), the channels last in memory
    rows: Tensor  # (T * h * w, C)
    array: np.ndarray  # (T, h, w, C); bfloat16 as its bits


def serves(model: nn.Module) -> TypeGuard[SpikingTransformer]:
    """Whether `CpuInference` knows this network."""
    if not isinstance(model, SpikingTransformer):
        return False
    config = model.config
    spiking = config.neuron in ('lif', 'plif') and not config.head_spiking
    return spiking and config.stem == 'stride' and config.head == 'fusion'


class CpuInference:
    """A network prepared for inference. Threads that share it take turns.

    Args:
        model: one that this `serves`.
        dtype: of weights and maps, float32 or bfloat16; membranes and sums stay float32. int8 is
            for the weights of what sees spikes, see `SpikeConvolution`; the rest is float32 then.
        threads: to use.
    """

    def __init__(self, model: SpikingTransformer, dtype: torch.dtype, threads: int) -> None:
        ready: Any = model.folded()
        in_bytes = dtype == torch.int8
        self._dtype = torch.float32 if in_bytes else dtype
        self._spike_dtype = torch.uint8 if in_bytes else dtype
        self._threads = min(threads, numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
        numba.set_num_threads(self._threads)
        torch.set_num_threads(threads)  # now: numba's threads, as they start, change torch's
        self._turn = threading.Lock()
        self._kept: dict[tuple[int, ...], dict[tuple[Any, ...], Maps]] = {}
        self._buffers: dict[tuple[Any, ...], Maps] = {}  # those of the present shape
        self._table = _bits(torch.arange(256.0).clamp(max=MAX_COUNT).sqrt().to(self._dtype))
        self._place_conv = ready.place
        self._places: dict[tuple[int, ...], np.ndarray] = {}

        def convolution(conv: nn.Conv2d) -> Convolution | SpikeConvolution:
            return SpikeConvolution(conv) if in_bytes else Convolution(conv, dtype)

        sees_counts, *see_spikes = ready.stem.convs
        self._stem_convs = [Convolution(sees_counts, self._dtype), *map(convolution, see_spikes)]
        self._stem_neurons = [Firing(neuron) for neuron in ready.stem.neurons]
        self._blocks = [_Block(block, dtype, convolution) for block in ready.blocks]
        self._averages = [Average(readout) for readout in ready.readouts]
        self._head = _Head(ready.head, self._dtype)

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
        with self._turn:
            if counts.shape not in self._kept:
                make_room(self._kept, MAX_SHAPES)
            self._buffers = self._kept.setdefault(counts.shape, {})
            return self._step(counts, _Tape(memory, len(counts)))

    def _step(self, counts: np.ndarray, tape: _Tape) -> tuple[np.ndarray, Memory]:
        numba.set_num_threads(self._threads)  # of the calling thread, whichever that is
        fired = self._compress(counts)
        stem = []
        for i in range(2):
            x = _array(self._stem_convs[i](fired.images))
            stem.append(self._maps('average', (1, *x.shape[1:])))
            fired = self._average_and_fire(i, x, stem[i], 0, self._stem_neurons[i], tape)
        x = _array(self._stem_convs[2](fired.images))
        fired = self._fire(self._stem_neurons[2], x, tape)
        x = _array(self._stem_convs[3](fired.images))
        fired = self._add_and_fire(self._blocks[0].act_in, x, self._place(x), tape)
        dim, following = x.shape[3], [block.act_in for block in self._blocks[1:]]
        joined = self._maps('average', (1, *x.shape[1:3], dim * len(self._blocks)))
        for i, block in enumerate(self._blocks):
            added = block, self._block(block, x, fired, tape)
            if i < len(following):
                where = joined, i * dim, following[i]
                fired = self._average_and_fire(2 + i, x, *where, tape, added)
            else:
                self._add_and_average(2 + i, x, joined, i * dim, tape, *added)
        raw = self._head(stem[0].images, stem[1].images, joined.images)
        return _enlarged_prediction(raw), Memory(tape.seen, tuple(tape.arrays))

    def _maps(
        self, role: str, shape: tuple[int, ...], dtype: torch.dtype | None = None
    ) -> Maps:  # fmt: skip
        """Maps (T, h, w, C) to fill; those of one role are gone when the next are filled."""
        dtype = dtype or self._dtype
        key = (role, shape, dtype)
        maps = self._buffers.get(key)
        if maps is None:
            whole = torch.empty(shape, dtype=dtype)
            maps = Maps(whole.permute(0, 3, 1, 2), whole.flatten(0, 2), _bits(whole))
            self._buffers[key] = maps
        return maps

    def _compress(self, counts: np.ndarray) -> Maps:
        """As `compress`: (T, 2, H, W) to (T, H, W, 2)."""
        out = self._maps('counts', (len(counts), *counts.shape[2:], 2))
        kernels.look_up(np.ascontiguousarray(counts), self._table, out.array)
        return out

    def _place(self, like: np.ndarray) -> np.ndarray:
        """What the network knows of the place of every token, once per step: (T, h, w, C)."""
        if like.shape not in self._places:
            steps, height, width, _ = like.shape
            place = self._place_conv(coordinates(torch.empty(1, 1, height, width)))
            copies = place.to(self._dtype).permute(0, 2, 3, 1).expand(steps, -1, -1, -1)
            self._places = {like.shape: _bits(copies.contiguous())}
        return self._places[like.shape]

    def _fire(
        self, neurons: Firing, x: np.ndarray, tape: _Tape, dtype: torch.dtype | None = None,
        scale: float = 1.0,
    ) -> Maps:  # fmt: skip
        """Spikes of a layer for sums x (T, h, w, C), which are scaled besides."""
        spikes = self._maps('spikes', x.shape, dtype or self._spike_dtype)
        rows = x.reshape(len(x), -1)
        kernels.fire(
            rows, neurons.scale if scale == 1.0 else neurons.scale * np.float32(scale),
            neurons.shift, spikes.array.reshape(rows.shape), tape.next(rows.shape[1:]), tape.rest,
            neurons.share, neurons.threshold,
        )  # fmt: skip
        return spikes

    def _add_and_fire(
        self, neurons: Firing, x: np.ndarray, added: np.ndarray, tape: _Tape
    ) -> Maps:  # fmt: skip
        """Adds to x (T, h, w, C) what its layer makes of `added`: the spikes for the sum."""
        spikes = self._maps('spikes', x.shape, self._spike_dtype)
        rows = x.reshape(len(x), -1)
        kernels.add_and_fire(
            rows, added.reshape(rows.shape), neurons.scale, neurons.shift,
            spikes.array.reshape(rows.shape), tape.next(rows.shape[1:]), tape.rest, neurons.share,
            neurons.threshold,
        )  # fmt: skip
        return spikes

    def _average_and_fire(
        self, which: int, x: np.ndarray, into: Maps, first: int, neurons: Firing, tape: _Tape,
        added: tuple[_Block, np.ndarray] | None = None,
    ) -> Maps:  # fmt: skip
        """Averages of x (T, h, w, C) into channels of `into`, and the spikes of a layer for x."""
        rows, *average = self._averages[which].prepare(x, into.array, tape)
        spikes = self._maps('spikes', x.shape, self._spike_dtype)
        layer = (
            spikes.array.reshape(rows.shape), tape.next(rows.shape[1:]), tape.rest, neurons.share,
            neurons.threshold,
        )  # fmt: skip
        if added is None:
            kernels.average_and_fire(rows, *average, first, *layer)
        else:
            block, more = added
            sums = rows, more.reshape(rows.shape), *block.norm
            kernels.add_average_and_fire(*sums, *average, first, *layer)
        return spikes

    def _add_and_average(
        self, which: int, x: np.ndarray, into: Maps, first: int, tape: _Tape, block: _Block,
        added: np.ndarray,
    ) -> None:  # fmt: skip
        """As `_average_and_fire` for the last block, which no neurons follow."""
        rows, *average = self._averages[which].prepare(x, into.array, tape)
        sums = rows, added.reshape(rows.shape), *block.norm
        kernels.add_and_average(*sums, *average, first, tape.rest)

    def _block(self, block: _Block, x: np.ndarray, fired: Maps, tape: _Tape) -> np.ndarray:
        """Adds attention to x (T, h, w, D), in place; the MLP's sums, before `_Block.norm`.

        Args:
            block: the layers.
            x: currents.
            fired: spikes of `act_in` for them.
            tape: what is remembered.
        """
        currents = self._multiply(block.qkv, fired)
        parts = self._fire(block.act_qkv, currents, tape, torch.uint8)
        mixed = self._attend(parts, block.heads)
        fired = self._fire(block.act_out, mixed, tape, scale=1 / mixed[0, ..., 0].size)
        added = self._multiply(block.project, fired)
        fired = self._add_and_fire(block.act1, x, added, tape)
        hidden = _array(block.conv1(fired.images))
        return self._multiply(block.conv2, self._fire(block.act2, hidden, tape))

    def _multiply(self, product: Product, fired: Maps) -> np.ndarray:
        """Sums (T, h, w, O) of a 1x1 convolution of spikes."""
        out = self._maps('sums', (*fired.array.shape[:3], product.outputs), product.dtype)
        product(fired.rows, out.rows)
        return out.array

    def _attend(self, fired: Maps, heads: int) -> np.ndarray:
        """Spikes of q, k, v (T, h, w, 3D), in bytes, to sums over all tokens (T, h, w, D)."""
        steps, height, width, _ = fired.array.shape
        parts = fired.rows.view(torch.int8).view(steps, height * width, 3, heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4).flatten(1, 2)  # (T * heads, N, d)
        mixed = torch.bmm(q.to(self._dtype), coincidences(k, v).to(self._dtype))
        mixed = mixed.unflatten(0, (steps, heads)).transpose(1, 2)
        return _bits(mixed.reshape(steps, height, width, -1))


class _Block:
    """The layers of a block.

    Args:
        block: folded.
        dtype: of the weights that meet spikes.
        convolution: makes a convolution of spikes.
    """

    def __init__(
        self, block: Any, dtype: torch.dtype, convolution: Callable[[nn.Conv2d], Any]
    ) -> None:
        attention, mlp = block.attention, block.mlp
        self.heads = attention.heads
        self.act_in = Firing(attention.act_in)
        self.qkv = Product(attention.qkv, dtype)
        self.act_qkv = Firing(attention.act_qkv, self.qkv.scale, self.qkv.shift)
        self.act_out = Firing(attention.act_out, attention.norm.scale, attention.norm.shift)
        self.project = Product(attention.project, dtype)
        self.act1 = Firing(mlp.act1, self.project.scale, self.project.shift)
        self.conv1 = convolution(mlp.conv1)
        self.act2 = Firing(mlp.act2)
        self.conv2 = Product(mlp.conv2, dtype)
        self.norm = tiled(self.conv2.scale), tiled(self.conv2.shift)


class _Head:
    """As `FusionHead`, from averages that are rectified.

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


class _Tape:
    """Hands out what is remembered in the order of use, as `Tape` does.

    Args:
        memory: of the steps before, None at rest.
        steps: that are new.

    Attributes:
        rest: whether all begins, and nothing that is handed out is set.
        seen: number of steps, with the new ones.
        arrays: all that has been handed out, to be changed in place.
    """

    def __init__(self, memory: Memory | None, steps: int) -> None:
        self.rest = memory is None
        self.seen = steps + (memory.seen if memory else 0)
        self.arrays: list[np.ndarray] = []
        self._before = iter(memory.arrays if memory else ())

    def next(self, shape: tuple[int, ...]) -> np.ndarray:
        """What is remembered here.

        Raises:
            ValueError: it is of another image size.
        """
        array = np.empty(shape, np.float32) if self.rest else next(self._before)
        if array.shape != shape:
            raise ValueError('the state is of another image size; begin at rest')
        self.arrays.append(array)
        return array


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
    maps = [_array(x)[0] for x in (coarse, fine, rectified)]
    kernels.enlarge(*maps, rows, columns, shares_y, shares_x)
    return rectified


def _unfolded(four: Tensor, fine: Tensor) -> Tensor:
    """Adds to `fine` (1, C, 2h, 2w) the pixels that (1, 4C, h, w) holds; rectified, in place."""
    kernels.unfold(_array(four)[0], _array(fine)[0])
    return fine


def _enlarged_prediction(raw: Tensor) -> np.ndarray:
    """As `to_prediction`: (1, 3, H/2, W/2) to (3, H, W)."""
    maps = raw[0].float().contiguous()
    maps[0].sigmoid_()
    maps[2].div_(LOG_SCALE_REACH).tanh_().mul_(LOG_SCALE_REACH).add_(LOG_SCALE_CENTRE)
    out = np.empty((3, 2 * maps.shape[1], 2 * maps.shape[2]), np.float32)
    kernels.double(maps.numpy(), out)
    return out


@functools.lru_cache(maxsize=64)
def _between(few: int, many: int) -> tuple[np.ndarray, np.ndarray]:
    """For `many` pixel centres among `few`: index of the one before, share of the one after."""
    place = np.maximum((np.arange(many) + 0.5) * (few / many) - 0.5, 0)
    first = np.minimum(place.astype(np.int64), few - 1)
    return first, (place - first).astype(np.float32)


def _bits(x: Tensor) -> np.ndarray:
    """A tensor as an array over the same memory; bfloat16 as its bits."""
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()


def _array(x: Tensor) -> np.ndarray:
    """Maps (N, C, H, W), channels last in memory, as (N, H, W, C) over the same memory."""
    return _bits(x.permute(0, 2, 3, 1))
