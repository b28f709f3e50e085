"""Plays a recording of any format to topics, in real time or at another rate.

Messages go out as the bytes that they were recorded as; only their stamp is patched in place.
"""

from __future__ import annotations

import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import HistoryPolicy, QoSProfile
from rosgraph_msgs.msg import Clock

from spike_depth_ros.bags import EventSource, RawMessage, Topic, open_source
from spike_depth_ros.codecs import encode_mono
from spike_depth_ros.ros import params
from spike_depth_ros.ros.inputs import InputError, message_class
from spike_depth_ros.ros.messages import make_time
from spike_depth_ros.ros.params import RELIABILITY, ParameterError
from spike_depth_ros.ros.replay_parameters import ReplayParameters
from spike_depth_ros.wire import EventStream, Packet, pack_event_packet

EVENT_PACKET = 'event_camera_msgs/msg/EventPacket'
SAME_BYTES = {'event_array_msgs/msg/EventArray': EVENT_PACKET}
"""Types that are on the wire what another type is."""

CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
STAMP = struct.Struct('<iI')
STAMP_OFFSET = 4  # behind the encapsulation header of every message that begins with a Header
CLOCK_PERIOD_S = 0.005
SAY_PERIOD_S = 5.0

FAULTS = (ValueError, OSError, RuntimeError)


class Channel(NamedTuple):
    """Where the messages of one recorded topic go, and how their bytes change."""

    publisher: Publisher
    has_header: bool
    convert: Callable[[bytes], bytes | None]


class Pace(NamedTuple):
    """How a playback went."""

    messages: int
    recorded_s: float
    took_s: float
    largest_lag_s: float

    def sentence(self, rate: float) -> str:
        """Whether the pace was kept, and if not, by how much."""
        played = f'{self.messages} messages, {self.recorded_s:.2f} s of recording'
        wanted_s = self.recorded_s / rate
        late = self.took_s - wanted_s
        if late <= max(0.02, 0.01 * wanted_s):
            verdict = f'the pace was kept (largest lag {1e3 * self.largest_lag_s:.1f} ms)'
        else:
            verdict = f'{late:.2f} s too slow (largest lag {1e3 * self.largest_lag_s:.0f} ms)'
        return f'played {played} in {self.took_s:.2f} s: {verdict}'


class ReplayNode(Node):
    """Node `replay_node`; see `ReplayParameters`.

    The recording's events go to `events`, the calibration beside them to `camera_info`, all else
    to the topic that it was recorded from, where its message type is installed.

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
        self.parameters = params.read(self, ReplayParameters)
        self.parameters.check()
        self.add_on_set_parameters_callback(
            lambda changes: params.judge(self.parameters, changes, configured=True)
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
        with self._open() as source:  # what is wrong with it is told at once
            self._event_topic = source.event_topic
            self._channels = self._open_channels(source.topics)
        self._thread.start()

    def destroy_node(self) -> None:
        """Ends the playback before the publishers go away."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(5.0)
        super().destroy_node()

    # ------------------------------------------------------------------ topics

    def _open(self) -> EventSource:
        return open_source(self.parameters.path, self.parameters.topic or None)

    def _open_channels(self, topics: tuple[Topic, ...]) -> dict[str, Channel]:
        event_topic = self._event_topic
        info = camera_info_topic(topics, event_topic)
        channels = {event_topic.name: self._event_channel(event_topic)}
        for topic in topics:
            if topic.name == event_topic.name:
                continue
            target = 'camera_info' if topic == info else topic.name
            try:
                message = message_class(topic.type)
            except InputError:
                self.get_logger().info(f'not played: {topic.name}, {topic.type} is not installed')
                continue
            publisher = self.create_publisher(message, target, 10)
            channels[topic.name] = Channel(publisher, _has_header(message), bytes)
        return channels

    def _event_channel(self, topic: Topic) -> Channel:
        """The bag's own type where it is installed, else EventPacket."""
        type_name = SAME_BYTES.get(topic.type, topic.type)
        convert: Callable[[bytes], bytes | None] = bytes
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
        return Channel(self.create_publisher(message, 'events', qos), True, convert)

    # ------------------------------------------------------------------ the playing thread

    def _run(self) -> None:
        try:
            self._await_subscriber()
            with self._open() as source:  # sqlite wants the thread that reads to be its opener
                self._play(source)
        except FAULTS as error:
            if not self._stopping.is_set():
                self.failure = f'the playback broke off: {error}'
                self.get_logger().error(self.failure)
        finally:
            self.finished.set()

    def _play(self, source: EventSource) -> None:
        while not self._stopping.is_set():
            self.pace = self._play_once(source)
            self.get_logger().info(self.pace.sentence(self.parameters.rate))
            if not self.parameters.loop or self.pace.messages == 0:
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
        duration_ns = round(parameters.duration_s * 1e9) or None
        messages = source.messages(
            set(self._channels), round(parameters.start_s * 1e9), duration_ns
        )
        first_ns = newest_ns = None
        count, lag_s = 0, 0.0
        start_s = said_s = time.monotonic()
        for message in messages:
            if first_ns is None:
                first_ns = message.stamp_ns
                start_s = time.monotonic()  # opening the file is not part of the pace
                self._anchor(first_ns)
            newest_ns = message.stamp_ns
            due_s = start_s + (message.stamp_ns - first_ns) / 1e9 / parameters.rate
            if self._stopping.wait(max(0.0, due_s - time.monotonic())):
                break
            late_s = time.monotonic() - due_s
            lag_s = max(lag_s, late_s)
            if late_s > 0.1 and time.monotonic() - said_s > SAY_PERIOD_S:
                said_s = time.monotonic()
                self.get_logger().warning(f'the playback is {late_s:.2f} s behind its pace')
            self._send(message)
            count += 1
        recorded_s = ((newest_ns or 0) - (first_ns or 0)) / 1e9
        return Pace(count, recorded_s, time.monotonic() - start_s, lag_s)

    def _anchor(self, first_ns: int) -> None:
        """Fixes how recorded stamps become published ones, for this pass."""
        if self.parameters.stamp == 'recorded':
            self._shift_ns = 0
        else:
            now_ns = time.time_ns()
            self._shift_ns = max(now_ns, self._last_shown_ns + 1) - first_ns

    def _send(self, message: RawMessage) -> None:
        channel = self._channels[message.topic]
        cdr = channel.convert(bytes(message.cdr))
        if cdr is None:
            return
        if channel.has_header:
            cdr = restamped(cdr, self._shift_ns)
        self._last_shown_ns = message.stamp_ns + self._shift_ns
        if self._clock_publisher is not None and time.monotonic() >= self._clock_due_s:
            self._clock_due_s = time.monotonic() + CLOCK_PERIOD_S
            self._clock_publisher.publish(Clock(clock=make_time(self._last_shown_ns)))
        channel.publisher.publish(cdr)


