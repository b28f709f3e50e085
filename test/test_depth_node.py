"""The depth node in a real graph: what it publishes, says and lives through."""

import dataclasses
import errno
import io
import sys

import numpy as np
import pytest
import rclpy
import yaml
from cv_bridge import CvBridge
from depth_node_fixtures import WINDOW_MS
from diagnostic_msgs.msg import DiagnosticArray
from dvs_msgs.msg import EventArray
from event_camera_msgs.msg import EventPacket
from graph import (
    BEST_EFFORT,
    EPOCH_NS,
    FRAME,
    HEIGHT,
    MS,
    RELIABLE,
    WIDTH,
    Driver,
    event_array,
    event_packet,
    overrides,
    says,
    some_events,
)
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.logging import LoggingSeverity
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_srvs.srv import SetBool, Trigger

from spike_depth_ros.estimation.estimator import DepthEstimator, EstimatorOptions
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.config import shipped
from spike_depth_ros.recordings import BagWriter
from spike_depth_ros.ros import depth_node
from spike_depth_ros.ros.inputs import qos_conflict
from spike_depth_ros.ros.messages import camera_from_info
from spike_depth_ros.ros.obstacles import ObstacleOptions, free_space_points, obstacle_points
from spike_depth_ros.ros.probe import stamp_ns
from spike_depth_ros.ros.process import executor_for, quick_executor
from spike_depth_ros.ros.replay_node import ReplayNode

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
CAMERA = Camera(WIDTH, HEIGHT, 60.0, 60.0, 31.5, 23.5, 'plumb_bob', (0.05, 0.0, 0.0, 0.0, 0.0))


def pixels(message):
    return CvBridge().imgmsg_to_cv2(message, desired_encoding='passthrough')


def node_rays(info):
    """Rays of the pinhole that a published camera_info describes."""
    return camera_from_info(info).rays()


@pytest.mark.parametrize('early_steps', ['on', 'off'])
def test_outputs_of_one_frame_belong_together_and_equal_the_estimators(
    graph, start, checkpoint, early_steps
):
    node = start(cloud_rate_hz=0.0, preview_rate_hz=0.0, cloud_stride=1, obstacle_rate_hz=0.0,
                 obstacle_clear_m=5.0, obstacle_min_confidence=0.0,
                 early_steps=early_steps)  # fmt: skip
    topics = {'image': Image, 'camera_info': CameraInfo, 'points': PointCloud2,
              'confidence': Image, 'image_color': Image, 'obstacles': PointCloud2,
              'free_space': PointCloud2,
              'image_color/compressed': CompressedImage,
              'image/compressedDepth': CompressedImage}  # fmt: skip
    got = {name: graph.listen(kind, f'/depth_node/depth/{name}') for name, kind in topics.items()}
    got['events'] = graph.listen(Image, '/depth_node/events/image')
    got['events_jpeg'] = graph.listen(CompressedImage, '/depth_node/events/image/compressed')
    node.calibration.camera = CAMERA
    assert graph.spin_until(lambda: all(p.get_subscription_count() for p in
                                        node.outputs.publishers.values()))  # fmt: skip
    events = Driver(graph).send(3 * WINDOW_MS + 5)
    options = EstimatorOptions(streaming=True)
    frames = DepthEstimator(checkpoint, HEIGHT, WIDTH, CAMERA, options, node.network.engine).push(
        events
    )
    assert len(frames) == 3
    each = ('image', 'camera_info', 'confidence')
    assert graph.spin_until(lambda: all(got.values()) and {len(got[n]) for n in each} == {3})
    for frame, depth, info, confidence in zip(
        frames, got['image'], got['camera_info'], got['confidence'], strict=True
    ):
        np.testing.assert_array_equal(pixels(depth), frame.depth_m)
        np.testing.assert_array_equal(pixels(confidence), frame.confidence)
        # the window's end in ROS time: the driver stamps each packet EPOCH_NS after its events
        assert stamp_ns(depth) == EPOCH_NS + frame.stamp_ns
        assert depth.header == info.header == confidence.header
    assert [f.stamp_ns for f in frames] == [20 * MS, 40 * MS, 60 * MS]
    headers = {stamp_ns(depth) for depth in got['image']}
    for name in ('points', 'image_color', 'image_color/compressed', 'image/compressedDepth',
                 'events', 'events_jpeg'):  # fmt: skip
        assert {stamp_ns(message) for message in got[name]} <= headers
        assert {message.header.frame_id for message in got[name]} == {FRAME}
    info, cloud, last = got['camera_info'][0], got['points'][-1], got['image'][-1]
    assert (info.width, info.height, info.k[0], info.k[2]) == (32, 24, 30.0, 15.5)
    assert list(info.d) == [0.0] * 5
    assert (cloud.width, cloud.height) == (last.width, last.height) == (32, 24)
    options = ObstacleOptions(0.0, 0.0, 5.0, 0.05, 2)
    for name, select in (('obstacles', obstacle_points), ('free_space', free_space_points)):
        sent = got[name][-1]
        frame = next(f for f in frames if EPOCH_NS + f.stamp_ns == stamp_ns(sent))
        expected = select(frame.depth_m, frame.confidence, node_rays(info), options)
        points = np.frombuffer(sent.data, np.float32).reshape(-1, 4)
        np.testing.assert_array_equal(points, expected)
        assert (sent.height, sent.is_dense) == (1, True)
    assert got['image_color'][-1].encoding == got['events'][-1].encoding == 'rgb8'


