"""The calibration of the camera: from a file, from camera_info, or assumed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo

from spike_depth_ros.events.calibration_file import read_calibration
from spike_depth_ros.events.camera import CalibrationError, Camera
from spike_depth_ros.events.spikes import binning_factor
from spike_depth_ros.network.checkpoint import Checkpoint
from spike_depth_ros.ros.condition_log import ConditionLog
from spike_depth_ros.ros.depth_parameters import DepthParameters
from spike_depth_ros.ros.messages import assumed_camera, camera_from_info
from spike_depth_ros.ros.params import Live
from spike_depth_ros.ros.process import NO_SUBSCRIPTION_EVENTS
from spike_depth_ros.ros.resource_url import local_path

GRACE_S = 2.0
"""If camera_info has a publisher, a message is awaited for this long after activation."""

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""For a calibration that was published once before this node started. It is reliable, because DDS
delivers earlier messages to reliable subscriptions only."""


class CameraInfoInput:
    """Subscribes to a topic of `CameraInfo`, also where it is published once.

    Args:
        node: subscribes.
        topic: its name before remapping.
        on_message: called with each message.

    Attributes:
        topic: its name after remapping.
    """

    def __init__(self, node: Node, topic: str, on_message: Callable[[CameraInfo], None]) -> None:
        self.topic = node.resolve_topic_name(topic)
        self._node, self._name, self._on_message = node, topic, on_message
        self._subscriptions: list[Subscription] = []

    def open(self) -> None:
        """Subscribes."""
        self._subscribe(qos_profile_sensor_data)

    def look(self) -> None:
        """Subscribes transient-local as well, once a publisher offers it.

        Publishers that do not offer it would warn of the request.
        """
        if len(self._subscriptions) != 1:
            return
        offered = self._node.get_publishers_info_by_topic(self.topic)
        if any(o.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for o in offered):
            self._subscribe(LATCHED)

    def close(self) -> None:
        """Ends the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def _subscribe(self, qos: QoSProfile) -> None:
        self._subscriptions.append(self._node.create_subscription(
            CameraInfo, self._name, self._on_message, qos, event_callbacks=NO_SUBSCRIPTION_EVENTS
        ))  # fmt: skip


class Calibration:
    """Holds the calibration of the camera that the events come from.

    Args:
        node: subscribes to `camera_info`.
        live: the parameters of the node.
        log: of the node.

    Attributes:
        camera: the newest calibration; None before the first.
    """

    def __init__(self, node: Node, live: Live[DepthParameters], log: ConditionLog) -> None:
        self.camera: Camera | None = None
        self._node, self._live, self._log = node, live, log
        self._input = CameraInfoInput(node, 'camera_info', self._on_camera_info)
        self._problem = ''
        self._active_since_s = math.inf

    def load(self) -> None:
        """Forgets the calibration, and reads the file of the parameter if there is one.

        Raises:
            CalibrationError, ParameterError: it cannot be used.
        """
        url = self._live.now.camera_info_url
        self.camera = read_calibration(local_path(url, 'camera_info_url')) if url else None

    def open(self) -> None:
        """Subscribes to `camera_info`, unless a file was given."""
        self._active_since_s = time.monotonic()
        if not self._live.now.camera_info_url:
            self._input.open()

    def look(self) -> None:
        """Looks at the graph: to be called now and then, while the node is active."""
        self._input.look()

    def close(self) -> None:
        """Ends the subscription."""
        self._active_since_s = math.inf
        self._input.close()

    def camera_for(self, height: int, width: int, checkpoint: Checkpoint) -> Camera:
        """The camera to use for a sensor of that many rows and columns.

        Args:
            height: rows of the sensor.
            width: columns of the sensor.
            checkpoint: the lens of its training is assumed where nothing is known.

        Raises:
            CalibrationError: there is none yet, and none may be assumed.
        """
        if self.camera is not None:
            return self.camera
        is_awaited = time.monotonic() - self._active_since_s < GRACE_S
        required = self._live.now.require_calibration
        if required or (is_awaited and self._node.count_publishers(self._input.topic) > 0):
            problem = self._problem or 'nothing came'
            raise CalibrationError(
                f'no calibration yet: {problem} on {self._input.topic}, and camera_info_url is '
                f'{self._live.now.camera_info_url!r}'
            )
        hfov_deg = self._live.now.assumed_hfov_deg
        if hfov_deg > 0:
            focal_px = 0.5 * width / math.tan(math.radians(hfov_deg) / 2)
        else:
            focal_px = checkpoint.depth_range.focal_px * binning_factor(width, checkpoint.spikes)
        return assumed_camera(width, height, focal_px)

    def _on_camera_info(self, message: CameraInfo) -> None:
        try:
            camera = camera_from_info(message)
        except CalibrationError as error:
            self._problem = str(error)
            self._log.error('camera_info', f'{self._input.topic}: {error}')
            return
        self._problem = ''
        self._log.over('camera_info')
        if camera != self.camera:
            size = f'{camera.width}x{camera.height}'
            sentence = f'calibration of a {size} sensor, focal length {camera.fx:.1f} px'
            self._log.info('calibration', f'{sentence}, from {self._input.topic}', str(camera))
        self.camera = camera
