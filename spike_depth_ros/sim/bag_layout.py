"""A drive as a rosbag2: events, images, depth, calibration, transforms and odometry."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from spike_depth_ros.events.codecs.encoders import EVT3_MAX_PX
from spike_depth_ros.events.config import require
from spike_depth_ros.recordings import BagWriter
from spike_depth_ros.recordings.messages import quaternion
from spike_depth_ros.recordings.source import FRAME_ID
from spike_depth_ros.sim.rigs import EPOCH_NS, Recording, Rig, View, made, shifted
from spike_depth_ros.sim.sensors import EventCameraConfig

TF_HZ = 100


def bag_rig(sensor: EventCameraConfig) -> Rig:
    """Returns one lens for events and colour; ground truth of the ideal pinhole, as in ROS."""
    size = (sensor.camera.width, sensor.camera.height)
    require(max(size) <= EVT3_MAX_PX, 'sensor', f'{size[0]}x{size[1]}',
            f'at most {EVT3_MAX_PX} px per side, the limit of evt3 in a bag')  # fmt: skip
    view = View(sensor.camera, np.eye(4))
    return Rig(sensor, View(sensor.camera.rectified(), np.eye(4)), view)


def write_depth(folder: Path, index: int, depth_m: np.ndarray, rig: Rig) -> None:
    """Keeps a depth map until the bag is written."""
    np.save(made(folder.parent / 'pictures') / f'depth_{index:06d}.npy', depth_m)


def write_image(
    folder: Path, index: int, image: np.ndarray, depth_m: np.ndarray, rig: Rig
) -> None:
    """Keeps an image until the bag is written."""
    np.save(made(folder.parent / 'pictures') / f'image_{index:06d}.npy', image)


def finish(recording: Recording) -> None:
    """Writes the bag: all messages in order of time."""
    epoch_ns, camera = EPOCH_NS['bag'], recording.rig.sensor.camera
    shutil.rmtree(recording.folder, ignore_errors=True)  # left over from an interrupted run
    with BagWriter(recording.folder, 'mcap', 'evt3') as bag:
        notes = _bag_notes(recording)
        for events in recording.events():
            start = 0
            while notes and len(events) and notes[-1][0] <= events['t_ns'][-1]:
                stamp_ns, write, index = notes.pop()
                stop = int(np.searchsorted(events['t_ns'], stamp_ns))
                bag.add_events(shifted(events[start:stop], epoch_ns), camera.height, camera.width)
                write(bag, recording, index, stamp_ns)
                start = stop
            bag.add_events(shifted(events[start:], epoch_ns), camera.height, camera.width)
        for stamp_ns, write, index in reversed(notes):
            write(bag, recording, index, stamp_ns)


def _bag_notes(recording: Recording) -> list[tuple[int, Callable, int]]:
    """Returns all messages except events: stamp, writer, index; latest first."""
    tf_ns = np.arange(0, recording.depth_ns[-1] + 1, 1_000_000_000 // TF_HZ)
    kinds = (
        (tf_ns, _note_pose),
        (tf_ns[::2], _note_odometry),
        (recording.image_ns, _note_image),
        (recording.depth_ns, _note_depth),
    )
    notes = [(int(t), write, k) for stamps, write in kinds for k, t in enumerate(stamps)]
    return sorted(notes, key=lambda note: note[0], reverse=True)


def _note_pose(bag: BagWriter, recording: Recording, index: int, t_ns: int) -> None:
    pose, stamp_ns = recording.pose(t_ns * 1e-9), t_ns + EPOCH_NS['bag']
    bag.add_tf(stamp_ns, 'map', FRAME_ID, pose[:3, 3], quaternion(pose[:3, :3]))


def _note_odometry(bag: BagWriter, recording: Recording, index: int, t_ns: int) -> None:
    """Writes odometry with the twist of the camera, whose optical frame is the child frame."""
    pose, twist = recording.pose(t_ns * 1e-9), recording.twist(t_ns * 1e-9)
    turn = quaternion(pose[:3, :3])
    bag.add_odometry('/odom', t_ns + EPOCH_NS['bag'], 'map', FRAME_ID, pose[:3, 3], turn, twist)


def _note_image(bag: BagWriter, recording: Recording, index: int, t_ns: int) -> None:
    stamp_ns, camera = t_ns + EPOCH_NS['bag'], recording.rig.colour.camera
    image = np.load(recording.folder.parent / 'pictures' / f'image_{index:06d}.npy')
    bag.add_image('/camera/image_raw', stamp_ns, image, FRAME_ID)
    for topic in ('/camera/camera_info', '/event_camera/camera_info'):
        bag.add_camera_info(topic, stamp_ns, camera, FRAME_ID)


def _note_depth(bag: BagWriter, recording: Recording, index: int, t_ns: int) -> None:
    stamp_ns, camera = t_ns + EPOCH_NS['bag'], recording.rig.truth.camera
    depth_m = np.load(recording.folder.parent / 'pictures' / f'depth_{index:06d}.npy')
    bag.add_depth_32fc1('/ground_truth/depth', stamp_ns, depth_m, FRAME_ID)
    bag.add_camera_info('/ground_truth/camera_info', stamp_ns, camera, FRAME_ID)
