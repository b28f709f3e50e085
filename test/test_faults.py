"""Kinds of faults that cameras, drivers and disks are reported to have, in every format."""

import itertools
import struct

import h5py
import numpy as np
import pytest
from recordings import (
    H,
    W,
    events_in,
    evt2_words,
    evt3_words,
    some_events,
    write_bag,
    write_ros1,
    young,
)
from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.rosbag1 import Writer as Ros1Writer
from test_aedat4 import write_aedat4
from test_formats import evt4_words, write_columns, write_dat, write_raw

from spike_depth_ros.cli import main
from spike_depth_ros.events.calibration_file import read_calibration
from spike_depth_ros.events.camera import CalibrationError
from spike_depth_ros.recordings import BagError, convert_to, open_source
from spike_depth_ros.recordings.array_source import first_at
from spike_depth_ros.recordings.packets import StampClock, stale_head

SIZE = f'geometry {W}x{H}'
HOUR_NS = 3600 * 10**9


def written(path, events):
    """A file of the kind that its name says."""
    makers = {
        'evt2.raw': lambda: write_raw(path, ['evt 2.0', SIZE], evt2_words(events)),
        'evt3.raw': lambda: write_raw(path, ['evt 3.0', SIZE], evt3_words(events)),
        'evt4.raw': lambda: write_raw(path, ['evt 4.0', SIZE], evt4_words(events)),
        'a.dat': lambda: write_dat(path, events),
        'a.h5': lambda: write_columns(path, events),
        'a.aedat4': lambda: write_aedat4(path, events),
    }
    return makers[path.name]()


def stamps_of(path):
    with open_source(path) as source:
        return [message.stamp_ns for message in source.messages()]


FILES = ['evt2.raw', 'evt3.raw', 'evt4.raw', 'a.dat', 'a.h5', 'a.aedat4']


@pytest.mark.parametrize('ahead_ns', [999_000_000, -99_000_000, 8_000_000_000])
@pytest.mark.parametrize('index', [0, 1, 5000])
@pytest.mark.parametrize('name', FILES)
def test_one_wrong_time_costs_one_event_and_moves_no_stamp(tmp_path, name, index, ahead_ns):
    events = young(some_events(20_000)).copy()
    good_ns = events['t_ns'].copy()
    events['t_ns'][index] += ahead_ns
    path = written(tmp_path / name, events)
    stamps_ns = stamps_of(path)
    assert stamps_ns == sorted(stamps_ns)
    assert good_ns[0] - 105_000_000 < stamps_ns[0]  # .raw has slots of 4.1 ms
    assert stamps_ns[-1] <= good_ns[-1]
    assert len(set(stamps_ns)) > 10
    with open_source(path) as source:
        done = convert_to(source, tmp_path / 'out.h5')
    found = events_in(tmp_path / 'out.h5')
    if index:  # of the first two events of a stream either may be wrong
        assert done.events == 19_999
        assert sum(done.dropped.values()) == 1
        np.testing.assert_array_equal(found['t_ns'], np.delete(good_ns, index))
    else:
        np.testing.assert_array_equal(found['t_ns'][-19_999:], good_ns[1:])


@pytest.mark.parametrize(
    ('name', 'ahead_us'),
    [
        ('evt2.raw', 2_000_000),
        ('evt2.raw', 9_000_000_000),  # more than half a round of the clock
        ('evt3.raw', 2_000_000),
        ('evt3.raw', 10_000_000),
        ('evt4.raw', 9_000_000_000),
        ('a.dat', 2_000_000),
        ('a.dat', 4_000_000_000),
        ('a.h5', 2_000_000),
    ],
)
def test_an_earlier_run_by_any_distance(tmp_path, name, ahead_us):
    events = young(some_events(20_000))
    stale = young(some_events(30, seed=1)).copy()
    stale['t_ns'] += ahead_us * 1000
    path = written(tmp_path / name, np.concatenate([stale, events]))
    np.testing.assert_array_equal(events_in(path), events)
    with open_source(path) as source:
        assert source.dropped == {'events of an earlier run': 30}


