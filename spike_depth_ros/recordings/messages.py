"""CDR of the standard ROS 2 messages that recordings carry beside the events, without ROS."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.events.camera import Camera

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

IMAGE = 'sensor_msgs/msg/Image'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
TF = 'tf2_msgs/msg/TFMessage'
ODOMETRY = 'nav_msgs/msg/Odometry'

_HEADER = 'std_msgs/Header header\nuint32 height\nuint32 width\n'
_PACKET = (
    f'{_HEADER}uint64 seq\nuint64 time_base\nstring encoding\nbool is_bigendian\nuint8[] events'
)
_EVENT = 'uint16 x\nuint16 y\nbuiltin_interfaces/Time ts\nbool polarity'
DEFINITIONS = {
    'event_camera_msgs/msg/EventPacket': _PACKET,
    'event_array_msgs/msg/EventArray': _PACKET,
    **{
        f'{package}/msg/{name}': text
        for package in ('dvs_msgs', 'prophesee_event_msgs', 'dv_ros2_msgs')
        for name, text in (('Event', _EVENT), ('EventArray', f'{_HEADER}Event[] events'))
    },
}
"""Message definitions that no ROS 2 distribution of rosbags knows."""

_IMAGE_ENCODINGS = {
    ('uint8', 2): 'mono8',
    ('uint8', 3): 'rgb8',
    ('uint16', 2): 'mono16',
    ('float32', 2): '32FC1',
}


def new_typestore() -> Typestore:
    """A store of the ROS 2 types and the event types, which its owner may extend."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_KILTED)
    for name, text in DEFINITIONS.items():
        store.register(get_types_from_msg(text, name))
    return store


@functools.cache
def typestore() -> Typestore:
    """The store for the messages of this module; it is shared, so never extended."""
    return new_typestore()


def image_cdr(stamp_ns: int, frame_id: str, image: NDArray[Any]) -> memoryview:
    """Packs an image: (H, W) uint8, uint16 or float32 (metres), or (H, W, 3) uint8 RGB.

    Raises:
        ValueError: another shape or type of pixel.
    """
    encoding = _IMAGE_ENCODINGS.get((image.dtype.name, image.ndim))
    if encoding is None or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(
            f'image is {image.dtype} {image.shape}, expected one of {sorted(_IMAGE_ENCODINGS)}'
        )
    pixels = np.ascontiguousarray(image)
    return _pack(
        IMAGE,
        header=_header(stamp_ns, frame_id),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=pixels.strides[0],
        data=pixels.reshape(-1).view(np.uint8),
    )


def camera_info_cdr(stamp_ns: int, frame_id: str, camera: Camera) -> memoryview:
    """Packs the calibration of an image."""
    projection = np.zeros((3, 4))
    projection[:, :3] = camera.rectified().matrix
    return _pack(
        CAMERA_INFO,
        header=_header(stamp_ns, frame_id),
        height=camera.height,
        width=camera.width,
        distortion_model=camera.distortion_model,
        d=np.array(camera.distortion, np.float64),
        k=camera.matrix.reshape(9),
        r=np.array(camera.rotation or np.eye(3)).reshape(9),
        p=projection.reshape(12),
        binning_x=0,
        binning_y=0,
        roi=_new(
            'sensor_msgs/msg/RegionOfInterest',
            x_offset=0,
            y_offset=0,
            height=0,
            width=0,
            do_rectify=False,
        ),
    )


def transform_cdr(
    stamp_ns: int,
    parent: str,
    child: str,
    translation_m: NDArray[Any],
    rotation: NDArray[Any],
) -> memoryview:
    """Packs one transform: where the frame `child` is in the frame `parent`.

    Args:
        stamp_ns: time [ns].
        parent: frame_id of the parent.
        child: frame_id of the child.
        translation_m: (3,) origin of the child in the parent frame [m].
        rotation: (4,) unit quaternion x, y, z, w.
    """
    x, y, z, w = (float(v) for v in rotation)
    tx, ty, tz = (float(v) for v in translation_m)
    transform = _new(
        'geometry_msgs/msg/TransformStamped',
        header=_header(stamp_ns, parent),
        child_frame_id=child,
        transform=_new(
            'geometry_msgs/msg/Transform',
            translation=_new('geometry_msgs/msg/Vector3', x=tx, y=ty, z=tz),
            rotation=_new('geometry_msgs/msg/Quaternion', x=x, y=y, z=z, w=w),
        ),
    )
    return _pack(TF, transforms=[transform])


def odometry_cdr(
    stamp_ns: int,
    parent: str,
    child: str,
    translation_m: NDArray[Any],
    rotation: NDArray[Any],
    twist: tuple[NDArray[Any], NDArray[Any]],
) -> memoryview:
    """Packs where the frame `child` is in the frame `parent`, and how it moves in its own axes.

    Args:
        stamp_ns: time [ns].
        parent: frame_id of the parent.
        child: frame_id of the child.
        translation_m: (3,) origin of the child in the parent [m].
        rotation: (4,) unit quaternion x, y, z, w.
        twist: (3,) velocity [m/s] and (3,) turning rate [rad/s] along the axes of the child.
    """

    def vector(name: str, values: NDArray[Any]) -> Any:
        return _new(
            f'geometry_msgs/msg/{name}', **dict(zip('xyzw', map(float, values), strict=False))
        )

    pose = _new(
        'geometry_msgs/msg/Pose',
        position=vector('Point', translation_m),
        orientation=vector('Quaternion', rotation),
    )
    moving = _new(
        'geometry_msgs/msg/Twist',
        linear=vector('Vector3', twist[0]),
        angular=vector('Vector3', twist[1]),
    )
    exact = np.diag(np.full(6, 1e-6)).ravel()
    return _pack(
        ODOMETRY,
        header=_header(stamp_ns, parent),
        child_frame_id=child,
        pose=_new('geometry_msgs/msg/PoseWithCovariance', pose=pose, covariance=exact),
        twist=_new('geometry_msgs/msg/TwistWithCovariance', twist=moving, covariance=exact),
    )


def quaternion(rotation: NDArray[Any]) -> NDArray[Any]:
    """(3, 3) rotation matrix to a unit quaternion (x, y, z, w) with w >= 0.

    The largest component is found from the diagonal and the others from it, which stays exact
    for every rotation (Shepperd, J. Guidance and Control 1978).
    """
    m = np.asarray(rotation, np.float64)
    diagonal = np.append(np.diag(m), np.trace(m))
    k = int(np.argmax(diagonal))
    if k == 3:
        q = np.array([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], 1 + diagonal[3]])
    else:
        i, j = (k + 1) % 3, (k + 2) % 3
        q = np.empty(4)
        q[k] = 1 + 2 * m[k, k] - diagonal[3]
        q[i] = m[i, k] + m[k, i]
        q[j] = m[j, k] + m[k, j]
        q[3] = m[j, i] - m[i, j]
    unit: NDArray[Any] = q / np.linalg.norm(q) * (-1 if q[3] < 0 else 1)
    return unit


def _header(stamp_ns: int, frame_id: str) -> Any:
    sec, nanosec = divmod(int(stamp_ns), 10**9)
    stamp = _new('builtin_interfaces/msg/Time', sec=sec, nanosec=nanosec)
    return _new('std_msgs/msg/Header', stamp=stamp, frame_id=frame_id)


def _new(type_name: str, **fields: Any) -> Any:
    return typestore().types[type_name](**fields)


def _pack(type_name: str, **fields: Any) -> memoryview:
    return typestore().serialize_cdr(_new(type_name, **fields), type_name)
