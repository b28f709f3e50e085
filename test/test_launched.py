"""The launch files, started for real: what runs afterwards, under which names and topics."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from event_camera_msgs.msg import EventPacket
from graph import BEST_EFFORT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec('launch_ros') is None, reason='launch_ros is not on PyPI'
    ),
]

ROOT = Path(__file__).resolve().parents[1]
LAUNCH = """
import sys
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch import LaunchDescription, LaunchService
file, *given = sys.argv[1:]
service = LaunchService(argv=[])
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
    PythonLaunchDescriptionSource(file), launch_arguments=[a.split(':=', 1) for a in given])]))
sys.exit(service.run())
"""
OURS = 'from spike_depth_ros.ros import executables; executables.{name}()'
DRIVER = """
import rclpy
from event_camera_msgs.msg import EventPacket
rclpy.init()
node = rclpy.create_node('driver', automatically_declare_parameters_from_overrides=True)
node.create_publisher(EventPacket, '~/events', 10)
given = dict((name, p.value) for name, p in node.get_parameters_by_prefix('').items())
print('driver:', __import__('json').dumps(given), flush=True)
rclpy.spin(node)
"""


@pytest.fixture
def prefix(tmp_path):
    """An installation of this package, and of a driver that publishes nothing."""
    codes = {'spike_depth_ros': {name: OURS.format(name=name)
                                 for name in ('depth_node', 'replay_node')},
             'metavision_driver': {'driver_node': DRIVER}}  # fmt: skip
    for package, executables in codes.items():
        index = tmp_path / 'share' / 'ament_index' / 'resource_index' / 'packages'
        index.mkdir(parents=True, exist_ok=True)
        (index / package).touch()
        for name, code in executables.items():
            file = tmp_path / 'lib' / package / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f'#!{sys.executable}\n{code}\n')
            file.chmod(0o755)
    return tmp_path


@pytest.fixture
def launch(prefix, checkpoint_file):
    """Starts a launch file; what it prints is in `prefix / 'log'`."""
    running = []

    def launch(*arguments, file='depth.launch.py'):
        path = os.pathsep.join([str(prefix), os.environ.get('AMENT_PREFIX_PATH', sys.prefix)])
        with (prefix / 'log').open('w') as log:
            process = subprocess.Popen(
                [sys.executable, '-c', LAUNCH, ROOT / 'launch' / file,
                 f'checkpoint:={checkpoint_file}', *arguments],
                env={**os.environ, 'AMENT_PREFIX_PATH': path, 'ROS_LOG_DIR': str(prefix)},
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        running.append(process)
        return process

    yield launch
    for process in running:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def full_names(graph):
    found = graph.camera.get_node_names_and_namespaces()
    return {f'{space.rstrip("/")}/{name}' for name, space in found} - {'/camera'}


def started(prefix):
    """Process ids of the nodes that launch says it has started."""
    return [int(p) for p in re.findall(r'started with pid \[(\d+)\]', read(prefix))]


def read(prefix):
    return (prefix / 'log').read_text()


def test_the_namespace_moves_all_topics(graph, launch, prefix):
    launch('namespace:=/robot')
    events = graph.camera.create_publisher(EventPacket, '/robot/event_camera/events', BEST_EFFORT)
    assert graph.spin_until(lambda: events.get_subscription_count() == 1), (
        prefix / 'log'
    ).read_text()
    assert full_names(graph) == {'/robot/depth_node'}
    assert graph.camera.count_subscribers('/robot/event_camera/camera_info') == 1
    published = {topic for topic, _ in graph.camera.get_publisher_names_and_types_by_node(
        'depth_node', '/robot')}  # fmt: skip
    assert {'/robot/depth_node/depth/image', '/robot/depth_node/events/image'} <= published


def test_name_autostart_and_respawn(graph, launch, prefix):
    launch('name:=front', 'autostart:=false', 'respawn:=true', 'events:=/eye/events')
    assert graph.spin_until(lambda: full_names(graph) == {'/front'}), read(prefix)
    graph.spin_for(2.0)
    assert graph.camera.count_publishers('/front/depth/image') == 0, 'it waits for a manager'
    (pid,) = started(prefix)
    os.kill(pid, signal.SIGKILL)
    assert graph.spin_until(lambda: len(started(prefix)) == 2)


def test_two_cameras_with_their_drivers(graph, launch, prefix):
    launch('camera:=metavision', 'left_serial:=11', 'right_serial:=0022',
           file='two_cameras.launch.py')  # fmt: skip
    expected = {f'/{side}/{node}' for side in ('left', 'right')
                for node in ('depth_node', 'event_camera')}  # fmt: skip
    assert graph.spin_until(lambda: full_names(graph) == expected), read(prefix)
    for side in ('left', 'right'):
        topic = f'/{side}/event_camera/events'
        assert graph.spin_until(lambda topic=topic: graph.camera.count_subscribers(topic) == 1)
        assert graph.camera.count_publishers(topic) == 1
    lines = [line.partition('driver: ')[2] for line in read(prefix).splitlines()]
    told = [json.loads(line) for line in lines if line]
    assert sorted((d['serial'], d['frame_id']) for d in told) == [
        ('0022', 'right_camera_optical_frame'), ('11', 'left_camera_optical_frame'),
    ]  # fmt: skip


def test_a_refused_argument_starts_nothing(graph, launch, prefix):
    process = launch('engine:=steam')
    assert process.wait(60) != 0
    assert "engine is 'steam', expected one of auto, torch" in read(prefix)
    assert full_names(graph) == set()
