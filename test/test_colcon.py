"""`colcon build` of a copy of the checkout installs what ROS 2 tools look for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOT_SOURCE = ('.git', '.venv', 'build', 'install', 'log', 'out', '*.egg-info', '__pycache__',
              '.*_cache', '.hypothesis')  # fmt: skip
OF_RUNS = ('data', 'runs')  # at the top; the package has a folder data as well
COLCON = Path(sys.executable).parent / 'colcon'


def not_source(folder, names):
    at_the_top = set(OF_RUNS) if Path(folder) == ROOT else set()
    return at_the_top & set(names) | shutil.ignore_patterns(*NOT_SOURCE)(folder, names)


@pytest.mark.slow
@pytest.mark.skipif(not COLCON.exists(), reason='colcon is not installed')
def test_colcon_builds_and_installs_the_package(tmp_path):
    source = tmp_path / 'src' / 'spike_depth_ros'
    shutil.copytree(ROOT, source, ignore=not_source)
    path = f'{COLCON.parent}{os.pathsep}{os.environ["PATH"]}'
    built = subprocess.run(
        [COLCON, '--log-base', 'log', 'build', '--base-paths', 'src', '--event-handlers',
         'console_direct+'],
        cwd=tmp_path, env={**os.environ, 'PATH': path}, capture_output=True, text=True,
        timeout=240,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    prefix = tmp_path / 'install' / 'spike_depth_ros'
    for script in ('depth_node', 'replay_node', 'spike_depth'):
        assert os.access(prefix / 'lib' / 'spike_depth_ros' / script, os.X_OK)
    share = prefix / 'share' / 'spike_depth_ros'
    for file in (
        'package.xml',
        'launch/depth.launch.py',
        'config/depth.yaml',
        'config/depth.rviz',
    ):
        assert (share / file).read_bytes() == (ROOT / file).read_bytes()
    models = {model.name for model in (ROOT / 'models').glob('*.*')}
    assert {model.name for model in (share / 'models').glob('*.*')} == models
    marker = prefix / 'share' / 'ament_index' / 'resource_index' / 'packages' / 'spike_depth_ros'
    assert marker.exists()
    assert not (tmp_path / 'install' / 'event_camera_msgs').exists(), 'interfaces are not ours'
    where = next(prefix.glob('lib/python*/site-packages'))
    asked = ('import spike_depth_ros.events.config as c; print(c.__file__); '
             "print(c.shipped('config/depth.yaml'))")  # fmt: skip
    told = subprocess.run(
        [sys.executable, '-c', asked], cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(where)},
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout.split()  # fmt: skip
    assert all(Path(line).is_relative_to(prefix) for line in told), told
