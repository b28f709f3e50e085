"""Layouts of a drive on disk: DSEC, DENSE, DENSE-spike, or a rosbag2.

A layout defines the cameras, their rates, where their images are stored, and how the folder is
completed when all of its segments are recorded. Formats: section "Data format" of
https://dsec.ifi.uzh.ch; Hidalgo-Carrio et al., 3DV 2020 (DENSE); Zhang et al., ECCV 2022
(DENSE-spike); rosbag2 for the bag.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.config import require
from spike_depth_ros.recordings import EventsH5Writer
from spike_depth_ros.sim import bag_layout
from spike_depth_ros.sim.rigs import (
    EPOCH_NS,
    Layout,
    Recording,
    Rig,
    View,
    made,
    one_camera,
    shifted,
)
from spike_depth_ros.sim.sensors import EventCameraConfig

EVENT_BASELINE_M = 0.6
COLOUR_BASELINE_M = 0.51
"""Baselines of the stereo pairs of DSEC, which determine its disparity."""

SKY_M = 1000.0
"""Depth of the sky in DENSE: CARLA's far plane."""

SPIKE_FRAMES = 128
"""Frames of the spike camera per depth map."""


# DSEC


def dsec_rig(sensor: EventCameraConfig) -> Rig:
    """Returns DSEC's left pair: truth in the rectified event view, a colour camera 4.5 cm away.

    The colour camera has half of DSEC's 1440x1080 pixels along each axis and the same field of
    view, as stated in `cam_to_cam.yaml`.
    """
    lens = sensor.camera
    require(lens.distortion_model == 'plumb_bob', 'the lens', lens.distortion_model,
            "'plumb_bob' for DSEC: use a field of view of at most 75 degrees")  # fmt: skip
    scale = lens.width / 640
    rectified = Camera(
        lens.width, lens.height, lens.fx, lens.fx, (lens.width - 1) / 2, (lens.height - 1) / 2
    )
    width, height = round(720 * scale), round(540 * scale)
    colour = Camera(width, height, 575.0 * scale, 575.0 * scale, (width - 1) / 2, (height - 1) / 2)
    to_rectified, to_colour = np.eye(4), np.eye(4)
    to_rectified[:3, :3] = rotation(0.004, -0.007, 0.003)
    to_colour[:3, :3] = rotation(-0.003, 0.005, 0.002)
    to_colour[:3, 3] = (-0.045, 0.002, -0.003)
    return Rig(sensor, View(rectified, to_rectified), View(colour, to_colour))


def _dsec_depth(folder: Path, index: int, depth_m: np.ndarray, rig: Rig) -> None:
    disparity = disparity_code(depth_m, rig.truth.camera.fx * EVENT_BASELINE_M)
    _write_png(folder / 'disparity' / 'event' / f'{2 * index:06d}.png', disparity)


def _dsec_image(
    folder: Path, index: int, image: np.ndarray, depth_m: np.ndarray, rig: Rig
) -> None:
    _write_png(folder / 'images' / 'left' / 'rectified' / f'{index:06d}.png', image)
    if index % 2 == 0:  # every second image has a disparity map of the same index
        disparity = disparity_code(depth_m, rig.colour.camera.fx * COLOUR_BASELINE_M)
        _write_png(folder / 'disparity' / 'image' / f'{index:06d}.png', disparity)


def disparity_code(depth_m: np.ndarray, focal_baseline: float) -> np.ndarray:
    """Encodes depth as DSEC's disparity: uint16 of 1/256 px, 0 if unknown, sky or too large.

    The step of 1/256 px limits the accuracy of the ground truth to depth / (512 focal_baseline),
    0.06 % at 100 m.
    """
    with np.errstate(divide='ignore', invalid='ignore'):
        code = np.round(256.0 * focal_baseline / np.asarray(depth_m, np.float64))
    return np.where((code >= 1) & (code <= 65535), code, 0).astype(np.uint16)


