"""Training clips from the simulator, rendered once and stored on disk.

Clips are processed like events in the node: sensor size, rectification, binning, padding.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.config import SpikeConfig, require
from spike_depth_ros.events.spikes import PixelMap, binning_factor, pixel_map
from spike_depth_ros.learning.datasets.clip_file import (
    ClipWindows,
    read_clip_file,
    write_clip_file,
)
from spike_depth_ros.learning.datasets.recipe import (
    TEST_SEEDS,
    TRAIN_SEEDS,
    VALIDATION_SEEDS,
    ClipPlan,
    SyntheticConfig,
    check_recipe,
    clip_keys,
    clip_path,
    clip_rng,
    plan_clip,
)
from spike_depth_ros.learning.datasets.sample import (
    DatasetError,
    Sample,
    bin_depth,
    bin_image,
    bin_sample,
    grid_meta,
    spikes_of,
)
from spike_depth_ros.sim import drive
from spike_depth_ros.sim.ego import RideError, ride, with_flicker
from spike_depth_ros.sim.geometry import World
from spike_depth_ros.sim.sensors import (
    EventCameraConfig,
    draw_lens,
    draw_sensor,
    field_of_view_deg,
    sensor_config,
)
from spike_depth_ros.sim.static_parts import draw_part

__all__ = [
    'TEST_SEEDS',
    'TRAIN_SEEDS',
    'VALIDATION_SEEDS',
    'SyntheticClips',
    'SyntheticConfig',
    'generate',
    'make_clip',
    'open_synthetic',
    'render_clip',
]


def render_clip(config: SyntheticConfig, plan: ClipPlan) -> list[Sample]:
    """Simulates a clip: `stored_windows` samples of `stored_steps` steps, images included."""
    sensor = _sensor(plan)
    view = sensor.camera.rectified() if plan.rectified else sensor.camera
    spikes = _stored(config)
    pixels = _pixels(sensor.camera, spikes, plan.rectified)
    world, motion = _world(config, plan)
    if plan.static_part:
        part_rng = clip_rng(plan.seed, plan.number, 4)
        part = draw_part(part_rng, plan.static_part, field_of_view_deg(sensor.camera))
        world = dataclasses.replace(world, ego=world.ego._replace(part=part))
    world = with_flicker(world, plan.flicker)
    windows = drive.clip(
        world,
        plan.start_s,
        config.stored_windows,
        spikes.window_ms,
        sensor,
        view,
        config.max_step_px,
    )
    shared = grid_meta('synthetic', f'{plan.scene}_{plan.name}', view, pixels) | {
        'night': bool(world.light.night > 0.5),
        'contrast': plan.threshold_on,
        'condition': world.condition,
        'window_ns': spikes.window_ns,
        'scene': plan.scene,
        'motion': motion,
        'sensor_model': plan.sensor_model,
        'height_m': float(world.ego.height_m),
        'pitch_deg': math.degrees(world.ego.pitch_rad),
        'roll_deg': math.degrees(world.ego.roll_rad),
        'yaw_deg': math.degrees(world.ego.yaw_rad),
        'speed_m_s': world.speed(plan.start_s),
        'static_part': plan.static_part,
        'flicker_hz': world.light.flicker.rate_hz,
        'field_of_view_deg': field_of_view_deg(sensor.camera),
    }
    samples = []
    for index, window in enumerate(windows):
        counts, event_count = spikes_of(
            [window.events], window.t0_ns, window.t1_ns, spikes, pixels
        )
        depth_m = bin_depth(window.depth_m, pixels.factor)
        meta = {'index': index, 'stamp_ns': int(window.t1_ns), 'event_count': event_count}
        image = bin_image(window.rgb, pixels.factor)
        samples.append(Sample(counts, depth_m, np.isfinite(depth_m), image, shared | meta))
    return samples


class SyntheticClips(Sequence[list[Sample]]):
    """The clips of a configuration; see `open_synthetic`."""

    def __init__(self, config: SyntheticConfig) -> None:
        check_recipe(config)
        for sensor in config.sensors:
            _coarser(config, sensor)
        self._config = config
        keys = clip_keys(config)
        if config.cached_only:
            keys = [key for key in keys if clip_path(config, *key).is_file()]
            if not keys:
                raise DatasetError(
                    f'{config.folder} holds no {config.split} clips of worlds '
                    f'{config.first_world} to {config.first_world + config.worlds - 1}: '
                    'render some with generate(), or open with cached_only false'
                )
        self._keys = keys
        self._parts = config.stored_windows // config.clip_windows

    def __len__(self) -> int:
        return len(self._keys) * self._parts

    def __getitem__(self, index: int) -> list[Sample]:  # type: ignore[override]
        if not -len(self) <= index < len(self):
            raise IndexError(f'clip {index} of {len(self)}')
        which, part = divmod(index % len(self), self._parts)
        config, key = self._config, self._keys[which]
        path = clip_path(config, *key)
        if not path.is_file():
            make_clip(config, *key)
        first = part * config.clip_windows
        wanted = ClipWindows(
            first, first + config.clip_windows, config.spikes.steps, config.images
        )
        clip = read_clip_file(path, wanted)
        factor = _coarser(config, plan_clip(config, *key).sensor)
        return [bin_sample(sample, factor, config.spikes.multiple_px) for sample in clip]

    def sizes(self) -> list[tuple[int, int]]:
        """Returns height and width of the spike tensor of every clip, without reading any."""
        cameras = {name: sensor_config(name).camera for name in self._config.sensors}
        grids = {name: _grid(camera, self._config.spikes) for name, camera in cameras.items()}
        sizes = [grids[plan_clip(self._config, *key).sensor] for key in self._keys]
        return [size for size in sizes for _ in range(self._parts)]


def open_synthetic(config: SyntheticConfig) -> SyntheticClips:
    """Opens the clips of a configuration; missing ones are rendered unless `cached_only`.

    Raises:
        DatasetError: the folder holds clips of another recipe, or none.
    """
    return SyntheticClips(config)


def make_clip(config: SyntheticConfig, seed: int, number: int) -> Path:
    """Simulates one clip into the folder; the file appears when it is complete."""
    path = clip_path(config, seed, number)
    samples = render_clip(config, plan_clip(config, seed, number))
    write_clip_file(path, samples, config.store_images)
    return path


def generate(config: SyntheticConfig, workers: int = 0) -> int:
    """Renders all missing clips of a configuration on several cores.

    An interrupted run is resumed by the same call; training may read the folder meanwhile.

    Args:
        config: configuration of the clips.
        workers: number of processes; 0 for one per core.

    Returns:
        The number of new clips.

    Raises:
        DatasetError: the folder holds clips of another recipe, or some clips failed.
    """
    check_recipe(config)
    keys = [key for key in clip_keys(config) if not clip_path(config, *key).is_file()]
    worlds: dict[int, list[tuple[int, int]]] = {}
    for key in keys:
        worlds.setdefault(key[0], []).append(key)
    failures: list[str] = []
    # Fresh processes, because a fork would copy the threads and locks of the caller.
    pool = ProcessPoolExecutor(
        workers or os.cpu_count() or 1, multiprocessing.get_context('spawn')
    )
    try:
        tasks = [pool.submit(_make_clips, config, clips) for clips in worlds.values()]
        with tqdm(total=len(keys), unit='clip', desc=f'{config.split} clips') as bar:
            for task in as_completed(tasks):
                made, failed = task.result()
                failures += failed
                bar.update(made)
    finally:
        pool.shutdown(cancel_futures=True)
    if failures:
        raise DatasetError(
            f'{len(failures)} of {len(keys)} clips failed; the first: {failures[0]}'
        )
    return len(keys)


def _make_clips(config: SyntheticConfig, keys: list[tuple[int, int]]) -> tuple[int, list[str]]:
    """Renders clips one by one; returns their number and the errors of those that failed."""
    cv2.setNumThreads(1)
    failures = []
    for seed, number in keys:
        try:
            make_clip(config, seed, number)
        except (ValueError, ArithmeticError, LookupError, TypeError) as error:
            # One bad world must not stop the others; `generate` reports it at the end.
            failures.append(f'{plan_clip(config, seed, number)}: {error!r}')
            logging.getLogger(__name__).warning('%s', failures[-1])
    return len(keys) - len(failures), failures


def _world(config: SyntheticConfig, plan: ClipPlan) -> tuple[World, str]:
    """Returns the world of a plan with its mount and motion, or the scene's own if none fits."""
    end_s = plan.start_s + config.stored_windows * config.spikes.window_ms * 1e-3
    rng = clip_rng(plan.seed, plan.number, 2)
    world = drive.world_of(plan.scene, plan.seed)
    try:
        return ride(world, plan.motion, config.mounts, rng, plan.start_s, end_s), plan.motion
    except RideError as error:
        logging.getLogger(__name__).info('%s; keeping the mount of the scene', error)
        return world, 'own'


