"""Converts depth frames to ROS messages, without a node.

All outputs of one frame share its header: the ROS time of the window's end and the optical frame
of the sensor (x right, y down, z forward; REP 103, REP 105).
"""

from __future__ import annotations

import array

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from cv_bridge import CvBridge
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header

from spike_depth_ros.events.camera import CalibrationError, Camera
from spike_depth_ros.events.camera_matrix import camera_from_matrix
from spike_depth_ros.ros.obstacles import surest_of_each_voxel

BRIDGE = CvBridge()

CLOUD_FIELDS: dict[str, tuple[str, ...]] = {
    'xyz': ('x', 'y', 'z'),
    'xyz_confidence': ('x', 'y', 'z', 'confidence'),
    'xyz_intensity': ('x', 'y', 'z', 'intensity'),
}
"""Parameter `cloud_fields` -> fields of a point, all float32; the fourth is the confidence."""

MAX_MM = 65535


def make_time(stamp_ns: int) -> Time:
    """ROS time message of nanoseconds since 1970."""
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    return Time(sec=seconds, nanosec=nanoseconds)


def make_header(stamp_ns: int, frame_id: str) -> Header:
    """The header that all outputs of one frame share."""
    return Header(stamp=make_time(stamp_ns), frame_id=frame_id)


def image(header: Header, pixels: np.ndarray, encoding: str) -> Image:
    """Builds an image message.

    Args:
        header: of the frame.
        pixels: (H, W) or (H, W, C) of the type of the encoding.
        encoding: a name of sensor_msgs/image_encodings.
    """
    # passthrough: cv_bridge 1.13 refuses 16UC1 with a type code that differs between OpenCVs
    message: Image = BRIDGE.cv2_to_imgmsg(np.ascontiguousarray(pixels), 'passthrough')
    message.header, message.encoding = header, encoding
    return message


def depth_image(header: Header, depth_m: np.ndarray, encoding: str = '32FC1') -> Image:
    """Depth by REP 118: metres as 32FC1 with the marks of REP 117, or millimetres as 16UC1.

    In 16UC1, pixels that are unknown, too near, beyond range or over 65.535 m are 0.
    """
    if encoding == '32FC1':
        return image(header, depth_m.astype(np.float32, copy=False), encoding)
    return image(header, millimetres(depth_m), '16UC1')


def millimetres(depth_m: np.ndarray) -> np.ndarray:
    """Converts (H, W) metres to uint16 millimetres; 0 where depth is not finite or too large."""
    with np.errstate(invalid='ignore', over='ignore'):
        mm = np.rint(depth_m.astype(np.float64) * 1000.0)
        fits = (mm >= 1) & (mm <= MAX_MM)
    return np.where(fits, mm, 0).astype(np.uint16)


def confidence_image(header: Header, confidence: np.ndarray) -> Image:
    """Confidence as 32FC1 in [0, 1]."""
    return image(header, confidence.astype(np.float32, copy=False), '32FC1')


def jpeg(header: Header, rgb: np.ndarray) -> CompressedImage:
    """Compresses an (H, W, 3) RGB picture as compressed_image_transport does."""
    _, data = cv2.imencode('.jpg', np.ascontiguousarray(rgb[..., ::-1]))
    message = CompressedImage(header=header, format='rgb8; jpeg compressed bgr8')
    message.data = _bytes(data)
    return message


