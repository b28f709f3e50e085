"""Cutting the event stream into windows by sensor time.

The two windowers keep only what is needed of the windows that are still open, so memory is flat
whatever the length of the stream.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from spike_depth_ros.events.arrays import join_events, read_only
from spike_depth_ros.events.compiled import compiled
from spike_depth_ros.events.config import ConfigError
from spike_depth_ros.events.spikes import PixelMap, accumulate

MAX_GAP_NS = 1_000_000_000
"""Longer silence than this, or a jump ahead by more, starts the stream anew."""

MAX_OVERLAP = 128
"""Most windows that an event may fall into: each of them is a spike tensor in memory."""

LONG_PACKET = 4
"""A packet that spans more windows is cut into slices, so that work does not grow as a square."""

MAX_BACKWARD_NS = 50_000_000
"""Sensor time may step back this far (real sensors do, by microseconds) before it is a jump."""


class Window(NamedTuple):
    """A cut of the event stream, ready for the network."""

    t0_ns: int
    t1_ns: int
    spikes: np.ndarray  # (T, 2, H, W) uint8
    event_count: int
    fresh: bool  # the first after a start or a jump in time: carried state is void


class Piece(NamedTuple):
    """Successive events of a stream, at least one, and how far their times reach."""

    events: np.ndarray  # (N,) EVENT_DTYPE
    first_ns: int  # earliest time, wherever it stands
    last_ns: int  # latest time
    jumped: bool = False  # sensor time jumped before it


class _Open(NamedTuple):
    """A window that still takes events."""

    t0_ns: int
    t1_ns: int
    spikes: np.ndarray
    counts: list[int]


class TimeWindower:
    """Windows of equal length whose ends lie on multiples of the stride in sensor time.

    The cuts depend on the clock alone: not on packets, and not on when the stream was joined.
    Windows longer than the stride overlap. A window is complete when an event at or after its
    end has been seen, and takes none after that; an event older than all open windows is late.

    Args:
        pixels: sensor pixels to the network's grid.
        steps: number T of time bins in a window.
        window_ns: length of a window.
        stride_ns: time from one window's end to the next.
    """

    def __init__(self, pixels: PixelMap, steps: int, window_ns: int, stride_ns: int) -> None:
        check_cuts(window_ns, stride_ns)
        self.jumps = 0
        self.late_events = 0
        self._pixels, self._steps = pixels, steps
        self._window_ns, self._stride_ns = window_ns, stride_ns
        self.reset()

    def reset(self) -> None:
        """Forgets the open windows; the next window is marked fresh."""
        self._open: deque[_Open] = deque()
        self._next_end_ns: int | None = None
        self._newest_ns: int | None = None
        self._fresh = True

    def push(self, events: np.ndarray) -> Iterator[Window]:
        """Takes the next events of the stream and gives the windows that they complete.

        The windows are made one by one, as they are asked for: ask for all of them.
        """
        for piece in split_at_jumps(events, self._newest_ns):
            if piece.jumped:
                self.jumps += 1
                self.reset()
            for part in slices_of_time(piece, self._window_ns):
                yield from self._push_steady(part)

    def _push_steady(self, piece: Piece) -> Iterator[Window]:
        events, first, last, _ = piece
        newest = self._newest_ns = last if self._newest_ns is None else max(last, self._newest_ns)
        if self._next_end_ns is None:
            whole = -(-(first + self._window_ns) // self._stride_ns)
            self._next_end_ns = whole * self._stride_ns
        if not self._fresh and first < self._first_open_ns():
            self.late_events += int(np.count_nonzero(events['t_ns'] < self._first_open_ns()))
        for window in self._open:
            self._add(piece, window)
        while self._open and self._open[0].t1_ns <= newest:
            yield self._complete(self._open.popleft())
        while self._next_end_ns - self._window_ns <= newest:
            window = self._blank(self._next_end_ns)
            self._next_end_ns += self._stride_ns
            self._add(piece, window)
            if window.t1_ns <= newest:
                yield self._complete(window)
            else:
                self._open.append(window)

    def _first_open_ns(self) -> int:
        """Start of the earliest window that still takes events."""
        assert self._next_end_ns is not None
        return self._open[0].t0_ns if self._open else self._next_end_ns - self._window_ns

    def _add(self, piece: Piece, window: _Open) -> None:
        accumulate(piece.events, window.t0_ns, window.t1_ns, self._steps, self._pixels.height,
                   self._pixels.width, self._pixels, out=window.spikes)  # fmt: skip
        window.counts.append(_count_inside(piece, window.t0_ns, window.t1_ns))

    def _complete(self, window: _Open) -> Window:
        fresh, self._fresh = self._fresh, False
        return Window(window.t0_ns, window.t1_ns, window.spikes, sum(window.counts), fresh)

    def _blank(self, end_ns: int) -> _Open:
        shape = (self._steps, 2, self._pixels.height, self._pixels.width)
        return _Open(end_ns - self._window_ns, end_ns, np.zeros(shape, np.uint8), [])


class CountWindower:
    """Windows of equal numbers of events: short when much moves, long when little does.

    A window ends right after its last event; one that has not filled up within `max_window_ns`
    is cut there, so that a quiet scene still gets an answer.

    Args:
        pixels: sensor pixels to the network's grid.
        steps: number T of time bins in a window.
        window_events: number of events in a window.
        max_window_ns: longest window.
    """

    def __init__(
        self, pixels: PixelMap, steps: int, window_events: int, max_window_ns: int
    ) -> None:
        self.jumps = 0
        self.late_events = 0
        self._pixels, self._steps = pixels, steps
        self._window_events, self._max_window_ns = window_events, max_window_ns
        self.reset()

    def reset(self) -> None:
        """Forgets the open window; the next window is marked fresh."""
        self._pending: list[np.ndarray] = []
        self._pending_count = 0
        self._start_ns: int | None = None
        self._newest_ns: int | None = None
        self._fresh = True

    def push(self, events: np.ndarray) -> Iterator[Window]:
        """Takes the next events of the stream and gives the windows that they complete.

        The windows are made one by one, as they are asked for: ask for all of them.
        """
        for piece in split_at_jumps(events, self._newest_ns):
            if piece.jumped:
                self.jumps += 1
                self.reset()
            for start in range(0, len(piece.events), self._window_events):
                part = piece.events[start : start + self._window_events]
                if self._start_ns is not None and piece.first_ns < self._start_ns:
                    part = self._in_time(part, self._start_ns)
                if not len(part):
                    continue
                last = _time_range_ns(part)[1]
                self._newest_ns = last if self._newest_ns is None else max(last, self._newest_ns)
                if self._start_ns is None:
                    self._start_ns = piece.first_ns
                self._pending.append(part)
                self._pending_count += len(part)
                while (window := self._cut()) is not None:
                    yield window

    def _in_time(self, events: np.ndarray, start_ns: int) -> np.ndarray:
        """Those that the open window may still take; the others are counted."""
        late = events['t_ns'] < start_ns
        self.late_events += int(np.count_nonzero(late))
        return read_only(events[~late])

    def _cut(self) -> Window | None:
        """Takes one window off the front of what is pending, if there is a whole one."""
        assert self._start_ns is not None
        assert self._newest_ns is not None
        enough = self._pending_count >= self._window_events
        if not enough and self._newest_ns - self._start_ns < self._max_window_ns:
            return None
        events = join_events(self._pending)
        times = events['t_ns']
        end_ns = self._start_ns + self._max_window_ns
        if enough:
            last = np.partition(times, self._window_events - 1)[self._window_events - 1]
            end_ns = min(end_ns, int(last) + 1)
        spikes = accumulate(events, self._start_ns, end_ns, self._steps,
                            self._pixels.height, self._pixels.width, self._pixels)  # fmt: skip
        rest = read_only(events[times >= end_ns])
        window = Window(self._start_ns, end_ns, spikes, len(events) - len(rest), self._fresh)
        self._pending, self._pending_count = [rest], len(rest)
        self._start_ns, self._fresh = end_ns, False
        return window


def check_cuts(window_ns: int, stride_ns: int) -> None:
    """Raises a `ConfigError` unless windows of that length, a stride apart, can be cut."""
    stride, window = f'{stride_ns / 1e6:g}', f'{window_ns / 1e6:g} ms'
    if not 0 < stride_ns <= window_ns:
        raise ConfigError(
            f'stride_ms is {stride}, expected more than 0 and at most the window of {window}: '
            'events between windows would be lost'
        )
    if window_ns > MAX_OVERLAP * stride_ns:
        raise ConfigError(
            f'stride_ms is {stride}, expected at least 1/{MAX_OVERLAP} of the window of {window}: '
            'so many windows would be open at a time'
        )


def split_at_jumps(events: np.ndarray, newest_ns: int | None) -> list[Piece]:
    """Cuts events where sensor time jumps: far ahead of all before, or too far back.

    Args:
        events: (N,) events in stream order.
        newest_ns: latest time of the stream before them, None at its start.

    Returns:
        The pieces in order, none empty.
    """
    if len(events) == 0:
        return []
    piece = _piece(events)
    start = piece.first_ns if newest_ns is None else newest_ns
    backward = piece.first_ns < max(start, piece.last_ns) - MAX_BACKWARD_NS
    if not backward and piece.last_ns <= min(start, piece.first_ns) + MAX_GAP_NS:
        return [piece]  # nothing within, in whatever order, is so far from anything else
    cuts = _cuts(events, int(events['t_ns'][0]) if newest_ns is None else newest_ns)
    edges = [0, *cuts.tolist(), len(events)]
    jumped = [False, *[True] * len(cuts)]
    pieces = zip(edges[:-1], edges[1:], jumped, strict=True)
    return [_piece(events[a:b], jump) for a, b, jump in pieces if b > a]


def slices_of_time(piece: Piece, window_ns: int) -> list[Piece]:
    """Cuts what spans many windows into slices of `LONG_PACKET` windows, in order of time."""
    slice_ns = LONG_PACKET * window_ns
    if piece.last_ns - piece.first_ns <= slice_ns:
        return [piece]
    ordered = read_only(piece.events[np.argsort(piece.events['t_ns'], kind='stable')])
    edges = np.flatnonzero(np.diff((ordered['t_ns'] - piece.first_ns) // slice_ns)) + 1
    return [_piece(part) for part in np.split(ordered, edges)]


def _piece(events: np.ndarray, jumped: bool = False) -> Piece:
    first_ns, last_ns = _time_range_ns(events)
    return Piece(events, first_ns, last_ns, jumped)


def _count_inside(piece: Piece, t0_ns: int, t1_ns: int) -> int:
    """Number of events in [t0_ns, t1_ns)."""
    if t0_ns <= piece.first_ns and piece.last_ns < t1_ns:
        return len(piece.events)
    times = piece.events['t_ns']
    return int(np.count_nonzero((times >= t0_ns) & (times < t1_ns)))


@compiled()
def _cuts(events, newest_ns):
    """Indices of the events before which there is a jump."""
    cuts = np.empty(events.shape[0], np.int64)
    count, newest = 0, np.int64(newest_ns)
    for i in range(events.shape[0]):
        t_ns = events[i]['t_ns']
        ahead = t_ns > newest
        far = np.uint64(t_ns) - np.uint64(newest) if ahead else np.uint64(newest) - np.uint64(t_ns)
        if far > np.uint64(MAX_GAP_NS if ahead else MAX_BACKWARD_NS):  # int64 would run over
            cuts[count] = i
            count += 1
            newest = t_ns
        newest = max(newest, t_ns)
    return cuts[:count]


@compiled()
def _time_range_ns(events):
    """Earliest and latest time of some events, in one pass.

    Branches that almost always go one way: `min` and `max` become vector instructions that
    gather the times one by one, which takes twice as long.
    """
    first = last = events[0]['t_ns']
    for i in range(1, events.shape[0]):
        t_ns = events[np.uintp(i)]['t_ns']
        if t_ns >= last:
            last = t_ns
        elif t_ns < first:
            first = t_ns
    return first, last
