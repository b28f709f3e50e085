"""Every kind of recording into every kind of target, and what users' bags hold beside events."""

from pathlib import Path

import numpy as np
import pytest
from recordings import (
    EVENT_PACKET,
    RAW,
    H,
    W,
    dsec_folder,
    dvs_definition,
    events_in,
    read_all,
    some_events,
    write_bag,
    write_h5,
    write_m3ed,
    write_mvsec,
    write_ros1,
    young,
)
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from spike_depth_ros.events.codecs import encode_event_array
from spike_depth_ros.events.wire import Packet, pack_event_array
from spike_depth_ros.recordings import BagError, BagWriter, convert_to, open_source
from spike_depth_ros.recordings.messages import CAMERA_INFO, IMAGE
from spike_depth_ros.recordings.packets import Packetiser

EVENTS = young(some_events(900))
DVS = 'dvs_msgs/msg/EventArray'


def raw(header: str):
    def write(folder: Path) -> Path:
        path = folder / 'a.raw'
        path.write_bytes(header.encode() + RAW[header](EVENTS))
        return path

    return write


def bag(storage: str, encoding: str):
    return lambda folder: write_bag(folder / 'drive', EVENTS, storage, encoding)


def legacy(folder: Path) -> Path:
    with BagWriter(folder / 'drive') as writer:
        for piece in np.array_split(EVENTS, 3):
            stamp_ns, body = int(piece['t_ns'][0]), encode_event_array(piece)
            packet = Packet(stamp_ns, 'dvs', H, W, None, 0, 'event_array',
                            np.frombuffer(body, np.uint8))  # fmt: skip
            writer.add_raw('/dvs/events', DVS, stamp_ns, pack_event_array(packet))
    return folder / 'drive'


def at(name: str, write):
    def make(folder: Path) -> Path:
        write(folder / name, EVENTS)
        return folder / name

    return make


SOURCES = {
    'events.h5': at('events.h5', write_h5),
    'DSEC folder': lambda folder: dsec_folder(folder / 'zurich', EVENTS),
    'M3ED': at('car_data.h5', write_m3ed),
    'MVSEC': at('indoor_flying1_data.hdf5', write_mvsec),
    'ROS 1': at('drive.bag', write_ros1),
    'rosbag2 legacy': legacy,
    **{f'rosbag2 {s} {e}': bag(s, e) for s in ('mcap', 'sqlite3') for e in ('evt3', 'mono')},
    **{f'raw {header.split(chr(10))[0]}': raw(header) for header in RAW},
}
BESIDE = {
    'DSEC folder': {'/event_camera/camera_info', '/camera/image_rect', '/camera/camera_info',
                    '/ground_truth/depth', '/ground_truth/camera_info', '/tf_static'},
    'M3ED': {'/event_camera/camera_info'},
    'ROS 1': {'/dvs/image'},
}  # fmt: skip
TARGETS = {
    'events.h5': {},
    **{
        f'{s} {e}': {'storage': s, 'encoding': e}
        for s in ('mcap', 'sqlite3')
        for e in ('evt3', 'mono')
    },
}


@pytest.mark.parametrize('target', TARGETS)
@pytest.mark.parametrize('source', SOURCES)
def test_all_events_arrive_and_what_stays_behind_is_told(tmp_path, source, target):
    options = TARGETS[target]
    to = tmp_path / ('out.h5' if target == 'events.h5' else 'out')
    with open_source(SOURCES[source](tmp_path), None, options.get('encoding', 'evt3')) as opened:
        done = convert_to(opened, to, **options)
    assert done.events == len(EVENTS)
    np.testing.assert_array_equal(events_in(to), EVENTS)
    beside = BESIDE.get(source, set())
    if target == 'events.h5':
        assert set(done.dropped) == {f'messages of {topic}' for topic in beside}
    else:
        assert not done.dropped
        assert beside == set(done.messages) - {'/event_camera/events', '/dvs/events'}
        assert sum(map(len, read_all(to).values())) == sum(done.messages.values())


def test_m3ed_calibration_goes_along(tmp_path):
    path = tmp_path / 'car_data.h5'
    write_m3ed(path, EVENTS)
    with open_source(path) as opened:
        convert_to(opened, tmp_path / 'bag')
    info = read_all(tmp_path / 'bag')['/event_camera/camera_info'][0][1]
    assert info.k.tolist() == [30.0, 0, 19.0, 0, 31.0, 6.0, 0, 0, 1]
    assert (info.d.tolist(), info.distortion_model) == ([-0.1, 0.02, 0.001, 0.002], 'plumb_bob')
    assert (info.width, info.height) == (W, H)


# a stereo rig's ROS 1 bag, with what else rides along

STORE = get_typestore(Stores.ROS1_NOETIC)
STORE.register(dvs_definition('dvs_msgs'))
TF = 'tf2_msgs/msg/TFMessage'
STORE.register(get_types_from_msg('geometry_msgs/TransformStamped[] transforms', TF))
T = STORE.types
STAMP = T['builtin_interfaces/msg/Time'](5, 7)
HEADER = T['std_msgs/msg/Header'](3, STAMP, 'lens')


def dvs_array(events: np.ndarray):
    time, event = T['builtin_interfaces/msg/Time'], T['dvs_msgs/msg/Event']
    rows = [event(int(e['x']), int(e['y']), time(*divmod(int(e['t_ns']), 10**9)), bool(e['p']))
            for e in events]  # fmt: skip
    return T[DVS](HEADER, H, W, rows)


