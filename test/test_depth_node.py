"""The depth node in a real graph: what it publishes, and how it takes bad input."""

import dataclasses
import threading
import time

import numpy as np
import pytest
import rclpy
import torch
import yaml
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
    event_array,
    event_packet,
    overrides,
    some_events,
)
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_srvs.srv import SetBool, Trigger

from spike_depth_ros.camera import Camera
from spike_depth_ros.config import SpikeConfig
from spike_depth_ros.estimator import Estimator
from spike_depth_ros.model.checkpoint import save_checkpoint, untrained_checkpoint
from spike_depth_ros.ros import depth_node, messages
from spike_depth_ros.ros.depth_node import DepthNode
from spike_depth_ros.ros.probe import stamp_ns, to_array

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
WINDOW_MS = 20
CAMERA = Camera(WIDTH, HEIGHT, 60.0, 60.0, 31.5, 23.5, 'plumb_bob', (0.05, 0.0, 0.0, 0.0, 0.0))


@pytest.fixture(scope='module')
def checkpoint():
    """Untrained, for windows of 20 ms; sensors of 64 columns are binned 2x2."""
    torch.set_num_threads(1)
    spikes = SpikeConfig(window_ms=WINDOW_MS, steps=2, max_width_px=32)
    return dataclasses.replace(untrained_checkpoint('tiny'), spikes=spikes)


@pytest.fixture(scope='module')
def checkpoint_file(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp('models') / 'tiny.safetensors'
    save_checkpoint(path, checkpoint)
    return path


@pytest.fixture
def start(graph, checkpoint_file):
    """Makes a depth node and brings it to active, unless told otherwise."""

    def start(activate=True, configure=True, **values):
        given = {'checkpoint': str(checkpoint_file), 'num_threads': 1, 'autostart': False,
                 'diagnostics_period_s': 0.1, 'max_latency_ms': 10_000.0,
                 'window_queue': 100, **values}  # fmt: skip
        node = graph.add(DepthNode(parameter_overrides=overrides(given)))
        if configure:
            assert node.trigger_configure() == SUCCESS, node.last_error
            if activate:
                assert node.trigger_activate() == SUCCESS
        return node

    return start


class Driver:
    """A camera driver: publishes packets of 5 ms each."""

    def __init__(self, graph, message_type=EventPacket, pack=event_packet, node=None):
        self.graph, self.pack, self.now_ms = graph, pack, 0
        node = node or graph.camera
        self.publisher = node.create_publisher(message_type, 'events', BEST_EFFORT)

    def ready(self):
        return self.graph.spin_until(lambda: self.publisher.get_subscription_count() > 0)

    def send(self, duration_ms):
        """Publishes the next `duration_ms` of events and returns them."""
        assert self.ready(), 'the node does not subscribe'
        sent = []
        for start_ms in range(self.now_ms, self.now_ms + duration_ms, 5):
            sent.append(some_events(start_ms, start_ms + 5))
            self.publisher.publish(self.pack(sent[-1]))
            self.graph.executor.spin_once(timeout_sec=0)
        self.now_ms += duration_ms
        return np.concatenate(sent)


def verdict(graph, node, words):
    """Waits until /diagnostics gives the sentence."""
    return graph.spin_until(lambda: words in node.health.verdict()[1])


# ---------------------------------------------------------------------- what it publishes


def test_outputs_of_one_frame_belong_together_and_equal_the_estimators(graph, start, checkpoint):
    node = start(cloud_rate_hz=0.0, preview_rate_hz=0.0, cloud_stride=1)
    topics = {'image': Image, 'camera_info': CameraInfo, 'points': PointCloud2,
              'confidence': Image, 'image_color': Image,
              'image/compressedDepth': CompressedImage}  # fmt: skip
    got = {name: graph.listen(kind, f'/depth_node/depth/{name}') for name, kind in topics.items()}
    got['events'] = graph.listen(Image, '/depth_node/events/image')
    node.camera = CAMERA
    assert graph.spin_until(lambda: all(p.get_subscription_count() for p in
                                        node.outputs.publishers.values()))  # fmt: skip
    events = Driver(graph).send(3 * WINDOW_MS + 5)
    frames = Estimator(checkpoint, HEIGHT, WIDTH, CAMERA, engine=node.engine).push(events)
    assert len(frames) == 3
    each = ('image', 'camera_info', 'confidence')
    assert graph.spin_until(lambda: all(got.values()) and {len(got[n]) for n in each} == {3})
    for frame, depth, info, confidence in zip(
        frames, got['image'], got['camera_info'], got['confidence'], strict=True
    ):
        np.testing.assert_array_equal(to_array(depth), frame.depth_m)
        np.testing.assert_array_equal(to_array(confidence), frame.confidence)
        # the window's end in ROS time: the driver stamps each packet EPOCH_NS after its events
        assert stamp_ns(depth) == EPOCH_NS + frame.stamp_ns
        assert depth.header == info.header == confidence.header
    assert [f.stamp_ns for f in frames] == [20 * MS, 40 * MS, 60 * MS]
    headers = {stamp_ns(depth) for depth in got['image']}
    for name in ('points', 'image_color', 'image/compressedDepth', 'events'):
        assert {stamp_ns(message) for message in got[name]} <= headers
        assert {message.header.frame_id for message in got[name]} == {FRAME}
    info, cloud, last = got['camera_info'][0], got['points'][-1], got['image'][-1]
    assert (info.width, info.height, info.k[0], info.k[2]) == (32, 24, 30.0, 15.5)
    assert list(info.d) == [0.0] * 5
    assert (cloud.width, cloud.height) == (last.width, last.height) == (32, 24)
    assert got['image_color'][-1].encoding == got['events'][-1].encoding == 'rgb8'


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


def test_impossible_changes_are_refused_with_a_reason(start):
    node = start()
    refused = node.set_parameters(overrides({'min_confidence': 2.0, 'checkpoint': '/x'}))
    assert not any(result.successful for result in refused)
    assert 'min_confidence' in refused[0].reason
    assert 'unconfigured' in refused[1].reason
    assert node.parameters.min_confidence == 0.0


def test_nothing_is_computed_that_nobody_subscribes_to(graph, start):
    node = start()
    driver = Driver(graph)
    driver.send(4 * WINDOW_MS)
    assert graph.spin_until(lambda: node.pipeline.stream.packets == 16)
    assert verdict(graph, node, 'nobody subscribes')
    assert (node.pipeline.meters.frames, node.pipeline.estimator) == (0, None)
    depth = graph.listen(Image, '/depth_node/depth/image')
    assert graph.spin_until(lambda: node.outputs.wanted())
    driver.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)


