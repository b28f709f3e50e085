"""The node's scale: odometry on a real graph, and every way in which it can be bad."""

import dataclasses
import math

import numpy as np
import pytest
from event_camera_msgs.msg import EventPacket
from geometry_msgs.msg import (
    Quaternion,
    Transform,
    TransformStamped,
    TwistStamped,
    TwistWithCovarianceStamped,
)
from geometry_msgs.msg import Vector3 as Vector
from graph import EPOCH_NS, FRAME, MS, event_packet
from nav_msgs.msg import Odometry as OdometryMessage
from rclpy.qos import DurabilityPolicy, QoSProfile
from scale_scene import VIEW, scene_events, twist
from sensor_msgs.msg import Image
from tf2_msgs.msg import TFMessage

from spike_depth_ros.estimation.motion import (
    FORWARD,
    MotionError,
    mount_of_transform,
    pose_of,
    twist_of,
)
from spike_depth_ros.events.config import SpikeConfig
from spike_depth_ros.ros.diagnostics import OK, WARN
from spike_depth_ros.ros.messages import make_time

LONG_MS = 1000
WALL_M = 2.0


class Wall:
    """An engine that says one depth everywhere."""

    device, carries = 'none', False

    def infer(self, spikes, state):
        maps = np.zeros((3, *spikes.shape[2:]), np.float32)
        maps[0], maps[1], maps[2] = 0.6, 20.0, -20.0
        return maps, None


