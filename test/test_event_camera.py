"""The simulated sensors against theory: what contrast, noise and time must give."""

import dataclasses

import numpy as np
import pytest

from spike_depth_ros.events.arrays import EVENT_DTYPE
from spike_depth_ros.events.config import ConfigError
from spike_depth_ros.sim.event_camera import EventCamera
from spike_depth_ros.sim.geometry import Flicker
from spike_depth_ros.sim.sensors import (
    SENSOR_MODELS,
    SENSORS,
    EventCameraConfig,
    draw_lens,
    draw_sensor,
    field_of_view_deg,
    sensor_config,
)
from spike_depth_ros.sim.sorting import sorted_by_time
from spike_depth_ros.sim.spike_camera import SpikeCamera

SMALL = dataclasses.replace(SENSORS['davis346'].camera, width=40, height=30)
IDEAL = EventCameraConfig(SMALL, threshold_on=0.2, threshold_off=0.3, dark_luminance=1e-9).ideal()
MS = 1_000_000


def uniform(log_luminance: float, config: EventCameraConfig = IDEAL) -> np.ndarray:
    return np.full((config.camera.height, config.camera.width), np.exp(log_luminance), np.float32)


def simulate(config, log_luminances, step_ns, seed=0):
    """All events of a scene that is uniform and changes in equal steps of time."""
    camera = EventCamera(config, seed)
    parts = [camera.step(uniform(v, config), i * step_ns) for i, v in enumerate(log_luminances)]
    return np.concatenate(parts)


