"""Recordings are written and read by two pairs of eyes: the package's, and dumber ones here."""

import sqlite3
import struct
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - registers Blosc with HDF5
import numpy as np
import pytest
import yaml
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Ros2Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from spike_depth_ros.bags import BagError, BagWriter, EventsH5Writer, open_source
from spike_depth_ros.bags.messages import DEFINITIONS, quaternion
from spike_depth_ros.bags.packets import Packetiser, with_epoch
from spike_depth_ros.camera import Camera
from spike_depth_ros.events import EVENT_DTYPE, make_events
from spike_depth_ros.wire import EventStream

H, W = 12, 40
EPOCH_NS = 1_700_000_000_123_456_000
EVENT_PACKET = 'event_camera_msgs/msg/EventPacket'


def events_of(times_us, seed=0) -> np.ndarray:
    """Events at the given times [us], everything else random."""
    rng = np.random.default_rng(seed)
    n = len(times_us)
    t_ns = EPOCH_NS + np.asarray(times_us, np.int64) * 1000
    return make_events(t_ns, rng.integers(0, W, n), rng.integers(0, H, n), rng.integers(0, 2, n))


def some_events(n=3000, step_us=7, seed=0) -> np.ndarray:
    return events_of(np.cumsum(np.random.default_rng(seed).integers(0, step_us, n)), seed)


def hard_events() -> np.ndarray:
    """Silence over several wraps of the 24-bit clock, a wrap amid events, small steps back."""
    to_wrap_us = 2**24 - EPOCH_NS // 1000 % 2**24
    times_us = [0, 5, 3, 4, 4100, 4090, 50_000_000, 50_000_001, 50_000_001 + 90_000_000]
    near = [to_wrap_us + 20 * 2**24 + k for k in (-3, -1, 0, 2, -1, 1, 5000)]
    return events_of(times_us + near)


def events_in(path, **options) -> np.ndarray:
    """All events of a recording, through the package's own reading path."""
    with open_source(path, **options) as source:
        stream = EventStream(source.event_topic.type)
        fed = [stream.feed(message.cdr) for message in source.messages()]
    assert not stream.skipped
    parts = [with_epoch(*one).events for one in fed]
    return np.concatenate([np.empty(0, EVENT_DTYPE), *parts])


# --- a dumber reader -------------------------------------------------------------------------


