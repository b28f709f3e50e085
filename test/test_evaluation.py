"""Evaluation runs through the estimator, fits trivial rivals, and writes what it found."""

import json
import math

import numpy as np
import pytest
import torch
from untrained import untrained_checkpoint

from spike_depth_ros.estimation.depth_frame import Limits, interpret
from spike_depth_ros.events.config import ConfigError, DepthRange, SpikeConfig
from spike_depth_ros.learning import comparison, evaluation, pages
from spike_depth_ros.learning.datasets import DATASETS
from spike_depth_ros.learning.datasets.sample import Sample
from spike_depth_ros.learning.evaluation import evaluate
from spike_depth_ros.learning.predictors import (
    CheckpointPredictor,
    Constant,
    Estimate,
    MeanMap,
    open_predictor,
)
from spike_depth_ros.learning.settings import EvaluationData
from spike_depth_ros.network.checkpoint import Checkpoint, save_checkpoint
from spike_depth_ros.network.registry import build

torch.set_num_threads(1)
HEIGHT, WIDTH = 30, 45
GRID = (32, 48)


def sample(window=0, depth_m=None, focal_px=128.0, night=False, rate=0.2, seed=0):
    rng = np.random.default_rng((seed, window))
    spikes = np.zeros((4, 2, *GRID), np.uint8)
    spikes[..., :HEIGHT, :WIDTH] = rng.poisson(rate, (4, 2, HEIGHT, WIDTH))
    if depth_m is None:
        depth_m = rng.uniform(2, 70, (HEIGHT, WIDTH)).astype(np.float32)
    meta = {
        'focal_px': focal_px, 'cx_px': 22.0, 'cy_px': 14.5, 'sensor': f'{WIDTH}x{HEIGHT}',
        'dataset': 'synthetic', 'sequence': f'street_{seed:07d}_00', 'night': night,
        'stamp_ns': 50_000_000 * (window + 1), 'window_ns': 50_000_000,
    }  # fmt: skip
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return Sample(spikes, depth_m, np.isfinite(depth_m), image, meta)


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp('checkpoints') / 'tiny.safetensors'
    save_checkpoint(path, untrained_checkpoint('tiny'))
    return path


def by_hand(checkpoint, windows, focal_px):
    """The same depth from the bare network."""
    state = None
    with torch.no_grad():
        for one in windows:
            maps, state = checkpoint.model.step(torch.from_numpy(one.spikes)[:, None], state)
    image = torch.cat(maps, 1)[0, :, :HEIGHT, :WIDTH].numpy()
    scale = focal_px / checkpoint.depth_range.focal_px
    return interpret(image, checkpoint.depth_range, scale, Limits(0, math.inf, 0))


@pytest.mark.parametrize('streaming', [False, True])
def test_a_checkpoint_answers_as_the_node_does(tiny, streaming):
    who = CheckpointPredictor(tiny, streaming)
    for focal_px in (128.0, 300.0):
        clip = [sample(k, focal_px=focal_px) for k in range(3)]
        for _ in range(2):  # nothing of one clip stays for the next
            answer = who(clip)
            windows = clip if streaming else clip[-1:]
            depth_m, confidence = by_hand(who.checkpoint, windows, focal_px)
            np.testing.assert_allclose(answer.depth_m, depth_m, rtol=1e-3)
            np.testing.assert_allclose(answer.confidence, confidence, atol=1e-3)
    assert who.parameters == sum(p.numel() for p in who.checkpoint.model.parameters())
    assert who.name == 'tiny'


def test_a_network_of_images_is_fed_the_image(tmp_path):
    torch.manual_seed(0)
    network = build('rgb_unet', {'width': 4}).eval()
    path = tmp_path / 'run' / 'best.safetensors'
    save_checkpoint(path, Checkpoint(network, 'rgb_unet', SpikeConfig(), DepthRange(), {}))
    who = open_predictor(str(path), False, 'torch', 'cpu', 1)
    assert who.name == 'run/best'
    answer = who([sample()])
    assert answer.depth_m.shape == (HEIGHT, WIDTH)
    other = who([sample()._replace(image=np.zeros((HEIGHT, WIDTH, 3), np.uint8))])
    assert not np.array_equal(answer.confidence, other.confidence)
    with pytest.raises(ValueError, match='sees images'):
        who([sample()._replace(image=None)])


