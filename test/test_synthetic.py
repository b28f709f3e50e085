"""Synthetic clips: they follow from integers, and go through the pipeline of the node."""

import dataclasses
import inspect
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spike_depth_ros.cli import main
from spike_depth_ros.cli.clips import clips
from spike_depth_ros.cli.demo import demo
from spike_depth_ros.events.arrays import make_events
from spike_depth_ros.events.config import ConfigError, SpikeConfig
from spike_depth_ros.events.spikes import accumulate
from spike_depth_ros.learning.datasets import DATASETS
from spike_depth_ros.learning.datasets.clip_file import merge_steps
from spike_depth_ros.learning.datasets.recipe import SPLITS, clip_keys, clip_path, plan_clip
from spike_depth_ros.learning.datasets.sample import DatasetError
from spike_depth_ros.learning.datasets.synthetic import (
    TRAIN_SEEDS,
    SyntheticConfig,
    generate,
    make_clip,
    open_synthetic,
    render_clip,
)
from spike_depth_ros.sim.drive import clip, world_of
from spike_depth_ros.sim.sensors import sensor_config

CONFIG = SyntheticConfig(
    '.',
    worlds=2,
    clips_per_world=1,
    spikes=SpikeConfig(window_ms=8, steps=2, max_width_px=32),
    stored_windows=2,
    stored_steps=4,
    stored_width_px=32,
    scenes=('street',),
    sensors=('48x36',),
    sensor_weights=(),
    zooms=(1.0,),
    max_step_px=4.0,
)


def in_folder(folder, **changes):
    return dataclasses.replace(CONFIG, folder=str(folder), **changes)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """A folder with both clips of CONFIG."""
    folder = tmp_path_factory.mktemp('clips')
    config = in_folder(folder)
    for key in clip_keys(config):
        make_clip(config, *key)
    return config


def test_splits_never_share_a_world():
    seeds = list(SPLITS.values())
    for k, a in enumerate(seeds):
        for b in seeds[k + 1 :]:
            assert a.stop <= b.start or b.stop <= a.start
    assert clip_keys(in_folder('.', first_world=5))[0][0] == TRAIN_SEEDS[5]
    with pytest.raises(ConfigError, match='worlds'):
        in_folder('.', split='test', worlds=len(SPLITS['test']), first_world=1)


def test_no_world_is_in_two_splits_and_the_demo_in_none():
    assert {
        'train': range(0, 1_000_000),
        'validation': range(1_000_000, 1_100_000),
        'test': range(2_000_000, 2_100_000),
    } == SPLITS
    shown = inspect.signature(demo).parameters['seed'].default
    assert not any(shown in seeds for seeds in SPLITS.values())


def test_a_plan_follows_from_its_integers_and_varies():
    config = SyntheticConfig('.', scenes=('street', 'indoor'), scene_weights=(3, 1))
    plans = [plan_clip(config, seed, number) for seed in range(150) for number in range(2)]
    assert plans == [plan_clip(config, seed, n) for seed in range(150) for n in range(2)]
    assert all(a.scene == b.scene for a, b in zip(plans[::2], plans[1::2], strict=True))
    scenes = [plan.scene for plan in plans[::2]]
    assert 80 < scenes.count('street') < 140
    assert {plan.sensor for plan in plans} == {'davis346', 'vga', 'hd'}
    assert {plan.zoom for plan in plans} == set(config.zooms)
    assert 100 < sum(plan.rectified for plan in plans) < 200
    thresholds = np.array([plan.threshold_on for plan in plans])
    assert thresholds.min() >= config.min_threshold
    assert thresholds.max() <= config.max_threshold
    assert np.ptp(thresholds) > 0.25
    # what another split or number of worlds asks for changes nothing
    other = dataclasses.replace(config, worlds=7, folder='elsewhere', clips_per_world=9)
    assert plan_clip(other, 3, 1) == plan_clip(config, 3, 1)


MIX = {
    'motions': ('walking', 'rotation'),
    'heights_m': (0.3, 1.5),
    'pitches_deg': (-10.0, 20.0),
    'rolls_deg': (-5.0, 5.0),
    'yaws_deg': (-20.0, 20.0),
    'fields_of_view_deg': (40.0, 110.0),
    'sensor_models': ('preset', 'random'),
    'static_share': 0.5,
    'flicker_share': 0.5,
}


