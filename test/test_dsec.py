"""DSEC: files in the real layout, written here, read by the loader and by loops."""

import multiprocessing
import operator
import tracemalloc
from concurrent.futures import ProcessPoolExecutor

import cv2
import h5py
import hdf5plugin
import numpy as np
import pytest
import yaml

from spike_depth_ros.events.config import SpikeConfig
from spike_depth_ros.learning.datasets.dsec import DsecConfig, open_dsec, read_split
from spike_depth_ros.learning.datasets.sample import DatasetError
from spike_depth_ros.recordings.dsec import DsecFolder, read_dsec_calibration
from spike_depth_ros.recordings.hdf5_events import Hdf5Events
from spike_depth_ros.recordings.source import BagError

HEIGHT, WIDTH = 48, 64
OFFSET_US = 49_599_300_523  # of interlaken_00_c's size
STAMPS_US = OFFSET_US + np.array([100, 100_123, 200_250, 300_377])
FX, BASELINE_M = 60.0, 0.6
EVENT_K = (FX, FX, 31.0, 24.5)
COLOUR_K = (130.0, 130.0, 70.0, 55.0)
CONFIG = SpikeConfig(window_ms=50, steps=4, max_width_px=64)


def rotation(axis, degrees):
    return cv2.Rodrigues(np.radians(degrees) * np.array(axis, float))[0]


R_RECT0, R_RECT1 = rotation([0, 1, 0], 2), rotation([1, 0, 0], -1)
R_10 = rotation([0, 0, 1], 1.5)


def calibration():
    t_10 = np.eye(4)
    t_10[:3, :3], t_10[:3, 3] = R_10, (-0.05, 0, 0)
    q = [[1, 0, 0, -31.0], [0, 1, 0, -24.5], [0, 0, 0, FX], [0, 0, 1 / BASELINE_M, 0]]
    return {
        'intrinsics': {
            'camRect0': {'camera_matrix': list(EVENT_K), 'resolution': [WIDTH, HEIGHT]},
            'camRect1': {'camera_matrix': list(COLOUR_K), 'resolution': [144, 108]},
        },
        'extrinsics': {
            'T_10': t_10.tolist(),
            'R_rect0': R_RECT0.tolist(),
            'R_rect1': R_RECT1.tolist(),
        },
        'disparity_to_depth': {'cams_03': q},
    }


def columns_of(seed=0, count=40_000, duration_us=400_000):
    rng = np.random.default_rng(seed)
    return {
        't': np.sort(rng.integers(0, duration_us, count)).astype(np.uint32),
        'x': rng.integers(0, WIDTH, count).astype(np.uint16),
        'y': rng.integers(0, HEIGHT, count).astype(np.uint16),
        'p': rng.integers(0, 2, count).astype(np.uint8),
    }


