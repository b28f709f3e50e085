"""The ground as a scale: planes made by hand."""

import math

import numpy as np
import pytest
from scale_scene import VIEW

from spike_depth_ros.estimation.ground import ground_scale


def floor_m(height_m, pitch=0.0, roll=0.0):
    """(H, W) depth of a floor below a camera that looks down by `pitch`; +inf above it."""
    rows, columns = np.mgrid[0:120, 0:160]
    x, y = (columns - VIEW.cx) / VIEW.fx, (rows - VIEW.cy) / VIEW.fy
    level = math.cos(pitch)
    down = np.array([math.sin(roll) * level, math.cos(roll) * level, math.sin(pitch)])
    below = x * down[0] + y * down[1] + down[2]  # of the point at depth 1
    with np.errstate(divide='ignore'):
        return np.where(below > 1e-6, height_m / below, np.inf).astype(np.float32)


@pytest.mark.parametrize('pitch', [-0.15, 0.0, 0.4])
@pytest.mark.parametrize('roll', [0.0, -0.2])
def test_the_floor_gives_the_scale(pitch, roll):
    found = ground_scale(floor_m(1.2, pitch, roll), VIEW, 0.4)
    assert found.reason == ''
    assert found.ln_scale == pytest.approx(math.log(0.4 / 1.2), abs=1e-3)


def test_things_on_a_noisy_floor_do_not_count():
    rng = np.random.default_rng(0)
    depth_m = floor_m(1.5) * np.exp(0.02 * rng.normal(size=(120, 160))).astype(np.float32)
    depth_m[70:100, 20:60] = 2.0  # a box
    found = ground_scale(depth_m, VIEW, 0.75)
    assert found.ln_scale == pytest.approx(math.log(0.5), abs=0.02)
    assert found.variance < 0.03


def test_a_wall_is_no_ground():
    found = ground_scale(np.full((120, 160), 3.0, np.float32), VIEW, 0.4)
    assert found.ln_scale == 0
    assert 'no plane in the lower half of the image is level' in found.reason


def test_a_jumble_is_no_ground():
    rng = np.random.default_rng(0)
    depth_m = rng.uniform(1, 9, (120, 160)).astype(np.float32)
    assert 'the ground fills' in ground_scale(depth_m, VIEW, 0.4).reason


def test_an_image_without_depth_below_is_said():
    depth_m = np.full((120, 160), np.nan, np.float32)
    assert 'too little depth' in ground_scale(depth_m, VIEW, 0.4).reason


def test_a_height_that_does_not_fit_is_said():
    assert 'would ask for a scale of' in ground_scale(floor_m(1.2), VIEW, 100.0).reason
