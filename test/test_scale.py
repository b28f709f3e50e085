"""The scale from motion: kernels next to a dumber version, and scenes made by hand."""

import dataclasses
import math

import cv2
import numpy as np
import pytest
from scale_scene import MS, STAMP_NS, VIEW, moved_back, scene_events, tilted_plane_m, twist

from spike_depth_ros.estimation import contrast as ct
from spike_depth_ros.estimation.scale import (
    LN_SCALES,
    LONGEST_NS,
    ScaleEstimate,
    nothing,
    scale,
    span_ns,
)
from spike_depth_ros.estimation.scale_filter import GUESSES, ScaleFilter
from spike_depth_ros.estimation.tracking import ScaleTracker, between
from spike_depth_ros.events.arrays import make_events

PLANE_M = tilted_plane_m()
LENS = np.array([VIEW.fx, VIEW.fy, VIEW.cx, VIEW.cy, 0.0])
RAYS = np.ascontiguousarray(VIEW.rays()[..., :2])
DIRECTIONS = {
    'forward': twist(vz=4.0),
    'backward': twist(vz=-4.0),
    'sideways': twist(vx=1.5),
    'up': twist(vy=-1.5),
    'forward in a curve': twist(vz=4.0, wy=0.3, wx=0.05),
    'sideways and rolling': twist(vx=-1.5, wz=0.4),
}


ALL_TURNS = ct.turns(120, 160, ct.BLOCK_PX)


def warped(events, motion, depth_m=PLANE_M, q=1.0, last_turn=255):
    twists = np.concatenate(motion)[None]
    return ct.Warp(
        *ct.warp(events, RAYS, depth_m, LENS, twists, 10**9, STAMP_NS, q, ALL_TURNS, 0, last_turn)
    )


def test_a_point_is_warped_to_where_it_is_at_the_end():
    motion = twist(vx=0.5, vy=-0.4, vz=3.0)
    depth_m = np.full((120, 160), 4.0, np.float32)
    end_m = np.array([0.3, -0.5, 4.0])
    start_m = moved_back(end_m, motion, 0.04)
    column, row = start_m[:2] / start_m[2] * 110.0 + (79.5, 59.5)
    events = make_events([STAMP_NS - 40 * MS], [round(column)], [round(row)], [1])
    result = warped(events, motion, depth_m)
    to = (result.at + result.by)[0] - (round(column) - column, round(row) - row)
    # what is left: the pixel's rounding, magnified by the expansion of 3 %
    np.testing.assert_allclose(to, end_m[:2] / 4.0 * 110.0 + (79.5, 59.5), atol=0.03)


def test_a_turn_is_warped_without_depth():
    motion = twist(wx=0.2, wy=-0.3, wz=0.5)
    end_m = np.array([1.0, 0.8, 5.0])
    start_m = moved_back(end_m, motion, 0.05)
    column, row = start_m[:2] / start_m[2] * 110.0 + (79.5, 59.5)
    events = make_events([STAMP_NS - 50 * MS], [round(column)], [round(row)], [0])
    result = warped(events, motion)
    to = result.at[0] - (round(column) - column, round(row) - row)
    np.testing.assert_allclose(to, end_m[:2] / 5.0 * 110.0 + (79.5, 59.5), atol=0.05)
    assert np.abs(result.by).max() == 0


def test_the_sky_and_what_has_no_depth_are_left_out():
    depth_m = PLANE_M.copy()
    depth_m[:40], depth_m[40:80], depth_m[80:] = np.inf, np.nan, 2.0
    events = make_events(np.full(3, STAMP_NS - MS), [50, 50, 50], [10, 60, 100], [1, 1, 1])
    result = warped(events, twist(vx=0.1), depth_m)
    assert len(result.sign) == 1
    assert result.at[0, 1] == 100


