"""Ablations: the same run with one change, over several seeds, as one table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from spike_depth_ros.learning.batches import open_clips, spread
from spike_depth_ros.learning.evaluation import evaluate
from spike_depth_ros.learning.pages import Table
from spike_depth_ros.learning.predictors import open_predictor
from spike_depth_ros.learning.run import train
from spike_depth_ros.learning.settings import EvaluationData, TrainConfig

FIGURES = {
    'abs_rel': 'Abs Rel',
    'rmse_log': 'RMSE log',
    'delta1': 'δ<1.25',
    'abs_rel_40_80m': 'Abs Rel 40-80 m',
    'false_obstacles': 'false obst.',
}


class Variant(NamedTuple):
    """A run with one change."""

    name: str
    configs: dict[int, TrainConfig]  # seed -> the run


class Measured(NamedTuple):
    """The measurements of one run."""

    parameters: int
    rest: dict[str, float]  # metrics with the state reset before each window
    streaming: dict[str, float]  # metrics with the state carried through each clip


def ablate(
    variants: Sequence[Variant],
    data: EvaluationData,
    out: Path,
    cap_m: float = 80.0,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Table]:
    """Trains the runs that are not complete, and measures all.

    An interrupted ablation continues: each run has its own folder under `out`.

    Args:
        variants: the runs; the others are compared with the first.
        data: to measure on.
        out: folder of the runs.
        cap_m: see `learning.metrics`.
        say: called with a line when a run begins.

    Yields:
        After each variant the table so far, one row per variant: the mean over the seeds, and the
        greatest deviation from it.
    """
    header = ['', 'parameters', *FIGURES.values(), 'Abs Rel from rest', 'against the first']
    rows: list[list[object]] = []
    reference: float | None = None
    for variant in variants:
        runs = []
        for seed, config in variant.configs.items():
            say(f'{variant.name}, seed {seed}')
            folder = out / variant.name.replace(' ', '_').replace('/', '_') / f'seed_{seed}'
            train(config, folder)
            # the last weights, not the best: nothing is selected by its error
            runs.append(measure(folder / 'last.safetensors', data, cap_m))
        mean = statistics.fmean(run.streaming['abs_rel'] for run in runs)
        reference = mean if reference is None else reference
        rows.append(
            [
                variant.name,
                runs[0].parameters,
                *(spread_of([run.streaming[key] for run in runs]) for key in FIGURES),
                spread_of([run.rest['abs_rel'] for run in runs]),
                f'{(mean / reference - 1) * 100:+.1f} %',
            ]
        )
        yield Table(header, list(rows))


def measure(checkpoint: Path, data: EvaluationData, cap_m: float) -> Measured:
    """The metrics of one checkpoint, from rest and streaming."""
    figures = []
    for streaming in (False, True):
        predictor = open_predictor(str(checkpoint), streaming, 'torch', 'auto', 1)
        spikes = predictor.checkpoint.spikes
        clips = open_clips(data.name, data.test, spikes, data.clip_windows, False)
        chosen = spread(len(clips), data.clips)
        (result,), _ = evaluate([predictor], clips, chosen, cap_m, pictures=0)
        figures.append(result.figures)
    return Measured(predictor.parameters, *figures)


def spread_of(values: Sequence[float]) -> str:
    """Mean and greatest deviation from it: '0.157 ± 0.003'."""
    mean = statistics.fmean(values)
    return f'{mean:.3g} ± {max(abs(value - mean) for value in values):.1g}'


def replace_section(text: str, name: str, body: str) -> str:
    """Puts `body` between the marks `<!-- name -->` and `<!-- /name -->`; appended if absent."""
    start, end = f'<!-- {name} -->', f'<!-- /{name} -->'
    section = f'{start}\n{body.strip()}\n{end}'
    if start in text and end in text:
        before, _, rest = text.partition(start)
        return before + section + rest.partition(end)[2]
    return f'{text.rstrip()}\n\n{section}\n'.lstrip()
