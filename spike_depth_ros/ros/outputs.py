"""The publishers of the depth node; an output without subscribers is not computed."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import InvalidQosOverridesError
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header

from spike_depth_ros.estimation import pictures
from spike_depth_ros.estimation.estimator import DepthFrame
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.ros import messages, obstacles
from spike_depth_ros.ros.compressed_depth import Quantization, compressed_depth
from spike_depth_ros.ros.depth_parameters import DepthParameters
from spike_depth_ros.ros.inputs import full_name, qos_conflict
from spike_depth_ros.ros.params import RELIABILITY, Live, given_names
from spike_depth_ros.ros.process import NO_PUBLISHER_EVENTS
from spike_depth_ros.ros.results import Result


class Output(NamedTuple):
    """One topic of the node, below its private namespace."""

    topic: str
    type: Any


OUTPUTS: dict[str, Output] = {
    'depth': Output('~/depth/image', Image),
    'camera_info': Output('~/depth/camera_info', CameraInfo),
    'confidence': Output('~/depth/confidence', Image),
    'cloud': Output('~/depth/points', PointCloud2),
    'obstacles': Output('~/depth/obstacles', PointCloud2),
    'free_space': Output('~/depth/free_space', PointCloud2),
    'color': Output('~/depth/image_color', Image),
    'compressed': Output('~/depth/image/compressedDepth', CompressedImage),
    'color_jpeg': Output('~/depth/image_color/compressed', CompressedImage),
    'events': Output('~/events/image', Image),
    'events_jpeg': Output('~/events/image/compressed', CompressedImage),
}


CLOUDS_FOR_COSTMAPS = {
    'obstacles': obstacles.obstacle_points,
    'free_space': obstacles.free_space_points,
}

OVERRIDES: dict[str, Callable[[Any], Any]] = {
    'history': lambda value: HistoryPolicy[value.upper()],
    'depth': operator.index,
    'reliability': lambda value: ReliabilityPolicy[value.upper()],
}
"""Policy that a parameter may override -> what makes the policy of the parameter's value."""


