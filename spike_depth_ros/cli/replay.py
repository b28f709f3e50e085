"""`spike_depth replay`: publishes any event source on a ROS 2 topic, without `ros2 run`."""

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
    """Plays a bag, a DSEC folder or any event file that `convert` reads in real time.

    The recorded calibration is published on `camera_info` next to the topic `to`, all other data
    on the topics it was recorded from. At the end a summary states whether the playback rate was
    kept.

    Args:
        path: the recording.
        to: topic to publish the events on.
        topic: event topic in a recording that has several.
        rate: playback rate; 1 is real time.
        loop: start again at the end.
        start_s: number of seconds to skip.
        duration_s: number of seconds of the recording to play; 0: all.
        clock: publish /clock, for nodes with use_sim_time.
        stamp: now (as from a live camera) or recorded.
        wait_for_subscriber_s: maximum time to wait for a subscriber before the first message.
        reliability: QoS of the events: reliable, or best_effort as in camera drivers.
        sensor: sensor size WIDTHxHEIGHT, if the recording does not state it.
        time_unit: s, ms, us or ns, if the unit of an HDF5 file cannot be inferred.
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