def test_a_pixel_that_fires_often_counts_twice():
    events = make_events(STAMP_NS - np.arange(9, 0, -1) * MS, [50] * 9, [60] * 9, [1] * 8 + [0])
    assert len(warped(events, twist(vx=0.1)).sign) == ct.MOST + 1


def test_the_motion_of_an_event_is_that_of_its_age():
    """A camera that moved to the left, and then to the right: rows by age, 10 ms each."""
    depth_m = np.full((120, 160), 2.0, np.float32)
    twists = np.zeros((3, 6))
    twists[:, 0] = 1.0, 0.0, -0.4
    t_ns = STAMP_NS - np.array([40, 25, 15, 5]) * MS
    events = make_events(t_ns, [80] * 4, [60, 61, 62, 63], [1] * 4)
    by = ct.warp(events, RAYS, depth_m, LENS, twists, 10 * MS, STAMP_NS, 1.0, ALL_TURNS, 0, 255)[1]
    moved_px = [0.4 * 0.04, 0.4 * 0.025, 0.0, -1.0 * 0.005]
    assert by[:, 0] == pytest.approx(np.array(moved_px) * 110 / 2.0, abs=1e-4)


@pytest.mark.parametrize('last_turn', [0, 60, 128, 255])
def test_whole_blocks_take_turns(last_turn):
    rows, columns = np.mgrid[0:120, 0:160]
    t_ns = np.full(rows.size, STAMP_NS - MS)
    events = make_events(t_ns, columns.ravel(), rows.ravel(), np.ones(rows.size, int))
    share = len(warped(events, twist(vx=0.1), last_turn=last_turn).sign) / rows.size
    assert share == pytest.approx((last_turn + 1) / 256, abs=0.03)
    for block in (ALL_TURNS[:16, :16], ALL_TURNS[112:, 144:]):
        assert len(np.unique(block)) == 1


def test_contrast_is_the_overlap_of_all_pairs():
    rng = np.random.default_rng(3)
    at = rng.uniform(10, 20, (40, 2)).astype(np.float32)
    by = rng.uniform(-3, 3, (40, 2)).astype(np.float32)
    sign = rng.choice([-1.0, 1.0], 40).astype(np.float32)
    tile = np.zeros(40, np.int32)
    found = ct.contrast(at, by, sign, tile, np.array([0.0, 0.7]), np.array([120, 160]))
    for q, value in zip((0.0, 0.7), found[:, 0], strict=True):
        images = np.zeros((40, 60, 60))  # each event alone
        for k, (x, y) in enumerate((at + q * by).astype(float)):
            for row in (int(y), int(y) + 1):
                for column in (int(x), int(x) + 1):
                    images[k, row, column] = (1 - abs(x - column)) * (1 - abs(y - row)) * sign[k]
        flat = images.reshape(40, -1)
        pairs = flat @ flat.T
        assert value == pytest.approx(pairs.sum() - np.trace(pairs), rel=1e-4)


@pytest.mark.parametrize('name', DIRECTIONS)
@pytest.mark.parametrize('wrong', [0.6, 1.0, 1.8])
def test_the_scale_is_found_in_every_direction_of_motion(name, wrong):
    motion = DIRECTIONS[name]
    depth_m = PLANE_M * np.float32(wrong)
    events = scene_events(motion, PLANE_M)
    long_ns = span_ns(events, depth_m, VIEW, VIEW, motion)
    chosen = between(events, STAMP_NS - long_ns, STAMP_NS)
    found = scale(chosen, depth_m, STAMP_NS, VIEW, VIEW, rows(motion))
    assert found.ln_scale == pytest.approx(-math.log(wrong), abs=0.06)
    assert found.gain > 10
    assert 0 < found.variance < 0.1


def rows(*motions):
    """The twists of `scale`."""
    return np.stack([np.concatenate(motion) for motion in motions])


