"""Motion: smooth paths, speed profiles, terrain, and the poses of moving objects.

World axes are x east, y north, z up (REP 103). A pose at any `time_s` follows from the tables
alone, so frames may be rendered in any order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from spike_depth_ros.events.compiled import compiled

FOLLOW, LEAD, SHUTTLE = range(3)
"""Motion of an actor: constant speed along the path; ahead of the camera; back and forth."""

HIDDEN_M = -1e6
"""Height of an actor that is outside the world."""


class Motion(NamedTuple):
    """The tables that determine all positions.

    Attributes:
        path: (S, 6) x [m], y [m], heading [rad], curvature [1/m], cosine and sine of the heading
            every `step_m` of arc length.
        step_m: arc length between path samples.
        speed: (K, 3) knots time [s], distance travelled [m], speed [m/s]; speed blends between
            knots by a smoothstep.
        heights_m: (ny, nx) terrain height at the corners of square cells.
        terrain: x [m], y [m] of the corner [0, 0], and cell size [m].
        waves: (M, 4) direction kx, ky [rad/m], phase [rad], amplitude [m]: the smooth terrain.
        mode: (A,) FOLLOW, LEAD or SHUTTLE.
        course: (A, 8) float64. FOLLOW: start [m], speed [m/s], offset to the left [m]. LEAD: gap
            [m], lead time [s], offset. SHUTTLE: x0, y0, x1, y1 [m], time from end to end [s],
            phase in [0, 2). Last two: half length and width of its shadow [m], or 0.
    """

    path: np.ndarray
    step_m: float
    speed: np.ndarray
    heights_m: np.ndarray
    terrain: np.ndarray
    waves: np.ndarray
    mode: np.ndarray
    course: np.ndarray


@compiled()
def along(path, step_m, s_m):
    """Returns the pose on a path at arc length `s_m`: x, y, heading, curvature.

    Position and heading are cubic Hermite curves, both C1. Beyond its ends the path is straight.
    """
    last = path.shape[0] - 1
    s_in = min(max(s_m, 0.0), last * step_m)
    i = min(int(s_in / step_m), last - 1)
    u = s_in / step_m - i
    a, b = path[i], path[i + 1]
    u2, u3 = u * u, u * u * u
    h0, h1, g0, g1 = 2 * u3 - 3 * u2 + 1, 3 * u2 - 2 * u3, u3 - 2 * u2 + u, u3 - u2
    g0, g1 = g0 * step_m, g1 * step_m
    x = h0 * a[0] + h1 * b[0] + g0 * a[4] + g1 * b[4]
    y = h0 * a[1] + h1 * b[1] + g0 * a[5] + g1 * b[5]
    heading = h0 * a[2] + h1 * b[2] + g0 * a[3] + g1 * b[3]
    over = s_m - s_in
    curvature = (1 - u) * a[3] + u * b[3]
    return x + over * np.cos(heading), y + over * np.sin(heading), heading, curvature


@compiled()
def travelled(speed, time_s):
    """Returns distance [m] and speed [m/s] at a time: the exact integral of smoothstep blends."""
    last = speed.shape[0] - 1
    if time_s <= speed[0, 0]:
        return speed[0, 1] + (time_s - speed[0, 0]) * speed[0, 2], speed[0, 2]
    if time_s >= speed[last, 0]:
        return speed[last, 1] + (time_s - speed[last, 0]) * speed[last, 2], speed[last, 2]
    k = min(int(np.searchsorted(speed[:, 0], time_s, side='right')) - 1, last - 1)
    span = speed[k + 1, 0] - speed[k, 0]
    u = (time_s - speed[k, 0]) / span
    gain = speed[k + 1, 2] - speed[k, 2]
    distance = speed[k, 1] + span * (speed[k, 2] * u + gain * (u**3 - 0.5 * u**4))
    return distance, speed[k, 2] + gain * (3 * u * u - 2 * u**3)


@compiled()
def smooth_height(waves, x_m, y_m):
    """Returns height [m] and gradient of the smooth terrain that the camera's motion follows."""
    z = gx = gy = 0.0
    for k in range(waves.shape[0]):
        angle = waves[k, 0] * x_m + waves[k, 1] * y_m + waves[k, 2]
        z += waves[k, 3] * np.sin(angle)
        slope = waves[k, 3] * np.cos(angle)
        gx += slope * waves[k, 0]
        gy += slope * waves[k, 1]
    return z, gx, gy


