"""`spike_depth demo`: the whole graph on one drive, over real DDS, and a report of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spike_depth_ros.ros.probe import Recording

NODE = '/depth_node'
TRUTH_TOPIC = '/ground_truth/depth'
READY_S = 90.0
DRIVE_SCENE, DRIVE_SENSOR = 'street', '346x260'


def demo(
    source: str = '',
    out: str = 'out/demo',
    seconds: float = 10.0,
    seed: int = 3_000_007,
    params: str = '',
    checkpoint: str = '',
    calibration: str = '',
    topic: str = '',
) -> None:
    """Runs replay_node and depth_node on a drive and writes a report folder.

    The two nodes are processes of their own with the parameters of config/depth.yaml; a third
    process subscribes to what they publish. The report holds pictures of events, depth,
    confidence and cloud, a video, report.html and demo.json.

    Args:
        source: bag, DSEC folder, events.h5 or .raw; empty: a synthetic drive made for this.
        out: folder of the report.
        seconds: how much of the drive to play.
        seed: world of the synthetic drive; not among those that the network was trained on.
        params: parameters file of the nodes; empty: the one that comes with the package.
        checkpoint: path of a checkpoint; empty: the one that comes with the package.
        calibration: calibration file of the camera; empty: the drive's camera_info topic.
        topic: event topic of a bag that has several.
    """
    from spike_depth_ros.bags import open_source
    from spike_depth_ros.config import shipped

    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    drive = source or str(_synthetic_drive(folder, seed, seconds))
    open_source(drive, topic or None)  # a bad path is told now, before anything is started
    parameters = params or str(shipped('config/depth.yaml'))
    recording = _run(drive, seconds, parameters, checkpoint, calibration, topic)
    if not recording.depth_m:
        reasons = [status.get('message', '') for status in recording.diagnostics.values()]
        raise OSError(f'the node published no depth; it says: {"; ".join(reasons) or "nothing"}')
    from spike_depth_ros.cli.demo_report import write_report

    figures = write_report(folder, recording, drive, made=not source)
    print(json.dumps(figures, indent=2))
    print(f'\nreport: {folder / "report.html"}')


def _synthetic_drive(folder: Path, seed: int, seconds: float) -> Path:
    """Renders the drive once; a later demo finds it."""
    from spike_depth_ros.cli.synth import synth

    drives = folder / f'drive-{DRIVE_SCENE}-{DRIVE_SENSOR}-{seed}-{seconds:g}s'
    print(f'rendering {seconds:g} s of a synthetic drive (once)')
    synth(str(drives), scene=DRIVE_SCENE, seed=seed, sequences=1, seconds=seconds,
          sensor=DRIVE_SENSOR, layout='bag')  # fmt: skip
    return next(path for path in sorted(drives.iterdir()) if not path.name.startswith('.'))


def _run(
    drive: str, seconds: float, params: str, checkpoint: str, calibration: str, topic: str
) -> Recording:
    """Starts both nodes, listens until the drive has been played, stops them."""
    # a domain of its own, on this machine only: the demo meets no robot that is running
    os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    import rclpy
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

    from spike_depth_ros.ros.probe import Probe

    depth_args = _ros_args(params, checkpoint=checkpoint, camera_info_url=calibration)
    replay_args = _ros_args(params, path=drive, topic=topic, duration_s=seconds, stamp='now')
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
            _spin(executor, 2.5, lambda: False)
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
