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
@pytest.mark.parametrize('layout', [[], ['--symlink-install']])
def test_colcon_builds_a_package_whose_node_starts(tmp_path, layout):
    source = tmp_path / 'src' / 'spike_depth_ros'
    shutil.copytree(ROOT, source, ignore=not_source)
    path = f'{COLCON.parent}{os.pathsep}{os.environ["PATH"]}'
    environment = {name: v for name, v in os.environ.items() if name != 'PYTHONPATH'}
    environment['PATH'] = path
    built = subprocess.run(
        [COLCON, '--log-base', 'log', 'build', '--base-paths', 'src', '--event-handlers',
         'console_direct+', *layout],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    prefix = tmp_path / 'install' / 'spike_depth_ros'
    share = prefix / 'share' / 'spike_depth_ros'
    for file in ('package.xml', 'launch/depth.launch.py', 'config/depth.yaml',
                 'config/depth.rviz'):  # fmt: skip
        assert (share / file).read_bytes() == (ROOT / file).read_bytes()
    models = {model.name for model in (ROOT / 'models').glob('*.*')}
    assert {model.name for model in (share / 'models').glob('*.*')} == models
    marker = prefix / 'share' / 'ament_index' / 'resource_index' / 'packages' / 'spike_depth_ros'
    assert marker.exists()
    assert not (tmp_path / 'install' / 'event_camera_msgs').exists(), 'interfaces are not ours'

    def sourced(command):
        """Runs a command as somebody does who has sourced the workspace."""
        done = subprocess.run(
            ['bash', '-c', f'. install/setup.sh && {command}'], cwd=tmp_path, env=environment,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        return done.stdout + done.stderr

    asked = ('import spike_depth_ros.events.config as c; print(c.__file__); '
             "print(c.shipped('config/depth.yaml'))")  # fmt: skip
    told = sourced(f'{sys.executable} -c "{asked}"').split()
    assert len(told) == 2
    assert all(
        Path(line).resolve().is_relative_to(source if layout else prefix) for line in told
    ), told
    executables = prefix / 'lib' / 'spike_depth_ros'
    assert 'metric depth' in sourced(f'{executables}/spike_depth --help').lower()
    assert '/nowhere' in sourced(f'{executables}/replay_node --ros-args -p path:=/nowhere')
    node = f'{executables}/depth_node --ros-args -p checkpoint:=/nowhere.safetensors'
    assert 'cannot configure: ' in sourced(f'timeout --signal=INT 25 {node} 2>&1')
