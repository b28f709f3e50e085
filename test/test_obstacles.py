"""Obstacle and free-space clouds and depth images, as the rules of their consumers read them.

`VoxelLayer` follows nav2_costmap_2d: the observation buffer (observation_buffer.cpp, bufferCloud)
transforms the cloud into the global frame and drops points outside the height band of the source;
the layer (voxel_layer.cpp, updateBounds and raytraceFreespace) first clears the voxels on each
ray, but for the last two, up to `raytrace_max_range` and within the heights of the grid. Then it
marks the voxel of each point between `obstacle_min_range` and `obstacle_max_range`, within the
heights of the layer.

`laser_scan` follows depthimage_to_laserscan (DepthImageToLaserScan.hpp, convert; .cpp, use_point).
"""

import math

import numpy as np
import pytest
import yaml
from graph import HEIGHT, WIDTH, Driver
from hypothesis import given
from hypothesis import strategies as st
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.config import shipped
from spike_depth_ros.ros import messages
from spike_depth_ros.ros.depth_parameters import DepthParameters
from spike_depth_ros.ros.obstacles import ObstacleOptions, free_space_points, obstacle_points

NAN, INF = np.nan, np.inf
CAMERA = Camera(64, 48, 40.0, 40.0, 31.5, 23.5)
HEIGHT_M = 0.5
TO_GLOBAL = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], float)  # optical -> x ahead, z up
CELL_M = 0.1
LAYER = yaml.safe_load(shipped('config/nav2/voxel_layer.yaml').read_text())['local_costmap'][
    'local_costmap']['ros__parameters']['voxel_layer']  # fmt: skip
SOURCES = {name: LAYER[name] for name in LAYER['observation_sources'].split()}


class VoxelLayer:
    """A plain costmap of one camera: a set of occupied voxels."""

    def __init__(self):
        self.marking, self.clearing = SOURCES['obstacles'], SOURCES['free_space']
        self.origin = np.array([0.0, 0.0, HEIGHT_M])
        self.floor_m = LAYER['origin_z']
        self.top_m = self.floor_m + LAYER['z_voxels'] * LAYER['z_resolution']
        self.occupied = set()

    def buffered(self, points, source):
        placed = points[:, :3].astype(float) @ TO_GLOBAL.T + self.origin
        low, high = source['min_obstacle_height'], source['max_obstacle_height']
        return placed[(placed[:, 2] >= low) & (placed[:, 2] <= high)]

    def update(self, obstacles, free):
        for point in self.buffered(free, self.clearing):
            ray = point - self.origin
            length = np.linalg.norm(ray)
            end = self.origin + ray * max((length - 2 * CELL_M) / length, 0.0)
            share = 1.0
            if end[2] > self.top_m:
                share = (self.top_m - 0.01 - HEIGHT_M) / (end[2] - HEIGHT_M)
            elif end[2] < self.floor_m:
                share = (self.floor_m - HEIGHT_M) / (end[2] - HEIGHT_M)
            reach = min(share * np.linalg.norm(end - self.origin),
                        self.clearing['raytrace_max_range'])  # fmt: skip
            for s in np.arange(0.0, reach, CELL_M / 4):
                self.occupied.discard(self.voxel(self.origin + ray * s / length))
        for point in self.buffered(obstacles, self.marking):
            distance = np.linalg.norm(point - self.origin)
            if not 0.0 <= point[2] <= LAYER['max_obstacle_height']:
                continue
            low, high = self.marking['obstacle_min_range'], self.marking['obstacle_max_range']
            if low <= distance < high and point[2] < self.top_m:
                self.occupied.add(self.voxel(np.maximum(point, [-INF, -INF, self.floor_m])))

    @staticmethod
    def voxel(point):
        return tuple(np.floor(point / CELL_M).astype(int))


def wall(z_m):
    """A wall across the view, ground below it, nothing else."""
    rays = CAMERA.rays()
    with np.errstate(divide='ignore', invalid='ignore'):
        ground = np.where(rays[..., 1] > 0, HEIGHT_M / rays[..., 1], INF)
    return np.minimum(np.full(rays.shape[:2], z_m), ground).astype(np.float32)


def feed(layer, depth_m, options, confidence=1.0):
    sure = np.full(depth_m.shape, confidence, np.float32)
    rays = CAMERA.rays()
    layer.update(obstacle_points(depth_m, sure, rays, options),
                 free_space_points(depth_m, sure, rays, options))  # fmt: skip


def ahead(layer):
    """Distances [m] of the occupied voxels straight ahead at the height of the camera."""
    return sorted({x * CELL_M for x, y, z in layer.occupied if y in (0, -1) and z == 5})


