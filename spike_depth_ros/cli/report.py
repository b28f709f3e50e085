"""Benchmarks as data: on which machine, how fast, against which peer; and their printing."""

from __future__ import annotations

import json as jsonlib
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ('numpy', 'numba', 'torch', 'spikingjelly', 'openvino', 'onnxruntime', 'ros-rclpy')


def machine() -> dict[str, Any]:
    """What a figure depends on besides the code: processor, memory, system, versions, load.

    Returns:
        JSON-ready; `gpu` is None unless torch is already loaded and sees one.
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
    value: float | None,
    unit: str,
    peer: str | None = None,
    peer_value: float | None = None,
    less_is_better: bool = False,
) -> dict[str, Any]:
    """One figure of a benchmark.

    Args:
        name: what was measured.
        value: the figure; None if it could not be measured here.
        unit: its unit.
        peer: what it is compared with, measured in the same run.
        peer_value: the peer's figure in the same unit.
        less_is_better: for times and sizes; `ratio` says how many times better ours is.
    """
    ratio = None
    if value and peer_value:
        ratio = peer_value / value if less_is_better else value / peer_value
    return {
        'name': name,
        'value': value,
        'unit': unit,
        'peer': peer,
        'peer_value': peer_value,
        'ratio': ratio,
    }


def print_bench(rows: Sequence[dict[str, Any]], json: bool = False) -> None:
    """Writes rows and machine to standard output, as one JSON object or as a table."""
    here = machine()
    if json:
        text = jsonlib.dumps({'machine': here, 'rows': list(rows)}, allow_nan=False)
    else:
        about = f'{here["cpu"]}, {here["cores"]} cores, load {here["load_1min"]}'
        text = f'{bench_table(rows)}\n\n{here["gpu"] or "no GPU"}; {about}'
    sys.stdout.write(text + '\n')


def bench_table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    cells = [('', 'value', 'unit', 'peer', 'its value', 'ratio')]
    for row in rows:
        ratio = '' if row['ratio'] is None else f'{row["ratio"]:.2f}x'
        peer_value = _number(row['peer_value'])
        cells.append(
            (row['name'], _number(row['value']), row['unit'], row['peer'] or '', peer_value, ratio)
        )
    widths = [max(len(line[k]) for line in cells) for k in range(6)]
    lines = [
        '| '
        + ' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + ' |'
        for line in cells
    ]
    rule = '|' + '|'.join('-' * (width + 2) for width in widths) + '|'
    return '\n'.join([lines[0], rule, *lines[1:]])


def fastest_s(jobs: Sequence[Callable[[], Any]], rounds: int = 10) -> list[float]:
    """Shortest run of each job [s]; they take turns, so that peers meet the same conditions.

    Each job runs once beforehand to compile and to warm caches.
    """
    best = [float('inf')] * len(jobs)
    for job in jobs:
        job()
    for _ in range(rounds):
        for k, job in enumerate(jobs):
            start = time.perf_counter()
            job()
            best[k] = min(best[k], time.perf_counter() - start)
    return best


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
    """The processor's name; Linux tells it only in /proc/cpuinfo."""
    path = Path('/proc/cpuinfo')
    text = path.read_text(encoding='utf-8') if path.exists() else ''
    names = [line.split(':', 1)[1].strip() for line in text.splitlines() if 'model name' in line]
    return names[0] if names else platform.processor() or platform.machine()