def point_cloud(
    header: Header,
    depth_m: np.ndarray,
    confidence: np.ndarray,
    rays: np.ndarray,
    stride: int = 1,
    fields: str = 'xyz_confidence',
    colors: np.ndarray | None = None,
    voxel_m: float = 0.0,
) -> PointCloud2:
    """An organised cloud: one point per `stride`-th row and column, NaN where depth is not finite.

    With `voxel_m` it is a list of finite points, the most confident one of each voxel.

    Args:
        header: of the frame.
        depth_m: (H, W) depth along z.
        confidence: (H, W).
        rays: (H, W, 3) float32 with z = 1, of `Camera.rays`.
        stride: every n-th row and column.
        fields: a key of `CLOUD_FIELDS`.
        colors: (H, W, 3) uint8 RGB, which become the field `rgb` as PCL and RViz read it; None: no
            such field.
        voxel_m: edge of the voxels; 0 keeps all points.
    """
    names = CLOUD_FIELDS[fields]
    z = depth_m[::stride, ::stride]
    z = np.where(np.isfinite(z), z, np.float32(np.nan))
    sure = confidence[::stride, ::stride]
    points = np.empty((*z.shape, len(names) + (colors is not None)), np.float32)
    np.multiply(rays[::stride, ::stride], z[..., None], out=points[..., :3])
    if len(names) == 4:
        points[..., 3] = sure
    if colors is not None:
        names = (*names, 'rgb')
        points[..., -1] = _packed(colors[::stride, ::stride])
    if voxel_m <= 0:
        return _cloud(header, points, names, is_dense=False)
    known = np.isfinite(points[..., :3]).all(axis=-1)
    points, sure = points[known], sure[known]
    kept = points[surest_of_each_voxel(points[:, :3], sure, voxel_m)]
    return _cloud(header, kept[None], names, is_dense=True)


def point_list(header: Header, points: np.ndarray) -> PointCloud2:
    """An unorganised cloud of (N, 4) float32 points: x, y, z [m] and confidence, all finite."""
    return _cloud(header, points[None], CLOUD_FIELDS['xyz_confidence'], is_dense=True)


def camera_info(header: Header, camera: Camera) -> CameraInfo:
    """Builds the CameraInfo of `camera`, the grid of the published depth image."""
    message = CameraInfo(header=header, height=camera.height, width=camera.width)
    if camera.distortion:
        message.distortion_model, message.d = camera.distortion_model, list(camera.distortion)
    else:
        message.distortion_model, message.d = 'plumb_bob', [0.0] * 5
    message.k = [camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0]
    message.r = list(camera.rotation) or [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    image = camera.rectified()
    message.p = [image.fx, 0.0, image.cx, 0.0, 0.0, image.fy, image.cy, 0.0,
                 0.0, 0.0, 1.0, 0.0]  # fmt: skip
    return message


def camera_from_info(message: CameraInfo) -> Camera:
    """The camera that a CameraInfo describes.

    Raises:
        CalibrationError: it is not calibrated, or describes a binned or cropped image.
    """
    part = (message.roi.width, message.roi.height)  # zeros mean the whole image
    cropped = part not in ((0, 0), (message.width, message.height))
    if message.binning_x > 1 or message.binning_y > 1 or cropped:
        raise CalibrationError(
            'camera_info describes a binned or cropped image, expected the whole sensor'
        )
    return camera_from_matrix(
        message.k.tolist(), message.width, message.height, message.distortion_model, message.d,
        'camera_info', message.r.tolist(), message.p.tolist(),
    )  # fmt: skip


def assumed_camera(width: int, height: int, focal_px: float) -> Camera:
    """Returns an ideal pinhole with a central principal point, for uncalibrated sensors."""
    return Camera(width, height, focal_px, focal_px, (width - 1) / 2, (height - 1) / 2)


def _packed(colors: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB to (H, W) float32 whose bits are 0x00RRGGBB."""
    red, green, blue = np.moveaxis(colors.astype(np.uint32), -1, 0)
    packed: np.ndarray = red << 16 | green << 8 | blue
    return packed.view(np.float32)


def _cloud(
    header: Header, points: np.ndarray, names: tuple[str, ...], is_dense: bool
) -> PointCloud2:
    """A cloud of (H, W, F) float32 points with the given fields."""
    message = PointCloud2(header=header, is_bigendian=False, is_dense=is_dense)
    message.height, message.width = points.shape[:2]
    message.fields = [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, name in enumerate(names)
    ]
    message.point_step = 4 * points.shape[2]
    message.row_step = message.point_step * message.width
    message.data = _bytes(np.ascontiguousarray(points))
    return message


def _bytes(pixels: np.ndarray) -> array.array:
    # rclpy checks bytes and lists element by element, which takes 30-100 times as long
    return array.array('B', pixels.tobytes())
