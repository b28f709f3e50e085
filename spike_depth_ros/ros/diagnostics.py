"""What the node measures of itself, and how it says so on /diagnostics."""

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
"""Without events or depth maps for this long, something is said to be wrong."""

KEEP = 256


class Report(NamedTuple):
    """One status: how bad, in a sentence, and the numbers."""

    name: str
    level: bytes
    message: str
    values: Mapping[str, Any]


class Meters:
    """Running totals and the latest durations, written by one thread each, read by any.

    Attributes:
        messages: event messages taken.
        received_bytes: their total size.
        frames: depth frames published.
        resets: how often earlier events were forgotten.
        foreign: messages left out, of a sensor of another size than the others.
    """

    def __init__(self) -> None:
        self.messages = 0
        self.received_bytes = 0
        self.frames = 0
        self.resets = 0
        self.foreign = 0
        self._ms: dict[str, deque[float]] = {}

    def took(self, name: str, start_s: float) -> None:
        """Notes a duration that began at `start_s` (`time.perf_counter`) and ends now."""
        self.add_ms(name, 1e3 * (time.perf_counter() - start_s))

    def add_ms(self, name: str, value_ms: float) -> None:
        """Notes one value [ms]."""
        self._ms.setdefault(name, deque(maxlen=KEEP)).append(value_ms)

    def summary(self) -> dict[str, str]:
        """Median and 99th percentile of the latest values [ms]."""
        values: dict[str, str] = {}
        for name, kept in list(self._ms.items()):
            ms = sorted(kept)  # numpy's percentiles keep the interpreter for twice as long
            if not ms:
                continue
            median, p99 = (ms[round(share * (len(ms) - 1))] for share in (0.5, 0.99))
            values[f'{name} ms (median, p99)'] = f'{median:.2f}, {p99:.2f}'
        return values


class Rates:
    """Differences per second between two looks at running totals."""

    def __init__(self) -> None:
        self._before: dict[str, float] = {}
        self._before_s = time.monotonic()

    def per_second(self, totals: Mapping[str, float]) -> dict[str, float]:
        """Rates since the last call [1/s]; a total that fell (a restart) gives 0."""
        now_s = time.monotonic()
        span_s = max(now_s - self._before_s, 1e-3)
        grown = {name: max(0.0, n - self._before.get(name, 0)) for name, n in totals.items()}
        self._before, self._before_s = dict(totals), now_s
        return {name: n / span_s for name, n in grown.items()}


class Flow(NamedTuple):
    """What decides whether depth comes out, and if not, why.

    Attributes:
        state: of the lifecycle.
        last_error: the sentence of the last failed transition.
        enabled: False while paused.
        publishers: number of publishers on the event topic.
        topic: its name.
        subscribed: True once the type of the topic is known and acceptable.
        topic_problem: why not, if there are publishers.
        unusable: why no message that comes holds an event, if that is so.
        silent_s: time since the last event; None before the first.
        wanted: True if an output has a subscriber.
        obstacle: why events do not become depth.
        dropping: True if windows or messages were dropped since the last look.
        frame_age_s: time since the last depth frame; None before the first.
        stride_s: time from one depth frame to the next.
        frames_hz: depth frames per second now.
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
    """Whether depth comes out, and if not, the first reason.

    Attributes:
        level: of diagnostic_msgs/DiagnosticStatus.
        message: a sentence.
        condition: names the reason; unlike the sentence it holds no changing numbers.
        flows: True if depth comes out.
    """

    level: bytes
    message: str
    condition: str
    flows: bool


def flow_verdict(flow: Flow) -> Verdict:
    """Level and sentence: depth comes out, or the first reason why it does not."""
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
    """Fields of a dataclass of counters."""
    return {field.name: getattr(counts, field.name) for field in dataclasses.fields(counts)}


def diagnostic_array(stamp_ns: int, node: str, reports: list[Report]) -> DiagnosticArray:
    """The message for /diagnostics: one status per report."""
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
