"""Files of cameras and data sets: read and written, against dumber readers."""

import h5py
import hdf5plugin  # noqa: F401 - registers Blosc with HDF5
import numpy as np
import pytest
from recordings import (
    RAW,
    H,
    W,
    as_table,
    dumb_events,
    dumb_packet,
    events_in,
    events_of,
    evt3_words,
    read_all,
    some_events,
    write_m3ed,
    write_mvsec,
    young,
)

from spike_depth_ros.recordings import (
    BagError,
    EventsH5Writer,
    convert_to,
    open_recording,
    open_source,
)


def test_h5_is_as_dsec_has_it(tmp_path):
    events = some_events(5000)
    with EventsH5Writer(tmp_path / 'events.h5', H, W) as file:
        for piece in np.array_split(events, 9):
            file.add(piece)
    with h5py.File(tmp_path / 'events.h5') as file:
        offset_us, t = int(file['t_offset'][()]), file['events/t'][:]
        assert (file['events/t'].dtype, file['events/x'].dtype) == (np.uint32, np.uint16)
        np.testing.assert_array_equal((offset_us + t.astype(np.int64)) * 1000, events['t_ns'])
        for name in 'pxy':
            np.testing.assert_array_equal(file[f'events/{name}'], events[name])
        index = file['ms_to_idx'][:].astype(int).tolist()
        filters = file['events/t'].id.get_create_plist().get_filter(0)
    assert filters[0] == 32001, 'Blosc'
    assert len(index) == t[-1] // 1000 + 2
    for ms, first in enumerate(index):
        assert first == len(t) or t[first] >= ms * 1000
        assert first == 0 or t[first - 1] < ms * 1000
    assert index[-1] == len(t)


def test_h5_leaves_out_wrong_times(tmp_path):
    events = events_of([5_000_000, 5_000_100, 5_000_050, 1_000_000, 5_000_200, 10**12, 5_000_201])
    with EventsH5Writer(tmp_path / 'events.h5', H, W) as file:
        file.add(events)
    assert (file.count, file.dropped) == (5, 2)
    np.testing.assert_array_equal(events_in(tmp_path / 'events.h5'), events[[0, 1, 2, 4, 6]])


def test_h5_ends_where_its_times_do(tmp_path):
    with (
        pytest.raises(BagError, match=r'71 min.*reaches 72 min'),
        EventsH5Writer(tmp_path / 'long.h5', H, W) as file,
    ):
        file.add(events_of([0, 72 * 60_000_000, 72 * 60_000_000]))
    assert not (tmp_path / 'long.h5').exists()


@pytest.mark.parametrize('stale', [30, 600_000])  # in memory yet, and written already
def test_h5_drops_what_an_earlier_run_left(tmp_path, stale):
    events = np.concatenate(
        [events_of(10**9 + np.arange(stale)), some_events(2000), events_of([-1, 50_000_000])]
    )
    with EventsH5Writer(tmp_path / 'events.h5', H, W) as file:
        for piece in np.array_split(events, 7):
            file.add(piece)
    assert (file.count, file.dropped) == (2001, stale + 1)
    np.testing.assert_array_equal(events_in(tmp_path / 'events.h5'), events[stale:-1])


def test_h5_drops_what_comes_before_a_long_recording(tmp_path):
    long, earlier = events_of(np.arange(0, 2_000_000, 1000)), events_of(-(10**9) + np.arange(100))
    with EventsH5Writer(tmp_path / 'events.h5', H, W) as file:
        file.add(long)
        file.add(earlier)
    assert (file.count, file.dropped) == (2000, 100)
    np.testing.assert_array_equal(events_in(tmp_path / 'events.h5'), long)


@pytest.mark.parametrize('header', RAW)
def test_raw_files(tmp_path, header):
    events = young(some_events(4000))
    (tmp_path / 'a.raw').write_bytes(header.encode() + RAW[header](events))
    np.testing.assert_array_equal(events_in(tmp_path / 'a.raw'), events)
    with open_source(tmp_path / 'a.raw') as source:
        assert source.geometry == (H, W)
        messages = list(source.messages())
        assert source.progress() == 1
        stamps = [m.stamp_ns for m in messages]
        late = list(source.messages(None, 5_000_000))
    assert stamps == sorted(stamps)
    assert stamps[0] == 3_000_000_000 // 4_096_000 * 4_096_000
    assert [m.stamp_ns for m in late] == [s for s in stamps if s >= stamps[0] + 5_000_000]
    assert late[0].cdr == messages[2].cdr


