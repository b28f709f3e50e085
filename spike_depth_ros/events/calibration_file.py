"""Calibration files: of ROS (camera_calibration), Kalibr (camchain) and OpenCV (FileStorage)."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np

from spike_depth_ros.events.camera import CalibrationError, Camera
from spike_depth_ros.events.camera_matrix import camera_from_matrix
from spike_depth_ros.events.yaml_file import MOST_BYTES, YamlError, read_yaml

log = logging.getLogger(__name__)

_EXPECTED = (
    'expected a file of ROS (image_width, image_height, camera_matrix.data, distortion_model, '
    'distortion_coefficients.data), a camchain of Kalibr (cam0: intrinsics, resolution, '
    'distortion_model, distortion_coeffs), or a FileStorage of OpenCV (image_width, image_height, '
    'camera_matrix, distortion_coefficients)'
)
_CAMERA = re.compile(r'cam\d+')
_OPENCV_NAMES = {
    'matrix': ('camera_matrix', 'Camera_Matrix', 'cameraMatrix', 'K', 'M1', 'intrinsics'),
    'distortion': ('distortion_coefficients', 'Distortion_Coefficients', 'distCoeffs',
                   'dist_coeffs', 'distortion', 'D', 'D1'),
    'width': ('image_width', 'image_Width', 'imageWidth', 'width', 'Image_width'),
    'height': ('image_height', 'image_Height', 'imageHeight', 'height', 'Image_height'),
    'size': ('image_size', 'imageSize', 'resolution'),
}  # fmt: skip
"""Names of the entries in OpenCV files, which follow no standard."""


def read_calibration(path: str | Path) -> Camera:
    """Reads the calibration of a camera; a leading `file://` is accepted, as in `camera_info_url`.

    Args:
        path: a file of ROS, Kalibr or OpenCV. For a camchain with several cameras, a suffix such
            as `#cam1` selects one; by default the first one is used and logged.

    Raises:
        CalibrationError: no such file, not a calibration, or implausible numbers.
    """
    name, _, camera = str(path).removeprefix('file://').rpartition('#')
    if not name or not _CAMERA.fullmatch(camera):
        name, camera = str(path).removeprefix('file://'), ''
    file = Path(name).expanduser()
    try:
        with file.open('rb') as opened:
            start = opened.read(MOST_BYTES)
        if start.lstrip().startswith((b'%YAML:', b'<?xml')) or b'opencv-matrix' in start:
            return _from_opencv(file)
        values = read_yaml(file)
    except (OSError, YamlError) as error:
        raise CalibrationError(
            f'cannot read the calibration {str(file)!r}: {error}; {_EXPECTED}'
        ) from error
    chain = sorted(k for k in values if _CAMERA.fullmatch(str(k))) if _is_table(values) else []
    if not chain:
        return camera_from_calibration(values, str(file))
    if camera and camera not in chain:
        raise CalibrationError(f'{file} has no {camera}; it has {chain}')
    if not camera and len(chain) > 1:
        log.warning('%s: using %s of %s; append #%s for another', file, chain[0], chain, chain[1])
    chosen = camera or chain[0]
    return _from_kalibr(values[chosen], f'{file}#{chosen}')


def camera_from_calibration(values: Any, source: str = 'calibration') -> Camera:
    """Builds a camera from the fields of a ROS calibration file (camera_calibration_parsers).

    Args:
        values: the parsed YAML: image_width, image_height, camera_matrix.data (9),
            distortion_model, distortion_coefficients.data; if present also
            rectification_matrix.data (9) and projection_matrix.data (12).
        source: name of the calibration in error messages.

    Raises:
        CalibrationError: a field is missing or not of the expected form.
    """
    if not _is_table(values):
        raise CalibrationError(
            f'{source} is not a calibration, since it holds no table; {_EXPECTED}'
        )
    try:

        def numbers(name: str) -> list[float]:
            return _numbers((values.get(name) or {'data': []})['data'])

        return camera_from_matrix(
            _numbers(values['camera_matrix']['data']),
            _whole(values['image_width']),
            _whole(values['image_height']),
            str(values.get('distortion_model', 'plumb_bob')),
            numbers('distortion_coefficients'),
            source,
            numbers('rectification_matrix'),
            numbers('projection_matrix'),
        )
    except CalibrationError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CalibrationError(
            f'{source} is not a calibration ({error!r}); {_EXPECTED}'
        ) from error


def _is_table(values: Any) -> bool:
    return isinstance(values, dict)


def _numbers(values: Any) -> list[float]:
    """The numbers of a list, or of a list of rows."""
    flat: list[float] = np.ravel(np.asarray(values, np.float64)).tolist()
    return flat


def _whole(value: Any) -> int:
    """A whole number, which may be written as 640.0 or '640'.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, bool) or float(value) != int(float(value)):
        raise ValueError(f'{value!r} is no number of pixels')
    return int(float(value))


