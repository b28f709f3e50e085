"""The lens that the node goes by: of a file, of camera_info, or assumed."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo

from spike_depth_ros.events.camera import CalibrationError, Camera, read_calibration
from spike_depth_ros.events.spikes import binning_factor
from spike_depth_ros.ros.inputs import local_path
from spike_depth_ros.ros.messages import assumed_camera, camera_from_info
from spike_depth_ros.ros.process import NO_SUBSCRIPTION_EVENTS

if TYPE_CHECKING:
    from spike_depth_ros.ros.depth_node import DepthNode

GRACE_S = 2.0
"""If somebody publishes camera_info, a message of it is awaited this long after activation."""

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""Of a calibration that is published once, maybe before this node came; reliable, for DDS gives
what came before to no other."""


class Calibration:
    """Knows the camera of the events, as far as somebody has told.

    Args:
        node: whose parameters, log and subscriptions it uses.

    Attributes:
        camera: what was told last; None before.
    """

    def __init__(self, node: DepthNode) -> None:
        self.camera: Camera | None = None
        self._node = node
        self._problem = ''
        self._subscription: Subscription | None = None
        self._latched: Subscription | None = None
        self._active_since_s = math.inf

    def load(self) -> None:
        """Forgets what was told, and reads the file of the parameter, if there is one.

        Raises:
            CalibrationError: it cannot be used.
        """
        url = self._node.parameters.camera_info_url
        self.camera = read_calibration(local_path(url)) if url else None

    def open(self) -> None:
        """Begins to listen, unless a file was given."""
        self._active_since_s = time.monotonic()
        if not self._node.parameters.camera_info_url:
            self._subscription = self._hear(qos_profile_sensor_data)

    def look(self) -> None:
        """Asks those for their last calibration who keep it; the others would warn of the wish."""
        if self._subscription is None or self._latched is not None:
            return
        offered = self._node.get_publishers_info_by_topic(self._subscription.topic_name)
        if any(o.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for o in offered):
            self._latched = self._hear(LATCHED)

    def close(self) -> None:
        """Ends the subscriptions."""
        self._active_since_s = math.inf
        for subscription in (self._subscription, self._latched):
            if subscription is not None:
                self._node.destroy_subscription(subscription)
        self._subscription = self._latched = None

    def camera_for(self, height: int, width: int) -> Camera:
        """The camera to use for events of that sensor.

        Raises:
            CalibrationError: there is none yet, and none may be assumed.
        """
        if self.camera is not None:
            return self.camera
        node = self._node
        topic = node.resolve_topic_name('camera_info')
        awaited = time.monotonic() - self._active_since_s < GRACE_S
        if node.parameters.require_calibration or (awaited and node.count_publishers(topic) > 0):
            problem = self._problem or 'nothing came'
            raise CalibrationError(
                f'no calibration yet: {problem} on {topic}, and camera_info_url is '
                f'{node.parameters.camera_info_url!r}'
            )
        return assumed_camera(width, height, self._assumed_focal_px(width))

    def _assumed_focal_px(self, width: int) -> float:
        hfov_deg, checkpoint = self._node.parameters.assumed_hfov_deg, self._node.checkpoint
        if hfov_deg > 0:
            return 0.5 * width / math.tan(math.radians(hfov_deg) / 2)
        return checkpoint.depth_range.focal_px * binning_factor(width, checkpoint.spikes)

    def _hear(self, qos: QoSProfile) -> Subscription:
        return self._node.create_subscription(
            CameraInfo, 'camera_info', self._on_camera_info, qos,
            event_callbacks=NO_SUBSCRIPTION_EVENTS,
        )  # fmt: skip

    def _on_camera_info(self, message: CameraInfo) -> None:
        log = self._node.get_logger()
        try:
            camera = camera_from_info(message)
        except CalibrationError as error:
            self._problem = str(error)
            log.error(f'camera_info: {error}', throttle_duration_sec=10.0)
            return
        self._problem = ''
        if camera != self.camera:
            size = f'{camera.width}x{camera.height}'
            log.info(f'calibration of {size} px, focal length {camera.fx:.1f} px')
        self.camera = camera
