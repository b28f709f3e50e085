"""Converting there and back gives the same events, and says what it could not take along."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from recordings import (
    EPOCH_NS,
    EVENT_PACKET,
    RAW,
    H,
    W,
    as_table,
    dsec_folder,
    dumb_events,
    events_in,
    hard_events,
    read_all,
    some_events,
    write_bag,
    write_h5,
    write_mvsec,
    write_ros1,
    young,
)

from spike_depth_ros.cli import main
from spike_depth_ros.recordings import BagError, BagWriter, convert_to, open_source
from spike_depth_ros.recordings.packets import Packetiser


def convert(source, target, topic=None, **options):
    with open_source(source, topic, options.get('encoding', 'evt3')) as opened:
        return convert_to(opened, target, **options)


def h5_table(path: Path) -> np.ndarray:
    """(N, 4) t_ns, x, y, p of an events.h5, column by column."""
    with h5py.File(path) as file:
        t_us = file['events/t'][:].astype(np.int64) + file['t_offset'][()]
        x, y, p = (file[f'events/{name}'][:].astype(np.int64) for name in 'xyp')
    return np.stack([t_us * 1000, x, y, p], axis=1)


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
@pytest.mark.parametrize('encoding', ['evt3', 'mono'])
@pytest.mark.parametrize('make', [some_events, hard_events])
def test_h5_there_and_back(tmp_path, make, encoding, storage):
    events = make()
    source = write_h5(tmp_path / 'events.h5', events)
    shares = []
    done = convert(source, tmp_path / 'bag', storage=storage, encoding=encoding,
                   progress=lambda share, count: shares.append((share, count)))  # fmt: skip
    assert (done.events, dict(done.dropped)) == (len(events), {})
    assert shares[-1] == (1.0, len(events))
    assert sum(done.messages.values()) == len(shares)
    with open_source(tmp_path / 'bag') as opened:
        cdrs = [bytes(message.cdr) for message in opened.messages()]
    np.testing.assert_array_equal(dumb_events(cdrs), as_table(events))
    back = convert(tmp_path / 'bag', tmp_path / 'back.h5')
    assert (back.events, dict(back.dropped)) == (len(events), {})
    np.testing.assert_array_equal(h5_table(tmp_path / 'back.h5'), as_table(events))


@pytest.mark.parametrize('encoding', ['evt3', 'mono'])
def test_ros1_and_legacy_types(tmp_path, encoding):
    events = some_events(500)
    write_ros1(tmp_path / 'drive.bag', events)
    done = convert(tmp_path / 'drive.bag', tmp_path / 'bag', encoding=encoding)
    assert done.messages == {'/dvs/events': 4, '/dvs/image': 4}
    assert not done.dropped
    np.testing.assert_array_equal(events_in(tmp_path / 'bag'), events)
    found = read_all(tmp_path / 'bag')
    starts = [int(piece['t_ns'][0]) for piece in np.array_split(events, 4)]
    assert [stamp_ns for stamp_ns, _ in found['/dvs/events']] == starts
    stamps = [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for _, m in found['/dvs/events']]
    assert stamps == starts
    assert {m.header.frame_id for _, m in found['/dvs/events']} == {'dvs'}
    assert {m.encoding for _, m in found['/dvs/events']} == {encoding}
    assert [m.data.tolist() for _, m in found['/dvs/image']] == [[k, 9] for k in range(4)]


def test_host_stamps_stay_when_events_are_encoded_anew(tmp_path):
    """The sensor's clock and that of the stamps are two; images lie on the latter."""
    events = young(some_events(300))
    with BagWriter(tmp_path / 'bag') as bag:
        for k, piece in enumerate(np.array_split(events, 3)):
            for packet in Packetiser(H, W, 'lens').repack(piece, 70_000 - k):
                bag.add_raw('/e', EVENT_PACKET, 80_000 + k, packet.cdr)
    done = convert(tmp_path / 'bag', tmp_path / 'mono', encoding='mono')
    assert done.messages == {'/e': 3}
    found = read_all(tmp_path / 'mono')['/e']
    assert [stamp_ns for stamp_ns, _ in found] == [80_000, 80_001, 80_002]
    assert [m.header.stamp.nanosec for _, m in found] == [70_000, 69_999, 69_998]
    assert [m.time_base for _, m in found] == [
        int(p['t_ns'][0]) for p in np.array_split(events, 3)
    ]
    np.testing.assert_array_equal(events_in(tmp_path / 'mono'), events)