def test_raw_words_are_untouched_and_wraps_counted(tmp_path, monkeypatch):
    monkeypatch.setattr('spike_depth_ros.recordings.raw_file.READ_BYTES', 1002)
    times_us = np.concatenate([np.arange(0, 40_000_000, 9_001), [40_000_000 - 5]])
    events = young(events_of(times_us))
    words = evt3_words(events)
    (tmp_path / 'a.raw').write_bytes(b'% format EVT3;height=12;width=40\n% end\n' + words + b'\0')
    with open_source(tmp_path / 'a.raw') as source:
        packets = [dumb_packet(bytes(m.cdr)) for m in source.messages()]
    assert b''.join(payload for _, _, payload in packets) == words
    assert sorted({base for base, _, _ in packets}) == [0, 2**24 * 1000, 2**25 * 1000]
    np.testing.assert_array_equal(events_in(tmp_path / 'a.raw'), events)


def test_a_raw_clock_that_falters_keeps_its_messages_in_order(tmp_path):
    highs = [100, 101, 102, 101, 102, 103, 104]
    words = [(0x8000 | high, 0x6001, 0x0003, 0x2005) for high in highs]
    data = np.array(words, '<u2').tobytes()
    (tmp_path / 'a.raw').write_bytes(b'% format EVT3;height=12;width=40\n% end\n' + data)
    with open_source(tmp_path / 'a.raw') as source:
        stamps = [m.stamp_ns for m in source.messages()]
    assert stamps == [4_096_000 * slot for slot in (100, 101, 102, 102, 102, 103, 104)]


@pytest.mark.parametrize(
    ('header', 'sentence'),
    [
        ('% format EVT5;height=12;width=40\n', "format is 'EVT5;height=12;width=40'"),
        ('% date 2020\n', "format is 'not stated'"),
        ('% evt 3.0\n', 'does not state the size'),
        ('% format EVT3;height=0;width=0\n', 'does not state the size'),
        ('% format EVT3;endianness=big;height=12;width=40\n', 'big-endian'),
        ('no header\n', 'does not start with the header'),
    ],
)
def test_raw_headers_refused(tmp_path, header, sentence):
    (tmp_path / 'a.raw').write_text(header)
    with pytest.raises(BagError, match=sentence):
        open_source(tmp_path / 'a.raw')


@pytest.mark.parametrize('header', RAW)
def test_raw_of_noise_is_read_to_its_end(tmp_path, header):
    noise = np.random.default_rng(3).integers(0, 256, 100_003, np.uint8).tobytes()
    (tmp_path / 'a.raw').write_bytes(header.encode() + noise)
    with open_source(tmp_path / 'a.raw') as source:
        packets = [dumb_packet(bytes(m.cdr))[2] for m in source.messages()]
    size = len(noise) // 8 * 8
    by_sensor = 'sensor_generation 4' in header and 'endianness' not in header
    if not ('legacy' in header or by_sensor):  # whose halves are exchanged
        assert b''.join(packets)[:size] == noise[:size]
    assert len(b''.join(packets)) >= size


def test_raw_without_events(tmp_path):
    (tmp_path / 'a.raw').write_text('% evt 3.0\n% sensor_generation 4.2\n% end\n')
    with open_source(tmp_path / 'a.raw') as source:
        assert source.geometry == (720, 1280)
        assert list(source.messages()) == []


@pytest.mark.parametrize('encoding', ['evt3', 'mono'])
@pytest.mark.parametrize(
    ('kind', 'write', 'geometry'),
    [('m3ed', write_m3ed, (H, W)), ('mvsec', write_mvsec, (260, 346))],
)
def test_data_sets(tmp_path, kind, write, geometry, encoding):  # fmt: skip
    events = some_events(3000)
    write(tmp_path / 'a.h5', events)
    np.testing.assert_array_equal(events_in(tmp_path / 'a.h5', encoding=encoding), events)
    with open_source(tmp_path / 'a.h5', encoding=encoding) as source:
        assert (source.kind, source.geometry) == (kind, geometry)
        packets = [dumb_packet(bytes(m.cdr)) for m in source.messages(None, 2_000_000, 3_000_000)]
    assert {e for _, e, _ in packets} == {encoding}
    begin = events['t_ns'][0] + 2_000_000
    within = (events['t_ns'] >= begin) & (events['t_ns'] < begin + 3_000_000)
    assert 100 < within.sum() < 3000
    with open_source(tmp_path / 'a.h5', encoding=encoding) as source:
        cdrs = [bytes(m.cdr) for m in source.messages(None, 2_000_000, 3_000_000)]
    np.testing.assert_array_equal(dumb_events(cdrs), as_table(events[within]))


