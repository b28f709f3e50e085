"""Subscribes to the outputs of the nodes and records them for the demo and the benchmark."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
from cv_bridge import CvBridge
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2

BRIDGE = CvBridge()


@dataclasses.dataclass
class Recording:
    """Outputs of the node during a recording. Stamps are ROS times."""

    depth_m: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    confidence: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    events: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    truth_m: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    clouds: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    latency_ms: list[float] = dataclasses.field(default_factory=list)
    arrival_s: list[float] = dataclasses.field(default_factory=list)
    events_per_s: list[float] = dataclasses.field(default_factory=list)
    diagnostics: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    node_cores: float = 0.0  # processor time of depth_node per second of playing
    said: dict[str, str] = dataclasses.field(default_factory=dict)  # while events arrived


def stamp_ns(message: Any) -> int:
    """The header's stamp in ns."""
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


class Probe(Node):
    """Subscribes to /diagnostics and to every result of a depth node called `node_name`.

    Args:
        node_name: fully qualified, such as '/depth_node'.
        truth_topic: topic of ground-truth depth, if the drive has one.
        results: False subscribes to /diagnostics only.
    """

    def __init__(
        self, node_name: str = '/depth_node', truth_topic: str = '', results: bool = True
    ) -> None:
        super().__init__('spike_depth_probe')
        self.recording = Recording()
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        if results:
            self._subscribe(node_name, truth_topic)

    def _subscribe(self, node_name: str, truth_topic: str) -> None:
        reliable = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
        keep = self.recording
        self.create_subscription(Image, f'{node_name}/depth/image', self._on_depth, reliable)
        for topic, store in (('depth/confidence', keep.confidence), ('events/image', keep.events)):
            self.create_subscription(Image, f'{node_name}/{topic}', self._keeper(store), reliable)
        self.create_subscription(
            PointCloud2, f'{node_name}/depth/points', self._on_cloud, reliable
        )
        if truth_topic:
            best_effort = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
            self.create_subscription(Image, truth_topic, self._keeper(keep.truth_m), best_effort)

    def _keeper(self, store: dict[int, np.ndarray]) -> Any:
        def keep(message: Image) -> None:
            store[stamp_ns(message)] = _pixels(message)

        return keep

    def _on_depth(self, message: Image) -> None:
        now_ns = self.get_clock().now().nanoseconds
        self.recording.arrival_s.append(time.monotonic())
        self.recording.latency_ms.append((now_ns - stamp_ns(message)) / 1e6)
        self.recording.depth_m[stamp_ns(message)] = _pixels(message)

    def _on_cloud(self, message: PointCloud2) -> None:
        fields = message.point_step // 4
        points = np.frombuffer(message.data, np.float32)
        shape = (message.height, message.width, fields)
        self.recording.clouds[stamp_ns(message)] = points.reshape(shape).copy()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            self.recording.diagnostics[status.name] = {'message': status.message, **values}
            events_per_s = float(values.get('events/s', 0))
            if events_per_s > 0:
                self.recording.events_per_s.append(events_per_s)
                if events_per_s > 0.5 * max(self.recording.events_per_s):  # not its end
                    self.recording.said = {part.name: part.message for part in message.status}


def _pixels(message: Image) -> np.ndarray:
    return np.array(BRIDGE.imgmsg_to_cv2(message, desired_encoding='passthrough'))
