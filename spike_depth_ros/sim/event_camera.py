"""The event camera: converts luminance to events, pixel by pixel, with the noise of real pixels.

A pixel low-passes the logarithm of its photocurrent, compares it with the level at its last event,
and fires ON or OFF when the contrast passes its own threshold (Lichtsteiner, Posch and Delbruck,
IEEE JSSC 2008). Noise follows v2e (Hu, Liu and Delbruck, CVPRW 2021): thresholds differ from pixel
to pixel, the reference leaks, shot noise is more frequent in the dark, the photoreceptor is slower
in the dark, a few pixels are hot.
"""

from __future__ import annotations

import math

import numpy as np

from spike_depth_ros.events.arrays import EVENT_DTYPE
from spike_depth_ros.events.compiled import compiled
from spike_depth_ros.sim.geometry import Flicker
from spike_depth_ros.sim.readout import FOREVER_NS, Readout
from spike_depth_ros.sim.sensors import EventCameraConfig

SHOT_NOISE_AT_WHITE = 0.25
"""Shot noise rate at luminance 1 as a share of the rate in the dark (v2e)."""

SLOWEST = 0.05
"""Minimum corner frequency of the photoreceptor as a share of `cutoff_hz`."""

PIECES_PER_PERIOD = 12
"""Number of straight segments per period that approximate flickering light."""

PIXEL_DTYPE = np.dtype(
    [
        ('level', '<f8'),  # low-passed log photocurrent
        ('contrast', '<f8'),  # level minus the level stored at the last event
        ('time_ns', '<i8'),  # time up to which this pixel has been simulated
        ('reset_until_ns', '<i8'),  # end of the refractory period
        ('input', '<f4'),  # log photocurrent before the low-pass
        ('noise_left', '<f4'),  # unit-rate time to the next noise event
        ('threshold_on', '<f4'),
        ('threshold_off', '<f4'),
        ('leak_per_ns', '<f4'),  # drift of the contrast
        ('hot_hz', '<f4'),  # rate of noise in addition to shot noise
        ('random', '<u4'),  # state of the pixel's own xorshift generator
    ],
    align=True,
)
"""The state of one pixel, in one cache line."""


class EventCamera:
    """One simulated sensor with the state of every pixel.

    Pixels may be advanced to different times, so that slow parts of the image need fewer frames.
    Between two luminances of a pixel, their logarithm is interpolated linearly in time.
    """

    def __init__(self, config: EventCameraConfig, seed: int, run: int = 0) -> None:
        """Builds a sensor.

        Args:
            config: settings of the sensor.
            seed: determines the mismatch of its pixels.
            run: number of the recording; determines the noise and the initial state.
        """
        self.config = config
        self._pixels = _new_pixels(config, seed, run)
        self._all = np.arange(self._pixels.size, dtype=np.int32)
        self._buffer: np.ndarray = np.empty(1 << 16, EVENT_DTYPE)
        self._count = 0
        self._readout = Readout(config, seed, run)
        self._flicker = (0.0, 0.0, 0.0)
        self._lamp_share = np.zeros(1, np.float32)
        self._started = np.zeros(self._pixels.size, bool)

    @property
    def pixels(self) -> np.ndarray:
        """Returns the state of the pixels, (H, W) `PIXEL_DTYPE`."""
        camera = self.config.camera
        return self._pixels.reshape(camera.height, camera.width)

    def step(self, luminance: np.ndarray, t_ns: int) -> np.ndarray:
        """Advances all pixels to a luminance at a time and returns their events.

        The first step only sets the levels.

        Args:
            luminance: (H, W) relative luminance, 0 or more.
            t_ns: time of the luminance, not before that of the previous step.

        Returns:
            (N,) read-only `EVENT_DTYPE` ordered in time, from the previous step to just before
            `t_ns`.
        """
        self.advance(self._all, luminance, t_ns)
        return self.take(t_ns)

    def advance(self, pixels: np.ndarray, luminance: np.ndarray, t_ns: int) -> None:
        """Advances some pixels; their events are queued for `take`.

        Args:
            pixels: flat indices (row * W + column) of any shape, each once.
            luminance: relative luminance of each pixel, 0 or more; its mean over a period if lamps
                flicker.
            t_ns: time of the luminance, not before the pixel's previous step.

        Raises:
            ValueError: the sizes differ, or time runs backwards.
        """
        chosen = np.ascontiguousarray(pixels, np.int32).ravel()
        light = np.ascontiguousarray(luminance, np.float32).ravel()
        if len(chosen) != len(light):
            raise ValueError(f'{len(light)} luminances for {len(chosen)} pixels')
        config, done = self.config, 0
        parameters = (
            config.dark_luminance,
            config.cutoff_hz * 2e-9 * math.pi,
            config.shot_noise_hz * 1e-9,
            round(config.refractory_us * 1e3),
        )
        while done < len(chosen):
            done, self._count = _advance(
                self._pixels, self._started, chosen, light, done, t_ns, config.camera.width,
                parameters, self._flicker, self._lamp_share, self._buffer, self._count,
            )  # fmt: skip
            if done < 0:
                raise ValueError(f'time runs backwards: a pixel is already past {t_ns} ns')
            if done < len(chosen):
                self._buffer = np.concatenate([self._buffer, np.empty_like(self._buffer)])

    def under_lamps(self, flicker: Flicker, share: np.ndarray) -> None:
        """Makes part of the light flicker from now on, including between the given luminances.

        Args:
            flicker: frequency, depth and phase.
            share: (H, W) share of each pixel's light that flickers, 0 to 1.
        """
        self._flicker = (flicker.rate_hz * 2e-9 * math.pi, flicker.depth, flicker.phase_rad)
        self._lamp_share = np.ascontiguousarray(share, np.float32).ravel()

    def take(self, until_ns: int = FOREVER_NS) -> np.ndarray:
        """Returns the events that have been read out before a time.

        Args:
            until_ns: time that all pixels have been advanced to. Events still queued in a sensor
                with jitter or limited readout are returned by the next call.

        Returns:
            (N,) read-only `EVENT_DTYPE` ordered in time.
        """
        waiting, self._count = self._buffer[: self._count], 0
        return self._readout.read(waiting, until_ns)

    @property
    def lost(self) -> int:
        """Returns the number of events lost in the readout so far."""
        return self._readout.lost


