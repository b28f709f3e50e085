"""Synthetic recordings: every layout written, and read back by a second, dumber reader."""

import dataclasses
import json

import cv2
import h5py
import hdf5plugin  # noqa: F401 - registers the Blosc filter
import numpy as np
import pytest
import yaml

from spike_depth_ros.cli import main
from spike_depth_ros.cli.synth import synth
from spike_depth_ros.events.config import ConfigError
from spike_depth_ros.sim import recorder
from spike_depth_ros.sim.drive import exposed, world_of
from spike_depth_ros.sim.layouts import disparity_code, dsec_rig, rectify_map
from spike_depth_ros.sim.render import render
from spike_depth_ros.sim.rigs import EPOCH_NS
from spike_depth_ros.sim.sensors import field_of_view_deg, sensor_config

SEED = 3
START_S = recorder.START_NS * 1e-9


def make(out, layout, seconds=0.8, sensor='64x48', **options):
    synth(
        str(out), seed=SEED, seconds=seconds, sensor=sensor, layout=layout, processes=1, **options
    )
    return out / f'street_{SEED:06d}'


@pytest.fixture(scope='module')
def dsec(tmp_path_factory):
    return make(tmp_path_factory.mktemp('dsec'), 'dsec')


@pytest.fixture(scope='module')
def calibration(dsec):
    return yaml.safe_load((dsec / 'calibration' / 'cam_to_cam.yaml').read_text())


def matrix(values):
    fx, fy, cx, cy = values['camera_matrix']
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def rigid(rotation_matrix):
    pose = np.eye(4)
    pose[:3, :3] = rotation_matrix
    return pose


# DSEC


