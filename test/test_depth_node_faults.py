"""The depth node in a real graph: how it takes bad input."""

import dataclasses
import threading

import numpy as np
import pytest
import torch
from depth_node_fixtures import WINDOW_MS
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from dvs_msgs.msg import EventArray
from graph import (
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
    verdict,
)
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_srvs.srv import Trigger

from spike_depth_ros.estimation.estimator import DepthEstimator, EstimatorOptions
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.network.checkpoint import save_checkpoint
from spike_depth_ros.ros import (
    calibration,
    condition_log,
    depth_node,
    energy_meter,
    messages,
    queues,
)
from spike_depth_ros.ros.inputs import InputError, message_class
from spike_depth_ros.ros.loaded_network import LoadedNetwork
from spike_depth_ros.ros.probe import stamp_ns
from spike_depth_ros.ros.queues import MAX_FAULTS

pytestmark = pytest.mark.usefixtures('quiet_log')

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
CAMERA = Camera(WIDTH, HEIGHT, 60.0, 60.0, 31.5, 23.5, 'plumb_bob', (0.05, 0.0, 0.0, 0.0, 0.0))


@pytest.mark.parametrize(('name', 'value', 'words'), [
    ('checkpoint', '/nowhere.safetensors', '/nowhere.safetensors'),
    ('camera_info_url', 'file:///nowhere.yaml', 'cannot read the calibration'),
    ('camera_info_url', 'package://nobodys_package/eye.yaml', 'not installed here'),
    ('min_depth_m', 50.0, 'min_depth_m'),
    ('stride_ms', 25.0, 'at most the window of 20 ms'),
])  # fmt: skip
def test_what_can_fail_fails_in_configure_and_can_be_mended(graph, start, name, value, words):
    default = getattr(depth_node.DepthParameters, name)
    given = {'max_depth_m': 40.0, 'streaming': False, name: value}
    node = start(configure=False, autostart=True, **given)
    assert graph.spin_until(lambda: node.last_error)
    assert node.state == 'unconfigured'
    assert words in node.last_error
    assert words in verdict(node).message
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
    assert graph.spin_until(lambda: node.calibration.camera == wrong)
    driver.send(2 * WINDOW_MS)
    assert says(graph, node, 'calibration is for 128x48, the events come from a 64x48 sensor')
    assert not depth
    infos.publish(messages.camera_info(header, CAMERA))
    assert graph.spin_until(lambda: node.calibration.camera == CAMERA)
    driver.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)
    infos.publish(CameraInfo())  # uncalibrated: said, and the good one stays
    graph.spin_for(0.1)
    assert node.calibration.camera == CAMERA


def test_without_a_calibration(graph, start, log):
    node = start(require_calibration=True)
    depth = graph.listen(Image, '/depth_node/depth/image')
    infos = graph.listen(CameraInfo, '/depth_node/depth/camera_info')
    driver = Driver(graph)
    driver.send(2 * WINDOW_MS)
    assert says(graph, node, 'no calibration yet: nothing came on /camera_info')
    assert graph.spin_until(lambda: 'no calibration yet: nothing came' in log.read())
    assert not depth
    uncalibrated = graph.camera.create_publisher(CameraInfo, 'camera_info', RELIABLE)
    assert graph.spin_until(lambda: uncalibrated.get_subscription_count() > 0)
    uncalibrated.publish(CameraInfo(width=WIDTH, height=HEIGHT))
    driver.send(2 * WINDOW_MS)
    sentence = 'no calibration yet: camera_info: focal length is (0.0, 0.0) px'
    assert says(graph, node, sentence)
    assert graph.spin_until(lambda: sentence in log.read())
    assert log.read().count('no calibration yet: nothing came') == 1
    assert log.read().count(sentence) == 1
    graph.camera.destroy_publisher(uncalibrated)
    assert graph.spin_until(lambda: node.count_publishers('camera_info') == 0)
    node.set_parameters(overrides({'require_calibration': False, 'assumed_hfov_deg': 90.0}))
    driver.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth and infos)
    assert infos[0].k[0] == pytest.approx(16.0)  # 32 columns see 90 degrees: f = 16


