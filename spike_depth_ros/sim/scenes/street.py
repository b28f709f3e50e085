"""Streets: a drive through towns and parks, with traffic, trees, houses and street furniture."""

from __future__ import annotations

import numpy as np

from spike_depth_ros.sim import geometry as geo
from spike_depth_ros.sim import layout, motion
from spike_depth_ros.sim.build import Place, SolidList, terrain_patches
from spike_depth_ros.sim.geometry import World


def build_street(seed: int, duration_s: float) -> World:
    """A drive along a curved street."""
    rng = np.random.Generator(np.random.PCG64(seed))
    fast = float(rng.uniform(8, 15))
    length = fast * (duration_s + 10) + 300
    path = motion.trace_path(layout.curvature_profile(rng, length, []), layout.STEP_M, 0.0)
    speed = layout.speed_profile(rng, path, duration_s, fast, 0.1)
    waves = layout.terrain_waves(rng, 0.1, 120.0)
    heights, terrain, keep = layout.terrain_mesh(waves, path[:, :2], 200.0, 12.0)
    solids = SolidList()
    terrain_patches(solids, heights, terrain, keep)
    for s in range(20, len(path) - 20, 12):
        for side in (-1, 1):
            x, y, heading = path[s, 0], path[s, 1], path[s, 2]
            x, y = x - side * 14 * np.sin(heading), y + side * 14 * np.cos(heading)
            z, gx, gy = motion.mesh_height(heights, terrain, x, y)
            place = Place(x, y, z, heading, gx, gy)
            wall = tuple(rng.uniform(0.2, 0.6, 3))
            solids.add(place, geo.BOX, geo.FACADE, (0, 0, 5), (5.6, 5.6, 6), wall, (0.05,) * 3,
                       detail=(2.8, 3.0, 0.5, float(rng.integers(1000))))  # fmt: skip
            tree = Place(x + side * 8 * np.sin(heading), y - side * 8 * np.cos(heading), z)
            solids.add(tree, geo.CONE, geo.BARK, (0, 0, 1.5), (0.2, 0.2, 1.6), (0.1, 0.08, 0.06),
                       detail=(0.3, 0.1, 0.3, 0), taper=(0.4, 0, 0))  # fmt: skip
            solids.add(tree, geo.BALL, geo.FOLIAGE, (0, 0, 4.0), (1.6, 1.6, 1.8),
                       (0.08, 0.14, 0.03), (0.05, 0.1, 0.02), detail=(0.2, 0.5, 0, 3))  # fmt: skip
    actors = []
    for k in range(12):
        lane = 1.8 if k % 2 else -1.8
        actors.append(
            (motion.FOLLOW, (60.0 + 70 * k, -8.0 if k % 2 else 9.0, lane, 0, 0, 0, 2.1, 0.9))
        )
        place = Place(actor=k)
        paint = tuple(rng.uniform(0.05, 0.7, 3))
        solids.add(place, geo.BOX, geo.PAINT, (0, 0, 0.62), (2.1, 0.88, 0.4), paint, (0.03,) * 3,
                   detail=(1.1, 0.1, 0, 1))  # fmt: skip
        solids.add(place, geo.BOX, geo.GLASS, (-0.2, 0, 1.2), (1.3, 0.8, 0.3), (0.03,) * 3, paint,
                   detail=(1.0, 0, 0, 1), taper=(0.45, 0.2, 0))  # fmt: skip
    corner = terrain[:2]
    shape = (int(keep.shape[0] * 6), int(keep.shape[1] * 6))
    grid = np.array([corner[0], corner[1], 2.0])
    side = np.zeros((0, 8))
    ground = geo.Ground(
        1, grid, layout.nearest_roads(path, side, grid, *shape, 30.0), side,
        np.array([4.0, 3.5, 2.5, 1.0, 1.0, 0.0, 0.5, 0.0]),
        np.array([[0.1] * 3, [0.6] * 3, [0.25] * 3, [0.06, 0.12, 0.03], [0.18, 0.14, 0.09]]),
    )  # fmt: skip
    table = np.array([[2.6, 2.4, 2.0], [0.6, 0.7, 0.9], [0.4, 0.6, 1.1], [0.9, 1.0, 1.1],
                      [0.5, 0.4, 0.2], [1, 1, 1]])  # fmt: skip
    sun = np.array([0.5, 0.4, 0.7])
    light = layout.open_light(sun / np.linalg.norm(sun), table)
    ego = geo.Ego(
        -1.8, float(rng.uniform(1.2, 1.8)), 0.03, 0.01, 0.8, np.array([[4, 0.003, 1.7, 0.0]])
    )
    moving = layout.motion_of(path, speed, (heights, terrain), waves, actors)
    return World('street', seed, duration_s, 'day', solids.solids(), moving, ground, light, ego)
