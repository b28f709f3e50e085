"""Mounts and motions: what is drawn stays in its range, moves smoothly and touches nothing."""

import dataclasses
import math

import numpy as np
import pytest

from spike_depth_ros.events.config import ConfigError
from spike_depth_ros.sim import geometry as geo
from spike_depth_ros.sim import motion as mo
from spike_depth_ros.sim.build import Place, SolidList
from spike_depth_ros.sim.clearance import touches
from spike_depth_ros.sim.drive import clip
from spike_depth_ros.sim.ego import MOTIONS, Mounts, RideError, mounted, ride
from spike_depth_ros.sim.render import lamp_share
from spike_depth_ros.sim.route import no_actors
from spike_depth_ros.sim.sensors import sensor_config
from spike_depth_ros.sim.static_parts import OPAQUE, STATIC_PARTS, StaticPart, cover, draw_part
from spike_depth_ros.sim.world import build_world

WIDE = Mounts((0.1, 3.0), (-25.0, 35.0), (-15.0, 15.0), (-30.0, 30.0))
AROUND_S = 8.0
STILL = mo.Motion(
    mo.trace_path(np.zeros(100), 1.0, 0.0), 1.0, np.zeros((2, 3)), np.zeros((2, 2)),
    np.array([-500.0, -500.0, 1000.0]), np.zeros((0, 4)), *no_actors(),
)  # fmt: skip


@pytest.fixture(scope='module')
def indoor():
    return build_world('indoor', 3)


def drawn(world, motion, seed=0, mounts=WIDE):
    return ride(world, motion, mounts, np.random.default_rng(seed), AROUND_S, AROUND_S + 0.4)


