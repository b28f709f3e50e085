"""What benchmarks compare with: the way of others, through rclpy message objects."""

from __future__ import annotations

import numpy as np

from spike_depth_ros.events.arrays import make_events


def deserialise_event_array(cdr: bytes) -> np.ndarray:
    """Decodes a dvs_msgs/EventArray by deserialising it and reading one object per event.

    Raises:
        ImportError: no rclpy or no dvs_msgs here.
    """
    from dvs_msgs.msg import EventArray
    from rclpy.serialization import deserialize_message

    events = deserialize_message(cdr, EventArray).events
    return make_events(
        [event.ts.sec * 1_000_000_000 + event.ts.nanosec for event in events],
        [event.x for event in events],
        [event.y for event in events],
        [event.polarity for event in events],
    )
