"""Records drives in segments on several cores and resumes interrupted runs.

A recording consists of segments of half a second. Each segment is simulated independently, after a
short warm-up of the pixels, and writes its images and then its events to a hidden working folder;
the event file marks the segment as complete. When all segments exist, the layout completes the
folder and only then renames it, so an incomplete recording is never visible.
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
from spike_depth_ros.sim.ego import MOTIONS, Mounts, ride, with_flicker
from spike_depth_ros.sim.geometry import Flicker
from spike_depth_ros.sim.layouts import LAYOUTS, SPIKE_FRAMES, write_spikes
from spike_depth_ros.sim.rigs import Recording, Rig, View
from spike_depth_ros.sim.sensors import (
    SENSOR_MODELS,
    EventCameraConfig,
    draw_lens,
    draw_sensor,
    field_of_view_deg,
    sensor_config,
)
from spike_depth_ros.sim.static_parts import STATIC_PARTS, draw_part
from spike_depth_ros.sim.world import SCENES, World

SEGMENT_NS = 500_000_000
START_NS = 1_000_000_000
"""Time in the world at which a recording starts, after the warm-up."""

NOTE = 'synthetic.json'
"""File in a folder that records what it was made from."""


class RecordError(ValueError):
    """An existing folder conflicts with a recording."""


@dataclasses.dataclass(frozen=True)
class Shot:
    """Overrides of the camera and its mount in a scene.

    Attributes:
        motion: a key of `ego.MOTIONS`.
        height_m: camera height above ground; None for that of the scene, as in the next four.
        pitch_deg: positive looks down.
        roll_deg: positive lifts the left side.
        yaw_deg: to the left of the scene's own viewing direction.
        field_of_view_deg: horizontal; a lens is drawn for it.
        sensor_model: `preset`, or a key of `sensors.SENSOR_MODELS`.
        static_part: a key of `static_parts.STATIC_PARTS`, or '' for none.
        flicker_hz: flicker of the lamps of the scene, if any; 0 for none.
    """

    motion: str = 'own'
    height_m: float | None = None
    pitch_deg: float | None = None
    roll_deg: float | None = None
    yaw_deg: float | None = None
    field_of_view_deg: float | None = None
    sensor_model: str = 'preset'
    static_part: str = ''
    flicker_hz: float = 0.0

    def __post_init__(self) -> None:
        for name, known in (
            ('motion', MOTIONS),
            ('sensor_model', ('preset', *SENSOR_MODELS)),
            ('static_part', ('', *STATIC_PARTS)),
        ):
            value = getattr(self, name)
            require(value in known, name, value, f'one of {sorted(known)}')
        require(0 <= self.flicker_hz <= 1000, 'flicker_hz', self.flicker_hz, '0 to 1000')

    @property
    def mounts(self) -> Mounts:
        """Returns the mount as ranges."""
        values = (self.height_m, self.pitch_deg, self.roll_deg, self.yaw_deg)
        return Mounts(*(() if value is None else (value, value) for value in values))

    def sensor(self, name: str, seed: int) -> EventCameraConfig:
        """Returns the sensor of a name or size, with the requested lens and sensor model."""
        preset, rng = sensor_config(name), np.random.default_rng((seed, 0xE6))
        camera = preset.camera
        if self.field_of_view_deg is not None:
            camera = draw_lens(rng, camera, self.field_of_view_deg)
        if self.sensor_model == 'preset':
            return dataclasses.replace(preset, camera=camera)
        return draw_sensor(rng, self.sensor_model, camera, preset.threshold_on)


@dataclasses.dataclass(frozen=True)
class Plan:
    """One recording, which is fully determined by these values.

    Attributes:
        layout: a key of `layouts.LAYOUTS`.
        scene: a key of `world.SCENES`.
        seed: determines the world and the sensor.
        seconds: duration.
        sensor: name or size of a sensor, see `sensors.sensor_config`.
        max_step_px: maximum motion between two frames that events are computed from.
        shot: overrides of the camera and its mount.
    """

    layout: str
    scene: str
    seed: int
    seconds: float
    sensor: str
    max_step_px: float = 1.0
    shot: Shot = Shot()

    def __post_init__(self) -> None:
        require(self.layout in LAYOUTS, 'layout', self.layout, f'one of {sorted(LAYOUTS)}')
        require(self.scene in SCENES, 'scene', self.scene, f'one of {sorted(SCENES)}')
        require(self.seed >= 0, 'seed', self.seed, '0 or more')
        require(0.1 <= self.seconds <= 590, 'seconds', self.seconds, '0.1 to 590')
        require(0.1 <= self.max_step_px <= 8, 'max_step_px', self.max_step_px, '0.1 to 8')
        free_lens = self.shot.field_of_view_deg is None or not self.layout.startswith('dense')
        require(free_lens, 'field_of_view_deg', self.shot.field_of_view_deg,
                f'None: the layout {self.layout} has a fixed lens')  # fmt: skip
        self.rig  # noqa: B018 - an unknown or unsuitable sensor fails here

    @property
    def name(self) -> str:
        """Returns the name of the folder."""
        return f'{self.scene}_{self.seed:06d}'

    @property
    def segments(self) -> int:
        """Returns the number of segments."""
        return math.ceil(round(self.seconds * 1e9) / SEGMENT_NS)

    @property
    def rig(self) -> Rig:
        """Returns the cameras."""
        return LAYOUTS[self.layout].rig(self.shot.sensor(self.sensor, self.seed))

    @property
    def world(self) -> World:
        """Returns the world, large enough for the drive, with the overrides of the shot."""
        return _seen_world(self)

    @property
    def note(self) -> str:
        """Returns JSON of what the folder is made from; a default shot is omitted."""
        values = dataclasses.asdict(self)
        if self.shot == Shot():
            del values['shot']
        return json.dumps(values, indent=2) + '\n'

    def span_ns(self, segment: int) -> tuple[int, int]:
        """Returns start and end of a segment, relative to the start of the recording."""
        end_ns = round(self.seconds * 1e9)
        return segment * SEGMENT_NS, min((segment + 1) * SEGMENT_NS, end_ns)

    def stamps_ns(self, rate_hz: int) -> np.ndarray:
        """Returns all times of a camera of that rate, relative to the start of the recording."""
        count = math.ceil(round(self.seconds * 1e9) * rate_hz / 1e9)
        return np.arange(count, dtype=np.int64) * 1_000_000_000 // rate_hz


@functools.lru_cache(maxsize=2)
def _seen_world(plan: Plan) -> World:
    world = world_of(plan.scene, plan.seed, max(60.0, math.ceil(plan.seconds) + 2.0))
    rng, shot, start_s = np.random.default_rng((plan.seed, 0xE5)), plan.shot, START_NS * 1e-9
    world = ride(world, shot.motion, shot.mounts, rng, start_s, start_s + plan.seconds)
    if shot.static_part:
        view_deg = field_of_view_deg(plan.rig.sensor.camera)
        part = draw_part(rng, shot.static_part, view_deg)
        world = dataclasses.replace(world, ego=world.ego._replace(part=part))
    if shot.flicker_hz:
        flicker = Flicker(shot.flicker_hz, rng.uniform(0.03, 0.7), rng.uniform(0, 2 * math.pi))
        world = with_flicker(world, flicker)
    return world


def open_work(out: Path, plan: Plan) -> Path | None:
    """Prepares the working folder of a recording and keeps the segments of an interrupted run.

    Returns:
        The working folder, or None if the recording is already complete.

    Raises:
        RecordError: a folder of that name exists that was not made from this plan.
    """
    final, work = out / plan.name, out / f'.{plan.name}.partial'
    text = plan.note
    if final.exists():
        if _text(final / NOTE) == text:
            shutil.rmtree(work, ignore_errors=True)  # of a run interrupted while cleaning up
            return None
        raise RecordError(
            f'{final} exists and holds another recording: remove it or change folder or seed'
        )
    if _text(work / NOTE) != text:  # of another plan, or interrupted before the first segment
        shutil.rmtree(work, ignore_errors=True)
        (work / plan.name).mkdir(parents=True)
        (work / NOTE).write_text(text, 'utf-8')
    return work


def missing_segments(work: Path, plan: Plan) -> list[int]:
    """Returns the segments that are still to be recorded."""
    return [k for k in range(plan.segments) if not _events_path(work, k).exists()]


def record_segment(work: Path, plan: Plan, segment: int) -> int:
    """Simulates one segment into the working folder.

    Returns:
        The number of events or of spikes in the segment.
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
    """Completes and renames a recording whose segments all exist.

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
        lambda time_s: world.twist(START_NS * 1e-9 + time_s),
    )
    layout.finish(recording)
    (folder / NOTE).write_text(_text(work / NOTE), 'utf-8')
    folder.rename(work.parent / plan.name)
    shutil.rmtree(work)
    return work.parent / plan.name


def _record_pictures(folder: Path, plan: Plan, segment: int) -> None:
    """Records the images of a segment and the depth maps at those stamps that have one."""
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
    """Records the spike camera's frames before each depth map of a segment."""
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
    """Returns the arguments of `picture` for a camera at a stamp."""
    return view.camera, (START_NS + stamp_ns) * 1e-9, view.from_sensor


def _within(stamps_ns: np.ndarray, start_ns: int, end_ns: int) -> range:
    """Returns the indices of the stamps in [start, end)."""
    first, last = np.searchsorted(stamps_ns, (start_ns, end_ns))
    return range(int(first), int(last))


def _read_events(work: Path, plan: Plan) -> Iterator[np.ndarray]:
    for segment in range(plan.segments):
        yield np.load(_events_path(work, segment))


def _events_path(work: Path, segment: int) -> Path:
    return work / 'events' / f'{segment:06d}.npy'


def _save(path: Path, array: np.ndarray) -> None:
    """Saves an array under its final name only when it is complete."""
    with partial_path(path) as partial, partial.open('wb') as file:
        np.save(file, array)


def _text(path: Path) -> str:
    return path.read_text('utf-8') if path.is_file() else ''