def test_beyond_range_is_published_as_unknown_on_request(graph, start):
    node = start(max_depth_m=0.1)  # all answers are beyond it
    depth = graph.listen(Image, '/depth_node/depth/image')
    driver = Driver(graph)
    driver.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)
    assert np.isposinf(pixels(depth[-1])).any()
    assert all(r.successful for r in node.set_parameters(overrides({'beyond_range': 'nan'})))
    del depth[:]
    driver.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)
    assert np.isnan(pixels(depth[-1])).all()


def test_live_parameters_change_the_outputs(graph, start):
    node = start()
    depth = graph.listen(Image, '/depth_node/depth/image')
    driver = Driver(graph)
    driver.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)
    assert (depth[-1].encoding, depth[-1].header.frame_id) == ('32FC1', FRAME)
    changes = overrides({'depth_encoding': '16UC1', 'frame_id': 'eye', 'stride_ms': 10})
    assert all(result.successful for result in node.set_parameters(changes))
    del depth[:]
    driver.send(4 * WINDOW_MS)
    assert graph.spin_until(lambda: len(depth) >= 4)
    assert {(d.encoding, d.header.frame_id) for d in depth} == {('16UC1', 'eye')}
    assert np.diff([stamp_ns(d) for d in depth]).tolist()[:3] == [10 * MS] * 3


def test_limits_change_without_a_new_start(graph, start):
    node = start()
    depth = graph.listen(Image, '/depth_node/depth/image')
    driver = Driver(graph)
    driver.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)
    estimator = node.pipeline.estimator
    assert node.set_parameters(overrides({'min_confidence': 1.0}))[0].successful
    del depth[:]
    driver.send(4 * WINDOW_MS)
    assert graph.spin_until(lambda: depth and np.isnan(np.frombuffer(depth[-1].data, '<f4')).all())
    assert node.pipeline.estimator is estimator
    assert node.set_parameters(overrides({'checkpoint': node.live.now.checkpoint}))[0].successful


def test_impossible_changes_are_refused_with_a_reason(start):
    node = start(streaming=False)
    refused = node.set_parameters(overrides({'min_confidence': 2.0, 'checkpoint': '/x'}))
    assert not any(result.successful for result in refused)
    assert 'min_confidence' in refused[0].reason
    assert 'unconfigured' in refused[1].reason
    assert node.live.now.min_confidence == 0.0
    (refused,) = node.set_parameters(overrides({'stride_ms': 25.0}))  # the checkpoint's is 20 ms
    assert (
        'stride_ms is 25, expected more than 0 and at most the window of 20 ms' in refused.reason
    )