def _finish_dsec(recording: Recording) -> None:
    import h5py
    import hdf5plugin

    folder, rig, epoch_ns = recording.folder, recording.rig, EPOCH_NS['dsec']
    events_folder = folder / 'events' / 'left'
    camera = rig.sensor.camera
    (events_folder / 'events.h5').unlink(missing_ok=True)  # left over from an interrupted run
    with EventsH5Writer(events_folder / 'events.h5', camera.height, camera.width) as writer:
        for events in recording.events():
            writer.add(shifted(events, epoch_ns))
    with h5py.File(events_folder / 'rectify_map.h5', 'w') as file:
        blosc = hdf5plugin.Blosc(cname='zstd', clevel=1, shuffle=hdf5plugin.Blosc.SHUFFLE)
        file.create_dataset('rectify_map', data=rectify_map(rig), **blosc)
    for name, stamps_ns in (('disparity', recording.depth_ns), ('images', recording.image_ns)):
        np.savetxt(folder / name / 'timestamps.txt', (stamps_ns + epoch_ns) // 1000, '%d')
    (folder / 'calibration').mkdir(exist_ok=True)
    (folder / 'calibration' / 'cam_to_cam.yaml').write_text(dsec_calibration(rig), 'utf-8')


def rectify_map(rig: Rig) -> np.ndarray:
    """Returns (H, W, 2) float32: the position of each raw event pixel in the rectified view."""
    rays = rig.sensor.camera.rays().astype(np.float64) @ rig.truth.from_sensor[:3, :3].T
    camera = rig.truth.camera
    xy = rays[..., :2] / rays[..., 2:] * (camera.fx, camera.fy) + (camera.cx, camera.cy)
    return xy.astype(np.float32)


def dsec_calibration(rig: Rig) -> str:
    """Returns the text of `cam_to_cam.yaml`; its right cameras 2 and 3 have no recorded data."""
    import yaml

    lens, event, colour = rig.sensor.camera, rig.truth.camera, rig.colour.camera
    t_10, rect_0 = rig.colour.from_sensor, rig.truth.from_sensor
    t_20, t_30 = t_10.copy(), rect_0.copy()
    t_20[0, 3] -= COLOUR_BASELINE_M
    t_30[0, 3] -= EVENT_BASELINE_M
    identity = np.eye(3).tolist()
    intrinsics = {}
    for n, (raw, rectified) in enumerate(((lens, event), (colour, colour), (colour, colour),
                                          (event, event))):  # fmt: skip
        intrinsics[f'cam{n}'] = _intrinsics(raw) | {
            'camera_model': 'pinhole',
            'distortion_model': 'radtan',
            'distortion_coeffs': [float(d) for d in (*raw.distortion, 0, 0, 0, 0)[:4]],
        }
        intrinsics[f'camRect{n}'] = _intrinsics(rectified) | {'camera_model': 'pinhole'}
    values = {
        'intrinsics': intrinsics,
        'extrinsics': {
            'T_10': t_10.tolist(),
            'T_21': (t_20 @ np.linalg.inv(t_10)).tolist(),
            'T_32': (t_30 @ np.linalg.inv(t_20)).tolist(),
            'R_rect0': rect_0[:3, :3].tolist(),
            'R_rect1': identity,
            'R_rect2': identity,
            'R_rect3': identity,
        },
        'disparity_to_depth': {
            'cams_03': _reprojection(event, EVENT_BASELINE_M),
            'cams_12': _reprojection(colour, COLOUR_BASELINE_M),
        },
    }
    return yaml.safe_dump(values, sort_keys=False)


def _intrinsics(camera: Camera) -> dict:
    return {
        'camera_matrix': [float(n) for n in (camera.fx, camera.fy, camera.cx, camera.cy)],
        'resolution': [camera.width, camera.height],
    }


def _reprojection(camera: Camera, baseline_m: float) -> list[list[float]]:
    """Returns the (4, 4) matrix Q from (x, y, disparity, 1) to homogeneous points."""
    return [
        [1.0, 0.0, 0.0, -float(camera.cx)],
        [0.0, 1.0, 0.0, -float(camera.cy)],
        [0.0, 0.0, 0.0, float(camera.fx)],
        [0.0, 0.0, 1.0 / baseline_m, 0.0],
    ]


# DENSE


def dense_rig(sensor: EventCameraConfig) -> Rig:
    """Returns CARLA's camera: 346x260, 83 degrees wide, no distortion."""
    size = (sensor.camera.width, sensor.camera.height)
    require(size == (346, 260), 'sensor', f'{size[0]}x{size[1]}', '346x260, the size of DENSE')
    focal_px = 346 / 2 / math.tan(math.radians(83) / 2)
    camera = Camera(346, 260, focal_px, focal_px, 172.5, 129.5)
    return one_camera(dataclasses.replace(sensor, camera=camera))


def _dense_depth(folder: Path, index: int, depth_m: np.ndarray, rig: Rig) -> None:
    path = folder / 'depth' / 'data' / f'depth_{index:010d}.npy'
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.minimum(depth_m, SKY_M).astype(np.float32))


