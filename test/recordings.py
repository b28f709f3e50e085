"""Recordings for tests to make, and readers that are dumber than the package's own."""

import struct
from pathlib import Path

import cv2
import h5py
import numpy as np
import yaml
from rosbags.highlevel import AnyReader
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from spike_depth_ros.events.arrays import EVENT_DTYPE, make_events
from spike_depth_ros.events.wire import EventStream
from spike_depth_ros.recordings import BagWriter, EventsH5Writer, open_source
from spike_depth_ros.recordings.packets import with_epoch

H, W = 12, 40
EPOCH_NS = 1_700_000_000_123_456_000
EVENT_PACKET = 'event_camera_msgs/msg/EventPacket'


def events_of(times_us, seed=0) -> np.ndarray:
    """Events at the given times [us], everything else random."""
    rng = np.random.default_rng(seed)
    n = len(times_us)
    t_ns = EPOCH_NS + np.asarray(times_us, np.int64) * 1000
    return make_events(t_ns, rng.integers(0, W, n), rng.integers(0, H, n), rng.integers(0, 2, n))


def some_events(n=3000, step_us=7, seed=0) -> np.ndarray:
    return events_of(np.cumsum(np.random.default_rng(seed).integers(0, step_us, n)), seed)


def hard_events() -> np.ndarray:
    """Silence over several wraps of the 24-bit clock, a wrap amid events, small steps back."""
    to_wrap_us = 2**24 - EPOCH_NS // 1000 % 2**24
    times_us = [0, 5, 3, 4, 4100, 4090, 50_000_000, 50_000_001, 50_000_001 + 90_000_000]
    near = [to_wrap_us + 20 * 2**24 + k for k in (-3, -1, 0, 2, -1, 1, 5000)]
    return events_of(times_us + near)


def events_in(path, **options) -> np.ndarray:
    """All events of a recording, through the package's own reading path."""
    with open_source(path, **options) as source:
        stream = EventStream(source.event_topic.type)
        fed = [stream.feed(message.cdr) for message in source.messages()]
    assert not stream.skipped
    parts = [with_epoch(*one).events for one in fed]
    return np.concatenate([np.empty(0, EVENT_DTYPE), *parts])


