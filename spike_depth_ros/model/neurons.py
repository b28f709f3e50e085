"""Spiking neurons over a time axis, with their membrane as an explicit input and output.

Two neurons, both of tau 2 and threshold 1 in the Spikformer family:

* `lif`: leaky integrate-and-fire, binary spikes, hard reset to 0;
* `ilif`: integer LIF (ECCV 2024, arXiv 2407.20708), 0..levels spikes at once, soft reset.

Three backends compute the same numbers: `spikingjelly` (the reference), `torch` (what is
exported and what runs on a GPU) and `fused` (one autograd function over all steps, compiled for
the CPU). The default, `auto`, is the fastest that fits the tensor at hand.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numba
import numpy as np
import torch
from torch import Tensor, nn

from spike_depth_ros.config import require

SURROGATES: dict[str, float] = {'atan': 2.0, 'sigmoid': 4.0}
"""Surrogate gradient -> its steepness alpha; the same defaults as spikingjelly's."""

BACKENDS = ('auto', 'fused', 'torch', 'spikingjelly')

_CHUNK = 4096  # elements whose membrane stays in the first-level cache over all steps


class Tape:
    """Hands membranes to the neurons in the order in which the network calls them.

    A network's state is thereby a flat tuple of tensors: an exported graph can take it as inputs
    and return it as outputs, and nothing has to be reset.
    """

    def __init__(self, membranes: Sequence[Tensor] | None = None) -> None:
        self._before = None if membranes is None else iter(membranes)
        self.after: list[Tensor] = []

    def take(self, like: Tensor) -> Tensor:
        """The membrane of the neuron that asks; at rest (0) if the tape began empty."""
        if self._before is None:
            return torch.zeros(like.shape, device=like.device)
        return next(self._before)

    def put(self, membrane: Tensor) -> None:
        """Keeps the membrane of the neuron that has just run."""
        self.after.append(membrane)


