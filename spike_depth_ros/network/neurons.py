"""Spiking neurons over a time axis, with their membrane as an explicit input and output.

Three neurons, all of threshold 1 and, to begin with, tau 2 in the Spikformer family:

* `lif`: leaky integrate-and-fire, binary spikes, hard reset to 0;
* `plif`: the same, but every channel learns its own tau (parametric LIF, ICCV 2021,
    arXiv 2007.05785, eq. 10; there one for a layer);
* `ilif`: integer LIF (ECCV 2024, arXiv 2407.20708), 0..levels spikes at once, soft reset.

Three backends compute the same numbers: `spikingjelly` (the reference), `torch` (what is
exported) and `fused` (one autograd function over all steps, compiled for the CPU or the GPU).
The default, `auto`, is the fastest that fits the tensor at hand.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from spike_depth_ros.events.config import require
from spike_depth_ros.network import fused, fused_gpu

SURROGATES: dict[str, float] = {'atan': 2.0, 'sigmoid': 4.0}
"""Surrogate gradient -> its steepness alpha; the same defaults as spikingjelly's."""

KINDS = ('lif', 'plif', 'ilif')
"""Kinds of neuron, see the module's text."""

LEAK_GAIN = 10.0
"""How much faster than a bias the logit of 1 / tau is learnt."""

BACKENDS = ('auto', 'fused', 'torch', 'spikingjelly')


class Tape:
    """Hands membranes to the neurons in the order in which the network calls them.

    A network's state is thereby a flat tuple of tensors: an exported graph can take it as inputs
    and return it as outputs, and nothing has to be reset.
    """

    def __init__(self, membranes: Sequence[Tensor] | None = None) -> None:
        self._before = None if membranes is None else iter(membranes)
        self.after: list[Tensor] = []

    def take(self) -> Tensor | None:
        """The membrane of the neuron that asks; None, at rest, if the tape began empty."""
        return None if self._before is None else next(self._before)

    def put(self, membrane: Tensor) -> None:
        """Keeps the membrane of the neuron that has just run."""
        self.after.append(membrane)