@compiled()
def mesh_height(heights_m, terrain, x_m, y_m):
    """Returns height [m] and gradient of the terrain as rendered: bilinear within each cell."""
    ny, nx = heights_m.shape
    u = min(max((x_m - terrain[0]) / terrain[2], 0.0), nx - 1.001)
    v = min(max((y_m - terrain[1]) / terrain[2], 0.0), ny - 1.001)
    i, j = int(u), int(v)
    u, v = u - i, v - j
    a, b = heights_m[j, i], heights_m[j, i + 1]
    c, d = heights_m[j + 1, i], heights_m[j + 1, i + 1]
    gx = ((b - a) * (1 - v) + (d - c) * v) / terrain[2]
    gy = ((c - a) * (1 - u) + (d - b) * u) / terrain[2]
    return a * (1 - u) * (1 - v) + b * u * (1 - v) + c * (1 - u) * v + d * u * v, gx, gy


@compiled()
def actor_poses(motion, time_s):
    """Returns the poses of all actors at a time.

    Returns:
        (A, 7) float64: x, y, z [m], cosine and sine of the heading, terrain gradient x and y.
    """
    count = motion.mode.shape[0]
    poses = np.zeros((count, 7))
    length = (motion.path.shape[0] - 1) * motion.step_m
    for a in range(count):
        course = motion.course[a]
        visible = True
        if motion.mode[a] == SHUTTLE:
            beat = (time_s / course[4] + course[5]) % 2.0
            u = beat if beat < 1.0 else 2.0 - beat
            x = course[0] + u * (course[2] - course[0])
            y = course[1] + u * (course[3] - course[1])
            heading = np.arctan2(course[3] - course[1], course[2] - course[0])
            heading += 0.0 if beat < 1.0 else np.pi
        else:
            if motion.mode[a] == LEAD:
                s = course[0] + travelled(motion.speed, time_s + course[1])[0]
            else:
                s = course[0] + course[1] * time_s
            visible = 0.0 <= s <= length
            x, y, heading, _ = along(motion.path, motion.step_m, s)
            x, y = x - course[2] * np.sin(heading), y + course[2] * np.cos(heading)
            heading += np.pi if motion.mode[a] == FOLLOW and course[1] < 0 else 0.0
        z, gx, gy = mesh_height(motion.heights_m, motion.terrain, x, y)
        poses[a, 0], poses[a, 1], poses[a, 2] = x, y, z if visible else HIDDEN_M
        poses[a, 3], poses[a, 4] = np.cos(heading), np.sin(heading)
        poses[a, 5], poses[a, 6] = gx, gy
    return poses


def trace_path(curvature: np.ndarray, step_m: float, heading_rad: float) -> np.ndarray:
    """Integrates a curvature profile into a path that starts at the origin.

    Args:
        curvature: (S,) curvature [1/m] at every `step_m`, positive to the left.
        step_m: arc length between samples.
        heading_rad: heading of the first sample.

    Returns:
        (S, 6) float64, see `Motion.path`.
    """
    middle = (curvature[1:] + curvature[:-1]) / 2
    heading = heading_rad + np.concatenate([[0.0], np.cumsum(middle) * step_m])
    chord = heading[:-1] + middle * step_m / 2
    length = step_m * np.sinc(middle * step_m / (2 * np.pi))
    x = np.concatenate([[0.0], np.cumsum(np.cos(chord) * length)])
    y = np.concatenate([[0.0], np.cumsum(np.sin(chord) * length)])
    return np.stack([x, y, heading, curvature, np.cos(heading), np.sin(heading)], axis=1)
