"""Scenes made for breadth: free of collisions, closed where they are rooms, exact in depth."""

import dataclasses

import numpy as np
import pytest

from spike_depth_ros.events.camera import Camera
from spike_depth_ros.sim import geometry as geo
from spike_depth_ros.sim import motion as mo
from spike_depth_ros.sim.finishes import cells, finish_pattern
from spike_depth_ros.sim.geometry import orientation
from spike_depth_ros.sim.intersect import NEAR_M
from spike_depth_ros.sim.render import render_luminance
from spike_depth_ros.sim.textures import chance, noise_levels
from spike_depth_ros.sim.things.surfaces import FAMILIES, draw_finish
from spike_depth_ros.sim.world import SCENES

BUILDERS = {
    name: build for name, build in SCENES.items() if name not in ('street', 'indoor', 'flight')
}
ROOMS = ('lit', 'dim')
"""Conditions of closed rooms."""

CAMERA = Camera(48, 36, 30.0, 30.0, 23.5, 17.5)
SEEDS = range(4)
DRIVE_S = 20.0
TIMES_S = np.linspace(0.0, DRIVE_S, 9)


@pytest.fixture(
    scope='module',
    params=[(scene, seed) for scene in BUILDERS for seed in SEEDS],
    ids=lambda value: f'{value[0]}-{value[1]}',
)
def world(request):
    scene, seed = request.param
    return BUILDERS[scene](seed, DRIVE_S)


def depth_inside(world, points_m, time_s):
    """How deep points (K, 3) are inside of any solid, in units of its half size; < 0 outside."""
    solids = world.solids
    poses = mo.actor_poses(world.motion, time_s)
    deepest = np.full(len(points_m), -np.inf)
    middle = points_m.mean(axis=0)
    reach = np.sqrt((solids.axes_m**2).sum(axis=(1, 2)))
    reach += np.linalg.norm(points_m - middle, axis=1).max() + 1.0
    near = np.linalg.norm(solids.centre_m - middle, axis=1) < reach
    for n in np.flatnonzero(near | (solids.actor >= 0)):
        points = points_m
        if solids.actor[n] >= 0:
            x, y, z, cos, sin, gx, gy = poses[solids.actor[n]]
            u, v = points_m[:, 0] - x, points_m[:, 1] - y
            along, left = cos * u + sin * v, cos * v - sin * u
            up = points_m[:, 2] - z - gx * u - gy * v
            points = np.stack([along, left, up], axis=1)
        q = (points - solids.centre_m[n]) @ np.linalg.inv(solids.axes_m[n]).T
        x, y, z = q.T
        taper = solids.taper[n]
        narrow = (z + 1) / 2
        if solids.shape[n] == geo.BOX:
            outside = np.maximum(
                np.abs(x) - 1 + taper[0] * narrow, np.abs(y) - 1 + taper[1] * narrow
            )
            outside = np.maximum(outside, np.abs(z) - 1)
        elif solids.shape[n] == geo.BALL:
            outside = np.sqrt(x * x + y * y + z * z) - 1
        elif solids.shape[n] == geo.CONE:
            outside = np.maximum(np.hypot(x, y) - 1 + taper[0] * narrow, np.abs(z) - 1)
        else:
            ground = taper[0] * x + taper[1] * y + taper[2] * x * y
            outside = np.maximum(np.maximum(np.abs(x), np.abs(y)) - 1, z - ground)
        deepest = np.maximum(deepest, -outside)
    return deepest


def test_a_seed_gives_the_same_bits_and_another_seed_others(world):
    builder = BUILDERS[world.scene]
    again, other = builder(world.seed, DRIVE_S), builder(world.seed + 100, DRIVE_S)
    for name in ('centre_m', 'axes_m', 'colour', 'detail', 'material'):
        np.testing.assert_array_equal(getattr(world.solids, name), getattr(again.solids, name))
    assert world.pose(1.0).tobytes() == again.pose(1.0).tobytes()
    assert world.pose(1.0).tobytes() != other.pose(1.0).tobytes()
    assert not np.array_equal(world.solids.centre_m[:20], other.solids.centre_m[:20])


def test_the_camera_is_never_inside_a_solid(world):
    for time_s in TIMES_S:
        eye = world.pose(time_s)[None, :3, 3]
        assert depth_inside(world, eye, time_s).max() < 0


