"""Messages as bytes: against rclpy's own serialisation, on real recordings, and on rubbish."""

import json
import sqlite3
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spike_depth_ros.events.arrays import make_events
from spike_depth_ros.events.codecs import (
    CODECS,
    encode_event_array,
    encode_evt3,
    encode_mono,
    evt3_state,
)
from spike_depth_ros.events.wire import (
    EVENT_TYPES,
    EventStream,
    Packet,
    WireError,
    pack_event_array,
    pack_event_packet,
    parse,
)

PACKET = 'event_camera_msgs/msg/EventPacket'
LEGACY = 'dvs_msgs/msg/EventArray'
EVENTS = make_events([5, 1_000_000_006], [1, 2], [3, 4], [0, 1])


def packet(encoding='mono', payload=None, **fields):
    payload = encode_mono(EVENTS, 0) if payload is None else payload
    values = {'stamp_ns': 7_000_000_009, 'frame_id': 'cam', 'height': 48, 'width': 64, 'seq': 3}
    values |= {'time_base_ns': 0, 'encoding': encoding} | fields
    return Packet(**values, payload=np.frombuffer(payload, np.uint8))


def same(one, two):
    return one[:-1] == two[:-1] and bytes(one.payload) == bytes(two.payload)


@pytest.mark.parametrize('frame_id', ['', 'c', 'cam', 'camera', 'événement'])
@pytest.mark.parametrize('encoding', ['mono', 'libcaer_cmp', 'evt3'])
def test_packet_and_rclpy_understand_each_other(frame_id, encoding):
    rclpy = pytest.importorskip('rclpy.serialization')
    messages = pytest.importorskip('event_camera_msgs.msg')
    ours = packet(encoding, frame_id=frame_id, time_base_ns=2**61)
    message = messages.EventPacket()
    message.header.stamp.sec, message.header.stamp.nanosec = 7, 9
    message.header.frame_id = frame_id
    message.height, message.width, message.seq, message.time_base = 48, 64, 3, 2**61
    message.encoding, message.events = encoding, ours.payload.tolist()
    theirs = rclpy.serialize_message(message)
    # not byte for byte: rclpy leaves its padding uninitialised
    assert rclpy.deserialize_message(pack_event_packet(ours), messages.EventPacket) == message
    assert same(parse(PACKET, theirs), ours)


@pytest.mark.parametrize('count', [0, 1, 2, 5])
@pytest.mark.parametrize('frame_id', ['', 'ab', 'cam'])
def test_legacy_array_and_rclpy_understand_each_other(frame_id, count):
    rclpy = pytest.importorskip('rclpy.serialization')
    messages = pytest.importorskip('dvs_msgs.msg')
    events = make_events(
        np.arange(count) * 2_000_000_001, np.arange(count) + 10, np.arange(count), [1] * count
    )
    ours = packet('event_array', encode_event_array(events), seq=None, frame_id=frame_id)
    message = messages.EventArray(height=48, width=64)
    message.header.stamp.sec, message.header.stamp.nanosec = 7, 9
    message.header.frame_id = frame_id
    for t_ns, x, y, p in events.tolist():
        event = messages.Event(x=x, y=y, polarity=bool(p))
        event.ts.sec, event.ts.nanosec = divmod(t_ns, 10**9)
        message.events.append(event)
    theirs = rclpy.serialize_message(message)
    assert rclpy.deserialize_message(pack_event_array(ours), messages.EventArray) == message
    assert parse(LEGACY, theirs)[:-1] == ours[:-1]
    decoded = EventStream(LEGACY).feed(theirs)
    assert decoded[1].events.tolist() == events.tolist()


def test_every_type_name_has_its_parser():
    for name in EVENT_TYPES:
        legacy = name.startswith(('dvs_', 'dv_', 'prophesee_'))
        cdr = (
            pack_event_array(packet('event_array', encode_event_array(EVENTS), seq=None))
            if legacy
            else pack_event_packet(packet())
        )
        found, decoded = EventStream(name).feed(cdr)
        assert found.encoding == ('event_array' if legacy else 'mono')
        assert decoded.events.tolist() == EVENTS.tolist()
    with pytest.raises(WireError, match='not an event message'):
        EventStream('sensor_msgs/msg/Image')


