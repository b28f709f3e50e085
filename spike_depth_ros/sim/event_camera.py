"""The event camera: turns luminance into events, pixel by pixel, with the faults of real pixels.

A pixel low-passes the logarithm of its photocurrent, compares it with the level at its last
event, and fires ON or OFF when the contrast passes its own threshold (Lichtsteiner, Posch and
Delbruck, IEEE JSSC 2008). Noise follows v2e (Hu, Liu and Delbruck, CVPRW 2021): thresholds
differ from pixel to pixel, the reference leaks, shot noise fires more often in the dark, the
photoreceptor is slower in the dark, a few pixels are hot.
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
"""The photoreceptor's corner frequency never falls below this share of `cutoff_hz`."""

PIECES_PER_PERIOD = 12
"""A pixel under lamps follows them in this many straight pieces per period."""

PIXEL_DTYPE = np.dtype(
    [
        ('level', '<f8'),  # low-passed log photocurrent
        ('contrast', '<f8'),  # level minus the level remembered at the last event
        ('time_ns', '<i8'),  # until when this pixel has been simulated
        ('reset_until_ns', '<i8'),  # end of the refractory period
        ('input', '<f4'),  # log photocurrent before the low-pass
        ('noise_left', '<f4'),  # unit-rate time to the next noise event
        ('threshold_on', '<f4'),
        ('threshold_off', '<f4'),
        ('leak_per_ns', '<f4'),  # drift of the contrast
        ('hot_hz', '<f4'),  # noise beyond shot noise
        ('random', '<u4'),  # state of the pixel's own xorshift generator
    ],
    align=True,
)
"""The state of one pixel: one cache line."""


class EventCamera:
    """One simulated sensor with the state of every pixel.

    Pixels may be advanced to different times, so that slow parts of the image need fewer frames.
    Between two luminances of a pixel the logarithm is linear in time.
    """

    def __init__(self, config: EventCameraConfig, seed: int, run: int = 0) -> None:
        """Builds a sensor.

        Args:
            config: its settings.
            seed: decides the mismatch of its pixels.
            run: number of the recording: decides the noise and the initial state.
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
        """(H, W) `PIXEL_DTYPE`: the state of the pixels."""
        camera = self.config.camera
        return self._pixels.reshape(camera.height, camera.width)

    def step(self, luminance: np.ndarray, t_ns: int) -> np.ndarray:
        """Advances all pixels to a luminance at a time, and takes their events.

        The first step only sets the levels.

        Args:
            luminance: (H, W) relative luminance, 0 or more.
            t_ns: its time, not before that of the previous step.

        Returns:
            (N,) read-only `EVENT_DTYPE` in order of time, from the previous step to just before
            `t_ns`.
        """
        self.advance(self._all, luminance, t_ns)
        return self.take(t_ns)

    def advance(self, pixels: np.ndarray, luminance: np.ndarray, t_ns: int) -> None:
        """Advances some pixels; their events wait for `take`.

        Args:
            pixels: flat indices (row * W + column) of any shape, each once.
            luminance: the relative luminance of each, 0 or more; its mean over a period where
                lamps flicker.
            t_ns: its time, not before that of the pixel's previous step.

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
        """Lets some of the light flicker from now on, between the luminances that are given too.

        Args:
            flicker: how.
            share: (H, W) share of each pixel's light that does, 0 to 1.
        """
        self._flicker = (flicker.rate_hz * 2e-9 * math.pi, flicker.depth, flicker.phase_rad)
        self._lamp_share = np.ascontiguousarray(share, np.float32).ravel()

    def take(self, until_ns: int = FOREVER_NS) -> np.ndarray:
        """Returns the events that have been read out before a time.

        Args:
            until_ns: all pixels have been advanced to this time. What is still in the queue of a
                sensor with jitter or a limited readout comes with the next call.

        Returns:
            (N,) read-only `EVENT_DTYPE` in order of time.
        """
        waiting, self._count = self._buffer[: self._count], 0
        return self._readout.read(waiting, until_ns)

    @property
    def lost(self) -> int:
        """Events that the readout has lost so far."""
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
    """Next number in (0, 1) of the pixel's generator (Marsaglia, xorshift32)."""
    state = np.uint32(pixel.random)
    state ^= np.uint32(state << np.uint32(13))
    state ^= np.uint32(state >> np.uint32(17))
    state ^= np.uint32(state << np.uint32(5))
    pixel.random = state
    return (np.float64(state >> np.uint32(8)) + 0.5) / 16777216.0


@compiled(inline='always')
def _low_pass(pixel, dt, target, omega):
    """Level after `dt` ns of an input that went linearly to `target`; omega = 2 pi f per ns."""
    if omega == 0.0:
        return target
    turns = omega * dt
    lag = (target - pixel.input) / turns
    return target - lag + (pixel.level - pixel.input + lag) * math.exp(-turns)


@compiled(inline='always')
def _crossing(contrast, drift, on, off):
    """Time until a contrast that drifts leaves (-off, on), and the polarity then."""
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
    """Logarithm of the light at a time over its mean, where a share of it flickers."""
    omega, depth, phase = flicker
    return math.log(1.0 + share * depth * math.sin(omega * np.float64(t_ns) + phase))


@compiled()
def _advance(
    pixels, started, chosen, luminance, begin, t_ns, width, parameters, flicker, shares, out, count
):
    """Advances the chosen pixels from `begin` on to `t_ns`, writing events to `out`.

    Returns:
        How many pixels are done (fewer than all if `out` is full, -1 if time ran backwards)
        and how many events `out` holds. A pixel that is not done is where it was, or at some
        time in between: it is advanced again.
    """
    dark, omega_white = parameters[:2]
    flickers = flicker[1] > 0.0
    piece_ns = 2.0 * math.pi / flicker[0] / PIECES_PER_PERIOD if flickers else math.inf
    for k in range(begin, len(chosen)):
        index = chosen[k]
        pixel = pixels[index]
        light = np.float64(luminance[k]) if luminance[k] > 0.0 else 0.0  # NaN is dark too
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
    """Lets a pixel follow its input to `target` at `t_ns`; the count of events, -1 if full."""
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
    """Writes the events of one pixel over `dt`; returns their new count, or -1 if `out` is full.

    Signal crossings and noise events compete; each event sets the contrast to zero and holds
    the pixel in reset for the refractory period.
    """
    start, random, reset_until = pixel.time_ns, pixel.random, pixel.reset_until_ns
    contrast = pixel.contrast
    now = np.float64(max(reset_until - start, 0))
    if now > 0.0:
        contrast = 0.0
    noise_at = pixel.noise_left / noise_per_ns if noise_per_ns > 0.0 else math.inf
    while now < dt:
        wait, polarity = _crossing(contrast, drift, pixel.threshold_on, pixel.threshold_off)
        while noise_at < now:  # fell into the refractory period
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
