"""Settings of simulated event sensors: lens, thresholds, noise and readout."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.config import require


@dataclasses.dataclass(frozen=True)
class EventCameraConfig:
    """Configuration of an event sensor behind a lens.

    Luminance is relative: 1 is a white wall in daylight.

    Attributes:
        camera: size, intrinsics and distortion.
        threshold_on: contrast in natural log units at which a pixel fires ON.
        threshold_off: the same for OFF, as a positive number.
        threshold_sigma: standard deviation of both thresholds from pixel to pixel.
        refractory_us: time after an event in which a pixel is held in reset; contrast that changes
            meanwhile is lost.
        leak_hz: rate of ON events of a pixel that sees a constant scene.
        shot_noise_hz: rate of noise events of a pixel in the dark, both polarities together.
        hot_fraction: share of hot pixels.
        hot_hz: median rate of noise events of a hot pixel.
        cutoff_hz: corner frequency of the photoreceptor's low-pass at luminance 1; 0 for no
            low-pass.
        dark_luminance: luminance equivalent of the dark current.
        residual: share of the thresholds over which the initial contrast of the pixels is spread;
            0 starts all pixels from their first level.
        jitter_us: maximum random delay of an event, uniformly distributed.
        readout_mev_s: maximum readout rate in millions of events per second; 0 for no limit.
        readout_delay_us: an event that would wait longer for its readout is lost.
        row_silence_us: time during which a row loses all events after it lost one.
    """

    camera: Camera
    threshold_on: float = 0.25
    threshold_off: float = 0.25
    threshold_sigma: float = 0.03
    refractory_us: float = 200.0
    leak_hz: float = 0.1
    shot_noise_hz: float = 1.0
    hot_fraction: float = 1e-4
    hot_hz: float = 50.0
    cutoff_hz: float = 2000.0
    dark_luminance: float = 1e-3
    residual: float = 1.0
    jitter_us: float = 0.0
    readout_mev_s: float = 0.0
    readout_delay_us: float = 500.0
    row_silence_us: float = 0.0

    def __post_init__(self) -> None:
        for name in ('threshold_on', 'threshold_off'):
            value = getattr(self, name)
            require(0.01 <= value <= 10, name, value, '0.01 to 10')
        for name in ('threshold_sigma', 'refractory_us', 'leak_hz', 'shot_noise_hz', 'hot_hz',
                     'cutoff_hz', 'jitter_us', 'readout_mev_s', 'readout_delay_us',
                     'row_silence_us'):  # fmt: skip
            value = getattr(self, name)
            require(0 <= value < 1e7, name, value, '0 or more')
        for name in ('hot_fraction', 'residual'):
            value = getattr(self, name)
            require(0 <= value <= 1, name, value, '0 to 1')
        require(self.dark_luminance > 0, 'dark_luminance', self.dark_luminance, 'above 0')

    def ideal(self) -> EventCameraConfig:
        """Returns the same thresholds and lens without noise, delay or mismatch."""
        return dataclasses.replace(
            self,
            threshold_sigma=0.0,
            refractory_us=0.0,
            leak_hz=0.0,
            shot_noise_hz=0.0,
            hot_fraction=0.0,
            cutoff_hz=0.0,
            residual=0.0,
            jitter_us=0.0,
            readout_mev_s=0.0,
        )


SENSORS: dict[str, EventCameraConfig] = {
    # 4 mm lens, as on the DAVIS of MVSEC and DENSE
    'davis346': EventCameraConfig(
        Camera(346, 260, 228.0, 228.0, 172.6, 130.9, 'plumb_bob', (-0.34, 0.12, 4e-4, -3e-4, 0.0)),
        threshold_on=0.25,
        threshold_off=0.27,
        threshold_sigma=0.035,
        shot_noise_hz=1.0,
        cutoff_hz=1000.0,
    ),
    # Prophesee Gen3.1 behind the lens of DSEC
    'vga': EventCameraConfig(
        Camera(640, 480, 555.0, 555.0, 336.4, 228.1, 'plumb_bob', (-0.095, 0.19, 2e-4, 1e-3)),
        threshold_on=0.25,
        threshold_off=0.25,
        refractory_us=100.0,
        shot_noise_hz=0.8,
        cutoff_hz=1500.0,
    ),
    # Prophesee Gen4 (EVK4) behind a 5 mm lens
    'hd': EventCameraConfig(
        Camera(1280, 720, 1030.0, 1030.0, 634.7, 357.9, 'plumb_bob', (-0.1, 0.09, -3e-4, 2e-4)),
        threshold_on=0.22,
        threshold_off=0.22,
        threshold_sigma=0.02,
        refractory_us=50.0,
        shot_noise_hz=0.4,
        cutoff_hz=3000.0,
    ),
}
"""Preset sensors: name -> sensor and lens."""


SENSOR_MODELS: dict[str, dict[str, tuple[float, float]]] = {
    'random': {
        'imbalance': (-0.5, 0.5),
        'mismatch': (0.02, 0.25),
        'refractory_us': (1.0, 1000.0),
        'leak_hz': (0.01, 1.0),
        'shot_noise_hz': (0.03, 4.0),
        'hot_fraction': (1e-5, 1e-3),
        'hot_hz': (10.0, 500.0),
        'cutoff_hz': (150.0, 5000.0),
        'dark_luminance': (1e-4, 1e-2),
        'jitter_us': (0.3, 200.0),
        'readout_mev_s': (4.0, 200.0),
        'readout_delay_us': (50.0, 3000.0),
        'row_silence_us': (1.0, 1000.0),
    },
    # dim light or a low bias current: slow pixels with a long reset
    'slow': {
        'imbalance': (-0.3, 0.3),
        'mismatch': (0.05, 0.2),
        'refractory_us': (500.0, 1000.0),
        'leak_hz': (0.1, 1.0),
        'shot_noise_hz': (0.5, 4.0),
        'hot_fraction': (1e-4, 1e-3),
        'hot_hz': (10.0, 200.0),
        'cutoff_hz': (50.0, 150.0),
        'dark_luminance': (1e-3, 1e-2),
        'jitter_us': (20.0, 200.0),
        'readout_mev_s': (20.0, 200.0),
        'readout_delay_us': (50.0, 500.0),
        'row_silence_us': (1.0, 10.0),
    },
    # a bus that saturates whenever the scene moves
    'crowded': {
        'imbalance': (-0.3, 0.3),
        'mismatch': (0.05, 0.2),
        'refractory_us': (1.0, 100.0),
        'leak_hz': (0.05, 0.3),
        'shot_noise_hz': (0.3, 3.0),
        'hot_fraction': (1e-5, 3e-4),
        'hot_hz': (10.0, 200.0),
        'cutoff_hz': (500.0, 5000.0),
        'dark_luminance': (3e-4, 3e-3),
        'jitter_us': (1.0, 50.0),
        'readout_mev_s': (0.7, 2.5),
        'readout_delay_us': (200.0, 3000.0),
        'row_silence_us': (50.0, 1000.0),
    },
}
"""Kinds of sensors to draw from: name -> setting -> range, log-uniformly distributed.