def dumb_packet(cdr: bytes):
    """(time_base, encoding, payload) of an EventPacket, field by field."""
    at = 4 + 8
    (n,) = struct.unpack_from('<I', cdr, at)
    at = 4 + -(-(at + 4 + n - 4) // 4) * 4 + 8
    at = 4 + -(-(at - 4) // 8) * 8 + 8
    time_base, n = struct.unpack_from('<QI', cdr, at)
    encoding = cdr[at + 12 : at + 12 + n - 1].decode()
    at = 4 + -(-(at + 12 + n + 1 - 4) // 4) * 4
    (n,) = struct.unpack_from('<I', cdr, at)
    assert len(cdr) == at + 4 + n
    return time_base, encoding, cdr[at + 4 :]


def dumb_evt3(payload: bytes, state: dict) -> list:
    """[(t_us, x, y, p)] of evt3 words, with the clock as a camera tells it."""
    found = []
    for (word,) in struct.iter_unpack('<H', payload):
        code, value = word >> 12, word & 0xFFF
        if code == 0:
            state['y'] = value & 0x7FF
        elif code == 2:
            found.append((state['t'](), value & 0x7FF, state['y'], value >> 11))
        elif code == 3:
            state['x'], state['p'] = value & 0x7FF, value >> 11
        elif code in (4, 5):
            for k in range(12 if code == 4 else 8):
                if value >> k & 1:
                    found.append((state['t'](), state['x'] + k, state['y'], state['p']))
            state['x'] += 12 if code == 4 else 8
        elif code == 6:
            state['low'] = value
        elif code == 8:
            state['wraps'] += state['high'] - value > 10
            state['high'] = value
    return found


def dumb_state() -> dict:
    state = {'wraps': 0, 'high': 0, 'low': 0}
    state['t'] = lambda: state['wraps'] << 24 | state['high'] << 12 | state['low']
    return state


def dumb_events(cdrs: list) -> np.ndarray:
    """(N, 4) t_ns, x, y, p: mono exactly, evt3 by the epoch in time_base."""
    rows, state = [], dumb_state()
    for cdr in cdrs:
        time_base, encoding, payload = dumb_packet(bytes(cdr))
        if encoding == 'mono':
            for (word,) in struct.iter_unpack('<Q', payload):
                dt, xy = word & 0xFFFFFFFF, word >> 32
                rows.append((time_base + dt, xy & 0xFFFF, xy >> 16 & 0x7FFF, word >> 63))
        else:
            for t_us, x, y, p in dumb_evt3(payload, state):
                rows.append((time_base + t_us % 2**24 * 1000, x, y, p))
    return np.array(rows, np.int64).reshape(-1, 4)


def as_table(events: np.ndarray) -> np.ndarray:
    return np.stack([events[name].astype(np.int64) for name in ('t_ns', 'x', 'y', 'p')], axis=1)


# --- writing ---------------------------------------------------------------------------------


def write_bag(path, events, storage='mcap', encoding='evt3', pieces=7):
    with BagWriter(path, storage, encoding) as bag:
        for piece in np.array_split(events, pieces):
            bag.add_events(piece, H, W)
    return path


@pytest.mark.parametrize('encoding', ['evt3', 'mono'])
@pytest.mark.parametrize('make', [some_events, hard_events])
def test_mcap_reads_elsewhere(tmp_path, encoding, make):
    events = make()
    path = write_bag(tmp_path / 'drive', events, 'mcap', encoding)
    with (path / 'drive.mcap').open('rb') as file:
        rows = list(make_reader(file).iter_messages())
    assert {schema.encoding for schema, _, _ in rows} == {'ros2msg'}
    assert {schema.name for schema, _, _ in rows} == {EVENT_PACKET}
    assert {channel.message_encoding for _, channel, _ in rows} == {'cdr'}
    assert b'uint8[] events' in rows[0][0].data
    assert b'MSG: std_msgs/Header' in rows[0][0].data
    found = dumb_events([message.data for _, _, message in rows])
    np.testing.assert_array_equal(found, as_table(events))
    np.testing.assert_array_equal(events_in(path), events)


def test_sqlite_reads_elsewhere(tmp_path):
    events = some_events()
    path = write_bag(tmp_path / 'drive', events, 'sqlite3', 'mono')
    database = sqlite3.connect(path / 'drive.db3')
    rows = database.execute('SELECT timestamp, data FROM messages ORDER BY id').fetchall()
    np.testing.assert_array_equal(dumb_events([data for _, data in rows]), as_table(events))
    assert rows[0][0] == events['t_ns'][0]
    topics = database.execute('SELECT name, type, serialization_format FROM topics').fetchall()
    assert topics == [('/event_camera/events', EVENT_PACKET, 'cdr')]
    encodings = database.execute('SELECT encoding FROM message_definitions').fetchall()
    assert encodings == [('ros2msg',)]
    database.close()
    np.testing.assert_array_equal(events_in(path), events)


def test_metadata_is_version_9(tmp_path):
    path = write_bag(tmp_path / 'drive', some_events())
    text = (path / 'metadata.yaml').read_text(encoding='utf-8')
    about = yaml.safe_load(text)['rosbag2_bagfile_information']
    assert about['version'] == 9
    assert about['storage_identifier'] == 'mcap'
    assert about['relative_file_paths'] == ['drive.mcap']
    topic = about['topics_with_message_count'][0]
    assert topic['topic_metadata']['type_description_hash'].startswith('RIHS01_')
    assert topic['message_count'] == about['message_count'] > 1
    assert isinstance(about['custom_data'], dict), 'rosbag2 does not take a null here'


def test_plain_evt3_decoder_sees_every_wrap(tmp_path):
    """Who does not know the epoch in time_base still gets all differences of times right."""
    events = events_of([0, 40_000_000, 40_000_003, 100_000_000])
    path = write_bag(tmp_path / 'drive', events, pieces=1)
    with open_source(path) as source:
        payloads = [dumb_packet(bytes(m.cdr))[2] for m in source.messages()]
    state = dumb_state()
    found = [t_us for payload in payloads for t_us, *_ in dumb_evt3(payload, state)]
    assert np.diff(found).tolist() == [40_000_000, 3, 59_999_997]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**36), max_size=40), st.sampled_from(['evt3', 'mono']))
