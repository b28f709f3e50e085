"""The convolutional rivals: U-Net and E2Depth, with the spiking network's interface.

Both read the time bins of a window as channels, ln(1 + count) each, and answer with the same
three maps as the spiking transformer. Written anew from the published descriptions.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spike_depth_ros.events.config import ConfigError, require
from spike_depth_ros.network.head import Prediction, to_prediction

MAPS = 3
"""Channels of a head: depth, range, scale."""

STRIDE_PX = 8
"""All rivals halve the image three times; other sizes are padded inside."""

LstmState = tuple[tuple[Tensor, Tensor], ...]


def padded(x: Tensor, multiple_px: int = STRIDE_PX) -> Tensor:
    """Pads the last two axes with zeros, right and below, to a multiple."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % multiple_px, 0, -height % multiple_px))


def bins_as_channels(spikes: Tensor, steps: int) -> Tensor:
    """(T, B, 2, H, W) counts -> (B, 2T, H, W) float32 ln(1 + count).

    Raises:
        ValueError: the window has another number of time bins than the network was made for.
    """
    if spikes.ndim != 5 or spikes.shape[0] != steps or spikes.shape[2] != 2:
        raise ValueError(
            f'spikes have shape {tuple(spikes.shape)}, expected (T = {steps}, B, 2, H, W): '
            'this network is bound to the number of time bins it was made for'
        )
    return spikes.float().log1p().permute(1, 0, 2, 3, 4).flatten(1, 2)


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """A four-level U-Net.

    Attributes:
        steps: time bins T per window.
        width: channels of the first level; they double at each of the three others. 17 has
            the parameters of the small spiking network, 75 those of E2Depth (10.7 M).
    """

    steps: int = 4
    width: int = 14

    def __post_init__(self) -> None:
        require(1 <= self.steps <= 1024, 'steps', self.steps, '1 to 1024')
        require(1 <= self.width <= 2048, 'width', self.width, '1 to 2048')


