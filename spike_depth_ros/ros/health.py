"""Collects what the node knows of itself into the reports of /diagnostics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.publisher import Publisher

from spike_depth_ros.ros.diagnostics import (
    ERROR,
    OK,
    WARN,
    Flow,
    Rates,
    Report,
    diagnostic_array,
    flow_verdict,
    plain_counts,
)
from spike_depth_ros.ros.pipeline import Pipeline

if TYPE_CHECKING:
    from spike_depth_ros.ros.depth_node import DepthNode

LARGE_DRIFT_PPM = 200.0
MANY_STRAYS = 0.01
"""Share of events off the sensor from which on its size must be wrong."""

OFF_THE_SENSOR = 'events lie off the sensor: do the messages name its true height and width?'
UNTRAINED = 'the checkpoint is untrained: its depth means nothing'


class Health:
    """Looks at a node once per period and publishes what it sees.

    Args:
        node: to look at.
        publisher: of /diagnostics.
    """

    def __init__(self, node: DepthNode, publisher: Publisher) -> None:
        self._node, self._publisher = node, publisher
        self._rates = Rates()
        self._per_second: dict[str, float] = {}
        self._seen: dict[str, tuple[float, float]] = {}  # total, when it grew
        self._said_dropped = 0
        self._said_conflicts: set[str] = set()
        self._said_flowing: bool | None = None
        self._stalled = False

    def publish(self) -> None:
        """Takes the rates since the last call and publishes all reports."""
        pipeline = self._node.pipeline
        totals = {} if pipeline is None else _totals(pipeline)
        self._per_second = self._rates.per_second(totals)
        for name in ('events', 'frames'):
            total = totals.get(name, 0.0)
            if total and total != self._seen.get(name, (0.0,))[0]:
                self._seen[name] = (total, time.monotonic())
        reports = [self._flow_report(), self._engine_report()]
        if pipeline is not None:
            reports += [self._input_report(pipeline), self._work_report(pipeline)]
            self._say_drops(pipeline)
        self._say_conflicts()
        now_ns = self._node.get_clock().now().nanoseconds
        name = self._node.get_fully_qualified_name().lstrip('/')
        self._publisher.publish(diagnostic_array(now_ns, name, reports))

    def is_heard(self) -> bool:
        """True if anybody listens to /diagnostics."""
        return self._publisher.get_subscription_count() > 0

    def verdict(self) -> tuple[bytes, str]:
        """Does depth come out, and if not, why?"""
        node, pipeline, events = self._node, self._node.pipeline, self._node.events
        return flow_verdict(Flow(
            state=node.state,
            last_error=node.last_error,
            enabled=node.parameters.enabled,
            publishers=len(events.peers) if events else 0,
            topic=events.topic if events else '',
            subscribed=bool(events and events.type_name),
            topic_problem=events.problem if events else '',
            unusable=self._unusable(pipeline) if pipeline else '',
            silent_s=self._age_s('events'),
            wanted=bool(node.outputs and node.outputs.wanted()),
            obstacle=pipeline.obstacle if pipeline else '',
            dropping=self._per_second.get('dropped', 0.0) > 0,
            frame_age_s=self._age_s('frames'),
            frames_hz=self._per_second.get('frames', 0.0),
        ))  # fmt: skip

    def _unusable(self, pipeline: Pipeline) -> str:
        """Why nothing that comes in is an event of this sensor; empty if some is."""
        now = self._per_second
        if now.get('events', 0) > 0:
            return ''
        if now.get('skipped', 0) > 0 and now.get('packets', 0) == 0:
            return f'no message is usable: {pipeline.stream.last_error}'
        return OFF_THE_SENSOR if now.get('off the sensor', 0) > 0 else ''

    def _age_s(self, name: str) -> float | None:
        """Time since a total has grown; None if it never has."""
        return time.monotonic() - self._seen[name][1] if name in self._seen else None

    def _flow_report(self) -> Report:
        node = self._node
        values: dict[str, Any] = {'state': node.state, 'enabled': node.parameters.enabled}
        if node.outputs is not None:
            values |= {
                f'subscribers of {p.topic_name}': p.get_subscription_count()
                for p in list(node.outputs.publishers.values())
            }
        level, message = self.verdict()
        if node.state == 'active':
            self._say_flow(level == OK, message)
        return Report('output', level, message, values)

    def _say_flow(self, flowing: bool, message: str) -> None:
        """Tells the log when depth begins to come, and when it stops, with the reason.

        That it does not come is said at the second look in a row: at the first after a start
        nothing can have come yet.
        """
        log = self._node.get_logger()
        twice, self._stalled = not flowing and self._stalled, not flowing
        if flowing and not self._said_flowing:
            log.info('depth comes')  # at what rate, the first period does not tell
        if twice and self._said_flowing is not False:
            log.warning(message)
        if flowing or twice:
            self._said_flowing = flowing

    def _engine_report(self) -> Report:
        node = self._node
        if node.checkpoint is None or node.engine is None:
            return Report('engine', OK, 'not configured', {})
        estimator = None if node.pipeline is None else node.pipeline.estimator
        hfov_deg = node.parameters.assumed_hfov_deg
        lens = f'{hfov_deg:g} deg across' if hfov_deg else 'lens of the training'
        calibration = f'assumed: {lens}' if node.calibration.camera is None else 'given'
        values: dict[str, Any] = {
            'checkpoint': node.checkpoint_path,
            'engine': node.parameters.engine,
            'device': node.engine.device,
            'calibration': calibration,
        }
        if estimator is not None:
            pixels = estimator.pixels
            values['depth image'] = f'{pixels.image_width}x{pixels.image_height}'
            values['binning'] = f'{pixels.factor}x{pixels.factor}'
        if node.energy is not None:
            values |= node.energy.summary()
        if not node.checkpoint.trained:
            return Report('engine', WARN, UNTRAINED, values)
        if node.calibration.camera is None:
            return Report('engine', WARN, 'no calibration: the scale of depth is assumed', values)
        where = f'{node.checkpoint_path.name}: {node.parameters.engine} on {node.engine.device}'
        return Report('engine', OK, where, values)

    def _input_report(self, pipeline: Pipeline) -> Report:
        stream, counts = pipeline.stream, plain_counts(pipeline.stream.counts)
        per_second, clock = self._per_second, pipeline.clock
        values: dict[str, Any] = {
            'type': pipeline.type_name,
            'messages/s': f'{per_second.get("messages", 0):.1f}',
            'events/s': f'{per_second.get("events", 0):.0f}',
            'MB/s': f'{per_second.get("bytes", 0) / 1e6:.3f}',
            'ON share': f'{counts["on"] / max(1, counts["events"]):.3f}',
            'sequence gaps': stream.gaps,
            'missing packets': stream.missing,
            'publisher restarts': stream.restarts,
            'skipped messages': dict(stream.skipped) or 0,
            'last skipped because': stream.last_error or 'none',
            'clock offset s': f'{(clock.offset_ns or 0) / 1e9:.6f}',
            'clock drift ppm': f'{clock.drift_ppm:.1f}',
            'clock jumps': clock.jumps,
            **counts,
        }
        publishers = len(self._node.events.peers) if self._node.events else 0
        skipping = per_second.get('skipped', 0) > 0
        strays = per_second.get('off the sensor', 0)
        reasons = (
            (publishers > 1, WARN,
             f'{publishers} publishers share the topic: their events and clocks mix'),
            (bool(self._unusable(pipeline)), ERROR, self._unusable(pipeline)),
            (skipping, WARN, f'messages are skipped: {stream.last_error}'),
            (strays > MANY_STRAYS * (strays + per_second.get('events', 0)), WARN,
             OFF_THE_SENSOR),
            (per_second.get('missing', 0) > 0, WARN, 'packets are lost on the way here'),
            (abs(clock.drift_ppm) > LARGE_DRIFT_PPM, WARN,
             'sensor clock and ROS clock drift apart'),
            (True, OK, f'{values["events/s"]} events/s'),
        )  # fmt: skip
        level, sentence = next(reason[1:] for reason in reasons if reason[0])
        return Report('input', level, sentence, values)

    def _work_report(self, pipeline: Pipeline) -> Report:
        meters, per_second, last = pipeline.meters, self._per_second, pipeline.last
        values: dict[str, Any] = {
            'depth maps': meters.frames,
            'depth maps/s': f'{per_second.get("frames", 0):.2f}',
            'dropped messages': pipeline.messages.dropped,
            'dropped windows': pipeline.windows.dropped,
            'skipped pictures': pipeline.frames.dropped,
            'message queue': f'{len(pipeline.messages)}, {1e3 * pipeline.messages.age_s:.0f} ms',
            'window queue': f'{len(pipeline.windows)}, {1e3 * pipeline.windows.age_s:.0f} ms',
            'resets': meters.resets,
            'faults': pipeline.faults,
            **meters.summary(),
        }
        if pipeline.estimator is not None:
            late = pipeline.estimator.windower.late_events
            values['late events'] = late + pipeline.jumps.dropped
        if last is not None:
            spikes = last.job.window.spikes
            values['events in last window'] = last.job.window.event_count
            values['input spike rate'] = f'{np.count_nonzero(spikes) / spikes.size:.4f}'
        if per_second.get('faults', 0) > 0:
            return Report('work', ERROR, 'the processing of an item failed, see the log', values)
        if per_second.get('dropped', 0) > 0:
            return Report('work', WARN, 'too slow: windows or messages are dropped', values)
        return Report('work', OK, f'{values["depth maps/s"]} depth maps/s', values)

    def _say_conflicts(self) -> None:
        """Tells the log once of each peer that is not reached or heard because of its QoS."""
        node = self._node
        found = set(node.outputs.unreached() if node.outputs else ())
        found |= set(node.events.unheard() if node.events else ())
        for sentence in sorted(found - self._said_conflicts):
            node.get_logger().warning(sentence)
        self._said_conflicts = found

    def _say_drops(self, pipeline: Pipeline) -> None:
        dropped = pipeline.windows.dropped + pipeline.messages.dropped
        if dropped > self._said_dropped:
            self._node.get_logger().warning(
                f'too slow: {pipeline.windows.dropped} windows and {pipeline.messages.dropped} '
                'messages dropped so far; more num_threads, a faster checkpoint or fewer previews '
                'help',
                throttle_duration_sec=5.0,
            )
        self._said_dropped = dropped


def _totals(pipeline: Pipeline) -> dict[str, float]:
    """The running totals whose rates are of interest."""
    stream, meters = pipeline.stream, pipeline.meters
    return {
        'messages': meters.messages,
        'bytes': meters.received_bytes,
        'events': stream.counts.events,
        'packets': stream.packets,
        'skipped': sum(stream.skipped.values()),
        'missing': stream.missing,
        'off the sensor': stream.counts.out_of_bounds,
        'frames': meters.frames,
        'dropped': pipeline.windows.dropped + pipeline.messages.dropped,
        'faults': pipeline.faults,
    }