def test_h5_of_another_sensor(tmp_path):
    with EventsH5Writer(tmp_path / 'events.h5', 5, 40) as file:
        file.add(some_events())
    with pytest.raises(BagError, match=r'outside the sensor.*y from 0 to 11, .* 0 to 4 of 40x5'):
        events_in(tmp_path / 'events.h5')


def test_h5_of_unknown_layout(tmp_path):
    with h5py.File(tmp_path / 'a.h5', 'w') as file:
        file['frames'] = [1]
    with pytest.raises(BagError, match=r'no events that are recognised. It has frames int64'):
        open_source(tmp_path / 'a.h5')
    with h5py.File(tmp_path / 'b.h5', 'w') as file:
        file['events/t'] = [1]
    with pytest.raises(BagError, match=r'no events that are recognised. It has events/t'):
        open_source(tmp_path / 'b.h5')
    with h5py.File(tmp_path / 'c.h5', 'w') as file:
        for name, size in zip('ptxy', (1, 2, 2, 2), strict=True):
            file[f'events/{name}'] = np.zeros(size, np.uint16)
        file['events'].attrs['height'], file['events'].attrs['width'] = 4, 4
    with pytest.raises(BagError, match='differ in length'):
        open_source(tmp_path / 'c.h5')


def test_m3ed_with_depth_and_poses(tmp_path):
    """Depth is in the raw view of the events; a pose takes points of the camera to its first."""
    events = some_events(3000)
    write_m3ed(tmp_path / 'car_data.h5', events)
    start_us = int(events['t_ns'][0]) // 1000
    depth = np.full((2, H, W), np.inf, np.float32)
    depth[1, 3, 4] = 7.5
    moved = np.eye(4)
    moved[:3, 3] = (1, 2, 3)  # takes points of the first camera to the second
    with h5py.File(tmp_path / 'car_depth_gt.h5', 'w') as file:
        file['depth/prophesee/left'] = depth
        file['ts'] = np.array([start_us + 2000, start_us + 5000], np.float64)
        file['Cn_T_C0'] = np.stack([np.eye(4), moved])
    convert_to_bag = tmp_path / 'bag'
    with open_source(tmp_path / 'car_data.h5') as source:
        assert convert_to(source, convert_to_bag).dropped == {}
    found = read_all(convert_to_bag)
    maps = found['/ground_truth/depth']
    assert [stamp for stamp, _ in maps] == [(start_us + 2000) * 1000, (start_us + 5000) * 1000]
    second = maps[1][1].data.view('<f4').reshape(H, W)
    assert (second[3, 4], np.isnan(second).sum()) == (7.5, H * W - 1)
    assert maps[1][1].header.frame_id == found['/event_camera/events'][0][1].header.frame_id
    assert found['/ground_truth/camera_info'][0][1].k[0] == 30.0
    position = found['/tf'][1][1].transforms[0].transform.translation
    assert (position.x, position.y, position.z) == (-1, -2, -3)


def test_the_motion_of_the_camera_follows_from_its_poses(tmp_path):
    """A camera that drives 2 m/s forward in a curve of 0.3 rad/s, with a pause of the poses."""
    events = some_events(3000)
    write_m3ed(tmp_path / 'car_data.h5', events)
    start_us = int(events['t_ns'][0]) // 1000
    times_s = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 3.0, 3.1])
    poses = []
    for angle in 0.3 * times_s:  # a left turn is about -y: the circle's centre is at x = -v / w
        cos, sin = np.cos(angle), np.sin(angle)
        pose = np.eye(4)
        pose[:3, :3] = [[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]]
        pose[:3, 3] = (-2.0 / 0.3 * (1 - cos), 0, 2.0 / 0.3 * sin)
        poses.append(np.linalg.inv(pose))
    poses[1][0, 3] = np.nan
    with h5py.File(tmp_path / 'car_depth_gt.h5', 'w') as file:
        file['ts'] = start_us + 1e6 * times_s
        file['Cn_T_C0'] = np.stack(poses)
    with open_recording(tmp_path / 'car_data.h5') as recording:
        found = list(recording.messages('/odom'))
    stamps_us = [m.header.stamp.sec * 10**6 + m.header.stamp.nanosec // 1000 for m in found]
    assert np.array(stamps_us) - start_us == pytest.approx(
        [0, 100_000, 200_000, 300_000, 3_100_000]
    )
    linear = np.array([[m.twist.twist.linear.x, m.twist.twist.linear.z] for m in found])
    assert np.isnan(linear[:3]).all()  # beside the pose that is not finite
    assert linear[3] == pytest.approx([0, 2.0], abs=1e-3)
    assert found[3].twist.twist.angular.y == pytest.approx(-0.3, abs=1e-9)
    assert found[3].child_frame_id == 'event_camera_optical_frame'
