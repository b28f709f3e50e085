"""The spiking transformer on a CPU, for one stream: the same maps with far less work around it.

`SpikingTransformer` says what is computed, this says it again for speed: weights laid out once,
1x1 convolutions of spikes as products of matrices, one compiled pass for a layer of neurons and
the sums before it, and no memory asked for that is there already. It knows the shape of network
that `tiny` and `small` have; `serves` says of which network.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeGuard

import numba
import numpy as np
import torch
from torch import Tensor, nn

from spike_depth_ros.network import inference_kernels as kernels
from spike_depth_ros.network.encoder import MAX_COUNT, coordinates
from spike_depth_ros.network.head import LOG_SCALE_CENTRE, LOG_SCALE_REACH
from spike_depth_ros.network.inference_head import Head
from spike_depth_ros.network.inference_layers import (
    Average,
    Convolution,
    Firing,
    Product,
    SpikeConvolution,
    bits,
    coincidences,
    make_room,
    pixels,
    tiled,
)
from spike_depth_ros.network.spiking_transformer import SpikingTransformer

MAX_SHAPES = 4
"""Shapes of windows, and of parts of them, whose maps are kept to be filled again."""


class Memory(NamedTuple):
    """What is carried from window to window; the next window changes it in place.

    Attributes:
        seen: number of steps since rest.
        size: H and W of the windows.
        arrays: float32 membranes and running sums, in the order in which they are used.
    """

    seen: int
    size: tuple[int, ...]
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
        self._table = bits(torch.arange(256.0).clamp(max=MAX_COUNT).sqrt().to(self._dtype))
        self._place_conv = ready.place
        self._places: dict[tuple[int, ...], np.ndarray] = {}

        def convolution(conv: nn.Conv2d) -> Convolution | SpikeConvolution:
            return SpikeConvolution(conv) if in_bytes else Convolution(conv, dtype)

        sees_counts, *see_spikes = ready.stem.convs
        self._stem_convs = [Convolution(sees_counts, self._dtype), *map(convolution, see_spikes)]
        self._stem_neurons = [Firing(neuron) for neuron in ready.stem.neurons]
        self._blocks = [_Block(block, dtype, convolution) for block in ready.blocks]
        self._averages = [Average(readout) for readout in ready.readouts]
        self._head = Head(ready.head, self._dtype)

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
        maps, after = self._continue(counts, memory, answers=True)
        assert maps is not None
        return maps, after

    @torch.inference_mode()
    def carry(self, counts: np.ndarray, memory: Memory | None) -> Memory:
        """The memory that `step` returns, without the work of an answer."""
        return self._continue(counts, memory, answers=False)[1]

    def _continue(
        self, counts: np.ndarray, memory: Memory | None, answers: bool
    ) -> tuple[np.ndarray | None, Memory]:
        size = counts.shape[2:]
        if memory is not None and memory.size != size:
            raise ValueError(
                f'the state is of images of {memory.size}, the window is of {size}: begin at rest'
            )
        with self._turn:
            if counts.shape not in self._kept:
                make_room(self._kept, MAX_SHAPES)
            self._buffers = self._kept.setdefault(counts.shape, {})
            return self._run(counts, _Tape(memory, len(counts)), answers)

    def _run(
        self, counts: np.ndarray, tape: _Tape, answers: bool
    ) -> tuple[np.ndarray | None, Memory]:  # fmt: skip
        """Maps (3, H, W), None unless it `answers`, and the memory after."""
        numba.set_num_threads(self._threads)  # of the calling thread, whichever that is
        fired = self._compress(counts)
        stem2, fired = self._stem_stage(0, fired, tape)
        stem4, fired = self._stem_stage(1, fired, tape)
        x = pixels(self._stem_convs[2](fired.images))
        fired = self._fire(self._stem_neurons[2], x, tape)
        x = pixels(self._stem_convs[3](fired.images))
        fired = self._add_and_fire(self._blocks[0].act_in, x, self._place(x), tape)
        joined = self._maps('average', (1, *x.shape[1:3], x.shape[3] * len(self._blocks)))
        for i, block in enumerate(self._blocks):
            added = self._block(block, x, fired, tape)
            fired = self._end_block(i, x, added, joined, tape)
        maps = None
        if answers:
            maps = _enlarged_prediction(self._head(stem2.images, stem4.images, joined.images))
        return maps, Memory(tape.seen, counts.shape[2:], tuple(tape.arrays))

    def _maps(
        self, role: str, shape: tuple[int, ...], dtype: torch.dtype | None = None
    ) -> Maps:  # fmt: skip
        """Maps (T, h, w, C) to fill; those of one role are gone when the next are filled."""
        dtype = dtype or self._dtype
        key = (role, shape, dtype)
        maps = self._buffers.get(key)
        if maps is None:
            whole = torch.empty(shape, dtype=dtype)
            maps = Maps(whole.permute(0, 3, 1, 2), whole.flatten(0, 2), bits(whole))
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
            make_room(self._places, MAX_SHAPES)
            self._places[like.shape] = bits(copies.contiguous())
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
            neurons.shift, *_layer(neurons, spikes, rows.shape, tape),
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
            *_layer(neurons, spikes, rows.shape, tape),
        )  # fmt: skip
        return spikes

    def _stem_stage(self, i: int, fired: Maps, tape: _Tape) -> tuple[Maps, Maps]:
        """The averages (1, h, w, C) after a convolution of the stem, and the spikes for it."""
        x = pixels(self._stem_convs[i](fired.images))
        average = self._maps('average', (1, *x.shape[1:]))
        spikes = self._maps('spikes', x.shape, self._spike_dtype)
        rows, *averaging = self._averages[i].prepare(x, average.array, tape)
        layer = _layer(self._stem_neurons[i], spikes, rows.shape, tape)
        kernels.average_and_fire(rows, *averaging, 0, *layer)
        return average, spikes

    def _end_block(
        self, i: int, x: np.ndarray, added: np.ndarray, joined: Maps, tape: _Tape
    ) -> Maps:  # fmt: skip
        """Adds to x (T, h, w, D) what block i makes of `added`, and averages it.

        Returns:
            The spikes for the sum of the next block; of no meaning after the last.
        """
        spikes = self._maps('spikes', x.shape, self._spike_dtype)
        rows, *averaging = self._averages[2 + i].prepare(x, joined.array, tape)
        sums = rows, added.reshape(rows.shape), *self._blocks[i].norm
        first = i * x.shape[3]
        if i + 1 == len(self._blocks):
            kernels.add_and_average(*sums, *averaging, first, tape.rest)
        else:
            layer = _layer(self._blocks[i + 1].act_in, spikes, rows.shape, tape)
            kernels.add_average_and_fire(*sums, *averaging, first, *layer)
        return spikes

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
        hidden = pixels(block.conv1(fired.images))
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
        return bits(mixed.reshape(steps, height, width, -1))


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
        """What is remembered here."""
        array = np.empty(shape, np.float32) if self.rest else next(self._before)
        self.arrays.append(array)
        return array


def _layer(
    neurons: Firing, spikes: Maps, shape: tuple[int, ...], tape: _Tape
) -> tuple[Any, ...]:  # fmt: skip
    """What every kernel takes of neurons whose sums are (T, ...): the last five arguments."""
    return (
        spikes.array.reshape(shape), tape.next(shape[1:]), tape.rest, neurons.share,
        neurons.threshold,
    )  # fmt: skip


def _enlarged_prediction(raw: Tensor) -> np.ndarray:
    """As `to_prediction`: (1, 3, H/2, W/2) to (3, H, W)."""
    maps = raw[0].float().contiguous()
    maps[0].sigmoid_()
    maps[2].div_(LOG_SCALE_REACH).tanh_().mul_(LOG_SCALE_REACH).add_(LOG_SCALE_CENTRE)
    out = np.empty((3, 2 * maps.shape[1], 2 * maps.shape[2]), np.float32)
    kernels.double(maps.numpy(), out)
    return out
