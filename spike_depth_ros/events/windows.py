"""Divides the event stream into windows of sensor time.

The windower stores only the windows that are still open, so its memory does not depend on the
length of the stream.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.events.arrays import Events, read_only
from spike_depth_ros.events.compiled import compiled
from spike_depth_ros.events.config import ConfigError
from spike_depth_ros.events.jumps import JumpFilter, Run
from spike_depth_ros.events.spikes import PixelMap, accumulate, bin_edges_ns

MAX_OVERLAP = 128
"""Largest number of overlapping windows; each of them is a spike tensor in memory."""

NEVER_NS = -(1 << 63)
"""Earlier than every event."""


class Window(NamedTuple):
    """A window of the event stream as input of the network."""

    t0_ns: int
    t1_ns: int
    spikes: NDArray[np.uint8]  # (T, 2, H, W)
    event_count: int
    fresh: bool  # first window after a start or a jump: the carried state is invalid
    revised: bool = False  # events came into steps after `TimeWindower.begun` had given them


class Begun(NamedTuple):
    """The first steps of a window that still takes events."""

    t0_ns: int
    spikes: NDArray[np.uint8]  # (T, 2, H, W); of the steps from `ready` on it holds events so far
    ready: int  # number of steps, less than T, whose end the stream has passed
    fresh: bool


class _Open(NamedTuple):
    """A window to which events are still added."""

    t0_ns: int
    t1_ns: int
    spikes: NDArray[np.uint8]
    counts: list[int]


class TimeWindower:
    """Windows of equal length whose ends lie on multiples of the stride in sensor time.

    The boundaries depend on the sensor clock only, not on packets or the time of subscription.
    Windows longer than the stride overlap. A window is complete at the first event at or after its
    end; later events are not added to it. An event older than all open windows is late. Events of
    one message are ordered by time.

    Args:
        pixels: map from sensor pixels to the network's grid.
        steps: number T of time bins in a window.
        window_ns: length of a window.
        stride_ns: time from one window's end to the next.

    Attributes:
        jumps: number of jumps of the clock; each of them restarts the windows.
        late_events: number of dropped events: their windows were complete, or `push` rejected
            their time.
    """

    def __init__(self, pixels: PixelMap, steps: int, window_ns: int, stride_ns: int) -> None:
        check_cuts(window_ns, stride_ns)
        self.jumps = 0
        self._late = 0
        self._filter = JumpFilter()
        self._pixels, self._steps = pixels, steps
        self._window_ns, self._stride_ns = window_ns, stride_ns
        self.reset()

    @property
    def late_events(self) -> int:
        """Starts without open windows; arguments as described at the class."""
        return self._late + self._filter.dropped

    def reset(self) -> None:
        """Forgets the open windows; the next window is marked fresh."""
        self._filter.reset()
        self._start_anew()

    def _start_anew(self) -> None:
        self._open: deque[_Open] = deque()
        self._next_end_ns: int | None = None
        self._newest_ns = NEVER_NS
        self._given_ns: int | None = None  # end of the last step that `begun` has given
        self._fresh, self._revised = True, False

    def push(self, events: Events) -> Iterator[Window]:
        """Takes the next events of the stream and yields the windows that they complete.

        The iterator processes the events, so the caller must exhaust it.
        """
        for run in self._filter.push(events):
            yield from self.take(run)

    def begun(self) -> Begun | None:
        """The steps of the first open window that are over, so that work on them can begin.

        A step is over at the first event at or after its end. Events that come for it later are
        counted in the window all the same, which is then `revised`.

        Returns:
            None if no step has ended since the last call, and for a window that is revised.
        """
        if not self._open or self._revised:
            return None
        t0_ns, t1_ns, spikes, _ = self._open[0]
        edges_ns = bin_edges_ns(t0_ns, t1_ns, self._steps)
        ready = int(np.searchsorted(edges_ns, self._newest_ns, 'right')) - 1
        if ready < 1 or edges_ns[ready] == self._given_ns:
            return None
        self._given_ns = int(edges_ns[ready])
        return Begun(t0_ns, spikes, ready, self._fresh)

    def take(self, run: Run) -> Iterator[Window]:
        """Like `push`, for events that have passed a `JumpFilter` of the caller."""
        if run.jump_ns:
            self.jumps += 1
            self._start_anew()
        if self._next_end_ns is None:
            whole = -(-(run.first_ns + self._window_ns) // self._stride_ns)
            self._next_end_ns = whole * self._stride_ns
            self._open_windows()
        if run.last_ns >= self._open[0].t1_ns:
            run = run._replace(events=in_order(run.events))
        start = 0
        while start < len(run.events):
            start = self._fill(run, start)
            if start < len(run.events):
                yield self._complete()
        self._newest_ns = max(self._newest_ns, run.last_ns)

    def _fill(self, run: Run, start: int) -> int:
        """Adds events from `start` on to the open windows until one completes the first window.

        Returns:
            The index of that event, or the number of events.
        """
        t0_ns, t1_ns = self._open[0].t0_ns, self._open[0].t1_ns
        if run.last_ns < t1_ns:
            part = run.events[start:]
        else:  # ordered by time
            part = run.events[start : _first_at(run.events, start, t1_ns)]
        if run.first_ns < t0_ns and not self._fresh:
            self._late += int(np.count_nonzero(part['t_ns'] < t0_ns))
        if self._given_ns is not None and run.first_ns < self._given_ns:
            times_ns = part['t_ns']
            self._revised |= bool(((times_ns >= t0_ns) & (times_ns < self._given_ns)).any())
        for window in self._open if len(part) else ():
            if window.t0_ns <= run.last_ns:
                accumulate(part, window.t0_ns, window.t1_ns, self._steps, self._pixels.height,
                           self._pixels.width, self._pixels, out=window.spikes)  # fmt: skip
                window.counts.append(_count_since(part, run.first_ns, window.t0_ns))
        return start + len(part)

    def _complete(self) -> Window:
        """Closes the first open window."""
        window = self._open.popleft()
        self._open_windows()
        fresh, self._fresh = self._fresh, False
        revised, self._revised, self._given_ns = self._revised, False, None
        return Window(*window[:3], sum(window.counts), fresh, revised)

    def _open_windows(self) -> None:
        """Opens all windows that begin before the first open one ends."""
        assert self._next_end_ns is not None
        shape = (self._steps, 2, self._pixels.height, self._pixels.width)
        while not self._open or self._next_end_ns - self._window_ns < self._open[0].t1_ns:
            end_ns = self._next_end_ns
            blank = np.zeros(shape, np.uint8)
            self._open.append(_Open(end_ns - self._window_ns, end_ns, blank, []))
            self._next_end_ns += self._stride_ns


def without_pause(windows: Iterator[Window]) -> Iterator[Window]:
    """Of windows that one message completes, leaves out the empty ones, but for the last.

    They are of a pause that is over, and say nothing about the present.
    """
    last = next(windows, None)
    for window in windows:
        if last is not None and last.event_count:
            yield last
        last = window
    if last is not None:
        yield last


def check_cuts(window_ns: int, stride_ns: int) -> None:
    """Raises a `ConfigError` unless the stride fits the length of the windows."""
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


def in_order(events: Events) -> Events:
    """Returns the events sorted by time: (N,) read-only, a copy if they were not sorted."""
    if _is_in_order(events):
        return events
    return read_only(events[np.argsort(events['t_ns'], kind='stable')])


def _count_since(events: Events, first_ns: int, t0_ns: int) -> int:
    """Number of events at or after `t0_ns`, where the earliest is at `first_ns`."""
    return len(events) if t0_ns <= first_ns else int(np.count_nonzero(events['t_ns'] >= t0_ns))


@compiled()
def _is_in_order(events: Events) -> bool:
    """Returns True if no event is earlier than the one before it."""
    for i in range(1, events.shape[0]):
        if events[np.uintp(i)]['t_ns'] < events[np.uintp(i - 1)]['t_ns']:
            return False
    return True


@compiled()
def _first_at(events: Events, low: int, t_ns: int) -> int:
    """Index, from `low` on, of the first event at or after `t_ns` in events sorted by time."""
    high = events.shape[0]
    while low < high:
        middle = (low + high) // 2
        if events[middle]['t_ns'] < t_ns:
            low = middle + 1
        else:
            high = middle
    return low
