"""`spike_depth average`: interpolates the weights of two checkpoints."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from spike_depth_ros.events.config import require


def average(
    first: str, second: str, share: float = 0.5, out: Path = Path('out/average.safetensors')
) -> None:
    """Writes (1 - share) * FIRST + share * SECOND, where SECOND was trained from FIRST.

    Networks between an original and its fine-tuned version keep more of the first domain at little
    cost in the second (Wortsman et al., CVPR 2022).

    Args:
        first: checkpoint before fine-tuning.
        second: checkpoint after fine-tuning, of the same network; its depth range is used.
        share: weight of the second checkpoint, 0 to 1.
        out: file to write.
    """
    from spike_depth_ros.learning.calibration import interpolate
    from spike_depth_ros.network.checkpoint import load_checkpoint, save_checkpoint

    require(0 <= share <= 1, 'share', share, '0 to 1')
    before, after = load_checkpoint(first), load_checkpoint(second)
    model = interpolate(before, after, share)
    card = after.card | {'average': {'first': first, 'second': second, 'share': share}}
    save_checkpoint(out, dataclasses.replace(after, model=model, card=card))
    print(out)
