"""What a training run is made of: one tree of frozen dataclasses, read from one YAML file."""

from __future__ import annotations

import dataclasses

from spike_depth_ros.config import require


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights of the losses (0 leaves one out) and their constants; see `train.losses`.

    Attributes:
        laplace: likelihood of the depth error under the predicted scale; trains metres.
        laplace_beta: 0 plain likelihood, 1 the depth gradient of an L1 loss.
        scale_invariant: scale-invariant log loss.
        scale_invariant_balance: lambda: how much of a common factor is forgiven, 0 to 1.
        gradient: multi-scale gradient loss.
        gradient_scales: number of its scales.
        range: cross-entropy of being within range.
        beyond: pulls the depth of what is beyond range to the far end.
        domain: L1 distance from the teacher's features.
        semantic: distance from the teacher's similarities between patches.
        only_event_patches: features are compared only at patches that saw an event.
    """

    laplace: float = 1.0
    laplace_beta: float = 1.0
    scale_invariant: float = 0.5
    scale_invariant_balance: float = 0.85
    gradient: float = 0.25
    gradient_scales: int = 4
    range: float = 0.5
    beyond: float = 0.1
    domain: float = 0.5
    semantic: float = 0.5
    only_event_patches: bool = True

    def __post_init__(self) -> None:
        for name in ('laplace', 'scale_invariant', 'gradient', 'range', 'beyond', 'domain',
                     'semantic'):  # fmt: skip
            require(getattr(self, name) >= 0, name, getattr(self, name), '0 or more')
        for name in ('laplace_beta', 'scale_invariant_balance'):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), '0 to 1')
        require(1 <= self.gradient_scales <= 8, 'gradient_scales', self.gradient_scales, '1 to 8')
        require(
            bool(self.laplace or self.scale_invariant), 'laplace and scale_invariant', 0.0,
            'at least one above 0, or nothing trains the depth',
        )  # fmt: skip
