"""Records drives piece by piece, so that all cores help and an interrupted run goes on.

A recording is cut into segments of half a second. Each is simulated on its own, after a short
run-up that settles the pixels, and leaves its pictures and its events in a hidden working
folder; the events come last and are its mark of completion. When all segments are there the
layout completes the folder, and only then it gets its name: nobody reads half a recording.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from spike_depth_ros.events.atomic_write import partial_path
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.config import require
from spike_depth_ros.sim.drive import Drive, SpikeDrive, picture, world_of
from spike_depth_ros.sim.layouts import (
    LAYOUTS,
    SPIKE_FRAMES,
    Recording,
    Rig,
    View,
    write_spikes,
)
from spike_depth_ros.sim.sensors import sensor_config
from spike_depth_ros.sim.world import SCENES, World

SEGMENT_NS = 500_000_000
START_NS = 1_000_000_000
"""Time in the world at which a recording starts: the run-up needs a past."""

NOTE = 'synthetic.json'
"""What a folder was made from, inside it."""


class RecordError(ValueError):
    """A folder is in the way of a recording."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """One recording: everything in it follows from this.

    Attributes:
        layout: a key of `layouts.LAYOUTS`.
        scene: a key of `world.SCENES`.
        seed: decides the world and the sensor.
        seconds: length.
        sensor: a sensor's name or size, see `sensors.sensor_config`.
        max_step_px: greatest motion between two frames that events are made from.
    """

    layout: str
    scene: str
    seed: int
    seconds: float
    sensor: str
    max_step_px: float = 1.0

    def __post_init__(self) -> None:
        require(self.layout in LAYOUTS, 'layout', self.layout, f'one of {sorted(LAYOUTS)}')
        require(self.scene in SCENES, 'scene', self.scene, f'one of {sorted(SCENES)}')
        require(self.seed >= 0, 'seed', self.seed, '0 or more')
        require(0.1 <= self.seconds <= 590, 'seconds', self.seconds, '0.1 to 590')
        require(0.1 <= self.max_step_px <= 8, 'max_step_px', self.max_step_px, '0.1 to 8')
        self.rig  # noqa: B018 - a sensor that does not exist or fit fails now

    @property
    def name(self) -> str:
        """Name of the folder."""
        return f'{self.scene}_{self.seed:06d}'

    @property
    def segments(self) -> int:
        """Number of segments."""
        return math.ceil(round(self.seconds * 1e9) / SEGMENT_NS)

    @property
    def rig(self) -> Rig:
        """The cameras."""
        return LAYOUTS[self.layout].rig(sensor_config(self.sensor))

    @property
    def world(self) -> World:
        """The world, large enough for the drive."""
        return world_of(self.scene, self.seed, max(60.0, math.ceil(self.seconds) + 2.0))

    def span_ns(self, segment: int) -> tuple[int, int]:
        """Start and end of a segment, from the start of the recording."""
        end_ns = round(self.seconds * 1e9)
        return segment * SEGMENT_NS, min((segment + 1) * SEGMENT_NS, end_ns)

    def stamps_ns(self, rate_hz: int) -> np.ndarray:
        """All times of a camera of that rate, from the start of the recording."""
        count = math.ceil(round(self.seconds * 1e9) * rate_hz / 1e9)
        return np.arange(count, dtype=np.int64) * 1_000_000_000 // rate_hz


def open_work(out: Path, plan: Plan) -> Path | None:
    """Prepares the working folder of a recording, keeping what an interrupted run left in it.

    Returns:
        The working folder, or None if the recording is there already.

    Raises:
        RecordError: a folder of that name exists that was not made from this plan.
    """
    final, work = out / plan.name, out / f'.{plan.name}.partial'
    text = json.dumps(dataclasses.asdict(plan), indent=2) + '\n'
    if final.exists():
        if _text(final / NOTE) == text:
            shutil.rmtree(work, ignore_errors=True)  # of a run that was stopped while tidying up
            return None
        raise RecordError(
            f'{final} exists and was made otherwise: remove it, or choose another folder or seed'
        )
    if _text(work / NOTE) != text:  # another plan's, or cut off before its first segment
        shutil.rmtree(work, ignore_errors=True)
        (work / plan.name).mkdir(parents=True)
        (work / NOTE).write_text(text, 'utf-8')
    return work


def missing_segments(work: Path, plan: Plan) -> list[int]:
    """The segments that are still to be recorded."""
    return [k for k in range(plan.segments) if not _events_path(work, k).exists()]


def record_segment(work: Path, plan: Plan, segment: int) -> int:
    """Simulates one segment into the working folder.

    Returns:
        The number of its events, or of its spikes.
    """
    _record_pictures(work / plan.name, plan, segment)
    if LAYOUTS[plan.layout].spikes:
        return _record_spikes(work, plan, segment)
    start_ns, end_ns = (START_NS + t_ns for t_ns in plan.span_ns(segment))
    drive = Drive(plan.world, plan.rig.sensor, plan.seed, start_ns, segment, plan.max_step_px)
    events = drive.advance(end_ns).copy()
    events['t_ns'] -= START_NS
    _save(_events_path(work, segment), events)
    return len(events)


def finish(work: Path, plan: Plan) -> Path:
    """Completes a recording whose segments are all there, and gives it its name.

    Returns:
        The folder of the recording.
    """
    layout, folder = LAYOUTS[plan.layout], work / plan.name
    world = plan.world
    recording = Recording(
        folder,
        plan.rig,
        plan.stamps_ns(layout.depth_hz),
        plan.stamps_ns(layout.image_hz),
        functools.partial(_read_events, work, plan),
        lambda time_s: world.pose(START_NS * 1e-9 + time_s),
    )
    layout.finish(recording)
    (folder / NOTE).write_text(_text(work / NOTE), 'utf-8')
    folder.rename(work.parent / plan.name)
    shutil.rmtree(work)
    return work.parent / plan.name


def _record_pictures(folder: Path, plan: Plan, segment: int) -> None:
    """The images of a segment, and the depth maps at those of their stamps that have one."""
    world, rig, layout = plan.world, plan.rig, LAYOUTS[plan.layout]
    images_ns = plan.stamps_ns(layout.image_hz)
    with_depth = {int(stamp): k for k, stamp in enumerate(plan.stamps_ns(layout.depth_hz))}
    for k in _within(images_ns, *plan.span_ns(segment)):
        stamp_ns = int(images_ns[k])
        rgb, depth_m = picture(world, *_at(rig.colour, stamp_ns))
        layout.write_image(folder, k, rgb, depth_m, rig)
        if stamp_ns in with_depth:
            if rig.truth is not rig.colour:
                depth_m = picture(world, *_at(rig.truth, stamp_ns)).depth_m
            layout.write_depth(folder, with_depth[stamp_ns], depth_m, rig)


def _record_spikes(work: Path, plan: Plan, segment: int) -> int:
    """The spike camera's frames before each depth map of a segment."""
    world, rig, layout = plan.world, plan.rig, LAYOUTS[plan.layout]
    stamps_ns = plan.stamps_ns(layout.depth_hz)
    drive = SpikeDrive(world, rig.sensor.camera, plan.seed, plan.max_step_px)
    count = 0
    for k in _within(stamps_ns, *plan.span_ns(segment)):
        t1_ns = START_NS + int(stamps_ns[k])
        frames = drive.frames(t1_ns - 1_000_000_000 // layout.depth_hz, t1_ns, SPIKE_FRAMES)
        write_spikes(work / plan.name, k, frames)
        count += int(frames.sum(dtype=np.int64))
    _save(_events_path(work, segment), np.empty(0))
    return count


def _at(view: View, stamp_ns: int) -> tuple[Camera, float, np.ndarray]:
    """What `picture` asks for a camera that looks at a stamp."""
    return view.camera, (START_NS + stamp_ns) * 1e-9, view.from_sensor


def _within(stamps_ns: np.ndarray, start_ns: int, end_ns: int) -> range:
    """The indices of the stamps in [start, end)."""
    first, last = np.searchsorted(stamps_ns, (start_ns, end_ns))
    return range(int(first), int(last))


def _read_events(work: Path, plan: Plan) -> Iterator[np.ndarray]:
    for segment in range(plan.segments):
        yield np.load(_events_path(work, segment))


def _events_path(work: Path, segment: int) -> Path:
    return work / 'events' / f'{segment:06d}.npy'


def _save(path: Path, array: np.ndarray) -> None:
    """Writes an array under its name only when it is complete."""
    with partial_path(path) as partial, partial.open('wb') as file:
        np.save(file, array)


def _text(path: Path) -> str:
    return path.read_text('utf-8') if path.is_file() else ''
