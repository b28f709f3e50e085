"""ROS messages of depth frames: numbers by hand, and a dumber second implementation."""

import array
import struct

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sensor_msgs.msg import CameraInfo, PointField

from spike_depth_ros.events.camera import CalibrationError, Camera
from spike_depth_ros.recordings.array_source import COLOUR_FRAME_ID, RECTIFIED_FRAME_ID
from spike_depth_ros.recordings.source import FRAME_ID
from spike_depth_ros.ros import messages
from spike_depth_ros.ros.compressed_depth import Quantization, compressed_depth, rvl_encode
from spike_depth_ros.ros.pipeline import DEFAULT_FRAME

NAN, INF = np.nan, np.inf
HEADER = messages.make_header(1_700_000_000_000_000_123, 'camera_optical_frame')
DEPTH = np.array([[1.5, NAN, INF], [-INF, 70.0, 0.0004]], np.float32)


def pixels(message, dtype):
    assert isinstance(message.data, array.array)
    assert message.data.typecode == 'B'
    assert message.step * message.height == len(message.data)
    return np.frombuffer(message.data, dtype).reshape(message.height, message.width)


def test_header():
    assert (HEADER.stamp.sec, HEADER.stamp.nanosec) == (1_700_000_000, 123)
    assert HEADER.frame_id == 'camera_optical_frame'


def test_depth_in_metres_keeps_the_marks_of_rep_117():
    message = messages.depth_image(HEADER, DEPTH)
    assert (message.encoding, message.is_bigendian, message.step) == ('32FC1', 0, 12)
    np.testing.assert_array_equal(pixels(message, np.float32), DEPTH)
    assert message.header == HEADER


