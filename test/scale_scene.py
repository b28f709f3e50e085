"""Events of points that stand still before a moving camera, made by hand."""

import numpy as np

from spike_depth_ros.estimation.motion import Twist
from spike_depth_ros.events.arrays import make_events
from spike_depth_ros.events.camera import Camera

MS = 1_000_000
VIEW = Camera(160, 120, 110.0, 110.0, 79.5, 59.5)
STAMP_NS = 5_000 * MS


def twist(vx=0.0, vy=0.0, vz=0.0, wx=0.0, wy=0.0, wz=0.0):
    return Twist(np.array([vx, vy, vz]), np.array([wx, wy, wz]))


def tilted_plane_m(near_m=3.0, slope=0.6):
    """(H, W) depth along z: 1 / d is linear in the image, as that of any plane."""
    rows, columns = np.mgrid[0:120, 0:160]
    inverse = (1 + slope * (rows - 59.5) / 120 + 0.3 * (columns - 79.5) / 160) / near_m
    return (1 / inverse).astype(np.float32)


def moved_back(points_m, motion, age_s):
    """Where the points were `age_s` before: dX/dt = -v - w x X, by Euler's method."""
    step_s, left_s = 1e-3, age_s
    while left_s > 0:
        dt = min(step_s, left_s)
        points_m = points_m + dt * (motion.velocity_mps + np.cross(motion.rate_radps, points_m))
        left_s -= dt
    return points_m


def scene_events(motion, depth_m, stamp_ns=STAMP_NS, span_ms=110, points=900, each=11, seed=0):
    """(N,) events in order of time: every point fires `each` times where it then is."""
    rng = np.random.default_rng(seed)
    pixels = rng.uniform(-20, (180, 140), (points, 2))
    columns, rows = np.clip(np.rint(pixels), 0, (159, 119)).astype(int).T
    rays = np.column_stack([(pixels - (VIEW.cx, VIEW.cy)) / VIEW.fx, np.ones(points)])
    now_m = rays * depth_m[rows, columns].astype(float)[:, None]
    polarity = rng.integers(0, 2, points)
    period_ms = span_ms // each
    phase_ms = rng.integers(0, period_ms, points)
    found = []
    for age_ms in range(span_ms):
        due = phase_ms == age_ms % period_ms
        x, y = np.rint(now_m[due, :2] / now_m[due, 2:] * VIEW.fx + (VIEW.cx, VIEW.cy)).T
        inside = (x >= 0) & (x < 160) & (y >= 0) & (y < 120) & (now_m[due, 2] > 0.05)
        t_ns = np.full(len(x), stamp_ns - 1 - age_ms * MS)
        found.append(np.column_stack([t_ns, x, y, polarity[due]]).astype(np.int64)[inside])
        now_m = moved_back(now_m, motion, 1e-3)
    return make_events(*np.concatenate(found[::-1]).T)
