"""Why there is no depth, and rates."""

import dataclasses
import time

import pytest

from spike_depth_ros.ros.diagnostics import (
    ERROR,
    OK,
    WARN,
    Flow,
    Meters,
    Rates,
    Report,
    diagnostic_array,
    flow_verdict,
    plain_counts,
)

GOOD = Flow(
    state='active', last_error='', enabled=True, publishers=1, topic='/events', subscribed=True,
    topic_problem='', unusable='', silent_s=0.1, wanted=True, obstacle='', dropping=False,
    frame_age_s=0.1, stride_s=0.05, frames_hz=20.0,
)  # fmt: skip


@pytest.mark.parametrize(('change', 'level', 'words'), [
    ({}, OK, '20.0 depth maps/s'),
    ({'last_error': 'cannot configure: x', 'state': 'unconfigured'}, ERROR, 'cannot configure: x'),
    ({'state': 'inactive'}, WARN, 'the node is inactive'),
    ({'publishers': 0}, ERROR, 'nobody publishes /events'),
    ({'subscribed': False, 'topic_problem': 'wrong type'}, ERROR, 'wrong type'),
    ({'enabled': False}, OK, 'paused'),
    ({'silent_s': None}, WARN, 'no events yet'),
    ({'silent_s': None, 'unusable': 'no message is usable'}, ERROR, 'no message is usable'),
    ({'silent_s': 1.4}, OK, '20.0 depth maps/s'),
    ({'silent_s': 7.0}, WARN, 'no events for 7 s'),
    ({'wanted': False}, OK, 'nobody subscribes'),
    ({'obstacle': 'no calibration yet'}, ERROR, 'no calibration yet'),
    ({'frame_age_s': None}, WARN, 'no window is complete'),
    ({'frame_age_s': 1.6}, WARN, 'no window is complete'),
    ({'frame_age_s': 1.6, 'stride_s': 1.0}, OK, '20.0 depth maps/s'),
    ({'frame_age_s': 2.1, 'stride_s': 1.0}, WARN, 'no window is complete'),
    ({'frame_age_s': None, 'dropping': True}, ERROR, 'every window is dropped'),
    ({'dropping': True}, OK, '20.0 depth maps/s'),
    ({'publishers': 0, 'enabled': False, 'wanted': False}, ERROR, 'nobody publishes'),
])  # fmt: skip
def test_the_first_reason_is_given(change, level, words):
    given, sentence, _, flows = flow_verdict(GOOD._replace(**change))
    assert (given, words in sentence) == (level, True), sentence
    assert flows == ('depth maps/s' in sentence)


def test_rates_are_differences_over_time():
    rates = Rates()
    rates.per_second({'events': 100})
    time.sleep(0.1)
    per_second = rates.per_second({'events': 120, 'frames': 1})
    assert per_second['events'] == pytest.approx(20 * per_second['frames'])
    assert 0 < per_second['frames'] <= 10
    assert rates.per_second({'events': 3})['events'] == 0.0


def test_meters_give_median_and_p99():
    meters = Meters()
    for value in range(101):
        meters.add_ms('decode', float(value))
    assert meters.summary() == {'decode ms (median, p99)': '50.00, 99.00'}


def test_the_message():
    report = Report('input', WARN, 'too few', {'events/s': 3})
    message = diagnostic_array(1_500_000_000, 'robot/depth_node', [report])
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (1, 500_000_000)
    status = message.status[0]
    assert (status.name, status.level) == ('robot/depth_node: input', WARN)
    assert [(pair.key, pair.value) for pair in status.values] == [('events/s', '3')]


def test_counters_of_a_dataclass():
    @dataclasses.dataclass
    class Counts:
        events: int = 4

    assert plain_counts(Counts()) == {'events': 4}