def users_messages() -> dict:
    """By topic: type and message."""
    shift = T['geometry_msgs/msg/Vector3'](1.0, 2.0, 3.0)
    turn = T['geometry_msgs/msg/Quaternion'](0.0, 0.0, 0.0, 1.0)
    moved = T['geometry_msgs/msg/TransformStamped'](
        HEADER, 'lens', T['geometry_msgs/msg/Transform'](shift, turn)
    )
    depth = np.array([1.5, np.nan], np.float32).view(np.uint8)
    roi = T['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
    k, nine = np.arange(9.0), np.zeros(9)
    content = {
        '/left/events': (DVS, dvs_array(EVENTS[:40])),
        '/right/events': (DVS, dvs_array(EVENTS[40:100])),
        '/left/image': (IMAGE, (HEADER, 1, 2, 'mono8', 0, 2, np.array([4, 9], np.uint8))),
        '/depth': (IMAGE, (HEADER, 1, 2, '32FC1', 0, 8, depth)),
        '/left/camera_info': (
            CAMERA_INFO,
            (HEADER, 1, 2, 'plumb_bob', np.array([0.1, 0.2]), k, nine, np.zeros(12), 0, 0, roi),
        ),
        '/tf': (TF, ([moved],)),
        '/sonar': ('sensor_msgs/msg/Range', (HEADER, 0, 0.25, 0.5, 8.0, 2.5)),
        '/log': (
            'rosgraph_msgs/msg/Log',
            (HEADER, 2, 'dvs', 'bias set', 'a.cpp', 'main', 12, ['/left/events']),
        ),
    }
    return {
        topic: (kind, T[kind](*fields) if isinstance(fields, tuple) else fields)
        for topic, (kind, fields) in content.items()
    }


@pytest.fixture
def users_bag(tmp_path) -> Path:
    with Ros1Writer(tmp_path / 'rig.bag') as writer:
        for k, (topic, (kind, message)) in enumerate(users_messages().items()):
            latching = 1 if topic == '/log' else None
            connection = writer.add_connection(topic, kind, typestore=STORE, latching=latching)
            writer.write(connection, 100 + k, STORE.serialize_ros1(message, kind))
    return tmp_path / 'rig.bag'


def copied(source: Path, target: Path) -> Path:
    with open_source(source, any_of_several=True) as opened:
        convert_to(opened, target, 'sqlite3')
    return target


def test_a_users_ros1_bag(users_bag, tmp_path):
    """Both cameras become EventPackets; a type that ROS 2 has extended is extended."""
    with open_source(users_bag, any_of_several=True) as opened:
        done = convert_to(opened, tmp_path / 'bag')
    assert (done.events, dict(done.dropped)) == (100, {})
    assert done.messages == dict.fromkeys(users_messages(), 1)
    for topic, part in (('/left/events', EVENTS[:40]), ('/right/events', EVENTS[40:100])):
        np.testing.assert_array_equal(events_in(tmp_path / 'bag', topic=topic), part)
    found = {topic: rows[0] for topic, rows in read_all(tmp_path / 'bag').items()}
    assert [stamp for stamp, _ in found.values()] == list(range(100, 108))
    message = {topic: one for topic, (_, one) in found.items()}
    assert message['/left/events'].encoding == message['/right/events'].encoding == 'evt3'
    stamp = message['/sonar'].header.stamp
    assert (stamp.sec, stamp.nanosec, message['/sonar'].header.frame_id) == (5, 7, 'lens')
    assert (message['/sonar'].max_range, message['/sonar'].range) == (8.0, 2.5)
    assert message['/sonar'].variance == 0
    assert message['/left/camera_info'].k.tolist() == list(range(9))
    assert message['/depth'].data.view('<f4')[0] == 1.5
    assert message['/tf'].transforms[0].transform.translation.z == 3
    assert (message['/log'].msg, message['/log'].line) == ('bias set', 12)
    for recording in (tmp_path / 'bag', copied(tmp_path / 'bag', tmp_path / 'copy')):
        with open_source(recording, any_of_several=True) as opened:
            assert [topic.name for topic in opened.topics if topic.latched] == ['/log']


def test_one_camera_of_a_users_bag_as_h5(users_bag, tmp_path):
    with pytest.raises(BagError, match='2 event topics: choose one of /left/events, /right'):
        open_source(users_bag)
    with open_source(users_bag, '/right/events') as opened:
        done = convert_to(opened, tmp_path / 'right.h5')
    np.testing.assert_array_equal(events_in(tmp_path / 'right.h5'), EVENTS[40:100])
    others = set(users_messages()) - {'/right/events'}
    assert done.dropped == {f'messages of {topic}': 1 for topic in others}


def test_a_type_stays_as_it_was_recorded(tmp_path):
    """A Range of an older distribution has no variance: bytes and definition go along."""
    old = 'float32 range\n'
    cdr = b'\0\1\0\0' + np.float32(2.5).tobytes()
    with BagWriter(tmp_path / 'old') as writer:
        (packet,) = Packetiser(H, W, 'f').repack(EVENTS[:3], 5)
        writer.add_raw('/e', EVENT_PACKET, 5, packet.cdr)
        writer.add_raw('/sonar', 'sensor_msgs/msg/Range', 6, cdr, old)
    for source, target in (('old', 'mcap'), ('mcap', 'db')):
        with open_source(tmp_path / source) as opened:
            storage = 'mcap' if target == 'mcap' else 'sqlite3'
            done = convert_to(opened, tmp_path / target, storage=storage)
        assert done.messages == {'/e': 1, '/sonar': 1}
        with open_source(tmp_path / target) as opened:
            assert opened.definition('sensor_msgs/msg/Range').strip().endswith('float32 range')
            assert [bytes(m.cdr) for m in opened.messages(['/sonar'])] == [cdr]
