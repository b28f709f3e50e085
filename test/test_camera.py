import dataclasses

import cv2
import numpy as np
import pytest

from spike_depth_ros.events.calibration_file import camera_from_calibration, read_calibration
from spike_depth_ros.events.camera import CalibrationError, Camera
from spike_depth_ros.events.config import SpikeConfig
from spike_depth_ros.events.spikes import pixel_map

PINHOLE = Camera(8, 6, 4.0, 5.0, 3.5, 2.5)
LENS = Camera(640, 480, 550.0, 552.0, 320.0, 238.0, 'plumb_bob', (-0.1, 0.05, 1e-3, -5e-4, 0.0))
FISHEYE = Camera(640, 480, 300.0, 300.0, 320.0, 240.0, 'equidistant', (0.02, -0.01, 0.002, 0.0))


def distort(camera, x, y):
    """The forward lens models, written out (OpenCV's documentation)."""
    if camera.distortion_model == 'equidistant':
        r = np.hypot(x, y)
        theta = np.arctan(r)
        k = camera.distortion
        d = theta * (1 + k[0] * theta**2 + k[1] * theta**4 + k[2] * theta**6 + k[3] * theta**8)
        scale = np.where(r > 0, d / np.where(r > 0, r, 1), 1)
        return x * scale, y * scale
    k1, k2, p1, p2, k3 = camera.distortion
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    return (
        x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
        y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
    )


def test_rays_of_a_pinhole_by_hand():
    rays = PINHOLE.rays()
    assert rays.shape == (6, 8, 3)
    assert rays.dtype == np.float32
    np.testing.assert_allclose(rays[0, 0], [-3.5 / 4, -2.5 / 5, 1], rtol=1e-6)
    np.testing.assert_allclose(rays[5, 7], [3.5 / 4, 2.5 / 5, 1], rtol=1e-6)


def test_a_fisheye_without_coefficients_is_no_pinhole():
    ideal = Camera(640, 480, 300.0, 300.0, 320.0, 240.0, 'equidistant', (0.0, 0.0, 0.0, 0.0))
    assert ideal.is_distorted
    assert not ideal.rectified().is_distorted
    x, y, _ = ideal.rays()[240, 620]
    assert x == pytest.approx(np.tan(1.0), rel=1e-5)  # r = f theta: 300 px are 1 rad
    assert y == pytest.approx(0, abs=1e-6)


def test_what_a_fisheye_sees_beside_itself_has_no_ray():
    # 173 / 100 rad to the side, 130 / 100 rad up and down
    wide = Camera(346, 260, 100.0, 100.0, 172.5, 129.5, 'equidistant', (-0.05, 0.0, 0.0, 0.0))
    rays = wide.rays()
    assert np.isnan(rays[130, [0, 345], 0]).all()
    assert np.isfinite(rays[130, 60:286]).all()
    assert np.nanmax(np.abs(rays)) < 60


@pytest.mark.parametrize('camera', [LENS, FISHEYE], ids=['plumb_bob', 'equidistant'])
def test_rays_invert_the_lens(camera):
    rays = camera.rays().astype(np.float64)
    x, y = distort(camera, rays[..., 0], rays[..., 1])
    v, u = np.mgrid[0 : camera.height, 0 : camera.width]
    np.testing.assert_allclose(x * camera.fx + camera.cx, u, atol=2e-3)
    np.testing.assert_allclose(y * camera.fy + camera.cy, v, atol=2e-3)


HD_LENS = Camera(1280, 720, 1050.0, 1048.0, 630.0, 365.0, 'plumb_bob', (-0.35, 0.15, 1e-3, 0, 0))
WIDE_LENS = Camera(320, 240, 150.0, 150.0, 160.0, 120.0, 'plumb_bob', (-0.3, 0.09, 1e-3, 0, -0.01))


