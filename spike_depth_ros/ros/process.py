"""A node as the one thing that a process does: from start to a signal, and out in good order."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

SIGNALS = (signal.SIGINT, signal.SIGTERM)
WAKE_S = 0.2


def run_node(
    make: Callable[[], Node],
    arguments: list[str] | None = None,
    done: Callable[[Any], bool] = lambda node: False,
) -> Node:
    """Makes a node and spins it until it is done, interrupted or shut down; then destroys it.

    A signal only ends the loop: rclpy's own handlers would take the context away from under the
    node's threads, and a KeyboardInterrupt may come up anywhere, even where it is ignored.

    Args:
        make: called when rclpy is ready; what it raises is passed on.
        arguments: the command line, with ROS arguments.
        done: asked several times a second.

    Returns:
        The node, destroyed.
    """
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in SIGNALS}
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = make()
        _spin(node, lambda: ended.is_set() or done(node))
    finally:
        rclpy.try_shutdown()
        for number, handler in before.items():
            signal.signal(number, handler)
    gc.freeze()  # the interpreter's last collection takes seconds when torch is loaded
    return node


def _spin(node: Node, is_over: Callable[[], bool]) -> None:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while rclpy.ok() and not is_over():
            executor.spin_once(timeout_sec=WAKE_S)
    except ExternalShutdownException:
        return
    finally:
        node.destroy_node()
        executor.shutdown()
