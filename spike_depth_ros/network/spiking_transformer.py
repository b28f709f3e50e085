"""The spiking transformer: event counts in, depth with its uncertainty out.

The encoder of arXiv 2404.17335, what it says averaged over time, and a head on the averages.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from spike_depth_ros.network.encoder import (
    STRIDE,
    Block,
    SpikingTransformerConfig,
    Stem,
    coordinates,
)
from spike_depth_ros.network.head import FusionHead, LinearHead, Prediction, to_prediction
from spike_depth_ros.network.layers import ConvBN, Readout, ReLU, ScaleShift, initialise
from spike_depth_ros.network.neurons import Neuron, Tape


class State(NamedTuple):
    """All that the network remembers: rest is all zeros. A flat tuple for an exported graph.

    Attributes:
        seen: (B,) float32 number of steps since rest.
        membranes: of every neuron, in the order in which the network calls them.
        readouts: running sums of every `Readout`.
    """

    seen: Tensor
    membranes: tuple[Tensor, ...]
    readouts: tuple[Tensor, ...]

    def map(self, function) -> State:
        """The state with `function` applied to every tensor (`.to`, masks...)."""
        return State(
            function(self.seen),
            tuple(map(function, self.membranes)),
            tuple(map(function, self.readouts)),
        )

    def flat(self) -> tuple[Tensor, ...]:
        """(seen, *membranes, *readouts)."""
        return (self.seen, *self.membranes, *self.readouts)


class SpikingTransformer(nn.Module):
    """The whole network. `forward` starts from rest; only `step` carries a state."""

    def __init__(self, config: SpikingTransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = Stem(config)
        self.place = nn.Conv2d(4, config.dim, 1, bias=False)
        initialise(self.place.weight, lambda weight: nn.init.normal_(weight, std=0.3))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        dims = (config.dim // 8, config.dim // 4)
        activation = config.neuron_layer if config.head_spiking else lambda *_: ReLU()
        self.head = _HEADS[config.head](
            dims, config.dim, config.depth, config.head_dim, activation
        )
        self.readouts = nn.ModuleList(Readout(c, s) for c, s in self._readout_shapes())

    def forward(self, spikes: Tensor) -> Prediction:
        """Depth after the last step of a sequence that begins at rest.

        Args:
            spikes: (T, B, 2, H, W) event counts, uint8 or float; H and W multiples of 8.

        Returns:
            Maps of (B, 1, H, W).

        Raises:
            ValueError: the shape does not fit.
        """
        return self.step(spikes, None)[0]

    def step(self, spikes: Tensor, state: State | None) -> tuple[Prediction, State]:
        """Continues a sequence: `forward`, but from `state` (None: rest), returning the next.

        The same steps give the same maps in however many calls they come.

        Raises:
            ValueError: the shape does not fit.
        """
        maps, tape = self._encode(spikes, state)
        if self.config.head_spiking:
            raw, totals = self._average([self.head(maps[:2], maps[2:], tape)], state)
        else:
            averages, totals = self._average(maps, state)
            raw = [self.head(averages[:2], averages[2:], tape)]
        prediction = to_prediction(raw[0], *spikes.shape[-2:])
        return prediction, self._after(spikes, state, tape, totals)

    def carry(self, spikes: Tensor, state: State | None) -> State:
        """What `step` returns as the next state, without the work of an answer."""
        if self.config.head_spiking:  # then the head has membranes too
            return self.step(spikes, state)[1]
        maps, tape = self._encode(spikes, state)
        return self._after(spikes, state, tape, self._average(maps, state)[1])

    def _encode(self, spikes: Tensor, state: State | None) -> tuple[list[Tensor], Tape]:
        """The maps (T, B, C, h, w) of stem and blocks that the head reads."""
        _check_shape(spikes)
        tape = Tape(None if state is None else state.membranes)
        stages = self.stem(spikes, tape)
        x = stages[3] + self.place(coordinates(stages[3]).to(stages[3].dtype))
        maps = [stages[0], stages[1]]
        for block in self.blocks:
            x = block(x, tape)
            maps.append(x)
        return maps, tape

    def _after(
        self, spikes: Tensor, state: State | None, tape: Tape, totals: tuple[Tensor, ...]
    ) -> State:
        """The state after `spikes`, from what the layers left behind."""
        seen = spikes.shape[0] + (self._unseen(spikes) if state is None else state.seen)
        return State(seen, tuple(tape.after), totals)

    def _average(
        self, maps: list[Tensor], state: State | None
    ) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """Averages over time of (T, B, C, h, w) maps, one per readout, and the running sums."""
        seen = self._unseen(maps[0]) if state is None else state.seen
        before = [None] * len(maps) if state is None else state.readouts
        pairs = [
            readout(steps, total, seen)
            for readout, steps, total in zip(self.readouts, maps, before, strict=True)
        ]
        return [average for average, _ in pairs], tuple(total for _, total in pairs)

    @staticmethod
    def _unseen(like: Tensor) -> Tensor:
        """(B,) zeros: no step seen yet, for (T, B, ...)."""
        return torch.zeros(like.shape[1], device=like.device)

    def rest(self, spikes: Tensor) -> State:
        """The state of rest for input like `spikes` (T, B, 2, H, W)."""
        _, batch, _, height, width = spikes.shape

        def zeros(layer: Neuron | Readout) -> Tensor:
            size = (-(-height // layer.stride), -(-width // layer.stride))
            return torch.zeros((batch, layer.channels, *size), device=spikes.device)

        modules = list(self.modules())
        return State(
            torch.zeros(batch, device=spikes.device),
            tuple(zeros(module) for module in modules if isinstance(module, Neuron)),
            tuple(zeros(module) for module in modules if isinstance(module, Readout)),
        )

    def folded(self) -> SpikingTransformer:
        """A copy for inference in which every batch normalisation has gone into its neighbour."""
        model = copy.deepcopy(self).eval().requires_grad_(False)
        for parent in model.modules():
            for name, child in list(parent.named_children()):
                if isinstance(child, ConvBN):
                    setattr(parent, name, child.folded().eval().requires_grad_(False))
                elif isinstance(child, nn.BatchNorm2d):
                    setattr(parent, name, ScaleShift(child))
        return model

    def _readout_shapes(self) -> list[tuple[int, int]]:
        """(channels, stride) of every average over time."""
        config = self.config
        if config.head_spiking:
            return [(3, self.head.out_stride)]
        return [(config.dim // 8, 2), (config.dim // 4, 4), *[(config.dim, 8)] * config.depth]


_HEADS: dict[str, Callable[..., FusionHead | LinearHead]] = {
    'fusion': FusionHead,
    'linear': LinearHead,
}


def _check_shape(spikes: Tensor) -> None:
    shape = tuple(spikes.shape)
    if len(shape) != 5 or shape[2] != 2:
        raise ValueError(f'spikes have shape {shape}, expected (T, B, 2, H, W)')
    if shape[0] < 1 or shape[3] % STRIDE or shape[4] % STRIDE:
        raise ValueError(
            f'spikes have shape {shape}, expected T >= 1 and H, W multiples of {STRIDE}'
        )
