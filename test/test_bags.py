"""Bags are written and read by two pairs of eyes: the package's, and dumber ones."""

import errno
import sqlite3
import struct
from pathlib import Path

import numpy as np
import pytest
import yaml
from backports import zstd
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader
from mcap.writer import Writer as McapWriter
from recordings import (
    EPOCH_NS,
    EVENT_PACKET,
    H,
    W,
    as_table,
    dumb_events,
    dumb_evt3,
    dumb_packet,
    dumb_state,
    events_in,
    events_of,
    hard_events,
    some_events,
    write_bag,
    write_ros1,
)
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import CompressionFormat, CompressionMode, ReaderError, StoragePlugin
from rosbags.rosbag2 import Writer as Ros2Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from spike_depth_ros.events.arrays import make_events
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.wire import EVENT_TYPES, EventStream, Packet
from spike_depth_ros.recordings import (
    BagError,
    BagWriter,
    EventsH5Writer,
    convert_to,
    open_source,
    rosbag,
)
from spike_depth_ros.recordings.messages import DEFINITIONS, quaternion
from spike_depth_ros.recordings.packets import Packetiser, with_epoch
from spike_depth_ros.recordings.ros1 import ros1_event_array
from spike_depth_ros.recordings.source import Topic, choose_event_topic


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
@given(
    st.lists(st.integers(0, 2**36), max_size=40),
    st.sampled_from(['evt3', 'mono']),
    st.sampled_from([0, EPOCH_NS]),
)
@example([40_000_000, 1_000_000], 'evt3', 0)  # a camera restarts
def test_any_times_survive(times_us, encoding, epoch_ns):
    events = events_of(times_us).copy()
    events['t_ns'] += epoch_ns - EPOCH_NS
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
    assert qos['/tf_static'][0].depth >= 100, 'static transforms add up over messages'
    with pytest.raises(BagError, match='holds no events'):
        open_source(tmp_path / 'drive')


@pytest.mark.parametrize('axis', [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.6, 0.0, 0.8)])
@pytest.mark.parametrize('angle', [0.0, 0.3, 3.0, np.pi, -2.5])
def test_quaternion(axis, angle):
    x, y, z = axis
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation = np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k
    expected = np.append(np.sin(angle / 2) * np.array(axis), np.cos(angle / 2))
    found = quaternion(rotation)
    assert abs(found @ expected) == pytest.approx(1)
    assert found[3] >= 0


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


def test_empty_recordings(tmp_path):
    with EventsH5Writer(tmp_path / 'events.h5', H, W):
        pass
    assert len(events_in(tmp_path / 'events.h5')) == 0
    with BagWriter(tmp_path / 'drive') as bag:
        bag.add_events(some_events()[:0], H, W)
    with pytest.raises(BagError, match='holds no events'):
        open_source(tmp_path / 'drive')


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
        np.testing.assert_array_equal(events_in(path), events)
        (path / name).unlink()
        np.testing.assert_array_equal(events_in(packed), events)
        np.testing.assert_array_equal(events_in(path), events)


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_metadata_with_edited_qos_hides_nothing(tmp_path, storage):
    """As people edit it for an older ROS, and in a folder whose name looks like a ROS 1 bag's."""
    path = write_bag(tmp_path / 'drive', some_events(), storage)
    text = (path / 'metadata.yaml').read_text(encoding='utf-8')
    about = yaml.safe_load(text)
    topics = about['rosbag2_bagfile_information']['topics_with_message_count']
    topics[0]['topic_metadata']['offered_qos_profiles'] = [{'history': 1, 'depth': 77}]
    (path / 'metadata.yaml').write_text(yaml.safe_dump(about), encoding='utf-8')
    renamed = path.rename(tmp_path / 'drive.bag')
    np.testing.assert_array_equal(events_in(renamed), some_events())


def test_a_database_whose_messages_are_still_in_its_log(tmp_path):
    path = write_bag(tmp_path / 'drive', some_events(), 'sqlite3')
    (path / 'drive.db3-wal').write_bytes(b'')
    np.testing.assert_array_equal(events_in(path), some_events())
    (path / 'drive.db3-wal').write_bytes(b'messages')
    with pytest.raises(BagError, match=r'drive.db3-wal.*wal_checkpoint'):
        open_source(path)


def test_times_that_no_message_can_tell(tmp_path):
    before_all = make_events([-5_000_000_000], [1], [1], [1])
    for encoding in ('evt3', 'mono'):
        with pytest.raises(BagError, match=r'events at .* cannot be written'):
            list(Packetiser(H, W, 'f', encoding).repack(before_all, 5))


def test_two_types_of_events_on_one_topic(tmp_path):
    topics = [Topic('/e', name, 1) for name in sorted(EVENT_TYPES)[:2]]
    with pytest.raises(BagError, match=r'several types on /e: .*dv_ros2_msgs.*dvs_msgs'):
        choose_event_topic(topics, None, tmp_path)


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


@pytest.mark.parametrize('broken', ['uint8 9x', 'foo/Missing x'])
def test_a_topic_that_nobody_can_define_spoils_no_other(tmp_path, broken):
    events = some_events(200)
    write_ros1(tmp_path / 'drive.bag', events, odd=broken)
    with open_source(tmp_path / 'drive.bag') as source:
        assert '/odd' in {topic.name for topic in source.topics}
        assert source.unreadable == {'/odd': 1}
        done = convert_to(source, tmp_path / 'out')
    assert done.dropped['messages of /odd, whose type is not defined'] == 1
    assert done.messages['/dvs/image'] == 4
    np.testing.assert_array_equal(events_in(tmp_path / 'out'), events)


