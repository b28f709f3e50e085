"""`spike_depth replay`: plays any event source to a ROS 2 topic, without `ros2 run`."""

from __future__ import annotations


def replay(
    path: str,
    to: str = '/event_camera/events',
    topic: str = '',
    rate: float = 1.0,
    loop: bool = False,
    start_s: float = 0.0,
    duration_s: float = 0.0,
    clock: bool = False,
    stamp: str = 'now',
    wait_for_subscriber_s: float = 0.0,
    reliability: str = 'reliable',
    sensor: str = '',
    time_unit: str = '',
) -> None:
    """Plays a bag, a DSEC folder or any event file that `convert` takes in real time.

    The calibration recorded beside the events goes to `camera_info` beside `to`, everything
    else to the topic that it was recorded from. Says at the end whether the pace was kept.

    Args:
        path: the recording.
        to: topic of the events.
        topic: event topic in a recording that has several.
        rate: speed; 1 is real time.
        loop: start again at the end.
        start_s: skip this much at the beginning.
        duration_s: stop after this much of the recording; 0: at its end.
        clock: publish /clock, for nodes with use_sim_time.
        stamp: now, as from a live camera, or recorded.
        wait_for_subscriber_s: wait at most this long for a subscriber before the first message.
        reliability: QoS of the events: reliable, or best_effort as camera drivers use.
        sensor: size of the sensor where the recording does not state it: WIDTHxHEIGHT.
        time_unit: s, ms, us or ns, where the times of an HDF5 file do not show it.
    """
    from spike_depth_ros.ros.replay_node import play

    beside = f'{to.rpartition("/")[0]}/camera_info'
    remaps = ['-r', f'events:={to}', '-r', f'camera_info:={beside}']
    failure = play(['--ros-args', *remaps], values={
        'path': path, 'topic': topic, 'rate': rate, 'loop': loop, 'start_s': start_s,
        'duration_s': duration_s, 'clock': clock, 'stamp': stamp,
        'wait_for_subscriber_s': wait_for_subscriber_s, 'reliability': reliability,
        'sensor': sensor, 'time_unit': time_unit,
    })  # fmt: skip
    if failure:
        raise OSError(failure)
