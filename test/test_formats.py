"""Formats that leave things out, or keep events in their own way: files made here, as reported."""

import logging
import struct

import h5py
import numpy as np
import pytest
from backports import zstd
from recordings import (
    RAW,
    H,
    W,
    as_table,
    dvs_definition,
    events_in,
    evt2_words,
    evt3_words,
    evt21_words,
    some_events,
    write_bag,
    write_h5,
    write_m3ed,
    write_ros1,
    young,
)
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Ros2Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from spike_depth_ros.cli import main
from spike_depth_ros.recordings import BagError, BagWriter, convert_to, open_source
from spike_depth_ros.recordings.ecf import EcfError, decode_ecf
from spike_depth_ros.recordings.messages import DEFINITIONS
from spike_depth_ros.recordings.packets import Packetiser

PACKET = 'event_camera_msgs/msg/EventPacket'
SIZE = f'{W}x{H}'


def write_raw(path, header, words):
    path.write_bytes(''.join(f'% {line}\n' for line in header).encode() + words)
    return path


@pytest.mark.parametrize(
    ('lines', 'geometry', 'words'),
    [
        (['system_ID 21', 'evt 2.0'], (480, 640), evt2_words),
        (['integrator_name Prophesee', 'system_ID 40'], (480, 640), evt3_words),
        (['system_ID 26'], (720, 1280), evt2_words),
        (['system_ID 49'], (720, 1280), evt3_words),
        (['system_ID 0x31', 'evt 3.0'], (720, 1280), evt3_words),
        (['plugin_name hal_plugin_gen31_fx3', 'evt 2.0'], (480, 640), evt2_words),
        (['plugin_name hal_plugin_imx636_evk4', 'evt 3'], (720, 1280), evt3_words),
        (['sensor_name GenX320', 'evt 3.0'], (320, 320), evt3_words),
        (['geometry   640 x 480', 'format  EVT3'], (480, 640), evt3_words),
        (['Geometry 640X480', 'evt 2.0'], (480, 640), evt2_words),
        (['system_ID 49', 'evt 2.1'], (720, 1280), lambda e: evt21_words(e, True)),
        (['system_ID 55', 'evt 2.1', 'geometry 640x480'], (480, 640),
         lambda e: evt21_words(e, False)),
        (['camera_integrator_name Other', 'plugin_integrator_name Other', 'system_ID 49',
          'format EVT21;height=480;width=640'], (480, 640), lambda e: evt21_words(e, False)),
        (['camera_integrator_name Other', 'format EVT21;height=480;width=640'], (480, 640),
         lambda e: evt21_words(e, True)),
    ],
)  # fmt: skip
def test_raw_headers_are_completed_from_the_camera(tmp_path, lines, geometry, words):
    events = young(some_events(2000))
    path = write_raw(tmp_path / 'a.RAW', lines, words(events))
    np.testing.assert_array_equal(events_in(path), events)
    with open_source(path) as source:
        assert source.geometry == geometry


@pytest.mark.parametrize(
    ('lines', 'sensor', 'sentence'),
    [
        (['format EVT3;height=480;width=640', 'width 1280', 'height 720'], '', 'contradict'),
        (['evt 3.0', 'geometry 640x480'], '1280x720', r'640x480 sensor, but --sensor says'),
        (['evt 3.0', 'geometry 99999x99999'], '', r'99999x99999 px, expected 1 to 4096'),
        (['evt 3.0', f'geometry {"9" * 5000}x480'], '', r'expected 1 to 4096'),
        (['evt 3.0'], '', '--sensor WIDTHxHEIGHT'),
        (['evt 3.0'], '640*480', 'expected WIDTHxHEIGHT'),
        (['evt 7.0', 'system_ID 49'], '', "the format is '7.0'"),
    ],
)
def test_raw_headers_that_are_refused(tmp_path, lines, sensor, sentence):
    path = write_raw(tmp_path / 'a.raw', lines, evt3_words(young(some_events(10))))
    with pytest.raises(BagError, match=sentence):
        open_source(path, sensor=sensor)


