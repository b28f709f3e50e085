"""Shared fixtures: the slow flag, and the real recordings that may lie beside the project."""

import os
from pathlib import Path

import pytest

pytest_plugins = ('depth_node_fixtures',)

REAL_EVENTS = Path(__file__).resolve().parents[2] / 'shared' / 'real_events'

# a ROS domain of this run's own, on this machine only: runs side by side never hear each other
os.environ['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 100)
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'


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
