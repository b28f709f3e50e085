"""Plays a recording of any format to topics, in real time or at another rate.

Messages go out as the bytes that they were recorded as; only their stamp is patched in place.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile
from rosgraph_msgs.msg import Clock

from spike_depth_ros.recordings import BagError, EventSource, RawMessage, Topic, open_source
from spike_depth_ros.recordings.bag_writer import STATIC_DEPTH
from spike_depth_ros.recordings.messages import CAMERA_INFO
from spike_depth_ros.recordings.source import EVENT_PACKET
from spike_depth_ros.ros import params
from spike_depth_ros.ros.inputs import InputError, message_class
from spike_depth_ros.ros.messages import make_time
from spike_depth_ros.ros.outputs import OUTPUTS
from spike_depth_ros.ros.pacing import (
    Pace,
    Schedule,
    packet_converter,
    restamped,
    restamped_transforms,
)
from spike_depth_ros.ros.params import RELIABILITY, ParameterError
from spike_depth_ros.ros.process import run_node
from spike_depth_ros.ros.replay_parameters import ReplayParameters

SAME_BYTES = {'event_array_msgs/msg/EventArray': EVENT_PACKET}
"""Types that are on the wire what another type is."""

TRANSFORMS, STATIC_TRANSFORMS = 'tf2_msgs/msg/TFMessage', '/tf_static'
CLOCK_PERIOD_S = 0.01
SAY_PERIOD_S = 5.0
MOST_PAUSE_S = 600.0
"""A longer pause of a recording is skipped: one wrong stamp would make a player wait for years."""
SETTLED = 'is read when the node starts: start it anew'


def as_it_is(cdr: bytes) -> Iterable[bytes]:
    """Leaves a message unchanged."""
    return (cdr,)


OWN_RESULTS = tuple(output.topic.replace('~', '/depth_node') for output in OUTPUTS.values())
"""Ends of the names that depth_node publishes under."""

OF_THE_NODES = ('/diagnostics', '/rosout', '/parameter_events', '/transition_event')
"""Ends of the names of topics on which nodes report on themselves."""


class NotPlayedError(Exception):
    """Why a recorded topic is left out."""


class Channel(NamedTuple):
    """Where the messages of one recorded topic go, and how their bytes change."""

    publisher: Publisher
    restamp: Callable[[bytes, int], bytes]
    convert: Callable[[bytes], Iterable[bytes]]


class ReplayNode(Node):
    """Node `replay_node`; see `ReplayParameters`.

    The recording's events go to `events`, the calibration beside them to `camera_info`, all else
    to the topic that it was recorded from, where its message type is installed. What was latched
    is latched again; a recorded `/clock` gives way to the player's own. Left out is what would mix
    with what is played or estimated: topics that lead to where the events or their calibration go,
    results of depth_node, and reports of nodes on themselves.

    Args:
        **options: as of `rclpy.node.Node`.

    Attributes:
        pace: of the last pass; None before its end.
        finished: set when the playback has ended.
        failure: why it ended early; empty if it did not.

    Raises:
        ParameterError: an impossible parameter.
        BagError: no recording at the path, or none with events.
    """

    def __init__(self, **options: Any) -> None:
        # what destroy_node needs exists even where the constructor does not get to its end
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name='replay', daemon=True)
        super().__init__('replay_node', **options)
        params.declare(self, ReplayParameters)
        params.warn_of_unknown(self, ReplayParameters)
        self.parameters = params.read(self, ReplayParameters)
        self.parameters.check()
        self.add_on_set_parameters_callback(
            lambda changes: params.judge(self.parameters, changes, SETTLED, ReplayParameters.check)
        )
        self.pace: Pace | None = None
        self.failure = ''
        self.finished = threading.Event()
        self._clock_publisher = (
            self.create_publisher(Clock, '/clock', 10) if self.parameters.clock else None
        )
        self._clock_due_s = 0.0
        self._shift_ns = 0
        self._last_shown_ns = 0
        with self._open() as source:  # so that a damaged recording is reported at once
            self._event_topic = source.event_topic
            self._channels = self._open_channels(source.topics)
        self._thread.start()

    def destroy_node(self) -> None:
        """Ends the playback before the publishers go away."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(5.0)
        super().destroy_node()

    def _open(self) -> EventSource:
        parameters = self.parameters
        return open_source(
            parameters.path, parameters.topic or None, sensor=parameters.sensor,
            time_unit=parameters.time_unit,
        )  # fmt: skip

    def _open_channels(self, topics: tuple[Topic, ...]) -> dict[str, Channel]:
        event_topic = self._event_topic
        info = camera_info_topic(topics, event_topic)
        channels = {event_topic.name: self._event_channel(event_topic)}
        for topic in topics:
            if topic.name == event_topic.name:
                continue
            try:
                channels[topic.name] = self._side_channel(topic, topic == info)
            except NotPlayedError as error:
                self.get_logger().info(f'not played: {topic.name}, {error}')
        return channels

    def _side_channel(self, topic: Topic, is_info: bool) -> Channel:
        """For a topic beside the events, unless it would disturb those who listen to them."""
        if topic.name == '/clock' and self.parameters.clock:
            raise NotPlayedError('because this player publishes its own')
        if topic.name.endswith(OWN_RESULTS):
            raise NotPlayedError('because it is a result of depth_node from an earlier run')
        if topic.name.endswith(OF_THE_NODES):
            raise NotPlayedError('because it reports on nodes that ran during the recording')
        try:
            message = message_class(topic.type)
            target = self.resolve_topic_name('camera_info' if is_info else topic.name)
            if not is_info and target in map(self.resolve_topic_name, ('events', 'camera_info')):
                raise NotPlayedError(f'because {target} belongs to the events that are played')
            publisher = self.create_publisher(message, target, _qos(topic))
        except InputError as error:
            raise NotPlayedError(f'because {topic.type} is not installed') from error
        except InvalidTopicNameException as error:
            raise NotPlayedError('because ROS 2 allows no such topic name') from error
        return Channel(publisher, _restamp(topic.type, message), as_it_is)

    def _event_channel(self, topic: Topic) -> Channel:
        """The bag's own type where it is installed, else EventPacket."""
        type_name = SAME_BYTES.get(topic.type, topic.type)
        convert: Callable[[bytes], Iterable[bytes]] = as_it_is
        try:
            message = message_class(type_name)
        except InputError:
            message, convert = message_class(EVENT_PACKET), packet_converter(topic.type)
            self.get_logger().info(f'{topic.type} is not installed: playing {EVENT_PACKET}')
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=1000,
            reliability=RELIABILITY[self.parameters.reliability],
        )
        return Channel(self.create_publisher(message, 'events', qos), restamped, convert)

    def _run(self) -> None:
        try:
            self._await_subscriber()
            with self._open() as source:  # sqlite wants the thread that reads to be its opener
                self._play(source)
        except Exception as error:  # of any kind: a playback that ends early reports it
            if not self._stopping.is_set():
                self.failure = f'the playback broke off: {error}'
                self.get_logger().error(self.failure)
        finally:
            self.finished.set()

    def _play(self, source: EventSource) -> None:
        while not self._stopping.is_set():
            self.pace = self._play_once(source)
            if self.pace.messages == 0 and not self._stopping.is_set():
                raise BagError(
                    f'{source.path} holds no message from {self.parameters.start_s:g} s on: '
                    'give a smaller start_s, or another recording'
                )
            self.get_logger().info(self.pace.sentence(self.parameters.rate))
            if self.pace.recorded_s == 0.0:
                self.get_logger().warning(
                    f'{source.path} has no duration: all that was played is of one time, which '
                    'gives no window of events'
                )
            if not self.parameters.loop:
                return

    def _await_subscriber(self) -> None:
        until_s = time.monotonic() + self.parameters.wait_for_subscriber_s
        publisher = self._channels[self._event_topic.name].publisher
        while time.monotonic() < until_s and not self._stopping.wait(0.02):
            if publisher.get_subscription_count() > 0:
                return
        if self.parameters.wait_for_subscriber_s > 0:
            topic = publisher.topic_name
            self.get_logger().warning(f'nobody subscribes to {topic}: playing anyway')

    def _play_once(self, source: EventSource) -> Pace:
        parameters = self.parameters
        start_ns, duration_ns = (
            round(seconds * 1e9) for seconds in (parameters.start_s, parameters.duration_s)
        )
        messages = source.messages(set(self._channels), start_ns, duration_ns or None)
        schedule, said_s = None, time.monotonic()
        for message in messages:
            if schedule is None:  # opening the file is not part of the pace
                schedule = Schedule(message.stamp_ns, parameters.rate)
                self._anchor(message.stamp_ns)
            pause_s = schedule.left_s(message.stamp_ns) * parameters.rate
            if pause_s > MOST_PAUSE_S:
                self.get_logger().warning(
                    f'skipping a pause of {pause_s:.0f} s before a message on {message.topic}: '
                    'is its stamp wrong?'
                )
                schedule.skip_to(message.stamp_ns)
            if not self._wait(schedule, message.stamp_ns):
                break
            late_s = schedule.sent(message.stamp_ns)
            self._send(message)
            if late_s > 0.1 and time.monotonic() - said_s > SAY_PERIOD_S:
                said_s = time.monotonic()
                self.get_logger().warning(f'the playback is {late_s:.2f} s behind its pace')
        return schedule.pace() if schedule else Pace(0, 0.0, 0.0, 0.0)

    def _wait(self, schedule: Schedule, stamp_ns: int) -> bool:
        """Waits until a message is due, and publishes the time meanwhile; False to stop."""
        while (left_s := schedule.left_s(stamp_ns)) > 0:
            step_s = left_s if self._clock_publisher is None else min(left_s, CLOCK_PERIOD_S)
            if self._stopping.wait(step_s):
                return False
            self._tell_time(min(schedule.now_ns(), stamp_ns))
        return not self._stopping.is_set()

    def _tell_time(self, recorded_ns: int) -> None:
        now_s = time.monotonic()
        if self._clock_publisher is not None and now_s >= self._clock_due_s:
            self._clock_due_s = now_s + CLOCK_PERIOD_S
            self._clock_publisher.publish(Clock(clock=make_time(recorded_ns + self._shift_ns)))

    def _anchor(self, first_ns: int) -> None:
        """Fixes how recorded stamps become published ones, for this pass."""
        self._clock_due_s = 0.0
        if self.parameters.stamp == 'recorded':
            self._shift_ns = 0
        else:
            now_ns = time.time_ns()
            self._shift_ns = max(now_ns, self._last_shown_ns + 1) - first_ns

    def _send(self, message: RawMessage) -> None:
        channel = self._channels[message.topic]
        self._last_shown_ns = message.stamp_ns + self._shift_ns
        for cdr in channel.convert(bytes(message.cdr)):
            self._tell_time(message.stamp_ns)
            channel.publisher.publish(channel.restamp(cdr, self._shift_ns))


