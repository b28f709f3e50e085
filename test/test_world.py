"""Worlds: one seed, the same geometry anywhere; smooth drives; nothing runs out."""

import dataclasses
import hashlib

import numpy as np
import pytest

from spike_depth_ros.sim import motion as mo
from spike_depth_ros.sim.build import Place, SolidList
from spike_depth_ros.sim.geometry import BOX, PLAIN, QUANTUM, orientation
from spike_depth_ros.sim.weather import SKIES, draw_weather
from spike_depth_ros.sim.world import SCENES, WorldError, build_world

PINNED = {
    'board': 'd247d07786c49da8',
    'desk': 'ef985b0453b7acc5',
    'field': '1e4b94eed49b4037',
    'flight': '029a0b8a8230f56f',
    'forest': '2d74b5b74266fc1c',
    'highway': 'd51828ac7407621a',
    'indoor': 'ef1bce7c38b8442a',
    'solids': 'e06f4f4117d85440',
    'stairs': '301452b984b85505',
    'street': 'c1d023bc75257190',
    'warehouse': '5a19b7795c2b1d8f',
}


def fingerprint(world):
    """A hash of the geometry, coarse enough that the last bits of a libm do not matter."""
    digest = hashlib.sha256()
    solids, motion = world.solids, world.motion
    for array in (solids.shape, solids.material, solids.actor):
        digest.update(array.astype('<i4').tobytes())
    for array in (solids.centre_m, solids.axes_m, solids.taper, motion.path, motion.speed,
                  motion.heights_m, motion.course):  # fmt: skip
        digest.update(np.round(array * 1e6).astype('<i8').tobytes())
    return digest.hexdigest()[:16]


@pytest.fixture(scope='module', params=sorted(SCENES))
def world(request):
    return build_world(request.param, 7)


def test_a_seed_gives_the_same_geometry_everywhere(world):
    assert fingerprint(world) == PINNED[world.scene]


def test_seeds_differ(world):
    other = build_world(world.scene, 8)
    assert fingerprint(other) != fingerprint(world)


def test_geometry_is_quantised(world):
    for array in (world.solids.centre_m, world.solids.axes_m):
        assert (array / QUANTUM == np.round(array / QUANTUM)).all()


def test_kernels_meet_one_memory_layout(world):
    """For a second one the whole renderer would be compiled, and loaded, a second time."""
    some = world.only(np.arange(len(world.solids.shape)) % 2 == 0)
    for solids in (world.solids, some.solids):
        assert all(column.flags.c_contiguous and column.flags.writeable for column in solids)


def test_every_solid_has_a_volume(world):
    volume = np.linalg.det(world.solids.axes_m)
    assert (np.abs(volume) > 1e-9).all()
    assert np.isfinite(world.solids.detail).all()
    assert (world.solids.colour >= 0).all()


def test_objects_are_bounded(world):
    assert 20 < len(world.solids.shape) < 40_000
    assert len(world.motion.mode) < 400
    assert world.light.maps.nbytes < 8_000_000


def test_a_longer_drive_keeps_its_memory(world):
    longer = build_world(world.scene, 7, 300.0)
    assert longer.light.maps.nbytes < 8_000_000
    assert len(longer.solids.shape) < 200_000


def test_the_drive_is_smooth(world):
    """A step of 1 ms moves and turns the camera by what its speed allows, and no step jumps."""
    for start in np.linspace(0.0, world.duration_s - 0.2, 25):
        poses = np.stack([world.pose(start + 0.001 * k) for k in range(40)])
        velocity = np.diff(poses[:, :3, 3], axis=0) / 0.001
        assert np.linalg.norm(velocity, axis=1).max() < (
            45.0 if world.scene == 'highway' else 25.0
        )
        assert np.abs(np.diff(velocity, axis=0)).max() < 0.08
        turn = np.einsum('kij,kil->kjl', poses[:-1, :3, :3], poses[1:, :3, :3])
        angle = np.stack([turn[:, 2, 1], turn[:, 0, 2], turn[:, 1, 0]], axis=1) / 0.001
        assert np.abs(angle).max() < 4.0
        assert np.abs(np.diff(angle, axis=0)).max() < 0.25


def test_poses_are_rotations(world):
    for time_s in (0.0, 13.7, world.duration_s):
        rotation = world.pose(time_s)[:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1.0)


def test_the_drive_does_not_run_out_of_world(world):
    far = mo.travelled(world.motion.speed, world.duration_s)[0]
    length = (len(world.motion.path) - 1) * world.motion.step_m
    assert far + 30.0 < length


def test_the_speed_is_the_derivative_of_the_distance(world):
    for time_s in np.linspace(1.0, world.duration_s - 1.0, 17):
        before = mo.travelled(world.motion.speed, time_s - 1e-4)[0]
        after, _ = mo.travelled(world.motion.speed, time_s + 1e-4)
        assert world.speed(time_s) == pytest.approx((after - before) / 2e-4, abs=1e-3)
        assert world.speed(time_s) >= 0.0


