"""A long run of the nodes under faults, then a day of events: `make soak MINUTES=60`.

A bag plays in a loop through `replay_node` and `depth_node` on the wall clock, over real DDS. At
fixed shares of the time faults happen (`FAULTS`). After them memory must be flat, nothing may be
left of threads, files and sockets, stamps must rise except where a clock was set back, and what
was dropped must be counted. Then a day of sensor time goes through decoder, jump filter and
windower as fast as it can.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import conftest  # noqa: F401  sets the ROS domain before rclpy is imported
import numpy as np
from event_camera_msgs.msg import EventPacket
from graph import (
    BEST_EFFORT,
    EPOCH_NS,
    FRAME,
    HEIGHT,
    MS,
    RELIABLE,
    WIDTH,
    Graph,
    event_packet,
    overrides,
    some_events,
    verdict,
)
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger
from untrained import untrained_checkpoint

from spike_depth_ros.events.codecs import encode_evt3, evt3_state
from spike_depth_ros.events.config import SpikeConfig
from spike_depth_ros.events.spikes import pixel_map
from spike_depth_ros.events.windows import TimeWindower
from spike_depth_ros.events.wire import EventStream, Packet, pack_event_packet
from spike_depth_ros.network.checkpoint import save_checkpoint
from spike_depth_ros.recordings import BagWriter
from spike_depth_ros.ros.depth_node import DepthNode
from spike_depth_ros.ros.probe import stamp_ns
from spike_depth_ros.ros.replay_node import EVENT_PACKET, ReplayNode

BAG_MS = 1000
PACKET_MS = 5
WRAP_NS = (1 << 24) * 1000
"""One round of the evt3 clock; the encoder has no words for a step back over its end."""


class Sample(NamedTuple):
    """What the process holds."""

    memory_mb: float
    threads: int
    files: int  # sockets included


def sample() -> Sample:
    gc.collect()
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    memory_mb = pages * resource.getpagesize() / 2**20
    return Sample(memory_mb, threading.active_count(), len(os.listdir('/proc/self/fd')))  # noqa: PTH208


class LiveGraph(Graph):
    """A graph that hands messages to the depth node as fast as they come."""

    def spin_once(self, timeout_s: float) -> None:
        self.executor.spin_once(timeout_sec=0)
        self.quick.spin_once(timeout_sec=0.002)


class Soak:
    """The nodes, what they gave, and the faults that can happen to them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.graph = folder, LiveGraph()
        checkpoint = untrained_checkpoint('tiny')
        save_checkpoint(folder / 'tiny.safetensors', checkpoint)
        with BagWriter(folder / 'bag') as writer:
            for start_ms in range(0, BAG_MS, PACKET_MS):
                packet = event_packet(some_events(start_ms, start_ms + PACKET_MS), seq=start_ms)
                stamp = EPOCH_NS + start_ms * MS
                writer.add_raw('/camera/events', EVENT_PACKET, stamp, packet)
        values = {'checkpoint': str(folder / 'tiny.safetensors'), 'num_threads': 1,
                  'autostart': False, 'engine': 'torch',
                  'snapshot_dir': str(folder / 'snapshots')}  # fmt: skip
        self.node = self.graph.add(DepthNode(parameter_overrides=overrides(values)), quick=True)
        assert self.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert self.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        self.last_stamp_ns = 0
        self.frames = self.falls = 0
        self.is_disturbed = False  # by a fault that may set stamps back
        self.graph.camera.create_subscription(
            Image, '/depth_node/depth/image', self._see, RELIABLE
        )
        self.replay = self._start_replay()

    def _see(self, image: Image) -> None:
        now_ns = stamp_ns(image)
        self.frames += 1
        self.falls += not self.is_disturbed and now_ns <= self.last_stamp_ns
        self.last_stamp_ns = now_ns

    def _start_replay(self) -> ReplayNode:
        values = {'path': str(self.folder / 'bag'), 'loop': True}
        return self.graph.add(ReplayNode(parameter_overrides=overrides(values)))

    def _remove(self, node: ReplayNode) -> None:
        self.graph.nodes.remove(node)
        self.graph.executor.remove_node(node)
        node.destroy_node()

    def publisher_restarts(self) -> None:
        """The publisher is gone for a while, and another takes its place."""
        self._remove(self.replay)
        self.graph.spin_for(1.0)
        self.replay = self._start_replay()

    def clock_set_back(self) -> None:
        """Stamps and sensor time fall by years, then are as before."""
        self._remove(self.replay)
        with self._publisher() as publish:
            for k in range(60):
                publish(event_packet(some_events(5 * k, 5 * k + 5), seq=k))
        self.replay = self._start_replay()

    def second_camera(self) -> None:
        """Another camera of another size on the same topic: all that it changes is built anew."""
        with self._publisher() as publish:
            now_ns = self.graph.camera.get_clock().now().nanoseconds
            for k in range(40):
                events = some_events(5 * k, 5 * k + 5, height=HEIGHT // 2, width=WIDTH // 2)
                publish(event_packet(events, seq=k, height=HEIGHT // 2, width=WIDTH // 2,
                                     stamp_ns=now_ns + k * 5 * MS))  # fmt: skip

    def damaged_messages(self) -> None:
        """Payloads of noise and sizes beyond reason."""
        rng = np.random.default_rng(0)
        with self._publisher() as publish:
            for k in range(40):
                payload = np.frombuffer(rng.bytes(4000), np.uint8)
                fields = {'encoding': rng.choice(['mono', 'evt3', 'evt9']), 'payload': payload}
                width = int(rng.choice([WIDTH, 1 << 20]))
                publish(event_packet(some_events(0, 5), seq=k, width=width, **fields))

    def calibration_comes_late(self) -> None:
        """The first camera_info, long after the first events."""
        info = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model='plumb_bob')
        info.header.frame_id = FRAME
        info.k = [60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0]
        info.d = [0.1, 0.0, 0.0, 0.0, 0.0]
        publisher = self.graph.camera.create_publisher(CameraInfo, 'camera_info', RELIABLE)
        ready = self.graph.spin_until(lambda: publisher.get_subscription_count() > 0, 10.0)
        publisher.publish(info)
        assert ready, 'the node does not listen for a calibration'
        self.graph.spin_for(0.5)
        self.graph.camera.destroy_publisher(publisher)

    def subscriber_never_reads(self) -> None:
        """A reliable subscriber whose process does nothing."""
        stranger = self.graph.stranger()
        stranger.create_subscription(Image, '/depth_node/depth/image', print, RELIABLE)
        self.graph.spin_for(3.0)
        self.graph.strangers.remove(stranger)
        stranger.destroy_node()
        self.graph.contexts.pop().try_shutdown()

    def disk_is_full(self) -> None:
        """A snapshot that cannot be completed is refused and leaves nothing behind."""
        client = self.graph.camera.create_client(Trigger, '/depth_node/snapshot')
        assert self.graph.spin_until(client.service_is_ready, 60.0), 'no service'
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            future = client.call_async(Trigger.Request())
            assert self.graph.spin_until(future.done, 60.0), 'the snapshot is not answered'
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        self.graph.camera.destroy_client(client)
        refused = future.result()
        assert not refused.success, refused.message
        assert 'cannot write' in refused.message, refused.message
        left = [path.name for path in (self.folder / 'snapshots').iterdir()]
        assert left == [], left

    @contextlib.contextmanager
    def _publisher(self) -> Iterator[Callable[[bytes], None]]:
        """A second publisher of events, for a moment."""
        publisher = self.graph.camera.create_publisher(EventPacket, 'events', BEST_EFFORT)
        self.graph.spin_until(lambda: publisher.get_subscription_count() > 0, 10.0)

        def publish(cdr: bytes) -> None:
            publisher.publish(cdr)
            self.graph.spin_for(PACKET_MS / 1e3)

        yield publish
        self.graph.spin_for(0.5)
        self.graph.camera.destroy_publisher(publisher)

    def run(self, seconds: float) -> list[Sample]:
        """Plays for `seconds`, with the faults in the first two thirds of the time."""
        samples: list[Sample] = []
        start_s = time.monotonic()
        assert self.graph.spin_until(lambda: self.frames > 3, 120.0), verdict(self.node)
        pending = list(FAULTS)
        while (now_s := time.monotonic() - start_s) < seconds or pending:
            due = len(FAULTS) - len(pending) + 1
            if pending and now_s > 2 / 3 * seconds * due / (len(FAULTS) + 1):
                name, fault = pending.pop(0)
                self.is_disturbed = True
                fault(self)
                before = self.frames
                went_on = self.graph.spin_until(lambda n=before: self.frames > n + 10, 120.0)
                assert went_on, f'no depth after {name}: {verdict(self.node)}'
                self.is_disturbed = False
                print(f'{now_s:8.1f} s  {name}', flush=True)
            self.graph.spin_for(0.5)
            samples.append(sample())
        return samples

    def close(self) -> None:
        self._remove(self.replay)
        self.graph.close()


