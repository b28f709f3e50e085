"""What a playback needs besides topics: its pace, and changes to bytes on their way."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from spike_depth_ros.codecs import encode_mono
from spike_depth_ros.wire import EventStream, Packet, pack_event_packet

STAMP = struct.Struct('<iI')
LENGTH = struct.Struct('<I')
STAMP_OFFSET = 4  # behind the encapsulation header of every message that begins with a Header


class Pace(NamedTuple):
    """How a playback went."""

    messages: int
    recorded_s: float
    took_s: float
    largest_lag_s: float

    def sentence(self, rate: float) -> str:
        """Whether the pace was kept, and if not, by how much."""
        played = f'{self.messages} messages, {self.recorded_s:.2f} s of recording'
        wanted_s = self.recorded_s / rate
        late = self.took_s - wanted_s
        if late <= max(0.02, 0.01 * wanted_s):
            verdict = f'the pace was kept (largest lag {1e3 * self.largest_lag_s:.1f} ms)'
        else:
            verdict = f'{late:.2f} s too slow (largest lag {1e3 * self.largest_lag_s:.0f} ms)'
        return f'played {played} in {self.took_s:.2f} s: {verdict}'


class Schedule:
    """When each message of one pass is due.

    Args:
        first_ns: recorded time of the first message, which is due now.
        rate: recorded seconds per second.
    """

    def __init__(self, first_ns: int, rate: float) -> None:
        self._first_ns = self._newest_ns = first_ns
        self._rate = rate
        self._start_s = time.monotonic()
        self._largest_lag_s = 0.0
        self._messages = 0

    def left_s(self, stamp_ns: int) -> float:
        """Time until what was recorded at `stamp_ns` is due; negative if that has passed."""
        due_s = self._start_s + (stamp_ns - self._first_ns) / 1e9 / self._rate
        return due_s - time.monotonic()

    def now_ns(self) -> int:
        """The recorded time that is due now."""
        return self._first_ns + round((time.monotonic() - self._start_s) * self._rate * 1e9)

    def sent(self, stamp_ns: int) -> float:
        """Notes that a message goes out now; returns how late it is [s]."""
        late_s = -self.left_s(stamp_ns)
        self._messages += 1
        self._newest_ns = stamp_ns
        self._largest_lag_s = max(self._largest_lag_s, late_s)
        return late_s

    def pace(self) -> Pace:
        """How it went so far."""
        recorded_s = (self._newest_ns - self._first_ns) / 1e9
        took_s = time.monotonic() - self._start_s
        return Pace(self._messages, recorded_s, took_s, self._largest_lag_s)


def restamped(cdr: bytes, shift_ns: int) -> bytes:
    """Moves the header stamp of a message; a stamp of zero stays zero.

    Args:
        cdr: a message that begins with a std_msgs/Header.
        shift_ns: added to the stamp.
    """
    stamp_ns = _stamp_ns(cdr, STAMP_OFFSET)
    if stamp_ns == 0 or shift_ns == 0:
        return cdr
    moved = STAMP.pack(*divmod(stamp_ns + shift_ns, 1_000_000_000))
    return b''.join((cdr[:STAMP_OFFSET], moved, cdr[STAMP_OFFSET + STAMP.size :]))


def restamped_transforms(cdr: bytes, shift_ns: int) -> bytes:
    """Moves all stamps of a tf2_msgs/TFMessage; see `restamped`.

    Raises:
        ValueError: it is not one.
    """
    moved, place = bytearray(cdr), STAMP_OFFSET  # of the number of transforms
    try:
        (count,) = LENGTH.unpack_from(moved, place)
        place += LENGTH.size
        for _ in range(count):
            place = _aligned(place, 4)
            stamp_ns = _stamp_ns(moved, place)
            if stamp_ns:
                STAMP.pack_into(moved, place, *divmod(stamp_ns + shift_ns, 1_000_000_000))
            place += STAMP.size
            for _ in range(2):  # both frames
                place = _aligned(place, 4)
                place += LENGTH.size + LENGTH.unpack_from(moved, place)[0]
            place = _aligned(place, 8) + 7 * 8  # translation and rotation
    except struct.error:
        place = len(cdr) + 1
    if place > len(cdr):
        raise ValueError(f'a TFMessage of {len(cdr)} bytes ends too early')
    return bytes(moved)


def _stamp_ns(cdr: bytes | bytearray, place: int) -> int:
    seconds, nanoseconds = STAMP.unpack_from(cdr, place)
    return seconds * 1_000_000_000 + nanoseconds


def _aligned(place: int, size: int) -> int:
    """The next multiple of `size`, counted from the end of the encapsulation header."""
    return place + (STAMP_OFFSET - place) % size


def packet_converter(type_name: str) -> Callable[[bytes], bytes | None]:
    """A function from messages of a legacy type to EventPackets of encoding mono."""
    stream = EventStream(type_name)
    seq = 0

    def convert(cdr: bytes) -> bytes | None:
        nonlocal seq
        fed = stream.feed(cdr)
        if fed is None or len(fed[1].events) == 0:
            return None
        packet, decoded = fed
        base_ns = int(decoded.events['t_ns'].min())
        payload = encode_mono(decoded.events, base_ns)
        seq += 1
        return pack_event_packet(Packet(
            packet.stamp_ns, packet.frame_id, packet.height, packet.width, seq, base_ns,
            'mono', np.frombuffer(payload, np.uint8),
        ))  # fmt: skip

    return convert