@pytest.mark.parametrize(
    ('camera', 'leaves_none_out'),
    [(LENS, True), (FISHEYE, True), (HD_LENS, True), (WIDE_LENS, False)],
    ids=['plumb_bob', 'equidistant', 'hd', 'wide'],
)
def test_rays_are_those_of_every_single_pixel(camera, leaves_none_out):
    v, u = np.mgrid[0 : camera.height, 0 : camera.width]
    single = camera.undistort(np.stack([u.ravel(), v.ravel()], 1))
    assert np.isfinite(single).all() == leaves_none_out
    rays = camera.rays()[..., :2].reshape(-1, 2)
    np.testing.assert_allclose(rays, single, atol=1e-3 / camera.fx, rtol=1e-6)


def test_pixels_that_no_ray_reaches_have_none():
    camera = Camera(346, 260, 228.0, 228.0, 172.5, 129.5, 'plumb_bob', (-0.4, 0.0, 0.0, 0.0))
    rays = camera.rays()
    known = np.isfinite(rays).all(-1)
    assert not known[0, 0]
    assert known[130, 172]
    assert 0.5 < known.mean() < 0.9
    back = cv2.projectPoints(
        rays[known].astype(np.float64), np.zeros(3), np.zeros(3), camera.matrix,
        np.array(camera.distortion),
    )[0].reshape(-1, 2)  # fmt: skip
    v, u = np.nonzero(known)
    np.testing.assert_allclose(back, np.stack([u, v], 1), atol=0.11)


ROTATION = cv2.Rodrigues(np.array([0.02, -0.05, 0.01]))[0]
P = (500.0, 505.0, 310.0, 250.0)
"""fx, fy, cx, cy of the rectified image."""


def matrix(intrinsics):
    fx, fy, cx, cy = intrinsics
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])


@pytest.mark.parametrize('camera', [LENS, FISHEYE], ids=['plumb_bob', 'equidistant'])
def test_events_land_where_opencv_rectifies_to(camera):
    stereo = dataclasses.replace(camera, rotation=tuple(ROTATION.ravel()), projection=P)
    assert not stereo.is_rectified
    assert stereo.rectified() == Camera(640, 480, *P, camera.distortion_model)
    places = pixel_map(480, 640, SpikeConfig(max_width_px=640), stereo)
    rows, columns = np.mgrid[7:480:31, 5:640:37]
    pixels = np.stack([columns.ravel(), rows.ravel()], 1).astype(float)[:, None]
    model = cv2.fisheye if camera.distortion_model == 'equidistant' else cv2
    expected = model.undistortPoints(
        pixels, camera.matrix, np.array(camera.distortion), R=ROTATION, P=matrix(P)
    )[:, 0]
    near = np.floor(expected + 0.5)
    # those close to a border between two pixels may fall into either
    clear = (np.abs(expected - near) < 0.49).all(axis=1)
    inside = ((near >= 0) & (near < (640, 480))).all(axis=1) & clear
    assert inside.sum() > 50
    found = places.table[rows.ravel(), columns.ravel()][inside]
    assert found.tolist() == (near[:, 1] * places.width + near[:, 0])[inside].tolist()


def test_rays_are_in_the_axes_of_the_rectified_image():
    turned = dataclasses.replace(PINHOLE, rotation=tuple(ROTATION.ravel()))
    expected = PINHOLE.rays() @ ROTATION.T
    np.testing.assert_allclose(turned.rays(), expected / expected[..., 2:], atol=1e-6)


def test_rays_that_r_turns_behind_the_camera_do_not_exist():
    back = dataclasses.replace(PINHOLE, rotation=(-1.0, 0, 0, 0, 1.0, 0, 0, 0, -1.0))
    assert np.isnan(back.rays()[..., :2]).all()


def test_cropping_keeps_every_ray():
    camera = dataclasses.replace(LENS, projection=P)
    part = camera.cropped(100, 50, 200, 120)
    assert (part.width, part.height) == (200, 120)
    np.testing.assert_allclose(part.rays(), camera.rays()[50:170, 100:300], atol=1e-5)
    np.testing.assert_allclose(
        part.rectified().rays(), camera.rectified().rays()[50:170, 100:300], atol=1e-6
    )


def test_binning_keeps_every_ray():
    """The centre of a 2x2 block looks where the binned pixel looks."""
    camera = Camera(640, 480, 550.0, 552.0, 320.3, 238.9)
    rays, binned = camera.rays(), camera.binned(2).rays()
    block = (rays[0::2, 0::2] + rays[1::2, 0::2] + rays[0::2, 1::2] + rays[1::2, 1::2]) / 4
    np.testing.assert_allclose(binned, block, atol=1e-6)
    other = dataclasses.replace(LENS, projection=(550.0, 552.0, 320.3, 238.9))
    assert other.binned(2).rectified() == other.rectified().binned(2)