def test_a_given_size_completes_a_raw_file(tmp_path):
    events = young(some_events(100))
    path = write_raw(tmp_path / 'a.raw', ['evt 3.0'], evt3_words(events))
    np.testing.assert_array_equal(events_in(path, sensor=SIZE), events)


def evt4_words(events) -> bytes:
    """A TIME_HIGH and one CD word per event; every third event as a vector with a mask."""
    words = []
    for k, (t_us, x, y, p) in enumerate((as_table(events) // [1000, 1, 1, 1]).tolist()):
        words.append(14 << 28 | t_us >> 6)
        low = (t_us & 63) << 22
        if k % 3:
            words.append((10 + p) << 28 | low | x << 11 | y)
        else:
            words += [(12 + p) << 28 | low | x // 32 * 32 << 11 | y, 1 << x % 32]
    return np.array(words, '<u4').tobytes()


def test_evt4_masks_are_no_times(tmp_path, monkeypatch):
    """A mask word may look like any other; it stays with its word, wherever blocks end."""
    monkeypatch.setattr('spike_depth_ros.recordings.raw_file.READ_BYTES', 1000)
    events = young(some_events(3000)).copy()
    events['x'] = np.random.default_rng(0).integers(
        28, 32, len(events)
    )  # masks from 0x10000000 on
    path = write_raw(tmp_path / 'a.raw', [f'format EVT4;height={H};width={W}'], evt4_words(events))
    np.testing.assert_array_equal(events_in(path), events)


def write_dat(path, events, lines=('Version 2', f'Width {W}', f'Height {H}'), kind=0x0C):
    rows = as_table(events) // [1000, 1, 1, 1]
    data = b''.join(struct.pack('<II', t % 2**32, x | y << 14 | p << 28) for t, x, y, p in rows)
    header = ''.join(f'% {line}\n' for line in ('Data file containing CD events', *lines))
    path.write_bytes(header.encode() + bytes([kind, 8]) + data)
    return path


def test_dat(tmp_path):
    events = young(some_events(3000))
    path = write_dat(tmp_path / 'a.dat', events)
    np.testing.assert_array_equal(events_in(path), events)
    with open_source(path) as source:
        assert (source.kind, source.geometry) == ('dat', (H, W))
        late = convert_to(source, tmp_path / 'late.h5', start_ns=5_000_000)
    assert late.events == np.count_nonzero(events['t_ns'] >= events['t_ns'][0] + 5_000_000)
    path.write_bytes(path.read_bytes() + b'cut')
    with open_source(path) as source:
        assert convert_to(source, tmp_path / 'cut').dropped == {'truncated bytes': 3}


def test_dat_clock_wraps_and_sizes(tmp_path):
    events = young(some_events(50)).copy()
    events['t_ns'][25:] += (2**32 - 3_000_100) * 1000  # 71 minutes: the 32-bit clock starts again
    path = write_dat(tmp_path / 'a.dat', events, ['Version 2'])
    with pytest.raises(BagError, match='--sensor WIDTHxHEIGHT'):
        open_source(path)
    np.testing.assert_array_equal(events_in(path, sensor=SIZE), events)
    with pytest.raises(BagError, match=r'expected a 8x8 sensor'):
        events_in(path, sensor='8x8')
    with pytest.raises(BagError, match='type 0xe'):
        open_source(write_dat(path, events, kind=0x0E))
    with pytest.raises(BagError, match="version '1'"):
        open_source(write_dat(path, events, ['Version 1']))


def ecf_chunk(events, packing) -> bytes:
    """ECF as its description says, written event by event; packing 0, 1 or 2 as in the flags."""
    rows = (as_table(events) // [1000, 1, 1, 1]).tolist()
    out = struct.pack('<Iq', len(rows) << 2 | packing, rows[0][0])
    now = rows[0][0]
    for t, *_ in rows:
        step, now = t - now, t
        if step >= 15:
            while step:
                out += bytes([0xF0 | step & 15])
                step >>= 4
        out += bytes([step << 4 | 1])
    padded = [*rows, *[[0, 0, 0, 0]] * (-len(rows) % 4)]
    if packing == 2:
        for k in range(0, len(rows), 4):
            a, b, c, d = (y << 12 | x << 1 | p for _, x, y, p in padded[k : k + 4])
            out += struct.pack(
                '<III', a << 8 | b & 255, b >> 8 << 16 | c & 65535, c >> 16 << 24 | d
            )
        return out
    out += b''.join(struct.pack('<H', y << 5 | 1) for _, _, y, _ in rows)
    if packing == 1:
        for k in range(0, len(rows), 4):
            a, b, c, d = (x << 1 | p for _, x, _, p in padded[k : k + 4])
            out += struct.pack('<HHH', a << 4 | b & 15, b >> 4 << 8 | c & 255, c >> 8 << 12 | d)
        return out
    out += b''.join(struct.pack('<H', x << 5) for _, x, _, _ in rows)
    return out + b''.join(bytes([p << 7 | 1]) for *_, p in rows)


@pytest.mark.parametrize('packing', [0, 1, 2])
def test_ecf(packing):
    events = some_events(1001, step_us=40)
    found = decode_ecf(ecf_chunk(events, packing))
    np.testing.assert_array_equal(found['t'] * 1000, events['t_ns'])
    for name in 'xyp':
        np.testing.assert_array_equal(found[name], events[name])


def test_ecf_runs_and_masks_by_hand():
    head = struct.pack('<Iq', 20 << 2, 1000)
    times = bytes([0x0F, 20, 0])  # step 0, run length 15: 16 bits with it follow
    ys = struct.pack('<HH', 7 << 5 | 31, 20)
    xs = struct.pack('<HHHH', 100 << 5 | 0b11111, 200 << 5 | 0b10001, 300 << 5 | 0b11111,
                     400 << 5 | 0b11110)  # fmt: skip
    ps = bytes([0x80 | 3, 127, 17, 0])
    events = decode_ecf(head + times + ys + xs + ps)
    assert set(events['t']) == {1000}
    assert set(events['y']) == {7}
    assert events['x'].tolist() == [*range(100, 106), 200, 201, 205, *range(300, 306),
                                    *range(400, 405)]  # fmt: skip
    assert events['p'].tolist() == [1] * 3 + [0] * 17
    for size in range(len(head + times + ys + xs + ps)):
        with pytest.raises(EcfError):
            decode_ecf((head + times + ys + xs + ps)[:size])


@pytest.mark.parametrize('coded', [False, True])
def test_prophesee_hdf5(tmp_path, coded):
    events = young(some_events(2500))
    table = np.empty(2500, [('x', '<u2'), ('y', '<u2'), ('p', '<i2'), ('t', '<i8')])
    for name in 'xyp':
        table[name] = events[name]
    table['t'] = events['t_ns'] // 1000
    with h5py.File(tmp_path / 'a.HDF5', 'w') as file:
        file.attrs['geometry'] = SIZE
        if not coded:
            file['CD/events'] = table
        else:
            properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            properties.set_chunk((1000,))
            properties.set_filter(0x8ECF, h5py.h5z.FLAG_OPTIONAL, ())
            space = h5py.h5s.create_simple((2500,))
            group = file.create_group('CD')
            kind = h5py.h5t.py_create(table.dtype)
            dataset = h5py.h5d.create(group.id, b'events', kind, space, properties)
            for first in range(0, 2500, 1000):
                piece = events[first : first + 1000]
                piece = np.append(piece, np.repeat(piece[-1:], 1000 - len(piece)))  # is full
                dataset.write_direct_chunk((first,), ecf_chunk(piece, first // 1000))
    np.testing.assert_array_equal(events_in(tmp_path / 'a.HDF5'), events)
    with open_source(tmp_path / 'a.HDF5') as source:
        assert (source.kind, source.geometry) == ('prophesee', (H, W))


def write_columns(path, events, names='xytp', times=lambda us: us, group='events', size=(H, W)):
    with h5py.File(path, 'w') as file:
        x, y, t, p = (f'{group}/{name}' if group else name for name in names)
        file[x], file[y], file[p] = events['x'], events['y'], events['p']
        file[t] = times(events['t_ns'] // 1000)
        if size:
            file.attrs['sensor_resolution'] = size
    return path


NAMES = [('x', 'y', 't', 'p'), ('xs', 'ys', 'ts', 'ps'), ('x', 'y', 'timestamps', 'polarity')]
TIMES = {
    'us': lambda us: us,
    'float us': lambda us: us.astype(float),
    's': lambda us: us / 1e6,
    'ms': lambda us: us / 1e3,
    'ns': lambda us: us * 1000,
    'uint64 ns': lambda us: (us * 1000).astype(np.uint64),
}


@pytest.mark.parametrize('times', TIMES)
@pytest.mark.parametrize('make', [some_events, lambda n: young(some_events(n))])
def test_units_of_time_are_found(tmp_path, times, make):
    """Both of a clock since 1970 and of one that started with the camera."""
    events = make(3000)
    path = write_columns(tmp_path / 'a.h5', events, NAMES[1], TIMES[times])
    np.testing.assert_array_equal(events_in(path), events)


@pytest.mark.parametrize('names', NAMES)
@pytest.mark.parametrize('group', ['events', 'camera/left', ''])
def test_columns_of_other_names(tmp_path, names, group):
    events = some_events(500)
    path = write_columns(tmp_path / 'a.h5', events, names, group=group)
    np.testing.assert_array_equal(events_in(path), events)
    with pytest.raises(BagError, match='but --sensor says 7x7'):
        open_source(path, sensor='7x7')


def test_units_and_sizes_are_asked_for(tmp_path):
    """Whole numbers so far apart that they may be nanoseconds as well."""
    events = young(some_events(300)).copy()
    events['t_ns'] = 3_000_000_001_000 + np.arange(300) * 1_001_000
    path = write_columns(tmp_path / 'a.h5', events, size=None)
    with pytest.raises(BagError, match='--sensor WIDTHxHEIGHT'):
        open_source(path)
    with pytest.raises(BagError, match=r"may be in \['us', 'ns'\].*--time-unit"):
        open_source(path, sensor=SIZE)
    np.testing.assert_array_equal(events_in(path, sensor=SIZE, time_unit='us'), events)
    finer = events_in(path, sensor=SIZE, time_unit='ns', encoding='mono')
    np.testing.assert_array_equal(finer['t_ns'], events['t_ns'] // 1000)
    with pytest.raises(BagError, match="time unit is 'h'"):
        open_source(path, sensor=SIZE, time_unit='h')


@pytest.mark.parametrize(
    ('column', 'values', 'sentence'),
    [
        ('x', [0.5, 1, 2], 'x is 0.5, expected whole pixels'),
        ('x', [-1, 1, 2], 'x from -1 to 2'),
        ('y', [0, 1, 400], 'y from 0 to 400'),
        ('p', [0, 1, 255], 'polarities from 0 to 255'),
        ('t', [1e6, np.nan, 1e6 + 9], 'times|unit'),
    ],
)
def test_columns_that_cannot_become_events_are_refused(tmp_path, column, values, sentence):
    columns = {'x': [0, 1, 2], 'y': [0, 1, 2], 't': [1e6, 1e6 + 5, 1e6 + 9], 'p': [0, 1, 1]}
    with h5py.File(tmp_path / 'a.h5', 'w') as file:
        for name, data in (columns | {column: values}).items():
            file[f'events/{name}'] = data
    with pytest.raises(BagError, match=sentence):
        events_in(tmp_path / 'a.h5', sensor='40x12', time_unit='us' if column != 't' else '')


@pytest.mark.parametrize('ending', ['.zst', '.zstd', '.ZST'])
@pytest.mark.parametrize('name', ['a.mcap', 'a.bag', 'a.h5', 'a.raw', 'A.DAT'])
def test_packed_files(tmp_path, name, ending):
    events = young(some_events(300))
    if name == 'a.mcap':
        path = write_bag(tmp_path / 'bag' / 'a', events) / name
    else:
        path = tmp_path / name
        header = next(iter(RAW))
        makers = {
            'a.bag': write_ros1,
            'a.h5': write_h5,
            'A.DAT': write_dat,
            'a.raw': lambda p, e: p.write_bytes(header.encode() + evt3_words(e)),
        }
        makers[name](path, events)
    packed = tmp_path / f'{name}{ending}'
    packed.write_bytes(zstd.compress(path.read_bytes()))
    np.testing.assert_array_equal(events_in(packed), events)
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(BagError, match=f'{name}{ending}'):
        events_in(packed)


def test_endings_in_upper_case_and_files_of_macos(tmp_path):
    events = some_events(300)
    bag = write_bag(tmp_path / 'drive', events)
    shouting = (bag / 'drive.mcap').rename(bag / 'DRIVE.MCAP')
    (bag / '._DRIVE.MCAP').write_bytes(b'resource fork')
    (bag / 'metadata.yaml').unlink()
    for path in (shouting, bag):
        np.testing.assert_array_equal(events_in(path), events)
    with pytest.raises(BagError, match=r'macOS.*give .*DRIVE\.MCAP'):
        open_source(bag / '._DRIVE.MCAP')


def test_folders_that_hold_recordings_are_pointed_at(tmp_path):
    for name in 'abcd':
        write_bag(tmp_path / name, some_events(5))
    (tmp_path / 'e.raw').write_bytes(b'')
    with pytest.raises(BagError, match=r'in it are .*/a, .*/b, .*/c and 2 more: give one'):
        open_source(tmp_path)


def ros1_bag(path, package, definition, serialise, events):
    types = get_types_from_msg(definition, f'{package}/msg/EventArray')
    store = get_typestore(Stores.ROS1_NOETIC)
    store.register({k: v for k, v in types.items() if k not in store.fielddefs})
    with Ros1Writer(path) as writer:
        connection = writer.add_connection('/e', f'{package}/msg/EventArray', typestore=store)
        writer.write(connection, 1_700_000_000_000_000_000, serialise(events))


def array_2014(events) -> bytes:
    rows = (as_table(events) // [1000, 1, 1, 1]).tolist()
    packed = [struct.pack('<HHQB', x, y, t, p) for t, x, y, p in rows]
    return struct.pack('<I', len(rows)) + b''.join(packed)


OLD = ('Event[] events\n' + '=' * 80 + '\nMSG: dvs_msgs/Event\n'
       'uint16 x\nuint16 y\nuint64 time\nbool polarity\n')  # fmt: skip


def test_dvs_msgs_of_2014(tmp_path, capsys):
    events = young(some_events(200))
    ros1_bag(tmp_path / 'a.bag', 'dvs_msgs', OLD, array_2014, events)
    with pytest.raises(BagError, match='--sensor WIDTHxHEIGHT'):
        open_source(tmp_path / 'a.bag')
    np.testing.assert_array_equal(events_in(tmp_path / 'a.bag', sensor=SIZE), events)


def test_a_known_name_with_another_definition_is_refused(tmp_path):
    swapped = OLD.replace('uint16 x\nuint16 y', 'uint16 y\nuint16 x\nuint16 z')
    ros1_bag(tmp_path / 'a.bag', 'dvs_msgs', swapped, lambda e: bytes(8), some_events(1))
    with pytest.raises(BagError, match='holds no events'):
        open_source(tmp_path / 'a.bag')


@pytest.mark.parametrize('package', ['dv_ros_msgs', 'my_camera'])
def test_types_are_known_by_their_definition(tmp_path, package):
    events = some_events(200)
    write_ros1(tmp_path / 'a.bag', events, package)
    np.testing.assert_array_equal(events_in(tmp_path / 'a.bag'), events)
    assert dvs_definition(package)


@pytest.mark.parametrize('storage', ['MCAP', 'SQLITE3'])
def test_ros2_types_of_another_package(tmp_path, storage):
    events = some_events(200)
    name = 'my_camera/msg/Packets'
    store = get_typestore(Stores.ROS2_KILTED)
    store.register(get_types_from_msg(DEFINITIONS[PACKET], name))
    with Ros2Writer(tmp_path / 'bag', version=9, storage_plugin=StoragePlugin[storage]) as writer:
        connection = writer.add_connection('/e', name, typestore=store)
        for packet in Packetiser(H, W, 'f').repack(events, 7):
            writer.write(connection, 7, packet.cdr)
    np.testing.assert_array_equal(events_in(tmp_path / 'bag'), events)


def test_an_empty_topic_of_events_forces_no_choice(tmp_path):
    events = some_events(100)
    store = get_typestore(Stores.ROS2_KILTED)
    store.register(get_types_from_msg(DEFINITIONS[PACKET], PACKET))
    with Ros2Writer(tmp_path / 'bag', version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        writer.add_connection('/left', PACKET, typestore=store)
        connection = writer.add_connection('/right', PACKET, typestore=store)
        for packet in Packetiser(H, W, 'f').repack(events, 7):
            writer.write(connection, 7, packet.cdr)
    with open_source(tmp_path / 'bag') as source:
        assert source.event_topic.name == '/right'
    np.testing.assert_array_equal(events_in(tmp_path / 'bag'), events)


def two_files(folder, first, second, listed):
    """A bag folder with two files, whose metadata.yaml lists some of them."""
    folder.mkdir()
    for name, events in (('one', first), ('two', second)):
        (write_bag(folder.parent / name, events) / f'{name}.mcap').rename(folder / f'{name}.mcap')
    files = ''.join(f'\n  - {name}' for name in listed)
    (folder / 'metadata.yaml').write_text(
        f'rosbag2_bagfile_information:\n  version: 5\n  relative_file_paths:{files}\n'
    )
    return folder


def test_files_that_metadata_does_not_list_are_not_played(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    events = some_events(400)
    folder = two_files(tmp_path / 'bag', events[:200], events[200:], ['one.mcap'])
    np.testing.assert_array_equal(events_in(folder), events[:200])
    assert "['two.mcap']" in caplog.text


def test_files_that_overlap_in_time_are_merged(tmp_path):
    events = some_events(40_000)
    folder = two_files(tmp_path / 'bag', events[::2], events[1::2], ['two.mcap', 'one.mcap'])
    with open_source(folder) as source:
        stamps = [message.stamp_ns for message in source.messages()]
    assert len(stamps) > 30
    assert stamps == sorted(stamps)
    assert stamps != sorted(stamps[::2]) + sorted(stamps[1::2])
    assert len(events_in(folder)) == 40_000


@pytest.mark.parametrize('metadata', [True, False])
def test_a_repaired_file_takes_the_place_of_a_broken_one(tmp_path, metadata, caplog):
    events = some_events(400)
    folder = two_files(tmp_path / 'bag', events, events, ['one.mcap'])
    (folder / 'two.mcap').rename(folder / 'one_recovered.mcap')
    whole = (folder / 'one.mcap').read_bytes()
    (folder / 'one.mcap').write_bytes(whole[: len(whole) // 2])
    if not metadata:
        (folder / 'metadata.yaml').unlink()
    np.testing.assert_array_equal(events_in(folder), events)
    assert 'one.mcap' in caplog.text
    assert 'one_recovered.mcap' in caplog.text


@pytest.mark.parametrize(
    ('name', 'tool'),
    [
        ('a.mcap', 'mcap recover a.mcap'),
        ('a.db3', 'ros2 bag reindex'),
        ('a.bag', 'rosbag reindex'),
    ],
)
def test_the_advice_is_for_the_kind_of_file(tmp_path, name, tool):
    (tmp_path / name).write_bytes(b'broken' * 100)
    with pytest.raises(BagError, match=tool) as caught:
        open_source(tmp_path / name)
    others = {'mcap recover', 'ros2 bag reindex', 'rosbag reindex'} - {tool.replace(' a.mcap', '')}
    assert not [other for other in others if other in str(caught.value)]


def test_a_killed_ros1_recorder(tmp_path):
    (tmp_path / 'a.bag.active').write_bytes(b'#ROSBAG V2.0\n')
    with pytest.raises(BagError, match=r'rosbag reindex a\.bag\.active.*rename it to a\.bag$'):
        open_source(tmp_path / 'a.bag.active')


NOTHING = {
    'unknown encoding': lambda bag: bag.add_raw('/e', PACKET, 5, unknown_packet()),
    'truncated': lambda bag: bag.add_raw('/e', PACKET, 5, unknown_packet()[:30]),
}


def unknown_packet() -> bytes:
    (packet,) = Packetiser(H, W, 'f').repack(some_events(3), 5)
    return packet.cdr.replace(b'evt3', b'evt9')


@pytest.mark.parametrize('reason', NOTHING)
@pytest.mark.parametrize('verb', ['info', 'bag', 'events.h5'])
def test_nothing_found_is_a_failure(tmp_path, reason, verb, capsys):
    with BagWriter(tmp_path / 'drive') as bag:
        NOTHING[reason](bag)
        bag.add_image('/image', 6, np.zeros((2, 2), np.uint8), 'f')
    target = [] if verb == 'info' else [str(tmp_path / verb), '--sensor', SIZE]
    if verb == 'bag':
        target = target[:1]
    with pytest.raises(SystemExit) as exit_code:
        main(['info' if verb == 'info' else 'convert', str(tmp_path / 'drive'), *target])
    assert exit_code.value.code == 1
    said = capsys.readouterr().err
    assert 'no event found' in said or 'does not state the size' in said
    assert [p.name for p in tmp_path.iterdir()] == ['drive']


def test_raw_without_events_is_a_failure(tmp_path, capsys):
    path = write_raw(tmp_path / 'a.raw', ['evt 3.0', f'geometry {SIZE}'], b'\x99\x99' * 7 + b'x')
    for arguments in (['info'], ['convert']):
        extra = [str(tmp_path / 'out')] if arguments == ['convert'] else []
        with pytest.raises(SystemExit) as exit_code:
            main([*arguments, str(path), *extra])
        assert exit_code.value.code == 1
        assert '1 truncated bytes' in (said := capsys.readouterr().err)
        assert '7 unknown codes' in said
    assert not (tmp_path / 'out').exists()


def test_m3ed_without_calibration_may_be_given_a_size(tmp_path):
    events = some_events(100)
    write_m3ed(tmp_path / 'a_data.h5', events)
    with h5py.File(tmp_path / 'a_data.h5', 'r+') as file:
        del file['prophesee/left/calib']
    with open_source(tmp_path / 'a_data.h5') as source:
        assert source.geometry == (720, 1280)
    with open_source(tmp_path / 'a_data.h5', sensor=SIZE) as source:
        assert source.geometry == (H, W)


@pytest.mark.parametrize('name', ['a.raw', 'a.dat', 'a.h5'])
def test_events_of_an_earlier_run_are_dropped_and_counted(tmp_path, name):
    """What a camera had in its buffer, by a clock that was higher; stamps must go on after it."""
    events = young(some_events(20_000))
    stale = young(some_events(30, seed=1)).copy()
    stale['t_ns'] += 500_000_000_000
    both = np.concatenate([stale, events])
    if name == 'a.raw':
        write_raw(tmp_path / name, ['evt 2.0', f'geometry {SIZE}'], evt2_words(both))
    elif name == 'a.dat':
        write_dat(tmp_path / name, both)
    else:
        write_columns(tmp_path / name, both)
    np.testing.assert_array_equal(events_in(tmp_path / name), events)
    with open_source(tmp_path / name) as source:
        stamps = [message.stamp_ns for message in source.messages()]
        done = convert_to(source, tmp_path / 'bag')
    assert stamps[-1] - stamps[0] > 50_000_000
    assert done.dropped == {'events of an earlier run': 30}
    with open_source(tmp_path / name) as source:
        late = convert_to(source, tmp_path / 'late.h5', start_ns=20_000_000)
    assert 0 < late.events < 20_000


@pytest.mark.parametrize('name', ['a.raw', 'a.dat'])
def test_one_wrong_time_is_no_earlier_run(tmp_path, name):
    events = young(some_events(3000)).copy()
    events['t_ns'][0] += 5_000_000_000
    events['t_ns'][3] += 6_000_000_000
    if name == 'a.raw':
        write_raw(tmp_path / name, ['evt 2.0', f'geometry {SIZE}'], evt2_words(events))
    else:
        write_dat(tmp_path / name, events)
    assert len(events_in(tmp_path / name)) >= 2999
