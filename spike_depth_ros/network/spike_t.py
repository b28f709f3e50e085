"""Spike-T: a 3-D Swin transformer over the time blocks of a spike stream.

Zhang et al., "Spike Transformer: Monocular Depth Estimation for Spiking Camera", ECCV 2022,
written anew from its description, with windowed attention as in Video Swin (CVPR 2022).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spike_depth_ros.events.config import require
from spike_depth_ros.network.baselines import MAPS, Residual, bins_as_channels, padded
from spike_depth_ros.network.head import Prediction, to_prediction

DEPTHS = (2, 2, 6)
HEADS = (3, 6, 12)
WINDOW_PX = 7


@dataclasses.dataclass(frozen=True)
class SpikeTConfig:
    """Spike-T.

    Attributes:
        steps: time bins T per window, a multiple of `blocks`.
        width: channels of the first stage, a multiple of 3; 96 has 20.7 M parameters, 20.5 M are
            published, 12 has 0.43 M.
        blocks: temporal blocks that the bins are grouped in.
    """

    steps: int = 4
    width: int = 12
    blocks: int = 4

    def __post_init__(self) -> None:
        require(1 <= self.blocks <= 64, 'blocks', self.blocks, '1 to 64')
        require(
            1 <= self.steps <= 1024 and self.steps % self.blocks == 0,
            'steps', self.steps, f'a multiple of blocks = {self.blocks} up to 1024',
        )  # fmt: skip
        require(3 <= self.width <= 2049 and self.width % 3 == 0, 'width', self.width,
                'a multiple of 3 up to 2049')  # fmt: skip


class SpikeT(nn.Module):
    """Patch embedding, three 3-D Swin stages at strides 2, 4 and 8, a convolutional decoder.

    Each temporal block is embedded from its own bins plus a branch that sees the whole window;
    after each stage a 1x1 convolution melts the blocks into one map for the decoder.
    """

    def __init__(self, config: SpikeTConfig) -> None:
        super().__init__()
        self.config = config
        widths = tuple(config.width * 2**i for i in range(len(DEPTHS)))
        bins = 2 * config.steps
        self.embed_block = nn.Conv2d(bins // config.blocks, widths[0], 2, stride=2)
        self.embed_all = nn.Conv2d(bins, widths[0], 2, stride=2)
        self.embed_norm = nn.LayerNorm(widths[0])
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(SwinBlock(width, heads, config.blocks, i % 2 == 1) for i in range(depth))
            )
            for width, heads, depth in zip(widths, HEADS, DEPTHS, strict=True)
        )
        self.merges = nn.ModuleList(PatchMerging(width) for width in widths[:-1])
        self.melts = nn.ModuleList(nn.Conv2d(config.blocks * width, width, 1) for width in widths)
        self.residuals = nn.ModuleList(Residual(widths[-1]) for _ in range(2))
        outs = (*widths[-2::-1], config.width // 2 or 1)
        self.decoders = nn.ModuleList(
            nn.Conv2d(i, o, 5, padding=2) for i, o in zip(widths[::-1], outs, strict=True)
        )
        self.head = nn.Conv2d(outs[-1], MAPS, 1)

    def forward(self, spikes: Tensor) -> Prediction:
        """(T, B, 2, H, W) counts -> `Prediction` of (B, 1, H, W) maps."""
        height, width = spikes.shape[-2:]
        x = padded(bins_as_channels(spikes, self.config.steps))
        blocks = x.unflatten(1, (self.config.blocks, -1))  # (B, D, 2T/D, H, W)
        embedded = self.embed_block(blocks.flatten(0, 1)).unflatten(0, blocks.shape[:2])
        embedded = embedded + self.embed_all(x)[:, None]
        tokens = self.embed_norm(embedded.permute(0, 1, 3, 4, 2))  # (B, D, h, w, C)
        skips = []
        for i, (stage, melt) in enumerate(zip(self.stages, self.melts, strict=True)):
            if i:
                tokens = self.merges[i - 1](tokens)
            tokens = stage(tokens)
            skips.append(melt(tokens.permute(0, 1, 4, 2, 3).flatten(1, 2)))
        x = skips[-1]
        for residual in self.residuals:
            x = residual(x)
        for decoder, skip in zip(self.decoders, skips[::-1], strict=True):
            wide = F.interpolate(x + skip, scale_factor=2.0, mode='bilinear', align_corners=False)
            x = decoder(wide).relu()
        return to_prediction(self.head(x)[..., :height, :width], height, width)

    def step(self, spikes: Tensor, state: Any = None) -> tuple[Prediction, None]:
        """As `forward`: this network has no memory."""
        return self(spikes), None


class SwinBlock(nn.Module):
    """Pre-norm windowed attention and MLP; every second block shifts its windows by half."""

    def __init__(self, width: int, heads: int, blocks: int, shifted: bool) -> None:
        super().__init__()
        self.heads = heads
        self.window = (blocks, WINDOW_PX, WINDOW_PX)
        self.shift_px = WINDOW_PX // 2 if shifted else 0
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.bias = nn.Parameter(torch.zeros((2 * blocks - 1) * (2 * WINDOW_PX - 1) ** 2, heads))
        nn.init.trunc_normal_(self.bias, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W, C) -> the same shape."""
        x = x + self._attend(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def _attend(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:4]
        right, below = -width % WINDOW_PX, -height % WINDOW_PX
        inside = x.new_ones(height, width)
        x = F.pad(x, (0, 0, 0, right, 0, below))
        region = F.pad(inside, (0, right, 0, below))  # 1 inside, 0 where padded
        grid = x.shape[2:4]
        if self.shift_px:
            x = x.roll((-self.shift_px, -self.shift_px), (2, 3))
            region = _shift_regions(region, self.shift_px)
        windows = _partition(x)  # (B * n, N, C)
        regions = _partition(region.expand(1, x.shape[1], *grid)[..., None])[..., 0]  # (n, N)
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(windows).chunk(3, dim=-1)
        )
        same = regions[:, :, None] == regions[:, None, :]  # (n, N, N)
        rows = _relative_index(self.window).to(x.device)
        bias = self.bias[rows].permute(2, 0, 1)  # (heads, N, N)
        mask = bias.masked_fill(~same[:, None], -1e4).repeat(x.shape[0], 1, 1, 1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.to(q.dtype))
        out = _merge(self.project(out.transpose(1, 2).flatten(2)), x.shape)
        if self.shift_px:
            out = out.roll((self.shift_px, self.shift_px), (2, 3))
        return out[:, :, :height, :width]