def test_a_calibration_that_is_announced_is_awaited(graph, start, monkeypatch):
    monkeypatch.setattr(calibration, 'GRACE_S', 60.0)
    graph.camera.create_publisher(CameraInfo, '/eye/info', RELIABLE)
    node = start(cli_args=['--ros-args', '-r', 'camera_info:=/eye/info'])
    assert graph.spin_until(lambda: node.count_publishers('/eye/info') > 0)
    graph.listen(Image, '/depth_node/depth/image')
    Driver(graph).send(WINDOW_MS)
    assert says(graph, node, 'no calibration yet: nothing came on /eye/info')


def test_a_calibration_that_was_published_once_before(graph, start):
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    infos = graph.camera.create_publisher(CameraInfo, 'camera_info', latched)
    infos.publish(messages.camera_info(messages.make_header(0, FRAME), CAMERA))
    node = start()
    assert graph.spin_until(lambda: node.calibration.camera == CAMERA)


def test_publishers_that_cannot_be_made_leave_none(graph, start):
    wrong = 'qos_overrides./depth_node/depth/points.publisher.reliability:=sometimes'
    node = start(configure=False, cli_args=['--ros-args', '-p', wrong])
    for _ in range(2):
        assert node.trigger_configure() == FAILURE
        assert 'cannot configure: ' in node.last_error
        assert not node.get_publishers_info_by_topic('/depth_node/depth/image')


def test_a_snapshot_into_the_home_of_nobody(graph, start):
    start(snapshot_dir='~nosuchuser/x')
    depth = graph.listen(Image, '/depth_node/depth/image')
    Driver(graph).send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)
    assert 'cannot write into ~nosuchuser' in graph.call(Trigger, '/depth_node/snapshot').message


def test_a_topic_of_the_wrong_type(graph, start):
    node = start()
    graph.camera.create_publisher(Image, 'events', RELIABLE)
    assert says(graph, node, '/events has the type sensor_msgs/msg/Image, expected dv_ros2_msgs')


def test_a_topic_of_another_type_than_the_parameter_says(graph, start):
    node = start(event_type='event_camera_msgs/msg/EventPacket')
    graph.camera.create_publisher(EventArray, 'events', RELIABLE)
    assert says(graph, node, 'has the type dvs_msgs/msg/EventArray, expected event_camera_msgs')


def test_a_type_whose_package_is_missing(start):
    node = start(configure=False, event_type='prophesee_event_msgs/msg/EventArray')
    assert node.trigger_configure() == FAILURE
    assert 'package prophesee_event_msgs is not installed' in node.last_error
    with pytest.raises(InputError, match='event_camera_msgs has no message Parcel'):
        message_class('event_camera_msgs/msg/Parcel')


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

    def has_answered():
        driver.send(WINDOW_MS)
        return depth

    assert graph.spin_until(has_answered), 'by the true size, once the other one is over'
    assert node.pipeline.stream.counts.out_of_bounds > 0