def track(tracker, motion, wrong=1.0, windows=8, first=0, said=None, **scene):
    """Lets a tracker look at windows of 50 ms of a steady motion."""
    depth_m = PLANE_M * np.float32(wrong)
    for k in range(first, first + windows):
        stamp_ns = STAMP_NS + 50 * MS * k
        events = scene_events(motion, PLANE_M, stamp_ns, seed=k, **scene)
        told = motion if said is None else said
        tracker.look(depth_m, stamp_ns, events, lambda start_ns, end_ns: (told, ''))  # noqa: B023
    return tracker.state


def test_the_twist_follows_the_axes_of_the_rectified_image():
    """Rectification turns the image by a quarter about the axis: what moves down moved right."""
    quarter = (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    turned = dataclasses.replace(VIEW, rotation=quarter)
    tracker = ScaleTracker(turned, turned.rectified())
    np.testing.assert_array_equal(tracker._axes @ [0.0, 1.0, 0.0], [1.0, 0.0, 0.0])
    plain, rotated = ScaleTracker(VIEW, VIEW), dataclasses.replace(turned, rotation=())
    assert plain._axes.tolist() == rotated.to_rectified().tolist() == np.eye(3).tolist()


@pytest.mark.parametrize('wrong', [0.4, 1.0, 2.2, 10.0])
def test_a_tracker_finds_scales_of_desks_and_of_streets(wrong):
    state = track(ScaleTracker(VIEW, VIEW), twist(vx=1.0, vz=0.5), wrong, windows=12)
    assert state.known
    assert state.ln_scale == pytest.approx(-math.log(wrong), abs=0.06)
    assert state.deviation < 0.1


def test_rotation_alone_says_nothing_and_moves_nothing():
    turning = twist(wx=0.2, wy=0.5, wz=-0.3)
    tracker = ScaleTracker(VIEW, VIEW)
    assert not track(tracker, turning).known
    assert 'stands still, or only turns' in tracker.reason
    before = track(tracker, twist(vx=1.0), 1.5, windows=8, first=8)
    after = track(tracker, turning, 1.5, windows=8, first=16)
    assert before.known
    assert after.ln_scale == before.ln_scale
    assert after.deviation > before.deviation
    assert after.age_s == pytest.approx(0.4)


def test_a_scale_is_held_while_nothing_moves_with_growing_doubt():
    tracker = ScaleTracker(VIEW, VIEW)
    before = track(tracker, twist(vx=1.0), 0.7, windows=8)
    states = [before]
    for k in range(8, 60):
        stamp_ns = STAMP_NS + 50 * MS * k
        tracker.look(PLANE_M, stamp_ns, make_events([], [], [], []), lambda a, b: (twist(), ''))
        states.append(tracker.state)
    assert {s.ln_scale for s in states} == {before.ln_scale}
    doubt = [s.deviation for s in states]
    assert doubt == sorted(doubt)
    assert doubt[-1] > doubt[0] + 0.01


def test_slow_motion_is_said_to_be_too_slow():
    tracker = ScaleTracker(VIEW, VIEW)
    track(tracker, twist(vx=0.05), windows=1)
    assert 'too slowly' in tracker.reason


def test_things_that_move_by_themselves_are_outvoted():
    """A fifth of the image moves against the camera."""
    motion, against = twist(vx=1.2), twist(vx=-2.0)
    crowd = np.zeros((120, 160), bool)
    crowd[30:, 110:] = True
    tracker = ScaleTracker(VIEW, VIEW)
    for k in range(10):
        stamp_ns = STAMP_NS + 50 * MS * k
        parts = [scene_events(m, PLANE_M, stamp_ns, seed=k) for m in (motion, against)]
        kept = [e[crowd[e['y'], e['x']] == side] for e, side in zip(parts, (0, 1), strict=True)]
        events = np.concatenate(kept)
        events = events[np.argsort(events['t_ns'], kind='stable')]
        tracker.look(PLANE_M * 1.5, stamp_ns, events, lambda start_ns, end_ns: (motion, ''))
    assert tracker.state.ln_scale == pytest.approx(-math.log(1.5), abs=0.08)
    assert tracker.agrees


def test_lamps_that_flicker_do_not_move_the_scale():
    motion, tracker = twist(vx=1.2), ScaleTracker(VIEW, VIEW)
    rng = np.random.default_rng(0)
    for k in range(10):
        stamp_ns = STAMP_NS + 50 * MS * k
        events = scene_events(motion, PLANE_M, stamp_ns, seed=k)
        t_ns = np.repeat(stamp_ns - np.arange(1, 101, 10) * MS, 400)
        x, y = np.tile(rng.integers(0, 25, 400), 10), np.tile(rng.integers(0, 40, 400), 10)
        p = np.repeat(np.arange(10) % 2, 400)
        events = np.concatenate([events, make_events(t_ns, x, y, p)])
        events = events[np.argsort(events['t_ns'], kind='stable')]
        tracker.look(PLANE_M * 1.5, stamp_ns, events, lambda start_ns, end_ns: (motion, ''))
    assert tracker.state.ln_scale == pytest.approx(-math.log(1.5), abs=0.08)


def test_odometry_of_another_motion_does_not_agree_and_moves_nothing():
    tracker = ScaleTracker(VIEW, VIEW)
    before = track(tracker, twist(vx=1.2), 1.5, windows=8)
    assert tracker.agrees
    assert 0.9 < tracker.confidence(1.25) <= 1
    after = track(tracker, twist(vx=1.2), 1.5, windows=60, first=8, said=twist(vx=-1.2), each=5)
    assert after.ln_scale == pytest.approx(before.ln_scale, abs=0.02)
    assert not tracker.agrees
    assert tracker.confidence(1.25) < 0.5


@pytest.mark.parametrize('told', [twist(vx=math.nan), twist(vx=1.0, wz=math.inf)])
def test_a_twist_that_is_not_finite_is_refused(told):
    tracker = ScaleTracker(VIEW, VIEW)
    track(tracker, twist(vx=1.0), windows=1, said=told)
    assert 'not finite' in tracker.reason
    estimate = scale(
        scene_events(twist(vx=1.0), PLANE_M), PLANE_M, STAMP_NS, VIEW, VIEW, rows(told)
    )
    assert 'not finite' in estimate.reason
    assert estimate.variance == math.inf


def test_no_odometry_is_said():
    tracker = ScaleTracker(VIEW, VIEW)
    tracker.look(PLANE_M, STAMP_NS, scene_events(twist(vx=1), PLANE_M), lambda a, b: (None, 'why'))
    assert tracker.reason == 'why'
    assert not tracker.state.known
    assert tracker.confidence(1.25) == 1.0


def test_few_events_say_nothing():
    events = scene_events(twist(vx=1.0), PLANE_M, points=10)
    found = scale(events, PLANE_M, STAMP_NS, VIEW, VIEW, rows(twist(vx=1.0)))
    assert 'events on what has a depth' in found.reason


def test_a_sensor_that_is_binned_and_distorted_gives_the_same_scale():
    """A sensor twice as fine, behind a lens; depth on the grid of its rectified image."""
    sensor = dataclasses.replace(
        VIEW, width=320, height=240, fx=220.0, fy=220.0, cx=159.5, cy=119.5, distortion=(-0.1,
        0.01, 0.0, 0.0)
    )  # fmt: skip
    motion, view = twist(vx=1.2), sensor.rectified().binned(2)
    events = scene_events(motion, PLANE_M, points=1200)
    rays = np.stack([(events['x'] - view.cx) / view.fx, (events['y'] - view.cy) / view.fy,
                     np.ones(len(events))], axis=1)  # fmt: skip
    seen, _ = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), sensor.matrix,
                                np.array(sensor.distortion))  # fmt: skip
    x, y = np.rint(seen[:, 0]).astype(int).T
    on = (x >= 0) & (x < 320) & (y >= 0) & (y < 240)
    fine = make_events(events['t_ns'][on], x[on], y[on], events['p'][on])
    found = scale(fine, PLANE_M * 1.4, STAMP_NS, sensor, view, rows(motion))
    assert found.ln_scale == pytest.approx(-math.log(1.4), abs=0.08)


