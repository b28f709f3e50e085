"""Prophesee .raw files as event sources: their words, untouched, in EventPackets."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from spike_depth_ros.events.wire import Packet, pack_event_packet
from spike_depth_ros.recordings.source import (
    EVENT_PACKET,
    EVENTS_TOPIC,
    FRAME_ID,
    BagError,
    EventSource,
    RawMessage,
    Topic,
    choose_event_topic,
)

READ_BYTES = 1 << 22
PACKET_BYTES = 1 << 16
HEADER_BYTES = 1 << 16


class RawFormat(NamedTuple):
    """Where a format keeps the upper bits of its time."""

    encoding: str  # of the EventPacket
    word: str  # numpy dtype
    code_shift: int  # the type is what lies above
    high_shift: int  # where the time of a TIME_HIGH word lies
    high_mask: int
    high_to_us: int  # left shift from TIME_HIGH to us
    wrap_us: int  # length of one round of the clock
    wrap_fall_us: int  # TIME_HIGH that falls by more has wrapped


TIME_HIGH = 8
FORMATS = {
    'EVT2': RawFormat('evt2', '<u4', 28, 0, (1 << 28) - 1, 6, 1 << 34, 1 << 33),
    'EVT21': RawFormat('evt21', '<u8', 60, 32, (1 << 28) - 1, 6, 1 << 34, 1 << 33),
    'EVT3': RawFormat('evt3', '<u2', 12, 0, (1 << 12) - 1, 12, 1 << 24, 10 << 12),
}
"""By the name in the header; constants from docs.prophesee.ai, "Encoding formats"."""

_VERSIONS = {'2.0': 'EVT2', '2.1': 'EVT21', '3.0': 'EVT3'}
_GENERATIONS = {'3': (480, 640), '3.0': (480, 640), '3.1': (480, 640), '4.0': (720, 1280),
                '4.1': (720, 1280), '4.2': (720, 1280), '320': (320, 320)}  # fmt: skip


class RawHeader(NamedTuple):
    """What the text before the words tells."""

    format: RawFormat
    swapped: bool  # EVT21 in its legacy form: the two halves of a word are exchanged
    geometry: tuple[int, int]  # (height, width)
    length: int  # bytes


class RawFileSource(EventSource):
    """A Prophesee .raw file. Stamps are sensor time, to the 4.1 ms of a TIME_HIGH step."""

    kind = 'raw'

    def __init__(self, path: str | Path, topic: str | None = None) -> None:
        """Opens the file and reads its header.

        Raises:
            BagError: unreadable, not a .raw file, or of a format or sensor that is not known.
        """
        self.path = Path(path)
        try:
            self._file: BinaryIO = self.path.open('rb')
        except OSError as error:
            raise BagError(f'cannot read {self.path}: {error}') from error
        self._size = self.path.stat().st_size
        self._offset = 0
        try:
            self._header = read_header(self._file, self.path)
            self.geometry = self._header.geometry
            self.topics = (Topic(EVENTS_TOPIC, EVENT_PACKET, None),)
            self.event_topic = choose_event_topic(self.topics, topic, self.path)
            self.start_ns = next((stamp_ns for stamp_ns, _, _ in self._chunks()), None)
        except BaseException:
            self._file.close()
            raise

    def messages(
        self,
        topics: Collection[str] | None = None,
        start_ns: int = 0,
        duration_ns: int | None = None,
    ) -> Iterator[RawMessage]:
        """See `EventSource.messages`."""
        if topics is not None and EVENTS_TOPIC not in topics:
            return
        begin_ns = (self.start_ns or 0) + start_ns
        end_ns = None if duration_ns is None else begin_ns + duration_ns
        height, width = self._header.geometry
        encoding = self._header.format.encoding
        latest_ns = 0  # a clock may falter, but readers of a bag sort by stamps
        for seq, (stamp_ns, epoch_ns, words) in enumerate(self._chunks()):
            if end_ns is not None and stamp_ns >= end_ns:
                return
            if start_ns and stamp_ns < begin_ns:
                continue
            latest_ns = max(latest_ns, stamp_ns)
            packet = Packet(
                stamp_ns=latest_ns,
                frame_id=FRAME_ID,
                height=height,
                width=width,
                seq=seq,
                time_base_ns=epoch_ns if encoding == 'evt3' else 0,
                encoding=encoding,
                payload=words.view(np.uint8),
            )
            yield RawMessage(EVENTS_TOPIC, EVENT_PACKET, latest_ns, pack_event_packet(packet))

    def progress(self) -> float:
        """See `EventSource.progress`."""
        return self._offset / max(1, self._size)

    def close(self) -> None:
        """See `EventSource.close`."""
        self._file.close()

    def _chunks(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """Gives (stamp_ns, epoch_ns, words): a packet's worth each, all of one TIME_HIGH slot."""
        form = self._header.format
        clock = _SlotClock(form)
        for words in self._blocks():
            slots = clock.slots(words)  # (N,) us, same length as words
            cuts = np.flatnonzero(np.diff(slots)) + 1
            most = PACKET_BYTES // words.itemsize
            for start, stop in zip([0, *cuts], [*cuts, len(words)], strict=True):
                slot_us = int(slots[start])
                epoch_us = slot_us // form.wrap_us * form.wrap_us
                for first in range(start, stop, most):
                    piece = words[first : min(stop, first + most)]
                    yield slot_us * 1000, epoch_us * 1000, piece

    def _blocks(self) -> Iterator[np.ndarray]:
        form = self._header.format
        self._offset = self._header.length
        size = np.dtype(form.word).itemsize
        while True:
            self._file.seek(self._offset)
            data = self._file.read(READ_BYTES)
            self._offset += len(data)
            words = np.frombuffer(data, form.word, len(data) // size)
            if not len(words):
                return
            if self._header.swapped:
                words = words << np.uint64(32) | words >> np.uint64(32)
            yield words


class _SlotClock:
    """Follows TIME_HIGH through blocks of words: the time of each, to 4096 us."""

    def __init__(self, form: RawFormat) -> None:
        self._form = form
        self._epoch_us = 0
        self._high_us: int | None = None

    def slots(self, words: np.ndarray) -> np.ndarray:
        """(N,) int64 us: the 4096-us slot of each word; words before any time are in the first."""
        form = self._form
        at = np.flatnonzero(words >> words.dtype.type(form.code_shift) == TIME_HIGH)
        if not len(at):
            return np.full(len(words), self._slot(), np.int64)
        high_us = (words[at] >> words.dtype.type(form.high_shift)).astype(np.int64)
        high_us &= form.high_mask
        high_us <<= form.high_to_us
        previous = np.concatenate([[high_us[0] if self._high_us is None else self._high_us],
                                   high_us[:-1]])  # fmt: skip
        rise_us = high_us - previous
        wraps = np.where(rise_us < -form.wrap_fall_us, form.wrap_us, 0)
        wraps[rise_us >= form.wrap_us - form.wrap_fall_us] = -form.wrap_us  # a step back over one
        epochs = self._epoch_us + np.cumsum(wraps)
        epochs -= np.minimum(np.minimum.accumulate(epochs), 0)  # but not to before the first
        before = self._slot() if self._high_us is not None else (epochs[0] + high_us[0]) & ~0xFFF
        slots = np.full(len(words), before, np.int64)
        counts = np.diff(np.append(at, len(words)))
        slots[at[0] :] = np.repeat((epochs + high_us) & ~0xFFF, counts)
        self._epoch_us, self._high_us = int(epochs[-1]), int(high_us[-1])
        return slots

    def _slot(self) -> int:
        return (self._epoch_us + (self._high_us or 0)) & ~0xFFF


def read_header(file: BinaryIO, path: Path) -> RawHeader:
    """Reads the lines that start with '% ' before the words.

    Raises:
        BagError: no such lines, an unknown format, or a sensor whose size is not told.
    """
    start = file.read(HEADER_BYTES)
    lines, length = [], 0
    while start[length : length + 2] == b'% ':
        end = start.find(b'\n', length)
        if end < 0:
            break
        lines.append(start[length + 2 : end].decode('ascii', 'replace').strip())
        length = end + 1
        if lines[-1] == 'end':
            break
    if not lines:
        raise BagError(f'{path} does not start as a Prophesee .raw file does, with lines of "% "')
    fields = dict(line.partition(' ')[::2] for line in lines)
    name, *options = fields.get('format', '').split(';')
    name = name or _VERSIONS.get(fields.get('evt', ''), '')
    if name not in FORMATS:
        told = fields.get('format') or fields.get('evt') or 'nothing'
        raise BagError(f'{path}: format is {told!r}, expected one of {sorted(FORMATS)}')
    settings = dict(option.partition('=')[::2] for option in options)
    halves = settings.get('endianness') or fields.get('endianness')
    if halves == 'big':
        raise BagError(f'{path} is big-endian, expected little: record it anew')
    geometry = _geometry(fields, settings)
    if geometry is None:
        raise BagError(
            f'{path} does not tell the size of its sensor: add a line "% geometry WIDTHxHEIGHT" '
            'before its "% end"'
        )
    # a Gen4.1 and an IMX636 send the two halves of a word one after the other ("EVT 2.1 format");
    # headers from before the line "% format" do not say so
    untold = not halves and 'format' not in fields and _generation(fields) in ('4.1', '4.2')
    swapped = name == 'EVT21' and (halves == 'legacy' or untold)
    return RawHeader(FORMATS[name], swapped, geometry, length)


def _geometry(fields: dict[str, str], settings: dict[str, str]) -> tuple[int, int] | None:
    """(height, width) from the format's settings, the geometry line, or the sensor's kind."""
    told = re.fullmatch(r'(\d{1,5})x(\d{1,5})', fields.get('geometry', ''))
    candidates = (
        (settings.get('height', ''), settings.get('width', '')),
        (told[2], told[1]) if told else ('', ''),
        (fields.get('height', ''), fields.get('width', '')),
    )
    for height, width in candidates:
        if height.isdigit() and width.isdigit() and int(height) and int(width):
            return int(height), int(width)
    return _GENERATIONS.get(_generation(fields))


def _generation(fields: dict[str, str]) -> str:
    """The kind of sensor, '' if nobody tells."""
    return fields.get('sensor_generation') or fields.get('generation') or ''
