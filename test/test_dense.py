"""DENSE and DENSE-spike: files in the real layout, written here, read again by loops."""

import functools
import math

import cv2
import numpy as np
import pytest

from spike_depth_ros.events.config import ConfigError, SpikeConfig
from spike_depth_ros.events.spikes import pixel_map
from spike_depth_ros.learning.datasets.dense import (
    DenseConfig,
    DenseSpikeConfig,
    group_frames,
    open_dense,
    open_dense_spike,
)
from spike_depth_ros.learning.datasets.sample import DatasetError

HEIGHT, WIDTH, MAPS = 260, 346, 5
STAMPS_S = [k / 30 for k in range(MAPS)]
CONFIG = SpikeConfig(window_ms=50, steps=4)


def table(seed=0, count=6000):
    """(N, 4) t [s], x, y, p over all maps."""
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(0, round(STAMPS_S[-1] * 1e6), count)) * 1e-6
    return np.column_stack(
        [
            t,
            rng.integers(0, WIDTH, count),
            rng.integers(0, HEIGHT, count),
            rng.integers(0, 2, count),
        ]
    )


def depth_of(index):
    depth = np.full((HEIGHT, WIDTH), 10.0 + index, np.float32)
    depth[:100] = 1000.0  # sky
    depth[259, 345] = np.nan
    depth[200, 3] = 0.0
    return depth


def stamps(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'timestamps.txt').write_text(
        ''.join(f'{k} {t:.6f}\n' for k, t in enumerate(STAMPS_S))
    )
    return folder


@functools.cache
def frames_of(index):
    rng = np.random.default_rng(index)
    frames = (rng.integers(0, 256, (128, HEIGHT, WIDTH), np.uint8) < 50).astype(np.uint8)
    frames.flags.writeable = False
    return frames


def write_sequence(folder, polarity=(0, 1), late_files=True, tick_s=1e-9):
    """`late_files`: file k holds what lies before stamp k; otherwise what lies after it."""
    rows = table()
    rows[:, 3] = np.array(polarity)[rows[:, 3].astype(int)]
    for name in ('events/data', 'depth/data', 'rgb/frames'):
        stamps(folder / name)
    for k, t_s in enumerate(STAMPS_S):
        before, after = (STAMPS_S[k - 1] if k else -1), (*STAMPS_S, 9)[k + 1]
        low, high = (before, t_s) if late_files else (t_s, after)
        inside = (rows[:, 0] >= low) & (rows[:, 0] < high)
        np.save(folder / f'events/data/events_{k:010d}.npy', rows[inside] / [tick_s, 1, 1, 1])
        np.save(folder / f'depth/data/depth_{k:010d}.npy', depth_of(k))
        image = np.full((HEIGHT, WIDTH, 3), (10, 20, 30 + k), np.uint8)
        cv2.imwrite(str(folder / f'rgb/frames/frame_{k:010d}.png'), image)


def write_spike_sequence(folder):
    for name in ('spike/r128', 'depth/data'):
        stamps(folder / name)
    for k in range(MAPS):
        np.save(folder / f'spike/r128/spike_{k:010d}.npy', frames_of(k))
        np.save(folder / f'depth/data/depth_{k:010d}.npy', depth_of(k))


