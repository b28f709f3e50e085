"""`spike_depth calibrate`: calibrates the confidence of a checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from spike_depth_ros.learning.settings import EvaluationData

if TYPE_CHECKING is True:  # jsonargparse executes a plain TYPE_CHECKING block
    from spike_depth_ros.learning.datasets.sample import Sample


def calibrate(
    checkpoint: str,
    data: EvaluationData = EvaluationData(),
    out: Path = Path('out/calibrated.safetensors'),
) -> None:
    """Writes a checkpoint with confidence calibrated on `data`; its depth is unchanged.

    `spike_depth calibrate CHECKPOINT --config config/evaluate/calibration.yaml`. Use data as
    different from the training data as the places of deployment are, and never the data of
    published figures. The card also receives the statistics by which the confidence falls in
    windows unlike these clips, see `estimation.familiarity`.

    Args:
        checkpoint: checkpoint to calibrate.
        data: clips to fit on; all sets are pooled.
        out: file to write.
    """
    from spike_depth_ros.estimation.familiarity import CARD_KEY, to_card
    from spike_depth_ros.learning.batches import open_clips, spread
    from spike_depth_ros.learning.calibration import (
        apply_calibration,
        collect_outputs,
        fit_calibration,
    )
    from spike_depth_ros.learning.unfamiliar import fit_familiarity, look
    from spike_depth_ros.network.checkpoint import load_checkpoint, save_checkpoint

    loaded = load_checkpoint(checkpoint)
    opened = [
        open_clips(data.name, fields, loaded.spikes, data.clip_windows, False)
        for fields in data.named.values()
    ]
    chosen = [(clips, index) for clips in opened for index in spread(len(clips), data.clips)]

    def read() -> Iterator[list[Sample]]:
        return (clips[index] for clips, index in tqdm(chosen, unit='clip', disable=None))

    fitted = fit_calibration(collect_outputs(loaded, read()))
    apply_calibration(loaded.model, fitted)
    facts = {'data': data.sets or data.test, 'clips': len(chosen), **fitted._asdict()}
    print(
        f'ln b: {fitted.scale_gain:.3f} x + {fitted.scale_offset:.3f} (raw); range logit: '
        f'{fitted.range_gain:.3f} x; {len(chosen)} clips'
    )
    card = loaded.card | {'calibration': facts}
    if getattr(loaded.model, 'reads', 'spikes') == 'spikes':
        familiarity = fit_familiarity(*look(loaded, read()))
        card |= {CARD_KEY: to_card(familiarity)}
        print(
            f'a window beyond the distance {familiarity.limit:.2f} keeps ({familiarity.limit:.2f}'
            f' / distance)^{familiarity.power:.2f} of its confidence'
        )
    save_checkpoint(out, dataclasses.replace(loaded, card=card))
    print(out)
