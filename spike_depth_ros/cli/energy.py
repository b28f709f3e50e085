"""`spike_depth energy`: estimates the energy of a depth map, layer by layer."""

from __future__ import annotations

import json as jsonlib

from spike_depth_ros.learning.pages import markdown
from spike_depth_ros.learning.settings import EvaluationData


def energy(
    checkpoint: str, data: EvaluationData = EvaluationData(clips=8), json: bool = False
) -> None:
    """Counts the operations of a checkpoint on its input and estimates their energy at 45 nm.

    `spike_depth energy models/default.safetensors --config config/evaluate/synthetic.yaml`. A
    layer counts as accumulations only if all its inputs are spikes.

    Args:
        checkpoint: checkpoint to measure.
        data: input data, which determines the firing rates and so the energy.
        json: print one JSON object instead of tables.
    """
    from spike_depth_ros.learning.batches import open_clips, spread
    from spike_depth_ros.learning.energy_report import energy_table, energy_totals, mean_energy
    from spike_depth_ros.network.checkpoint import load_checkpoint

    loaded = load_checkpoint(checkpoint)
    fields = next(iter(data.named.values()))
    clips = open_clips(data.name, fields, loaded.spikes, data.clip_windows, False)
    report = mean_energy(loaded, clips, spread(len(clips), data.clips))
    if json:
        print(jsonlib.dumps(report.to_dict() | {'window_ms': loaded.spikes.window_ms}))
        return
    print(markdown(energy_table(report)))
    print(markdown(energy_totals(report, loaded.spikes.window_ms)))
