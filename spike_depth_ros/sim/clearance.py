"""Distance of a point from all surfaces, used to check mounts and motions."""

from __future__ import annotations

import numpy as np

from spike_depth_ros.events.compiled import compiled
from spike_depth_ros.sim import motion as mo
from spike_depth_ros.sim.geometry import BALL, BOX, PATCH
from spike_depth_ros.sim.visibility import in_world, inverted


@compiled(error_model='numpy')
def touches(solids, motion, time_s, eye, margin_m):
    """Returns True if a point is within `margin_m` of a surface, or inside a small solid.

    A point inside a solid whose half sizes are all above 1 m does not count: a room may be a box
    seen from within.

    Args:
        solids: `geometry.Solids`.
        motion: `motion.Motion`.
        time_s: time within the world.
        eye: (3,) the point in the world [m].
        margin_m: minimum distance.
    """
    poses = mo.actor_poses(motion, time_s)
    centre, axes, inverse = np.empty(3), np.empty((3, 3)), np.empty((3, 3))
    for n in range(solids.shape.shape[0]):
        in_world(solids, poses, n, centre, axes)
        dx, dy, dz = eye[0] - centre[0], eye[1] - centre[1], eye[2] - centre[2]
        reach = np.sqrt((axes * axes).sum()) * 1.01 + margin_m
        shape, taper = solids.shape[n], solids.taper[n]
        if dx * dx + dy * dy + dz * dz > reach * reach and shape != PATCH:
            continue
        inverted(axes, inverse)
        q0 = inverse[0, 0] * dx + inverse[0, 1] * dy + inverse[0, 2] * dz
        q1 = inverse[1, 0] * dx + inverse[1, 1] * dy + inverse[1, 2] * dz
        q2 = inverse[2, 0] * dx + inverse[2, 1] * dy + inverse[2, 2] * dz
        h0 = np.sqrt(axes[0, 0] ** 2 + axes[1, 0] ** 2 + axes[2, 0] ** 2)
        h1 = np.sqrt(axes[0, 1] ** 2 + axes[1, 1] ** 2 + axes[2, 1] ** 2)
        h2 = np.sqrt(axes[0, 2] ** 2 + axes[1, 2] ** 2 + axes[2, 2] ** 2)
        if shape == PATCH:
            if abs(q0) <= 1.0 and abs(q1) <= 1.0:
                above = (q2 - taper[0] * q0 - taper[1] * q1 - taper[2] * q0 * q1) * h2
                if -5.0 < above < margin_m:
                    return True
            continue
        if shape == BOX:
            rise = (q2 + 1.0) / 2.0
            outside = max((abs(q0) + taper[0] * rise - 1.0) * h0,
                          (abs(q1) + taper[1] * rise - 1.0) * h1,
                          (abs(q2) - 1.0) * h2)  # fmt: skip
        elif shape == BALL:
            outside = (np.sqrt(q0 * q0 + q1 * q1 + q2 * q2) - 1.0) * min(h0, h1, h2)
        else:
            narrow = 1.0 - taper[0] * (q2 + 1.0) / 2.0
            outside = max((np.sqrt(q0 * q0 + q1 * q1) - narrow) * min(h0, h1),
                          (abs(q2) - 1.0) * h2)  # fmt: skip
        if outside < margin_m and (outside > -margin_m or min(h0, h1, h2) < 1.0):
            return True
    return False