def test_a_mix_is_drawn_beside_what_older_configurations_draw():
    mixed = dataclasses.replace(CONFIG, **MIX)
    plans = [plan_clip(mixed, seed, 0) for seed in range(200)]
    for seed, plan in enumerate(plans):
        assert plan[:10] == plan_clip(CONFIG, seed, 0)[:10]
    assert plan_clip(CONFIG, 3, 0)[10:] == ('own', 'preset', 0.0, '', (0.0, 0.0, 0.0))
    assert {plan.motion for plan in plans} == {'walking', 'rotation'}
    assert {plan.sensor_model for plan in plans} == {'preset', 'random'}
    views = [plan.field_of_view_deg for plan in plans]
    assert 40 <= min(views) < 43
    assert 107 < max(views) <= 110
    assert 70 < sum(plan.static_part == '' for plan in plans) < 130
    assert {plan.flicker.rate_hz for plan in plans} == {0.0, 100.0, 120.0}
    only = dataclasses.replace(mixed, motion_weights=(0.0, 1.0))
    assert {plan_clip(only, seed, 0).motion for seed in range(20)} == {'rotation'}


def test_a_mixed_clip_says_what_it_shows():
    mixed = dataclasses.replace(CONFIG, **{**MIX, 'static_share': 1.0, 'motions': ('walking',)})
    plan = plan_clip(mixed, 5, 0)
    first, again = render_clip(mixed, plan)[1], render_clip(mixed, plan)[1]
    np.testing.assert_array_equal(first.spikes, again.spikes)
    meta = first.meta
    assert meta['scene'] == 'street'
    assert meta['motion'] == 'walking'
    assert meta['static_part'] == plan.static_part != ''
    assert meta['sensor_model'] == plan.sensor_model
    assert 0.3 <= meta['height_m'] <= 1.5
    assert -10 <= meta['pitch_deg'] <= 20
    assert abs(meta['roll_deg']) <= 5
    assert meta['field_of_view_deg'] == pytest.approx(plan.field_of_view_deg, abs=1.0)
    assert 0 < meta['speed_m_s'] < 2


def test_folders_from_before_the_mix_still_open(made):
    assert len(open_synthetic(made)) == 4
    recipe = json.loads((clip_path(made, 0, 0).parents[1] / 'recipe.json').read_text())
    assert not {*MIX, 'mix_version'} & {*recipe}
    with pytest.raises(DatasetError, match='mix_version'):
        open_synthetic(dataclasses.replace(made, heights_m=(0.5, 1.0)))


