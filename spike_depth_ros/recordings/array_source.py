"""Recordings whose content is arrays, as the messages that a bag of them would hold."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.events.camera import Camera
from spike_depth_ros.recordings.messages import (
    CAMERA_INFO,
    IMAGE,
    ODOMETRY,
    TF,
    camera_info_cdr,
    image_cdr,
    odometry_cdr,
    quaternion,
    transform_cdr,
)
from spike_depth_ros.recordings.packets import Packetiser, StampClock, stale_head
from spike_depth_ros.recordings.source import (
    EVENT_PACKET,
    EVENTS_TOPIC,
    FRAME_ID,
    EventSource,
    RawMessage,
    Topic,
    choose_event_topic,
)

READ_EVENTS = 1 << 19
HEAD_EVENTS = 1 << 16
"""Events among which left-overs of an earlier run are looked for."""
INFO_PERIOD_NS = 100_000_000
MOST_INFOS = 1 << 20

RECTIFIED_FRAME_ID = 'event_camera_rectified_optical_frame'
COLOUR_FRAME_ID = 'camera_rectified_optical_frame'
WORLD_FRAME_ID = 'map'
INFO_TOPIC = '/event_camera/camera_info'
TRUTH_TOPIC = '/ground_truth/depth'
TRUTH_INFO_TOPIC = '/ground_truth/camera_info'
ODOMETRY_TOPIC = '/odom'
MOST_GAP_NS = 500_000_000
"""Poses farther apart than this say nothing about the velocity between them."""


class EventArrays(Protocol):
    """Events that can be read by index, such as those of an HDF5 file."""

    path: Path
    kind: str
    count: int

    @property
    def geometry(self) -> tuple[int, int]:
        """(height, width) of the sensor [px]."""

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Events [start, stop), (N,) `EVENT_DTYPE`."""

    def time_ns(self, index: int) -> int:
        """Time of one event."""

    def first_at(self, t_ns: int) -> int:
        """Index of the first event at or after a time."""

    def close(self) -> None:
        """Closes the file."""


def first_at(t_ns: int, count: int, times_ns: Callable[[int, int], NDArray[Any]]) -> int:
    """Index of the first of `count` events at or after a time, by bisection.

    Args:
        t_ns: the time.
        count: number of events.
        times_ns: gives the times of events [start, stop). The middle one of three neighbours
            counts, so that a single wrong time does not decide.
    """
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        start = min(max(middle - 1, 0), max(count - 3, 0))
        if np.median(times_ns(start, min(start + 3, count))) < t_ns:
            low = middle + 1
        else:
            high = middle
    return low


class Series(NamedTuple):
    """Messages of one topic whose times are known and whose content is read when asked for."""

    topic: str
    type: str
    stamps_ns: NDArray[Any]  # (N,) int64, ascending
    pack: Callable[[int, int], memoryview]  # index, stamp -> CDR


class ArraySource(EventSource):
    """Events that are arrays, packed into EventPackets as they are read, and series beside them.

    Args:
        path: the recording, as the user named it.
        events: its events.
        topic: the topic of events that the user asks for, if any.
        encoding: of the packets, 'evt3' or 'mono'.
        series: what lies beside the events.

    Raises:
        BagError: no such topic.
    """

    def __init__(
        self,
        path: Path,
        events: EventArrays,
        topic: str | None = None,
        encoding: str = 'evt3',
        series: Sequence[Series] = (),
    ) -> None:
        self.path = path
        self.events = events
        self.kind = events.kind
        self.geometry = events.geometry
        self._encoding = encoding
        self._series = series
        self._done = 0
        own = Topic(EVENTS_TOPIC, EVENT_PACKET, None)
        self.topics = (own, *(Topic(s.topic, s.type, len(s.stamps_ns)) for s in series))
        self.event_topic = choose_event_topic(self.topics, topic, path)
        self.resources.callback(events.close)
        self._first = 0
        if events.count:
            self._first, self.start_ns = _start(events)
            if self._first:
                self.dropped = Counter({'events of an earlier run': self._first})
            self.end_ns = events.time_ns(events.count - 1)

    def messages(
        self,
        topics: Collection[str] | None = None,
        start_ns: int = 0,
        duration_ns: int | None = None,
    ) -> Iterator[RawMessage]:
        """See `EventSource.messages`."""
        begin_ns = (self.start_ns or 0) + start_ns
        end_ns = None if duration_ns is None else begin_ns + duration_ns
        streams = []
        if topics is None or EVENTS_TOPIC in topics:
            streams.append(self._packets(start_ns, duration_ns))
        for series in self._series:
            if topics is not None and series.topic in topics:
                streams.append(_play(series, begin_ns if start_ns else None, end_ns))
        return heapq.merge(*streams, key=lambda message: message.stamp_ns)

    def slices(self, start_ns: int = 0, duration_ns: int | None = None) -> Iterator[NDArray[Any]]:
        """The events themselves, a slice of the file at a time."""
        begin_ns = (self.start_ns or 0) + start_ns
        first = max(self.events.first_at(begin_ns) if start_ns else 0, self._first)
        last = self.events.count
        if duration_ns is not None:
            last = self.events.first_at(begin_ns + duration_ns)
        for start in range(first, last, READ_EVENTS):
            stop = min(start + READ_EVENTS, last)
            self._done = stop
            yield self.events.read(start, stop)

    def progress(self) -> float:
        """See `EventSource.progress`."""
        return self._done / max(1, self.events.count)

    def _packets(self, start_ns: int, duration_ns: int | None) -> Iterator[RawMessage]:
        packetiser = Packetiser(*self.events.geometry, FRAME_ID, self._encoding)
        for events in self.slices(start_ns, duration_ns):
            for stamp_ns, cdr in packetiser.push(events):
                yield RawMessage(EVENTS_TOPIC, EVENT_PACKET, stamp_ns, cdr)
        for stamp_ns, cdr in packetiser.flush():
            yield RawMessage(EVENTS_TOPIC, EVENT_PACKET, stamp_ns, cdr)