def test_any_times_survive(times_us, encoding):
    events = events_of(times_us)
    packetiser = Packetiser(H, W, 'frame', encoding)
    packets = [*packetiser.push(events[:5]), *packetiser.push(events[5:]), *packetiser.flush()]
    stream = EventStream(EVENT_PACKET)
    parts = [with_epoch(*stream.feed(p.cdr)).events for p in packets]
    np.testing.assert_array_equal(np.concatenate([events[:0], *parts]), events)
    repacked = list(Packetiser(H, W, 'frame', encoding).repack(events, 5_000_000_000))
    stream = EventStream(EVENT_PACKET)
    parts = [with_epoch(*stream.feed(p.cdr)).events for p in repacked]
    np.testing.assert_array_equal(np.concatenate([events[:0], *parts]), events)


def test_packets_are_short(tmp_path):
    path = write_bag(tmp_path / 'drive', some_events(9000))
    with open_source(path) as source:
        packets = [EventStream(EVENT_PACKET).feed(m.cdr)[1].events for m in source.messages()]
    assert max(np.ptp(p['t_ns']) for p in packets) < 4_000_000
    assert len(packets) <= 9000 * 7 / 2 / 4000 + 2


def test_other_messages(tmp_path):
    camera = Camera(6, 4, 5.0, 6.0, 2.5, 1.5, 'plumb_bob', (0.1, 0.2, 0.0, 0.0))
    image = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    depth = np.array([[1.5, np.nan, np.inf]], np.float32)
    with BagWriter(tmp_path / 'drive') as bag:
        bag.add_image('/image', np.int64(1_000_000_007), image, 'cam')
        bag.add_image('/grey', 2, image[..., 0], 'cam')
        bag.add_depth_32fc1('/depth', 3, depth, 'cam')
        bag.add_camera_info('/info', 4, camera, 'cam')
        bag.add_tf(5, 'a', 'b', np.array([1, 2, 3]), np.array([0, 0, 0, 1]), static=True)
        bag.add_tf(6, 'a', 'c', np.zeros(3), np.array([1, 0, 0, 0]))
    with AnyReader([tmp_path / 'drive']) as reader:
        found = {c.topic: reader.deserialize(d, c.msgtype) for c, _, d in reader.messages()}
        qos = {c.topic: c.ext.offered_qos_profiles for c in reader.connections}
    assert (found['/image'].encoding, found['/image'].step) == ('rgb8', 18)
    assert found['/image'].header.stamp.sec == 1
    assert found['/image'].header.stamp.nanosec == 7
    assert found['/image'].data.tolist() == image.ravel().tolist()
    assert found['/grey'].data.tolist() == image[..., 0].ravel().tolist()
    assert found['/depth'].encoding == '32FC1'
    np.testing.assert_array_equal(found['/depth'].data.view('<f4'), depth[0])
    assert found['/info'].k.tolist() == [5.0, 0, 2.5, 0, 6.0, 1.5, 0, 0, 1]
    assert found['/info'].p.tolist() == [5.0, 0, 2.5, 0, 0, 6.0, 1.5, 0, 0, 0, 1, 0]
    assert found['/info'].d.tolist() == [0.1, 0.2, 0.0, 0.0]
    assert found['/tf_static'].transforms[0].child_frame_id == 'b'
    assert found['/tf_static'].transforms[0].transform.translation.z == 3
    assert found['/tf'].transforms[0].transform.rotation.x == 1
    assert [q.durability.name for q in qos['/tf_static']] == ['TRANSIENT_LOCAL']
    with pytest.raises(BagError, match='holds no events'):
        open_source(tmp_path / 'drive')


