"""`spike_depth bench ingest`: measures decoding of events and accumulation of spike tensors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from spike_depth_ros.cli.report import BenchRow, bench_row, print_bench, time_jobs
from spike_depth_ros.events.arrays import make_events
from spike_depth_ros.events.codecs import (
    CODECS,
    encode_event_array,
    encode_evt3,
    encode_libcaer_cmp,
    evt3_state,
)
from spike_depth_ros.events.config import SpikeConfig
from spike_depth_ros.events.spikes import accumulate, pixel_map
from spike_depth_ros.events.windows import TimeWindower
from spike_depth_ros.events.wire import EVENT_TYPES, EventStream, Packet, pack_event_array, parse
from spike_depth_ros.recordings import open_source

LEGACY = 'dvs_msgs/msg/EventArray'
UNIT = 'Mev/s'
HD_HEIGHT, HD_WIDTH = 720, 1280

log = logging.getLogger(__name__)


def ingest(json: bool = False, recordings: Path | None = None, rounds: int = 100) -> None:
    """Measures decoding and accumulation on one core, next to a peer where one exists.

    Args:
        json: print one JSON object instead of a table.
        recordings: folder with the bags test_events_1 (evt3) and test_events_2 (libcaer_cmp) of
            event_camera_py. Without it, streams written by this package's encoders are decoded.
        rounds: number of runs of a few milliseconds each; the table shows their median and spread.
    """
    if recordings is not None and not recordings.is_dir():
        raise NotADirectoryError(f'recordings is {str(recordings)!r}, expected a folder')
    print_bench(list(ingest_rows(recordings, rounds)), json)


def ingest_rows(recordings: Path | None, rounds: int) -> Iterator[BenchRow]:
    """Yields the rows of `ingest`."""
    evt3 = _recorded(recordings, 'test_events_1') or _made('evt3')
    compressed = _recorded(recordings, 'test_events_2') or _made('libcaer_cmp')
    dense = _split('evt3', _dense_events(), HD_HEIGHT, HD_WIDTH, size=20_000)
    for name, packets in (
        (f'evt3, per message ({_origin(evt3)})', evt3),
        (f'evt3, dense {HD_WIDTH}x{HD_HEIGHT} ({_origin(dense)})', dense),
    ):
        yield _decoding_row(name, packets, rounds, 'evt3 (PyPI)', _peer_evt3(packets))
    yield _windows_row(f'evt3 to spike tensors, per message ({_origin(evt3)})', evt3, rounds)
    yield _decoding_row(f'libcaer_cmp, per message ({_origin(compressed)})', compressed, rounds)
    yield _legacy_row(rounds)
    yield from _accumulate_rows(rounds)


def _recorded(folder: Path | None, bag: str) -> list[Packet] | None:
    """Returns the packets of a recorded bag, or None if there is none."""
    if folder is None or not (folder / bag).exists():
        log.info('no recording %s given; using a stream written by our own encoder', bag)
        return None

    with open_source(folder / bag) as source:
        messages = [m for m in source.messages() if m.type in EVENT_TYPES]
        return [parse(m.type, bytes(m.cdr)) for m in messages]


def _origin(packets: Sequence[Packet]) -> str:
    return 'made' if packets[0].frame_id == 'made' else 'recorded'


def _made(encoding: str) -> list[Packet]:
    """Returns a stream like that of a VGA camera: 300,000 scattered events, 660 per packet."""
    rng, count = np.random.default_rng(0), 300_000
    t_ns = np.sort(rng.integers(0, 2_000_000, count)) * 1000
    x, y = rng.integers(0, 640, count), rng.integers(0, 480, count)
    events = make_events(t_ns, x, y, rng.integers(0, 2, count))
    return _split(encoding, events, 480, 640, size=660)


def _dense_events() -> np.ndarray:
    """Returns rows of an HD sensor, one every 2 us: eight runs of 32 pixels, half firing."""
    rng, rows, runs, length = np.random.default_rng(0), 8_000, 8, 32
    row = np.repeat(np.arange(rows), runs * length)
    starts = np.sort(rng.integers(0, HD_WIDTH - length, (rows, runs)), axis=1)
    x = (starts[..., None] + np.arange(length)).ravel()
    p = np.repeat(rng.integers(0, 2, rows * runs), length)
    fires = rng.random(len(row)) < 0.5
    return make_events(row[fires] * 2000, x[fires], row[fires] % HD_HEIGHT, p[fires])


def _split(encoding: str, events: np.ndarray, height: int, width: int, size: int) -> list[Packet]:
    """Encodes events as packets of `size` events each."""
    state = evt3_state()
    packets = []
    for seq, start in enumerate(range(0, len(events), size)):
        part = events[start : start + size]
        base_ns = 0 if encoding == 'evt3' else int(part['t_ns'][0])
        data = (
            encode_evt3(part, state) if encoding == 'evt3' else encode_libcaer_cmp(part, base_ns)
        )
        payload = np.frombuffer(data, np.uint8)
        packets.append(Packet(0, 'made', height, width, seq, base_ns, encoding, payload))
    return packets


def _decoding_row(
    name: str,
    packets: Sequence[Packet],
    rounds: int,
    peer: str | None = None,
    peer_job: Callable[[], object] | None = None,
) -> BenchRow:
    """Measures decoding of all payloads, one call each."""
    first = packets[0]
    decoder = CODECS[first.encoding](first.height, first.width)
    work = [(packet.payload, packet.time_base_ns) for packet in packets]

    def job() -> None:
        for payload, time_base_ns in work:
            decoder.decode(payload, time_base_ns)

    job()
    events = decoder.counts.events
    times_s = time_jobs([job, peer_job] if peer_job else [job], rounds)
    rates = [events / job_s / 1e6 for job_s in times_s]
    if peer_job is None:
        return bench_row(name, rates[0], UNIT)
    return bench_row(name, rates[0], UNIT, peer, rates[1])


def _peer_evt3(packets: Sequence[Packet]) -> Callable[[], object] | None:
    """Returns a job that decodes with PyPI's `evt3` (Rust), or None if it is not installed."""
    try:
        import evt3
    except ImportError:
        log.info('evt3 is not installed (pip install evt3): the evt3 rows have no peer')
        return None
    decoder = evt3.Decoder(packets[0].width, packets[0].height)
    payloads = [bytes(packet.payload) for packet in packets]

    def job() -> None:
        for payload in payloads:
            decoder.feed(payload)

    return job


