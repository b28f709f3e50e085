"""Layers that the spiking encoder and the depth heads share."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spike_depth_ros.network import fused, kernels
from spike_depth_ros.network.neurons import Neuron, Tape


def initialise(parameter: Tensor, fill: Callable[[Tensor], Any]) -> None:
    """Gives a parameter its first values, unless it has no memory (device `meta`).

    There it would be no work, but PyTorch would load its compiler for it: two seconds that
    whoever reads a checkpoint would wait for nothing.

    Args:
        parameter: to fill.
        fill: does it in place.
    """
    if not parameter.is_meta:
        with torch.no_grad():
            fill(parameter)


class ConvBN(nn.Module):
    """A convolution without bias, then batch normalisation.

    One convolution does it where the normalisation rests: in inference, and in the part of a
    training run after which the statistics stand still.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: size of the kernel; padded so that stride 1 keeps the size.
        stride: of the convolution; n rows become ceil(n / stride).
        gain: initial scale of the normalised output. Neurons of threshold 1 that halve their
            input fire at a healthy rate for 2 (the idea of tdBN, AAAI 2021, section 3.2).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1,
        gain: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        initialise(
            self.conv.weight, lambda weight: nn.init.kaiming_normal_(weight, nonlinearity='linear')
        )
        nn.init.constant_(self.bn.weight, gain)
        self.backend = 'auto'

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        if not self.bn.training:
            return F.conv2d(x, *self._fold(), self.conv.stride, self.conv.padding)
        y = self.conv(x)
        if fused.fits(y, self.backend):
            return fused.normalise(y, self.bn)
        return self.bn(y)

    def folded(self) -> nn.Conv2d:
        """The one convolution, with bias, that does the same in inference."""
        weight, bias = self._fold()
        conv = copy.deepcopy(self.conv)
        conv.weight = nn.Parameter(weight.detach(), requires_grad=False)
        conv.bias = nn.Parameter(bias.detach(), requires_grad=False)
        return conv

    def _fold(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of both as one convolution: differentiable, in double precision.

        w' = w * gamma / sqrt(var + eps), b' = beta - mean * gamma / sqrt(var + eps).
        """
        scale, shift = scale_and_shift(self.bn)
        weight = self.conv.weight.double() * scale[:, None, None, None]
        return weight.float(), shift.float()


class ScaleShift(nn.Module):
    """What a batch normalisation is in inference: scale * x + shift per channel (C,).

    Whoever makes x has a cheaper place for the scale, see `at_rest`.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, bn: nn.BatchNorm2d) -> None:
        super().__init__()
        scale, shift = scale_and_shift(bn)
        self.register_buffer('scale', scale.detach().float())
        self.register_buffer('shift', shift.detach().float())