def test_a_sensor_of_another_size_than_the_messages_say_is_told(graph, start):
    start()
    graph.listen(Image, '/depth_node/depth/image')
    arrays = graph.listen(DiagnosticArray, '/diagnostics')
    driver = Driver(graph, pack=lambda events: event_packet(events, height=HEIGHT // 2))
    driver.send(WINDOW_MS)
    assert graph.spin_until(lambda: any(
        'events lie off the sensor' in status.message
        for array in arrays for status in array.status
    ))  # fmt: skip


def test_packets_without_events_change_nothing(graph, start):
    node = start()
    depth = graph.listen(Image, '/depth_node/depth/image')
    driver = Driver(graph)
    empty = event_packet(some_events(0, 5), payload=np.empty(0, np.uint8))
    for _ in range(2):
        driver.send(WINDOW_MS)
        driver.publisher.publish(empty)
    driver.send(5)
    assert graph.spin_until(lambda: len(depth) == 2)
    assert node.pipeline.stream.packets == 11
    assert (node.pipeline.faults, node.pipeline.clock.jumps) == (0, 0)
    assert [stamp_ns(d) - EPOCH_NS for d in depth] == [20 * MS, 40 * MS]


def test_a_legacy_array_out_of_order_gives_the_depth_of_the_sorted_one(graph, start):
    node = start()
    depth = graph.listen(Image, '/depth_node/depth/image')
    events = some_events(1000, 1025)
    shuffled = np.random.default_rng(0).permutation(events)
    driver = Driver(graph, EventArray, event_array)
    assert driver.ready()
    driver.publisher.publish(event_array(shuffled))
    assert graph.spin_until(lambda: depth)
    assert node.pipeline.stream.counts.backward_steps > 0
    assert node.pipeline.estimator.windower.late_events == 0
    window = node.pipeline.last.job.window
    assert window.event_count == np.count_nonzero(events['t_ns'] < 1020 * MS)
    assert stamp_ns(depth[0]) == window.t1_ns == 1020 * MS


def test_one_message_of_many_windows(graph, start):
    node = start(window_queue=1000)
    depth = graph.listen(Image, '/depth_node/depth/image')
    driver = Driver(graph)
    assert driver.ready()
    driver.publisher.publish(event_packet(some_events(0, 1005, count=20_000)))
    assert graph.spin_until(lambda: len(depth) == 50)
    assert node.pipeline.windows.dropped == 0


def test_a_pause_is_no_overload(graph, start):
    """The empty windows of a pause, which one message completes, are not answered afterwards."""
    node = start()
    depth = graph.listen(Image, '/depth_node/depth/image')
    driver = Driver(graph)
    assert driver.ready()
    for t_ms in (0, 700):
        driver.publisher.publish(event_packet(some_events(t_ms, t_ms + 45)))
    # of 20 ms each: three to 60, with the last events, and two from 700 on
    assert graph.spin_until(lambda: len(depth) == 5)
    graph.spin_for(0.1)
    ends_ms = np.diff([0, *(stamp_ns(d) for d in depth)])[1:] // MS
    assert ends_ms.tolist() == [20, 20, 660, 20]
    assert node.pipeline.windows.dropped == 0


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
    assert says(graph, node, 'nobody publishes /events')
    del depth[:]
    again = Driver(graph)
    again.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)
    graph.camera.destroy_publisher(again.publisher)
    assert says(graph, node, 'nobody publishes /events')
    other = Driver(
        graph, EventArray, event_array, graph.stranger()
    )  # it may even return as another type
    other.now_ms = 1000
    del depth[:]
    other.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth)


def use(node, engine):
    """Puts another engine into a configured node."""
    node.network = node.network._replace(engine=engine)


class SlowEngine:
    """An engine that is busy with events until it is let go."""

    device, carries = 'slow', False

    def __init__(self):
        self.busy, self.go_on = threading.Event(), threading.Event()

    def infer(self, spikes, state):
        if spikes.any():
            self.busy.set()
            self.go_on.wait(60.0)
        return np.zeros((3, *spikes.shape[2:]), np.float32), None


def test_the_thread_of_inference_runs_an_empty_window_before_the_first(graph, start):
    node, seen = start(), []

    class Engine:
        device, carries = 'here', False

        def infer(self, spikes, state):
            seen.append((threading.current_thread().name, int(spikes.sum())))
            return np.zeros((3, *spikes.shape[2:]), np.float32), None

    use(node, Engine())
    graph.listen(Image, '/depth_node/depth/image')
    driver = Driver(graph)

    def has_answered():
        driver.send(WINDOW_MS)
        return len(seen) > 1

    assert graph.spin_until(has_answered)
    assert seen[0] == ('inference', 0)
    assert seen[1][1] > 0


def test_shutdown_in_the_middle_of_inference(graph, start, monkeypatch):
    node = start()
    use(node, SlowEngine())
    monkeypatch.setattr(depth_node, 'STOP_TIMEOUT_S', 0.2)
    graph.listen(Image, '/depth_node/depth/image')
    Driver(graph).send(3 * WINDOW_MS)
    assert graph.spin_until(node.network.engine.busy.is_set)
    engine, workers = node.network.engine, node.pipeline.workers.values()
    assert node.trigger_shutdown() == SUCCESS
    assert node.state == 'finalized'
    engine.go_on.set()
    assert all(worker.join(60.0) for worker in workers)


