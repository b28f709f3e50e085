"""The replay node: real bags to real topics."""

import struct

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from event_camera_msgs.msg import EventPacket
from graph import EPOCH_NS, FRAME, MS, RELIABLE, event_array, event_packet, overrides, some_events
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import serialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo

from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.config import shipped
from spike_depth_ros.events.wire import EventStream, parse
from spike_depth_ros.recordings import BagError, BagWriter, Topic
from spike_depth_ros.ros import replay_node
from spike_depth_ros.ros.messages import make_time
from spike_depth_ros.ros.node_processes import Nodes
from spike_depth_ros.ros.pacing import (
    Pace,
    packet_converter,
    restamped,
    restamped_transforms,
)
from spike_depth_ros.ros.params import ParameterError
from spike_depth_ros.ros.probe import stamp_ns
from spike_depth_ros.ros.replay_node import (
    CAMERA_INFO,
    EVENT_PACKET,
    ReplayNode,
    camera_info_topic,
)

CAMERA = Camera(64, 48, 60.0, 60.0, 31.5, 23.5)
COUNT = 10
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture
def bag(tmp_path):
    """Ten packets, 10 ms apart, recorded 3 ms after their stamp; a calibration beside them."""
    path = tmp_path / 'drive'
    with BagWriter(path) as writer:
        writer.add_camera_info('/eye/camera_info', EPOCH_NS + 3 * MS, CAMERA, FRAME)
        for k in range(COUNT):
            packet = event_packet(some_events(10 * k, 10 * k + 5), seq=k)
            writer.add_raw('/eye/events', EVENT_PACKET, EPOCH_NS + (10 * k + 3) * MS, packet)
    return path


@pytest.fixture
def play(graph):
    def play(path, **values):
        values = {'wait_for_subscriber_s': 60.0, **values}
        return graph.add(ReplayNode(parameter_overrides=overrides({'path': str(path), **values})))

    return play


def raw_listener(graph):
    got = []
    graph.camera.create_subscription(EventPacket, 'events', got.append, RELIABLE, raw=True)
    return got


def test_messages_come_out_as_they_were_recorded(graph, play, bag):
    got, infos = raw_listener(graph), graph.listen(CameraInfo, 'camera_info')
    node = play(bag, stamp='recorded')
    assert graph.spin_until(lambda: node.finished.is_set() and len(got) == COUNT)
    assert got == [event_packet(some_events(10 * k, 10 * k + 5), seq=k) for k in range(COUNT)]
    assert node.failure == ''
    assert node.pace.messages == COUNT + 1
    assert node.pace.recorded_s == pytest.approx(0.09)
    assert [info.k[0] for info in infos] in ([60.0], [])  # it goes first, perhaps unheard


def test_stamps_become_those_of_a_live_camera(graph, play, bag):
    got = graph.listen(EventPacket, 'events')
    before_ns = graph.camera.get_clock().now().nanoseconds
    node = play(bag)
    assert graph.spin_until(lambda: node.finished.is_set() and len(got) == COUNT)
    stamps = np.array([stamp_ns(message) for message in got])
    assert (np.diff(stamps) == 10 * MS).all()
    # the first message was recorded 3 ms after its stamp, and is published just now
    assert before_ns - 3 * MS <= stamps[0] <= graph.camera.get_clock().now().nanoseconds
    assert got[0].header.frame_id == FRAME


def test_start_duration_and_rate(graph, play, bag):
    got = graph.listen(EventPacket, 'events')
    node = play(bag, stamp='recorded', start_s=0.03, duration_s=0.04, rate=0.5)
    assert graph.spin_until(lambda: node.finished.is_set() and len(got) >= 4)
    graph.spin_for(0.1)  # and no more
    assert [message.seq for message in got] == [3, 4, 5, 6]
    assert node.pace.took_s >= 2 * node.pace.recorded_s == pytest.approx(0.06)


def test_a_start_behind_the_end_is_told(graph, play, bag):
    node = play(bag, start_s=9.0, loop=True, wait_for_subscriber_s=0.0)
    assert graph.spin_until(node.finished.is_set)
    assert 'holds no message from 9 s on: give a smaller start_s' in node.failure


def test_changes_while_it_plays_are_refused(graph, play, bag):
    node = play(bag)
    (refused,) = node.set_parameters(overrides({'rate': 2.0}))
    assert refused.reason == 'rate is read when the node starts: start it anew'