def test_two_sensors_on_one_topic(tmp_path):
    events = some_events(40)
    with BagWriter(tmp_path / 'bag') as bag:
        for k, size in enumerate([(H, W), (H + 1, W), (H, W)]):
            for packet in Packetiser(*size, 'lens').repack(events, k):
                bag.add_raw('/e', EVENT_PACKET, k, packet.cdr)
    convert(tmp_path / 'bag', tmp_path / 'mono', encoding='mono')
    assert [m.height for _, m in read_all(tmp_path / 'mono')['/e']] == [H, H + 1, H]
    assert len(events_in(tmp_path / 'mono')) == 120


def test_same_encoding_is_copied_byte_for_byte(tmp_path):
    path = write_bag(tmp_path / 'bag', some_events())
    convert(path, tmp_path / 'copy', storage='sqlite3')
    with open_source(path) as one, open_source(tmp_path / 'copy') as two:
        first, second = ([bytes(m.cdr) for m in source.messages()] for source in (one, two))
    assert len(first) > 2
    assert first == second


@pytest.mark.parametrize('header', RAW)
@pytest.mark.parametrize('target', ['bag', 'events.h5'])
def test_raw(tmp_path, header, target):
    events = young(some_events(2000))
    (tmp_path / 'a.raw').write_bytes(header.encode() + RAW[header](events))
    done = convert(tmp_path / 'a.raw', tmp_path / target)
    assert (done.events, dict(done.dropped)) == (len(events), {})
    np.testing.assert_array_equal(events_in(tmp_path / target), events)


def test_dsec_folder(tmp_path):
    events = some_events()
    folder = dsec_folder(tmp_path / 'zurich', events)
    done = convert(folder, tmp_path / 'bag')
    assert (done.events, dict(done.dropped)) == (len(events), {})
    np.testing.assert_array_equal(events_in(tmp_path / 'bag'), events)
    found = read_all(tmp_path / 'bag')
    at_2_ms = EPOCH_NS // 1000 * 1000 + 2_000_000
    assert [stamp for stamp, _ in found['/ground_truth/depth']] == [at_2_ms, at_2_ms + 5_000_000]
    depth = found['/ground_truth/depth'][0][1]
    assert depth.encoding == '32FC1'
    # 22 / (disparity of 1 or 2 px * 2 per metre); no disparity is no answer
    np.testing.assert_array_equal(depth.data.view('<f4')[:3], np.float32([np.nan, 11.0, 5.5]))
    info = found['/ground_truth/camera_info'][0][1]
    assert (info.k[0], info.header.frame_id) == (22.0, depth.header.frame_id)
    assert len(info.d) == 0
    raw_info = found['/event_camera/camera_info'][0][1]
    assert raw_info.k.tolist() == [20.0, 0, 19.5, 0, 21.0, 5.5, 0, 0, 1]
    assert raw_info.d.tolist() == [-0.1, 0.01, 0.0, 0.0]
    packet = found['/event_camera/events'][0][1]
    assert (packet.header.frame_id, packet.height) == (raw_info.header.frame_id, H)
    image = found['/camera/image_rect'][0][1]
    assert (image.encoding, image.data[:3].tolist()) == ('rgb8', [3, 2, 1])  # OpenCV wrote BGR
    assert found['/camera/camera_info'][1][1].width == 8
    frames = {t.child_frame_id: t for _, m in found['/tf_static'] for t in m.transforms}
    colour = frames[image.header.frame_id]
    assert colour.header.frame_id == packet.header.frame_id
    # x_1 = R x_0 + (0.5, 0, 0): camera 1 sits at -R^T (0.5, 0, 0), R a quarter turn about z
    move = colour.transform.translation
    assert (move.x, move.y, move.z) == (pytest.approx(0), pytest.approx(0.5), 0)
    turn = colour.transform.rotation
    assert (turn.z, turn.w) == (pytest.approx(-(0.5**0.5)), pytest.approx(0.5**0.5))


def test_dsec_folder_in_parts(tmp_path):
    folder = dsec_folder(tmp_path / 'zurich', some_events())
    with open_source(folder) as source:
        names = [topic.name for topic in source.topics]
        stamps = [m.stamp_ns for m in source.messages(names)]
        late = [m.topic for m in source.messages(names, 3_000_000, 5_000_000)]
    assert stamps == sorted(stamps)
    assert late.count('/ground_truth/depth') == 1
    (folder / 'calibration' / 'cam_to_cam.yaml').unlink()
    (folder / 'disparity' / 'timestamps.txt').unlink()
    with open_source(folder) as source:
        assert [topic.name for topic in source.topics] == [
            '/event_camera/events',
            '/camera/image_rect',
        ]
    (folder / 'images' / 'timestamps.txt').write_text('1\n', encoding='utf-8')
    with pytest.raises(BagError, match=r'2 PNGs, .* 1 times'):
        open_source(folder)


