"""What a recording holds, counted by decoding all of it once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.events.arrays import Decoded
from spike_depth_ros.events.compiled import compiled
from spike_depth_ros.events.wire import EventStream, Packet
from spike_depth_ros.recordings.convert import problem_of
from spike_depth_ros.recordings.packets import with_epoch
from spike_depth_ros.recordings.source import EventSource

RATE_BIN_NS = 10_000_000
_EMPTY = np.iinfo(np.int64)


def summarise(
    source: EventSource,
    start_ns: int = 0,
    duration_ns: int | None = None,
    progress: Callable[[float, int], None] = lambda share, events: None,
) -> dict[str, Any]:
    """Decodes a recording and counts.

    Args:
        source: the recording, open.
        start_ns: skip so much from its start.
        duration_ns: stop so long after that; None for all.
        progress: called with the share that is done and the events so far.

    Returns:
        JSON-ready: where it lies, its topics and its sensor; counts; times of events in us of the
        sensor clock, and their exact sums (see `_Times`); rates, the longest silence; what was
        lost or skipped. A time is None if there is no event. `problem` says why so few
        events were found, if they are few.
    """
    stream = EventStream(source.event_topic.type)
    times = _Times()
    encodings: set[str] = set()
    messages, first_ns, last_ns, size, geometry = 0, None, 0, 0, source.geometry
    for message in source.messages(None, start_ns, duration_ns):
        messages += 1
        first_ns = message.stamp_ns if first_ns is None else first_ns
        last_ns = message.stamp_ns
        size += len(message.cdr)
        fed = stream.feed(message.cdr)
        if fed is not None:
            encodings.add(fed[0].encoding)
            geometry = (fed[0].height, fed[0].width)
            times.add(*fed)
        progress(source.progress(), times.events)
    counts = stream.counts
    span_s = (last_ns - (first_ns or 0)) / 1e9
    return {
        'path': str(source.path),
        'kind': source.kind,
        'topics': [
            {'name': t.name, 'type': t.type, 'messages': t.messages} for t in source.topics
        ],
        'topic': source.event_topic.name,
        'type': source.event_topic.type,
        'encoding': ', '.join(sorted(encodings)) or None,
        'height': geometry[0] if geometry else None,
        'width': geometry[1] if geometry else None,
        'messages': messages,
        'bytes': size,
        'stamp_first_ns': first_ns,
        'stamp_last_ns': last_ns if messages else None,
        'message_rate_hz': (messages - 1) / span_s if span_s > 0 else None,
        'events': counts.events,
        'on': counts.on,
        'off': counts.events - counts.on,
        'triggers': counts.triggers,
        **times.report(),
        'dropped': dict(source.dropped),
        'problem': problem_of(source, counts.events, [stream]),
        **_losses(stream),
    }


def _losses(stream: EventStream) -> dict[str, Any]:
    """What was lost, skipped or odd on the way."""
    odd = dataclasses.asdict(stream.counts)
    for name in ('events', 'on', 'triggers'):
        del odd[name]
    return {
        'sequence_gaps': stream.gaps,
        'missing_packets': stream.missing,
        'restarts': stream.restarts,
        'skipped_messages': dict(stream.skipped),
        **odd,
    }


class _Times:
    """Sums and extremes of event times, kept exact: int64 in a packet, Python's beyond.

    `sum_t_rel_us` is the sum of the times of events after the first of them,
    `sum_t_cd_plus_trig_us` the sum of the absolute times of events and triggers.
    """

    def __init__(self) -> None:
        self._state = np.array([_EMPTY.max, _EMPTY.min, _EMPTY.min, 0, 0, _EMPTY.min, 0], np.int64)
        self._origin_us: int | None = None
        self.events = self._triggers = 0
        self._event_sum_us = self._trigger_sum_us = 0  # after the origin

    def add(self, packet: Packet, decoded: Decoded) -> None:
        events, triggers = with_epoch(packet, decoded)
        both = events if len(events) else triggers
        if not len(both):
            return
        if self._origin_us is None:
            self._origin_us = int(both['t_ns'][0]) // 1000
        self.events += len(events)
        self._triggers += len(triggers)
        self._event_sum_us += _scan(events['t_ns'], self._origin_us, RATE_BIN_NS, self._state)
        self._trigger_sum_us += int((triggers['t_ns'] // 1000 - self._origin_us).sum())

    def report(self) -> dict[str, Any]:
        first_ns, last_ns, _, silence_ns, _, _, peak = self._state.tolist()
        origin_us, count = self._origin_us or 0, self.events
        both_us = self._event_sum_us + self._trigger_sum_us
        both_us += origin_us * (count + self._triggers)
        seen = count > 0
        first_us, last_us = first_ns // 1000, last_ns // 1000
        span_s = (last_ns - first_ns) / 1e9
        return {
            't_first_us': first_us if seen else None,
            't_last_us': last_us if seen else None,
            'span_us': last_us - first_us if seen else None,
            'sum_t_rel_us': self._event_sum_us - (first_us - origin_us) * count if seen else 0,
            'sum_t_cd_plus_trig_us': both_us,
            'event_rate_hz': count / span_s if seen and span_s > 0 else None,
            'peak_rate_hz': peak * 1e9 / RATE_BIN_NS if seen else None,
            'longest_silence_us': silence_ns // 1000 if seen else None,
        }


@compiled()
def _scan(t_ns: NDArray[Any], origin_us: int, bin_ns: int, state: NDArray[Any]) -> int:
    """Adds times to the state (first, last, previous, silence, in bin, bin, peak in a bin)."""
    first, last, previous, silence, in_bin, current, peak = state
    total_us = 0
    for i in range(t_ns.shape[0]):
        t = t_ns[i]
        total_us += t // 1000 - origin_us
        if first <= last:  # there was an event before
            silence = max(silence, t - previous)
        first = min(first, t)
        last = max(last, t)
        previous = t
        if t // bin_ns != current:
            current, in_bin = t // bin_ns, 0
        in_bin += 1
        peak = max(peak, in_bin)
    state[:] = (first, last, previous, silence, in_bin, current, peak)
    return total_us
