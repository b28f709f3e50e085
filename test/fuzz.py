"""Damaged input for everything that reads bytes from outside: `make fuzz SECONDS=600`.

Each target has seeds (good inputs) and a function that must survive any mutation of them: it may
raise the one error of its layer, and nothing else. Payloads and messages are made and decoded
`BATCH` at a time in this process; a file is a batch of one. A batch follows from (seed, target,
number) alone, so a failure can be repeated: `python test/fuzz.py --only NAME --first NUMBER
--cases 1`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from fuzz_files import KALIBR, OPENCV, aedat4_seeds, dat_seeds, ecf_seeds, hdf5_seeds, raw_seeds
from recordings import H, W, events_of, write_bag, write_ros1
from untrained import untrained_checkpoint

from spike_depth_ros.events.arrays import make_events
from spike_depth_ros.events.calibration_file import read_calibration
from spike_depth_ros.events.camera import CalibrationError
from spike_depth_ros.events.codecs import (
    CODECS,
    encode_event_array,
    encode_evt3,
    encode_libcaer_cmp,
    encode_mono,
)
from spike_depth_ros.events.config import SpikeConfig
from spike_depth_ros.events.spikes import pixel_map
from spike_depth_ros.events.windows import TimeWindower
from spike_depth_ros.events.wire import (
    EVENT_TYPES,
    EventStream,
    Packet,
    pack_event_array,
    pack_event_packet,
)
from spike_depth_ros.network.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from spike_depth_ros.recordings import BagError, EventsH5Writer, open_source
from spike_depth_ros.recordings.ecf import EcfError, decode_ecf

LIMIT_S = 60
"""No batch may take longer."""
BATCH = 1024
"""Payloads or messages that are made and decoded together."""
EVENTS = 16
"""Events of a good payload: small ones are decoded faster, and damage meets every part."""
EXTREMES = np.array([0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF,
                     (1 << 63) - 1, 1 << 63, (1 << 64) - 1], '<u8')  # fmt: skip
MOST_CHANGES = 16
LONGEST_REPEAT = 64
CALIBRATION = """image_width: 64
image_height: 48
camera_name: eye
camera_matrix: {rows: 3, cols: 3, data: [60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, -0.05, 0.001, 0.0, 0.01]}
"""


class Target(NamedTuple):
    """Something that reads bytes from outside."""

    seeds: Callable[[Path], list[bytes]]  # folder to make them in -> good inputs
    run: Callable[[list[bytes], Path], None]  # a batch of inputs, folder for files
    refusal: type[Exception] | None = None  # the error that it may raise
    is_file: bool = False
    batch: int = 1  # inputs per call of `run`


class Result(NamedTuple):
    """What came of the cases of one target."""

    cases: int
    refused: int
    seconds: float
    failures: list[int]  # numbers of the failed batches


def mutated(seed: bytes, rng: np.random.Generator, count: int) -> list[bytes]:
    """Variants of a good input, each with a few changes of common kinds.

    Of one half bytes are removed, repeated or inserted at one place. In all of them a few bits,
    bytes or numbers are changed, and some are cut off.
    """
    good = np.frombuffer(seed or b'\0', np.uint8)
    size, rows = len(good), np.arange(count)
    # bytes from `at` on move by `shift`: right repeats the bytes before, left removes those after
    at = rng.integers(0, size + 1, count)
    shift = rng.choice((-100, -8, -2, -1, 0, 0, 0, 0, 0, 0, 1, 4, 8, LONGEST_REPEAT), count)
    lengths = np.maximum(size + np.maximum(shift, at - size), 0)
    columns = np.arange(lengths.max(initial=1), dtype=np.int32)
    source = columns - (shift.astype(np.int32)[:, None] * (columns >= at[:, None]))
    data = good[np.clip(source, 0, size - 1)]  # (count, longest)
    numbers = rng.integers(0, 1 << 64, (MOST_CHANGES, count), np.uint64)
    is_extreme = rng.random((MOST_CHANGES, count)) < 0.3
    numbers = np.where(is_extreme, rng.choice(EXTREMES, (MOST_CHANGES, count)), numbers)
    widths = rng.choice((1, 1, 2, 4, 8), (MOST_CHANGES, count))
    changes = rng.choice((0, 1, 1, 2, 4, MOST_CHANGES), count)
    for k in range(MOST_CHANGES):
        place = rng.integers(0, len(columns), count)
        chosen = rows[changes > k]
        if rng.random() < 0.3:
            bits = (1 << rng.integers(0, 8, count)).astype(np.uint8)
            data[chosen, place[chosen]] ^= bits[chosen]
            continue
        for j in range(8):
            wide = chosen[(widths[k, chosen] > j) & (place[chosen] + j < len(columns))]
            data[wide, place[wide] + j] = numbers[k, wide] >> np.uint64(8 * j) & np.uint64(0xFF)
    ends = np.where(rng.random(count) < 0.1, rng.integers(0, size + 1, count), lengths)
    return [row[:end].tobytes() for row, end in zip(data, np.minimum(ends, lengths), strict=True)]


def run_target(
    name: str, target: Target, seed: int, numbers: Iterator[int], folder: Path
) -> Result:
    """Runs batches until `numbers` end. What fails is printed and kept in `folder`."""
    seeds = target.seeds(folder)
    for data in seeds:
        target.run([data], folder)  # must be good
    start_s, cases, refused, failures = time.monotonic(), 0, 0, []
    words = [seed, *name.encode()]
    for number in numbers:
        rng = np.random.default_rng([*words, number])
        batch = mutated(seeds[rng.integers(len(seeds))], rng, target.batch)
        cases += target.batch
        signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
        try:
            target.run(batch, folder)
        except Exception as error:
            if target.refusal is not None and isinstance(error, target.refusal):
                refused += 1
                continue
            failures.append(number)
            kept = folder / f'{name.replace("/", "_")}_{number}.bin'
            kept.write_bytes(b''.join(batch))
            print(f'{name} {number}, kept as {kept}:\n{traceback.format_exc()}', file=sys.stderr)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    return Result(cases, refused, time.monotonic() - start_s, failures)


def _payload_seeds(encoding: str, folder: Path) -> list[bytes]:
    rng = np.random.default_rng(0)
    times_ns = np.sort(rng.integers(0, 4_000_000, EVENTS)) * 1000
    events = make_events(times_ns, *(rng.integers(0, most, EVENTS) for most in (W, H, 2)))
    made = {
        'evt3': lambda: encode_evt3(events),
        'mono': lambda: encode_mono(events, int(events['t_ns'][0])),
        'libcaer_cmp': lambda: encode_libcaer_cmp(events, 0),
        'event_array': lambda: encode_event_array(events),
    }
    high = {'evt2': (4, 0x80), 'evt21': (8, 0x80), 'evt4': (4, 0xE0)}
    if encoding in made:
        return [made[encoding](), b'']
    if encoding in high:  # words that open with a time
        size, code = high[encoding]
        return [bytes(size - 1) + bytes([code]) + rng.bytes(EVENTS * size), b'']
    return [rng.bytes(8 * EVENTS), b'']


def _run_payload(encoding: str, batch: list[bytes], folder: Path) -> None:
    """Decodes a batch: two payloads are one stream, then the camera starts anew."""
    decoder = CODECS[encoding](H, W)
    decoded = []
    for k, payload in enumerate(batch):
        if k % 2 == 0:
            decoder.reset()
        decoded.append(decoder.decode(payload, 10**15))
    events = np.concatenate([part.events for part in decoded])
    counts = decoder.counts
    assert (counts.events, counts.on) == (len(events), int(events['p'].sum()))
    assert counts.triggers == sum(len(part.triggers) for part in decoded)
    assert (events['x'] < W).all()
    assert (events['y'] < H).all()
    assert (events['p'] < 2).all()


def _message_seeds(type_name: str, folder: Path) -> list[bytes]:
    events = events_of(range(0, 50 * EVENTS, 50))
    if 'EventPacket' in type_name or type_name.startswith('event_array_msgs'):
        payload = np.frombuffer(encode_evt3(events), np.uint8)
        packet = Packet(10**18, 'camera', H, W, 7, 1, 'evt3', payload)
        return [pack_event_packet(packet)]
    payload = np.frombuffer(encode_event_array(events), np.uint8)
    return [pack_event_array(Packet(10**18, 'camera', H, W, None, 0, 'event_array', payload))]


def _run_message(type_name: str, batch: list[bytes], folder: Path) -> None:
    stream = EventStream(type_name)
    for message in batch:
        stream.feed(message)
    assert stream.packets + sum(stream.skipped.values()) == len(batch)
    assert bool(stream.skipped) == bool(stream.last_error)


@functools.cache
def _pixels() -> object:
    return pixel_map(H, W, SpikeConfig())


def _run_times(batch: list[bytes], folder: Path) -> None:
    """Any times, cut anywhere: no event is lost from the counts."""
    (data,) = batch
    t_ns = np.frombuffer(data, '<i8', len(data) // 8) % (1 << 62)
    events = make_events(t_ns, *np.zeros((3, len(t_ns)), int))
    windower = TimeWindower(_pixels(), 2, 50_000_000, 50_000_000)
    windows = [w for part in np.array_split(events, 3) for w in windower.push(part)]
    assert sum(w.event_count for w in windows) + windower.late_events <= len(events)
    assert all(w.t1_ns - w.t0_ns == 50_000_000 for w in windows)


def _checkpoint_seeds(folder: Path) -> list[bytes]:
    save_checkpoint(folder / 'seed.safetensors', untrained_checkpoint('tiny'))
    return [(folder / 'seed.safetensors').read_bytes()]


def _run_checkpoint(batch: list[bytes], folder: Path) -> None:
    path = folder / 'case.safetensors'
    path.write_bytes(batch[0])
    load_checkpoint(path)
    assert batch[0] == (folder / 'seed.safetensors').read_bytes(), 'a damaged checkpoint loads'


def _run_calibration(batch: list[bytes], folder: Path) -> None:
    path = folder / 'case.yaml'
    path.write_bytes(batch[0])
    read_calibration(path).rays()


def _parameter_seeds(folder: Path) -> list[bytes]:
    return [(Path(__file__).resolve().parents[1] / 'config' / 'depth.yaml').read_bytes()]


class _NotParametersError(Exception):
    """What rclpy and the YAML parser refuse before this package sees it."""


def _run_parameters(batch: list[bytes], folder: Path) -> None:
    from rclpy.parameter import Parameter

    from spike_depth_ros.ros import params
    from spike_depth_ros.ros.depth_parameters import DepthParameters

    try:
        text = batch[0].decode('utf-8', 'replace')
        (values,) = (
            node['ros__parameters']
            for name, node in yaml.safe_load(text).items()
            if name.endswith('depth_node')
        )
        changes = [Parameter(str(name), value=value) for name, value in values.items()]
    except Exception as error:
        raise _NotParametersError from error
    result = params.judge(DepthParameters(), changes, '', DepthParameters.check)
    assert result.successful or result.reason


def _bag_seeds(name: str, folder: Path) -> list[bytes]:
    events = events_of(range(0, 60_000, 100))
    path = folder / f'seed_{name}'
    if name.endswith('.bag'):
        write_ros1(path, events)
    elif name.endswith('.h5'):
        with EventsH5Writer(path, H, W) as file:
            file.add(events)
    else:
        bag = write_bag(path, events, 'mcap' if name.endswith('mcap') else 'sqlite3')
        (path,) = bag.glob(f'*{Path(name).suffix}')
    return [path.read_bytes()]


def _run_ecf(batch: list[bytes], folder: Path) -> None:
    events = decode_ecf(batch[0])
    assert len(events) == int.from_bytes(batch[0][:4], 'little') >> 2


def _run_recording(name: str, batch: list[bytes], folder: Path) -> None:
    path = folder / f'case_{name}'
    path.write_bytes(batch[0])
    with open_source(path) as source:
        stream = EventStream(source.event_topic.type)
        for message in source.messages():
            stream.feed(message.cdr)


def _metadata_seeds(folder: Path) -> list[bytes]:
    """The metadata.yaml of a bag of two files; its damage decides what is played."""
    events = events_of(range(0, 60_000, 100))
    with contextlib.suppress(FileExistsError):
        bag = write_bag(folder / 'bag', events[:300])
        second = write_bag(folder / 'second', events[300:]) / 'second.mcap'
        second.rename(bag / 'bag_1.mcap')
    return [(folder / 'bag' / 'metadata.yaml').read_bytes().replace(
        b'- bag.mcap', b'- bag.mcap\n  - bag_1.mcap', 1)]  # fmt: skip


def _run_folder(batch: list[bytes], folder: Path) -> None:
    bag = folder / 'bag'
    (bag / 'metadata.yaml').write_bytes(batch[0])
    with open_source(bag) as source:
        assert sum(1 for _ in source.messages()) > 0


def _payload_target(name: str) -> Target:
    seeds, run = (functools.partial(f, name) for f in (_payload_seeds, _run_payload))
    return Target(seeds, run, batch=BATCH)


def _message_target(name: str) -> Target:
    seeds, run = (functools.partial(f, name) for f in (_message_seeds, _run_message))
    return Target(seeds, run, batch=BATCH)


def _recording_target(name: str, seeds: Callable[[Path], list[bytes]] | None = None) -> Target:
    seeds = seeds or functools.partial(_bag_seeds, name)
    return Target(seeds, functools.partial(_run_recording, name), BagError, is_file=True)


TARGETS: dict[str, Target] = {
    **{f'payload/{name}': _payload_target(name) for name in CODECS},
    **{f'message/{name}': _message_target(name) for name in EVENT_TYPES},
    'times': Target(lambda _: [np.arange(0, 10**9, 10**7).tobytes()], _run_times),
    'checkpoint': Target(_checkpoint_seeds, _run_checkpoint, CheckpointError, is_file=True),
    'calibration': Target(
        lambda _: [CALIBRATION.encode(), KALIBR, OPENCV],
        _run_calibration,
        CalibrationError,
        is_file=True,
    ),
    'parameters': Target(_parameter_seeds, _run_parameters, _NotParametersError, is_file=True),
    'recording/mcap': _recording_target('drive.mcap'),
    'recording/db3': _recording_target('drive.db3'),
    'recording/ros1': _recording_target('drive.bag'),
    'recording/events.h5': _recording_target('events.h5'),
    'recording/raw': _recording_target('drive.raw', raw_seeds),
    'recording/dat': _recording_target('drive.dat', dat_seeds),
    'recording/aedat4': _recording_target('drive.aedat4', aedat4_seeds),
    'recording/columns.h5': _recording_target('columns.h5', hdf5_seeds),
    'recording/folder': Target(_metadata_seeds, _run_folder, BagError, is_file=True),
    'recording/ecf': Target(ecf_seeds, _run_ecf, EcfError),
}
"""Name -> target."""


def _numbers(first: int, cases: int | None, seconds: float) -> Iterator[int]:
    until_s = time.monotonic() + seconds
    number = first
    while (cases is None or number < first + cases) and time.monotonic() < until_s:
        yield number
        number += 1


def _too_long(signum: int, frame: object) -> None:
    raise TimeoutError(f'a batch took more than {LIMIT_S} s')


def main(arguments: list[str] | None = None) -> int:
    """Runs the targets one after the other, each for its share of the time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seconds', type=float, default=600.0, help='for all targets together')
    parser.add_argument('--only', action='append', choices=TARGETS, help='names of targets')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--first', type=int, default=0, help='number of the first batch')
    parser.add_argument('--cases', type=int, help='batches of each target at most')
    parser.add_argument('--out', type=Path, help='keeps failed inputs; default: a new folder')
    chosen = parser.parse_args(arguments)
    out = chosen.out or Path(tempfile.mkdtemp(prefix='fuzz_'))
    out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGALRM, _too_long)
    names, totals, failed = chosen.only or list(TARGETS), {True: 0, False: 0}, 0
    print(f'{"target":50} {"cases":>10} {"refused":>10} {"cases/s":>9} {"failures":>8}')
    for name in names:
        numbers = _numbers(chosen.first, chosen.cases, chosen.seconds / len(names))
        result = run_target(name, TARGETS[name], chosen.seed, numbers, out)
        totals[TARGETS[name].is_file] += result.cases
        failed += len(result.failures)
        rate = result.cases / max(result.seconds, 1e-9)
        print(
            f'{name:50} {result.cases:10} {result.refused:10} {rate:9.0f} '
            f'{len(result.failures):8}', flush=True,
        )  # fmt: skip
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f'{totals[False]} payloads and messages, {totals[True]} files, {failed} failures; '
          f'peak memory {peak_mb:.0f} MB')  # fmt: skip
    return min(failed, 1)


if __name__ == '__main__':
    sys.exit(main())
