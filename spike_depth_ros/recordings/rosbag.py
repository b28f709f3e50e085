"""ROS bags as event sources: ROS 1 .bag, rosbag2 folders, single .db3 and .mcap files."""

from __future__ import annotations

import contextlib
import errno
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spike_depth_ros.events.codecs.plain import LAST_ROW_BYTES, ROW_BYTES
from spike_depth_ros.events.wire import (
    EVENT_TYPES,
    Packet,
    WireError,
    pack_event_array,
    parse,
    parse_event_array,
)
from spike_depth_ros.recordings.messages import new_typestore
from spike_depth_ros.recordings.source import (
    BagError,
    EventSource,
    RawMessage,
    Topic,
    choose_event_topic,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from rosbags.interfaces import Connection

ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
STORAGE_SUFFIXES = ('.mcap', '.db3')
NOT_DAMAGE = (errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EMFILE)
"""What the system may say of a bag that is whole."""
FOREIGN = {
    'Profile is not ros2': 'was not recorded by ROS 2; of ROS 1, the .bag is read',
    **{
        f"'{kind}'": f'has channels of {kind}, which ROS 2 does not know; copy the others: '
        'mcap filter IN --include-topic-regex TOPICS --output OUT'
        for kind in ('flatbuffer', 'jsonschema', 'protobuf', 'ros1msg')
    },
}
"""What the storage library says of an MCAP file that is whole but not of ROS 2 -> what it is."""
_ROS1_EVENT = np.dtype(
    [('x', '<u2'), ('y', '<u2'), ('sec', '<u4'), ('nanosec', '<u4'), ('p', 'u1')]
)  # ROS 1 packs without padding
_CDR_ROW = np.dtype(
    {
        'names': ['y', 'sec', 'nanosec', 'p', 'next_x'],
        'formats': ['<u2', '<u4', '<u4', 'u1', '<u2'],
        'offsets': [0, 4, 8, 12, 14],
        'itemsize': ROW_BYTES,
    }
)


class RosbagSource(EventSource):
    """A ROS 1 or ROS 2 bag. ROS 1 messages come out as the CDR of the ROS 2 type."""

    def __init__(
        self, path: str | Path, topic: str | None = None, any_of_several: bool = False
    ) -> None:
        """Opens the bag; the arguments are those of `open_source`.

        Raises:
            BagError: not a bag, damaged, or without the topic of events.
        """
        self.path = Path(path)
        self._stack = contextlib.ExitStack()
        try:
            with _damage(self.path):
                self._open(topic, any_of_several)
        except BaseException:
            self._stack.close()
            raise

    def _open(self, topic: str | None, any_of_several: bool) -> None:
        is_ros1 = self.path.suffix == '.bag' and not self.path.is_dir()
        self.kind = 'rosbag1' if is_ros1 else 'rosbag2'
        opener = _open_ros1 if is_ros1 else _open_ros2
        self._readers = opener(self.path, self._stack)
        self._readers.sort(key=lambda reader: reader.start_time)
        counts: dict[tuple[str, str], int] = {}
        latched: set[str] = set()
        self._definitions: dict[str, str] = {}
        for connection in self._connections():
            key = (connection.topic, connection.msgtype)
            counts[key] = counts.get(key, 0) + connection.msgcount
            if _is_latched(connection):
                latched.add(connection.topic)
            if connection.msgdef.format.name == 'MSG':
                self._definitions[connection.msgtype] = connection.msgdef.data
        self.topics = tuple(
            Topic(name, kind, count, name in latched)
            for (name, kind), count in sorted(counts.items())
        )
        self.event_topic = choose_event_topic(self.topics, topic, self.path, any_of_several)
        if sum(counts.values()):
            filled = [r for r in self._readers if r.message_count]
            self.start_ns = min(r.start_time for r in filled)
            self.end_ns = max(r.end_time for r in filled) - 1  # rosbags gives the end after it
        self._translate = _Ros1Translator(self._definitions) if is_ros1 else None
        if self._translate is not None:
            self.unreadable = {
                t.name: t.messages or 0 for t in self.topics if not self._translate.knows(t.type)
            }
        self._given, self._wanted = 0, 0
        self.geometry = self._peek_geometry()

    def messages(
        self,
        topics: Collection[str] | None = None,
        start_ns: int = 0,
        duration_ns: int | None = None,
    ) -> Iterator[RawMessage]:
        """See `EventSource.messages`."""
        names = {self.event_topic.name} if topics is None else set(topics)
        start = None if self.start_ns is None or not start_ns else self.start_ns + start_ns
        stop = None if duration_ns is None else (self.start_ns or 0) + start_ns + duration_ns
        self._given = 0
        self._wanted = sum(t.messages or 0 for t in self.topics if t.name in names)
        with _damage(self.path):
            if start:
                yield from self._latched_before(start, names)
            for reader in self._readers:
                chosen = [
                    c for c in reader.connections if c.topic in names - self.unreadable.keys()
                ]
                if not chosen:
                    continue
                for connection, stamp_ns, data in reader.messages(chosen, start, stop):
                    self._given += 1
                    yield self._message(connection, stamp_ns, data)

    def _latched_before(self, start_ns: int, names: set[str]) -> Iterator[RawMessage]:
        """What a subscriber that comes at `start_ns` gets of latched topics, stamped so.

        The last message of each; of static transforms all, for each tells of other frames.
        """
        last: dict[str, list[RawMessage]] = {}
        for reader in self._readers:
            chosen = [
                c
                for c in reader.connections
                if c.topic in names - self.unreadable.keys()
                and (c.topic == '/tf_static' or _is_latched(c))
            ]
            for connection, _, data in reader.messages(chosen, None, start_ns) if chosen else ():
                message = self._message(connection, start_ns, data)
                kept = last.setdefault(connection.topic, [])
                if connection.topic != '/tf_static':
                    kept.clear()
                kept.append(message)
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

    def close(self) -> None:
        """See `EventSource.close`."""
        self._stack.close()

    def _connections(self) -> Iterator[Connection]:
        for reader in self._readers:
            yield from reader.connections

    def _message(self, connection: Connection, stamp_ns: int, data: bytes) -> RawMessage:
        cdr: bytes | memoryview = data
        if self._translate is not None:
            cdr = self._translate(connection.msgtype, data)
        elif data[:4] == ZSTD_MAGIC:  # no CDR stream starts so: it was compressed by the message
            cdr = zstd.decompress(data)
        return RawMessage(connection.topic, connection.msgtype, stamp_ns, cdr)

    def _peek_geometry(self) -> tuple[int, int] | None:
        for message in self.messages():
            try:
                packet = parse(message.type, message.cdr)
            except WireError:
                return None
            return packet.height, packet.width
        return None


def _is_latched(connection: Connection) -> bool:
    from rosbags.interfaces import ConnectionExtRosbag1, QosDurability

    if isinstance(connection.ext, ConnectionExtRosbag1):
        return bool(connection.ext.latching)
    offered = connection.ext.offered_qos_profiles
    return any(profile.durability == QosDurability.TRANSIENT_LOCAL for profile in offered)


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turns whatever the storage libraries raise on a damaged file into a `BagError`.

    They check little, so a damaged byte may surface as any of these.
    """
    import apsw
    from rosbags.rosbag1 import ReaderError as Ros1Error
    from rosbags.rosbag2 import ReaderError as Ros2Error
    from rosbags.serde import SerdeError

    kinds = (Ros1Error, Ros2Error, SerdeError, apsw.Error, zstd.ZstdError, EOFError, KeyError,
             ValueError, TypeError, IndexError, AssertionError, RuntimeError, OSError,
             OverflowError, MemoryError, struct.error)  # fmt: skip
    try:
        yield
    except BagError:
        raise
    except kinds as error:
        reason = str(error).rstrip('.') or type(error).__name__
        first = error.__cause__ or error  # the libraries wrap what the system says
        if isinstance(first, MemoryError) or getattr(first, 'errno', None) in NOT_DAMAGE:
            raise BagError(f'{path} cannot be read: {reason}') from error
        if reason in FOREIGN:
            raise BagError(f'{path} {FOREIGN[reason]}') from error
        raise BagError(
            f'{path} is not a complete bag: {reason}. If the recorder '
            'was cut off, repair it (ros2 bag reindex, rosbag reindex, mcap recover)'
        ) from error


def _open_ros1(path: Path, stack: contextlib.ExitStack) -> list[Any]:
    from rosbags.rosbag1 import Reader

    return [stack.enter_context(Reader(path))]


def _open_ros2(path: Path, stack: contextlib.ExitStack) -> list[Any]:
    """Open readers of a bag: one for each of its files, which hold all that is needed.

    Its metadata.yaml is not read: a recorder that was killed leaves none, and one whose QoS was
    edited, so that an older ROS reads it, no longer fits its files.
    """
    from rosbags.rosbag2 import Reader

    files = storage_files(path) if path.is_dir() else [path]
    if not files:
        raise BagError(f'{path} holds no bag file, expected one of {list(STORAGE_SUFFIXES)}')
    for file in files:
        log = file.with_name(f'{file.name}-wal')  # rosbags does not look into it
        if log.is_file() and log.stat().st_size:
            raise BagError(
                f'{file} has messages in {log.name} still, as after a recorder that was killed: '
                f'move them with sqlite3 {file.name} "pragma wal_checkpoint(truncate)"'
            )
    return [stack.enter_context(Reader(_decompressed(file, stack))) for file in files]


def storage_files(folder: Path) -> list[Path]:
    """The bag files directly inside a folder, by name; none twice, packed and unpacked."""
    files = [p for p in sorted(folder.iterdir()) if storage_suffix(p) in STORAGE_SUFFIXES]
    return [p for p in files if p.suffix != '.zstd' or p.with_suffix('') not in files]


def storage_suffix(path: Path) -> str:
    """The suffix of a file below any '.zstd'."""
    return Path(path.stem).suffix if path.suffix == '.zstd' else path.suffix


def _decompressed(path: Path, stack: contextlib.ExitStack) -> Path:
    """A file that was compressed whole, unpacked to a temporary one; any other as it is."""
    if path.suffix != '.zstd':
        return path
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix='spike_depth_'))
    plain = Path(folder) / path.stem
    with zstd.open(path, 'rb') as packed, plain.open('wb') as out:
        shutil.copyfileobj(packed, out, 1 << 20)
    return plain


class _Ros1Translator:
    """ROS 1 bytes of one message to the CDR of the ROS 2 type of the same name.

    Some types have gained fields since, such as the variance of a Range: these become 0.
    """

    def __init__(self, definitions: dict[str, str]) -> None:
        from rosbags.typesys import Stores, TypesysError, get_types_from_msg, get_typestore

        self._store, self._recorded = new_typestore(), get_typestore(Stores.EMPTY)
        for name, text in definitions.items():
            try:
                types = get_types_from_msg(text, name)
            except TypesysError:  # of one topic, which no other should suffer from
                continue
            for store in (self._store, self._recorded):
                known = store.fielddefs
                store.register({k: v for k, v in types.items() if k not in known})
        self._cache: dict[str, object] = {}
        self._special: dict[str, Callable[[bytes], bytes]] = {
            name: ros1_event_array
            for name, parser in EVENT_TYPES.items()
            if parser is parse_event_array
        }

    def knows(self, type_name: str) -> bool:
        """Whether it can translate messages of that type."""
        return type_name in self._special or bool(
            type_name in self._recorded.fielddefs and self.definition(type_name)
        )

    def definition(self, type_name: str) -> str:
        """What it makes of the definition that the bag embeds; empty if that is not whole."""
        from rosbags.typesys import TypesysError

        try:
            return self._store.generate_msgdef(type_name, ros_version=2)[0]
        except (TypesysError, KeyError):
            return ''

    def __call__(self, type_name: str, data: bytes) -> bytes | memoryview:
        from rosbags.convert.converter import is_same_wireformat, migrate_bytes

        if type_name in self._special:
            return self._special[type_name](data)
        if is_same_wireformat(self._recorded, self._store, type_name, type_name):
            return self._store.ros1_to_cdr(data, type_name)
        return migrate_bytes(self._recorded, self._store, type_name, type_name, self._cache, data,
                             src_is2=False, dst_is2=True)  # fmt: skip


def ros1_event_array(data: bytes) -> bytes:
    """A ROS 1 `EventArray` of the dvs_msgs layout as the CDR of the ROS 2 one.

    rosbags would do this event by event; here it is one view of the bytes.

    Raises:
        BagError: the message is cut off.
    """
    if len(data) < 16:
        raise BagError(f'EventArray of {len(data)} bytes is cut off')
    _, sec, nanosec, name_length = np.frombuffer(data, '<u4', 4).tolist()
    frame_id = data[16 : 16 + name_length].decode(errors='replace')
    body = 16 + name_length
    if len(data) < body + 12:
        raise BagError(f'EventArray of {len(data)} bytes is cut off')
    height, width, count = np.frombuffer(data, '<u4', 3, body).tolist()
    if len(data) < body + 12 + count * _ROS1_EVENT.itemsize:
        raise BagError(f'EventArray claims {count} events in {len(data)} bytes')
    rows = np.frombuffer(data, _ROS1_EVENT, count, body + 12)
    stamp_ns = sec * 10**9 + nanosec
    return pack_event_array(
        Packet(stamp_ns, frame_id, height, width, None, 0, 'event_array', _cdr_body(rows))
    )


def _cdr_body(rows: np.ndarray) -> np.ndarray:
    """ROS 1 events, (N,) `_ROS1_EVENT`, as the CDR body of an `Event[]`: 16 bytes each.

    CDR aligns the times to 4 bytes, so x and y of all but the first event move to the padding
    before their row.
    """
    table = np.zeros(len(rows), _CDR_ROW)
    for name in ('y', 'sec', 'nanosec', 'p'):
        table[name] = rows[name]
    table['next_x'][:-1] = rows['x'][1:]
    body = table.view(np.uint8)
    body[:4] = rows[:1].view(np.uint8)[:4]
    return body[: len(body) - ROW_BYTES + LAST_ROW_BYTES] if len(rows) else body
