"""Depth heads: from maps of the encoder to log depth, range and uncertainty at full size."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spike_depth_ros.network.layers import ConvBN, ReLU, Residual, per_step
from spike_depth_ros.network.neurons import Neuron, Tape

HEADS = ('fusion', 'linear')

LANES = 16
"""Channels that a convolution on a CPU handles at once."""

DEEP = 2
"""Residual blocks at stride 16, and as many at 32. The finer maps have none, for one costs 4 to 64
times as much there: a single convolution each at strides 4 and 2 draws the edges."""

LOG_SCALE_CENTRE, LOG_SCALE_REACH = -1.5, 4.0


class Prediction(NamedTuple):
    """What the network says of every pixel; each (B, 1, H, W) float32.

    Attributes:
        log_depth: normalised log depth in [0, 1], see `DepthRange`.
        range_logit: logit of the probability that the pixel is nearer than `DepthRange.max_m`;
            negative for sky and whatever lies beyond.
        log_scale: ln of the Laplace scale b of the error of natural-log depth:
            P(|error| < e) = 1 - exp(-e / b).
    """

    log_depth: Tensor
    range_logit: Tensor
    log_scale: Tensor


MakeActivation = Callable[[int, int], Neuron | ReLU]
"""(channels, stride) -> the activation of that place."""


class FusionHead(nn.Module):
    """Fuses the maps of all blocks and of the stem, from coarse to fine.

    All block outputs are projected to one map at stride 8, which is taken down to strides 16
    and 32 for context (scale is a property of the whole image), worked on there, where it costs
    little, and comes back up through skips; the stem's maps at strides 4 and 2 join on the way
    for sharp edges (after DPT, ICCV 2021, section 3). Its last layer works at stride 2.

    Args:
        dims: channels of the stem's maps at strides 2 and 4.
        block_dim: channels of each block output.
        blocks: number of block outputs.
        width: channels at stride 8 and coarser; halved at stride 4 and again at stride 2, but
            rounded up to full vector registers, which makes more channels the faster choice.
        activation: makes the activations.
    """

    out_stride = 2

    def __init__(
        self, dims: tuple[int, int], block_dim: int, blocks: int, width: int,
        activation: MakeActivation,
    ) -> None:  # fmt: skip
        super().__init__()
        mid, fine = _round_up(width // 2), _round_up(width // 4)
        self.act_blocks = nn.ModuleList(activation(block_dim, 8) for _ in range(blocks))
        self.fuse = ConvBN(block_dim * blocks, width)
        self.down16 = _Down(width, 8, activation)
        self.down32 = _Down(width, 16, activation)
        self.context = nn.Linear(width, width)
        self.deep32, self.deep16 = (
            nn.ModuleList(
                Residual(activation(width, stride), activation(width, stride), width)
                for _ in range(DEEP)
            )
            for stride in (32, 16)
        )
        self.up4 = _Up(width, dims[1], mid, 8, activation)
        self.act4 = activation(mid, 4)
        gain = 2.0 if isinstance(self.act4, Neuron) else 1.0
        self.smooth4 = ConvBN(mid, mid, 3, gain=gain)
        self.up2 = _Up(mid, dims[0], fine, 4, activation)
        self.act_out = activation(fine, 2)
        self.smooth2 = ConvBN(fine, fine, 3, gain=gain)
        self.act_last = activation(fine, 2)
        self.out = nn.Conv2d(fine, 3, 3, padding=1)

    def forward(self, stem: list[Tensor], blocks: list[Tensor], tape: Tape) -> Tensor:
        """Stem maps (..., C, H/2, W/2), (..., C, H/4, W/4) and blocks to (..., 3, H/2, W/2).

        The first axes are (B,), or (T, B) for a head that spikes.
        """
        fired = [act(x, tape) for act, x in zip(self.act_blocks, blocks, strict=True)]
        f8 = per_step(self.fuse, _join(fired))
        f16 = self.down16(f8, tape)
        f32 = self.down32(f16, tape)
        f32 = f32 + self.context(f32.mean((-1, -2)))[..., None, None]
        for block in self.deep32:
            f32 = block(f32, tape)
        f16 = f16 + _resize_like(f32, f16)
        for block in self.deep16:
            f16 = block(f16, tape)
        f8 = f8 + _resize_like(f16, f8)
        f4 = self.up4(f8, stem[1], tape)
        f4 = per_step(self.smooth4, self.act4(f4, tape))
        f2 = self.up2(f4, stem[0], tape)
        f2 = per_step(self.smooth2, self.act_out(f2, tape))
        return per_step(self.out, self.act_last(f2, tape))


class _Down(nn.Module):
    """Halves the map: activation, 3x3 ConvBN of stride 2."""

    def __init__(self, width: int, stride: int, activation: MakeActivation) -> None:
        super().__init__()
        self.act = activation(width, stride)
        self.conv = ConvBN(width, width, 3, stride=2)

    def forward(self, x: Tensor, tape: Tape) -> Tensor:
        return per_step(self.conv, self.act(x, tape))


class _Up(nn.Module):
    """Doubles the map, plus a projected skip.

    A 1x1 ConvBN says of each pixel what the four are that it becomes (sub-pixel convolution, Shi
    et al., CVPR 2016): a blend of neighbours would blur every edge that the coarse map knows of.
    """

    def __init__(
        self, width: int, skip_dim: int, out: int, stride: int, activation: MakeActivation
    ) -> None:
        super().__init__()
        self.act = activation(width, stride)
        self.act_skip = activation(skip_dim, stride // 2)
        self.conv = ConvBN(width, 4 * out)
        self.skip = ConvBN(skip_dim, out)

    def forward(self, x: Tensor, skip: Tensor, tape: Tape) -> Tensor:
        four = per_step(self.conv, self.act(x, tape))
        return per_step(self.skip, self.act_skip(skip, tape)) + F.pixel_shuffle(four, 2)


class LinearHead(nn.Module):
    """The paper's ablation: one 1x1 convolution on the last block, enlarged to full size."""

    out_stride = 8

    def __init__(
        self, dims: tuple[int, int], block_dim: int, blocks: int, width: int,
        activation: MakeActivation,
    ) -> None:  # fmt: skip
        super().__init__()
        self.act = activation(block_dim, 8)
        self.out = nn.Conv2d(block_dim, 3, 1)

    def forward(self, stem: list[Tensor], blocks: list[Tensor], tape: Tape) -> Tensor:
        """Blocks (..., D, H/8, W/8) to (..., 3, H/8, W/8); the stem is not used."""
        return per_step(self.out, self.act(blocks[-1], tape))