def test_a_stop_in_the_middle_of_a_measurement_of_energy(graph, start, monkeypatch):
    monkeypatch.setattr(depth_node, 'STOP_TIMEOUT_S', 60.0)
    monkeypatch.setattr(energy_meter, 'STRETCH_S', 0.0)
    monkeypatch.setattr(energy_meter, 'SHARE', 1e-9)  # the first pause would last for hours
    begun, count_energy = threading.Event(), energy_meter.count_energy

    def count(*args):
        begun.set()
        return count_energy(*args)

    monkeypatch.setattr(energy_meter, 'count_energy', count)
    node = start(energy_period_s=0.001, cloud_rate_hz=0.0)
    graph.listen(DiagnosticArray, '/diagnostics')
    depth = graph.listen(Image, '/depth_node/depth/image')
    clouds = graph.listen(PointCloud2, '/depth_node/depth/points')
    driver = Driver(graph)

    def go_on():
        driver.send(WINDOW_MS)
        return begun.is_set()

    assert graph.spin_until(go_on)
    del depth[:], clouds[:]
    driver.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth and clouds), 'they do not wait for it'
    workers = node.pipeline.workers.values()
    assert node.trigger_deactivate() == SUCCESS
    assert all(worker.join(0.0) for worker in workers)
    assert node.energy.report is None


def test_energy_that_cannot_be_measured_costs_no_depth(graph, start, monkeypatch):
    node = start()

    def broken(*_):
        raise RuntimeError('no scales')

    monkeypatch.setattr(node.energy, 'look', broken)
    reports = graph.listen(DiagnosticArray, '/diagnostics')
    depth = graph.listen(Image, '/depth_node/depth/image')
    driver = Driver(graph)

    def are_counted():
        driver.send(WINDOW_MS)
        return node.pipeline.faults == MAX_FAULTS

    assert graph.spin_until(are_counted)
    assert 'no scales' in node.pipeline.workers['energy'].trouble
    del depth[:], reports[:]
    driver.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: depth and len(reports) >= 3)
    assert node.state == 'active'
    assert verdict(node).level == DiagnosticStatus.OK


