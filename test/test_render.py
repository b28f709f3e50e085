"""The renderer against geometry by hand, and frames against each other through depth and pose."""

import dataclasses
import itertools

import numpy as np
import pytest

from spike_depth_ros.events.camera import Camera
from spike_depth_ros.sim import geometry as geo
from spike_depth_ros.sim import motion as mo
from spike_depth_ros.sim import route, weather
from spike_depth_ros.sim.build import Place, SolidList, terrain_patches
from spike_depth_ros.sim.geometry import WHITE_LUMINANCE, Light, World, orientation
from spike_depth_ros.sim.render import (
    TILE_PX,
    image_flow,
    render,
    render_luminance,
)
from spike_depth_ros.sim.textures import noise, noise_levels, pulse, pulses
from spike_depth_ros.sim.world import SCENES, build_world

CAMERA = Camera(96, 72, 70.0, 70.0, 47.5, 35.5)
LENS = dataclasses.replace(CAMERA, distortion=(-0.28, 0.09, 0.001, -0.0005))
GREY = (0.5, 0.5, 0.5)
LEVEL = orientation(0.0, 0.0, 0.0)


def lit(clouds=0.0, night=0.0, rain=0.0, fog_per_m=0.0):
    """An even light without shadow maps."""
    table = np.tile([[1.0], [0.5], [0.4], [0.8], [0.3], [1.0]], 3)
    nothing = np.zeros((2, 1, 1), np.uint8)
    sun = np.array([0.0, 0.6, 0.8])
    return Light(sun, table, fog_per_m, rain, clouds, 0.0, night, np.array([0.0, 0, 1]), nothing)


def world_of(solids, actors=(), light=None):
    """A world of a few solids, with a camera that drives east at 10 m/s, 1.5 m above 0."""
    path = mo.trace_path(np.zeros(200), 1.0, 0.0)
    speed = np.array([[0.0, 0.0, 10.0], [10.0, 100.0, 10.0]])
    flat = np.array([-500.0, -500.0, 1000.0])
    moving = route.motion_of(path, speed, (np.zeros((2, 2)), flat), np.zeros((0, 4)), list(actors))
    ego = geo.Ego(0.0, 1.5, 0.0, 0.0, 0.0, np.zeros((0, 4)))
    ground = route.plain_ground(np.zeros(8), np.full((5, 3), 0.2))
    return World('test', 0, 10.0, 'test', solids.solids(), moving, ground, light or lit(), ego)


def scene(*parts):
    solids = SolidList()
    for shape, centre, half, options in parts:
        solids.add(Place(), shape, geo.PLAIN, centre, half, GREY, **options)
    return world_of(solids)


def looking(x, y, z, rotation=LEVEL):
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, (x, y, z)
    return pose


def test_depth_of_a_wall_is_its_distance_along_the_axis():
    world = scene((geo.BOX, (20.0, 0, 0), (1.0, 50, 50), {}))
    for camera in (CAMERA, LENS):
        depth = render(world, camera, 0.0, looking(0, 0, 0)).depth_m
        np.testing.assert_allclose(depth, 19.0, rtol=1e-6)


def test_depth_of_the_ground_is_height_over_slope():
    solids = SolidList()
    heights, grid = np.zeros((41, 41)), np.array([-200.0, -200.0, 10.0])
    terrain_patches(solids, heights, grid, np.ones((40, 40), np.bool_))
    depth = render(world_of(solids), LENS, 0.0, looking(0.3, 0.2, 1.5)).depth_m
    down = LENS.rays()[..., 1]
    below = down > 1.5 / 150
    np.testing.assert_allclose(depth[below], 1.5 / down[below], rtol=2e-5)
    assert np.isinf(depth[down < 0]).all()


def test_depth_of_a_ball():
    world = scene((geo.BALL, (10.0, 0, 0), (2.0, 2.0, 2.0), {}))
    depth = render(world, LENS, 0.0, looking(0, 0, 0)).depth_m
    x, y, _ = np.moveaxis(LENS.rays().astype(np.float64), 2, 0)
    # |t (x, y, 1) - (0, 0, 10)|^2 = 4
    a = x * x + y * y + 1
    disc = 100 - a * 96
    truth = np.where(disc > 0, (10 - np.sqrt(np.maximum(disc, 0))) / a, np.inf)
    clear = np.abs(disc) > 0.02
    np.testing.assert_allclose(depth[clear], truth[clear], rtol=1e-5)