def test_legacy_array_is_found_by_its_type_and_carries_ros_time(graph, start):
    node = start()
    depth = graph.listen(Image, '/depth_node/depth/image')
    driver = Driver(graph, EventArray, event_array)
    driver.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)
    assert node.events.type_name == 'dvs_msgs/msg/EventArray'
    assert stamp_ns(depth[0]) == 20 * MS


def test_qos_and_topics_match_the_rviz_configuration(graph, start):
    node = start()
    offered = {p.topic_name: p.qos_profile for p in node.outputs.publishers.values()}
    types = {p.topic_name: p.msg_type.__name__ for p in node.outputs.publishers.values()}
    config = yaml.safe_load(depth_node.shipped('config/depth.rviz').read_text())
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


# ---------------------------------------------------------------------- services, diagnostics


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
    assert verdict(graph, node, 'paused')
    frames = node.pipeline.meters.frames
    driver.send(3 * WINDOW_MS)
    assert graph.spin_until(lambda: not len(node.pipeline.messages))
    assert node.pipeline.meters.frames == frames


def test_snapshot_into_an_impossible_folder(graph, start, tmp_path):
    (tmp_path / 'file').write_text('')
    start(snapshot_dir=str(tmp_path / 'file' / 'below'))
    depth = graph.listen(Image, '/depth_node/depth/image')
    Driver(graph).send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)
    reply = graph.call(Trigger, '/depth_node/snapshot')
    assert not reply.success
    assert 'cannot write into' in reply.message