@pytest.mark.parametrize('axis', [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.6, 0.0, 0.8)])
@pytest.mark.parametrize('angle', [0.0, 0.3, 3.0, np.pi, -2.5])
def test_quaternion(axis, angle):
    x, y, z = axis
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation = np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k
    expected = np.append(np.sin(angle / 2) * np.array(axis), np.cos(angle / 2))
    assert abs(quaternion(rotation) @ expected) == pytest.approx(1)


def test_interrupted_writers_leave_nothing(tmp_path):
    def broken_off(writer, add):
        with writer:
            add(writer, some_events())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off(BagWriter(tmp_path / 'a'), lambda bag, events: bag.add_events(events, H, W))
    with pytest.raises(KeyboardInterrupt):
        broken_off(EventsH5Writer(tmp_path / 'b.h5', H, W), EventsH5Writer.add)
    assert list(tmp_path.iterdir()) == []


def test_killed_writers_are_never_read_and_are_replaced(tmp_path):
    bag = BagWriter(tmp_path / 'drive')
    bag.add_events(some_events(), H, W)
    assert not (tmp_path / 'drive').exists()
    bag._writer.abort()  # as if killed
    events = some_events(seed=5)
    write_bag(tmp_path / 'drive', events)
    np.testing.assert_array_equal(events_in(tmp_path / 'drive'), events)
    assert [p.name for p in tmp_path.iterdir()] == ['drive']


def test_writers_refuse(tmp_path):
    write_bag(tmp_path / 'drive', some_events())
    with pytest.raises(BagError, match='exists already'):
        BagWriter(tmp_path / 'drive')
    with pytest.raises(BagError, match="storage is 'zip'"):
        BagWriter(tmp_path / 'b', storage='zip')
    with pytest.raises(BagError, match="encoding is 'evt9'"):
        Packetiser(H, W, '', 'evt9')
    with pytest.raises(BagError, match='evt3 ends at 2048 px'):
        Packetiser(H, 3000, '')
    (tmp_path / 'file').write_text('')
    with pytest.raises(BagError, match='cannot write'):
        BagWriter(tmp_path / 'file' / 'drive')
    with pytest.raises(BagError, match='cannot write'):
        EventsH5Writer(tmp_path / 'file' / 'events.h5', H, W)


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


def test_h5_keeps_out_what_it_cannot_tell(tmp_path):
    back = events_of([5_000_000, 5_000_100, 5_000_050, 1_000_000, 5_000_200])
    with EventsH5Writer(tmp_path / 'events.h5', H, W) as file:
        file.add(back)
    assert (file.count, file.early) == (4, 1)
    np.testing.assert_array_equal(events_in(tmp_path / 'events.h5'), back[[0, 1, 2, 4]])
    with (
        pytest.raises(BagError, match=r'71 min.*reaches 72 min'),
        EventsH5Writer(tmp_path / 'long.h5', H, W) as file,
    ):
        file.add(events_of([0, 72 * 60_000_000]))
    assert not (tmp_path / 'long.h5').exists()


def test_empty_recordings(tmp_path):
    with EventsH5Writer(tmp_path / 'events.h5', H, W):
        pass
    assert len(events_in(tmp_path / 'events.h5')) == 0
    with BagWriter(tmp_path / 'drive') as bag:
        bag.add_events(some_events()[:0], H, W)
    with pytest.raises(BagError, match='holds no events'):
        open_source(tmp_path / 'drive')


