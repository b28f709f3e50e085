"""The demo: its figures and pages from a hand-made run, and the real thing on a small bag."""

import importlib.util
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from spike_depth_ros.cli import demo_report
from spike_depth_ros.cli.demo_report import measure, write_report
from spike_depth_ros.events.config import shipped
from spike_depth_ros.ros.output_recorder import RECORDED
from spike_depth_ros.ros.outputs import OUTPUTS
from spike_depth_ros.ros.probe import Recording

NAN, INF, MS = np.nan, np.inf, 1_000_000
STAMPS = (1000 * MS, 1050 * MS, 1100 * MS)
DEPTH = np.array([[2.0, 10.0, 80.0, NAN], [4.0, 20.0, INF, INF]], np.float32)
TRUTH = np.array([[2.0, 8.0, 80.0, 5.0], [NAN, 25.0, INF, 10.0]], np.float32)
RED, BLUE = (230, 60, 40), (40, 90, 230)


def picture(path):
    return cv2.imread(str(path))[..., ::-1]


@pytest.fixture
def recording():
    """Three maps in 0.1 s; the truth of the first and the last, at four times their size."""
    events = np.full((2, 4, 3), 255, np.uint8)
    events[0, 0], events[1, 2] = RED, BLUE
    cloud = np.full((2, 4, 4), NAN, np.float32)
    cloud[0, 0] = (0.0, 0.0, 10.0, 0.9)
    truth = np.repeat(np.repeat(TRUTH, 4, axis=0), 4, axis=1)
    return Recording(
        depth_m=dict.fromkeys(STAMPS, DEPTH),
        confidence=dict.fromkeys(STAMPS, np.full((2, 4), 0.5, np.float32)),
        events=dict.fromkeys(STAMPS, events),
        truth_m={STAMPS[0] + 1 * MS: truth, STAMPS[1] + 20 * MS: truth, STAMPS[2]: truth},
        clouds={STAMPS[1]: cloud},
        latency_ms=[30.0, 20.0, 10.0],
        arrival_s=[5.0, 5.05, 5.1],
        events_per_s=[1e6, 3e6, 2e6],
        diagnostics={
            'depth_node: work': {'message': '', 'dropped windows': '2', 'dropped messages': '0'},
            'depth_node: output': {'message': '20 depth maps/s'},
        },
        said={'depth_node: output': '20 depth maps/s'},
    )


def test_figures_by_hand(recording):
    figures = measure(recording)
    assert figures['depth_maps'] == 3
    assert figures['maps_per_s'] == pytest.approx(2 / 0.1)
    assert figures['events_per_s'] == 2e6
    assert figures['latency_ms_p50'] == 20.0
    assert figures['latency_ms_p99'] == pytest.approx(29.8)  # 98 % of the way from 20 to 30
    assert (figures['dropped_windows'], figures['dropped_messages']) == (2, 0)
    assert figures['node_says'] == {'depth_node: output': '20 depth maps/s'}
    # the truth 20 ms off the second map is not that map's
    assert figures['truth_maps'] == 2
    # answered pixels: 2/2, 10/8, 80/80, 20/25, and beyond range, which counts as 80, of 10
    errors = [0, 2 / 8, 0, 5 / 25, 70 / 10]
    assert figures['error']['abs_rel'] == pytest.approx(np.mean(errors), abs=1e-4)
    assert figures['error']['mae_20m'] == pytest.approx((0 + 2 + 70) / 3, abs=1e-4)
    assert figures['error']['false_obstacles'] == 0.0
    assert figures['error']['delta1'] == pytest.approx(2 / 5)  # a factor of 1.25 is not below it


def test_without_truth_there_are_no_errors(recording):
    recording.truth_m.clear()
    assert 'error' not in measure(recording)


def test_an_error_that_no_pixel_decides_is_left_out(recording, tmp_path):
    recording.truth_m = {STAMPS[0]: np.where(np.isinf(TRUTH), NAN, TRUTH)}  # no sky
    write_report(tmp_path, recording, 'a bag', made=False)
    figures = json.loads((tmp_path / 'demo.json').read_text(), parse_constant=pytest.fail)
    assert 'false_obstacles' not in figures['error']
    assert 'abs_rel' in figures['error']


