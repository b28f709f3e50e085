"""Samples: binning of depth, padding, clips of consecutive windows, the table of data sets."""

import numpy as np
import pytest

from spike_depth_ros.events.arrays import make_events
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.config import SpikeConfig
from spike_depth_ros.events.spikes import pixel_map
from spike_depth_ros.learning.datasets import DATASETS
from spike_depth_ros.learning.datasets.sample import (
    Clips,
    DatasetError,
    bin_depth,
    bin_image,
    grid_meta,
    nearest_stamp,
    spikes_of,
)
from spike_depth_ros.recordings import BagError

NAN, INF = np.nan, np.inf
MS = 1_000_000


class Ramp:
    """A recording of 5x6 pixels: depth map i is i + 1 metres, event i happens at i ms."""

    def __init__(self, stamps_ms, window_ms=10, events_from_ms=0, until_ms=200):
        self.stamps_ns = np.array(stamps_ms, np.int64) * MS
        self.start_ns, self.end_ns = events_from_ms * MS, (until_ms - 1) * MS
        self.config = SpikeConfig(window_ms=window_ms, steps=2, max_width_px=8)
        self.window_ns = self.config.window_ns
        self.pixels = pixel_map(5, 6, self.config)
        t_ns = np.arange(events_from_ms, until_ms) * MS
        self.events = make_events(t_ns, t_ns // MS % 6, 0 * t_ns, 0 * t_ns + 1)

    def spikes(self, t0_ns, t1_ns):
        t_ns = self.events['t_ns']
        inside = self.events[(t_ns >= t0_ns) & (t_ns < t1_ns)]
        pieces = [inside[:3], inside[3:]]
        return spikes_of(pieces, t0_ns, t1_ns, self.config, self.pixels)

    def depth_m(self, index):
        return np.full((5, 6), index + 1, np.float32)

    def image(self, stamp_ns):
        return None

    def meta(self):
        camera = Camera(6, 5, 4.0, 4.0, 2.5, 2.0)
        return grid_meta('ramp', 'a', camera, self.pixels)


def lower_median_by_loops(depth_m, k):
    rows, columns = -(-depth_m.shape[0] // k), -(-depth_m.shape[1] // k)
    out = np.full((rows, columns), np.nan, np.float32)
    for r in range(rows):
        for c in range(columns):
            block = depth_m[r * k : (r + 1) * k, c * k : (c + 1) * k].ravel().tolist()
            known = sorted(v for v in block if v == v)
            if known:
                out[r, c] = known[(len(known) - 1) // 2]
    return out


def test_bin_depth_keeps_a_measured_surface_and_prefers_the_near_one():
    depth_m = np.array([[5, 5, INF, INF, NAN], [50, 50, INF, 7, NAN], [1, NAN, NAN, NAN, 3]])
    binned = bin_depth(depth_m, 2)
    np.testing.assert_array_equal(binned, np.float32([[5, INF, NAN], [1, NAN, 3]]))
    assert binned.dtype == np.float32


@pytest.mark.parametrize('k', [1, 2, 3, 4])
def test_bin_depth_agrees_with_loops(k):
    rng = np.random.default_rng(k)
    depth_m = rng.uniform(1, 90, (13, 17)).astype(np.float32)
    depth_m[rng.random((13, 17)) < 0.4] = NAN
    depth_m[rng.random((13, 17)) < 0.2] = INF
    np.testing.assert_array_equal(bin_depth(depth_m, k), lower_median_by_loops(depth_m, k))


def test_bin_image_averages_blocks():
    image = np.zeros((3, 4, 3), np.uint8)
    image[:2, :2] = [[[0] * 3, [10] * 3], [[20] * 3, [30] * 3]]
    image[2, 2:] = 40
    binned = bin_image(image, 2)
    assert binned.shape == (2, 2, 3)
    assert binned[0, 0, 0] == 15
    assert binned[1, 1, 0] == 40  # a partial block repeats its last row


def test_nearest_stamp():
    stamps = np.array([10, 20, 40])
    assert nearest_stamp(stamps, 21, 2) == 1
    assert nearest_stamp(stamps, 33, 7) == 2
    assert nearest_stamp(stamps, 30, 9) is None
    assert nearest_stamp(stamps, 9, 1) == 0
    assert nearest_stamp(stamps, 99, 10) is None
    assert nearest_stamp(stamps[:0], 9, 1) is None


def test_a_window_ends_at_the_depth_stamp_and_excludes_it():
    clips = Clips([Ramp([50])], clip_windows=1, stride=1)
    ((sample,),) = list(clips)
    assert sample.meta['stamp_ns'] == 50 * MS
    assert sample.meta['event_count'] == 10  # the events of 40..49 ms
    expected = np.zeros((2, 2, 8, 8), np.uint8)
    for ms in range(40, 50):
        expected[(ms - 40) // 5, 1, 0, ms % 6] += 1
    np.testing.assert_array_equal(sample.spikes, expected)
    assert sample.depth_m.shape == (5, 6)
    assert sample.valid.all()
    assert (sample.depth_m == 1).all()


def test_windows_of_a_clip_touch_and_carry_depth_where_there_is_a_map():
    clips = Clips([Ramp([30, 50, 61])], clip_windows=3, stride=1)
    assert len(clips) == 3
    clip = clips[1]
    assert [s.meta['stamp_ns'] // MS for s in clip] == [30, 40, 50]
    assert [s.meta['event_count'] for s in clip] == [10, 10, 10]
    assert [bool(s.valid.any()) for s in clip] == [True, False, True]
    assert [s.depth_m[0, 0] for s in (clip[0], clip[2])] == [1, 2]
    # 61 - 10 = 51 is one ms off the map at 50: within a tenth of a window
    assert [bool(s.valid.any()) for s in clips[2]] == [False, True, True]


def test_clips_leave_out_maps_without_a_past_and_count_over_sequences():
    recordings = [Ramp([5, 12, 40, 50]), Ramp([100, 110], events_from_ms=95), Ramp([60, 70, 80])]
    clips = Clips(recordings, clip_windows=1, stride=2)
    assert [clip[-1].meta['stamp_ns'] // MS for clip in clips] == [12, 50, 110, 60, 80]
    assert clips[-1][0].meta['stamp_ns'] == 80 * MS
    with pytest.raises(IndexError):
        clips[5]


def test_maps_from_after_the_events_are_left_out():
    # the events end at 99 ms: half of the window of 10 ms before the map at 105 would be empty
    clips = Clips([Ramp([95, 100, 105, 150], until_ms=100)], clip_windows=1, stride=1)
    assert [clip[-1].meta['stamp_ns'] // MS for clip in clips] == [95, 100]


def test_no_clip_at_all_is_an_error():
    with pytest.raises(DatasetError, match='9 windows'):
        Clips([Ramp([50])], clip_windows=9, stride=1)
    with pytest.raises(DatasetError, match='clip_windows is 0'):
        Clips([Ramp([50])], clip_windows=0, stride=1)


def test_intrinsics_are_those_of_the_network_grid():
    config = SpikeConfig(max_width_px=352)
    camera = Camera(640, 480, 500.0, 500.0, 319.5, 239.5)
    meta = grid_meta('x', 'y', camera, pixel_map(480, 640, config))
    assert meta['focal_px'] == 250
    assert (meta['cx_px'], meta['cy_px']) == (159.5, 119.5)
    assert meta['sensor'] == '640x480'


@pytest.mark.parametrize('name', [n for n in DATASETS if n != 'synthetic'])
def test_the_table_builds_what_it_says(name, tmp_path):
    entry = DATASETS[name]
    config = entry.config(root=str(tmp_path))
    with pytest.raises((DatasetError, BagError), match=str(tmp_path)):
        entry(config)
    with pytest.raises(TypeError, match=entry.config_name):
        entry(object())