def test_loop_and_clock(graph, play, bag):
    got, times = graph.listen(EventPacket, 'events'), graph.listen(Clock, '/clock')
    node = play(bag, loop=True, clock=True, stamp='recorded', rate=2.0)

    def shown():
        return [t.clock.sec * 10**9 + t.clock.nanosec for t in times]

    def jumped_back():
        return (np.diff(shown()) < 0).any()

    assert graph.spin_until(lambda: len(got) > 2 * COUNT and jumped_back())
    assert not node.finished.is_set()
    assert min(shown()) == EPOCH_NS + 3 * MS
    assert max(shown()) <= EPOCH_NS + (10 * COUNT - 7) * MS


def test_looped_stamps_of_a_live_camera_never_fall(graph, play, bag):
    got = graph.listen(EventPacket, 'events')
    play(bag, loop=True, rate=10.0)
    assert graph.spin_until(lambda: len(got) > 2 * COUNT)
    assert (np.diff([stamp_ns(message) for message in got]) > 0).all()


def test_legacy_types_that_are_not_installed_become_packets():
    type_name = 'prophesee_event_msgs/msg/EventArray'
    events = some_events(100, 105)
    (cdr,) = packet_converter(type_name)(event_array(events))
    packet, decoded = EventStream(EVENT_PACKET).feed(cdr)
    np.testing.assert_array_equal(decoded.events, events)
    legacy = parse(type_name, event_array(events))
    assert packet.encoding == 'mono'
    assert packet[:4] == legacy[:4]  # stamp, frame, height, width
    assert list(packet_converter(type_name)(b'nonsense')) == []


def test_a_legacy_message_with_a_jump_becomes_two_packets():
    """Whose times a 32-bit count of ns cannot span; the next pass begins with its own stamps."""
    convert = packet_converter('dvs_msgs/msg/EventArray')
    early, late = some_events(0, 5), some_events(10_000, 10_005)
    message = event_array(np.concatenate([early, late]))
    for _ in range(2):
        packets = [parse(EVENT_PACKET, cdr) for cdr in convert(message)]
        assert [p.stamp_ns for p in packets] == [
            parse('dvs_msgs/msg/EventArray', message).stamp_ns + ns for ns in (0, 10**10)
        ]
        got = [EventStream(EVENT_PACKET).feed(cdr)[1].events for cdr in convert(message)]
        np.testing.assert_array_equal(np.concatenate(got), np.concatenate([early, late]))


def test_a_bag_of_such_a_type_is_played(graph, play, tmp_path):
    with BagWriter(tmp_path / 'old') as writer:
        events = some_events(1000, 1005)
        writer.add_raw('/dv/events', 'dv_ros2_msgs/msg/EventArray', 10**9, event_array(events))
    got = graph.listen(EventPacket, 'events')
    play(tmp_path / 'old')
    assert graph.spin_until(lambda: got)
    assert (got[0].encoding, got[0].width, got[0].header.frame_id) == ('mono', 64, FRAME)


def test_a_recording_of_no_duration_is_named(graph, play, tmp_path, capfd):
    path = tmp_path / 'instant'
    with BagWriter(path) as writer:
        for k in range(2):
            packet = event_packet(some_events(0, 5), seq=k)
            writer.add_raw('/eye/events', EVENT_PACKET, EPOCH_NS, packet)
    with pytest.raises(BagError, match='has no duration: all its messages are of one time'):
        Nodes(str(path), str(shipped('config/depth.yaml'))).check()
    node = play(path, wait_for_subscriber_s=0.0)
    assert graph.spin_until(node.finished.is_set)
    assert 'has no duration' in capfd.readouterr().err


def test_a_pause_of_years_is_skipped(graph, play, tmp_path, capfd):
    """A first message whose stamp is wrong must not hold up all others."""
    with BagWriter(tmp_path / 'bag') as writer:
        for k, stamp in enumerate((1, EPOCH_NS, EPOCH_NS + 5 * MS)):
            packet = event_packet(some_events(5 * k, 5 * k + 5), seq=k)
            writer.add_raw('/eye/events', EVENT_PACKET, stamp, packet)
    node = play(tmp_path / 'bag', wait_for_subscriber_s=0.0)
    assert graph.spin_until(node.finished.is_set)
    assert node.pace.messages == 3
    assert 'before a message on /eye/events: is its stamp wrong?' in capfd.readouterr().err


