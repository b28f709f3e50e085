"""Runs a node as a process, from the start to an orderly end after a signal."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import rclpy
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from spike_depth_ros.ros.condition_log import logging_to_node
from spike_depth_ros.ros.params import ParameterError

T = TypeVar('T')

SIGNALS = (signal.SIGINT, signal.SIGTERM)
WAKE_S = 0.2

GRACE_S = 0.8
"""Time after a signal after which a process that has not ended is terminated."""

NO_PUBLISHER_EVENTS = PublisherEventCallbacks(use_default_callbacks=False)
NO_SUBSCRIPTION_EVENTS = SubscriptionEventCallbacks(use_default_callbacks=False)
"""rclpy's default handlers only warn of peers with incompatible QoS, as `Health` does."""


class InterruptedBySignalError(Exception):
    """The process must end; the current work was cancelled."""


def run_node(
    make: Callable[[threading.Event], Node],
    arguments: list[str] | None = None,
    done: Callable[[Any], bool] = lambda node: False,
    make_executor: Callable[[Any], Executor] = lambda node: SingleThreadedExecutor(),
) -> Node:
    """Creates a node, spins it until it is done, interrupted or shut down, and destroys it.

    A signal only ends the loop. rclpy's own handlers would destroy the context while threads of
    the node use it, and a KeyboardInterrupt may be raised anywhere, even where it is ignored.

    Args:
        make: creates the node when rclpy is ready, given an event that a signal sets; its
            exceptions are passed on.
        arguments: the command line with ROS arguments.
        done: returns True when the node is done; called several times per second.
        make_executor: creates the executor of a node.

    Returns:
        The node, destroyed.

    Raises:
        ParameterError: ROS arguments that cannot be used, such as a params file that is missing.
    """
    with _signals() as ended:
        try:
            _init(arguments)
            node = make(ended)
            with logging_to_node(node.get_logger()):
                _spin(node, make_executor, lambda: ended.is_set() or done(node))
        finally:
            rclpy.try_shutdown()
    gc.freeze()  # otherwise the last garbage collection takes seconds when torch is loaded
    return node


def run_interruptibly(work: Callable[[], T], ended: threading.Event) -> T:
    """Runs long work in a thread, so that the end of the process does not wait for it.

    Raises:
        InterruptedBySignalError: `ended` was set first; the work continues in its thread.
        Exception: an exception of the work.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    over = threading.Event()

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)
        finally:
            over.set()

    threading.Thread(target=run, name='long work', daemon=True).start()
    while not over.wait(0.02):
        if ended.is_set():
            raise InterruptedBySignalError
    if errors:
        raise errors[0]
    return results[0]


def trim_memory() -> None:
    """Gives freed memory back to the system, which glibc keeps for the threads that used it.

    Loading a network and a lifecycle cycle leave more than 100 MB of it behind.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def executor_for(choice: str, log: Any) -> Executor:
    """What spins a node: for 'auto' the quick executor, where rclpy has it, else the plain one."""
    return quick_executor(log) if choice == 'auto' else SingleThreadedExecutor()


def quick_executor(log: Any = None) -> Executor:
    """Returns the executor that holds the GIL least.

    The events executor waits in C++; it exists from rclpy 7.1.4 (Jazzy) and 9 (Kilted) on. The
    single-threaded executor iterates over all entities of the node after every message; at 350
    messages/s inference would wait for the GIL during a fifth of its time.

    The events executor crashes if a publisher or subscription with handlers of QoS events is
    destroyed while such an event arrives (ros2/rclpy#1644). Entities that a node destroys before
    its end must therefore use `NO_PUBLISHER_EVENTS` or `NO_SUBSCRIPTION_EVENTS`.

    Args:
        log: logger of the node, for a warning if rclpy has no such executor.
    """
    try:  # it needs a real stderr, too
        from rclpy.experimental import EventsExecutor

        return EventsExecutor()
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        if log is not None:
            log.warning(
                f'no events executor ({error}): using the single-threaded one, which leaves less '
                'processor time to inference'
            )
        return SingleThreadedExecutor()


@contextlib.contextmanager
def _signals() -> Iterator[threading.Event]:
    """Sets an event on a signal, and terminates the process if the block does not end soon after.

    A thread reads the signals, because the main thread may be busy in native code.
    """
    ended, left = threading.Event(), threading.Event()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def watch() -> None:
        while os.read(reader, 1) not in (b'', *(bytes([number]) for number in SIGNALS)):
            pass
        ended.set()
        if not left.wait(GRACE_S):
            print('ended by a signal during long work', file=sys.stderr, flush=True)
            os._exit(0)
        os.close(reader)

    threading.Thread(target=watch, name='signals', daemon=True).start()
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in SIGNALS}
    try:
        yield ended
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        left.set()
        os.close(writer)  # ends the thread


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
