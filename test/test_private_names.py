"""Private names of torch and numba: `setup.py` bounds the versions, here a new one is tried."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / 'spike_depth_ros'
LIBRARIES = ('torch', 'numba')


def is_private(name: str) -> bool:
    return name.startswith('_') and not name.startswith('__')


def private_names() -> dict[str, list[str]]:
    """Dotted private names, such as torch._int_mm -> the files of the package that use them."""
    found: dict[str, list[str]] = {}
    for path in sorted(ROOT.rglob('*.py')):
        names = set()
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                names.add(ast.unparse(node))
            elif isinstance(node, ast.ImportFrom):
                names |= {f'{node.module}.{alias.name}' for alias in node.names}
        for name in names:
            library, *parts = name.split('.')
            if not all(part.isidentifier() for part in parts):
                continue  # an attribute of a call
            inner = library == 'numba' and parts[0] == 'core'
            if library in LIBRARIES and (inner or any(is_private(part) for part in parts)):
                found.setdefault(name, []).append(path.name)
    return found


PRIVATE = private_names()


@pytest.mark.parametrize('name', sorted(PRIVATE))
def test_a_private_name_exists_in_the_installed_version(name):
    parts = name.split('.')
    for count in range(len(parts), 0, -1):
        try:
            value = importlib.import_module('.'.join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            value = getattr(value, part)
        return
    pytest.fail(f'{name} is gone')


def test_private_names_of_numba_stand_in_one_file():
    files = {file for name, files in PRIVATE.items() if name.startswith('numba') for file in files}
    assert files == {'compiled.py'}
