"""The colour of a ray: materials, light, shadows, lamps, sky, fog and rain.

Colours have C channels: 3 (linear RGB) or 1 (luminance). Patterns are scalars, so the same code
serves both cases, and luminance needs no colour arithmetic.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from spike_depth_ros.events.compiled import compiled
from spike_depth_ros.sim import geometry as geo
from spike_depth_ros.sim.finishes import finish_pattern
from spike_depth_ros.sim.motion import Motion
from spike_depth_ros.sim.pavement import ground_pattern
from spike_depth_ros.sim.textures import INLINE, JIT, chance, noise, pattern
from spike_depth_ros.sim.visibility import Scope

SUN, AMBIENT, ZENITH, HORIZON, LAMPS, HEADLIGHTS = range(6)
"""Rows of `Light.table`."""


class Env(NamedTuple):
    """Input of the shading of all pixels: the scene, its colours in C channels, and the camera."""

    scope: Scope
    solids: geo.Solids
    motion: Motion
    ground: geo.Ground
    light: geo.Light
    colours: np.ndarray  # (N, 3, C) of the solids
    floor: np.ndarray  # (5, C) of the ground
    table: np.ndarray  # (6, C) of the light
    levels: np.ndarray  # noise_levels()
    eye: np.ndarray  # (3,)
    pixel_rad: float


STREAK_LAYERS = ((0.0035, 26.0), (0.008, 15.0))
"""Rain: angular width of a streak's column [rad], and its speed down the image [lengths/s]."""


@compiled(**INLINE)
def map_value(light, layer, x_m, y_m):
    """Returns the bilinear value in [0, 1] of a light map; outside it, full sun and no lamps."""
    ny, nx = light.maps.shape[1:]
    u = (x_m - light.grid[0]) / light.grid[2] - 0.5
    v = (y_m - light.grid[1]) / light.grid[2] - 0.5
    if not (0 <= u < nx - 1 and 0 <= v < ny - 1):
        return 1.0 - layer
    i, j = int(u), int(v)
    a, b = u - i, v - j
    cells = light.maps[layer]
    low = cells[j, i] * (1 - a) + cells[j, i + 1] * a
    high = cells[j + 1, i] * (1 - a) + cells[j + 1, i + 1] * a
    return (low * (1 - b) + high * b) / 255.0


@compiled(**INLINE)
def sky(env, wx, wy, wz, time_s, out):
    """Sets `out` (C,) to the radiance of the sky in a world direction."""
    light, table, levels, pixel_rad = env.light, env.table, env.levels, env.pixel_rad
    share = max(wz, 0.0) / (max(wz, 0.0) + 0.22)
    cloud = 0.0
    if wz > 0.01 and light.clouds > 0:
        reach = 55.0 / (wz + 0.12)
        u, v = wx * reach + 0.3 * time_s, wy * reach
        form = noise(levels, u, v, reach * pixel_rad * 2 + 0.5)
        cloud = min(max(0.5 + 0.8 * (form + 2.2 * light.clouds - 1.4), 0.0), 1.0)
    toward = wx * light.sun[0] + wy * light.sun[1] + wz * light.sun[2]
    disc = 60.0 * max(1.0 - light.clouds, 0.0) * min(max((toward - 0.9998) / 1e-4, 0.0), 1.0)
    halo = 0.08 / (1.03 - toward)
    for c in range(out.shape[0]):
        clear = table[HORIZON, c] + share * (table[ZENITH, c] - table[HORIZON, c])
        grey = 1.15 * table[HORIZON, c] * (0.75 + 0.25 * share)
        value = clear + cloud * (grey - clear) + (disc * (1 - cloud) + halo) * table[SUN, c]
        out[c] = value if wz > -0.01 else 0.7 * table[HORIZON, c]


@compiled(**INLINE)
def normal_of(shape, q, half, taper):
    """Returns the unit normal in the solid's metric frame, and the face: axis 0, 1 or 2."""
    if shape == geo.BALL:
        nx, ny, nz, face = q[0] / half[0], q[1] / half[1], q[2] / half[2], 1
    elif shape == geo.PATCH:
        nx = -(taper[0] + taper[2] * q[1]) * half[2] / half[0]
        ny = -(taper[1] + taper[2] * q[0]) * half[2] / half[1]
        nz, face = 1.0, 2
    elif shape == geo.CONE:
        radius = np.sqrt(q[0] * q[0] + q[1] * q[1])
        narrow = 1.0 - taper[0] * (q[2] + 1) / 2
        if abs(q[2]) - 1.0 > radius - narrow:
            nx, ny, nz, face = 0.0, 0.0, np.sign(q[2]), 2
        else:
            nx, ny, face = q[0] / half[0], q[1] / half[1], 1
            nz = radius * taper[0] / (2 * half[2])
    else:
        lx = abs(q[0]) + taper[0] * (q[2] + 1) / 2
        ly = abs(q[1]) + taper[1] * (q[2] + 1) / 2
        lz = abs(q[2])
        nx = ny = nz = 0.0
        if lz >= lx and lz >= ly:
            nz, face = np.sign(q[2]), 2
        elif lx >= ly:
            nx, nz, face = np.sign(q[0]) / half[0], taper[0] / (2 * half[2]), 0
        else:
            ny, nz, face = np.sign(q[1]) / half[1], taper[1] / (2 * half[2]), 1
    length = np.sqrt(nx * nx + ny * ny + nz * nz)
    return nx / length, ny / length, nz / length, face