class UNetBody(nn.Module):
    """U-Net (Ronneberger et al., MICCAI 2015) of four levels, concatenated skips.

    Args:
        channels_in: of the input.
        width: channels of the first level.
    """

    def __init__(self, channels_in: int, width: int) -> None:
        super().__init__()
        w = width
        widths = (w, 2 * w, 4 * w, 8 * w)
        self.down = nn.ModuleList(
            _double_conv(i, o) for i, o in zip((channels_in, *widths), widths, strict=False)
        )
        self.up = nn.ModuleList(
            _double_conv(deep + skip, skip)
            for deep, skip in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> the finest map (B, width, H, W), the deepest (B, 8 width, H/8, W/8)."""
        skips = []
        for i, level in enumerate(self.down):
            x = level(x if i == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        for level, skip in zip(self.up, skips[-2::-1], strict=True):
            x = level(torch.cat([F.interpolate(x, scale_factor=2.0), skip], dim=1))
        return x, skips[-1]


class UNet(nn.Module):
    """The U-Net on event counts: sees one window at a time."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.body = UNetBody(2 * config.steps, config.width)
        self.head = nn.Conv2d(config.width, MAPS, 1)

    def forward(self, spikes: Tensor) -> Prediction:
        """(T, B, 2, H, W) counts -> `Prediction` of (B, 1, H, W) maps."""
        height, width = spikes.shape[-2:]
        fine, _ = self.body(padded(bins_as_channels(spikes, self.config.steps)))
        return to_prediction(self.head(fine)[..., :height, :width], height, width)

    def step(self, spikes: Tensor, state: Any = None) -> tuple[Prediction, None]:
        """As `forward`: this network has no memory."""
        return self(spikes), None


@dataclasses.dataclass(frozen=True)
class E2DepthConfig:
    """E2Depth (Hidalgo-Carrió et al., 3DV 2020).

    Attributes:
        steps: time bins T per window, both polarities each.
        width: channels of the head; 32 as published (10.7 M parameters).
        residual_blocks: at the bottleneck.
    """

    steps: int = 4
    width: int = 6
    residual_blocks: int = 2

    def __post_init__(self) -> None:
        require(1 <= self.steps <= 1024, 'steps', self.steps, '1 to 1024')
        require(1 <= self.width <= 2048, 'width', self.width, '1 to 2048')
        require(
            0 <= self.residual_blocks <= 64, 'residual_blocks', self.residual_blocks, '0 to 64'
        )


class E2Depth(nn.Module):
    """Recurrent U-Net: strided encoders with ConvLSTM, sum skips, bilinear decoders.

    As published, the bins of a window are channels and the ConvLSTM states run from window to
    window: `step` carries them, `forward` starts from zero.
    """

    def __init__(self, config: E2DepthConfig) -> None:
        super().__init__()
        self.config = config
        w = config.width
        widths = (w, 2 * w, 4 * w, 8 * w)
        self.first = nn.Conv2d(2 * config.steps, w, 5, padding=2)
        self.encoders = nn.ModuleList(
            nn.Conv2d(i, o, 5, stride=2, padding=2) for i, o in itertools.pairwise(widths)
        )
        self.memories = nn.ModuleList(ConvLstm(o) for o in widths[1:])
        self.residuals = nn.ModuleList(Residual(widths[-1]) for _ in range(config.residual_blocks))
        self.decoders = nn.ModuleList(
            nn.Conv2d(i, o, 5, padding=2)
            for i, o in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(w, MAPS, 1)

    def forward(self, spikes: Tensor) -> Prediction:
        """(T, B, 2, H, W) counts -> `Prediction` of (B, 1, H, W) maps, from zero state."""
        return self.step(spikes)[0]

    def step(self, spikes: Tensor, state: LstmState | None = None) -> tuple[Prediction, LstmState]:
        """One window on; the state is ((hidden, cell) per encoder)."""
        height, width = spikes.shape[-2:]
        x = padded(bins_as_channels(spikes, self.config.steps))
        x = self.first(x).relu()
        skips, states = [x], []
        for i, (encoder, memory) in enumerate(zip(self.encoders, self.memories, strict=True)):
            hidden = memory(encoder(x).relu(), state[i] if state is not None else None)
            states.append(hidden)
            x = hidden[0]
            skips.append(x)
        for residual in self.residuals:
            x = residual(x)
        for decoder, skip in zip(self.decoders, skips[:0:-1], strict=True):
            wide = F.interpolate(x + skip, scale_factor=2.0, mode='bilinear', align_corners=False)
            x = decoder(wide).relu()
        maps = self.head(x + skips[0])[..., :height, :width]
        return to_prediction(maps, height, width), tuple(states)


class ConvLstm(nn.Module):
    """Convolutional LSTM cell (Shi et al., NeurIPS 2015, without peepholes)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(2 * channels, 4 * channels, 3, padding=1)

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) and (hidden, cell) -> the next (hidden, cell).

        Raises:
            ConfigError: the state is of another image size or batch.
        """
        hidden, cell = state if state is not None else (torch.zeros_like(x), torch.zeros_like(x))
        if hidden.shape != x.shape:
            raise ConfigError(
                f'state is for {tuple(hidden.shape)}, the window gives {tuple(x.shape)}: '
                'start from rest when the image changes'
            )
        remember, forget, output, candidate = self.gates(torch.cat([x, hidden], 1)).chunk(4, 1)
        cell = forget.sigmoid() * cell + remember.sigmoid() * candidate.tanh()
        return output.sigmoid() * cell.tanh(), cell


class Residual(nn.Module):
    """Two 3x3 convolutions around an identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return (x + self.conv2(self.conv1(x).relu())).relu()


def _double_conv(channels_in: int, channels_out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, o in ((channels_in, channels_out), (channels_out, channels_out)):
        layers += [nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
    return nn.Sequential(*layers)