def test_diagnostics_say_what_the_node_does(graph, start):
    start(min_confidence=0.0)
    arrays = graph.listen(DiagnosticArray, '/diagnostics')
    depth = graph.listen(Image, '/depth_node/depth/image')
    Driver(graph).send(4 * WINDOW_MS)
    assert graph.spin_until(lambda: len(depth) >= 3)
    del arrays[:]
    assert graph.spin_until(lambda: arrays)
    reports = {status.name: status for status in arrays[-1].status}
    values = {name: {pair.key: pair.value for pair in status.values}
              for name, status in reports.items()}  # fmt: skip
    assert 'untrained' in reports['depth_node: engine'].message
    assert values['depth_node: engine']['depth image'] == '32x24'
    events = values['depth_node: input']
    assert (events['events'], events['missing packets']) == ('6400', '0')
    assert {'events/s', 'ON share', 'sequence gaps', 'clock offset s', 'clock drift ppm',
            'unknown_codes', 'backward_steps', 'max_backward_ns'} <= set(events)  # fmt: skip
    assert {'decode ms (median, p99)', 'accumulate ms (median, p99)',
            'inference ms (median, p99)', 'publish ms (median, p99)', 'latency ms (median, p99)',
            'dropped windows', 'dropped messages', 'window queue',
            'input spike rate'} <= set(values['depth_node: work'])  # fmt: skip


# ---------------------------------------------------------------------- life


def test_autostart_needs_no_manager(graph, start):
    node = start(configure=False, autostart=True)
    assert graph.spin_until(lambda: node.state == 'active')


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


def test_a_second_activate_changes_nothing(graph, start):
    node = start()
    depth = graph.listen(Image, '/depth_node/depth/image')
    request = Transition(id=Transition.TRANSITION_ACTIVATE)
    assert not graph.call(ChangeState, '/depth_node/change_state', transition=request).success
    assert node.state == 'active'
    Driver(graph).send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)


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


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(('name', 'value', 'words'), [
    ('checkpoint', '/nowhere.safetensors', '/nowhere.safetensors'),
    ('engine', 'steam', "engine is 'steam', expected one of"),
    ('camera_info_url', 'file:///nowhere.yaml', 'cannot read the calibration'),
    ('min_depth_m', 50.0, 'min_depth_m'),
])  # fmt: skip
def test_what_can_fail_fails_in_configure_and_can_be_mended(graph, start, name, value, words):
    default = getattr(depth_node.DepthParameters, name)
    node = start(configure=False, autostart=True, max_depth_m=40.0, **{name: value})
    assert graph.spin_until(lambda: node.last_error)
    assert node.state == 'unconfigured'
    assert words in node.last_error
    assert words in node.health.verdict()[1]
    if name == 'checkpoint':
        return  # the next test mends it
    assert node.set_parameters([Parameter(name, value=default)])[0].successful
    assert graph.spin_until(lambda: node.state == 'active')
    assert node.last_error == ''


def test_a_damaged_checkpoint_is_refused_until_a_good_one_is_given(
    graph, start, checkpoint_file, tmp_path
):
    damaged = tmp_path / 'damaged.safetensors'
    damaged.write_bytes(checkpoint_file.read_bytes()[:-100])
    node = start(configure=False, checkpoint=str(damaged))
    assert node.trigger_configure() == FAILURE
    assert 'damaged.safetensors' in node.last_error
    assert node.set_parameters(overrides({'checkpoint': str(checkpoint_file)}))[0].successful
    assert node.trigger_configure() == SUCCESS


def test_a_checkpoint_for_another_input_is_refused(graph, start, checkpoint, tmp_path):
    other = tmp_path / 'other.safetensors'
    spikes = dataclasses.replace(checkpoint.spikes, multiple_px=4)  # not what the network takes
    save_checkpoint(other, dataclasses.replace(checkpoint, spikes=spikes))
    node = start(configure=False, checkpoint=str(other))
    assert node.trigger_configure() == FAILURE
    assert 'multiples of 8' in node.last_error


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU here')
def test_cuda_without_a_gpu_is_refused(start):
    node = start(configure=False, device='cuda')
    assert node.trigger_configure() == FAILURE
    assert 'no CUDA GPU' in node.last_error


