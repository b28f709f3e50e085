"""The live view: what reaches the viewer, from topics and from a recording."""

import subprocess
import sys

import numpy as np
import pytest
from graph import EPOCH_NS, HEIGHT, MS, WIDTH, Driver, some_events
from rosbags.highlevel import AnyReader

from spike_depth_ros import DepthEstimator, EstimatorOptions, open_recording
from spike_depth_ros.cli import main
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.recordings import BagWriter
from spike_depth_ros.ros.live_view import LiveView
from spike_depth_ros.ros.output_recorder import RECORDED, recorded_outputs
from spike_depth_ros.ros.outputs import OUTPUTS

CAMERA = Camera(WIDTH, HEIGHT, 60.0, 60.0, 31.5, 23.5)


class Notes:
    """A viewer that keeps what it is given."""

    def __init__(self):
        self.now, self.shown = 0, []

    def at(self, stamp_ns):
        self.now = stamp_ns

    def __getattr__(self, name):
        return lambda *arguments: self.shown.append((self.now, name, *arguments))


def test_topics_reach_the_viewer_with_their_stamps(graph, start):
    node = start(preview_rate_hz=0.0)
    notes = Notes()
    view = graph.add(LiveView(notes, '/depth_node'))
    wanted = [node.outputs.publishers[n] for n in ('camera_info', 'depth', 'confidence', 'events')]
    assert graph.spin_until(lambda: all(p.get_subscription_count() for p in wanted))
    Driver(graph).send(65)
    kinds = {'depth', 'confidence', 'picture', 'cloud'}
    assert graph.spin_until(lambda: {name for _, name, *_ in notes.shown} >= kinds)
    assert view.shown >= 1
    assert {stamp for stamp, *_ in notes.shown} <= {EPOCH_NS + k * 20 * MS for k in range(1, 4)}
    for _, name, *arguments in notes.shown:
        if name == 'cloud':
            depth_m, camera = arguments
            assert depth_m.shape == (camera.height, camera.width)


def test_the_outputs_are_recorded_for_foxglove_and_rerun(graph, start, tmp_path):
    node = start(preview_rate_hz=0.0, cloud_rate_hz=0.0)
    node.calibration.camera = CAMERA
    path = tmp_path / 'outputs'
    (path / 'earlier').mkdir(parents=True)
    (path / 'metadata.yaml').write_text('an earlier recording is replaced')
    with recorded_outputs(path, '/depth_node', graph.executor):
        wanted = [node.outputs.publishers[name] for name in RECORDED]
        assert graph.spin_until(lambda: all(p.get_subscription_count() for p in wanted))
        Driver(graph).send(65)
        graph.spin_until(lambda: node.pipeline.meters.frames == 3)
        graph.spin_for(1.0)
    with AnyReader([path]) as reader:
        counts = {c.topic: c.msgcount for c in reader.connections}
        depth = [
            reader.deserialize(data, connection.msgtype)
            for connection, _, data in reader.messages()
            if connection.topic == '/depth_node/depth/image'
        ]
    names = {OUTPUTS[name].topic.replace('~', '/depth_node') for name in RECORDED}
    assert set(counts) == {*names, '/diagnostics'}
    assert counts['/depth_node/depth/confidence'] == len(depth) == 3
    assert (depth[0].width, depth[0].height, depth[0].encoding) == (32, 24, '32FC1')
    pytest.importorskip('rerun', reason='rerun-sdk is an optional extra')
    (mcap,) = path.glob('*.mcap')
    rerun = [sys.executable, '-m', 'rerun']
    subprocess.run([*rerun, 'mcap', 'convert', mcap, '-o', tmp_path / 'outputs.rrd'], check=True)
    command = [*rerun, 'rrd', 'print', tmp_path / 'outputs.rrd']
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert all(name in printed for name in names)


@pytest.fixture
def drive(tmp_path):
    """A bag of 100 ms of events with their calibration."""
    with BagWriter(tmp_path / 'drive') as bag:
        bag.add_camera_info('/event_camera/camera_info', 0, CAMERA, 'camera_optical_frame')
        bag.add_events(some_events(0, 105), HEIGHT, WIDTH)
    return tmp_path / 'drive'


def test_three_names_lead_from_a_file_to_depth(drive, checkpoint_file):
    with open_recording(drive) as recording:
        assert recording.camera() == CAMERA
        options = EstimatorOptions(streaming=True)
        estimator = DepthEstimator(checkpoint_file, HEIGHT, WIDTH, CAMERA, options)
        frames = [f for events in recording.events() for f in estimator.push(events)]
    assert [f.stamp_ns // MS for f in frames] == [20, 40, 60, 80, 100]
    assert {f.depth_m.shape for f in frames} == {(HEIGHT // 2, WIDTH // 2)}
    assert all(np.isfinite(f.confidence).all() for f in frames)


def test_a_recording_becomes_a_file_that_rerun_opens(drive, checkpoint_file, tmp_path, capsys):
    pytest.importorskip('rerun', reason='rerun-sdk is an optional extra')
    save = tmp_path / 'view.rrd'
    main(
        ['view', '--source', str(drive), '--checkpoint', str(checkpoint_file), '--save', str(save)]
    )
    assert f'wrote {save}' in capsys.readouterr().out
    command = [sys.executable, '-m', 'rerun', 'rrd', 'print', str(save)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for entity in ('/events', '/depth', '/confidence', '/cloud'):
        assert entity in printed
