"""Measurements of the node about itself, and their messages on /diagnostics."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from spike_depth_ros.ros.messages import make_time

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

SILENT_S = 1.5
"""Time without events or depth maps after which a status is no longer OK."""

KEEP = 256


class Report(NamedTuple):
    """One status: level, sentence and values."""

    name: str
    level: bytes
    message: str
    values: Mapping[str, Any]


class Meters:
    """Running totals and latest durations; each is written by one thread and read by any.

    Attributes:
        messages: number of event messages to decode.
        received_bytes: their total size.
        unread: number of event messages that were not decoded, because no depth was wanted.
        unread_bytes: their total size.
        frames: number of depth frames published.
        resets: number of resets of the state.
        foreign: number of ignored messages of a sensor of another size.
    """

    def __init__(self) -> None:
        self.messages = 0
        self.received_bytes = 0
        self.unread = 0
        self.unread_bytes = 0
        self.frames = 0
        self.resets = 0
        self.foreign = 0
        self._ms: dict[str, deque[float]] = {}

    def took(self, name: str, start_s: float) -> None:
        """Records a duration that began at `start_s` (`time.perf_counter`) and ends now."""
        self.add_ms(name, 1e3 * (time.perf_counter() - start_s))

    def add_ms(self, name: str, value_ms: float) -> None:
        """Records one value [ms]."""
        self._ms.setdefault(name, deque(maxlen=KEEP)).append(value_ms)

    def summary(self) -> dict[str, str]:
        """Returns median and 99th percentile of the latest values [ms]."""
        values: dict[str, str] = {}
        for name, kept in list(self._ms.items()):
            ms = sorted(kept)  # numpy's percentiles hold the GIL for twice as long
            if not ms:
                continue
            median, p99 = (ms[round(share * (len(ms) - 1))] for share in (0.5, 0.99))
            values[f'{name} ms (median, p99)'] = f'{median:.2f}, {p99:.2f}'
        return values


class Rates:
    """Rates of running totals between two calls."""

    def __init__(self) -> None:
        self._before: dict[str, float] = {}
        self._before_s = time.monotonic()

    def per_second(self, totals: Mapping[str, float]) -> dict[str, float]:
        """Returns rates since the last call [1/s]; 0 for totals that fell, as after a restart."""
        now_s = time.monotonic()
        span_s = max(now_s - self._before_s, 1e-3)
        grown = {name: max(0.0, n - self._before.get(name, 0)) for name, n in totals.items()}
        self._before, self._before_s = dict(totals), now_s
        return {name: n / span_s for name, n in grown.items()}


class Flow(NamedTuple):
    """State that determines whether depth is published, and the reason if it is not.

    Attributes:
        state: of the lifecycle.
        last_error: reason why the last transition failed.
        enabled: False while paused.
        publishers: number of publishers on the event topic.
        topic: its name.
        subscribed: True once the type of the topic is known and acceptable.
        topic_problem: reason why not, if there are publishers.
        unusable: reason why no received message holds an event, if so.
        silent_s: time since the last event; None before the first.
        wanted: True if an output has a subscriber.
        obstacle: reason why events do not become depth.
        dropping: True if windows or messages were dropped in the last period.
        frame_age_s: time since the last depth frame; None before the first.
        stride_s: time from one depth frame to the next.
        frames_hz: current rate of depth frames.
    """

    state: str
    last_error: str
    enabled: bool
    publishers: int
    topic: str
    subscribed: bool
    topic_problem: str
    unusable: str
    silent_s: float | None
    wanted: bool
    obstacle: str
    dropping: bool
    frame_age_s: float | None
    stride_s: float
    frames_hz: float


class Verdict(NamedTuple):
    """Whether depth is published, and the first reason if it is not.

    Attributes:
        level: of diagnostic_msgs/DiagnosticStatus.
        message: a sentence.
        condition: identifies the reason; unlike the sentence it contains no changing numbers.
        flows: True if depth is published.
    """

    level: bytes
    message: str
    condition: str
    flows: bool


def flow_verdict(flow: Flow) -> Verdict:
    """Returns the verdict with the first reason why no depth is published, if any."""
    late_s = max(SILENT_S, 2 * flow.stride_s)
    stale = flow.frame_age_s is None or flow.frame_age_s > late_s
    silent = flow.silent_s is None or flow.silent_s > SILENT_S
    silence = 'no events yet' if flow.silent_s is None else f'no events for {flow.silent_s:.0f} s'
    reasons: tuple[tuple[bool, bytes, str, str], ...] = (
        (bool(flow.last_error), ERROR, flow.last_error, ''),
        (flow.state != 'active', WARN, f'the node is {flow.state}', ''),
        (flow.publishers == 0, ERROR, f'nobody publishes {flow.topic}', ''),
        (not flow.subscribed, ERROR, flow.topic_problem, ''),
        (not flow.enabled, OK, 'paused: call ~/set_enabled or set the parameter enabled', ''),
        (bool(flow.unusable), ERROR, flow.unusable, ''),
        (silent, WARN,
         f'{silence} on {flow.topic}: is the scene static, the lens covered, the camera dead?',
         'no events yet' if flow.silent_s is None else 'no events'),
        (not flow.wanted, OK, 'idle: nobody subscribes to an output', ''),
        (bool(flow.obstacle), ERROR, flow.obstacle, ''),
        (stale and flow.dropping, ERROR,
         'every window is dropped: inference is too slow for max_latency_ms', ''),
        (stale, WARN, 'events come in, but no window is complete yet', ''),
    )  # fmt: skip
    for applies, level, sentence, condition in reasons:
        if applies:
            return Verdict(level, f'no depth: {sentence}', condition or sentence, False)
    return Verdict(OK, f'{flow.frames_hz:.1f} depth maps/s', 'depth', True)


def plain_counts(counts: Any) -> dict[str, int]:
    """Returns the fields of a dataclass of counters."""
    return {field.name: getattr(counts, field.name) for field in dataclasses.fields(counts)}


def diagnostic_array(stamp_ns: int, node: str, reports: list[Report]) -> DiagnosticArray:
    """Builds the message for /diagnostics: one status per report."""
    message = DiagnosticArray()
    message.header.stamp = make_time(stamp_ns)
    message.status = [
        DiagnosticStatus(
            level=report.level,
            name=f'{node}: {report.name}',
            message=report.message,
            hardware_id=node,
            values=[KeyValue(key=key, value=str(value)) for key, value in report.values.items()],
        )
        for report in reports
    ]
    return message
