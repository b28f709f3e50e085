"""The other camera whose image depth is registered to: its calibration and its pose."""

from __future__ import annotations

from typing import Any, NamedTuple

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo

from spike_depth_ros.estimation.motion import MotionError, Mount, pose_of
from spike_depth_ros.events.camera import CalibrationError, Camera
from spike_depth_ros.ros.calibration import CameraInfoInput
from spike_depth_ros.ros.condition_log import ConditionLog
from spike_depth_ros.ros.depth_parameters import DepthParameters
from spike_depth_ros.ros.diagnostics import OK, WARN, Report
from spike_depth_ros.ros.messages import camera_from_info
from spike_depth_ros.ros.params import Live
from spike_depth_ros.ros.transforms import Transforms

MOST_PIXELS = 4096 * 4096
"""A camera_info of a larger image is refused: each registered depth image would be as large."""


class Target(NamedTuple):
    """What depth is registered to."""

    camera: Camera  # rectified
    frame_id: str
    pose: Mount  # of the other camera's optical frame in that of the depth


class Registration:
    """Knows the other camera, by the parameters `register_camera_info` and `register_pose`.

    Args:
        node: subscribes to the other camera's camera_info.
        live: the parameters of the node.
        log: of the node.
        transforms: poses from tf, used without `register_pose`.
    """

    def __init__(
        self, node: Node, live: Live[DepthParameters], log: ConditionLog, transforms: Transforms
    ) -> None:
        self._node, self._live, self._log, self._transforms = node, live, log, transforms
        self._input: CameraInfoInput | None = None
        self._given: Mount | None = None
        self._camera: Camera | None = None
        self._frame_id = self._problem = ''

    def open(self) -> None:
        """Subscribes, if a topic is given.

        Raises:
            MotionError: `register_pose` is not a pose.
        """
        parameters = self._live.now
        if not parameters.register_camera_info:
            return
        pose = parameters.register_pose
        self._given = pose_of(pose, 'register_pose') if pose else None
        if self._given is None:
            self._transforms.open()
        self._input = CameraInfoInput(
            self._node, parameters.register_camera_info, self._on_camera_info
        )
        self._problem = f'no message on {self._input.topic} yet'
        self._input.open()

    def look(self) -> None:
        """Looks at the graph: to be called now and then, while the node is active."""
        if self._input is not None:
            self._input.look()

    def close(self) -> None:
        """Ends the subscription and forgets the other camera."""
        if self._input is not None:
            self._input.close()
        self._input = self._camera = None
        self._frame_id = self._problem = ''

    def target(self, frame_id: str) -> Target | None:
        """The other camera as seen from the depth; None while its pose or lens is unknown.

        Args:
            frame_id: optical frame of the depth.
        """
        camera, other_frame = self._camera, self._frame_id
        if camera is None:
            return None
        pose = self._given
        try:
            pose = pose or self._transforms.mount(frame_id, other_frame)
        except MotionError as error:
            self._problem = f'{error}: publish it on /tf_static, or give register_pose'
            self._log.error('registration', f'no registered depth: {self._problem}')
            return None
        self._problem = ''
        self._log.over('registration')
        return Target(camera, other_frame, pose)

    def report(self) -> Report | None:
        """What /diagnostics says of the registration; None if none is asked for."""
        if self._input is None:
            return None
        values: dict[str, Any] = {'camera_info': self._input.topic, 'frame': self._frame_id}
        if self._problem:
            return Report('registration', WARN, f'no registered depth: {self._problem}', values)
        size = f'{self._camera.width}x{self._camera.height}' if self._camera else 'unknown'
        return Report('registration', OK, f'to a {size} image in {self._frame_id!r}', values)

    def _on_camera_info(self, message: CameraInfo) -> None:
        try:
            camera = camera_from_info(message).rectified()
            if camera.width * camera.height > MOST_PIXELS:
                raise CalibrationError(
                    f'camera_info is of a {camera.width}x{camera.height} image, expected at most '
                    f'{MOST_PIXELS} pixels'
                )
        except CalibrationError as error:
            topic = self._input.topic if self._input else ''
            self._problem = f'{topic}: {error}'
            self._log.error('registration', f'no registered depth: {self._problem}')
            return
        self._camera, self._frame_id = camera, message.header.frame_id
        self._problem = ''
