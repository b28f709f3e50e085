"""Optimisers, weight decay groups, learning-rate schedule and the moving average of weights."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from spike_depth_ros.learning.settings import OptimizerConfig


class Muon(torch.optim.AdamW):
    """Orthogonalised momentum for matrices and kernels, AdamW for all else.

    The momentum G of a matrix is replaced by the nearest matrix whose singular values are all
    about 1, so that rare directions of a layer learn as fast as those that dominate its gradient
    (Muon, Jordan 2024). Steps are scaled by 0.2 sqrt(max(rows, columns)) to the size of those of
    AdamW, so that one learning rate fits both (arXiv 2502.16982, eq. 4). A kernel (O, I, h, w) is
    treated as the matrix (O, I h w); `torch.optim.Muon` refuses kernels.
    """

    MOMENTUM = 0.95

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            kernels = [p for p in group['params'] if p.ndim > 1 and p.grad is not None]
            alike = defaultdict(list)  # kernels of one shape are processed together
            for kernel in kernels:
                alike[kernel.flatten(1).shape].append(kernel)
            for (rows, columns), some in alike.items():
                directions = orthogonal(torch.stack([self._momentum(p) for p in some]))
                rate = group['lr'] * 0.2 * math.sqrt(max(rows, columns))
                for kernel, direction in zip(some, directions, strict=True):
                    kernel.mul_(1 - group['lr'] * group['weight_decay'])
                    kernel.sub_(direction.view_as(kernel), alpha=rate)
                    kernel.grad = None  # so that AdamW skips it
        super().step()
        return loss

    def _momentum(self, kernel: Tensor) -> Tensor:
        """(rows, columns): Nesterov momentum of the gradients."""
        state = self.state[kernel]
        if not state:
            state['momentum'] = torch.zeros_like(kernel)
            state['step'] = torch.zeros(())  # AdamW expects it when it loads a state
        assert kernel.grad is not None
        mean = state['momentum'].lerp_(kernel.grad, 1 - self.MOMENTUM)
        return kernel.grad.lerp(mean, self.MOMENTUM).flatten(1)


METHODS = {'adamw': torch.optim.AdamW, 'muon': Muon}
"""Name in a configuration -> the optimiser."""


def orthogonal(matrices: Tensor) -> Tensor:
    """Brings all singular values to 0.7 to 1.2 and keeps the singular vectors.

    Five steps of the quintic Newton-Schulz iteration of Muon (Jordan 2024).

    Args:
        matrices: (N, rows, columns).
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x: Tensor = matrices.mT if tall else matrices
    x = x / x.flatten(1).norm(dim=1).clamp(min=1e-7).view(-1, 1, 1)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (2.0315 * gram @ gram - 4.7750 * gram) @ x
    return x.mT if tall else x


def rate(iteration: int, total: int, config: OptimizerConfig) -> float:
    """Fraction of the greatest learning rate: linear warm-up, then half a cosine down."""
    if iteration < config.warmup:
        return (iteration + 1) / config.warmup
    done = min((iteration - config.warmup) / max(total - config.warmup, 1), 1.0)
    return config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * done))


def parameter_groups(network: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Parameter groups: weights decay, one-dimensional parameters (biases, norms) do not."""
    wide = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    thin = [p for p in network.parameters() if p.requires_grad and p.ndim <= 1]
    return [{'params': wide, 'weight_decay': config.weight_decay},
            {'params': thin, 'weight_decay': 0.0}]  # fmt: skip


def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Moves `average` by the fraction 1 - `decay` towards `network`; counters are copied."""
    pairs = list(zip(average.state_dict().values(), network.state_dict().values(), strict=True))
    floats = [pair for pair in pairs if pair[0].is_floating_point()]
    counters = [pair for pair in pairs if not pair[0].is_floating_point()]
    with torch.no_grad():
        torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], 1 - decay)
        for mine, theirs in counters:
            mine.copy_(theirs)
