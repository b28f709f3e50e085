"""Prophesee .raw files as event sources: their words, untouched, in EventPackets."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.events.codecs import CODECS
from spike_depth_ros.events.wire import Packet, pack_event_packet
from spike_depth_ros.recordings.packets import StampClock, stale_head
from spike_depth_ros.recordings.raw_header import RawFormat, read_header
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


class RawFileSource(EventSource):
    """A Prophesee .raw file. Stamps are sensor time in steps of 4.1 ms (see `StampClock`)."""

    kind = 'raw'

    def __init__(
        self, path: str | Path, topic: str | None = None, sensor: tuple[int, int] | None = None
    ) -> None:
        """Opens the file and reads its header; the arguments are those of `open_source`.

        Raises:
            BagError: unreadable, not a .raw file, or of an unknown format or sensor.
        """
        self.path = Path(path)
        try:
            self._file: BinaryIO = self.path.open('rb')
        except OSError as error:
            raise BagError(f'cannot read {self.path}: {error}') from error
        self.resources.callback(self._file.close)
        self._size = self.path.stat().st_size
        self._offset = 0
        try:
            self._header = read_header(self._file, self.path, sensor)
            self.geometry = self._header.geometry
            self.topics = (Topic(EVENTS_TOPIC, EVENT_PACKET, None),)
            self.event_topic = choose_event_topic(self.topics, topic, self.path)
            self._begin = self._header.length
            self._skip_earlier_run()
            self.start_ns = next((stamp_ns for stamp_ns, _, _ in self._chunks()), None)
        except BaseException:
            self.close()
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
        for seq, (stamp_ns, epoch_ns, words) in enumerate(self._chunks()):
            if end_ns is not None and stamp_ns >= end_ns:
                return
            if start_ns and stamp_ns < begin_ns:
                continue
            packet = Packet(
                stamp_ns=stamp_ns,
                frame_id=FRAME_ID,
                height=height,
                width=width,
                seq=seq,
                time_base_ns=epoch_ns if encoding == 'evt3' else 0,
                encoding=encoding,
                payload=words.view(np.uint8),
            )
            yield RawMessage(EVENTS_TOPIC, EVENT_PACKET, stamp_ns, pack_event_packet(packet))

    def progress(self) -> float:
        """See `EventSource.progress`."""
        return self._offset / max(1, self._size)

    def _chunks(self) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """Gives (stamp_ns, epoch_ns, words): a packet's worth each, all of one TIME_HIGH slot."""
        form = self._header.format
        clock, stamps = _SlotClock(form), StampClock()
        for words in self._blocks():
            slots = clock.slots(words)  # (N,) us, same length as words
            starts = np.flatnonzero(np.diff(slots, prepend=slots[0] - 1))
            times_ns = slots[starts] * 1000
            most = PACKET_BYTES // words.itemsize
            masks = mask_words(words, form)
            for k, (start, stop) in enumerate(itertools.pairwise([*starts, len(words)])):
                stamp_ns = stamps(times_ns, k)
                epoch_us = int(slots[start]) // form.clock.wrap_us * form.clock.wrap_us
                first = start
                while first < stop:
                    last = min(stop, first + most)
                    if last < stop and masks[last]:
                        last -= 1  # a mask stays with its word
                    yield stamp_ns, epoch_us * 1000, words[first:last]
                    first = last

    def _skip_earlier_run(self) -> None:
        """Sets the start of the words behind events that an earlier run of the camera left."""
        self._stale: Counter[str] = Counter()
        form = self._header.format
        words = next(self._blocks(), None)
        if words is None:
            return
        slots = _SlotClock(form).slots(words) % form.clock.wrap_us
        # the times of the slots, each once for the words in it
        starts = np.flatnonzero(np.diff(slots, prepend=slots[0] - 1))
        stale = stale_head(slots[starts] * 1000, form.clock.wrap_us * 1000)
        if stale:
            end = int(starts[stale])
            decoder = CODECS[form.encoding](*self._header.geometry)
            decoder.decode(words[:end].tobytes())
            self._begin += end * words.itemsize
            self._stale['events of an earlier run'] = decoder.counts.events
            self.dropped = self._stale

    def _blocks(self) -> Iterator[NDArray[Any]]:
        form = self._header.format
        self._offset = self._begin
        size = np.dtype(form.word).itemsize
        while True:
            self._file.seek(self._offset)
            data = self._file.read(READ_BYTES)
            words = np.frombuffer(data, form.word, len(data) // size)
            if not len(words):
                self.dropped = Counter(self._stale)
                if data:
                    self.dropped['truncated bytes'] = len(data)
                self._offset += len(data)
                return
            if self._header.swapped:
                words = words << np.uint64(32) | words >> np.uint64(32)
            if form.vectors and len(words) > 1 and is_vector(words, form)[-1]:
                words = words[:-1]  # its mask is in the next block
            self._offset += len(words) * size
            yield words


class _SlotClock:
    """Follows TIME_HIGH through blocks of words: the time of each, to 4096 us."""

    def __init__(self, form: RawFormat) -> None:
        self._form = form
        self._state = form.clock.state()
        self._latest_us: int | None = None

    def slots(self, words: NDArray[Any]) -> NDArray[Any]:
        """(N,) int64 us: the 4096-us slot of each word; words before any time are in the first."""
        form = self._form
        is_high = words >> words.dtype.type(form.code_shift) == form.time_high
        at = np.flatnonzero(is_high & ~mask_words(words, form))
        if not len(at):
            return np.full(len(words), self._latest_us or 0, np.int64)
        highs = (words[at] >> words.dtype.type(form.high_shift)).astype(np.int64)
        highs &= (1 << form.clock.bits) - 1
        epochs_us = form.clock.epochs_us(highs, self._state)
        found_us = (epochs_us + (highs << form.clock.shift)) & ~0xFFF
        before_us = found_us[0] if self._latest_us is None else self._latest_us
        slots = np.full(len(words), before_us, np.int64)
        slots[at[0] :] = np.repeat(found_us, np.diff(np.append(at, len(words))))
        self._latest_us = int(found_us[-1])
        return slots


def is_vector(words: NDArray[Any], form: RawFormat) -> NDArray[Any]:
    """(N,) bool: the words that a mask follows. `words` begins with a word that is no mask."""
    codes = words >> words.dtype.type(form.code_shift)
    looks = np.isin(codes, form.vectors)
    # in a run of words that look so, every second one is the mask of the one before
    index = np.arange(len(words))
    starts = looks & ~np.concatenate([[False], looks[:-1]])
    run_start = np.maximum.accumulate(np.where(starts, index, 0))
    vectors: NDArray[np.bool_] = looks & ((index - run_start) % 2 == 0)
    return vectors


def mask_words(words: NDArray[Any], form: RawFormat) -> NDArray[Any]:
    """(N,) bool: the words that are masks, whatever type they seem to be of."""
    if not form.vectors:
        return np.zeros(len(words), bool)
    return np.concatenate([[False], is_vector(words, form)[:-1]])
