"""Mounts and motions of the camera, drawn for any scene.

A mount (height, angles) and a motion (speed, and sinusoids along and about all axes) replace those
of the scene. They stay within `World.free`. A draw that touches a solid is repeated from the same
generator, so the seed determines the outcome.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.config import require
from spike_depth_ros.sim import motion as mo
from spike_depth_ros.sim.clearance import touches
from spike_depth_ros.sim.geometry import Ego, Flicker, World, quantised
from spike_depth_ros.sim.render import render_luminance

Generator = np.random.Generator
Rows = list[tuple[int, float, float, float]]

HIGH_M = 3.5
"""Above this height, half of the scene's own pitch is added to a drawn one."""

MARGIN_M = 0.15
"""Minimum distance of the camera from all surfaces. The minimum is lower if 0.6 of its height, or
half of the width of `World.free`, is less.
"""

MOST_HEIGHTS_PER_S = 15.0
"""Maximum speed [m/s] per metre of height: cameras near the ground move slowly, as robots do."""

CHECK_STEP_S = 0.05

GLANCE = Camera(48, 36, 41.6, 41.6, 23.5, 17.5)
FARTHEST_M = 150.0
LEAST_SEEN = 0.25
"""Minimum fraction of a view nearer than `FARTHEST_M`; otherwise the mount is drawn again."""

TRIES = 40
X, Y, Z, ROLL, PITCH, YAW = range(6)
"""Axes of `Ego.shake`."""


class RideError(ValueError):
    """None of the drawn mounts and motions fits into a world."""


@dataclasses.dataclass(frozen=True)
class Mounts:
    """Ranges that a mount is drawn from, each (min, max); empty keeps the scene's own value.

    Attributes:
        heights_m: height above ground, log-uniformly distributed. Only the part allowed by
            `World.free` is used, or all of `World.free` if there is none: a flight stays a flight.
        pitches_deg: positive looks down.
        rolls_deg: positive lifts the left side.
        yaws_deg: to the left of the scene's own viewing direction.
    """

    heights_m: tuple[float, ...] = ()
    pitches_deg: tuple[float, ...] = ()
    rolls_deg: tuple[float, ...] = ()
    yaws_deg: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name, low, high in (
            ('heights_m', 0.05, 200.0),
            ('pitches_deg', -89.0, 89.0),
            ('rolls_deg', -180.0, 180.0),
            ('yaws_deg', -180.0, 180.0),
        ):
            check_range(name, getattr(self, name), low, high)


def check_range(name: str, value: tuple[float, ...], low: float, high: float) -> None:
    """Raises a `ConfigError` unless a range is empty or (min, max) within limits."""
    fits = not value or (len(value) == 2 and low <= value[0] <= value[1] <= high)
    require(fits, name, value, f'[] or [least, greatest] within {low:g} to {high:g}')


def ride(
    world: World,
    motion: str,
    mounts: Mounts,
    rng: Generator,
    start_s: float,
    end_s: float,
) -> World:
    """Returns the world with a new mount and motion that touch no solid for some time.

    Args:
        world: a scene with its own mount and motion.
        motion: a key of `MOTIONS`.
        mounts: ranges of the mount.
        rng: random generator.
        start_s: time at which the camera is near the position of the scene's own camera.
        end_s: end of the time in which it must not touch anything.

    Raises:
        RideError: all of `TRIES` draws touch something or see only sky.
    """
    require(motion in MOTIONS, 'motion', motion, f'one of {sorted(MOTIONS)}')
    if motion == 'own' and mounts == Mounts():
        return world
    middle_s = (start_s + end_s) / 2
    for _ in range(TRIES):
        candidate = MOTIONS[motion](mounted(world, mounts, rng), rng, start_s)
        candidate = _slowed(candidate, start_s, MOST_HEIGHTS_PER_S * candidate.ego.height_m)
        if is_free(candidate, start_s, end_s) and sees_something(candidate, middle_s):
            return candidate
    raise RideError(
        f'{world.scene} of seed {world.seed}: {TRIES} draws of {motion!r} with {mounts} touch '
        f'something, or see nothing, between {start_s:g} and {end_s:g} s: choose other heights '
        'or pitches'
    )