def test_a_size_that_the_recording_does_not_state(tmp_path):
    path, parameters = tmp_path / 'a.raw', str(shipped('config/depth.yaml'))
    words = [word for k in range(9) for word in (0x8001 + k, 0x6000, 3, 0x2004)]
    path.write_bytes(b'% evt 3.0\n% end\n' + np.array(words, '<u2').tobytes())
    with pytest.raises(BagError, match='--sensor WIDTHxHEIGHT'):
        Nodes(str(path), parameters).check()
    nodes = Nodes(str(path), parameters, sensor='64x48')
    nodes.check()
    assert 'sensor:=64x48' in nodes.replay_arguments()


def test_restamped_moves_the_stamp_alone():
    cdr = event_packet(some_events(0, 5))
    moved = parse(EVENT_PACKET, restamped(cdr, 1_500_000_000))
    same = parse(EVENT_PACKET, cdr)
    assert moved.stamp_ns == same.stamp_ns + 1_500_000_000
    assert moved[1:7] == same[1:7]
    assert bytes(moved.payload) == bytes(same.payload)
    unstamped = event_packet(some_events(0, 5), stamp_ns=0)
    assert restamped(unstamped, 5) == unstamped
    assert restamped(cdr, 10**18) == cdr  # a stamp ends in 2038
    assert restamped(b'\0\1\0', 5) == b'\0\1\0'


def test_what_would_mix_with_the_events_is_not_played(graph, play, tmp_path):
    info = serialize_message(CameraInfo(width=7))
    with BagWriter(tmp_path / 'several') as writer:
        for topic in ('/eye/events', '/events'):
            packet = event_packet(some_events(0, 5))
            writer.add_raw(topic, EVENT_PACKET, EPOCH_NS, packet)
        writer.add_raw('/camera_info', CAMERA_INFO, EPOCH_NS, info)
        writer.add_raw('/other/camera_info', CAMERA_INFO, EPOCH_NS, info)
        writer.add_raw('/depth_node/depth/camera_info', CAMERA_INFO, EPOCH_NS, info)
        report = serialize_message(DiagnosticArray())
        writer.add_raw('/diagnostics', 'diagnostic_msgs/msg/DiagnosticArray', EPOCH_NS, report)
    node = play(tmp_path / 'several', topic='/eye/events', wait_for_subscriber_s=0.0)
    assert graph.spin_until(node.finished.is_set)
    assert set(node._channels) == {'/eye/events', '/other/camera_info'}
    assert not node.failure


def test_a_start_within_the_recording_keeps_what_was_latched(graph, play, tmp_path):
    with BagWriter(tmp_path / 'latched') as writer:
        for width in (6, 7):
            info = serialize_message(CameraInfo(width=width))
            writer.add_raw('/map_info', CAMERA_INFO, EPOCH_NS + width * MS, info, latched=True)
        for k in range(3):
            packet = event_packet(some_events(50 * k, 50 * k + 5), seq=k)
            writer.add_raw('/eye/events', EVENT_PACKET, EPOCH_NS + 50 * k * MS, packet)
    node = play(tmp_path / 'latched', start_s=0.04, wait_for_subscriber_s=0.0)
    assert graph.spin_until(node.finished.is_set)
    assert node.pace.messages == 3  # one latched, two of events
    late = graph.listen(CameraInfo, '/map_info', LATCHED)
    assert graph.spin_until(lambda: late)
    assert late[0].width == 7


@pytest.mark.parametrize(('names', 'chosen'), [
    (['/eye/camera_info', '/other/camera_info'], '/eye/camera_info'),
    (['/other/camera_info'], None),  # of another camera
    (['/a/camera_info', '/b/camera_info'], None),
    ([], None),
])  # fmt: skip
def test_the_calibration_beside_the_events(names, chosen):
    events = Topic('/eye/events', EVENT_PACKET, 1)
    infos = tuple(Topic(name, 'sensor_msgs/msg/CameraInfo', 1) for name in names)
    found = camera_info_topic((events, *infos), events)
    assert (found.name if found else None) == chosen


def test_what_was_latched_is_latched_again(graph, play, bag, tmp_path):
    """Whoever comes late still gets the last message, as from the one who was recorded."""
    path = tmp_path / 'latched'
    info = serialize_message(CameraInfo(width=7))
    with BagWriter(path) as writer:
        writer.add_raw('/map_info', CAMERA_INFO, EPOCH_NS, info, latched=True)
        writer.add_raw('/eye/events', EVENT_PACKET, EPOCH_NS, event_packet(some_events(0, 5)))
    node = play(path, wait_for_subscriber_s=0.0)
    assert graph.spin_until(node.finished.is_set)
    late = graph.listen(CameraInfo, '/map_info', LATCHED)
    assert graph.spin_until(lambda: late)
    assert late[0].width == 7