def spikes_by_loops(t1_s, steps=4):
    grid = np.zeros((steps, 2, 264, 352), np.int64)
    count = 0
    t0_us = round(t1_s * 1e6) - 50_000
    for t, x, y, p in table().tolist():
        since_us = round(t * 1e6) - t0_us
        if 0 <= since_us < 50_000:
            grid[since_us * steps // 50_000, int(p), int(y), int(x)] += 1
            count += 1
    return grid, count


@pytest.mark.parametrize('polarity', [(0, 1), (-1, 1)])
@pytest.mark.parametrize('late_files', [True, False])
@pytest.mark.parametrize('tick_s', [1e-9, 1.0])
def test_dense_agrees_with_a_dumb_reader(tmp_path, polarity, late_files, tick_s):
    write_sequence(tmp_path / 'train' / 'town01', polarity, late_files, tick_s)
    clips = open_dense(DenseConfig(str(tmp_path), images=True, spikes=CONFIG))
    assert len(clips) == 3  # maps 2, 3 and 4 have 50 ms before them
    for clip, k in zip(clips, (2, 3, 4), strict=True):
        (sample,) = clip
        spikes, count = spikes_by_loops(round(STAMPS_S[k], 6))
        np.testing.assert_array_equal(sample.spikes, spikes)
        assert sample.meta['event_count'] == count > 0
        assert sample.depth_m.shape == (HEIGHT, WIDTH)
        assert sample.depth_m[150, 7] == 10 + k
        assert np.isposinf(sample.depth_m[:100]).all()
        assert np.isnan(sample.depth_m[259, 345])
        assert np.isnan(sample.depth_m[200, 3])
        assert sample.valid.sum() == 160 * WIDTH - 2
        assert sample.image[0, 0].tolist() == [30 + k, 20, 10]
        focal_px = 173 / math.tan(math.radians(41.5))
        assert sample.meta['focal_px'] == pytest.approx(focal_px)
        assert (sample.meta['dataset'], sample.meta['sequence']) == ('dense', 'town01')


def test_the_128_frames_are_grouped_in_time_into_the_on_channel(tmp_path):
    write_spike_sequence(tmp_path / 'test' / 'town10')
    config = DenseSpikeConfig(str(tmp_path), 'test', spikes=SpikeConfig(steps=16))
    clips = open_dense_spike(config)
    assert len(clips) == MAPS
    for k, (sample,) in enumerate(clips):
        frames = frames_of(k)
        assert not sample.spikes[:, 0].any()
        for step in range(16):
            expected = sum(frames[8 * step + f].astype(int) for f in range(8))
            np.testing.assert_array_equal(sample.spikes[step, 1, :260, :346], expected)
        assert not sample.spikes[..., 260:, :].any()
        assert sample.meta['event_count'] == frames.sum()
        assert sample.depth_m[150, 7] == 10 + k


def test_128_steps_give_the_binary_frames(tmp_path):
    write_spike_sequence(tmp_path / 'test' / 'town10')
    config = DenseSpikeConfig(str(tmp_path), 'test', 2, spikes=SpikeConfig(steps=128))
    clips = open_dense_spike(config)
    assert len(clips) == MAPS - 1
    for k, clip in enumerate(clips):
        assert [s.depth_m[150, 7] for s in clip] == [10 + k, 11 + k]
        np.testing.assert_array_equal(clip[0].spikes[:, 1, :260, :346], frames_of(k))
        np.testing.assert_array_equal(clip[1].spikes[:, 1, :260, :346], frames_of(k + 1))


def test_group_frames_bins_and_saturates():
    pixels = pixel_map(3, 20, SpikeConfig(max_width_px=10, multiple_px=2))
    spikes, count = group_frames(np.ones((128, 3, 20), np.uint8), 1, pixels)
    assert spikes.shape == (1, 2, 2, 10)
    assert (spikes[0, 1, 0] == 255).all()  # 4 pixels x 128 frames
    assert (spikes[0, 1, 1] == 255).all()  # 2 pixels x 128 = 256
    assert count == 128 * 60


@pytest.mark.parametrize(
    'file',
    ['events/data/events_0000000002.npy', 'depth/data/depth_0000000002.npy',
     'depth/data/timestamps.txt', 'rgb/frames/frame_0000000002.png'],
)  # fmt: skip
@pytest.mark.parametrize('damage', ['missing', 'cut'])
def test_what_is_missing_or_damaged_is_named(tmp_path, file, damage):
    write_sequence(tmp_path / 'town01')
    path = tmp_path / 'town01' / file
    path.write_bytes(path.read_bytes()[:9]) if damage == 'cut' else path.unlink()
    with pytest.raises(DatasetError, match='E2DEPTH') as caught:
        open_dense(DenseConfig(str(tmp_path), '', images=True, spikes=CONFIG))[0]
    assert str(path) in str(caught.value)


@pytest.mark.parametrize('row', [[0.04, 346, 0, 1], [0.04, 0, -1, 1], [0.04, np.nan, 0, 1]])
def test_events_off_the_sensor_are_refused(tmp_path, row):
    write_sequence(tmp_path / 'town01')
    np.save(tmp_path / 'town01/events/data/events_0000000002.npy', np.array([row]))
    with pytest.raises(DatasetError, match='events_0000000002'):
        open_dense(DenseConfig(str(tmp_path), '', spikes=CONFIG))[0]


@pytest.mark.parametrize('value', [2.0, -1.0, np.nan])
def test_frames_that_are_not_binary_are_refused(tmp_path, value):
    write_spike_sequence(tmp_path / 'a')
    frames = frames_of(0).astype(np.float32)
    frames[3, 4, 5] = value
    np.save(tmp_path / 'a/spike/r128/spike_0000000000.npy', frames)
    with pytest.raises(DatasetError, match='0 and 1'):
        open_dense_spike(DenseSpikeConfig(str(tmp_path), ''))[0]


def test_words_are_no_numbers(tmp_path):
    write_sequence(tmp_path / 'town01')
    np.save(tmp_path / 'town01/depth/data/depth_0000000002.npy', np.full((260, 346), 'far'))
    with pytest.raises(DatasetError, match='expected numbers'):
        open_dense(DenseConfig(str(tmp_path), '', spikes=CONFIG))[0]


def test_a_pickle_is_not_unpickled(tmp_path):
    write_sequence(tmp_path / 'town01')
    path = tmp_path / 'town01/depth/data/depth_0000000002.npy'
    np.save(path, np.array([object()]), allow_pickle=True)
    with pytest.raises(DatasetError, match='depth_0000000002'):
        open_dense(DenseConfig(str(tmp_path), '', spikes=CONFIG))[0]


def test_a_field_of_view_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match='field_of_view_deg'):
        DenseConfig('.', field_of_view_deg=180)


def test_a_recording_has_one_unit_of_time_however_it_begins(tmp_path):
    """In ns, the first file with nothing but two events in the first microsecond."""
    folder = tmp_path / 'train' / 'town01'
    write_sequence(folder, late_files=False)
    np.save(
        folder / 'events/data/events_0000000000.npy', np.array([[5.0, 1, 1, 1], [900, 2, 2, 0]])
    )
    clips = open_dense(DenseConfig(str(tmp_path), spikes=CONFIG))
    assert len(clips) == 3
    ((sample,), *_) = clips
    assert sample.meta['event_count'] > 1000