def with_flicker(world: World, flicker: Flicker) -> World:
    """Returns the world with flickering lamps; the same world if it has none."""
    if not (world.light.artificial > 0 or world.light.night > 0):
        return world
    return dataclasses.replace(world, light=world.light._replace(flicker=flicker))


def is_free(world: World, start_s: float, end_s: float) -> bool:
    """Returns True if the camera keeps its distance from all surfaces for some time."""
    margin_m = min(MARGIN_M, 0.6 * world.ego.height_m, 0.5 * world.free.side_m)
    times = np.linspace(start_s, end_s, max(math.ceil((end_s - start_s) / CHECK_STEP_S), 1) + 1)
    return not any(
        touches(
            world.solids, world.motion, t, np.ascontiguousarray(world.pose(t)[:3, 3]), margin_m
        )
        for t in times
    )


def sees_something(world: World, time_s: float) -> bool:
    """Returns False if a camera 60 degrees wide sees almost only sky and haze."""
    depth_m = render_luminance(world, GLANCE, time_s).depth_m
    return float((depth_m < FARTHEST_M).mean()) >= LEAST_SEEN


def mounted(world: World, mounts: Mounts, rng: Generator) -> World:
    """Returns the world with another mount; its motion is unchanged."""
    ego, free = world.ego, world.free
    if mounts.heights_m:
        low, high = max(mounts.heights_m[0], free.low_m), min(mounts.heights_m[1], free.high_m)
        if low > high:
            low, high = free.low_m, free.high_m
        ego = ego._replace(height_m=math.exp(rng.uniform(math.log(low), math.log(high))))
    if mounts.pitches_deg:
        level = 0.5 * ego.pitch_rad if ego.height_m > HIGH_M else 0.0  # flights look down
        ego = ego._replace(pitch_rad=level + _radians(rng, mounts.pitches_deg))
    if mounts.rolls_deg:
        ego = ego._replace(roll_rad=_radians(rng, mounts.rolls_deg))
    if mounts.yaws_deg:
        turn = min(max(_radians(rng, mounts.yaws_deg), -free.turn_rad), free.turn_rad)
        ego = ego._replace(yaw_rad=ego.yaw_rad + turn)
    return dataclasses.replace(world, ego=ego)


def _radians(rng: Generator, range_deg: tuple[float, ...]) -> float:
    return math.radians(rng.uniform(range_deg[0], range_deg[1]))


def _own(world: World, rng: Generator, around_s: float) -> World:
    """Keeps the motion of the scene."""
    return world


def _driving(world: World, rng: Generator, around_s: float) -> World:
    """Moves a vehicle at the scene's speeds; heave, roll and vibration grow with speed."""
    rows = [
        *_sines(rng, Z, (0.004, 0.02), (1.0, 2.0)),
        *_sines(rng, PITCH, (0.001, 0.008), (0.8, 2.0)),
        *_sines(rng, ROLL, (0.001, 0.006), (0.7, 1.6)),
        *_sines(rng, PITCH, (0.0001, 0.001), (9, 18)),
        *_sines(rng, ROLL, (0.0001, 0.0008), (9, 20)),
        *_sines(rng, YAW, (0.001, 0.01), (0.1, 0.4)),
    ]
    return _with(world, rows, bank=rng.uniform(-0.01, 0.012), idle=0.25, lively=1.0)


def _stop_and_go(world: World, rng: Generator, around_s: float) -> World:
    """Moves a vehicle or robot that repeatedly stops, starts and brakes, nodding as it does."""
    top = float(np.abs(world.motion.speed[:, 2]).max())
    rows = [*_sines(rng, PITCH, (0.002, 0.015), (0.5, 1.5)),
            *_sines(rng, PITCH, (0.0001, 0.0008), (9, 18))]  # fmt: skip
    paced = _paced(world, rng, around_s, (0.0, 0.6 * top), (0.8, 2.0), halts=0.4)
    return _with(paced, rows, idle=0.5, lively=0.7)


