"""Simulates what sensors record on a drive: events, images and depth.

Events are computed from rendered frames. Between two frames no edge may move by more than about a
pixel (Gehrig et al., "Video to Events", CVPR 2020). Each tile of the image therefore has its own
frame rate, which follows from its motion: the road below the camera is rendered a thousand times
per second, the sky two hundred times.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from spike_depth_ros.events.arrays import empty_events, read_only
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.config import require
from spike_depth_ros.sim.event_camera import EventCamera
from spike_depth_ros.sim.geometry import WHITE_LUMINANCE, World
from spike_depth_ros.sim.render import (
    TILE_PX,
    image_flow,
    in_sight,
    lamp_share,
    render,
    render_luminance,
)
from spike_depth_ros.sim.sensors import EventCameraConfig, sensor_config
from spike_depth_ros.sim.spike_camera import SpikeCamera
from spike_depth_ros.sim.static_parts import Cover, cover, covered_depth
from spike_depth_ros.sim.world import build_world

CHUNK_NS = 20_000_000
"""Interval at which the motion of the tiles is measured."""

UNHURRIED = 98.0
"""Percentage of the pixels that move by at most one step between two frames. The fastest pixels,
on objects within arm's length, would cost as much as all others together.
"""

SLOWEST_HZ = 200.0
"""Minimum frame rate of a tile; below it, event times become inaccurate."""

RAIN_HZ = 250.0
"""Minimum frame rate of a tile in rain, which moves fast in any scene."""

WARMUP_NS = 5_000_000
"""Simulated time before the first event, in which the pixels settle."""

FLOW_STRIDE_PX = 4
MIDDLE_GREY = 0.18
SPIKES_PER_FRAME = 0.25


class Picture(NamedTuple):
    """An image of a colour camera and its depth."""

    rgb: np.ndarray  # (H, W, 3) uint8
    depth_m: np.ndarray  # (H, W) float32, +inf for the sky


class WindowSample(NamedTuple):
    """A window of events and the ground truth at its end."""

    events: np.ndarray  # (N,) EVENT_DTYPE, times within [t0_ns, t1_ns)
    t0_ns: int
    t1_ns: int
    depth_m: np.ndarray  # (H, W) float32 z-depth at t1_ns, +inf for the sky
    rgb: np.ndarray  # (H, W, 3) uint8 at t1_ns
    camera: Camera  # camera of the events
    view: Camera  # camera of depth and image


class Drive:
    """A drive through a world, recorded by one event sensor; time only moves forward.

    Args:
        world: the world, including the motion of the camera.
        sensor: the event sensor and its lens.
        seed: selects the individual sensor, see `EventCamera`.
        start_ns: time of the first event, by which the pixels have settled.
        run: number of the recording with that sensor; determines its noise.
        max_step_px: maximum motion between two frames of a tile.
    """

    def __init__(
        self,
        world: World,
        sensor: EventCameraConfig,
        seed: int,
        start_ns: int,
        run: int = 0,
        max_step_px: float = 1.0,
    ) -> None:
        camera = sensor.camera
        self.world, self.camera = world, camera
        self.now_ns = start_ns - WARMUP_NS
        self._start_ns, self._max_step_px = start_ns, max_step_px
        self._sensor = EventCamera(sensor, seed, run)
        self._tiles = _tile_pixels(camera.height, camera.width)
        self._light = render_luminance(world, camera, self.now_ns * 1e-9).luminance.copy()
        self._seen = in_sight(world, camera, self.now_ns * 1e-9)
        self._cover = _covering(world, camera, self._light)
        self._light_lamps()
        self._sensor.step(self._covered(slice(None)).reshape(self._light.shape), self.now_ns)

    def advance(self, t_ns: int) -> np.ndarray:
        """Simulates up to a time.

        Args:
            t_ns: the time, not before that of the previous call.

        Returns:
            (N,) read-only `EVENT_DTYPE` ordered in time: the events from the previous call, or
            from `start_ns`, to just before `t_ns`.
        """
        if t_ns < max(self.now_ns, self._start_ns):
            raise ValueError(f'the drive is at {self.now_ns} ns and cannot go back to {t_ns}')
        parts = [empty_events()]
        while self.now_ns < t_ns:
            events = self._chunk(min(self.now_ns + CHUNK_NS, t_ns))
            parts.append(events[np.searchsorted(events['t_ns'], self._start_ns) :])
        return read_only(np.concatenate(parts))

    def _chunk(self, end_ns: int) -> np.ndarray:
        start_ns, span_ns = self.now_ns, end_ns - self.now_ns
        looks = self._looks((start_ns + span_ns // 2) * 1e-9, span_ns * 1e-9)
        finest = int(looks.max())
        before, self._seen = self._seen, in_sight(self.world, self.camera, end_ns * 1e-9)
        world = self.world.only(before | self._seen)
        self._light_lamps()
        for step in range(1, finest + 1):
            due = step * looks // finest > (step - 1) * looks // finest
            self._look(world, np.flatnonzero(due), start_ns + span_ns * step // finest)
        self.now_ns = end_ns
        return self._sensor.take(end_ns)

    def _looks(self, time_s: float, span_s: float) -> np.ndarray:
        """Returns the (tiles,) number of frames of each tile in a time span."""
        flow = image_flow(self.world, self.camera, time_s, FLOW_STRIDE_PX)
        speed = np.nan_to_num(np.hypot(flow[..., 0], flow[..., 1]))
        speed = np.minimum(speed, np.percentile(speed, UNHURRIED))
        moved = _tile_greatest(speed, TILE_PX // FLOW_STRIDE_PX).ravel() * span_s
        least = span_s * (RAIN_HZ if self.world.light.rain > 0 else SLOWEST_HZ)
        return np.ceil(np.maximum(moved / self._max_step_px, max(least, 1))).astype(np.int64)

    def _look(self, world: World, tiles: np.ndarray, t_ns: int) -> None:
        """Renders some tiles and advances the sensor's pixels with them."""
        due = tiles.astype(np.int32)
        render_luminance(world, self.camera, t_ns * 1e-9, tiles=due, out=self._light)
        pixels = np.concatenate([self._tiles[tile] for tile in tiles])
        self._sensor.advance(pixels, self._covered(pixels), t_ns)

    def _covered(self, pixels: np.ndarray | slice) -> np.ndarray:
        """Returns the light of some pixels including the parts that move with the camera."""
        light = self._light.ravel()[pixels]
        if self._cover is None:
            return light
        keep, own = self._cover
        return light * keep.ravel()[pixels] + own.ravel()[pixels]

    def _light_lamps(self) -> None:
        """Sets the share of flickering light of each pixel of the sensor."""
        flicker = self.world.light.flicker
        if flicker.depth > 0:
            share = lamp_share(self.world, self.camera, self.now_ns * 1e-9)
            self._sensor.under_lamps(flicker, share)


