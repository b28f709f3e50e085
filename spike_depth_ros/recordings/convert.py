"""Converts one recording of events to another, message by message."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from spike_depth_ros.events.wire import EVENT_TYPES, EventStream
from spike_depth_ros.recordings.bag_writer import BagWriter
from spike_depth_ros.recordings.h5_writer import EventsH5Writer
from spike_depth_ros.recordings.packets import with_epoch
from spike_depth_ros.recordings.source import EVENT_PACKET, BagError, EventSource, RawMessage

Progress = Callable[[float, int], None]
"""Called with the share that is done, 0 to 1, and the events so far."""

_H5_SUFFIXES = ('.h5', '.hdf5')
_FOLDER_ONLY = ('.mcap', '.db3', '.bag', '.raw', '.dat', '.aedat4', '.zst', '.zstd')
_LOSSES = ('out_of_bounds', 'before_time', 'invalid', 'unknown_codes', 'truncated_bytes',
           'oversized')  # fmt: skip
"""Fields of `DecodeCounts` that mean that something in the source is not in the target."""
_SIGNS = ('out of bounds', 'before time', 'unknown codes')
"""Losses that are many where the format or the size of the sensor is another than stated."""
FEW_LOST = 100
"""So few losses are no sign of it."""


@dataclasses.dataclass
class Conversion:
    """What a conversion did.

    Attributes:
        events: events written.
        messages: messages written, by topic; empty for an events.h5.
        dropped: what the source holds and the target does not, and how many of it; messages
            of other topics are counted over all of the source, whatever part was converted.
    """

    events: int = 0
    messages: dict[str, int] = dataclasses.field(default_factory=dict)
    dropped: Counter[str] = dataclasses.field(default_factory=Counter)


def is_h5(target: str | Path) -> bool:
    """Whether a target's name stands for an events.h5 rather than a rosbag2 folder."""
    return Path(target).suffix.lower() in _H5_SUFFIXES


def convert_to(
    source: EventSource,
    target: str | Path,
    storage: str = 'mcap',
    encoding: str = 'evt3',
    start_ns: int = 0,
    duration_ns: int | None = None,
    progress: Progress = lambda share, events: None,
) -> Conversion:
    """Converts a recording; memory does not depend on its length.

    Event times stay exact to the microsecond (mono: to the nanosecond), in the same order;
    messages that have the encoding already are copied byte for byte. A rosbag2 folder gets all
    topics, those of other event cameras in the same encoding; an events.h5 the chosen one alone.

    Args:
        source: the recording, open.
        target: a name that ends in .h5 for a DSEC-style events.h5, else a rosbag2 folder.
        storage: of a rosbag2 folder, 'mcap' or 'sqlite3'.
        encoding: of the events in a rosbag2 folder, 'evt3' or 'mono'.
        start_ns: skip so much from the start of the source.
        duration_ns: stop so long after that; None for all.
        progress: see `Progress`.

    Raises:
        BagError: the target exists or has an unfit name, the source is damaged, no event was
            found, or fewer than could not be used. The target is not there then.
    """
    target = Path(target)
    if target.suffix.lower() in _FOLDER_ONLY:
        raise BagError(
            f'{target}: a rosbag2 recording is a folder, so give a name without '
            f'{target.suffix!r}; or one that ends in .h5'
        )
    span = (start_ns, duration_ns)
    if is_h5(target):
        return _to_h5(source, target, span, progress)
    return _to_bag(source, BagWriter(target, storage, encoding), encoding, span, progress)


def _to_bag(
    source: EventSource,
    writer: BagWriter,
    encoding: str,
    span: tuple[int, int | None],
    progress: Progress,
) -> Conversion:
    done = Conversion()
    streams = {t.name: EventStream(t.type) for t in source.topics if t.type in EVENT_TYPES}
    nature = {t.name: (source.definition(t.type), t.latched) for t in source.topics}
    with writer:
        for message in source.messages([topic.name for topic in source.topics], *span):
            stream = streams.get(message.topic)
            if stream is None:
                writer.add_raw(*message, *nature[message.topic])
            else:
                _write_events(writer, message, stream, encoding, done)
            progress(source.progress(), done.events)
        _refuse(source, done.events, streams.values())
    done.messages = writer.counts
    for topic, count in (*writer.undefined.items(), *source.unreadable.items()):
        done.dropped[f'messages of {topic}, whose type is not defined'] += count
    return _with_unreadable(source, done, streams.values())