def _walking(world: World, rng: Generator, around_s: float) -> World:
    """Moves with the gait of a person or legged robot: bobs per step, sways per two steps."""
    step_hz, phase = rng.uniform(1.4, 2.6), rng.uniform(0, 2 * math.pi)
    rows = [
        (Z, _bounded(world, Z, rng.uniform(0.008, 0.03)), step_hz, phase),
        (Y, _bounded(world, Y, rng.uniform(0.005, 0.025)), step_hz / 2, phase),
        (PITCH, rng.uniform(0.004, 0.03), step_hz, phase + rng.uniform(0, 6)),
        (ROLL, rng.uniform(0.004, 0.025), step_hz / 2, phase + rng.uniform(0, 6)),
        (YAW, rng.uniform(0.004, 0.03), step_hz / 2, phase + rng.uniform(0, 6)),
        *_sines(rng, YAW, (0.05, 0.4), (0.08, 0.3)),
        *_sines(rng, PITCH, (0.01, 0.1), (0.07, 0.25)),
        *_sines(rng, PITCH, (0.0005, 0.003), (6, 12)),
    ]
    return _with(_paced(world, rng, around_s, (0.5, 1.9), (2.0, 4.0)), rows)


def _hand_held(world: World, rng: Generator, around_s: float) -> World:
    """Moves in six degrees of freedom at once, rolled by up to 45 degrees, almost in place."""
    rows = []
    for axis in (X, Y, Z):
        for row in _sines(rng, axis, (0.01, 0.12), (0.2, 1.2), 2):
            rows.append((axis, _bounded(world, axis, row[1]), *row[2:]))
    for axis, least, greatest in ((ROLL, 0.02, 0.25), (PITCH, 0.02, 0.25), (YAW, 0.03, 0.4)):
        rows += _sines(rng, axis, (least, greatest), (0.2, 1.2), 2)
    rows += _sines(rng, PITCH, (0.0005, 0.004), (5, 11)) + _sines(
        rng, ROLL, (0.0005, 0.004), (5, 11)
    )
    roll = math.radians(rng.uniform(-40, 40)) if rng.random() < 0.5 else world.ego.roll_rad
    slow = _paced(world, rng, around_s, (0.0, 0.6), (1.0, 3.0))
    return _with(slow, rows, roll_rad=roll)


def _sideways(world: World, rng: Generator, around_s: float) -> World:
    """Translates across the line of sight without rotation.

    If there is something to see at the sides, the camera looks there while it follows its path. If
    the scene is arranged for one line of sight, the camera swings from side to side.
    """
    ego, rows = world.ego, _sines(rng, PITCH, (0.0001, 0.0008), (9, 18))
    world = _slowed(world, around_s, rng.uniform(0.3, 4.0))
    if abs(math.sin(ego.yaw_rad)) > 0.7:
        return _with(world, rows)
    if world.free.turn_rad > 2.0:
        side = math.radians(rng.uniform(65, 115)) * (1 if rng.random() < 0.5 else -1)
        return _with(world, rows, yaw_rad=ego.yaw_rad + side)
    reach_m = _bounded(world, Y, rng.uniform(0.05, 0.5))
    rows.append(
        (Y, reach_m, rng.uniform(0.1, 0.6) / (2 * math.pi * reach_m), rng.uniform(0, 6.28))
    )
    return _with(_standing(world, around_s), rows)


def _rotation(world: World, rng: Generator, around_s: float) -> World:
    """Moves like a pan head: rotates about all axes, with the camera centre at rest."""
    rows = [
        *_sines(rng, YAW, (0.1, 0.8), (0.1, 0.7), 2),
        *_sines(rng, PITCH, (0.02, 0.25), (0.1, 0.7), 2),
        *_sines(rng, ROLL, (0.0, 0.2), (0.1, 0.7)),
    ]
    return _with(_standing(world, around_s), rows)


