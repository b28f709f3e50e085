"""Records the outputs of a depth node into an MCAP bag, for Foxglove, rerun and ros2 bag."""

from __future__ import annotations

import contextlib
import functools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from spike_depth_ros.recordings import BagWriter
from spike_depth_ros.ros.outputs import OUTPUTS

RECORDED = ('depth', 'camera_info', 'confidence', 'cloud', 'color_jpeg', 'events_jpeg')
"""Outputs that a recording holds, besides /diagnostics; pictures as JPEG, which are small."""


class OutputRecorder(Node):
    """Subscribes to the outputs of a depth node and writes their bytes as they arrive.

    Args:
        bag: receives the messages.
        node_name: fully qualified name of the depth node, such as '/depth_node'.
    """

    def __init__(self, bag: BagWriter, node_name: str) -> None:
        super().__init__('spike_depth_recorder')
        self._bag = bag
        topics: dict[str, Any] = {
            OUTPUTS[name].topic.replace('~', node_name): OUTPUTS[name].type for name in RECORDED
        }
        topics['/diagnostics'] = DiagnosticArray
        qos = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
        for topic, kind in topics.items():
            package = kind.__module__.partition('.')[0]
            keep = functools.partial(self._keep, topic, f'{package}/msg/{kind.__name__}')
            self.create_subscription(kind, topic, keep, qos, raw=True)

    def _keep(self, topic: str, type_name: str, cdr: bytes) -> None:
        self._bag.add_raw(topic, type_name, self.get_clock().now().nanoseconds, cdr)


@contextlib.contextmanager
def recorded_outputs(path: Path, node_name: str, executor: Executor) -> Iterator[None]:
    """While it lasts, records the outputs of a depth node; replaces an earlier recording.

    Args:
        path: folder of the bag.
        node_name: fully qualified name of the depth node.
        executor: spins the recorder.

    Raises:
        BagError: `path` exists and is no bag, or cannot be written.
    """
    if (path / 'metadata.yaml').is_file():
        shutil.rmtree(path)
    with BagWriter(path) as bag:
        recorder = OutputRecorder(bag, node_name)
        executor.add_node(recorder)
        try:
            yield
        finally:
            executor.remove_node(recorder)
            recorder.destroy_node()
