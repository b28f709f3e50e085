"""The node's half of a bond with a lifecycle manager, such as that of Nav2.

A lifecycle manager listens for the heartbeats of the nodes that it has activated and brings its
nodes down when one ceases. The protocol is that of bond_core: both sides publish their state on
one topic under a common id, and the side that ends the bond says so.
"""

from __future__ import annotations

import functools
import uuid
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from spike_depth_ros.ros.inputs import message_class
from spike_depth_ros.ros.process import NO_PUBLISHER_EVENTS, NO_SUBSCRIPTION_EVENTS

STATUS = 'bond/msg/Status'
TIMEOUT_S = 4.0
"""How long the other side may be silent, as Nav2 has it; it is only told to the other side."""


class Bond:
    """Publishes heartbeats from its creation until it is closed or the other side ends it.

    The topic is `bond` and the id is the name of the node, as Nav2 expects them.

    Args:
        node: publishes.
        period_s: time between two heartbeats [s].

    Raises:
        InputError: the message package bond is not installed.
    """

    def __init__(self, node: Node, period_s: float) -> None:
        self._node, self._period_s = node, period_s
        self._status = message_class(STATUS)
        self._instance = str(uuid.uuid4())
        self._publisher = node.create_publisher(
            self._status, 'bond', 5, event_callbacks=NO_PUBLISHER_EVENTS
        )
        self._subscription = node.create_subscription(
            self._status, 'bond', self._take, 100, event_callbacks=NO_SUBSCRIPTION_EVENTS
        )
        self._timer = node.create_timer(
            period_s,
            functools.partial(self._publish, True),
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    def close(self) -> None:
        """Ends the bond."""
        self._publish(False)
        self._node.destroy_timer(self._timer)
        self._node.destroy_subscription(self._subscription)
        self._node.destroy_publisher(self._publisher)

    def _take(self, status: Any) -> None:
        """Agrees to the end of the bond: the other side waits for that."""
        is_other = status.id == self._node.get_name() and status.instance_id != self._instance
        if is_other and not status.active:
            self._timer.cancel()
            self._publish(False)

    def _publish(self, active: bool) -> None:
        status = self._status(
            id=self._node.get_name(),
            instance_id=self._instance,
            active=active,
            heartbeat_timeout=TIMEOUT_S,
            heartbeat_period=self._period_s,
        )
        status.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(status)
