"""AEDAT4 as its description says, written here byte by byte."""

import struct

import lz4.frame
import numpy as np
import pytest
from backports import zstd
from recordings import H, W, events_in, some_events, young

from spike_depth_ros.recordings import BagError, convert_to, open_recording, open_source

STREAM = (
    '<node name="{number}"><attr key="typeIdentifier">{kind}</attr><node name="info">'
    '<attr key="sizeX">{w}</attr><attr key="sizeY">{h}</attr></node></node>'
)
ROW = np.dtype(
    {'names': ['t', 'x', 'y', 'p'], 'formats': ['<i8', '<i2', '<i2', 'u1'],
     'offsets': [0, 8, 10, 12], 'itemsize': 16}
)  # fmt: skip
COMPRESS = {0: lambda b: b, 2: lz4.frame.compress, 3: zstd.compress}


def flat(identifier, fields, offsets, after=b'') -> bytes:
    """A FlatBuffer with its size: one table, whose fields lie at `offsets` from its start."""
    vtable = struct.pack(f'<{2 + len(offsets)}H', 4 + 2 * len(offsets), 4 + len(fields), *offsets)
    vtable += bytes(-len(vtable) % 8)
    table = struct.pack('<i', len(vtable)) + fields
    data = struct.pack('<I', 8 + len(vtable)) + identifier + vtable + table + after
    return struct.pack('<I', len(data)) + data


def vector(values: bytes, count: int) -> bytes:
    return struct.pack('<I', count) + values


def events_buffer(events) -> bytes:
    rows = np.zeros(len(events), ROW)
    rows['t'] = events['t_ns'] // 1000
    for name in 'xyp':
        rows[name] = events[name]
    return flat(b'EVTS', struct.pack('<I', 4), [4], vector(rows.tobytes(), len(rows)))


def frame_buffer(t_us, pixels, kind) -> bytes:
    head = struct.pack('<qbxhhxxI', t_us, kind, pixels.shape[1], pixels.shape[0], 4)
    offsets = [4, 0, 0, 0, 0, 12, 14, 16, 0, 0, 20]
    return flat(b'FRME', head, offsets, vector(pixels.tobytes(), pixels.size))


def write_aedat4(path, events, sensor=(W, H), compression=0, frames=(), kinds=('EVTS', 'FRME')):
    streams = ''.join(STREAM.format(number=n, kind=k, w=sensor[0], h=sensor[1])
                      for n, k in enumerate(kinds))  # fmt: skip
    xml = f'<dv version="2.0"><node name="outInfo">{streams}</node></dv>'.encode()
    head = struct.pack('<iIq', compression, 12, -1)  # compression, offset of the text, no table
    out = b'#!AER-DAT4.0\r\n' + flat(b'IOHE', head, [4, 12, 8], vector(xml, len(xml)))
    packets = [(0, events_buffer(part)) for part in np.array_split(events, 3)]
    packets[1:1] = [(1, frame_buffer(*frame)) for frame in frames]
    for number, buffer in packets:
        data = COMPRESS[compression](buffer)
        out += struct.pack('<ii', number, len(data)) + data
    path.write_bytes(out)
    return path


@pytest.mark.parametrize('compression', COMPRESS)
def test_events_and_frames(tmp_path, compression):
    events = young(some_events(500))
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    colour = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    t_us = int(events['t_ns'][200]) // 1000
    frames = [(t_us, grey, 0), (t_us + 5, colour, 16)]
    path = write_aedat4(tmp_path / 'a.aedat4', events, compression=compression, frames=frames)
    np.testing.assert_array_equal(events_in(path), events)
    with open_recording(path) as recording:
        assert recording.geometry == (H, W)
        found = list(recording.images())
    assert [image.stamp_ns for image in found] == [t_us * 1000, t_us * 1000 + 5000]
    np.testing.assert_array_equal(found[0].pixels, grey)
    np.testing.assert_array_equal(found[1].pixels, colour[..., ::-1])


def test_a_part_of_it(tmp_path):
    events = young(some_events(500)).copy()
    events['t_ns'][250] += 10**15  # a wrong time does not end it
    path = write_aedat4(tmp_path / 'a.aedat4', events)
    with open_source(path) as source:
        done = convert_to(source, tmp_path / 'a.h5', start_ns=300_000, duration_ns=900_000)
    since_ns = events['t_ns'] - events['t_ns'][0]
    assert done.events == np.count_nonzero((since_ns >= 300_000) & (since_ns < 1_200_000))


def test_a_killed_recorder(tmp_path):
    events = young(some_events(300))
    path = write_aedat4(tmp_path / 'a.aedat4', events)
    path.write_bytes(path.read_bytes()[:-100])
    np.testing.assert_array_equal(events_in(path), events[:200])
    with open_source(path) as source:
        done = convert_to(source, tmp_path / 'out')
    assert done.dropped == {'truncated bytes': 8 + len(events_buffer(events[200:])) - 100}


def test_size_that_is_not_stated(tmp_path):
    events = young(some_events(50))
    path = write_aedat4(tmp_path / 'a.aedat4', events, sensor=(0, 0))
    with pytest.raises(BagError, match='--sensor WIDTHxHEIGHT'):
        open_source(path)
    np.testing.assert_array_equal(events_in(path, sensor=f'{W}x{H}'), events)


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (lambda b: b.replace(b'DAT4.0', b'DAT3.1'), r"'#!AER-DAT3.1', expected '#!AER-DAT4.0'"),
        (lambda b: b.replace(b'EVTS', b'IMUS'), r"holds no events: .*\['FRME', 'IMUS'\]"),
        (lambda b: b.replace(b'EVTS\x06', b'EVTX\x06'), "is of b'EVTX', expected b'EVTS'"),
        (lambda b: b.replace(b'<node', b'<nodx', 1), 'damaged, or not AEDAT4: mismatched tag'),
        (lambda b: b[:14] + b'\xff' * 4 + b[18:], 'header has 4294967295 bytes'),
        (lambda b: b[:200], 'damaged, or not AEDAT4'),
        (lambda b: b'', 'expected .*AER-DAT4.0'),
    ],
)
def test_refused(tmp_path, change, sentence):
    path = write_aedat4(tmp_path / 'a.aedat', young(some_events(50)))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(BagError, match=sentence):
        events_in(path)


def test_events_off_the_sensor(tmp_path):
    path = write_aedat4(tmp_path / 'a.aedat4', young(some_events(500)), sensor=(8, 8))
    with pytest.raises(BagError, match='of a 8x8 sensor'):
        events_in(path)


def test_a_packet_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr('spike_depth_ros.recordings.aedat4_file.MOST_PACKET_BYTES', 1000)
    for compression in (2, 3):
        path = write_aedat4(
            tmp_path / 'a.aedat4', young(some_events(3))[[0] * 300], compression=compression
        )
        with pytest.raises(BagError, match='larger than 1000 bytes'):
            events_in(path)
