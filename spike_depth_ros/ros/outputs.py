"""The publishers of the depth node. An output without subscribers is not computed."""

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
from spike_depth_ros.estimation.depth_frame import DepthFrame
from spike_depth_ros.estimation.registration import register
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.ros import messages, obstacles
from spike_depth_ros.ros.compressed_depth import Quantization, compressed_depth
from spike_depth_ros.ros.depth_parameters import DepthParameters
from spike_depth_ros.ros.inputs import full_name, qos_conflict
from spike_depth_ros.ros.params import RELIABILITY, Live, given_names
from spike_depth_ros.ros.process import NO_PUBLISHER_EVENTS
from spike_depth_ros.ros.registration import Registration
from spike_depth_ros.ros.results import Result


class Output(NamedTuple):
    """One topic of the node, in its private namespace."""

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
    'registered': Output('~/depth_registered/image', Image),
    'registered_camera_info': Output('~/depth_registered/camera_info', CameraInfo),
    'registered_confidence': Output('~/depth_registered/confidence', Image),
}
"""Name -> topic. The parameter `publish_NAME` switches it."""

REGISTERED = tuple(name for name in OUTPUTS if name.startswith('registered'))
"""Outputs that exist only with the parameter `register_camera_info`."""

CLOUDS_FOR_COSTMAPS = {
    'obstacles': obstacles.obstacle_points,
    'free_space': obstacles.free_space_points,
}

OVERRIDES: dict[str, Callable[[Any], Any]] = {
    'history': lambda value: HistoryPolicy[value.upper()],
    'depth': operator.index,
    'reliability': lambda value: ReliabilityPolicy[value.upper()],
}
"""Policy that a parameter may override -> function that converts the parameter's value."""