def dumb_packet(cdr: bytes):
    """(time_base, encoding, payload) of an EventPacket, field by field."""
    at = 4 + 8
    (n,) = struct.unpack_from('<I', cdr, at)
    at = 4 + -(-(at + 4 + n - 4) // 4) * 4 + 8
    at = 4 + -(-(at - 4) // 8) * 8 + 8
    time_base, n = struct.unpack_from('<QI', cdr, at)
    encoding = cdr[at + 12 : at + 12 + n - 1].decode()
    at = 4 + -(-(at + 12 + n + 1 - 4) // 4) * 4
    (n,) = struct.unpack_from('<I', cdr, at)
    assert len(cdr) == at + 4 + n
    return time_base, encoding, cdr[at + 4 :]


def dumb_evt3(payload: bytes, state: dict) -> list:
    """[(t_us, x, y, p)] of evt3 words, with the clock as a camera tells it."""
    found = []
    for (word,) in struct.iter_unpack('<H', payload):
        code, value = word >> 12, word & 0xFFF
        if code == 0:
            state['y'] = value & 0x7FF
        elif code == 2:
            found.append((state['t'](), value & 0x7FF, state['y'], value >> 11))
        elif code == 3:
            state['x'], state['p'] = value & 0x7FF, value >> 11
        elif code in (4, 5):
            for k in range(12 if code == 4 else 8):
                if value >> k & 1:
                    found.append((state['t'](), state['x'] + k, state['y'], state['p']))
            state['x'] += 12 if code == 4 else 8
        elif code == 6:
            state['low'] = value
        elif code == 8:
            state['wraps'] += state['high'] - value > 10
            state['high'] = value
    return found


def dumb_state() -> dict:
    state = {'wraps': 0, 'high': 0, 'low': 0}
    state['t'] = lambda: state['wraps'] << 24 | state['high'] << 12 | state['low']
    return state


def dumb_events(cdrs: list) -> np.ndarray:
    """(N, 4) t_ns, x, y, p: mono exactly, evt3 by the epoch in time_base."""
    rows, state = [], dumb_state()
    for cdr in cdrs:
        time_base, encoding, payload = dumb_packet(bytes(cdr))
        if encoding == 'mono':
            for (word,) in struct.iter_unpack('<Q', payload):
                dt, xy = word & 0xFFFFFFFF, word >> 32
                rows.append((time_base + dt, xy & 0xFFFF, xy >> 16 & 0x7FFF, word >> 63))
        else:
            for t_us, x, y, p in dumb_evt3(payload, state):
                rows.append((time_base + t_us % 2**24 * 1000, x, y, p))
    return np.array(rows, np.int64).reshape(-1, 4)


def as_table(events: np.ndarray) -> np.ndarray:
    return np.stack([events[name].astype(np.int64) for name in ('t_ns', 'x', 'y', 'p')], axis=1)


def write_bag(path, events, storage='mcap', encoding='evt3', pieces=7):
    with BagWriter(path, storage, encoding) as bag:
        for piece in np.array_split(events, pieces):
            bag.add_events(piece, H, W)
    return path


def dvs_definition(package: str) -> tuple:
    event = f'{package}/msg/Event'
    types = get_types_from_msg('uint16 x\nuint16 y\ntime ts\nbool polarity', event)
    text = f'std_msgs/Header header\nuint32 height\nuint32 width\n{package}/Event[] events'
    return types | get_types_from_msg(text, f'{package}/msg/EventArray')


def write_ros1(path: Path, events: np.ndarray, package='dvs_msgs', count=4, odd='') -> None:
    """A ROS 1 bag as rpg_dvs_ros records it, with an image beside the events.

    `odd` is the definition of the messages on a third topic, /odd.
    """
    store = get_typestore(Stores.ROS1_NOETIC)
    store.register(dvs_definition(package))
    types = store.types
    event = types[f'{package}/msg/Event']
    time = types['builtin_interfaces/msg/Time']
    header = types['std_msgs/msg/Header']
    array_type = f'{package}/msg/EventArray'
    with Ros1Writer(path) as writer:
        on_events = writer.add_connection('/dvs/events', array_type, typestore=store)
        on_image = writer.add_connection('/dvs/image', 'sensor_msgs/msg/Image', typestore=store)
        if odd:
            third = writer.add_connection('/odd', 'foo/msg/Odd', msgdef=odd, md5sum='0' * 32)
            writer.write(third, int(events['t_ns'][0]), b'abcd')
        for seq, piece in enumerate(np.array_split(events, count)):
            stamp_ns = int(piece['t_ns'][0])
            stamp = time(*divmod(stamp_ns, 10**9))
            rows = [
                event(int(e['x']), int(e['y']), time(*divmod(int(e['t_ns']), 10**9)), bool(e['p']))
                for e in piece
            ]
            array = types[array_type](header(seq, stamp, 'dvs'), H, W, rows)
            data = store.serialize_ros1(array, array_type)
            writer.write(on_events, stamp_ns, data)
            image = types['sensor_msgs/msg/Image'](
                header(seq, stamp, 'dvs'), 1, 2, 'mono8', 0, 2, np.array([seq, 9], np.uint8)
            )
            data = store.serialize_ros1(image, 'sensor_msgs/msg/Image')
            writer.write(on_image, stamp_ns + 1, data)


def evt3_words(events: np.ndarray) -> bytes:
    """evt3 as plainly as can be: four words for every event."""
    words = []
    for t_us, x, y, p in as_table(events) // [1000, 1, 1, 1]:
        words += [0x8000 | t_us >> 12 & 0xFFF, 0x6000 | t_us & 0xFFF, y, 0x2000 | p << 11 | x]
    return np.array(words, '<u2').tobytes()


def evt2_words(events: np.ndarray) -> bytes:
    words = []
    for t_us, x, y, p in as_table(events) // [1000, 1, 1, 1]:
        words += [8 << 28 | t_us >> 6, p << 28 | (t_us & 63) << 22 | x << 11 | y]
    return np.array(words, '<u4').tobytes()


def evt21_words(events: np.ndarray, swapped: bool) -> bytes:
    words = []
    for t_us, x, y, p in as_table(events) // [1000, 1, 1, 1]:
        head, mask = p << 28 | (t_us & 63) << 22 | x << 11 | y, 1
        for low, high in ((0, 8 << 28 | t_us >> 6), (mask, head)):
            words += [high, low] if swapped else [low, high]
    return np.array(words, '<u4').tobytes()


RAW = {
    '% evt 3.0\n% format EVT3;height=12;width=40\n% end\n': evt3_words,
    '% date 2023\n% evt 3.0\n% geometry 40x12\n': evt3_words,
    '% format EVT2;height=12;width=40\n% end\n': evt2_words,
    '% evt 2.0\n% geometry 40x12\n% end\n': evt2_words,
    '% format EVT21;height=12;width=40\n% end\n': lambda e: evt21_words(e, False),
    '% format EVT21;endianness=legacy;height=12;width=40\n% end\n': lambda e: evt21_words(e, True),
    '% format EVT21;height=12;width=40\n% endianness legacy\n': lambda e: evt21_words(e, True),
    '% evt 2.1\n% geometry 40x12\n% sensor_generation 4.1\n': lambda e: evt21_words(e, True),
    '% evt 2.1\n% geometry 40x12\n% sensor_generation 4.2\n': lambda e: evt21_words(e, True),
    '% evt 2.1\n% geometry 40x12\n% sensor_generation 4.2\n% endianness little\n': lambda e: (
        evt21_words(e, False)
    ),
    '% evt 2.1\n% geometry 40x12\n% sensor_generation 320\n': lambda e: evt21_words(e, False),
}


def young(events: np.ndarray) -> np.ndarray:
    """The same events on a clock that started 3 s before them, as a camera's does."""
    aged = events.copy()
    aged['t_ns'] += 3_000_000_000 - events['t_ns'][0]
    return aged


def write_m3ed(path: Path, events: np.ndarray) -> None:
    with h5py.File(path, 'w') as file:
        for name in 'xyp':
            file[f'prophesee/left/{name}'] = events[name]
        file['prophesee/left/t'] = events['t_ns'] // 1000
        file['prophesee/left/calib/resolution'] = [W, H]
        file['prophesee/left/calib/intrinsics'] = [30.0, 31.0, 19.0, 6.0]
        file['prophesee/left/calib/distortion_coeffs'] = [-0.1, 0.02, 0.001, 0.002]


def write_mvsec(path: Path, events: np.ndarray) -> None:
    rows = as_table(events).astype(np.float64)[:, [1, 2, 0, 3]]
    rows[:, 2] /= 1e9
    rows[:, 3] = rows[:, 3] * 2 - 1
    with h5py.File(path, 'w') as file:
        file['davis/left/events'] = rows


def write_h5(path: Path, events: np.ndarray) -> Path:
    with EventsH5Writer(path, H, W) as file:
        file.add(events)
    return path


def dsec_folder(folder: Path, events: np.ndarray) -> Path:
    """A sequence as DSEC lays it out, tiny; a quarter turn between the two cameras."""
    left = folder / 'events' / 'left'
    left.mkdir(parents=True)
    write_h5(left / 'events.h5', events)
    stamps_us = [EPOCH_NS // 1000 + ms * 1000 for ms in (2, 7)]
    for sub, name, pixels in (
        ('images', 'left/rectified', np.full((6, 8, 3), (1, 2, 3), np.uint8)),
        ('disparity', 'event', np.tile(np.uint16([0, 256, 512, 0]), (H, W // 4))),
    ):
        (folder / sub / name).mkdir(parents=True)
        text = '\n'.join(map(str, stamps_us))
        (folder / sub / 'timestamps.txt').write_text(text, encoding='utf-8')
        for k in range(2):
            assert cv2.imwrite(str(folder / sub / name / f'{k:06d}.png'), pixels)
    calibration = {
        'intrinsics': {
            'cam0': {'camera_matrix': [20.0, 21.0, 19.5, 5.5], 'resolution': [W, H],
                     'distortion_coeffs': [-0.1, 0.01, 0.0, 0.0]},
            'camRect0': {'camera_matrix': [22.0, 22.0, 19.0, 5.0], 'resolution': [W, H]},
            'camRect1': {'camera_matrix': [30.0, 30.0, 4.0, 3.0], 'resolution': [8, 6]},
        },
        'extrinsics': {
            'T_10': [[0, -1, 0, 0.5], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
            'R_rect0': np.eye(3).tolist(),
            'R_rect1': np.eye(3).tolist(),
        },
        'disparity_to_depth': {
            'cams_03': [[1, 0, 0, -19.0], [0, 1, 0, -5.0], [0, 0, 0, 22.0], [0, 0, 2.0, 0]]
        },
    }  # fmt: skip
    (folder / 'calibration').mkdir()
    text = yaml.safe_dump(calibration)
    (folder / 'calibration' / 'cam_to_cam.yaml').write_text(text, encoding='utf-8')
    return folder


def read_all(path) -> dict:
    """Every message of a bag by topic, as another reader gives it: [(stamp, message)]."""
    found: dict = {}
    with AnyReader([path]) as reader:
        for connection, stamp_ns, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            found.setdefault(connection.topic, []).append((stamp_ns, message))
    return found
