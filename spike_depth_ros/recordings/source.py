"""The interface of every recording: topics, and raw messages in time order.

A ROS bag, a data set and a camera's own format all give CDR messages of ROS 2 types, the same
bytes that a live subscription delivers.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import NamedTuple, Self

from spike_depth_ros.events.codecs import MAX_SENSOR_PX
from spike_depth_ros.events.wire import EVENT_TYPES

EVENT_PACKET = 'event_camera_msgs/msg/EventPacket'
"""The type that this package writes events as."""
EVENTS_TOPIC = '/event_camera/events'
"""Topic of events from a file that has no topics."""
FRAME_ID = 'event_camera_optical_frame'
"""Frame of the events from such a file."""


class BagError(ValueError):
    """A recording is missing, damaged, without the events asked for, or cannot be written."""


class Topic(NamedTuple):
    """One topic of a recording."""

    name: str
    type: str
    messages: int | None  # None where the file must be read to know
    latched: bool = False  # a subscriber that comes late gets the last message


class RawMessage(NamedTuple):
    """One message as it is on the wire."""

    topic: str
    type: str
    stamp_ns: int  # when it was recorded
    cdr: bytes | memoryview  # with the 4-byte encapsulation header


class EventSource(abc.ABC):
    """A recording that holds events, open for reading. Closes itself as a context manager.

    Attributes:
        path: the file or folder.
        kind: what it is, e.g. 'rosbag2'.
        topics: all topics that `messages` can give.
        event_topic: the one with the events.
        geometry: (height, width) of the sensor [px], None if the recording does not state it.
        start_ns: stamp of the first message, None if unknown.
        end_ns: stamp of the last message, None if unknown.
        dropped: what the reader left out of the messages so far, and how many of it.
        unreadable: topics whose messages are left out, since their type is not defined, and how
            many messages each has.
    """

    path: Path
    kind: str
    topics: tuple[Topic, ...]
    event_topic: Topic
    geometry: tuple[int, int] | None = None
    start_ns: int | None = None
    end_ns: int | None = None
    dropped: Mapping[str, int] = MappingProxyType({})
    unreadable: Mapping[str, int] = MappingProxyType({})

    @abc.abstractmethod
    def messages(
        self,
        topics: Collection[str] | None = None,
        start_ns: int = 0,
        duration_ns: int | None = None,
    ) -> Iterator[RawMessage]:
        """Gives messages in time order, one at a time: memory stays flat.

        Args:
            topics: names of the topics to read; None for the events alone.
            start_ns: skip what was recorded earlier than this after the start.
            duration_ns: stop this long after `start_ns`; None to read to the end.

        Raises:
            BagError: the recording turns out damaged.
        """

    def check_start(self, start_ns: int) -> None:
        """Raises a `BagError` where the recording is known to end before that, from its start."""
        if self.start_ns is None or self.end_ns is None or start_ns <= self.end_ns - self.start_ns:
            return
        lasts_s = (self.end_ns - self.start_ns) / 1e9
        raise BagError(
            f'start is {start_ns / 1e9:g} s, but {self.path} ends after {lasts_s:.3f} s'
        )

    @abc.abstractmethod
    def progress(self) -> float:
        """Share of the recording that the running `messages` has given, 0 to 1."""

    def definition(self, type_name: str) -> str | None:
        """Message definition (ros2msg) that the recording embeds for a type, if any."""
        return None

    @functools.cached_property
    def resources(self) -> contextlib.ExitStack:
        """What is closed together with the source."""
        return contextlib.ExitStack()

    def close(self) -> None:
        """Closes the files."""
        self.resources.close()

    def __enter__(self) -> EventSource:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Target(abc.ABC):
    """A recording that is being written: complete at the end of a `with`, or not there at all."""

    @abc.abstractmethod
    def close(self) -> None:
        """Completes it and gives it its name."""

    @abc.abstractmethod
    def abort(self) -> None:
        """Removes what was written."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.abort()
            return
        try:
            self.close()
        except BaseException:
            self.abort()
            raise