`imbalance` is the range of ln(threshold_off / threshold_on); `mismatch` that of threshold_sigma as
a share of threshold_on; `readout_mev_s` is that of a sensor of 346x260 and is scaled with the
number of pixels for others.
"""


def draw_sensor(
    rng: np.random.Generator, model: str, camera: Camera, threshold_on: float
) -> EventCameraConfig:
    """Draws a sensor of a kind.

    Args:
        rng: random generator.
        model: a key of `SENSOR_MODELS`.
        camera: size and lens.
        threshold_on: its ON threshold; the OFF threshold is clipped to 0.1 to 0.6.
    """
    require(model in SENSOR_MODELS, 'sensor model', model, f'one of {sorted(SENSOR_MODELS)}')
    ranges = dict(SENSOR_MODELS[model])
    off = threshold_on * math.exp(rng.uniform(*ranges.pop('imbalance')))
    drawn = {
        name: math.exp(rng.uniform(math.log(low), math.log(high)))
        for name, (low, high) in ranges.items()
    }
    drawn['readout_mev_s'] *= camera.width * camera.height / (346 * 260)
    return EventCameraConfig(
        camera,
        threshold_on=threshold_on,
        threshold_off=min(max(off, min(0.1, threshold_on)), max(0.6, threshold_on)),
        threshold_sigma=drawn.pop('mismatch') * threshold_on,
        **drawn,
    )


FISHEYE_FROM_DEG = 75.0
"""Field of view above which lenses may be fisheyes; above `FISHEYE_BEYOND_DEG` all are."""

FISHEYE_BEYOND_DEG = 100.0


MOST_BARREL = 0.45
"""Maximum image edge as a share of the radius at which the distortion folds over."""


def draw_lens(rng: np.random.Generator, camera: Camera, field_of_view_deg: float) -> Camera:
    """Draws another lens for a sensor: a field of view and a matching distortion.

    Args:
        rng: random generator of principal point and distortion.
        camera: gives the image size.
        field_of_view_deg: horizontal, between the outer edges of the outermost pixels in the row
            of a centred principal point; 10 to 150.

    Returns:
        A `plumb_bob` lens with barrel distortion in which every pixel has a ray, or an
        `equidistant` lens.
    """
    require(10 <= field_of_view_deg <= 150, 'field_of_view_deg', field_of_view_deg, '10 to 150')
    half = math.radians(field_of_view_deg) / 2
    width, height = camera.width, camera.height
    cx, cy = (n / 2 - 0.5 + 0.03 * n * rng.uniform(-1, 1) for n in (width, height))
    strength, fisheye = rng.uniform(0, 1), rng.random() < 0.5
    if field_of_view_deg > FISHEYE_BEYOND_DEG or (
        fisheye and field_of_view_deg > FISHEYE_FROM_DEG
    ):
        k1 = 0.1 * (strength - 0.5)
        model, distortion, reach = 'equidistant', (k1, 0.0, 0.0, 0.0), half * (1 + k1 * half**2)
    else:
        # r (1 + k1 r^2) folds over at r = 1 / sqrt(-3 k1); the corner must stay well below that.
        edge = math.tan(half)
        k1 = -((MOST_BARREL * strength) ** 2) / (3 * edge**2)
        model, distortion, reach = 'plumb_bob', (k1, 0.0, 0.0, 0.0), edge * (1 + k1 * edge**2)
    focal_px = width / 2 / reach
    return Camera(width, height, focal_px, focal_px, cx, cy, model, distortion)


def field_of_view_deg(camera: Camera) -> float:
    """Returns the horizontal field of view through the principal point, edge to edge."""
    ends = np.array([[-0.5, camera.cy], [camera.width - 0.5, camera.cy]])
    left, right = np.arctan(camera.undistort(ends)[:, 0])
    return float(np.degrees(right - left))


def sensor_config(size: str) -> EventCameraConfig:
    """Returns the sensor of a given name or size.

    A size without a preset uses the preset with the nearest number of columns and scales its lens
    to the width.

    Args:
        size: a key of `SENSORS`, or columns x rows such as '640x480'.

    Raises:
        ConfigError: neither a sensor nor a size of at least 16x16.
    """
    if size in SENSORS:
        return SENSORS[size]
    columns, _, rows = size.partition('x')
    expected = f'one of {sorted(SENSORS)} or WIDTHxHEIGHT with both from 16 to 4096'
    require(columns.isdecimal() and rows.isdecimal(), 'sensor', size, expected)
    width, height = int(columns), int(rows)
    require(16 <= width <= 4096 and 16 <= height <= 4096, 'sensor', size, expected)
    preset = min(SENSORS.values(), key=lambda s: abs(math.log(s.camera.width / width)))
    lens = preset.camera
    scale = width / lens.width
    camera = dataclasses.replace(
        lens,
        width=width,
        height=height,
        fx=lens.fx * scale,
        fy=lens.fy * scale,
        cx=(lens.cx + 0.5) * scale - 0.5,
        cy=height / 2 - 0.5 + (lens.cy + 0.5 - lens.height / 2) * scale,
    )
    return dataclasses.replace(preset, camera=camera)