# --- ROS bags --------------------------------------------------------------------------------


def test_single_files_and_folders_without_metadata(tmp_path):
    events = some_events()
    for storage, name in (('mcap', 'drive.mcap'), ('sqlite3', 'drive.db3')):
        path = write_bag(tmp_path / storage / 'drive', events, storage)
        np.testing.assert_array_equal(events_in(path / name), events)
        (path / 'metadata.yaml').unlink()
        np.testing.assert_array_equal(events_in(path), events)
        (path / 'metadata.yaml').write_text('rosbag2_bagfile_information: {version: 5}')
        np.testing.assert_array_equal(events_in(path), events)
        packed = path / f'{name}.zstd'
        packed.write_bytes(zstd.compress((path / name).read_bytes()))
        (path / name).unlink()
        np.testing.assert_array_equal(events_in(packed), events)
        np.testing.assert_array_equal(events_in(path), events)


@pytest.mark.parametrize('metadata', [True, False])
@pytest.mark.parametrize('mode', ['FILE', 'MESSAGE', 'STORAGE'])
def test_compressed_bags(tmp_path, mode, metadata):
    events = some_events()
    plain = write_bag(tmp_path / 'plain', events)
    store = get_typestore(Stores.ROS2_KILTED)
    store.register(get_types_from_msg(DEFINITIONS[EVENT_PACKET], EVENT_PACKET))
    writer = Ros2Writer(tmp_path / 'packed', version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode[mode], CompressionFormat.ZSTD)
    with writer, open_source(plain) as source:
        connection = writer.add_connection('/events', EVENT_PACKET, typestore=store)
        for message in source.messages():
            writer.write(connection, message.stamp_ns, bytes(message.cdr))
    if not metadata:
        (tmp_path / 'packed' / 'metadata.yaml').unlink()
    np.testing.assert_array_equal(events_in(tmp_path / 'packed'), events)


def test_split_bag_without_metadata_is_read_in_time_order(tmp_path):
    events = some_events(4000)
    (tmp_path / 'bag').mkdir()
    for name, piece in (('z', events[:2000]), ('a', events[2000:])):
        path = write_bag(tmp_path / name, piece)
        (path / f'{name}.mcap').rename(tmp_path / 'bag' / f'{name}.mcap')
    np.testing.assert_array_equal(events_in(tmp_path / 'bag'), events)


def dvs_definition(package: str) -> tuple:
    event = f'{package}/msg/Event'
    types = get_types_from_msg('uint16 x\nuint16 y\ntime ts\nbool polarity', event)
    text = f'std_msgs/Header header\nuint32 height\nuint32 width\n{package}/Event[] events'
    return types | get_types_from_msg(text, f'{package}/msg/EventArray')


def write_ros1(path: Path, events: np.ndarray, package='dvs_msgs', count=4) -> None:
    """A ROS 1 bag as rpg_dvs_ros records it, with an image beside the events."""
    store = get_typestore(Stores.ROS1_NOETIC)
    store.register(dvs_definition(package))
    types = store.types
    event = types[f'{package}/msg/Event']
    time = types['builtin_interfaces/msg/Time']
    header = types['std_msgs/msg/Header']
    array_type = f'{package}/msg/EventArray'
    with Ros1Writer(path) as writer:
        on_events = writer.add_connection('/dvs/events', array_type, typestore=store)
        on_image = writer.add_connection('/dvs/image', 'sensor_msgs/msg/Image', typestore=store)
        for seq, piece in enumerate(np.array_split(events, count)):
            stamp_ns = int(piece['t_ns'][0])
            stamp = time(*divmod(stamp_ns, 10**9))
            rows = [
                event(int(e['x']), int(e['y']), time(*divmod(int(e['t_ns']), 10**9)), bool(e['p']))
                for e in piece
            ]
            array = types[array_type](header(seq, stamp, 'dvs'), H, W, rows)
            data = store.serialize_ros1(array, array_type)
            writer.write(on_events, stamp_ns, data)
            image = types['sensor_msgs/msg/Image'](
                header(seq, stamp, 'dvs'), 1, 2, 'mono8', 0, 2, np.array([seq, 9], np.uint8)
            )
            data = store.serialize_ros1(image, 'sensor_msgs/msg/Image')
            writer.write(on_image, stamp_ns + 1, data)