def test_the_report_holds_pictures_figures_and_a_page(recording, tmp_path):
    figures = write_report(tmp_path, recording, '/data/drive', made=False)
    assert json.loads((tmp_path / 'demo.json').read_text()) == figures
    assert {'depth_maps', 'drive', 'machine', 'error'} <= set(figures)
    page = (tmp_path / 'report.html').read_text()
    for name in ('events', 'depth', 'confidence', 'cloud', 'truth'):
        assert f'<img src="{name}.png"' in page
        assert (tmp_path / f'{name}.png').is_file()
    assert 'Played: /data/drive.' in page
    assert '2,000,000' in page
    assert '20 depth maps/s' in page
    events, depth = picture(tmp_path / 'events.png'), picture(tmp_path / 'depth.png')
    assert (tuple(events[0, 0]), tuple(events[1, 2])) == (RED, BLUE)
    assert depth.shape == (2, 4, 3)
    assert tuple(depth[0, 3]) == (0, 0, 0)  # unknown
    assert tuple(depth[1, 2]) == (70, 70, 80)  # beyond range
    assert int(depth[0, 0, 0]) > depth[0, 0, 2], 'near is red'
    assert int(depth[0, 2, 2]) > depth[0, 2, 0], 'far is blue'
    cloud = picture(tmp_path / 'cloud.png')
    assert (cloud != cloud[0, 0]).any(axis=-1).sum() == 4, 'one point, 2 px wide'


def test_the_video_shows_every_map(recording, tmp_path, capfd):
    figures = write_report(tmp_path, recording, 'a drive', made=True)
    assert capfd.readouterr() == ('', ''), 'no warnings of the codec'
    if figures['no_video_because']:
        pytest.skip(figures['no_video_because'])
    video = cv2.VideoCapture(str(tmp_path / 'demo.webm'))
    frames = [video.read()[1] for _ in STAMPS]
    assert not video.read()[0]
    # events, depth and truth side by side, 260 px high
    assert {frame.shape for frame in frames} == {(260, 3 * 520 + 2 * 4, 3)}
    assert 'src="demo.webm"' in (tmp_path / 'report.html').read_text()


def test_without_a_codec_the_report_says_so(recording, tmp_path, monkeypatch):
    def broken(*_):
        raise OSError('this OpenCV has no VP8 encoder')

    monkeypatch.setattr(demo_report, 'write_video', broken)
    figures = write_report(tmp_path, recording, 'a drive', made=True)
    assert figures['no_video_because'] == 'this OpenCV has no VP8 encoder'
    page = (tmp_path / 'report.html').read_text()
    assert 'No video: this OpenCV has no VP8 encoder.' in page
    assert '<video' not in page


def test_topics_that_gave_nothing_are_left_out(recording, tmp_path):
    for store in (recording.events, recording.confidence, recording.clouds, recording.truth_m):
        store.clear()
    write_report(tmp_path, recording, 'a drive', made=True)
    page = (tmp_path / 'report.html').read_text()
    assert '<img src="depth.png"' in page
    assert page.count('<img') == 1


@pytest.mark.parametrize(
    ('verb', 'option', 'sentence'),
    [
        ('demo', '--source', 'nothing at'),
        ('demo', '--params', 'no parameters file at'),
        ('demo', '--checkpoint', 'no checkpoint at'),
        ('demo', '--calibration', 'cannot read the calibration'),
        ('bench node', '--drive', 'nothing at'),
    ],
)
def test_a_bad_path_is_told_before_anything_starts(verb, option, sentence, tmp_path, capsys):
    from spike_depth_ros.cli import main

    out = tmp_path / 'out'
    with pytest.raises(SystemExit) as end:
        main([*verb.split(), option, str(tmp_path / 'none'), '--out', str(out)])
    assert end.value.code == 1
    assert sentence in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.slow
