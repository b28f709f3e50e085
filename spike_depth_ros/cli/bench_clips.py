"""`spike_depth bench clips`: measures the time to render one simulated second of each scene."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from spike_depth_ros.cli.report import bench_row, print_bench

if TYPE_CHECKING is True:  # jsonargparse executes a plain TYPE_CHECKING block
    from spike_depth_ros.learning.datasets.recipe import SyntheticConfig


def clips(
    mix: Path | None = None,
    seconds: float = 1.0,
    rounds: int = 3,
    scenes: tuple[str, ...] = (),
    sensor: str = '346x260',
    json: bool = False,
) -> None:
    """Times the rendering of clips with the motions, mounts and sensors of a configuration.

    A figure is the processor time of one core for one clip, with its world, per simulated second.
    Processes scale it: `clips` and `synth` use all cores. Nothing is stored, and the worlds are of
    validation seeds.

    Args:
        mix: YAML file of `train` or `evaluate`, by default config/train/breadth.yaml; its last
            source with drawn motions counts.
        seconds: Simulated length of a clip.
        rounds: Clips per scene; the table shows their median and spread.
        scenes: Scenes to time; all by default.
        sensor: Event sensor, a name or WIDTHxHEIGHT.
        json: Print one JSON object instead of a table.
    """
    from spike_depth_ros.cli.clips import synthetic_configs
    from spike_depth_ros.events.config import shipped
    from spike_depth_ros.sim.world import SCENES

    found = [entry for _, entry in synthetic_configs(mix or shipped('config/train/breadth.yaml'))]
    drawn = [entry for entry in found if entry.motions != ('own',)] or found
    windows = max(round(seconds * 1e3 / drawn[-1].spikes.window_ms), 1)
    shared = dataclasses.replace(
        drawn[-1], split='validation', first_world=0, worlds=1, stored_windows=windows,
        clip_windows=1, sensors=(sensor,), sensor_weights=(), scene_weights=(),
    )  # fmt: skip
    rows = [
        bench_row(scene, list(_times(dataclasses.replace(shared, scenes=(scene,)), rounds)),
                  'core s per simulated s')
        for scene in tqdm(scenes or sorted(SCENES), unit='scene', disable=None)
    ]  # fmt: skip
    print_bench(rows, json)


def _times(config: SyntheticConfig, rounds: int) -> Iterator[float]:
    """Yields processor time per simulated second of `rounds` clips, after one to warm up."""
    from spike_depth_ros.learning.datasets.recipe import VALIDATION_SEEDS, plan_clip
    from spike_depth_ros.learning.datasets.synthetic import render_clip

    warm = dataclasses.replace(config, stored_windows=1)
    render_clip(warm, plan_clip(warm, VALIDATION_SEEDS[rounds], 0))
    for seed in VALIDATION_SEEDS[:rounds]:
        start_s = time.process_time()
        render_clip(config, plan_clip(config, seed, 0))
        length_s = config.stored_windows * config.spikes.window_ms * 1e-3
        yield (time.process_time() - start_s) / length_s