def camera_info_topic(topics: tuple[Topic, ...], event_topic: Topic) -> Topic | None:
    """The calibration of the event camera: the one beside the events, in the same namespace.

    Another one is of another camera, and says nothing of this lens.
    """
    folder = event_topic.name.rpartition('/')[0]
    beside = [t for t in topics if t.type == CAMERA_INFO and t.name.rpartition('/')[0] == folder]
    return beside[0] if len(beside) == 1 else None


def _qos(topic: Topic) -> QoSProfile:
    """Latched again what was; tf2 listens to static transforms in no other way."""
    static = topic.name == STATIC_TRANSFORMS
    durability = DurabilityPolicy.VOLATILE
    if static or topic.latched:
        durability = DurabilityPolicy.TRANSIENT_LOCAL
    depth = STATIC_DEPTH if static else 1 if topic.latched else 10
    return QoSProfile(depth=depth, durability=durability)


def _restamp(type_name: str, message: Any) -> Callable[[bytes, int], bytes]:
    """How the stamps in a message of that type are moved."""
    if type_name == TRANSFORMS:
        return restamped_transforms
    fields = message.get_fields_and_field_types()
    has_header = next(iter(fields.values()), '') == 'std_msgs/Header'
    return restamped if has_header else lambda cdr, _: cdr


def play(arguments: list[str] | None = None, values: dict[str, Any] | None = None) -> str:
    """Runs the node to the end of its playback, or until it is interrupted.

    Args:
        arguments: the command line, with ROS arguments.
        values: parameters by name; they go before those of the command line.

    Returns:
        Why it broke off; empty if it did not.

    Raises:
        ParameterError: an impossible parameter.
        BagError: no recording at the path, or none with events.
    """
    overrides = [Parameter(name, value=value) for name, value in (values or {}).items()]
    node: Any = run_node(
        lambda ended: ReplayNode(parameter_overrides=overrides),
        arguments,
        done=lambda node: node.finished.is_set(),
    )
    return str(node.failure)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the executable `replay_node`."""
    try:
        failure = play(arguments)
    except (ParameterError, ValueError, OSError) as error:
        print(f'replay_node: {error}', file=sys.stderr)
        sys.exit(1)
    sys.exit(1 if failure else 0)


if __name__ == '__main__':
    main()