def test_the_players_clock_is_the_only_one(graph, play, tmp_path):
    with BagWriter(tmp_path / 'simulated') as writer:
        for k in range(5):
            cdr = serialize_message(Clock(clock=make_time((100 + k) * 10**9)))
            writer.add_raw('/clock', 'rosgraph_msgs/msg/Clock', EPOCH_NS + k * MS, cdr)
            packet = event_packet(some_events(k, k + 1), seq=k)
            writer.add_raw('/eye/events', EVENT_PACKET, EPOCH_NS + k * MS, packet)
    times = graph.listen(Clock, '/clock')
    node = play(tmp_path / 'simulated', clock=True, stamp='recorded', wait_for_subscriber_s=0.0)
    assert graph.spin_until(lambda: node.finished.is_set() and times)
    assert {t.clock.sec for t in times} == {EPOCH_NS // 10**9}


def transforms(stamps, frames):
    """A TFMessage as it is on the wire, by hand."""
    cdr = bytearray(b'\0\1\0\0' + struct.pack('<I', len(stamps)))

    def align(size):
        cdr.extend(bytes((4 - len(cdr)) % size))

    for stamp, names in zip(stamps, frames, strict=True):
        align(4)
        cdr += struct.pack('<iI', *stamp)
        for name in names:
            align(4)
            cdr += struct.pack('<I', len(name) + 1) + name.encode() + b'\0'
        align(8)
        cdr += struct.pack('<7d', *range(7))
    return bytes(cdr)


def test_transforms_are_restamped_one_by_one():
    frames = [('map', 'base'), ('base_link', 'camera_optical'), ('a', 'b')]
    before = transforms([(5, 999_999_999), (0, 0), (7, 1)], frames)
    after = transforms([(6, 0), (0, 0), (7, 2)], frames)  # a stamp of zero stays zero
    assert restamped_transforms(before, 1) == after
    with pytest.raises(ValueError, match='ends too early'):
        restamped_transforms(before[:-60], 1)


def test_the_pace_is_told():
    assert 'the pace was kept' in Pace(10, 2.0, 1.005, 0.004).sentence(rate=2.0)
    assert '0.50 s too slow (largest lag 600 ms)' in Pace(10, 2.0, 2.5, 0.6).sentence(rate=1.0)


@pytest.mark.parametrize(('values', 'words'), [
    ({'path': '/nowhere'}, '/nowhere'),
    ({}, 'path is empty'),
    ({'path': '/nowhere', 'rate': 0.0}, 'rate is 0, expected 0.001 to 1000'),
    ({'path': '/nowhere', 'stamp': 'yesterday'}, 'expected one of now, recorded'),
])  # fmt: skip
def test_what_cannot_be_played(graph, values, words):
    with pytest.raises((BagError, ParameterError), match=words):
        ReplayNode(parameter_overrides=overrides(values))


def test_a_bag_without_events(graph, tmp_path):
    with BagWriter(tmp_path / 'none') as writer:
        writer.add_camera_info('/eye/camera_info', EPOCH_NS, CAMERA, FRAME)
    with pytest.raises(BagError, match='no events'):
        ReplayNode(parameter_overrides=overrides({'path': str(tmp_path / 'none')}))


def test_main_says_what_is_wrong_and_ends(capsys):
    with pytest.raises(SystemExit) as end:
        replay_node.main(['--ros-args', '-p', 'path:=/nowhere'])
    assert end.value.code == 1
    assert '/nowhere' in capsys.readouterr().err


@pytest.mark.parametrize(('bag', 'messages', 'events'), [
    ('test_events_2', 100, 571_266),
    ('test_data_mono_cd', 2, 100),  # of the former type name, played as EventPacket
])  # fmt: skip
def test_real_recordings_lose_nothing(graph, play, real_events, bag, messages, events):
    got = raw_listener(graph)
    node = play(real_events / bag)
    assert graph.spin_until(lambda: node.finished.is_set() and len(got) == messages)
    stream = EventStream(EVENT_PACKET)
    assert sum(len(stream.feed(cdr)[1].events) for cdr in got) == events
    assert stream.missing == 0
