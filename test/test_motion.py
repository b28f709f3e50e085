"""Mounts by hand, and odometry with all that is wrong with it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scale_scene import MS, twist

from spike_depth_ros.estimation.motion import (
    FORWARD,
    HOLD_NS,
    MOST_JUMPS,
    MotionError,
    Odometry,
    mount_of,
    rotation_of_angles,
    rotation_of_quaternion,
)


def test_a_camera_that_looks_ahead_moves_along_its_z():
    seen = mount_of(FORWARD, np.zeros(3)).camera_twist(twist(vx=2.0, vy=0.5, wz=0.3))
    np.testing.assert_allclose(seen.velocity_mps, [-0.5, 0, 2.0])  # left is -x, ahead is z
    np.testing.assert_allclose(seen.rate_radps, [0, -0.3, 0])  # a left turn is about -y, down


def test_a_camera_off_the_axis_moves_sideways_when_the_base_turns():
    seen = mount_of(FORWARD, np.array([0.5, 0, 0.2])).camera_twist(twist(wz=1.0))
    np.testing.assert_allclose(seen.velocity_mps, [-0.5, 0, 0], atol=1e-12)  # 0.5 m/s to the left


def test_angles_and_quaternions_give_the_same_rotation():
    np.testing.assert_allclose(
        rotation_of_angles(-math.pi / 2, 0, -math.pi / 2), FORWARD, atol=1e-12
    )
    np.testing.assert_allclose(rotation_of_quaternion(-0.5, 0.5, -0.5, 0.5), FORWARD, atol=1e-12)


@pytest.mark.parametrize('rotation', [np.zeros((3, 3)), 2 * np.eye(3), np.diag([1.0, 1.0, -1.0])])
def test_what_is_no_rotation_is_refused(rotation):
    with pytest.raises(MotionError, match='expected an orthonormal matrix of determinant 1'):
        mount_of(rotation, np.zeros(3))


def test_a_pose_that_is_not_finite_is_refused():
    with pytest.raises(MotionError, match='not finite'):
        mount_of(np.eye(3), np.array([0, math.nan, 0]))


@pytest.mark.parametrize('length', [0.0, 0.5, 2.0])
def test_a_quaternion_of_another_length_is_refused(length):
    with pytest.raises(MotionError, match='expected an orthonormal matrix'):
        mount_of(rotation_of_quaternion(0, 0, 0, length), np.zeros(3))


def odometry(samples):
    found = Odometry()
    for time_ms, vx in samples:
        assert found.add(round(time_ms * MS), twist(vx=vx)) == ''
    return found


@given(
    st.lists(st.floats(-5, 5), min_size=2, max_size=12),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_the_mean_is_that_of_lines_between_samples(speeds, one, other):
    found = Odometry()
    times_ns = np.arange(len(speeds)) * 50 * MS
    for t_ns, vx in zip(times_ns.tolist(), speeds, strict=True):
        found._times_ns.append(t_ns)  # whatever a robot can do
        found._twists.append(np.array([vx, 0, 0, 0, 0, 0]))
    start_ns, end_ns = sorted(int(share * times_ns[-1]) for share in (one, other))
    mean, reason = found.mean(start_ns, end_ns)
    assert reason == ''
    at = np.linspace(start_ns, end_ns, 4001)
    dumb = np.interp(at, times_ns, speeds)
    dumb = ((dumb[1:] + dumb[:-1]) / 2).mean()
    assert mean.velocity_mps[0] == pytest.approx(dumb, abs=1e-2)


def test_the_newest_sample_lasts_for_a_while():
    found = odometry([(0, 1.0), (50, 2.0)])
    mean, _ = found.mean(50 * MS, 150 * MS)
    assert mean.velocity_mps[0] == 2.0
    mean, reason = found.mean(150 * MS, 51 * MS + HOLD_NS)
    assert mean is None
    assert reason == 'the newest odometry is 0.15 s older than the events'


def test_odometry_that_never_came_or_stopped_is_said():
    assert Odometry().mean(0, MS) == (None, 'no odometry yet')
    mean, reason = odometry([(0, 1.0)]).mean(5000 * MS, 5100 * MS)
    assert mean is None
    assert 'has stopped, or has a clock of its own' in reason


def test_a_clock_of_its_own_is_said():
    found = odometry([(3_600_000, 1.0)])
    assert 'clock of its own' in found.mean(0, MS)[1]


def test_odometry_that_just_began_does_not_reach_back():
    assert 'does not reach back' in odometry([(1000, 1.0)]).mean(500 * MS, 600 * MS)[1]


def test_numbers_that_are_not_finite_are_refused():
    found = odometry([(0, 1.0)])
    assert 'not finite' in found.add(50 * MS, twist(vx=math.nan))
    assert found.mean(0, 50 * MS)[0].velocity_mps[0] == 1.0


def test_time_that_runs_backwards_is_refused():
    found = odometry([(0, 1.0), (50, 1.0)])
    assert 'backwards' in found.add(20 * MS, twist(vx=1.0))
    assert 'backwards' in found.add(50 * MS, twist(vx=1.0))
    assert found.refused == {'odometry runs backwards in time, or repeats a stamp': 2}


def test_a_recording_that_starts_again_starts_again():
    found = odometry([(60_000, 1.0), (60_050, 1.0)])
    assert found.add(0, twist(vx=3.0)) == ''
    assert found.mean(0, 50 * MS)[0].velocity_mps[0] == 3.0


def test_jumps_are_refused_until_they_stay():
    found = odometry([(0, 1.0)])
    for k in range(MOST_JUMPS):
        assert 'jumps' in found.add((k + 1) * 20 * MS, twist(vx=30.0))
    assert found.add(200 * MS, twist(vx=30.0)) == ''
    assert found.newest_ns == 200 * MS


def test_memory_stays_flat():
    found = odometry([(10 * k, 1.0) for k in range(2000)])
    assert len(found._times_ns) <= 301