def estimate(ln_scale, deviation=0.1, gain=20.0):
    log = -0.5 * ((LN_SCALES - ln_scale) / deviation) ** 2
    return ScaleEstimate(ln_scale, deviation**2, gain, log, '')


def fed(estimates, start=0):
    flt = ScaleFilter()
    for k, item in enumerate(estimates):
        flt.update(STAMP_NS + 50 * MS * (start + k), item)
    return flt.state(STAMP_NS + 50 * MS * (start + len(estimates) - 1)), flt


def test_the_filter_follows_what_windows_say():
    rng = np.random.default_rng(0)
    state, _ = fed([estimate(0.3 + 0.1 * rng.normal()) for _ in range(40)])
    assert state.ln_scale == pytest.approx(0.3, abs=0.04)
    assert 0.02 < state.deviation < 0.08


def test_one_window_proves_nothing():
    assert not fed([estimate(0.3, 0.02)])[0].known
    assert fed([estimate(0.3, 0.05)] * len(GUESSES))[0].known


def test_single_windows_that_are_wrong_do_not_move_the_filter():
    steady = [estimate(0.2)] * 30
    upset, _ = fed(steady + [estimate(-1.5, 0.02)] * 2 + [estimate(0.2)])
    assert upset.ln_scale == pytest.approx(0.2, abs=0.02)


