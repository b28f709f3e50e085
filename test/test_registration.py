"""Depth in another camera's image: by hand, and against a dumb implementation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spike_depth_ros.estimation.motion import mount_of, rotation_of_angles
from spike_depth_ros.estimation.registration import MOST_HALF_PX, OVERLAP_PX, register
from spike_depth_ros.events.camera import Camera

NAN, INF = np.nan, np.inf
VIEW = Camera(9, 7, 8.0, 8.0, 4.0, 3.0)
SAME = mount_of(np.eye(3), np.zeros(3))


def dumb(depth_m, confidence, view, rays, other, pose, fill):
    """One depth pixel after the other, over lists of the rows and columns that it covers."""
    h, w = other.height, other.width
    out, sure = np.full((h, w), NAN, np.float32), np.full((h, w), NAN, np.float32)
    v_grid, u_grid = np.mgrid[0:h, 0:w]
    for row, column in np.ndindex(depth_m.shape):
        d = float(depth_m[row, column])
        if math.isnan(d) or d <= 0:
            continue
        point = rays[row, column].astype(np.float64)
        if d < INF:
            point = point * d - pose.translation_m
        x, y, z = pose.rotation.T @ point
        if not z > 1e-6:
            continue
        u, v = x / z * other.fx + other.cx, y / z * other.fy + other.cy
        size = (d if d < INF else 1.0) / z * fill
        half_u = min(0.5 * other.fx / view.fx * size, MOST_HALF_PX) + OVERLAP_PX
        half_v = min(0.5 * other.fy / view.fy * size, MOST_HALF_PX) + OVERLAP_PX
        columns = [c for c in range(-99, 199) if u - half_u <= c < u + half_u]
        rows = [r for r in range(-99, 199) if v - half_v <= r < v + half_v]
        if len(columns) < 2:
            columns = [math.floor(u + 0.5)]
        if len(rows) < 2:
            rows = [math.floor(v + 0.5)]
        seen = np.float32(z if d < INF else INF)
        wins = np.isin(u_grid, columns) & np.isin(v_grid, rows) & ~(out <= seen)
        out[wins], sure[wins] = seen, confidence[row, column]
    return out, sure


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(*[st.floats(-0.4, 0.4)] * 3),
    st.tuples(*[st.floats(-0.7, 0.7)] * 3),
    st.floats(0.4, 3.0),
    st.booleans(),
)
def test_registered_depth_is_that_of_the_dumb_implementation(seed, shift, angles, zoom, fill):
    rng = np.random.default_rng(seed)
    depth_m = np.exp(rng.uniform(-1.0, 2.0, (7, 9))).astype(np.float32)
    depth_m[rng.random((7, 9)) < 0.3] = rng.choice([NAN, INF, -INF])
    confidence = rng.random((7, 9)).astype(np.float32)
    rays = VIEW.rays()
    rays[0, 0] = NAN
    other = Camera(round(9 * zoom), round(7 * zoom), 8 * zoom, 9 * zoom, 4 * zoom, 3 * zoom)
    pose = mount_of(rotation_of_angles(*angles), np.array(shift))
    found = register(depth_m, confidence, VIEW, rays, other, pose, fill)
    expected = dumb(depth_m, confidence, VIEW, rays, other, pose, fill)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize('fill', [True, False])
def test_the_same_camera_sees_the_same(fill):
    depth_m = np.linspace(1, 5, 63, dtype=np.float32).reshape(7, 9)
    depth_m[2, 3], depth_m[4, 5], depth_m[6, 0] = NAN, INF, -INF
    confidence = np.linspace(0, 1, 63, dtype=np.float32).reshape(7, 9)
    found_m, sure = register(depth_m, confidence, VIEW, VIEW.rays(), VIEW, SAME, fill)
    expected = np.where(np.isneginf(depth_m), NAN, depth_m)
    np.testing.assert_allclose(found_m, expected, rtol=1e-6)
    np.testing.assert_array_equal(sure, np.where(np.isnan(expected), NAN, confidence))


def test_a_camera_to_the_right_sees_things_farther_left():
    """One metre to the right at 4 m: 8 px * 1 m / 4 m = 2 columns."""
    depth_m = np.full((7, 9), 4.0, np.float32)
    pose = mount_of(np.eye(3), np.array([1.0, 0.0, 0.0]))
    found_m, _ = register(depth_m, np.ones((7, 9), np.float32), VIEW, VIEW.rays(), VIEW, pose)
    assert (found_m[:, :7] == 4.0).all()
    assert np.isnan(found_m[:, 7:]).all()


def test_the_nearest_wins_and_what_it_hid_before_stays_a_hole():
    """A post at 2 m before a wall at 8 m: from 1 m to the right it moves by 4 columns, not 1."""
    depth_m = np.full((7, 9), 8.0, np.float32)
    depth_m[:, 6] = 2.0
    confidence = np.where(depth_m == 2.0, 0.9, 0.3).astype(np.float32)
    pose = mount_of(np.eye(3), np.array([1.0, 0.0, 0.0]))
    found_m, sure = register(depth_m, confidence, VIEW, VIEW.rays(), VIEW, pose)
    assert found_m[3].tolist() == pytest.approx([8, 8, 2, 8, 8, NAN, 8, 8, NAN], nan_ok=True)
    assert sure[3].tolist() == pytest.approx([0.3, 0.3, 0.9, 0.3, 0.3, NAN, 0.3, 0.3, NAN],
                                             nan_ok=True)  # fmt: skip


def test_an_image_of_more_pixels_has_no_gaps():
    big = Camera(45, 35, 40.0, 40.0, 22.0, 17.0)  # five pixels for each
    depth_m, sure = np.full((7, 9), 3.0, np.float32), np.ones((7, 9), np.float32)
    found_m, _ = register(depth_m, sure, VIEW, VIEW.rays(), big, SAME)
    assert (found_m == 3.0).all()
    points_m, _ = register(depth_m, sure, VIEW, VIEW.rays(), big, SAME, fill=False)
    assert np.isfinite(points_m).sum() == 63


def test_depth_beyond_range_turns_with_the_camera_and_has_no_parallax():
    depth_m = np.full((7, 9), INF, np.float32)
    sure = np.ones((7, 9), np.float32)
    away = mount_of(np.eye(3), np.array([5.0, 0.0, 3.0]))
    found_m, _ = register(depth_m, sure, VIEW, VIEW.rays(), VIEW, away)
    assert np.isposinf(found_m).all()
    back = mount_of(rotation_of_angles(0.0, math.pi, 0.0), np.zeros(3))
    found_m, found_sure = register(depth_m, sure, VIEW, VIEW.rays(), VIEW, back)
    assert np.isnan(found_m).all()
    assert np.isnan(found_sure).all()
