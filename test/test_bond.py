"""The bond of the depth node with a lifecycle manager, in the protocol of bondcpp."""

import sys

import pytest
from bond.msg import Status
from graph import RELIABLE, overrides
from rclpy.lifecycle import TransitionCallbackReturn

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class Manager:
    """The side of the manager: it publishes on the same topic and notes what others publish."""

    def __init__(self, graph, topic='/bond'):
        self.publisher = graph.camera.create_publisher(Status, topic, RELIABLE)
        self.heard = []
        graph.camera.create_subscription(Status, topic, self._note, RELIABLE)

    def _note(self, status):
        if status.instance_id != 'manager':
            self.heard.append(status)

    def says(self, active, node='depth_node'):
        self.publisher.publish(Status(id=node, instance_id='manager', active=active))

    def alive(self):
        return [status.active for status in self.heard]


def test_without_the_parameter_there_is_no_bond(graph, start):
    start()
    assert graph.camera.count_publishers('/bond') == 0


def test_heartbeats_come_while_the_node_is_active(graph, start):
    manager, node = Manager(graph), start(activate=False, bond_period_s=0.05)
    graph.spin_for(0.2)
    assert manager.heard == []
    assert node.trigger_activate() == SUCCESS
    assert graph.spin_until(lambda: len(manager.heard) >= 5)
    assert node.trigger_deactivate() == SUCCESS
    assert graph.spin_until(lambda: not manager.alive()[-1])
    assert set(manager.alive()[:-1]) == {True}
    graph.spin_for(0.2)
    assert manager.alive().count(False) == 1, 'it is silent afterwards'
    assert {status.id for status in manager.heard} == {'depth_node'}
    assert manager.heard[0].heartbeat_period == pytest.approx(0.05)
    (first,) = {status.instance_id for status in manager.heard}
    del manager.heard[:]
    assert node.trigger_activate() == SUCCESS
    assert graph.spin_until(lambda: len(manager.heard) >= 2)
    assert first not in {status.instance_id for status in manager.heard}


def test_an_end_by_the_manager_is_answered_and_leaves_the_node_active(graph, start):
    manager, node = Manager(graph), start(bond_period_s=0.05)
    assert graph.spin_until(lambda: len(manager.heard) >= 2)
    manager.says(True)
    manager.says(False, node='another_node')
    del manager.heard[:]
    assert graph.spin_until(lambda: len(manager.heard) >= 3)
    assert set(manager.alive()) == {True}, 'neither ends the bond'
    manager.says(False)
    assert graph.spin_until(lambda: not manager.alive()[-1])
    del manager.heard[:]
    graph.spin_for(0.2)
    assert manager.heard == []
    assert node.state == 'active'


def test_the_topic_is_in_the_namespace_of_the_node(graph, start):
    manager = Manager(graph, '/robot/bond')
    start(bond_period_s=0.05, cli_args=['--ros-args', '-r', '__ns:=/robot'])
    assert graph.spin_until(lambda: manager.heard)


def test_without_the_message_package_the_node_says_so(start, monkeypatch):
    monkeypatch.setitem(sys.modules, 'bond.msg', None)
    node = start(configure=False, bond_period_s=0.25)
    assert node.trigger_configure() == FAILURE
    assert 'the message package bond is not installed' in node.last_error
    assert node.set_parameters(overrides({'bond_period_s': 0.0}))[0].successful
    assert node.trigger_configure() == SUCCESS


def test_an_impossible_period_is_refused(start):
    (refused,) = start(configure=False).set_parameters(overrides({'bond_period_s': -1.0}))
    assert not refused.successful
    assert 'bond_period_s' in refused.reason