def test_stale_heads_by_hand():
    run = np.arange(100) * 1_000_000
    late = run + 10 * 10**9
    assert stale_head(np.concatenate([late[:30], run])) == 30
    assert stale_head(np.concatenate([late[:30], run]), 12 * 10**9) == 30
    assert stale_head(np.concatenate([late[:30], run]), 10_500_000_000) == 0  # it wrapped
    assert stale_head(np.concatenate([run[:5], run + 2 * HOUR_NS])) == 5  # the clock was set
    assert stale_head(np.concatenate([run[:50], run + 2 * HOUR_NS])) == 0
    assert stale_head(np.concatenate([late[:1], run[:1]])) == 0  # one time shows no clock
    assert stale_head(np.insert(run, 40, 10**12)) == 0


def test_stamps_go_on_after_the_clock_restarts():
    run = 5 * 10**9 + np.arange(40) * 4_000_000
    times = np.concatenate([run + HOUR_NS, run])
    clock = StampClock()
    stamps = [clock(times, k) for k in range(len(times))]
    assert stamps[:40] == times[:40].tolist()
    steps = np.diff(stamps[39:])
    assert steps.tolist() == [0] + [4_000_000] * 39


def test_stamps_wait_for_a_second_time_after_a_long_jump():
    run = np.arange(1, 40) * 4_000_000
    for wrong, index in ((HOUR_NS, 20), (0, 20), (HOUR_NS, 0), (HOUR_NS, 38)):
        times = run.copy()
        times[index] = wrong
        clock = StampClock()
        stamps = [clock(times, k) for k in range(len(times))]
        assert stamps == sorted(stamps)
        assert max(np.abs(np.array(stamps) - run)) <= 17 * 4_000_000


def test_bisection_does_not_trust_one_time():
    times = np.arange(1000) * 10
    times[500] = 10**6  # the first that is asked for
    assert first_at(3000, 1000, lambda a, b: times[a:b]) == 300
    times[500] = 0
    assert first_at(7000, 1000, lambda a, b: times[a:b]) == 700
    assert [first_at(t, 2, lambda a, b: times[a:b]) for t in (0, 20)] == [0, 2]
    assert first_at(0, 0, lambda a, b: times[a:b]) == 0


@pytest.mark.parametrize('name', ['a.dat', 'a.h5'])
def test_a_start_amid_wrong_times(tmp_path, name):
    events = young(some_events(4000)).copy()
    start_ns = 3_000_000
    wanted = np.count_nonzero(events['t_ns'] >= events['t_ns'][0] + start_ns)
    events['t_ns'][2000] = 1000
    path = written(tmp_path / name, events)
    with open_source(path) as source:
        done = convert_to(source, tmp_path / 'out', start_ns=start_ns)
    assert abs(done.events - wanted) <= 1


def test_dat_clock_steps_back_over_a_wrap(tmp_path):
    events = young(some_events(3000)).copy()
    events['t_ns'] = (np.arange(3000) * 10 + 2**32 - 10_000) * 1000
    events['t_ns'][1005] -= 60_000  # after the wrap, before it, after it
    np.testing.assert_array_equal(events_in(write_dat(tmp_path / 'a.dat', events)), events)
    events = young(some_events(3000)).copy()
    events['t_ns'][100] = (2**32 - 1) * 1000
    np.testing.assert_array_equal(events_in(write_dat(tmp_path / 'a.dat', events)), events)


@pytest.mark.parametrize(
    ('header', 'sentence'),
    [
        (b'% evt 2.0\n% format EVT3;height=12;width=40\n', 'contradict each other: .*EVT3.* 2.0'),
        (b'% evt 3.0\n% evt 2.0\n% geometry 40x12\n', 'contradict each other: "% evt" 2.0'),
        (b'% geometry 40x12\n% evt 3.0\n% geometry 80x24\n', 'contradict.* 80x24.* 40x12'),
        (b'% evt 3.0\n' + b'% c ' + b'x' * 70_000 + b'\n', 'header is longer than 65536 bytes'),
        (b'% evt ' + b'9' * 5000 + b'\n', r"the format is '9{40}\.\.\.'"),
        (b'', 'does not start with the header of a Prophesee file'),
        (b'\xef\xbb\xbf% evt 3.0\n', 'does not start with the header'),
    ],
)
def test_raw_headers_that_cannot_be(tmp_path, header, sentence):
    (tmp_path / 'a.raw').write_bytes(header + evt3_words(young(some_events(20))))
    with pytest.raises(BagError, match=sentence):
        open_source(tmp_path / 'a.raw')


