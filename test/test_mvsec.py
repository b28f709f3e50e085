"""MVSEC: HDF5 files in the real layout, written here, read again by loops."""

import h5py
import numpy as np
import pytest
import yaml

from spike_depth_ros.events.config import SpikeConfig
from spike_depth_ros.learning.datasets.mvsec import MvsecConfig, open_mvsec
from spike_depth_ros.recordings.mvsec import read_mvsec_calibration
from spike_depth_ros.recordings.source import BagError

HEIGHT, WIDTH = 260, 346
START_S = 1_506_117_900.0  # as on the day: float64 seconds of UNIX time
K = (226.38, 226.15, 173.65, 133.73)
D = (-0.0482, 0.0113, -0.0555, 0.0215)
P = [[199.09, 0, 177.44, 0], [0, 199.09, 126.81, 0], [0, 0, 1, 0]]
YAW = 0.01
R = [[np.cos(YAW), 0, np.sin(YAW)], [0, 1, 0], [-np.sin(YAW), 0, np.cos(YAW)]]
STAMPS_S = START_S + np.array([0.02, 0.07, 0.12, 0.17])
CONFIG = SpikeConfig(window_ms=50, steps=5)
NAME = 'outdoor_day2'


def calibration():
    left = {'intrinsics': list(K), 'distortion_coeffs': list(D), 'resolution': [WIDTH, HEIGHT],
            'projection_matrix': P, 'rectification_matrix': np.array(R).tolist()}  # fmt: skip
    return {'cam0': left}


def table(count=3000):
    rng = np.random.default_rng(0)
    us = np.sort(rng.choice(200_000, count, replace=False))
    x, y = rng.integers(0, WIDTH, count), rng.integers(0, HEIGHT, count)
    return np.column_stack([x, y, START_S + us * 1e-6, rng.choice([-1, 1], count)]).astype(float)


def depth_of(index):
    depth = np.full((HEIGHT, WIDTH), 5.0 + index, np.float32)
    depth[:50] = np.nan
    depth[60, 7] = 0
    return depth


def write_recording(folder, name=NAME):
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / f'{name}_data.hdf5', 'w') as file:
        file['davis/left/events'] = table()
        images = np.arange(10, dtype=np.uint8)[:, None, None] + np.zeros((1, HEIGHT, WIDTH))
        file['davis/left/image_raw'] = (images * 20).astype(np.uint8)
        file['davis/left/image_raw_ts'] = START_S + 0.02 * np.arange(10)
    with h5py.File(folder / f'{name}_gt.hdf5', 'w') as file:
        file['davis/left/depth_image_rect'] = np.stack([depth_of(k) for k in range(4)])
        file['davis/left/depth_image_rect_ts'] = STAMPS_S
    scene = name.rstrip('0123456789')
    (folder / f'camchain-imucam-{scene}.yaml').write_text(yaml.safe_dump(calibration()))


def rectified(x, y):
    """Where a raw pixel lies: invert the equidistant model by fixed-point iteration."""
    mx, my = (x - K[2]) / K[0], (y - K[3]) / K[1]
    bent = np.hypot(mx, my)
    theta = bent
    for _ in range(50):
        t2 = theta * theta
        theta = bent / (1 + D[0] * t2 + D[1] * t2**2 + D[2] * t2**3 + D[3] * t2**4)
    stretch = np.tan(theta) / bent if bent > 1e-12 else 1.0
    ray = np.array(R) @ [mx * stretch, my * stretch, 1]
    u = np.array(P)[:, :3] @ (ray / ray[2])
    return u[0], u[1]


