"""Poses between frames, from /tf and /tf_static.

tf2_ros is not on PyPI. Only the newest pose is needed here, which takes a table of parents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

from spike_depth_ros.estimation.motion import MotionError, Mount, mount_of, mount_of_transform
from spike_depth_ros.ros.process import NO_SUBSCRIPTION_EVENTS

if TYPE_CHECKING:
    from tf2_msgs.msg import TFMessage

MOST_LINKS = 100
"""Longest chain of frames that is followed: a loop ends here."""

MOST_FRAMES = 10_000
"""Frames that are remembered: further ones are ignored."""

MOVING = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
STATIC = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Transforms:
    """Listens to tf once something needs it.

    Args:
        node: subscribes.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._parents: dict[str, tuple[str, Any]] = {}
        self._subscriptions: list[Subscription] = []
        self._problem = ''

    def open(self) -> None:
        """Subscribes; further calls do nothing."""
        if self._subscriptions:
            return
        try:
            from tf2_msgs.msg import TFMessage
        except ImportError:
            self._problem = ', as the package tf2_msgs is not installed'
            return
        self._subscriptions = [
            self._node.create_subscription(
                TFMessage, topic, self._take, qos, event_callbacks=NO_SUBSCRIPTION_EVENTS
            )
            for topic, qos in (('/tf', MOVING), ('/tf_static', STATIC))
        ]

    def close(self) -> None:
        """Ends the subscriptions and forgets all transforms."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions, self._parents = [], {}

    def mount(self, base: str, frame: str) -> Mount:
        """The newest pose of `frame` in `base`.

        Raises:
            MotionError: there is no chain of transforms between them, or one of them is unusable.
        """
        above_base, above_frame = self._ancestors(base), self._ancestors(frame)
        common = next((name for name in above_frame if name in above_base), None)
        if common is None:
            raise MotionError(f'no transform from {base!r} to {frame!r}{self._problem}')
        return above_base[common].inverse().then(above_frame[common])

    def _ancestors(self, frame: str) -> dict[str, Mount]:
        """The frame and all above it -> the pose of `frame` in each, nearest first."""
        name = frame.lstrip('/')
        poses = {name: mount_of(np.eye(3), np.zeros(3))}
        while name in self._parents and len(poses) < MOST_LINKS:
            parent, transform = self._parents[name]
            if parent in poses:
                break
            try:
                poses[parent] = mount_of_transform(transform).then(poses[name])
            except MotionError as error:
                raise MotionError(
                    f'the transform from {parent!r} to {name!r} is unusable: {error}'
                ) from error
            name = parent
        return poses

    def _take(self, message: TFMessage) -> None:
        for stamped in message.transforms:
            parent, child = stamped.header.frame_id, stamped.child_frame_id
            name = child.lstrip('/')
            if name in self._parents or len(self._parents) < MOST_FRAMES:
                self._parents[name] = parent.lstrip('/'), stamped.transform