@pytest.fixture(scope='module')
def scene():
    """What a camera sees that moves to the right at 0.8 m/s before a wall."""
    depth_m = np.full((120, 160), WALL_M, np.float32)
    motion = twist(vx=0.8)
    return scene_events(motion, depth_m, LONG_MS * MS, LONG_MS, 900, LONG_MS // 10)


@pytest.fixture
def robot(graph, start, checkpoint, tmp_path, scene):
    """A node on the wall's events, and a publisher of odometry beside it."""
    from spike_depth_ros.network.checkpoint import save_checkpoint

    path = tmp_path / 'wide.safetensors'
    spikes = SpikeConfig(window_ms=20.0, steps=2, max_width_px=160)
    save_checkpoint(path, dataclasses.replace(checkpoint, spikes=spikes))
    return lambda **values: Robot(graph, start, scene, checkpoint=str(path), **values)


class Robot:
    """Drives a node with events and odometry of the same time."""

    def __init__(self, graph, start, scene, kind=OdometryMessage, **values):
        self.graph, self.scene = graph, scene
        self.publisher = graph.camera.create_publisher(kind, '/odom', 10)
        self.node = start(**{'odometry': '/odom', **values})
        self.node.calibration.camera = VIEW
        self.node.network = self.node.network._replace(engine=Wall())
        self.depth = graph.listen(Image, '/depth_node/depth/image')
        self.events = graph.camera.create_publisher(
            EventPacket, 'events', 100
        )  # fmt: skip
        self.now_ms = 0
        assert graph.spin_until(lambda: self.events.get_subscription_count() > 0)

    def hear(self):
        """Waits until the node has subscribed to the odometry."""
        assert self.graph.spin_until(lambda: self.publisher.get_subscription_count() > 0)

    def drive(self, until_ms, odometry=None):
        """Sends the events up to a time, and odometry by `odometry(time_ms)` every 20 ms."""
        while self.now_ms < until_ms:
            if odometry is not None and self.now_ms % 20 == 0:
                message = odometry(self.now_ms)
                if message is not None:
                    self.publisher.publish(message)
            first, last = np.searchsorted(
                self.scene['t_ns'], (self.now_ms * MS, (self.now_ms + 5) * MS)
            )
            packet = event_packet(self.scene[first:last], height=120, width=160)
            self.events.publish(packet)
            self.now_ms += 5
            if self.now_ms % 20 == 0:  # as many windows as maps, so that none is left out
                done = max(0, self.now_ms // 20 - 2)
                self.graph.spin_until(lambda: len(self.depth) >= done, 20.0)  # noqa: B023
                self.graph.spin_until(self.has_looked, 20.0)

    def has_looked(self):
        """Whether the newest map has been looked at."""
        pipeline = self.node.pipeline
        tracker = None if pipeline is None or pipeline.last is None else self.tracker()
        if not self.node.live.now.scales:
            return True
        return tracker is None or tracker.looked_ns == pipeline.last.frame.stamp_ns

    def tracker(self):
        return self.node.pipeline.estimator.tracker

    def report(self, words):
        """Waits until the report on the scale holds these words."""
        found = lambda: self.node.scale.report()  # noqa: E731
        assert self.graph.spin_until(lambda: words in found().message, 10.0), found()
        return found()


def odometry(vx=0.8, frame=FRAME, later_ms=0, covariance=0.01, **speeds):
    """Odometry whose twist is the camera's own, every 20 ms, as a function of time."""

    def at(time_ms):
        message = OdometryMessage()
        message.header.stamp = make_time(EPOCH_NS + (time_ms + later_ms) * MS)
        message.child_frame_id = frame
        linear, angular = message.twist.twist.linear, message.twist.twist.angular
        linear.x, linear.y, linear.z = (float(v) for v in (vx, *speeds.get('rest', (0, 0))))
        angular.z = float(speeds.get('wz', 0.0))
        message.twist.covariance[0] = covariance
        return message

    return at


def network_m(node):
    """Depth that the engine `Wall` says."""
    estimator = node.pipeline.estimator
    depth_range = node.network.checkpoint.depth_range
    return float(depth_range.denormalise(np.float32(0.6))) * estimator.metres_per_canonical


def last_depth_m(robot):
    return float(np.median(np.frombuffer(robot.depth[-1].data, '<f4')))


def test_depth_gets_its_metres_from_odometry(robot):
    it = robot()
    it.hear()
    it.drive(LONG_MS - 100, odometry())
    report = it.report('+-')
    assert report.level == OK
    state = it.node.pipeline.estimator.tracker.state
    assert state.ln_scale == pytest.approx(math.log(WALL_M / network_m(it.node)), abs=0.07)
    assert last_depth_m(it) == pytest.approx(WALL_M, rel=0.07)
    assert float(report.values['scale']) == pytest.approx(math.exp(state.ln_scale), rel=1e-3)
    assert 'scale ms (median, p99)' in it.node.pipeline.meters.summary()
    # odometry that stops: the scale is held, depth goes on
    held = len(it.depth)
    it.drive(LONG_MS - 20)
    assert len(it.depth) > held
    assert last_depth_m(it) == pytest.approx(WALL_M, rel=0.07)


def test_the_pose_of_the_camera_may_be_a_parameter(robot):
    """A base whose y axis points right of the camera's view to the left: REP 103."""
    it = robot(camera_pose=f'0.1 0 0.3 {-math.pi / 2} 0 {-math.pi / 2}')
    it.hear()
    it.drive(LONG_MS - 100, odometry(vx=0.0, frame='base_link', rest=(-0.8, 0.0)))
    report = it.report('+-')
    assert last_depth_m(it) == pytest.approx(WALL_M, rel=0.07)
    assert 'looks along [1.0' in report.values['camera pose']


def test_the_pose_of_the_camera_may_come_from_tf(robot):
    it = robot()
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    tf = it.graph.camera.create_publisher(TFMessage, '/tf_static', latched)
    stamped = TransformStamped(child_frame_id=FRAME)
    stamped.header.frame_id = 'base_link'
    stamped.transform.translation = Vector(x=0.1, z=0.3)
    stamped.transform.rotation = Quaternion(x=-0.5, y=0.5, z=-0.5, w=0.5)
    tf.publish(TFMessage(transforms=[stamped]))
    it.hear()
    it.drive(300, odometry(vx=0.0, frame='base_link', rest=(-0.8, 0.0)))
    pose = 'at (0.100, 0.000, 0.300) m, looks along [1.0, 0.0, 0.0]'
    said = lambda: it.node.scale.report().values['camera pose']  # noqa: E731
    assert it.graph.spin_until(lambda: said() == pose), said()


@pytest.mark.parametrize('kind', [TwistStamped, TwistWithCovarianceStamped])
def test_twists_will_do(robot, kind):
    def at(time_ms):
        message = kind()
        message.header.stamp = make_time(EPOCH_NS + time_ms * MS)
        message.header.frame_id = FRAME
        values = getattr(message.twist, 'twist', message.twist)
        values.linear.x = 0.8
        return message

    it = robot(kind=kind)
    it.hear()
    it.drive(400, at)
    report = it.report('')
    assert kind.__name__ in report.values['odometry']
    assert report.values['frame of the twist'] == FRAME


BAD = {
    'a frame without a transform': (
        odometry(frame='base_link'), "no transform from 'base_link' to 'camera_optical_frame'"),
    'a clock of its own': (odometry(later_ms=3_600_000), 'clock of its own'),
    'a twist of zero': (odometry(vx=0.0), 'stands still, or only turns'),
    'a turn alone': (odometry(vx=0.0, wz=0.5), 'stands still, or only turns'),
    'NaN from the start': (odometry(vx=math.nan), 'no odometry yet'),
}  # fmt: skip


@pytest.mark.parametrize('name', BAD)
def test_why_there_is_no_scale_is_said_and_depth_goes_on(robot, name):
    message, words = BAD[name]
    it = robot()
    it.hear()
    it.drive(300, message)
    until_ms = 300
    # the node looks for the pose of the camera once in a while
    while words not in it.node.scale.report().message and until_ms < LONG_MS:
        until_ms += 20
        it.graph.spin_until(lambda: False, 0.05)
        it.drive(until_ms, message)
    report = it.report(words)
    assert report.level == WARN
    assert report.message.startswith('no scale')
    assert last_depth_m(it) == pytest.approx(network_m(it.node), rel=1e-4)
    if 'NaN' in name:
        assert report.values['odometry holds numbers that are not finite'] > 0


def test_samples_that_are_bad_are_counted_and_left_out(robot):
    good, jump, back = odometry(), odometry(vx=80.0), odometry(later_ms=-500)
    strange = {5: jump, 8: back, 11: odometry(vx=math.nan), 14: odometry(covariance=0.0)}
    it = robot()
    it.hear()
    it.drive(600, lambda time_ms: strange.get(time_ms // 20, good)(time_ms))
    values = it.report('').values
    assert {
        'odometry jumps: its speed changes by more than a robot can': 1,
        'odometry runs backwards in time, or repeats a stamp': 1,
        'odometry holds numbers that are not finite': 1,
    }.items() <= values.items()


def test_a_covariance_of_zeros_is_said(robot):
    it = robot()
    it.hear()
    it.drive(100, odometry(covariance=0.0))
    assert 'taken as unknown' in it.report('').values['covariance']


def test_no_stamps_and_another_frame_are_said(robot):
    it = robot()
    it.hear()
    it.drive(100, lambda time_ms: odometry(later_ms=-time_ms - EPOCH_NS // MS)(time_ms))
    it.drive(160, odometry(frame='a'))
    it.drive(200, odometry(frame='b'))
    values = it.report('').values
    assert values['odometry has no stamps'] >= 1
    assert values["odometry changes its frame from 'a' to 'b'"] == 1


def test_a_topic_without_publisher_or_of_another_type_is_said(robot, graph):
    it = robot(odometry='/nothing')
    it.report('nobody publishes /nothing')
    graph.camera.create_publisher(Image, '/nothing', 1)
    it.report('/nothing has the type sensor_msgs/msg/Image')


def test_a_camera_of_known_height_needs_no_odometry(robot):
    it = robot(odometry='', camera_height_m=0.4)
    it.drive(300)
    report = it.report('no plane in the lower half of the image is level')  # it is a wall
    assert report.values['camera height m'] == 0.4
    assert last_depth_m(it) == pytest.approx(network_m(it.node), rel=1e-4)


def test_without_odometry_and_height_nothing_is_said(robot):
    it = robot(odometry='')
    it.drive(100)
    assert it.node.scale.report() is None


def test_a_pose_that_is_none_is_refused(start):
    node = start(configure=False, camera_pose='0 0 1')
    assert str(node.trigger_configure()) != 'TransitionCallbackReturn.SUCCESS'
    assert "camera_pose is '0 0 1', expected six numbers" in node.last_error


def test_poses_are_read_by_hand():
    mount = pose_of(f'1, 2, 3, {-math.pi / 2}, 0, {-math.pi / 2}')
    np.testing.assert_allclose(mount.rotation, FORWARD, atol=1e-12)
    assert mount.translation_m.tolist() == [1, 2, 3]
    for text in ('', '1 2 3 4 5', '1 2 3 4 5 nan', 'a b c d e f'):
        with pytest.raises(MotionError):
            pose_of(text)


def test_transforms_are_read_by_hand():
    right = Transform(translation=Vector(x=1.0), rotation=Quaternion(x=-0.5, y=0.5, z=-0.5, w=0.5))
    np.testing.assert_allclose(mount_of_transform(right).rotation, FORWARD, atol=1e-12)
    with pytest.raises(MotionError, match='expected an orthonormal matrix'):
        mount_of_transform(Transform(rotation=Quaternion(w=0.0)))


def test_messages_are_read_by_hand():
    message = odometry(vx=1.5, frame='base', wz=0.2)(40)
    stamp_ns, frame_id, read, has_covariance = twist_of(message)
    assert (stamp_ns, frame_id, has_covariance) == (EPOCH_NS + 40 * MS, 'base', True)
    assert read.velocity_mps.tolist() == [1.5, 0, 0]
    assert read.rate_radps.tolist() == [0, 0, 0.2]
