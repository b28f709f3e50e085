"""Has depth_node use all its kernels, and prints those that are compiled and those left unused.

test_setup.py runs this in a process of its own.
"""

import json
import sys

import numpy as np
from numba.core import event
from numba.core.dispatcher import Dispatcher

NOT_OF_THE_NODE = (
    'events.codecs.decoder_state.follow_highs',  # recordings
    'events.codecs.encoders.',  # tests and recordings
    'network.training_',
    'network.kernels.look_up',  # evaluation
)
"""What the kernels begin with that only others use."""


class Compiled(event.Listener):
    """Collects the kernels that numba compiles, with the types of their arguments."""

    def __init__(self):
        self.kernels = []

    def on_start(self, started):
        dispatcher, arguments = started.data['dispatcher'], started.data['args']
        # numba compiles its own functions only within one of ours
        if dispatcher.py_func.__module__.startswith('spike_depth_ros.'):
            self.kernels.append(f'{name(dispatcher)}{arguments}')

    def on_end(self, ended):
        pass


def name(dispatcher):
    function = dispatcher.py_func
    return f'{function.__module__.partition(".")[2]}.{function.__qualname__}'


def unused_kernels():
    """Kernels that Python may call, but has not called.

    Those that another kernel calls are left out: they are a part of it when it comes from disk.
    """
    kernels = [
        value
        for module_name, module in list(sys.modules.items())
        if module_name.startswith('spike_depth_ros.')
        for value in vars(module).values()
        if isinstance(value, Dispatcher)
    ]
    called = {
        id(kernel.py_func.__globals__.get(word))
        for kernel in kernels
        for word in kernel.py_func.__code__.co_names
    }
    return sorted({name(k) for k in kernels if id(k) not in called and not k.overloads})


def use_everything(graph):
    """Sends a node all encodings, late events and jumps, and takes all its outputs."""
    from diagnostic_msgs.msg import DiagnosticArray
    from dvs_msgs.msg import EventArray
    from event_camera_msgs.msg import EventPacket
    from graph import (
        BEST_EFFORT,
        EPOCH_NS,
        HEIGHT,
        MS,
        WIDTH,
        Driver,
        event_array,
        event_packet,
        overrides,
        some_events,
    )  # fmt: skip
    from nav_msgs.msg import Odometry
    from rclpy.lifecycle import TransitionCallbackReturn
    from sensor_msgs.msg import CameraInfo

    from spike_depth_ros.events.camera import Camera
    from spike_depth_ros.events.codecs import CODECS, SMALL_BYTES
    from spike_depth_ros.ros.depth_node import DepthNode
    from spike_depth_ros.ros.messages import camera_info, make_header, make_time
    from spike_depth_ros.ros.outputs import OUTPUTS

    camera = Camera(WIDTH, HEIGHT, 60.0, 60.0, 31.5, 23.5, 'plumb_bob', (0.05, 0, 0, 0, 0))

    def start(*arguments):
        node = DepthNode(cli_args=['--ros-args', *arguments], parameter_overrides=overrides({
            'autostart': False, 'max_latency_ms': 60_000.0, 'window_queue': 100,
            'energy_period_s': 0.001, 'diagnostics_period_s': 0.1, 'compressed_format': 'rvl',
            'cloud_rate_hz': 0.0, 'obstacle_rate_hz': 0.0, 'preview_rate_hz': 0.0,
            'obstacle_near_m': 0.1, 'obstacle_clear_m': 5.0, 'odometry': '/odom',
            'camera_pose': '0 0 1 -1.5708 0 -1.5708',
            'register_camera_info': '/other/camera_info', 'register_pose': '0.1 0 0 0 0 0',
        }))  # fmt: skip
        graph.add(node, quick=True)
        for transition in (node.trigger_configure, node.trigger_activate):
            assert transition() == TransitionCallbackReturn.SUCCESS, node.last_error
        node.calibration.camera = camera
        return node

    node = start()
    outputs = [
        graph.listen(output.type, output.topic.replace('~', '/depth_node'))
        for output in OUTPUTS.values()
    ]
    graph.listen(DiagnosticArray, '/diagnostics')
    odometry = graph.camera.create_publisher(Odometry, '/odom', 10)
    other = graph.camera.create_publisher(CameraInfo, '/other/camera_info', 1)
    assert graph.spin_until(lambda: other.get_subscription_count() > 0)
    other.publish(camera_info(make_header(1, 'other_optical_frame'), camera))
    driver = Driver(graph)
    assert driver.ready()
    assert graph.spin_until(lambda: odometry.get_subscription_count() > 0)

    def tell_motion(t_ms):
        message = Odometry(child_frame_id='base_link')
        message.header.stamp = make_time(EPOCH_NS + t_ms * MS)
        message.twist.twist.linear.y = 5.0
        odometry.publish(message)

    def is_done():
        for _ in range(10):
            tell_motion(driver.now_ms + 5)
            driver.send(5)
        measured = node.energy.report is not None
        return all(outputs) and measured and not scale_kernels_unused()

    def scale_kernels_unused():
        return [kernel for kernel in unused_kernels() if kernel.startswith('estimation.')]

    graph.spin_until(is_done, 120.0)
    behind = driver.now_ms - 1000
    for late in (some_events(behind, behind + 5)[:5], some_events(5 * behind, 5 * behind + 100)):
        driver.publisher.publish(event_packet(late))
    messages = node.pipeline.meters.messages
    rng = np.random.default_rng(0)
    for encoding in CODECS:
        for size in (SMALL_BYTES // 8, 2 * SMALL_BYTES):
            payload = rng.integers(0, 256, size, np.uint8)
            driver.publisher.publish(
                event_packet(some_events(0, 5), encoding=encoding, payload=payload)
            )
            graph.spin_once(0.02)
    wanted = messages + 2 * len(CODECS)
    assert graph.spin_until(lambda: node.pipeline.meters.messages >= wanted)
    legacy = start('-r', '__node:=legacy', '-r', 'events:=/arrays')
    shown = graph.listen(OUTPUTS['depth'].type, '/legacy/depth/image')
    arrays = graph.camera.create_publisher(EventArray, '/arrays', BEST_EFFORT)
    assert graph.spin_until(lambda: arrays.get_subscription_count() > 0)
    shuffled = rng.permutation(some_events(1000, 1200))
    for events in (some_events(0, 1000), shuffled, some_events(2000, 3000)):
        arrays.publish(event_array(events))
    assert graph.spin_until(lambda: shown), legacy.health.verdict(legacy.view())
    graph.spin_for(0.5)
    assert EventPacket is not None


def main():
    compiled = Compiled()
    event.register('numba:compile', compiled)
    from graph import Graph

    graph = Graph()
    use_everything(graph)
    graph.close()
    found = {
        'compiled': [k for k in compiled.kernels if not k.startswith(NOT_OF_THE_NODE)],
        'unused': [k for k in unused_kernels() if not k.startswith(NOT_OF_THE_NODE)],
    }
    print(json.dumps(found), flush=True)


if __name__ == '__main__':
    import conftest  # noqa: F401  a ROS domain of its own

    main()