def test_a_calibration_of_another_size_gives_no_depth_until_the_right_one_comes(graph, start):
    node = start()
    depth = graph.listen(Image, '/depth_node/depth/image')
    infos = graph.camera.create_publisher(CameraInfo, 'camera_info', RELIABLE)
    header = messages.make_header(0, FRAME)
    wrong = dataclasses.replace(CAMERA, width=128)
    driver = Driver(graph)
    assert graph.spin_until(lambda: infos.get_subscription_count() > 0)
    infos.publish(messages.camera_info(header, wrong))
    assert graph.spin_until(lambda: node.camera == wrong)
    driver.send(2 * WINDOW_MS)
    assert verdict(graph, node, 'calibration is for 128x48, the events come from a 64x48 sensor')
    assert not depth
    infos.publish(messages.camera_info(header, CAMERA))
    assert graph.spin_until(lambda: node.camera == CAMERA)
    driver.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)
    infos.publish(CameraInfo())  # uncalibrated: said, and the good one stays
    graph.spin_for(0.1)
    assert node.camera == CAMERA


def test_without_a_calibration(graph, start):
    node = start(require_calibration=True)
    depth = graph.listen(Image, '/depth_node/depth/image')
    infos = graph.listen(CameraInfo, '/depth_node/depth/camera_info')
    driver = Driver(graph)
    driver.send(2 * WINDOW_MS)
    assert verdict(graph, node, 'no calibration yet')
    assert not depth
    node.set_parameters(overrides({'require_calibration': False, 'assumed_hfov_deg': 90.0}))
    driver.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth and infos)
    assert infos[0].k[0] == pytest.approx(16.0)  # 32 columns see 90 degrees: f = 16


def test_a_topic_of_the_wrong_type(graph, start):
    node = start()
    graph.camera.create_publisher(Image, 'events', RELIABLE)
    assert verdict(graph, node, '/events has the type sensor_msgs/msg/Image, expected one of')


def test_a_type_whose_package_is_missing(graph, start):
    node = start(event_type='prophesee_event_msgs/msg/EventArray')
    graph.camera.create_publisher(EventPacket, 'events', RELIABLE)
    assert verdict(graph, node, 'prophesee_event_msgs is not installed')
    assert node.state == 'active'


def test_messages_that_are_of_no_use_are_counted_and_named(graph, start):
    node = start()
    depth = graph.listen(Image, '/depth_node/depth/image')
    driver = Driver(graph)
    assert driver.ready()
    good = event_packet(some_events(0, 5))
    bad = {'truncated': good[:-9],
           'unknown_encoding': event_packet(some_events(0, 5), encoding='x'),
           'geometry': event_packet(some_events(0, 5), height=0)}  # fmt: skip
    for cdr in bad.values():
        driver.publisher.publish(cdr)
    assert graph.spin_until(lambda: sum(node.pipeline.stream.skipped.values()) == 3)
    assert dict(node.pipeline.stream.skipped) == dict.fromkeys(bad, 1)
    assert node.pipeline.faults == 0
    driver.publisher.publish(event_packet(some_events(0, 5), height=HEIGHT // 2))
    driver.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)
    assert node.pipeline.stream.counts.out_of_bounds > 0


def test_sensor_time_that_jumps_back_starts_anew(graph, start):
    node = start()
    depth = graph.listen(Image, '/depth_node/depth/image')
    driver = Driver(graph)
    driver.now_ms = 5000
    driver.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)
    driver.now_ms = 0  # the camera restarted, or the bag began again
    del depth[:]
    driver.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)
    assert node.pipeline.clock.jumps == 1
    assert stamp_ns(depth[0]) == EPOCH_NS + 20 * MS


def test_ros_time_that_jumps_back_starts_anew(graph, start):
    node = start(use_sim_time=True)
    graph.listen(Image, '/depth_node/depth/image')
    clock = graph.camera.create_publisher(Clock, '/clock', RELIABLE)
    driver = Driver(graph)
    assert driver.ready()

    def show(seconds):
        clock.publish(Clock(clock=messages.make_time(seconds * 1_000_000_000)))
        return graph.spin_until(lambda: node.get_clock().now().nanoseconds == seconds * 10**9)

    assert graph.spin_until(lambda: clock.get_subscription_count() > 0)
    assert show(100)
    driver.send(WINDOW_MS)
    assert graph.spin_until(lambda: node.pipeline.stream.packets == 4)
    resets = node.pipeline.meters.resets
    assert show(50)
    driver.send(WINDOW_MS)
    assert graph.spin_until(lambda: node.pipeline.meters.resets == resets + 1)


