"""ROS bags as event sources: ROS 1 .bag, rosbag2 folders, single .db3 and .mcap files."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spike_depth_ros.events.wire import EVENT_TYPES, LITTLE_ENDIAN_CDR, WireError, parse
from spike_depth_ros.recordings.bag_files import BagFile, damage, open_ros1, open_ros2
from spike_depth_ros.recordings.event_types import ARRAY, ARRAY_2014, event_type, normalised
from spike_depth_ros.recordings.ros1 import Ros1Translator
from spike_depth_ros.recordings.source import (
    BagError,
    EventSource,
    RawMessage,
    Topic,
    choose_event_topic,
    sensor_size,
)
from spike_depth_ros.recordings.unpack import inner_suffix

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from rosbags.interfaces import Connection

ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
CUT_OFF = LITTLE_ENDIAN_CDR + bytes(2)
"""A message that ends after its encapsulation header."""
_PEEKED_MESSAGES = 20


class RosbagSource(EventSource):
    """A ROS 1 or ROS 2 bag. ROS 1 messages come out as the CDR of the ROS 2 type."""

    def __init__(
        self,
        path: str | Path,
        topic: str | None = None,
        any_of_several: bool = False,
        sensor: tuple[int, int] | None = None,
    ) -> None:
        """Opens the bag; the arguments are those of `open_source`.

        Raises:
            BagError: not a bag, damaged, or without the topic of events.
        """
        self.path = Path(path)
        try:
            with damage(self.path):
                self._open(topic, any_of_several, sensor)
        except BaseException:
            self.close()
            raise

    def _open(
        self, topic: str | None, any_of_several: bool, sensor: tuple[int, int] | None
    ) -> None:
        is_ros1 = inner_suffix(self.path) == '.bag' and not self.path.is_dir()
        self.kind = 'rosbag1' if is_ros1 else 'rosbag2'
        files = (open_ros1 if is_ros1 else open_ros2)(self.path, self.resources)
        self._files = sorted(files, key=lambda file: file.reader.start_time)
        self._types: dict[str, str] = {}  # recorded type -> type on the wire
        self._definitions: dict[str, str] = {}
        events_of: dict[str, str] = {}  # recorded type of events -> what it is
        odd: set[str] = set()  # types that have the name of events, but are something else
        for connection in self._connections():
            recorded = connection.msgtype
            kind = event_type(recorded, connection.msgdef)
            name = normalised(recorded)
            if kind is None:
                if name in EVENT_TYPES:
                    odd.add(name)
                self._types[recorded] = name
            else:
                events_of[recorded] = kind
                self._types[recorded] = ARRAY if kind == ARRAY_2014 else kind
            if connection.msgdef.format.name == 'MSG':
                self._definitions[name] = connection.msgdef.data
        if is_ros1 and ARRAY_2014 in events_of.values():
            sensor = sensor_size(self.path, None, sensor)
        self._translate = Ros1Translator(self._definitions, events_of, sensor) if is_ros1 else None
        self.topics = self._find_topics()
        self.unreadable = {
            t.name: t.messages or 0
            for t in self.topics
            if t.type in odd or not self._is_readable(t, events_of)
        }
        readable = [t for t in self.topics if t.name not in self.unreadable]
        self.event_topic = choose_event_topic(readable, topic, self.path, any_of_several)
        self._find_span()
        self._given, self._wanted = 0, 0
        self.geometry = self._peek_geometry()
        if sensor is not None:
            self.geometry = sensor_size(self.path, self.geometry, sensor)

    def messages(
        self,
        topics: Collection[str] | None = None,
        start_ns: int = 0,
        duration_ns: int | None = None,
    ) -> Iterator[RawMessage]:
        """See `EventSource.messages`."""
        names = {self.event_topic.name} if topics is None else set(topics)
        names -= self.unreadable.keys()
        start = None if self.start_ns is None or not start_ns else self.start_ns + start_ns
        stop = None if duration_ns is None else (self.start_ns or 0) + start_ns + duration_ns
        self._given = 0
        self._wanted = sum(t.messages or 0 for t in self.topics if t.name in names)
        if start:
            yield from self._latched_before(start, names)
        for together in _overlapping(self._files):
            streams = [self._messages_of(file, names, start, stop) for file in together]
            for message in heapq.merge(*streams, key=lambda message: message.stamp_ns):
                self._given += 1
                yield message

    def _messages_of(
        self, file: BagFile, names: set[str], start: int | None, stop: int | None
    ) -> Iterator[RawMessage]:
        """The messages of one file."""
        chosen = [c for c in file.reader.connections if c.topic in names]
        if not chosen:
            return
        with damage(file.path):
            for connection, stamp_ns, data in file.reader.messages(chosen, start, stop):
                yield self._message(connection, stamp_ns, data)

    def _latched_before(self, start_ns: int, names: set[str]) -> Iterator[RawMessage]:
        """What a subscriber that comes at `start_ns` gets of latched topics, with that stamp.

        This is the last message of each topic; of static transforms it is all of them, since each
        describes other frames.
        """
        last: dict[str, list[RawMessage]] = {}
        for file in self._files:
            latched = {
                c.topic
                for c in file.reader.connections
                if c.topic in names and (c.topic == '/tf_static' or _is_latched(c))
            }
            for message in self._messages_of(file, latched, None, start_ns):
                kept = last.setdefault(message.topic, [])
                if message.topic != '/tf_static':
                    kept.clear()
                kept.append(message._replace(stamp_ns=start_ns))
        for messages in last.values():
            self._given += len(messages)
            yield from messages

    def progress(self) -> float:
        """See `EventSource.progress`."""
        return min(1.0, self._given / max(1, self._wanted))

    def definition(self, type_name: str) -> str | None:
        """See `EventSource.definition`."""
        if self._translate is not None:
            return self._translate.definition(type_name)
        return self._definitions.get(type_name)

    def _connections(self) -> Iterator[Connection]:
        for file in self._files:
            yield from file.reader.connections

    def _find_topics(self) -> tuple[Topic, ...]:
        """All topics, with the number of their messages in all files."""
        counts: dict[tuple[str, str], int] = {}
        latched: set[str] = set()
        for connection in self._connections():
            key = (connection.topic, self._types[connection.msgtype])
            counts[key] = counts.get(key, 0) + connection.msgcount
            if _is_latched(connection):
                latched.add(connection.topic)
        return tuple(
            Topic(name, kind, count, name in latched)
            for (name, kind), count in sorted(counts.items())
        )

    def _find_span(self) -> None:
        filled = [f.reader for f in self._files if f.reader.message_count]
        if filled:
            self.start_ns = min(r.start_time for r in filled)
            self.end_ns = max(r.end_time for r in filled) - 1  # rosbags gives the end after it

    def _is_readable(self, topic: Topic, events_of: dict[str, str]) -> bool:
        """Whether messages of a topic can be given: of ROS 1, those that can be translated."""
        if self._translate is None or topic.type in events_of.values():
            return True
        recorded = {c.msgtype for c in self._connections() if c.topic == topic.name}
        return all(self._translate.knows(name) for name in recorded)

    def _message(self, connection: Connection, stamp_ns: int, data: bytes) -> RawMessage:
        cdr: bytes | memoryview = data
        if self._translate is not None:
            try:
                cdr = self._translate(connection.msgtype, data, stamp_ns)
            except BagError:  # one damaged message, which its reader counts
                cdr = CUT_OFF
        elif data[:4] == ZSTD_MAGIC:  # no CDR stream starts so: it was compressed by the message
            cdr = zstd.decompress(data)
        return RawMessage(connection.topic, self._types[connection.msgtype], stamp_ns, cdr)

    def _peek_geometry(self) -> tuple[int, int] | None:
        for index, message in enumerate(self.messages()):
            try:
                packet = parse(message.type, message.cdr)
                return packet.height, packet.width
            except WireError:
                if index >= _PEEKED_MESSAGES:
                    return None
        return None


def _overlapping(files: Sequence[BagFile]) -> Iterator[list[BagFile]]:
    """Groups of files whose times overlap, in order of time; the files are in order of start."""
    group: list[BagFile] = []
    end = 0
    for file in files:
        if not file.reader.message_count:
            continue
        if group and file.reader.start_time >= end:
            yield group
            group = []
        group.append(file)
        end = max(end, file.reader.end_time) if len(group) > 1 else file.reader.end_time
    if group:
        yield group


def _is_latched(connection: Connection) -> bool:
    from rosbags.interfaces import ConnectionExtRosbag1, QosDurability

    if isinstance(connection.ext, ConnectionExtRosbag1):
        return bool(connection.ext.latching)
    offered = connection.ext.offered_qos_profiles
    return any(profile.durability == QosDurability.TRANSIENT_LOCAL for profile in offered)