@pytest.mark.parametrize('package', ['dvs_msgs', 'prophesee_event_msgs'])
def test_ros1(tmp_path, package):
    events = some_events(200)
    write_ros1(tmp_path / 'drive.bag', events, package)
    np.testing.assert_array_equal(events_in(tmp_path / 'drive.bag'), events)
    with open_source(tmp_path / 'drive.bag') as source:
        assert source.kind == 'rosbag1'
        assert source.geometry == (H, W)
        assert [(t.name, t.messages) for t in source.topics] == [
            ('/dvs/events', 4),
            ('/dvs/image', 4),
        ]
        images = list(source.messages(['/dvs/image']))
        both = [m.topic for m in source.messages(['/dvs/image', '/dvs/events'])]
    assert both == ['/dvs/events', '/dvs/image'] * 4
    store = get_typestore(Stores.ROS2_KILTED)
    third = store.deserialize_cdr(images[2].cdr, 'sensor_msgs/msg/Image')
    assert third.data.tolist() == [2, 9]
    assert third.header.frame_id == 'dvs'


def test_span_of_a_bag(tmp_path):
    events = some_events(9000)
    path = write_bag(tmp_path / 'drive', events)
    with open_source(path) as source:
        stamps = [m.stamp_ns for m in source.messages()]
        some = [m.stamp_ns for m in source.messages(None, 8_000_000, 12_000_000)]
        assert source.start_ns == events['t_ns'][0]
        assert source.end_ns == stamps[-1]
        assert source.progress() > 0
    begin = stamps[0] + 8_000_000
    assert some == [s for s in stamps if begin <= s < begin + 12_000_000]
    assert 2 <= len(some) <= 4


def test_choice_of_topic(tmp_path):
    with BagWriter(tmp_path / 'two') as bag:
        for topic in ('/left/events', '/right/events'):
            for packet in Packetiser(H, W, 'f').repack(some_events(100), 77):
                bag.add_raw(topic, EVENT_PACKET, 77, packet.cdr)
        bag.add_image('/image', 78, np.zeros((2, 2), np.uint8), 'f')
    with pytest.raises(BagError, match='choose one of /left/events, /right/events'):
        open_source(tmp_path / 'two')
    with pytest.raises(BagError, match="no topic '/up'; it has /image"):
        open_source(tmp_path / 'two', '/up')
    with pytest.raises(BagError, match="is of type 'sensor_msgs/msg/Image'"):
        open_source(tmp_path / 'two', '/image')
    np.testing.assert_array_equal(
        events_in(tmp_path / 'two', topic='/right/events'), some_events(100)
    )


def test_no_recording(tmp_path):
    with pytest.raises(BagError, match='nothing at'):
        open_source(tmp_path / 'none')
    with pytest.raises(BagError, match='not a recording'):
        open_source(tmp_path)
    (tmp_path / 'a.txt').write_text('x')
    with pytest.raises(BagError, match='is none of'):
        open_source(tmp_path / 'a.txt')
    for name in ('a.bag', 'a.mcap', 'a.db3', 'a.h5', 'a.raw', 'a.mcap.zstd'):
        for content in (b'', b'not a recording at all\n' * 20):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(BagError, match=name):
                open_source(tmp_path / name)


