"""What a playback needs besides topics: its pace, and changes to bytes on their way."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from spike_depth_ros.events.wire import EventStream
from spike_depth_ros.recordings.packets import Packetiser

STAMP = struct.Struct('<iI')
LENGTH = struct.Struct('<I')
BACK_NS = 1_000_000_000
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

    def skip_to(self, stamp_ns: int) -> None:
        """Makes what was recorded at `stamp_ns` due now."""
        self._start_s -= self.left_s(stamp_ns)

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

    So does one that would leave what a stamp can hold, being of another clock than the recording.
    A message that is cut off before its stamp goes out as it was recorded.

    Args:
        cdr: a message that begins with a std_msgs/Header.
        shift_ns: added to the stamp.
    """
    if len(cdr) < STAMP_OFFSET + STAMP.size:
        return cdr
    moved = bytearray(cdr)
    _move(moved, STAMP_OFFSET, shift_ns)
    return bytes(moved)


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
            _move(moved, place, shift_ns)
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


def _move(cdr: bytearray, place: int, shift_ns: int) -> None:
    """Adds to the stamp at `place`, unless that is zero or the sum is no stamp."""
    seconds, nanoseconds = STAMP.unpack_from(cdr, place)
    moved_s, rest_ns = divmod(seconds * 10**9 + nanoseconds + shift_ns, 10**9)
    if (seconds or nanoseconds) and -(1 << 31) <= moved_s < 1 << 31:
        STAMP.pack_into(cdr, place, moved_s, rest_ns)


def _aligned(place: int, size: int) -> int:
    """The next multiple of `size`, counted from the end of the encapsulation header."""
    return place + (STAMP_OFFSET - place) % size


def packet_converter(type_name: str) -> Callable[[bytes], Iterator[bytes]]:
    """A function from messages of a legacy type to EventPackets of encoding mono.

    A message gives one packet, but several if its times jump, and none if it holds no events.
    """
    stream = EventStream(type_name)
    newest_ns, sensor, packetiser = 0, (0, 0, ''), Packetiser(0, 0, '', 'mono')

    def convert(cdr: bytes) -> Iterator[bytes]:
        nonlocal newest_ns, sensor, packetiser
        fed = stream.feed(cdr)
        if fed is None:
            return
        packet, decoded = fed
        same = (packet.height, packet.width, packet.frame_id)
        if same != sensor or packet.stamp_ns < newest_ns - BACK_NS:  # or the next pass begins
            sensor, packetiser = same, Packetiser(*same, 'mono')
        for packed in packetiser.repack(decoded.events, packet.stamp_ns):
            newest_ns = packed.stamp_ns
            yield packed.cdr

    return convert
