"""The node's event subscription, which follows the type of the topic."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any

from rclpy.exceptions import ParameterException
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.qos_overriding_options import InvalidQosOverridesError, QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo

from spike_depth_ros.events.wire import EVENT_TYPES
from spike_depth_ros.ros.condition_log import ConditionLog
from spike_depth_ros.ros.lifecycle import PollingNode
from spike_depth_ros.ros.process import NO_SUBSCRIPTION_EVENTS

EVENT_QUEUE = 1000
"""Most messages that wait in the middleware."""


class InputError(ValueError):
    """A message type that this installation cannot subscribe to."""


def message_class(type_name: str) -> Any:
    """Returns the Python class of a message type, such as 'sensor_msgs/msg/Image'.

    Raises:
        InputError: its package is not installed, or has no such message.
    """
    package, _, name = type_name.partition('/msg/')
    try:
        return getattr(importlib.import_module(f'{package}.msg'), name)
    except ImportError as error:
        raise InputError(
            f'the message package {package} is not installed, which has {type_name}: install it, '
            'or build it beside this one'
        ) from error
    except AttributeError as error:
        raise InputError(f'the installed package {package} has no message {name}') from error


def event_class(type_name: str) -> Any:
    """The Python class of a type of event messages.

    Raises:
        InputError: see `message_class`.
    """
    try:
        return message_class(type_name)
    except InputError as error:
        advice = 'or play the bag with replay_node, which publishes EventPacket'
        raise InputError(f'{error}, {advice}') from error


def event_qos() -> QoSProfile:
    """Returns the QoS of the event subscription; best effort accepts every publisher.

    It returns a new profile each time, because rclpy writes overrides from parameters into it.
    """
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=EVENT_QUEUE,
        reliability=ReliabilityPolicy.BEST_EFFORT,
    )


def qos_conflict(offered: QoSProfile, asked: QoSProfile) -> str:
    """Returns what a subscription requests that a publisher does not offer; empty if nothing.

    rclpy's own check mistakes the deadlines and leases that the graph reports for finite ones.
    """
    lacking = []
    if (offered.reliability, asked.reliability) == (
        ReliabilityPolicy.BEST_EFFORT,
        ReliabilityPolicy.RELIABLE,
    ):
        lacking.append('reliable messages, these are best effort')
    if (offered.durability, asked.durability) == (
        DurabilityPolicy.VOLATILE,
        DurabilityPolicy.TRANSIENT_LOCAL,
    ):
        lacking.append('earlier messages (transient local), these are volatile')
    return f'QoS asks for {" and ".join(lacking)}' if lacking else ''


def full_name(peer: TopicEndpointInfo) -> str:
    """Returns the fully qualified name of the node of an endpoint."""
    return f'{peer.node_namespace.rstrip("/")}/{peer.node_name}'


def _all_messages(subscription: Subscription) -> list[bytes]:
    """Takes what waits in a raw subscription that no executor serves."""
    messages: list[bytes] = []
    with subscription.handle:
        while len(messages) < EVENT_QUEUE:
            taken = subscription.handle.take_message(subscription.msg_type, True)
            if taken is None:
                break
            messages.append(taken[0])
    return messages


class EventInput:
    """Subscribes to the topic `events` as soon as its type is known.

    Args:
        node: subscribes.
        event_type: 'auto' or a key of `EVENT_TYPES`.
        log: of the node.
        on_type: called with the name of the type before the first message of that type.
        on_message: called with the bytes of each message.
        on_unread: called at each look with the messages that came while the input was idle.

    Attributes:
        topic: full name, after remapping.
        type_name: type of the present subscription; empty without one.
        problem: why there is no subscription; empty if there is one.
        peers: publishers of the topic at the last call of `look`.
    """

    def __init__(
        self,
        node: PollingNode,
        event_type: str,
        log: ConditionLog,
        on_type: Callable[[str], None],
        on_message: Callable[[bytes], None],
        on_unread: Callable[[list[bytes]], None],
    ) -> None:
        self.topic = node.resolve_topic_name('events')
        self.type_name = ''
        self.problem = 'waiting for a publisher'
        self.peers: list[TopicEndpointInfo] = []
        self._node, self._event_type, self._log = node, event_type, log
        self._on_type, self._on_message, self._on_unread = on_type, on_message, on_unread
        self._subscription: Subscription | None = None

    def look(self, idle: bool) -> None:
        """Looks for publishers of the topic; call it periodically while the node is active.

        Args:
            idle: the messages are not needed. They are then taken all at once, at the next look,
                which costs a fraction of the processor time of an executor that wakes for each.
                Those that wait when it ends go to `on_message`.
        """
        self._look_at_graph()
        polled = self._subscription if idle else None
        if polled is not self._node.polled:
            self._node.poll(polled)
        elif polled is not None:
            self._on_unread(_all_messages(polled))

    def _look_at_graph(self) -> None:
        self.peers = self._node.get_publishers_info_by_topic(self.topic)
        offered = {peer.topic_type for peer in self.peers}
        if self.type_name and (not offered or self.type_name in offered):
            return
        accepted = set(EVENT_TYPES) if self._event_type == 'auto' else {self._event_type}
        found = sorted(offered & accepted)
        if found:
            self._subscribe(found[0])
        elif offered:
            self.close()
            self._complain(
                f'{self.topic} has the type {", ".join(sorted(offered))}, '
                f'expected {" or ".join(sorted(accepted))}'
            )

    def unheard(self) -> Iterator[str]:
        """Yields one sentence for each publisher whose QoS is incompatible."""
        if self._subscription is not None:
            for peer in self.peers:
                reason = qos_conflict(peer.qos_profile, self._subscription.qos_profile)
                if reason:
                    yield f'{self.topic} is not heard from {full_name(peer)}: {reason}'

    def close(self) -> None:
        """Ends the subscription."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._node.poll(None)
        self._subscription, self.type_name = None, ''

    def _take(self, type_name: str, cdr: bytes) -> None:
        if type_name == self.type_name:  # an executor may still hold messages of the former type
            self._on_message(cdr)

    def _complain(self, problem: str) -> None:
        self._log.error('events', problem)
        self.problem = problem

    def _subscribe(self, type_name: str) -> None:
        try:
            message = event_class(type_name)
        except InputError as error:
            self._complain(str(error))
            return
        self.close()
        try:
            self._subscription = self._node.create_subscription(
                message,
                'events',
                functools.partial(self._take, type_name),
                event_qos(),
                raw=True,
                event_callbacks=NO_SUBSCRIPTION_EVENTS,
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
        except (InvalidQosOverridesError, ParameterException, RuntimeError, ValueError) as error:
            self._complain(f'qos_overrides of {self.topic} cannot be met: {error}')
            return
        self._on_type(type_name)
        self.type_name, self.problem = type_name, ''
        self._log.info('events', f'subscribed to {self.topic} as {type_name}')
