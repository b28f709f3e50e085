"""The node's odometry: subscribes, brings twists to the camera, and has the scale measured."""

from __future__ import annotations

import functools
import math
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

from spike_depth_ros.estimation.motion import (
    TWIST_TYPES,
    MotionError,
    Mount,
    Odometry,
    Twist,
    pose_of,
    twist_of,
)
from spike_depth_ros.ros.diagnostics import OK, WARN, Report
from spike_depth_ros.ros.inputs import InputError, message_class
from spike_depth_ros.ros.process import NO_SUBSCRIPTION_EVENTS

if TYPE_CHECKING:
    from rclpy.node import Node

    from spike_depth_ros.ros.depth_parameters import DepthParameters
    from spike_depth_ros.ros.params import Live
    from spike_depth_ros.ros.results import Result
    from spike_depth_ros.ros.transforms import Transforms

WAIT_S, WAITS = 0.01, 6
"""How long the newest depth map waits for odometry of its time: nothing else waits for it."""

HELD_S = 1.0
"""A scale that no window has confirmed for longer is said to be held."""

NO_COVARIANCE = 'its covariance is zero or absent: taken as unknown'


class ScaleInput:
    """What gives the node's depth its scale: odometry, or the height of the camera.

    Callbacks of the executor only keep samples; `measure` runs in a thread of the pipeline.

    Args:
        node: for which to subscribe.
        live: its parameters.
        transforms: poses from tf.

    Attributes:
        problem: why there is no odometry; empty if there is.
    """

    def __init__(self, node: Node, live: Live[DepthParameters], transforms: Transforms) -> None:
        self.problem = ''
        self._node, self._live, self._transforms = node, live, transforms
        self._odometry = Odometry()
        self._topic = self._type_name = self._frame = ''
        self._camera_frame = ''
        self._height_m = 0.0
        self._has_covariance = True
        self._mount: Mount | None = None
        self._given: Mount | None = None
        self._subscription: Subscription | None = None
        self._tracker: Any = None

    def open(self) -> None:
        """Begins to look for the topic that the parameters name.

        Raises:
            MotionError: `camera_pose` is not a pose.
        """
        parameters = self._live.now
        self._given = pose_of(parameters.camera_pose) if parameters.camera_pose else None
        self._mount, self._frame = self._given, ''
        self._odometry, self._tracker = Odometry(), None
        self._topic = ''
        if not parameters.odometry:
            return
        self._topic = self._node.resolve_topic_name(parameters.odometry)
        self.problem = f'nobody publishes {self._topic}'
        if self._given is None:
            self._transforms.open()
        self.look()

    def look(self) -> None:
        """Looks at the graph: to be called now and then, while the node is active."""
        if not self._topic:
            return
        if self._subscription is None:
            self._subscribe()
        if self._mount is None and self._frame and self._camera_frame:
            self._find_mount()

    def close(self) -> None:
        """Ends the subscriptions."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self._subscription = None
        self._topic = self._type_name = ''

    def measure(
        self,
        result: Result,
        events: np.ndarray,
        stopped: threading.Event,
    ) -> None:
        """Learns the scale of later depth maps from one of them.

        Args:
            result: the newest.
            events: (N,) `EVENT_DTYPE` of the time before it.
            stopped: ends the wait for odometry of that time.
        """
        frame, estimator = result.frame, result.job.estimator
        self._camera_frame, self._tracker = result.job.frame_id, estimator.tracker
        self._height_m = self._live.now.camera_height_m
        to_ros_ns = result.job.stamp_ns - frame.stamp_ns
        if self._topic:
            for _ in range(WAITS):
                newest_ns = self._odometry.newest_ns
                if newest_ns is None or newest_ns >= result.job.stamp_ns:
                    break
                if stopped.wait(WAIT_S):
                    return
            twist, _ = self._motion(to_ros_ns, frame.stamp_ns, frame.stamp_ns)
            if twist is not None or not self._height_m:
                estimator.look(frame, events, functools.partial(self._motion, to_ros_ns))
                return
        if self._height_m:
            estimator.look_down(frame, self._height_m)

    def report(self) -> Report | None:
        """What /diagnostics say of the scale; None if nothing was asked for."""
        if not self._topic and not self._height_m:
            return None
        tracker, values = self._tracker, self._values()
        if tracker is None:
            return Report('scale', WARN, f'no scale: {self.problem or "no depth yet"}', values)
        state = tracker.state
        percent = 100 * math.expm1(min(state.deviation, 3.0))
        values |= {
            'scale': f'{math.exp(state.ln_scale):.4f}' if state.known else 'unknown',
            'deviation %': f'{percent:.1f}' if state.known else '',
            'age s': f'{state.age_s:.2f}',
            'agreement': f'{state.agreement:.1f}',
        }
        reason = self.problem or tracker.reason
        if not tracker.agrees:
            sentence = (
                'depth and motion do not agree: does the odometry belong to this robot, is the '
                'pose of the camera right, does all that it sees move?'
            )
            return Report('scale', WARN, sentence, values)
        if not state.known:
            return Report('scale', WARN, f'no scale yet: {reason or "looking for it"}', values)
        said = f'{math.exp(state.ln_scale):.3f} +- {percent:.0f} %'
        if self.problem:
            return Report('scale', WARN, f'{said}, held: {self.problem}', values)
        if state.age_s > HELD_S or tracker.reason:
            return Report('scale', OK, f'{said}, held for {state.age_s:.1f} s: {reason}', values)
        return Report('scale', OK, said, values)

    def _values(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if self._topic:
            values |= {
                'odometry': f'{self._topic} ({self._type_name or "no type yet"})',
                'frame of the twist': self._frame,
                'camera pose': 'unknown' if self._mount is None else _said(self._mount),
            }
            if not self._has_covariance:
                values['covariance'] = NO_COVARIANCE
            values |= dict(self._odometry.refused)
        if self._height_m:
            values['camera height m'] = self._height_m
        return values

    def _motion(self, to_ros_ns: int, start_ns: int, end_ns: int) -> tuple[Twist | None, str]:
        """Mean twist of the camera between two sensor times."""
        mount = self._mount
        base, reason = self._odometry.mean(start_ns + to_ros_ns, end_ns + to_ros_ns)
        if mount is None:
            return None, self.problem or 'the pose of the camera is not known yet'
        if base is None:
            return None, reason
        return mount.camera_twist(base), ''

    def _take(self, message: Any) -> None:
        stamped = twist_of(message)
        self._has_covariance = stamped.has_covariance
        if stamped.stamp_ns == 0:
            self._note('odometry has no stamps')
            return
        if stamped.frame_id != self._frame:
            if self._frame:
                self._note(
                    f'odometry changes its frame from {self._frame!r} to {stamped.frame_id!r}'
                )
            self._frame, self._mount = stamped.frame_id, self._given
            refused, self._odometry = self._odometry.refused, Odometry()
            self._odometry.refused = refused
        self._odometry.add(stamped.stamp_ns, stamped.twist)

    def _note(self, sentence: str) -> None:
        refused = self._odometry.refused
        refused[sentence] = refused.get(sentence, 0) + 1

    def _subscribe(self) -> None:
        peers = self._node.get_publishers_info_by_topic(self._topic)
        offered = {peer.topic_type for peer in peers}
        found = [name for name in TWIST_TYPES if name in offered]
        if not found:
            self.problem = f'nobody publishes {self._topic}'
            if offered:
                self.problem = (
                    f'{self._topic} has the type {", ".join(sorted(offered))}, expected one of '
                    f'{", ".join(TWIST_TYPES)}'
                )
            return
        try:
            kind = message_class(found[0])
        except InputError as error:
            self.problem = str(error)
            return
        qos = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._subscription = self._node.create_subscription(
            kind, self._topic, self._take, qos, event_callbacks=NO_SUBSCRIPTION_EVENTS
        )
        self._type_name, self.problem = found[0], ''
        self._node.get_logger().info(f'subscribed to {self._topic} as {self._type_name}')

    def _find_mount(self) -> None:
        """Takes the pose of the camera from tf."""
        try:
            self._mount = self._transforms.mount(self._frame, self._camera_frame)
        except MotionError as error:
            self.problem = f'{error}: publish it on /tf_static, or give camera_pose'
            return
        self.problem = ''


def _said(mount: Mount) -> str:
    x, y, z = mount.translation_m
    ahead = mount.rotation[:, 2]
    return f'at ({x:.3f}, {y:.3f}, {z:.3f}) m, looks along {ahead.round(3).tolist()}'