BAD = {
    'encapsulation': lambda cdr: b'\0\0' + cdr[2:],
    'truncated': lambda cdr: cdr[:-1],
    'big_endian': lambda _: big_endian(),
    'geometry': lambda _: pack_event_packet(packet(height=0)),
    'time_base': lambda _: pack_event_packet(packet(time_base_ns=2**62)),
    'unknown_encoding': lambda _: pack_event_packet(packet('png')),
    'string': lambda _: pack_event_packet(packet(frame_id='x' * 5000)),
}


def big_endian():
    cdr = bytearray(pack_event_packet(packet()))
    cdr[cdr.index(b'mono\0') + 5] = 1
    return bytes(cdr)


@pytest.mark.parametrize('reason', BAD)
def test_bad_messages_are_skipped_by_a_named_reason(reason):
    good = pack_event_packet(packet())
    stream = EventStream(PACKET)
    assert stream.feed(BAD[reason](good)) is None
    assert stream.skipped == Counter({reason: 1})
    assert stream.last_error
    assert stream.feed(good)[1].events.tolist() == EVENTS.tolist()
    assert (stream.packets, stream.counts.events) == (1, 2)


@pytest.mark.parametrize('size', ['0x48', '64x0', '4097x48', '64x4097'])
def test_impossible_geometry_is_refused(size):
    width, height = map(int, size.split('x'))
    with pytest.raises(WireError, match=f'sensor is {size} px'):
        parse(PACKET, pack_event_packet(packet(height=height, width=width)))


@pytest.mark.parametrize('name', [PACKET, LEGACY])
def test_every_truncation_is_survived(name):
    cdr = (
        pack_event_packet(packet())
        if name == PACKET
        else pack_event_array(packet('event_array', encode_event_array(EVENTS), seq=None))
    )
    stream = EventStream(name)
    for size in range(len(cdr)):
        assert stream.feed(cdr[:size]) is None
    assert set(stream.skipped) == {'truncated', 'encapsulation'}
    assert stream.skipped['encapsulation'] == 2


@pytest.mark.parametrize('name', [PACKET, LEGACY])
@settings(max_examples=60, deadline=None)
@given(rubbish=st.binary(max_size=200), little=st.booleans())
def test_rubbish_never_raises(name, rubbish, little):
    stream = EventStream(name)
    stream.feed((b'\0\1\0\0' if little else b'') + rubbish)
    assert stream.packets + sum(stream.skipped.values()) == 1


@settings(max_examples=60, deadline=None)
@given(
    encoding=st.sampled_from([*CODECS, 'evt4']),
    flips=st.lists(st.tuples(st.integers(0, 150), st.integers(0, 255)), max_size=4),
    payload=st.binary(max_size=60),
)
def test_damaged_packets_never_raise(encoding, flips, payload):
    stream = EventStream(PACKET)
    cdr = bytearray(pack_event_packet(packet(encoding, payload)))
    for at, value in flips:
        cdr[at % len(cdr)] = value
    for _ in range(2):
        stream.feed(bytes(cdr))
    assert stream.packets + sum(stream.skipped.values()) == 2


def test_a_length_beyond_the_message_allocates_nothing():
    cdr = bytearray(pack_event_packet(packet()))
    at = len(cdr) - len(packet().payload) - 4
    cdr[at : at + 4] = b'\xff\xff\xff\xff'
    stream = EventStream(PACKET)
    assert stream.feed(bytes(cdr)) is None
    assert stream.skipped == Counter(truncated=1)


def evt3_messages():
    state = evt3_state()
    for seq in range(4):
        events = make_events([seq * 9_000_000_000], [seq], [0], [1])
        yield pack_event_packet(packet('evt3', encode_evt3(events, state), seq=seq))