def _new_pixels(config: EventCameraConfig, seed: int, run: int) -> np.ndarray:
    """Returns (H * W,) `PIXEL_DTYPE` before the first frame."""
    pixels = np.zeros(config.camera.height * config.camera.width, PIXEL_DTYPE)
    n = pixels.size
    rng = np.random.default_rng((seed, 0xE7))
    for name, mean in (('threshold_on', config.threshold_on),
                       ('threshold_off', config.threshold_off)):  # fmt: skip
        drawn = rng.normal(mean, config.threshold_sigma, n)
        pixels[name] = np.clip(drawn, mean / 4, None)
    pixels['leak_per_ns'] = config.leak_hz * 1e-9 * pixels['threshold_on']
    hot = rng.random(n) < config.hot_fraction
    pixels['hot_hz'] = np.where(hot, config.hot_hz * rng.lognormal(0.0, 1.0, n), 0.0)
    rng = np.random.default_rng((seed, 0xE8, run))
    spread = rng.uniform(-config.residual, config.residual, n)
    pixels['contrast'] = spread * np.where(
        spread > 0, pixels['threshold_on'], pixels['threshold_off']
    )
    pixels['noise_left'] = rng.exponential(1.0, n)
    pixels['random'] = rng.integers(1, 2**32, n, np.uint32)
    return pixels


@compiled(inline='always')
def _uniform(pixel):
    """Returns the next number in (0, 1) of the pixel's generator (Marsaglia, xorshift32)."""
    state = np.uint32(pixel.random)
    state ^= np.uint32(state << np.uint32(13))
    state ^= np.uint32(state >> np.uint32(17))
    state ^= np.uint32(state << np.uint32(5))
    pixel.random = state
    return (np.float64(state >> np.uint32(8)) + 0.5) / 16777216.0


@compiled(inline='always')
def _low_pass(pixel, dt, target, omega):
    """Returns the level after `dt` ns of input going linearly to `target`; omega = 2 pi f / ns."""
    if omega == 0.0:
        return target
    turns = omega * dt
    lag = (target - pixel.input) / turns
    return target - lag + (pixel.level - pixel.input + lag) * math.exp(-turns)


@compiled(inline='always')
def _crossing(contrast, drift, on, off):
    """Returns the time until a drifting contrast leaves (-off, on), and the polarity then."""
    if contrast >= on:
        return 0.0, 1
    if contrast <= -off:
        return 0.0, 0
    if drift > 0.0:
        return (on - contrast) / drift, 1
    if drift < 0.0:
        return (-off - contrast) / drift, 0
    return math.inf, 0


@compiled(inline='always')
def _lamp(flicker, share, t_ns):
    """Returns the log of the light at a time relative to its mean, if a share of it flickers."""
    omega, depth, phase = flicker
    return math.log(1.0 + share * depth * math.sin(omega * np.float64(t_ns) + phase))


