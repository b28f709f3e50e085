"""The folder of a training run: its files, and the check that it belongs to a configuration."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from torch import nn

from spike_depth_ros.events.config import to_dict
from spike_depth_ros.learning.settings import TrainConfig

STATE, CONFIG, BEST, LAST = 'state.ckpt', 'config.json', 'best.safetensors', 'last.safetensors'
FREE_TO_CHANGE = ('machine',)
"""Settings that may differ when a run resumes, beside `schedule.max_iterations`."""


class TrainingError(ValueError):
    """A run cannot start or resume; the message says why."""


def claim(folder: Path, config: TrainConfig, student: nn.Module) -> None:
    """Writes the configuration into the folder of the run, or checks that it is the same.

    The configuration of the network is written out, since presets may change between versions.

    Raises:
        TrainingError: the folder belongs to another run.
    """
    file = folder / CONFIG
    wanted = json.loads(json.dumps(dataclasses.asdict(config)))
    wanted['network'] = to_dict(student.config)
    if file.exists() and (folder / STATE).exists():
        try:
            found = json.loads(file.read_text(encoding='utf-8'))
        except (OSError, ValueError) as error:
            raise TrainingError(f'cannot read {str(file)!r}: {error}') from error
        different = [
            key for key in wanted
            if key not in FREE_TO_CHANGE and _lasting(found.get(key)) != _lasting(wanted[key])
        ]  # fmt: skip
        if different:
            raise TrainingError(
                f'{str(folder)!r} holds a run with other settings in {different}: choose another '
                '--out, or delete that folder to start again'
            )
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(wanted, indent=2) + '\n', encoding='utf-8')


def _lasting(part: Any) -> Any:
    """A part of the configuration without the settings that may change on resume."""
    if not isinstance(part, dict):
        return part
    return {key: value for key, value in part.items() if key not in ('max_iterations', 'workers')}