@pytest.mark.parametrize('name', ['drive.mcap', 'drive.db3', 'drive.bag', 'events.h5'])
def test_damage_is_a_bag_error(tmp_path, name):
    """Cut anywhere, or with bytes turned over: all of it reads, or a `BagError` says why not."""
    events = some_events(300)
    if name == 'drive.bag':
        write_ros1(tmp_path / name, events)
        data = (tmp_path / name).read_bytes()
    elif name == 'events.h5':
        with EventsH5Writer(tmp_path / name, H, W) as file:
            file.add(events)
        data = (tmp_path / name).read_bytes()
    else:
        folder = write_bag(tmp_path / 'drive', events, 'mcap' if 'mcap' in name else 'sqlite3')
        data = (folder / name).read_bytes()
    rng = np.random.default_rng(1)
    refusals = []
    for trial in range(60):
        bad = bytearray(data)
        if trial % 2:
            del bad[rng.integers(1, len(bad)) :]
        else:
            for at in rng.integers(0, len(bad), 8):
                bad[at] ^= 0xFF
        (tmp_path / f'bad_{name}').write_bytes(bytes(bad))
        refusals.append(refusal(tmp_path / f'bad_{name}'))
    sentences = [sentence for sentence in refusals if sentence]
    assert len(sentences) >= 20
    assert [s for s in sentences if f'bad_{name}' not in s] == []


def refusal(path: Path) -> str:
    """What is said about a recording that cannot be read to its end; '' if it can."""
    try:
        with open_source(path) as source:
            stream = EventStream(source.event_topic.type)
            for message in source.messages():
                stream.feed(message.cdr)
    except BagError as error:
        return str(error)
    return ''


def test_real_bag_with_an_idl_schema_and_lame_metadata(real_events, tmp_path):
    folder = tmp_path / 'bag'
    folder.mkdir()
    origin = real_events / 'test_events_2'
    (folder / 'metadata.yaml').write_bytes((origin / 'metadata.yaml.orig').read_bytes())
    (folder / 'test_events_2_0.mcap').symlink_to(origin / 'test_events_2_0.mcap')
    events = events_in(folder)
    assert len(events) == 571_266
    np.testing.assert_array_equal(events, events_in(origin))
    np.testing.assert_array_equal(events, events_in(origin / 'test_events_2_0.mcap'))


# --- camera and data set files ---------------------------------------------------------------


def evt3_words(events: np.ndarray) -> bytes:
    """evt3 as plainly as can be: four words for every event."""
    words = []
    for t_us, x, y, p in as_table(events) // [1000, 1, 1, 1]:
        words += [0x8000 | t_us >> 12 & 0xFFF, 0x6000 | t_us & 0xFFF, y, 0x2000 | p << 11 | x]
    return np.array(words, '<u2').tobytes()


def evt2_words(events: np.ndarray) -> bytes:
    words = []
    for t_us, x, y, p in as_table(events) // [1000, 1, 1, 1]:
        words += [8 << 28 | t_us >> 6, p << 28 | (t_us & 63) << 22 | x << 11 | y]
    return np.array(words, '<u4').tobytes()


def evt21_words(events: np.ndarray, swapped: bool) -> bytes:
    words = []
    for t_us, x, y, p in as_table(events) // [1000, 1, 1, 1]:
        head, mask = p << 28 | (t_us & 63) << 22 | x << 11 | y, 1
        for low, high in ((0, 8 << 28 | t_us >> 6), (mask, head)):
            words += [high, low] if swapped else [low, high]
    return np.array(words, '<u4').tobytes()


RAW = {
    '% evt 3.0\n% format EVT3;height=12;width=40\n% end\n': evt3_words,
    '% date 2023\n% evt 3.0\n% geometry 40x12\n': evt3_words,
    '% format EVT2;height=12;width=40\n% end\n': evt2_words,
    '% evt 2.0\n% geometry 40x12\n% end\n': evt2_words,
    '% format EVT21;height=12;width=40\n% end\n': lambda e: evt21_words(e, False),
    '% format EVT21;endianness=legacy;height=12;width=40\n% end\n': lambda e: evt21_words(e, True),
}


