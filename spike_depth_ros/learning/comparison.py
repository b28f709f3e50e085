"""One evaluation, from its settings to its report."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from spike_depth_ros.estimation.engine import ENGINES
from spike_depth_ros.events.config import ConfigError, require
from spike_depth_ros.learning.batches import open_clips, spread
from spike_depth_ros.learning.energy_report import energy_columns, mean_energy
from spike_depth_ros.learning.evaluation import Result, Shown, evaluate
from spike_depth_ros.learning.metrics import ALIGNMENTS
from spike_depth_ros.learning.pages import markdown
from spike_depth_ros.learning.predictors import (
    CheckpointPredictor,
    Constant,
    ImagePredictor,
    MeanMap,
    Predictor,
    checkpoint_name,
    open_predictor,
)
from spike_depth_ros.learning.report_pages import (
    main_table,
    transfer_table,
    write_report,
)
from spike_depth_ros.learning.settings import EvaluationData

ENERGY_CLIPS = 4
"""Energy is measured on this many windows."""

FIT_CLIPS = 400
"""The baselines are fitted to at most this many training clips."""


def run(
    checkpoints: Sequence[str],
    data: EvaluationData,
    out: Path,
    streaming: bool,
    cap_m: float,
    alignment: str,
    engine: tuple[str, str, int],
    progress: Callable[[Sequence[int]], Iterator[int]] = iter,
) -> tuple[Path, str]:
    """Measures checkpoints and, if there is data to fit them, the trivial baselines.

    Args:
        checkpoints: paths.
        data: what to measure on.
        out: folder of the report.
        streaming: the state is carried through all windows of a clip.
        cap_m: see `learning.metrics`.
        alignment: see `learning.metrics`.
        engine: its name, the device, the number of threads.
        progress: see `evaluate`.

    Returns:
        The page, and the main table in Markdown.

    Raises:
        ConfigError: the checkpoints need different windows, so no data fits them all; or an
            argument is impossible.
    """
    require(cap_m > 0, 'cap_m', cap_m, 'more than 0')
    require(alignment in ALIGNMENTS, 'alignment', alignment, f'one of {ALIGNMENTS}')
    require(engine[0] in ENGINES, 'engine', engine[0], f'one of {sorted(ENGINES)}')
    runners = [open_predictor(path, streaming, *engine) for path in checkpoints]
    for runner, name in zip(runners, distinct_names(checkpoints), strict=True):
        runner.name = name
    windows = {dataclasses.replace(runner.checkpoint.spikes, steps=1) for runner in runners}
    if len(windows) != 1:
        raise ConfigError(
            f'the checkpoints were trained on different windows ({sorted(map(str, windows))}): '
            'compare those that share one, in however many steps'
        )
    images = any(isinstance(runner, ImagePredictor) for runner in runners)
    baselines = _fit_baselines(data, runners[0], progress)
    results: list[Result] = []
    shown: list[Shown] = []
    extra: dict[str, dict[str, Any]] = {}
    clip_counts = {}
    for name, fields in data.named.items():
        found, pictured, clip_counts[name], energy = _measure_set(
            dataclasses.replace(data, test=fields, sets={}), runners, baselines, images,
            (cap_m, alignment), progress,
        )  # fmt: skip
        results += [result._replace(set=name) for result in found]
        shown += pictured
        extra = energy | extra  # energy is that of the first set
    facts = {
        'data': f'{data.name} {data.sets or data.test}',
        'clips': ', '.join(f'{name} {count}'.strip() for name, count in clip_counts.items()),
        'windows per clip': data.clip_windows,
        'state': 'streaming' if streaming else 'from rest',
        'cap': f'{cap_m:g} m',
        'alignment': alignment,
        'engine': engine[0],
        'machine': f'{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}',
    }
    title = 'Evaluation' if len(checkpoints) == 1 else 'Comparison'
    page = write_report(out, title, facts, results, shown, extra)
    tables = [main_table(results, extra), transfer_table(results)]
    return page, '\n'.join(markdown(table) for table in tables)


def _measure_set(
    data: EvaluationData,
    runners: Sequence[CheckpointPredictor | ImagePredictor],
    baselines: Sequence[Predictor],
    images: bool,
    protocol: tuple[float, str],
    progress: Callable[[Sequence[int]], Iterator[int]],
) -> tuple[list[Result], list[Shown], int, dict[str, dict[str, Any]]]:
    """Measures everything on `data.test`.

    Args:
        data: gives `test`.
        runners: checkpoints; those with other steps per window get clips of their own.
        baselines: predictors that see no events.
        images: whether the data needs images.
        protocol: cap [m] and alignment.
        progress: see `evaluate`.

    Returns:
        Results, clips for pictures, the number of clips, and columns of energy by name.
    """
    results: list[Result] = []
    shown: list[Shown] = []
    energy: dict[str, dict[str, Any]] = {}
    for spikes in dict.fromkeys(runner.checkpoint.spikes for runner in runners):
        clips = open_clips(data.name, data.test, spikes, data.clip_windows, images)
        chosen = spread(len(clips), data.clips)
        group = [runner for runner in runners if runner.checkpoint.spikes == spikes]
        predictors: list[Predictor] = [*group, *baselines]
        found, pictured = evaluate(predictors, clips, chosen, *protocol, progress=progress)
        results += found
        shown = _side_by_side(shown, pictured)
        baselines = []  # they see no events: once is enough
        energy |= {
            runner.name: energy_columns(
                mean_energy(runner.checkpoint, clips, spread(len(clips), ENERGY_CLIPS))
            )
            for runner in group
            if isinstance(runner, CheckpointPredictor)
        }
    return results, shown, len(chosen), energy


def _side_by_side(before: list[Shown], more: list[Shown]) -> list[Shown]:
    """The same clips with the estimates of both."""
    if not before:
        return more
    return [
        Shown(one.sample, [*one.estimates, *two.estimates])
        for one, two in zip(before, more, strict=True)
    ]


def distinct_names(checkpoints: Sequence[str]) -> list[str]:
    """The shortest names that distinguish the checkpoints.

    Raises:
        ConfigError: the same file twice.
    """
    paths = [Path(path).resolve() for path in checkpoints]
    if len(set(paths)) < len(paths):
        raise ConfigError(f'checkpoints are {list(checkpoints)}, expected each of them once')
    for parts in range(1, max(len(path.parts) for path in paths) + 1):
        names = [checkpoint_name(path, parts) for path in paths]
        if len(set(names)) == len(paths):
            return names
    return [str(path) for path in paths]


def _fit_baselines(
    data: EvaluationData,
    like: CheckpointPredictor | ImagePredictor,
    progress: Callable[[Sequence[int]], Iterator[int]],
) -> list[Predictor]:
    """The fitted baselines; none without data to fit."""
    if not data.fit:
        return []
    checkpoint = like.checkpoint
    clips = open_clips(data.name, data.fit, checkpoint.spikes, 1, False)
    some = [clips[i] for i in progress(spread(len(clips), FIT_CLIPS))]
    return [MeanMap(some, checkpoint.depth_range), Constant(some, checkpoint.depth_range)]
