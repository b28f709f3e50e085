"""Opens RViz in the frame of the events, which depends on the camera driver."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any

from rclpy.clock import Clock, ClockType

from spike_depth_ros.events.wire import WireError, parse
from spike_depth_ros.ros.condition_log import ConditionLog
from spike_depth_ros.ros.inputs import EventInput
from spike_depth_ros.ros.lifecycle import PollingNode
from spike_depth_ros.ros.params import ParameterError
from spike_depth_ros.ros.process import run_node

WAIT_S = 10.0
"""Without events for this long RViz opens in the frame of its configuration."""

LOOK_PERIOD_S = 0.2


class FrameFinder(PollingNode):
    """Listens to the topic `events` until a message names its frame.

    Args:
        ended: set when the process is to end; not needed here.
        **options: as of `rclpy.node.Node`.

    Attributes:
        frame_id: of the first message; empty before it.
    """

    def __init__(self, ended: threading.Event | None = None, **options: Any) -> None:
        super().__init__('depth_rviz', **options)
        self.frame_id = ''
        self._until_s = time.monotonic() + WAIT_S
        self._events = EventInput(
            self,
            'auto',
            ConditionLog(self.get_logger()),
            on_type=lambda type_name: None,
            on_message=self._take,
            on_unread=lambda messages: None,
        )
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(LOOK_PERIOD_S, lambda: self._events.look(idle=False), clock=steady)
        self.get_logger().info(
            f'RViz opens with the first message on {self._events.topic}, in its frame, or in '
            f'{WAIT_S:g} s; the argument frame_id of the launch file names a frame'
        )

    @property
    def is_done(self) -> bool:
        """Whether the frame is known, or has been waited for long enough."""
        return bool(self.frame_id) or time.monotonic() > self._until_s

    def _take(self, cdr: bytes) -> None:
        try:
            self.frame_id = parse(self._events.type_name, cdr).frame_id
        except WireError:
            return


def main(arguments: list[str] | None = None) -> None:
    """Waits for the frame and becomes RViz, with the same command line."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        node: Any = run_node(FrameFinder, given, done=lambda finder: finder.is_done)
    except ParameterError as error:
        print(f'depth_rviz: {error}', file=sys.stderr)
        sys.exit(1)
    if not node.is_done:  # ended by a signal
        return
    frame = ['-f', node.frame_id] if node.frame_id else []
    try:
        os.execvp('rviz2', ['rviz2', *frame, *given])
    except OSError as error:
        print(f'depth_rviz: cannot start rviz2: {error}', file=sys.stderr)
        sys.exit(1)
