"""A track through fields: crops in rows, meadows, ploughed soil, fences, hedges, far trees."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from spike_depth_ros.sim import geometry as geo
from spike_depth_ros.sim import route, weather
from spike_depth_ros.sim.build import SolidList, terrain_patches
from spike_depth_ros.sim.geometry import Free, World
from spike_depth_ros.sim.scenes.street import FLOORS
from spike_depth_ros.sim.scenes.track import Track, draw_track, soil_path, way_ground
from spike_depth_ros.sim.things import furniture, plants
from spike_depth_ros.sim.things.colours import STEEL

Generator = np.random.Generator

EDGE_M = 1.7
"""Minimum distance of crops, fences and hedges from the centre of the track."""


def build_field(seed: int, duration_s: float) -> World:
    """Builds a walk or a drive along a track between fields."""
    rng = np.random.Generator(np.random.PCG64(seed))
    fast = math.exp(float(rng.uniform(math.log(0.8), math.log(7.0))))
    length = fast * (duration_s + 15) + 140
    track = draw_track(rng, length, float(rng.uniform(0.3, 2.0)),
                       (float(rng.uniform(0.01, 0.12)), 60.0), 180.0, 12.0)  # fmt: skip
    speed = route.speed_profile(rng, track.path, duration_s, fast, 0.05)
    speed = speed - np.array([0.0, 10.0, 0.0])
    condition, light = weather.draw_weather(rng, float(track.path[20, 2]))
    solids = SolidList()
    terrain_patches(solids, track.heights, track.terrain, track.keep)
    for side in (-1, 1):
        s = 0.0
        while s < track.length_m:
            end = s + float(rng.uniform(25, 90))
            kinds = list(PARCELS)
            PARCELS[kinds[int(rng.integers(len(kinds)))]](
                solids, rng, track, side, s, min(end, track.length_m)
            )
            s = end
    _far(solids, rng, track)
    arrays = solids.solids()
    mesh = (track.heights, track.terrain)
    moving = route.motion_of(track.path, speed, mesh, track.waves, [])
    light = weather.with_maps(light, arrays, *mesh, track.path[:, :2], np.zeros((0, 3)))
    ground = way_ground(track, soil_path(float(rng.uniform(0.8, 1.4))), _floor(rng))
    return World('field', seed, duration_s, condition, arrays, moving, ground, light,
                 _mount(rng), Free(0.15, 3.0, EDGE_M - 0.9))  # fmt: skip


def _floor(rng: Generator) -> np.ndarray:
    colour = FLOORS[int(rng.integers(len(FLOORS)))] * rng.uniform(0.8, 1.25, (5, 1))
    colour[:3] = colour[4] * rng.uniform(0.9, 1.8)  # the track, without any markings
    return colour


def _crops(
    solids: SolidList, rng: Generator, track: Track, side: int, start: float, end: float
) -> None:
    """Adds rows of plants along the track, from cabbages to maize; sometimes they are ripe."""
    tall = math.exp(float(rng.uniform(math.log(0.15), math.log(2.2))))
    apart, piece = max(0.45, 0.5 * tall) * float(rng.uniform(1.0, 1.6)), 2.4
    ripe = rng.random() < 0.35
    leaf = (0.32, 0.24, 0.09) if ripe else (0.07 * rng.uniform(0.6, 1.6), 0.14, 0.035)
    dark = (0.12, 0.09, 0.04) if ripe else (0.025, 0.05, 0.015)
    detail = (float(rng.uniform(0.04, 0.12)), 0.8, 0.0, float(rng.integers(99)))
    wide = min(0.4 * apart, 0.35)
    for row in range(8):
        d = side * (EDGE_M + 0.35 + apart * row)
        for s in np.arange(start, end - piece, piece):
            high = tall * float(rng.uniform(0.8, 1.1)) / 2
            solids.add(track.place(float(s) + piece / 2, d), geo.BALL, geo.FOLIAGE,
                       (0, 0, 0.85 * high), (0.62 * piece, wide, high), leaf, dark,
                       detail=detail)  # fmt: skip


def _hedge(
    solids: SolidList, rng: Generator, track: Track, side: int, start: float, end: float
) -> None:
    """Adds bushes side by side with occasional trees."""
    gap = float(rng.uniform(0.7, 3.0))
    for s in np.arange(start, end, gap):
        place = track.place(float(s), side * float(rng.uniform(EDGE_M + 1.5, EDGE_M + 2.6)))
        if rng.random() < 0.06:
            plants.tree(solids, track.place(float(s), side * (EDGE_M + 3.5)), rng,
                        float(rng.uniform(4, 8)))  # fmt: skip
        plants.bush(solids, place, rng)


def _pasture(
    solids: SolidList, rng: Generator, track: Track, side: int, start: float, end: float
) -> None:
    """Adds a meadow behind a fence, with bales, stones and tussocks."""
    if rng.random() < 0.8:
        span = 8.0
        for at in np.arange(start, end - span, span):
            furniture.fence(solids, track.place(float(at) + span / 2, side * (EDGE_M + 0.3)),
                            rng, span)  # fmt: skip
    for _ in range(int((end - start) * rng.uniform(0.0, 0.8))):
        s, d = float(rng.uniform(start, end)), side * float(rng.uniform(EDGE_M + 1.5, 40))
        place = track.place(s, d, float(rng.uniform(0, 6.28)))
        if rng.random() < 0.06:
            solids.add(place, geo.CONE, geo.FOLIAGE, (0, 0, 0.7), (0.7, 0.7, 0.6),
                       (0.4, 0.31, 0.13), (0.2, 0.15, 0.06), detail=(0.05, 0.6, 0, 1),
                       roll_rad=math.pi / 2)  # fmt: skip
        else:
            r = float(rng.uniform(0.1, 0.4))
            solids.add(place, geo.BALL, geo.FOLIAGE, (0, 0, 0.4 * r), (r, r, r),
                       (0.12, 0.15, 0.04), (0.05, 0.07, 0.02),
                       detail=(0.05, 0.7, 0, 1))  # fmt: skip


def _ploughed(
    solids: SolidList, rng: Generator, track: Track, side: int, start: float, end: float
) -> None:
    """Adds ridges of soil along the track."""
    soil = float(rng.uniform(0.6, 1.6))
    light, dark = (0.16 * soil, 0.11 * soil, 0.07 * soil), (0.05, 0.035, 0.02)
    piece = 4.0
    for row in range(12):
        d = side * (EDGE_M + 0.5 + 0.75 * row)
        for s in np.arange(start, end - piece, piece):
            solids.add(track.place(float(s) + piece / 2, d), geo.BALL, geo.FRACTAL, (0, 0, 0),
                       (0.6 * piece, 0.3, float(rng.uniform(0.1, 0.2))), light, dark,
                       detail=(0.25, 0.6, 0.8, float(rng.integers(1, 99))))  # fmt: skip


def _orchard(
    solids: SolidList, rng: Generator, track: Track, side: int, start: float, end: float
) -> None:
    """Adds small trees or vines in rows."""
    tall, apart = float(rng.uniform(1.8, 4.5)), float(rng.uniform(2.5, 5.0))
    for row in range(3):
        for s in np.arange(start, end, apart):
            place = track.place(float(s), side * (EDGE_M + 1.6 + 1.2 * apart * row))
            plants.tree(solids, place, rng, tall * float(rng.uniform(0.85, 1.15)))


PARCELS: dict[str, Callable[[SolidList, Generator, Track, int, float, float], None]] = {
    'crops': _crops,
    'low crops': _crops,
    'hedge': _hedge,
    'pasture': _pasture,
    'ploughed': _ploughed,
    'orchard': _orchard,
}


def _far(solids: SolidList, rng: Generator, track: Track) -> None:
    """Adds trees, edges of woods and power lines in the distance."""
    for _ in range(int(track.length_m * rng.uniform(0.1, 0.5))):
        s, d = float(rng.uniform(0, track.length_m)), float(rng.uniform(22, 150))
        place = track.place(s, d * (1 if rng.random() < 0.5 else -1))
        if track.clear(place, 15.0):
            plants.tree(solids, place, rng, float(rng.uniform(4, 13)))
    if rng.random() < 0.5:
        d, tall = float(rng.choice([-1, 1])) * float(rng.uniform(4, 25)), 8.0
        for at in np.arange(10, track.length_m, 38.0):
            place = track.place(float(at), d)
            if track.clear(place, 3.0):
                solids.add(place, geo.CONE, geo.BARK, (0, 0, tall / 2), (0.13, 0.13, tall / 2),
                           (0.2, 0.15, 0.1), detail=(0.3, 0, 0.3, 1),
                           taper=(0.3, 0, 0))  # fmt: skip
                bar = (0.06, 0.9, 0.06)
                solids.add(place, geo.BOX, geo.PLAIN, (0, 0, tall - 0.4), bar, STEEL)


def _mount(rng: Generator) -> geo.Ego:
    """Returns a mount on a tractor, a robot or a person, shaken by rough ground."""
    shake = [
        (2, rng.uniform(0.005, 0.03), rng.uniform(1.2, 2.5)),
        (4, rng.uniform(0.003, 0.02), rng.uniform(1.0, 2.5)),
        (3, rng.uniform(0.003, 0.02), rng.uniform(0.8, 2.2)),
        (4, rng.uniform(0.0005, 0.002), rng.uniform(8, 16)),
        (5, rng.uniform(0.02, 0.3), rng.uniform(0.05, 0.2)),
        (1, rng.uniform(0.0, 0.2), rng.uniform(0.05, 0.15)),
    ]
    return geo.Ego(offset_m=float(rng.uniform(-0.2, 0.2)), height_m=float(rng.uniform(0.4, 2.4)),
                   pitch_rad=float(rng.uniform(-0.1, 0.3)), bank=0.0,
                   follow=float(rng.uniform(0.5, 1.0)),
                   shake=np.array([(*row, rng.uniform(0, 6.28)) for row in shake]))  # fmt: skip