def write_events(path, columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    blosc = hdf5plugin.Blosc(cname='zstd', clevel=1, shuffle=hdf5plugin.Blosc.SHUFFLE)
    last_ms = int(columns['t'][-1]) // 1000
    with h5py.File(path, 'w') as file:
        for name, column in columns.items():
            file.create_dataset(f'events/{name}', data=column, chunks=(1024,), **blosc)
        index = [np.searchsorted(columns['t'], ms * 1000) for ms in range(last_ms + 1)]
        file['ms_to_idx'] = np.array(index, np.uint64)
        file['t_offset'] = np.int64(OFFSET_US)


def rectify_map():
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    return np.stack([x + 3.2 - 0.05 * y, y - 1.4 + 0.03 * x], axis=-1)


def write_sequence(folder, seed=0):
    columns = columns_of(seed)
    write_events(folder / 'events' / 'left' / 'events.h5', columns)
    with h5py.File(folder / 'events' / 'left' / 'rectify_map.h5', 'w') as file:
        file['rectify_map'] = rectify_map()
    rng = np.random.default_rng(seed)
    (folder / 'disparity' / 'event').mkdir(parents=True)
    disparities = rng.integers(0, 4000, (len(STAMPS_US), HEIGHT, WIDTH)).astype(np.uint16)
    disparities[:, 5] = 0
    for k, disparity in enumerate(disparities):
        cv2.imwrite(str(folder / 'disparity' / 'event' / f'{2 * k:06d}.png'), disparity)
    np.savetxt(folder / 'disparity' / 'timestamps.txt', STAMPS_US, '%d')
    images = folder / 'images' / 'left' / 'rectified'
    images.mkdir(parents=True)
    for k in range(7):
        cv2.imwrite(str(images / f'{k:06d}.png'), colour_image(k))
    stamps = np.linspace(STAMPS_US[0], STAMPS_US[-1], 7).astype(np.int64)
    np.savetxt(folder / 'images' / 'timestamps.txt', stamps, '%d')
    (folder / 'calibration').mkdir()
    (folder / 'calibration' / 'cam_to_cam.yaml').write_text(yaml.safe_dump(calibration()))
    return columns, disparities


def colour_image(index):
    """A blue-green-red picture (as cv2 writes it) whose red tells the index."""
    image = np.zeros((108, 144, 3), np.uint8)
    image[..., 2] = 20 * index
    cv2.circle(image, (80, 50), 3, (255, 0, 0), -1)  # a blue spot
    return image


def spikes_by_loops(columns, t1_us, steps, k=1):
    """Dumb: every event of the file, one after the other."""
    grid = np.zeros((steps, 2, -(-HEIGHT // k // 8) * 8, -(-WIDTH // k // 8) * 8), np.int64)
    xy = rectify_map()
    count = 0
    for t, x, y, p in zip(*(columns[c].tolist() for c in 'txyp'), strict=True):
        since_us = t + OFFSET_US - (t1_us - 50_000)
        if not 0 <= since_us < 50_000:
            continue
        count += 1
        column, row = (int(np.floor((v + 0.5) / k)) for v in xy[y, x].astype(float))
        if 0 <= column < WIDTH // k and 0 <= row < HEIGHT // k:
            grid[since_us * steps // 50_000, p, row, column] += 1
    return grid, count


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('dsec')
    write_sequence(root / 'train' / 'zurich_city_09_a', 0)
    write_sequence(root / 'train' / 'interlaken_00_c', 1)
    return root


def test_samples_agree_with_a_dumb_reader(root):
    clips = open_dsec(DsecConfig(str(root), 'found', spikes=CONFIG))
    assert len(clips) == 6  # 2 sequences, the first of 4 maps dropped
    columns = columns_of(1)  # interlaken comes first in the alphabet
    for k in range(3):
        (sample,) = clips[k]
        spikes, count = spikes_by_loops(columns, int(STAMPS_US[k + 1]), 4)
        np.testing.assert_array_equal(sample.spikes, spikes)
        assert sample.spikes.dtype == np.uint8
        assert sample.meta['event_count'] == count
        assert sample.meta['stamp_ns'] == STAMPS_US[k + 1] * 1000
        assert sample.meta['sequence'] == 'interlaken_00_c'
        assert sample.meta['night'] is False
        assert (sample.meta['focal_px'], sample.meta['sensor']) == (FX, '64x48')
    assert clips[3][0].meta['night'] is True
    assert clips[0][0].image is None


def test_disparity_becomes_metres(root):
    raw = cv2.imread(str(root / 'train/interlaken_00_c/disparity/event/000004.png'), -1)
    (sample,) = open_dsec(DsecConfig(str(root), 'found', spikes=CONFIG))[1]
    for row, column in [(0, 0), (5, 9), (30, 33), (47, 63)]:
        disparity_px = raw[row, column] / 256
        metres = FX * BASELINE_M / disparity_px if disparity_px else np.nan
        np.testing.assert_allclose(sample.depth_m[row, column], metres, rtol=1e-6)
    np.testing.assert_array_equal(sample.valid, raw > 0)
    assert not sample.valid[5].any()


def test_binning_bins_events_depth_and_camera(root):
    config = SpikeConfig(window_ms=50, steps=4, max_width_px=32)
    (sample,) = open_dsec(DsecConfig(str(root), 'found', spikes=config))[0]
    spikes, _ = spikes_by_loops(columns_of(1), int(STAMPS_US[1]), 4, k=2)
    np.testing.assert_array_equal(sample.spikes, spikes)
    assert sample.depth_m.shape == (24, 32)
    assert sample.meta['focal_px'] == FX / 2


def test_clips_are_contiguous(root):
    config = SpikeConfig(window_ms=50, steps=2, max_width_px=64)
    clips = open_dsec(DsecConfig(str(root), 'found', clip_windows=3, spikes=config))
    assert len(clips) == 4  # the map at 100 ms has no 150 ms before it
    clip = clips[0]
    ends = [s.meta['stamp_ns'] for s in clip]
    assert np.diff(ends).tolist() == [50_000_000] * 2
    assert ends[-1] == STAMPS_US[2] * 1000
    assert [bool(s.valid.any()) for s in clip] == [True, False, True]  # maps every 100 ms


def test_the_image_is_what_the_event_camera_would_see(root):
    clips = open_dsec(DsecConfig(str(root), 'found', images=True, spikes=CONFIG))
    (sample,) = clips[1]
    assert sample.image.shape == (HEIGHT, WIDTH, 3)
    # image 4 of 0..6 is the one at two thirds of the time
    assert abs(int(np.median(sample.image[..., 0])) - 80) <= 1
    # the blue spot: its ray in colour's rectified view, turned into the event view step by step
    fx, fy, cx, cy = COLOUR_K
    ray = np.array([(80 - cx) / fx, (50 - cy) / fy, 1])
    ray = R_RECT0 @ (R_10.T @ (R_RECT1.T @ ray))
    column = EVENT_K[0] * ray[0] / ray[2] + EVENT_K[2]
    row = EVENT_K[1] * ray[1] / ray[2] + EVENT_K[3]
    rows, columns = np.nonzero(sample.image[..., 2] > 128)
    assert abs(columns.mean() - column) < 0.35
    assert abs(rows.mean() - row) < 0.35


def test_a_process_of_its_own_reads_the_same_clips(root):
    """As the workers of a loader do, which get the open data set."""
    clips = open_dsec(DsecConfig(str(root), 'found', spikes=CONFIG))
    before = clips[0]
    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
        again = pool.submit(operator.getitem, clips, 0).result()
    np.testing.assert_array_equal(again[0].spikes, before[0].spikes)


def test_reading_a_billion_events_takes_no_memory(tmp_path):
    """Only two chunks of the columns exist; all before them is a hole in the file."""
    total, first, count = 1_000_000_000, 999_000_000, 20_000
    path = tmp_path / 'events.h5'
    with h5py.File(path, 'w') as file:
        for name, dtype in (('t', 'u4'), ('x', 'u2'), ('y', 'u2'), ('p', 'u1')):
            column = file.create_dataset(f'events/{name}', (total,), dtype, chunks=(1 << 16,))
            column[first : first + count] = np.arange(count) if name == 't' else 1
            if name == 't':
                column[first : first + count] += 60_000_000
        index = file.create_dataset('ms_to_idx', (60_021,), 'u8')
        index[60_000:] = first + 1000 * np.arange(21)
        file['t_offset'] = OFFSET_US
    events = Hdf5Events(path)
    t0_ns = (OFFSET_US + 60_002_500) * 1000
    tracemalloc.start()
    (piece,) = events.pieces(t0_ns, t0_ns + 5_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(piece['t_ns'], t0_ns + 1000 * np.arange(5000))
    assert peak < 2_000_000


def test_time_that_steps_back_loses_no_event(tmp_path):
    columns = columns_of(5, 2000, 20_000)
    t = columns['t'].astype(np.int64)
    path = tmp_path / 'events.h5'
    write_events(path, columns)
    swapped = np.flatnonzero(np.diff(t // 1000) > 0)[:8]  # pairs that straddle a millisecond
    with h5py.File(path, 'r+') as file:
        for k in swapped:
            for name in 'txyp':
                file[f'events/{name}'][k], file[f'events/{name}'][k + 1] = (
                    columns[name][k + 1],
                    columns[name][k],
                )
    offset_ns = OFFSET_US * 1000
    events = Hdf5Events(path)
    for ms in range(2, 12):
        pieces = list(events.pieces(offset_ns, offset_ns + ms * 1_000_000))
        assert sum(map(len, pieces)) == np.count_nonzero(t < ms * 1000)


def test_windows_before_and_after_the_events_are_empty(root):
    events = DsecFolder(root / 'train/interlaken_00_c').events
    before, after = OFFSET_US * 1000 - 10**9, OFFSET_US * 1000 + 10**9
    assert sum(map(len, events.pieces(before, before + 10**8))) == 0
    assert sum(map(len, events.pieces(after, after + 10**8))) == 0
    assert sum(map(len, events.pieces(before, after))) == 40_000


def test_splits_are_those_of_dsec():
    everything = set(read_split('all_41'))
    assert len(everything) == len(read_split('all_41')) == 41
    for train, held_out, sizes in (
        ('train_29', 'evaluation_12', (29, 12)),
        ('train_31', 'validation_10', (31, 10)),
    ):
        a, b = set(read_split(train)), set(read_split(held_out))
        assert (len(a), len(b)) == sizes
        assert a | b == everything
        assert not a & b
    assert len(read_split('test_12')) == 12
    assert not set(read_split('test_12')) & everything
    assert set(read_split('night')) < everything


def test_a_split_may_be_a_file(tmp_path):
    (tmp_path / 'mine.txt').write_text('a_1 # good\n\n# no\nb_2\n')
    assert read_split(str(tmp_path / 'mine.txt')) == ('a_1', 'b_2')
    with pytest.raises(DatasetError, match='train_29'):
        read_split('nowhere')


@pytest.mark.parametrize(
    ('file', 'archive'),
    [
        ('events/left/events.h5', 'train_events.zip'),
        ('events/left/rectify_map.h5', 'train_events.zip'),
        ('disparity/event/000002.png', 'train_disparity.zip'),
        ('disparity/timestamps.txt', 'train_disparity.zip'),
        ('calibration/cam_to_cam.yaml', 'train_calibration.zip'),
        ('images/left/rectified/000002.png', 'train_images.zip'),
    ],
)
@pytest.mark.parametrize('damage', ['missing', 'cut'])
def test_what_is_missing_or_damaged_is_named(tmp_path, file, archive, damage):
    folder = tmp_path / 'thun_00_a'
    write_sequence(folder)
    path = folder / file
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2]) if damage == 'cut' else path.unlink()
    (tmp_path / 'split.txt').write_text('thun_00_a\n')
    split = str(tmp_path / 'split.txt')
    with pytest.raises(BagError, match=archive) as caught:
        open_dsec(DsecConfig(str(tmp_path), split, images=True, spikes=CONFIG))[0]
    assert str(path.parent) in str(caught.value)


def test_an_index_that_lies_is_caught(tmp_path):
    write_sequence(tmp_path / 'a')
    with h5py.File(tmp_path / 'a/events/left/events.h5', 'r+') as file:
        file['ms_to_idx'][...] = np.sort(np.arange(len(file['ms_to_idx'])))
    with pytest.raises(BagError, match='ms_to_idx'):
        open_dsec(DsecConfig(str(tmp_path), 'found', spikes=CONFIG))[0]


@pytest.mark.parametrize('index', [[], [0] * 400])
def test_an_index_that_was_never_filled_is_caught(tmp_path, index):
    write_sequence(tmp_path / 'a')
    with h5py.File(tmp_path / 'a/events/left/events.h5', 'r+') as file:
        del file['ms_to_idx']
        file['ms_to_idx'] = np.array(index, np.uint64)
    with pytest.raises(BagError, match='ms_to_idx'):
        open_dsec(DsecConfig(str(tmp_path), 'found', spikes=CONFIG))[0]


@pytest.mark.parametrize('column', ['x', 'y', 'p'])
def test_columns_that_end_early_are_caught(tmp_path, column):
    write_sequence(tmp_path / 'a')
    with h5py.File(tmp_path / 'a/events/left/events.h5', 'r+') as file:
        kept = file[f'events/{column}'][:100]
        del file[f'events/{column}']
        file[f'events/{column}'] = kept
    with pytest.raises(BagError, match=rf'differ in length.*events/{column}.: 100.*train_events'):
        open_dsec(DsecConfig(str(tmp_path), 'found', spikes=CONFIG))[0]


def test_groups_in_the_place_of_numbers_are_caught(tmp_path):
    write_sequence(tmp_path / 'a')
    with h5py.File(tmp_path / 'a/events/left/events.h5', 'r+') as file:
        del file['t_offset']
        file.create_group('t_offset')
    with pytest.raises(BagError, match="no data set 't_offset'"):
        open_dsec(DsecConfig(str(tmp_path), 'found', spikes=CONFIG))[0]


def test_events_off_the_sensor_are_named(tmp_path):
    write_sequence(tmp_path / 'a')
    with h5py.File(tmp_path / 'a/events/left/events.h5', 'r+') as file:
        file['events/x'][...] = 640
    with pytest.raises(BagError, match=r'outside the sensor.*train_events'):
        open_dsec(DsecConfig(str(tmp_path), 'found', spikes=CONFIG))[0]


@pytest.mark.parametrize(
    ('part', 'value'), [('disparity_to_depth', {}), ('intrinsics', None), ('extrinsics', [1])]
)
def test_an_incomplete_calibration_is_named(tmp_path, part, value):
    path = tmp_path / 'a' / 'calibration' / 'cam_to_cam.yaml'
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(calibration() | {part: value}))
    with pytest.raises(BagError, match='cam_to_cam'):
        read_dsec_calibration(path, 'get it')
