"""Shared fixtures: the slow flag, and the real recordings that may lie beside the project."""

import fcntl
import os
import tempfile
from pathlib import Path

import pytest

pytest_plugins = ('depth_node_fixtures',)

REAL_EVENTS = Path(__file__).resolve().parents[2] / 'shared' / 'real_events'

DOMAINS = range(1, 101)  # above, ports meet those that Linux hands out


def domain_of_this_run():
    """A ROS domain that no other run has, and the lock that keeps it until this one ends."""
    for domain in DOMAINS:
        try:
            lock = (Path(tempfile.gettempdir()) / f'spike_depth_ros_domain_{domain}').open('w')
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return domain, lock
        except OSError:  # another run's, or another user's
            continue
    raise RuntimeError('all ROS domains are taken by other runs of these tests')


# on this machine only, and alone: runs side by side, and the workers of pytest-xdist, which all
# import this file, never hear each other
DOMAIN, DOMAIN_LOCK = domain_of_this_run()
os.environ['ROS_DOMAIN_ID'] = str(DOMAIN)
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
os.environ['FASTDDS_DEFAULT_PROFILES_FILE'] = str(Path(__file__).with_name('fastdds.xml'))
os.environ['FASTRTPS_DEFAULT_PROFILES_FILE'] = os.environ['FASTDDS_DEFAULT_PROFILES_FILE']


def pytest_addoption(parser):
    parser.addoption('--slow', action='store_true', help='also run tests marked slow')


def pytest_collection_modifyitems(config, items):
    if config.getoption('--slow'):
        return
    skip = pytest.mark.skip(reason='slow; run with --slow')
    for item in items:
        if 'slow' in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope='session')
def real_events() -> Path:
    """Folder of the real recordings; skips where a lone clone does not have them."""
    if not REAL_EVENTS.is_dir():
        pytest.skip(f'no real recordings at {REAL_EVENTS}')
    return REAL_EVENTS


@pytest.fixture
def graph():
    """A ROS 2 graph for one test."""
    from graph import Graph

    graph = Graph()
    yield graph
    graph.close()
