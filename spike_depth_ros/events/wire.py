"""Decodes event messages from CDR bytes, without message packages.

A `raw=True` subscription and a bag give the same bytes, so `EventStream` serves both. Layout:
ros-event-camera/event_camera_msgs and the legacy EventArray of rpg_dvs_ros; encapsulation and
alignment: OMG DDS-XTYPES 7.4 (plain CDR).
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.events.arrays import Decoded
from spike_depth_ros.events.codecs import CODECS, MAX_SENSOR_PX, DecodeCounts, Decoder, add_counts
from spike_depth_ros.events.codecs.self_contained import LAST_ROW_BYTES, ROW_BYTES

LITTLE_ENDIAN_CDR = b'\x00\x01'
MAX_STRING_BYTES = 1024
MAX_TIME_NS = (1 << 62) - 1  # the year 2116; sums and differences of such times fit into int64
ENCAPSULATION_BYTES = 4

_STAMP_AND_LENGTH = struct.Struct('<iII')
_LENGTH = struct.Struct('<I')
_GEOMETRY = struct.Struct('<II')
_SEQ_AND_BASE = struct.Struct('<QQ')


class Packet(NamedTuple):
    """One event message; its events are still encoded."""

    stamp_ns: int  # header stamp, clock of the host
    frame_id: str
    height: int  # sensor rows [px]
    width: int  # sensor columns [px]
    seq: int | None  # packet counter; None in a legacy EventArray
    time_base_ns: int  # reference of the payload's times, if the encoding has one
    encoding: str  # key of CODECS
    payload: NDArray[Any]  # (N,) uint8, a view of the message


class WireError(ValueError):
    """The bytes are not the expected message.

    Attributes:
        reason: a short key for counting.
    """

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


def parse_event_packet(cdr: Any) -> Packet:
    """Parses an event_camera_msgs/EventPacket (formerly event_array_msgs/EventArray).

    Args:
        cdr: bytes-like, with its encapsulation header.

    Raises:
        WireError: the message is truncated, not little-endian or has impossible values.
    """
    try:
        stamp_ns, frame_id, height, width, at = _parse_header(cdr)
        at = _aligned(at, 8)
        seq, time_base_ns = _SEQ_AND_BASE.unpack_from(cdr, at)
        encoding, at = _parse_string(cdr, at + 16, _LENGTH.unpack_from(cdr, at + 16)[0])
        is_bigendian = cdr[at]
        at = _aligned(at + 1, 4)
        payload = _parse_bytes(cdr, at + 4, _LENGTH.unpack_from(cdr, at)[0])
    except (struct.error, IndexError) as error:
        raise _truncated(cdr) from error
    if is_bigendian:
        raise WireError('big_endian', 'is_bigendian is true, expected little-endian')
    if time_base_ns > MAX_TIME_NS:
        raise WireError('time_base', f'time_base is {time_base_ns} ns, expected below 2^62')
    return Packet(stamp_ns, frame_id, height, width, seq, time_base_ns, encoding, payload)


def parse_event_array(cdr: Any) -> Packet:
    """Parses a legacy EventArray (dvs_msgs, prophesee_event_msgs, dv_ros2_msgs).

    Args:
        cdr: bytes-like, with its encapsulation header.

    Raises:
        WireError: the message is truncated, not little-endian or has impossible values.
    """
    try:
        stamp_ns, frame_id, height, width, at = _parse_header(cdr)
        (count,) = _LENGTH.unpack_from(cdr, at)
        size = ROW_BYTES * count - (ROW_BYTES - LAST_ROW_BYTES if count else 0)
        payload = _parse_bytes(cdr, at + 4, size)
    except struct.error as error:
        raise _truncated(cdr) from error
    return Packet(stamp_ns, frame_id, height, width, None, 0, 'event_array', payload)


EVENT_TYPES: dict[str, Callable[[Any], Packet]] = {
    'event_camera_msgs/msg/EventPacket': parse_event_packet,
    'event_array_msgs/msg/EventArray': parse_event_packet,
    'dvs_msgs/msg/EventArray': parse_event_array,
    'prophesee_event_msgs/msg/EventArray': parse_event_array,
    'dv_ros2_msgs/msg/EventArray': parse_event_array,
}
"""Message type -> parser of its CDR bytes."""


def parse(type_name: str, cdr: Any) -> Packet:
    """Parses a message of one of `EVENT_TYPES`.

    Raises:
        WireError: an unknown type, or bytes that are not such a message.
    """
    return _parser(type_name)(cdr)


def _parser(type_name: str) -> Callable[[Any], Packet]:
    if type_name not in EVENT_TYPES:
        raise WireError(
            'type', f'{type_name!r} is not an event message, expected one of {sorted(EVENT_TYPES)}'
        )
    return EVENT_TYPES[type_name]


def _parse_header(cdr: Any) -> tuple[int, str, int, int, int]:
    """Returns stamp, frame, height, width and the offset after them."""
    if bytes(cdr[:2]) != LITTLE_ENDIAN_CDR:
        raise WireError(
            'encapsulation',
            f'CDR begins with {bytes(cdr[:4]).hex() or "nothing"}, '
            'expected 0001.... (plain little-endian)',
        )
    sec, nanosec, length = _STAMP_AND_LENGTH.unpack_from(cdr, ENCAPSULATION_BYTES)
    frame_id, at = _parse_string(cdr, ENCAPSULATION_BYTES + 8, length)
    at = _aligned(at, 4)
    height, width = _GEOMETRY.unpack_from(cdr, at)
    if not (1 <= height <= MAX_SENSOR_PX and 1 <= width <= MAX_SENSOR_PX):
        raise WireError(
            'geometry', f'sensor is {width}x{height} px, expected 1 to {MAX_SENSOR_PX} each way'
        )
    return sec * 1_000_000_000 + nanosec, frame_id, height, width, at + 8


def _aligned(at: int, size: int) -> int:
    """The next offset aligned to `size` bytes, counted from the body as CDR requires."""
    return at + (ENCAPSULATION_BYTES - at) % size


def _parse_string(cdr: Any, at: int, length: int) -> tuple[str, int]:
    """Returns the string at offset `at` and the offset after it."""
    start, end = at + 4, at + 4 + length
    if length > MAX_STRING_BYTES:
        raise WireError('string', f'string of {length} bytes, expected at most {MAX_STRING_BYTES}')
    if end > len(cdr):
        raise _truncated(cdr)
    return bytes(cdr[start:end]).rstrip(b'\0').decode('utf-8', 'replace'), end


def _parse_bytes(cdr: Any, at: int, length: int) -> NDArray[Any]:
    if at + length > len(cdr):
        raise _truncated(cdr)
    return np.frombuffer(cdr, np.uint8, length, at) if length else np.empty(0, np.uint8)


def _truncated(cdr: Any) -> WireError:
    return WireError('truncated', f'message of {len(cdr)} bytes is shorter than its content')


def pack_event_packet(packet: Packet) -> bytes:
    """Returns the CDR bytes of an EventPacket with the encapsulation header."""
    head = _pack_header(packet, 8) + _SEQ_AND_BASE.pack(packet.seq or 0, packet.time_base_ns)
    head += _pack_string(packet.encoding) + b'\0'  # is_bigendian
    head += bytes(-len(head) % 4) + _LENGTH.pack(len(packet.payload))
    return LITTLE_ENDIAN_CDR + b'\0\0' + head + bytes(packet.payload)


def pack_event_array(packet: Packet) -> bytes:
    """Returns the CDR bytes of a legacy EventArray with a payload of `encode_event_array`."""
    count = (len(packet.payload) + ROW_BYTES - LAST_ROW_BYTES) // ROW_BYTES
    head = _pack_header(packet, 4) + _LENGTH.pack(count)
    return LITTLE_ENDIAN_CDR + b'\0\0' + head + bytes(packet.payload)


def _pack_header(packet: Packet, align: int) -> bytes:
    """Returns header and geometry, padded to `align` bytes."""
    head = struct.pack('<iI', *divmod(packet.stamp_ns, 1_000_000_000))
    head += _pack_string(packet.frame_id)
    head += bytes(-len(head) % 4) + _GEOMETRY.pack(packet.height, packet.width)
    return head + bytes(-len(head) % align)


def _pack_string(text: str) -> bytes:
    data = text.encode() + b'\0'
    return _LENGTH.pack(len(data)) + data


class EventStream:
    """Decodes the messages of one topic, for the node, bags and tools.

    It raises no error for any message; it counts messages that cannot be decoded.

    Attributes:
        skipped: number of messages that could not be decoded, by reason.
        last_error: message of the last such error; '' if there was none.
        packets: number of decoded messages.
        gaps: number of jumps of `seq` forwards.
        missing: number of packets missing in these gaps.
        restarts: number of jumps of `seq` backwards: the camera or the bag restarted.
    """

    def __init__(self, type_name: str) -> None:
        """Prepares for messages of `type_name`, a key of `EVENT_TYPES`.

        Raises:
            WireError: it is not an event message type.
        """
        self.skipped: Counter[str] = Counter()
        self.last_error = ''
        self.packets = self.gaps = self.missing = self.restarts = 0
        self._parse = _parser(type_name)
        self._decoder: Decoder | None = None
        self._retired = DecodeCounts()
        self._next_seq: int | None = None

    def feed(self, cdr: Any) -> tuple[Packet, Decoded] | None:
        """Decodes one message; returns None and counts the message if that fails.

        Args:
            cdr: bytes-like, with its encapsulation header.
        """
        packet = self.parse(cdr)
        return None if packet is None else (packet, self.decode(packet))

    def parse(self, cdr: Any) -> Packet | None:
        """Parses one message for `decode`; returns None and counts the message if that fails.

        Args:
            cdr: bytes-like, with its encapsulation header.
        """
        try:
            packet = self._parse(cdr)
            if packet.encoding not in CODECS:
                raise WireError(
                    'unknown_encoding',
                    f'encoding {packet.encoding!r} is unknown, expected one of {sorted(CODECS)}',
                )
        except WireError as error:
            self.skipped[error.reason] += 1
            self.last_error = str(error)
            return None
        return packet

    def decode(self, packet: Packet) -> Decoded:
        """Decodes a packet from `parse`; a packet that is left out changes no state here."""
        decoder = self._decoder_for(packet)
        if packet.seq is not None:
            self._follow(packet.seq, decoder)
        self.packets += 1
        return decoder.decode(packet.payload, packet.time_base_ns)

    def reset(self) -> None:
        """Forgets time and sequence number, as after a restart, but not the counts."""
        self._next_seq = None
        if self._decoder is not None:
            self._decoder.reset()

    @property
    def counts(self) -> DecodeCounts:
        """Running totals of the decoders."""
        current = DecodeCounts() if self._decoder is None else self._decoder.counts
        return add_counts(self._retired, current)

    def _decoder_for(self, packet: Packet) -> Decoder:
        """Returns the decoder of this encoding and geometry; only one exists, to bound memory."""
        decoder = self._decoder
        if decoder is None or decoder.key != (packet.encoding, packet.height, packet.width):
            self._retired = self.counts
            decoder = self._decoder = CODECS[packet.encoding](packet.height, packet.width)
        return decoder

    def _follow(self, seq: int, decoder: Decoder) -> None:
        """Detects lost packets and restarts, which invalidate the state of the decoder."""
        expected = self._next_seq
        self._next_seq = seq + 1
        if expected is None or seq in (expected, expected - 1):  # the latter: received twice
            return
        if seq > expected:
            self.gaps += 1
            self.missing += seq - expected
            decoder.resync()
        else:
            self.restarts += 1
            decoder.reset()
