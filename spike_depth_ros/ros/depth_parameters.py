"""The parameters of `depth_node`."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

from spike_depth_ros.estimation.engine import ENGINES
from spike_depth_ros.estimation.estimator import SHIPPED, EstimatorOptions
from spike_depth_ros.estimation.motion import pose_of
from spike_depth_ros.estimation.pictures import COLOR_MAPS
from spike_depth_ros.events.spikes import region_of
from spike_depth_ros.events.wire import EVENT_TYPES
from spike_depth_ros.ros.compressed_depth import FORMATS
from spike_depth_ros.ros.messages import CLOUD_FIELDS
from spike_depth_ros.ros.params import RELIABILITY, ParameterError, parameter, specs

CLOUD_COLORS = ('none', 'depth', 'confidence', 'height', 'events')


def _switch(topic: str) -> Any:
    return parameter(True, f'Offer {topic}; false: no such topic, and none of its work.')


@dataclasses.dataclass(frozen=True)
class DepthParameters:
    """Parameters of `depth_node`. Those that are not live are read when it is configured."""

    autostart: bool = parameter(
        True, 'Configure and activate by itself; false: wait for a lifecycle manager.'
    )
    enabled: bool = parameter(
        True, 'Estimate depth; false pauses, as the service ~/set_enabled does.', live=True
    )
    event_type: str = parameter(
        'auto',
        "Message type of the topic 'events'; auto: the type that its publisher has.",
        choices=('auto', *EVENT_TYPES),
    )
    network: str = parameter(
        'auto',
        'Which of the shipped networks runs; auto: default, or fast where inference by default '
        'would take more than 0.6 of the time, measured once on each machine and remembered.',
        choices=('auto', *SHIPPED),
    )
    checkpoint: str = parameter(
        '', 'Path of a checkpoint (.safetensors) of your own; empty: as network says.'
    )
    device: str = parameter(
        'auto',
        'Where inference runs; auto: a CUDA GPU if there is one.',
        choices=('auto', 'cpu', 'cuda'),
    )
    engine: str = parameter(
        'auto',
        'What runs the network; auto: what a short measurement finds fastest, remembered.',
        choices=tuple(ENGINES),
    )
    num_threads: int = parameter(
        0, 'CPU threads of the inference; 0: all cores but one.', low=0, high=256
    )
    executor: str = parameter(
        'auto',
        "What spins the node, from its start on; auto: rclpy's events executor if it has one, "
        'which leaves more of the processor to inference; plain: the single-threaded one.',
        choices=('auto', 'plain'),
    )
    window_ms: float = parameter(
        0.0,
        'Length of a window [ms]; 0: as the checkpoint was trained.',
        low=0.0,
        high=10_000.0,
        live=True,
    )
    stride_ms: float = parameter(
        0.0,
        'Time from one depth map to the next [ms]; 0: the length of the window.',
        low=0.0,
        high=10_000.0,
        live=True,
    )
    streaming: bool = parameter(
        True,
        'Carry the membrane state of the network from window to window: more accurate than to '
        'begin at rest each time.',
        live=True,
    )
    early_steps: str = parameter(
        'auto',
        'Run the time steps of a window while its events arrive, so that only the last remains '
        'when it ends: the same depth, earlier, for more processor time; auto: where inference '
        'then takes at most 0.6 of the time.',
        choices=('auto', 'on', 'off'),
        live=True,
    )
    camera_info_url: str = parameter(
        '', "Calibration file (YAML); empty: wait for the topic 'camera_info'."
    )
    require_calibration: bool = parameter(
        False, 'Give no depth before a calibration is known.', live=True
    )
    assumed_hfov_deg: float = parameter(
        0.0,
        'Horizontal field of view of an uncalibrated lens [deg]; 0: that of the training.',
        low=0.0,
        high=170.0,
        live=True,
    )
    rectify: bool = parameter(
        True, 'Undistort events, so that depth is of the ideal pinhole camera.', live=True
    )
    roi: str = parameter(
        '',
        "Region of interest, the only part that the network computes: 'x y width height' in "
        'pixels of the sensor, or of its rectified image with rectify; empty: all of it.',
        live=True,
    )
    frame_id: str = parameter(
        '', 'Optical frame of all outputs; empty: the frame_id of the events.', live=True
    )
    odometry: str = parameter(
        '',
        'Topic with the velocity of the robot, which gives depth its metric scale: nav_msgs/'
        'Odometry, geometry_msgs/TwistStamped or TwistWithCovarianceStamped; empty: none.',
    )
    camera_pose: str = parameter(
        '',
        "Pose of the optical frame in the frame of the odometry's twist: 'x y z roll pitch yaw' "
        '[m, rad]; empty: from tf.',
    )
    publish_tf: bool = parameter(
        False,
        'Publish the transform from parent_frame to the optical frame on /tf_static, as '
        'camera_pose says; for robots whose description leaves the camera out.',
    )
    parent_frame: str = parameter(
        'base_link', 'Frame in which camera_pose is, for publish_tf: that of the odometry.'
    )
    camera_height_m: float = parameter(
        0.0,
        'Height of the camera above a flat ground, which gives depth its metric scale where there '
        'is no odometry [m]; 0: unknown.',
        low=0.0,
        high=100.0,
        live=True,
    )
    register_camera_info: str = parameter(
        '',
        'Topic camera_info of another camera: depth is also published in its rectified image, on '
        '~/depth_registered/...; empty: no.',
    )
    register_pose: str = parameter(
        '',
        "Pose of that camera's optical frame in the optical frame of the depth: 'x y z roll pitch "
        "yaw' [m, rad]; empty: from tf.",
    )
    register_fill: bool = parameter(
        True,
        'In the registered image, each depth pixel covers its whole area; false: one pixel.',
        live=True,
    )
    min_depth_m: float = parameter(
        0.0, 'Nearer depth is published as -inf [m].', low=0.0, high=1000.0, live=True
    )
    max_depth_m: float = parameter(
        0.0,
        "Farther depth is published as +inf [m]; 0: the checkpoint's range alone decides.",
        low=0.0,
        high=1000.0,
        live=True,
    )
    min_confidence: float = parameter(
        0.0, 'Less certain depth is published as NaN.', low=0.0, high=1.0, live=True
    )
    depth_encoding: str = parameter(
        '32FC1',
        'Of ~/depth/image: metres as 32FC1, or millimetres as 16UC1.',
        choices=('32FC1', '16UC1'),
        live=True,
    )
    beyond_range: str = parameter(
        'inf',
        'Of ~/depth/image: inf publishes "beyond range" as +inf (REP 117), nan as unknown.',
        choices=('inf', 'nan'),
        live=True,
    )
    publish_depth: bool = _switch('~/depth/image')
    publish_camera_info: bool = _switch('~/depth/camera_info')
    publish_confidence: bool = _switch('~/depth/confidence')
    publish_cloud: bool = _switch('~/depth/points')
    publish_obstacles: bool = _switch('~/depth/obstacles')
    publish_free_space: bool = _switch('~/depth/free_space')
    publish_color: bool = _switch('~/depth/image_color')
    publish_color_jpeg: bool = _switch('~/depth/image_color/compressed')
    publish_compressed: bool = _switch('~/depth/image/compressedDepth')
    publish_events: bool = _switch('~/events/image')
    publish_events_jpeg: bool = _switch('~/events/image/compressed')
    publish_registered: bool = _switch('~/depth_registered/image')
    publish_registered_camera_info: bool = _switch('~/depth_registered/camera_info')
    publish_registered_confidence: bool = _switch('~/depth_registered/confidence')
    cloud_rate_hz: float = parameter(
        5.0,
        'Most clouds per second on ~/depth/points; 0: one for each depth map.',
        low=0.0,
        high=1000.0,
        live=True,
    )
    cloud_stride: int = parameter(
        2, 'Every n-th row and column becomes a point.', low=1, high=64, live=True
    )
    cloud_fields: str = parameter(
        'xyz_confidence',
        'Fields of a point; xyz_intensity is the confidence under the name that viewers know.',
        choices=tuple(CLOUD_FIELDS),
        live=True,
    )
    cloud_voxel_m: float = parameter(
        0.0,
        'Edge of the voxels of which ~/depth/points keeps the most certain point each [m]; the '
        'cloud is a list then. 0: all points, in rows and columns.',
        low=0.0, high=10.0, live=True,
    )  # fmt: skip
    cloud_color: str = parameter(
        'none',
        'What the field rgb of ~/depth/points shows; none: no such field. depth is coloured as '
        '~/depth/image_color, height by color_map.',
        choices=CLOUD_COLORS, live=True,
    )  # fmt: skip
    cloud_height_m: float = parameter(
        2.0,
        'With cloud_color height, the colours reach from this far below the camera to this far '
        'above it, along the rows of the image [m].',
        low=0.01, high=1000.0, live=True,
    )  # fmt: skip
    obstacle_rate_hz: float = parameter(
        10.0,
        'Most clouds per second on ~/depth/obstacles and ~/depth/free_space; 0: one for each map.',
        low=0.0, high=1000.0, live=True,
    )  # fmt: skip
    obstacle_min_confidence: float = parameter(
        0.5, 'Less certain depth neither marks nor clears in a costmap.',
        low=0.0, high=1.0, live=True,
    )  # fmt: skip
    obstacle_near_m: float = parameter(
        0.0,
        'Where "too near" (-inf) marks an obstacle [m]; it never clears. 0: it does not mark.',
        low=0.0, high=100.0, live=True,
    )  # fmt: skip
    obstacle_clear_m: float = parameter(
        0.0, 'How far "beyond range" (+inf) clears along its ray [m]; 0: it does not clear.',
        low=0.0, high=1000.0, live=True,
    )  # fmt: skip
    obstacle_voxel_m: float = parameter(
        0.05, 'Edge of the voxels of which ~/depth/obstacles keeps one point each [m]; 0: all.',
        low=0.0, high=10.0, live=True,
    )  # fmt: skip
    obstacle_stride: int = parameter(
        2, 'Every n-th row and column goes into obstacles and free space.',
        low=1, high=64, live=True,
    )  # fmt: skip
    preview_rate_hz: float = parameter(
        10.0,
        'Most pictures per second on ~/depth/image_color and ~/events/image; 0: all.',
        low=0.0,
        high=1000.0,
        live=True,
    )
    color_map: str = parameter(
        'turbo',
        'Colours of ~/depth/image_color.',
        choices=tuple(COLOR_MAPS),
        live=True,
    )
    color_min_m: float = parameter(
        1.0, 'Nearest depth of the colours, their last [m].', low=0.01, high=1000.0, live=True
    )
    color_max_m: float = parameter(
        60.0, 'Farthest depth of the colours, their first [m].', low=0.01, high=1000.0, live=True
    )
    compressed_format: str = parameter(
        'png',
        'Codec of compressedDepth: png is smaller, rvl takes a tenth of the time.',
        choices=FORMATS,
        live=True,
    )
    compressed_max_m: float = parameter(
        100.0, 'Greatest depth in compressedDepth [m].', low=0.1, high=1000.0, live=True
    )
    compressed_quantization: float = parameter(
        100.0, 'Depth resolution of compressedDepth at 1 m is 1 / (q^2 + q) m.',
        low=1.0, high=200.0, live=True,
    )  # fmt: skip
    max_latency_ms: float = parameter(
        200.0,
        'Windows that have waited longer than this are dropped, oldest first [ms].',
        low=1.0,
        high=60_000.0,
        live=True,
    )
    message_queue: int = parameter(
        1000, 'Most event messages that wait for decoding.', low=1, high=100_000
    )
    window_queue: int = parameter(2, 'Most windows that wait for inference.', low=1, high=1000)
    output_reliability: str = parameter(
        'reliable',
        'QoS of the outputs; RViz asks for reliable.',
        choices=tuple(RELIABILITY),
    )
    output_queue: int = parameter(5, 'QoS history depth of the outputs.', low=1, high=1000)
    diagnostics_period_s: float = parameter(
        1.0, 'Time between two messages on /diagnostics [s].', low=0.1, high=60.0
    )
    bond_period_s: float = parameter(
        0.0,
        'Time between two heartbeats on the topic bond for the lifecycle manager of Nav2 [s]; 0: '
        'none, for managers with bond_timeout 0.',
        low=0.0,
        high=10.0,
    )
    energy_period_s: float = parameter(
        60.0,
        'Time between two estimates of energy and firing rate for /diagnostics [s]; 0: none.',
        low=0.0,
        high=3600.0,
        live=True,
    )
    snapshot_dir: str = parameter(
        '~/.ros/spike_depth', 'Folder that ~/snapshot writes into.', live=True
    )

    @functools.cached_property
    def estimator_options(self) -> EstimatorOptions:
        """What the estimator is asked for.

        Raises:
            ConfigError: parameters that contradict each other.
        """
        return EstimatorOptions(
            window_ms=self.window_ms,
            stride_ms=self.stride_ms,
            streaming=self.streaming,
            rectify=self.rectify,
            min_depth_m=self.min_depth_m,
            max_depth_m=self.max_depth_m or math.inf,
            min_confidence=self.min_confidence,
            roi=region_of(self.roi),
        )

    @property
    def scales(self) -> bool:
        """Whether anything may tell the metric scale."""
        return bool(self.odometry or self.camera_height_m)

    def check(self) -> None:
        """Raises a ValueError if parameters contradict each other."""
        _ = self.estimator_options
        if self.camera_pose:
            pose_of(self.camera_pose)
        elif self.publish_tf:
            raise ParameterError(
                'publish_tf is true, but camera_pose is empty: expected the pose of the optical '
                'frame in parent_frame'
            )
        if self.publish_tf and not self.parent_frame:
            raise ParameterError(
                "parent_frame is empty, expected the frame in which camera_pose is: 'base_link'"
            )
        if self.register_pose:
            pose_of(self.register_pose, 'register_pose')
        if not any(getattr(self, name) for name in SWITCHES):
            raise ParameterError('all outputs are switched off: set one publish_... to true')
        if self.color_min_m >= self.color_max_m:
            raise ParameterError(
                f'color_min_m is {self.color_min_m:g}, '
                f'expected less than color_max_m = {self.color_max_m:g}'
            )


SWITCHES = tuple(
    name for name in specs(DepthParameters) if name.startswith('publish_') and name != 'publish_tf'
)
"""The parameters that switch outputs."""
