"""A highway: lanes in both directions, guard rails, gantries, noise walls, trucks."""

from __future__ import annotations

import math

import numpy as np

from spike_depth_ros.sim import geometry as geo
from spike_depth_ros.sim import motion, route, weather
from spike_depth_ros.sim.build import Place, SolidList, terrain_patches
from spike_depth_ros.sim.geometry import Free, World
from spike_depth_ros.sim.scenes.street import FLOORS
from spike_depth_ros.sim.scenes.track import Track, draw_track, way_ground
from spike_depth_ros.sim.things import buildings, furniture, plants, vehicles
from spike_depth_ros.sim.things.colours import STEEL, WALLS, pick
from spike_depth_ros.sim.things.surfaces import cover, draw_finish

Generator = np.random.Generator

LANE_M = 3.6
SHOULDER_M = 2.3
"""Less than 0.7 of a lane, so that `pavement` draws no further lane on it."""

RAIL_M = 8.0
"""Length of one piece of guard rail or noise wall."""


def build_highway(seed: int, duration_s: float) -> World:
    """Builds a drive at 20 to 38 m/s; the path is the centre line between both directions."""
    rng = np.random.Generator(np.random.PCG64(seed))
    fast = float(rng.uniform(24, 38))
    length = fast * (duration_s + 15) + 320
    track = draw_track(rng, length, 0.35, (float(rng.uniform(0.005, 0.04)), 300.0), 200.0, 30.0)
    speed = _speed(rng, duration_s, fast)
    lanes, hand = int(rng.integers(2, 5)), -1 if rng.random() < 0.75 else 1
    half = LANE_M * lanes + SHOULDER_M
    own = hand * LANE_M * (0.5 + float(rng.integers(lanes)))
    condition, light = weather.draw_weather(rng, float(track.path[20, 2]))
    solids = SolidList()
    terrain_patches(solids, track.heights, track.terrain, track.keep)
    _median(solids, rng, track)
    for side in (-1, 1):
        _edge(solids, rng, track, side, half)
    _over_the_road(solids, rng, track, half, hand)
    lamps = _lamps(solids, rng, track) if light.night > 0 and rng.random() < 0.6 else []
    _beside(solids, rng, track, half)
    actors = _traffic(solids, rng, track, fast, lanes, hand, own)
    arrays = solids.solids()
    mesh = (track.heights, track.terrain)
    moving = route.motion_of(track.path, speed, mesh, track.waves, actors)
    shining = np.array(lamps, np.float64).reshape(-1, 3)
    light = weather.with_maps(light, arrays, *mesh, track.path[:, :2], shining)
    marks = (half, LANE_M, 0.0, 0.0, 1.0, 0.0, float(rng.uniform(0, 0.7)), 0.0)
    colour = FLOORS[int(rng.integers(len(FLOORS)))] * rng.uniform(0.85, 1.2, (5, 1))
    ground = way_ground(track, marks, colour)
    return World('highway', seed, duration_s, condition, arrays, moving, ground, light,
                 _mount(rng, own), Free(0.25, 3.0, 0.5))  # fmt: skip


def _speed(rng: Generator, duration_s: float, fast_m_s: float) -> np.ndarray:
    """Draws knots of `Motion.speed`: slowly varying, 20 m/s or more."""
    knots = [(0.0, 60.0, fast_m_s * float(rng.uniform(0.7, 1.0)))]
    while knots[-1][0] < duration_s + 10.0:
        time, s, before = knots[-1]
        span = float(rng.uniform(4.0, 8.0))
        wish = max(fast_m_s * float(rng.uniform(0.65, 1.0)), 20.0)
        wish = min(max(wish, before - 1.2 * span), before + 0.8 * span)
        knots.append((time + span, s + span * (before + wish) / 2, wish))
    return geo.quantised(knots)


def _median(solids: SolidList, rng: Generator, track: Track) -> None:
    """Adds a concrete barrier, a steel rail or a hedge between both directions."""
    kind = int(rng.integers(3))
    for s in np.arange(RAIL_M / 2, track.length_m, RAIL_M):
        place = track.place(float(s), 0.0)
        if kind == 0:
            solids.add(place, geo.BOX, geo.BRICK, (0, 0, 0.4), (RAIL_M / 2, 0.35, 0.45),
                       (0.36, 0.35, 0.33), (0.15, 0.15, 0.15), detail=(4.0, 2.0, 0.01, 5),
                       taper=(0, 0.7, 0))  # fmt: skip
        elif kind == 1:
            _rail(solids, place)
        else:
            solids.add(place, geo.BALL, geo.FOLIAGE, (0, 0, 0.5), (0.6 * RAIL_M, 0.5, 0.6),
                       (0.06, 0.11, 0.03), (0.03, 0.05, 0.015),
                       detail=(0.15, 0.7, 0, float(rng.integers(99))))  # fmt: skip