class PatchMerging(nn.Module):
    """2 x 2 neighbours become one token of twice the width (Swin)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduce = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W, C) -> (B, D, H/2, W/2, 2C)."""
        corners = [x[:, :, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.reduce(self.norm(torch.cat(corners, dim=-1)))


def _shift_regions(region: Tensor, shift_px: int) -> Tensor:
    """Numbers the parts of the rolled image that were no neighbours before the roll."""
    height, width = region.shape
    region = region.roll((-shift_px, -shift_px), (0, 1)).clone()
    wrapped = region.new_zeros(height, width)
    wrapped[height - shift_px :] += 2
    wrapped[:, width - shift_px :] += 4
    return region + wrapped


def _partition(x: Tensor) -> Tensor:
    """(B, D, H, W, C) -> (B * windows, D * 7 * 7, C)."""
    b, d, h, w, c = x.shape
    x = x.view(b, d, h // WINDOW_PX, WINDOW_PX, w // WINDOW_PX, WINDOW_PX, c)
    return x.permute(0, 2, 4, 1, 3, 5, 6).reshape(-1, d * WINDOW_PX * WINDOW_PX, c)


def _merge(windows: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of `_partition`."""
    b, d, h, w, c = shape
    x = windows.view(b, h // WINDOW_PX, w // WINDOW_PX, d, WINDOW_PX, WINDOW_PX, c)
    return x.permute(0, 3, 1, 4, 2, 5, 6).reshape(b, d, h, w, c)


@functools.cache
def _relative_index(window: tuple[int, int, int]) -> Tensor:
    """(N, N) row of the bias table for each pair of tokens in a window."""
    axes = torch.meshgrid(*(torch.arange(n) for n in window), indexing='ij')
    places = torch.stack([axis.flatten() for axis in axes])  # (3, N)
    offsets = places[:, :, None] - places[:, None, :]
    d, h, w = window
    offsets += torch.tensor([d - 1, h - 1, w - 1])[:, None, None]
    return (offsets[0] * (2 * h - 1) + offsets[1]) * (2 * w - 1) + offsets[2]
