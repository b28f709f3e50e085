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
    environment = os.environ | {'PYTHONPATH': f'{folder}{os.pathsep}{ROOT.parent}',
                                'XDG_CACHE_HOME': str(folder / 'home')}  # fmt: skip
    environment.pop('NUMBA_CACHE_DIR', None)
    if cache is not None:
        environment['NUMBA_CACHE_DIR'] = str(cache)
    done = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True,
                          text=True, check=True, cwd=folder)  # fmt: skip
    return done.stdout.strip()


def test_the_cache_of_a_kernel_compares_all_sources_of_its_folder():
    from spike_depth_ros.events.compiled import folder_digest
    from spike_depth_ros.events.jumps import _count_in_place

    beside, of_user = _count_in_place._cache._caches
    for cache in (beside, of_user):
        assert cache._cache_file._source_stamp == folder_digest(ROOT / 'events')
    assert beside.cache_path != of_user.cache_path


REFUSE = """
from spike_depth_ros.events import compiled

def refuse(place):
    raise PermissionError('read-only')

{places}
"""
NOWHERE = REFUSE.format(places='compiled._BesideSource.ensure_cache_path = refuse')
INSTALLED_BY_ANOTHER = REFUSE.format(places=(
    'compiled._OfUser.ensure_cache_path = compiled._BesideSource.ensure_cache_path\n'
    'compiled._BesideSource.ensure_cache_path = refuse'
))  # fmt: skip


def test_without_a_folder_for_the_cache_kernels_are_compiled_anew(tmp_path):
    write_kernels(tmp_path)
    assert run(tmp_path, code=NOWHERE + CALL) == '30 0'
    assert run(tmp_path, code=NOWHERE + CALL) == '30 0'


def test_a_user_without_a_home_compiles_anew(tmp_path):
    write_kernels(tmp_path)
    homeless = "import os, pathlib; del os.environ['XDG_CACHE_HOME']\n" + (
        "def home(cls): raise RuntimeError('no home')\npathlib.Path.home = classmethod(home)\n"
    )
    assert run(tmp_path, code=homeless + NOWHERE + CALL) == '30 0'


@pytest.mark.parametrize('beside', [True, False], ids=['beside the source', 'elsewhere'])
def test_kernels_that_another_user_installed_are_loaded_and_others_kept_at_home(tmp_path, beside):
    cache = None if beside else tmp_path / 'cache'
    write_kernels(tmp_path)
    assert run(tmp_path, cache) == '30 0'
    assert run(tmp_path, cache, INSTALLED_BY_ANOTHER + CALL) == '30 1'
    assert not (tmp_path / 'home').exists()
    write_kernels(tmp_path, number=3)
    assert run(tmp_path, cache, INSTALLED_BY_ANOTHER + CALL) == '40 0'
    assert run(tmp_path, cache, INSTALLED_BY_ANOTHER + CALL) == '40 1'
    assert list((tmp_path / 'home' / 'spike_depth_ros' / 'kernels').rglob('*.nbc'))


@pytest.mark.parametrize('kind', ['nbi', 'nbc'])
@pytest.mark.parametrize('length', [0, 20])
def test_damaged_machine_code_is_compiled_anew(tmp_path, kind, length):
    """A power failure may leave a file empty or cut off."""
    write_kernels(tmp_path)
    assert run(tmp_path) == '30 0'
    for file in (tmp_path / '__pycache__').glob(f'*.{kind}'):
        file.write_bytes(file.read_bytes()[:length])
    assert run(tmp_path) == '30 0'
    assert run(tmp_path) == '30 1'


def write_kernels(folder, number=2):
    (folder / 'inner.py').write_text(INNER.format(number=number))
    (folder / 'outer.py').write_text(OUTER)


def test_nobody_takes_the_cache_of_numba_as_it_is():
    users = [path.name for path in SOURCES if 'cache=True' in path.read_text(encoding='utf-8')]
    assert users == []


@pytest.mark.parametrize('beside', [True, False], ids=['beside the source', 'elsewhere'])
def test_a_change_in_another_file_is_noticed(tmp_path, beside):
    """Beside the source, or where a read-only installation keeps it."""
    folder = tmp_path / 'kernels'
    folder.mkdir()
    cache = None if beside else tmp_path / 'cache'
    write_kernels(folder)
    assert run(folder, cache) == '30 0'
    assert run(folder, cache) == '30 1'
    write_kernels(folder, number=3)
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