def at_rest(norm: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Scale and shift (C,) of a normalisation that stands still, None of one that follows."""
    if isinstance(norm, ScaleShift):
        return norm.scale, norm.shift
    if not isinstance(norm, nn.BatchNorm2d) or norm.training:
        return None
    scale, shift = scale_and_shift(norm)
    return scale.float(), shift.float()


def scale_and_shift(bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Per channel (C,) float64 scale and shift of a batch normalisation that rests."""
    assert bn.running_mean is not None, 'without running statistics there is nothing to fold'
    assert bn.running_var is not None
    scale = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
    return scale, bn.bias.double() - bn.running_mean.double() * scale


def per_step(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Applies a layer of images to every time step: (T, B, C, H, W) to (T, B, C', H', W').

    Without time, (B, C, H, W), it is the layer itself.
    """
    if x.ndim == 4:
        return layer(x)
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def fire(layer: nn.Module, neuron: Neuron | ReLU, x: Tensor, tape: Tape) -> Tensor:
    """Spikes of `neuron` for the currents that `layer`, a ConvBN or what it folds to, makes."""
    if isinstance(neuron, Neuron) and isinstance(layer, ConvBN) and layer.bn.training:
        return neuron(per_step(layer.conv, x), tape, layer.bn)
    return neuron(per_step(layer, x), tape)


def add(residual: Tensor, layer: nn.Module, x: Tensor) -> Tensor:
    """The sum residual + layer(x), per step."""
    if isinstance(layer, ConvBN) and layer.bn.training:
        y = per_step(layer.conv, x)
        if fused.fits(y, layer.backend):
            return fused.normalise(y, layer.bn, residual)
        return residual + per_step(layer.bn, y)
    return residual + per_step(layer, x)


def join(
    residual: Tensor, layer: nn.Module, neuron: Neuron, x: Tensor, tape: Tape
) -> tuple[Tensor, Tensor]:
    """The current residual + layer(x), and the spikes of `neuron` for it."""
    if isinstance(layer, ConvBN) and layer.bn.training:
        return neuron.join(per_step(layer.conv, x), tape, layer.bn, residual)
    current = residual + per_step(layer, x)
    return current, neuron(current, tape)


class ReLU(nn.Module):
    """The activation of a head that does not spike, called as a neuron is."""

    def forward(self, x: Tensor, tape: Tape) -> Tensor:
        """Rectifies; leaves the tape alone."""
        return x.relu()


class Residual(nn.Module):
    """x + ConvBN(act(ConvBN(act(x)))), 3x3: activation first, as in the spiking blocks.

    Args:
        first: activation before the first ConvBN, a `Neuron` or `ReLU`.
        second: activation before the second.
        channels: of input and output.
    """

    def __init__(self, first: Neuron | ReLU, second: Neuron | ReLU, channels: int) -> None:
        super().__init__()
        self.act1, self.act2 = first, second
        gain = 2.0 if isinstance(second, Neuron) else 1.0
        self.conv1 = ConvBN(channels, channels, 3, gain=gain)
        self.conv2 = ConvBN(channels, channels, 3)

    def forward(self, x: Tensor, tape: Tape) -> Tensor:
        """(..., B, C, H, W) to the same shape."""
        y = fire(self.conv1, self.act2, self.act1(x, tape), tape)
        return add(x, self.conv2, y)


class Readout(nn.Module):
    """A leaky average over time per channel: what remains of a sequence as one map.

    a' = decay * a + (1 - decay) * x, divided by 1 - decay^n after n steps (the bias correction
    of Adam, ICLR 2015, section 3). The weights of the steps seen thus always sum to 1, so that
    one step, one window and an endless stream give maps of the same scale. Every channel learns
    its own decay: short ones see what is new, long ones what stays, their difference motion.

    Args:
        channels: C.
        stride: what the height and width of the network's input were divided by.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride
        self.logit = nn.Parameter(torch.empty(channels))
        initialise(self.logit, lambda logit: logit.copy_(_first_logits(channels)))
        self.backend = 'auto'

    def forward(self, x: Tensor, total: Tensor | None, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Takes in the steps of a chunk.

        Args:
            x: (T, B, C, H, W) the new steps.
            total: (B, C, H, W) float32 running sum, or None at rest.
            seen: (B,) number of steps before this chunk.

        Returns:
            (B, C, H, W) the average after the last step, and the new running sum.
        """
        decay = torch.sigmoid(self.logit)
        norm = 1 / (1 - decay ** (seen + x.shape[0]).view(-1, 1))  # (B, C)
        if self._is_compiled(x):
            return _compiled_readout(x, total, decay, norm)
        # as one weighted sum over the steps, which keeps far less for the backward pass
        steps = x.shape[0]
        ages = torch.arange(steps - 1, -1, -1, device=x.device).view(-1, 1)
        weights = (1 - decay) * decay**ages  # (T, C)
        if fused.fits(x, self.backend):
            new = fused.weighted_sum(x, weights)
        else:
            shares = x * weights.view(steps, 1, -1, 1, 1)
            new = shares[0] if steps == 1 else shares.sum(0)  # a graph would run the sum of one
        total = new if total is None else (decay**steps).view(-1, 1, 1) * total + new
        return (total * norm[..., None, None]).to(x.dtype), total

    @staticmethod
    def _is_compiled(x: Tensor) -> bool:
        """Whether the compiled loop for inference fits: one stream on the CPU."""
        known = x.dtype in (torch.float32, torch.bfloat16) and x.device.type == 'cpu'
        training = torch.is_grad_enabled() or torch.compiler.is_compiling()
        return known and x.shape[1] == 1 and not training


def _compiled_readout(
    x: Tensor, total: Tensor | None, decay: Tensor, norm: Tensor
) -> tuple[Tensor, Tensor]:
    """`Readout` as one loop over channels-last maps; see there."""
    steps, _, channels, height, width = x.shape
    # several pixels make one row of the loop, so that few channels fill its vectors too
    pixels = math.gcd(height * width, max(1, 64 // channels))
    columns = pixels * channels
    rows = x.permute(0, 1, 3, 4, 2).contiguous().view(steps, -1, columns)
    before = torch.empty(0, columns)
    if total is not None:
        before = total.permute(0, 2, 3, 1).contiguous().view(-1, columns)
    after = torch.empty(rows.shape[1:])
    average = torch.empty(rows.shape[1:], dtype=x.dtype)
    bits = torch.uint16 if x.dtype == torch.bfloat16 else x.dtype
    kernels.readout(
        rows.view(bits).numpy(), before.numpy(), after.numpy(), average.view(bits).numpy(),
        decay.repeat(pixels).numpy(), norm[0].repeat(pixels).numpy(),
    )  # fmt: skip
    shape = (1, height, width, channels)
    return average.view(shape).permute(0, 3, 1, 2), after.view(shape).permute(0, 3, 1, 2)


def _first_logits(channels: int) -> Tensor:
    """(C,) logits of the decays of a `Readout` that has learnt nothing yet."""
    half_lives = torch.logspace(-0.5, 1.0, channels)  # in steps, 0.3 to 10
    decay = 0.5 ** (1 / half_lives)
    # channels of different memory lie next to each other, in every group of a later layer
    order = torch.arange(channels) * 5 % channels if channels % 5 else torch.arange(channels)
    return torch.logit(decay[order])
