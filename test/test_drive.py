"""Drives: windows of events with the truth at their end, at the pace of the motion."""

import dataclasses

import numpy as np
import pytest

from spike_depth_ros.events.config import ConfigError
from spike_depth_ros.sim.drive import (
    WARMUP_NS,
    Drive,
    SpikeDrive,
    _tile_greatest,
    clip,
    exposed,
    picture,
    world_of,
)
from spike_depth_ros.sim.event_camera import EventCamera
from spike_depth_ros.sim.render import render_luminance
from spike_depth_ros.sim.sensors import sensor_config

MS = 1_000_000
TINY = '64x48'


@pytest.fixture(scope='module')
def two_windows():
    return clip(world_of('street', 3), 2.0, windows=2, window_ms=20.0, sensor=TINY)


def test_windows_follow_each_other_and_hold_their_own_events(two_windows):
    first, second = two_windows
    assert (first.t0_ns, first.t1_ns) == (2_000 * MS, 2_020 * MS)
    assert (second.t0_ns, second.t1_ns) == (2_020 * MS, 2_040 * MS)
    for sample in two_windows:
        times = sample.events['t_ns']
        assert len(times) > 100
        assert (np.diff(times) >= 0).all()
        assert sample.t0_ns <= times[0] <= times[-1] < sample.t1_ns
        assert sample.events['x'].max() < 64
        assert sample.events['y'].max() < 48
        assert sample.depth_m.shape == (48, 64)
        assert (sample.rgb.shape, sample.rgb.dtype) == ((48, 64, 3), np.uint8)
        assert not sample.events.flags.writeable


def test_truth_is_that_of_the_windows_end(two_windows):
    world = world_of('street', 3)
    for sample in two_windows:
        truth = picture(world, sample.camera, sample.t1_ns * 1e-9)
        np.testing.assert_array_equal(sample.depth_m, truth.depth_m)
        np.testing.assert_array_equal(sample.rgb, truth.rgb)


def test_the_seed_decides_everything(two_windows):
    again = clip(world_of('street', 3), 2.0, windows=2, window_ms=20.0, sensor=TINY)
    other = clip(world_of('street', 4), 2.0, windows=1, window_ms=20.0, sensor=TINY)
    for a, b in zip(two_windows, again, strict=True):
        assert np.array_equal(a.events, b.events)
        np.testing.assert_array_equal(a.depth_m, b.depth_m)
    assert not np.array_equal(two_windows[0].events, other[0].events)


def test_depth_and_image_may_be_asked_for_in_another_view():
    config = sensor_config(TINY)
    view = config.camera.rectified()
    (sample,) = clip(world_of('street', 3), 2.0, 1, 20.0, config, view)
    assert sample.view == view
    truth = picture(world_of('street', 3), view, 2.02)
    np.testing.assert_array_equal(sample.depth_m, truth.depth_m)


def test_events_agree_with_those_of_four_thousand_frames_a_second():
    """The dumb way: render everything all the time. Voxel correlation, an ideal sensor."""
    world, sensor = world_of('street', 3), sensor_config('96x72').ideal()
    start, end = 2_000 * MS, 2_023 * MS
    camera, frames = EventCamera(sensor, 0), range(start - WARMUP_NS, end + 1, MS // 4)
    lights = (render_luminance(world, sensor.camera, t * 1e-9).luminance for t in frames)
    parts = [camera.step(light, t) for light, t in zip(lights, frames, strict=True)]
    dumb = np.concatenate(parts)
    dumb = dumb[dumb['t_ns'] >= start]
    for max_step_px, agreement in ((1.0, 0.7), (0.25, 0.85)):
        events = Drive(world, sensor, 0, start, max_step_px=max_step_px).advance(end)
        assert len(events) == pytest.approx(len(dumb), rel=0.2)
        a, b = (_voxels(e, start, end) for e in (events, dumb))
        assert np.corrcoef(a, b)[0, 1] > agreement


def _voxels(events, start, end):
    """Signed counts per pixel and quarter."""
    bins = (events['t_ns'] - start) * 4 // (end - start)
    flat = (bins * 72 + events['y']) * 96 + events['x']
    return np.bincount(flat, events['p'] * 2.0 - 1.0, minlength=4 * 72 * 96)


def test_a_drive_does_not_go_back():
    drive = Drive(world_of('street', 3), sensor_config(TINY), 0, 2_000 * MS)
    with pytest.raises(ValueError, match='go back'):
        drive.advance(1_999 * MS)
    assert len(drive.advance(2_000 * MS)) == 0
    assert drive.now_ns == 2_000 * MS
    with pytest.raises(ValueError, match='go back'):
        drive.advance(1_999 * MS)


def test_runs_of_one_sensor_share_its_thresholds_but_not_its_noise():
    sensor = dataclasses.replace(sensor_config(TINY), shot_noise_hz=20.0)
    one, two = (EventCamera(sensor, 5, run) for run in (0, 1))
    assert np.array_equal(one.pixels['threshold_on'], two.pixels['threshold_on'])
    assert not np.array_equal(one.pixels['noise_left'], two.pixels['noise_left'])
    spread = np.corrcoef(one.pixels['contrast'].ravel(), one.pixels['threshold_on'].ravel())
    assert abs(spread[0, 1]) < 0.1


def test_a_tile_is_as_fast_as_the_fastest_pixel_around():
    rng = np.random.default_rng(0)
    values = rng.random((10, 14))
    greatest = _tile_greatest(values, 4)
    assert greatest.shape == (3, 4)
    for i in range(3):
        for j in range(4):
            rows, columns = (
                slice(max(4 * i - 2, 0), 4 * i + 6),
                slice(max(4 * j - 2, 0), 4 * j + 6),
            )
            assert greatest[i, j] == values[rows, columns].max()


def test_exposure_makes_any_uniform_light_the_same_grey():
    for level in (1e-3, 0.2, 50.0):
        image = exposed(np.full((4, 5, 3), level, np.float32))
        # 0.18 (1 + 0.02) / 1.18 = 0.1556, in sRGB 0.4316
        assert (image == 110).all()
    image = exposed(np.array([[[0.0, 0.0, 0.0], [1e6, 1e6, 1e6]]], np.float32))
    assert image[0, 0].max() == 0
    assert image[0, 1].min() == 255


def test_spike_frames_follow_the_light():
    world, camera = world_of('street', 3), sensor_config(TINY).camera
    frames = SpikeDrive(world, camera, 1).frames(2_000 * MS, 2_010 * MS, 128)
    assert (frames.shape, frames.dtype) == ((128, 48, 64), np.uint8)
    assert set(np.unique(frames)) == {0, 1}
    light = render_luminance(world, camera, 2.005).luminance
    first = render_luminance(world, camera, 0.0).luminance
    full = 4 * np.exp(np.log(first).mean())
    expected = np.minimum(light / full, 1.0)  # what is brighter saturates
    assert np.corrcoef(expected.ravel(), frames.mean(axis=0).ravel())[0, 1] > 0.95
    assert abs(np.median(frames.mean(axis=0) - expected)) < 1 / 128


@pytest.mark.parametrize(('wrong', 'name'), [((0.0, 1), 'start_s'), ((1.0, 0), 'windows')])
def test_times_that_make_no_sense_are_named(wrong, name):
    with pytest.raises(ConfigError, match=name):
        clip(world_of('street', 3), *wrong, sensor=TINY)