def young(events: np.ndarray) -> np.ndarray:
    """The same events on a clock that started 3 s before them, as a camera's does."""
    aged = events.copy()
    aged['t_ns'] += 3_000_000_000 - events['t_ns'][0]
    return aged


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
    monkeypatch.setattr('spike_depth_ros.bags.raw_file.READ_BYTES', 1002)
    times_us = np.concatenate([np.arange(0, 40_000_000, 9_001), [40_000_000 - 5]])
    events = young(events_of(times_us))
    words = evt3_words(events)
    (tmp_path / 'a.raw').write_bytes(b'% format EVT3;height=12;width=40\n% end\n' + words + b'\0')
    with open_source(tmp_path / 'a.raw') as source:
        packets = [dumb_packet(bytes(m.cdr)) for m in source.messages()]
    assert b''.join(payload for _, _, payload in packets) == words
    assert sorted({base for base, _, _ in packets}) == [0, 2**24 * 1000, 2**25 * 1000]
    np.testing.assert_array_equal(events_in(tmp_path / 'a.raw'), events)


@pytest.mark.parametrize(
    ('header', 'sentence'),
    [
        ('% format EVT4;height=12;width=40\n', "format is 'EVT4;height=12;width=40'"),
        ('% date 2020\n', "format is 'nothing'"),
        ('% evt 3.0\n', 'does not tell the size'),
        ('% format EVT3;height=0;width=0\n', 'does not tell the size'),
        ('% format EVT3;endianness=big;height=12;width=40\n', 'big-endian'),
        ('no header\n', 'lines of "% "'),
    ],
)
def test_raw_headers_refused(tmp_path, header, sentence):
    (tmp_path / 'a.raw').write_text(header)
    with pytest.raises(BagError, match=sentence):
        open_source(tmp_path / 'a.raw')


def test_raw_without_events(tmp_path):
    (tmp_path / 'a.raw').write_text('% evt 3.0\n% sensor_generation 4.2\n% end\n')
    with open_source(tmp_path / 'a.raw') as source:
        assert source.geometry == (720, 1280)
        assert list(source.messages()) == []


def write_m3ed(path: Path, events: np.ndarray) -> None:
    with h5py.File(path, 'w') as file:
        for name in 'xyp':
            file[f'prophesee/left/{name}'] = events[name]
        file['prophesee/left/t'] = events['t_ns'] // 1000
        file['prophesee/left/calib/resolution'] = [W, H]


def write_mvsec(path: Path, events: np.ndarray) -> None:
    rows = as_table(events).astype(np.float64)[:, [1, 2, 0, 3]]
    rows[:, 2] /= 1e9
    rows[:, 3] = rows[:, 3] * 2 - 1
    with h5py.File(path, 'w') as file:
        file['davis/left/events'] = rows


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
    with pytest.raises(BagError, match=r'y up to 11.*expected a 40x5 sensor'):
        events_in(tmp_path / 'events.h5')


def test_h5_of_unknown_layout(tmp_path):
    with h5py.File(tmp_path / 'a.h5', 'w') as file:
        file['frames'] = [1]
    with pytest.raises(BagError, match='has no events'):
        open_source(tmp_path / 'a.h5')
    with h5py.File(tmp_path / 'b.h5', 'w') as file:
        file['events/t'] = [1]
    with pytest.raises(BagError, match='lacks what its kind has'):
        open_source(tmp_path / 'b.h5')
    with h5py.File(tmp_path / 'c.h5', 'w') as file:
        for name, size in zip('ptxy', (1, 2, 2, 2), strict=True):
            file[f'events/{name}'] = np.zeros(size, np.uint16)
    with pytest.raises(BagError, match='differ in length'):
        open_source(tmp_path / 'c.h5')
