"""The outputs of the depth node in a real graph: rectification, region, registration, switches."""

import dataclasses
import math
import sys

import numpy as np
import pytest
from cv_bridge import CvBridge
from geometry_msgs.msg import Quaternion, TransformStamped
from geometry_msgs.msg import Vector3 as Vector
from graph import FRAME, HEIGHT, MS, WIDTH, Driver, overrides, says
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from tf2_msgs.msg import TFMessage

from spike_depth_ros.estimation import pictures
from spike_depth_ros.estimation.estimator import DepthEstimator, EstimatorOptions
from spike_depth_ros.estimation.motion import MotionError, mount_of, rotation_of_angles
from spike_depth_ros.estimation.registration import register
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.spikes import Region
from spike_depth_ros.ros.depth_parameters import SWITCHES
from spike_depth_ros.ros.messages import camera_from_info, camera_info, make_header
from spike_depth_ros.ros.outputs import OUTPUTS, REGISTERED
from spike_depth_ros.ros.probe import stamp_ns
from spike_depth_ros.ros.transforms import Transforms

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
LENS = Camera(WIDTH, HEIGHT, 60.0, 60.0, 31.5, 23.5, 'plumb_bob', (0.05, 0.0, 0.0, 0.0, 0.0))
STEREO = dataclasses.replace(
    LENS,
    rotation=tuple(rotation_of_angles(0.02, -0.05, 0.01).ravel()),
    projection=(52.0, 52.0, 30.0, 25.0),
)
OTHER = Camera(80, 60, 70.0, 70.0, 39.5, 29.5)
OTHER_FRAME = 'color_optical_frame'
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def pixels(message):
    return CvBridge().imgmsg_to_cv2(message, desired_encoding='passthrough')


def latch(graph, topic, camera, frame=OTHER_FRAME):
    """Publishes a calibration once, as drivers do that latch it."""
    publisher = graph.camera.create_publisher(CameraInfo, topic, LATCHED)
    publisher.publish(camera_info(make_header(1, frame), camera))


def frames_of(node, checkpoint, events, options, camera=LENS):
    """What the estimator makes of the same events, by stamp."""
    engine = node.network.engine
    estimator = DepthEstimator(checkpoint, HEIGHT, WIDTH, camera, options, engine)
    return estimator, estimator.push(events)


def test_depth_is_of_the_rectified_image_that_r_and_p_describe(graph, start, checkpoint):
    node = start()
    depth = graph.listen(Image, '/depth_node/depth/image')
    infos = graph.listen(CameraInfo, '/depth_node/depth/camera_info')
    driver = Driver(graph)
    latch(graph, 'camera_info', STEREO, FRAME)
    assert graph.spin_until(lambda: node.calibration.camera == STEREO)
    events = driver.send(65)
    assert graph.spin_until(lambda: len(depth) == len(infos) == 3)
    info = infos[0]
    # P, binned 2x2: (30 + 0.5) / 2 - 0.5 = 14.75
    assert list(info.k) == [26, 0, 14.75, 0, 26, 12.25, 0, 0, 1]
    assert list(info.p) == [26, 0, 14.75, 0, 0, 26, 12.25, 0, 0, 0, 1, 0]
    assert list(info.r) == [1, 0, 0, 0, 1, 0, 0, 0, 1]
    assert list(info.d) == [0] * 5
    assert (info.width, info.height) == (depth[0].width, depth[0].height) == (32, 24)
    _, frames = frames_of(node, checkpoint, events, EstimatorOptions(streaming=True), STEREO)
    for message, frame in zip(depth, frames, strict=True):
        np.testing.assert_array_equal(pixels(message), frame.depth_m)


def test_without_rectification_the_calibration_is_published_with_r_and_p(graph, start):
    node = start(rectify=False)
    infos = graph.listen(CameraInfo, '/depth_node/depth/camera_info')
    driver = Driver(graph)
    node.calibration.camera = STEREO
    driver.send(45)
    assert graph.spin_until(lambda: infos)
    found = camera_from_info(infos[0])
    assert found == STEREO.binned(2)
    assert not found.is_rectified