class Neuron(nn.Module):
    """A layer of spiking neurons; see the module's text for the kinds.

    Args:
        channels: C of its (T, B, C, H, W) input.
        stride: what the height and width of the network's input were divided by.
        kind: 'lif', 'plif' or 'ilif'.
        tau: membrane time constant in steps, greater than 1; what a plif begins with.
        threshold: membrane at which it fires.
        surrogate: a key of `SURROGATES` (not for ilif, which passes gradient within its levels).
        levels: most spikes that one step may hold (ilif only).
    """

    def __init__(
        self,
        channels: int,
        stride: int,
        kind: str = 'lif',
        tau: float = 2.0,
        threshold: float = 1.0,
        surrogate: str = 'atan',
        levels: int = 4,
    ) -> None:
        super().__init__()
        require(kind in KINDS, 'neuron', kind, f'one of {KINDS}')
        require(tau > 1.0, 'tau', tau, 'greater than 1')
        require(threshold > 0, 'threshold', threshold, 'greater than 0')
        require(surrogate in SURROGATES, 'surrogate', surrogate, f'one of {sorted(SURROGATES)}')
        require(levels >= 1, 'levels', levels, 'at least 1')
        self.channels, self.stride, self.kind, self.tau = channels, stride, kind, tau
        self.threshold, self.surrogate, self.levels = threshold, surrogate, levels
        self.backend = 'auto'
        if kind == 'plif':
            logit = -math.log(tau - 1.0)
            self.leak = nn.Parameter(torch.full((channels,), logit / LEAK_GAIN))

    def share(self) -> Tensor | None:
        """(C,) what a plif membrane takes in a step of what drives it: 1 / tau of its channel."""
        return torch.sigmoid(LEAK_GAIN * self.leak) if self.kind == 'plif' else None

    @property
    def dynamics(self) -> fused.Dynamics:
        """Its constants, for the compiled loops."""
        return fused.Dynamics(self.tau, self.threshold, self.surrogate, SURROGATES[self.surrogate])

    def forward(self, current: Tensor, tape: Tape, norm: nn.BatchNorm2d | None = None) -> Tensor:
        """Input currents (T, B, C, H, W) to spikes of that shape; the membrane goes by `tape`.

        Args:
            current: the input; with a norm, what that norm makes the input of.
            tape: holds the membrane.
            norm: a batch normalisation in training, done in one go with the neurons if possible.
        """
        if norm is not None and not self._fuses(current):
            current, norm = _normalised(current, norm), None
        before, backend = tape.take(), self._choose(current)
        if norm is not None:
            spikes, after, _ = fused.fire(current, self.dynamics, before, norm, share=self.share())
        else:
            if before is None and backend != 'fused':
                before = torch.zeros(current.shape[1:], device=current.device)
            spikes, after = _STEPPERS[self.kind, backend](self, current, before)
        tape.put(after)
        return spikes

    def join(
        self, x: Tensor, tape: Tape, norm: nn.BatchNorm2d, residual: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The sum residual + norm(x), and the spikes of `forward` for it as the input."""
        if not self._fuses(x):
            current = residual + _normalised(x, norm)
            return current, self(current, tape)
        spikes, after, summed = fused.fire(
            x, self.dynamics, tape.take(), norm, residual, self.share()
        )
        assert summed is not None
        tape.put(after)
        return summed, spikes

    def extra_repr(self) -> str:
        """What `print(model)` shows of this layer."""
        return f'{self.kind}, {self.channels} channels, tau={self.tau}, threshold={self.threshold}'

    def _fuses(self, x: Tensor) -> bool:
        """Whether a normalisation in training and the neurons can be one node of the graph."""
        return self.kind != 'ilif' and fused.fits(x, self.backend)

    def _choose(self, current: Tensor) -> str:
        if self.backend not in ('auto', 'fused'):
            return self.backend
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
        here = fused_gpu.fits(current) or (current.device.type == 'cpu' and not traced)
        return 'fused' if here and self.kind != 'ilif' else 'torch'


def set_backend(model: nn.Module, backend: str) -> nn.Module:
    """Makes every neuron of `model` run by `backend`, one of `BACKENDS`; returns the model.

    What else has compiled loops for training has them for 'auto' and 'fused' only.

    Raises:
        ConfigError: no such backend.
    """
    require(backend in BACKENDS, 'backend', backend, f'one of {BACKENDS}')
    for module in model.modules():
        if hasattr(module, 'backend'):
            module.backend = backend  # type: ignore[assignment]
    return model


def _lif_fused(neuron: Neuron, current: Tensor, membrane: Tensor | None) -> tuple[Tensor, Tensor]:
    if fused_gpu.fits(current):
        return fused_gpu.fire(current, neuron.dynamics, membrane, neuron.share())
    x = current if current.dtype == torch.bfloat16 else current.float()
    spikes, membrane, _ = fused.fire(x, neuron.dynamics, membrane, share=neuron.share())
    return spikes.to(current.dtype), membrane


def _normalised(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    return norm(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def _needs_gradient(current: Tensor, membrane: Tensor | None) -> bool:
    leaves = (current,) if membrane is None else (current, membrane)
    return torch.is_grad_enabled() and any(leaf.requires_grad for leaf in leaves)


class _Spike(torch.autograd.Function):
    """The Heaviside step, with the slope of a surrogate as its gradient."""

    @staticmethod
    def forward(ctx, above, surrogate):
        ctx.save_for_backward(above)
        ctx.surrogate = surrogate
        return (above >= 0).to(above.dtype)

    @staticmethod
    def backward(ctx, grad):
        (above,) = ctx.saved_tensors
        alpha = SURROGATES[ctx.surrogate]
        if ctx.surrogate == 'atan':
            return alpha / 2 / (1 + (math.pi * alpha / 2 * above).square()) * grad, None
        y = torch.sigmoid(alpha * above)
        return alpha * y * (1 - y) * grad, None


def _lif_torch(neuron: Neuron, current: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor]:
    if torch.compiler.is_compiling():
        return _lif_graph(neuron, current, membrane)
    if _needs_gradient(current, membrane):
        # keeps the currents and computes the membranes anew on the way back: autograd would keep
        # half a dozen maps of every step, more than a GPU holds of the larger networks
        return checkpoint(_lif_steps, neuron, current, membrane, use_reentrant=False,
                          preserve_rng_state=False)  # fmt: skip
    return _lif_steps(neuron, current, membrane)


def _lif_steps(neuron: Neuron, current: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor]:
    share, spikes = neuron.share(), []
    for x in current.unbind(0):
        driven = x - membrane
        charged = membrane + (
            driven / neuron.tau if share is None else driven * share.view(-1, 1, 1)
        )
        fired = _Spike.apply(charged - neuron.threshold, neuron.surrogate)
        membrane = (1 - fired.detach()) * charged
        spikes.append(fired)
    return torch.stack(spikes).to(current.dtype), membrane


def _lif_graph(neuron: Neuron, current: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor]:
    """The LIF in few operators and without booleans, which graph compilers fuse badly."""
    learnt, spikes = neuron.share(), []
    share = 1 / neuron.tau if learnt is None else learnt.view(-1, 1, 1)
    for x in current.unbind(0):
        charged = membrane + (x - membrane) * share
        ratio = charged if neuron.threshold == 1 else charged / neuron.threshold
        fired = ratio.floor().clamp(0, 1)
        membrane = charged - fired * charged
        spikes.append(fired)
    return torch.stack(spikes), membrane


def _ilif_torch(neuron: Neuron, current: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor]:
    spikes = []
    for x in current.unbind(0):
        charged = membrane - membrane / neuron.tau + x
        bounded = (charged / neuron.threshold).clamp(0, neuron.levels)
        # rounded in the value, straight through within the levels in the gradient
        count = bounded + (bounded.round() - bounded).detach() if torch.is_grad_enabled() else (
            bounded.round()
        )  # fmt: skip
        membrane = charged - count.detach().round() * neuron.threshold
        spikes.append(count)
    return torch.stack(spikes).to(current.dtype), membrane


@functools.cache
def _spikingjelly():
    """Modules functional and surrogate of spikingjelly: imported only where they are asked for."""
    from spikingjelly.activation_based import functional, surrogate

    # its operators make torch say at their first call, once for each, that a CPU has no Triton
    logging.getLogger('torch._library.triton').setLevel(logging.ERROR)
    return functional, surrogate


def _lif_spikingjelly(neuron: Neuron, current: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor]:
    functional, surrogate = _spikingjelly()
    spike = {'atan': surrogate.ATan, 'sigmoid': surrogate.Sigmoid}[neuron.surrogate]
    spikes, membrane, _ = functional.lif_multi_step(
        current, membrane, neuron.tau, True, neuron.threshold, 0.0,
        spike(SURROGATES[neuron.surrogate]), True,
    )  # fmt: skip
    return spikes, membrane


def _plif_spikingjelly(neuron: Neuron, current: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor]:
    functional, surrogate = _spikingjelly()
    spike = {'atan': surrogate.ATan, 'sigmoid': surrogate.Sigmoid}[neuron.surrogate]
    spikes, membrane, _ = functional.plif_multi_step(
        current, membrane, (LEAK_GAIN * neuron.leak).view(-1, 1, 1), True, neuron.threshold, 0.0,
        spike(SURROGATES[neuron.surrogate]), True,
    )  # fmt: skip
    return spikes, membrane


def _ilif_spikingjelly(neuron: Neuron, current: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor]:
    functional, surrogate = _spikingjelly()
    counts, membrane, _ = functional.ilif_multi_step(
        current, membrane, neuron.tau, neuron.threshold,
        surrogate.MultiLevelSpikeCount(neuron.levels), True,
    )  # fmt: skip
    return counts, membrane


_STEPPERS: dict[tuple[str, str], Callable[[Neuron, Tensor, Any], tuple[Tensor, Tensor]]] = {
    ('lif', 'fused'): _lif_fused,
    ('lif', 'torch'): _lif_torch,
    ('lif', 'spikingjelly'): _lif_spikingjelly,
    ('plif', 'fused'): _lif_fused,
    ('plif', 'torch'): _lif_torch,
    ('plif', 'spikingjelly'): _plif_spikingjelly,
    ('ilif', 'torch'): _ilif_torch,
    ('ilif', 'spikingjelly'): _ilif_spikingjelly,
}
