"""A node as a process: it starts, ends within a moment of a signal, and says what it lacks."""

import json
import os
import platform
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from spike_depth_ros.ros import process
from spike_depth_ros.ros.process import InterruptedBySignalError, run_interruptibly

MUCH_LESS_THAN_THE_WORK_S = 20.0


def run_python(code, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, '-c', textwrap.dedent(code), *arguments], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **environment},
    )  # fmt: skip


def ends_by(child, number):
    """Sends the signal; returns the exit status and all that was printed after it."""
    child.send_signal(number)
    printed, _ = child.communicate(timeout=MUCH_LESS_THAN_THE_WORK_S)
    return child.returncode, printed


BUSY = {
    'sleep': ('time.sleep(120)', signal.SIGTERM),
    'python': ('deadline = time.monotonic() + 120\nwhile time.monotonic() < deadline: pass',
               signal.SIGINT),
    # runs no Python for minutes, and so no handler of a signal
    'native': ('numpy.linalg.svd(numpy.ones((7000, 7000)) + numpy.eye(7000))', signal.SIGINT),
}  # fmt: skip


@pytest.mark.parametrize('busy', BUSY)
def test_a_signal_ends_a_process_whose_main_thread_is_busy(busy):
    work, number = BUSY[busy]
    child = run_python(f'''
        import time, numpy
        from spike_depth_ros.ros.process import run_node
        def make(ended):
            print('busy', flush=True)
{textwrap.indent(work, ' ' * 12)}
        run_node(make)
    ''')  # fmt: skip
    assert child.stdout.readline() == 'busy\n'
    status, printed = ends_by(child, number)
    assert (status, printed) == (0, 'ended by a signal during long work\n')


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_node_while_it_loads_and_it_leaves_the_graph(number, checkpoint_file):
    """The loading, which may compile for a minute, goes on in its thread and is cut off."""
    child = run_python('''
        import sys, time
        from spike_depth_ros.ros import depth_node, executables
        def load_network(*_):
            print('compiling', flush=True)
            time.sleep(120)
        depth_node.load_network = load_network
        destroy_node = depth_node.DepthNode.destroy_node
        def destroyed(node):
            destroy_node(node)
            print('left the graph', flush=True)
        depth_node.DepthNode.destroy_node = destroyed
        executables.depth_node()
    ''')  # fmt: skip
    lines = iter(child.stdout.readline, '')
    assert any(line == 'compiling\n' for line in lines)
    status, printed = ends_by(child, number)
    assert status == 0
    assert 'left the graph' in printed
    assert 'Traceback' not in printed
    assert 'cannot configure' not in printed


@pytest.mark.slow
def test_a_signal_ends_a_cold_start(tmp_path):
    child = run_python(
        'from spike_depth_ros.ros import executables; executables.depth_node()',
        '--ros-args', '-p', 'network:=default', NUMBA_CACHE_DIR=str(tmp_path),
    )  # fmt: skip
    assert any('loading' in line for line in iter(child.stdout.readline, ''))
    status, printed = ends_by(child, signal.SIGINT)
    assert (status, 'on cpu' in printed, 'Traceback' in printed) == (0, False, False)


def test_a_node_that_runs_ends_in_good_order(checkpoint_file):
    child = run_python(
        'from spike_depth_ros.ros import executables; executables.depth_node()',
        '--ros-args', '-p', f'checkpoint:={checkpoint_file}',
    )  # fmt: skip
    assert any(' by auto' in line for line in iter(child.stdout.readline, ''))
    status, printed = ends_by(child, signal.SIGINT)
    assert status == 0
    assert 'in the midst' not in printed
    assert 'Traceback' not in printed


@pytest.mark.parametrize(('missing', 'executable'), [
    ('torch', 'depth_node'), ('rclpy', 'depth_node'), ('numba', 'spike_depth'),
])  # fmt: skip
def test_what_is_not_installed_is_named_with_what_to_do(missing, executable):
    start = {
        'depth_node': 'from spike_depth_ros.ros import executables; executables.depth_node()',
        'spike_depth': 'from spike_depth_ros.cli import main; main(["warm-up"])',
    }[executable]
    child = run_python(f'import sys; sys.modules[{missing!r}] = None\n{start}')
    printed, _ = child.communicate(timeout=60)
    assert child.returncode == 1
    assert missing in printed
    assert 'make setup' in printed
    assert 'Traceback' not in printed


def test_what_the_work_gives_and_raises_is_passed_on():
    never = threading.Event()
    assert run_interruptibly(lambda: 3, never) == 3
    with pytest.raises(ZeroDivisionError):
        run_interruptibly(lambda: 1 // 0, never)


def test_an_end_does_not_wait_for_the_work():
    ended, go_on = threading.Event(), threading.Event()
    ended.set()
    with pytest.raises(InterruptedBySignalError):
        run_interruptibly(lambda: go_on.wait(60), ended)
    go_on.set()


def test_an_unknown_executable_is_refused():
    found = subprocess.run(
        [sys.executable, '-m', 'spike_depth_ros.ros.executables', 'x'], capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert found.returncode == 1
    assert "no executable 'x', expected one of depth_node, replay_node, depth_rviz" in found.stderr


def test_the_grace_is_less_than_a_second():
    assert process.GRACE_S + process.WAKE_S <= 1.0


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='another C library')
def test_freed_memory_goes_back_to_the_system():
    child = run_python('''
        from pathlib import Path
        from spike_depth_ros.ros.process import trim_memory
        def resident_mb():
            return int(Path('/proc/self/statm').read_text().split()[1]) * 4096 / 1e6
        blocks = [bytes(10_000) for _ in range(20_000)]  # small enough for the heap
        del blocks[:-1]
        before_mb = resident_mb()
        trim_memory()
        print(before_mb - resident_mb())
    ''')  # fmt: skip
    printed, _ = child.communicate(timeout=120)
    assert float(printed.splitlines()[-1]) > 100


NOT_NEEDED = {
    'bond', 'dvs_msgs', 'event_camera_msgs', 'h5py', 'hdf5plugin', 'jsonargparse', 'launch',
    'lightning', 'matplotlib', 'nav_msgs', 'onnx', 'onnxruntime', 'rerun', 'rosbags',
    'spike_depth_ros.cli', 'spike_depth_ros.learning', 'spike_depth_ros.recordings',
    'spike_depth_ros.sim', 'tensorboard', 'tf2_msgs', 'tf2_ros', 'torchmetrics', 'transformers',
}  # fmt: skip


def test_the_node_imports_nothing_that_it_does_not_use():
    node = 'spike_depth_ros.ros.depth_node'
    child = run_python(f'import {node}, sys, json; print(json.dumps([*sys.modules]))')
    printed, _ = child.communicate(timeout=120)
    loaded = set(json.loads(printed.splitlines()[-1]))
    assert {'torch', 'rclpy', node} <= loaded
    assert not NOT_NEEDED & loaded