def flat(values):
    return np.array([values], np.float32)


def test_mean_map_and_constant_by_hand():
    depth_range = DepthRange(max_m=50.0, focal_px=100.0)

    def clip(values, focal_px=100.0):
        depth_m = flat(values)
        return [sample(depth_m=depth_m, focal_px=focal_px)._replace(depth_m=depth_m)]

    # seen through a lens of twice the focal length, 8 m is canonical 4 m
    clips = [clip([2.0, math.inf, 9.0, math.nan]), clip([16.0, 60.0, math.nan, math.nan], 200.0)]
    mean_map, constant = MeanMap(clips, depth_range), Constant(clips, depth_range)
    answer = mean_map(clip([1.0] * 4, focal_px=100.0))
    middle = (2 * 8 * 30 * 9) ** (1 / 4)
    expected = [4.0, math.sqrt(30 * 30), 9.0, middle]
    np.testing.assert_allclose(answer.depth_m[0], expected, rtol=1e-5)
    doubled = mean_map(clip([1.0] * 4, focal_px=200.0))
    np.testing.assert_allclose(doubled.depth_m, 2 * answer.depth_m, rtol=1e-5)
    np.testing.assert_allclose(constant(clip([1.0] * 4)).depth_m, middle, rtol=1e-5)
    far = MeanMap([clip([math.inf, 3.0])] * 3, depth_range)(clip([1.0, 1.0]))
    assert far.depth_m.tolist() == [[math.inf, pytest.approx(3.0)]]
    # of another size it knows the middle of all that it has seen
    np.testing.assert_allclose(mean_map(clip([1.0] * 3)).depth_m, middle, rtol=1e-5)


class Perfect:
    name, parameters = 'perfect', 7

    def __init__(self, factor=1.0):
        self.factor = factor

    def __call__(self, clip):
        depth_m = clip[-1].depth_m * np.float32(self.factor)
        return Estimate(depth_m, np.ones_like(depth_m), 5.0)


def test_groups_hold_their_own_clips():
    clips = [[sample(seed=i, night=i == 0, rate=(0.001, 0.02, 0.2)[i])] for i in range(3)]

    class WrongAtNight(Perfect):
        def __call__(self, clip):
            return Perfect(2.0 if clip[-1].meta['night'] else 1.0)(clip)

    (good, bad), shown = evaluate([Perfect(), WrongAtNight()], clips, [0, 1, 2], pictures=2)
    assert good.figures['abs_rel'] == 0
    assert bad.groups['light']['day']['abs_rel'] == 0
    assert bad.groups['light']['night']['abs_rel'] > 0.5
    assert bad.figures['abs_rel'] == pytest.approx(bad.groups['light']['night']['abs_rel'] / 3)
    assert {part: f['frames'] for part, f in good.groups['events'].items()} == {
        'sparse': 1, 'medium': 1, 'dense': 1,
    }  # fmt: skip
    assert set(good.groups['scene']) == {'street'}
    assert good.infer_ms == 5
    assert [one.sample.meta['sequence'][-10:] for one in shown] == ['0000000_00', '0000002_00']


class FewClips(list):
    pass


@pytest.fixture
def street(monkeypatch):
    import dataclasses

    @dataclasses.dataclass(frozen=True)
    class Config:
        seed: int = 0
        clip_windows: int = 1

    class Entry:
        config = Config

        def __call__(self, config):
            return FewClips(
                [sample(k, seed=config.seed + i) for k in range(config.clip_windows)]
                for i in range(3)
            )

    monkeypatch.setitem(DATASETS, 'streets', Entry())


def test_a_comparison_writes_json_markdown_and_a_page(tiny, street, tmp_path):
    data = EvaluationData('streets', {'seed': 5}, {'seed': 0}, clip_windows=2)
    page, table = comparison.run(
        [str(tiny)], data, tmp_path, True, 80.0, 'none', ('torch', 'cpu', 1)
    )
    contents = json.loads((tmp_path / 'results.json').read_text())
    names = [result['name'] for result in contents['results']]
    assert names == ['tiny', 'per-pixel mean map', 'constant']
    assert contents['facts']['cap'] == '80 m'
    assert contents['facts']['clips'] == '3'
    for result in contents['results']:
        assert f'{result["figures"]["abs_rel"]:.3g}' in table
    html = page.read_text()
    assert 'By distance' in html
    for picture in ('clip_0.png', 'confidence.png'):
        assert picture in html
        assert (tmp_path / picture).stat().st_size > 1000
    assert '| Abs Rel | 0-10 m |' in (tmp_path / 'results.md').read_text()