def test_dsec_events_are_as_the_format_says(dsec):
    with h5py.File(dsec / 'events' / 'left' / 'events.h5') as file:
        t, x, y, p = (file[f'events/{name}'][:] for name in 'txyp')
        index, offset = file['ms_to_idx'][:].astype(int), int(file['t_offset'][()])
    assert len(t) > 1000
    assert (np.diff(t.astype(np.int64)) >= 0).all()
    assert (x.max() < 64, y.max() < 48, set(np.unique(p))) == (True, True, {0, 1})
    first, last = EPOCH_NS['dsec'] // 1000, EPOCH_NS['dsec'] // 1000 + 800_000
    assert first <= int(t[0]) + offset < first + 10_000
    assert last - 10_000 < int(t[-1]) + offset < last
    for ms in range(0, int(t[-1]) // 1000 + 1, 37):  # t[index[ms]] >= ms, the one before is not
        assert t[index[ms]] >= ms * 1000
        assert index[ms] == 0 or t[index[ms] - 1] < ms * 1000


def test_dsec_times_are_those_of_the_cameras(dsec):
    start_us = EPOCH_NS['dsec'] // 1000
    for name, step_us, count in (('images', 50_000, 16), ('disparity', 100_000, 8)):
        lines = (dsec / name / 'timestamps.txt').read_text().split()
        assert [int(line) for line in lines] == [start_us + k * step_us for k in range(count)]
    names = sorted(path.name for path in (dsec / 'images' / 'left' / 'rectified').iterdir())
    assert names == [f'{k:06d}.png' for k in range(16)]
    for kind in ('event', 'image'):
        names = sorted(path.name for path in (dsec / 'disparity' / kind).iterdir())
        assert names == [f'{k:06d}.png' for k in range(0, 16, 2)]


def test_dsec_rectification_leads_back_through_the_lens(dsec, calibration):
    intrinsics, extrinsics = calibration['intrinsics'], calibration['extrinsics']
    with h5py.File(dsec / 'events' / 'left' / 'rectify_map.h5') as file:
        table = file['rectify_map'][:]
    assert (table.shape, table.dtype) == ((48, 64, 2), np.float32)
    raw, rectified = intrinsics['cam0'], intrinsics['camRect0']
    assert any(raw['distortion_coeffs'])
    rays = np.linalg.inv(matrix(rectified)) @ [*table.reshape(-1, 2).T, np.ones(64 * 48)]
    raw_rays = np.array(extrinsics['R_rect0']).T @ rays  # and forward through the lens
    back = cv2.projectPoints(
        raw_rays.T.reshape(-1, 1, 3),
        np.zeros(3),
        np.zeros(3),
        matrix(raw),
        np.array(raw['distortion_coeffs']),
    )[0]
    pixels = np.stack(np.meshgrid(np.arange(64), np.arange(48)), axis=-1)
    np.testing.assert_allclose(back.reshape(48, 64, 2), pixels, atol=2e-3)
    assert np.abs(table - pixels).max() > 0.5  # it is not the identity


@pytest.mark.parametrize(
    ('kind', 'camera', 'q'), [('event', 'camRect0', 'cams_03'), ('image', 'camRect1', 'cams_12')]
)
def test_dsec_disparity_is_the_exact_depth_in_its_view(dsec, calibration, kind, camera, q):
    code = cv2.imread(str(dsec / 'disparity' / kind / '000006.png'), cv2.IMREAD_UNCHANGED)
    assert code.dtype == np.uint16
    reprojection = np.array(calibration['disparity_to_depth'][q])
    with np.errstate(divide='ignore'):
        depth_m = reprojection[2, 3] / (code / 256 * reprojection[3, 2])
    extrinsics = calibration['extrinsics']
    to_camera = (
        rigid(extrinsics['R_rect0'])
        if kind == 'event'
        else rigid(extrinsics['R_rect1']) @ np.array(extrinsics['T_10'])
    )
    world = world_of('street', SEED)
    pose = world.pose(START_S + 0.3) @ np.linalg.inv(to_camera)
    rig = dsec_rig(sensor_config('64x48'))
    view = (rig.truth if kind == 'event' else rig.colour).camera
    assert [view.width, view.height] == calibration['intrinsics'][camera]['resolution']
    np.testing.assert_allclose(view.matrix, matrix(calibration['intrinsics'][camera]))
    truth = render(world, view, START_S + 0.3, pose)
    known = code > 0
    assert known.mean() > 0.3
    assert (~np.isfinite(truth.depth_m[~known]) | (truth.depth_m[~known] < 1)).mean() > 0.9
    # half a step of 1/256 px
    tolerance = truth.depth_m[known] ** 2 * reprojection[3, 2] / reprojection[2, 3] / 512
    assert (np.abs(depth_m[known] - truth.depth_m[known]) <= tolerance * 1.05 + 1e-3).all()
    if kind == 'image':
        image = cv2.imread(str(dsec / 'images' / 'left' / 'rectified' / '000006.png'))
        np.testing.assert_array_equal(image[..., ::-1], exposed(truth.radiance))


def test_dsec_stereo_pairs_are_consistent(calibration):
    extrinsics = calibration['extrinsics']
    t_10, t_21, t_32 = (np.array(extrinsics[name]) for name in ('T_10', 'T_21', 'T_32'))
    for chain, left, right, q in (
        (t_32 @ t_21 @ t_10, 'R_rect0', 'R_rect3', 'cams_03'),
        (t_21, 'R_rect1', 'R_rect2', 'cams_12'),
    ):
        rectified = rigid(extrinsics[right]) @ chain @ np.linalg.inv(rigid(extrinsics[left]))
        baseline_m = 1 / calibration['disparity_to_depth'][q][3][2]
        expected = np.eye(4)
        expected[0, 3] = -baseline_m
        np.testing.assert_allclose(rectified, expected, atol=1e-12)


def test_disparity_codes_by_hand():
    depth_m = np.array([2.0, 100.0, np.inf, np.nan, 0.1, 1e6])
    # 0.6 m x 500 px: 150 px at 2 m, 3 px at 100 m, 3,000 px at 0.1 m do not fit
    assert disparity_code(depth_m, 300.0).tolist() == [38400, 768, 0, 0, 0, 0]


def test_rectified_pixels_look_along_the_rays_of_the_raw_ones():
    rig = dsec_rig(sensor_config('vga'))
    xy = rectify_map(rig)[240, 100]
    camera = rig.truth.camera
    ray = np.array([(xy[0] - camera.cx) / camera.fx, (xy[1] - camera.cy) / camera.fy, 1.0])
    raw = rig.truth.from_sensor[:3, :3].T @ ray
    back = cv2.projectPoints(
        raw.reshape(1, 1, 3),
        np.zeros(3),
        np.zeros(3),
        rig.sensor.camera.matrix,
        np.array(rig.sensor.camera.distortion),
    )[0]
    np.testing.assert_allclose(back.ravel(), (100, 240), atol=1e-2)


# DENSE


def test_dense_is_read_back_by_hand(tmp_path):
    folder = make(tmp_path, 'dense', 0.2, '346x260')
    stamps = np.loadtxt(folder / 'depth' / 'data' / 'timestamps.txt')
    np.testing.assert_allclose(stamps[:, 1], np.arange(6) / 30, atol=1e-8)
    assert stamps[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    for place in ('rgb/frames', 'events/data'):
        np.testing.assert_array_equal(np.loadtxt(folder / place / 'timestamps.txt'), stamps)
    camera = recorder.Plan('dense', 'street', SEED, 0.2, '346x260').rig.truth.camera
    truth = render(world_of('street', SEED), camera, START_S + float(stamps[4, 1]))
    depth_m = np.load(folder / 'depth' / 'data' / 'depth_0000000004.npy')
    np.testing.assert_array_equal(depth_m, np.minimum(truth.depth_m, 1000.0))
    image = cv2.imread(str(folder / 'rgb' / 'frames' / 'frame_0000000004.png'))
    np.testing.assert_array_equal(image[..., ::-1], exposed(truth.radiance))
    previous = 0.0  # nanoseconds, as CARLA has it
    for k in range(6):
        events = np.load(folder / 'events' / 'data' / f'events_{k:010d}.npy')
        assert events.shape[1] == 4
        assert len(events) > 100 or k == 0
        if len(events):
            assert previous <= events[:, 0].min()
            assert events[:, 0].max() < stamps[k, 1] * 1e9
            assert (events[:, 1].max() < 346, events[:, 2].max() < 260) == (True, True)
            previous = events[:, 0].max()


def test_dense_spike_frames_count_light(tmp_path):
    folder = make(tmp_path, 'dense_spike', 0.1, '346x260')
    frames = np.load(folder / 'spike' / 'r128' / 'spike_0000000002.npy')
    assert (frames.shape, frames.dtype) == ((128, 260, 346), np.uint8)
    assert set(np.unique(frames)) == {0, 1}
    image = cv2.imread(str(folder / 'rgb' / 'frames' / 'frame_0000000002.png'))
    order = np.corrcoef(frames.mean(axis=0).ravel(), image.mean(axis=2).ravel())[0, 1]
    assert order > 0.8
    assert not (folder / 'events').exists()


def test_dense_is_for_one_sensor_only(tmp_path):
    with pytest.raises(ConfigError, match='346x260, the size of DENSE'):
        make(tmp_path, 'dense', 0.2, '640x480')


# rosbag2


def test_bag_holds_events_pictures_truth_and_motion(tmp_path):
    from rosbags.highlevel import AnyReader

    from spike_depth_ros.events.wire import EventStream

    folder = make(tmp_path, 'bag', 0.3)
    world = world_of('street', SEED)
    camera = sensor_config('64x48').camera
    seen: dict[str, list] = {}
    with AnyReader([folder]) as reader:
        for connection, stamp_ns, raw in reader.messages():
            message = raw if 'Packet' in connection.msgtype else reader.deserialize(
                raw, connection.msgtype)  # fmt: skip
            seen.setdefault(connection.topic, []).append((stamp_ns, message))
    assert {topic: len(messages) for topic, messages in seen.items() if 'events' not in topic} == {
        '/camera/image_raw': 6,
        '/camera/camera_info': 6,
        '/event_camera/camera_info': 6,
        '/ground_truth/depth': 6,
        '/ground_truth/camera_info': 6,
        '/tf': 26,
        '/odom': 13,
    }
    stream, times = EventStream('event_camera_msgs/msg/EventPacket'), []
    for _, cdr in seen['/event_camera/events']:
        _, decoded = stream.feed(cdr)
        times.append(decoded.events['t_ns'].copy())
        assert decoded.events['x'].max() < 64
    assert sum(map(len, times)) > 500
    stamp_ns, depth = seen['/ground_truth/depth'][3]
    assert stamp_ns == EPOCH_NS['bag'] + 150_000_000
    assert (depth.encoding, depth.header.frame_id) == ('32FC1', 'event_camera_optical_frame')
    assert depth.header.stamp.sec * 10**9 + depth.header.stamp.nanosec == stamp_ns
    truth = render(world, camera.rectified(), START_S + 0.15)
    got = depth.data.view(np.float32).reshape(48, 64)
    np.testing.assert_array_equal(got, truth.depth_m)
    image = seen['/camera/image_raw'][3][1]
    seen_raw = render(world, camera, START_S + 0.15)
    np.testing.assert_array_equal(image.data.reshape(48, 64, 3), exposed(seen_raw.radiance))
    for topic, distortion in (('/camera', camera.distortion), ('/event_camera', camera.distortion),
                              ('/ground_truth', ())):  # fmt: skip
        info = seen[f'{topic}/camera_info'][3][1]
        np.testing.assert_allclose(info.d[: len(distortion)], distortion)
        assert not any(info.d[len(distortion) :])
        np.testing.assert_allclose(info.k.reshape(3, 3), camera.matrix)
    transform = seen['/tf'][15][1].transforms[0]
    pose = world.pose(START_S + 0.15)
    assert (transform.header.frame_id, transform.child_frame_id) == (
        'map', 'event_camera_optical_frame')  # fmt: skip
    t, q = transform.transform.translation, transform.transform.rotation
    np.testing.assert_allclose((t.x, t.y, t.z), pose[:3, 3])
    point = np.array([0.3, -0.2, 1.0])
    vector = np.array([q.x, q.y, q.z])
    turned = point + 2 * np.cross(vector, np.cross(vector, point) + q.w * point)
    np.testing.assert_allclose(turned, pose[:3, :3] @ point, atol=1e-9)
    moved = seen['/odom'][5][1]
    assert (moved.header.frame_id, moved.child_frame_id) == ('map', 'event_camera_optical_frame')
    assert moved.header.stamp.nanosec == transform.header.stamp.nanosec - 50_000_000
    linear, angular = world.twist(START_S + 0.1)
    read = moved.twist.twist
    np.testing.assert_allclose([read.linear.x, read.linear.y, read.linear.z], linear)
    np.testing.assert_allclose([read.angular.x, read.angular.y, read.angular.z], angular)
    place = moved.pose.pose.position
    np.testing.assert_allclose([place.x, place.y, place.z], world.pose(START_S + 0.1)[:3, 3])
    order = [stamp for topic in seen for stamp, _ in seen[topic]]
    assert max(order) - min(order) < 310_000_000


# stopping and going on


def read_events(folder):
    with h5py.File(folder / 'events' / 'left' / 'events.h5') as file:
        return [file[f'events/{name}'][:] for name in 'txyp']


def test_an_interrupted_run_is_finished_by_the_same_command(dsec, tmp_path, monkeypatch):
    real, calls = recorder.record_segment, []

    def stopped(work, plan, segment):
        if segment == 1:  # leave what a kill in the middle of writing would leave
            (work / 'events' / '000001.partial.npy').write_bytes(b'half')
            raise KeyboardInterrupt
        calls.append(segment)
        return real(work, plan, segment)

    monkeypatch.setattr(recorder, 'record_segment', stopped)
    with pytest.raises(SystemExit):
        make(tmp_path, 'dsec')
    assert not (tmp_path / f'street_{SEED:06d}').exists()
    monkeypatch.setattr(recorder, 'record_segment', real)
    folder = make(tmp_path, 'dsec')
    assert calls == [0]
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    for a, b in zip(read_events(folder), read_events(dsec), strict=True):
        np.testing.assert_array_equal(a, b)
    files = sorted(p.relative_to(dsec) for p in dsec.rglob('*.*'))
    assert files == sorted(p.relative_to(folder) for p in folder.rglob('*.*'))
    for name in files:
        if name.suffix in ('.png', '.txt', '.yaml', '.json'):
            assert (folder / name).read_bytes() == (dsec / name).read_bytes()


def test_a_run_stopped_while_completing_is_completed(dsec, tmp_path, monkeypatch):
    def stopped(work, plan):
        (work / plan.name / 'events' / 'left').mkdir(parents=True)
        for name in ('events.h5', 'rectify_map.h5'):
            (work / plan.name / 'events' / 'left' / name).write_bytes(b'half')
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(recorder, 'finish', stopped)
        with pytest.raises(SystemExit):
            make(tmp_path, 'dsec')
    folder = make(tmp_path, 'dsec')
    for a, b in zip(read_events(folder), read_events(dsec), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_there_is_left_alone(dsec, capsys):
    before = (dsec / 'synthetic.json').stat().st_mtime_ns
    assert json.loads((dsec / 'synthetic.json').read_text())['seed'] == SEED
    rest = dsec.with_name(f'.{dsec.name}.partial')
    rest.mkdir()  # of a run that was stopped between naming the folder and tidying up
    make(dsec.parent, 'dsec')
    assert '0 drives written, 1 were there' in capsys.readouterr().out
    assert (dsec / 'synthetic.json').stat().st_mtime_ns == before
    assert not rest.exists()


def test_another_recording_in_the_way_is_named(dsec):
    with pytest.raises(recorder.RecordError, match='holds another recording'):
        make(dsec.parent, 'dsec', seconds=0.4)


def test_the_remains_of_another_plan_are_not_mixed_in(tmp_path):
    plan, other = (recorder.Plan('dsec', 'street', SEED, s, '64x48') for s in (0.8, 0.9))
    work = recorder.open_work(tmp_path, plan)
    (work / 'events').mkdir()
    np.save(work / 'events' / '000000.npy', np.zeros(3))
    assert recorder.missing_segments(recorder.open_work(tmp_path, plan), plan) == [1]
    assert recorder.open_work(tmp_path, other) == work
    assert recorder.missing_segments(work, other) == [0, 1]


@pytest.mark.slow
def test_two_processes_write_what_one_writes(dsec, tmp_path):
    synth(str(tmp_path), seed=SEED, seconds=0.8, sensor='64x48', layout='dsec', processes=2)
    for a, b in zip(read_events(tmp_path / dsec.name), read_events(dsec), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    'wrong', [{'scene': 'moon'}, {'seconds': 0.0}, {'sequences': 0}, {'max_step_px': 0.0}]
)
def test_a_wrong_option_is_named_before_anything_is_written(tmp_path, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        synth(str(tmp_path / 'out'), **wrong)
    assert not (tmp_path / 'out').exists()


def test_the_verb_is_on_the_command_line(tmp_path, capsys):
    options = '--scene indoor --seconds 0.1 --sensor 32x24 --layout bag --processes 1 --seed 7'
    main(['synth', str(tmp_path), *options.split()])
    assert '1 drives written, 0 were there' in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ['indoor_000007']
    with pytest.raises(SystemExit) as stopped:
        main(['synth', str(tmp_path), '--sensor', 'nosuch'])
    assert stopped.value.code == 1
    assert "sensor is 'nosuch'" in capsys.readouterr().err


# shots


def test_a_shot_as_the_scene_comes_leaves_no_trace(dsec):
    note = json.loads((dsec / recorder.NOTE).read_text())
    assert 'shot' not in note
    assert recorder.open_work(dsec.parent, recorder.Plan(**note)) is None


def test_a_shot_decides_mount_lens_and_what_stands_in_view():
    shot = recorder.Shot('walking', 0.8, 10.0, -5.0, 20.0, 60.0, 'random', 'bonnet', 100.0)
    plan = recorder.Plan('bag', 'indoor', SEED, 0.5, '64x48', 1.0, shot)
    world, own = plan.world, world_of('indoor', SEED)
    assert world.ego.height_m == pytest.approx(0.8)
    assert np.degrees([world.ego.pitch_rad, world.ego.roll_rad]) == pytest.approx([10.0, -5.0])
    assert np.degrees(world.ego.yaw_rad - own.ego.yaw_rad) == pytest.approx(20.0)
    assert world.ego.part.kind == 'bonnet'
    assert world.light.flicker.rate_hz == 100.0
    assert field_of_view_deg(plan.rig.sensor.camera) == pytest.approx(60.0, abs=1.0)
    assert plan.rig.sensor.readout_mev_s > 0
    assert plan.world is world, 'every segment sees the same one'
    assert recorder.Plan(**dataclasses.asdict(plan) | {'shot': shot}).note == plan.note


@pytest.mark.parametrize(
    ('layout', 'shot', 'named'),
    [
        ('bag', {'motion': 'flying'}, 'motion'),
        ('bag', {'static_part': 'tail'}, 'static_part'),
        ('dense', {'field_of_view_deg': 60.0}, 'field_of_view_deg'),
        ('dsec', {'field_of_view_deg': 140.0}, 'plumb_bob'),
    ],
)
def test_a_shot_that_cannot_be_is_named(layout, shot, named):
    with pytest.raises(ConfigError, match=named):
        recorder.Plan(layout, 'street', 1, 1.0, '346x260', 1.0, recorder.Shot(**shot))


def test_the_verb_hands_its_shot_on(tmp_path):
    options = {'motion': 'sideways', 'height': 1.4, 'field_of_view': 70.0, 'static_part': 'rim'}
    folder = make(tmp_path, 'bag', 0.1, **options)
    note = json.loads((folder / recorder.NOTE).read_text())
    assert note['shot']['motion'] == 'sideways'
    assert note['shot']['height_m'] == 1.4
    assert note['shot']['pitch_deg'] is None