def test_ros1_arrays_cut_off_or_empty(tmp_path):
    head = struct.pack('<IIII', 7, 5, 6, 3) + b'dvs' + struct.pack('<III', H, W, 2)
    rows = struct.pack('<HHIIB', 1, 2, 3, 4, 1) + struct.pack('<HHIIB', 5, 6, 7, 8, 0)
    stream = EventStream('dvs_msgs/msg/EventArray')
    packet, decoded = stream.feed(ros1_event_array(head + rows))
    assert (packet.stamp_ns, packet.frame_id) == (5_000_000_006, 'dvs')
    assert decoded.events.tolist() == [(3_000_000_004, 1, 2, 1), (7_000_000_008, 5, 6, 0)]
    for length in range(len(head + rows)):
        with pytest.raises(BagError, match='EventArray'):
            ros1_event_array((head + rows)[:length])
    empty = ros1_event_array(head[:-4] + bytes(4))
    assert len(stream.feed(empty)[1].events) == 0


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


def test_a_start_after_the_end_is_refused(tmp_path):
    with open_source(write_bag(tmp_path / 'drive', events_of([0, 2_000_000]))) as source:
        source.check_start(2_000_000_000)
        with pytest.raises(BagError, match=r'start is 2.5 s, but .*drive ends after 2.000 s'):
            source.check_start(2_500_000_000)


def test_no_recording(tmp_path):
    with pytest.raises(BagError, match='nothing at'):
        open_source(tmp_path / 'none')
    with pytest.raises(BagError, match='not a recording'):
        open_source(tmp_path)
    write_bag(tmp_path / 'several' / 'drive', some_events(10))
    with pytest.raises(BagError, match=r'several is a folder, .*in it are .*several/drive: give'):
        open_source(tmp_path / 'several')
    (tmp_path / 'a.txt').write_text('x')
    with pytest.raises(BagError, match='is not a recording'):
        open_source(tmp_path / 'a.txt')
    for name in ('a.bag', 'a.mcap', 'a.db3', 'a.h5', 'a.raw', 'a.mcap.zstd'):
        for content in (b'', b'not a recording at all\n' * 20):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(BagError, match=name):
                open_source(tmp_path / name)


@pytest.mark.parametrize(
    ('profile', 'encoding', 'says'),
    [
        ('ros1', 'ros1msg', r'not recorded by ROS 2; of ROS 1, the .bag'),
        ('ros2', 'ros1msg', r'channels of ros1msg, .*mcap filter'),
        ('ros2', 'jsonschema', r'channels of jsonschema, .*mcap filter'),
        ('ros2', 'protobuf', r'channels of protobuf, .*mcap filter'),
    ],
)
def test_whole_but_not_of_ros2(tmp_path, profile, encoding, says):
    with (tmp_path / 'a.mcap').open('wb') as file:
        writer = McapWriter(file)
        writer.start(profile)
        schema = writer.register_schema('std_msgs/String', encoding, b'{}')
        channel = writer.register_channel('/said', 'json', schema)
        writer.add_message(channel, 1, b'{}', 1)
        writer.finish()
    with pytest.raises(BagError, match=says):
        open_source(tmp_path / 'a.mcap')


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


def test_what_cannot_be_completed_leaves_nothing_behind(tmp_path):
    times_s = np.array([0, 4400, 4400])  # longer than events.h5 can hold
    late = make_events(times_s * 10**9, [1, 2, 3], [1, 2, 3], [0, 1, 0])
    with (
        pytest.raises(BagError, match='71 min'),
        EventsH5Writer(tmp_path / 'long.h5', H, W) as writer,
    ):
        writer.add(late)
    assert list(tmp_path.iterdir()) == []


def test_cameras_of_one_size_keep_their_own_clocks_and_counts(tmp_path):
    """Two topics that nothing but the name tells apart, their clocks half a minute apart."""
    empty = np.empty(0, np.uint8)
    with BagWriter(tmp_path / 'stereo') as writer:
        for k in range(5):
            for topic, clock_ns in (('/left', 10 * 10**9), ('/right', 40 * 10**9)):
                events = some_events(50).copy()
                events['t_ns'] += clock_ns + k * 10**7 - events['t_ns'][0]
                packet = Packet(10**18 + k * 10**7, '', 480, 640, k, 0, 'mono', empty)
                writer.add_event_message(topic, packet.stamp_ns, packet, events)
    for topic, clock_ns in (('/left', 10 * 10**9), ('/right', 40 * 10**9)):
        stream = EventStream('event_camera_msgs/msg/EventPacket')
        with open_source(tmp_path / 'stereo', topic) as source:
            fed = [stream.feed(message.cdr) for message in source.messages()]
        assert [packet.seq for packet, _ in fed] == [0, 1, 2, 3, 4]
        assert (stream.gaps, stream.restarts) == (0, 0)
        first_ns = [with_epoch(*one).events['t_ns'][0] for one in fed]
        assert np.diff(first_ns).tolist() == [10**7] * 4
        assert first_ns[0] // 10**9 == clock_ns // 10**9


@pytest.mark.parametrize('wrapped', [False, True])
def test_a_bag_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch, wrapped):
    with BagWriter(tmp_path / 'bag') as writer:
        writer.add_events(some_events(), H, W)

    def refuse(file, stack):
        error = PermissionError(errno.EACCES, 'Permission denied', str(file))
        if wrapped:
            raise ReaderError(f'could not open it: {error}') from error
        raise error

    monkeypatch.setattr(rosbag, 'open_ros2', refuse)
    with pytest.raises(BagError, match=r'bag cannot be read: .*Permission denied'):
        open_source(tmp_path / 'bag')
