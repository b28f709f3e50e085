"""A small ROS 2 graph for tests: real rclpy, real DDS, on this machine and in this run alone."""

import time

import numpy as np
import rclpy
from event_camera_msgs.msg import EventPacket
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy

from spike_depth_ros.events.arrays import make_events
from spike_depth_ros.events.codecs import encode_event_array, encode_mono
from spike_depth_ros.events.wire import Packet, pack_event_array, pack_event_packet
from spike_depth_ros.ros.process import quick_executor

HEIGHT, WIDTH = 48, 64
FRAME = 'camera_optical_frame'
EPOCH_NS = 1_700_000_000_000_000_000
MS = 1_000_000

BEST_EFFORT = QoSProfile(depth=1000, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)


class Graph:
    """Nodes of one test, spun in one thread; all is gone at the end."""

    def __init__(self):
        rclpy.init()
        self.executor, self.quick = SingleThreadedExecutor(), quick_executor()
        self.nodes, self.strangers, self.contexts = [], [], []
        self.camera = self.add(rclpy.create_node('camera'))

    def add(self, node, quick=False):
        """Takes a node in; `quick`: it is spun as `depth_node` spins itself."""
        (self.quick if quick else self.executor).add_node(node)
        self.nodes.append(node)
        return node

    def stranger(self):
        """A node in a context of its own, as in another process.

        A topic has one type within a context; strangers may disagree about it.
        """
        context = rclpy.Context()
        rclpy.init(context=context)
        self.contexts.append(context)
        node = rclpy.create_node('stranger', context=context)
        self.strangers.append(node)
        return node

    def spin_until(self, done, timeout_s=60.0):
        """Spins until `done()`; says whether it came true. A busy machine may take its time."""
        until_s = time.monotonic() + timeout_s
        while time.monotonic() < until_s:
            if done():
                return True
            self.spin_once(0.02)
        return bool(done())

    def spin_once(self, timeout_s):
        """Lets each executor do what is next, if anything."""
        for executor in (self.executor, self.quick):
            executor.spin_once(timeout_sec=timeout_s / 2)

    def spin_for(self, seconds):
        self.spin_until(lambda: False, seconds)

    def listen(self, message_type, topic, qos=RELIABLE):
        """Subscribes; returns the list that the messages go into."""
        messages = []
        self.camera.create_subscription(message_type, topic, messages.append, qos)
        return messages

    def call(self, service_type, name, **fields):
        client = self.camera.create_client(service_type, name)
        assert self.spin_until(client.service_is_ready), f'no service {name}'
        future = client.call_async(service_type.Request(**fields))
        assert self.spin_until(future.done), f'{name} does not answer'
        self.camera.destroy_client(client)
        return future.result()

    def close(self):
        for node in reversed([*self.strangers, *self.nodes]):
            node.destroy_node()
        for context in self.contexts:
            rclpy.shutdown(context=context)
        self.executor.shutdown()
        self.quick.shutdown()
        rclpy.try_shutdown()


def overrides(values):
    return [Parameter(name, value=value) for name, value in values.items()]


def some_events(start_ms, end_ms, count=400, seed=0, height=HEIGHT, width=WIDTH):
    """Random events in [start_ms, end_ms) of sensor time, in order; the first is at the start."""
    rng = np.random.default_rng([seed, start_ms])
    times = np.sort(rng.integers(start_ms * MS, end_ms * MS, count))
    times[0] = start_ms * MS
    x, y = rng.integers(0, width, count), rng.integers(0, height, count)
    return make_events(times, x, y, rng.integers(0, 2, count))


def event_packet(events, seq=0, **fields):
    """CDR bytes of an EventPacket whose stamp is EPOCH_NS later than its first event."""
    first_ns = int(events['t_ns'].min())
    values = {
        'stamp_ns': EPOCH_NS + first_ns,
        'frame_id': FRAME,
        'height': HEIGHT,
        'width': WIDTH,
        'seq': seq,
        'time_base_ns': first_ns,
        'encoding': 'mono',
        'payload': np.frombuffer(encode_mono(events, first_ns), np.uint8),
    }
    return pack_event_packet(Packet(**{**values, **fields}))


def event_array(events):
    """CDR bytes of a legacy EventArray with the same events."""
    payload = np.frombuffer(encode_event_array(events), np.uint8)
    stamp_ns = int(events['t_ns'].min())
    return pack_event_array(
        Packet(stamp_ns, FRAME, HEIGHT, WIDTH, None, 0, 'event_array', payload)
    )


class Driver:
    """A camera driver: publishes packets of 5 ms each."""

    def __init__(
        self, graph, message_type=EventPacket, pack=event_packet, node=None, qos=BEST_EFFORT
    ):
        self.graph, self.pack, self.now_ms = graph, pack, 0
        node = node or graph.camera
        self.publisher = node.create_publisher(message_type, 'events', qos)

    def ready(self):
        return self.graph.spin_until(lambda: self.publisher.get_subscription_count() > 0)

    def send(self, duration_ms):
        """Publishes the next `duration_ms` of events and returns them."""
        assert self.ready(), 'the node does not subscribe'
        sent = []
        for start_ms in range(self.now_ms, self.now_ms + duration_ms, 5):
            sent.append(some_events(start_ms, start_ms + 5))
            self.publisher.publish(self.pack(sent[-1]))
            self.graph.spin_once(0)
        self.now_ms += duration_ms
        return np.concatenate(sent)


def says(graph, node, words):
    """Waits until /diagnostics would give these words as the reason."""
    return graph.spin_until(lambda: words in verdict(node).message)


def verdict(node):
    """What /diagnostics says of the node now."""
    return node.health.verdict(node.view())
