"""`make setup EXTRAS=` on a robot: beside a sourced ROS 2, with a torch that is there already."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OF_TRAINING = ('lightning', 'torchmetrics', 'tensorboard', 'transformers')
SOURCES = ('Makefile', 'README.md', 'config', 'interfaces', 'launch', 'models', 'package.xml',
           'pyproject.toml', 'resource', 'setup.cfg', 'setup.py', 'spike_depth_ros',
           'test')  # fmt: skip


def requirements(*extras):
    """What the set-up installs with these extras, without versions."""
    done = subprocess.run(
        [sys.executable, ROOT / 'interfaces' / 'requirements.py', ROOT / 'setup.py', *extras],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.split() or [done.stderr]


def test_extras_are_chosen_by_name():
    of_robot, everything = requirements('-'), requirements()
    names = {re.split('[<>=]', line)[0] for line in of_robot}
    assert {'torch', 'h5py', 'loguru'} <= names
    assert set(of_robot) < set(everything)
    assert not set(OF_TRAINING) & set(of_robot)
    assert set(OF_TRAINING) <= set(requirements('train')) < set(everything)
    assert requirements('robots')[0].startswith('EXTRAS names robots, expected some of: ')


@pytest.fixture(scope='module')
def robot(tmp_path_factory):
    """A checkout that was set up on a robot: its folder, what was printed, the environment.

    The environment of these tests plays the ROS 2 that is sourced; nothing can be downloaded.
    """
    folder = tmp_path_factory.mktemp('robot') / 'spike_depth_ros'
    ignore = shutil.ignore_patterns('__pycache__', '.*')
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
        else:
            folder.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    environment = {
        **os.environ,
        'AMENT_PREFIX_PATH': sys.prefix,
        'ROS_DISTRO': 'kilted',
        'PYTHONPATH': sysconfig.get_path('purelib'),
        'PYTHON': sys.executable,
        'PIP_NO_INDEX': '1',
        'XDG_CACHE_HOME': str(folder.parent / 'cache'),
    }
    environment.pop('NUMBA_CACHE_DIR', None)
    done = subprocess.run(
        ['make', 'setup', 'EXTRAS='], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout, environment


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_set_up_keeps_what_is_there(robot):
    folder, printed, _ = robot
    torch = importlib.metadata.version('torch')
    assert 'making .venv on top of ROS 2 kilted' in printed
    assert f'keeping torch {torch}' in printed
    assert not [line for line in printed.splitlines() if line.startswith('Installing')]
    constraints = (folder / '.venv' / 'constraints.txt').read_text().splitlines()
    assert f'torch=={torch}' in constraints
    assert f'numpy=={importlib.metadata.version("numpy")}' in constraints
    wanted = (folder / '.venv' / 'requirements.txt').read_text().split()
    assert not set(OF_TRAINING) & set(wanted)
    assert 'colcon-common-extensions' in wanted


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_after_the_set_up_the_node_compiles_nothing(robot):
    """A kernel that the node may call, but that `every_kernel` does not reach, fails this too."""
    folder, printed, environment = robot
    assert 'depth_node will run ' in printed
    done = subprocess.run(
        [folder / '.venv' / 'bin' / 'python', 'test/every_kernel.py'],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {'compiled': [], 'unused': []}