def test_windows_of_too_many_steps_are_refused(start):
    node = start(streaming=True)
    (refused,) = node.set_parameters(overrides({'stride_ms': 10_000.0}))
    assert 'stride_ms is 10000, expected at most 128 time steps of 10 ms' in refused.reason


def test_stamps_rise_while_a_delay_is_worked_off(graph, start):
    start()
    depth = graph.listen(Image, '/depth_node/depth/image')

    def late(events):
        first_ms = int(events['t_ns'][0]) // MS
        delay_ms = max(0, 300 - 3 * first_ms)
        return event_packet(events, stamp_ns=EPOCH_NS + (first_ms + delay_ms) * MS)

    Driver(graph, pack=late).send(16 * WINDOW_MS)
    assert graph.spin_until(lambda: len(depth) == 15)
    stamps = [stamp_ns(message) for message in depth]
    assert (np.diff(stamps) > 0).all()
    assert stamps[-1] == EPOCH_NS + 15 * WINDOW_MS * MS


def test_nothing_is_computed_that_nobody_subscribes_to(graph, start):
    node = start()
    driver = Driver(graph)
    driver.send(4 * WINDOW_MS)
    assert graph.spin_until(lambda: node.pipeline.meters.unread == 16)
    assert says(graph, node, 'nobody subscribes')
    assert (node.pipeline.stream.packets, node.pipeline.estimator) == (0, None)
    depth = graph.listen(Image, '/depth_node/depth/image')
    assert graph.spin_until(lambda: node.outputs.wanted())
    driver.send(2 * WINDOW_MS + 5)
    assert graph.spin_until(lambda: len(depth) == 2)
    assert (node.pipeline.stream.packets, node.pipeline.stream.missing) == (9, 0)


@pytest.mark.parametrize('quick', [True, False])
def test_events_that_nobody_needs_are_counted_and_checked_but_not_decoded(graph, start, quick):
    node = start(quick=quick)
    reports = graph.listen(DiagnosticArray, '/diagnostics')
    driver = Driver(graph)
    assert driver.ready()

    def sends_and_says(message, words):
        del reports[:]
        driver.publisher.publish(message)
        return graph.spin_until(lambda: any(
            words in status.message for report in reports for status in report.status
        ))  # fmt: skip

    good = event_packet(some_events(0, 5))
    assert sends_and_says(good, 'messages/s, not decoded while no depth is wanted')
    assert says(graph, node, 'no depth: idle: nobody subscribes to an output')
    assert sends_and_says(
        good[:20], 'no message is usable: message of 20 bytes is shorter than its'
    )
    assert sends_and_says(event_packet(some_events(0, 5), encoding='evt9'), "'evt9' is unknown")
    assert node.pipeline.stream.packets == node.pipeline.stream.counts.events == 0
    assert node.pipeline.meters.unread == 3
    depth = graph.listen(Image, '/depth_node/depth/image')
    for times in range(3):  # each pause begins and ends anew
        assert graph.spin_until(lambda: node.polled is None)
        driver.send(2 * WINDOW_MS + 5)
        assert graph.spin_until(lambda times=times: len(depth) > times)
        node.set_parameters(overrides({'enabled': False}))
        assert graph.spin_until(lambda: node.polled is not None)
        node.set_parameters(overrides({'enabled': True}))
    assert node.trigger_deactivate() == SUCCESS
    assert node.polled is None


def test_legacy_array_is_found_by_its_type_and_carries_ros_time(graph, start):
    node = start()
    depth = graph.listen(Image, '/depth_node/depth/image')
    driver = Driver(graph, EventArray, event_array)
    driver.now_ms = 1000
    driver.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)
    assert node.events.type_name == 'dvs_msgs/msg/EventArray'
    assert stamp_ns(depth[0]) == 1020 * MS