class Outputs:
    """The publishers of one configured node.

    Args:
        node: whose publishers they are; they publish while it is active.
        live: the parameters of the node.

    Raises:
        InvalidQosOverridesError, ParameterException: `qos_overrides` that cannot be.
    """

    def __init__(self, node: LifecycleNode, live: Live[DepthParameters]) -> None:
        self._node, self._live = node, live
        self._next_s: dict[str, float] = {}
        self._rays_of: Camera | None = None
        self._rays: np.ndarray = np.empty(0, np.float32)
        self.publishers: dict[str, LifecyclePublisher] = {}
        try:
            for name, output in OUTPUTS.items():
                qos = QoSProfile(
                    history=HistoryPolicy.KEEP_LAST,
                    depth=live.now.output_queue,
                    reliability=RELIABILITY[live.now.output_reliability],
                )
                _override(node, output.topic, qos)
                self.publishers[name] = node.create_lifecycle_publisher(
                    output.type, output.topic, qos, event_callbacks=NO_PUBLISHER_EVENTS
                )
        except BaseException:
            self.destroy()
            raise

    def destroy(self) -> None:
        """Removes the publishers from the graph."""
        for publisher in self.publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self.publishers = {}

    def wanted(self) -> bool:
        """True if anybody subscribes to any output."""
        return any(map(self._has_subscriber, list(self.publishers)))

    def unreached(self) -> Iterator[str]:
        """Who asks for an output by a QoS that it does not have, one sentence each."""
        for publisher in list(self.publishers.values()):
            topic = publisher.topic_name
            if self._node.count_subscribers(topic) <= publisher.get_subscription_count():
                continue  # all are reached; to ask who they are takes several times as long
            for peer in self._node.get_subscriptions_info_by_topic(topic):
                reason = qos_conflict(publisher.qos_profile, peer.qos_profile)
                if reason:
                    yield f'{topic} does not reach {full_name(peer)}: {reason}'

    def publish(self, result: Result) -> None:
        """Publishes what belongs to every depth frame: depth, camera_info, confidence."""
        header = messages.make_header(result.job.stamp_ns, result.job.frame_id)
        frame, camera = result.frame, result.job.estimator.camera
        if self._has_subscriber('camera_info') and camera is not None:
            self.publishers['camera_info'].publish(messages.camera_info(header, camera))
        if self._has_subscriber('depth'):
            depth_m = frame.depth_m
            if self._live.now.beyond_range == 'nan':
                depth_m = np.where(np.isposinf(depth_m), np.float32(np.nan), depth_m)
            image = messages.depth_image(header, depth_m, self._live.now.depth_encoding)
            self.publishers['depth'].publish(image)
        if self._has_subscriber('confidence'):
            image = messages.confidence_image(header, frame.confidence)
            self.publishers['confidence'].publish(image)

    def show(self, result: Result) -> None:
        """Publishes clouds, compressed depth and pictures, each at its own rate.

        Clouds come first: robots act on them, people look at the rest.
        """
        header = messages.make_header(result.job.stamp_ns, result.job.frame_id)
        frame, parameters = result.frame, self._live.now
        if result.job.estimator.camera is not None:
            self._show_clouds(header, frame, result.job.estimator.camera, parameters)
        if self._due('compressed', 0.0):
            quantization = Quantization(
                parameters.compressed_quantization, parameters.compressed_max_m
            )
            self.publishers['compressed'].publish(compressed_depth(
                header, frame.depth_m, parameters.depth_encoding, quantization,
                parameters.compressed_format,
            ))  # fmt: skip
        self._show_picture(
            'color', header, parameters.preview_rate_hz, lambda: pictures.depth_colors(
                frame.depth_m, parameters.color_map, parameters.color_min_m, parameters.color_max_m
            )
        )  # fmt: skip
        height, width = frame.depth_m.shape
        self._show_picture(
            'events', header, parameters.preview_rate_hz,
            lambda: pictures.event_colors(result.job.window.spikes)[:height, :width],
        )  # fmt: skip

    def _show_clouds(
        self, header: Header, frame: DepthFrame, camera: Camera, parameters: DepthParameters
    ) -> None:
        options = obstacles.ObstacleOptions(
            parameters.obstacle_min_confidence, parameters.obstacle_near_m,
            parameters.obstacle_clear_m, parameters.obstacle_voxel_m, parameters.obstacle_stride,
        )  # fmt: skip
        for name, select in CLOUDS_FOR_COSTMAPS.items():
            if self._due(name, parameters.obstacle_rate_hz):
                rays = self._rays_for(camera)
                points = select(frame.depth_m, frame.confidence, rays, options)
                self.publishers[name].publish(messages.point_list(header, points))
        if self._due('cloud', parameters.cloud_rate_hz):
            self.publishers['cloud'].publish(messages.point_cloud(
                header, frame.depth_m, frame.confidence, self._rays_for(camera),
                parameters.cloud_stride, parameters.cloud_fields,
            ))  # fmt: skip

    def _show_picture(
        self, name: str, header: Header, rate_hz: float, make: Callable[[], np.ndarray]
    ) -> None:
        """Publishes a picture as it is and as JPEG, each to its subscribers."""
        due, jpeg_due = self._due(name, rate_hz), self._due(f'{name}_jpeg', rate_hz)
        if not (due or jpeg_due):
            return
        rgb = make()
        if due:
            self.publishers[name].publish(messages.image(header, rgb, 'rgb8'))
        if jpeg_due:
            self.publishers[f'{name}_jpeg'].publish(messages.jpeg(header, rgb))

    def _has_subscriber(self, name: str) -> bool:
        return self.publishers[name].get_subscription_count() > 0

    def _due(self, name: str, rate_hz: float) -> bool:
        """True if somebody listens and the last message is long enough ago."""
        now_s = time.monotonic()
        if not self._has_subscriber(name) or now_s < self._next_s.get(name, 0.0):
            return False
        period_s = 1.0 / rate_hz if rate_hz > 0 else 0.0
        # from the due time, not from now: a rate of 5 out of 20 frames/s stays 5
        self._next_s[name] = max(self._next_s.get(name, 0.0), now_s - period_s) + period_s
        return True

    def _rays_for(self, camera: Camera) -> np.ndarray:
        if camera != self._rays_of:
            self._rays_of, self._rays = camera, camera.rays()
        return self._rays


def _override(node: LifecycleNode, topic: str, qos: QoSProfile) -> None:
    """Puts into a profile what the parameters `qos_overrides.TOPIC.publisher.*` say.

    rclpy could, but it gives these parameters the first profile's policies as defaults: a node
    that is configured again would keep those for ever, whatever its other parameters say by then.

    Raises:
        InvalidQosOverridesError: no such policy.
    """
    for policy, convert in OVERRIDES.items():
        name = f'qos_overrides.{node.resolve_topic_name(topic)}.publisher.{policy}'
        if name not in given_names(node):
            continue
        if not node.has_parameter(name):
            text = f'{policy} of {topic}'
            descriptor = ParameterDescriptor(description=text, read_only=True, dynamic_typing=True)
            node.declare_parameter(name, descriptor=descriptor)
        value = node.get_parameter(name).value
        try:
            setattr(qos, policy, convert(value))
        except (KeyError, TypeError, AttributeError, AssertionError, ValueError) as error:
            raise InvalidQosOverridesError(f'{name} is {value!r}: no such {policy}') from error
