"""The work behind the node's callbacks: four threads, each with its queue.

    messages -> [decode, cut windows] -> windows -> [inference, depth] -> frames -> [pictures]
                                                                       -> samples -> [energy]

Callbacks only enqueue. Each queue is bounded by count and age and drops its oldest, so that the
node is late by a bounded time, never more and more; where inference cannot keep up for long, it
takes the newest window. The last two queues hold one frame each: pictures and clouds are made, and
energy is measured, of the newest one, and never slow the depth image.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from spike_depth_ros.estimation.engine import EngineError
from spike_depth_ros.estimation.estimator import DepthFrame, Estimator, EstimatorOptions
from spike_depth_ros.events.camera import CalibrationError, Camera
from spike_depth_ros.events.config import ConfigError
from spike_depth_ros.events.jumps import JumpFilter
from spike_depth_ros.events.windows import Window
from spike_depth_ros.events.wire import EventStream, Packet
from spike_depth_ros.ros.clock import RosTimeClock, SensorClock
from spike_depth_ros.ros.depth_parameters import DepthParameters
from spike_depth_ros.ros.diagnostics import Meters
from spike_depth_ros.ros.queues import AgingQueue, Worker

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

LIVE_MS = 60_000.0
"""Stamps that are farther from ROS time than this are of a recording: their age says nothing."""


def _without_pause(windows: Iterator[Window]) -> Iterator[Window]:
    """Of windows that one message completes, leaves out the empty ones, but for the last.

    They are of a pause that is over: late news of nothing.
    """
    last = next(windows, None)
    for window in windows:
        if last is not None and last.event_count:
            yield last
        last = window
    if last is not None:
        yield last


class Job(NamedTuple):
    """A window on its way to inference."""

    window: Window
    estimator: Estimator
    stamp_ns: int  # ROS time of the window's end
    frame_id: str


class Result(NamedTuple):
    """A depth frame on its way to the topics."""

    frame: DepthFrame
    job: Job
    arrived_s: float


class Wiring(NamedTuple):
    """What the pipeline asks of the node and hands to it. All may be called from any thread.

    Attributes:
        parameters: the present parameters.
        camera: calibration of a sensor of that height and width; None for the training's lens.
            Raises CalibrationError while there is to be no depth.
        make_estimator: builds an estimator for (height, width, camera, options).
        prepare: called in the thread of inference before the first window.
        wanted: True if anybody would see a result.
        publish: called with each result, in order.
        show: called with the newest result, when there is time.
        measure: likewise, and may take its time: until the event is set.
        now_ns: ROS time.
        say: takes the sentence of a fault.
    """

    parameters: Callable[[], DepthParameters]
    camera: Callable[[int, int], Camera | None]
    make_estimator: Callable[[int, int, Camera | None, EstimatorOptions], Estimator]
    prepare: Callable[[], object]
    wanted: Callable[[], bool]
    publish: Callable[[Result], None]
    show: Callable[[Result], None]
    measure: Callable[[Result, threading.Event], None]
    now_ns: Callable[[], int]
    say: Callable[[str], None]


class Pipeline:
    """From serialized event messages of one topic to depth frames.

    Args:
        type_name: type of the messages.
        wiring: the node's side.

    Attributes:
        obstacle: why events do not become depth, as a sentence; empty if they do.
        clock: takes sensor time to ROS time.
        stream: the decoder, with its counts.
        jumps: drops events of wrong times, and finds jumps of sensor time.
        meters: durations and totals.
        recent: event arrays of the last messages, newest last.
        last: the newest result, None before the first.
    """

    def __init__(self, type_name: str, wiring: Wiring) -> None:
        parameters = wiring.parameters()
        self.type_name = type_name
        self.obstacle = ''
        self.clock = SensorClock() if type_name in SENSOR_TIME_TYPES else RosTimeClock()
        self.stream = EventStream(type_name)
        self.jumps = JumpFilter()
        self.meters = Meters()
        self.recent: deque[np.ndarray] = deque()
        self._recent_events = 0
        self.last: Result | None = None
        self.messages: AgingQueue[bytes] = AgingQueue(parameters.message_queue, MESSAGE_AGE_S)
        self.windows: AgingQueue[Job] = AgingQueue(
            parameters.window_queue, parameters.max_latency_ms / 1e3, PATIENCE_S
        )
        self.frames: AgingQueue[Result] = AgingQueue(1, math.inf)
        self.samples: AgingQueue[Result] = AgingQueue(1, math.inf)
        self._needed: tuple[Worker, ...] = (
            Worker('decode', self.messages, self._decode, wiring.say),
            Worker('inference', self.windows, self._infer, wiring.say, begin=wiring.prepare),
            Worker('pictures', self.frames, self._show, wiring.say, niceness=10),
        )
        energy = Worker('energy', self.samples, self._measure, wiring.say, niceness=10)
        self.workers: tuple[Worker, ...] = (*self._needed, energy)
        self._stopped = threading.Event()
        self._wiring = wiring
        self._estimator: Estimator | None = None
        self._built_for: tuple | None = None
        self._reset_asked = False
        self._last_stamp_ns: int | None = None

    def start(self) -> None:
        """Starts the threads."""
        for worker in self.workers:
            worker.start()

    def stop(self, timeout_s: float) -> bool:
        """Ends the threads; False if one is still busy after `timeout_s` seconds."""
        self._stopped.set()
        for queue in (self.messages, self.windows, self.frames, self.samples):
            queue.close()
        until = time.monotonic() + timeout_s
        ended = [worker.join(max(0.0, until - time.monotonic())) for worker in self.workers]
        return all(ended)

    def put(self, cdr: bytes) -> None:
        """Takes one message; returns at once."""
        self.messages.put(cdr, time.monotonic())

    def reset(self) -> None:
        """Asks for everything of earlier events to be forgotten, from the next message on."""
        self._reset_asked = True

    def set_max_latency(self, max_latency_ms: float) -> None:
        """Changes the age from which on waiting windows are dropped."""
        self.windows.max_age_s = max_latency_ms / 1e3

    @property
    def given_up(self) -> str:
        """Why a thread has stopped for good; empty while all work that the outputs need."""
        return next((w.given_up for w in self._needed if w.given_up), '')

    @property
    def faults(self) -> int:
        """Number of items whose processing failed."""
        return sum(worker.faults for worker in self.workers)

    @property
    def estimator(self) -> Estimator | None:
        """What estimates at present; None before the first events."""
        return self._estimator

    def _decode(self, cdr: bytes, arrived_s: float) -> None:
        if self._reset_asked:
            self.stream.reset()
            self.jumps.reset()
            self.clock.reset()
            self._forget()
        start_s = time.perf_counter()
        fed = self.stream.feed(cdr)
        self.meters.took('decode', start_s)
        self.meters.messages += 1
        self.meters.received_bytes += len(cdr)
        if fed is None or len(fed[1].events) == 0:
            return
        packet, decoded = fed
        runs = self.jumps.push(decoded.events)
        stamp_ns = packet.stamp_ns or self._wiring.now_ns()  # some drivers leave it zero
        for run in runs:
            self._remember(run.events)
            if self.clock.update(stamp_ns, *run[1:]):
                self._forget()
        estimator = self._estimator_for(packet)
        if estimator is None:
            return
        frame_id = self._wiring.parameters().frame_id or packet.frame_id or DEFAULT_FRAME
        start_s = time.perf_counter()
        windows = itertools.chain.from_iterable(map(estimator.windower.take, runs))
        for window in _without_pause(windows):
            stamp_ns = self._stamp_ns(window.t1_ns)
            self.windows.put(Job(window, estimator, stamp_ns, frame_id), arrived_s)
        self.meters.took('accumulate', start_s)

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
        self._reset_asked = False
        self._last_stamp_ns = None
        self.meters.resets += 1
        self.windows.clear()
        if self._estimator is not None:
            self._estimator.windower.reset()

    def _estimator_for(self, packet: Packet) -> Estimator | None:
        """The estimator for this packet's sensor; None if there shall be or can be no depth."""
        if not self._wiring.wanted():
            if self._estimator is not None:
                self._estimator.windower.reset()
            return None
        options = self._wiring.parameters().estimator_options
        try:
            camera = self._wiring.camera(packet.height, packet.width)
            # limits are looked at with every answer: they may change without building anew
            needs = (packet.height, packet.width, camera, options.without_limits)
            if needs != self._built_for:
                self._estimator = self._wiring.make_estimator(*needs)
                self._built_for = needs
            assert self._estimator is not None
            self._estimator.options = options
        except (CalibrationError, ConfigError, EngineError) as error:
            if self.obstacle != str(error):
                self._wiring.say(str(error))
            self.obstacle, self._estimator, self._built_for = str(error), None, None
            return None
        self.obstacle = ''
        return self._estimator

    def _infer(self, job: Job, arrived_s: float) -> None:
        start_s = time.perf_counter()
        frame = job.estimator.infer(job.window)
        self.meters.took('inference', start_s)
        if self.windows.closed:  # the node may have gone on without waiting for this
            return
        self.last = Result(frame, job, arrived_s)
        start_s = time.perf_counter()
        self._wiring.publish(self.last)
        self.meters.took('publish', start_s)
        self.meters.frames += 1
        self.meters.add_ms('latency', 1e3 * (time.monotonic() - arrived_s))
        age_ms = (self._wiring.now_ns() - job.stamp_ns) / 1e6
        if abs(age_ms) < LIVE_MS:
            self.meters.add_ms('age', age_ms)
        self.frames.put(self.last, arrived_s)
        self.samples.put(self.last, arrived_s)

    def _show(self, result: Result, arrived_s: float) -> None:
        start_s = time.perf_counter()
        self._wiring.show(result)
        self.meters.took('pictures', start_s)

    def _measure(self, result: Result, arrived_s: float) -> None:
        self._wiring.measure(result, self._stopped)