def test_partial_blocks_count():
    assert (Camera(7, 5, 1, 1, 0, 0).binned(2).width, PINHOLE.binned(4).height) == (4, 2)


def test_calibration_file(tmp_path):
    file = tmp_path / 'camera.yaml'
    file.write_text(
        'image_width: 346\nimage_height: 260\ndistortion_model: plumb_bob\n'
        'camera_matrix: {rows: 3, cols: 3, data: [250.5, 0, 170, 0, 251, 130, 0, 0, 1]}\n'
        'distortion_coefficients: {rows: 1, cols: 5, data: [-0.3, 0.1, 0, 0, 0]}\n'
    )
    expected = Camera(346, 260, 250.5, 251, 170, 130, 'plumb_bob', (-0.3, 0.1, 0, 0, 0))
    assert read_calibration(f'file://{file}') == expected
    with file.open('a') as more:  # as camera_calibration writes them
        more.write(
            'rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}\n'
            'projection_matrix: {rows: 3, cols: 4, data: '
            '[231.5, 0, 171, -9.5, 0, 240, 131, 0, 0, 0, 1, 0]}\n'
        )
    with_p = dataclasses.replace(expected, projection=(231.5, 240.0, 171.0, 131.0))
    assert read_calibration(file) == with_p
    assert expected.is_distorted
    assert not expected.rectified().is_distorted


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'camera_matrix': {'data': [1, 2, 3]}}, 'has 3 numbers'),
        ({'camera_matrix': {'data': [0] * 9}}, 'focal length'),
        ({'distortion_model': 'magic'}, "'magic' is unknown"),
        ({'distortion_coefficients': {'data': [1, 2, 3]}}, 'has 3 distortion'),
        ({'image_width': None}, 'not a calibration'),
        (
            {'camera_matrix': {'data': ['f'] * 9}},
            'not a calibration.*could not convert',
        ),
        ({'image_width': 0}, '0x260'),
        ({'camera_matrix': {'data': [250, 0, 170, 0, 501, 130, 0, 0, 1]}}, r'501.*square pixels'),
        ({'camera_matrix': {'data': [250, 0, 0, 0, 250, 0, 170, 130, 1]}}, r'170.*transposed'),
        ({'camera_matrix': {'data': [250, 0, 500, 0, 250, 130, 0, 0, 1]}}, r'500.*outside'),
        ({'camera_matrix': {'data': [250, 0, 170, 0, 250, -9, 0, 0, 1]}}, r'-9.*outside'),
        ({'projection_matrix': {'data': [1, 2, 3]}}, 'projection matrix has 3 numbers, not 12'),
        (
            {'projection_matrix': {'data': [250, 0, 900, 0, 0, 250, 130, 0, 0, 0, 1, 0]}},
            r'projection matrix.*900.*outside',
        ),
        (
            {'projection_matrix': {'data': [0, 0, 170, 0, 0, 250, 130, 0, 0, 0, 1, 0]}},
            'projection matrix.*focal length',
        ),
        (
            {'projection_matrix': {'data': [2600, 0, 170, 0, 0, 2600, 130, 0, 0, 0, 1, 0]}},
            '250 px in the camera matrix and 2600 px in the projection matrix',
        ),
        (
            {'rectification_matrix': {'data': [1, 0, 0, 0, 2, 0, 0, 0, 1]}},
            r'rectification matrix is .*2.0.* expected 9 numbers of a rotation',
        ),
        ({'rectification_matrix': {'data': [float('nan')] * 9}}, 'rectification matrix is .*nan'),
    ],
)
def test_bad_calibrations_say_why(change, message):
    good = {
        'image_width': 346,
        'image_height': 260,
        'camera_matrix': {'data': [250, 0, 170, 0, 250, 130, 0, 0, 1]},
        'distortion_coefficients': {'data': [0, 0, 0, 0, 0]},
    }
    assert camera_from_calibration(good).width == 346
    with pytest.raises(CalibrationError, match=message):
        camera_from_calibration(good | change)


