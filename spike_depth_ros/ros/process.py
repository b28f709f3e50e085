"""A node as the one thing that a process does: from start to a signal, and out in good order."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
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


def make_executor() -> Executor:
    """The executor that leaves most of the interpreter to the node's other threads.

    The one that waits for events in C++ came with rclpy 7.1.4 (Jazzy) and 9 (Kilted). The other
    looks through all entities of the node after every message, which at 350 messages/s makes
    inference wait for the interpreter a fifth of its time.
    """
    try:
        from rclpy.experimental import EventsExecutor
    except ImportError:
        return SingleThreadedExecutor()
    return EventsExecutor()


def _spin(node: Node, is_over: Callable[[], bool]) -> None:
    executor = make_executor()
    executor.add_node(node)
    try:
        while rclpy.ok() and not is_over():
            executor.spin_once(timeout_sec=WAKE_S)
    except ExternalShutdownException:
        return
    finally:
        node.destroy_node()
        executor.shutdown()