class SpikeDrive:
    """A drive recorded by a spike camera, see `SpikeCamera`; time only moves forward.

    The gain is such that a pixel at the mean log luminance fires in every fourth frame at the
    start of the world.
    """

    def __init__(self, world: World, camera: Camera, seed: int, max_step_px: float = 1.0) -> None:
        self._world, self._camera, self._max_step_px = world, camera, max_step_px
        first = render_luminance(world, camera, 0.0).luminance
        self._cover = _covering(world, camera, first)
        full = log_average(first) / SPIKES_PER_FRAME
        self._sensor = SpikeCamera(camera.height, camera.width, seed, full)

    def frames(self, t0_ns: int, t1_ns: int, count: int) -> np.ndarray:
        """Returns the spikes of a window.

        Args:
            t0_ns: start of the window.
            t1_ns: end of the window.
            count: number of frames of equal duration.

        Returns:
            (count, H, W) uint8 in {0, 1}.
        """
        flow = image_flow(self._world, self._camera, (t0_ns + t1_ns) * 0.5e-9)
        speed = float(np.nanpercentile(np.hypot(flow[..., 0], flow[..., 1]), 98))
        steps = int(np.clip(speed * (t1_ns - t0_ns) * 1e-9 / self._max_step_px + 1, 1, count))
        times_s = np.linspace(t0_ns * 1e-9, t1_ns * 1e-9, steps + 1)
        spikes = np.empty((count, self._camera.height, self._camera.width), np.uint8)
        before = after = self._luminance(times_s[0])
        shown = 0
        for k in range(count):
            place = (k + 0.5) / count * steps
            while shown < place:
                shown += 1
                before = after
                after = self._luminance(times_s[shown])
            share = np.float32(place - (shown - 1))
            spikes[k] = self._sensor.expose(before + share * (after - before))
        return spikes

    def _luminance(self, time_s: float) -> np.ndarray:
        light = render_luminance(self._world, self._camera, time_s).luminance
        return light if self._cover is None else light * self._cover.keep + self._cover.own


def picture(
    world: World, camera: Camera, time_s: float, from_sensor: np.ndarray | None = None
) -> Picture:
    """Renders the image and the depth of a camera mounted with the event sensor.

    Args:
        world: the world.
        camera: the camera.
        time_s: time within the world.
        from_sensor: (4, 4) transform of points from the event sensor to this camera; None if they
            share one lens.
    """
    pose = world.pose(time_s)
    if from_sensor is not None:
        pose = pose @ np.linalg.inv(from_sensor)
    frame = render(world, camera, time_s, pose)
    radiance = frame.radiance
    if covering := _covering(world, camera, radiance @ WHITE_LUMINANCE):
        radiance = radiance * covering.keep[..., None] + covering.own[..., None]
    depth_m = covered_depth(world.ego.part, camera, frame.depth_m)
    return Picture(exposed(radiance), depth_m)


