"""Machine code on disk is never older than the source of any kernel it was made from."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / 'spike_depth_ros'
SOURCES = sorted(ROOT.rglob('*.py'))
INNER = """
from spike_depth_ros.events.compiled import compiled


@compiled()
def inner(x):
    return x + {number}
"""
OUTER = """
from inner import inner

from spike_depth_ros.events.compiled import compiled


@compiled()
def outer(x):
    return inner(x) * 10
"""
DEPTH = """
from spike_depth_ros.sim.render import render
from spike_depth_ros.sim.sensors import sensor_config
from spike_depth_ros.sim.world import build_world
import hashlib
frame = render(build_world('flight', 2), sensor_config('64x48').camera, 1.5)
print(hashlib.sha256(frame.depth_m.tobytes() + frame.radiance.tobytes()).hexdigest())
"""
CALL = 'from outer import outer; print(outer(1), sum(outer.stats.cache_hits.values()))'


def run(folder: Path, cache: Path | None = None, code: str = CALL) -> str:
    """What some code prints in a fresh process; `CALL` tells what came from disk too."""
    environment = os.environ | {'PYTHONPATH': f'{folder}{os.pathsep}{ROOT.parent}'}
    environment.pop('NUMBA_CACHE_DIR', None)
    if cache is not None:
        environment['NUMBA_CACHE_DIR'] = str(cache)
    done = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True,
                          text=True, check=True, cwd=folder)  # fmt: skip
    return done.stdout.strip()


def test_numba_still_has_the_private_interface_that_stamps_kernels():
    """`compiled._stamp` does nothing where the names are gone: this tells of such a numba."""
    from spike_depth_ros.events.compiled import folder_digest
    from spike_depth_ros.events.jumps import _count_in_place

    _, digest = _count_in_place._cache._cache_file._source_stamp
    assert digest == folder_digest(ROOT / 'events')


NOWHERE = """
import numba.core.caching as caching

def refuse(self):
    raise PermissionError('read-only')

caching._CacheLocator.ensure_cache_path = refuse
"""


def test_without_a_folder_for_the_cache_kernels_are_compiled_anew(tmp_path):
    (tmp_path / 'inner.py').write_text(INNER.format(number=2))
    call = 'from inner import inner; print(inner(1))'
    assert run(tmp_path, code=f'{NOWHERE}{call}') == '3'


def test_only_compiled_uses_the_cache_of_numba():
    users = [path.name for path in SOURCES if 'cache=True' in path.read_text(encoding='utf-8')]
    assert users == ['compiled.py']


@pytest.mark.parametrize('beside', [True, False], ids=['beside the source', 'elsewhere'])
def test_a_change_in_another_file_is_noticed(tmp_path, beside):
    """Beside the source, or where a read-only installation keeps it."""
    folder = tmp_path / 'kernels'
    folder.mkdir()
    cache = None if beside else tmp_path / 'cache'
    (folder / 'inner.py').write_text(INNER.format(number=2))
    (folder / 'outer.py').write_text(OUTER)
    assert run(folder, cache) == '30 0'
    assert run(folder, cache) == '30 1'
    (folder / 'inner.py').write_text(INNER.format(number=3))
    assert run(folder, cache) == '40 0'
    assert run(folder, cache) == '40 1'


@pytest.mark.slow
def test_kernels_just_compiled_round_as_those_loaded(tmp_path):
    compiled_now, loaded = (run(tmp_path, tmp_path / 'cache', DEPTH) for _ in range(2))
    assert compiled_now == loaded


def is_kernel(node: ast.AST) -> bool:
    decorators = getattr(node, 'decorator_list', ())
    return any(name in ast.unparse(d) for d in decorators for name in ('compiled', 'njit'))


def called(path: Path) -> set[str]:
    """What the kernels of a file call: the names before any dot."""
    kernels = [k for k in ast.walk(ast.parse(path.read_text(encoding='utf-8'))) if is_kernel(k)]
    nodes = [node for kernel in kernels for line in kernel.body for node in ast.walk(line)]
    calls = [node.func for node in nodes if isinstance(node, ast.Call)]
    return {ast.unparse(call).partition('.')[0] for call in calls}


def foreign_kernels(path: Path) -> set[str]:
    """Names that kernels of a file call and that come from another folder of the package."""
    names = called(path)
    package = '.'.join(path.relative_to(ROOT.parent).parent.parts)
    foreign = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if not isinstance(node, ast.ImportFrom) or not node.module.startswith('spike_depth_ros'):
            continue
        if package not in (node.module, node.module.rpartition('.')[0]):
            foreign |= {alias.asname or alias.name for alias in node.names} & names
    return foreign


def test_kernels_call_kernels_of_their_own_folder():
    assert {path.name: found for path in SOURCES if (found := foreign_kernels(path))} == {}