def test_a_region_of_interest_is_computed_and_described(graph, start, checkpoint):
    node = start(roi='10 6 32 24')
    depth = graph.listen(Image, '/depth_node/depth/image')
    infos = graph.listen(CameraInfo, '/depth_node/depth/camera_info')
    driver = Driver(graph)
    node.calibration.camera = LENS
    events = driver.send(65)
    assert graph.spin_until(lambda: len(depth) == len(infos) == 3)
    options = EstimatorOptions(streaming=True, roi=Region(10, 6, 32, 24))
    _, frames = frames_of(node, checkpoint, events, options)
    for message, frame in zip(depth, frames, strict=True):
        np.testing.assert_array_equal(pixels(message), frame.depth_m)
    info = infos[0]
    # an image of its own, so for consumers that do not read roi, too: (31.5 + .5) / 2 - .5 - 5
    assert (info.width, info.height) == (depth[0].width, depth[0].height) == (16, 12)
    assert (info.k[2], info.k[5], info.p[2], info.p[6]) == (10.5, 8.5, 10.5, 8.5)
    assert (info.roi.width, info.roi.height, info.roi.x_offset, info.roi.y_offset) == (0, 0, 0, 0)


def test_regions_change_while_the_node_runs_and_bad_ones_are_refused(graph, start):
    node = start()
    depth = graph.listen(Image, '/depth_node/depth/image')
    driver = Driver(graph)
    node.calibration.camera = LENS
    for text, words in (
        ('1 2 3', "roi is '1 2 3', expected 'x y width height' in pixels of the sensor"),
        ('0 0 64 99', "roi is '0 0 64 99', expected a region within the 64x48 sensor"),
    ):
        (result,) = node.set_parameters(overrides({'roi': text}))
        assert words in result.reason
    driver.send(45)
    assert graph.spin_until(lambda: depth)
    assert (depth[-1].width, depth[-1].height) == (32, 24)
    assert node.set_parameters(overrides({'roi': '32 0 32 48'}))[0].successful
    del depth[:]
    driver.send(45)
    assert graph.spin_until(lambda: depth and depth[-1].width == 16)
    assert depth[-1].height == 24


def test_a_region_that_the_sensor_does_not_have_is_one_sentence(graph, start):
    node = start(roi='600 0 40 40')  # the size of the sensor is not known yet
    graph.listen(Image, '/depth_node/depth/image')
    driver = Driver(graph)
    assert graph.spin_until(node.outputs.wanted)
    driver.send(45)
    assert says(graph, node, "roi is '600 0 40 40', expected a region within the 64x48 sensor")


def test_each_output_has_its_switch():
    assert {f'publish_{name}' for name in OUTPUTS} == set(SWITCHES)


def test_an_output_that_is_switched_off_does_not_exist(graph, start):
    off = {'cloud', 'confidence', 'events_jpeg'}
    node = start(**{f'publish_{name}': False for name in off})
    topics = {name: node.resolve_topic_name(output.topic) for name, output in OUTPUTS.items()}
    absent = {*off, *REGISTERED}
    assert graph.spin_until(lambda: graph.camera.count_publishers(topics['depth']) == 1)
    published = {name for name, topic in topics.items() if graph.camera.count_publishers(topic)}
    assert published == set(OUTPUTS) - absent
    graph.listen(PointCloud2, topics['cloud'])
    graph.spin_for(0.3)
    assert not node.outputs.wanted()
    depth = graph.listen(Image, topics['depth'])
    Driver(graph).send(45)
    assert graph.spin_until(lambda: depth)


def test_a_node_with_no_output_at_all_is_refused(start):
    node = start(configure=False, **dict.fromkeys(SWITCHES, False))
    assert node.trigger_configure() == FAILURE
    assert 'all outputs are switched off: set one publish_... to true' in node.last_error
    assert node.set_parameters(overrides({'publish_depth': True}))[0].successful
    assert node.trigger_configure() == SUCCESS


@pytest.fixture
def registered(graph):
    """Listens to the registered outputs; name -> messages."""
    kinds = {'image': Image, 'camera_info': CameraInfo, 'confidence': Image}
    return {n: graph.listen(k, f'/depth_node/depth_registered/{n}') for n, k in kinds.items()}


def check_registered(registered, node, checkpoint, events, pose, fill=True):
    estimator, frames = frames_of(node, checkpoint, events, EstimatorOptions(streaming=True))
    stamps = {node.pipeline.clock.to_ros(frame.stamp_ns): frame for frame in frames}
    message, confidence = registered['image'][-1], registered['confidence'][-1]
    info, frame = registered['camera_info'][-1], stamps[stamp_ns(message)]
    rays = estimator.camera.rays()
    expected = register(frame.depth_m, frame.confidence, estimator.camera, rays, OTHER, pose, fill)
    np.testing.assert_array_equal(pixels(message), expected[0])
    np.testing.assert_array_equal(pixels(confidence), expected[1])
    assert np.isnan(expected[0]).any(), 'something is not seen by the depth'
    assert (~np.isnan(expected[0])).any()
    assert camera_from_info(info).rectified() == OTHER
    assert message.header == info.header == confidence.header
    assert message.header.frame_id == OTHER_FRAME


