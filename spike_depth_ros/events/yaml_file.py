"""YAML files from outside: bounded in size, also after their aliases are expanded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

LOADER = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
MOST_BYTES = 1 << 20
MOST_DEPTH = 100
MOST_VALUES = 100_000
"""Most values of a file. Aliases count as what they repeat: ten short lines may exceed it."""


class YamlError(ValueError):
    """A file is not YAML, or too large."""


def read_yaml(path: Path) -> Any:
    """Reads a file: UTF-8, UTF-16 with its mark, or else Latin-1, as in comments of old files.

    Raises:
        OSError: it cannot be read.
        YamlError: it is not YAML, states a name twice, or exceeds a bound of this module.
    """
    with path.open('rb') as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise YamlError(f'it has more than {MOST_BYTES} bytes')
    text = _text(data)
    try:
        depth = 0
        for count, event in enumerate(yaml.parse(text, LOADER)):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MOST_DEPTH or count > MOST_VALUES:
                raise YamlError(
                    f'it holds more than {MOST_VALUES} values, or is nested too deeply'
                )
        loader = LOADER(text)
        node = loader.get_single_node()
        if node is None:
            return None
        count = _count(node, {})
        if count > MOST_VALUES:
            raise YamlError(f'its aliases stand for {count:.1g} values, most are {MOST_VALUES}')
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        raise YamlError(str(error)) from error


def _text(data: bytes) -> str:
    if data.startswith((b'\xff\xfe', b'\xfe\xff')):
        return data.decode('utf-16', 'replace')
    try:
        return data.decode('utf-8-sig')
    except UnicodeDecodeError:
        return data.decode('latin-1')


def _count(node: yaml.Node, counts: dict[int, int]) -> int:
    """The number of values of a node, of those that aliases repeat as well."""
    if id(node) in counts:
        return counts[id(node)]
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        parts = node.value
    elif isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
        names = [name.value for name, _ in node.value if isinstance(name, yaml.ScalarNode)]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise YamlError(f'it states {twice!r} twice, on line {node.start_mark.line + 1} ff.')
    counts[id(node)] = MOST_VALUES + 1  # while it is being counted: it contains itself
    counts[id(node)] = 1 + sum(_count(part, counts) for part in parts)
    return counts[id(node)]
