"""Builds the reports of /diagnostics and logs the condition of the node."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from rclpy.clock import Clock
from rclpy.publisher import Publisher

from spike_depth_ros.estimation.estimator import cut_times_ns
from spike_depth_ros.ros.calibration import Calibration
from spike_depth_ros.ros.condition_log import ConditionLog
from spike_depth_ros.ros.depth_parameters import DepthParameters
from spike_depth_ros.ros.diagnostics import (
    ERROR,
    OK,
    WARN,
    Flow,
    Rates,
    Report,
    Verdict,
    diagnostic_array,
    flow_verdict,
    plain_counts,
)
from spike_depth_ros.ros.energy_meter import EnergyMeter
from spike_depth_ros.ros.inputs import EventInput
from spike_depth_ros.ros.loaded_network import LoadedNetwork
from spike_depth_ros.ros.odometry import ScaleInput
from spike_depth_ros.ros.outputs import Outputs
from spike_depth_ros.ros.pipeline import Pipeline
from spike_depth_ros.ros.registration import Registration

LARGE_DRIFT_PPM = 200.0
MANY_STRAYS = 0.01
"""Share of events outside the sensor above which its size must be wrong."""

STARTING_S = 10.0
"""Time after activation during which missing input is no reason for a warning."""

OFF_THE_SENSOR = 'events lie off the sensor: do the messages name its true height and width?'
UNTRAINED = 'the checkpoint is untrained: its depth means nothing'
UNCALIBRATED = (
    'no calibration: the scale of depth is assumed; give camera_info_url or publish camera_info'
)


class View(NamedTuple):
    """The node at one moment; parts that do not exist in the current state are None.

    Attributes:
        state: of the lifecycle.
        last_error: reason why the last transition failed; empty if it succeeded.
        active_s: time since the activation; 0 if it is not active.
        parameters: of the node.
        calibration: of the camera.
        network: the loaded network.
        outputs: the publishers.
        energy: measures the energy of the network.
        scale: estimates the scale of depth from the motion of the robot.
        registration: registers depth to another camera.
        events: the subscription to events.
        pipeline: processes the events.
    """

    state: str
    last_error: str
    active_s: float
    parameters: DepthParameters
    calibration: Calibration
    network: LoadedNetwork | None = None
    outputs: Outputs | None = None
    energy: EnergyMeter | None = None
    scale: ScaleInput | None = None
    registration: Registration | None = None
    events: EventInput | None = None
    pipeline: Pipeline | None = None


class Health:
    """Checks a node once per period and publishes the result.

    Args:
        name: of the node, in the reports.
        publisher: of /diagnostics.
        clock: ROS time.
        log: of the node.
        logger: of the node, for debugging.
    """

    def __init__(
        self, name: str, publisher: Publisher, clock: Clock, log: ConditionLog, logger: Any
    ) -> None:
        self._name, self._publisher, self._clock = name, publisher, clock
        self._log, self._logger = log, logger
        self._rates = Rates()
        self._per_second: dict[str, float] = {}
        self._seen: dict[str, tuple[float, float]] = {}  # total, when it grew
        self._said_dropped = 0
        self._before = ''  # condition at the last check

    def publish(self, view: View) -> None:
        """Computes the rates since the last call and publishes all reports."""
        pipeline = view.pipeline
        totals = {} if pipeline is None else _totals(pipeline)
        self._per_second = self._rates.per_second(totals)
        for name in ('events', 'unread', 'frames'):
            total = totals.get(name, 0.0)
            if total and total != self._seen.get(name, (0.0,))[0]:
                self._seen[name] = (total, time.monotonic())
        verdict = self.verdict(view)
        reports = [_flow_report(view, verdict), _engine_report(view)]
        if pipeline is not None:
            publishers = len(view.events.peers) if view.events else 0
            reports += [self._input_report(pipeline, publishers), self._work_report(pipeline)]
            optional = [part.report() for part in (view.scale, view.registration) if part]
            reports += [report for report in optional if report is not None]
            self._say_drops(pipeline)
        if view.state == 'active':
            self._say_flow(view, verdict)
        self._say_conflicts(view)
        now_ns = self._clock.now().nanoseconds
        self._publisher.publish(diagnostic_array(now_ns, self._name, reports))
        self._logger.debug(
            '; '.join(f'{report.name}: {report.message}' for report in reports)
            + ''.join(f'; {name} {rate:.6g}/s' for name, rate in self._per_second.items() if rate)
        )

    def verdict(self, view: View) -> Verdict:
        """Returns whether depth is published, and the reason if it is not."""
        pipeline, events = view.pipeline, view.events
        return flow_verdict(Flow(
            state=view.state,
            last_error=view.last_error,
            enabled=view.parameters.enabled,
            publishers=len(events.peers) if events else 0,
            topic=events.topic if events else '',
            subscribed=bool(events and events.type_name),
            topic_problem=events.problem if events else '',
            unusable=self._unusable(pipeline) if pipeline else '',
            silent_s=self._age_s('events', 'unread'),
            wanted=bool(view.outputs and view.outputs.wanted()),
            obstacle=pipeline.obstacle if pipeline else '',
            dropping=self._per_second.get('dropped', 0.0) > 0,
            frame_age_s=self._age_s('frames'),
            stride_s=_stride_s(view),
            frames_hz=self._per_second.get('frames', 0.0),
        ))  # fmt: skip

    def _unusable(self, pipeline: Pipeline) -> str:
        """Reason why no input is an event of this sensor; empty if some input is."""
        now = self._per_second
        if now.get('events', 0) > 0:
            return ''
        if now.get('skipped', 0) > 0 and now.get('packets', 0) == 0:
            return f'no message is usable: {pipeline.stream.last_error}'
        return OFF_THE_SENSOR if now.get('off the sensor', 0) > 0 else ''

    def _age_s(self, *names: str) -> float | None:
        """Time since one of these totals last increased; None if none ever did."""
        seen_s = [self._seen[name][1] for name in names if name in self._seen]
        return time.monotonic() - max(seen_s) if seen_s else None

    def _say_flow(self, view: View, verdict: Verdict) -> None:
        """Logs when depth is first published, and each reason why it is not.

        A condition is logged after two consecutive checks, because nothing can have arrived at the
        first check after a start. During the start, reasons are not warnings, because the other
        nodes are starting as well.
        """
        lasts, self._before = verdict.condition == self._before, verdict.condition
        if not lasts:
            return
        if verdict.flows:
            self._log.info('flow', f'publishing depth: {verdict.message}', verdict.condition)
            if view.calibration.camera is None and view.active_s > STARTING_S:
                self._log.warning('calibration', UNCALIBRATED)
        elif verdict.level == OK or view.active_s < STARTING_S:
            self._log.info('flow', verdict.message, verdict.condition)
        else:
            self._log.warning('flow', verdict.message, verdict.condition)

    def _input_report(self, pipeline: Pipeline, publishers: int) -> Report:
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
            'messages of another sensor': pipeline.meters.foreign,
            **counts,
        }
        skipping = per_second.get('skipped', 0) > 0
        strays = per_second.get('off the sensor', 0)
        reasons = (
            (publishers > 1, WARN,
             f'{publishers} publishers share the topic: their events and clocks mix'),
            (per_second.get('foreign', 0) > 0, WARN,
             'messages of a sensor of another size are left out'),
            (bool(self._unusable(pipeline)), ERROR, self._unusable(pipeline)),
            (skipping, WARN, f'messages are skipped: {stream.last_error}'),
            (strays > MANY_STRAYS * (strays + per_second.get('events', 0)), WARN,
             OFF_THE_SENSOR),
            (per_second.get('missing', 0) > 0, WARN, 'packets are lost on the way here'),
            (abs(clock.drift_ppm) > LARGE_DRIFT_PPM, WARN,
             'sensor clock and ROS clock drift apart'),
            (per_second.get('unread', 0) > 0, OK,
             f'{values["messages/s"]} messages/s, not decoded while no depth is wanted'),
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

    def _say_conflicts(self, view: View) -> None:
        """Logs each peer whose QoS is incompatible."""
        found = set(view.outputs.unreached() if view.outputs else ())
        found |= set(view.events.unheard() if view.events else ())
        for sentence in sorted(found):
            self._log.warning(sentence.partition(':')[0], sentence)

    def _say_drops(self, pipeline: Pipeline) -> None:
        dropped = pipeline.windows.dropped + pipeline.messages.dropped
        if dropped > self._said_dropped:
            self._log.warning(
                'dropped',
                f'too slow: {pipeline.windows.dropped} windows and {pipeline.messages.dropped} '
                'messages dropped so far; more num_threads, a faster checkpoint or fewer previews '
                'help',
                'too slow',
            )
        elif dropped == self._said_dropped:
            self._log.over('dropped')
        self._said_dropped = dropped


def _stride_s(view: View) -> float:
    """Time between depth maps [s]; 0 before the network is known."""
    if view.network is None:
        return 0.0
    options = view.parameters.estimator_options
    return 1e-9 * cut_times_ns(view.network.checkpoint.spikes, options)[1]


def _flow_report(view: View, verdict: Verdict) -> Report:
    values: dict[str, Any] = {'state': view.state, 'enabled': view.parameters.enabled}
    if view.outputs is not None:
        values |= {
            f'subscribers of {p.topic_name}': p.get_subscription_count()
            for p in list(view.outputs.publishers.values())
        }
    return Report('output', verdict.level, verdict.message, values)


def _engine_report(view: View) -> Report:
    network = view.network
    if network is None:
        return Report('engine', OK, 'not configured', {})
    estimator = None if view.pipeline is None else view.pipeline.estimator
    hfov_deg = view.parameters.assumed_hfov_deg
    lens = f'{hfov_deg:g} deg across' if hfov_deg else 'lens of the training'
    values: dict[str, Any] = {
        'checkpoint': network.path,
        'engine': view.parameters.engine,
        'device': network.engine.device,
        'early steps': 'on' if network.runs_early(view.parameters) else 'off',
        'calibration': f'assumed: {lens}' if view.calibration.camera is None else 'given',
    }
    if estimator is not None:
        pixels = estimator.pixels
        values['depth image'] = f'{pixels.image_width}x{pixels.image_height}'
        values['binning'] = f'{pixels.factor}x{pixels.factor}'
    if view.energy is not None:
        values |= view.energy.summary()
    if not network.checkpoint.trained:
        return Report('engine', WARN, UNTRAINED, values)
    if view.calibration.camera is None:
        return Report('engine', WARN, UNCALIBRATED, values)
    where = f'{network.path.name}: {view.parameters.engine} on {network.engine.device}'
    return Report('engine', OK, where, values)


def _totals(pipeline: Pipeline) -> dict[str, float]:
    """Running totals whose rates are reported."""
    stream, meters = pipeline.stream, pipeline.meters
    return {
        'messages': meters.messages + meters.unread,
        'unread': meters.unread,
        'bytes': meters.received_bytes + meters.unread_bytes,
        'events': stream.counts.events,
        'packets': stream.packets,
        'skipped': sum(stream.skipped.values()),
        'missing': stream.missing,
        'off the sensor': stream.counts.out_of_bounds,
        'frames': meters.frames,
        'dropped': pipeline.windows.dropped + pipeline.messages.dropped,
        'faults': pipeline.faults,
        'foreign': meters.foreign,
    }
