"""`spike_depth average`: interpolates the weights of two checkpoints."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from spike_depth_ros.events.config import require


def average(
    first: str,
    second: str,
    share: float = 0.5,
    onto: str | None = None,
    out: Path = Path('out/average.safetensors'),
) -> None:
    """Writes (1 - share) * FIRST + share * SECOND, where SECOND was trained from FIRST.

    Networks between an original and its fine-tuned version keep more of the first domain at little
    cost in the second (Wortsman et al., CVPR 2022). With ONTO, the change of the weights is added
    to a third network instead: ONTO + share * (SECOND - FIRST) (Ilharco et al., ICLR 2023). A
    calibration does not hold for other weights, so its entries in the card are left out.

    Args:
        first: checkpoint before fine-tuning.
        second: checkpoint after fine-tuning, of the same network; its depth range is used.
        share: weight of the second checkpoint, 0 to 1.
        onto: checkpoint of the same network that receives the change; its spike tensors may have
            another number of steps, e.g. `models/fast.safetensors`.
        out: file to write.
    """
    from spike_depth_ros.estimation.familiarity import CARD_KEY
    from spike_depth_ros.learning.calibration import interpolate
    from spike_depth_ros.network.checkpoint import load_checkpoint, save_checkpoint

    require(0 <= share <= 1, 'share', share, '0 to 1')
    before, after = load_checkpoint(first), load_checkpoint(second)
    base = load_checkpoint(onto) if onto else None
    model = interpolate(before, after, share, base)
    parts = {'first': first, 'second': second, 'share': share, 'onto': onto}
    shape, stale = base or after, ('calibration', CARD_KEY)
    card = {key: value for key, value in shape.card.items() if key not in stale}
    card |= {'average': parts}
    made = dataclasses.replace(after, model=model, spikes=shape.spikes, card=card)
    save_checkpoint(out, made)
    print(out)