@compiled(**INLINE)
def _surface_coordinates(shape, face, q, half, d, fp, facing):
    """Returns the surface position (u, height v above the foot) [m] and its footprint."""
    if shape == geo.BALL:
        spread = fp / facing
        return q[0] * half[0] + 0.6 * q[1] * half[1], (q[2] + 1) * half[2], spread, spread
    if face == 2:
        u, v, du, dv = q[0] * half[0], q[1] * half[1], d[0], d[1]
    elif shape == geo.CONE:
        u, v = np.arctan2(q[1], q[0]) * half[0], (q[2] + 1) * half[2]
        du, dv = np.sqrt(max(1.0 - facing * facing, 0.0)), d[2]
    elif face == 0:
        u, v, du, dv = q[1] * half[1], (q[2] + 1) * half[2], d[1], d[2]
    else:
        u, v, du, dv = q[0] * half[0], (q[2] + 1) * half[2], d[0], d[2]
    fu = fp * min(np.sqrt(1 + (du / facing) ** 2), 40.0)
    fv = fp * min(np.sqrt(1 + (dv / facing) ** 2), 40.0)
    return u, v, fu, fv


@compiled(**INLINE)
def surface(env, n, x, y, t, wx, wy, wz, norm, out):
    """Sets `out` (C,) to the radiance of a surface towards the camera, before haze and rain."""
    scope, solids, motion, ground, light = env.scope, env.solids, env.motion, env.ground, env.light
    colours, floor, table, levels = env.colours, env.floor, env.table, env.levels
    eye, pixel_rad = env.eye, env.pixel_rad
    solid = scope.solid[n]
    shape, material = solids.shape[solid], solids.material[solid]
    half, taper, detail = scope.half_m[n], solids.taper[solid], solids.detail[solid]
    m, o = scope.turn[n], scope.origin[n]
    d0 = m[0, 0] * x + m[0, 1] * y + m[0, 2]
    d1 = m[1, 0] * x + m[1, 1] * y + m[1, 2]
    d2 = m[2, 0] * x + m[2, 1] * y + m[2, 2]
    q = (o[0] + t * d0, o[1] + t * d1, o[2] + t * d2)
    d = (d0 * half[0] / norm, d1 * half[1] / norm, d2 * half[2] / norm)
    nx, ny, nz, face = normal_of(shape, q, half, taper)
    facing = -(nx * d[0] + ny * d[1] + nz * d[2])
    if facing < 0:
        nx, ny, nz, facing = -nx, -ny, -nz, -facing
    facing = max(facing, 0.02)
    sun_in, up = scope.sun[n], scope.up[n]
    toward_sun = nx * sun_in[0] + ny * sun_in[1] + nz * sun_in[2]
    up_n = nx * up[0] + ny * up[1] + nz * up[2]
    distance = t * norm
    px, py = eye[0] + wx * distance, eye[1] + wy * distance
    fp = distance * pixel_rad
    lit = map_value(light, 0, px, py)
    lamp = map_value(light, 1, px, py) if light.night > 0 else 0.0
    if material == geo.GROUND:
        paint, pave, green, soil, gain = ground_pattern(
            levels, ground, motion.path, motion.step_m, px, py, wx, wy, facing, fp
        )
        mix = gloss = glow = 0.0
        lit *= blob_shadow(scope.blobs, px, py)
    else:
        paint = pave = green = soil = 0.0
        u, v, fu, fv = _surface_coordinates(shape, face, q, half, d, fp, facing)
        radius = np.sqrt(q[0] * q[0] + q[2] * q[2])
        w = q[1] * half[1] - 0.6 * q[0] * half[0]
        if material >= geo.FRACTAL:
            mix, gain, gloss = finish_pattern(levels, material, u, v, fu, fv, detail)
            glow = 0.0
        else:
            mix, gain, gloss, glow = pattern(
                levels, material, face, u, w, v, fu, fv, detail, radius
            )
        glow *= max(light.night, detail[1]) if material == geo.GLOW else light.night
        lit = 1.0 - (1.0 - lit) * max(1.0 - v / 5.0, 0.0) * 0.5
        lamp *= 1.0 / (1.0 + 0.05 * v * v)
    beam = light.night * headlight(x, y - scope.level, facing, distance)
    mirrored = wz + 2 * facing * up_n
    share = max(mirrored, 0.0) / (max(mirrored, 0.0) + 0.22)
    fresnel = gloss + (1 - gloss) * gloss * (1 - facing) ** 4
    open_sky = 0.62 + 0.38 * up_n
    for c in range(out.shape[0]):
        if material == geo.GROUND:
            plain = 1.0 - paint - pave - green - soil
            albedo = plain * floor[0, c] + paint * floor[1, c] + pave * floor[2, c]
            albedo += green * floor[3, c] + soil * floor[4, c]
        else:
            albedo = mix * colours[solid, 0, c] + (1 - mix) * colours[solid, 1, c]
        arriving = table[SUN, c] * max(toward_sun, 0.0) * lit + table[AMBIENT, c] * open_sky
        arriving += table[LAMPS, c] * lamp * light.night + table[HEADLIGHTS, c] * beam
        dome = table[HORIZON, c] + share * (table[ZENITH, c] - table[HORIZON, c])
        dome *= 1.0 if mirrored > -0.05 else 0.35
        value = albedo * max(gain, 0.03) * arriving * (1 - fresnel) + fresnel * dome
        out[c] = value + glow * colours[solid, 2, c]