def _windows_row(name: str, packets: Sequence[Packet], rounds: int) -> BenchRow:
    """Measures decoding of all payloads and cutting windows, as the node does by default.

    Decoded events are always needed: the node keeps the latest ones for snapshots, and windows
    begin and end within packets. The peer is decoding alone.
    """
    first, config = packets[0], SpikeConfig()
    pixels = pixel_map(first.height, first.width, config)
    windower = TimeWindower(pixels, config.steps, config.window_ns, config.window_ns)
    decoder = CODECS[first.encoding](first.height, first.width)

    def decode() -> None:
        for packet in packets:
            decoder.decode(packet.payload, packet.time_base_ns)

    def decode_and_cut() -> None:
        windower.reset()
        for packet in packets:
            events = decoder.decode(packet.payload, packet.time_base_ns).events
            for _ in windower.push(events):
                pass

    decode()
    events = decoder.counts.events
    rates = [events / job_s / 1e6 for job_s in time_jobs([decode_and_cut, decode], rounds)]
    return bench_row(name, rates[0], UNIT, 'decoding alone', rates[1])


def _legacy_row(rounds: int) -> BenchRow:
    """Measures decoding of a legacy EventArray from CDR bytes, as in a raw subscription."""
    events = _dense_events()[:100_000]
    payload = np.frombuffer(encode_event_array(events), np.uint8)
    cdr = pack_event_array(Packet(0, 'made', HD_HEIGHT, HD_WIDTH, None, 0, 'event_array', payload))
    stream = EventStream(LEGACY)
    (ours_s,) = time_jobs([lambda: stream.feed(cdr)], rounds)
    rate = len(events) / ours_s / 1e6
    name = 'legacy EventArray, from CDR bytes (made)'
    try:
        from spike_depth_ros.ros.peers import deserialise_event_array

        (peer_s,) = time_jobs([lambda: deserialise_event_array(cdr)], 1)
    except ImportError as error:
        log.info('%s: the legacy row has no peer', error)
        return bench_row(name, rate, UNIT)
    return bench_row(name, rate, UNIT, 'rclpy message objects', len(events) / peer_s / 1e6)


def _accumulate_rows(rounds: int) -> Iterator[BenchRow]:
    """Measures accumulation of a million events at random pixels, ordered in time.

    One row writes pixel by pixel, another through the lookup table that bins 2x2, as in the node.
    """
    rng, count, steps, height, width = np.random.default_rng(0), 1_000_000, 8, 480, 640
    window_ns = 50_000_000
    t_ns = np.sort(rng.integers(0, window_ns, count))
    x, y = rng.integers(0, width, count), rng.integers(0, height, count)
    p = rng.integers(0, 2, count)
    events = make_events(t_ns, x, y, p)
    pixels = pixel_map(height, width, SpikeConfig())
    out = np.zeros((steps, 2, height, width), np.uint8)
    binned = np.zeros((steps, 2, pixels.height, pixels.width), np.uint8)

    def job() -> None:
        out.fill(0)
        accumulate(events, 0, window_ns, steps, height, width, out=out)

    def numpy_job() -> None:
        out.fill(0)
        step = events['t_ns'] * steps // window_ns
        np.add.at(out, (step, events['p'], events['y'], events['x']), 1)

    def binned_job() -> None:
        binned.fill(0)
        accumulate(events, 0, window_ns, steps, pixels.height, pixels.width, pixels, out=binned)

    jobs = [job, numpy_job, binned_job]
    ours, numpys, by_table = (count / s / 1e6 for s in time_jobs(jobs, max(3, rounds // 5)))
    yield bench_row('accumulate to (8, 2, 480, 640)', ours, UNIT, 'numpy.add.at', numpys)
    yield bench_row('accumulate to (8, 2, 240, 320), binned 2x2', by_table, UNIT)