def _covering(world: World, camera: Camera, luminance: np.ndarray) -> Cover | None:
    """Returns the parts that move with the camera, their radiance relative to the scene's mean."""
    if world.ego.part is None:
        return None
    keep, own = cover(world.ego.part, camera)
    return Cover(keep, own * np.float32(log_average(luminance)))


def exposed(radiance: np.ndarray) -> np.ndarray:
    """Tone-maps radiance like a camera with automatic exposure.

    The log average becomes middle grey, highlights are compressed, and the result is sRGB
    (Reinhard et al., SIGGRAPH 2002, eq. 2 and 4; IEC 61966-2-1).

    Args:
        radiance: (H, W, 3) linear RGB.

    Returns:
        (H, W, 3) uint8.
    """
    average = log_average(radiance @ WHITE_LUMINANCE)
    scaled = radiance * np.float32(MIDDLE_GREY / average)
    linear = scaled * (1 + scaled / 9) / (1 + scaled)
    srgb = 1.055 * np.clip(linear, 0.0031308, 1.0) ** (1 / 2.4) - 0.055
    return np.round(255 * np.where(linear < 0.0031308, 12.92 * linear, srgb)).astype(np.uint8)


def log_average(luminance: np.ndarray) -> float:
    """Returns the geometric mean of luminances >= 1e-4 (Reinhard et al., SIGGRAPH 2002, eq. 1)."""
    return float(np.exp(np.log(np.maximum(luminance, 1e-4)).mean()))


def clip(
    world: World,
    start_s: float,
    windows: int,
    window_ms: float = 50.0,
    sensor: str | EventCameraConfig = 'davis346',
    view: Camera | None = None,
    max_step_px: float = 1.0,
) -> list[WindowSample]:
    """Simulates consecutive windows of a drive, each with the ground truth at its end.

    Args:
        world: the world; its seed also determines the mismatch and noise of the sensor.
        start_s: time within the world at which the first window starts, at least 5 ms.
        windows: number of windows.
        window_ms: duration of each window.
        sensor: a sensor or its name or size, see `sensors.sensor_config`.
        view: camera of depth and image at the sensor's position; the sensor's own lens if None.
        max_step_px: maximum motion between two frames of a tile.

    Raises:
        ConfigError: the sensor does not exist, or a time is out of range.
    """
    require(start_s * 1e9 >= WARMUP_NS, 'start_s', start_s, f'at least {WARMUP_NS * 1e-9}')
    require(windows >= 1, 'windows', windows, '1 or more')
    config = sensor_config(sensor) if isinstance(sensor, str) else sensor
    view = config.camera if view is None else view
    start_ns, window_ns = round(start_s * 1e9), round(window_ms * 1e6)
    drive = Drive(world, config, world.seed, start_ns, 0, max_step_px)
    samples = []
    for k in range(windows):
        t0_ns, t1_ns = start_ns + k * window_ns, start_ns + (k + 1) * window_ns
        events = drive.advance(t1_ns)
        rgb, depth_m = picture(world, view, t1_ns * 1e-9)
        samples.append(WindowSample(events, t0_ns, t1_ns, depth_m, rgb, config.camera, view))
    return samples


@functools.lru_cache(maxsize=4)
def world_of(scene: str, seed: int, duration_s: float = 60.0) -> World:
    """Builds a world and caches it, because clips and segments of one drive follow each other."""
    return build_world(scene, seed, duration_s)


@functools.lru_cache(maxsize=8)
def _tile_pixels(height: int, width: int) -> list[np.ndarray]:
    """Returns the flat indices of the pixels of each tile, tiles row by row."""
    index = np.arange(height * width, dtype=np.int32).reshape(height, width)
    return [
        np.ascontiguousarray(index[top : top + TILE_PX, left : left + TILE_PX].ravel())
        for top in range(0, height, TILE_PX)
        for left in range(0, width, TILE_PX)
    ]


def _tile_greatest(values: np.ndarray, samples: int) -> np.ndarray:
    """Returns the maximum over each block of `samples` x `samples` and half a block around it."""
    rows, columns = (-(-n // samples) for n in values.shape)
    half = samples // 2
    margin = [(half, rows * samples - values.shape[0] + half),
              (half, columns * samples - values.shape[1] + half)]  # fmt: skip
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, margin), (2 * samples,) * 2)
    return windows[::samples, ::samples].max(axis=(2, 3))
