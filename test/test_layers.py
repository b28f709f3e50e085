"""Imports between folders follow the table in CONVENTIONS.md."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = 'spike_depth_ros'
ROOT = Path(__file__).resolve().parents[1] / PACKAGE

BELOW = {
    'events': set(),
    'network': {'events'},
    'estimation': {'events', 'network'},
    'recordings': {'events'},
    'sim': {'events', 'recordings'},
    'learning': {'events', 'network', 'estimation', 'recordings', 'sim'},
    'ros': {'events', 'network', 'estimation', 'recordings'},
    'cli': {'events', 'network', 'estimation', 'recordings', 'sim', 'learning', 'ros'},
    '__main__': {'events', 'network', 'estimation', 'recordings', 'sim', 'learning', 'ros', 'cli'},
}
"""Folder -> the folders that it may import, now or lazily. No folder is below itself."""
ROS = {'rclpy', 'sensor_msgs', 'std_msgs', 'std_srvs', 'diagnostic_msgs', 'lifecycle_msgs',
       'rosgraph_msgs', 'geometry_msgs', 'nav_msgs', 'tf2_msgs', 'event_camera_msgs',
       'dvs_msgs', 'cv_bridge', 'builtin_interfaces', 'ament_index_python',
       'rcl_interfaces'}  # fmt: skip


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


def faults(path: Path) -> list[str]:
    """The imports of a file that the table does not allow."""
    own = path.relative_to(ROOT).parts[0].removesuffix('.py')
    names = imports(path)
    tops = {name.split('.')[0] for name in names}
    if own == '__init__':
        return sorted(tops - {'__future__', 'importlib', 'os', 'typing', PACKAGE})
    ours = {name.split('.')[1] for name in names if name.startswith(f'{PACKAGE}.')}
    wrong = ours - BELOW[own] - {own, '__version__'}
    if own != 'ros':
        wrong |= tops & ROS
    if path != ROOT / 'network' / 'neurons.py':
        wrong |= tops & {'spikingjelly'}
    if own in ('events', 'recordings', 'sim'):
        wrong |= tops & {'torch'}
    return sorted(wrong)


def test_imports_follow_the_table():
    files = ROOT.rglob('*.py')
    found = {str(path.relative_to(ROOT)): wrong for path in files if (wrong := faults(path))}
    assert found == {}


def test_importing_the_package_loads_nothing_heavy():
    heavy = "{'numpy', 'numba', 'torch'}"
    code = f'import sys, spike_depth_ros; print(*sorted({heavy} & set(sys.modules)))'
    ran = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


def test_no_folder_reaches_itself():
    for folder, below in BELOW.items():
        for lower in below:
            assert BELOW[lower] <= below, f'{folder}/ reaches {BELOW[lower]} by way of {lower}/'