def test_unreadable_calibrations_say_why(tmp_path):
    with pytest.raises(CalibrationError, match='cannot read'):
        read_calibration(tmp_path / 'none.yaml')
    (tmp_path / 'list.yaml').write_text('- 1\n')
    with pytest.raises(CalibrationError, match='not a calibration'):
        read_calibration(tmp_path / 'list.yaml')


KALIBR = """
cam0:
  camera_model: pinhole
  distortion_coeffs: [-0.3, 0.1, 0.001, -0.002]
  distortion_model: radtan
  intrinsics: [250.5, 251.0, 170.0, 130.0]
  resolution: [346, 260]
  rostopic: /dvs/image
cam1:
  camera_model: pinhole
  distortion_coeffs: [0.01, 0.02, 0.0, 0.0]
  distortion_model: equidistant
  intrinsics: [500.0, 500.0, 320.0, 240.0]
  resolution: [640, 480]
"""


def test_kalibr_camchain(tmp_path, caplog):
    file = tmp_path / 'camchain.yaml'
    file.write_text(KALIBR)
    first = Camera(346, 260, 250.5, 251, 170, 130, 'plumb_bob', (-0.3, 0.1, 0.001, -0.002))
    assert read_calibration(f'file://{file}') == first
    assert 'append #cam1' in caplog.text
    second = read_calibration(f'{file}#cam1')
    assert (second.distortion_model, second.width, second.fx) == ('equidistant', 640, 500)
    with pytest.raises(CalibrationError, match='has no cam7'):
        read_calibration(f'{file}#cam7')
    file.write_text(KALIBR.replace('model: pinhole', 'model: omni'))
    with pytest.raises(CalibrationError, match=r"'omni', expected pinhole"):
        read_calibration(file)


@pytest.mark.parametrize('ending', ['yaml', 'xml'])
@pytest.mark.parametrize('names', [
    ('camera_matrix', 'distortion_coefficients', 'image_width', 'image_height'),
    ('Camera_Matrix', 'Distortion_Coefficients', 'image_Width', 'image_Height'),
    ('K', 'D', 'width', 'height'),
])  # fmt: skip
def test_opencv_file_storage(tmp_path, names, ending):
    file = tmp_path / f'camera.{ending}'
    k = np.array([[250.5, 0, 170], [0, 251, 130], [0, 0, 1]])
    storage = cv2.FileStorage(str(file), cv2.FILE_STORAGE_WRITE)
    for name, value in zip(names, (k, np.array([[-0.3, 0.1, 0, 0, 0.5]]), 346, 260), strict=True):
        storage.write(name, value)
    storage.release()
    expected = Camera(346, 260, 250.5, 251, 170, 130, 'plumb_bob', (-0.3, 0.1, 0, 0, 0.5))
    assert read_calibration(file) == expected


def test_opencv_file_storage_without_a_size_and_of_a_fisheye(tmp_path):
    file = tmp_path / 'camera.yaml'
    for extra in ({}, {'image_width': 346, 'image_height': 260, 'fisheye_model': 1}):
        storage = cv2.FileStorage(str(file), cv2.FILE_STORAGE_WRITE)
        storage.write('camera_matrix', np.array([[250.0, 0, 170], [0, 250, 130], [0, 0, 1]]))
        storage.write('distortion_coefficients', np.array([[0.1], [0.2], [0.0], [0.0]]))
        for name, value in extra.items():
            storage.write(name, value)
        storage.release()
        if extra:
            assert read_calibration(file).distortion_model == 'equidistant'
        else:
            with pytest.raises(CalibrationError, match='lacks the size'):
                read_calibration(file)


def test_fisheye_of_ros1_is_equidistant():
    values = {
        'image_width': 346,
        'image_height': 260,
        'camera_matrix': {'data': [250, 0, 170, 0, 250, 130, 0, 0, 1]},
        'distortion_model': 'fisheye',
        'distortion_coefficients': {'data': [0.1, 0, 0, 0]},
    }
    assert camera_from_calibration(values).distortion_model == 'equidistant'
