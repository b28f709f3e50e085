"""The event sensors that can be simulated: lens, thresholds and faults, as plain settings."""

from __future__ import annotations

import dataclasses
import math

from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.config import require


@dataclasses.dataclass(frozen=True)
class EventCameraConfig:
    """An event sensor behind a lens.

    Luminance is relative: 1 is a white wall in daylight.

    Attributes:
        camera: size, intrinsics and distortion.
        threshold_on: contrast in natural log units at which a pixel fires ON.
        threshold_off: the same for OFF, as a positive number.
        threshold_sigma: standard deviation of both thresholds from pixel to pixel.
        refractory_us: time after an event in which a pixel is held in reset; the contrast that
            passes meanwhile is lost.
        leak_hz: rate of ON events of a pixel that sees a constant scene.
        shot_noise_hz: rate of noise events of a pixel in the dark, both polarities together.
        hot_fraction: share of the pixels that are hot.
        hot_hz: median rate of noise events of a hot pixel.
        cutoff_hz: corner of the photoreceptor's low-pass at luminance 1; 0 for no low-pass.
        dark_luminance: luminance that the dark current is worth.
        residual: share of the thresholds over which the contrast of the pixels is spread before
            the first frame; 0 starts all pixels from their first level.
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

    def __post_init__(self) -> None:
        for name in ('threshold_on', 'threshold_off'):
            value = getattr(self, name)
            require(0.01 <= value <= 10, name, value, '0.01 to 10')
        for name in ('threshold_sigma', 'refractory_us', 'leak_hz', 'shot_noise_hz', 'hot_hz',
                     'cutoff_hz'):  # fmt: skip
            value = getattr(self, name)
            require(0 <= value < 1e7, name, value, '0 or more')
        for name in ('hot_fraction', 'residual'):
            value = getattr(self, name)
            require(0 <= value <= 1, name, value, '0 to 1')
        require(self.dark_luminance > 0, 'dark_luminance', self.dark_luminance, 'above 0')

    def ideal(self) -> EventCameraConfig:
        """The same thresholds and lens without noise, delay or mismatch."""
        return dataclasses.replace(
            self,
            threshold_sigma=0.0,
            refractory_us=0.0,
            leak_hz=0.0,
            shot_noise_hz=0.0,
            hot_fraction=0.0,
            cutoff_hz=0.0,
            residual=0.0,
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
"""The sensors that come ready: name -> sensor and lens."""


def sensor_config(size: str) -> EventCameraConfig:
    """The sensor of a given name or size.

    A size that is no preset's takes the preset with the nearest number of columns, its lens
    scaled to the width.

    Args:
        size: a key of `SENSORS`, or columns x rows such as '640x480'.

    Raises:
        ConfigError: not a sensor and not a size of at least 16x16.
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