def test_depth_in_millimetres_is_zero_where_there_is_none():
    message = messages.depth_image(HEADER, DEPTH, '16UC1')
    assert (message.encoding, message.step) == ('16UC1', 6)
    # unknown, beyond, too near, over 65.535 m, under half a millimetre: all 0
    np.testing.assert_array_equal(pixels(message, np.uint16), [[1500, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(
        messages.millimetres(np.array([65.535, 65.5356, 2.0006])), [65535, 0, 2001]
    )


def test_confidence():
    confidence = np.array([[0.0, 0.25], [0.5, 1.0]], np.float32)
    message = messages.confidence_image(HEADER, confidence)
    assert message.encoding == '32FC1'
    np.testing.assert_array_equal(pixels(message, np.float32), confidence)


def test_rows_that_are_not_contiguous_are_copied_right():
    wide = np.arange(24, dtype=np.float32).reshape(4, 6)
    np.testing.assert_array_equal(
        pixels(messages.depth_image(HEADER, wide[::2, 1:5]), np.float32), wide[::2, 1:5]
    )


def test_camera_info_of_the_binned_rectified_grid():
    sensor = Camera(640, 480, 500.0, 510.0, 320.5, 240.5, 'plumb_bob', (0.1, 0.0, 0.0, 0.0, 0.0))
    message = messages.camera_info(HEADER, sensor.rectified().binned(2))
    assert (message.width, message.height) == (320, 240)
    # (320.5 + 0.5) / 2 - 0.5 = 160
    assert list(message.k) == [250, 0, 160, 0, 255, 120, 0, 0, 1]
    assert list(message.p) == [250, 0, 160, 0, 0, 255, 120, 0, 0, 0, 1, 0]
    assert list(message.r) == [1, 0, 0, 0, 1, 0, 0, 0, 1]
    assert (message.distortion_model, list(message.d)) == ('plumb_bob', [0.0] * 5)
    assert message.header == HEADER


def test_camera_info_there_and_back():
    camera = Camera(346, 260, 250.0, 251.0, 172.0, 131.0, 'equidistant', (0.1, 0.2, 0.3, 0.4))
    assert messages.camera_from_info(messages.camera_info(HEADER, camera)) == camera


RECTIFIED = Camera(
    640, 480, 550.0, 552.0, 320.0, 238.0, 'plumb_bob', (-0.1, 0.05, 0.0, 0.0, 0.0),
    (0.8, 0.0, 0.6, 0.0, 1.0, 0.0, -0.6, 0.0, 0.8), (500.0, 505.0, 310.0, 250.0),
)  # fmt: skip
"""A lens with R and P."""


def test_camera_info_with_r_and_p_there_and_back():
    message = messages.camera_info(HEADER, RECTIFIED)
    assert list(message.k) == [550, 0, 320, 0, 552, 238, 0, 0, 1]
    assert list(message.r) == list(RECTIFIED.rotation)
    assert list(message.p) == [500, 0, 310, 0, 0, 505, 250, 0, 0, 0, 1, 0]
    assert messages.camera_from_info(message) == RECTIFIED
    message.p[3] = -60.0  # of the second camera of a stereo pair: its own depth has no baseline
    assert messages.camera_from_info(message) == RECTIFIED


def test_camera_info_of_the_rectified_image_needs_no_rectification():
    message = messages.camera_info(HEADER, RECTIFIED.rectified().binned(2))
    assert list(message.k) == [250, 0, 154.75, 0, 252.5, 124.75, 0, 0, 1]
    assert list(message.r) == [1, 0, 0, 0, 1, 0, 0, 0, 1]
    assert list(message.p) == [250, 0, 154.75, 0, 0, 252.5, 124.75, 0, 0, 0, 1, 0]
    assert list(message.d) == [0] * 5


def test_camera_info_without_distortion_is_of_the_plainest_model():
    camera = Camera(346, 260, 250.0, 251.0, 172.0, 131.0, 'equidistant', (0.1, 0.2, 0.3, 0.4))
    message = messages.camera_info(HEADER, camera.rectified())
    assert (message.distortion_model, list(message.d)) == ('plumb_bob', [0.0] * 5)
    assert not messages.camera_from_info(message).is_distorted


def test_frames_that_nobody_named_are_optical():
    assert {FRAME_ID, DEFAULT_FRAME} == {'event_camera_optical_frame'}
    assert all(name.endswith('_optical_frame') for name in (RECTIFIED_FRAME_ID, COLOUR_FRAME_ID))


def test_a_region_of_interest_that_is_all_of_it_cuts_nothing():
    message = messages.camera_info(HEADER, Camera(64, 48, 60.0, 60.0, 31.5, 23.5))
    message.roi.width, message.roi.height = 64, 48
    assert messages.camera_from_info(message).width == 64
    message.roi.width = 32
    with pytest.raises(CalibrationError, match='cropped'):
        messages.camera_from_info(message)


@pytest.mark.parametrize('fields', [{'binning_x': 2}, {'width': 10, 'height': 10}])
def test_camera_info_that_is_of_no_use(fields):
    with pytest.raises(CalibrationError, match=r'binned|calibrated'):
        messages.camera_from_info(CameraInfo(**fields))


@pytest.mark.parametrize(('fields', 'fourth'), [
    ('xyz', None), ('xyz_confidence', 'confidence'), ('xyz_intensity', 'intensity'),
])  # fmt: skip
@pytest.mark.parametrize('stride', [1, 2])
def test_cloud_is_organised(fields, fourth, stride):
    camera = Camera(3, 2, 2.0, 4.0, 1.0, 0.5)
    confidence = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)
    message = messages.point_cloud(HEADER, DEPTH, confidence, camera.rays(), stride, fields)
    rows, columns = range(0, 2, stride), range(0, 3, stride)
    assert (message.height, message.width) == (len(rows), len(columns))
    assert not message.is_dense
    assert not message.is_bigendian
    assert message.header == HEADER
    names = ['x', 'y', 'z'] + [fourth] * (fourth is not None)
    assert [(f.name, f.offset, f.datatype, f.count) for f in message.fields] == [
        (name, 4 * i, PointField.FLOAT32, 1) for i, name in enumerate(names)
    ]
    assert message.point_step == 4 * len(names)
    assert message.row_step == message.point_step * len(columns)
    assert isinstance(message.data, array.array)
    points = struct.iter_unpack(f'<{len(names)}f', message.data.tobytes())
    for (v, u), point in zip([(v, u) for v in rows for u in columns], points, strict=True):
        z = DEPTH[v, u] if np.isfinite(DEPTH[v, u]) else NAN
        expected = [(u - 1.0) / 2.0 * z, (v - 0.5) / 4.0 * z, z]
        expected += [confidence[v, u]] * (fourth is not None)
        np.testing.assert_allclose(point, expected, rtol=1e-6)


def test_compressed_depth_reads_back_by_the_transports_formula():
    depth = np.array([[0.5, 2.0, 10.0], [50.0, NAN, INF], [100.0, 101.0, -INF]], np.float32)
    message = compressed_depth(HEADER, depth, '32FC1', Quantization(100, 100))
    assert message.format == '32FC1; compressedDepth png'
    kind, a, b = struct.unpack_from('<iff', message.data)
    assert (kind, a, b) == (0, 10100.0, -100.0)  # 100 * 101, 1 - 10100 / 100
    codes = cv2.imdecode(np.frombuffer(message.data, np.uint8)[12:], cv2.IMREAD_UNCHANGED)
    # 10100 / z - 100, cut off
    np.testing.assert_array_equal(codes, [[20100, 4950, 910], [102, 0, 0], [1, 0, 0]])
    back = np.where(codes > 0, a / (codes.astype(np.float64) - b), NAN)
    finite = np.isfinite(back)
    step = back[finite] ** 2 / a  # one code at that depth
    assert (np.abs(back[finite] - depth[finite]) <= step).all()


def test_compressed_depth_of_millimetres_is_a_plain_png():
    message = compressed_depth(HEADER, DEPTH, '16UC1', Quantization(100, 100))
    assert message.format == '16UC1; compressedDepth png'
    codes = cv2.imdecode(np.frombuffer(message.data, np.uint8)[12:], cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(codes, [[1500, 0, 0], [0, 0, 0]])


def rvl_decoded(data):
    """A second, plain decoder of RVL: (H, W) uint16."""
    width, height = struct.unpack_from('<II', data)
    words = np.frombuffer(data, '<u4', offset=8)
    nibbles = iter([int(word) >> shift & 15 for word in words for shift in range(28, -1, -4)])

    def number():
        value, shift = 0, 0
        while True:
            nibble = next(nibbles)
            value |= (nibble & 7) << shift
            shift += 3
            if nibble < 8:
                return value

    pixels, before = [], 0
    while len(pixels) < height * width:
        pixels += [0] * number()
        for _ in range(number()):
            code = number()
            before += code >> 1 if code % 2 == 0 else -(code + 1 >> 1)
            pixels.append(before)
    return np.array(pixels, np.uint16).reshape(height, width)


def test_rvl_by_hand():
    # one zero; two pixels: 3 is +3, code 6; 1 is -2, code 3; no zeros: nothing more
    # nibbles 1, 2, 6, 3, padded to 0x12630000
    assert rvl_encode(np.array([[0, 3, 1]], np.uint16)) == bytes.fromhex(
        '030000000100000000006312'
    )
    # no zeros, one pixel; 65535 is code 131070, six nibbles of three bits, lowest first
    # nibbles 0, 1, e, f, f, f, f, 3
    assert rvl_encode(np.array([[65535]], np.uint16)) == bytes.fromhex('0100000001000000f3ffef01')


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first array imports much
@given(arrays(np.uint16, array_shapes(min_dims=2, max_dims=2, max_side=12),
              elements=st.sampled_from([0, 0, 1, 2, 255, 300, 65535])))  # fmt: skip
def test_rvl_is_lossless(image):
    np.testing.assert_array_equal(rvl_decoded(rvl_encode(image)), image)


def test_compressed_depth_by_rvl_holds_the_same_codes_as_png():
    depth = np.array([[0.5, 2.0, 10.0], [50.0, NAN, INF], [100.0, 101.0, -INF]], np.float32)
    message = compressed_depth(HEADER, depth, '32FC1', Quantization(100, 100), 'rvl')
    assert message.format == '32FC1; compressedDepth rvl'
    assert struct.unpack_from('<iff', message.data) == (0, 10100.0, -100.0)
    np.testing.assert_array_equal(
        rvl_decoded(bytes(message.data)[12:]), [[20100, 4950, 910], [102, 0, 0], [1, 0, 0]]
    )


def test_jpeg_is_what_compressed_image_transport_reads():
    rgb = np.zeros((16, 24, 3), np.uint8)
    rgb[..., 0] = 200  # red
    message = messages.jpeg(HEADER, rgb)
    assert message.format == 'rgb8; jpeg compressed bgr8'
    bgr = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
    assert bgr.shape == rgb.shape
    assert np.abs(bgr[..., ::-1].astype(int) - rgb).max() <= 3


def test_assumed_camera_looks_through_the_middle():
    camera = messages.assumed_camera(4, 3, 10.0)
    assert camera.matrix.tolist() == [[10, 0, 1.5], [0, 10, 1], [0, 0, 1]]