def test_a_legacy_bag_played_as_live_gives_present_stamps(graph, start, tmp_path):
    with BagWriter(tmp_path / 'old') as writer:
        for k in range(10):  # event times are those of the recording, and stay so
            part = some_events(1000 + 5 * k, 1005 + 5 * k)
            writer.add_raw('/dvs/events', 'dvs_msgs/msg/EventArray', 10**9 + 5 * k * MS,
                           event_array(part))  # fmt: skip
    start()
    depth = graph.listen(Image, '/depth_node/depth/image')
    before_ns = graph.camera.get_clock().now().nanoseconds
    graph.add(ReplayNode(parameter_overrides=overrides(
        {'path': str(tmp_path / 'old'), 'wait_for_subscriber_s': 60.0}
    )))  # fmt: skip
    assert graph.spin_until(lambda: depth)
    assert before_ns < stamp_ns(depth[0]) <= graph.camera.get_clock().now().nanoseconds


def test_qos_and_topics_match_the_rviz_configuration(graph, start):
    node = start()
    offered = {p.topic_name: p.qos_profile for p in node.outputs.publishers.values()}
    types = {p.topic_name: p.msg_type.__name__ for p in node.outputs.publishers.values()}
    config = yaml.safe_load(shipped('config/depth.rviz').read_text())
    displays = [d for d in config['Visualization Manager']['Displays'] if 'Topic' in d]
    assert len(displays) == 5
    for display in displays:
        topic = display['Topic']
        qos = offered[topic['Value']]
        for policy in ('reliability', 'durability', 'history'):
            shown = topic[f'{policy.title()} Policy'].lower().replace(' ', '_')
            assert shown == getattr(qos, policy).name.lower()
        assert topic['Depth'] == qos.depth
        assert display['Class'].split('/')[1] == types[topic['Value']]


def test_a_wrong_qos_is_told_and_survived(graph, start):
    wrong = 'qos_overrides./events.subscription.reliability:=sometimes'
    node = start(cli_args=['--ros-args', '-p', wrong])
    graph.camera.create_publisher(EventPacket, 'events', RELIABLE)
    assert graph.spin_until(lambda: 'qos_overrides of /events' in node.events.problem)
    assert says(graph, node, 'qos_overrides of /events')


def test_qos_can_be_overridden(graph, start):
    overridden = {'/events.subscription.reliability': 'reliable',
                  '/events.subscription.depth': '7',
                  '/depth_node/depth/image.publisher.reliability': 'best_effort',
                  '/depth_node/depth/points.publisher.depth': '9'}  # fmt: skip
    given = [f'qos_overrides.{name}:={value}' for name, value in overridden.items()]
    node = start(cli_args=['--ros-args', *(word for item in given for word in ('-p', item))])
    depth = graph.listen(Image, '/depth_node/depth/image', BEST_EFFORT)
    for _ in range(2):
        graph.camera.create_publisher(EventPacket, 'events', RELIABLE)
        assert graph.spin_until(lambda: node.events.type_name)
        (taken,) = graph.camera.get_subscriptions_info_by_topic('/events')
        assert taken.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        assert node.get_parameter('qos_overrides./events.subscription.depth').value == 7
        assert node.outputs.publishers['cloud'].qos_profile.depth == 9
        offered = {n: p.qos_profile.reliability for n, p in node.outputs.publishers.items()}
        assert offered.pop('depth') == ReliabilityPolicy.BEST_EFFORT
        assert set(offered.values()) == {ReliabilityPolicy.RELIABLE}, 'of that topic alone'
        assert node.trigger_deactivate() == node.trigger_cleanup() == SUCCESS
        assert node.trigger_configure() == node.trigger_activate() == SUCCESS
    driver = Driver(graph, qos=RELIABLE)
    driver.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)


