"""The graph in miniature: replay_node and depth_node as processes, and a probe that listens."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import rclpy
from rcl_interfaces.srv import SetParameters
from rclpy.client import Client
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter

from spike_depth_ros.events.calibration_file import read_calibration
from spike_depth_ros.recordings import BagError, open_source
from spike_depth_ros.ros.probe import Probe, Recording

NODE = '/depth_node'
TRUTH_TOPIC = '/ground_truth/depth'
READY_S = 90.0
SETTLE_S = 15.0

TURN_S, CHANGE_S = 1.0, 0.2
"""Length of a turn of `compare`, and how long before it the parameter is set."""


class Turns(NamedTuple):
    """What was measured while a parameter had one of several values."""

    latency_ms: list[float]
    cores: list[float]  # processor time of depth_node per second, one for each turn


class Nodes(NamedTuple):
    """What the two nodes are started with; empty strings leave the params file's values.

    Attributes:
        drive: what replay_node plays; empty: not made yet.
        params: parameters file of the nodes.
        checkpoint: path; empty: as the node chooses.
        calibration: calibration file; empty: the drive's camera_info topic.
        topic: event topic of a bag that has several.
        engine: what runs the network.
        odometry: topic with the twist of the camera, for the scale of depth.
        sensor: size WIDTHxHEIGHT of the sensor, if the drive does not state it.
        time_unit: unit of the times of an HDF5 file, if it cannot be inferred.
    """

    drive: str
    params: str
    checkpoint: str = ''
    calibration: str = ''
    topic: str = ''
    engine: str = ''
    odometry: str = ''
    sensor: str = ''
    time_unit: str = ''

    def check(self) -> None:
        """Looks at all files now, before anything is rendered or started.

        Raises:
            ValueError, OSError: one is missing or not what it should be.
        """
        from spike_depth_ros.network.checkpoint import load_checkpoint

        if self.drive:
            with open_source(
                self.drive, self.topic or None, sensor=self.sensor, time_unit=self.time_unit
            ) as source:
                if source.end_ns is not None and source.end_ns == source.start_ns:
                    raise BagError(
                        f'{self.drive} has no duration: all its messages are of one time, which '
                        'gives no window of events; give a longer recording'
                    )
        if self.checkpoint:
            load_checkpoint(self.checkpoint)
        if self.calibration:
            read_calibration(self.calibration)
        if not Path(self.params).is_file():
            raise FileNotFoundError(f'no parameters file at {self.params}')

    def depth_arguments(self) -> list[str]:
        """Command line of depth_node."""
        return _ros_args(self.params, checkpoint=self.checkpoint, engine=self.engine,
                         camera_info_url=self.calibration, depth_encoding='32FC1',
                         odometry=self.odometry)  # fmt: skip

    def replay_arguments(self, **more: Any) -> list[str]:
        """Command line of replay_node."""
        return _ros_args(self.params, path=self.drive, topic=self.topic, sensor=self.sensor,
                         time_unit=self.time_unit, stamp='now', **more)  # fmt: skip


def play(
    nodes: Nodes, seconds: float, view: Sequence[str] | None = None, record: Path | None = None
) -> Recording:
    """Starts both nodes, listens until the drive has been played, stops them.

    Args:
        nodes: what to start.
        seconds: how much of the drive to play.
        view: arguments of `spike_depth view`, which then runs meanwhile; None: it does not.
        record: folder of the MCAP bag that the outputs are recorded into; None: they are not.

    Returns:
        The outputs as a subscriber received them.

    Raises:
        OSError: the depth node or the viewer did not start, or the run was interrupted.
        BagError: the outputs cannot be recorded.
    """
    with contextlib.ExitStack() as stack:
        probe, executor, depth = stack.enter_context(_active_node(nodes))
        if record is not None:
            from spike_depth_ros.ros.output_recorder import recorded_outputs

            stack.enter_context(recorded_outputs(record, NODE, executor))
        if view is not None:
            viewer = stack.enter_context(_command(['spike_depth_ros', 'view', *view]))
            count = probe.count_subscribers(f'{NODE}/depth/image')
            _spin(executor, READY_S, lambda: (
                probe.count_subscribers(f'{NODE}/depth/image') > count
                or viewer.poll() is not None
            ))  # fmt: skip
            if viewer.poll() is not None:
                raise OSError('the viewer did not start: its message above says why')
        print(f'depth_node is active; playing {nodes.drive}')
        with _played(nodes, seconds, probe, executor) as is_over:
            busy_s, start_s = _cpu_s(depth), time.monotonic()
            _spin(executor, seconds + READY_S, is_over)
        recording = probe.recording
        recording.node_cores = (_cpu_s(depth) - busy_s) / (time.monotonic() - start_s)
        _spin(executor, SETTLE_S, _is_settled(probe))  # the last maps, and the final counts
    return recording


def compare(
    nodes: Nodes, seconds: float, parameter: str, values: Sequence[str]
) -> dict[str, Turns]:  # fmt: skip
    """Gives a parameter of depth_node one value after the other, every second of one drive.

    Args:
        nodes: what to start.
        seconds: how much of the drive to play.
        parameter: a live one.
        values: that take turns.

    Returns:
        Value -> what was measured in its turns; values that had none are missing.

    Raises:
        OSError: the depth node did not start, or the run was interrupted.
    """
    turns: dict[str, Turns] = {}
    with (
        _active_node(nodes) as (probe, executor, depth),
        _played(nodes, seconds, probe, executor) as is_over,
    ):
        client: Client = probe.create_client(SetParameters, f'{NODE}/set_parameters')
        latency_ms = probe.recording.latency_ms
        _spin(executor, READY_S, lambda: is_over() or (latency_ms and client.service_is_ready()))
        for value in itertools.cycle(values):
            change = Parameter(parameter, value=value).to_parameter_msg()
            future = client.call_async(SetParameters.Request(parameters=[change]))
            _spin(executor, READY_S, lambda future=future: is_over() or future.done())
            _spin(executor, CHANGE_S, is_over)
            first, busy_s, start_s = len(latency_ms), _cpu_s(depth), time.monotonic()
            _spin(executor, TURN_S, is_over)
            if is_over():
                return turns
            turn = turns.setdefault(value, Turns([], []))
            turn.latency_ms.extend(latency_ms[first:])
            turn.cores.append((_cpu_s(depth) - busy_s) / (time.monotonic() - start_s))
    return turns


def idle_cores(nodes: Nodes, seconds: float) -> float:
    """Processor time per second of a depth node without subscribers, while a drive plays.

    Raises:
        OSError: the depth node did not start, or the run was interrupted.
    """
    with (
        _active_node(nodes, results=False) as (probe, executor, depth),
        _played(nodes, seconds, probe, executor) as is_over,
    ):
        busy_s, start_s = _cpu_s(depth), time.monotonic()
        _spin(executor, seconds + READY_S, is_over)
        return (_cpu_s(depth) - busy_s) / (time.monotonic() - start_s)


def first_map_s(nodes: Nodes) -> float:
    """Time from the start of depth_node's process to its first map, while a drive plays [s].

    Raises:
        OSError: no map came.
    """
    with (
        _probe() as (probe, executor),
        _process('replay_node', nodes.replay_arguments(loop='true')),
    ):
        _spin(executor, 3.0, lambda: False)
        start_s = time.monotonic()
        with _process('depth_node', nodes.depth_arguments()):
            _spin(executor, READY_S, lambda: bool(probe.recording.arrival_s))
    if not probe.recording.arrival_s:
        raise OSError('depth_node gave no map; its log above says why')
    return probe.recording.arrival_s[0] - start_s


@contextlib.contextmanager
def _active_node(
    nodes: Nodes, results: bool = True
) -> Iterator[tuple[Probe, SingleThreadedExecutor, subprocess.Popen]]:
    """A probe, what spins it, and the process of a depth node that is active."""
    arguments = nodes.depth_arguments()
    with _probe(results) as (probe, executor), _process('depth_node', arguments) as depth:
        _spin(executor, READY_S, lambda: (
            _is_active(probe) or _refusal(probe) or depth.poll() is not None
        ))  # fmt: skip
        if depth.poll() is not None or not _is_active(probe):
            reason = _refusal(probe) or 'its log above says why'
            raise OSError(f'depth_node did not become active: {reason}')
        yield probe, executor, depth


@contextlib.contextmanager
def _played(
    nodes: Nodes, seconds: float, probe: Probe, executor: SingleThreadedExecutor
) -> Iterator[Callable[[], bool]]:
    """Plays the drive; begins when the node receives events, and tells whether it is over."""
    arguments = nodes.replay_arguments(duration_s=seconds, wait_for_subscriber_s=20.0)
    with _process('replay_node', arguments) as replay:
        _spin(executor, READY_S, lambda: _receives(probe) or replay.poll() is not None)
        yield lambda: replay.poll() is not None


@contextlib.contextmanager
def _probe(results: bool = True) -> Iterator[tuple[Probe, SingleThreadedExecutor]]:
    """A probe and what spins it, in a domain of its own on this machine: no robot is met."""
    os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    rclpy.init()
    probe = Probe(NODE, TRUTH_TOPIC, results)
    executor = SingleThreadedExecutor()
    executor.add_node(probe)
    try:
        yield probe, executor
    except (KeyboardInterrupt, ExternalShutdownException) as error:
        raise OSError('interrupted') from error
    finally:
        probe.destroy_node()
        rclpy.try_shutdown()


def _cpu_s(process: subprocess.Popen) -> float:
    """Processor time of a process so far [s], of all its threads (proc(5), fields 14 and 15)."""
    text = Path(f'/proc/{process.pid}/stat').read_text(encoding='utf-8')
    fields = text.rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def _ros_args(params: str, **parameters: Any) -> list[str]:
    arguments = ['--ros-args', '--params-file', params]
    arguments += ['-r', 'events:=/event_camera/events']
    arguments += ['-r', 'camera_info:=/event_camera/camera_info']
    for name, value in parameters.items():
        if value:
            arguments += ['-p', f'{name}:={value}']
    return arguments


@contextlib.contextmanager
def _process(node: str, arguments: list[str]) -> Iterator[subprocess.Popen]:
    """Runs a node as a process, which is interrupted and awaited at the end."""
    with _command(['spike_depth_ros.ros.executables', node, *arguments]) as process:
        yield process


@contextlib.contextmanager
def _command(arguments: Sequence[str]) -> Iterator[subprocess.Popen]:
    """Runs a Python module as a process, which is interrupted and awaited at the end."""
    process = subprocess.Popen([sys.executable, '-m', *arguments])
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _spin(executor: Any, timeout_s: float, done: Any) -> None:
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s and not done():
        executor.spin_once(timeout_sec=0.05)


def _is_settled(probe: Probe) -> Callable[[], bool]:
    """Asks whether two reports in a row count the same; the next one may have been under way."""
    name = f'{NODE.lstrip("/")}: work'
    seen = probe.recording.diagnostics.get(name)
    counts: list[tuple[str, str]] = []

    def is_settled() -> bool:
        nonlocal seen
        report = probe.recording.diagnostics.get(name)
        if report is not None and report is not seen:
            seen = report
            counts.append((report['depth maps'], report['dropped windows']))
        return len(counts) >= 3 and counts[-1] == counts[-2]

    return is_settled


def _refusal(probe: Probe) -> str:
    """Why the node could not be configured; empty if it could, or tries still."""
    sentences = [status.get('message', '') for status in probe.recording.diagnostics.values()]
    return next((s for s in sentences if 'cannot configure' in s), '')


def _receives(probe: Probe) -> bool:
    """Whether the node says that events arrive."""
    report = probe.recording.diagnostics.get(f'{NODE.lstrip("/")}: input', {})
    return float(report.get('messages/s', 0)) > 0


def _is_active(probe: Any) -> bool:
    return any(status.get('state') == 'active' for status in probe.recording.diagnostics.values())