def test_a_camera_fits_wherever_the_world_says(world):
    """Anywhere in `World.free`, whatever the mount."""
    rng = np.random.default_rng(world.seed)
    free = world.free
    assert free.low_m < free.high_m
    for time_s in TIMES_S:
        ego = world.ego._replace(
            offset_m=world.ego.offset_m + float(rng.uniform(-free.side_m, free.side_m)),
            height_m=float(rng.uniform(free.low_m, free.high_m)),
            shake=np.zeros((0, 4)),
        )
        eye = dataclasses.replace(world, ego=ego).pose(time_s)[None, :3, 3]
        assert depth_inside(world, eye, time_s).max() < 0


def test_a_room_has_no_sky_and_open_ground_has(world):
    sky = []
    for time_s in TIMES_S:
        for turn in (0.0, 2.0, -2.0):
            pose = world.pose(time_s)
            pose[:3, :3] = orientation(turn, -abs(turn) / 2, 0.2)
            depth = render_luminance(world, CAMERA, time_s, pose).depth_m
            sky.append(bool(np.isinf(depth).any()))
    assert any(sky) == (world.condition not in ROOMS)


def test_depth_is_where_a_point_along_the_ray_first_enters_a_solid(world):
    rng = np.random.default_rng(world.seed)
    rays = CAMERA.rays().astype(np.float64)
    for time_s in TIMES_S[::4]:
        pose = world.pose(time_s)
        depth = render_luminance(world, CAMERA, time_s).depth_m
        rows, columns = rng.integers(CAMERA.height, size=12), rng.integers(CAMERA.width, size=12)
        far = depth[rows, columns].astype(np.float64)
        end = np.where(np.isfinite(far), far, 400.0)
        # along each ray, just before its end, and just beyond
        steps = np.concatenate([
            np.linspace(NEAR_M, 0.9999 * end, 40), [(1 - 1e-5) * end], [(1 + 1e-5) * end]
        ])  # fmt: skip
        points = pose[:3, 3] + steps[..., None] * (rays[rows, columns] @ pose[:3, :3].T)
        inside = depth_inside(world, points.reshape(-1, 3), time_s).reshape(steps.shape)
        # a sliver that a step grazes may be one that is smaller than a pixel
        assert (np.quantile(inside[:-2], 0.95, axis=0) < 0).all()
        assert (inside[-2] < 0).all()
        assert (inside[-1][np.isfinite(far)] > -2e-3).all()


def test_something_is_to_be_seen(world):
    """Luminance differs from pixel to pixel, and no view is black."""
    spread = []
    for time_s in TIMES_S:
        luminance = render_luminance(world, CAMERA, time_s).luminance
        assert luminance.mean() > 1e-4
        spread.append(np.log(np.maximum(luminance, 1e-5)).std())
    assert np.median(spread) > 0.02


def test_cells_are_box_filtered():
    """Against the mean of a fine grid of points."""
    rng = np.random.default_rng(1)
    share = (np.arange(40) + 0.5) / 40 - 0.5
    for _ in range(50):
        u, v = rng.uniform(-5, 5, 2)
        wu, wv = rng.uniform(0.05, 1.0, 2)
        black = [
            chance(int(np.floor(u + a * wu)), int(np.floor(v + b * wv)), 7) < 0.4
            for a in share
            for b in share
        ]
        assert cells(u, v, wu, wv, 0.4, 7) == pytest.approx(np.mean(black), abs=0.03)
    assert cells(0.3, 0.3, 2.5, 0.1, 0.4, 7) == pytest.approx(0.4)


@pytest.mark.parametrize('family', sorted(FAMILIES))
def test_a_finish_fades_to_its_mean(family):
    """A pixel that covers many features sees about their mean, wherever it looks."""
    levels = noise_levels()
    for seed in range(4):
        finish = draw_finish(np.random.default_rng(seed), 1.0, family)
        if finish.material < geo.FRACTAL:
            continue
        detail = np.array(finish.detail)
        rng = np.random.default_rng(seed)
        points = rng.uniform(0, 40, (4000, 2))
        fine, coarse = (
            np.array([
                finish_pattern(levels, finish.material, u, v, wide, wide, detail)[0]
                for u, v in points
            ])
            for wide in (1e-3, 6.0)
        )  # fmt: skip
        assert coarse.std() < 0.2 * max(fine.std(), 0.1)
        assert coarse.mean() == pytest.approx(fine.mean(), abs=0.12)
        assert ((fine > -1e-6) & (fine < 1 + 1e-6)).all()