def test_state_runs_on_across_packets():
    stream = EventStream(PACKET)
    t_ns = [stream.feed(cdr)[1].events['t_ns'].item() for cdr in evt3_messages()]
    assert t_ns == [0, 9_000_000_000, 18_000_000_000, 27_000_000_000]
    assert (stream.counts.wraps, stream.gaps, stream.missing, stream.restarts) == (1, 0, 0, 0)


def test_lost_packets_are_counted_and_a_restart_begins_afresh():
    messages = list(evt3_messages())
    stream = EventStream(PACKET)
    for k in (0, 3):
        stream.feed(messages[k])
    assert (stream.gaps, stream.missing, stream.restarts) == (1, 2, 0)
    again = stream.feed(messages[0])
    assert again[1].events['t_ns'].tolist() == [0]
    assert stream.restarts == 1
    assert stream.counts.events == 3


@pytest.mark.parametrize('seqs', [(0, 1, 1), (0, 0, 0)])
def test_a_repeated_seq_is_no_restart(seqs):
    state, stream = evt3_state(), EventStream(PACKET)
    found_ns = []
    for seq, t_ns in zip(seqs, (16_000_000_000, 17_000_000_000, 18_000_000_000), strict=True):
        events = make_events([t_ns], [0], [0], [1])
        cdr = pack_event_packet(packet('evt3', encode_evt3(events, state), seq=seq))
        found_ns += stream.feed(cdr)[1].events['t_ns'].tolist()
    assert found_ns == [16_000_000_000, 17_000_000_000, 18_000_000_000]
    assert (stream.gaps, stream.restarts) == (0, 0)


def test_a_change_of_sensor_keeps_the_totals():
    stream = EventStream(PACKET)
    stream.feed(pack_event_packet(packet(seq=0)))
    stream.feed(pack_event_packet(packet(seq=1, height=100)))
    assert stream.counts.events == 4


def test_payload_is_a_view():
    cdr = pack_event_packet(packet())
    found = parse(PACKET, cdr)
    assert np.shares_memory(found.payload, np.frombuffer(cdr, np.uint8))
    assert not found.payload.flags.writeable


def messages_of(folder):
    bag = next(folder.glob('*.db3'), None)
    if bag is None:
        from mcap.reader import make_reader

        with next(folder.glob('*.mcap')).open('rb') as file:
            for schema, _, message in make_reader(file).iter_messages():
                yield schema.name, message.data
        return
    with sqlite3.connect(f'file:{bag}?mode=ro&immutable=1', uri=True) as database:
        query = 'select type, data from messages join topics on topics.id = topic_id'
        yield from database.execute(f'{query} order by timestamp')


@pytest.mark.parametrize('name', ['test_events_1', 'test_events_2', 'test_data_mono_cd'])
def test_real_recordings_decode_to_the_golden_figures(real_events, name):
    if name == 'test_events_2':
        pytest.importorskip('mcap')
    golden = json.loads((real_events / 'golden.json').read_text())
    (expected,) = (values for key, values in golden.items() if f'/{name} ' in key)
    messages = list(messages_of(real_events / name))
    stream = EventStream(messages[0][0])
    parts = [stream.feed(cdr)[1] for _, cdr in messages]
    events_us = np.concatenate([part.events['t_ns'] for part in parts]) // 1000
    triggers_us = np.concatenate([part.triggers['t_ns'] for part in parts]) // 1000
    found = {
        'messages': stream.packets,
        'events': len(events_us),
        'on': sum(int(part.events['p'].sum()) for part in parts),
        'off': sum(int((part.events['p'] == 0).sum()) for part in parts),
        'triggers': len(triggers_us),
        't_first_us': events_us[0],
        't_last_us': events_us[-1],
        'span_us': events_us[-1] - events_us[0],
        'sum_t_cd_plus_trig_us': events_us.sum() + triggers_us.sum(),
        'sum_t_rel_us': (events_us - events_us[0]).sum(),
    }
    assert {key: found[key] for key in expected} == expected
    counts = stream.counts
    assert (counts.events, counts.on, counts.triggers) == (
        found['events'], found['on'], found['triggers'],
    )  # fmt: skip
    assert not stream.skipped
    assert not stream.missing
