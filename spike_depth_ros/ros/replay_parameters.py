"""The parameters of `replay_node`."""

from __future__ import annotations

import dataclasses

from spike_depth_ros.ros.params import RELIABILITY, ParameterError, parameter


@dataclasses.dataclass(frozen=True)
class ReplayParameters:
    """Parameters of `replay_node`."""

    path: str = parameter(
        '', 'What to play: a bag, a DSEC folder, any event file that convert takes.'
    )
    rate: float = parameter(1.0, 'Speed: 1 is real time.', low=0.001, high=1000.0)
    loop: bool = parameter(False, 'Start again at the end.')
    start_s: float = parameter(0.0, 'Skip this much at the beginning [s].', low=0.0, high=1e9)
    duration_s: float = parameter(
        0.0, 'Stop after this much of the recording [s]; 0: at its end.', low=0.0, high=1e9
    )
    clock: bool = parameter(False, 'Publish /clock, for nodes with use_sim_time.')
    stamp: str = parameter(
        'now',
        'Stamps: now moves them so that the first is the present time; recorded leaves them.',
        choices=('now', 'recorded'),
    )
    topic: str = parameter('', 'Event topic of a recording that has several; empty: the only one.')
    sensor: str = parameter(
        '', 'Size of the sensor where the recording does not state it: WIDTHxHEIGHT.'
    )
    time_unit: str = parameter(
        '',
        'Unit of the times of an HDF5 file that does not show it; empty: find out.',
        choices=('', 's', 'ms', 'us', 'ns'),
    )
    wait_for_subscriber_s: float = parameter(
        0.0,
        "Wait this long for somebody to subscribe to 'events' before the first message [s].",
        low=0.0,
        high=3600.0,
    )
    reliability: str = parameter(
        'reliable',
        'QoS of the events; reliable suits every subscriber, best_effort is what cameras use.',
        choices=tuple(RELIABILITY),
    )

    def check(self) -> None:
        """Raises a ValueError if parameters contradict each other."""
        if not self.path:
            raise ParameterError('path is empty, expected a recording: path:=/data/my_bag')
