"""Worlds by name: `build_world(scene, seed)` is the only way to build one."""

from __future__ import annotations

from collections.abc import Callable

from spike_depth_ros.sim.geometry import World
from spike_depth_ros.sim.scenes.board import build_board
from spike_depth_ros.sim.scenes.desk import build_desk
from spike_depth_ros.sim.scenes.field import build_field
from spike_depth_ros.sim.scenes.flight import build_flight
from spike_depth_ros.sim.scenes.forest import build_forest
from spike_depth_ros.sim.scenes.highway import build_highway
from spike_depth_ros.sim.scenes.indoor import build_indoor
from spike_depth_ros.sim.scenes.solids import build_solids
from spike_depth_ros.sim.scenes.stairs import build_stairs
from spike_depth_ros.sim.scenes.street import build_street
from spike_depth_ros.sim.scenes.warehouse import build_warehouse

__all__ = ['SCENES', 'World', 'WorldError', 'build_world']

SCENES: dict[str, Callable[[int, float], World]] = {
    'street': build_street,
    'indoor': build_indoor,
    'flight': build_flight,
    'board': build_board,
    'desk': build_desk,
    'solids': build_solids,
    'warehouse': build_warehouse,
    'highway': build_highway,
    'forest': build_forest,
    'field': build_field,
    'stairs': build_stairs,
}
"""Scene -> builder(seed, duration_s)."""

MAX_DURATION_S = 600.0


class WorldError(ValueError):
    """The requested world does not exist."""


def build_world(scene: str, seed: int, duration_s: float = 60.0) -> World:
    """Builds a world; the same arguments give the same geometry on any machine.

    Args:
        scene: a key of `SCENES`.
        seed: any integer from 0 to 2^63 - 1; everything is drawn from it.
        duration_s: duration of the drive that the world must have space for.

    Raises:
        WorldError: the scene is unknown, or a number is out of range.
    """
    if scene not in SCENES:
        raise WorldError(f'scene {scene!r} is unknown, expected one of {sorted(SCENES)}')
    if not 0 <= seed < 2**63:
        raise WorldError(f'seed is {seed}, expected 0 to 2^63 - 1')
    if not 0 < duration_s <= MAX_DURATION_S:
        raise WorldError(f'duration is {duration_s} s, expected 0 to {MAX_DURATION_S:g}')
    return SCENES[scene](seed, duration_s)