class Neuron(nn.Module):
    """A layer of spiking neurons; see the module's text for the kinds.

    Args:
        channels: C of its (T, B, C, H, W) input.
        stride: what the height and width of the network's input were divided by.
        kind: 'lif' or 'ilif'.
        tau: membrane time constant in steps, greater than 1.
        threshold: membrane at which it fires.
        surrogate: a key of `SURROGATES` (lif only; ilif passes gradient within its levels).
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
        require(kind in ('lif', 'ilif'), 'neuron', kind, "'lif' or 'ilif'")
        require(tau > 1.0, 'tau', tau, 'greater than 1')
        require(threshold > 0, 'threshold', threshold, 'greater than 0')
        require(surrogate in SURROGATES, 'surrogate', surrogate, f'one of {sorted(SURROGATES)}')
        require(levels >= 1, 'levels', levels, 'at least 1')
        self.channels, self.stride, self.kind, self.tau = channels, stride, kind, tau
        self.threshold, self.surrogate, self.levels = threshold, surrogate, levels
        self.backend = 'auto'

    def forward(self, current: Tensor, tape: Tape) -> Tensor:
        """Input currents (T, B, C, H, W) to spikes of that shape; the membrane goes by `tape`."""
        membrane = tape.take(current[0])
        run = _STEPPERS[self.kind, self._choose(current)]
        spikes, membrane = run(self, current, membrane)
        tape.put(membrane)
        return spikes

    def extra_repr(self) -> str:
        """What `print(model)` shows of this layer."""
        return f'{self.kind}, {self.channels} channels, tau={self.tau}, threshold={self.threshold}'

    def _choose(self, current: Tensor) -> str:
        if self.backend != 'auto':
            return self.backend
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
        on_cpu = current.device.type == 'cpu'
        return 'fused' if on_cpu and not traced and self.kind == 'lif' else 'torch'


def set_backend(model: nn.Module, backend: str) -> nn.Module:
    """Makes every neuron of `model` run by `backend`, one of `BACKENDS`; returns the model.

    Raises:
        ConfigError: no such backend.
    """
    require(backend in BACKENDS, 'backend', backend, f'one of {BACKENDS}')
    for module in model.modules():
        if isinstance(module, Neuron):
            module.backend = backend
    return model


def expand_levels(counts: Tensor, levels: int) -> Tensor:
    """Integer spike counts as binary spikes: what hardware sees of an integer LIF.

    The slot d of a count c holds 1 where d < c, so that W c = sum over d of W slot_d
    (arXiv 2407.20708, eq. 8) and every product is a plain addition of a weight.

    Args:
        counts: (...) integers in 0..levels.
        levels: number of slots.

    Returns:
        (levels, ...) of {0, 1}, in the dtype of `counts`.
    """
    slots = torch.arange(levels, device=counts.device).view(-1, *[1] * counts.ndim)
    return (slots < counts).to(counts.dtype)


class _FusedLIF(torch.autograd.Function):
    """All steps of a LIF as one node of the graph; only the charged membrane h is kept.

    h = v + (x - v) / tau, s = [h >= threshold], v' = (1 - s) h; the reset carries no gradient.
    """

    @staticmethod
    def forward(ctx, current, membrane, tau, threshold, surrogate):
        x = current.detach().float().contiguous()
        h, spikes = torch.empty_like(x), torch.empty_like(x)
        v = membrane.detach().float().contiguous().clone()
        constants = _f32(tau, threshold)
        _forward_kernel(_flat(x), _flat(h), _flat(spikes), v.view(-1).numpy(), *constants)
        ctx.save_for_backward(h)
        ctx.constants = (tau, threshold, surrogate)
        return spikes.to(current.dtype), v

    @staticmethod
    def backward(ctx, grad_spikes, grad_membrane):
        (h,) = ctx.saved_tensors
        tau, threshold, surrogate = ctx.constants
        carry = grad_membrane.float().contiguous().clone()
        grad = grad_spikes.float().contiguous()
        out = torch.empty_like(h)
        kernel = _BACKWARD_KERNELS[surrogate]
        alpha = SURROGATES[surrogate]
        constants = _f32(tau, threshold, alpha)
        kernel(_flat(grad), _flat(h), _flat(out), carry.view(-1).numpy(), *constants)
        return out.to(grad_spikes.dtype), carry, None, None, None


def _flat(tensor: Tensor) -> np.ndarray:
    """(T, ...) contiguous tensor as a (T, N) array over the same memory."""
    return tensor.view(tensor.shape[0], -1).numpy()


def _f32(*values: float) -> tuple[np.float32, ...]:
    return tuple(np.float32(value) for value in values)


# Loops over whole rows, given as slices of their own, are what the compiler can vectorise.
@numba.njit(nogil=True, error_model='numpy', inline='always')
def _charge_and_fire(x, h, spikes, v, tau, threshold):
    zero, one = np.float32(0), np.float32(1)
    for i in range(x.size):
        charged = v[i] + (x[i] - v[i]) / tau
        fired = charged >= threshold
        h[i] = charged
        spikes[i] = one if fired else zero
        v[i] = zero if fired else charged


@numba.njit(cache=True, nogil=True, error_model='numpy')
def _forward_kernel(x, h, spikes, v, tau, threshold):
    """Fills h and spikes (T, N) and advances v (N,). Pass h of one row if it is not wanted."""
    steps, n = x.shape
    for start in range(0, n, _CHUNK):
        part = slice(start, min(start + _CHUNK, n))
        for t in range(steps):
            row = h[t if h.shape[0] == steps else 0, part]
            _charge_and_fire(x[t, part], row, spikes[t, part], v[part], tau, threshold)


def _backward_kernel(slope: Callable) -> Callable:
    """The backward pass over all steps, for a surrogate whose derivative is `slope`."""
    slope = numba.njit(slope, inline='always')

    @numba.njit(nogil=True, error_model='numpy', inline='always')
    def step(grad, h, out, carry, tau, threshold, alpha):
        zero = np.float32(0)
        for i in range(h.size):
            charged = h[i]
            through = zero if charged >= threshold else carry[i]
            g = grad[i] * slope(charged - threshold, alpha) + through
            out[i] = g / tau
            carry[i] = g - g / tau

    @numba.njit(nogil=True, error_model='numpy')
    def kernel(grad, h, out, carry, tau, threshold, alpha):
        steps, n = h.shape
        for start in range(0, n, _CHUNK):
            part = slice(start, min(start + _CHUNK, n))
            for t in range(steps - 1, -1, -1):
                step(grad[t, part], h[t, part], out[t, part], carry[part], tau, threshold, alpha)

    return kernel


def _atan_slope(x, alpha):
    half = alpha * np.float32(0.5)
    scaled = np.float32(math.pi) * half * x
    return half / (np.float32(1) + scaled * scaled)


def _sigmoid_slope(x, alpha):
    y = np.float32(1) / (np.float32(1) + np.exp(-alpha * x))
    return alpha * y * (np.float32(1) - y)


_BACKWARD_KERNELS = {
    'atan': _backward_kernel(_atan_slope),
    'sigmoid': _backward_kernel(_sigmoid_slope),
}


def _lif_fused(neuron: Neuron, current: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor]:
    if torch.is_grad_enabled() and (current.requires_grad or membrane.requires_grad):
        return _FusedLIF.apply(current, membrane, neuron.tau, neuron.threshold, neuron.surrogate)
    x = current.detach().float().contiguous()
    v = membrane.detach().float().contiguous().clone()
    spikes = torch.empty_like(x)
    constants = _f32(neuron.tau, neuron.threshold)
    scratch = np.empty((1, v.numel()), np.float32)
    _forward_kernel(_flat(x), scratch, _flat(spikes), v.view(-1).numpy(), *constants)
    return spikes.to(current.dtype), v


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
    differentiable = torch.is_grad_enabled() and not torch.compiler.is_compiling()
    spikes = []
    for x in current.unbind(0):
        charged = membrane + (x - membrane) / neuron.tau
        if differentiable:
            fired = _Spike.apply(charged - neuron.threshold, neuron.surrogate)
            membrane = (1 - fired.detach()) * charged
        else:
            over = charged >= neuron.threshold
            fired = over.to(charged.dtype)
            membrane = torch.where(over, 0.0, charged)
        spikes.append(fired)
    return torch.stack(spikes).to(current.dtype), membrane


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
    """The and surrogate modules of spikingjelly: imported only where they are asked for."""
    from spikingjelly.activation_based import functional, surrogate

    return functional, surrogate


def _lif_spikingjelly(neuron: Neuron, current: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor]:
    functional, surrogate = _spikingjelly()
    spike = {'atan': surrogate.ATan, 'sigmoid': surrogate.Sigmoid}[neuron.surrogate]
    spikes, membrane, _ = functional.lif_multi_step(
        current, membrane, neuron.tau, True, neuron.threshold, 0.0,
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


_STEPPERS: dict[tuple[str, str], Callable[[Neuron, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    ('lif', 'fused'): _lif_fused,
    ('lif', 'torch'): _lif_torch,
    ('lif', 'spikingjelly'): _lif_spikingjelly,
    ('ilif', 'fused'): _ilif_torch,
    ('ilif', 'torch'): _ilif_torch,
    ('ilif', 'spikingjelly'): _ilif_spikingjelly,
}