def test_sets_stand_side_by_side(tiny, street, tmp_path):
    sets = {'seen': {'seed': 5}, 'unseen': {'seed': 9}}
    data = EvaluationData('streets', clip_windows=2, sets=sets)
    engine = ('torch', 'cpu', 1)
    _, text = comparison.run([str(tiny)], data, tmp_path, True, 80.0, 'none', engine)
    results = json.loads((tmp_path / 'results.json').read_text())['results']
    assert [(r['name'], r['set']) for r in results] == [('tiny', 'seen'), ('tiny', 'unseen')]
    single = EvaluationData('streets', {'seed': 9}, clip_windows=2)
    comparison.run([str(tiny)], single, tmp_path / 'one', True, 80.0, 'none', engine)
    (alone,) = json.loads((tmp_path / 'one' / 'results.json').read_text())['results']
    assert alone['figures'] == results[1]['figures']
    ratio = alone['figures']['abs_rel_scaled'] / results[0]['figures']['abs_rel_scaled']
    (row,) = (line for line in text.splitlines()[5:] if line.startswith('| tiny, unseen'))
    assert row.endswith(f' {ratio:.3g} |')
    page = (tmp_path / 'results.md').read_text()
    assert 'shape against seen' in page
    assert '## Protocol: DSEC tables of DepthAnyEvent' in page
    assert '## Protocol: metres without alignment, cap 80 m' in page
    with pytest.raises(ConfigError, match='empty where test is given'):
        EvaluationData('streets', {'seed': 5}, sets=sets)


def test_jitter_is_of_the_scale_between_maps_after_the_first():
    class Drifting(Perfect):
        def __call__(self, clip):
            maps = [s.depth_m * np.float32(f) for s, f in zip(clip, (9, 1, 2, 4), strict=True)]
            return Estimate(maps[-1], np.ones_like(maps[-1]), 5.0, tuple(maps[:-1]))

    clip = [sample(k, depth_m=np.full((30, 45), 5, np.float32)) for k in range(4)]
    (result,), _ = evaluate([Drifting()], [clip], [0])
    assert result.figures['scale_jitter'] == pytest.approx(math.log(2), rel=1e-4)
    (still,), _ = evaluate([Perfect()], [clip], [0])
    assert math.isnan(still.figures['scale_jitter'])


def test_namesakes_are_told_apart():
    names = comparison.distinct_names
    assert names(['a/x.safetensors', 'b/y.safetensors']) == ['x', 'y']
    runs = [f'runs/{name}/seed_0/last.safetensors' for name in ('unet', 'ours')]
    assert names(runs) == ['unet/seed_0/last', 'ours/seed_0/last']
    assert names(runs[:1]) == ['seed_0/last']
    assert names(['a/best.safetensors', 'a/best.old']) == ['a/best', 'best.old']
    assert len(set(names(['a/best.safetensors', 'a/best']))) == 2
    with pytest.raises(ConfigError, match='once'):
        names([runs[0], runs[0]])


def test_a_scene_that_nobody_tells_makes_no_group():
    known = {'dataset': 'synthetic', 'sequence': 'street_0000012_03', 'sensor': '640x480'}
    for meta, parts in ((known, {'street 640x480'}), (known | {'dataset': 'dsec'}, set())):
        sample = Sample(np.zeros((1, 2, 8, 8), np.uint8), np.ones((8, 8)), None, None, meta)
        named = [part for group, part in evaluation._parts(sample) if group == 'scene and sensor']
        assert set(named) == parts


def test_checkpoints_of_different_windows_are_not_compared(tiny, street, tmp_path):
    other = untrained_checkpoint('tiny')
    path = tmp_path / 'other.safetensors'
    save_checkpoint(
        path, Checkpoint(other.model, other.model_name, SpikeConfig(20.0), DepthRange(), {})
    )
    with pytest.raises(ConfigError, match='different windows'):
        comparison.run([str(tiny), str(path)], EvaluationData('streets'), tmp_path, False, 80.0,
                       'none', ('torch', 'cpu', 1))  # fmt: skip