def spikes_by_loops(t1_s, steps=5):
    grid = np.zeros((steps, 2, 264, 352), np.int64)
    count = 0
    t0_ns = round(t1_s * 1e6) * 1000 - 50_000_000
    for x, y, t, p in table().tolist():
        since_ns = round(t * 1e6) * 1000 - t0_ns
        if not 0 <= since_ns < 50_000_000:
            continue
        count += 1
        column, row = (int(np.floor(v + 0.5)) for v in rectified(x, y))
        if 0 <= column < WIDTH and 0 <= row < HEIGHT:
            grid[since_ns * steps // 50_000_000, int(p > 0), row, column] += 1
    return grid, count


def test_samples_agree_with_a_dumb_reader(tmp_path):
    write_recording(tmp_path / 'outdoor_day')
    clips = open_mvsec(MvsecConfig(str(tmp_path), images=True, spikes=CONFIG))
    assert len(clips) == 3
    for k, (sample,) in enumerate(clips, start=1):
        spikes, count = spikes_by_loops(STAMPS_S[k])
        assert sample.meta['event_count'] == count > 0
        np.testing.assert_array_equal(sample.spikes, spikes)
        assert sample.depth_m[100, 100] == 5 + k
        assert sample.valid.sum() == 210 * WIDTH - 1
        assert np.isnan(sample.depth_m[60, 7])
        assert sample.meta['focal_px'] == 199.09
        assert sample.meta['night'] is False
    assert sample.image.shape == (HEIGHT, WIDTH, 3)
    # 170 ms lies between the images at 160 and 180 ms
    assert np.median(sample.image) in (160, 180)


def test_night_and_a_flat_folder(tmp_path):
    write_recording(tmp_path, 'outdoor_night1')
    clips = open_mvsec(MvsecConfig(str(tmp_path), 'outdoor_night1', 2, spikes=CONFIG))
    assert len(clips) == 2
    clip = clips[0]
    assert [s.meta['night'] for s in clip] == [True, True]
    assert [s.depth_m[100, 100] for s in clip] == [6, 7]  # 20 Hz: a map at each window's end


@pytest.mark.parametrize('file', ['outdoor_day2_data.hdf5', 'outdoor_day2_gt.hdf5',
                                  'camchain-imucam-outdoor_day.yaml'])  # fmt: skip
@pytest.mark.parametrize('damage', ['missing', 'cut'])
def test_what_is_missing_or_damaged_is_named(tmp_path, file, damage):
    write_recording(tmp_path)
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[:100]) if damage == 'cut' else path.unlink()
    with pytest.raises(BagError, match=file) as caught:
        open_mvsec(MvsecConfig(str(tmp_path), spikes=CONFIG))[0]
    assert 'mvsec/download' in str(caught.value)


def test_a_table_that_is_missing_is_named(tmp_path):
    write_recording(tmp_path)
    with h5py.File(tmp_path / f'{NAME}_gt.hdf5', 'r+') as file:
        del file['davis/left/depth_image_rect']
    with pytest.raises(BagError, match='depth_image_rect'):
        open_mvsec(MvsecConfig(str(tmp_path), spikes=CONFIG))[0]


@pytest.mark.parametrize(('file', 'table'), [('gt', 'depth_image_rect'), ('data', 'events')])
def test_tables_of_another_shape_are_named(tmp_path, file, table):
    write_recording(tmp_path)
    with h5py.File(tmp_path / f'{NAME}_{file}.hdf5', 'r+') as opened:
        old = opened[f'davis/left/{table}'][...]
        del opened[f'davis/left/{table}']
        opened[f'davis/left/{table}'] = old[..., :3] if table == 'events' else old[:, :100, :100]
    with pytest.raises(BagError, match=r'shape \('):
        open_mvsec(MvsecConfig(str(tmp_path), spikes=CONFIG))[0]


def test_events_off_the_sensor_are_named(tmp_path):
    write_recording(tmp_path)
    with h5py.File(tmp_path / f'{NAME}_data.hdf5', 'r+') as file:
        file['davis/left/events'][500, 0] = 346
    with pytest.raises(BagError, match='outside the sensor'):
        list(open_mvsec(MvsecConfig(str(tmp_path), spikes=CONFIG)))


def test_rectifying_the_image_and_the_events_agree(tmp_path):
    write_recording(tmp_path)
    cameras = read_mvsec_calibration(tmp_path / 'camchain-imucam-outdoor_day.yaml')
    raw = np.zeros((HEIGHT, WIDTH), np.uint8)
    raw[98:103, 248:253] = 255
    rows, columns = np.nonzero(cameras.rectify(raw) > 127)
    column, row = rectified(250, 100)
    assert abs(columns.mean() - column) < 0.3
    assert abs(rows.mean() - row) < 0.3
    np.testing.assert_allclose(cameras.rectified_xy()[100, 250], (column, row), atol=1e-4)