def together(registered):
    return all(registered.values()) and len({stamp_ns(m[-1]) for m in registered.values()}) == 1


def test_depth_is_registered_to_another_camera_by_parameters(graph, start, registered, checkpoint):
    node = start(register_camera_info='/color/camera_info', register_fill=False,
                 register_pose='0.1 0.02 -0.03 0.0 0.1 0.05')  # fmt: skip
    node.calibration.camera = LENS
    latch(graph, '/color/camera_info', OTHER)
    driver = Driver(graph)
    assert graph.spin_until(lambda: node.registration.target(FRAME))
    events = driver.send(65)
    assert graph.spin_until(lambda: together(registered))
    pose = mount_of(rotation_of_angles(0.0, 0.1, 0.05), np.array([0.1, 0.02, -0.03]))
    check_registered(registered, node, checkpoint, events, pose, fill=False)


def stamped(parent, child, translation, half_angle=0.0):
    """A transform that turns about x by twice `half_angle`."""
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.transform.translation = Vector(**dict(zip('xyz', translation, strict=True)))
    message.transform.rotation = Quaternion(x=math.sin(half_angle), w=math.cos(half_angle))
    return message


def test_depth_is_registered_by_tf(graph, start, registered, checkpoint, log):
    """Both cameras hang on one body, which tf says in two messages."""
    node = start(register_camera_info='/color/camera_info')
    node.calibration.camera = LENS
    latch(graph, '/color/camera_info', OTHER)
    driver = Driver(graph)
    driver.send(45)
    words = f'no registered depth: no transform from {FRAME!r} to {OTHER_FRAME!r}: publish it on'
    assert graph.spin_until(lambda: words in log.read())
    assert words in node.registration.report().message
    tf = graph.camera.create_publisher(TFMessage, '/tf_static', QoSProfile(
        depth=9, durability=DurabilityPolicy.TRANSIENT_LOCAL
    ))  # fmt: skip
    tf.publish(TFMessage(transforms=[stamped('body', FRAME, (1.0, 0.0, 0.0))]))
    tf.publish(TFMessage(transforms=[stamped('body', OTHER_FRAME, (1.1, 0.0, 0.0), 0.05)]))
    assert graph.spin_until(lambda: node.registration.target(FRAME))
    assert node.trigger_deactivate() == node.trigger_activate() == SUCCESS
    assert graph.spin_until(lambda: node.registration.target(FRAME))
    for messages in registered.values():
        del messages[:]
    events = driver.send(65)
    assert graph.spin_until(lambda: together(registered))
    pose = mount_of(rotation_of_angles(0.1, 0.0, 0.0), np.array([0.1, 0.0, 0.0]))
    target = node.registration.target(FRAME)
    np.testing.assert_allclose(target.pose.rotation, pose.rotation, atol=1e-12)
    np.testing.assert_allclose(target.pose.translation_m, pose.translation_m, atol=1e-12)
    check_registered(registered, node, checkpoint, events, target.pose)
    assert 'to a 80x60 image' in node.registration.report().message


def test_chains_of_transforms_are_followed_and_broken_ones_told(graph):
    node = graph.add(Node('listener'))
    transforms = Transforms(node)
    transforms.open()
    tf = graph.camera.create_publisher(TFMessage, '/tf', 10)
    links = [
        stamped('map', 'body', (5.0, 0.0, 0.0)),
        stamped('body', 'mast', (0.0, 1.0, 0.0), math.pi / 4),  # z of the mast is -y of the body
        stamped('mast', 'eye', (0.0, 0.0, 1.0)),
        stamped('ring', 'ring', (0.0, 0.0, 0.0)),
        TransformStamped(child_frame_id='bad'),
    ]
    links[-1].header.frame_id, links[-1].transform.rotation.w = 'map', 0.0
    assert graph.spin_until(lambda: tf.get_subscription_count() == 1)
    tf.publish(TFMessage(transforms=links))
    assert graph.spin_until(lambda: len(transforms._parents) == 5)
    eye = transforms.mount('body', 'eye')
    np.testing.assert_allclose(eye.translation_m, [0.0, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(eye.rotation, [[1, 0, 0], [0, 0, -1], [0, 1, 0]], atol=1e-12)
    there, back = transforms.mount('/map', 'eye'), transforms.mount('eye', 'map')
    np.testing.assert_allclose(there.then(back).translation_m, 0.0, atol=1e-12)
    with pytest.raises(MotionError, match="no transform from 'map' to 'ring'"):
        transforms.mount('map', 'ring')
    with pytest.raises(MotionError, match="'map' to 'bad' is unusable: the rotation"):
        transforms.mount('eye', 'bad')


def test_without_the_messages_of_tf_the_sentence_says_so(graph, monkeypatch):
    monkeypatch.setitem(sys.modules, 'tf2_msgs.msg', None)
    transforms = Transforms(graph.camera)
    transforms.open()
    with pytest.raises(MotionError, match="from 'a' to 'b', as the package tf2_msgs is not inst"):
        transforms.mount('a', 'b')


@pytest.mark.parametrize(('values', 'words'), [
    ({'register_pose': '1 2 3'}, "register_pose is '1 2 3', expected six numbers"),
    ({'register_camera_info': '/x', 'register_pose': 'a b c d e f'}, 'register_pose is'),
])  # fmt: skip
def test_a_pose_that_is_none_is_refused(start, values, words):
    node = start(configure=False, **values)
    assert node.trigger_configure() == FAILURE
    assert words in node.last_error


def test_a_camera_of_too_many_pixels_is_refused(graph, start, log):
    node = start(register_camera_info='/color/camera_info')
    size = 5000
    huge = Camera(size, size, 4000.0, 4000.0, size / 2, size / 2)
    latch(graph, '/color/camera_info', huge)
    words = 'no registered depth: /color/camera_info: camera_info is of a 5000x5000 image'
    assert graph.spin_until(lambda: words in log.read())
    assert node.registration.target(FRAME) is None


def unpacked(cloud):
    """Field -> values; rgb as (N, 3) uint8."""
    found = np.frombuffer(cloud.data, np.float32).reshape(-1, cloud.point_step // 4)
    values = {f.name: found[:, f.offset // 4] for f in cloud.fields}
    if 'rgb' in values:
        rgb = np.ascontiguousarray(values['rgb']).view(np.uint32)
        values['rgb'] = np.stack([rgb >> 16 & 255, rgb >> 8 & 255, rgb & 255], 1)
    return values


def test_clouds_are_coloured_and_thinned_on_request(graph, start):
    node = start(cloud_rate_hz=0.0, cloud_stride=1)
    node.calibration.camera = LENS
    clouds = graph.listen(PointCloud2, '/depth_node/depth/points')
    driver = Driver(graph)

    def next_cloud(**values):
        assert all(r.successful for r in node.set_parameters(overrides(values)))
        del clouds[:]
        changed_ns, found = driver.now_ms * MS, []
        driver.send(45)

        def shown():
            """Whether the newest frame has a cloud, and not of before the parameters changed."""
            last = node.pipeline.last
            if clouds and last is not None and last.job.window.t1_ns > changed_ns:
                found[:] = [last, clouds[-1]]
                return stamp_ns(clouds[-1]) == last.job.stamp_ns
            return False

        assert graph.spin_until(shown)
        return unpacked(found[1]), *found

    found, _, _ = next_cloud()
    assert 'rgb' not in found
    found, result, _ = next_cloud(cloud_color='depth', color_min_m=0.5, color_max_m=20.0)
    expected = pictures.depth_colors(result.frame.depth_m, 'turbo', 0.5, 20.0)
    np.testing.assert_array_equal(found['rgb'], expected.reshape(-1, 3))
    found, result, _ = next_cloud(cloud_color='confidence')
    expected = pictures.confidence_colors(result.frame.confidence)
    np.testing.assert_array_equal(found['rgb'], expected.reshape(-1, 3))
    found, result, _ = next_cloud(cloud_color='events')
    expected = pictures.event_colors(result.job.window.spikes)[:24, :32]
    np.testing.assert_array_equal(found['rgb'], expected.reshape(-1, 3))
    found, result, _ = next_cloud(cloud_color='height', cloud_height_m=1.0)
    known = np.isfinite(found['y'])
    expected = pictures.height_colors(-found['y'][known][None], 'turbo', 1.0)[0]
    np.testing.assert_array_equal(found['rgb'][known], expected)
    found, result, message = next_cloud(cloud_color='none', cloud_voxel_m=0.5)
    assert (message.height, message.is_dense) == (1, True)
    cells = np.floor(np.stack([found[n] for n in 'xyz'], 1) / 0.5).astype(int)
    assert len(np.unique(cells, axis=0)) == len(cells)
    assert 0 < len(cells) < np.isfinite(result.frame.depth_m).sum()
