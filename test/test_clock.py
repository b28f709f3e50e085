"""Sensor time to ROS time."""

import numpy as np

from spike_depth_ros.ros.clock import RosTimeClock, SensorClock

MS, S = 1_000_000, 1_000_000_000
OFFSET = 1_700_000_000 * S


def test_exact_stamps_give_the_exact_offset():
    clock = SensorClock()
    assert clock.to_ros(5) == 5
    assert [clock.update(OFFSET + k * MS, k * MS) for k in range(10)] == [False] * 10
    assert clock.offset_ns == OFFSET
    assert clock.to_ros(123) == OFFSET + 123
    assert clock.drift_ppm == 0.0


def test_transport_delay_is_filtered_out():
    clock = SensorClock()
    delays = np.random.default_rng(0).integers(0, 5 * MS, 500)
    delays[100] = 200_000
    for k, delay in enumerate(delays):
        clock.update(OFFSET + k * 4 * MS + int(delay), k * 4 * MS)
    assert clock.offset_ns == OFFSET + delays.min()


def test_drift_is_followed():
    clock = SensorClock()
    for k in range(2000):  # 20 s, 50 ppm: 1 ms in all
        t = k * 10 * MS
        clock.update(OFFSET + t + t * 50 // 1_000_000, t)
    true_ns = OFFSET + 19_990 * MS * 50 // 1_000_000
    assert true_ns - 250_000 - 1 <= clock.offset_ns <= true_ns  # 5 s of 50 ppm behind at most
    assert 30 < clock.drift_ppm < 55


def test_a_delay_that_is_worked_off_is_no_drift():
    clock, told_ppm = SensorClock(), []
    for k in range(6000):
        t = k * 10 * MS
        clock.update(OFFSET + t + max(0, 300 * MS - k * MS), t)  # on time after 3 s
        told_ppm.append(clock.drift_ppm)
    assert clock.offset_ns == OFFSET
    assert set(told_ppm) == {0.0}


def test_sensor_time_that_falls_is_a_jump():
    clock = SensorClock()
    clock.update(OFFSET + 10 * S, 10 * S)
    assert not clock.update(OFFSET + 10 * S, 10 * S - 1 * MS)  # sensors do step back a little
    assert clock.update(OFFSET + 11 * S, 2 * S, jump_ns=-8 * S)
    assert (clock.jumps, clock.to_ros(2 * S)) == (1, OFFSET + 11 * S)
    assert clock.update(OFFSET + 11 * S + 1, 2 * S - 60 * MS, jump_ns=-60 * MS)


def test_sensor_time_that_leaps_alone_is_a_jump_and_silence_is_none():
    clock = SensorClock()
    clock.update(OFFSET + 1 * S, 1 * S)
    assert not clock.update(OFFSET + 9 * S, 9 * S, jump_ns=8 * S)  # silence: both clocks went on
    assert clock.update(OFFSET + 10 * S, 500 * S, jump_ns=491 * S)
    assert (clock.jumps, clock.to_ros(500 * S)) == (1, OFFSET + 10 * S)


def test_one_belated_message_is_no_jump_but_three_are():
    clock = SensorClock()
    for k in range(5):
        clock.update(OFFSET + k * MS, k * MS)
    assert not clock.update(OFFSET + 5 * S, 5 * MS)
    assert not clock.update(OFFSET + 6 * MS, 6 * MS)
    assert clock.offset_ns == OFFSET
    jumps = [clock.update(OFFSET - 30 * S + k * MS, k * MS) for k in range(7, 10)]
    assert jumps == [False, False, True]
    assert clock.offset_ns == OFFSET - 30 * S


def test_times_that_are_ros_times_stay_as_they_are():
    clock = RosTimeClock()
    assert clock.to_ros(3) == 3
    assert not clock.update(OFFSET + 7 * MS, OFFSET)  # stamped when the message was complete
    assert clock.to_ros(OFFSET) == OFFSET
    assert clock.update(OFFSET - S, OFFSET - S, jump_ns=-S)
    assert not clock.update(OFFSET - S + 1, OFFSET - S + 1)
    assert (clock.jumps, clock.to_ros(OFFSET - S)) == (1, OFFSET - S)
    clock.reset()
    assert clock.to_ros(3) == 3


def test_ros_times_follow_stamps_that_a_player_has_moved():
    clock = RosTimeClock()
    for k in range(3):
        clock.update(OFFSET + k * MS, 5 * S + k * MS)
    assert clock.to_ros(6 * S) == OFFSET + S
