"""`spike_depth ablate`: measures the contribution of each part of the method."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from jsonargparse import ArgumentParser

from spike_depth_ros.cli.train import train
from spike_depth_ros.events.config import ConfigError
from spike_depth_ros.learning.pages import markdown
from spike_depth_ros.learning.settings import EvaluationData, TrainConfig


def ablate(
    base: Path = Path('config/train/synthetic.yaml'),
    shared: list[str] | None = None,
    variants: dict[str, list[str]] | None = None,
    seeds: list[int] | None = None,
    data: EvaluationData = EvaluationData(),
    out: Path = Path('runs/ablation'),
    results: Path = Path('docs/results.md'),
) -> None:
    """Trains variants of one configuration with several seeds and writes a table of their errors.

    `spike_depth ablate config/ablate/synthetic.yaml` resumes an interrupted ablation.

    Args:
        base: training configuration shared by all runs.
        shared: options of `spike_depth train` applied to all runs.
        variants: name -> additional options of this variant. The first variant is the reference.
        seeds: random seeds; each variant is trained once per seed.
        data: evaluation data.
        out: folder of the runs.
        results: Markdown file whose section `ablation` is updated after each variant.
    """
    from spike_depth_ros.learning import ablation

    if not variants or not seeds:
        raise ConfigError('variants and seeds must not be empty: see config/ablate/synthetic.yaml')
    common = shared or []
    chosen = [
        ablation.Variant(name, {seed: settings(base, [*common, *options], seed) for seed in seeds})
        for name, options in variants.items()
    ]
    schedule = chosen[0].configs[seeds[0]].schedule
    facts = (
        f'`spike_depth ablate`, base `{base}`, all with `{" ".join(common)}`, seeds {seeds}, '
        f'{schedule.max_iterations} iterations. Measured on `{json.dumps(data.test)}`: '
        'streaming, cap 80 m, no alignment; mean over the seeds ± greatest deviation from it.'
    )
    changes = [
        f'- {name}: ' + (f'`{" ".join(options)}`' if options else 'no further options')
        for name, options in variants.items()
    ]
    results.parent.mkdir(parents=True, exist_ok=True)
    for found in ablation.ablate(chosen, data, out, say=print):
        table = markdown(found)
        done = f'{len(found.rows)} of {len(chosen)} variants are done.'
        body = '\n'.join(['## Ablations', '', facts, done, '', *changes, '', table])
        text = results.read_text(encoding='utf-8') if results.exists() else '# Results\n'
        results.write_text(ablation.replace_section(text, 'ablation', body), encoding='utf-8')
    print(table)
    print(results)


def settings(base: Path, options: list[str], seed: int) -> TrainConfig:
    """Returns the configuration of `spike_depth train BASE OPTIONS --schedule.seed SEED`.

    Raises:
        ConfigError: an option is unknown to `train` or its value is invalid.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument('--config', action='config')
    parser.add_function_arguments(train)
    arguments = ['--config', str(base), *options, '--schedule.seed', str(seed)]
    try:
        parts = parser.instantiate(parser.parse_args(arguments))
    except argparse.ArgumentError as error:
        raise ConfigError(f'{" ".join(arguments)}: {error}') from error
    return TrainConfig(**{f.name: parts[f.name] for f in dataclasses.fields(TrainConfig)})
