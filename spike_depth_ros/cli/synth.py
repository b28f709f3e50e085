"""`spike_depth synth`: renders synthetic drives with exact depth in the layouts of data sets."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from spike_depth_ros.events.config import require
from spike_depth_ros.sim import recorder
from spike_depth_ros.sim.layouts import LAYOUTS
from spike_depth_ros.sim.recorder import Plan, Shot

Job = tuple[Path, Plan, int]  # working folder, plan, segment


def synth(
    out: str,
    scene: str = 'street',
    seed: int = 0,
    sequences: int = 1,
    seconds: float = 10.0,
    sensor: str | None = None,
    layout: Literal['dsec', 'dense', 'dense_spike', 'bag'] = 'dsec',
    max_step_px: float = 1.0,
    processes: int | None = None,
    motion: str = 'own',
    height: float | None = None,
    pitch: float | None = None,
    roll: float | None = None,
    yaw: float | None = None,
    field_of_view: float | None = None,
    sensor_model: str = 'preset',
    static_part: str = '',
    flicker: float = 0.0,
) -> None:
    """Renders synthetic drives with exact depth.

    Writes OUT/SCENE_SEED for each seed from SEED on. The command can be interrupted at any time
    and resumes when run again; a folder gets its final name only when it is complete.

    Args:
        out: Folder to write to.
        scene: Kind of world: street, indoor, flight, board, desk, solids, warehouse, highway,
            forest, field or stairs.
        seed: First seed; a seed determines everything about a drive. Networks train on seeds below
            1,000,000, which include the default. For evaluation use 2,000,000 to 2,099,999, as
            published figures do.
        sequences: Number of drives.
        seconds: Length of each drive.
        sensor: Event sensor: WIDTHxHEIGHT, davis346, vga or hd; by default that of the layout.
        layout: dsec, dense, dense_spike (spike camera instead of events) or bag (rosbag2, mcap).
        max_step_px: Maximum motion between two rendered frames; 0.5 for more accurate event times.
        processes: Number of processes; all cores by default.
        motion: Camera motion: own (that of the scene), driving, stop_and_go, walking, hand_held,
            sideways, rotation or hovering.
        height: Camera height above ground [m]; as for the next three options, the default is that
            of the scene. A camera that would touch something is rejected.
        pitch: Pitch [degrees]; positive looks down.
        roll: Roll [degrees]; positive lifts the left side.
        yaw: Yaw [degrees] to the left of the scene's own viewing direction.
        field_of_view: Horizontal field of view [degrees], 10 to 150, with a lens drawn at random
            for it; the sensor's own lens by default.
        sensor_model: preset, or random, slow or crowded: all sensor properties drawn at random.
        static_part: Part of the robot in view: bonnet, arm, dirt or rim; none by default.
        flicker: Frequency [Hz] at which lamps flicker, such as 100 or 120; steady by default.
    """
    require(sequences >= 1, 'sequences', sequences, '1 or more')
    sensor = sensor or LAYOUTS[layout].sensor
    shot = Shot(motion, height, pitch, roll, yaw, field_of_view, sensor_model, static_part,
                flicker)  # fmt: skip
    seeds = range(seed, seed + sequences)
    plans = [Plan(layout, scene, s, seconds, sensor, max_step_px, shot) for s in seeds]
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    works = {plan: recorder.open_work(folder, plan) for plan in plans}
    todo = {plan: work for plan, work in works.items() if work is not None}
    try:
        count = _record(todo, processes)
    except KeyboardInterrupt:
        print('interrupted; run the same command again to resume')
        raise SystemExit(130) from None
    noun = 'spikes' if LAYOUTS[layout].spikes else 'events'
    print(f'{len(todo)} drives written, {sequences - len(todo)} were there; {count:,} new {noun}')


def _record(todo: dict[Plan, Path], processes: int | None) -> int:
    """Records drives in several processes and finishes each as soon as it is complete.

    Args:
        todo: plan -> working folder.
        processes: number of processes; None for all cores.

    Returns:
        The number of new events.
    """
    missing = {plan: recorder.missing_segments(work, plan) for plan, work in todo.items()}
    jobs = [(work, plan, k) for plan, work in todo.items() for k in missing[plan]]
    left = {plan: len(segments) for plan, segments in missing.items()}
    total = 0
    with tqdm(total=len(jobs), unit='segment', desc='rendering', disable=None) as bar:
        for plan, count in _results(jobs, processes):
            total += count
            left[plan] -= 1
            if not left[plan]:
                bar.write(str(recorder.finish(todo[plan], plan)))
            bar.set_postfix_str(f'{total / 1e6:.1f} M')
            bar.update()
    for plan in (plan for plan, segments in missing.items() if not segments):
        print(recorder.finish(todo[plan], plan))  # interrupted after its last segment
    return total


def _results(jobs: list[Job], processes: int | None) -> Iterator[tuple[Plan, int]]:
    """Runs all jobs, in several processes if there are several; yields results in any order."""
    cores = len(os.sched_getaffinity(0)) if processes is None else processes
    workers = min(cores, len(jobs))
    if workers <= 1:
        yield from map(_segment, jobs)
        return
    context = multiprocessing.get_context('spawn')  # numba and its threads do not survive a fork
    # Workers ignore Ctrl-C; the parent terminates them.
    with context.Pool(workers, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        yield from pool.imap_unordered(_segment, jobs)


def _segment(job: Job) -> tuple[Plan, int]:
    return job[1], recorder.record_segment(*job)