@compiled(**INLINE)
def headlight(x, below, facing, distance):
    """Returns the light of the camera's own headlights: a low beam with a soft upper edge."""
    low = min(max(0.5 + 9.0 * below, 0.12), 1.0)
    return low * facing / ((1 + (2 * x) ** 4) * (1.0 + distance * distance / 60.0))


@compiled(**INLINE)
def blob_shadow(blobs, x_m, y_m):
    """Returns the share of light left near moving objects; `blobs` (K, 7) of `shadow_blobs`."""
    left = 1.0
    for k in range(blobs.shape[0]):
        b = blobs[k]
        dx, dy = x_m - b[0], y_m - b[1]
        if dx * dx + dy * dy < b[6]:
            u, v = (dx * b[2] + dy * b[3]) / b[4], (dy * b[2] - dx * b[3]) / b[5]
            edge = max(abs(u), abs(v))
            left *= min(max(0.12 + 4.0 * (edge - 0.9), 0.12), 1.0)
    return left


@compiled(**INLINE)
def rain_streak(density, elevation, azimuth, time_s):
    """Returns the brightness that falling drops add in a direction."""
    total = 0.0
    for layer in range(len(STREAK_LAYERS)):
        width, speed = STREAK_LAYERS[layer]
        column = azimuth / width
        k = int(np.floor(column))
        inside = 1.0 - abs(2 * (column - k) - 1.0)
        fall = elevation / (14 * width) + speed * time_s * (0.8 + 0.4 * chance(k, 1, layer))
        fall += 7.0 * chance(k, 2, layer)
        drop = int(np.floor(fall))
        if chance(k, drop, 31 + layer) < density:
            along = fall - drop
            total += inside * 4.0 * along * (1 - along)
    return total


@compiled(**INLINE)
def through_air(light, table, distance, cos_sun, sun_seen, streak, out):
    """Applies haze, sun glare and rain to the radiance `out` (C,) of a ray."""
    clear = np.exp(-light.fog_per_m * distance) if distance < 1e5 else 1.0
    if distance >= 1e5 and light.fog_per_m > 0.004:
        clear = np.exp(-light.fog_per_m * 250.0)
    veil = light.glare * sun_seen * 0.006 / (1.006 - cos_sun)
    for c in range(out.shape[0]):
        air = table[HORIZON, c] * (1.0 + 0.25 * max(cos_sun, 0.0))
        out[c] = out[c] * clear + (1 - clear) * air + veil * table[SUN, c]
        out[c] += streak * 0.16 * (table[HORIZON, c] + 0.06 * table[LAMPS, c] * light.night)


@compiled(**JIT)
def shade(env, turn, time_s, rays, tiles, tile_px, depth, row, out):
    """Sets `out` (H, W, C) in the given tiles, from the result of `visibility.trace`."""
    across = rays.columns.shape[0]
    sun = env.light.sun
    sun_seen = map_value(env.light, 0, env.eye[0], env.eye[1])
    for tile in tiles:
        top, left = tile // across * tile_px, tile % across * tile_px
        for i in range(top, min(top + tile_px, out.shape[0])):
            for j in range(left, min(left + tile_px, out.shape[1])):
                x, y, t = float(rays.xy[i, j, 0]), float(rays.xy[i, j, 1]), float(depth[i, j])
                pixel = out[i, j]
                if t != t:
                    pixel[:] = 0.0
                    continue
                norm = np.sqrt(1 + x * x + y * y)
                wx = (turn[0, 0] * x + turn[0, 1] * y + turn[0, 2]) / norm
                wy = (turn[1, 0] * x + turn[1, 1] * y + turn[1, 2]) / norm
                wz = (turn[2, 0] * x + turn[2, 1] * y + turn[2, 2]) / norm
                if row[i, j] < 0:
                    sky(env, wx, wy, wz, time_s, pixel)
                else:
                    surface(env, row[i, j], x, y, t, wx, wy, wz, norm, pixel)
                cos_sun = wx * sun[0] + wy * sun[1] + wz * sun[2]
                streak = 0.0
                if env.light.rain > 0:
                    streak = rain_streak(env.light.rain, -y, x, time_s)
                through_air(env.light, env.table, t * norm, cos_sun, sun_seen, streak, pixel)
