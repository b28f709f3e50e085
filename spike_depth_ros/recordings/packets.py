"""Cuts a stream of events into EventPackets as a camera driver does, and keeps its epoch.

An EVT3 payload counts 24 bits of microseconds and wraps every 16.8 s; drivers leave the packet's
`time_base` at 0. Packets of this package hold there the time [ns] at which that counter was last
0, so that absolute times survive a gap of any length. Other decoders ignore it and read the
payload as one of any camera.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.events.arrays import Decoded, empty_events, join_events, read_only
from spike_depth_ros.events.codecs import EncodeError, encode_evt3, encode_mono, evt3_state
from spike_depth_ros.events.codecs.encoders import EVT3_MAX_PX
from spike_depth_ros.events.compiled import compiled
from spike_depth_ros.events.jumps import NEAR_NS
from spike_depth_ros.events.wire import Packet, pack_event_packet
from spike_depth_ros.recordings.source import BagError

PACKET_NS = 4_000_000
PACKET_EVENTS = 1 << 15
MONO_SPAN_NS = 1 << 32
EVT3_WRAP_NS = (1 << 24) * 1000
FIRST_EPOCH_NS = 1
"""Stands for the epoch 0, since 0 means unknown; an epoch is a multiple of `EVT3_WRAP_NS`."""
JUMP_NS = 60_000_000_000
"""Events of one message that lie farther apart are of a clock that jumped: one stamp for all. A
single last time that lies farther ahead is wrong."""

STALE_NS = 1_000_000_000
"""Events of an earlier run of the camera are shorter than this, and time falls by more after."""
SETTLED = 16
"""How many times show where a clock is, as in `events.jumps`."""


class StampedPacket(NamedTuple):
    """A packed EventPacket and the time of its first event."""

    stamp_ns: int
    cdr: bytes


class Packetiser:
    """Turns arrays of events, of any length, into EventPackets of about 4 ms.

    Args:
        height: sensor rows [px].
        width: sensor columns [px].
        frame_id: goes into every header.
        encoding: 'evt3' (1 us, 2-5 bytes per event) or 'mono' (1 ns, 8 bytes).

    Raises:
        BagError: an unknown encoding, or a sensor too large for it.
    """

    def __init__(self, height: int, width: int, frame_id: str, encoding: str = 'evt3') -> None:
        if encoding not in _ENCODERS:
            raise BagError(f'encoding is {encoding!r}, expected one of {sorted(_ENCODERS)}')
        if encoding == 'evt3' and max(height, width) > EVT3_MAX_PX:
            raise BagError(f'evt3 ends at {EVT3_MAX_PX} px, the sensor has {width}x{height}: mono')
        self._header = (frame_id, height, width)
        self._encoding = encoding
        self._encode = _ENCODERS[encoding]()
        self._pending = empty_events()
        self._seq = 0
        self._stamp = StampClock()

    def push(self, events: NDArray[Any]) -> Iterator[StampedPacket]:
        """Gives the packets that `events`, (N,) `EVENT_DTYPE` in stream order, completes.

        Their stamps are the times of their first events; see `StampClock`.
        """
        if not len(events):
            return
        if len(self._pending):
            events = join_events([self._pending, events])
        bounds = packet_bounds(events['t_ns'], PACKET_NS, PACKET_EVENTS)
        # the rest is copied: a view would keep the whole array alive
        self._pending = events[bounds[-2] :].copy()
        for start, stop in itertools.pairwise(bounds[:-1]):
            yield self._packet(events[start:stop], self._stamp(events['t_ns'], start))

    def flush(self) -> Iterator[StampedPacket]:
        """Gives what is left, at the end of the stream."""
        if len(self._pending):
            yield self._packet(self._pending, self._stamp(self._pending['t_ns'], 0))
            self._pending = empty_events()

    def repack(self, events: NDArray[Any], stamp_ns: int) -> Iterator[StampedPacket]:
        """Gives the events of one message as one packet, or a few if they span much time.

        Args:
            events: (N,) `EVENT_DTYPE` of the message.
            stamp_ns: its stamp, by another clock than the events'.
        """
        if not len(events):
            return
        bounds = packet_bounds(events['t_ns'], MONO_SPAN_NS, len(events))
        for start, stop in itertools.pairwise(bounds):
            later_ns = int(events['t_ns'][start]) - int(events['t_ns'][0])
            later_ns = later_ns if abs(later_ns) < JUMP_NS else 0
            yield self._packet(events[start:stop], stamp_ns + later_ns)

    def _packet(self, events: NDArray[Any], stamp_ns: int) -> StampedPacket:
        try:
            time_base_ns, payload = self._encode(events)
            packet = Packet(
                stamp_ns, *self._header, self._seq, time_base_ns, self._encoding,
                np.frombuffer(payload, np.uint8),
            )  # fmt: skip
            cdr = pack_event_packet(packet)
        except (EncodeError, struct.error) as error:  # the latter: a time that the message lacks
            raise BagError(f'events at {stamp_ns} ns cannot be written: {error}') from error
        self._seq += 1
        return StampedPacket(stamp_ns, cdr)


class StampClock:
    """Stamps of successive packets: times of the sensor that never fall.

    A bag is read in the order of its stamps, and a player waits for them. So a single wrong time
    moves no stamp: a time ahead of those that follow it does not count. After a jump back of the
    clock, as when the camera restarts, stamps go on from where they were.
    """

    def __init__(self) -> None:
        self._latest_ns: int | None = None
        self._offset_ns = 0

    def __call__(self, t_ns: NDArray[np.int64], index: int) -> int:
        """The stamp of a packet whose first time is `t_ns[index]`; those that follow confirm it.

        Args:
            t_ns: (N,) times in the order of the stream.
            index: of the first time in the packet.
        """
        first_ns, around_ns = int(t_ns[index]), t_ns[index : index + SETTLED + 1]
        low_ns, high_ns = int(around_ns.min()), int(around_ns.max())
        middle_ns = int(np.sort(around_ns)[len(around_ns) // 2])
        if self._latest_ns is None:
            is_early = len(around_ns) > 1 and around_ns[1] - first_ns > JUMP_NS
            self._latest_ns = low_ns if first_ns > middle_ns + NEAR_NS else first_ns
            self._latest_ns = middle_ns if is_early else self._latest_ns
            return self._latest_ns
        if high_ns + self._offset_ns < self._latest_ns - STALE_NS and len(around_ns) > 1:
            self._offset_ns = self._latest_ns - low_ns
        stamp_ns = self._offset_ns + first_ns
        if stamp_ns > self._latest_ns + NEAR_NS and first_ns > middle_ns + NEAR_NS:
            stamp_ns = self._offset_ns + low_ns
        if len(around_ns) > 1 or stamp_ns <= self._latest_ns + JUMP_NS:
            self._latest_ns = max(self._latest_ns, stamp_ns)
        return self._latest_ns


def stale_head(t_ns: NDArray[np.int64], wrap_ns: int = 0) -> int:
    """How many of the first times of a recording are left over from an earlier run of the camera.

    They are those before the clock falls by more than `STALE_NS`, or rises by more than `JUMP_NS`,
    if they are short themselves, and after a fall most of the next times lie before them. Fewer
    than `SETTLED` may be wrong times as well: for these a fall by `NEAR_NS` is enough.

    Args:
        t_ns: (N,) first times in the order of the stream, not corrected for wraps of the clock.
        wrap_ns: length of one round of the clock, if it wraps; a wrap is no fall.
    """
    steps_ns = np.diff(t_ns)
    is_fall = steps_ns < -STALE_NS
    is_fall[: SETTLED - 1] |= steps_ns[: SETTLED - 1] < -NEAR_NS
    if wrap_ns:
        is_fall &= steps_ns > STALE_NS - wrap_ns
    moves = np.flatnonzero(is_fall | (steps_ns > JUMP_NS))
    if not len(moves):
        return 0
    first = int(moves[0]) + 1
    before, after = t_ns[:first], t_ns[first : first + SETTLED]
    is_short = int(before.max()) - int(before.min()) <= STALE_NS
    if not is_short or len(after) < 2:
        return 0
    middle_ns = int(np.sort(after)[len(after) // 2])
    if np.count_nonzero(np.abs(after - middle_ns) <= STALE_NS) <= len(after) // 2:
        return 0  # these are times of no clock
    if is_fall[first - 1]:
        return first if middle_ns < before.min() else 0
    return first if first < SETTLED and middle_ns > before.max() + JUMP_NS else 0


@compiled()
def packet_bounds(t_ns: NDArray[Any], span_ns: int, most: int) -> NDArray[Any]:
    """Indices at which a stream is cut: 0, ..., N.

    A packet never spans `span_ns`, never holds more than `most` events, never goes back behind
    its first event and never crosses a wrap of the 24-bit clock: one epoch is right for all.
    """
    bounds = [0]
    first, first_ns, end_ns = 0, t_ns[0], _end_ns(t_ns[0], span_ns)
    for i in range(1, t_ns.shape[0]):
        if t_ns[i] >= end_ns or t_ns[i] < first_ns or i - first >= most:
            bounds.append(i)
            first, first_ns, end_ns = i, t_ns[i], _end_ns(t_ns[i], span_ns)
    bounds.append(t_ns.shape[0])
    return np.array(bounds)


@compiled()
def _end_ns(first_ns: int, span_ns: int) -> int:
    """When a packet that starts at `first_ns` must end."""
    return min(first_ns + span_ns, (first_ns // EVT3_WRAP_NS + 1) * EVT3_WRAP_NS)


def with_epoch(packet: Packet, decoded: Decoded) -> Decoded:
    """Moves the events of an EVT3 packet to absolute time, if its `time_base` states the epoch."""
    if packet.encoding != 'evt3' or not packet.time_base_ns:
        return decoded
    times = decoded.events['t_ns'] if len(decoded.events) else decoded.triggers['t_ns']
    if not len(times):
        return decoded
    rounds = packet.time_base_ns // EVT3_WRAP_NS - int(times[0]) // EVT3_WRAP_NS
    shift_ns = rounds * EVT3_WRAP_NS
    if not shift_ns:
        return decoded
    events, triggers = decoded.events.copy(), decoded.triggers.copy()
    events['t_ns'] += shift_ns
    triggers['t_ns'] += shift_ns
    return Decoded(read_only(events), read_only(triggers))


class _Evt3Encoder:
    """Carries the clock from packet to packet, so that other decoders see every wrap too."""

    def __init__(self) -> None:
        self._state = evt3_state()

    def __call__(self, events: NDArray[Any]) -> tuple[int, bytes]:
        epoch_ns = int(events['t_ns'][0]) // EVT3_WRAP_NS * EVT3_WRAP_NS
        time_base_ns = epoch_ns or FIRST_EPOCH_NS
        try:
            return time_base_ns, encode_evt3(events, self._state)
        except EncodeError:
            # a jump that no word can encode: start again, as a camera that restarts
            self._state = evt3_state()
            return time_base_ns, encode_evt3(events, self._state)


class _MonoEncoder:
    def __call__(self, events: NDArray[Any]) -> tuple[int, bytes]:
        first_ns = int(events['t_ns'][0])
        return first_ns, encode_mono(events, first_ns)


_Encoder = Callable[[NDArray[Any]], tuple[int, bytes]]  # events -> time_base [ns], payload
_ENCODERS: dict[str, Callable[[], _Encoder]] = {
    'evt3': _Evt3Encoder,
    'mono': _MonoEncoder,
}
ENCODINGS = tuple(_ENCODERS)
"""The encodings that events can be written in."""
