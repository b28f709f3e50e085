"""Separates single wrong event times from jumps of the sensor clock.

Cameras and drivers sometimes send single events whose time is wrong by milliseconds or years, and
their clocks sometimes restart. A single event cannot distinguish the two cases, but several
consecutive events can. `JumpFilter` implements this rule for windows, clocks and files.

The filter tracks the newest time of the stream. An event is *in place* if its time lies within
`NEAR_NS` of the newest time. Events that are not in place are held until later events decide:

* If an event in place follows, the held events are wrong: they are dropped and counted as late.
* If `JUMP_EVENTS` consecutive events continue each other, or `FEW_EVENTS` whose times advance by
  `GOES_ON_NS`, the stream has moved and all of them are kept. This is a jump if the stream moved
  backwards, or forwards by more than `MAX_GAP_NS`; otherwise it was a pause.

Only earlier events decide about an event, so the result does not depend on how the stream is
divided into messages.
"""

# mypy: no-check-untyped-defs
# (compiled kernels: numba infers their types)

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from spike_depth_ros.events.arrays import Events, empty_events, join_events, read_only
from spike_depth_ros.events.compiled import compiled

NEAR_NS = 50_000_000
"""Events within this distance of the newest time are accepted at once. Times step back by
microseconds in sensors, and by milliseconds in messages that drivers assemble."""

MAX_GAP_NS = 1_000_000_000
"""A longer pause, or a confirmed move forwards by more, is a jump."""

JUMP_EVENTS = 16
"""Number of consecutive events that show that the stream has moved."""

FEW_EVENTS = 3
GOES_ON_NS = 10_000_000
"""Number of consecutive events that show the same if their times advance by GOES_ON_NS."""

END_EVENTS = 2
"""Number of consecutive held events that show a jump at the end of a stream."""


class Run(NamedTuple):
    """Consecutive accepted events of a stream, at least one.

    Within a run no event is more than `MAX_GAP_NS` later than the newest event before it, or more
    than `NEAR_NS` earlier.
    """

    events: Events  # (N,) EVENT_DTYPE
    first_ns: int  # earliest time
    last_ns: int  # latest time
    jump_ns: int = 0  # size of the jump right before the run; 0 if there was none


