"""Decoders against a second, dumber implementation of each format."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spike_depth_ros.events.arrays import make_events
from spike_depth_ros.events.codecs import (
    CODECS,
    MAX_SENSOR_PX,
    add_counts,
    encode_mono,
)
from spike_depth_ros.events.codecs.decoder_state import DecodeCounts

HEIGHT, WIDTH = 48, 64
BASE_NS = 1_700_000_000_000_000_000


class Oracle:
    """What a decoder should give: lists, one word after the other, no cleverness."""

    def __init__(self, height=HEIGHT, width=WIDTH):
        self.height, self.width = height, width
        self.events, self.triggers = [], []
        self.unknown = self.out = self.before_time = self.wraps = self.invalid = 0

    def put(self, t_ns, x, y, p):
        if x < self.width and y < self.height:
            self.events.append((t_ns, x, y, p))
        else:
            self.out += 1


class OracleClock:
    """Wraps of a clock by its upper bits: the rule of `follow_high` in plain words."""

    def __init__(self, span, back, near):
        self.span, self.back, self.near = span, back, near
        self.first = self.last = self.jump = None
        self.wraps = 0

    def take(self, value):
        if self.first is None:
            self.first = self.last = value
            return
        last, self.last, before = self.last, value, self.wraps
        ahead, behind = (value - last) % self.span, (last - value) % self.span
        change = -(value > last) if behind <= self.back else int(value < last)
        self.wraps = max(before + change, 0)
        start, epoch = self.jump or (-1, 0)
        if start >= 0 and (value - start) % self.span <= self.near:  # one wrong value
            self.wraps, self.jump = epoch + (value < start), None
            return
        is_step = ahead <= self.near or behind <= min(self.back, self.near)
        if is_step and (change >= 0 or before > 0):
            self.jump = self.jump if value == last else None
            return
        self.jump = last, before
        is_young = self.first >= 0 and (last - self.first) % self.span <= 4 * self.near
        if before == 0 and change > 0 and is_young:  # what an earlier run left
            self.wraps, self.first = 0, -1


class Evt3Oracle(Oracle):
    def __init__(self, *size):
        super().__init__(*size)
        self.clock = OracleClock(2**12, 10, 64)
        self.low = self.high = self.row = self.base = 0
        self.has_high = self.has_time = self.has_row = self.is_other = False

    def feed(self, payload):
        for word in np.frombuffer(payload, '<u2', len(payload) // 2).tolist():
            code, value = word >> 12, word & 0xFFF
            if code in (0, 1):
                self.row = value & 0x7FF
                self.is_other, self.has_row = code == 1, self.has_row or code == 0
            elif code == 6:
                self.low = value
                self.has_time = self.has_time or self.has_high
            elif code == 8:
                self.clock.take(value)
                self.wraps = self.clock.wraps
                self.high, self.has_high = value, True
            elif code == 2:
                self.mask(1, value)
            elif code == 3:
                self.base = value
            elif code in (4, 5):
                self.mask(value if code == 4 else value & 0xFF, self.base)
                self.base = (self.base + (12 if code == 4 else 8)) % 4096
            elif code == 10:
                if self.has_time:
                    self.triggers.append((self.t_ns, value >> 8, value & 1))
                else:
                    self.before_time += 1
            elif code not in (7, 14, 15):
                self.unknown += 1

    @property
    def t_ns(self):
        return (self.wraps * 2**24 + self.high * 4096 + self.low) * 1000

    def mask(self, mask, base):
        for k in range(12):
            if mask >> k & 1:
                if self.is_other:
                    self.invalid += 1
                elif self.has_time and self.has_row:
                    self.put(self.t_ns, (base & 0x7FF) + k, self.row, base >> 11)
                else:
                    self.before_time += 1


class Evt2Oracle(Oracle):
    bytes_per_word = 4

    def __init__(self, *size):
        super().__init__(*size)
        self.clock = OracleClock(2**28, 2**27, 2**12)
        self.high, self.has_time = 0, False

    def feed(self, payload):
        size = self.bytes_per_word
        for at in range(0, len(payload) - size + 1, size):
            word = int.from_bytes(payload[at : at + size], 'little')
            head, mask = (word >> 32, word & 0xFFFFFFFF) if size == 8 else (word, 1)
            code = head >> 28
            t_ns = (self.wraps * 2**34 + self.high * 64 + (head >> 22 & 63)) * 1000
            if code == 8:
                self.high, self.has_time = head & 0xFFFFFFF, True
                self.clock.take(self.high)
                self.wraps = self.clock.wraps
            elif code in (0, 1, 10) and not self.has_time:
                self.before_time += 1 if code == 10 else mask.bit_count()
            elif code == 10:
                self.triggers.append((t_ns, head >> 8 & 31, head & 1))
            elif code in (0, 1):
                for k in range(32):
                    if mask >> k & 1:
                        self.put(t_ns, (head >> 11 & 0x7FF) + k, head & 0x7FF, code)
            elif code not in (14, 15):
                self.unknown += 1


class Evt21Oracle(Evt2Oracle):
    bytes_per_word = 8


class Evt4Oracle(Oracle):
    def __init__(self, *size):
        super().__init__(*size)
        self.clock = OracleClock(2**28, 2**27, 2**12)
        self.high, self.has_time, self.vector = 0, False, None

    def feed(self, payload):
        for word in np.frombuffer(payload, '<u4', len(payload) // 4).tolist():
            code, low, x, y = word >> 28, word >> 22 & 63, word >> 11 & 0x7FF, word & 0x7FF
            t_ns = (self.wraps * 2**34 + self.high * 64 + low) * 1000
            if self.vector is not None:
                (t_ns, x, y, p), self.vector = self.vector, None
                for k in range(32):
                    if word >> k & 1 and self.has_time:
                        self.put(t_ns, x + k, y, p)
                    elif word >> k & 1:
                        self.before_time += 1
            elif code in (12, 13):
                self.vector = (t_ns, x, y, code - 12)
            elif code == 14:
                self.high, self.has_time = word & 0xFFFFFFF, True
                self.clock.take(self.high)
                self.wraps = self.clock.wraps
            elif code in (9, 10, 11) and not self.has_time:
                self.before_time += 1
            elif code == 9:
                self.triggers.append((t_ns, word >> 8 & 31, word & 1))
            elif code in (10, 11):
                self.put(t_ns, x, y, code - 10)
            elif code not in (6, 7, 15):
                self.unknown += 1


class MonoOracle(Oracle):
    def feed(self, payload):
        for word in np.frombuffer(payload, '<u8', len(payload) // 8).tolist():
            t_ns = BASE_NS + word % 2**32
            self.put(t_ns, word >> 32 & 0xFFFF, word >> 48 & 0x7FFF, word >> 63)


class TriggerOracle(Oracle):
    def feed(self, payload):
        for word in np.frombuffer(payload, '<u8', len(payload) // 8).tolist():
            self.triggers.append((BASE_NS + word % 2**32, word >> 48 & 0x7FFF, word >> 63))


class LibcaerOracle(Oracle):
    def feed(self, payload):
        clock = OracleClock(2**31, 2**30, 2**18)
        words = np.frombuffer(payload, '<i4', len(payload) // 8 * 2).tolist()
        for data, t_us in zip(words[::2], words[1::2], strict=True):
            data &= 0xFFFFFFFF
            clock.take(t_us)
            clock.first = -1  # the clock is known by the packet
            if data & 1:
                t_ns = BASE_NS + (clock.wraps * 2**31 + t_us) * 1000
                self.put(t_ns, data >> 17, data >> 2 & 0x7FFF, data >> 1 & 1)
            else:
                self.invalid += 1
        self.wraps += clock.wraps


class LibcaerCmpOracle(Oracle):
    def feed(self, payload):
        low = high = x = base_y = base_p = 0
        for word in np.frombuffer(payload, '<u2', len(payload) // 2).tolist():
            code, value = word >> 12, word & 0xFFF
            t_ns = BASE_NS + (high * 4096 + low) * 1000
            if code == 0:
                high = value
            elif code == 1:
                low = value
            elif code == 2:
                x = value & 0x7FF
            elif code == 3:
                self.put(t_ns, x, value & 0x7FF, value >> 11)
            elif code == 4:
                base_y, base_p = value & 0x7FF, value >> 11
            elif code == 5:
                for k in range(8):
                    if value >> k & 1:
                        self.put(t_ns, x, base_y + k, base_p)
                base_y += 8
            else:
                self.unknown += 1


class EventArrayOracle(Oracle):
    def feed(self, payload):
        def number(at, size, signed=False):
            return int.from_bytes(payload[at : at + size], 'little', signed=signed)

        for k in range((len(payload) + 3) // 16):
            row = 16 * k
            xy = row - 2 if k else row
            t_ns = number(row + 4, 4, signed=True) * 10**9 + number(row + 8, 4)
            self.put(t_ns, number(xy, 2), number(xy + 2, 2), int(payload[row + 12] != 0))


ORACLES = {
    'evt3': Evt3Oracle,
    'evt2': Evt2Oracle,
    'evt21': Evt21Oracle,
    'evt4': Evt4Oracle,
    'mono': MonoOracle,
    'trigger': TriggerOracle,
    'libcaer': LibcaerOracle,
    'libcaer_cmp': LibcaerCmpOracle,
    'event_array': EventArrayOracle,
}


def leftover(name, size):
    if name == 'event_array':
        return size - (16 * ((size + 3) // 16) - 3) if size >= 13 else size
    return size % {'evt3': 2, 'libcaer_cmp': 2, 'evt2': 4, 'evt4': 4}.get(name, 8)


def check_against_oracle(name, payloads, height=HEIGHT, width=WIDTH):
    decoder, oracle = CODECS[name](height, width), ORACLES[name](height, width)
    decoded = [decoder.decode(payload, BASE_NS) for payload in payloads]
    for payload in payloads:
        oracle.feed(payload)
    events = [event for part in decoded for event in part.events.tolist()]
    assert events == oracle.events
    assert [t for part in decoded for t in part.triggers.tolist()] == oracle.triggers
    t_ns = [event[0] for event in events]
    falls = [a - b for a, b in itertools.pairwise(t_ns) if b < a]
    counts = decoder.counts
    assert counts == DecodeCounts(
        events=len(events),
        on=sum(event[3] for event in events),
        triggers=len(oracle.triggers),
        out_of_bounds=oracle.out,
        before_time=oracle.before_time,
        invalid=oracle.invalid,
        unknown_codes=oracle.unknown,
        truncated_bytes=sum(leftover(name, len(payload)) for payload in payloads),
        wraps=oracle.wraps,
        backward_steps=len(falls),
        max_backward_ns=max(falls, default=0),
    )
    return counts


@st.composite
def words(draw, bits, codes, values):
    """Words whose code is drawn from `codes` and whose other bits from `values`."""
    items = draw(st.lists(st.tuples(st.sampled_from(codes), values), max_size=40))
    return b''.join(
        (code << (bits - 4) | value % (1 << (bits - 4))).to_bytes(bits // 8, 'little')
        for code, value in items
    )


def small_or_any(bits):
    return st.integers(0, 70) | st.integers(0, 2**bits - 1)


EVT2_VALUES = st.builds(
    lambda low, x, y: low << 22 | x << 11 | y,
    st.integers(0, 63), st.integers(0, 70), st.integers(0, 50),
)  # fmt: skip
EVT21_VALUES = st.builds(lambda head, mask: head << 32 | mask, EVT2_VALUES, small_or_any(32))
MONO = st.builds(
    lambda p, y, x, dt: p << 63 | y << 48 | x << 32 | dt,
    st.integers(0, 1), st.integers(0, 50), st.integers(0, 70), st.integers(0, 2**32 - 1),
)  # fmt: skip
LIBCAER = st.builds(
    lambda us, x, y, p, valid: us % 2**32 << 32 | x << 17 | y << 2 | p << 1 | valid,
    st.integers(-(2**31), 2**31 - 1) | st.integers(0, 99), st.integers(0, 70),
    st.integers(0, 50), st.integers(0, 1), st.integers(0, 1),
)  # fmt: skip


def u64s(values):
    return st.lists(values, max_size=30).map(lambda v: np.array(v, '<u8').tobytes())


PAYLOADS = {
    'evt3': words(16, range(16), small_or_any(12)),
    'evt2': words(32, (0, 1, 8, 10, 14, 3), EVT2_VALUES | small_or_any(28)),
    'evt21': words(64, (0, 1, 8, 10, 15, 3), EVT21_VALUES | small_or_any(60)),
    'evt4': words(32, (6, 7, 9, 10, 11, 12, 13, 14, 15, 3), EVT2_VALUES | small_or_any(28)),
    'mono': u64s(MONO),
    'trigger': u64s(MONO),
    'libcaer': u64s(LIBCAER),
    'libcaer_cmp': words(16, range(8), small_or_any(12)),
    'event_array': st.lists(MONO, max_size=30).map(
        lambda v: np.array(v, '<u8').repeat(2).tobytes()[:-3]
    ),
}


@pytest.mark.parametrize('name', CODECS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_structured_words_decode_as_the_oracle_says(name, data):
    check_against_oracle(name, data.draw(st.lists(PAYLOADS[name], max_size=3)))


@pytest.mark.parametrize('name', CODECS)
@settings(max_examples=25, deadline=None)
@given(payloads=st.lists(st.binary(max_size=200), max_size=3))
def test_any_bytes_decode_as_the_oracle_says(name, payloads):
    check_against_oracle(name, payloads, MAX_SENSOR_PX, MAX_SENSOR_PX)


@pytest.mark.parametrize('name', CODECS)
@pytest.mark.parametrize('size', [0, 1, 7, 20_001])
def test_random_bytes_of_every_length(name, size):
    rng = np.random.default_rng(size)
    check_against_oracle(name, [rng.bytes(size)], 1500, 1500)


def test_evt3_over_many_blocks_with_vectors_glitches_and_wraps():
    rng = np.random.default_rng(1)
    odds = {0: 20, 2: 20, 3: 5, 4: 10, 5: 5, 6: 20, 8: 10, 10: 2, 14: 4, 9: 4}
    codes = rng.choice(list(odds), 30_000, p=np.array(list(odds.values())) / 100)
    values = rng.integers(0, 0x1000, len(codes))
    rising = np.cumsum(rng.random(len(codes)) < 0.4) + rng.integers(-8, 8, len(codes))
    values = np.where(codes == 8, rising % 4096, values)
    payload = (codes << 12 | values).astype('<u2').tobytes()
    counts = check_against_oracle('evt3', [payload[:30_001], payload[30_000:]], 2000, 2040)
    assert counts.wraps >= 2
    assert counts.events > 20_000


@pytest.mark.parametrize('low_falls', [False, True])
def test_evt3_over_many_blocks_without_vectors(low_falls):
    """Blocks of single events, where time falls in some blocks or in none; triggers everywhere."""
    rng = np.random.default_rng(2)
    odds = {0: 29, 2: 30, 6: 25, 8: 10, 10: 2, 7: 2, 9: 2}
    codes = rng.choice(list(odds), 20_000, p=np.array(list(odds.values())) / 100)
    values = rng.integers(0, 0x1000, len(codes))
    ticks = np.cumsum(rng.random(len(codes)) < 0.1)
    values = np.where(codes == 8, ticks, values)
    low = np.arange(len(codes)) % 2 if low_falls else 5
    values = np.where(codes == 6, low, values)
    payload = (codes << 12 | values).astype('<u2').tobytes()
    counts = check_against_oracle('evt3', [payload[:10_002], payload[10_002:]], 1500, 2000)
    assert (counts.backward_steps > 0) == low_falls
    assert min(counts.events, counts.out_of_bounds, counts.triggers) > 300


def test_evt3_by_hand():
    def word(code, value):
        return (code << 12 | value).to_bytes(2, 'little')

    decoder = CODECS['evt3'](HEIGHT, WIDTH)
    first = word(2, 5) + word(8, 1) + word(6, 2) + word(0, 7) + word(2, 0x800 | 9)
    events = decoder.decode(first + word(10, 0x301)).events
    assert events.tolist() == [(4098_000, 9, 7, 1)]
    vector = word(3, 0x800 | 20) + word(4, 0b1000_0000_0001) + word(5, 0b10)
    assert decoder.decode(vector).events.tolist() == [
        (4098_000, 20, 7, 1),
        (4098_000, 31, 7, 1),
        (4098_000, 33, 7, 1),
    ]
    assert decoder.counts == DecodeCounts(events=4, on=4, triggers=1, before_time=1)


def test_evt3_vectors_go_on_from_a_base_in_packets_before():
    decoder = CODECS['evt3'](HEIGHT, WIDTH)
    words = [(8, 1), (6, 2), (0, 7)], [(3, 0x800 | 20), (2, 9)], [(2, 8)], [(5, 0b10)], [(4, 1)]
    packets = [np.array([c << 12 | v for c, v in part], '<u2').tobytes() for part in words]
    found = [decoder.decode(packet).events[['x', 'p']].tolist() for packet in packets]
    assert found == [[], [(9, 0)], [(8, 0)], [(21, 1)], [(28, 1)]]


def test_evt3_low_steps_back_without_wrap_and_high_wraps():
    def at(high, low):
        return [8 << 12 | high, 6 << 12 | low, 0, 2 << 12]

    times = at(0, 811) + at(0, 800) + at(4095, 5) + at(4090, 5) + at(0, 1)
    payload = np.array(times, '<u2').tobytes()
    decoder = CODECS['evt3'](HEIGHT, WIDTH)
    t_us = decoder.decode(payload).events['t_ns'] // 1000
    assert t_us.tolist() == [811, 800, 4095 * 4096 + 5, 4090 * 4096 + 5, 2**24 + 1]
    assert decoder.counts.wraps == 1
    assert decoder.counts.backward_steps == 2
    assert decoder.counts.max_backward_ns == 5 * 4096 * 1000


def evt3_words(*pairs):
    return b''.join((code << 12 | value).to_bytes(2, 'little') for code, value in pairs)


@pytest.mark.parametrize('fillers', [0, 5000])  # in one block with the wraps, and in others
def test_evt3_steps_back_over_a_wrap(fillers):
    decoder = CODECS['evt3'](40, 60)
    highs = [4095, 0, 4095, 0, 5, 4090, 1]
    pairs = [(0, 3)]
    for high in highs:
        pairs += [(8, high), (6, 7), (2, 1), *[(7, 0)] * fillers]
    t_us = [t // 1000 for t in decoder.decode(evt3_words(*pairs)).events['t_ns'].tolist()]
    slots = [4095, 4096, 4095, 4096, 4101, 4101 + 4085, 2 * 4096 + 1]
    assert t_us == [slot * 4096 + 7 for slot in slots]
    assert decoder.counts.wraps == 2


def test_evt3_steps_back_over_a_wrap_by_ten_slots_at_most():
    decoder = CODECS['evt3'](40, 60)
    pairs = [(0, 3)]
    for high in (4095, 5, 4091, 4, 4089):  # ahead, back by 10, ahead by 9, ahead by 4085
        pairs += [(8, high), (6, 0), (2, 1)]
    slots = [t // 4_096_000 for t in decoder.decode(evt3_words(*pairs)).events['t_ns'].tolist()]
    assert slots == [4095, 4101, 4091, 4100, 4096 + 4089]


@pytest.mark.parametrize('fillers', [0, 5000])
@pytest.mark.parametrize('name', ['evt3', 'evt2'])
def test_one_wrong_time_high_is_no_wrap(name, fillers):
    """Ahead, far ahead, behind; the clock is where it was after each."""
    span = {'evt3': 2**12, 'evt2': 2**28}[name]
    base = 100 if name == 'evt3' else 40_000
    highs = [base, base + 1, base + span // 2, base + 2, base + 3, base - 90, base + 4, span - 1,
             base + 5]  # fmt: skip
    if name == 'evt3':
        words = [w for h in highs for w in ((8, h), (6, 0), (0, 3), (2, 1), *[(7, 0)] * fillers)]
        payload = evt3_words(*words)
    else:
        words = [w for h in highs for w in (8 << 28 | h, 3, *[14 << 28] * fillers)]
        payload = np.array(words, '<u4').tobytes()
    decoder = CODECS[name](HEIGHT, WIDTH)
    t_us = decoder.decode(payload).events['t_ns'] // 1000
    slots = t_us // (4096 if name == 'evt3' else 64)
    assert slots[[0, 1, 3, 4, 6, 8]].tolist() == [base + k for k in range(6)]
    assert decoder.counts.wraps == 0


def test_what_an_earlier_run_left_is_no_wrap():
    """Evt3 that begins at 12 s and goes on at 0; a later fall is a wrap."""
    highs = [3000, 3001, 0, 1, 2, 2500, 2501, 900]
    words = [w for high in highs for w in ((8, high), (6, 0), (0, 3), (2, 1))]
    decoder = CODECS['evt3'](HEIGHT, WIDTH)
    slots = decoder.decode(evt3_words(*words)).events['t_ns'] // 4_096_000
    assert slots.tolist() == [3000, 3001, 0, 1, 2, 2500, 2501, 4096 + 900]


def test_libcaer_one_wrong_time_is_no_wrap():
    t_us = [5_000, 5_001, 2**31 - 9, 5_002, 5_003, 2**30 + 6_000, 5_004]
    pairs = np.array([[1, t] for t in t_us], '<u4')
    events = CODECS['libcaer'](40, 60).decode(pairs.tobytes()).events
    assert (events['t_ns'] // 1000).tolist() == t_us


def test_evt3_rows_of_another_kind_hold_no_contrast_events():
    decoder = CODECS['evt3'](40, 60)
    pairs = [(8, 1), (6, 0), (0, 3), (2, 1), (1, 4), (2, 2), (3, 0), (4, 0b101), (0, 5), (2, 6)]
    events = decoder.decode(evt3_words(*pairs)).events
    assert events[['x', 'y']].tolist() == [(1, 3), (6, 5)]
    assert (decoder.counts.invalid, decoder.counts.before_time) == (3, 0)
    decoder.decode(evt3_words((1, 4)))
    assert len(decoder.decode(evt3_words((2, 6), (8, 1))).events) == 0
    assert len(decoder.decode(evt3_words((0, 7), (2, 6))).events) == 1


def test_evt4_by_hand():
    """The layout of OpenEB's evt4_event_types.h, bit by bit; masks may look like any word."""
    golden = b''.join(
        word.to_bytes(4, 'little')
        for word in (
            0xE0000003,  # time high 3: 192 us
            0xA0401802,  # off, time low 1, x 3, y 2
            0xB0802805,  # on, time low 2, x 5, y 5
            0xFFFFFFFF,  # padding
            0xC0001007,  # vector off, time low 0, x 2, y 7
            0xE0000001,  # its mask: bits 0, 29, 30, 31
            0x90C00501,  # trigger, time low 3, channel 5, rising
            0xD0C00009,  # vector on, time low 3, x 0, y 9
        )
    )
    decoder = CODECS['evt4'](40, 60)
    events, triggers = decoder.decode(golden)
    assert events.tolist() == [
        (193_000, 3, 2, 0),
        (194_000, 5, 5, 1),
        *[(192_000, x, 7, 0) for x in (2, 31, 32, 33)],
    ]
    assert triggers.tolist() == [(195_000, 5, 1)]
    events = decoder.decode((0x80000002).to_bytes(4, 'little')).events  # the mask comes later
    assert events.tolist() == [(195_000, 1, 9, 1), (195_000, 31, 9, 1)]
    assert decoder.counts.unknown_codes == 0


