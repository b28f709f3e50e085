"""The world as plain arrays: solids, terrain, light maps, weather and camera motion.

A solid is a unit shape (cube, sphere, cone, or a bilinear patch of ground) under an affine map: p
= centre + axes @ q with |q| <= 1. Positions of solids, terrain, paths and speeds are quantised to
2^-12 m, so that a seed gives the same bits on any machine, whatever its libm.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from spike_depth_ros.sim import motion as mo
from spike_depth_ros.sim.static_parts import StaticPart

BOX, BALL, CONE, PATCH = range(4)
"""Shapes. BOX and CONE narrow towards their top by their taper; PATCH is z = bilinear(x, y)."""

(GROUND, PLAIN, FACADE, PAINT, GLASS, FOLIAGE, BARK, GLOW, WHEEL, SIGN, BRICK, ROOF, CLOTH, STRIPE,
 FLOOR, PANEL, SHELF, FRACTAL, PRINT, TAG, CHECKER, GRATING, WOOD) = range(23)  # fmt: skip
"""Materials: the pattern of a surface, in `textures.py`, and from FRACTAL on in `finishes.py`."""

TWIST_STEP_S = 1e-5
"""Half the time between the two poses whose difference gives a twist."""

QUANTUM = 1 / 4096
WHITE_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
"""Luminance weights of linear RGB (ITU-R BT.709, section 3.2)."""


class Solids(NamedTuple):
    """N solids as a structure of arrays.

    Attributes:
        shape: (N,) BOX, BALL, CONE or PATCH.
        material: (N,) a material of this module.
        actor: (N,) row of the moving frame that the solid is fixed to, -1 for the world.
        centre_m: (N, 3) centre, in the frame of its actor.
        axes_m: (N, 3, 3) columns are the half axes of the solid.
        taper: (N, 3) BOX: share of the half width x, y lost at the top; CONE: share of the radius,
            first entry; PATCH: bilinear coefficients of x, y, xy.
        detail: (N, 4) parameters of the material's pattern.
        colour: (N, 3, 3) main, second and emitted colour, linear RGB.
    """

    shape: np.ndarray
    material: np.ndarray
    actor: np.ndarray
    centre_m: np.ndarray
    axes_m: np.ndarray
    taper: np.ndarray
    detail: np.ndarray
    colour: np.ndarray


class Ground(NamedTuple):
    """Appearance of the ground, for the GROUND pattern.

    Attributes:
        style: 0 meadow, 1 street.
        grid: x [m], y [m] of the corner, and cell size [m] of `nearest`.
        nearest: (2, ny, nx) int16: nearest path sample, nearest side street; -1 for none.
        side: (J, 8) side streets: x, y, cos, sin, half width [m], greatest distance along
            [m], arc length of the path where they meet [m], least distance along [m].
        layout: half width of the road [m], lane width [m], pavement [m], paving (0 none,
            1 slabs), edge line (0/1), crosswalks (0/1), asphalt age [0, 1], spare.
        colour: (5, 3) asphalt, paint, pavement, vegetation, soil.
    """

    style: int
    grid: np.ndarray
    nearest: np.ndarray
    side: np.ndarray
    layout: np.ndarray
    colour: np.ndarray


class Flicker(NamedTuple):
    """Flicker of lamps: their light is 1 + depth sin(2 pi rate_hz t + phase_rad) of its mean.

    Lamps on mains of 50 and 60 Hz flicker at 100 and 120 Hz: incandescent lamps with a depth of
    0.03 to 0.15, fluorescent lamps and LEDs of up to 0.9 (IEEE Std 1789-2015, annex A).
    """

    rate_hz: float
    depth: float
    phase_rad: float


STEADY = Flicker(0.0, 0.0, 0.0)


class Light(NamedTuple):
    """Weather and light.

    Attributes:
        sun: (3,) unit vector to the sun.
        table: (6, 3) linear RGB of sun, ambient, zenith, horizon, lamps, headlights.
        fog_per_m: extinction coefficient of the air.
        rain: density of rain streaks in [0, 1].
        clouds: cloud cover in [0, 1].
        glare: strength of the glare around the sun.
        night: 1 if lamps and windows are lit, 0 if not; between at dusk.
        grid: x [m], y [m] of the corner, and cell size [m] of `maps`.
        maps: (2, ny, nx) uint8: sun visibility and lamp light on the ground, 255 = full.
        artificial: share of lamplight in sun, ambient, zenith and horizon, as indoors.
        flicker: flicker of that light, and of lamps and windows at night.
    """

    sun: np.ndarray
    table: np.ndarray
    fog_per_m: float
    rain: float
    clouds: float
    glare: float
    night: float
    grid: np.ndarray
    maps: np.ndarray
    artificial: float = 0.0
    flicker: Flicker = STEADY


class Ego(NamedTuple):
    """Mount and vibration of the camera.

    Attributes:
        offset_m: to the left of the path.
        height_m: above the smooth terrain.
        pitch_rad: positive looks down.
        bank: roll [rad] per lateral acceleration [m/s^2].
        follow: share of the terrain's slope that the pitch follows.
        shake: (M, 4) axis (0 x, 1 y, 2 z in m; 3 roll, 4 pitch, 5 yaw in rad), amplitude,
            frequency [Hz], phase [rad].
        yaw_rad: viewing direction to the left of the path; at pi / 2 the camera moves sideways.
        roll_rad: constant roll of the mount; positive lifts the left side.
        idle: factor on `shake` at a standstill.
        lively: added to that factor with speed v, times v^2 / (v^2 + 20).
        part: part of the robot, or dirt, in view.
    """

    offset_m: float
    height_m: float
    pitch_rad: float
    bank: float
    follow: float
    shake: np.ndarray
    yaw_rad: float = 0.0
    roll_rad: float = 0.0
    idle: float = 0.25
    lively: float = 1.0
    part: StaticPart | None = None


class Free(NamedTuple):
    """The space along the path free of static solids, in which a camera can be mounted.

    Attributes:
        low_m: minimum height above the smooth terrain.
        high_m: maximum height.
        side_m: maximum distance to the left or right of the scene's own camera.
        turn_rad: maximum yaw to either side of the scene's own viewing direction; pi if the scene
            is complete all around.
    """

    low_m: float = 0.1
    high_m: float = 3.0
    side_m: float = 0.3
    turn_rad: float = math.pi


ANYWHERE = Free()


@dataclasses.dataclass(frozen=True, eq=False)
class World:
    """A scene that changes with time; everything follows from `scene` and `seed`.

    Attributes:
        scene: a key of `world.SCENES`.
        seed: the one integer that everything is drawn from.
        duration_s: maximum time for `pose`.
        condition: weather and light in words, such as 'night rain'.
        solids: static and moving shapes.
        motion: paths, speeds, terrain.
        ground: pattern of the ground.
        light: weather and light.
        ego: mount of the camera.
        free: space in which the camera could be mounted instead.
    """

    scene: str
    seed: int
    duration_s: float
    condition: str
    solids: Solids
    motion: mo.Motion
    ground: Ground
    light: Light
    ego: Ego
    free: Free = ANYWHERE

    def only(self, chosen: np.ndarray) -> World:
        """Returns the world with only the solids of an (N,) mask."""
        solids = Solids(*(column[chosen] for column in self.solids))
        return dataclasses.replace(self, solids=solids)

    def speed(self, time_s: float) -> float:
        """Returns the speed of the camera along its path [m/s]."""
        return float(mo.travelled(self.motion.speed, float(time_s))[1])

    def pose(self, time_s: float) -> np.ndarray:
        """Returns the optical frame at a time: x right, y down, z forward; C1 in time.

        Returns:
            (4, 4) float64 transform of points from the camera to the world [m].
        """
        motion, ego = self.motion, self.ego
        s, speed = mo.travelled(motion.speed, float(time_s))
        x, y, heading, curvature = mo.along(motion.path, motion.step_m, s)
        cos, sin = np.cos(heading), np.sin(heading)
        x, y = x - ego.offset_m * sin, y + ego.offset_m * cos
        z, gx, gy = mo.smooth_height(motion.waves, x, y)
        shake = np.zeros(6)
        lively = ego.idle + ego.lively * speed * speed / (speed * speed + 20.0)
        for axis, amplitude, rate_hz, phase in ego.shake:
            shake[int(axis)] += amplitude * lively * np.sin(2 * np.pi * rate_hz * time_s + phase)
        look = heading + ego.yaw_rad
        ahead, left = np.cos(look), np.sin(look)
        climb, lean = gx * ahead + gy * left, gy * ahead - gx * left
        roll = ego.bank * speed * speed * curvature + ego.follow * lean + shake[3]
        roll += ego.roll_rad
        pitch = ego.pitch_rad - ego.follow * climb + shake[4]
        pose = np.eye(4)
        pose[:3, :3] = orientation(look + shake[5], pitch, roll)
        pose[:3, 3] = (
            x + shake[0] * cos - shake[1] * sin,
            y + shake[0] * sin + shake[1] * cos,
            z + ego.height_m + shake[2],
        )
        return pose

    def twist(self, time_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Returns the velocity of the camera relative to the world, in its optical frame.

        It is a central difference of `pose` over 20 us, within 1e-6 of the derivative.

        Returns:
            (3,) linear velocity [m/s] and (3,) angular velocity [rad/s], along x, y, z.
        """
        before, after = self.pose(time_s - TWIST_STEP_S), self.pose(time_s + TWIST_STEP_S)
        turn = self.pose(time_s)[:3, :3]
        linear = turn.T @ (after[:3, 3] - before[:3, 3]) / (2 * TWIST_STEP_S)
        spin = before[:3, :3].T @ after[:3, :3]  # I + [angle]x for small angles
        skew = (spin - spin.T) / (4 * TWIST_STEP_S)
        return linear, np.array([skew[2, 1], skew[0, 2], skew[1, 0]])


def orientation(heading_rad: float, pitch_rad: float, roll_rad: float) -> np.ndarray:
    """Returns the (3, 3) rotation from the optical frame to the world.

    Args:
        heading_rad: counter-clockwise from world x.
        pitch_rad: positive looks down.
        roll_rad: positive lifts the left side.
    """
    ch, sh = np.cos(heading_rad), np.sin(heading_rad)
    cp, sp = np.cos(pitch_rad), np.sin(pitch_rad)
    cr, sr = np.cos(roll_rad), np.sin(roll_rad)
    forward = np.array([ch * cp, sh * cp, -sp])
    right = np.array([sh, -ch, 0.0])
    down = np.cross(forward, right)
    tilted = cr * right + sr * down
    return np.stack([tilted, np.cross(forward, tilted), forward], axis=1)


def quantised(values: Sequence | np.ndarray) -> np.ndarray:
    """Rounds to multiples of 2^-12 in float64, which hides differences between libm versions."""
    return np.round(np.asarray(values, np.float64) / QUANTUM) * QUANTUM