def test_depth_of_a_slanted_box():
    half = (1.5, 0.7, 0.9)
    world = scene((geo.BOX, (8.0, 0.4, 0.2), half, {'yaw_rad': 0.6, 'pitch_rad': 0.3}))
    depth = render(world, CAMERA, 0.0, looking(0, 0, 0)).depth_m
    rays = CAMERA.rays().astype(np.float64) @ LEVEL.T
    inverse = np.linalg.inv(world.solids.axes_m[0])
    o, d = inverse @ -world.solids.centre_m[0], rays @ inverse.T
    with np.errstate(divide='ignore'):
        ends = np.sort(np.stack([(-1 - o) / d, (1 - o) / d]), axis=0)
    low, high = ends[0].max(axis=-1), ends[1].min(axis=-1)
    truth = np.where(low < high, low, np.inf)
    clear = np.abs(high - low) > 1e-3
    assert 100 < np.isfinite(truth).sum() < truth.size
    np.testing.assert_allclose(depth[clear], truth[clear], rtol=1e-5)


@pytest.mark.parametrize('top', [0.0, 0.3])
def test_a_flat_cone_is_whole_from_above(top):
    """Seen more steeply than its flanks: r = 2 at z = 0, 2 `top` at z = 1, from z = 5."""
    cone = (geo.CONE, (0, 0, 0.5), (2.0, 2.0, 0.5), {'taper': (1 - top, 0, 0)})
    down = looking(0.1, 0.05, 5.0, orientation(0.0, np.pi / 2, 0.0))
    depth = render(scene(cone), CAMERA, 0.0, down).depth_m
    rays = CAMERA.rays().astype(np.float64) @ down[:3, :3].T
    steps = np.linspace(3.9, 5.0, 20001)
    for i, j in [(30, 40), (36, 48), (40, 34), (48, 60), (36, 70)]:
        points = down[:3, 3] + steps[:, None] * rays[i, j]
        inside = np.hypot(points[:, 0], points[:, 1]) <= 2 - 2 * (1 - top) * points[:, 2]
        inside &= (points[:, 2] >= 0) & (points[:, 2] <= 1)
        assert depth[i, j] == pytest.approx(steps[np.argmax(inside)], abs=2e-4)


def test_depth_of_a_thin_far_pole_is_exact():
    world = scene((geo.CONE, (150.0, 0, 0), (0.5, 0.5, 30.0), {}))
    zoom = Camera(65, 33, 2000.0, 2000.0, 32.0, 16.0)
    depth = render(world, zoom, 0.0, looking(0, 0, 0)).depth_m
    x = zoom.rays()[16, :, 0].astype(np.float64)
    a = x * x + 1
    disc = 150.0**2 - a * (150.0**2 - 0.25)
    hit = disc > 1e-3 * disc.max()
    truth = (150 - np.sqrt(np.maximum(disc, 0))) / a
    assert 10 < hit.sum() < 17
    np.testing.assert_allclose(depth[16, hit], truth[hit], rtol=2e-6)


def test_a_tapered_box_is_a_roof():
    """A ridge: half width 2 at z = 0, 0 at z = 2; a level ray at z = 1 meets it at width 1."""
    world = scene((geo.BOX, (10.0, 0, 1.0), (2.0, 30.0, 1.0), {'taper': (1.0, 0, 0)}))
    depth = render(world, CAMERA, 0.0, looking(0, 0, 1.0)).depth_m
    rows = CAMERA.rays()[:, 48, 1].astype(np.float64)
    inside = (rows > -0.09) & (rows < 0.09)
    # x = 10 - (2 - z), z = 1 - y x  =>  x = 9 / (1 + y)
    np.testing.assert_allclose(depth[inside, 48], 9 / (1 + rows[inside]), rtol=1e-5)