@pytest.mark.parametrize(('contrast', 'count', 'polarity'), [(1.1, 5, 1), (-1.3, 4, 0)])
def test_a_ramp_gives_the_exact_count_whatever_the_frame_rate(contrast, count, polarity):
    for frames in (2, 3, 14, 101):
        events = simulate(IDEAL, np.linspace(-1, -1 + contrast, frames), 50 * MS // (frames - 1))
        assert len(events) == count * SMALL.width * SMALL.height
        assert (events['p'] == polarity).all()


def test_crossing_times_are_those_of_a_linear_ramp():
    events = simulate(IDEAL, np.linspace(-1, 0, 11), 10 * MS)  # 0.2 is crossed every 20 ms
    one = events[(events['x'] == 7) & (events['y'] == 3)]
    np.testing.assert_allclose(one['t_ns'], [20 * MS, 40 * MS, 60 * MS, 80 * MS], atol=100)


def test_residual_contrast_is_kept_between_frames_and_after_a_turn():
    up_and_down = [0.0, 0.15, 0.0, 0.15, 0.25, 0.15, -0.04, -0.06]
    events = simulate(IDEAL, up_and_down, 10 * MS)
    one = events[(events['x'] == 0) & (events['y'] == 0)]
    # ON when 0.2 is passed on the way to 0.25, remembered at 0.2; OFF not before 0.2 - 0.3
    assert one['p'].tolist() == [1]
    np.testing.assert_allclose(one['t_ns'], [35 * MS], atol=100)


def test_a_moving_edge_gives_the_analytic_number_of_events():
    width, height = SMALL.width, SMALL.height
    columns = np.arange(width)
    log_contrast, speed_px = 1.0, 0.5  # 1.0 / 0.2 = 5 thresholds, the last one not quite passed
    camera = EventCamera(IDEAL, 0)
    total = []
    for k in range(41):
        edge = 5 + speed_px * k
        bright = np.clip(edge - columns + 0.5, 0, 1)  # the edge covers a pixel gradually
        log_luminance = (log_contrast - 0.01) * bright
        frame = np.broadcast_to(np.exp(log_luminance), (height, width))
        total.append(camera.step(frame, k * MS))
    events = np.concatenate(total)
    passed = 20  # columns that the edge swept: 40 steps of half a pixel
    assert len(events) == passed * 4 * height
    assert (events['p'] == 1).all()
    by_column = np.bincount(events['x'], minlength=width)
    assert by_column.sum() == by_column[5:26].sum()


def test_events_come_in_order_of_time_within_half_open_steps():
    config = dataclasses.replace(SENSORS['davis346'], camera=SMALL)
    rng = np.random.default_rng(3)
    camera = EventCamera(config, 5)
    for k in range(30):
        events = camera.step(rng.uniform(0, 1, (30, 40)), k * MS)
        assert (np.diff(events['t_ns']) >= 0).all()
        assert not len(events) or (k - 1) * MS <= events['t_ns'][0] <= events['t_ns'][-1] < k * MS
        assert not len(events) or (events['x'].max() < 40 and events['y'].max() < 30)


def test_the_seed_decides_everything():
    config = dataclasses.replace(SENSORS['davis346'], camera=SMALL)
    levels = np.sin(np.arange(40) / 3)
    first, again, other = (simulate(config, levels, MS, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_pixels_advanced_apart_see_what_they_see_together():
    levels = np.linspace(0, 2, 9)
    together = simulate(IDEAL, levels, 4 * MS)
    camera = EventCamera(IDEAL, 0)
    pixels = np.arange(SMALL.width * SMALL.height)
    slow, fast = pixels[::2], pixels[1::2]
    for i, level in enumerate(levels):
        camera.advance(fast, np.full(fast.size, np.exp(level)), i * 4 * MS)
        if i % 8 == 0:
            camera.advance(slow, np.full(slow.size, np.exp(level)), i * 4 * MS)
    apart = camera.take()
    assert len(apart) == len(together) == 9 * pixels.size
    difference = np.sort(apart['t_ns']) - np.sort(together['t_ns'])
    assert np.abs(difference).max() < 100


def test_time_must_not_run_backwards():
    camera = EventCamera(IDEAL, 0)
    camera.step(uniform(0), 5 * MS)
    with pytest.raises(ValueError, match='backwards'):
        camera.step(uniform(0), 4 * MS)


def test_refractory_period_separates_the_events_of_a_pixel():
    config = dataclasses.replace(IDEAL, refractory_us=1500.0, shot_noise_hz=100.0)
    events = simulate(config, np.linspace(0, 20, 21), 2 * MS)
    order = np.lexsort((events['t_ns'], events['x'], events['y']))
    ordered = events[order]
    same = (np.diff(ordered['x'].astype(int)) == 0) & (np.diff(ordered['y'].astype(int)) == 0)
    gaps = np.diff(ordered['t_ns'])[same]
    assert len(gaps) > 1000
    assert gaps.min() >= 1_500_000


def test_refractory_period_loses_the_contrast_that_passes():
    # 0.5 per ms: an event every 0.4 ms, but 0.6 ms of reset make it every 1.0 ms
    config = dataclasses.replace(IDEAL, refractory_us=600.0)
    events = simulate(config, np.linspace(0, 5, 11), MS)
    one = events[(events['x'] == 1) & (events['y'] == 1)]
    np.testing.assert_allclose(one['t_ns'], (0.4 + np.arange(10)) * MS, atol=100)


def test_leak_gives_on_events_at_its_rate():
    config = dataclasses.replace(IDEAL, leak_hz=10.0, threshold_sigma=0.03)
    events = simulate(config, np.zeros(42), 50 * MS)  # 2.05 s: an event every 0.1 s
    assert len(events) == 20 * SMALL.width * SMALL.height
    assert (events['p'] == 1).all()


@pytest.mark.parametrize(('luminance', 'share'), [(1e-6, 1.0), (0.5, 0.625), (1.0, 0.25)])
def test_shot_noise_has_its_rate_in_the_dark_and_in_the_light(luminance, share):
    config = dataclasses.replace(IDEAL, shot_noise_hz=20.0)
    events = simulate(config, np.full(11, np.log(luminance)), 100 * MS)
    expected = 20.0 * share * SMALL.width * SMALL.height  # in one second
    assert abs(len(events) - expected) < 4 * np.sqrt(expected)
    on = int(events['p'].sum())
    assert abs(on - len(events) / 2) < 4 * np.sqrt(len(events) / 4)
    # a Poisson process: the variance of the count per pixel is its mean
    counts = np.bincount(events['y'].astype(int) * 40 + events['x'], minlength=1200)
    assert abs(counts.var() / counts.mean() - 1) < 0.25


def test_hot_pixels_are_few_and_fire_on_their_own():
    config = dataclasses.replace(IDEAL, hot_fraction=0.05, hot_hz=200.0)
    camera = EventCamera(config, 7)
    hot = camera.pixels['hot_hz'] > 0
    assert 35 <= hot.sum() <= 90  # 60 expected of 1200
    events = simulate(config, np.zeros(11), 100 * MS, seed=7)
    assert hot[events['y'], events['x']].all()
    expected = camera.pixels['hot_hz'].sum()
    assert abs(len(events) - expected) < 5 * np.sqrt(expected)


def test_thresholds_differ_as_configured():
    config = dataclasses.replace(SENSORS['davis346'], threshold_sigma=0.04)
    pixels = EventCamera(config, 11).pixels
    for name, mean in (('threshold_on', 0.25), ('threshold_off', 0.27)):
        assert abs(pixels[name].mean() - mean) < 1e-3
        assert abs(pixels[name].std() - 0.04) < 1e-3
    together = np.corrcoef(pixels['threshold_on'].ravel(), pixels['threshold_off'].ravel())
    assert abs(together[0, 1]) < 0.02


def test_the_photoreceptor_delays_the_dark_more_than_the_light():
    config = dataclasses.replace(IDEAL, cutoff_hz=100.0)
    delays = {}
    for light in (1.0, 0.1):
        camera = EventCamera(config, 0)
        for k in range(400):  # a ramp of 0.05 in 400 ms, long enough for the lag to settle
            camera.step(np.full((30, 40), light * np.exp(0.000125 * k)), k * MS)
        level, log_in = camera.pixels['level'][0, 0], camera.pixels['input'][0, 0]
        delays[light] = float(log_in - level) / 0.125  # a first-order filter lags a ramp by tau
    for light, delay in delays.items():
        assert delay == pytest.approx(1 / (2 * np.pi * 100 * light * np.exp(0.05)), rel=0.03)


def test_low_pass_does_not_depend_on_the_frame_rate():
    # the corner follows the luminance of the frame, so a small one keeps the answer comparable
    config = dataclasses.replace(IDEAL, cutoff_hz=50.0)
    levels = []
    for frames in (2, 21):
        camera = EventCamera(config, 0)
        for k, value in enumerate(np.linspace(-6.0, -5.0, frames)):
            camera.step(uniform(value), k * 20 * MS // (frames - 1))
        levels.append(camera.pixels['level'][0, 0])
    assert abs(levels[0] - levels[1]) < 1e-5


def test_more_events_than_the_buffer_holds_change_nothing():
    camera = dataclasses.replace(SMALL, width=200, height=150)
    config = dataclasses.replace(IDEAL, camera=camera, shot_noise_hz=5.0)
    events = simulate(config, [0.0, 2.05], MS)
    signal = 10 * 200 * 150
    assert signal <= len(events) <= signal + 1000
    assert len(np.unique(events)) == len(events)


def test_sorting_equals_a_stable_argsort():
    rng = np.random.default_rng(0)
    crowded = np.r_[rng.integers(0, 100, 500), np.full(300, 10**12)]
    for times in (rng.integers(0, 400, 1000), crowded, np.zeros(600, np.int64), [5]):
        events = np.zeros(len(times), EVENT_DTYPE)
        events['t_ns'] = times
        events['x'] = np.arange(len(times)) % 65536
        expected = events[np.argsort(events['t_ns'], kind='stable')]
        assert np.array_equal(sorted_by_time(events), expected)


def test_sensors_by_name_and_size():
    assert sensor_config('640x480') == SENSORS['vga']
    assert sensor_config('346x260') == sensor_config('davis346')
    assert sensor_config('1280x720') == SENSORS['hd']
    half = sensor_config('320x240').camera
    assert (half.width, half.height) == (320, 240)
    assert half.fx == pytest.approx(SENSORS['davis346'].camera.fx * 320 / 346)
    quarter = sensor_config('700x525').camera
    assert quarter.cx == pytest.approx((336.4 + 0.5) * 700 / 640 - 0.5)
    assert all(sensor.camera.is_distorted for sensor in SENSORS.values())


@pytest.mark.parametrize('size', ['', '640', '640x', 'x480', '8x8', '640x-480', 'vgaa', '9999x9'])
def test_a_wrong_sensor_is_named(size):
    with pytest.raises(ConfigError, match='sensor is'):
        sensor_config(size)


@pytest.mark.parametrize('wrong', [{'threshold_on': 0.0}, {'leak_hz': -1.0}, {'residual': 1.5}])
def test_a_wrong_setting_is_named(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        dataclasses.replace(IDEAL, **wrong)


# lamps


def under_lamp(share, rate_hz=100.0, depth=0.5, seconds=0.1, **settings):
    """Events of a scene that is steady but for its lamps, given every 5 ms."""
    config = dataclasses.replace(IDEAL, **settings)
    camera = EventCamera(config, 0)
    camera.under_lamps(Flicker(rate_hz, depth, 0.0), np.full((30, 40), share))
    return np.concatenate(
        [camera.step(uniform(0.0), k * 5 * MS) for k in range(round(seconds * 200) + 1)]
    )


@pytest.mark.parametrize('rate_hz', [100.0, 120.0])
def test_a_lamp_fires_each_pixel_twice_in_its_period(rate_hz):
    # from ln 0.5 = -0.69 to ln 1.5 = 0.41: up to five steps of 0.2 up, and three of 0.3 down
    events = under_lamp(1.0, rate_hz)
    one = events[(events['x'] == 7) & (events['y'] == 9)]
    periods = 0.1 * rate_hz
    assert 6 * periods <= len(one) <= 8 * periods
    turns = np.count_nonzero(np.diff(one['p'].astype(int)))
    assert turns == pytest.approx(2 * periods, abs=1)
    # a second, dumber sensor: one pixel, ten thousand steps
    times = np.linspace(0, 0.1, 10_001)
    level, count = 0.0, 0
    for value in np.log(1 + 0.5 * np.sin(2 * np.pi * rate_hz * times)):
        if value - level >= 0.2 or level - value >= 0.3:
            level, count = level + (0.2 if value > level else -0.3), count + 1
    assert len(one) == pytest.approx(count, abs=0.5 * periods)


def test_daylight_dilutes_a_lamp():
    # ln(1 + 0.1 * 0.5) = 0.05: no pixel notices; the spread of ON is 0.2
    assert len(under_lamp(0.1)) == 0
    assert len(under_lamp(0.0)) == 0


def test_a_slow_photoreceptor_does_not_see_the_lamp():
    # first order at 10 Hz: 100 Hz is damped by ten
    assert len(under_lamp(1.0, cutoff_hz=10.0, seconds=0.2)) < len(under_lamp(1.0)) / 4


# models


def test_a_drawn_sensor_lies_in_its_ranges():
    for model, ranges in SENSOR_MODELS.items():
        rng = np.random.default_rng(0)
        sensors = [draw_sensor(rng, model, SMALL, 0.3) for _ in range(200)]
        for name, (low, high) in ranges.items():
            if name in ('imbalance', 'mismatch', 'readout_mev_s'):
                continue
            values = np.array([getattr(sensor, name) for sensor in sensors])
            assert low <= values.min() < low * (high / low) ** 0.1
            assert high >= values.max() > low * (high / low) ** 0.9
        off = np.array([sensor.threshold_off for sensor in sensors])
        assert off.min() >= 0.1
        assert off.max() <= 0.6
        assert off.std() > 0.03
        small = 40 * 30 / (346 * 260)
        rates = np.array([sensor.readout_mev_s / small for sensor in sensors])
        low, high = ranges['readout_mev_s']
        assert low <= rates.min() * (1 + 1e-9)
        assert rates.max() <= high * (1 + 1e-9)
    with pytest.raises(ConfigError, match='sensor model'):
        draw_sensor(np.random.default_rng(0), 'ideal', SMALL, 0.3)


# lenses


@pytest.mark.parametrize('size', ['davis346', '320x320', '1280x720'])
def test_a_drawn_lens_has_its_field_of_view(size):
    rng, camera = np.random.default_rng(1), sensor_config(size).camera
    models = set()
    for wanted in np.linspace(35, 120, 18):
        lens = draw_lens(rng, camera, float(wanted))
        models.add(lens.distortion_model)
        # off-centre, the edges are not seen under the same angle, but nearly
        assert field_of_view_deg(lens) == pytest.approx(wanted, abs=1.0)
        assert np.isfinite(lens.rays()).mean() > 0.995
        middle = dataclasses.replace(lens, cx=camera.width / 2 - 0.5)
        assert field_of_view_deg(middle) == pytest.approx(wanted, abs=0.05)
    assert models == {'plumb_bob', 'equidistant'}


def test_focal_length_by_hand():
    pinhole = dataclasses.replace(SMALL, width=400, fx=200.0, cx=199.5, distortion=())
    assert field_of_view_deg(pinhole) == pytest.approx(90.0)  # 2 atan(200 / 200)
    fisheye = dataclasses.replace(pinhole, distortion_model='equidistant', distortion=(0.0,) * 4)
    assert field_of_view_deg(fisheye) == pytest.approx(np.degrees(2.0))  # 200 px are 1 rad


def test_spike_camera_fires_in_proportion_to_the_light():
    camera = SpikeCamera(20, 30, seed=1, full_luminance=2.0)
    luminance = np.linspace(0, 3, 600).reshape(20, 30).astype(np.float32)
    frames = np.stack([camera.expose(luminance) for _ in range(128)])
    assert frames.dtype == np.uint8
    assert set(np.unique(frames)) == {0, 1}
    expected = 128 * np.minimum(luminance / 2, 1)  # within the one spike of the first charge
    assert np.abs(frames.sum(0) - expected).max() <= 1 + 1e-3


def test_spike_camera_keeps_its_charge_between_calls():
    camera, twin = SpikeCamera(4, 4, seed=2), SpikeCamera(4, 4, seed=2)
    light = np.full((4, 4), 0.3, np.float32)
    first = [camera.expose(light) for _ in range(20)]
    again = [twin.expose(light) for _ in range(20)]
    np.testing.assert_array_equal(first, again)
    gaps = np.diff(np.flatnonzero(np.array(first)[:, 0, 0]))
    assert set(gaps) <= {3, 4}  # 1 / 0.3 frames


def test_spike_camera_names_a_wrong_gain():
    with pytest.raises(ValueError, match='full_luminance is 0'):
        SpikeCamera(2, 2, 0, full_luminance=0)