class Outputs:
    """The publishers of one configured node.

    Args:
        node: creates the publishers; they publish while it is active.
        live: the parameters of the node.
        registration: the other camera that depth is registered to.

    Attributes:
        publishers: name in `OUTPUTS` -> publisher, for the outputs that are switched on.

    Raises:
        InvalidQosOverridesError, ParameterException: impossible `qos_overrides`.
    """

    def __init__(
        self, node: LifecycleNode, live: Live[DepthParameters], registration: Registration
    ) -> None:
        self._node, self._live, self._registration = node, live, registration
        self._next_s: dict[str, float] = {}
        self._rays_of: Camera | None = None
        self._rays: np.ndarray = np.empty(0, np.float32)
        self.publishers: dict[str, LifecyclePublisher] = {}
        try:
            for name, output in OUTPUTS.items():
                if not _is_switched_on(name, live.now):
                    continue
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
        """True if any output has a subscriber."""
        return any(map(self._has_subscriber, list(self.publishers)))

    def unreached(self) -> Iterator[str]:
        """Yields one sentence for each subscription whose QoS is incompatible with its output."""
        for publisher in list(self.publishers.values()):
            topic = publisher.topic_name
            if self._node.count_subscribers(topic) <= publisher.get_subscription_count():
                continue  # all are reached; asking for their QoS takes several times as long
            for peer in self._node.get_subscriptions_info_by_topic(topic):
                reason = qos_conflict(publisher.qos_profile, peer.qos_profile)
                if reason:
                    yield f'{topic} does not reach {full_name(peer)}: {reason}'

    def publish(self, result: Result) -> None:
        """Publishes depth, camera_info and confidence, for every depth frame."""
        header = messages.make_header(result.job.stamp_ns, result.job.frame_id)
        frame, camera = result.frame, result.job.estimator.camera
        if self._has_subscriber('camera_info') and camera is not None:
            self.publishers['camera_info'].publish(messages.camera_info(header, camera))
        if self._has_subscriber('depth'):
            image = self._depth_image(header, frame.depth_m)
            self.publishers['depth'].publish(image)
        if self._has_subscriber('confidence'):
            image = messages.confidence_image(header, frame.confidence)
            self.publishers['confidence'].publish(image)

    def show(self, result: Result) -> None:
        """Publishes clouds, compressed depth and pictures, each at its own rate.

        Clouds come first, because robots act on them; people look at the rest.
        """
        header = messages.make_header(result.job.stamp_ns, result.job.frame_id)
        frame, parameters = result.frame, self._live.now
        if result.job.estimator.camera is not None:
            self._show_clouds(header, result, result.job.estimator.camera, parameters)
            self._show_registered(header, frame, result.job.estimator.camera)
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
        self, header: Header, result: Result, camera: Camera, parameters: DepthParameters
    ) -> None:
        frame = result.frame
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
            rays = self._rays_for(camera)
            self.publishers['cloud'].publish(messages.point_cloud(
                header, frame.depth_m, frame.confidence, rays, parameters.cloud_stride,
                parameters.cloud_fields, cloud_colors(result, rays, parameters),
                parameters.cloud_voxel_m,
            ))  # fmt: skip

    def _show_registered(self, header: Header, frame: DepthFrame, camera: Camera) -> None:
        """Publishes depth and confidence in the image of the other camera."""
        wanted = [name for name in REGISTERED if self._has_subscriber(name)]
        target = self._registration.target(header.frame_id) if wanted else None
        if target is None:
            return
        header = Header(stamp=header.stamp, frame_id=target.frame_id)
        if 'registered_camera_info' in wanted:
            info = messages.camera_info(header, target.camera)
            self.publishers['registered_camera_info'].publish(info)
        if wanted == ['registered_camera_info']:
            return
        depth_m, confidence = register(
            frame.depth_m, frame.confidence, camera, self._rays_for(camera), target.camera,
            target.pose, self._live.now.register_fill,
        )  # fmt: skip
        if 'registered' in wanted:
            self.publishers['registered'].publish(self._depth_image(header, depth_m))
        if 'registered_confidence' in wanted:
            image = messages.confidence_image(header, confidence)
            self.publishers['registered_confidence'].publish(image)

    def _depth_image(self, header: Header, depth_m: np.ndarray) -> Image:
        if self._live.now.beyond_range == 'nan':
            depth_m = np.where(np.isposinf(depth_m), np.float32(np.nan), depth_m)
        return messages.depth_image(header, depth_m, self._live.now.depth_encoding)

    def _show_picture(
        self, name: str, header: Header, rate_hz: float, make: Callable[[], np.ndarray]
    ) -> None:
        """Publishes a picture uncompressed and as JPEG, each if it has subscribers."""
        due, jpeg_due = self._due(name, rate_hz), self._due(f'{name}_jpeg', rate_hz)
        if not (due or jpeg_due):
            return
        rgb = make()
        if due:
            self.publishers[name].publish(messages.image(header, rgb, 'rgb8'))
        if jpeg_due:
            self.publishers[f'{name}_jpeg'].publish(messages.jpeg(header, rgb))

    def _has_subscriber(self, name: str) -> bool:
        publisher = self.publishers.get(name)
        return publisher is not None and publisher.get_subscription_count() > 0

    def _due(self, name: str, rate_hz: float) -> bool:
        """True if the output has a subscriber and its last message is long enough ago."""
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


def _is_switched_on(name: str, parameters: DepthParameters) -> bool:
    """True if the output exists with these parameters."""
    if name in REGISTERED and not parameters.register_camera_info:
        return False
    return bool(getattr(parameters, f'publish_{name}'))


def cloud_colors(
    result: Result, rays: np.ndarray, parameters: DepthParameters
) -> np.ndarray | None:
    """(H, W, 3) uint8 colours of the point cloud, by `cloud_color`; None for no colours."""
    depth_m, p = result.frame.depth_m, parameters
    match p.cloud_color:
        case 'depth':
            return pictures.depth_colors(depth_m, p.color_map, p.color_min_m, p.color_max_m)
        case 'confidence':
            return pictures.confidence_colors(result.frame.confidence)
        case 'height':
            with np.errstate(invalid='ignore'):  # of an infinite depth at height 0
                height_m = -rays[..., 1] * depth_m
            return pictures.height_colors(height_m, p.color_map, p.cloud_height_m)
        case 'events':
            height, width = depth_m.shape
            return pictures.event_colors(result.job.window.spikes)[:height, :width]
    return None


def _override(node: LifecycleNode, topic: str, qos: QoSProfile) -> None:
    """Applies the parameters `qos_overrides.TOPIC.publisher.*` to a profile.

    rclpy can do so too, but it takes the policies of the first profile as the defaults of these
    parameters: a node that is configured again would keep them, whatever its other parameters are.

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
