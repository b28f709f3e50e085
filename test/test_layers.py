"""Imports point one way: down the table of layers, never up."""

import ast
from pathlib import Path

import pytest

PACKAGE = 'spike_depth_ros'
ROOT = Path(__file__).resolve().parents[1] / PACKAGE

LAYERS = [
    ('events', 'camera', 'config'),
    ('compiled', 'codecs', 'wire', 'spikes', 'windows', 'pictures'),
    ('model', 'energy', 'engine', 'estimator'),
    ('bags', 'sim', 'data'),
    ('train', 'report', 'pages'),
    ('ros', 'cli', '__main__'),
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
ROS = {'rclpy', 'sensor_msgs', 'std_msgs', 'std_srvs', 'diagnostic_msgs', 'lifecycle_msgs',
       'rosgraph_msgs', 'geometry_msgs', 'tf2_msgs', 'event_camera_msgs', 'dvs_msgs',
       'cv_bridge', 'builtin_interfaces', 'ament_index_python', 'rcl_interfaces'}  # fmt: skip
FILES = sorted(ROOT.rglob('*.py'))


def imports(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, at any depth of nesting."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: relative import'
            names |= {f'{node.module}.{alias.name}' for alias in node.names}
    return names


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix('.py')


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    own = room(path)
    if own == '__init__':
        assert imports(path) <= {'os'}, 'importing the package must cost nothing'
        return
    names = imports(path)
    ours = {name.split('.')[1] for name in names if name.startswith(f'{PACKAGE}.')}
    ours -= {'__version__'}
    upward = {name for name in ours if LEVEL[name] > LEVEL[own]}
    assert not upward, f'{own} (layer {LEVEL[own]}) imports {upward} from above'
    tops = {name.split('.')[0] for name in names}
    if own != 'ros':
        assert not tops & ROS, f'only ros/ may import {tops & ROS}'
    if 'spikingjelly' in tops:
        assert path == ROOT / 'model' / 'neurons.py'
    if LEVEL[own] < 2:
        assert 'torch' not in tops, 'layers 0 and 1 are numpy only'
    if own in ('engine', 'estimator', 'ros'):
        assert not ours & {'train', 'data', 'sim'}, 'what runs on a robot needs no training code'


def test_every_room_has_a_layer():
    assert {room(path) for path in FILES} - {'__init__'} <= set(LEVEL)


def test_no_drawers():
    drawers = {'utils', 'common', 'base', 'helpers', 'misc'}
    assert not [p for p in ROOT.rglob('*') if p.stem in drawers]
