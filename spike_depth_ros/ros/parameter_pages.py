"""Writes config/depth.yaml and the tables in docs/nodes.md from the parameter tables.

`make parameters` runs it; a test compares the files with what it would write.
"""

from __future__ import annotations

import dataclasses
import re
import textwrap
from pathlib import Path
from typing import Any

from spike_depth_ros.ros import params
from spike_depth_ros.ros.depth_parameters import DepthParameters
from spike_depth_ros.ros.replay_parameters import ReplayParameters

NODES: dict[str, type] = {'depth_node': DepthParameters, 'replay_node': ReplayParameters}
NOT_IN_FILES = ('path',)
"""Parameters that only a command line can know."""

COLUMNS = 100
HEAD = """\
# Parameters of the nodes of spike_depth_ros; every value here is the default.
# "Live" may change while the node runs (`ros2 param set`); the others are read when it is
# configured. Written by `make parameters` from spike_depth_ros/ros/*_parameters.py.
"""
PLACE = '<!-- parameters of {}: `make parameters` -->\n'
COLUMN_NAMES = '| parameter | default | allowed | live | meaning |\n|---|---|---|---|---|\n'


def yaml_file() -> str:
    """The text of config/depth.yaml."""
    return HEAD + ''.join(_yaml_section(name, table) for name, table in NODES.items())


def page(text: str) -> str:
    """The text of docs/nodes.md with the present tables in the place of those in `text`."""
    for name, table in NODES.items():
        place = PLACE.format(name)
        pattern = re.escape(place) + r'(\|.*\n)*'
        rows = place + COLUMN_NAMES + ''.join(_row(*item) for item in _fields(table))
        text, count = re.subn(pattern, lambda _, rows=rows: rows, text)  # type: ignore[misc]
        if count != 1:
            raise ValueError(
                f'expected {place.strip()!r} once in the page, found it {count} times'
            )
    return text


def _fields(table: type) -> list[tuple[str, Any, params.Spec]]:
    return [(f.name, f.default, f.metadata['spec']) for f in dataclasses.fields(table)]


def _yaml_section(node: str, table: type) -> str:
    lines = ['', f'/**/{node}:', '  ros__parameters:']
    for name, default, spec in _fields(table):
        if name in NOT_IN_FILES:
            continue
        sentences = [spec.text]
        if spec.choices:
            sentences.append(f'One of: {", ".join(spec.choices)}.')
        if spec.low is not None and spec.high is not None:
            sentences.append(f'Range: {spec.low:.9g} to {spec.high:.9g}.')
        if spec.live:
            sentences.append('Live.')
        lines += textwrap.wrap(
            ' '.join(sentences), COLUMNS, initial_indent='    # ', subsequent_indent='    # '
        )
        lines.append(f'    {name}: {_value(default)}')
    return '\n'.join(lines) + '\n'


def _row(name: str, default: Any, spec: params.Spec) -> str:
    allowed = ', '.join(f'`{choice}`' for choice in spec.choices)
    if spec.low is not None and spec.high is not None:
        allowed = f'{spec.low:.9g} to {spec.high:.9g}'
    live = 'yes' if spec.live else ''
    return f'| `{name}` | `{_value(default)}` | {allowed} | {live} | {spec.text} |\n'


def _value(default: Any) -> str:
    return str(default).lower() if isinstance(default, bool) else repr(default)


def main() -> None:
    """Writes both files of the checkout."""
    root = Path(__file__).resolve().parents[2]
    (root / 'config' / 'depth.yaml').write_text(yaml_file(), 'utf-8')
    document = root / 'docs' / 'nodes.md'
    document.write_text(page(document.read_text('utf-8')), 'utf-8')


if __name__ == '__main__':
    main()