@pytest.mark.parametrize(
    'header',
    [
        b'% evt 3.0\r\n% geometry 40x12\r\n% end\r\n',
        b'%\tevt 3.0\n%\tgeometry\t40 x 12 px\n% end\n',
        b'% evt 3\n% geometry 40,12\n',
        '% serial µ\n% evt 3.0\n% geometry 40 12\n% evt 3.0\n'.encode('latin-1'),
    ],
)
def test_raw_headers_as_people_edit_them(tmp_path, header):
    events = young(some_events(50))
    (tmp_path / 'a.raw').write_bytes(header + evt3_words(events))
    np.testing.assert_array_equal(events_in(tmp_path / 'a.raw'), events)


@pytest.mark.parametrize(
    ('lines', 'words'),
    [(['evt 2.0', 'geometry 20x6'], evt2_words), (['evt 3.0', SIZE], evt2_words)],
)
def test_a_file_of_which_most_is_lost_is_refused(tmp_path, lines, words, capsys):
    """The size of another sensor, and the words of another format."""
    path = write_raw(tmp_path / 'a.raw', lines, words(young(some_events(3000))))
    for verb in (['info', str(path)], ['convert', str(path), str(tmp_path / 'out')]):
        with pytest.raises(SystemExit) as exit_code:
            main(verb)
        assert exit_code.value.code == 1
        said = capsys.readouterr().err
        assert 'can be used: ' in said or 'no event found' in said
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('times', 'sentence'),
    [
        (lambda us: us // 1000, r"may be in \['s', 'ms', 'us'\].*--time-unit"),
        (lambda us: us[::-1], r'times fall from .*: sort the events'),
        (lambda us: np.where(us == us[7], np.nan, us / 1e6), 'times that are not numbers'),
        (lambda us: us - us[100], r'has negative times, from -\d+ on'),
        (lambda us: (us - us[2000]) % 2**32, 'times fall from .* wraps of their clock'),
    ],
)
def test_times_that_mean_nothing(tmp_path, times, sentence):
    path = write_columns(tmp_path / 'a.h5', young(some_events(3000)), times=times)
    with pytest.raises(BagError, match=sentence):
        events_in(path)


def test_a_wrong_last_time_does_not_decide_the_unit(tmp_path):
    events = young(some_events(3000)).copy()
    events['t_ns'][-1] += 10**15
    path = write_columns(tmp_path / 'a.h5', events)
    np.testing.assert_array_equal(events_in(path), events)


def test_files_of_a_bag_that_are_empty_or_copies(tmp_path, caplog):
    events = some_events(300)
    folder = write_bag(tmp_path / 'bag', events)
    (folder / 'metadata.yaml').unlink()
    (folder / 'bag_1.mcap').write_bytes(b'')
    (folder / 'bag (copy).mcap').write_bytes((folder / 'bag.mcap').read_bytes())
    np.testing.assert_array_equal(events_in(folder), events)
    assert 'bag_1.mcap is empty and not played' in caplog.text
    assert 'bag.mcap is not played: it equals bag (copy).mcap' in caplog.text
    for name in ('a.mcap', 'a.bag', 'a.db3'):
        (tmp_path / name).write_bytes(b'')
        with pytest.raises(BagError, match='is empty: the recorder was cut off'):
            open_source(tmp_path / name)


def bomb(text: str) -> str:
    """YAML of a few lines, with aliases that stand for 10^9 values in the place of '@'."""
    letters = 'abcdefghij'
    lines = ['a: &a [x, x, x, x, x, x, x, x, x, x]']
    for before, letter in itertools.pairwise(letters):
        lines.append(f'{letter}: &{letter} [{", ".join([f"*{before}"] * 10)}]')
    return '\n'.join([*lines, text.replace('@', '*j'), ''])


@pytest.mark.parametrize(
    'text',
    [
        bomb('rosbag2_bagfile_information: {relative_file_paths: @}').encode(),
        b'rosbag2_bagfile_information: {relative_file_paths: 7}',
        b'- 1\n', b'{{{', b'\xff\xfe\0', b'[' * 100_000, b'',
    ],
)  # fmt: skip
def test_metadata_that_says_nothing_hides_nothing(tmp_path, text):
    events = some_events(300)
    folder = write_bag(tmp_path / 'bag', events)
    (folder / 'metadata.yaml').write_bytes(text)
    np.testing.assert_array_equal(events_in(folder), events)


