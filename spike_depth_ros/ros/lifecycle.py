"""A lifecycle node that survives all requested transitions."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.subscription import Subscription

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
ERROR = TransitionCallbackReturn.ERROR

Transition = Callable[[Any, LifecycleState], TransitionCallbackReturn]


def logged(transition: Transition) -> Transition:
    """Decorates a lifecycle callback to log its exceptions, which rclpy ignores."""

    @functools.wraps(transition)
    def wrapped(node: ManagedNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except Exception as error:
            node.last_error = f'{transition.__name__}: {type(error).__name__}: {error}'
            node.get_logger().fatal(traceback.format_exc())
            raise

    return wrapped


class PollingNode(Node):
    """A node that can take the messages of one subscription itself.

    Attributes:
        polled: a subscription whose messages the executor does not take; None if there is none.
    """

    polled: Subscription | None = None

    @property
    def subscriptions(self) -> Iterator[Subscription]:
        """Those that the executor is to serve."""
        return (one for one in super().subscriptions if one is not self.polled)

    def poll(self, subscription: Subscription | None) -> None:
        """Makes one subscription `polled`, and lets the executor serve the others."""
        self.polled = subscription
        if self.executor is not None:
            self.executor.wake()  # it asks for `subscriptions` then


class ManagedNode(PollingNode, LifecycleNode):
    """A lifecycle node for every rclpy from 7.1 (Jazzy) on.

    Args:
        name: of the node.
        **options: as for `rclpy.lifecycle.LifecycleNode`.

    Attributes:
        last_error: reason why the last transition failed; empty if it succeeded.
    """

    def __init__(self, name: str, **options: Any) -> None:
        self._state_machine: Any = None  # `destroy_node` runs even if the constructor fails
        self.last_error = ''
        super().__init__(name, **options)

    @property
    def state(self) -> str:
        """Label of the lifecycle state."""
        label: str = self._state_machine.current_state[1]
        return label

    def destroy_node(self) -> None:
        """Removes the node and its state machine from the graph."""
        super().destroy_node()
        if self._state_machine is not None:
            # rclpy leaves this to the garbage collector. Until then peers still see the node, and
            # after an exit they see it until its lease of 20 s ends.
            self._state_machine.destroy_when_not_in_use()

    def _LifecycleNodeMixin__change_state(self, transition_id: int) -> TransitionCallbackReturn:  # noqa: N802
        """Starts a transition; a transition that does not apply changes nothing.

        Overrides a private method of rclpy that all requests and triggers call. In rclpy 7.1 this
        method raises an RCLError through the executor, which ends the process
        (ros2/rclpy#1209).
        """
        before = self.state
        try:
            result: TransitionCallbackReturn = (
                super()._LifecycleNodeMixin__change_state(transition_id)  # type: ignore[misc]
            )
        except RuntimeError as error:  # RCLError is one
            self.get_logger().warning(
                f'lifecycle transition {transition_id} does not apply to a node that is {before}: '
                'nothing has changed'
            )
            self.get_logger().debug(str(error))
            return ERROR
        return result
