"""`spike_depth info` counts what other programs counted, and what can be counted by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from recordings import (
    EVENT_PACKET,
    H,
    W,
    events_of,
    evt3_words,
    some_events,
    write_bag,
    write_m3ed,
    write_mvsec,
    write_ros1,
    young,
)
from safetensors.numpy import save_file

from spike_depth_ros.cli import flags_spelt_out, main
from spike_depth_ros.cli.info import MOST_CHARS, _lines, info
from spike_depth_ros.events.arrays import make_events
from spike_depth_ros.events.codecs import encode_mono
from spike_depth_ros.events.wire import Packet, pack_event_packet
from spike_depth_ros.recordings import BagWriter, EventsH5Writer, open_source, summarise


def told(capsys, *arguments) -> dict:
    main(['info', *map(str, arguments), '--json'])
    return json.loads(capsys.readouterr().out)


def test_golden(real_events, capsys):
    golden = json.loads((real_events / 'golden.json').read_text(encoding='utf-8'))
    assert len(golden) == 3
    for title, expected in golden.items():
        name = title.split('/')[1].split()[0]
        found = told(capsys, real_events / name)
        assert {key: found[key] for key in expected} == expected, name


def mono(seq: int, events: np.ndarray, stamp_ns: int, payload=None) -> bytes:
    base_ns = int(events['t_ns'].min()) if len(events) else 0
    data = encode_mono(events, base_ns) if payload is None else payload
    packet = Packet(stamp_ns, 'f', H, W, seq, base_ns, 'mono', np.frombuffer(data, np.uint8))
    return pack_event_packet(packet)


def test_counted_by_hand(tmp_path, capsys):
    first = make_events([1_000_000, 3_000_999, 2_000_000], [0, 1, 2], [0, 1, 2], [1, 0, 1])
    second = make_events([50_000_000], [3], [3], [0])
    off_sensor = make_events([60_000_000], [W], [0], [1])
    with BagWriter(tmp_path / 'bag') as bag:
        bag.add_raw('/e', EVENT_PACKET, 10_000_000_000, mono(4, first, 1))
        bag.add_raw('/e', EVENT_PACKET, 10_500_000_000, mono(7, second, 2))
        bag.add_raw('/e', EVENT_PACKET, 11_000_000_000, mono(8, off_sensor, 3))
        bag.add_raw('/e', EVENT_PACKET, 12_000_000_000, mono(9, second, 4)[:-5])
        bag.add_image('/image', 10_000_000_001, np.zeros((2, 2), np.uint8), 'f')
    found = told(capsys, tmp_path / 'bag')
    expected = {
        'kind': 'rosbag2',
        'topic': '/e',
        'type': EVENT_PACKET,
        'encoding': 'mono',
        'height': H,
        'width': W,
        'messages': 4,
        'events': 4,
        'on': 2,
        'off': 2,
        'triggers': 0,
        't_first_us': 1000,
        't_last_us': 50_000,
        'span_us': 49_000,
        'sum_t_rel_us': 0 + 2000 + 1000 + 49_000,
        'sum_t_cd_plus_trig_us': 1000 + 3000 + 2000 + 50_000,
        'longest_silence_us': 48_000,
        'peak_rate_hz': 300.0,
        'message_rate_hz': 1.5,
        'stamp_first_ns': 10_000_000_000,
        'stamp_last_ns': 12_000_000_000,
        'sequence_gaps': 1,
        'missing_packets': 2,
        'restarts': 0,
        'skipped_messages': {'truncated': 1},
        'out_of_bounds': 1,
        'backward_steps': 1,
        'max_backward_ns': 1_000_999,
    }
    assert {key: found[key] for key in expected} == expected
    assert found['event_rate_hz'] == pytest.approx(4 / 0.049)
    assert [(t['name'], t['messages']) for t in found['topics']] == [('/e', 4), ('/image', 1)]


def test_epoch_of_converted_events(tmp_path):
    """Times of an evt3 recording that this package wrote are absolute."""
    events = events_of([0, 5, 3, 90_000_000])
    path = write_bag(tmp_path / 'drive', events)
    with open_source(path) as source:
        found = summarise(source)
    t_us = events['t_ns'] // 1000
    assert found['t_first_us'] == t_us[0]
    assert found['t_last_us'] == t_us[-1]
    assert found['sum_t_cd_plus_trig_us'] == sum(t_us.tolist())
    assert found['sum_t_rel_us'] == 5 + 3 + 90_000_000


def test_span_and_progress(tmp_path):
    events = some_events(9000)
    shares = []
    with open_source(write_bag(tmp_path / 'drive', events)) as source:
        found = summarise(source, 8_000_000, 12_000_000, lambda share, n: shares.append(share))
    assert 0 < found['events'] < 9000
    assert len(shares) == found['messages']
    assert shares == sorted(shares)


def test_recording_without_events(tmp_path):
    empty = events_of([])
    with BagWriter(tmp_path / 'bag') as bag:
        bag.add_raw('/e', EVENT_PACKET, 5, mono(0, empty, 1))
    with open_source(tmp_path / 'bag') as source:
        found = summarise(source)
    assert (found['messages'], found['events'], found['t_first_us']) == (1, 0, None)
    json.dumps(found)


def test_text(tmp_path, capsys):
    write_ros1(tmp_path / 'drive.bag', some_events(100))
    info(str(tmp_path / 'drive.bag'))
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ['events', '100'] for line in lines)
    assert any('/dvs/image sensor_msgs/msg/Image 4' in line for line in lines)


def write_dsec(path, events):
    file = path / 'events' / 'left' / 'events.h5'
    file.parent.mkdir(parents=True)
    with EventsH5Writer(file, H, W) as writer:
        writer.add(events)


def write_raw(path, events):
    header = '% format EVT3;height=12;width=40\n% end\n'
    path.write_bytes(header.encode() + evt3_words(events))


KINDS = {
    'drive': ('rosbag2', write_bag),
    'drive.bag': ('rosbag1', write_ros1),
    'interlaken_00_c': ('dsec', write_dsec),
    'scene_data.h5': ('m3ed', write_m3ed),
    'indoor_flying1_data.hdf5': ('mvsec', write_mvsec),
    'recording.raw': ('raw', write_raw),
}


@pytest.mark.parametrize('name', KINDS)
def test_every_kind_of_recording_tells_the_same(name, tmp_path, capsys):
    kind, write = KINDS[name]
    events = young(some_events(500)) if kind == 'raw' else some_events(500)
    write(tmp_path / name, events)
    found = told(capsys, tmp_path / name)
    assert found['events'] == 500
    assert (found['on'], found['off']) == (events['p'].sum(), 500 - events['p'].sum())
    assert found['span_us'] == (events['t_ns'][-1] - events['t_ns'][0]) // 1000
    assert kind in found['kind']
    assert found['topics']


def test_checkpoint(tmp_path, capsys):
    path = tmp_path / 'tiny.safetensors'
    tensors = {'a': np.zeros((2, 3), np.float32), 'b': np.zeros(4, np.float32)}
    save_file(tensors, path, metadata={'card': json.dumps({'epochs': 3}), 'name': 'tiny'})
    found = told(capsys, path)
    assert found == {
        'path': str(path),
        'tensors': 2,
        'numbers': 10,
        'card': {'epochs': 3},
        'name': 'tiny',
    }
    path.write_bytes(b'no checkpoint')
    with pytest.raises(SystemExit) as exit_code:
        told(capsys, path)
    assert exit_code.value.code == 1
    assert 'cannot read the checkpoint' in capsys.readouterr().err


def test_long_entries_are_cut():
    (short, long) = _lines({'a': 1, 'b': [0.5] * 300})
    assert short == 'a: 1'
    assert long.startswith('b: [0.5, 0.5,')
    assert long.endswith(' ...')
    assert len(long) <= MOST_CHARS


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['none'], 'nothing at none'),
        (['none.safetensors'], 'cannot read the checkpoint none.safetensors'),
        (['test'], 'test is a folder, but not a recording: expected a rosbag2 folder'),
        (['setup.py'], 'setup.py is not a recording: expected a rosbag2 folder'),
        (['none', '--start=-1'], 'start is -1.0, expected 0 to 1e9 seconds'),
        (['none', '--start=1e300'], 'expected 0 to 1e9 seconds'),
        (['none', '--duration=0'], 'duration is 0.0, expected up to 1e9 seconds'),
    ],
)
def test_mistakes(arguments, sentence, capsys, monkeypatch):
    monkeypatch.chdir(Path(__file__).resolve().parents[1])
    with pytest.raises(SystemExit) as exit_code:
        main(['info', *arguments])
    assert exit_code.value.code == 1
    assert sentence in capsys.readouterr().err


def test_bare_flags():
    assert flags_spelt_out(info, []) == []
    assert flags_spelt_out(info, ['--json', 'a']) == ['--json=true', 'a']
    assert flags_spelt_out(info, ['a', '--json']) == ['a', '--json=true']
    assert flags_spelt_out(info, ['--json', 'false', 'a']) == ['--json', 'false', 'a']
    assert flags_spelt_out(info, ['--json=false', '--topic', '--json']) == [
        '--json=false',
        '--topic',
        '--json=true',
    ]