def test_one_damaged_ros1_message_is_counted(tmp_path):
    events = some_events(400)
    write_ros1(tmp_path / 'good.bag', events)
    with Ros1Reader(tmp_path / 'good.bag') as reader, Ros1Writer(tmp_path / 'bad.bag') as writer:
        source = next(c for c in reader.connections if c.topic == '/dvs/events')
        target = writer.add_connection(
            source.topic, source.msgtype, msgdef=source.msgdef.data, md5sum=source.digest
        )
        for k, (_, stamp_ns, data) in enumerate(reader.messages([source])):
            writer.write(target, stamp_ns, data[:50] if k == 1 else data)
    with open_source(tmp_path / 'bad.bag') as source:
        done = convert_to(source, tmp_path / 'out')
    assert done.events == 300
    assert done.dropped == {'unreadable event messages (truncated)': 1}


def test_a_checkpoint_header_that_is_no_json(tmp_path, capsys):
    header = b'{"__metadata__":{"card":"' + b'[' * 50_000 + b'","digest":"' + b'1' * 5000 + b'"}}'
    path = tmp_path / 'a.safetensors'
    path.write_bytes(struct.pack('<Q', len(header)) + header)
    main(['info', str(path)])
    assert '[[[[' in capsys.readouterr().out


def test_hdf5_that_is_cut_off(tmp_path):
    path = write_columns(tmp_path / 'a.h5', young(some_events(100)))
    data = path.read_bytes()
    for size in (0, 100, len(data) // 2):
        path.write_bytes(data[:size])
        with pytest.raises(BagError, match='is it complete'):
            open_source(path)
    with h5py.File(path, 'w'):
        pass
    with pytest.raises(BagError, match='It has nothing; expected columns'):
        open_source(path)


CALIBRATION = """image_width: 64
image_height: 48
camera_matrix: {{rows: 3, cols: 3, data: {k}}}
distortion_model: {model}
distortion_coefficients: {{rows: 1, cols: 4, data: [0.1, 0.0, 0.0, 0.0]}}
"""
K = '[60.0, 0, 31.5, 0, 60.0, 23.5, 0, 0, 1]'


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        (CALIBRATION.format(k='[1, 0, 0.5, 0, 1, 0.5, 0, 0, 1]', model='plumb_bob'),
         'a focal length of 1 px belongs to no lens, expected 6.4 to 6400 px'),
        (CALIBRATION.format(k='[60000, 0, 31, 0, 60000, 23, 0, 0, 1]', model='plumb_bob'),
         'belongs to no lens'),
        (CALIBRATION.format(k=K, model='x').replace('width: 64', 'width: 64.5'),
         '64.5 is no number of pixels'),
        (CALIBRATION.format(k=K, model='x').replace('width: 64', 'width: true'),
         'True is no number of pixels'),
        (CALIBRATION.format(k=K, model='x').replace('width: 64', 'width: 100000000'),
         'expected 1 to 16384 px'),
        (CALIBRATION.format(k=K, model='x') * 2, "it states 'image_width' twice"),
        (bomb(CALIBRATION.format(k=K, model='@')),
         'its aliases stand for .* values, most are 100000'),
        ('a: &a [*a]\n', 'aliases stand for'),
        ('a: ' + '[' * 5000 + ']' * 5000, 'nested too deeply|flow level'),
        ('x' * 2_000_000, 'more than 1048576 bytes'),
        ('', 'holds no table'),
        ('- 1\n', 'holds no table'),
    ],
)  # fmt: skip
def test_calibrations_that_cannot_be(tmp_path, text, sentence):
    (tmp_path / 'a.yaml').write_text(text)
    with pytest.raises(CalibrationError, match=sentence):
        read_calibration(tmp_path / 'a.yaml')


@pytest.mark.parametrize('coding', ['latin-1', 'utf-16', 'utf-8-sig'])
def test_calibrations_in_other_codings(tmp_path, coding):
    text = '# caméra\n' + CALIBRATION.format(k='[[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]]',
                                             model='equi')  # fmt: skip
    (tmp_path / 'a.yaml').write_bytes(text.encode(coding))
    camera = read_calibration(tmp_path / 'a.yaml')
    assert (camera.fx, camera.cx, camera.distortion_model) == (60.0, 31.5, 'equidistant')
