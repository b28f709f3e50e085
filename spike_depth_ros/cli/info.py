"""`spike_depth info`: describes a recording or a checkpoint."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from textwrap import shorten
from typing import Any

from spike_depth_ros.cli.progress import progress_bar
from spike_depth_ros.events.config import require
from spike_depth_ros.recordings import BagError, open_source, summarise

MOST_CHARS = 300
"""Longer entries of a table are cut; `--json` prints them whole."""


def info(
    path: str,
    topic: str = '',
    start: float = 0.0,
    duration: float | None = None,
    sensor: str = '',
    time_unit: str = '',
    json: bool = False,
) -> None:
    """Describes a bag, an event file, a DSEC sequence or a checkpoint.

    The whole recording is decoded once. Event times are those of the sensor clock. The exit status
    is 1 if no event is found.

    Args:
        path: ROS 1 or ROS 2 bag, DSEC folder, HDF5 file of events, Prophesee .raw or .dat,
            .aedat4, or the .safetensors file of a checkpoint.
        topic: topic of the events, if the recording has several.
        start: number of seconds to skip.
        duration: number of seconds to read; all by default.
        sensor: sensor size WIDTHxHEIGHT, if the recording does not state it.
        time_unit: s, ms, us or ns, if the unit of an HDF5 file cannot be inferred.
        json: print JSON.
    """
    if Path(path).suffix == '.safetensors':
        _show(_checkpoint(path), json)
        return
    table = _recording(path, topic, start, duration, sensor, time_unit)
    _show(table, json)
    if table['problem']:
        raise BagError(table['problem'])


def _show(table: dict[str, Any], json: bool) -> None:
    """Prints a table as lines or as JSON."""
    if json:
        print(json_text.dumps(table, indent=1))
        return
    for name, value in table.items():
        for line in _lines(value):
            print(f'{name.replace("_", " "):<22} {line}')
            name = ''


def _recording(
    path: str, topic: str, start: float, duration: float | None, sensor: str, time_unit: str
) -> dict[str, Any]:
    """Returns the summary of a recording."""
    require(0 <= start < 1e9, 'start', start, '0 to 1e9 seconds')
    require(duration is None or 0 < duration < 1e9, 'duration', duration, 'up to 1e9 seconds')
    duration_ns = None if duration is None else round(duration * 1e9)
    with (
        open_source(path, topic or None, sensor=sensor, time_unit=time_unit) as source,
        progress_bar('info') as progress,
    ):
        source.check_start(round(start * 1e9))
        return summarise(source, round(start * 1e9), duration_ns, progress)


def _checkpoint(path: str) -> dict[str, Any]:
    """Returns the header of a checkpoint, read without its weights and without torch."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='numpy') as file:
            metadata = file.metadata() or {}
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise BagError(
            f'cannot read the checkpoint {path}: {error}; expected a .safetensors file '
            'written by `spike_depth train`'
        ) from error
    parameters = 0
    for shape in shapes:
        count = 1
        for size in shape:
            count *= size
        parameters += count
    table: dict[str, Any] = {'path': path, 'tensors': len(shapes), 'numbers': parameters}
    return table | {name: _parsed(text) for name, text in sorted(metadata.items())}


def _parsed(text: str) -> Any:
    try:
        return json_text.loads(text)
    except (ValueError, RecursionError):  # no JSON, or none that Python takes
        return text


def _lines(value: Any) -> list[str]:
    """Formats a value as lines of text, one per entry of a list or table, long ones cut."""
    if isinstance(value, dict):
        lines = [shorten(f'{k}: {v}', MOST_CHARS, placeholder=' ...') for k, v in value.items()]
        return lines or ['none']
    if isinstance(value, list):
        return [' '.join(map(str, v.values())) if isinstance(v, dict) else str(v) for v in value]
    if isinstance(value, float):
        return [f'{value:,.1f}']
    if isinstance(value, int):
        return [f'{value:,}']
    return ['-' if value is None else str(value)]