def restamped(cdr: bytes, shift_ns: int) -> bytes:
    """Moves the header stamp of a message; a stamp of zero stays zero.

    Args:
        cdr: a message that begins with a std_msgs/Header.
        shift_ns: added to the stamp.
    """
    seconds, nanoseconds = STAMP.unpack_from(cdr, STAMP_OFFSET)
    stamp_ns = seconds * 1_000_000_000 + nanoseconds
    if stamp_ns == 0 or shift_ns == 0:
        return cdr
    moved = STAMP.pack(*divmod(stamp_ns + shift_ns, 1_000_000_000))
    return b''.join((cdr[:STAMP_OFFSET], moved, cdr[STAMP_OFFSET + STAMP.size :]))


def packet_converter(type_name: str) -> Callable[[bytes], bytes | None]:
    """A function from messages of a legacy type to EventPackets of encoding mono."""
    stream = EventStream(type_name)
    seq = 0

    def convert(cdr: bytes) -> bytes | None:
        nonlocal seq
        fed = stream.feed(cdr)
        if fed is None or len(fed[1].events) == 0:
            return None
        packet, decoded = fed
        base_ns = int(decoded.events['t_ns'].min())
        payload = encode_mono(decoded.events, base_ns)
        seq += 1
        return pack_event_packet(Packet(
            packet.stamp_ns, packet.frame_id, packet.height, packet.width, seq, base_ns,
            'mono', memoryview(payload),  # type: ignore[arg-type]
        ))  # fmt: skip

    return convert


def camera_info_topic(topics: tuple[Topic, ...], event_topic: Topic) -> Topic | None:
    """The calibration that belongs to the events: the one beside them, else the only one."""
    infos = [topic for topic in topics if topic.type == CAMERA_INFO]
    folder = event_topic.name.rpartition('/')[0]
    beside = [topic for topic in infos if topic.name.rpartition('/')[0] == folder]
    candidates = beside or infos
    return candidates[0] if len(candidates) == 1 else None


def _has_header(message: Any) -> bool:
    fields = message.get_fields_and_field_types()
    return next(iter(fields.values()), '') == 'std_msgs/Header'


def play(arguments: list[str] | None = None, **options: Any) -> str:
    """Runs the node to the end of its playback, or until it is interrupted.

    Args:
        arguments: the command line, with ROS arguments.
        **options: as of `rclpy.node.Node`.

    Returns:
        Why it broke off; empty if it did not.

    Raises:
        ParameterError: an impossible parameter.
        BagError: no recording at the path, or none with events.
    """
    rclpy.init(args=arguments)
    node = None
    try:
        node = ReplayNode(**options)
        while not node.finished.is_set():
            rclpy.spin_once(node, timeout_sec=0.1)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return node.failure if node is not None else ''


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
