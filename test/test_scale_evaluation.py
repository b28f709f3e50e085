"""Depth on a recording that is made by hand, with the scale from every source."""

import dataclasses
import json
import math

import numpy as np
import pytest
from scale_scene import MS, VIEW, scene_events, twist

from spike_depth_ros.cli import main
from spike_depth_ros.estimation.motion import MotionError, StampedTwist
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.config import ConfigError, SpikeConfig
from spike_depth_ros.learning.scale_evaluation import measure, pixels_of_view, with_errors
from spike_depth_ros.learning.settings import OdometryErrors, ScaleSettings
from spike_depth_ros.network.checkpoint import save_checkpoint
from spike_depth_ros.recordings import BagError, BagWriter

EPOCH_NS = 1_700_000_000_000_000_000
FRAME = 'event_camera_optical_frame'
WALL_M, LONG_MS = 2.0, 1000
MOTION = twist(vx=0.8)
NO_TURN = np.array([0.0, 0.0, 0.0, 1.0])


class Wall:
    """An engine that says one depth everywhere."""

    device = 'none'

    def infer(self, spikes, state):
        maps = np.zeros((3, *spikes.shape[2:]), np.float32)
        maps[0], maps[1], maps[2] = 0.6, 20.0, -20.0
        return maps, None


@pytest.fixture(scope='module')
def drive(tmp_path_factory):
    """A bag of a camera that moves to the right at 0.8 m/s before a wall, 2 m away."""
    depth_m = np.full((120, 160), WALL_M, np.float32)
    events = scene_events(MOTION, depth_m, LONG_MS * MS, LONG_MS, 900, LONG_MS // 10)
    return write(tmp_path_factory.mktemp('drives') / 'wall', events, depth_m)


def write(path, events, depth_m, frame=FRAME, late_ns=0):
    with BagWriter(path, 'mcap', 'evt3') as bag:
        shifted = events.copy()
        shifted['t_ns'] += EPOCH_NS
        bag.add_events(shifted, 120, 160)
        bag.add_camera_info('/event_camera/camera_info', EPOCH_NS, VIEW, FRAME)
        bag.add_camera_info('/ground_truth/camera_info', EPOCH_NS, VIEW, FRAME)
        for t_ms in range(0, LONG_MS, 20):
            stamp_ns = EPOCH_NS + t_ms * MS
            bag.add_odometry('/odom', stamp_ns, 'map', frame, np.zeros(3), NO_TURN, MOTION)
            bag.add_depth_32fc1('/ground_truth/depth', stamp_ns + late_ns, depth_m, FRAME)
    return path


@pytest.fixture
def wide(checkpoint):
    return dataclasses.replace(
        checkpoint, spikes=SpikeConfig(window_ms=20.0, steps=2, max_width_px=160)
    )


def measured(drive, wide, **settings):
    return measure(drive, wide, ScaleSettings(skip_s=0.5, **settings), Wall(), 'cpu', 1)


def test_every_source_is_measured_on_the_same_maps(drive, wide):
    found = measured(drive, wide, scales=('none', 'odometry', 'oracle'))
    said_m = float(wide.depth_range.denormalise(np.float32(0.6))) * 110 / wide.depth_range.focal_px
    assert {f.maps for f in found.values()} == {23}  # 540 to 980 ms
    assert found['none'].abs_rel == pytest.approx(abs(said_m / WALL_M - 1), rel=1e-4)
    assert found['none'].ln_scale_error == pytest.approx(abs(math.log(said_m / WALL_M)), rel=1e-4)
    assert found['none'].jitter == 0
    assert found['oracle'].abs_rel == pytest.approx(0, abs=1e-6)
    assert found['odometry'].abs_rel < 0.07
    assert found['odometry'].delta1 == found['odometry'].known == 1
    assert found['odometry'].jitter < 0.02
    assert found['odometry'].look_ms > 0


def test_odometry_that_is_fast_makes_depth_far(drive, wide):
    exact, fast = (
        measured(drive, wide, scales=('odometry',), odometry_errors=OdometryErrors(factor=factor))
        for factor in (1.0, 1.1)
    )
    more = fast['odometry'].ln_scale_error - exact['odometry'].ln_scale_error
    assert more == pytest.approx(math.log(1.1), abs=0.03)


def test_errors_of_odometry_are_added_by_hand():
    samples = [StampedTwist(k * 10 * MS, '', twist(vx=1.0), True) for k in range(20)]
    errors = OdometryErrors(factor=1.05, late_ms=20, rate_hz=20)
    found = list(with_errors(iter(samples), errors))
    assert [s.stamp_ns for s in found] == [20 * MS, 70 * MS, 120 * MS, 170 * MS]
    assert all(s.twist.velocity_mps.tolist() == [1.05, 0, 0] for s in found)
    noisy = list(with_errors(iter(samples * 50), OdometryErrors(noise_mps=0.1, noise_radps=0.02)))
    velocity = np.array([s.twist.velocity_mps for s in noisy])
    assert velocity.std(axis=0) == pytest.approx([0.1] * 3, rel=0.1)
    assert np.std([s.twist.rate_radps for s in noisy]) == pytest.approx(0.02, rel=0.1)


def test_the_ground_truth_of_a_turned_camera():
    """A wall 4 m ahead of a camera that is turned by 90 degrees about its axis."""
    other = Camera(120, 160, 110.0, 110.0, 59.5, 79.5)
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    (columns, rows), stretch = pixels_of_view(VIEW, other, quarter)
    # its x axis points down in the view, its y axis to the left
    assert (columns[0, 0], rows[0, 0]) == pytest.approx((0, 159), abs=1e-3)
    assert stretch == pytest.approx(1)
    angle = 0.1
    cos, sin = math.cos(angle), math.sin(angle)
    aside = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    (columns, rows), stretch = pixels_of_view(VIEW, VIEW, aside)
    assert columns[60, 80] == pytest.approx(79.5 + 110 * math.tan(0.5 / 110 - angle), abs=0.01)
    assert stretch[60, 80] == pytest.approx(1 / math.cos(angle), rel=1e-3)


def test_points_are_projected_through_the_lens():
    for lens in (
        ('plumb_bob', (-0.1, 0.01, 0.001, 0.0)),
        ('equidistant', (0.01, 0, 0, 0)),
        ('', ()),
    ):
        camera = dataclasses.replace(VIEW, distortion_model=lens[0], distortion=lens[1])
        pixels = np.array([[0.0, 0.0], [80.0, 60.0], [159.0, 100.0]])
        np.testing.assert_allclose(camera.project(camera.undistort(pixels)), pixels, atol=0.05)


def test_what_a_recording_lacks_is_said(tmp_path, drive, wide):
    depth_m = np.full((120, 160), WALL_M, np.float32)
    events = scene_events(MOTION, depth_m, 100 * MS, 100, 50, 10)
    other = write(tmp_path / 'other', events, depth_m, frame='base_link')
    with pytest.raises(BagError, match=r"the motion of 'base_link'.*give camera_pose"):
        measured(other, wide, scales=('odometry',))
    with pytest.raises(MotionError, match='expected six numbers'):
        measured(other, wide, scales=('odometry',), camera_pose='1')
    with pytest.raises(BagError, match='no ground truth within 12 ms'):
        measured(write(tmp_path / 'late', events, depth_m, late_ns=10**12), wide, scales=('none',))
    with pytest.raises(ConfigError, match='camera_height_m is 0'):
        ScaleSettings(scales=('height',))


def test_the_command_prints_all_sources(drive, wide, tmp_path, capsys):
    path = tmp_path / 'wide.safetensors'
    save_checkpoint(path, wide)
    main(['evaluate', str(path), '--recordings', str(drive.parent), '--out', str(tmp_path / 'out'),
          '--odometry_errors.factor', '1.05', '--skip_s', '0.5'])  # fmt: skip
    said = capsys.readouterr().out
    assert '| Abs Rel | none | odometry | oracle |' in said
    assert '| wall |' in said
    found = json.loads((tmp_path / 'out' / 'scale.json').read_text('utf-8'))
    assert found['settings']['odometry_errors']['factor'] == 1.05
    assert set(found['recordings']['wall']) == {'none', 'odometry', 'oracle'}