def _write_events(
    writer: BagWriter, message: RawMessage, stream: EventStream, encoding: str, done: Conversion
) -> None:
    before = _losses(stream)
    fed = stream.feed(message.cdr)
    if fed is None:
        return
    packet, decoded = fed
    done.events += len(decoded.events)
    if packet.encoding == encoding:
        writer.add_raw(message.topic, EVENT_PACKET, message.stamp_ns, message.cdr)
        return
    done.dropped['triggers'] += len(decoded.triggers)
    done.dropped += _losses(stream) - before
    events = with_epoch(packet, decoded).events
    writer.add_event_message(message.topic, message.stamp_ns, packet, events)


def _to_h5(
    source: EventSource, target: Path, span: tuple[int, int | None], progress: Progress
) -> Conversion:
    done = Conversion()
    stream = EventStream(source.event_topic.type)
    if source.geometry is None:
        raise BagError(f'{source.path} does not state the size of its sensor: give --sensor')
    with EventsH5Writer(target, *source.geometry) as writer:
        for message in source.messages(None, *span):
            fed = stream.feed(message.cdr)
            if fed is not None:
                done.events += len(fed[1].events)
                done.dropped['triggers'] += len(fed[1].triggers)
                writer.add(with_epoch(*fed).events)
            progress(source.progress(), done.events)
        _refuse(source, done.events, [stream])
    done.events = writer.count
    done.dropped['events whose times do not fit the others'] += writer.dropped
    for topic in source.topics:
        if topic.name != source.event_topic.name:
            done.dropped[f'messages of {topic.name}'] += topic.messages or 0
    done.dropped += _losses(stream)
    return _with_unreadable(source, done, [stream])


def _losses(stream: EventStream) -> Counter[str]:
    """What the decoders could not use so far, by what it is called in a report."""
    counts = stream.counts
    return Counter({name.replace('_', ' '): getattr(counts, name) for name in _LOSSES})


def _refuse(source: EventSource, events: int, streams: Iterable[EventStream]) -> None:
    """Raises a `BagError` if there is a problem."""
    problem = problem_of(source, events, streams)
    if problem:
        raise BagError(problem)


def problem_of(source: EventSource, events: int, streams: Iterable[EventStream]) -> str | None:
    """One sentence about a recording of which too little was found, and why.

    Args:
        source: the recording.
        events: how many were found.
        streams: the decoders.

    Returns:
        None if more events were found than could not be used, or few could not.
    """
    reasons = [f'{n} {name}' for name, n in source.dropped.items()]
    lost = 0
    for stream in streams:
        losses = _losses(stream)
        lost += sum(losses[name] for name in _SIGNS)
        reasons += [f'{n} {name}' for name, n in losses.items() if n]
        if stream.skipped:
            skipped = ', '.join(f'{n} {reason}' for reason, n in stream.skipped.items())
            reasons.append(f'unreadable messages: {skipped} ({stream.last_error})')
    why = '; '.join(reasons) or 'there are none in this part of it'
    if not events:
        return f'no event found in {source.path}: {why}'
    if lost <= max(events, FEW_LOST):
        return None
    return (
        f'only {events} events of {source.path} can be used: {why}. Are its format and the size '
        'of its sensor right?'
    )


def _with_unreadable(
    source: EventSource, done: Conversion, streams: Iterable[EventStream]
) -> Conversion:
    """Adds the messages that gave nothing, and what the reader left out."""
    done.dropped += Counter(source.dropped)
    for stream in streams:
        for reason, count in stream.skipped.items():
            done.dropped[f'unreadable event messages ({reason})'] += count
    done.dropped = +done.dropped
    return done
