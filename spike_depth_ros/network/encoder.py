"""The spike-driven encoder: event counts to tokens, and blocks of spiking self-attention.

After arXiv 2404.17335 (network), Spikformer (ICLR 2023, spiking self-attention) and
Spikingformer (arXiv 2304.11954, neurons before every ConvBN). Every ConvBN sees only {0, 1}, but
for the first: it sees the event counts themselves, compressed.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spike_depth_ros.events.config import require
from spike_depth_ros.network import fused, kernels
from spike_depth_ros.network.head import HEADS
from spike_depth_ros.network.layers import ConvBN, ScaleShift, add, at_rest, fire, join, per_step
from spike_depth_ros.network.neurons import Neuron, Tape

STRIDE = 8
"""Height and width of the input must be multiples of this; one token covers 8 x 8 pixels."""

MAX_COUNT = 9.0
"""Events per pixel, polarity and step beyond which more say nothing."""

STEMS = ('stride', 'pool')


@dataclasses.dataclass(frozen=True)
class SpikingTransformerConfig:
    """The shape of the network.

    Attributes:
        dim: embedding dimension D; a multiple of 8 and of `heads`.
        depth: number L of transformer blocks.
        heads: attention heads.
        mlp_ratio: hidden channels of the MLP, in units of D.
        mlp_kernel: kernel of its first ConvBN: 1 as in a transformer, 3 for local context.
        stem: 'stride' halves the map by strided convolutions, 'pool' by max-pooling after them
            (the paper's; about four times the work).
        head: 'fusion' or 'linear'.
        head_dim: channels of the fusion head at stride 8; a multiple of 4.
        head_spiking: the head spikes too: neurons for its activations, run at every step.
        neuron: 'lif', 'plif' or 'ilif', see `neurons`.
        tau: membrane time constant in steps; what plif begins with.
        surrogate: 'atan' or 'sigmoid'.
        levels: most spikes per step of an ilif neuron.
    """

    dim: int = 64
    depth: int = 4
    heads: int = 1
    mlp_ratio: int = 1
    mlp_kernel: int = 3
    stem: str = 'stride'
    head: str = 'fusion'
    head_dim: int = 48
    head_spiking: bool = False
    neuron: str = 'lif'
    tau: float = 2.0
    surrogate: str = 'atan'
    levels: int = 4

    def __post_init__(self) -> None:
        require(8 <= self.dim <= 2048 and self.dim % 8 == 0, 'dim', self.dim,
                'a multiple of 8 up to 2048')  # fmt: skip
        require(1 <= self.depth <= 64, 'depth', self.depth, '1 to 64')
        require(self.heads >= 1 and self.dim % self.heads == 0, 'heads', self.heads,
                f'a divisor of dim {self.dim}')  # fmt: skip
        require(1 <= self.mlp_ratio <= 8, 'mlp_ratio', self.mlp_ratio, '1 to 8')
        require(self.mlp_kernel in (1, 3), 'mlp_kernel', self.mlp_kernel, '1 or 3')
        require(self.stem in STEMS, 'stem', self.stem, f'one of {STEMS}')
        require(self.head in HEADS, 'head', self.head, f'one of {HEADS}')
        require(4 <= self.head_dim <= 2048 and self.head_dim % 4 == 0, 'head_dim', self.head_dim,
                'a multiple of 4 up to 2048')  # fmt: skip

    def neuron_layer(self, channels: int, stride: int) -> Neuron:
        """A layer of this network's neurons."""
        return Neuron(channels, stride, self.neuron, self.tau, surrogate=self.surrogate,
                      levels=self.levels)  # fmt: skip


class Stem(nn.Module):
    """Event counts to tokens of stride 8: four ConvBN, D/8, D/4, D/2, D channels."""

    def __init__(self, config: SpikingTransformerConfig) -> None:
        super().__init__()
        dims = [2, *(config.dim // n for n in (8, 4, 2, 1))]
        self.pool = config.stem == 'pool'
        strides = (1, 1, 1, 1) if self.pool else (2, 2, 2, 1)
        self.convs = nn.ModuleList(
            ConvBN(i, o, 3, stride, gain=2.0)
            for i, o, stride in zip(dims, dims[1:], strides, strict=False)
        )
        self.neurons = nn.ModuleList(
            config.neuron_layer(channels, stride)
            for channels, stride in zip(dims[1:4], (2, 4, 8), strict=True)
        )

    def forward(self, counts: Tensor, tape: Tape) -> list[Tensor]:
        """Counts (T, B, 2, H, W) to the currents after every stage, strides 2, 4, 8, 8."""
        x = compress(counts, next(self.convs.parameters()).dtype)
        stages = []
        for i, conv in enumerate(self.convs):
            x = per_step(conv, x if i == 0 else self.neurons[i - 1](x, tape))
            if self.pool and i < 3:
                x = F.max_pool2d(x.flatten(0, 1), 2).unflatten(0, x.shape[:2])
            stages.append(x)
        return stages


class SpikingSelfAttention(nn.Module):
    """Attention of spikes without softmax, in linear order: (v k^T) q, never N x N.

    Counts of coincidences are integers, so that the order does not change the result. They are
    divided by the number of tokens, so that one network serves every image size, and normalised
    per channel before the last neuron: otherwise that neuron hardly ever fires.
    """

    def __init__(self, config: SpikingTransformerConfig) -> None:
        super().__init__()
        dim = config.dim
        self.heads = config.heads
        self.act_in = config.neuron_layer(dim, STRIDE)
        self.qkv = ConvBN(dim, 3 * dim, gain=2.0)
        self.act_qkv = config.neuron_layer(3 * dim, STRIDE)
        self.norm: nn.BatchNorm2d | ScaleShift = nn.BatchNorm2d(dim)
        nn.init.constant_(self.norm.weight, 2.0)
        self.act_out = config.neuron_layer(dim, STRIDE)
        self.project = ConvBN(dim, dim)
        self.backend = 'auto'

    def forward(self, x: Tensor, tape: Tape) -> Tensor:
        """Spikes for `project`: (T, B, D, h, w) to the same shape."""
        qkv = fire(self.qkv, self.act_qkv, self.act_in(x, tape), tape)
        rest = at_rest(self.norm)
        if rest is None:
            fired = self.act_out(self.attend(qkv), tape, self.norm)
        else:
            mixed = self.attend(qkv, rest[0])
            fired = self.act_out(mixed + rest[1].to(mixed.dtype).view(-1, 1, 1), tape)
        return fired

    def attend(self, qkv: Tensor, scale: Tensor | None = None) -> Tensor:
        """Spikes of q, k, v (T, B, 3D, h, w) to (T, B, D, h, w), times `scale` (D,)."""
        tokens = qkv.shape[-2] * qkv.shape[-1]
        if fused.fits(qkv, self.backend):
            scale = torch.ones(qkv.shape[2] // 3) if scale is None else scale
            return fused.attend(qkv, scale / tokens, self.heads)
        # (T*B, N, 3, heads, d) -> 3 x (T*B, heads, N, d)
        parts = qkv.flatten(0, 1).flatten(2).transpose(1, 2).unflatten(2, (3, self.heads, -1))
        q, k, v = parts.transpose(1, 3).unbind(2)
        pairs = k.transpose(-1, -2) @ v  # (T*B, heads, d, d) coincidences over all tokens
        if scale is None:
            mixed = (q @ pairs) / tokens
        else:
            # the scale goes into the small d x d matrix instead of over all tokens
            mixed = q @ (pairs * (scale.view(self.heads, 1, -1) / tokens)).to(q.dtype)
        mixed = mixed.transpose(-1, -2).flatten(1, 2).unflatten(2, qkv.shape[-2:])
        return mixed.unflatten(0, qkv.shape[:2])


class SpikingMLP(nn.Module):
    """Two ConvBN with a neuron before each; the first may look around (3 x 3)."""

    def __init__(self, config: SpikingTransformerConfig) -> None:
        super().__init__()
        hidden = config.dim * config.mlp_ratio
        self.act1 = config.neuron_layer(config.dim, STRIDE)
        self.conv1 = ConvBN(config.dim, hidden, config.mlp_kernel, gain=2.0)
        self.act2 = config.neuron_layer(hidden, STRIDE)
        self.conv2 = ConvBN(hidden, config.dim)

    def forward(self, fired: Tensor, tape: Tape) -> Tensor:
        """Spikes of `act1` to those for `conv2`: (T, B, D, h, w) to (T, B, D * ratio, h, w)."""
        return fire(self.conv1, self.act2, fired, tape)


class Block(nn.Module):
    """x + attention, then x + MLP."""

    def __init__(self, config: SpikingTransformerConfig) -> None:
        super().__init__()
        self.attention = SpikingSelfAttention(config)
        self.mlp = SpikingMLP(config)

    def forward(self, x: Tensor, tape: Tape) -> Tensor:
        """(T, B, D, h, w) to the same shape."""
        fired = self.attention(x, tape)
        x, fired = join(x, self.attention.project, self.mlp.act1, fired, tape)
        return add(x, self.mlp.conv2, self.mlp(fired, tape))


def compress(counts: Tensor, dtype: torch.dtype) -> Tensor:
    """Event counts as the first ConvBN sees them: the one normalisation of the input.

    sqrt(min(n, MAX_COUNT)): the root evens out the noise of counts (Anscombe, Biometrika 1948),
    the bound keeps a hot pixel from outshouting the scene.

    Args:
        counts: (T, B, 2, H, W), uint8 or float.
        dtype: of the result.

    Returns:
        (T, B, 2, H, W), with the channels last in memory where uint8 meets the CPU.
    """
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if counts.dtype != torch.uint8 or counts.device.type != 'cpu' or traced:
        return counts.float().clamp(max=MAX_COUNT).sqrt().to(dtype)
    table = torch.arange(256.0).clamp(max=MAX_COUNT).sqrt().to(dtype)
    steps, batch, _, height, width = counts.shape
    out = torch.empty((steps * batch, height * width, 2), dtype=dtype)
    as_bits = torch.uint16 if dtype == torch.bfloat16 else dtype
    kernels.look_up(
        counts.contiguous().view(steps * batch, 2, -1).numpy(), table.view(as_bits).numpy(),
        out.view(as_bits).numpy(),
    )  # fmt: skip
    return out.view(steps, batch, height, width, 2).permute(0, 1, 4, 2, 3)


def coordinates(like: Tensor) -> Tensor:
    """(1, 4, h, w): y, y^2, x, x^2 in [-1, 1] for the tokens of `like`.

    Depth depends on the place (the road is below, the sky above), and attention alone does not
    know places. Smooth in the coordinates, so that it holds for every image size.
    """
    height, width = like.shape[-2:]
    y = (2.0 * torch.arange(height, device=like.device) + 1) / height - 1
    x = (2.0 * torch.arange(width, device=like.device) + 1) / width - 1
    y, x = y[:, None].expand(height, width), x[None].expand(height, width)
    return torch.stack([y, y.square(), x, x.square()])[None]