def evt4_of(events, vectors):
    """Encodes events one by one, or as vectors of up to 32 of a row."""
    found, high, i = [], None, 0
    while i < len(events):
        t_ns, x, y, p = events[i]
        t_us, mask, run = t_ns // 1000, 1, i + 1
        if t_us >> 6 != high:
            high = t_us >> 6
            found.append(14 << 28 | high % 2**28)
        while vectors and run < len(events):
            t2, x2, y2, p2 = events[run]
            if (t2 // 1000, y2, p2) != (t_us, y, p) or not x + mask.bit_length() <= x2 < x + 32:
                break
            mask |= 1 << (x2 - x)
            run += 1
        word = (t_us & 63) << 22 | x << 11 | y
        found += [10 + p << 28 | word] if run == i + 1 else [12 + p << 28 | word, mask]
        i = run
    return np.array(found, '<u4').tobytes()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 99),
    vectors=st.booleans(),
    start_us=st.sampled_from([0, 10**6, 2**34 - 40]),  # the last wraps on its way
    cuts=st.lists(st.integers(0, 100), max_size=4),
)
def test_evt4_round_trip(seed, vectors, start_us, cuts):
    rng = np.random.default_rng(seed)
    t_us = start_us + np.cumsum(rng.integers(0, 30, 60)).repeat(3)
    x, y = np.sort(rng.integers(0, 60, (60, 3))).reshape(-1), rng.integers(0, 40, 60).repeat(3)
    events = list(zip((t_us * 1000).tolist(), x.tolist(), y.tolist(),
                      rng.integers(0, 2, 60).repeat(3).tolist(), strict=True))  # fmt: skip
    payload, decoder = evt4_of(events, vectors), CODECS['evt4'](40, 60)
    edges = [0, *sorted(4 * min(cut, len(payload) // 4) for cut in cuts), len(payload)]
    parts = [decoder.decode(payload[a:b]).events for a, b in itertools.pairwise(edges)]
    assert [event for part in parts for event in part.tolist()] == events
    assert decoder.counts.wraps == (start_us > 2**33)


def test_evt4_forgets_a_vector_whose_mask_was_lost():
    decoder = CODECS['evt4'](40, 60)
    words = np.array([0xE0000001, 0xC0001007], '<u4')
    assert len(decoder.decode(words.tobytes()).events) == 0
    decoder.resync()
    events = decoder.decode(np.array([0xE0000002, 0xA0000000], '<u4').tobytes()).events
    assert events.tolist() == [(128_000, 0, 0, 0)]


def test_libcaer_times_wrap_only_if_they_fall_far():
    t_us = [5_000, 4_000, 2**31 - 1, 3, 2**31 - 2, 4]
    pairs = np.array([[1, t] for t in t_us], '<u4')
    events = CODECS['libcaer'](40, 60).decode(pairs.tobytes()).events
    # the first rise is as far, but there was no wrap yet to step back over
    wanted = [5_000, 4_000, 2**31 - 1, 2**31 + 3, 2**31 - 2, 2**31 + 4]
    assert (events['t_ns'] // 1000).tolist() == wanted


def test_lucid_padding_is_counted_not_fatal():
    decoder = CODECS['evt3'](HEIGHT, WIDTH)
    decoder.decode(np.array([0x8001, 0x6002, 0x0003, 0x2004] + [0x9999] * 12, '<u2').tobytes())
    assert (decoder.counts.events, decoder.counts.unknown_codes) == (1, 12)


def test_reset_forgets_time_and_resync_keeps_wraps():
    decoder = CODECS['evt3'](HEIGHT, WIDTH)
    payload = np.array([0x8FFF, 0x8000, 0x6001, 0x0000, 0x2000], '<u2').tobytes()
    assert decoder.decode(payload).events['t_ns'].tolist() == [(2**24 + 1) * 1000]
    decoder.resync()
    event = np.array([0x2000], '<u2').tobytes()
    assert len(decoder.decode(event).events) == 0
    again = decoder.decode(payload[4:]).events
    assert again['t_ns'].tolist() == []  # TIME_LOW alone is no time
    decoder.reset()
    assert decoder.decode(payload[2:]).events['t_ns'].tolist() == [1000]
    assert decoder.counts.wraps == 1


def test_results_stay_valid_and_read_only():
    decoder = CODECS['mono'](HEIGHT, WIDTH)
    payload = encode_mono(make_events([5, 6], [1, 2], [3, 4], [0, 1]), 0)
    first = decoder.decode(payload).events
    for _ in range(20):
        decoder.decode(payload * 500)
    assert first.tolist() == [(5, 1, 3, 0), (6, 2, 4, 1)]
    assert not first.flags.writeable
    with pytest.raises(ValueError, match='read-only'):
        first['x'] = 0


def test_unaligned_and_writeable_payloads_are_fine():
    events = make_events([5, 6], [1, 2], [3, 4], [0, 1])
    shifted = np.frombuffer(b'!' + encode_mono(events, 0), np.uint8)[1:]
    decoder = CODECS['mono'](HEIGHT, WIDTH)
    for payload in (shifted, shifted.copy(), bytearray(shifted), memoryview(shifted)):
        assert decoder.decode(payload).events.tolist() == events.tolist()


def test_a_payload_that_expands_without_bound_is_refused():
    word = np.uint16(0x4FFF)
    payload = np.full((1 << 24) // 12 + 1, word).astype('<u2').tobytes()
    decoder = CODECS['evt3'](HEIGHT, WIDTH)
    assert len(decoder.decode(payload).events) == 0
    assert decoder.counts == DecodeCounts(oversized=1)


@pytest.mark.parametrize('size', [(0, 640), (480, 0), (480, MAX_SENSOR_PX + 1), (-1, 5)])
def test_impossible_sensors_are_refused(size):
    with pytest.raises(ValueError, match=f'expected 1 to {MAX_SENSOR_PX}'):
        CODECS['evt3'](*size)


def test_totals_of_two_decoders():
    one = DecodeCounts(events=1, max_backward_ns=7)
    assert add_counts(one, DecodeCounts(events=2, max_backward_ns=5)) == DecodeCounts(
        events=3, max_backward_ns=7
    )