def test_the_filter_comes_round_when_windows_keep_saying_otherwise():
    state, _ = fed([estimate(0.2)] * 20 + [estimate(-0.9)] * 60)
    assert state.ln_scale == pytest.approx(-0.9, abs=0.05)


def test_windows_without_gain_say_nothing():
    state, flt = fed([estimate(0.2)] * 20)
    later = flt.update(STAMP_NS + 1050 * MS, estimate(1.2, 0.01, gain=1.0))
    assert later.ln_scale == pytest.approx(state.ln_scale, abs=1e-3)
    assert later.agreement < state.agreement


def test_a_network_that_is_sure_of_itself_is_moved_less():
    """Windows that say little: what the network expects of its own scale decides."""
    found = []
    for own in (0.08, 0.3, 1.5):
        flt = ScaleFilter()
        for k in range(40):
            flt.update(STAMP_NS + 50 * MS * k, estimate(0.4, 0.5), own)
        found.append(flt.state(STAMP_NS + 2000 * MS).ln_scale)
    assert found == sorted(found)
    assert found[0] < 0.15
    assert found[-1] == pytest.approx(0.4, abs=0.05)


def test_a_network_that_is_sure_of_itself_may_still_be_off_by_ten():
    flt = ScaleFilter()
    for k in range(40):
        flt.update(STAMP_NS + 50 * MS * k, estimate(-2.3, 0.1), 0.1)
    assert flt.state(STAMP_NS + 2000 * MS).ln_scale == pytest.approx(-2.3, abs=0.05)


def test_a_jump_in_time_forgets():
    _, flt = fed([estimate(0.2)] * 20)
    assert not flt.update(STAMP_NS - 1000 * MS, nothing('why')).known


def test_the_steady_scale_moves_by_less_than_two_percent():
    rng = np.random.default_rng(1)
    flt, shown = ScaleFilter(), []
    for k in range(100):
        shown.append(flt.update(STAMP_NS + 50 * MS * k, estimate(0.3 + 0.1 * rng.normal())))
    steps = np.diff([s.ln_scale for s in shown[20:]])
    assert np.abs(steps).max() < 0.02


def test_the_longest_window_is_what_callers_keep():
    motion = twist(vx=0.4)
    assert span_ns(scene_events(motion, PLANE_M), PLANE_M, VIEW, VIEW, motion) == LONGEST_NS