FAULTS: tuple[tuple[str, Callable[[Soak], None]], ...] = (
    ('publisher killed and restarted', Soak.publisher_restarts),
    ('clock set back', Soak.clock_set_back),
    ('second camera', Soak.second_camera),
    ('damaged messages', Soak.damaged_messages),
    ('calibration comes late', Soak.calibration_comes_late),
    ('subscriber that never reads', Soak.subscriber_never_reads),
    ('disk full at a snapshot', Soak.disk_is_full),
)


def soak_nodes(seconds: float, flat: float) -> Counter[str]:
    """Runs the nodes; raises an AssertionError where something is not as it should be.

    Args:
        seconds: how long, at least as long as the faults take.
        flat: largest growth of memory over the last third, as a share.

    Returns:
        What to report.
    """
    before = sample()
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder))
        try:
            samples = soak.run(seconds)
            work = soak.node.pipeline
            report = Counter(
                {
                    'depth maps': soak.frames,
                    'falling stamps': soak.falls,
                    'messages': work.stream.packets,
                    'messages dropped': work.messages.dropped,
                    'messages skipped': sum(work.stream.skipped.values()),
                    'wrong event times': work.jumps.dropped,
                    'windows dropped': work.windows.dropped,
                    'faults of threads': work.faults,
                }
            )
        finally:
            soak.close()
    calm = samples[len(samples) * 2 // 3 :]
    half = len(calm) // 2
    first_mb, last_mb = (
        statistics.median(s.memory_mb for s in part) for part in (calm[:half], calm[half:])
    )
    after = sample()
    report['memory [MB]'] = round(last_mb)
    report['growth of memory [0.01 %]'] = round(1e4 * (last_mb / first_mb - 1))
    assert last_mb <= (1 + flat) * first_mb, f'memory grows: {first_mb:.1f} to {last_mb:.1f} MB'
    assert len({s.threads for s in calm}) == 1, f'threads: {[s.threads for s in calm]}'
    assert max(s.files for s in calm) <= calm[0].files, f'files: {[s.files for s in calm]}'
    assert after.threads <= before.threads, [t.name for t in threading.enumerate()]
    assert soak.falls == 0, f'stamps fall {soak.falls} times'
    assert report['messages skipped'] > 0, 'damaged messages are not counted'
    assert report['faults of threads'] == 0, 'a thread of the node failed'
    return report


def soak_pipeline(hours: float, flat: float) -> Counter[str]:
    """Takes hours of sensor time through decoder and windows, with a wrong time every second.

    The camera is a quiet one of 1000 events a second, so that a day takes minutes.
    """
    stream, state = EventStream(EVENT_PACKET), evt3_state()
    windower = TimeWindower(pixel_map(HEIGHT, WIDTH, SpikeConfig()), 2, 200 * MS, 200 * MS)
    second_of = [some_events(ms, ms + 200, 200) for ms in range(0, 1000, 200)]
    seconds = round(3600 * hours)
    memory_mb, last_ns, report = [], -1, Counter()
    for second in range(seconds):
        for k, part in enumerate(second_of):
            events = part.copy()
            events['t_ns'] += second * 1000 * MS
            wrong_ns = int(events['t_ns'][7]) - 99 * MS
            is_wrong = k == 0 and wrong_ns // WRAP_NS == int(events['t_ns'][0]) // WRAP_NS
            events['t_ns'][7] -= is_wrong * 99 * MS
            payload = np.frombuffer(encode_evt3(events, state), np.uint8)
            seq = second * len(second_of) + k
            fed = stream.feed(
                pack_event_packet(Packet(0, '', HEIGHT, WIDTH, seq, 0, 'evt3', payload))
            )
            for window in windower.push(fed[1].events):
                assert window.t1_ns > last_ns
                last_ns = window.t1_ns
                report.update({'windows': 1, 'events in windows': window.event_count})
            report.update({'events': len(events), 'wrong times': int(is_wrong)})
        if second % max(1, seconds // 30) == 0:
            memory_mb.append(sample().memory_mb)
    growth = memory_mb[-1] / memory_mb[len(memory_mb) // 3] - 1
    assert growth <= flat, f'memory grows: {memory_mb}'
    assert (windower.jumps, windower.late_events) == (0, report['wrong times'])
    left = report['events'] - report['events in windows'] - report['wrong times']
    assert 0 <= left <= 400, f'{left} events are in no window'
    return report


def main(arguments: list[str] | None = None) -> None:
    """Runs both parts and prints what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--minutes', type=float, default=60.0, help='of the nodes; 0: not')
    parser.add_argument('--hours', type=float, default=24.0, help='of events')
    parser.add_argument('--flat', type=float, default=0.02, help='largest growth of memory')
    chosen = parser.parse_args(arguments)
    if chosen.minutes:
        for name, count in soak_nodes(60 * chosen.minutes, chosen.flat).items():
            print(f'{name:28} {count}', flush=True)
    for name, count in soak_pipeline(chosen.hours, chosen.flat).items():
        print(f'{name:28} {count}')


if __name__ == '__main__':
    sys.exit(main())