def test_a_wall_marks_and_the_ground_does_not():
    layer = VoxelLayer()
    feed(layer, wall(3.05), ObstacleOptions())
    assert ahead(layer) == pytest.approx([3.0])
    assert all(x * CELL_M == pytest.approx(3.0) for x, _, _ in layer.occupied)


def test_a_wall_that_has_gone_is_cleared_by_what_lies_behind():
    layer = VoxelLayer()
    feed(layer, wall(2.05), ObstacleOptions())
    feed(layer, wall(4.05), ObstacleOptions())
    assert ahead(layer) == pytest.approx([4.0])


def test_beyond_range_clears_only_when_asked_to():
    for clear_m, left in ((0.0, [2.0]), (6.0, [])):
        layer = VoxelLayer()
        options = ObstacleOptions(clear_m=clear_m)
        feed(layer, wall(2.05), options)
        feed(layer, wall(INF), options)
        assert ahead(layer) == pytest.approx(left)


def test_too_near_marks_and_never_clears():
    options = ObstacleOptions(near_m=0.35, clear_m=6.0)
    layer = VoxelLayer()
    feed(layer, wall(2.05), options)
    feed(layer, np.full((48, 64), -INF, np.float32), options)
    assert ahead(layer) == pytest.approx([0.3, 2.0])


def test_unsure_depth_neither_marks_nor_clears():
    layer = VoxelLayer()
    feed(layer, wall(2.05), ObstacleOptions(min_confidence=0.5))
    before = set(layer.occupied)
    feed(layer, wall(4.05), ObstacleOptions(min_confidence=0.5, clear_m=6.0), confidence=0.4)
    assert layer.occupied == before


def test_nothing_that_is_not_finite_leaves():
    depth_m = np.array([[NAN, INF, -INF, 2.0]], np.float32)
    rays = np.array([[[0, 0, 1], [0, 0, 1], [0, 0, 1], [NAN, NAN, 1]]], np.float32)
    sure = np.ones((1, 4), np.float32)
    options = ObstacleOptions(near_m=0.2, clear_m=3.0)
    assert obstacle_points(depth_m, sure, rays, options).tolist() == [
        [0, 0, pytest.approx(0.2), 1]
    ]
    assert free_space_points(depth_m, sure, rays, options).tolist() == [[0, 0, 3.0, 1]]


def test_a_ray_beyond_range_is_as_long_in_the_corner():
    rays, sure = CAMERA.rays(), np.ones((48, 64), np.float32)
    beyond = np.full((48, 64), INF, np.float32)
    ends = free_space_points(beyond, sure, rays, ObstacleOptions(clear_m=4.0))
    np.testing.assert_allclose(np.linalg.norm(ends[:, :3], axis=1), 4.0, rtol=1e-5)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.3, 1.0]))
def test_one_point_of_each_voxel_stays_the_surest(seed, voxel_m):
    rng = np.random.default_rng(seed)
    depth_m = rng.uniform(0.5, 4.0, (48, 64)).astype(np.float32)
    confidence = rng.uniform(0, 1, (48, 64)).astype(np.float32)
    everything = obstacle_points(depth_m, confidence, CAMERA.rays(), ObstacleOptions(0.0))
    kept = obstacle_points(
        depth_m, confidence, CAMERA.rays(), ObstacleOptions(0.0, voxel_m=voxel_m)
    )
    best = {}
    for point in everything:
        cell = tuple(np.floor(point[:3] / voxel_m).astype(int))
        best[cell] = max(best.get(cell, -1.0), point[3])
    cells = [tuple(np.floor(point[:3] / voxel_m).astype(int)) for point in kept]
    assert len(set(cells)) == len(cells) == len(best)
    assert all(best[cell] == point[3] for cell, point in zip(cells, kept, strict=True))


def test_the_default_confidence_is_the_same_everywhere():
    file = yaml.safe_load(shipped('config/nav2/depth_node.yaml').read_text())
    values = file['/**/depth_node']['ros__parameters']
    default = DepthParameters()
    assert default.obstacle_min_confidence == ObstacleOptions().min_confidence == 0.5
    assert values['obstacle_min_confidence'] == 0.5
    assert values['obstacle_near_m'] < SOURCES['obstacles']['obstacle_max_range']
    assert SOURCES['obstacles']['obstacle_min_range'] == 0.0, 'or "too near" would not mark'


SCAN = yaml.safe_load(shipped('config/nav2/laserscan.yaml').read_text())[
    '/**/depthimage_to_laserscan']['ros__parameters']  # fmt: skip


