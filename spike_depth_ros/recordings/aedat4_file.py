"""AEDAT4 files of iniVation's DV: events and frames.

After a line of text come a header and packets, FlatBuffers all of them. The header states the
compression of the packets and, in XML, what each stream is. Format: docs.inivation.com,
"AEDAT 4.0"; the tables are those of dv-processing (io_header, events, frames).
"""

from __future__ import annotations

import contextlib
import itertools
import struct
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.events.arrays import make_events
from spike_depth_ros.recordings.messages import IMAGE, image_cdr
from spike_depth_ros.recordings.packets import Packetiser, StampClock
from spike_depth_ros.recordings.source import (
    EVENT_PACKET,
    EVENTS_TOPIC,
    FRAME_ID,
    BagError,
    EventSource,
    RawMessage,
    Topic,
    choose_event_topic,
    sensor_size,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

IMAGES_TOPIC = '/event_camera/image_raw'
MAGIC = b'#!AER-DAT4.0\r\n'
MOST_HEADER_BYTES = 1 << 20
MOST_PACKET_BYTES = 1 << 28
COMPRESSIONS = {0: '', 1: 'lz4', 2: 'lz4', 3: 'zstd', 4: 'zstd'}
_EVENT = np.dtype(
    {
        'names': ['t', 'x', 'y', 'p'],
        'formats': ['<i8', '<i2', '<i2', 'u1'],
        'offsets': [0, 8, 10, 12],
        'itemsize': 16,
    }
)
_CHANNELS = {0: 1, 16: 3, 24: 4}
"""Format of a frame (a type of OpenCV) -> bytes per pixel: blue, green, red, alpha."""
_TIME, _FORMAT, _WIDTH, _HEIGHT, _PIXELS = 0, 5, 6, 7, 10
"""Fields of a frame."""


class _Stream(NamedTuple):
    """What the header says of one stream."""

    kind: str  # 'EVTS', 'FRME', 'IMUS', ...
    width: int
    height: int


class _Header(NamedTuple):
    """What comes before the packets."""

    compression: str
    streams: dict[int, _Stream]
    begin: int  # offset of the first packet
    end: int  # offset behind the last one


class Aedat4Source(EventSource):
    """An AEDAT4 file, read from its start to its end. Stamps are the times of the file.

    Args:
        path: the file.
        topic: the topic of events that the user asks for, if any.
        encoding: of the packets, 'evt3' or 'mono'.
        sensor: (height, width) [px] that the user states.

    Raises:
        BagError: the file is damaged, of another version of AEDAT, or without events.
    """

    kind = 'aedat4'

    def __init__(
        self,
        path: Path,
        topic: str | None = None,
        encoding: str = 'evt3',
        sensor: tuple[int, int] | None = None,
    ) -> None:
        self.path = path
        self._encoding = encoding
        with _damage(path), path.open('rb') as file:
            self._header = _read_header(file, path)
        by_kind: dict[str, int] = {}
        for number, stream in sorted(self._header.streams.items()):
            by_kind.setdefault(stream.kind, number)
        if 'EVTS' not in by_kind:
            raise BagError(f'{path} holds no events: it has streams of {sorted(by_kind)}')
        self._events_id, self._frames_id = by_kind['EVTS'], by_kind.get('FRME')
        stream = self._header.streams[self._events_id]
        stored = (stream.height, stream.width) if stream.height and stream.width else None
        self.geometry = self._sensor = sensor_size(path, stored, sensor)
        topics = [Topic(EVENTS_TOPIC, EVENT_PACKET, None)]
        if self._frames_id is not None:
            topics.append(Topic(IMAGES_TOPIC, IMAGE, None))
        self.topics = tuple(topics)
        self.event_topic = choose_event_topic(self.topics, topic, path)
        self._offset = 0
        self.start_ns = None
        for t_ns, array in itertools.islice(self._arrays(), 1):
            is_frame = array.dtype.names is None
            self.start_ns = t_ns if is_frame else StampClock()(array['t_ns'], 0)

    def messages(
        self,
        topics: Collection[str] | None = None,
        start_ns: int = 0,
        duration_ns: int | None = None,
    ) -> Iterator[RawMessage]:
        """See `EventSource.messages`."""
        begin_ns = (self.start_ns or 0) + start_ns
        end_ns = None if duration_ns is None else begin_ns + duration_ns
        wants_events = topics is None or EVENTS_TOPIC in topics
        wants_images = topics is not None and IMAGES_TOPIC in topics
        packetiser = Packetiser(*self._sensor, FRAME_ID, self._encoding)
        for t_ns, array in self._arrays():
            if array.dtype.names is None:
                is_inside = t_ns >= begin_ns and (end_ns is None or t_ns < end_ns)
                if wants_images and is_inside:
                    yield RawMessage(IMAGES_TOPIC, IMAGE, t_ns, image_cdr(t_ns, FRAME_ID, array))
            elif wants_events:
                inside = array['t_ns'] >= (begin_ns if start_ns else 0)
                if end_ns is not None:
                    inside &= array['t_ns'] < end_ns
                for stamp_ns, cdr in packetiser.push(array[inside]):
                    yield RawMessage(EVENTS_TOPIC, EVENT_PACKET, stamp_ns, cdr)
        for stamp_ns, cdr in packetiser.flush():
            yield RawMessage(EVENTS_TOPIC, EVENT_PACKET, stamp_ns, cdr)

    def progress(self) -> float:
        """See `EventSource.progress`."""
        return self._offset / max(1, self._header.end)

    def _arrays(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """First time [ns] and content of each packet: events, or the pixels of a frame."""
        with self.path.open('rb') as file:
            file.seek(self._header.begin)
            while True:
                with _damage(self.path):
                    found = self._next(file)
                if found is None:
                    return
                if found:
                    yield found

    def _next(self, file: BinaryIO) -> tuple[int, NDArray[Any]] | tuple[()] | None:
        """The next packet; an empty tuple for one of another stream, None at the end."""
        self._offset = file.tell()
        left = self._header.end - self._offset
        head = file.read(min(8, left))
        number, size = struct.unpack('<ii', head) if len(head) == 8 else (0, left)
        if len(head) < 8 or size > left - 8:
            self.dropped = Counter({'truncated bytes': left} if left else {})
            return None
        if not 0 <= size <= MOST_PACKET_BYTES or number not in self._header.streams:
            raise ValueError(f'packet of {size} bytes of stream {number} at {self._offset}')
        if number not in (self._events_id, self._frames_id):
            file.seek(size, 1)
            return ()
        data = _unpacked(file.read(size), self._header.compression)
        found = self._events(data) if number == self._events_id else _frame(data)
        return found or ()

    def _events(self, data: bytes) -> tuple[int, NDArray[Any]] | None:
        rows = _Table.root(data, b'EVTS').vector(0, _EVENT)
        if not len(rows):
            return None
        height, width = self._sensor
        low, high = (
            [int(bound(rows[name])) for name in 'xy'] for bound in (np.min, np.max)
        )  # fmt: skip
        if min(low) < 0 or high[0] >= width or high[1] >= height:
            raise ValueError(f'events up to x {high[0]}, y {high[1]} of a {width}x{height} sensor')
        if rows['t'].min() < 0 or rows['t'].max() >= 1 << 52:
            raise ValueError(f'event times from {rows["t"].min()} to {rows["t"].max()} us')
        t_ns = rows['t'] * 1000
        return int(t_ns[0]), make_events(t_ns, rows['x'], rows['y'], rows['p'] != 0)


def _read_header(file: BinaryIO, path: Path) -> _Header:
    start = file.read(len(MAGIC))
    if start != MAGIC:
        version = start[:12].decode('ascii', 'replace')
        raise BagError(
            f'{path} starts with {version!r}, expected {MAGIC.decode().strip()!r}: convert older '
            'versions of AEDAT to 4.0 with DV'
        )
    (size,) = struct.unpack('<I', file.read(4))
    if size > MOST_HEADER_BYTES:
        raise ValueError(f'its header has {size} bytes')
    table = _Table.root(struct.pack('<I', size) + file.read(size), b'IOHE')
    compression = table.number(0, 'i')
    if compression not in COMPRESSIONS:
        raise BagError(f'{path} is compressed in the way {compression}, expected one of '
                       f'{COMPRESSIONS}')  # fmt: skip
    position, whole = table.number(1, 'q', -1), path.stat().st_size
    begin = len(MAGIC) + 4 + size
    return _Header(
        COMPRESSIONS[compression],
        _streams(table.vector(2, np.dtype('u1')).tobytes()),
        begin,
        position if begin <= position <= whole else whole,
    )


def _streams(xml: bytes) -> dict[int, _Stream]:
    """The streams by number."""
    found = {}
    for node in ElementTree.fromstring(xml).findall("./node[@name='outInfo']/node"):
        kind = node.findtext("attr[@key='typeIdentifier']", '')
        sizes = [node.findtext(f"node[@name='info']/attr[@key='{k}']", '0')
                 for k in ('sizeX', 'sizeY')]  # fmt: skip
        width, height = (int(text[:9]) for text in sizes)
        found[int(node.get('name', ''))] = _Stream(kind, width, height)
    return found


def _unpacked(data: bytes, compression: str) -> bytes:
    """The FlatBuffer of a packet.

    Raises:
        ValueError: it is larger than `MOST_PACKET_BYTES`.
    """
    if not compression:
        return data
    if compression == 'lz4':
        from lz4.frame import LZ4FrameDecompressor

        reader: Any = LZ4FrameDecompressor()
    else:
        reader = zstd.ZstdDecompressor()
    unpacked: bytes = reader.decompress(data, max_length=MOST_PACKET_BYTES)
    if not reader.eof:
        raise ValueError(f'a packet is cut off or larger than {MOST_PACKET_BYTES} bytes')
    return unpacked


def _frame(data: bytes) -> tuple[int, NDArray[Any]] | None:
    """Time [ns] and pixels of a frame, colour as RGB; None for an empty one."""
    table = _Table.root(data, b'FRME')
    kind, width, height = table.number(_FORMAT, 'b'), table.number(_WIDTH, 'h'), table.number(
        _HEIGHT, 'h'
    )  # fmt: skip
    pixels = table.vector(_PIXELS, np.dtype('u1'))
    if not len(pixels):
        return None
    channels = _CHANNELS.get(kind, 0)
    if not channels or len(pixels) != width * height * channels:
        raise ValueError(f'a frame of format {kind} has {len(pixels)} bytes for {width}x{height}')
    t_ns = table.number(_TIME, 'q') * 1000
    if channels == 1:
        return t_ns, pixels.reshape(height, width)
    return t_ns, np.ascontiguousarray(pixels.reshape(height, width, channels)[..., 2::-1])


class _Table(NamedTuple):
    """A table of a FlatBuffer (flatbuffers.dev, "Internals"); what lies outside is an error."""

    data: bytes
    at: int

    @classmethod
    def root(cls, data: bytes, identifier: bytes) -> _Table:
        """The root of a buffer that opens with its size."""
        if data[8:12] != identifier:
            raise ValueError(f'a buffer is of {data[8:12]!r}, expected {identifier!r}')
        return cls(data, 4 + _number(data, 4, 'I'))

    def place(self, field: int) -> int | None:
        """Where a field lies; None if it has its default."""
        vtable = self.at - _number(self.data, self.at, 'i')
        entry = 4 + 2 * field
        if entry + 2 > _number(self.data, vtable, 'H'):
            return None
        offset = _number(self.data, vtable + entry, 'H')
        return self.at + offset if offset else None

    def number(self, field: int, form: str, default: int = 0) -> int:
        """A number, by its letter in `struct`."""
        place = self.place(field)
        return default if place is None else _number(self.data, place, form)

    def vector(self, field: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """A vector of numbers or structs, or the bytes of a string."""
        place = self.place(field)
        if place is None:
            return np.empty(0, dtype)
        start = place + _number(self.data, place, 'I')
        return np.frombuffer(self.data, dtype, _number(self.data, start, 'I'), start + 4)


def _number(data: bytes, at: int, form: str) -> int:
    if at < 0:
        raise ValueError('an offset lies before its buffer')
    return int(struct.unpack_from(f'<{form}', data, at)[0])


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turns what a damaged file raises into a `BagError`."""
    try:
        yield
    except BagError:
        raise
    except (
        OSError, ValueError, RuntimeError, EOFError, struct.error, zstd.ZstdError,
        ElementTree.ParseError,
    ) as error:  # fmt: skip
        raise BagError(f'{path} is damaged, or not AEDAT4: {error}') from error
