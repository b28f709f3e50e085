"""A recording of any format as numpy arrays: the way in for programs.

with open_recording('drive') as recording:
    for events in recording.events():  # (N,) EVENT_DTYPE: t_ns, x, y, p
        ...
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.camera_matrix import camera_from_matrix
from spike_depth_ros.events.wire import EventStream
from spike_depth_ros.recordings.array_source import TRUTH_TOPIC
from spike_depth_ros.recordings.messages import CAMERA_INFO, IMAGE, typestore
from spike_depth_ros.recordings.open import open_source
from spike_depth_ros.recordings.packets import with_epoch
from spike_depth_ros.recordings.source import BagError, EventSource, RawMessage

_PIXELS: dict[str, tuple[str, int]] = {
    'mono8': ('u1', 1),
    '8UC1': ('u1', 1),
    'rgb8': ('u1', 3),
    'bgr8': ('u1', 3),
    '8UC3': ('u1', 3),
    'rgba8': ('u1', 4),
    'bgra8': ('u1', 4),
    'mono16': ('u2', 1),
    '16UC1': ('u2', 1),
    '32FC1': ('f4', 1),
}
"""Encoding of an image -> type of a number, and numbers per pixel."""


class StampedImage(NamedTuple):
    """An image, or depth in metres, and when it was taken."""

    stamp_ns: int
    pixels: NDArray[Any]


class Recording:
    """A recording, open for reading. Closes itself as a context manager.

    Everything is read piece by piece, so memory does not grow with the length.

    Attributes:
        path: the file or folder.
        kind: what it is, such as 'rosbag2'.
        geometry: (height, width) of the sensor [px]; None if only the messages know it.
        topics: names of all topics; files without topics get names.
        types: topic -> type of its messages.
    """

    def __init__(self, source: EventSource) -> None:
        self._source = source
        self.path, self.kind = source.path, source.kind
        self.geometry = source.geometry
        self.types = {topic.name: topic.type for topic in source.topics}
        self.topics = list(self.types)

    def events(
        self, start_s: float = 0.0, duration_s: float | None = None
    ) -> Iterator[NDArray[np.void]]:
        """Yields the events in stream order, (N,) `EVENT_DTYPE` at a time.

        Args:
            start_s: skip so much [s].
            duration_s: stop so long after that [s]; None for all.

        Raises:
            BagError: the recording turns out damaged.
        """
        stream = EventStream(self._source.event_topic.type)
        for message in self._messages(None, start_s, duration_s):
            fed = stream.feed(message.cdr)
            if fed is not None and len(fed[1].events):
                yield with_epoch(*fed).events

    def images(
        self, topic: str = '', start_s: float = 0.0, duration_s: float | None = None
    ) -> Iterator[StampedImage]:
        """Yields the images: (H, W) or (H, W, 3) RGB, as they were recorded.

        Args:
            topic: of the images; '' for the only one that is no depth.
            start_s: skip so much [s].
            duration_s: stop so long after that [s]; None for all.

        Raises:
            BagError: no such topic, several to choose from, or an unknown encoding.
        """
        name = topic or self._only([n for n in self._image_topics() if 'depth' not in n], 'images')
        for message in self._messages(name, start_s, duration_s):
            yield _image(message)[0]

    def depth(
        self, topic: str = '', start_s: float = 0.0, duration_s: float | None = None
    ) -> Iterator[StampedImage]:
        """Yields depth along z, (H, W) float32 metres: NaN unknown, +inf beyond any range.

        The arguments are those of `images`; '' is the ground truth, else the only depth.

        Raises:
            BagError: no such topic, several to choose from, or an unknown encoding.
        """
        names = [n for n in self._image_topics() if 'depth' in n]
        name = topic or (TRUTH_TOPIC if TRUTH_TOPIC in names else self._only(names, 'depth'))
        for message in self._messages(name, start_s, duration_s):
            (stamp_ns, pixels), encoding = _image(message)
            if encoding == '32FC1':
                yield StampedImage(stamp_ns, pixels)
            elif encoding in ('16UC1', 'mono16'):  # millimetres, 0 unknown (REP 118)
                depth_m = pixels.astype(np.float32) / 1000
                depth_m[pixels == 0] = np.nan
                yield StampedImage(stamp_ns, depth_m)
            else:
                raise BagError(f'{name} of {self.path} is {encoding}, expected 32FC1 or 16UC1')

    def messages(
        self, topic: str, start_s: float = 0.0, duration_s: float | None = None
    ) -> Iterator[Any]:
        """Yields the messages of one topic, with the fields that ROS gives their type.

        The arguments are those of `images`.

        Raises:
            BagError: no such topic.
        """
        for message in self._messages(topic, start_s, duration_s):
            yield typestore().deserialize_cdr(bytes(message.cdr), message.type)

    def camera(self, topic: str = '') -> Camera | None:
        """Returns the calibration of a camera; None if the recording has none.

        Args:
            topic: of its images; '' for the events.

        Raises:
            CalibrationError: it is impossible or implausible.
        """
        info = self.camera_info(topic)
        if info is None:
            return None
        return camera_from_matrix(
            info.k.tolist(), info.width, info.height, info.distortion_model, info.d.tolist(),
            f'the calibration beside {topic or self._source.event_topic.name} of {self.path}',
            info.r.tolist(), info.p.tolist(),
        )  # fmt: skip

    def camera_info(self, topic: str = '') -> Any:
        """Returns the first CameraInfo in the namespace of a topic; None without one.

        Args:
            topic: of images; '' for the events.
        """
        folder = (topic or self._source.event_topic.name).rpartition('/')[0]
        beside = [
            name
            for name, kind in self.types.items()
            if kind == CAMERA_INFO and name.rpartition('/')[0] == folder
        ]
        return next(self.messages(beside[0]), None) if len(beside) == 1 else None

    def progress(self) -> float:
        """Returns the share of the recording that has been read, 0 to 1."""
        return self._source.progress()

    def close(self) -> None:
        """Closes the files."""
        self._source.close()

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _messages(
        self, topic: str | None, start_s: float, duration_s: float | None
    ) -> Iterator[RawMessage]:
        if topic is not None and topic not in self.topics:
            raise BagError(f'{self.path} has no topic {topic!r}; it has {self.topics}')
        duration_ns = None if duration_s is None else round(duration_s * 1e9)
        names = None if topic is None else [topic]
        return self._source.messages(names, round(start_s * 1e9), duration_ns)

    def _image_topics(self) -> list[str]:
        return [topic.name for topic in self._source.topics if topic.type == IMAGE]

    def _only(self, names: list[str], what: str) -> str:
        if len(names) != 1:
            raise BagError(f'{self.path} has {names or "no"} topics of {what}: give one of them')
        return names[0]


def open_recording(
    path: str | Path, topic: str = '', sensor: str = '', time_unit: str = ''
) -> Recording:
    """Opens a recording of any format that `spike_depth convert` reads.

    Args:
        path: the file or folder.
        topic: topic of the events, where there are several.
        sensor: 'WIDTHxHEIGHT' where the recording does not state it.
        time_unit: 's', 'ms', 'us' or 'ns' where an HDF5 file does not show it.

    Raises:
        BagError: nothing at the path, not a recording, damaged, or without events.
    """
    return Recording(
        open_source(path, topic or None, 'mono', sensor=sensor or None, time_unit=time_unit)
    )


def _image(message: RawMessage) -> tuple[StampedImage, str]:
    """The pixels of a sensor_msgs/Image, colour as RGB, and their encoding.

    Raises:
        BagError: an unknown encoding, or fewer bytes than the size says.
    """
    image: Any = typestore().deserialize_cdr(bytes(message.cdr), IMAGE)
    if image.encoding not in _PIXELS:
        raise BagError(
            f'image on {message.topic} is {image.encoding!r}, expected one of {sorted(_PIXELS)}'
        )
    number, channels = _PIXELS[image.encoding]
    dtype = np.dtype(number).newbyteorder('>' if image.is_bigendian else '<')
    row_bytes = image.width * channels * dtype.itemsize
    if image.step < row_bytes or len(image.data) < image.height * image.step:
        raise BagError(
            f'image on {message.topic} has {len(image.data)} bytes, expected '
            f'{image.width}x{image.height} px of {image.encoding}'
        )
    rows = image.data[: image.height * image.step].reshape(image.height, image.step)
    pixels = np.ascontiguousarray(rows[:, :row_bytes]).view(dtype).astype(number)
    if channels > 1:
        pixels = pixels.reshape(image.height, image.width, channels)[..., :3]
    if image.encoding.startswith('bgr'):
        pixels = pixels[..., ::-1]
    stamp_ns = image.header.stamp.sec * 10**9 + image.header.stamp.nanosec
    return StampedImage(stamp_ns, pixels), image.encoding
