"""How the camera moves: twists, where it is mounted, and a robot's odometry over time."""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

HOLD_NS = 150_000_000
"""The newest twist is taken to last so long: odometry of 20 Hz may come late."""

KEEP_NS = 3_000_000_000
STRANGE_NS = 2_000_000_000
"""Stamps farther than this from those of the events are of another clock."""

MOST_ACCELERATION_MPS2, MOST_STEP_MPS = 40.0, 0.5
"""A speed that changes faster, and by more, has jumped."""

MOST_JUMPS = 5
"""After so many samples in a row that jumped it is the earlier ones that were wrong."""


class Twist(NamedTuple):
    """Velocity and turning rate of a frame, in its own axes."""

    velocity_mps: NDArray[Any]  # (3,)
    rate_radps: NDArray[Any]  # (3,)


class StampedTwist(NamedTuple):
    """The twist of a message."""

    stamp_ns: int
    frame_id: str  # the frame that moves, along whose axes the twist is
    twist: Twist
    has_covariance: bool  # not absent, and not all zeros


TWIST_TYPES = (
    'nav_msgs/msg/Odometry',
    'geometry_msgs/msg/TwistWithCovarianceStamped',
    'geometry_msgs/msg/TwistStamped',
)
"""Types of messages that `twist_of` reads, the preferred one first."""


class MotionError(ValueError):
    """A camera pose or a rotation is invalid."""


class Mount(NamedTuple):
    """The pose of one frame in another, such as of the camera's optical frame in the base frame.

    Attributes:
        rotation: (3, 3) takes directions in the camera's optical frame to the robot's base frame.
        translation_m: (3,) origin of the optical frame in the base frame.
    """

    rotation: NDArray[Any]
    translation_m: NDArray[Any]

    def camera_twist(self, base: Twist) -> Twist:
        """The twist of the camera on a robot whose base moves like that."""
        velocity = base.velocity_mps + np.cross(base.rate_radps, self.translation_m)
        return Twist(self.rotation.T @ velocity, self.rotation.T @ base.rate_radps)

    def inverse(self) -> Mount:
        """The pose of the base frame in the camera's optical frame."""
        return Mount(self.rotation.T, -self.rotation.T @ self.translation_m)

    def then(self, inner: Mount) -> Mount:
        """The pose in the base frame of a frame whose pose in this one is `inner`."""
        origin_m = self.rotation @ inner.translation_m + self.translation_m
        return Mount(self.rotation @ inner.rotation, origin_m)


FORWARD = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""Rotation of an optical frame that looks along the base's x axis, with z up (REP 103)."""


def mount_of(rotation: NDArray[Any], translation_m: NDArray[Any]) -> Mount:
    """Checks a rotation and a translation.

    Raises:
        MotionError: the rotation is none, or a number is not finite.
    """
    rotation = np.asarray(rotation, np.float64).reshape(3, 3)
    translation_m = np.asarray(translation_m, np.float64).reshape(3)
    if not (np.isfinite(rotation).all() and np.isfinite(translation_m).all()):
        raise MotionError(f'the camera pose is not finite: {rotation.tolist()}, {translation_m}')
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or np.linalg.det(rotation) < 0:
        raise MotionError(
            f'the rotation of the camera is none: {rotation.round(3).tolist()}, expected an '
            'orthonormal matrix of determinant 1'
        )
    return Mount(rotation, translation_m)


def rotation_of_quaternion(x: float, y: float, z: float, w: float) -> NDArray[Any]:
    """(3, 3) rotation matrix of a unit quaternion; not orthonormal if its length is not 1."""
    return np.array([
        [w * w + x * x - y * y - z * z, 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), w * w - x * x + y * y - z * z, 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), w * w - x * x - y * y + z * z],
    ])  # fmt: skip


def rotation_of_angles(roll_rad: float, pitch_rad: float, yaw_rad: float) -> NDArray[Any]:
    """(3, 3) rotation about the fixed axes x, then y, then z (REP 103)."""
    cr, sr = math.cos(roll_rad), math.sin(roll_rad)
    cp, sp = math.cos(pitch_rad), math.sin(pitch_rad)
    cy, sy = math.cos(yaw_rad), math.sin(yaw_rad)
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    rotation: NDArray[Any] = about_z @ about_y @ about_x
    return rotation


def pose_of(text: str, name: str = 'camera_pose') -> Mount:
    """Reads 'x y z roll pitch yaw' [m, rad], the pose of the optical frame in the base frame.

    Args:
        text: the six numbers.
        name: of the parameter, for the error.

    Raises:
        MotionError: not six finite numbers.
    """
    try:
        numbers = [float(word) for word in text.replace(',', ' ').split()]
    except ValueError:
        numbers = []
    if len(numbers) != 6:
        raise MotionError(f'{name} is {text!r}, expected six numbers: x y z roll pitch yaw')
    return mount_of(rotation_of_angles(*numbers[3:]), np.array(numbers[:3]))


def mount_of_transform(transform: Any) -> Mount:
    """Reads a geometry_msgs/Transform from the base frame to the optical frame.

    Raises:
        MotionError: its quaternion is not of length 1, or a number is not finite.
    """
    t, q = transform.translation, transform.rotation
    return mount_of(rotation_of_quaternion(q.x, q.y, q.z, q.w), np.array([t.x, t.y, t.z]))


def twist_of(message: Any) -> StampedTwist:
    """Reads a message of `TWIST_TYPES`, of rclpy or of rosbags.

    The twist of an Odometry is in its child frame, that of the other types in the header's frame.
    """
    stamp_ns = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
    frame_id = getattr(message, 'child_frame_id', message.header.frame_id)
    values, covariance = message.twist, None
    if hasattr(values, 'covariance'):
        values, covariance = values.twist, values.covariance
    v, w = values.linear, values.angular
    twist = Twist(np.array([v.x, v.y, v.z]), np.array([w.x, w.y, w.z]))
    known = covariance is not None and bool(np.any(covariance))
    return StampedTwist(stamp_ns, frame_id, twist, known)


class Odometry:
    """The twists of a robot's base over the last seconds, checked as they come.

    Samples come from one thread and are read by another. What is wrong with them is kept as
    sentences for diagnostics.

    Attributes:
        refused: sentence -> number of samples that were refused for it.
    """

    def __init__(self) -> None:
        self.refused: dict[str, int] = {}
        self._lock = threading.Lock()
        self._times_ns: list[int] = []
        self._twists: list[NDArray[Any]] = []  # (6,)
        self._jumps = 0

    @property
    def newest_ns(self) -> int | None:
        """Stamp of the newest sample; None before the first."""
        with self._lock:
            return self._times_ns[-1] if self._times_ns else None

    def add(self, stamp_ns: int, twist: Twist) -> str:
        """Takes one sample.

        Returns:
            Why it is refused, as a sentence; empty if it is not.
        """
        motion = np.concatenate([twist.velocity_mps, twist.rate_radps]).astype(np.float64)
        with self._lock:
            problem = self._problem(stamp_ns, motion)
            if problem:
                self.refused[problem] = self.refused.get(problem, 0) + 1
                return problem
            self._jumps = 0
            self._times_ns.append(stamp_ns)
            self._twists.append(motion)
            old = bisect_right(self._times_ns, stamp_ns - KEEP_NS)
            del self._times_ns[:old], self._twists[:old]
        return ''

    def _problem(self, stamp_ns: int, motion: NDArray[Any]) -> str:
        if not np.isfinite(motion).all():
            return 'odometry holds numbers that are not finite'
        if not self._times_ns:
            return ''
        passed_ns = stamp_ns - self._times_ns[-1]
        if passed_ns < -STRANGE_NS:  # a recording that starts again
            self._times_ns.clear()
            self._twists.clear()
            return ''
        if passed_ns <= 0:
            return 'odometry runs backwards in time, or repeats a stamp'
        change_mps = float(np.linalg.norm(motion[:3] - self._twists[-1][:3]))
        jumped = change_mps > MOST_STEP_MPS + MOST_ACCELERATION_MPS2 * passed_ns * 1e-9
        if jumped and self._jumps < MOST_JUMPS:
            self._jumps += 1
            return 'odometry jumps: its speed changes by more than a robot can'
        return ''

    def mean(self, start_ns: int, end_ns: int) -> tuple[Twist | None, str]:
        """Mean twist of the base between two times, linear between samples.

        The first and the newest sample last for `HOLD_NS` beyond them.

        Returns:
            The twist, or None and why there is none.
        """
        with self._lock:
            first = max(bisect_right(self._times_ns, start_ns) - 1, 0)
            last = bisect_right(self._times_ns, end_ns, first) + 1
            times, twists = self._times_ns[first:last], self._twists[first:last]
            if not times:
                return None, 'no odometry yet'
            oldest_ns, newest_ns = self._times_ns[0], self._times_ns[-1]
        late_ns, early_ns = end_ns - newest_ns, oldest_ns - start_ns
        if max(late_ns, early_ns) > HOLD_NS or late_ns < -KEEP_NS:
            worst_s = max(late_ns, early_ns, -late_ns) * 1e-9
            if late_ns > STRANGE_NS or early_ns > STRANGE_NS:
                return None, (f'the stamps of odometry are {worst_s:.1f} s from those of the '
                              'events: it has stopped, or has a clock of its own')  # fmt: skip
            if late_ns > HOLD_NS:
                return None, f'the newest odometry is {late_ns * 1e-9:.2f} s older than the events'
            return None, 'odometry does not reach back to the events yet'
        span_ns = max(end_ns - start_ns, 1)
        known_ns = np.array(times, np.int64) - start_ns
        inside_ns = known_ns[(known_ns > 0) & (known_ns < span_ns)]
        at_ns = np.concatenate([[0], inside_ns, [span_ns]])
        table = np.array(twists)
        values = np.stack([np.interp(at_ns, known_ns, column) for column in table.T], axis=1)
        mean = ((values[1:] + values[:-1]) / 2 * np.diff(at_ns)[:, None]).sum(axis=0) / span_ns
        return Twist(mean[:3], mean[3:]), ''