def to_prediction(raw: Tensor, height: int, width: int) -> Prediction:
    """The head's three raw channels as a prediction, enlarged bilinearly.

    A sigmoid keeps log depth within [0, 1] with a gradient everywhere; a tanh bounds the
    uncertainty, so that no pixel can escape the loss by claiming to know nothing.

    Args:
        raw: (B, 3, h, w).
        height: H of the result.
        width: W of the result.
    """
    raw = raw.float()
    log_scale = LOG_SCALE_CENTRE + LOG_SCALE_REACH * torch.tanh(raw[:, 2:] / LOG_SCALE_REACH)
    maps = torch.cat([torch.sigmoid(raw[:, :1]), raw[:, 1:2], log_scale], dim=1)
    maps = F.interpolate(maps, (height, width), mode='bilinear', align_corners=False)
    return Prediction(*maps.split(1, dim=1))  # slices would each be padded on the way back


def _join(maps: list[Tensor]) -> Tensor:
    """Concatenates (..., C, H, W) along C, the channels last in memory but for a graph."""
    if torch.compiler.is_compiling():
        return torch.cat(maps, dim=-3)
    return torch.cat([x.movedim(-3, -1) for x in maps], dim=-1).movedim(-1, -3)


def _round_up(channels: int) -> int:
    return -(-channels // LANES) * LANES


def _resize_like(x: Tensor, like: Tensor) -> Tensor:
    """(..., C, h, w) enlarged bilinearly to the height and width of `like`."""
    size = like.shape[-2:]
    return per_step(lambda y: F.interpolate(y, size, mode='bilinear', align_corners=False), x)