def visible(paths: Iterable[Path]) -> list[Path]:
    """Paths by name, without the `._NAME` files that macOS leaves on foreign disks."""
    return sorted(path for path in paths if not path.name.startswith('._'))


def parse_sensor(text: str) -> tuple[int, int] | None:
    """'WIDTHxHEIGHT' to (height, width); None if it is empty.

    Raises:
        BagError: another form.
    """
    if not text:
        return None
    size = re.fullmatch(r'(\d{1,5})x(\d{1,5})', text.strip().lower())
    if size is None:
        raise BagError(f'sensor is {text!r}, expected WIDTHxHEIGHT, such as 640x480')
    return int(size[2]), int(size[1])


def sensor_size(
    path: Path,
    stored: tuple[int, int] | None,
    given: tuple[int, int] | None,
    assumed: tuple[int, int] | None = None,
) -> tuple[int, int]:
    """The (height, width) of the sensor [px]: what the file says, else what the user says.

    Args:
        path: the recording, for the sentence of an error.
        stored: the size that the file states, if it does.
        given: the size that the user states (`--sensor`), if so.
        assumed: the size that files of this kind usually have, if there is one.

    Raises:
        BagError: the two contradict each other, no size is stated, or it is impossible.
    """
    if stored and given and stored != given:
        raise BagError(
            f'{path} is of a {stored[1]}x{stored[0]} sensor, but --sensor says '
            f'{given[1]}x{given[0]}: leave --sensor out, or correct it'
        )
    size = stored or given or assumed
    if size is None:
        raise BagError(
            f'{path} does not state the size of its sensor: give it with --sensor WIDTHxHEIGHT, '
            'such as --sensor 640x480 (sensor:= of replay_node)'
        )
    if not all(1 <= n <= MAX_SENSOR_PX for n in size):
        raise BagError(
            f'{path}: the sensor is {size[1]}x{size[0]} px, expected 1 to {MAX_SENSOR_PX} each '
            'way; is the header damaged?'
        )
    return size


def choose_event_topic(
    topics: Collection[Topic], wanted: str | None, path: Path, any_of_several: bool = False
) -> Topic:
    """The topic to take events from: the one asked for, else the only one.

    Args:
        topics: all that the recording has.
        wanted: name of the one asked for, or None.
        path: the recording, for the sentence of an error.
        any_of_several: take the first of several, for a caller that reads them all.

    Raises:
        BagError: no such topic, not a topic of events, none, or several to choose from.
    """
    listing = ', '.join(f'{t.name} ({t.type})' for t in topics) or 'no topics at all'
    if wanted is not None:
        named = [t for t in topics if t.name == wanted]
        if not named:
            raise BagError(f'{path} has no topic {wanted!r}; it has {listing}')
        if named[0].type not in EVENT_TYPES:
            raise BagError(
                f'topic {wanted!r} of {path} is of type {named[0].type!r}, '
                f'expected one of {list(EVENT_TYPES)}'
            )
        return named[0]
    of_events = [t for t in topics if t.type in EVENT_TYPES]
    if not of_events:
        raise BagError(
            f'{path} holds no events: it has {listing}; expected messages that are defined as one '
            f'of {list(EVENT_TYPES)}'
        )
    found = [t for t in of_events if t.messages != 0]
    if not found:
        names = ', '.join(sorted({t.name for t in of_events}))
        raise BagError(f'{path} holds no events: there is no message on {names}')
    if len(found) > 1 and not any_of_several:
        names = ', '.join(sorted({t.name for t in found}))
        if len({t.name for t in found}) == 1:
            raise BagError(
                f'{path} has events of several types on {names}: {[t.type for t in found]}, '
                'expected one'
            )
        raise BagError(
            f'{path} has {len(found)} event topics: choose one of {names} '
            '(--topic of the command, topic:= of the launch file)'
        )
    return found[0]
