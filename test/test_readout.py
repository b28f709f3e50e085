"""The readout of a sensor: a queue, worked through by hand and by a second, dumber one."""

import dataclasses
import itertools

import numpy as np
import pytest

from spike_depth_ros.events.arrays import make_events
from spike_depth_ros.sim.event_camera import EventCamera
from spike_depth_ros.sim.readout import FOREVER_NS, Readout
from spike_depth_ros.sim.sensors import SENSORS, EventCameraConfig

CAMERA = dataclasses.replace(SENSORS['davis346'].camera, width=40, height=30)
US = 1000


def config(**settings):
    return dataclasses.replace(EventCameraConfig(CAMERA).ideal(), **settings)


def events_at(times_us, rows=None):
    t = np.asarray(times_us, np.int64) * US
    rows = np.zeros(len(t), int) if rows is None else np.asarray(rows)
    return make_events(t, np.arange(len(t)) % 40, rows, np.ones(len(t), int))


def test_an_ideal_readout_only_sorts():
    readout = Readout(config(), 0)
    got = readout.read(events_at([30, 10, 20]), FOREVER_NS)
    assert got['t_ns'].tolist() == [10 * US, 20 * US, 30 * US]
    assert readout.lost == 0


def test_events_wait_for_the_bus_and_some_are_lost():
    # one event per 10 us; an event may wait for 25 us
    readout = Readout(config(readout_mev_s=0.1, readout_delay_us=25.0), 0)
    got = readout.read(events_at([0, 0, 0, 0, 0, 100]), FOREVER_NS)
    assert (got['t_ns'] // US).tolist() == [0, 10, 20, 100]  # two would have waited 30 and 40
    assert readout.lost == 2


def test_a_lost_event_silences_its_row():
    readout = Readout(config(readout_mev_s=0.1, readout_delay_us=5.0, row_silence_us=50.0), 0)
    times, rows = [0, 1, 12, 40, 52, 53], [3, 4, 3, 4, 4, 3]
    got = readout.read(events_at(times, rows), FOREVER_NS)
    # the event at 1 would have waited 9: lost, and row 4 is silent until 51
    read = list(zip((got['t_ns'] // US).tolist(), got['y'].tolist(), strict=True))
    assert read == [(0, 3), (12, 3), (52, 4)]
    assert readout.lost == 3  # at 1, at 40, and at 53, which would have waited 9


def test_what_is_read_late_comes_with_the_next_call():
    readout = Readout(config(readout_mev_s=0.1, readout_delay_us=1000.0), 0)
    first = readout.read(events_at([0, 0, 0, 0]), 25 * US)
    second = readout.read(events_at([26]), 100 * US)
    assert (first['t_ns'] // US).tolist() == [0, 10, 20]
    assert (second['t_ns'] // US).tolist() == [30, 40]


@pytest.mark.parametrize('pieces', [1, 7])
def test_a_dumber_queue_reads_the_same(pieces):
    rng = np.random.default_rng(5)
    t_us, rows = np.sort(rng.integers(0, 20_000, 4000)), rng.integers(0, 30, 4000)
    settings = {'readout_mev_s': 0.15, 'readout_delay_us': 300.0, 'row_silence_us': 100.0}
    free, silent, expected = 0.0, {}, []
    for t, row in zip(t_us * US, rows, strict=True):
        if silent.get(row, -1) > t:
            continue
        if free - t > 300 * US:
            silent[row] = t + 100 * US
            continue
        start = max(free, t)
        expected.append((int(start), row))
        free = start + 1e3 / 0.15
    readout, got = Readout(config(**settings), 0), []
    cuts = np.linspace(0, 20_000, pieces + 1).astype(int)
    for low, high in itertools.pairwise(cuts):
        some = (t_us >= low) & (t_us < high)
        until = FOREVER_NS if high == 20_000 else int(high) * US
        read = readout.read(events_at(t_us[some], rows[some]), until)
        assert not len(read) or read['t_ns'][-1] < until
        got.append(read)
    together = np.concatenate(got)
    assert list(zip(together['t_ns'].tolist(), together['y'].tolist(), strict=True)) == expected
    assert readout.lost == 4000 - len(expected) > 500


def test_no_more_events_leave_than_the_bus_takes():
    sensor = config(readout_mev_s=0.2, readout_delay_us=500.0)
    camera = EventCamera(sensor, 0)
    camera.step(np.full((30, 40), 0.1), 0)
    events = camera.step(np.full((30, 40), 10.0), 5_000_000)  # 18 events of 1200 pixels
    assert np.diff(events['t_ns']).min() >= 4999
    assert len(events) <= 1000
    assert camera.lost > 15_000


def test_jitter_delays_by_up_to_its_size_and_keeps_order():
    t_us = np.arange(0, 10_000, 5)
    plain = events_at(t_us)
    jittered = Readout(config(jitter_us=100.0), 3).read(plain, FOREVER_NS)
    assert (np.diff(jittered['t_ns']) >= 0).all()
    # events are told apart by their column, 200 us between two of the same
    for x in range(40):
        delay = np.sort(jittered['t_ns'][jittered['x'] == x]) - plain['t_ns'][plain['x'] == x]
        assert delay.min() >= 0
        assert delay.max() < 100 * US
    total = jittered['t_ns'].mean() - plain['t_ns'].mean()
    assert abs(total - 50 * US) < 3 * US
    again = Readout(config(jitter_us=100.0), 3).read(plain, FOREVER_NS)
    np.testing.assert_array_equal(jittered, again)