def test_who_asks_for_another_qos_is_told_once(graph, start, capfd):
    node = start(output_reliability='best_effort')
    graph.listen(Image, '/depth_node/depth/image', RELIABLE)
    graph.listen(Image, '/depth_node/depth/confidence', BEST_EFFORT)
    reports = graph.listen(DiagnosticArray, '/diagnostics')
    assert graph.spin_until(lambda: list(node.outputs.unreached()))
    assert graph.spin_until(lambda: len(reports) >= 5)
    log = capfd.readouterr().err
    told = '/depth_node/depth/image does not reach /camera: QoS asks for reliable messages'
    assert log.count(told) == 1
    assert 'confidence' not in log


@pytest.mark.parametrize('offers', [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize('asks', [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_qos_conflicts_are_of_what_is_asked_and_not_offered(offers, asks):
    def profile(reliable, latched):
        return QoSProfile(
            depth=1,
            reliability=[ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE][reliable],
            durability=[DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL][latched],
        )

    told = qos_conflict(profile(*offers), profile(*asks))
    assert ('best effort' in told) == (asks[0] > offers[0])
    assert ('volatile' in told) == (asks[1] > offers[1])


def test_events_that_do_not_come_because_of_their_qos_are_told(graph, start, capfd):
    asked = 'qos_overrides./events.subscription.reliability:=reliable'
    node = start(cli_args=['--ros-args', '-p', asked])
    graph.camera.create_publisher(EventPacket, 'events', BEST_EFFORT)
    assert graph.spin_until(lambda: node.events.type_name)
    reports = graph.listen(DiagnosticArray, '/diagnostics')
    assert graph.spin_until(lambda: len(reports) >= 3)
    assert capfd.readouterr().err.count('/events is not heard from /camera') == 1


def test_peers_of_another_qos_that_come_and_go_do_no_harm(graph, start):
    node = start(output_reliability='best_effort')
    peer = graph.stranger()
    for _ in range(10):
        asking = peer.create_subscription(Image, '/depth_node/depth/image', print, RELIABLE)
        assert node.trigger_deactivate() == node.trigger_cleanup() == SUCCESS
        assert node.trigger_configure() == node.trigger_activate() == SUCCESS
        graph.spin_for(0.05)
        peer.destroy_subscription(asking)
    assert node.state == 'active'


def test_without_the_quick_executor_the_plain_one_spins_and_the_log_says_so(
    graph, start, monkeypatch, log
):
    node = start(configure=False)
    monkeypatch.setitem(sys.modules, 'rclpy.experimental', None)
    assert isinstance(
        executor_for(node.live.now.executor, node.get_logger()), SingleThreadedExecutor
    )
    assert any('no events executor' in line for line in log.lines('WARN'))


def test_what_spins_the_node_can_be_chosen(graph, start):
    pytest.importorskip('rclpy.experimental')
    plain = start(configure=False, executor='plain')
    assert isinstance(
        executor_for(plain.live.now.executor, plain.get_logger()), SingleThreadedExecutor
    )
    plain.live.now = dataclasses.replace(plain.live.now, executor='auto')
    assert not isinstance(
        executor_for(plain.live.now.executor, plain.get_logger()), SingleThreadedExecutor
    )


def test_a_stderr_that_is_no_file_is_no_harm(graph, monkeypatch):
    monkeypatch.setattr(sys, 'stderr', io.StringIO())
    assert isinstance(quick_executor(), SingleThreadedExecutor)


def test_real_recording_passes_without_a_loss(graph, start, real_events):
    node = start(window_queue=1000)
    depth = graph.listen(Image, '/depth_node/depth/image')
    assert Driver(graph).ready()  # who listens before the playback begins hears its first packet
    path = str(real_events / 'test_events_1')
    player = graph.add(ReplayNode(parameter_overrides=overrides(
        {'path': path, 'rate': 4.0, 'wait_for_subscriber_s': 60.0}
    )))  # fmt: skip
    assert graph.spin_until(lambda: player.finished.is_set() and not len(node.pipeline.messages))
    assert graph.spin_until(lambda: node.pipeline.stream.packets == 517)
    stream = node.pipeline.stream
    assert (stream.counts.events, stream.counts.on) == (343_474, 125_183)
    assert (stream.missing, stream.skipped.total(), node.pipeline.messages.dropped) == (0, 0, 0)
    # 2.078 s in windows of 20 ms; the first and the last are not whole
    assert graph.spin_until(lambda: len(depth) == node.pipeline.meters.frames >= 102)
    assert node.pipeline.windows.dropped == 0


def test_services(graph, start, tmp_path):
    node = start(snapshot_dir=str(tmp_path / 'snaps'))
    depth = graph.listen(Image, '/depth_node/depth/image')
    early = graph.call(Trigger, '/depth_node/snapshot')
    assert not early.success
    assert 'no depth' in early.message
    driver = Driver(graph)
    driver.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)
    reply = graph.call(Trigger, '/depth_node/snapshot')
    assert reply.success
    saved = np.load(reply.message, allow_pickle=False)
    np.testing.assert_array_equal(saved['depth_m'], node.pipeline.last.frame.depth_m)
    assert saved['events']['t_ns'].max() < saved['window_ns'][1]
    assert len(list((tmp_path / 'snaps').glob('*.png'))) == 2
    assert graph.call(Trigger, '/depth_node/reset').success
    driver.send(WINDOW_MS)
    assert graph.spin_until(lambda: node.pipeline.meters.resets == 1)
    assert graph.call(SetBool, '/depth_node/set_enabled', data=False).success
    assert node.get_parameter('enabled').value is False
    assert says(graph, node, 'paused')
    meters, frames = node.pipeline.meters, node.pipeline.meters.frames
    driver.send(3 * WINDOW_MS)
    assert graph.spin_until(lambda: meters.messages + meters.unread == driver.now_ms // 5)
    assert meters.frames == frames


def test_snapshot_into_an_impossible_folder(graph, start, tmp_path):
    (tmp_path / 'file').write_text('')
    start(snapshot_dir=str(tmp_path / 'file' / 'below'))
    depth = graph.listen(Image, '/depth_node/depth/image')
    Driver(graph).send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)
    reply = graph.call(Trigger, '/depth_node/snapshot')
    assert not reply.success
    assert 'cannot write into' in reply.message


def test_a_full_disk_leaves_no_part_of_a_snapshot(graph, start, tmp_path, monkeypatch):
    node = start(snapshot_dir=str(tmp_path))
    depth = graph.listen(Image, '/depth_node/depth/image')
    Driver(graph).send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)

    def fill_the_disk(file, **arrays):
        file.write(b'some of it')
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(np, 'savez', fill_the_disk)
    reply = graph.call(Trigger, '/depth_node/snapshot')
    assert (reply.success, list(tmp_path.iterdir())) == (False, [])
    assert 'No space left on device' in reply.message
    assert node.state == 'active'


def test_debug_says_more(graph, start, log):
    node = start(configure=False)
    node.get_logger().set_level(LoggingSeverity.DEBUG)
    try:
        assert node.trigger_configure() == node.trigger_activate() == SUCCESS
        assert graph.spin_until(lambda: 'nobody publishes /events; engine: ' in log.read())
        assert any('configuring with DepthParameters(' in line for line in log.lines('DEBUG'))
        assert node.set_parameters(overrides({'cloud_stride': 3}))[0].successful
        assert graph.spin_until(lambda: 'cloud_stride is now 3' in log.read())
    finally:
        node.get_logger().set_level(LoggingSeverity.INFO)


def test_two_cameras_on_one_topic_are_told(graph, start):
    start()
    arrays = graph.listen(DiagnosticArray, '/diagnostics')
    for _ in range(2):
        Driver(graph)
    assert graph.spin_until(lambda: any(
        '2 publishers share the topic' in status.message
        for array in arrays for status in array.status
    ))  # fmt: skip


def test_the_log_says_once_why_there_is_no_depth_and_when_it_comes(graph, start, log):
    start()
    depth = graph.listen(Image, '/depth_node/depth/image')
    reports = graph.listen(DiagnosticArray, '/diagnostics')
    assert graph.spin_until(lambda: len(reports) >= 5)
    assert log.read().count('no depth: nobody publishes /events') == 1
    # the others start as well: nothing to warn of but these weights
    assert [line for line in log.lines('WARN', 'ERROR') if 'untrained' not in line] == []
    driver = Driver(graph)
    for maps in (1, 3, 5):
        driver.send(2 * WINDOW_MS)
        assert graph.spin_until(lambda maps=maps: len(depth) == maps)
        del reports[:]
        assert graph.spin_until(lambda: len(reports) >= 2)
    assert log.read().count('publishing depth: ') == 1


def test_diagnostics_say_what_the_node_does(graph, start):
    node = start(energy_period_s=0.001)
    arrays = graph.listen(DiagnosticArray, '/diagnostics')
    depth = graph.listen(Image, '/depth_node/depth/image')
    driver, windows = Driver(graph), []

    def is_measured():
        """Sends on, for energy is measured from the second picture on, and maps may go by."""
        if len(depth) >= len(windows) - 1:
            windows.append(driver.send(WINDOW_MS))
        return node.energy.report is not None

    def values():
        return {status.name: {pair.key: pair.value for pair in status.values}
                for status in arrays[-1].status}  # fmt: skip

    def all_is_told():
        return arrays and 'spike rate in the network' in values()['depth_node: engine'] and (
            int(values()['depth_node: input']['events']) == sum(map(len, windows))
        )  # fmt: skip

    assert graph.spin_until(is_measured)
    assert graph.spin_until(all_is_told)
    reports, values = {status.name: status for status in arrays[-1].status}, values()
    assert 'untrained' in reports['depth_node: engine'].message
    engine = values['depth_node: engine']
    assert engine['depth image'] == '32x24'
    encoder, head = engine['energy per depth map uJ (encoder, head)'].split(', ')
    assert float(encoder) > 0 < float(head)
    assert 0 < float(engine['spike rate in the network']) < 1
    events = values['depth_node: input']
    assert events['missing packets'] == '0'
    assert {'events/s', 'ON share', 'sequence gaps', 'clock offset s', 'clock drift ppm',
            'unknown_codes', 'backward_steps', 'max_backward_ns'} <= set(events)  # fmt: skip
    assert {'decode ms (median, p99)', 'accumulate ms (median, p99)',
            'inference ms (median, p99)', 'publish ms (median, p99)', 'latency ms (median, p99)',
            'dropped windows', 'dropped messages', 'window queue',
            'input spike rate'} <= set(values['depth_node: work'])  # fmt: skip


def test_autostart_needs_no_manager(graph, start):
    node = start(configure=False, autostart=True)
    assert graph.spin_until(lambda: node.state == 'active')


def test_diagnostics_say_that_it_is_being_configured(graph, start):
    arrays = graph.listen(DiagnosticArray, '/diagnostics')
    node = start(configure=False)
    assert graph.spin_until(lambda: arrays)
    assert node.trigger_configure() == SUCCESS
    assert graph.spin_until(lambda: any(
        status.message == 'no depth: the node is configuring'
        for array in arrays for status in array.status
    ))  # fmt: skip


def test_parameters_that_are_not_live_are_read_when_it_is_configured(graph, start):
    node = start(configure=False, diagnostics_period_s=60.0)
    arrays = graph.listen(DiagnosticArray, '/diagnostics')
    changes = overrides({'diagnostics_period_s': 0.1, 'output_queue': 3, 'message_queue': 2})
    assert all(result.successful for result in node.set_parameters(changes))
    assert node.trigger_configure() == node.trigger_activate() == SUCCESS
    assert node.outputs.publishers['depth'].qos_profile.depth == 3
    assert graph.spin_until(lambda: len(arrays) >= 5)
    assert node.trigger_deactivate() == node.trigger_cleanup() == SUCCESS
    changes = overrides({'output_queue': 4, 'output_reliability': 'best_effort'})
    assert all(result.successful for result in node.set_parameters(changes))
    assert node.trigger_configure() == SUCCESS
    qos = node.outputs.publishers['depth'].qos_profile
    assert (qos.depth, qos.reliability) == (4, ReliabilityPolicy.BEST_EFFORT)


def test_a_manager_may_do_it(graph, start):
    node = start(configure=False)
    graph.spin_for(0.5)
    assert node.state == 'unconfigured'
    for transition, state in ((Transition.TRANSITION_CONFIGURE, 'inactive'),
                              (Transition.TRANSITION_ACTIVATE, 'active'),
                              (Transition.TRANSITION_DEACTIVATE, 'inactive'),
                              (Transition.TRANSITION_CLEANUP, 'unconfigured')):  # fmt: skip
        request = Transition(id=transition)
        assert graph.call(ChangeState, '/depth_node/change_state', transition=request).success
        assert node.state == state
    assert node.outputs is None


@pytest.mark.parametrize('quick', [True, False])
def test_transitions_that_do_not_apply_change_nothing(graph, start, quick):
    node = start(configure=False, quick=quick)

    def request(transition):
        asked = Transition(id=transition)
        return graph.call(ChangeState, '/depth_node/change_state', transition=asked).success

    assert not request(Transition.TRANSITION_ACTIVATE)
    assert node.state == 'unconfigured'
    assert request(Transition.TRANSITION_CONFIGURE)
    assert request(Transition.TRANSITION_ACTIVATE)
    for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE,
                       Transition.TRANSITION_CLEANUP, 77):  # fmt: skip
        assert not request(transition)
        assert node.trigger_configure() != SUCCESS
        assert node.state == 'active'
    depth = graph.listen(Image, '/depth_node/depth/image')
    Driver(graph).send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)


