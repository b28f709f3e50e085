"""Publishes where the camera is on the robot, for robots whose description leaves it out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from geometry_msgs.msg import Quaternion, TransformStamped, Vector3
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile

from spike_depth_ros.estimation.motion import Mount, pose_of
from spike_depth_ros.ros.inputs import message_class
from spike_depth_ros.ros.process import NO_PUBLISHER_EVENTS

if TYPE_CHECKING:
    from spike_depth_ros.ros.depth_parameters import DepthParameters
    from spike_depth_ros.ros.params import Live

TRANSFORMS = 'tf2_msgs/msg/TFMessage'


class CameraTransform:
    """The static transform from `parent_frame` to the optical frame.

    Args:
        node: publishes.
        live: its parameters.
    """

    def __init__(self, node: Node, live: Live[DepthParameters]) -> None:
        self._node, self._live = node, live
        self._publisher: Publisher | None = None
        self._frame_id = ''

    def open(self) -> None:
        """Begins to publish, if the parameters ask for it.

        Raises:
            InputError: the message package tf2_msgs is not installed.
        """
        if self._live.now.publish_tf:
            latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            self._publisher = self._node.create_publisher(
                message_class(TRANSFORMS), '/tf_static', latched,
                event_callbacks=NO_PUBLISHER_EVENTS,
            )  # fmt: skip

    def look(self, frame_id: str) -> None:
        """Publishes once the optical frame is known, and again when it changes."""
        if self._publisher is None or frame_id in ('', self._frame_id):
            return
        self._frame_id, parameters = frame_id, self._live.now
        if frame_id == parameters.parent_frame:
            self._node.get_logger().error(
                f'parent_frame is {frame_id!r}, which is the optical frame itself: no transform '
                'is published'
            )
            return
        transform = transform_of(
            pose_of(parameters.camera_pose), parameters.parent_frame, frame_id
        )
        transform.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(self._publisher.msg_type(transforms=[transform]))

    def close(self) -> None:
        """Removes the transform from the graph."""
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)
        self._publisher, self._frame_id = None, ''


def transform_of(mount: Mount, parent: str, child: str) -> TransformStamped:
    """A mount as a message, without a stamp."""
    turn: Any = cv2.Rodrigues(mount.rotation)[0].ravel()  # axis times angle
    angle = float(np.linalg.norm(turn))
    x, y, z = (turn * (np.sin(angle / 2) / angle if angle else 0.5)).tolist()
    stamped = TransformStamped(child_frame_id=child)
    stamped.header.frame_id = parent
    stamped.transform.rotation = Quaternion(x=x, y=y, z=z, w=float(np.cos(angle / 2)))
    stamped.transform.translation = Vector3(
        **dict(zip('xyz', mount.translation_m.tolist(), strict=True))
    )
    return stamped
