"""Energy of a network on 45 nm silicon: what it really adds and multiplies, layer by layer.

Every convolution and matrix product that runs is seen, whatever module it is in. A product
counts as accumulations (AC) only if an operand really was {0, 1}; then only its ones cost.
Normalisations are taken as folded; elementwise work (residual sums, membranes) is left out, as
in the literature on spiking transformers. Memory traffic is stated apart: weights, what is
remembered, and what goes into and comes out of every product.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from spike_depth_ros.network.baselines import ConvLstm
from spike_depth_ros.network.layers import Readout
from spike_depth_ros.network.neurons import Neuron
from spike_depth_ros.network.spiking_transformer import SpikingTransformer

E_MAC_PJ = 4.6
"""A 32-bit float multiplication and addition (Horowitz, ISSCC 2014, figure 1.1.9: 3.7 + 0.9)."""

E_AC_PJ = 0.9
"""A 32-bit float addition (same source)."""

E_MEMORY_PJ_PER_BYTE = 24.96
"""On-chip memory, 3.12 pJ per bit (STEP, as in spikingjelly's `SimpleEnergyCostConfig`)."""

FLOAT_BYTES = 4


@dataclasses.dataclass(frozen=True)
class LayerEnergy:
    """One product of one layer, for one depth map.

    Attributes:
        name: of the module; matrix products of attention have a number behind it.
        part: 'encoder' or 'head'.
        rate: share of its input that is not 0 (integer spikes: their mean).
        spiking: whether its input was spikes only.
        dense_macs: multiply-accumulates if nothing were skipped.
        macs: multiply-accumulates that cost.
        acs: accumulations that cost.
    """

    name: str
    part: str
    rate: float
    spiking: bool
    dense_macs: float
    macs: float
    acs: float

    @property
    def compute_pj(self) -> float:
        """Energy of its arithmetic."""
        return self.macs * E_MAC_PJ + self.acs * E_AC_PJ


@dataclasses.dataclass(frozen=True)
class EnergyReport:
    """Energy of one depth map, the mean over the windows given.

    Attributes:
        layers: in the order in which they ran.
        weight_bytes: every weight, read once per time step where spikes meet it, else once.
        state_bytes: all that is remembered, read and written each time: membranes and running
            sums per time step, the two maps of a ConvLSTM per window.
        activation_bytes: what goes into every product (spikes: a bit each) and comes out of it.
    """

    layers: tuple[LayerEnergy, ...]
    weight_bytes: float
    state_bytes: float
    activation_bytes: float

    def compute_pj(self, part: str | None = None) -> float:
        """Energy of all arithmetic, or of that of 'encoder' or 'head'."""
        return sum(layer.compute_pj for layer in self.layers if part in (None, layer.part))

    @property
    def memory_pj(self) -> float:
        """Energy of the memory traffic, which no other figure here contains."""
        in_all = self.weight_bytes + self.state_bytes + self.activation_bytes
        return in_all * E_MEMORY_PJ_PER_BYTE

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: totals, shares and all layers."""
        return {
            'encoder_uj': self.compute_pj('encoder') * 1e-6,
            'head_uj': self.compute_pj('head') * 1e-6,
            'total_uj': self.compute_pj() * 1e-6,
            'memory_uj': self.memory_pj * 1e-6,
            'dense_gmac': sum(layer.dense_macs for layer in self.layers) * 1e-9,
            'layers': [
                {**dataclasses.asdict(layer), 'compute_pj': layer.compute_pj}
                for layer in self.layers
            ],
        }


def measure_energy(model: nn.Module, spikes: Tensor) -> EnergyReport:
    """Runs a copy of `model` once from rest and counts.

    Args:
        model: any network of `MODELS` that sees events.
        spikes: (T, B, 2, H, W) windows of real or simulated events: firing rates, and thereby
            the result, are those of this input.

    Returns:
        Energy per depth map: the mean over the B windows.
    """
    return count_energy(measurable(model), spikes)


def measurable(model: nn.Module) -> nn.Module:
    """A copy of `model` for `count_energy`: in evaluation, with its normalisations folded."""
    if isinstance(model, SpikingTransformer):
        return model.folded()
    return copy.deepcopy(model).eval()


def count_energy(
    model: nn.Module, spikes: Tensor, pause: Callable[[], None] = lambda: None
) -> EnergyReport:
    """Runs `model` once from rest and counts.

    Args:
        model: what `measurable` gave. Nobody else may run it meanwhile.
        spikes: as of `measure_energy`.
        pause: called before every operator, of which the longest are the products. What it
            raises ends the measurement; the model is as before then.

    Returns:
        Energy per depth map, as `measure_energy`.
    """
    levels = 1
    if isinstance(model, SpikingTransformer) and model.config.neuron == 'ilif':
        levels = model.config.levels
    steps, batch = spikes.shape[:2]
    counter = _Counter(model, levels, pause)
    remembered = 0

    def count_state(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal remembered
        remembered += _STATES[type(module)](inputs, output)

    handles = [
        module.register_forward_hook(count_state)
        for module in model.modules()
        if type(module) in _STATES
    ]
    try:
        with torch.no_grad(), counter:
            model(spikes)
    finally:
        for handle in (*handles, *counter.handles):
            handle.remove()
    layers = tuple(_per_map(layer, batch) for layer in counter.layers)
    return EnergyReport(
        layers,
        _weight_bytes(model, steps),
        2.0 * FLOAT_BYTES * remembered / batch,
        counter.activation_bytes / batch,
    )


_STATES: dict[type, Callable[[Any, Any], int]] = {
    Neuron: lambda inputs, spikes: spikes.numel(),
    Readout: lambda inputs, output: inputs[0].numel(),
    ConvLstm: lambda inputs, state: sum(maps.numel() for maps in state),
}
"""Layer that remembers -> how many numbers it reads and writes in a call."""


def _weight_bytes(model: nn.Module, steps: int) -> float:
    """Bytes of weights read for one map: what spikes runs T times, all else once."""
    per_step: tuple[str, ...] = ()
    if isinstance(model, SpikingTransformer):
        per_step = ('stem.', 'blocks.', 'head.') if model.config.head_spiking else (
            'stem.', 'blocks.'
        )  # fmt: skip
    return float(FLOAT_BYTES * sum(
        weight.numel() * (steps if name.startswith(per_step) else 1)
        for name, weight in model.named_parameters()
    ))  # fmt: skip


def _per_map(layer: LayerEnergy, batch: int) -> LayerEnergy:
    counts = {key: getattr(layer, key) / batch for key in ('dense_macs', 'macs', 'acs')}
    return dataclasses.replace(layer, **counts)


Count = tuple[float, bool, float, float]
"""Of a product: rate of its input, whether that is spikes only, dense MACs, ACs."""

SpikesOf = Callable[[Tensor], Tensor | None]
"""Gives back an operand that holds nothing but whole spikes, and None for any other."""


class _Counter(TorchDispatchMode):
    """Sees every product that runs, and knows the module that it runs in."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Otherwise PyTorch loads its compiler, two seconds, only to leave this class alone."""
        return False

    def __init__(self, model: nn.Module, levels: int, pause: Callable[[], None]) -> None:
        super().__init__()
        self.layers: list[LayerEnergy] = []
        self.activation_bytes = 0.0
        self._levels, self._pause = levels, pause
        self._stack: list[str] = []
        self._calls: dict[str, int] = {}
        self.handles: list[Any] = []
        for name, module in model.named_modules():
            enter, leave = self._hooks(name)
            self.handles.append(module.register_forward_pre_hook(enter))
            self.handles.append(module.register_forward_hook(leave))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        self._pause()
        result = func(*args, **(kwargs or {}))
        rule = _RULES.get(func)
        if rule is not None:
            spikes_of = self._looking_once()
            self.layers.append(self._layer(rule.tally(args, result, spikes_of)))
            operands = (args[place] for place in rule.operands)
            self.activation_bytes += sum(_bytes(x, spikes_of) for x in operands)
            made = result if isinstance(result, Tensor) else result[0]
            self.activation_bytes += FLOAT_BYTES * made.numel()
        return result

    def _looking_once(self) -> SpikesOf:
        """`_spikes_of` for the operands of one product, each of which is looked at once."""
        seen: dict[int, Tensor | None] = {}

        def spikes_of(x: Tensor) -> Tensor | None:
            if id(x) not in seen:
                seen[id(x)] = _spikes_of(x, self._levels)
            return seen[id(x)]

        return spikes_of

    def _layer(self, count: Count) -> LayerEnergy:
        rate, spiking, dense, acs = count
        name = self._stack[-1] if self._stack else ''
        calls = self._calls[name] = self._calls.get(name, 0) + 1
        part = 'head' if name.split('.')[0] == 'head' else 'encoder'
        shown = name if calls == 1 else f'{name}#{calls}'
        return LayerEnergy(shown, part, rate, spiking, dense, 0.0 if spiking else dense, acs)

    def _hooks(self, name: str) -> tuple[Callable[..., None], Callable[..., None]]:
        def enter(*_: Any) -> None:
            self._stack.append(name)

        def leave(*_: Any) -> None:
            self._stack.pop()

        return enter, leave


def _spikes_of(x: Tensor, levels: int) -> Tensor | None:
    """`x` if it holds nothing but whole spikes, 0..levels; else None."""
    low, high = x.aminmax()
    return x if low >= 0 and high <= levels and torch.equal(x, x.round()) else None


def _bytes(x: Tensor, spikes_of: SpikesOf) -> float:
    """Of an operand: a bit for each that may be a spike, else a float."""
    return x.numel() / 8 if spikes_of(x) is not None else float(FLOAT_BYTES * x.numel())


def _convolution(args: tuple, result: Tensor, spikes_of: SpikesOf) -> Count:
    x, weight, _, stride, padding, dilation, transposed = args[:7]
    positions = x[:, 0].numel() if transposed else result[:, 0].numel()
    dense = float(weight.numel()) * positions
    spikes = None if transposed else spikes_of(x)
    rate = float(x.float().mean()) if spikes is not None else float((x != 0).float().mean())
    if spikes is None:
        return rate, False, dense, 0.0
    groups = x.shape[1] // weight.shape[1]
    # a spike costs one weight for each output position whose kernel covers it, borders included
    added = spikes.sum((0, 1)).double()
    for axis in reversed(range(added.ndim)):
        added = added @ _covering(
            x.shape[2 + axis], result.shape[2 + axis], weight.shape[2 + axis], stride[axis],
            padding[axis], dilation[axis],
        )  # fmt: skip
    return rate, True, dense, float(added) * weight.shape[0] / groups


def _covering(
    inputs: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int
) -> Tensor:
    """(inputs,) along one axis: by how many output positions each input position is covered."""
    starts = torch.arange(outputs)[:, None] * stride - padding
    covered = (starts + torch.arange(kernel) * dilation).flatten()
    inside = covered[(covered >= 0) & (covered < inputs)]
    return torch.bincount(inside, minlength=inputs).double()


def _product(a: Tensor, b: Tensor, spikes_of: SpikesOf) -> Count:
    """(..., m, k) @ (..., k, n); of two spiking operands the sparser one decides."""
    dense = float(a.numel()) * b.shape[-1]
    left, right = spikes_of(a), spikes_of(b)
    costs = []
    if left is not None:
        costs.append(float(left.sum()) * b.shape[-1])
    if right is not None:
        costs.append(float(right.sum()) * a.shape[-2])
    rate = float((a != 0).float().mean())
    return rate, bool(costs), dense, min(costs, default=0.0)


def _attention(args: tuple, result: Any, spikes_of: SpikesOf) -> Count:
    """Q K^T and its product with V, inside one fused operator."""
    q, k = args[:2]
    dense = 2.0 * q.numel() * k.shape[-2]
    return float((q != 0).float().mean()), False, dense, 0.0


class _Rule(NamedTuple):
    """How to count an operator."""

    tally: Callable[[tuple, Any, SpikesOf], Count]
    """From its arguments, its result and what says which of them are spikes."""
    operands: tuple[int, ...]
    """Places of the arguments that are no weights."""


def _first(args: tuple, result: Any, spikes_of: SpikesOf) -> Count:
    return _product(args[0], args[1], spikes_of)


def _second(args: tuple, result: Any, spikes_of: SpikesOf) -> Count:
    return _product(args[1], args[2], spikes_of)


_ATEN = torch.ops.aten
_RULES: dict[Any, _Rule] = {
    _ATEN.convolution.default: _Rule(_convolution, (0,)),
    _ATEN.mm.default: _Rule(_first, (0,)),
    _ATEN.addmm.default: _Rule(_second, (1,)),
    _ATEN.bmm.default: _Rule(_first, (0, 1)),
    _ATEN.baddbmm.default: _Rule(_second, (1, 2)),
    _ATEN._scaled_dot_product_flash_attention_for_cpu.default: _Rule(_attention, (0, 1, 2)),
}
"""Products: `linear` makes mm and addmm of itself, attention bmm."""
