"""Ablations: options become runs, runs become a table, the table takes its place in a text."""

from pathlib import Path

import numpy as np
import pytest

from spike_depth_ros.cli.ablate import settings
from spike_depth_ros.events.config import ConfigError
from spike_depth_ros.learning import ablation
from spike_depth_ros.learning.settings import EvaluationData

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / 'config' / 'train' / 'synthetic.yaml'


def test_options_become_a_run():
    run = settings(BASE, ['--model.config.head', 'linear', '--spikes.steps', '2'], 7)
    base = settings(BASE, [], 0)
    assert (run.model.config, run.spikes.steps, run.schedule.seed) == ({'head': 'linear'}, 2, 7)
    assert run.data == base.data
    with pytest.raises(ConfigError, match='no_such'):
        settings(BASE, ['--no_such', '1'], 0)


def test_the_shipped_ablation_is_of_runs_that_exist():
    import yaml

    shipped = yaml.safe_load((ROOT / 'config' / 'ablate' / 'synthetic.yaml').read_text())
    runs = [
        settings(ROOT / shipped['base'], [*shipped['shared'], *options], 0)
        for options in shipped['variants'].values()
    ]
    assert len({run.schedule.max_iterations for run in runs}) == 1
    windows = {run.schedule.batch_size * run.schedule.clip_windows for run in runs}
    assert len(windows) == 1  # the same number of supervised windows per step
    assert len(shipped['seeds']) >= 2
    assert {run.spikes.steps for run in runs} == {1, 2, 4, 8}
    assert {run.model.config.get('neuron') for run in runs} == {None, 'lif', 'ilif'}
    assert {run.teacher.name for run in runs} == {'', 'rgb'}


def test_a_table_of_means_and_spreads(monkeypatch, tmp_path):
    trained = []
    errors = {'a/seed_0': 0.2, 'a/seed_1': 0.3, 'b_c/seed_0': 0.1, 'b_c/seed_1': 0.1}

    def measure(checkpoint, data, cap_m):
        error = errors[str(checkpoint.parent.relative_to(tmp_path))]
        streaming = dict.fromkeys(ablation.FIGURES, error)
        return ablation.Measured(5, {'abs_rel': 2 * error}, streaming)

    monkeypatch.setattr(ablation, 'train', lambda config, folder: trained.append((config, folder)))
    monkeypatch.setattr(ablation, 'measure', measure)
    variants = [
        ablation.Variant('a', {0: 'A0', 1: 'A1'}),
        ablation.Variant('b c', {0: 'B', 1: 'B'}),
    ]
    tables = list(ablation.ablate(variants, EvaluationData(), tmp_path))
    assert [len(rows) for _, rows in tables] == [1, 2]
    header, rows = tables[-1]
    assert [config for config, _ in trained] == ['A0', 'A1', 'B', 'B']
    assert rows[0][header.index('Abs Rel')] == '0.25 ± 0.05'
    assert rows[0][header.index('Abs Rel from rest')] == '0.5 ± 0.1'
    assert [row[-1] for row in rows] == ['+0.0 %', '-60.0 %']
    assert len(header) == len(rows[0])


def test_spread():
    assert ablation.spread_of([0.1, 0.16]) == '0.13 ± 0.03'
    assert ablation.spread_of([np.float64(0.5)]) == '0.5 ± 0'


def test_a_section_is_replaced_or_appended():
    text = ablation.replace_section('# Results\n', 'ablation', 'one\n')
    assert text == '# Results\n\n<!-- ablation -->\none\n<!-- /ablation -->\n'
    again = ablation.replace_section(text + 'after\n', 'ablation', 'two')
    assert again == '# Results\n\n<!-- ablation -->\ntwo\n<!-- /ablation -->\nafter\n'