def test_mvsec(tmp_path):
    events = some_events(2000)
    write_mvsec(tmp_path / 'indoor_flying1_data.hdf5', events)
    stamps_s = np.array([EPOCH_NS / 1e9 + 0.001, EPOCH_NS / 1e9 + 0.002])
    with h5py.File(tmp_path / 'indoor_flying1_data.hdf5', 'a') as file:
        file['davis/left/image_raw'] = np.full((2, 260, 346), 7, np.uint8)
        file['davis/left/image_raw_ts'] = stamps_s
    pose = np.eye(4)
    pose[:3, 3] = (1, 2, 3)
    with h5py.File(tmp_path / 'indoor_flying1_gt.hdf5', 'w') as file:
        file['davis/left/depth_image_rect'] = np.full((2, 260, 346), np.nan, np.float32)
        file['davis/left/depth_image_rect_ts'] = stamps_s
        later = pose.copy()
        later[2, 3] += 0.005
        file['davis/left/pose'] = np.stack([pose, later])
        file['davis/left/pose_ts'] = stamps_s
    camera = {
        'intrinsics': [226.0, 226.0, 173.0, 133.0],
        'resolution': [346, 260],
        'distortion_coeffs': [-0.04, -0.02, 0.05, -0.03],
        'projection_matrix': [[199.0, 0, 177.0, 0], [0, 199.0, 126.0, 0], [0, 0, 1, 0]],
        'rectification_matrix': np.eye(3).tolist(),
    }
    text = yaml.safe_dump({'cam0': camera})
    (tmp_path / 'camchain-imucam-indoor_flying.yaml').write_text(text, encoding='utf-8')
    done = convert(tmp_path / 'indoor_flying1_data.hdf5', tmp_path / 'bag')
    assert not done.dropped
    np.testing.assert_array_equal(events_in(tmp_path / 'bag'), events)
    found = read_all(tmp_path / 'bag')
    assert [stamp_ns for stamp_ns, _ in found['/event_camera/image_raw']] == [
        EPOCH_NS + 1_000_000,
        EPOCH_NS + 2_000_000,
    ]
    assert found['/event_camera/image_raw'][0][1].encoding == 'mono8'
    assert found['/event_camera/camera_info'][0][1].distortion_model == 'equidistant'
    assert found['/ground_truth/camera_info'][1][1].k[0] == 199.0
    assert np.isnan(found['/ground_truth/depth'][0][1].data.view('<f4')).all()
    transform = found['/tf'][0][1].transforms[0]
    assert (transform.header.frame_id, transform.transform.translation.z) == ('map', 3)
    assert [m.twist.twist.linear.z for _, m in found['/odom']] == pytest.approx([5, 5])
    # without truth and calibration there are still events and images
    (tmp_path / 'indoor_flying1_gt.hdf5').unlink()
    (tmp_path / 'camchain-imucam-indoor_flying.yaml').unlink()
    done = convert(tmp_path / 'indoor_flying1_data.hdf5', tmp_path / 'less')
    assert set(done.messages) == {'/event_camera/events', '/event_camera/image_raw'}


def test_what_is_dropped_is_told(tmp_path):
    words = np.array([0x8001, 0x6002, 0xA101, 0xA100, 3, 0x2005, 0x2000 | 900, 0x9999], '<u2')
    header = f'% format EVT3;height={H};width={W}\n% end\n'
    (tmp_path / 'a.raw').write_bytes(header.encode() + words.tobytes())
    done = convert(tmp_path / 'a.raw', tmp_path / 'a.h5')
    assert done.events == 1
    assert done.dropped == {'triggers': 2, 'out of bounds': 1, 'unknown codes': 1}
    assert h5_table(tmp_path / 'a.h5').tolist() == [[(4096 + 2) * 1000, 5, 3, 0]]

    done = convert(tmp_path / 'a.raw', tmp_path / 'a')  # words stay, whatever they say
    assert done.dropped == {}
    done = convert(tmp_path / 'a', tmp_path / 'a_mono', encoding='mono')
    assert done.dropped == {'triggers': 2, 'out of bounds': 1, 'unknown codes': 1}

    with BagWriter(tmp_path / 'bag') as bag:
        (packet,) = Packetiser(H, W, 'f').repack(some_events(3), 5)
        bag.add_raw('/e', EVENT_PACKET, 5, packet.cdr)
        bag.add_raw('/e', EVENT_PACKET, 6, packet.cdr[:-1])
        bag.add_image('/image', 7, np.zeros((2, 2), np.uint8), 'f')
        bag.add_raw('/odd', 'odd_msgs/msg/Odd', 8, b'\0\1\0\0\7', 'uint8 seven')
        bag.add_raw('/unknown', 'odd_msgs/msg/Unknown', 9, b'\0\1\0\0')
    assert bag.undefined == {'/unknown': 1}
    done = convert(tmp_path / 'bag', tmp_path / 'copy', encoding='mono')
    assert done.dropped == {'unreadable event messages (truncated)': 1}
    assert done.messages == {'/e': 1, '/image': 1, '/odd': 1}
    assert read_all(tmp_path / 'copy')['/odd'][0][1].seven == 7
    done = convert(tmp_path / 'bag', tmp_path / 'b.h5')
    assert done.dropped == {
        'unreadable event messages (truncated)': 1,
        'messages of /image': 1,
        'messages of /odd': 1,
    }


