"""Splits, configuration and plans of synthetic clips.

A clip is determined by its configuration and two integers: the seed of its world and its number in
that world. `TRAIN_SEEDS`, `VALIDATION_SEEDS` and `TEST_SEEDS` share no world.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spike_depth_ros.events.atomic_write import partial_path
from spike_depth_ros.events.config import SpikeConfig, require
from spike_depth_ros.learning.datasets.sample import DatasetError
from spike_depth_ros.sim.ego import MOTIONS, Mounts, check_range
from spike_depth_ros.sim.geometry import STEADY, Flicker
from spike_depth_ros.sim.sensors import SENSOR_MODELS
from spike_depth_ros.sim.static_parts import STATIC_PARTS
from spike_depth_ros.sim.world import SCENES

TRAIN_SEEDS = range(0, 1_000_000)
VALIDATION_SEEDS = range(1_000_000, 1_100_000)
TEST_SEEDS = range(2_000_000, 2_100_000)
"""World seeds of each split; published figures use TEST_SEEDS only."""

SPLITS = {'train': TRAIN_SEEDS, 'validation': VALIDATION_SEEDS, 'test': TEST_SEEDS}
RECIPE = 'recipe.json'
RECIPE_VERSION = 1
"""Version of the recipe; increases when the same configuration would give other clips."""

MIX_VERSION = 3
"""The same for configurations that draw motions, mounts, lenses or sensor models."""

LONGEST_DRIVE_S = 55.0
"""Worlds last a minute; clips end before this time."""


@dataclasses.dataclass(frozen=True)
class SyntheticConfig:
    """Configuration of synthetic clips: rendering and loading.

    Attributes:
        folder: where clips are stored; one folder holds the clips of one recipe, for all splits.
        split: train, validation or test: selects the range of world seeds.
        worlds: number of worlds.
        first_world: index of the first world within the range.
        clips_per_world: clips of each world, at random times.
        clip_windows: windows per loaded clip; must divide `stored_windows`.
        images: also load the colour images.
        cached_only: load only clips that exist when the folder is opened; otherwise missing clips
            are rendered on first access.
        spikes: conversion of events to spikes; its steps must divide `stored_steps`, and its
            binning factor must be a multiple of that of `stored_width_px`.
        stored_windows: consecutive windows per clip on disk.
        stored_steps: time bins per window on disk.
        stored_width_px: `max_width_px` of the grid on disk, so that one folder also serves coarser
            grids.
        store_images: store the colour images, for a teacher.
        scenes: scenes of the simulator; empty for all.
        scene_weights: relative frequencies; empty for uniform.
        sensors: names or sizes, see `sim.sensors.sensor_config`.
        sensor_weights: relative frequencies; empty for uniform.
        min_threshold: minimum contrast threshold in log intensity.
        max_threshold: maximum contrast threshold; drawn from a log-uniform distribution.
        zooms: factors on the focal length of the sensor's lens, equally likely.
        rectified_part: fraction of the clips whose events are rectified, as in the node with a
            calibration; the others keep the lens distortion.
        max_step_px: maximum motion between two simulated frames.
        motions: keys of `sim.ego.MOTIONS`; `own` is that of the scene.
        motion_weights: relative frequencies; empty for uniform.
        heights_m: range (min, max) of the camera's height above ground, see `sim.ego.Mounts`;
            empty keeps that of the scene, as in the next three.
        pitches_deg: range of pitch; positive looks down.
        rolls_deg: range of roll.
        yaws_deg: range of yaw relative to the scene's own viewing direction.
        fields_of_view_deg: range of the horizontal field of view, with matching lens distortion or
            a fisheye; empty keeps the sensor's lens and `zooms`.
        sensor_models: `preset`, the sensor with noise and with `min_threshold` to `max_threshold`
            varied, or keys of `sim.sensors.SENSOR_MODELS`, which draw all properties.
        sensor_model_weights: relative frequencies; empty for uniform.
        static_parts: keys of `sim.static_parts.STATIC_PARTS` that may be in view.
        static_share: fraction of the clips with a static part in view.
        flicker_share: fraction of the clips whose lamps, if any, flicker at 100 or 120 Hz.
    """

    folder: str
    split: str = 'train'
    worlds: int = 100
    first_world: int = 0
    clips_per_world: int = 4
    clip_windows: int = 1
    images: bool = False
    cached_only: bool = False
    spikes: SpikeConfig = dataclasses.field(default_factory=SpikeConfig)
    stored_windows: int = 4
    stored_steps: int = 8
    stored_width_px: int = 352
    store_images: bool = True
    scenes: tuple[str, ...] = ()
    scene_weights: tuple[float, ...] = ()
    sensors: tuple[str, ...] = ('davis346', 'vga', 'hd')
    sensor_weights: tuple[float, ...] = (0.6, 0.3, 0.1)
    min_threshold: float = 0.15
    max_threshold: float = 0.45
    zooms: tuple[float, ...] = (0.9, 1.0, 1.15, 1.35)
    rectified_part: float = 0.5
    max_step_px: float = 1.0
    motions: tuple[str, ...] = ('own',)
    motion_weights: tuple[float, ...] = ()
    heights_m: tuple[float, ...] = ()
    pitches_deg: tuple[float, ...] = ()
    rolls_deg: tuple[float, ...] = ()
    yaws_deg: tuple[float, ...] = ()
    fields_of_view_deg: tuple[float, ...] = ()
    sensor_models: tuple[str, ...] = ('preset',)
    sensor_model_weights: tuple[float, ...] = ()
    static_parts: tuple[str, ...] = tuple(STATIC_PARTS)
    static_share: float = 0.0
    flicker_share: float = 0.0

    def __post_init__(self) -> None:
        require(self.split in SPLITS, 'split', self.split, f'one of {sorted(SPLITS)}')
        last = len(SPLITS[self.split]) - self.first_world
        require(self.first_world >= 0, 'first_world', self.first_world, 'at least 0')
        require(1 <= self.worlds <= last, 'worlds', self.worlds, f'1 to {last}')
        require(
            1 <= self.clips_per_world < 100, 'clips_per_world', self.clips_per_world, '1 to 99'
        )
        for name, stored, wanted in (
            ('clip_windows', self.stored_windows, self.clip_windows),
            ('spikes.steps', self.stored_steps, self.spikes.steps),
        ):
            divides = wanted >= 1 and stored >= 1 and stored % wanted == 0
            require(divides, name, wanted, f'a divisor of the {stored} on disk')
        width, limit = self.spikes.max_width_px, self.stored_width_px
        require(width <= limit, 'spikes.max_width_px', width, f'at most the {limit} on disk')
        limits = f'0.01 to {self.max_threshold}, and that at most 2'
        fits = 0.01 <= self.min_threshold <= self.max_threshold <= 2
        require(fits, 'min_threshold', self.min_threshold, limits)
        for name in ('rectified_part', 'static_share', 'flicker_share'):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), '0 to 1')
        good_zooms = bool(self.zooms) and all(0.5 <= zoom <= 4 for zoom in self.zooms)
        require(good_zooms, 'zooms', self.zooms, 'at least one, each 0.5 to 4')
        require(bool(self.sensors), 'sensors', self.sensors, 'at least one')
        for name, known in (('motions', MOTIONS), ('sensor_models', ('preset', *SENSOR_MODELS)),
                            ('static_parts', STATIC_PARTS)):  # fmt: skip
            names = getattr(self, name)
            require(bool(names) and {*names} <= {*known}, name, names, f'of {sorted(known)}')
        check_range('fields_of_view_deg', self.fields_of_view_deg, 10.0, 150.0)
        self.mounts  # noqa: B018 - an invalid range fails here
        stored = self.store_images or not self.images
        require(stored, 'images', self.images, 'False, as store_images is False')

    @property
    def mounts(self) -> Mounts:
        """Returns the ranges that mounts are drawn from."""
        return Mounts(self.heights_m, self.pitches_deg, self.rolls_deg, self.yaws_deg)


class ClipPlan(NamedTuple):
    """All values drawn for one clip."""

    seed: int
    number: int
    scene: str
    sensor: str
    threshold_on: float
    threshold_off: float
    noise: float  # factor on the sensor's noise rates
    zoom: float
    rectified: bool
    start_s: float
    motion: str = 'own'
    sensor_model: str = 'preset'
    field_of_view_deg: float = 0.0  # 0: the sensor's own lens, times `zoom`
    static_part: str = ''  # '': none
    flicker: Flicker = STEADY  # of lamps, if there are any

    @property
    def name(self) -> str:
        """Returns the name of the clip and, with a suffix, of its file."""
        return f'{self.seed:07d}_{self.number:02d}'


def plan_clip(config: SyntheticConfig, seed: int, number: int) -> ClipPlan:
    """Plans clip `number` of world `seed`; the same integers give the same plan."""
    world_rng = np.random.default_rng((seed, RECIPE_VERSION))
    scenes = config.scenes or tuple(sorted(SCENES))
    scene = _choose(world_rng, scenes, config.scene_weights, 'scene_weights')
    rng = np.random.default_rng((seed, number, RECIPE_VERSION))
    low, high = math.log(config.min_threshold), math.log(config.max_threshold)
    threshold_on = math.exp(rng.uniform(low, high))
    length_s = config.stored_windows * config.spikes.window_ms * 1e-3
    require(length_s < 30, 'stored_windows', config.stored_windows, 'clips of less than 30 s')
    return ClipPlan(
        seed,
        number,
        scene,
        _choose(rng, config.sensors, config.sensor_weights, 'sensor_weights'),
        threshold_on,
        threshold_on * math.exp(rng.uniform(-0.2, 0.2)),
        math.exp(rng.uniform(-1.2, 1.2)),
        float(rng.choice(config.zooms)),
        bool(rng.random() < config.rectified_part),
        round(rng.uniform(0.1, LONGEST_DRIVE_S - length_s), 3),
        *_breadth(config, seed, number),
    )


def _breadth(
    config: SyntheticConfig, seed: int, number: int
) -> tuple[str, str, float, str, Flicker]:
    """Draws motion, sensor model, field of view, static part and flicker.

    They have a separate generator, so that older configurations keep their clips.
    """
    rng = clip_rng(seed, number, 1)
    motion = _choose(rng, config.motions, config.motion_weights, 'motion_weights')
    weights = config.sensor_model_weights
    model = _choose(rng, config.sensor_models, weights, 'sensor_model_weights')
    field_of_view_deg = _within(rng, config.fields_of_view_deg)
    part = str(rng.choice(config.static_parts)) if rng.random() < config.static_share else ''
    flickers = rng.random() < config.flicker_share
    flicker = Flicker(float(rng.choice((100.0, 120.0))), rng.uniform(0.03, 0.7),
                      rng.uniform(0, 2 * math.pi))  # fmt: skip
    return motion, model, field_of_view_deg, part, flicker if flickers else STEADY


def _within(rng: np.random.Generator, limits: tuple[float, ...]) -> float:
    return float(rng.uniform(limits[0], limits[1])) if limits else 0.0


def clip_rng(seed: int, number: int, purpose: int) -> np.random.Generator:
    """Returns a generator of one clip: 1 plan, 2 mount and motion, 3 sensor, 4 static part."""
    return np.random.default_rng((seed, number, RECIPE_VERSION, purpose))


def clip_keys(config: SyntheticConfig) -> list[tuple[int, int]]:
    """Returns the seed and number of every clip."""
    seeds = SPLITS[config.split][config.first_world : config.first_world + config.worlds]
    return [(seed, number) for seed in seeds for number in range(config.clips_per_world)]


def clip_path(config: SyntheticConfig, seed: int, number: int) -> Path:
    """Returns the path of a clip."""
    return Path(config.folder) / config.split / f'{seed:07d}_{number:02d}.npz'


def _recipe(config: SyntheticConfig) -> dict[str, Any]:
    """Returns everything that the bytes of a clip depend on, ready for JSON."""
    names: tuple[str, ...] = ('stored_windows', 'stored_steps', 'stored_width_px', 'store_images',
             'scene_weights', 'sensors', 'sensor_weights', 'min_threshold', 'max_threshold',
             'zooms', 'rectified_part', 'max_step_px')  # fmt: skip
    newer = ('motions', 'motion_weights', 'heights_m', 'pitches_deg', 'rolls_deg', 'yaws_deg',
             'fields_of_view_deg', 'sensor_models', 'sensor_model_weights', 'static_parts',
             'static_share', 'flicker_share')  # fmt: skip
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    # Recipes written before these options existed do not contain them.
    mixed = tuple(name for name in newer if getattr(config, name) != defaults[name])
    names += mixed
    spikes = dataclasses.asdict(config.spikes)
    del spikes['steps'], spikes['max_width_px']
    return {
        'version': RECIPE_VERSION,
        **({'mix_version': MIX_VERSION} if mixed else {}),
        'scenes': list(config.scenes or sorted(SCENES)),
        'spikes': spikes,
        **{name: json.loads(json.dumps(getattr(config, name))) for name in names},
    }


def check_recipe(config: SyntheticConfig) -> None:
    """Writes the recipe of a new folder and rejects a folder with another recipe."""
    path, recipe = Path(config.folder) / RECIPE, _recipe(config)
    try:
        if not path.is_file():
            with partial_path(path, shared=True) as partial:
                partial.write_text(json.dumps(recipe, indent=1), encoding='utf-8')
        found = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise DatasetError(f'{path} cannot be written or read ({error})') from error
    differing = sorted(key for key in {*recipe, *found} if recipe.get(key) != found.get(key))
    if differing:
        is_, want = ({key: r.get(key) for key in differing} for r in (found, recipe))
        raise DatasetError(
            f'{config.folder} holds clips made with {is_}, not {want}: choose another folder'
        )


def _choose(
    rng: np.random.Generator, names: tuple[str, ...], weights: tuple[float, ...], field: str
) -> str:
    if not weights:
        return str(rng.choice(names))
    fits = len(weights) == len(names) and min(weights) >= 0 and sum(weights) > 0
    require(fits, field, weights, f'one number per name in {names}, 0 or more, not all 0')
    return str(rng.choice(names, p=np.array(weights) / sum(weights)))