def _sensor(plan: ClipPlan) -> EventCameraConfig:
    """Returns the sensor of a plan: a varied preset, or one drawn from a model."""
    preset = sensor_config(plan.sensor)
    rng, lens = clip_rng(plan.seed, plan.number, 3), preset.camera
    if plan.field_of_view_deg:
        camera = draw_lens(rng, lens, plan.field_of_view_deg)
    else:
        camera = dataclasses.replace(lens, fx=lens.fx * plan.zoom, fy=lens.fy * plan.zoom)
    if plan.sensor_model != 'preset':
        return draw_sensor(rng, plan.sensor_model, camera, plan.threshold_on)
    mismatch = preset.threshold_sigma / preset.threshold_on
    return dataclasses.replace(
        preset,
        camera=camera,
        threshold_on=plan.threshold_on,
        threshold_off=plan.threshold_off,
        threshold_sigma=mismatch * plan.threshold_on,
        shot_noise_hz=preset.shot_noise_hz * plan.noise,
        leak_hz=preset.leak_hz * plan.noise,
    )


def _stored(config: SyntheticConfig) -> SpikeConfig:
    """Returns the conversion of events to the spikes on disk."""
    return dataclasses.replace(
        config.spikes, steps=config.stored_steps, max_width_px=config.stored_width_px
    )


def _coarser(config: SyntheticConfig, sensor: str) -> int:
    """Returns the factor by which the loaded grid is coarser than the one on disk."""
    width = sensor_config(sensor).camera.width
    wanted, stored = (binning_factor(width, s) for s in (config.spikes, _stored(config)))
    require(wanted % stored == 0, 'spikes.max_width_px', config.spikes.max_width_px,
            f'one that bins {sensor} by a multiple of {stored}, as on disk')  # fmt: skip
    return wanted // stored


@functools.lru_cache(maxsize=32)
def _pixels(camera: Camera, spikes: SpikeConfig, rectified: bool) -> PixelMap:
    return pixel_map(camera.height, camera.width, spikes, camera if rectified else None)


def _grid(camera: Camera, spikes: SpikeConfig) -> tuple[int, int]:
    pixels = _pixels(camera, spikes, False)
    return pixels.height, pixels.width