def _rail(solids: SolidList, place: Place) -> None:
    """Adds a piece of guard rail with its posts."""
    solids.add(place, geo.BOX, geo.STRIPE, (0, 0, 0.62), (RAIL_M / 2, 0.03, 0.15), STEEL,
               (0.5, 0.51, 0.52), detail=(0.1, 0, 0, 0))  # fmt: skip
    for x in (-RAIL_M / 4, RAIL_M / 4):
        solids.add(place, geo.BOX, geo.PLAIN, (x, 0, 0.35), (0.05, 0.07, 0.4), STEEL)


def _edge(solids: SolidList, rng: Generator, track: Track, side: int, half_m: float) -> None:
    """Adds guard rails, delineators, and stretches of noise barrier."""
    s, railed = RAIL_M / 2, rng.random() < 0.7
    until, wall, high = 0.0, None, 3.0
    while s < track.length_m:
        if s > until:
            until = s + float(rng.uniform(80, 400))
            wall = draw_finish(rng, 12.0) if rng.random() < 0.25 else None
            high = float(rng.uniform(1.2, 2.8))
            railed = rng.random() < 0.7
        if railed:
            _rail(solids, track.place(s, side * (half_m + 0.6)))
        if wall is not None:
            cover(solids, track.place(s, side * (half_m + 2.0)), geo.BOX, wall, (0, 0, high - 0.3),
                  (RAIL_M / 2, 0.1, high))  # fmt: skip
        if int(s / RAIL_M) % 6 == 0:
            post = track.place(s, side * (half_m + 0.3))
            solids.add(post, geo.BOX, geo.STRIPE, (0, 0, 0.5), (0.05, 0.06, 0.52),
                       (0.75, 0.75, 0.75), (0.03, 0.03, 0.03), detail=(0.8, 0, 0, 0))  # fmt: skip
        s += RAIL_M


def _over_the_road(
    solids: SolidList, rng: Generator, track: Track, half_m: float, hand: int
) -> None:
    """Adds gantries with signs, signs at the edge, and bridges."""
    s = float(rng.uniform(60, 300))
    while s < track.length_m - 60:
        kind, place = rng.random(), track.place(s, 0.0)
        if kind < 0.5:
            _gantry(solids, rng, place, half_m, hand)
        elif kind < 0.75:
            _bridge(solids, rng, place, half_m)
        else:
            edge = track.place(s, hand * (half_m + 1.6))
            wide, high = float(rng.uniform(0.8, 2.5)), float(rng.uniform(0.6, 1.6))
            for y in (-0.7 * wide, 0.7 * wide):
                solids.add(edge, geo.CONE, geo.PLAIN, (0, y, 1.5), (0.06, 0.06, 1.6), STEEL)
            _board(solids, rng, edge, 0.0, 2.0 + high, wide, high)
        s += float(rng.uniform(120, 700))


def _gantry(solids: SolidList, rng: Generator, place: Place, half_m: float, hand: int) -> None:
    reach = half_m + 1.2
    for y in (0.0, hand * reach):
        solids.add(place, geo.BOX, geo.PLAIN, (0, y, 3.4), (0.15, 0.15, 3.6), STEEL)
    solids.add(place, geo.BOX, geo.STRIPE, (0, hand * reach / 2, 6.7), (0.3, reach / 2, 0.35),
               STEEL, (0.1, 0.1, 0.1), detail=(0.7, 0.8, 0, 0))  # fmt: skip
    for k in range(int(rng.integers(1, 4))):
        wide = min(float(rng.uniform(1.2, 2.6)), reach / 6)
        y = hand * (reach * (k + 0.7) / 3.4)
        _board(solids, rng, place, y, 6.6, wide, float(rng.uniform(1.0, 1.8)))


def _board(
    solids: SolidList,
    rng: Generator,
    place: Place,
    y_m: float,
    z_m: float,
    wide_m: float,
    high_m: float,
) -> None:
    """Adds a sign that faces approaching traffic."""
    colour = ((0.02, 0.08, 0.32), (0.02, 0.2, 0.06), (0.6, 0.6, 0.55))[int(rng.integers(3))]
    letters = (0.03, 0.03, 0.03) if colour[0] > 0.3 else (0.75, 0.75, 0.75)
    solids.add(place, geo.BOX, geo.SIGN, (-0.4, y_m, z_m), (0.04, wide_m, high_m), colour, letters,
               detail=(2 * wide_m, 2 * high_m, float(rng.uniform(0.15, 0.3)),
                       float(rng.integers(999))))  # fmt: skip


def _bridge(solids: SolidList, rng: Generator, place: Place, half_m: float) -> None:
    """Adds a bridge over the highway."""
    place = place._replace(heading_rad=place.heading_rad + math.pi / 2)
    concrete = pick(rng, ((0.36, 0.35, 0.33), (0.28, 0.27, 0.25)))
    wide, span = float(rng.uniform(3, 8)), half_m + 14.0
    detail = (3.0, 1.5, 0.02, 3.0)
    solids.add(place, geo.BOX, geo.BRICK, (0, 0, 6.2), (span, wide, 0.6), concrete, detail=detail)
    for y in (-wide, wide):
        solids.add(place, geo.BOX, geo.STRIPE, (0, y, 7.3), (span, 0.06, 0.55), STEEL, concrete,
                   detail=(0.3, 0, 0, 0))  # fmt: skip
    for x in (-half_m - 2.5, 0.0, half_m + 2.5):
        solids.add(place, geo.BOX, geo.BRICK, (x, 0, 2.8), (0.35, 0.8 * wide, 3.2), concrete,
                   detail=detail)  # fmt: skip


