"""`spike_depth bench node`: measures depth_node on a drive in real time."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spike_depth_ros.cli.demo import synthetic_drive
from spike_depth_ros.cli.report import BenchRow, bench_row, print_bench
from spike_depth_ros.events.config import shipped

if TYPE_CHECKING is True:  # jsonargparse executes a plain TYPE_CHECKING block
    from spike_depth_ros.ros.node_processes import Turns


def node(
    drive: str = '',
    out: str = 'out/bench',
    seconds: float = 10.0,
    seed: int = 3_000_001,
    sensor: str = '640x480',
    params: str = '',
    checkpoint: str = '',
    engine: str = '',
    json: bool = False,
) -> None:
    """Measures latency, losses and load of depth_node while a drive plays in real time.

    Both nodes and the subscriber run as separate processes. Latency is the time from the end of a
    window to the arrival of its depth map at the subscriber. The drive is played three times: with
    the parameters as they are, with early_steps on and off in turns of a second, and without a
    subscriber.

    Args:
        drive: any event source; empty: a synthetic drive, rendered once into `out`.
        out: folder for the synthetic drive.
        seconds: duration to play.
        seed: world of the synthetic drive.
        sensor: sensor of the synthetic drive.
        params: parameters file of the nodes; empty: the file installed with the package.
        checkpoint: path of a checkpoint; empty: the node chooses.
        engine: engine that runs the network; empty: as set in the parameters file.
        json: print one JSON object instead of a table.
    """
    from spike_depth_ros.cli.demo_report import measure
    from spike_depth_ros.ros.node_processes import Nodes, compare, first_map_s, idle_cores, play

    folder = Path(out)
    parameters = params or str(shipped('config/depth.yaml'))
    nodes = Nodes(drive, parameters, checkpoint, engine=engine)
    nodes.check()
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stdout(sys.stderr):  # only the result goes to stdout
        if not drive:
            nodes = nodes._replace(drive=str(synthetic_drive(folder, sensor, seed, seconds)))
        recording = play(nodes, seconds)
        if not recording.depth_m:
            raise OSError('the node published no depth; see its log above')
        compared = compare(nodes, seconds, 'early_steps', ['on', 'off'])
        resting_cores = idle_cores(nodes, seconds)
        start_s = first_map_s(nodes)
    figures = measure(recording)
    rows = [
        bench_row('events', figures['events_per_s'] / 1e6, 'Mev/s'),
        bench_row('depth maps', figures['maps_per_s'], '1/s'),
        bench_row('dropped windows', figures['dropped_windows'], ''),
        bench_row('dropped messages', figures['dropped_messages'], ''),
        bench_row('latency, median', figures['latency_ms_p50'], 'ms'),
        bench_row('latency, 99th percentile', figures['latency_ms_p99'], 'ms'),
        bench_row('processor use of the node', recording.node_cores, 'cores'),
        *early_rows(compared),
        bench_row('processor use, nobody subscribed', resting_cores, 'cores'),
        bench_row('start of the process to the first map', start_s, 's'),
    ]
    print_bench(rows, json)


def early_rows(turns: dict[str, Turns]) -> Iterator[BenchRow]:
    """Yields early_steps on next to off: latency, its 99th percentile and processor use."""
    if not {'on', 'off'} <= turns.keys():  # the drive was too short
        return
    on, off = turns['on'], turns['off']
    p99_ms = [float(np.percentile(turn.latency_ms, 99)) for turn in (on, off)]
    name = 'early_steps on'
    yield bench_row(f'latency, {name}', on.latency_ms, 'ms', 'off', off.latency_ms, True)
    yield bench_row(f'latency, 99th percentile, {name}', p99_ms[0], 'ms', 'off', p99_ms[1], True)
    yield bench_row(f'processor use, {name}', on.cores, 'cores', 'off', off.cores, True)
