"""A path between trunks, with undergrowth beside it and a canopy above."""

from __future__ import annotations

import math

import numpy as np

from spike_depth_ros.sim import geometry as geo
from spike_depth_ros.sim import route, weather
from spike_depth_ros.sim.build import RGB, Place, SolidList, terrain_patches
from spike_depth_ros.sim.geometry import Free, World
from spike_depth_ros.sim.scenes.track import Track, draw_track, soil_path, way_ground
from spike_depth_ros.sim.things import plants

Generator = np.random.Generator

WOOD_M = 28.0
"""Maximum distance of trees to the sides of the path."""

AWAY_M = 0.9
"""Minimum distance of fixed objects from the centre of the path."""


def build_forest(seed: int, duration_s: float) -> World:
    """Builds a walk or a drive along a path through a wood."""
    rng = np.random.Generator(np.random.PCG64(seed))
    fast = float(rng.uniform(0.8, 4.0))
    length = fast * (duration_s + 15) + 70
    track = draw_track(rng, length, float(rng.uniform(1.0, 5.0)),
                       (float(rng.uniform(0.02, 0.25)), 25.0), 70.0, 5.0)  # fmt: skip
    speed = route.speed_profile(rng, track.path, duration_s, fast, 0.05)
    speed = speed - np.array([0.0, 10.0, 0.0])
    condition, light = weather.draw_weather(rng, float(track.path[20, 2]))
    solids = SolidList()
    terrain_patches(solids, track.heights, track.terrain, track.keep)
    _trees(solids, rng, track)
    _undergrowth(solids, rng, track)
    arrays = solids.solids()
    mesh = (track.heights, track.terrain)
    moving = route.motion_of(track.path, speed, mesh, track.waves, [])
    light = weather.with_maps(light, arrays, *mesh, track.path[:, :2], np.zeros((0, 3)))
    half = float(rng.uniform(0.25, 0.8))
    ground = way_ground(track, soil_path(half), _floor(rng))
    return World('forest', seed, duration_s, condition, arrays, moving, ground, light,
                 _mount(rng), Free(0.15, 2.2, AWAY_M - 0.4))  # fmt: skip


def _floor(rng: Generator) -> np.ndarray:
    """Returns the colours of the path, of leaf litter and moss, and of bare soil."""
    path = np.array([0.16, 0.12, 0.08]) * rng.uniform(0.6, 1.6)
    litter = np.array([[0.10, 0.07, 0.035], [0.05, 0.08, 0.025], [0.14, 0.09, 0.04]])
    soil = np.array([0.09, 0.065, 0.04]) * rng.uniform(0.6, 1.6)
    chosen = litter[int(rng.integers(3))] * rng.uniform(0.7, 1.3)
    return np.stack([path, path, path, chosen, soil])


def _trees(solids: SolidList, rng: Generator, track: Track) -> None:
    """Adds trunks, as dense as in a plantation or as sparse as in a park, each with its crown."""
    per_m = float(rng.uniform(0.5, 2.6))
    firs = float(rng.random())
    for _ in range(int(track.length_m * per_m)):
        s = float(rng.uniform(0, track.length_m))
        # denser near the path, because distant ones are hidden anyway
        d = (1 if rng.random() < 0.5 else -1) * (AWAY_M + WOOD_M * float(rng.random()) ** 1.6)
        girth, tall = float(rng.uniform(0.06, 0.38)), float(rng.uniform(7, 18))
        place = track.place(s, d)
        if track.clear(place, AWAY_M + girth):
            _tree(solids, rng, place, girth, tall, rng.random() < firs, abs(d) < 14)


def _tree(
    solids: SolidList,
    rng: Generator,
    place: Place,
    girth_m: float,
    tall_m: float,
    fir: bool,
    near: bool,
) -> None:
    """Adds a trunk with bark, some dead branches, and a crown high above."""
    wood = float(rng.uniform(0.5, 1.5))
    bark, dark = (0.12 * wood, 0.09 * wood, 0.065 * wood), (0.04, 0.03, 0.022)
    seed = float(rng.integers(1000))
    lean = rng.uniform(-0.05, 0.05, 2)
    solids.add(place, geo.CONE, geo.BARK, (0, 0, tall_m / 2 - 0.2),
               (girth_m, girth_m, tall_m / 2 + 0.2), bark, dark,
               detail=(float(rng.uniform(0.05, 0.2)), 0.15, float(rng.uniform(0.3, 0.7)), seed),
               taper=(0.6, 0, 0), pitch_rad=float(lean[0]), roll_rad=float(lean[1]))  # fmt: skip
    hue = float(rng.uniform(0.6, 1.5))
    leaf, shade = (0.07 * hue, 0.12, 0.03), (0.03 * hue, 0.055, 0.017)
    detail = (float(rng.uniform(0.1, 0.3)), float(rng.uniform(0.5, 0.9)), 0.0, seed)
    if fir:
        for k in range(4):
            z, r = tall_m * (0.4 + 0.16 * k), tall_m * (0.17 - 0.03 * k)
            solids.add(place, geo.CONE, geo.FOLIAGE, (0, 0, z), (r, r, 0.12 * tall_m), shade, leaf,
                       detail=detail, taper=(0.9, 0, 0))  # fmt: skip
    else:
        for k in range(5 if near else 2):
            r, turn = tall_m * float(rng.uniform(0.1, 0.2)), 2.4 * k + float(rng.uniform(0, 1))
            out = 0.12 * tall_m * math.sqrt(k)
            centre = (out * math.cos(turn), out * math.sin(turn),
                      tall_m * float(rng.uniform(0.6, 0.95)))  # fmt: skip
            solids.add(place, geo.BALL, geo.FOLIAGE, centre, (r, r, 0.6 * r), leaf, shade,
                       detail=detail)  # fmt: skip
    for _ in range(int(rng.integers(0, 4)) if near else 0):
        _branch(solids, rng, place, girth_m, bark)