def test_a_slow_engine_drops_the_oldest_and_stays_bounded(graph, start):
    node = start(window_queue=2)
    use(node, SlowEngine())
    depth = graph.listen(Image, '/depth_node/depth/image')
    driver = Driver(graph)
    driver.send(WINDOW_MS + 5)
    assert graph.spin_until(node.network.engine.busy.is_set)
    driver.send(9 * WINDOW_MS)  # nine more windows: two wait
    assert graph.spin_until(lambda: node.pipeline.windows.dropped == 7)
    assert len(node.pipeline.windows) == 2
    node.network.engine.go_on.set()
    assert graph.spin_until(lambda: len(depth) == 3)
    assert [(stamp_ns(d) - EPOCH_NS) // MS for d in depth] == [20, 180, 200]


def test_an_engine_that_fails_is_tried_again_and_again(graph, start, monkeypatch):
    monkeypatch.setattr(queues, 'FIRST_PAUSE_S', 0.05)
    node = start()

    class Broken:
        device, carries, mended = 'broken', False, threading.Event()

        def infer(self, spikes, state):
            if self.mended.is_set():
                return np.zeros((3, *spikes.shape[2:]), np.float32), None
            raise RuntimeError('out of smoke')

    use(node, Broken())
    depth = graph.listen(Image, '/depth_node/depth/image')
    driver = Driver(graph)
    driver.send(5 * WINDOW_MS)
    assert says(graph, node, 'faults in a row, trying again every')
    assert 'out of smoke' in verdict(node).message
    assert node.state == 'active'
    Broken.mended.set()

    def recovers():
        driver.send(WINDOW_MS)
        return depth and 'out of smoke' not in verdict(node).message

    assert graph.spin_until(recovers)


def test_a_cleanup_forgets_the_error_and_starts_nothing(graph, start):
    node = start(autostart=True, configure=False)
    assert graph.spin_until(lambda: node.state == 'active')
    node.last_error = 'deactivated: out of smoke'
    assert node.trigger_deactivate() == node.trigger_cleanup() == SUCCESS
    assert node.set_parameters(overrides({'num_threads': 2}))[0].successful
    graph.spin_for(0.5)
    assert node.state == 'unconfigured'
    assert node.set_parameters(overrides({'autostart': True}))[0].successful
    assert graph.spin_until(lambda: node.state == 'active')


def test_an_error_that_nobody_expected_is_told_and_survived(graph, start, monkeypatch):
    node = start(configure=False)

    def broken(*_):
        raise AttributeError('a bug')

    with monkeypatch.context() as patch:
        patch.setattr(depth_node, 'Outputs', broken)
        assert node.trigger_configure() == TransitionCallbackReturn.ERROR
    assert node.state == 'unconfigured'
    assert node.last_error == 'on_configure: AttributeError: a bug'
    assert node.trigger_configure() == SUCCESS


def broken_engine(node):
    class Broken:
        device, carries = 'broken', False

        def infer(self, spikes, state):
            raise RuntimeError(f'out of smoke {spikes.sum()}')  # another number each time

    use(node, Broken())


def alternating(*kinds):
    return lambda driver, k: driver.publisher.publish(kinds[k % len(kinds)](k))


def packet(**fields):
    """Makes the k-th packet of 5 ms, with other fields than a good one."""
    return lambda k: event_packet(some_events(5 * k, 5 * k + 5), **fields)


FAULTS = {
    'two sizes': alternating(packet(), packet(height=HEIGHT // 2, width=WIDTH // 2)),
    'truncated': alternating(lambda k: packet()(k)[:-9]),
    'encodings': alternating(packet(encoding='x'), packet(encoding='y'), packet()),
    'no size': alternating(packet(height=0)),
    'too small': alternating(packet(height=HEIGHT // 2)),
    'times': alternating(packet(), lambda k: event_packet(some_events(9000, 9005))),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_a_fault_of_messages_that_lasts_is_logged_once(graph, start, log, fault):
    node = start()
    graph.listen(Image, '/depth_node/depth/image')
    driver = Driver(graph)
    assert driver.ready()
    for k in range(120):
        FAULTS[fault](driver, k)
        graph.spin_once(0.002)
    assert graph.spin_until(lambda: node.pipeline.meters.messages == 120)
    graph.spin_for(0.3)
    assert len(log.lines('WARN', 'ERROR', 'FATAL')) <= 3, log.read()
    assert len(log.lines()) <= 8, log.read()


def test_an_engine_with_another_fault_each_time_floods_no_log(graph, start, log, monkeypatch):
    monkeypatch.setattr(queues, 'FIRST_PAUSE_S', 0.0)
    node = start()
    broken_engine(node)
    graph.listen(Image, '/depth_node/depth/image')
    driver = Driver(graph)
    driver.send(60 * WINDOW_MS)
    assert graph.spin_until(lambda: node.pipeline.faults >= 50)
    graph.spin_for(0.3)
    assert len(log.lines('ERROR')) <= condition_log.MOST_PER_REPEAT
    assert len(log.lines('WARN')) <= condition_log.MOST_PER_REPEAT + 1


@pytest.mark.parametrize('others', [
    {'width': 128}, {'fx': 61.0}, {'fx': 0.0},
])  # fmt: skip
def test_two_publishers_of_camera_info_flood_no_log(graph, start, log, others):
    start()
    depth = graph.listen(Image, '/depth_node/depth/image')
    infos = graph.camera.create_publisher(CameraInfo, 'camera_info', RELIABLE)
    driver = Driver(graph)
    assert graph.spin_until(lambda: infos.get_subscription_count() > 0)
    header = messages.make_header(0, FRAME)
    good = messages.camera_info(header, CAMERA)
    other = messages.camera_info(header, CAMERA)
    other.width = others.get('width', other.width)
    other.k[0] = others.get('fx', other.k[0])
    for _ in range(60):
        for info in (good, other):
            infos.publish(info)
            driver.send(5)
    graph.spin_for(0.3)
    assert len(log.lines()) <= 9, log.read()
    assert depth or 'width' in others


def test_a_size_that_alternates_builds_one_estimator(graph, start, monkeypatch):
    node, built = start(), []
    make = LoadedNetwork.estimator

    def count(network, *needs):
        built.append(needs[:2])
        return make(network, *needs)

    monkeypatch.setattr(LoadedNetwork, 'estimator', count)
    depth = graph.listen(Image, '/depth_node/depth/image')
    driver = Driver(graph)
    assert driver.ready()
    for k in range(200):
        FAULTS['two sizes'](driver, k)
        graph.spin_once(0.002)
    assert graph.spin_until(lambda: node.pipeline.meters.foreign == 100 and depth)
    assert built.count((HEIGHT // 2, WIDTH // 2)) == 0
    assert built.count((HEIGHT, WIDTH)) == 1
    assert node.pipeline.stream.packets == 100, 'those left out are not decoded'


class Gate:
    """An engine that lets go of the first window of events only when it is told to."""

    device, carries = 'gate', False

    def __init__(self, engine):
        self.entered, self.open, self._engine = threading.Event(), threading.Event(), engine

    def infer(self, spikes, state):
        if spikes.any():
            self.entered.set()
            assert self.open.wait(60.0)
        return self._engine.infer(spikes, state)


def test_limits_that_change_during_inference_hold_from_the_next_window_on(graph, start):
    node = start()
    gate = Gate(node.network.engine)
    use(node, gate)
    depth = graph.listen(Image, '/depth_node/depth/image')
    driver = Driver(graph)
    driver.send(WINDOW_MS + 5)
    assert graph.spin_until(gate.entered.is_set)
    assert node.set_parameters(overrides({'min_confidence': 1.0}))[0].successful
    gate.open.set()
    driver.send(2 * WINDOW_MS)
    assert graph.spin_until(lambda: len(depth) == 3)
    nothing = [bool(np.isnan(np.frombuffer(d.data, '<f4')).all()) for d in depth]
    assert nothing == [False, True, True]


def test_parameters_that_change_all_the_time_give_maps_of_one_moment_each(
    graph, start, checkpoint
):
    """Limits are those of the one or of the other moment, and the memory is that of the stream."""
    node = start(window_queue=1000)
    node.calibration.camera = CAMERA
    depth = graph.listen(Image, '/depth_node/depth/image')
    driver = Driver(graph)
    assert driver.ready()
    sent = []
    for k in range(100):
        changes = overrides({'min_confidence': float(k % 2), 'color_max_m': 60.0 + k})
        assert all(result.successful for result in node.set_parameters(changes))
        sent.append(driver.send(5))
    options = EstimatorOptions(streaming=True)
    alone = DepthEstimator(checkpoint, HEIGHT, WIDTH, CAMERA, options, node.network.engine)
    frames = alone.push(np.concatenate(sent))
    assert graph.spin_until(lambda: len(depth) == len(frames) == 24)
    kinds = set()
    for message, frame in zip(depth, frames, strict=True):
        shown = np.frombuffer(message.data, '<f4').reshape(frame.depth_m.shape)
        kinds.add(bool(np.isnan(shown).all()))
        np.testing.assert_array_equal(shown[~np.isnan(shown)], frame.depth_m[~np.isnan(shown)])
        assert np.isnan(shown).all() or not np.isnan(shown).any()
    assert kinds == {False, True}
    assert node.pipeline.faults == 0


def test_a_reset_during_a_clock_jump_is_not_lost(graph, start, monkeypatch):
    node = start()
    graph.listen(Image, '/depth_node/depth/image')
    driver = Driver(graph)
    driver.now_ms = 5000
    driver.send(WINDOW_MS)
    assert graph.spin_until(lambda: node.pipeline.stream.packets == 4)
    pipeline, update = node.pipeline, node.pipeline.clock.update

    def update_and_reset(*times):
        jumped = update(*times)
        if jumped:
            pipeline.reset()  # as another thread may, just now
        return jumped

    monkeypatch.setattr(pipeline.clock, 'update', update_and_reset)
    driver.now_ms = 0
    driver.send(WINDOW_MS)
    assert graph.spin_until(lambda: pipeline.meters.resets == 2)
