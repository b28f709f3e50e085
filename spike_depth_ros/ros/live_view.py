"""Subscribes to the outputs of a depth node and passes them to a viewer."""

from __future__ import annotations

import math
import time
from typing import Protocol

import numpy as np
import rclpy
from cv_bridge import CvBridge
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from spike_depth_ros.events.camera import Camera
from spike_depth_ros.ros.messages import camera_from_info
from spike_depth_ros.ros.probe import stamp_ns


class Viewer(Protocol):
    """Interface of a viewer; times are ROS time [ns]."""

    def at(self, stamp_ns: int) -> None:
        """Sets the time of the following calls."""

    def picture(self, name: str, rgb: np.ndarray) -> None:
        """Shows an (H, W, 3) uint8 picture."""

    def depth(self, depth_m: np.ndarray) -> None:
        """Shows (H, W) depth."""

    def confidence(self, confidence: np.ndarray) -> None:
        """Shows (H, W) confidence."""

    def cloud(self, depth_m: np.ndarray, camera: Camera) -> None:
        """Shows the points of (H, W) depth."""


class LiveView(Node):
    """Shows the outputs of a depth node as they arrive.

    Args:
        viewer: destination of the outputs.
        node_name: fully qualified name of the depth node, such as '/depth_node'.
    """

    def __init__(self, viewer: Viewer, node_name: str) -> None:
        super().__init__('spike_depth_view')
        self.shown = 0
        self._viewer, self._bridge = viewer, CvBridge()
        self._camera: Camera | None = None
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        for topic, kind, callback in (
            ('depth/camera_info', CameraInfo, self._on_camera_info),
            ('depth/image', Image, self._on_depth),
            ('depth/confidence', Image, self._on_confidence),
            ('events/image', Image, self._on_events),
        ):
            self.create_subscription(kind, f'{node_name}/{topic}', callback, qos)

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._camera = camera_from_info(message)

    def _on_depth(self, message: Image) -> None:
        depth_m = self._pixels(message)
        if message.encoding == '16UC1':
            depth_m = np.where(depth_m > 0, depth_m * np.float32(1e-3), np.float32(np.nan))
        self._viewer.at(stamp_ns(message))
        self._viewer.depth(depth_m)
        if self._camera is not None and depth_m.shape == (self._camera.height, self._camera.width):
            self._viewer.cloud(depth_m, self._camera)
        self.shown += 1

    def _on_confidence(self, message: Image) -> None:
        self._viewer.at(stamp_ns(message))
        self._viewer.confidence(self._pixels(message))

    def _on_events(self, message: Image) -> None:
        self._viewer.at(stamp_ns(message))
        self._viewer.picture('events', self._pixels(message))

    def _pixels(self, message: Image) -> np.ndarray:
        pixels = self._bridge.imgmsg_to_cv2(message, desired_encoding='passthrough')
        return np.asarray(pixels)


def show(viewer: Viewer, node_name: str, duration_s: float | None) -> int:
    """Shows the outputs of a depth node until the time is over, or Ctrl-C.

    Returns:
        The number of depth images shown.
    """
    rclpy.init()
    view = LiveView(viewer, node_name)
    end_s = math.inf if duration_s is None else time.monotonic() + duration_s
    try:
        while time.monotonic() < end_s:
            rclpy.spin_once(view, timeout_sec=0.1)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        view.destroy_node()
        rclpy.try_shutdown()
    return view.shown