class JumpFilter:
    """Drops events with wrong times from a stream and detects jumps of its clock.

    Attributes:
        dropped: events dropped.
        newest_ns: latest time of the stream since its last jump; None before the first event.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self.reset()

    def reset(self) -> None:
        """Forgets the time, as before the first event, but not the count."""
        self.newest_ns: int | None = None
        self._held = empty_events()

    def push(self, events: Events) -> list[Run]:
        """Takes the next events of the stream.

        Args:
            events: (N,) `EVENT_DTYPE` in stream order.

        Returns:
            The runs of accepted events in order. A few events (fewer than `JUMP_EVENTS`) may be
            held back and returned by a later call.
        """
        if len(events) == 0:
            return []
        if len(self._held):
            events = join_events([self._held, events])
        elif (run := self._steady(events)) is not None:
            return [run]
        return self._judged(events, JUMP_EVENTS, FEW_EVENTS)

    def finish(self) -> list[Run]:
        """Ends the stream and returns the held events that are accepted.

        A jump needs `END_EVENTS` events; after a pause that is not a jump, one event is enough.
        """
        if not len(self._held):
            return []
        assert self.newest_ns is not None
        is_jump = _jump_ns(self.newest_ns, self._held['t_ns'][0]) != 0
        enough = END_EVENTS if is_jump else 1
        runs = self._judged(self._held, enough, enough)
        self.dropped += len(self._held)
        self._held = empty_events()
        return runs

    def _steady(self, events: Events) -> Run | None:
        """Returns all events as one run if all of them are in place."""
        start_ns = int(events['t_ns'][0]) if self.newest_ns is None else self.newest_ns
        count, first_ns, last_ns = _count_in_place(events, start_ns)
        if count < len(events):
            return None
        self.newest_ns = max(start_ns, last_ns)
        return Run(events, first_ns, last_ns)

    def _judged(self, events: Events, jump_events: int, few_events: int) -> list[Run]:
        start_ns = int(events['t_ns'][0]) if self.newest_ns is None else self.newest_ns
        kept, jumps_ns, self.newest_ns, held = _judge(events, start_ns, jump_events, few_events)
        self._held = read_only(events[held:].copy())
        self.dropped += held - int(np.count_nonzero(kept))
        believed = read_only(events[:held][kept[:held]])
        jumps_ns = jumps_ns[:held][kept[:held]]
        edges = np.unique([0, *np.flatnonzero(jumps_ns), len(believed)])
        runs = []
        for a, b in itertools.pairwise(edges.tolist()):
            first_ns, last_ns = _time_range_ns(believed[a:b])
            runs.append(Run(believed[a:b], first_ns, last_ns, int(jumps_ns[a])))
        return runs


@compiled()
def _distance(a_ns, b_ns):
    """Time from `a_ns` to the later `b_ns`; unsigned, as the difference may exceed int64."""
    return np.uint64(b_ns) - np.uint64(a_ns)


@compiled()
def _is_in_place(t_ns, newest_ns, max_forward_ns):
    if t_ns >= newest_ns:
        return _distance(newest_ns, t_ns) <= np.uint64(max_forward_ns)
    return _distance(t_ns, newest_ns) <= np.uint64(NEAR_NS)


@compiled()
def _count_in_place(events, newest_ns):
    """Counts the events before the first one that is not in place.

    Returns:
        The count, and the earliest and latest time of those events.
    """
    first, last, newest = events[0]['t_ns'], events[0]['t_ns'], np.int64(newest_ns)
    for i in range(events.shape[0]):
        t_ns = events[np.uintp(i)]['t_ns']
        if t_ns >= newest:
            if _distance(newest, t_ns) > np.uint64(NEAR_NS):
                return i, first, last
            newest = last = t_ns
        else:
            if _distance(t_ns, newest) > np.uint64(NEAR_NS):
                return i, first, last
            last = max(last, t_ns)
            first = min(first, t_ns)
    return events.shape[0], first, last


@compiled()
def _judge(events, newest_ns, jump_events, few_events):
    """Decides about events that follow a stream whose newest time is `newest_ns`.

    Returns:
        (N,) True for kept events; (N,) size of the jump before each event [ns]; the newest time
        after them; the index of the first event that is still held.
    """
    size, newest = events.shape[0], np.int64(newest_ns)
    kept, jumps_ns = np.zeros(size, np.bool_), np.zeros(size, np.int64)
    held, held_newest = -1, newest
    for i in range(size):
        t_ns = events[i]['t_ns']
        if _is_in_place(t_ns, newest, NEAR_NS):
            kept[i], held = True, -1
            newest = max(newest, t_ns)
            continue
        # later than the stream, pauses of any length may follow; earlier, events must continue
        max_forward_ns = np.int64(2**63 - 1 if held_newest > newest else MAX_GAP_NS)
        if held >= 0 and _is_in_place(t_ns, held_newest, max_forward_ns):
            held_newest = max(held_newest, t_ns)
        else:
            held, held_newest = i, t_ns
        count, goes_on = i + 1 - held, _distance(events[held]['t_ns'], held_newest)
        if count >= jump_events or (count >= few_events and goes_on >= np.uint64(GOES_ON_NS)):
            for k in range(held, i + 1):
                kept[k] = True
                jumps_ns[k] = _jump_ns(newest, events[k]['t_ns'])
                newest = events[k]['t_ns'] if jumps_ns[k] else max(newest, events[k]['t_ns'])
            held = -1
    return kept, jumps_ns, newest, size if held < 0 else held


@compiled()
def _jump_ns(newest, t_ns):
    """Size of the jump from `newest` to `t_ns`, limited to int64; 0 if it is not a jump."""
    if _is_in_place(t_ns, newest, MAX_GAP_NS):
        return np.int64(0)
    if t_ns > newest:
        return np.int64(min(_distance(newest, t_ns), np.uint64(2**63 - 1)))
    return -np.int64(min(_distance(t_ns, newest), np.uint64(2**63 - 1)))


@compiled()
def _time_range_ns(events):
    """Earliest and latest time of some events."""
    first = last = events[0]['t_ns']
    for i in range(1, events.shape[0]):
        t_ns = events[np.uintp(i)]['t_ns']
        if t_ns >= last:
            last = t_ns
        elif t_ns < first:
            first = t_ns
    return first, last