def test_an_autostart_that_a_manager_preceded_changes_nothing(graph, start):
    node = start(autostart=True)
    assert graph.spin_until(lambda: not node._autostart_due)
    graph.spin_for(0.3)
    assert node.state == 'active'


def test_it_works_again_after_a_rest(graph, start):
    node = start()
    depth = graph.listen(Image, '/depth_node/depth/image')
    driver = Driver(graph)
    driver.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)
    assert node.trigger_deactivate() == SUCCESS
    assert node.pipeline is None
    assert node.trigger_activate() == SUCCESS
    del depth[:]
    driver.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)
    assert node.trigger_deactivate() == SUCCESS
    assert node.trigger_cleanup() == SUCCESS
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    del depth[:]
    driver.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)


def test_what_is_destroyed_leaves_the_graph_at_once(graph, start):
    node = start()
    topic = '/depth_node/transition_event'
    assert graph.spin_until(lambda: graph.camera.count_publishers(topic) == 1)
    graph.quick.remove_node(node)
    graph.nodes.remove(node)
    node.destroy_node()
    assert graph.camera.get_node_names() == ['camera']
    assert graph.camera.count_publishers(topic) == 0


def test_main_says_what_is_wrong_and_ends(capsys):
    with pytest.raises(SystemExit) as end:
        depth_node.main(['--ros-args', '-p', 'cloud_stride:=0'])
    assert end.value.code == 1
    assert 'cloud_stride is 0, expected 1 to 64' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        depth_node.main(['--ros-args', '--params-file', '/nowhere.yaml'])
    assert 'the ROS arguments cannot be used: ' in capsys.readouterr().err
    assert not rclpy.ok()
