"""Benchmark results as data (machine, figure, spread, peer) and their printing."""

from __future__ import annotations

import json as jsonlib
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

Rounds = Sequence[float] | NDArray[np.float64] | float | None


class BenchRow(TypedDict):
    """One row of a benchmark; `ratio` is above 1 where ours is better than the peer."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    unit: str
    peer: str | None
    peer_value: float | None
    ratio: float | None


PACKAGES = ('numpy', 'numba', 'torch', 'spikingjelly', 'ros-rclpy')


def machine() -> dict[str, Any]:
    """Returns a description of the machine: processor, memory, system, package versions and load.

    Returns:
        A JSON-ready table; `gpu` is None unless torch is already loaded and finds one.
    """
    torch = sys.modules.get('torch')
    has_gpu = torch is not None and torch.cuda.is_available()
    return {
        'cpu': _cpu_name(),
        'cores': len(os.sched_getaffinity(0)),
        'memory_gb': round(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9, 1),
        'load_1min': round(os.getloadavg()[0], 2),
        'gpu': torch.cuda.get_device_name() if torch is not None and has_gpu else None,
        'system': platform.platform(),
        'python': platform.python_version(),
        'packages': {name: version for name in PACKAGES if (version := _version(name))},
    }


def bench_row(
    name: str,
    values: Rounds,
    unit: str,
    peer: str | None = None,
    peer_values: Rounds = None,
    less_is_better: bool = False,
) -> BenchRow:
    """Builds one row of a benchmark: the median of several rounds and its spread.

    Args:
        name: what was measured.
        values: one figure per round, or a single figure; None if it could not be measured here.
        unit: unit of the figures.
        peer: name of the comparison, measured in the same run.
        peer_values: figures of the peer in the same unit.
        less_is_better: True for times and sizes; `ratio` is above 1 where ours is better.

    Returns:
        A JSON-ready row. `low` and `high` are the 10th and 90th percentile of the rounds.
    """
    value, low, high = _median(values)
    peer_value = _median(peer_values)[0]
    ratio = None
    if value and peer_value:
        ratio = peer_value / value if less_is_better else value / peer_value
    return {
        'name': name,
        'value': value,
        'low': low,
        'high': high,
        'unit': unit,
        'peer': peer,
        'peer_value': peer_value,
        'ratio': ratio,
    }


def print_bench(rows: Sequence[BenchRow], json: bool = False) -> None:
    """Prints rows and machine as one JSON object or as a table."""
    here = machine()
    if json:
        text = jsonlib.dumps({'machine': here, 'rows': list(rows)}, allow_nan=False)
    else:
        about = f'{here["cpu"]}, {here["cores"]} cores, load {here["load_1min"]}'
        text = f'{bench_table(rows)}\n\n{here["gpu"] or "no GPU"}; {about}'
    sys.stdout.write(text + '\n')


def bench_table(rows: Sequence[BenchRow]) -> str:
    """Formats rows as a Markdown table."""
    cells = [('', 'median', '10 to 90 %', 'unit', 'peer', 'peer median', 'ratio')]
    for row in rows:
        ratio = '' if row['ratio'] is None else f'{row["ratio"]:.2f}x'
        alone = row['low'] is None or row['low'] == row['high']
        spread = '' if alone else f'{_number(row["low"])} to {_number(row["high"])}'
        peer_value = '' if row['peer'] is None else _number(row['peer_value'])
        cells.append((row['name'], _number(row['value']), spread, row['unit'], row['peer'] or '',
                      peer_value, ratio))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        f'| {" | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True))} |'
        for line in cells
    ]
    rule = '|' + '|'.join('-' * (width + 2) for width in widths) + '|'
    return '\n'.join([lines[0], rule, *lines[1:]])


def time_jobs(jobs: Sequence[Callable[[], object]], rounds: int = 10) -> list[NDArray[np.float64]]:
    """Times jobs in turns, so that peers run under the same conditions.

    Each job runs once beforehand to compile and to warm caches.

    Returns:
        For each job (rounds,) float64: the duration of each run [s].
    """
    times_s: list[NDArray[np.float64]] = [np.empty(rounds) for _ in jobs]
    for job in jobs:
        job()
    for k in range(rounds):
        for job, job_times_s in zip(jobs, times_s, strict=True):
            start = time.perf_counter()
            job()
            job_times_s[k] = time.perf_counter() - start
    return times_s


def _median(values: Rounds) -> tuple[float | None, ...]:
    """Returns the median, 10th and 90th percentile of the rounds, all None if there are none."""
    if values is None or not np.size(values):
        return None, None, None
    low, median, high = np.percentile(values, (10, 50, 90))
    return float(median), float(low), float(high)


def _number(value: float | None) -> str:
    if value is None:
        return '-'
    return f'{value:.3g}' if abs(value) < 100 else f'{value:.0f}'


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    """Returns the name of the processor, which Linux states in /proc/cpuinfo only."""
    path = Path('/proc/cpuinfo')
    text = path.read_text(encoding='utf-8') if path.exists() else ''
    names = [line.split(':', 1)[1].strip() for line in text.splitlines() if 'model name' in line]
    return names[0] if names else platform.processor() or platform.machine()