@pytest.mark.parametrize('motion', MOTIONS)
def test_a_seed_gives_the_same_ride_and_another_seed_another(indoor, motion):
    poses = [drawn(indoor, motion, seed).pose(AROUND_S + 0.1) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(poses[0], poses[1])
    assert np.abs(poses[0] - poses[2]).max() > 1e-3


@pytest.mark.parametrize('motion', MOTIONS)
def test_every_motion_is_smooth_and_starts_beside_the_scenes_own_place(indoor, motion):
    for seed in range(3):
        world = drawn(indoor, motion, seed)
        own, place = indoor.pose(AROUND_S)[:2, 3], world.pose(AROUND_S)[:2, 3]
        assert np.hypot(*(own - place)) < 0.6
        twists = np.array(
            [np.concatenate(world.twist(t)) for t in np.linspace(AROUND_S, AROUND_S + 0.4, 801)]
        )
        assert np.abs(twists[:, :3]).max() < 4.0
        assert np.abs(twists[:, 3:]).max() < 12.0
        # 0.5 ms apart: no jump in velocity, whatever the fastest hum (28 Hz)
        assert np.abs(np.diff(twists[:, :3], axis=0)).max() < 0.05
        assert np.abs(np.diff(twists[:, 3:], axis=0)).max() < 0.1


def test_rotation_does_not_translate_and_sideways_does_not_turn(indoor):
    for seed in range(4):
        spin = drawn(indoor, 'rotation', seed)
        np.testing.assert_allclose(spin.twist(AROUND_S + 0.2)[0], 0.0, atol=1e-6)
        assert np.linalg.norm(spin.twist(AROUND_S + 0.2)[1]) > 1e-3
        ahead = dataclasses.replace(indoor, free=indoor.free._replace(turn_rad=0.3))
        for world in (ahead, indoor):
            aside = drawn(world, 'sideways', seed, Mounts())
            linear, angular = aside.twist(AROUND_S + 0.2)
            assert abs(linear[2]) < 0.5 * np.linalg.norm(linear)
            curve = 0.0 if world is ahead else 3.0  # a path may bend
            assert np.linalg.norm(angular) < 0.2 + curve


def test_motions_that_stand_still_stay_within_the_free_space(indoor):
    for motion in ('rotation', 'hovering', 'sideways'):
        narrow = dataclasses.replace(indoor, free=geo.Free(side_m=0.2, turn_rad=0.3))
        world = drawn(narrow, motion, mounts=Mounts())
        places = np.array([world.pose(t)[:3, 3] for t in np.linspace(0.0, 30.0, 301)])
        middle = places.mean(axis=0)
        assert np.abs(places - middle).max() < 0.45


def test_mounts_lie_in_their_ranges_and_in_the_free_space(indoor):
    rng = np.random.default_rng(1)
    egos = [mounted(indoor, WIDE, rng).ego for _ in range(300)]
    heights = np.array([ego.height_m for ego in egos])
    assert heights.min() >= 0.1
    assert heights.max() <= indoor.free.high_m < 3.0
    assert 0.35 < np.median(heights) < 0.6  # geometric middle of 0.1 and 2.1: 0.458
    for name, low, high, own in (('pitch_rad', -25, 35, 0.0), ('roll_rad', -15, 15, 0.0),
                                 ('yaw_rad', -30, 30, indoor.ego.yaw_rad)):  # fmt: skip
        degrees = np.degrees([getattr(ego, name) - own for ego in egos])
        assert low <= degrees.min() < low + 3
        assert high - 3 < degrees.max() <= high
    stiff = dataclasses.replace(indoor, free=indoor.free._replace(turn_rad=0.1))
    turns = [mounted(stiff, WIDE, rng).ego.yaw_rad - indoor.ego.yaw_rad for _ in range(100)]
    assert np.abs(turns).max() <= 0.1 + 1e-12


def test_a_flight_stays_a_flight(indoor):
    high = dataclasses.replace(indoor, free=geo.Free(4.0, 60.0, 1.0))
    rng = np.random.default_rng(0)
    heights = [mounted(high, WIDE, rng).ego.height_m for _ in range(100)]
    assert 4.0 <= min(heights) < 6.0
    assert 40.0 < max(heights) <= 60.0


def test_nothing_asked_for_changes_nothing(indoor):
    assert ride(indoor, 'own', Mounts(), np.random.default_rng(0), 1.0, 2.0) is indoor


def test_a_ride_that_fits_nowhere_is_refused():
    ego = geo.Ego(0.0, 1.0, 0.0, 0.0, 0.0, np.zeros((0, 4)))
    chest = solid(geo.BOX, (0.9, 5.0, 5.0))  # too narrow to be a room
    world = dataclasses.replace(bare(STILL, ego), solids=chest)
    with pytest.raises(RideError, match=r"bare of seed 0: 40 draws of 'rotation'"):
        drawn(world, 'rotation')


@pytest.mark.parametrize(
    ('field', 'value'),
    [('heights_m', (0.0, 1.0)), ('pitches_deg', (5.0, -5.0)), ('rolls_deg', (1.0,))],
)
def test_ranges_that_make_no_sense_are_named(field, value):
    with pytest.raises(ConfigError, match=field):
        Mounts(**{field: value})


# touches: by hand


def solid(shape, size, taper=(0.0, 0.0, 0.0), centre=(0.0, 0.0, 0.0)):
    solids = SolidList()
    solids.add(Place(0.0, 0.0, 0.0, 0.0), shape, geo.PLAIN, centre, size, (0.5, 0.5, 0.5))
    arrays = solids.solids()
    return arrays._replace(taper=np.array([taper]))


@pytest.mark.parametrize(
    ('shape', 'size', 'taper', 'point', 'expected'),
    [
        (geo.BOX, (1, 2, 3), (0, 0, 0), (1.05, 0, 0), True),  # 5 cm beside a wall
        (geo.BOX, (1, 2, 3), (0, 0, 0), (1.25, 0, 0), False),
        (geo.BOX, (2, 2, 3), (0, 0, 0), (0, 0, 0), False),  # a room seen from within
        (geo.BOX, (2, 2, 3), (0, 0, 0), (1.95, 0, 0), True),  # near its wall
        (geo.BOX, (0.4, 2, 3), (0, 0, 0), (0, 0, 0), True),  # inside of a cupboard
        (geo.BOX, (2, 2, 2), (1, 0, 0), (1.9, 0, 1.9), False),  # beside a roof
        (geo.BALL, (1, 1, 1), (0, 0, 0), (0, 1.05, 0), True),
        (geo.BALL, (1, 1, 1), (0, 0, 0), (0.8, 0.8, 0), False),
        (geo.CONE, (1, 1, 2), (1, 0, 0), (0.9, 0, -1.9), True),
        (geo.CONE, (1, 1, 2), (1, 0, 0), (0.9, 0, 1.9), False),
        (geo.PATCH, (10, 10, 1), (0, 0, 0), (3, 3, 0.05), True),
        (geo.PATCH, (10, 10, 1), (0, 0, 0), (3, 3, 0.2), False),
        (geo.PATCH, (10, 10, 1), (0, 0, 0), (3, 3, -0.5), True),  # under the ground
        (geo.PATCH, (10, 10, 1), (0.5, 0, 0), (8, 0, 0.35), True),  # 0.4 high there
    ],
)
def test_touching_by_hand(shape, size, taper, point, expected):
    solids = solid(shape, size, tuple(map(float, taper)))
    assert touches(solids, STILL, 0.0, np.array(point, np.float64), 0.1) == expected


# twist


def test_twist_on_a_circle_by_hand():
    radius, speed = 20.0, 5.0
    path = mo.trace_path(np.full(120, 1 / radius), 1.0, 0.3)
    moving = STILL._replace(path=path, speed=np.array([[0.0, 0.0, speed], [10.0, 50.0, speed]]))
    for yaw, expected in ((0.0, (0.0, 0.0, speed)), (math.pi / 2, (speed, 0.0, 0.0))):
        ego = geo.Ego(0.0, 1.0, 0.0, 0.0, 0.0, np.zeros((0, 4)), yaw)
        world = bare(moving, ego)
        linear, angular = world.twist(4.0)
        np.testing.assert_allclose(linear, expected, atol=5e-3)
        # to the left is counter-clockwise seen from above, y points down
        np.testing.assert_allclose(angular, (0.0, -speed / radius, 0.0), atol=1e-3)


def test_twist_of_a_swinging_camera_by_hand():
    rows = np.array([(2, 0.1, 0.5, 0.0), (3, 0.2, 0.25, 0.0)])
    ego = geo.Ego(0.0, 1.0, 0.0, 0.0, 0.0, rows, idle=1.0, lively=0.0)
    linear, angular = bare(STILL, ego).twist(2.0)  # heave at sin(2 pi), roll at sin(pi)
    np.testing.assert_allclose(linear, (0.0, -0.1 * 2 * math.pi * 0.5, 0.0), atol=1e-6)
    # roll falls at its zero: positive lifts the left side, a turn about z forward
    np.testing.assert_allclose(angular, (0.0, 0.0, -0.2 * 2 * math.pi * 0.25), atol=1e-6)


def bare(motion, ego):
    light = geo.Light(np.array([0.0, 0.0, 1.0]), np.ones((6, 3)), 0.0, 0.0, 0.0, 0.0, 0.0,
                      np.zeros(3), np.zeros((2, 1, 1), np.uint8))  # fmt: skip
    ground = geo.Ground(0, np.zeros(3), np.full((2, 1, 1), -1, np.int16), np.zeros((0, 8)),
                        np.zeros(8), np.zeros((5, 3)))  # fmt: skip
    return geo.World('bare', 0, 10.0, '', SolidList().solids(), motion, ground, light, ego)


# what moves with the camera


@pytest.mark.parametrize('kind', STATIC_PARTS)
def test_a_part_follows_from_its_seed_and_covers_some_of_the_view(kind):
    camera = sensor_config('96x72').camera
    shares = []
    for seed in range(12):
        part = draw_part(np.random.default_rng(seed), kind, 70.0)
        keep, own = cover(part, camera)
        assert keep.shape == own.shape == (72, 96)
        assert 0 <= keep.min() <= keep.max() <= 1
        assert own.min() >= 0
        assert (own[keep == 1] < 1e-6).all(), 'nothing is added where all light passes'
        shares.append(float((keep < OPAQUE).mean()))
    np.testing.assert_array_equal(keep, cover(StaticPart(*part), sensor_config('96x72').camera)[0])
    assert max(shares) < 0.85
    assert (max(shares) == 0) == (kind == 'dirt')


def test_depth_is_unknown_behind_a_part_and_its_pixels_see_nothing(indoor):
    sensor = dataclasses.replace(sensor_config('96x72').ideal(), cutoff_hz=0.0)
    part = draw_part(np.random.default_rng(3), 'bonnet', 75.0)
    covered = dataclasses.replace(indoor, ego=indoor.ego._replace(part=part))
    keep, _ = cover(part, sensor.camera)
    (plain,) = clip(indoor, 3.0, 1, 20.0, sensor)
    (window,) = clip(covered, 3.0, 1, 20.0, sensor)
    hidden = keep < OPAQUE
    assert 0.02 < hidden.mean() < 0.6
    assert np.isnan(window.depth_m[hidden]).all()
    np.testing.assert_array_equal(window.depth_m[~hidden], plain.depth_m[~hidden])
    closed = (keep == 0)[window.events['y'], window.events['x']]
    assert not closed.any()
    opened = (keep == 1)[plain.events['y'], plain.events['x']]
    assert (keep == 1)[window.events['y'], window.events['x']].sum() == opened.sum() > 50


def test_light_that_is_all_of_lamps_flickers_as_a_whole(indoor):
    camera = sensor_config('48x36').camera
    assert (lamp_share(indoor, camera, 3.0) == 1).all()
    half = dataclasses.replace(indoor, light=indoor.light._replace(artificial=0.5))
    share = lamp_share(half, camera, 3.0)
    assert 0.45 < np.median(share) < 0.75, 'half of the light, and all of what lamps glow'
    daylight = dataclasses.replace(indoor, light=indoor.light._replace(artificial=0.0))
    assert np.median(lamp_share(daylight, camera, 3.0)) == 0