@compiled()
def _advance(
    pixels, started, chosen, luminance, begin, t_ns, width, parameters, flicker, shares, out, count
):
    """Advances the chosen pixels from `begin` on to `t_ns`, writing events to `out`.

    Returns:
        The number of finished pixels (fewer than all if `out` is full, -1 if time ran backwards)
        and the number of events in `out`. An unfinished pixel is at its old time or in between,
        and must be advanced again.
    """
    dark, omega_white = parameters[:2]
    flickers = flicker[1] > 0.0
    piece_ns = 2.0 * math.pi / flicker[0] / PIECES_PER_PERIOD if flickers else math.inf
    for k in range(begin, len(chosen)):
        index = chosen[k]
        pixel = pixels[index]
        light = np.float64(luminance[k]) if luminance[k] > 0.0 else 0.0  # NaN counts as dark
        target = math.log(light + dark)
        share = np.float64(shares[index]) if flickers else 0.0
        if not started[index]:
            started[index] = True
            if share > 0.0:
                target += _lamp(flicker, share, t_ns)
            pixel.input = pixel.level = target
            pixel.time_ns = pixel.reset_until_ns = t_ns
            continue
        if t_ns <= pixel.time_ns:
            if t_ns < pixel.time_ns:
                return -1, count
            continue
        omega = omega_white * min(max(light, SLOWEST), 10.0)
        before = count
        if share > 0.0:
            first_ns, span_ns = pixel.time_ns, t_ns - pixel.time_ns
            base = np.float64(pixel.input) - _lamp(flicker, share, first_ns)
            pieces = math.ceil(span_ns / piece_ns)
            for piece in range(1, pieces + 1):
                end_ns = first_ns + span_ns * piece // pieces
                seen = base + (target - base) * piece / pieces + _lamp(flicker, share, end_ns)
                before = count
                count = _follow(
                    pixel, index, width, seen, end_ns, omega, light, parameters, out, count
                )
                if count < 0:
                    return k, before
        else:
            count = _follow(
                pixel, index, width, target, t_ns, omega, light, parameters, out, count
            )
            if count < 0:
                return k, before
    return len(chosen), count


@compiled(inline='always')
def _follow(pixel, index, width, target, t_ns, omega, light, parameters, out, count):
    """Advances a pixel to `target` at `t_ns`; returns the event count, -1 if `out` is full."""
    dt = np.float64(t_ns - pixel.time_ns)
    level = _low_pass(pixel, dt, target, omega)
    share = 1.0 - (1.0 - SHOT_NOISE_AT_WHITE) * min(light, 1.0)
    noise_per_ns = parameters[2] * share + pixel.hot_hz * 1e-9
    drift = (level - pixel.level) / dt + pixel.leak_per_ns
    final = pixel.contrast + drift * dt
    quiet = -pixel.threshold_off < final < pixel.threshold_on
    if quiet and pixel.noise_left > noise_per_ns * dt and pixel.reset_until_ns <= pixel.time_ns:
        pixel.contrast = final
        pixel.noise_left -= noise_per_ns * dt
    else:
        count = _fire(pixel, index, width, dt, drift, noise_per_ns, parameters[3], out, count)
        if count < 0:
            return count
    pixel.input = target
    pixel.level = level
    pixel.time_ns = t_ns
    return count


@compiled()
def _fire(pixel, index, width, dt, drift, noise_per_ns, refractory, out, count):
    """Writes the events of one pixel over `dt`; returns the event count, or -1 if `out` is full.

    Signal crossings and noise events compete; each event sets the contrast to zero and holds the
    pixel in reset for the refractory period.
    """
    start, random, reset_until = pixel.time_ns, pixel.random, pixel.reset_until_ns
    contrast = pixel.contrast
    now = np.float64(max(reset_until - start, 0))
    if now > 0.0:
        contrast = 0.0
    noise_at = pixel.noise_left / noise_per_ns if noise_per_ns > 0.0 else math.inf
    while now < dt:
        wait, polarity = _crossing(contrast, drift, pixel.threshold_on, pixel.threshold_off)
        while noise_at < now:  # within the refractory period
            noise_at -= math.log(_uniform(pixel)) / noise_per_ns
        event_at = min(now + wait, noise_at)
        if event_at >= dt:
            contrast += drift * (dt - now)
            break
        if count == len(out):
            pixel.random = random
            return -1
        if noise_at < now + wait:
            polarity = 1 if _uniform(pixel) < 0.5 else 0
            noise_at -= math.log(_uniform(pixel)) / noise_per_ns
        event = out[count]
        event.t_ns = start + np.int64(event_at)
        event.x = index % width
        event.y = index // width
        event.p = polarity
        count += 1
        contrast = 0.0
        now = event_at + refractory
        reset_until = start + np.int64(now)
    pixel.contrast = contrast
    pixel.reset_until_ns = reset_until
    if noise_per_ns > 0.0:
        pixel.noise_left = max((noise_at - dt) * noise_per_ns, 0.0)
    return count