def test_the_demo_on_a_bag_end_to_end(checkpoint_file, tmp_path):
    """Both nodes as processes, over DDS, with the parameters of config/depth.yaml."""
    from graph import EPOCH_NS, FRAME, HEIGHT, MS, WIDTH, event_packet, some_events

    from spike_depth_ros.events.camera import Camera
    from spike_depth_ros.recordings import BagWriter
    from spike_depth_ros.ros.replay_node import EVENT_PACKET

    bag, out = tmp_path / 'bag', tmp_path / 'out'
    camera = Camera(WIDTH, HEIGHT, 60.0, 60.0, 31.5, 23.5)
    with BagWriter(bag) as writer:
        for k in range(600):  # 3 s
            stamp_ns = EPOCH_NS + 5 * k * MS
            if k % 20 == 0:
                writer.add_camera_info('/eye/camera_info', stamp_ns, camera, FRAME)
            packet = event_packet(some_events(5 * k, 5 * k + 5), seq=k)
            writer.add_raw('/eye/events', EVENT_PACKET, stamp_ns, packet)
    command = [sys.executable, '-m', 'spike_depth_ros', 'demo', '--source', str(bag),
               '--out', str(out), '--checkpoint', str(checkpoint_file), '--record']  # fmt: skip
    has_rerun = importlib.util.find_spec('rerun') is not None  # an optional extra
    command += ['--view', str(out / 'view.rrd')] if has_rerun else []
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    strangers = [line for line in done.stderr.splitlines() if not line.startswith('[')]
    assert strangers == [], 'nothing but the logs of the nodes'
    figures = json.loads((out / 'demo.json').read_text())
    # 3 s in windows of 20 ms; on a busy machine some are dropped, and said
    assert 150 - 3 <= figures['depth_maps'] + figures['dropped_windows'] <= 150
    assert figures['depth_maps'] > 20
    assert figures['dropped_messages'] == 0
    assert figures['events_per_s'] > 0
    assert 0 < figures['latency_ms_p50'] <= figures['latency_ms_p99']
    for name in ('events', 'depth', 'confidence', 'cloud'):
        assert picture(out / f'{name}.png').size
    assert 'depth_node: engine' in (out / 'report.html').read_text()
    assert str(out / 'report.html') in done.stdout
    with AnyReader([out / 'outputs']) as reader:
        counts = {c.topic: c.msgcount for c in reader.connections}
    assert set(counts) == layout_topics() | {'/depth_node/depth/image'}
    assert counts['/depth_node/depth/image'] > 20
    if has_rerun:
        for entity in ('/events', '/depth', '/confidence', '/cloud'):
            assert entity in rerun('rrd', 'print', out / 'view.rrd')
        (mcap,) = (out / 'outputs').glob('*.mcap')
        rerun('mcap', 'convert', mcap, '-o', out / 'outputs.rrd')
        printed = rerun('rrd', 'print', out / 'outputs.rrd')
        assert all(f'/depth_node/depth/{name}' in printed for name in ('image', 'points'))


LAYOUT = shipped('config/foxglove/depth.json')


def layout_topics(value=None):
    """All topics that the layout for Foxglove names."""
    value = json.loads(LAYOUT.read_text())['configById'] if value is None else value
    if isinstance(value, dict):
        parts = [layout_topics(part) for part in (*value, *value.values())]
    elif isinstance(value, list):
        parts = [layout_topics(part) for part in value]
    else:
        parts = [{value} if str(value).startswith('/') else set()]
    return set().union(*parts)


def test_the_layout_for_foxglove_fits_the_topics_of_the_node():
    """Each topic is published, with the type that its panel shows, and recorded by the demo."""
    types = {output.topic.replace('~', '/depth_node'): output.type for output in OUTPUTS.values()}
    types['/diagnostics'] = DiagnosticArray
    assert layout_topics() <= set(types)
    assert layout_topics() - {'/diagnostics'} <= {
        OUTPUTS[name].topic.replace('~', '/depth_node') for name in RECORDED
    }
    panels = json.loads(LAYOUT.read_text())['configById']
    for name, panel in panels.items():
        if name.startswith('Image!'):
            mode = panel['imageMode']
            assert types[mode['imageTopic']] in (Image, CompressedImage)
            assert (
                types[mode.get('calibrationTopic', '/depth_node/depth/camera_info')] == CameraInfo
            )
        for topic in panel.get('topics', {}):
            assert types[topic] == PointCloud2


def test_every_panel_of_the_layout_is_placed_once():
    layout = json.loads(LAYOUT.read_text())

    def placed(node):
        return [node] if isinstance(node, str) else placed(node['first']) + placed(node['second'])

    assert sorted(placed(layout['layout'])) == sorted(layout['configById'])


def rerun(*arguments):
    command = [sys.executable, '-m', 'rerun', *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize('view', ['2', 'web', 'file.txt'])
def test_a_view_that_is_none_is_refused(view, tmp_path, capsys):
    from spike_depth_ros.cli import main

    with pytest.raises(SystemExit):
        main(['demo', '--view', view, '--out', str(tmp_path / 'out')])
    assert f"view is '{view}', expected '1', or a path" in capsys.readouterr().err
