"""The work behind the node's callbacks: five threads, each with its queue.

    messages -> [decode, cut windows] -> windows -> [inference, depth] -> frames -> [pictures]
                                                                       -> samples -> [energy]

Callbacks only enqueue. Each queue is bounded by count and age and drops its oldest, so that the
node is late by a bounded time, never more and more; where inference cannot keep up for long, it
takes the newest window. While no window waits, it is offered the steps of the next one that are
over (parameter `early_steps`). The last two queues hold one frame each: pictures and clouds are
made, and energy is measured, of the newest one, and never slow the depth image.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import deque
from typing import NamedTuple

import numpy as np
from rclpy.clock import Clock
from rclpy.publisher import Publisher

from spike_depth_ros.estimation.engine import EngineError
from spike_depth_ros.estimation.estimator import DepthEstimator
from spike_depth_ros.estimation.scale import LONGEST_NS, MOST_SEEN
from spike_depth_ros.events.arrays import join_events
from spike_depth_ros.events.camera import CalibrationError
from spike_depth_ros.events.config import ConfigError
from spike_depth_ros.events.jumps import JumpFilter
from spike_depth_ros.events.windows import without_pause
from spike_depth_ros.events.wire import EventStream, Packet
from spike_depth_ros.ros.calibration import Calibration
from spike_depth_ros.ros.clock import RosTimeClock, SensorClock
from spike_depth_ros.ros.condition_log import ConditionLog
from spike_depth_ros.ros.depth_parameters import DepthParameters
from spike_depth_ros.ros.diagnostics import Meters
from spike_depth_ros.ros.energy_meter import EnergyMeter
from spike_depth_ros.ros.loaded_network import LoadedNetwork
from spike_depth_ros.ros.odometry import ScaleInput
from spike_depth_ros.ros.outputs import Outputs
from spike_depth_ros.ros.params import Live
from spike_depth_ros.ros.queues import AgingQueue, Worker
from spike_depth_ros.ros.results import EarlyJob, Job, Needs, Result
from spike_depth_ros.ros.sensor_gate import SensorGate

SENSOR_TIME_TYPES = ('event_camera_msgs/msg/EventPacket', 'event_array_msgs/msg/EventArray')
"""Message types whose events carry sensor time; the others carry ROS time."""

DEFAULT_FRAME = 'event_camera_optical_frame'
"""Where neither the events nor the parameters name a frame."""

RECENT_NS, MAX_RECENT_EVENTS = 12_000_000_000, 2_000_000
"""What is kept for a snapshot: the longest window and its way through the node; 32 MB at most."""

MESSAGE_AGE_S = 2.0
"""Messages wait longer than windows may: a backlog of them is decoded at once, hundreds of times
faster than it came, and what is too old is then dropped as whole windows. A dropped message leaves
a hole in the stream."""

PATIENCE_S = 1.0
"""Inference may catch up with waiting windows for so long; then it takes the newest, until it has
kept up for as long."""

TOGETHER = 16
"""So many windows that one message completes do not push each other out of the queue."""

REBUILD_S = 1.0
"""Another calibration waits for this long since the estimator was built."""

LIVE_MS = 60_000.0
"""Stamps that are farther from ROS time than this are of a recording: their age says nothing."""


class Parts(NamedTuple):
    """What a pipeline works with. All of it may be used from any thread.

    Attributes:
        live: the parameters of the node.
        network: what runs.
        calibration: of the camera.
        outputs: where results go.
        energy: measures the network now and then, while /diagnostics has a subscriber.
        scale: measures the scale of depth by the motion of the robot.
        diagnostics: the publisher of /diagnostics.
        clock: ROS time.
        log: of the node.
    """

    live: Live[DepthParameters]
    network: LoadedNetwork
    calibration: Calibration
    outputs: Outputs
    energy: EnergyMeter
    scale: ScaleInput
    diagnostics: Publisher
    clock: Clock
    log: ConditionLog


class Pipeline:
    """From serialized event messages of one topic to depth frames.

    Args:
        type_name: type of the messages.
        parts: what it works with.

    Attributes:
        clock: takes sensor time to ROS time.
        stream: the decoder, with its counts.
        jumps: drops events of wrong times, and finds jumps of sensor time.
        meters: durations and totals.
        frame_id: optical frame of the newest events; empty before the first.
        recent: event arrays of the last messages, newest last.
        last: the newest result, None before the first.
    """

    def __init__(self, type_name: str, parts: Parts) -> None:
        parameters = parts.live.now
        self.type_name = type_name
        self.clock = SensorClock() if type_name in SENSOR_TIME_TYPES else RosTimeClock()
        self.stream = EventStream(type_name)
        self.jumps = JumpFilter()
        self.meters = Meters()
        self.frame_id = ''
        self.recent: deque[np.ndarray] = deque()
        self._recent_events = 0
        self.last: Result | None = None
        self.messages: AgingQueue[bytes | None] = AgingQueue(
            parameters.message_queue, MESSAGE_AGE_S
        )
        self.windows: AgingQueue[Job | EarlyJob] = AgingQueue(
            parameters.window_queue, parameters.max_latency_ms / 1e3, PATIENCE_S, TOGETHER
        )
        self.frames: AgingQueue[Result] = AgingQueue(1, math.inf)
        self.samples: AgingQueue[Result] = AgingQueue(1, math.inf)
        self.looks: AgingQueue[Result] = AgingQueue(1, math.inf)
        self.workers: dict[str, Worker] = {
            worker.name: worker
            for worker in (
                Worker('decode', self.messages, self._decode, self._on_fault),
                Worker('inference', self.windows, self._infer, self._on_fault, begin=self._begin),
                Worker('pictures', self.frames, self._show, self._on_fault, niceness=10),
                Worker('energy', self.samples, self._measure, self._on_fault, niceness=10),
                Worker('scale', self.looks, self._measure_scale, self._on_fault, niceness=5),
            )
        }
        self._stopped = threading.Event()
        self._parts = parts
        self._gate = SensorGate()
        self._obstacle = ''
        self._estimator: DepthEstimator | None = None
        self._built_for: Needs | None = None
        self._built_s = -math.inf
        self._skipping = False
        self._resets_asked = self._resets_done = 0
        self._last_stamp_ns: int | None = None

    def start(self) -> None:
        """Starts the threads."""
        for worker in self.workers.values():
            worker.start()

    def stop(self, timeout_s: float) -> bool:
        """Ends the threads; False if one is still busy after `timeout_s` seconds."""
        self._stopped.set()
        for queue in (self.messages, self.windows, self.frames, self.samples, self.looks):
            queue.close()
        until = time.monotonic() + timeout_s
        workers = self.workers.values()
        ended = [worker.join(max(0.0, until - time.monotonic())) for worker in workers]
        return all(ended)

    def put(self, cdr: bytes) -> None:
        """Takes one message; returns at once."""
        if self._skipping:
            self._skipping = False
            self.messages.put(None, time.monotonic())
        self.messages.put(cdr, time.monotonic())

    def skip(self, messages: list[bytes]) -> None:
        """Counts messages that are not needed: only the last one is looked at, not decoded."""
        self._skipping = True
        self.meters.unread += len(messages)
        self.meters.unread_bytes += sum(map(len, messages))
        packet = self.stream.parse(messages[-1]) if messages else None
        if packet is not None:
            self._name_frame(packet)

    def reset(self) -> None:
        """Asks for all earlier events to be forgotten, from the next message on."""
        self._resets_asked += 1

    def set_max_latency(self, max_latency_ms: float) -> None:
        """Changes the age from which on waiting windows are dropped."""
        self.windows.max_age_s = max_latency_ms / 1e3

    @property
    def obstacle(self) -> str:
        """Why events do not become depth, as a sentence; empty if they do."""
        needed = (self.workers[name].trouble for name in ('decode', 'inference', 'pictures'))
        return next(filter(None, needed), self._obstacle)

    @property
    def faults(self) -> int:
        """Number of items whose processing failed."""
        return sum(worker.faults for worker in self.workers.values())

    @property
    def estimator(self) -> DepthEstimator | None:
        """What estimates at present; None before the first events."""
        return self._estimator

    def _decode(self, cdr: bytes | None, arrived_s: float) -> None:
        if cdr is None:  # messages were skipped: what follows does not continue what was before
            self.stream.reset()
            self.jumps.reset()
            self._rest()
            return
        asked = self._resets_asked  # one that is asked for from here on is for the next message
        if asked != self._resets_done:
            self._resets_done = asked
            self.stream.reset()
            self.jumps.reset()
            self.clock.reset()
            self._forget()
        self.meters.messages += 1
        self.meters.received_bytes += len(cdr)
        start_s = time.perf_counter()
        packet = self.stream.parse(cdr)
        if packet is None or not self._is_of_this_sensor(packet):
            return
        decoded = self.stream.decode(packet)
        self.meters.took('decode', start_s)
        if len(decoded.events) == 0:
            return
        self._name_frame(packet)
        runs = self.jumps.push(decoded.events)
        stamp_ns = packet.stamp_ns or self._now_ns()  # some drivers leave it zero
        for run in runs:
            self._remember(run.events)
            if self.clock.update(stamp_ns, *run[1:]):
                self._forget()
        estimator = self._estimator_for(packet)
        if estimator is None:
            return
        limits, frame_id = self._parts.live.now.estimator_options.limits, self.frame_id
        start_s = time.perf_counter()
        windows = itertools.chain.from_iterable(map(estimator.windower.take, runs))
        for window in without_pause(windows):
            stamp_ns = self._stamp_ns(window.t1_ns)
            self.windows.put(Job(window, estimator, stamp_ns, frame_id, limits), arrived_s)
        begun = estimator.windower.begun()
        if begun is not None and self._parts.network.runs_early(self._parts.live.now):
            self.windows.offer(EarlyJob(begun, estimator), arrived_s)
        self.meters.took('accumulate', start_s)

    def _name_frame(self, packet: Packet) -> None:
        self.frame_id = self._parts.live.now.frame_id or packet.frame_id or DEFAULT_FRAME

    def _is_of_this_sensor(self, packet: Packet) -> bool:
        """False for messages of another size that alternate with those of the present sensor."""
        size = (packet.height, packet.width)
        if self._gate.admits(size):
            return True
        height, width = self._gate.size or size
        self._parts.log.error(
            'sensor',
            f'messages of a {packet.width}x{packet.height} sensor are left out, the others on '
            f'this topic are of a {width}x{height} sensor: do two cameras publish on it?',
        )
        self.meters.foreign += 1
        return False

    def _now_ns(self) -> int:
        ns: int = self._parts.clock.now().nanoseconds
        return ns

    def _stamp_ns(self, sensor_ns: int) -> int:
        """ROS time of a sensor time; it rises, even where the offset is still being learnt."""
        stamp_ns = self.clock.to_ros(sensor_ns)
        if self._last_stamp_ns is not None:
            stamp_ns = max(stamp_ns, self._last_stamp_ns + 1)
        self._last_stamp_ns = stamp_ns
        return stamp_ns

    def _remember(self, events: np.ndarray) -> None:
        self.recent.append(events)
        self._recent_events += len(events)
        newest_ns = events['t_ns'][-1]
        while len(self.recent) > 1 and (
            self._recent_events > MAX_RECENT_EVENTS
            or abs(newest_ns - self.recent[0]['t_ns'][-1]) > RECENT_NS
        ):
            self._recent_events -= len(self.recent.popleft())

    def _forget(self) -> None:
        self._last_stamp_ns = None
        self.meters.resets += 1
        self.windows.clear()
        if self._estimator is not None:
            self._estimator.windower.reset()
            if self._estimator.tracker is not None:
                self._estimator.tracker.reset()

    def _estimator_for(self, packet: Packet) -> DepthEstimator | None:
        """The estimator for this packet's sensor; None if there is to be or can be no depth."""
        parts = self._parts
        if not (parts.live.now.enabled and parts.outputs.wanted()):
            self._rest()
            return None
        # limits come with each window: they may change without building anew
        options = parts.live.now.estimator_options.without_limits
        try:
            camera = parts.calibration.camera_for(
                packet.height, packet.width, parts.network.checkpoint
            )
            needs = Needs(packet.height, packet.width, camera, options)
            if self._is_to_be_built(needs):
                self._estimator = parts.network.estimator(*needs)
                self._built_for, self._built_s = needs, time.monotonic()
                sentence = f'estimating depth from a {packet.width}x{packet.height} sensor'
                parts.log.info('estimator', sentence)
        except (CalibrationError, ConfigError, EngineError) as error:
            self._obstacle = str(error)
            self._rest()
            return None
        self._obstacle = ''
        return self._estimator

    def _is_to_be_built(self, needs: Needs) -> bool:
        """True if the present estimator does not do; calibrations that alternate wait a second."""
        built_for = self._built_for
        if built_for is None or needs == built_for:
            return built_for is None
        only_camera = needs._replace(camera=built_for.camera) == built_for
        return not only_camera or time.monotonic() - self._built_s > REBUILD_S

    def _rest(self) -> None:
        """Forgets the events of the window that has begun: others are left out from now on."""
        if self._estimator is not None:
            self._estimator.windower.reset()

    def _begin(self) -> None:
        """The first window in a thread takes longer: an empty one does."""
        parts = self._parts
        options, camera = parts.live.now.estimator_options, parts.calibration.camera
        parts.network.run_empty_window(options, camera)

    def _infer(self, job: Job | EarlyJob, arrived_s: float) -> None:
        start_s = time.perf_counter()
        if isinstance(job, EarlyJob):
            job.estimator.run_ahead(job.begun)
            self.meters.took('early steps', start_s)
            return
        frame = job.estimator.infer(job.window, job.limits)
        self.meters.took('inference', start_s)
        if self.windows.closed:  # the node may have gone on without waiting for this
            return
        self.last = Result(frame, job, arrived_s)
        start_s = time.perf_counter()
        self._parts.outputs.publish(self.last)
        self.meters.took('publish', start_s)
        self.meters.frames += 1
        self.meters.add_ms('latency', 1e3 * (time.monotonic() - arrived_s))
        age_ms = (self._now_ns() - job.stamp_ns) / 1e6
        if abs(age_ms) < LIVE_MS:
            self.meters.add_ms('age', age_ms)
        self.frames.put(self.last, arrived_s)
        self.samples.put(self.last, arrived_s)
        self.looks.put(self.last, arrived_s)

    def _show(self, result: Result, arrived_s: float) -> None:
        start_s = time.perf_counter()
        self._parts.outputs.show(result)
        self.meters.took('pictures', start_s)

    def _measure(self, result: Result, arrived_s: float) -> None:
        if self._parts.diagnostics.get_subscription_count() > 0:
            period_s = self._parts.live.now.energy_period_s
            self._parts.energy.look(result.job.window.spikes, period_s, self._stopped)

    def _measure_scale(self, result: Result, arrived_s: float) -> None:
        """Measures the scale of later depth maps by this one and the events before it."""
        if not self._parts.live.now.scales:
            return
        start_s = time.perf_counter()
        start_ns, count, parts = result.frame.stamp_ns - LONGEST_NS, 0, []
        for events in reversed(list(self.recent)):
            parts.append(events)
            count += len(events) if events['t_ns'][0] < result.frame.stamp_ns else 0
            if events['t_ns'][0] < start_ns or count > MOST_SEEN:
                break
        self._parts.scale.measure(result, join_events(parts[::-1]), self._stopped)
        self.meters.took('scale', start_s)

    def _on_fault(self, sentence: str) -> None:
        self._parts.log.error(sentence.partition(':')[0], sentence)