def _lamps(solids: SolidList, rng: Generator, track: Track) -> list[tuple[float, float, float]]:
    """Adds lamps on the median, lit at night."""
    lamps, tall = [], float(rng.uniform(9, 13))
    for s in np.arange(20.0, track.length_m - 20, float(rng.uniform(35, 55))):
        for side in (-1, 1):
            place = track.place(float(s), 0.0, side * math.pi / 2)
            furniture.lamp_post(solids, place, tall, 3.5)
            x = place.x_m + 3.5 * math.cos(place.heading_rad)
            lamps.append((x, place.y_m + 3.5 * math.sin(place.heading_rad), tall))
    return lamps


def _beside(solids: SolidList, rng: Generator, track: Track, half_m: float) -> None:
    """Adds stretches of trees, bushes, houses and halls beyond the edges."""
    s = 0.0
    while s < track.length_m:
        end = min(s + float(rng.uniform(80, 400)), track.length_m)
        for side in (-1, 1):
            woods, built = float(rng.random()) ** 2, rng.random() < 0.25
            for _ in range(int((end - s) * 0.35 * woods)):
                place = track.place(float(rng.uniform(s, end)),
                                    side * (half_m + float(rng.uniform(7, 70))))  # fmt: skip
                if rng.random() < 0.7:
                    plants.tree(solids, place, rng, float(rng.uniform(4, 13)))
                else:
                    plants.bush(solids, place, rng)
            for at in np.arange(s, end, 35.0) if built else ():
                d = side * (half_m + float(rng.uniform(30, 80)))
                place = track.place(float(at), d, math.pi if side > 0 else 0.0)
                if rng.random() < 0.5:
                    buildings.house(solids, place, rng)
                else:
                    wide, high = float(rng.uniform(8, 15)), float(rng.uniform(3, 6))
                    solids.add(place, geo.BOX, geo.FACADE, (0, 0, high), (wide, 9.0, high + 0.5),
                               pick(rng, WALLS), (0.05, 0.06, 0.07),
                               detail=(3.0, 3.0, 0.3, float(rng.integers(999))))  # fmt: skip
        s = end


def _traffic(
    solids: SolidList,
    rng: Generator,
    track: Track,
    fast_m_s: float,
    lanes: int,
    hand: int,
    own_m: float,
) -> list[tuple]:
    """Adds vehicles ahead in the own lane, in the other lanes, and oncoming ones."""
    actors: list[tuple] = []

    def join(mode: int, start: float, pace: float, offset: float, trucks: float) -> None:
        kind = vehicles.truck if rng.random() < trucks else vehicles.car
        size = kind(solids, Place(actor=len(actors)), rng)
        actors.append((mode, (start, pace, offset, 0, 0, 0, *size)))

    gap = float(rng.uniform(18, 70))
    for _ in range(int(rng.integers(0, 4))):
        join(motion.LEAD, gap, float(rng.uniform(0.8, 2.0)), own_m, 0.3)
        gap += float(rng.uniform(35, 90))
    busy = float(rng.uniform(0.3, 1.0))
    for lane in range(lanes):
        offset = hand * LANE_M * (lane + 0.5)
        # trucks use the outer lane
        slow = lane / max(lanes - 1, 1)
        for _ in range(int(30 * busy)):
            pace = fast_m_s * float(rng.uniform(0.9, 1.15)) * (1.0 - 0.3 * slow)
            if abs(offset - own_m) > 1.0:
                start = float(rng.uniform(-0.3, 0.5)) * track.length_m
                join(motion.FOLLOW, start, pace, offset, 0.1 + 0.6 * slow)
            start = float(rng.uniform(0.05, 2.0)) * track.length_m
            join(motion.FOLLOW, start, -pace, -offset, 0.1 + 0.6 * slow)
    return actors


def _mount(rng: Generator, own_m: float) -> geo.Ego:
    """Returns a mount behind the windscreen of a car or of a truck."""
    shake = [
        (2, rng.uniform(0.003, 0.012), rng.uniform(1.1, 1.9)),
        (4, rng.uniform(0.0005, 0.003), rng.uniform(1.0, 1.8)),
        (3, rng.uniform(0.0005, 0.003), rng.uniform(0.7, 1.5)),
        (4, rng.uniform(0.0001, 0.0006), rng.uniform(9, 18)),
        (5, rng.uniform(0.001, 0.01), rng.uniform(0.1, 0.3)),
        (1, rng.uniform(0.05, 0.25), rng.uniform(0.05, 0.12)),
    ]
    return geo.Ego(offset_m=own_m, height_m=float(rng.uniform(1.2, 3.0)),
                   pitch_rad=float(rng.uniform(-0.06, 0.06)),
                   bank=float(rng.uniform(0.001, 0.006)), follow=1.0,
                   shake=np.array([(*row, rng.uniform(0, 6.28)) for row in shake]))  # fmt: skip