def test_the_nearer_of_two_hides_the_other():
    near, far = ((geo.BOX, (x, 0, 0), (0.1, 5, 5), {}) for x in (6.1, 12.1))
    for parts in ((near, far), (far, near)):
        depth = render(scene(*parts), CAMERA, 0.0, looking(0, 0, 0)).depth_m
        assert depth[36, 48] == pytest.approx(6.0)


@pytest.mark.parametrize('scene_name', sorted(SCENES))
@pytest.mark.parametrize('seed', [3, 4])
def test_scenes_are_finite_for_a_whole_drive(scene_name, seed):
    world = build_world(scene_name, seed)
    for time_s in np.linspace(0.0, 20.0, 7):
        frame = render(world, LENS, time_s)
        assert np.isfinite(frame.radiance).all()
        assert (frame.radiance >= 0).all()
        assert not np.isnan(frame.depth_m).any()
        assert frame.depth_m.min() >= 0.05
        if scene_name == 'indoor':
            assert np.isfinite(frame.depth_m).mean() > 0.97


@pytest.mark.parametrize('scene_name', sorted(SCENES))
def test_luminance_is_that_of_the_colours(scene_name):
    world = build_world(scene_name, 5)
    frame, gray = render(world, LENS, 6.0), render_luminance(world, LENS, 6.0)
    np.testing.assert_array_equal(frame.depth_m, gray.depth_m)
    error = np.log((gray.luminance + 1e-4) / (frame.radiance @ WHITE_LUMINANCE + 1e-4))
    # Coloured light on coloured paint: a luminance product is not the product of luminances.
    assert np.abs(error).mean() < 0.02
    assert np.abs(error).max() < 0.5