@pytest.mark.parametrize('rectified', [False, True])
def test_a_clip_is_the_simulators_seen_through_the_pipeline(rectified):
    """Second reading: events one by one through the lens, depth as the simulator gave it."""
    plan = plan_clip(CONFIG, 7, 0)._replace(rectified=rectified)
    samples = render_clip(CONFIG, plan)
    assert len(samples) == 2
    lens = sensor_config('48x36').camera
    mismatch = sensor_config('48x36').threshold_sigma / sensor_config('48x36').threshold_on
    sensor = dataclasses.replace(
        sensor_config('48x36'),
        threshold_on=plan.threshold_on,
        threshold_off=plan.threshold_off,
        threshold_sigma=mismatch * plan.threshold_on,
        shot_noise_hz=sensor_config('48x36').shot_noise_hz * plan.noise,
        leak_hz=sensor_config('48x36').leak_hz * plan.noise,
    )
    view = lens.rectified() if rectified else lens
    windows = clip(world_of(plan.scene, 7), plan.start_s, 2, 8.0, sensor, view, 4.0)
    moved = lens.rays()[..., :2] * (lens.fx, lens.fy) + (lens.cx, lens.cy)
    for sample, window in zip(samples, windows, strict=True):
        expected = np.zeros((4, 2, 24, 24), np.int64)
        for t_ns, x, y, p in window.events.tolist():
            column, row = moved[y, x] if rectified else (x, y)
            column, row = int(np.floor((column + 0.5) / 2)), int(np.floor((row + 0.5) / 2))
            if 0 <= column < 24 and 0 <= row < 18:
                expected[(t_ns - window.t0_ns) * 4 // 8_000_000, p, row, column] += 1
        np.testing.assert_array_equal(sample.spikes, np.minimum(expected, 255))
        assert sample.meta['event_count'] == len(window.events)
        assert sample.depth_m.shape == (18, 24)
        block = np.sort(window.depth_m[8:10, 20:22].ravel())
        assert sample.depth_m[4, 10] == block[1]
        np.testing.assert_array_equal(sample.valid, np.isfinite(sample.depth_m))
        assert sample.meta['focal_px'] == lens.fx / 2
        assert sample.meta['contrast'] == plan.threshold_on
    assert sum(s.meta['event_count'] for s in samples) > 0
    assert samples[1].meta['stamp_ns'] - samples[0].meta['stamp_ns'] == 8_000_000


def test_one_folder_serves_coarser_grids(made):
    coarse = dataclasses.replace(made, images=True, spikes=SpikeConfig(8, 4, 12))
    fine = dataclasses.replace(coarse, spikes=SpikeConfig(8, 4, 32))
    for (sample,), (stored,) in zip(open_synthetic(coarse), open_synthetic(fine), strict=True):
        assert sample.spikes.shape == (4, 2, 16, 16)
        expected = np.zeros((4, 2, 16, 16), np.int64)
        for place in np.argwhere(stored.spikes):
            step, p, row, column = place
            expected[step, p, row // 2, column // 2] += stored.spikes[tuple(place)]
        np.testing.assert_array_equal(sample.spikes, np.minimum(expected, 255))
        assert sample.depth_m.shape == sample.image.shape[:2] == (9, 12)
        assert sample.depth_m[4, 10] == np.sort(stored.depth_m[8:10, 20:22].ravel())[1]
        assert sample.meta['focal_px'] == stored.meta['focal_px'] / 2
        assert sample.meta['cx_px'] == (stored.meta['cx_px'] - 0.5) / 2
    assert open_synthetic(coarse).sizes() == [(16, 16)] * 4
    with pytest.raises(ConfigError, match='at most the 32 on disk'):
        dataclasses.replace(made, spikes=SpikeConfig(8, 4, 48))
    with pytest.raises(ConfigError, match='a multiple of 2'):
        open_synthetic(dataclasses.replace(made, spikes=SpikeConfig(8, 4, 16)))


def test_what_comes_from_disk_is_what_was_rendered(made):
    rendered = [render_clip(made, plan_clip(made, *key)) for key in clip_keys(made)]
    flat = [sample for samples in rendered for sample in samples]
    opened = open_synthetic(dataclasses.replace(made, images=True))
    assert len(opened) == 4
    for (sample,), expected in zip(opened, flat, strict=True):
        merged = expected.spikes.reshape(2, 2, *expected.spikes.shape[1:]).sum(axis=1)
        np.testing.assert_array_equal(sample.spikes, np.minimum(merged, 255))
        np.testing.assert_allclose(sample.depth_m, expected.depth_m, rtol=5e-4)
        np.testing.assert_array_equal(sample.image, expected.image)
        np.testing.assert_array_equal(sample.valid, expected.valid)
        assert sample.meta == expected.meta
    (first, second), *_ = open_synthetic(dataclasses.replace(made, clip_windows=2))
    assert second.meta['stamp_ns'] - first.meta['stamp_ns'] == 8_000_000
    assert first.image is None
    assert opened.sizes() == [(24, 24)] * 4
    with pytest.raises(IndexError):
        opened[4]


def test_the_table_opens_it(made):
    entry = DATASETS['synthetic']
    assert entry.config is SyntheticConfig
    assert len(entry(made)) == 4


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4, 8]), st.integers(1, 10_000))
def test_merged_steps_are_those_of_a_coarser_accumulation(seed, steps, span_ns):
    rng = np.random.default_rng(seed)
    t_ns = rng.integers(-5, span_ns + 5, 2000)
    events = make_events(t_ns, t_ns % 2, t_ns * 0, t_ns % 3 == 0)
    fine = accumulate(events, 0, span_ns, 8, 1, 2)
    np.testing.assert_array_equal(
        merge_steps(fine, steps), accumulate(events, 0, span_ns, steps, 1, 2)
    )


def test_generate_fills_what_is_missing(tmp_path, made):
    config = in_folder(tmp_path)
    open_synthetic(config)
    there, missing = (clip_path(config, *key) for key in clip_keys(config))
    there.parent.mkdir(parents=True)
    there.write_bytes(b'not to be touched')
    assert generate(config, workers=1) == 1
    assert generate(config, workers=1) == 0
    assert there.read_bytes() == b'not to be touched'
    assert sorted(p.name for p in missing.parent.iterdir()) == [there.name, missing.name]
    there.unlink()
    # another process made the same
    for ours, theirs in zip(open_synthetic(config), open_synthetic(made), strict=True):
        np.testing.assert_array_equal(ours[0].spikes, theirs[0].spikes)
        np.testing.assert_array_equal(ours[0].depth_m, theirs[0].depth_m)