def test_checkpoints_of_different_steps_are_compared(tiny, street, tmp_path):
    other, path = untrained_checkpoint('tiny', seed=1), tmp_path / 'other.safetensors'
    spikes = SpikeConfig(steps=2)
    save_checkpoint(path, Checkpoint(other.model, other.model_name, spikes, DepthRange(), {}))
    files = [str(tiny), str(path)]
    _, table = comparison.run(files, EvaluationData('streets', {}, {}), tmp_path, False, 80.0,
                                 'none', ('torch', 'cpu', 1))  # fmt: skip
    assert table.count('| tiny |') == table.count('| other |') == 2  # errors, transfer
    results = json.loads((tmp_path / 'results.json').read_text())['results']
    assert [result['name'] for result in results] == ['tiny', 'other']
    alone = tmp_path / 'alone'
    comparison.run(files[1:], EvaluationData('streets', {}, {}), alone, False, 80.0,
                   'none', ('torch', 'cpu', 1))  # fmt: skip
    (result,) = json.loads((alone / 'results.json').read_text())['results']
    assert result['figures'] == results[1]['figures']


@pytest.mark.parametrize('wrong', [{'cap_m': -3.0}, {'alignment': 'foo'}, {'engine': 'foo'}])
def test_what_cannot_be_is_said_before_any_work(tiny, wrong, tmp_path):
    asked = {'cap_m': 80.0, 'alignment': 'none', 'engine': 'torch'} | wrong
    with pytest.raises(ConfigError, match=str(*wrong)):
        comparison.run([str(tiny)], EvaluationData('nothing'), tmp_path, False, asked['cap_m'],
                       asked['alignment'], (asked['engine'], 'cpu', 1))  # fmt: skip


def test_no_data_is_said_in_words(tiny, tmp_path):
    with pytest.raises(ConfigError, match=r'no data is given.*config/evaluate'):
        comparison.run([str(tiny)], EvaluationData(), tmp_path, False, 80.0, 'none',
                       ('torch', 'cpu', 1))  # fmt: skip


def test_markdown_numbers():
    table = pages.Table(['', 'n', 'x'], [['a', 12345, 0.123456], ['b', 1, math.nan]])
    assert pages.markdown(table) == (
        '|  | n | x |\n|---|---|---|\n| a | 12,345 | 0.123 |\n| b | 1 |  |\n'
    )


def test_energy_is_the_mean_over_windows_and_says_what_it_costs():
    from spike_depth_ros.learning.energy_report import energy_table, energy_totals, mean_energy
    from spike_depth_ros.network.energy import E_AC_PJ, E_MAC_PJ, measure_energy

    checkpoint = untrained_checkpoint('tiny')
    clips = [[sample(seed=0, rate=0.02)], [sample(seed=1, rate=0.5)]]
    report = mean_energy(checkpoint, clips, [0, 1])
    single = [
        measure_energy(checkpoint.model, torch.from_numpy(clip[0].spikes)[:, None])
        for clip in clips
    ]
    assert report.compute_pj() == pytest.approx(sum(r.compute_pj() for r in single) / 2)
    header, rows = energy_table(report)
    assert len(rows) == len(single[0].layers)
    for row in rows:
        fields = dict(zip(header, row, strict=True))
        expected = fields['MMAC'] * E_MAC_PJ + fields['MAC -> AC [M]'] * E_AC_PJ
        assert fields['uJ'] == pytest.approx(expected)
        assert (fields['MMAC'] == 0) == (fields['spikes only'] == 'yes')
    totals = {row[0]: row for row in energy_totals(report, 50.0)[1]}
    both = totals['encoder'][1] + totals['head'][1]
    assert totals['encoder and head'][1] == pytest.approx(both)
    assert totals['head'][2] == pytest.approx(totals['head'][1] * 20 * 1e-3)
    image = Checkpoint(build('rgb_unet'), 'rgb_unet', SpikeConfig(), DepthRange(), {})
    with pytest.raises(ValueError, match='sees images'):
        mean_energy(image, clips, [0])
    rival = Checkpoint(build('unet_small').eval(), 'unet', SpikeConfig(), DepthRange(), {})
    parts = {layer.name: layer.part for layer in mean_energy(rival, clips, [0]).layers}
    assert parts['body.down.0.0'] == 'encoder'
    assert parts['body.up.0.0'] == 'head'