def _start(events: EventArrays) -> tuple[int, int]:
    """Index of the first event that is not of an earlier run, and the time [ns] at the start."""
    t_ns = events.read(0, min(HEAD_EVENTS, events.count))['t_ns']
    first = stale_head(t_ns)
    return first, StampClock()(t_ns, first)


def _play(series: Series, begin_ns: int | None, end_ns: int | None) -> Iterator[RawMessage]:
    for index, stamp in enumerate(series.stamps_ns):
        stamp_ns = int(stamp)
        if begin_ns is not None and stamp_ns < begin_ns:
            if series.topic != '/tf_static':
                continue
            stamp_ns = begin_ns  # a static transform also holds later
        if end_ns is not None and stamp_ns >= end_ns:
            return
        yield RawMessage(series.topic, series.type, stamp_ns, series.pack(index, stamp_ns))


def image_series(
    topic: str, frame_id: str, stamps_ns: NDArray[Any], read: Callable[[int], NDArray[Any]]
) -> Series:
    """Images, or depth in metres; `read` gives the one of an index."""
    return Series(
        topic,
        IMAGE,
        stamps_ns,
        lambda index, stamp_ns: image_cdr(stamp_ns, frame_id, read(index)),
    )


def info_series(topic: str, frame_id: str, stamps_ns: NDArray[Any], camera: Camera) -> Series:
    """A calibration, once per stamp."""
    return Series(
        topic,
        CAMERA_INFO,
        stamps_ns,
        lambda index, stamp_ns: camera_info_cdr(stamp_ns, frame_id, camera),
    )


def info_ticks(events: EventArrays) -> NDArray[Any]:
    """(N,) times [ns] at which the calibration of the events is repeated: ten a second."""
    if not events.count:
        return np.zeros(1, np.int64)
    start_ns, end_ns = _start(events)[1], events.time_ns(events.count - 1)
    count = min(max(1, (end_ns - start_ns) // INFO_PERIOD_NS), MOST_INFOS)
    return start_ns + INFO_PERIOD_NS * np.arange(count)


def pose_series(stamps_ns: NDArray[Any], read: Callable[[int], NDArray[Any]]) -> Series:
    """Poses of the event camera; `read` gives a (4, 4) that takes its points to the world."""

    def pack(index: int, stamp_ns: int) -> memoryview:
        pose = read(index)
        q = quaternion(pose[:3, :3])
        return transform_cdr(stamp_ns, WORLD_FRAME_ID, FRAME_ID, pose[:3, 3], q)

    return Series('/tf', TF, stamps_ns, pack)


def odometry_series(stamps_ns: NDArray[Any], read: Callable[[int], NDArray[Any]]) -> Series:
    """The motion of the event camera along its own axes, by central differences of its poses.

    A pose whose neighbours are more than `MOST_GAP_NS` apart has no twist.

    Args:
        stamps_ns: (N,) int64, ascending.
        read: gives the (4, 4) pose of an index, see `pose_series`.
    """
    everything = np.arange(len(stamps_ns))
    before, after = np.maximum(everything - 1, 0), everything + 1
    after[-1:] -= 1
    apart_ns = stamps_ns[after] - stamps_ns[before]
    chosen = np.flatnonzero((apart_ns > 0) & (apart_ns <= MOST_GAP_NS))

    def pack(number: int, stamp_ns: int) -> memoryview:
        index = int(chosen[number])
        pose = read(index)
        twist = _twist(read(int(before[index])), pose, read(int(after[index])),
                       float(apart_ns[index]) * 1e-9)  # fmt: skip
        q = quaternion(pose[:3, :3])
        return odometry_cdr(stamp_ns, WORLD_FRAME_ID, FRAME_ID, pose[:3, 3], q, twist)

    return Series(ODOMETRY_TOPIC, ODOMETRY, stamps_ns[chosen], pack)


def _twist(
    before: NDArray[Any], pose: NDArray[Any], after: NDArray[Any], apart_s: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Velocity and turning rate along the axes of `pose`; NaN where a pose is not finite."""
    import cv2

    if not np.isfinite([before, pose, after]).all():
        return np.full(3, np.nan), np.full(3, np.nan)
    velocity = pose[:3, :3].T @ (after[:3, 3] - before[:3, 3]) / apart_s
    turn, _ = cv2.Rodrigues(before[:3, :3].T @ after[:3, :3])
    return velocity, turn.ravel() / apart_s


def static_series(
    events: EventArrays, child: str, rotation: NDArray[Any], origin_m: NDArray[Any]
) -> Series:
    """Where a frame is in that of the events, once: (3, 3) rotation and (3,) origin."""
    start_ns = _start(events)[1] if events.count else 0
    q = quaternion(rotation)
    return Series(
        '/tf_static',
        TF,
        np.array([start_ns]),
        lambda index, stamp_ns: transform_cdr(stamp_ns, FRAME_ID, child, origin_m, q),
    )
