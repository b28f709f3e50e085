"""The static transform from the robot to the optical frame."""

import numpy as np
import pytest
from depth_node_fixtures import WINDOW_MS
from graph import FRAME, Driver, overrides
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

from spike_depth_ros.ros.camera_transform import transform_of
from spike_depth_ros.ros.odometry import pose_of

LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
LOOKS_AHEAD = '0.1 0 0.3 -1.570796327 0 -1.570796327'


def turned(rotation, vector):
    """A vector turned by a quaternion, in the manner of Rodrigues."""
    axis = np.array([rotation.x, rotation.y, rotation.z])
    twice = 2 * np.cross(axis, vector)
    return vector + rotation.w * twice + np.cross(axis, twice)


def test_the_transform_is_published_for_who_comes_later(graph, start):
    node = start(publish_tf=True, camera_pose=LOOKS_AHEAD, parent_frame='base_link')
    driver = Driver(graph)
    driver.send(WINDOW_MS)
    assert graph.spin_until(lambda: graph.camera.count_publishers('/tf_static') == 1)
    graph.spin_for(0.5)
    told = graph.listen(TFMessage, '/tf_static', LATCHED)
    assert graph.spin_until(lambda: told)
    (stamped,) = told[0].transforms
    assert (stamped.header.frame_id, stamped.child_frame_id) == ('base_link', FRAME)
    place, rotation = stamped.transform.translation, stamped.transform.rotation
    assert (place.x, place.y, place.z) == (0.1, 0.0, 0.3)
    # z of the optical frame points ahead, x of it to the right
    np.testing.assert_allclose(turned(rotation, [0, 0, 1]), [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(turned(rotation, [1, 0, 0]), [0, -1, 0], atol=1e-6)
    assert node.set_parameters(overrides({'frame_id': 'eye'}))[0].successful
    driver.send(WINDOW_MS)
    assert graph.spin_until(lambda: told[-1].transforms[0].child_frame_id == 'eye')
    node.trigger_deactivate()
    assert graph.spin_until(lambda: graph.camera.count_publishers('/tf_static') == 0)


def test_without_the_parameter_nothing_is_published(graph, start):
    start(camera_pose=LOOKS_AHEAD)
    Driver(graph).send(WINDOW_MS)
    graph.spin_for(0.3)
    assert graph.camera.count_publishers('/tf_static') == 0


def test_a_frame_is_not_its_own_parent(graph, start, log):
    start(publish_tf=True, camera_pose=LOOKS_AHEAD, parent_frame=FRAME)
    told = graph.listen(TFMessage, '/tf_static', LATCHED)
    Driver(graph).send(WINDOW_MS)
    sentence = f'parent_frame is {FRAME!r}, which is the optical frame itself'
    assert graph.spin_until(lambda: sentence in log.read())
    assert told == []


@pytest.mark.parametrize(('given', 'words'), [
    ({'publish_tf': True}, 'publish_tf is true, but camera_pose is empty: expected'),
    ({'publish_tf': True, 'camera_pose': LOOKS_AHEAD, 'parent_frame': ''},
     'parent_frame is empty, expected the frame in which camera_pose is'),
    ({'publish_tf': True, 'camera_pose': '1 2'}, "camera_pose is '1 2', expected six numbers"),
])  # fmt: skip
def test_what_cannot_be_published_is_named(start, given, words):
    node = start(configure=False, **given)
    node.trigger_configure()
    assert words in node.last_error


@pytest.mark.parametrize('angles', [(0, 0, 0), (3.14159265, 0, 0), (0.3, -0.7, 2.0), (0, 0, -3.1)])
def test_rotations_survive_as_quaternions(angles):
    mount = pose_of(' '.join(map(str, (1, 2, 3, *angles))))
    rotation = transform_of(mount, 'a', 'b').transform.rotation
    for vector in np.eye(3):
        np.testing.assert_allclose(turned(rotation, vector), mount.rotation @ vector, atol=1e-7)
