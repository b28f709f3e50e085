"""`spike_depth clips`: renders the synthetic clips of a configuration in advance."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import yaml

from spike_depth_ros.events.config import ConfigError, SpikeConfig, from_dict, require
from spike_depth_ros.learning.datasets.recipe import SyntheticConfig
from spike_depth_ros.learning.datasets.sample import DatasetError
from spike_depth_ros.learning.datasets.synthetic import generate


def clips(file: Path, workers: int = 0) -> None:
    """Renders all synthetic clips that a file of config/train or config/evaluate refers to.

    Existing clips are kept. The command can be interrupted at any time and resumes when run again;
    a training run may read the folders meanwhile. A world that fails is reported at the end and
    does not stop the others.

    Args:
        file: YAML file of `train`, `evaluate` or `ablate` whose data set is `synthetic`.
        workers: number of processes; 0: one per core.
    """
    made, failures = 0, []
    for name, wanted in synthetic_configs(file):
        print(f'{name}: {wanted.worlds} {wanted.split} worlds into {wanted.folder}')
        try:
            made += generate(wanted, workers)
        except DatasetError as error:
            logging.getLogger(__name__).debug('traceback', exc_info=True)
            failures.append(f'{name}: {error}')
    print(f'{made:,} clips made')
    if failures:
        raise DatasetError('; '.join(failures))


def synthetic_configs(path: Path) -> list[tuple[str, SyntheticConfig]]:
    """Returns the name and `SyntheticConfig` of each entry in a YAML file that has a clip folder.

    Raises:
        ConfigError: there is no such entry, or a field is invalid.
        OSError: the file cannot be read.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f'{path} is not YAML: {error}') from error
    values = values if isinstance(values, dict) else {}
    data: dict[str, Any] = values['data'] if isinstance(values.get('data'), dict) else {}
    name = data.get('name', 'synthetic')
    require(name == 'synthetic', f'data.name of {path}', name, "'synthetic'")
    shared = {'spikes': from_dict(SpikeConfig, values.get('spikes') or {})}
    if data.get('clip_windows'):
        shared['clip_windows'] = data['clip_windows']
    found = [
        (key, from_dict(SyntheticConfig, {**shared, **fields}))
        for key, fields in _with_folder('data', data)
    ]
    if not found:
        raise ConfigError(f'{path} has no folder for clips, expected e.g. data.train.folder')
    return found


def _with_folder(name: str, value: Any) -> list[tuple[str, dict[str, Any]]]:
    """Yields the name and content of each table within a value that has the key `folder`."""
    if isinstance(value, dict):
        if 'folder' in value:
            return [(name, value)]
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)  # type: ignore[assignment]
    else:
        return []
    return [found for key, part in inner for found in _with_folder(f'{name}.{key}', part)]