def _hovering(world: World, rng: Generator, around_s: float) -> World:
    """Hovers like a drone: drifts, tilts and vibrates."""
    rows = []
    for axis in (X, Y, Z):
        for row in _sines(rng, axis, (0.03, 0.3), (0.05, 0.4), 2):
            rows.append((axis, _bounded(world, axis, row[1]), *row[2:]))
    for axis in (ROLL, PITCH, YAW):
        rows += _sines(rng, axis, (0.01, 0.08), (0.1, 0.7), 2)
        rows += _sines(rng, axis, (0.0002, 0.0015), (14, 28))
    return _with(_standing(world, around_s), rows)


MOTIONS: dict[str, Callable[[World, Generator, float], World]] = {
    'own': _own,
    'driving': _driving,
    'stop_and_go': _stop_and_go,
    'walking': _walking,
    'hand_held': _hand_held,
    'sideways': _sideways,
    'rotation': _rotation,
    'hovering': _hovering,
}
"""Motion -> function (world, rng, around_s) that returns a world with another speed and shake. At
`around_s` the camera is at the position of the scene's own, except for the shake.
"""


def _with(
    world: World,
    rows: Rows,
    bank: float = 0.0,
    idle: float = 1.0,
    lively: float = 0.0,
    **changes: Any,
) -> World:
    ego: Ego = world.ego._replace(
        shake=np.array(rows), bank=bank, idle=idle, lively=lively, **changes
    )
    return dataclasses.replace(world, ego=ego)


def _sines(
    rng: Generator,
    axis: int,
    amplitudes: tuple[float, float],
    rates_hz: tuple[float, float],
    count: int = 1,
) -> Rows:
    """Draws rows of `Ego.shake` with amplitude and frequency within ranges, and any phase."""
    return [
        (axis, rng.uniform(*amplitudes), rng.uniform(*rates_hz), rng.uniform(0, 2 * math.pi))
        for _ in range(count)
    ]


def _bounded(world: World, axis: int, amplitude_m: float) -> float:
    """Limits an amplitude to keep the camera within `World.free` and off the ground."""
    ego, free = world.ego, world.free
    if axis == Z:
        room = min(ego.height_m - free.low_m, free.high_m - ego.height_m, 0.4 * ego.height_m)
    else:
        room = free.side_m
    return min(amplitude_m, max(room, 0.02) / 2)


def _standing(world: World, around_s: float) -> World:
    """Keeps the camera where the scene's own is at a given time."""
    place_m = mo.travelled(world.motion.speed, around_s)[0]
    knots = [(0.0, place_m, 0.0), (world.duration_s + 10.0, place_m, 0.0)]
    return _moving(world, knots)


def _paced(
    world: World,
    rng: Generator,
    around_s: float,
    speeds_m_s: tuple[float, float],
    spans_s: tuple[float, float],
    halts: float = 0.0,
) -> World:
    """Draws speeds from a range, each held for a time span, some of them 0."""
    time_s, place_m, speed = 0.0, 0.0, rng.uniform(*speeds_m_s)
    knots = [(time_s, place_m, speed)]
    while time_s < world.duration_s + 10.0:
        span, wish = rng.uniform(*spans_s), rng.uniform(*speeds_m_s)
        wish = 0.0 if rng.random() < halts else wish
        time_s, place_m, speed = time_s + span, place_m + span * (speed + wish) / 2, wish
        knots.append((time_s, place_m, speed))
    table = np.array(knots)
    table[:, 1] += mo.travelled(world.motion.speed, around_s)[0] - mo.travelled(table, around_s)[0]
    return _moving(world, table)


def _slowed(world: World, around_s: float, most_m_s: float) -> World:
    """Scales all speeds by one factor so that none exceeds a limit."""
    speed = world.motion.speed
    factor = most_m_s / max(float(np.abs(speed[:, 2]).max()), most_m_s)
    if factor == 1.0:
        return world
    place_m = mo.travelled(speed, around_s)[0]
    slower = speed * np.array([1.0, factor, factor])
    slower[:, 1] += (1.0 - factor) * place_m
    return _moving(world, slower)


def _moving(world: World, knots: list | np.ndarray) -> World:
    moved = world.motion._replace(speed=quantised(knots))
    return dataclasses.replace(world, motion=moved)