def test_one_of_two_event_topics(tmp_path):
    with BagWriter(tmp_path / 'two') as bag:
        for k, topic in enumerate(('/left', '/right')):
            for packet in Packetiser(H, W, 'f').repack(some_events(50, seed=k), k):
                bag.add_raw(topic, EVENT_PACKET, k, packet.cdr)
    convert(tmp_path / 'two', tmp_path / 'right.h5', topic='/right')
    np.testing.assert_array_equal(events_in(tmp_path / 'right.h5'), some_events(50, seed=1))
    done = convert(tmp_path / 'two', tmp_path / 'copy', topic='/right')
    assert done.messages == {'/left': 1, '/right': 1}


def test_targets_refused(tmp_path):
    source = write_h5(tmp_path / 'events.h5', some_events(10))
    with pytest.raises(BagError, match='exists already'):
        convert(source, source)
    with pytest.raises(BagError, match=r"a name without '\.mcap'"):
        convert(source, tmp_path / 'a.mcap')
    with pytest.raises(BagError, match="storage is 'tape'"):
        convert(source, tmp_path / 'a', storage='tape')
    assert [p.name for p in tmp_path.iterdir()] == ['events.h5']


@pytest.mark.parametrize('target', ['copy', 'copy.h5'])
def test_source_damaged_half_way_leaves_no_target(tmp_path, target, monkeypatch):
    monkeypatch.setattr('spike_depth_ros.recordings.array_source.READ_EVENTS', 1 << 16)
    path = write_h5(tmp_path / 'events.h5', some_events(200_000))
    with h5py.File(path) as file:
        third_chunk = file['events/x'].id.get_chunk_info(2)
    data = bytearray(path.read_bytes())
    start = third_chunk.byte_offset
    data[start : start + third_chunk.size] = bytes(third_chunk.size)
    path.write_bytes(data)
    counts = []
    with pytest.raises(BagError, match=r'cannot be read at events/x\[slice\(131072, 196608'):
        convert(path, tmp_path / target, progress=lambda share, count: counts.append(count))
    assert counts[-1] > 100_000
    assert [p.name for p in tmp_path.iterdir()] == ['events.h5']


@pytest.mark.parametrize('name', ['test_events_1', 'test_events_2'])
def test_real_events(real_events, tmp_path, name):
    events = events_in(real_events / name)
    for encoding in ('evt3', 'mono'):
        done = convert(real_events / name, tmp_path / encoding, encoding=encoding)
        assert done.events == len(events)
        np.testing.assert_array_equal(events_in(tmp_path / encoding), events)
    convert(tmp_path / 'evt3', tmp_path / 'events.h5')
    np.testing.assert_array_equal(h5_table(tmp_path / 'events.h5'), as_table(events))
    convert(tmp_path / 'events.h5', tmp_path / 'back', storage='sqlite3')
    np.testing.assert_array_equal(events_in(tmp_path / 'back'), events)


def test_command_line(tmp_path, capsys):
    source = write_h5(tmp_path / 'events.h5', some_events(4000))
    main(['convert', str(source), str(tmp_path / 'bag'), '--encoding', 'mono', '--json'])
    report = json.loads(capsys.readouterr().out)
    assert (report['events'], report['dropped']) == (4000, {})
    main(['convert', str(tmp_path / 'bag'), str(tmp_path / 'part.h5'), '--duration=0.005'])
    out = capsys.readouterr().out
    assert 'dropped: nothing' in out
    assert 0 < len(events_in(tmp_path / 'part.h5')) < 4000
    with pytest.raises(SystemExit) as exit_code:
        main(['convert', str(source), str(tmp_path / 'bag')])
    assert exit_code.value.code == 1
    assert 'exists already' in capsys.readouterr().err