def _branch(solids: SolidList, rng: Generator, place: Place, girth_m: float, bark: RGB) -> None:
    """Adds a bare branch above head height."""
    long, turn = float(rng.uniform(0.4, 1.4)), float(rng.uniform(0, 6.28))
    lean = math.pi / 2 - float(rng.uniform(0.0, 0.5))
    centre = (long * math.cos(turn), long * math.sin(turn), float(rng.uniform(2.9, 5.5)))
    thick = 0.12 * girth_m + 0.005
    solids.add(place, geo.CONE, geo.BARK, centre, (thick, thick, long), bark,
               detail=(0.1, 0, 0.3, 1), taper=(0.7, 0, 0), yaw_rad=turn,
               pitch_rad=lean)  # fmt: skip


def _undergrowth(solids: SolidList, rng: Generator, track: Track) -> None:
    """Adds ferns, grass, bushes, stones, stumps and logs."""
    dense = float(rng.uniform(1.0, 5.0))
    for _ in range(int(track.length_m * dense)):
        s = float(rng.uniform(0, track.length_m))
        d = (1 if rng.random() < 0.5 else -1) * (AWAY_M + 12.0 * float(rng.random()) ** 2)
        place = track.place(s, d, float(rng.uniform(0, 6.28)))
        kind = rng.random()
        reach = 2.2 if kind < 0.12 else 0.9
        if kind >= 0.5:
            reach = 0.45
        if not track.clear(place, AWAY_M + reach):
            continue
        if kind < 0.12:
            _log(solids, rng, place)
        elif kind < 0.25:
            plants.bush(solids, place._replace(z_m=place.z_m - 0.1), rng)
        elif kind < 0.5:
            r = float(rng.uniform(0.1, 0.5))
            solids.add(place, geo.BALL, geo.FRACTAL, (0, 0, 0.3 * r), (r, 0.8 * r, 0.6 * r),
                       (0.28, 0.27, 0.25), (0.08, 0.1, 0.05),
                       detail=(0.3, 0.5, 0.6, float(rng.integers(1, 99))))  # fmt: skip
        else:
            _fern(solids, rng, place)


def _fern(solids: SolidList, rng: Generator, place: Place) -> None:
    """Adds a tuft of long leaves."""
    hue = float(rng.uniform(0.6, 1.6))
    leaf, shade = (0.07 * hue, 0.13, 0.03), (0.03 * hue, 0.06, 0.02)
    long = float(rng.uniform(0.12, 0.35))
    for k in range(int(rng.integers(3, 7))):
        turn, up = 1.3 * k + float(rng.uniform(0, 0.8)), float(rng.uniform(0.3, 1.3))
        centre = (0.6 * long * math.cos(turn), 0.6 * long * math.sin(turn), long * math.sin(up))
        solids.add(place, geo.BALL, geo.FOLIAGE, centre, (long, 0.22 * long, 0.02), leaf, shade,
                   detail=(0.04, 0.5, 0, float(rng.integers(99))), yaw_rad=turn,
                   pitch_rad=-up)  # fmt: skip


def _log(solids: SolidList, rng: Generator, place: Place) -> None:
    """Adds a fallen trunk."""
    r, half = float(rng.uniform(0.08, 0.25)), float(rng.uniform(0.6, 2.0))
    solids.add(place, geo.CONE, geo.BARK, (0, 0, 0.7 * r), (r, r, half), (0.1, 0.08, 0.06),
               (0.05, 0.06, 0.03), detail=(0.12, 0.1, 0.5, float(rng.integers(99))),
               taper=(0.3, 0, 0), pitch_rad=math.pi / 2)  # fmt: skip


def _mount(rng: Generator) -> geo.Ego:
    """Returns a camera carried by a person or by a robot on rough ground."""
    step, phase = float(rng.uniform(1.2, 2.4)), float(rng.uniform(0, 6.28))
    shake = [
        (2, rng.uniform(0.005, 0.03), step, phase),
        (1, rng.uniform(0.005, 0.02), step / 2, phase),
        (4, rng.uniform(0.005, 0.03), step, phase + 1),
        (3, rng.uniform(0.005, 0.03), step / 2, phase + 2),
        (5, rng.uniform(0.05, 0.5), rng.uniform(0.05, 0.2), phase + 3),
        (4, rng.uniform(0.01, 0.1), rng.uniform(0.07, 0.3), phase + 4),
        (4, 0.0015, rng.uniform(7, 14), phase),
    ]
    return geo.Ego(offset_m=0.0, height_m=float(rng.uniform(0.4, 1.8)),
                   pitch_rad=float(rng.uniform(-0.15, 0.3)), bank=0.0,
                   follow=float(rng.uniform(0.3, 1.0)), shake=np.array(shake))  # fmt: skip