def test_a_publisher_that_dies_and_returns(graph, start):
    node = start()
    depth = graph.listen(Image, '/depth_node/depth/image')
    driver = Driver(graph)
    driver.now_ms = 1000
    driver.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)
    graph.camera.destroy_publisher(driver.publisher)
    assert verdict(graph, node, 'nobody publishes /events')
    del depth[:]
    again = Driver(graph)
    again.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)
    graph.camera.destroy_publisher(again.publisher)
    assert verdict(graph, node, 'nobody publishes /events')
    other = Driver(
        graph, EventArray, event_array, graph.stranger()
    )  # it may even return as another type
    del depth[:]
    other.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)


class SlowEngine:
    """An engine that is busy until it is let go."""

    device = 'slow'

    def __init__(self):
        self.busy, self.go_on = threading.Event(), threading.Event()

    def infer(self, spikes, state):
        self.busy.set()
        self.go_on.wait(10.0)
        return np.zeros((3, *spikes.shape[2:]), np.float32), None


def test_shutdown_in_the_middle_of_inference(graph, start, monkeypatch):
    node = start()
    node.engine = SlowEngine()
    monkeypatch.setattr(depth_node, 'STOP_TIMEOUT_S', 0.2)
    graph.listen(Image, '/depth_node/depth/image')
    Driver(graph).send(3 * WINDOW_MS)
    assert graph.spin_until(node.engine.busy.is_set)
    engine, workers = node.engine, node.pipeline.workers
    assert node.trigger_shutdown() == SUCCESS
    assert node.state == 'finalized'
    engine.go_on.set()
    assert all(worker.join(5.0) for worker in workers)


def test_a_slow_engine_drops_the_oldest_and_stays_bounded(graph, start):
    node = start(window_queue=2)
    node.engine = SlowEngine()
    depth = graph.listen(Image, '/depth_node/depth/image')
    driver = Driver(graph)
    driver.send(WINDOW_MS + 5)
    assert graph.spin_until(node.engine.busy.is_set)
    driver.send(9 * WINDOW_MS)  # nine more windows: two wait
    assert graph.spin_until(lambda: node.pipeline.windows.dropped == 7)
    assert len(node.pipeline.windows) == 2
    node.engine.go_on.set()
    assert graph.spin_until(lambda: len(depth) == 3)
    assert [(stamp_ns(d) - EPOCH_NS) // MS for d in depth] == [20, 180, 200]


def test_an_engine_that_fails_deactivates_the_node_with_a_reason(graph, start):
    node = start()

    class Broken:
        device = 'broken'

        def infer(self, spikes, state):
            raise RuntimeError('out of smoke')

    good, node.engine = node.engine, Broken()
    depth = graph.listen(Image, '/depth_node/depth/image')
    driver = Driver(graph)
    driver.send(5 * WINDOW_MS)
    assert graph.spin_until(lambda: node.state == 'inactive')
    assert 'out of smoke' in node.health.verdict()[1]
    node.engine = good
    assert node.trigger_activate() == SUCCESS
    driver.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)
    assert 'out of smoke' not in node.health.verdict()[1]


def test_main_says_what_is_wrong_and_ends(capsys):
    with pytest.raises(SystemExit) as end:
        depth_node.main(['--ros-args', '-p', 'cloud_stride:=0'])
    assert end.value.code == 1
    assert 'cloud_stride is 0, expected 1 to 64' in capsys.readouterr().err
    assert not rclpy.ok()


def test_main_ends_on_interrupt(checkpoint_file):
    timer = threading.Timer(1.0, rclpy.shutdown)
    timer.start()
    begin_s = time.monotonic()
    depth_node.main(['--ros-args', '-p', f'checkpoint:={checkpoint_file}'])
    assert time.monotonic() - begin_s < 10.0
