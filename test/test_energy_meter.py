"""The energy of the live stream: when it is measured, how gently, and how that ends."""

import math
import threading
import time

import numpy as np
import pytest
import torch

from spike_depth_ros.events.config import SpikeConfig
from spike_depth_ros.network.energy import measure_energy
from spike_depth_ros.network.registry import build
from spike_depth_ros.ros import energy_meter
from spike_depth_ros.ros.energy_meter import EnergyMeter

SPIKES = np.random.default_rng(1).poisson(0.2, (2, 2, 24, 32)).astype(np.uint8)
SEEN = SpikeConfig(steps=2, max_width_px=32)
NEVER = threading.Event()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build('tiny')


@pytest.fixture
def clock(monkeypatch):
    """Seconds since the first depth map, to be set."""
    clock = {'now_s': 1000.0}
    monkeypatch.setattr(time, 'monotonic', lambda: clock['now_s'])
    return clock


def is_measured(meter, clock, since_first_s, period_s, stopped=NEVER):
    """Whether a look at that time gives a report."""
    before, clock['now_s'] = meter.report, 1000.0 + since_first_s
    meter.look(SPIKES, period_s, stopped)
    return meter.report is not before


def test_it_measures_when_it_is_time(model, clock, monkeypatch):
    monkeypatch.setattr(energy_meter, 'STRETCH_S', math.inf)  # without pauses
    meter = EnergyMeter(model, SEEN)
    assert meter.summary() == {}
    measured = [s for s in (0, 2.5, 3, 3.5, 62.5, 63, 63.5) if is_measured(meter, clock, s, 60.0)]
    assert measured == [3, 63]
    meter = EnergyMeter(model, SEEN)
    assert [s for s in (0, 0.5, 1, 1.5, 2) if is_measured(meter, clock, s, 1.0)] == [1, 2]
    meter = EnergyMeter(model, SEEN)
    assert not any(is_measured(meter, clock, s, 0.0) for s in (0, 3, 60))


def test_what_it_has_to_compile_is_compiled_before_the_stream(model, monkeypatch):
    sizes = []
    monkeypatch.setattr(energy_meter, 'count_energy', lambda _, spikes: sizes.append(spikes.shape))
    meter = EnergyMeter(model, SEEN)
    assert sizes == [(2, 1, 2, 32, 32)]
    assert meter.report is None


class Pauses(threading.Event):
    """Notes how long it is waited for."""

    def __init__(self):
        super().__init__()
        self.lengths_s = []

    def wait(self, timeout=None):
        self.lengths_s.append(timeout)
        return False


def test_it_pauses_nine_times_as_long_as_it_works(model, clock, monkeypatch):
    ticks = iter(range(100_000))
    monkeypatch.setattr(time, 'thread_time', lambda: next(ticks) / 1024)  # 1 ms from look to look
    meter, pauses = EnergyMeter(model, SEEN), Pauses()
    is_measured(meter, clock, 0, 60.0)
    assert is_measured(meter, clock, 3, 60.0, pauses)
    assert len(pauses.lengths_s) > 10
    assert pauses.lengths_s == pytest.approx([6 / 1024 * 9] * len(pauses.lengths_s))
    assert meter.report == measure_energy(model, torch.from_numpy(SPIKES)[:, None].float())


def test_a_stop_ends_it_without_a_report_and_it_begins_anew(model, clock, monkeypatch):
    monkeypatch.setattr(energy_meter, 'STRETCH_S', 0.0)
    monkeypatch.setattr(energy_meter, 'SHARE', 1e-9)  # a pause would outlast the test
    meter, stopped = EnergyMeter(model, SEEN), threading.Event()
    stopped.set()
    assert not any(is_measured(meter, clock, s, 60.0, stopped) for s in (0, 3))
    monkeypatch.setattr(energy_meter, 'SHARE', 1.0)
    assert [s for s in (10, 12, 13, 14) if is_measured(meter, clock, s, 60.0)] == [13]
