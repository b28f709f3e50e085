"""A node as the one thing that a process does: from start to a signal, and out in good order."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from spike_depth_ros.ros.params import ParameterError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
WAKE_S = 0.2

NO_PUBLISHER_EVENTS = PublisherEventCallbacks(use_default_callbacks=False)
NO_SUBSCRIPTION_EVENTS = SubscriptionEventCallbacks(use_default_callbacks=False)
"""rclpy's own handlers only warn of peers whose QoS does not fit, which `Health` does."""


def run_node(
    make: Callable[[], Node],
    arguments: list[str] | None = None,
    done: Callable[[Any], bool] = lambda node: False,
    make_executor: Callable[[Any], Executor] = lambda node: SingleThreadedExecutor(),
) -> Node:
    """Makes a node and spins it until it is done, interrupted or shut down; then destroys it.

    A signal only ends the loop: rclpy's own handlers would take the context away from under the
    node's threads, and a KeyboardInterrupt may come up anywhere, even where it is ignored.

    Args:
        make: called when rclpy is ready; what it raises is passed on.
        arguments: the command line, with ROS arguments.
        done: asked several times a second.
        make_executor: makes what spins the node that it is given.

    Returns:
        The node, destroyed.

    Raises:
        ParameterError: ROS arguments that cannot be, such as a params file that is not there.
    """
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in SIGNALS}
    try:
        _init(arguments)
        node = make()
        _spin(node, make_executor, lambda: ended.is_set() or done(node))
    finally:
        rclpy.try_shutdown()
        for number, handler in before.items():
            signal.signal(number, handler)
    gc.freeze()  # the interpreter's last collection takes seconds when torch is loaded
    return node


def quick_executor() -> Executor:
    """The executor that leaves most of the interpreter to the node's other threads.

    The one that waits for events in C++ came with rclpy 7.1.4 (Jazzy) and 9 (Kilted). The other
    looks through all entities of the node after every message, which at 350 messages/s makes
    inference wait for the interpreter a fifth of its time.

    It crashes when a publisher or subscription that has handlers of QoS events is destroyed while
    one of these arrives (ros2/rclpy#1644): a node that is spun by it must create what it destroys
    before its end with `NO_PUBLISHER_EVENTS` or `NO_SUBSCRIPTION_EVENTS`.
    """
    try:
        from rclpy.experimental import EventsExecutor

        return EventsExecutor()
    except (ImportError, AttributeError, OSError, RuntimeError):  # it also wants a real stderr
        return SingleThreadedExecutor()


def _init(arguments: list[str] | None) -> None:
    try:
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:
        reason = str(error).partition(', at ')[0]
        raise ParameterError(f'the ROS arguments cannot be used: {reason}') from error


def _spin(
    node: Node, make_executor: Callable[[Any], Executor], is_over: Callable[[], bool]
) -> None:
    executor = make_executor(node)
    executor.add_node(node)
    context = node.context
    try:
        while context.ok() and not is_over():
            executor.spin_once(timeout_sec=WAKE_S)
    except ExternalShutdownException:
        return
    finally:
        executor.remove_node(node)
        node.destroy_node()
        executor.shutdown()