def _dense_image(
    folder: Path, index: int, image: np.ndarray, depth_m: np.ndarray, rig: Rig
) -> None:
    _write_png(folder / 'rgb' / 'frames' / f'frame_{index:010d}.png', image)


def write_spikes(folder: Path, index: int, frames: np.ndarray) -> None:
    """Writes (128, H, W) uint8 of {0, 1}: the spike frames before depth map `index`."""
    path = folder / 'spike' / 'r128' / f'spike_{index:010d}.npy'
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, frames)


def _finish_dense(recording: Recording) -> None:
    """Splits the events at the stamps: file k holds those between map k - 1 and map k."""
    data = recording.folder / 'events' / 'data'
    data.mkdir(parents=True, exist_ok=True)
    stamps_ns = recording.depth_ns
    index, waiting = 0, np.empty((0, 4))
    for events in recording.events():
        columns = (events['t_ns'], events['x'], events['y'], events['p'])
        waiting = np.concatenate([waiting, np.column_stack(columns)])
        complete_ns = events['t_ns'][-1] if len(events) else -1
        while index < len(stamps_ns) and complete_ns >= stamps_ns[index]:
            index, waiting = index + 1, _cut_dense(data, index, stamps_ns, waiting)
    for k in range(index, len(stamps_ns)):
        waiting = _cut_dense(data, k, stamps_ns, waiting)
    _dense_stamps(recording, ('depth/data', 'rgb/frames', 'events/data'))


def _cut_dense(data: Path, index: int, stamps_ns: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Writes the rows before stamp `index` to a file and returns the rest."""
    cut = int(np.searchsorted(table[:, 0], stamps_ns[index]))
    np.save(data / f'events_{index:010d}.npy', table[:cut])
    return table[cut:]


def _finish_dense_spike(recording: Recording) -> None:
    _dense_stamps(recording, ('depth/data', 'rgb/frames', 'spike/r128'))


def _dense_stamps(recording: Recording, places: Iterable[str]) -> None:
    text = ''.join(f'{k} {stamp * 1e-9:.9f}\n' for k, stamp in enumerate(recording.depth_ns))
    for place in places:
        (recording.folder / place / 'timestamps.txt').write_text(text, 'utf-8')


# rosbag2


def rotation(x_rad: float, y_rad: float, z_rad: float) -> np.ndarray:
    """Returns the (3, 3) rotation of a rotation vector."""
    import cv2

    return cv2.Rodrigues(np.array([x_rad, y_rad, z_rad], np.float64))[0]


def _write_png(path: Path, image: np.ndarray) -> None:
    import cv2

    made(path.parent)
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    if not cv2.imwrite(str(path), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
        raise OSError(f'cannot write {path}')


LAYOUTS: dict[str, Layout] = {
    'dsec': Layout('640x480', dsec_rig, 10, 20, _dsec_depth, _dsec_image, _finish_dsec),
    'dense': Layout('346x260', dense_rig, 30, 30, _dense_depth, _dense_image, _finish_dense),
    'dense_spike': Layout(
        '346x260', dense_rig, 30, 30, _dense_depth, _dense_image, _finish_dense_spike, True
    ),
    'bag': Layout(
        '640x480',
        bag_layout.bag_rig,
        20,
        20,
        bag_layout.write_depth,
        bag_layout.write_image,
        bag_layout.finish,
    ),
}
"""Name -> layout: the only registry of layouts."""