def test_orientation_by_hand():
    ahead = orientation(0.0, 0.0, 0.0)
    np.testing.assert_allclose(ahead[:, 0], [0, -1, 0], atol=1e-15)
    np.testing.assert_allclose(ahead[:, 1], [0, 0, -1], atol=1e-15)
    np.testing.assert_allclose(ahead[:, 2], [1, 0, 0], atol=1e-15)
    assert orientation(0.0, 0.1, 0.0)[2, 2] < 0, 'a positive pitch looks down'
    assert orientation(0.0, 0.0, 0.1)[2, 0] < 0, 'a positive roll lowers the right side'
    np.testing.assert_allclose(orientation(np.pi / 2, 0, 0)[:, 2], [0, 1, 0], atol=1e-15)


def test_a_camera_may_look_to_the_side_of_its_path():
    world = build_world('indoor', 3)
    aside = dataclasses.replace(world, ego=world.ego._replace(yaw_rad=np.pi / 2))
    before, after = world.pose(2.0), aside.pose(2.0)
    np.testing.assert_allclose(after[:3, 3], before[:3, 3])
    assert abs(before[:3, 2] @ after[:3, 2]) < 0.03, 'pitched by less than 0.2 rad both times'
    np.testing.assert_allclose(after[:2, 2], [-before[1, 2], before[0, 2]], atol=0.03)


def test_along_follows_a_circle():
    radius, step = 20.0, 1.0
    path = mo.trace_path(np.full(60, 1 / radius), step, 0.0)
    for s in (0.0, 3.3, 17.25, 50.0):
        x, y, heading, curvature = mo.along(path, step, s)
        assert np.hypot(x, y - radius) == pytest.approx(radius, abs=2e-3)
        assert heading == pytest.approx(s / radius)
        assert curvature == pytest.approx(1 / radius)


def test_a_shuttle_goes_to_and_fro():
    motion = mo.Motion(
        path=mo.trace_path(np.zeros(3), 1.0, 0.0), step_m=1.0, speed=np.zeros((2, 3)),
        heights_m=np.full((2, 2), 3.0), terrain=np.array([-50.0, -50.0, 200.0]),
        waves=np.zeros((0, 4)), mode=np.array([mo.SHUTTLE], np.int32),
        course=np.array([[0.0, 0.0, 10.0, 0.0, 5.0, 0.0, 0.2, 0.2]]),
    )  # fmt: skip
    places = [mo.actor_poses(motion, t)[0] for t in (0.0, 2.5, 7.5, 10.0)]
    np.testing.assert_allclose([p[0] for p in places], [0.0, 5.0, 5.0, 0.0])
    np.testing.assert_allclose([p[3] for p in places], [1.0, 1.0, -1.0, 1.0])
    np.testing.assert_allclose([p[2] for p in places], 3.0)


def test_mesh_height_is_bilinear():
    heights = np.array([[0.0, 2.0], [4.0, 10.0]])
    z, gx, gy = mo.mesh_height(heights, np.array([10.0, 20.0, 4.0]), 11.0, 23.0)
    # u = 1/4, v = 3/4: 0*3/16 + 2*1/16 + 4*9/16 + 10*3/16
    assert z == pytest.approx(68 / 16)
    assert gx == pytest.approx((2 * 0.25 + 6 * 0.75) / 4)
    assert gy == pytest.approx((4 * 0.75 + 8 * 0.25) / 4)


def test_a_place_turns_and_shears_its_parts():
    solids = SolidList()
    place = Place(10.0, 20.0, 1.0, np.pi / 2, slope_x=0.0, slope_y=0.5)
    solids.add(place, BOX, PLAIN, (2.0, 1.0, 3.0), (1.0, 0.5, 0.25), (0.1, 0.1, 0.1))
    arrays = solids.solids()
    # x forward now points to world y, which rises by 0.5 m per m.
    np.testing.assert_allclose(arrays.centre_m[0], [9.0, 22.0, 1.0 + 3.0 + 0.5 * 2.0], atol=1e-3)
    np.testing.assert_allclose(
        arrays.axes_m[0], [[0, -0.5, 0], [1.0, 0, 0], [0.5, 0, 0.25]], atol=1e-3
    )


def test_all_weather_is_drawn():
    rng = np.random.default_rng(3)
    conditions = {draw_weather(rng, 0.0)[0] for _ in range(200)}
    words = ' '.join(conditions)
    assert all(name in words for name in (*SKIES, 'fog', 'rain'))


@pytest.mark.parametrize(
    ('scene', 'seed', 'duration_s', 'named'),
    [
        ('moon', 1, 10.0, "scene 'moon'"),
        ('street', -1, 10.0, 'seed is -1'),
        ('street', 1, 0.0, 'duration is 0.0 s'),
        ('street', 1, 1e6, 'duration is 1000000.0 s'),
    ],
)
def test_bad_requests_say_what_is_wrong(scene, seed, duration_s, named):
    with pytest.raises(WorldError, match=named):
        build_world(scene, seed, duration_s)
