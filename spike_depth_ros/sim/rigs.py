"""The cameras of a recorded drive, and what a layout on disk must provide."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spike_depth_ros.events.camera import Camera
from spike_depth_ros.sim.sensors import EventCameraConfig

EPOCH_NS = {'dsec': 50_000_000_000_000, 'bag': 32_425 * 2**24 * 5**5 * 1000}
"""Time at which a recording starts on its own clock; 0 for the other layouts. A bag's is a
multiple of evt3's wrap of 2^24 us and of 50 ms: windows of 50 ms end where there is a truth."""


class View(NamedTuple):
    """A camera mounted with the event sensor."""

    camera: Camera
    from_sensor: np.ndarray  # (4, 4) transform of points from the event sensor to this camera


class Rig(NamedTuple):
    """The cameras of a recording."""

    sensor: EventCameraConfig
    truth: View
    colour: View


class Recording(NamedTuple):
    """The parts from which a folder is completed."""

    folder: Path  # already holds the images
    rig: Rig
    depth_ns: np.ndarray  # stamps of the depth maps, from the start of the recording
    image_ns: np.ndarray  # stamps of the images
    events: Callable[[], Iterator[np.ndarray]]  # in pieces, times from the start
    pose: Callable[[float], np.ndarray]  # (4, 4) sensor to world at a time in s
    twist: Callable[[float], tuple[np.ndarray, np.ndarray]]  # of the sensor, see `World.twist`


@dataclasses.dataclass(frozen=True)
class Layout:
    """A layout of a recording on disk.

    Attributes:
        sensor: default sensor of this layout.
        rig: returns the cameras for an event sensor.
        depth_hz: rate of the depth maps; each comes with an image.
        image_hz: rate of the colour images.
        write_depth: writes map `index`, (H, W) metres with +inf for the sky.
        write_image: writes image `index`, (H, W, 3) uint8 RGB, and its depth if the layout has it.
        finish: completes the folder.
        spikes: True if the sensor is a spike camera.
    """

    sensor: str
    rig: Callable[[EventCameraConfig], Rig]
    depth_hz: int
    image_hz: int
    write_depth: Callable[[Path, int, np.ndarray, Rig], None]
    write_image: Callable[[Path, int, np.ndarray, np.ndarray, Rig], None]
    finish: Callable[[Recording], None]
    spikes: bool = False


def one_camera(sensor: EventCameraConfig) -> Rig:
    """Returns events, depth and colour through one lens, as in a DAVIS or with a beam splitter."""
    view = View(sensor.camera, np.eye(4))
    return Rig(sensor, view, view)


def shifted(events: np.ndarray, offset_ns: int) -> np.ndarray:
    """Returns the events on a clock that is ahead by `offset_ns`."""
    moved = events.copy()
    moved['t_ns'] += offset_ns
    return moved


def made(folder: Path) -> Path:
    """Creates a folder if it is missing, and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder
