"""The graph in miniature: replay_node and depth_node as processes, and a probe that listens."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from spike_depth_ros.ros.probe import Probe, Recording

NODE = '/depth_node'
TRUTH_TOPIC = '/ground_truth/depth'
READY_S = 90.0


def play(
    drive: str, seconds: float, params: str, checkpoint: str, calibration: str, topic: str
) -> Recording:
    """Starts both nodes, listens until the drive has been played, stops them.

    Args:
        drive: what replay_node plays.
        seconds: how much of it.
        params: parameters file of the nodes.
        checkpoint: path; empty: the one that comes with the package.
        calibration: calibration file; empty: the drive's camera_info topic.
        topic: event topic of a bag that has several.

    Returns:
        What a third party heard.

    Raises:
        OSError: the depth node did not become active, or the run was interrupted.
    """
    # a domain of its own, on this machine only: the demo meets no robot that is running
    os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    depth_args = _ros_args(params, checkpoint=checkpoint, camera_info_url=calibration,
                           depth_encoding='32FC1')  # fmt: skip
    replay_args = _ros_args(params, path=drive, topic=topic, duration_s=seconds, stamp='now',
                             wait_for_subscriber_s=20.0)  # fmt: skip
    rclpy.init()
    probe = Probe(NODE, TRUTH_TOPIC)
    executor = SingleThreadedExecutor()
    executor.add_node(probe)
    try:
        with _process('depth_node', depth_args) as depth:
            _spin(executor, READY_S, lambda: _is_active(probe) or depth.poll() is not None)
            if depth.poll() is not None or not _is_active(probe):
                raise OSError('depth_node did not become active; its log above says why')
            print(f'depth_node is active; playing {drive}')
            with _process('replay_node', replay_args) as replay:
                _spin(executor, seconds + READY_S, lambda: replay.poll() is not None)
            _spin(executor, 2.5, lambda: False)  # the last maps, and the final counts
        return probe.recording
    except (KeyboardInterrupt, ExternalShutdownException) as error:
        raise OSError('interrupted') from error
    finally:
        probe.destroy_node()
        rclpy.try_shutdown()


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
    """A node as a process, interrupted and waited for at the end."""
    command = [sys.executable, '-m', f'spike_depth_ros.ros.{node}', *arguments]
    process = subprocess.Popen(command)
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


def _is_active(probe: Any) -> bool:
    return any(status.get('state') == 'active' for status in probe.recording.diagnostics.values())