def test_the_verb_fills_every_folder_of_a_file(tmp_path, made, capsys):
    fields = {**dataclasses.asdict(CONFIG), 'spikes': None}
    fields = {k: v for k, v in fields.items() if v is not None and k not in ('folder', 'worlds')}
    table = {
        'train': {**fields, 'folder': str(tmp_path / 'a'), 'worlds': 1},
        'more': [{'fields': {**fields, 'folder': str(tmp_path / 'b'), 'worlds': 1}, 'times': 2}],
        'validation': {'folder': str(tmp_path / 'c'), 'worlds': 1, 'scenes': ['nowhere']},
    }
    spikes = {'window_ms': 8, 'steps': 2, 'max_width_px': 32}
    config = tmp_path / 'mix.yaml'
    config.write_text(json.dumps({'data': table, 'spikes': spikes}))  # JSON is YAML
    for count in (2, 0):
        with pytest.raises(SystemExit):
            main(['clips', str(config), '--workers', '1'])
        printed = capsys.readouterr()
        assert f'{count} clips made' in printed.out
        assert re.search(r'data\.validation: 4 of 4 clips failed.*nowhere', printed.err)
    for name in 'ab':
        ours = dataclasses.replace(made, folder=str(tmp_path / name), worlds=1, cached_only=True)
        np.testing.assert_array_equal(
            open_synthetic(ours)[0][0].spikes, open_synthetic(made)[0][0].spikes
        )


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [('data: {name: dsec}', 'data.name'), ('data: {}', 'no folder'), ('[', 'not YAML'),
     ('data: {train: {folder: x, moon: 1}}', 'moon')],
)  # fmt: skip
def test_a_file_that_asks_for_no_clips_is_named(tmp_path, text, sentence):
    path = tmp_path / 'wrong.yaml'
    path.write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        clips(path)


def test_a_clip_that_fails_is_reported_at_the_end(tmp_path):
    config = in_folder(tmp_path, worlds=1, scenes=('nowhere',))
    with pytest.raises(DatasetError, match=r'1 of 1 clips.*nowhere'):
        generate(config, workers=1)


def test_cached_only_hands_out_what_is_there(tmp_path, made):
    config = in_folder(tmp_path, cached_only=True)
    with pytest.raises(DatasetError, match='no train clips'):
        open_synthetic(config)
    source, target = (clip_path(c, *clip_keys(c)[1]) for c in (made, config))
    target.parent.mkdir(parents=True)
    target.write_bytes(source.read_bytes())
    opened = open_synthetic(config)
    assert len(opened) == 2
    assert opened[0][0].meta['sequence'] == 'street_0000001_00'


def test_a_missing_clip_is_made_when_asked_for(tmp_path, made):
    config = in_folder(tmp_path, worlds=1)
    (ours,) = open_synthetic(config)[0]
    np.testing.assert_array_equal(ours.spikes, open_synthetic(made)[0][0].spikes)
    assert clip_path(config, *clip_keys(config)[0]).is_file()


def test_a_folder_holds_one_recipe(made):
    with pytest.raises(DatasetError, match='max_threshold'):
        open_synthetic(dataclasses.replace(made, max_threshold=0.9))
    with pytest.raises(DatasetError, match='window_ms'):
        open_synthetic(dataclasses.replace(made, spikes=SpikeConfig(20, 2, 32)))
    other = dataclasses.replace(made, worlds=1, spikes=dataclasses.replace(made.spikes, steps=4))
    assert open_synthetic(other)[0][0].spikes.shape[0] == 4


def test_damage_is_named(tmp_path, made):
    config = in_folder(tmp_path, worlds=1)
    open_synthetic(config)
    path = clip_path(config, *clip_keys(config)[0])
    whole = clip_path(made, *clip_keys(made)[0]).read_bytes()
    path.parent.mkdir(parents=True)
    for broken in (b'', whole[: len(whole) // 2], whole[:200] + b'\x00' * 100 + whole[300:]):
        path.write_bytes(broken)
        with pytest.raises(DatasetError, match=path.name):
            open_synthetic(config)[0]
    (tmp_path / 'recipe.json').write_text('{')
    with pytest.raises(DatasetError, match=r'recipe\.json'):
        open_synthetic(config)


@pytest.mark.parametrize(
    ('field', 'value'),
    [('split', 'all'), ('clip_windows', 3), ('zooms', ()), ('sensors', ()), ('images', True),
     ('motions', ('flying',)), ('sensor_models', ()), ('heights_m', (2.0, 1.0)),
     ('fields_of_view_deg', (5.0, 90.0)), ('static_share', 1.5), ('static_parts', ('tail',)),
     ('spikes', SpikeConfig(steps=3)), ('rectified_part', 2.0), ('min_threshold', 0.9)],
)  # fmt: skip
def test_nonsense_is_refused(field, value):
    with pytest.raises(ConfigError, match=field):
        dataclasses.replace(CONFIG, store_images=False, **{field: value})


def test_weights_must_fit_their_names(tmp_path):
    config = in_folder(tmp_path, sensor_weights=(0.5, 0.5))
    with pytest.raises(ConfigError, match='sensor_weights'):
        plan_clip(config, 0, 0)


def test_the_recipe_says_what_the_clips_are_made_of(made):
    open_synthetic(made)
    recipe = json.loads((clip_path(made, 0, 0).parents[1] / 'recipe.json').read_text())
    assert recipe['scenes'] == ['street']
    assert recipe['stored_steps'] == 4
    assert 'steps' not in recipe['spikes']