def laser_scan(image, info):
    """(W,) ranges of a 32FC1 image, the rightmost first."""
    depth_m = np.frombuffer(image.data, np.float32).reshape(image.height, image.width)
    fx, cx, cy = info.p[0], info.p[2], info.p[6]
    rows = SCAN['scan_height']
    assert rows // 2 <= cy
    assert rows // 2 <= image.height - cy
    right, left = (math.atan2(cx - u, fx) for u in (image.width - 1, 0))
    step = (left - right) / (image.width - 1)
    ranges = [NAN] * image.width
    top = int(cy - rows / 2)
    for row in depth_m[top : top + rows].tolist():
        for u, depth in enumerate(row):
            index = int((math.atan2(cx - u, fx) - right) / step + 1e-9)
            new, old = depth, ranges[index]
            if math.isfinite(depth):
                new = math.hypot((u - cx) / fx * depth, depth)
            if not math.isfinite(new) and not math.isfinite(old):
                if not math.isnan(new):
                    ranges[index] = new
            elif SCAN['range_min'] <= new <= SCAN['range_max'] and not new >= old:
                ranges[index] = new
    return ranges


def scanned(depth_m):
    header = messages.make_header(1, 'event_camera_optical_frame')
    return laser_scan(messages.depth_image(header, depth_m), messages.camera_info(header, CAMERA))


def test_a_wall_is_a_wall_in_the_scan():
    ranges = np.array(scanned(wall(3.0)))
    hits = ranges[np.isfinite(ranges)]
    angles = np.arctan((31.5 - np.arange(64)[::-1]) / 40.0)
    np.testing.assert_allclose(hits.min(), 3.0, rtol=1e-3)
    np.testing.assert_allclose(hits.max(), 3.0 / np.cos(angles[0]), rtol=1e-3)


@pytest.mark.parametrize('mark', [NAN, INF])
def test_what_has_no_depth_is_no_hit_in_the_scan(mark):
    """+inf stays "nothing within range", NaN stays unknown."""
    ranges = np.array(scanned(np.full((48, 64), mark, np.float32)))
    assert not np.isfinite(ranges).any()
    assert np.isposinf(ranges).any() == np.isposinf(mark)


def test_the_nearest_row_of_the_scan_counts():
    depth_m = wall(8.0)
    depth_m[20] = 2.0
    ranges = np.array(scanned(depth_m))
    assert np.nanmin(ranges) == pytest.approx(2.0, rel=1e-3)
    assert np.nanmax(ranges) < 8.0


class WallEngine:
    """An engine that sees a wall across the view."""

    device, carries = 'none', False

    def __init__(self, log_depth):
        self.log_depth = log_depth

    def infer(self, spikes, state):
        maps = np.empty((3, *spikes.shape[2:]), np.float32)
        maps[0], maps[1], maps[2] = self.log_depth, 20.0, -20.0
        return maps, None


def test_a_wall_goes_from_the_node_into_the_costmap_and_the_scan(graph, start, checkpoint):
    """The whole chain: a wall at 3.05 m, events, the messages of the node, their consumers."""
    node = start(activate=False, obstacle_rate_hz=0.0, obstacle_stride=1)
    canonical_m = 3.05 * checkpoint.depth_range.focal_px / 30.0
    engine = WallEngine(checkpoint.depth_range.normalise(np.float32(canonical_m)))
    node.network = node.network._replace(engine=engine)
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    node.calibration.camera = Camera(WIDTH, HEIGHT, 60.0, 60.0, 31.5, 23.5)
    kinds = {'obstacles': PointCloud2, 'free_space': PointCloud2, 'image': Image,
             'camera_info': CameraInfo}  # fmt: skip
    got = {name: graph.listen(kind, f'/depth_node/depth/{name}') for name, kind in kinds.items()}
    driver = Driver(graph)
    assert graph.spin_until(lambda: driver.send(20) is not None and all(got.values()))
    clouds = [
        np.frombuffer(got[name][-1].data, np.float32).reshape(-1, 4)
        for name in ('obstacles', 'free_space')
    ]
    layer = VoxelLayer()
    layer.occupied.add(layer.voxel(np.array([1.5, 0.05, 0.55])))  # something that has gone
    layer.update(*clouds)
    assert ahead(layer) == pytest.approx([3.0])
    ranges = np.array(laser_scan(got['image'][-1], got['camera_info'][-1]))
    assert np.nanmin(ranges) == pytest.approx(3.05, rel=1e-3)


def test_each_source_does_one_thing():
    assert [(s['marking'], s['clearing']) for s in SOURCES.values()] == [
        (True, False),
        (False, True),
    ]
