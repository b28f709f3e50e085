"""The executables that `ros2 run` and the launch file start.

This module imports nothing heavy: a signal ends the process at once while the rest is imported,
and a package that is missing is named in a sentence. Without ROS tools, the same is done by
`python -m spike_depth_ros.ros.executables depth_node --ros-args ...`.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import NoReturn


def depth_node() -> NoReturn:
    """Entry point of the executable `depth_node`."""
    _run('depth_node')


def replay_node() -> NoReturn:
    """Entry point of the executable `replay_node`."""
    _run('replay_node')


def depth_rviz() -> NoReturn:
    """Entry point of the executable `depth_rviz`."""
    _run('depth_rviz')


EXECUTABLES = {'depth_node': depth_node, 'replay_node': replay_node, 'depth_rviz': depth_rviz}


def _run(name: str) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the node handles it: no traceback
    try:
        main = importlib.import_module(f'spike_depth_ros.ros.{name}').main
    except ImportError as error:
        print(
            f'{name}: {error} (of {sys.executable}). `make setup` in the source folder of '
            'spike_depth_ros installs what rosdep does not know; then build by its Python: '
            '`.venv/bin/colcon build`',
            file=sys.stderr,
        )
        sys.exit(1)
    status = 0
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(bool(end.code))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # a thread may be compiling, and the interpreter would wait for it


def main() -> NoReturn:
    """Runs the executable that the command line names."""
    name = sys.argv[1] if len(sys.argv) > 1 else ''
    if name not in EXECUTABLES:
        sys.exit(f'no executable {name!r}, expected one of {", ".join(EXECUTABLES)}')
    del sys.argv[1]
    EXECUTABLES[name]()


if __name__ == '__main__':
    main()