def test_rendering_tiles_is_rendering_a_part():
    world = build_world('street', 5)
    whole = render_luminance(world, LENS, 4.0)
    out = np.full((LENS.height, LENS.width), -1.0, np.float32)
    across = -(-LENS.width // TILE_PX)
    tiles = np.array([2, 9, 14, 29], np.int32)
    part = render_luminance(world, LENS, 4.0, tiles=tiles, out=out)
    chosen = np.zeros(out.shape, np.bool_)
    for tile in tiles:
        top, left = tile // across * TILE_PX, tile % across * TILE_PX
        chosen[top : top + TILE_PX, left : left + TILE_PX] = True
    np.testing.assert_array_equal(out[chosen], whole.luminance[chosen])
    np.testing.assert_array_equal(part.depth_m[chosen], whole.depth_m[chosen])
    assert (out[~chosen] == -1.0).all()


def project(points, camera):
    """Columns and rows (float) of points in the camera, through the lens; NaN behind it."""
    import cv2

    flat = points.reshape(-1, 3).astype(np.float64)
    pixels, _ = cv2.projectPoints(
        flat, np.zeros(3), np.zeros(3), camera.matrix, np.array(camera.distortion or (0.0,) * 4)
    )
    pixels = pixels.reshape(*points.shape[:2], 2)
    pixels[points[..., 2] < 0.1] = np.nan
    return pixels


@pytest.mark.parametrize(('scene_name', 'seed'), [('street', 2), ('indoor', 2), ('flight', 10)])
def test_depth_carries_one_frame_into_another(scene_name, seed):
    """Static worlds: points of one frame lie where the other frame says, unless hidden there."""
    world = build_world(scene_name, seed)
    still = world.solids.actor < 0
    solids = geo.Solids(*(array[still] for array in world.solids))
    world = dataclasses.replace(world, solids=solids)
    camera = dataclasses.replace(LENS, width=192, height=144, fx=140.0, fy=140.0, cx=95.5, cy=71.5)
    first, second = world.pose(6.0), world.pose(6.3)
    a, b = (render(world, camera, 6.0, pose) for pose in (first, second))
    finite = np.isfinite(a.depth_m)
    points = camera.rays() * np.where(finite, a.depth_m, 1.0)[..., None]
    points = points @ first[:3, :3].T + first[:3, 3]
    points = (points - second[:3, 3]) @ second[:3, :3]
    pixels = project(points, camera)
    inside = finite & (pixels > 1).all(-1) & (pixels < (190, 142)).all(-1)
    column, row = np.floor(pixels[inside]).astype(int).T
    corners = np.stack([b.depth_m[row + j, column + i] for j in (0, 1) for i in (0, 1)])
    smooth = corners.max(0) < 1.15 * corners.min(0)
    u, v = pixels[inside].T - (column, row)
    weights = np.stack([(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v])
    with np.errstate(divide='ignore'):
        there = 1 / (weights / corners).sum(0)  # inverse depth is linear over a plane
    ratio = there / points[inside][:, 2]
    seen = smooth & (ratio > 0.97)  # nearer by more than 3 %: something else stands before it
    assert seen.mean() > 0.6
    assert (np.abs(ratio[seen] - 1) < 0.01).mean() > 0.95
    light = [frame.radiance @ WHITE_LUMINANCE for frame in (a, b)]
    warped = sum(w * light[1][row + j, column + i] for w, (j, i) in zip(
        weights, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True))  # fmt: skip
    change = np.abs(np.log((warped + 1e-3) / (light[0][inside] + 1e-3)))[seen]
    assert np.median(change) < 0.06


def test_flow_of_the_ground_by_hand():
    """At 10 m/s along the axis a point at depth z flows by (x, y) f v / z away from the centre."""
    solids = SolidList()
    solids.add(Place(), geo.BOX, geo.PLAIN, (120.0, 0, 0), (1.0, 200, 200), GREY)
    world = world_of(solids)
    flow = image_flow(world, CAMERA, 2.0, stride=4)
    depth = 119.0 - 20.0
    rays = CAMERA.rays()[::4, ::4, :2]
    # f32 depth limits it: 1e-3 s of motion is 0.01 m of 99 m
    np.testing.assert_allclose(flow, rays * 70.0 * 10.0 / depth, atol=0.02)


def test_flow_of_a_turning_camera_and_of_the_sky():
    world = world_of(SolidList())
    turning = dataclasses.replace(
        world, ego=world.ego._replace(shake=np.array([[5.0, 0.1, 0.5, 0.0]]))
    )
    # yaw = 0.1 lively sin(pi t): at t = 2 the rate is 0.1 pi lively to the left
    lively = 0.25 + 100 / 120
    flow = image_flow(turning, CAMERA, 2.0, stride=1)
    assert flow[36, 48, 0] == pytest.approx(70.0 * 0.1 * np.pi * lively, rel=1e-2)


def test_flow_sees_what_moves():
    solids = SolidList()
    solids.add(Place(actor=0), geo.BOX, geo.PLAIN, (0, 0, 1.5), (4.0, 0.1, 3.0), GREY)
    # Ahead at 30 m, across the view from right to left at 5 m/s
    course = (30.0, -20.0, 30.0, 20.0, 8.0, 0.25, 0.0, 0.0)
    world = world_of(solids, [(mo.SHUTTLE, course)])
    world = dataclasses.replace(
        world, motion=world.motion._replace(speed=np.array([[0.0, 0, 0], [10.0, 0, 0]]))
    )
    time_s = 2.0
    flow = image_flow(world, CAMERA, time_s, stride=1)
    depth = render(world, CAMERA, time_s).depth_m
    car = np.isfinite(depth)
    assert car.sum() > 50
    np.testing.assert_allclose(flow[car][:, 0], -5.0 * 70.0 / depth[car], rtol=1e-3)
    np.testing.assert_allclose(flow[~car], 0.0, atol=1e-6)


def test_fog_hides_what_is_far():
    solids = SolidList()
    for x in (5.0, 40.0, 160.0):
        solids.add(
            Place(), geo.BOX, geo.PLAIN, (x, x * 0.3 - 4, 0), (0.1, 0.1 * x, 90), (0.0,) * 3
        )
    clear, foggy = (
        render_luminance(world_of(solids, light=lit(fog_per_m=fog)), CAMERA, 0.0, looking(0, 0, 0))
        for fog in (0.0, 0.02)
    )
    np.testing.assert_array_equal(clear.depth_m, foggy.depth_m)
    hit = np.isfinite(clear.depth_m)
    distance = (clear.depth_m * np.linalg.norm(CAMERA.rays(), axis=-1))[hit]
    share = 1 - np.exp(-0.02 * distance)
    gain = foggy.luminance[hit] - clear.luminance[hit] * (1 - share)
    assert (gain >= 0.79 * share).all()
    assert (gain <= 0.8 * 1.26 * share).all()


def test_rain_moves_and_leaves_depth_alone():
    solids = SolidList()
    solids.add(Place(), geo.BOX, geo.PLAIN, (20.0, 0, 0), (1.0, 50, 50), GREY)
    world = world_of(solids, light=lit(rain=0.5))
    a, b = (render_luminance(world, CAMERA, t, looking(0, 0, 0)) for t in (0.0, 0.004))
    np.testing.assert_array_equal(a.depth_m, b.depth_m)
    assert 0.02 < (a.luminance != b.luminance).mean() < 0.98


def test_a_box_throws_a_shadow_where_the_sun_says():
    solids = SolidList()
    solids.add(Place(), geo.BOX, geo.PLAIN, (0, 0, 2.0), (1.0, 1.0, 2.0), GREY)
    light = lit()._replace(sun=np.array([0.6, 0.0, 0.8]), table=np.full((6, 3), 1.0))
    grid = np.array([-500.0, -500.0, 1000.0])
    mapped = weather.with_maps(light, solids.solids(), np.zeros((2, 2)), grid,
                               np.array([[-5.0, 0], [5.0, 0]]), np.zeros((0, 3)))  # fmt: skip

    # 4 m tall, sun at 3 : 4 along x: the shadow reaches 3 m beyond the foot, away from the sun
    def sunlit(x, y):
        column, row = ((np.array([x, y]) - mapped.grid[:2]) / mapped.grid[2]).astype(int)
        return int(mapped.maps[0, row, column])

    assert [sunlit(x, 0.2) for x in (-4.6, -3.4, -1.5, 0.2, 1.6)] == [255, 0, 0, 0, 255]
    assert [sunlit(-2.2, y) for y in (-1.6, 1.6)] == [255, 255]


@pytest.mark.parametrize('width', [0.02, 0.3, 1.7, 9.0])
def test_pulses_are_box_filtered(width):
    """Against a sum over many points of the footprint."""
    for x in (-2.3, 0.1, 0.45, 7.77):
        points = x + width * (np.arange(20000) + 0.5) / 20000 - width / 2
        assert pulses(x, 0.3, width) == pytest.approx((points % 1.0 < 0.3).mean(), abs=2e-3)
        inside = (points > 0.2) & (points < 0.6)
        assert pulse(x, 0.2, 0.6, width) == pytest.approx(inside.mean(), abs=2e-3)


def test_noise_fades_with_the_footprint():
    levels = noise_levels()
    rng = np.random.default_rng(1)
    places = rng.uniform(-1000, 1000, (4000, 2))
    spread = [np.std([noise(levels, u, v, f) for u, v in places]) for f in (0.5, 4, 16, 64, 300)]
    assert spread[0] == pytest.approx(1.0, abs=0.25)
    assert all(a > 1.05 * b for a, b in itertools.pairwise(spread))
    assert spread[-1] == 0.0


def test_a_pixel_without_a_ray_has_no_depth():
    """A lens that folds its corners inwards: NaN there, not a wrong number."""
    wild = Camera(96, 72, 40.0, 40.0, 47.5, 35.5, 'plumb_bob', (-0.9, 0.0, 0.0, 0.0))
    rays = wild.rays()
    world = scene((geo.BOX, (20.0, 0, 0), (1.0, 500, 500), {}))
    frame = render(world, wild, 0.0, looking(0, 0, 0))
    missing = ~np.isfinite(rays).all(axis=-1)
    assert 0.1 < missing.mean() < 0.9
    assert np.isnan(frame.depth_m[missing]).all()
    assert np.isfinite(frame.radiance).all()
    np.testing.assert_allclose(frame.depth_m[~missing], 19.0, rtol=1e-5)