def _from_kalibr(values: Any, source: str) -> Camera:
    """Builds one camera of a camchain.

    Raises:
        CalibrationError: a field is missing, or the model is not a pinhole.
    """
    try:
        if values.get('camera_model', 'pinhole') != 'pinhole':
            raise CalibrationError(
                f'{source} has the model {values["camera_model"]!r}, expected pinhole'
            )
        fx, fy, cx, cy = (float(number) for number in values['intrinsics'])
        width, height = (_whole(number) for number in values['resolution'])
        return camera_from_matrix(
            [fx, 0, cx, 0, fy, cy, 0, 0, 1],
            width,
            height,
            str(values.get('distortion_model', 'radtan')),
            [float(number) for number in values.get('distortion_coeffs') or ()],
            source,
        )
    except CalibrationError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CalibrationError(
            f'{source} is not a camera of a camchain ({error!r}); {_EXPECTED}'
        ) from error


def _from_opencv(file: Path) -> Camera:
    """Reads a camera from an OpenCV FileStorage in YAML or XML.

    Raises:
        CalibrationError: a field is missing or not of the expected form.
    """
    import cv2

    try:
        storage = cv2.FileStorage(str(file), cv2.FILE_STORAGE_READ)
        matrix, distortion, width, height, size = (
            _entry(storage, names) for names in _OPENCV_NAMES.values()
        )
        if width is None and size is not None:
            width, height = (int(number) for number in np.ravel(size)[:2])
        is_fisheye = bool(_entry(storage, ('fisheye_model', 'fisheye')))
        model = _entry(storage, ('distortion_model', 'distortion_type'))
        storage.release()
        coefficients = [] if distortion is None else np.ravel(distortion).tolist()
        if not isinstance(model, str):
            model = 'rational_polynomial' if len(coefficients) > 5 else 'plumb_bob'
            model = 'equidistant' if is_fisheye else model
        k = np.ravel(matrix).tolist() if matrix is not None else None
        if k is None or width is None or height is None:
            lacking = 'a camera matrix' if k is None else 'the size of the image'
            raise CalibrationError(f'{file} lacks {lacking}; {_EXPECTED}')
        return camera_from_matrix(k, int(width), int(height), model, coefficients, str(file))
    except CalibrationError:
        raise
    except (cv2.error, SystemError, TypeError, ValueError, OverflowError) as error:
        raise CalibrationError(
            f'{file} is not a calibration of OpenCV ({error}); {_EXPECTED}'
        ) from error


def _entry(storage: Any, names: tuple[str, ...]) -> Any:
    """Returns the first entry that exists: a matrix, list, text or number; None if none does."""
    for name in names:
        node = storage.getNode(name)
        if node.empty():
            continue
        if node.isMap():
            return node.mat()
        if node.isSeq():
            return [node.at(k).real() for k in range(node.size())]
        return node.string() if node.isString() else node.real()
    return None
