"""Intersects rays with unit solids, in branchless loops over many rays that vectorise well.

Each function takes a solid in camera coordinates: `origin` is the camera in unit space, and `turn`
transforms rays (x, y, 1) to unit space. Where the solid is nearer than `depth`, the function
writes its depth to `depth` and its number `n` to `winner`. The ray parameter is the z-depth.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spike_depth_ros.events.compiled import compiled

NEAR_M = 0.05
"""Near plane: nothing closer is drawn."""

FAST: dict[str, Any] = {
    'error_model': 'numpy',
    'fastmath': {'contract', 'reassoc', 'nsz', 'arcp'},
    'forceinline': True,
}
"""Compiler options for fast arithmetic that still respects NaN and infinity.

Rounding depends on optimisation. Functions are inlined, so there is only one version of the
machine code. A called function could run in another version after compilation than after loading
from the cache.
"""


@compiled(**FAST)
def meet_box(origin, turn, taper, n, x, y, depth, winner):
    """Intersects the cube |q| <= 1 whose half widths shrink linearly by `taper` to the top."""
    f = np.float32
    ox, oy, oz = f(origin[0]), f(origin[1]), f(origin[2])
    m00, m01, m02 = f(turn[0, 0]), f(turn[0, 1]), f(turn[0, 2])
    m10, m11, m12 = f(turn[1, 0]), f(turn[1, 1]), f(turn[1, 2])
    m20, m21, m22 = f(turn[2, 0]), f(turn[2, 1]), f(turn[2, 2])
    kx, ky, one = f(taper[0] / 2), f(taper[1] / 2), f(1.0)
    # Each pair of walls is q . (1, k) <= 1 - k and q . (-1, k) <= 1 - k in the (x or y, z) plane.
    for i in range(x.shape[0]):
        dx = m00 * x[i] + m01 * y[i] + m02
        dy = m10 * x[i] + m11 * y[i] + m12
        dz = m20 * x[i] + m21 * y[i] + m22
        ax, bx = dx + kx * dz, kx * dz - dx
        ay, by = dy + ky * dz, ky * dz - dy
        t0 = (one - kx - ox - kx * oz) / ax
        t1 = (one - kx + ox - kx * oz) / bx
        t2 = (one - ky - oy - ky * oz) / ay
        t3 = (one - ky + oy - ky * oz) / by
        t4 = (one - oz) / dz
        t5 = (-one - oz) / dz
        low, high = f(-np.inf), f(np.inf)
        low = max(low, t0 if ax < 0 else f(-np.inf))
        high = min(high, t0 if ax > 0 else f(np.inf))
        low = max(low, t1 if bx < 0 else f(-np.inf))
        high = min(high, t1 if bx > 0 else f(np.inf))
        low = max(low, t2 if ay < 0 else f(-np.inf))
        high = min(high, t2 if ay > 0 else f(np.inf))
        low = max(low, t3 if by < 0 else f(-np.inf))
        high = min(high, t3 if by > 0 else f(np.inf))
        low = max(low, min(t4, t5))
        high = min(high, max(t4, t5))
        t = low if low > f(NEAR_M) else high
        hit = (low <= high) & (t > f(NEAR_M)) & (t < depth[i])
        depth[i] = t if hit else depth[i]
        winner[i] = n if hit else winner[i]


@compiled(**FAST)
def meet_round(is_cone, origin, turn, taper, n, x, y, depth, winner):
    """Intersects the unit ball or cone x^2 + y^2 <= r(z)^2, |z| <= 1, r from 1 to 1 - taper.

    The ray parameter is measured from the point nearest to the centre; otherwise thin, distant
    poles would lose all digits.
    """
    f = np.float32
    ox, oy, oz = f(origin[0]), f(origin[1]), f(origin[2])
    m00, m01, m02 = f(turn[0, 0]), f(turn[0, 1]), f(turn[0, 2])
    m10, m11, m12 = f(turn[1, 0]), f(turn[1, 1]), f(turn[1, 2])
    m20, m21, m22 = f(turn[2, 0]), f(turn[2, 1]), f(turn[2, 2])
    slope = f(-taper[0] / 2) if is_cone else f(0.0)
    radius = f(1 - taper[0] / 2)
    flat = f(0.0) if is_cone else f(1.0)
    zero, one = f(0.0), f(1.0)
    for i in range(x.shape[0]):
        dx = m00 * x[i] + m01 * y[i] + m02
        dy = m10 * x[i] + m11 * y[i] + m12
        dz = m20 * x[i] + m21 * y[i] + m22
        middle = -(ox * dx + oy * dy + oz * dz) / (dx * dx + dy * dy + dz * dz)
        px, py, pz = ox + middle * dx, oy + middle * dy, oz + middle * dz
        r0, r1 = radius + slope * pz, slope * dz
        a = dx * dx + dy * dy - r1 * r1 + flat * dz * dz
        b = px * dx + py * dy - r0 * r1 + flat * pz * dz
        c = px * px + py * py - r0 * r0 + flat * pz * pz
        disc = b * b - a * c
        root = np.sqrt(max(disc, zero))
        enter, leave = (-b - root) / a, (-b + root) / a
        t4, t5 = (one - pz) / dz, (-one - pz) / dz
        if is_cone:
            # A ray steeper than the flanks is inside up to one root or from the other root on. The
            # nappe that it hits there lies beyond the tip, unless it is where the radius grows.
            steep, widens = a < zero, r1 > zero
            enter = (enter if widens else f(-np.inf)) if steep else enter
            leave = (f(np.inf) if widens else leave) if steep else leave
            enter, leave = max(enter, min(t4, t5)), min(leave, max(t4, t5))
        enter, leave = enter + middle, leave + middle
        t = enter if enter > f(NEAR_M) else leave
        hit = (disc > zero) & (enter <= leave) & (t > f(NEAR_M)) & (t < depth[i])
        depth[i] = t if hit else depth[i]
        winner[i] = n if hit else winner[i]


@compiled(**FAST)
def meet_patch(origin, turn, taper, n, x, y, depth, winner):
    """Intersects ground z = a x + b y + c x y over |x|, |y| <= 1, by a stable quadratic."""
    f = np.float32
    ox, oy, oz = f(origin[0]), f(origin[1]), f(origin[2])
    m00, m01, m02 = f(turn[0, 0]), f(turn[0, 1]), f(turn[0, 2])
    m10, m11, m12 = f(turn[1, 0]), f(turn[1, 1]), f(turn[1, 2])
    m20, m21, m22 = f(turn[2, 0]), f(turn[2, 1]), f(turn[2, 2])
    a, b, c = f(taper[0]), f(taper[1]), f(taper[2])
    above = oz - a * ox - b * oy - c * ox * oy
    edge, zero = f(1.0 + 1e-4), f(0.0)
    for i in range(x.shape[0]):
        dx = m00 * x[i] + m01 * y[i] + m02
        dy = m10 * x[i] + m11 * y[i] + m12
        dz = m20 * x[i] + m21 * y[i] + m22
        quad = -c * dx * dy
        lin = dz - a * dx - b * dy - c * (ox * dy + oy * dx)
        disc = lin * lin - 4 * quad * above
        root = np.sqrt(max(disc, zero))
        q = f(-0.5) * (lin + (root if lin > zero else -root))
        t0, t1 = above / q, q / quad
        in0 = (abs(ox + t0 * dx) <= edge) & (abs(oy + t0 * dy) <= edge) & (t0 > f(NEAR_M))
        in1 = (abs(ox + t1 * dx) <= edge) & (abs(oy + t1 * dy) <= edge) & (t1 > f(NEAR_M))
        t0 = t0 if in0 else f(np.inf)
        t1 = t1 if in1 else f(np.inf)
        t = min(t0, t1)
        hit = (disc >= zero) & (t < depth[i])
        depth[i] = t if hit else depth[i]
        winner[i] = n if hit else winner[i]


@compiled(fastmath={'nnan', 'nsz', 'reassoc'}, forceinline=True)
def greatest(depth):
    """Returns the maximum depth; `depth.max()` checks for NaN and so does not vectorise."""
    most = depth[0]
    for i in range(1, depth.shape[0]):
        most = depth[i] if depth[i] > most else most
    return most
