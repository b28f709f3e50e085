"""AEDAT4 files of iniVation's DV: events and frames, through the package `aedat`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.events.arrays import make_events
from spike_depth_ros.recordings.messages import IMAGE, image_cdr
from spike_depth_ros.recordings.packets import Packetiser
from spike_depth_ros.recordings.source import (
    EVENT_PACKET,
    EVENTS_TOPIC,
    FRAME_ID,
    BagError,
    EventSource,
    RawMessage,
    Topic,
    choose_event_topic,
    sensor_size,
)

IMAGES_TOPIC = '/event_camera/image_raw'


class Aedat4Source(EventSource):
    """An AEDAT4 file, read from its start to its end. Stamps are the times of the file.

    Args:
        path: the file.
        topic: the topic of events that the user asks for, if any.
        encoding: of the packets, 'evt3' or 'mono'.
        sensor: (height, width) [px] that the user states.

    Raises:
        BagError: `aedat` is not installed, or the file is damaged or without events.
    """

    kind = 'aedat4'

    def __init__(
        self,
        path: Path,
        topic: str | None = None,
        encoding: str = 'evt3',
        sensor: tuple[int, int] | None = None,
    ) -> None:
        self.path = path
        self._encoding = encoding
        streams = self._open().id_to_stream()
        with_events = {k: s for k, s in sorted(streams.items()) if s.get('type') == 'events'}
        if not with_events:
            kinds = sorted({str(stream.get('type')) for stream in streams.values()})
            raise BagError(f'{path} holds no events: it has streams of {kinds}')
        self._events_id, stream = next(iter(with_events.items()))
        self._frames_id = next((k for k, s in streams.items() if s.get('type') == 'frame'), None)
        stored = (int(stream['height']), int(stream['width']))
        self.geometry = self._sensor = sensor_size(path, stored, sensor)
        topics = [Topic(EVENTS_TOPIC, EVENT_PACKET, None)]
        if self._frames_id is not None:
            topics.append(Topic(IMAGES_TOPIC, IMAGE, None))
        self.topics = tuple(topics)
        self.event_topic = choose_event_topic(self.topics, topic, path)
        self._is_done = False
        first = next((t_ns for t_ns, _ in self._arrays()), None)
        self.start_ns = first

    def messages(
        self,
        topics: Collection[str] | None = None,
        start_ns: int = 0,
        duration_ns: int | None = None,
    ) -> Iterator[RawMessage]:
        """See `EventSource.messages`."""
        begin_ns = (self.start_ns or 0) + start_ns
        end_ns = None if duration_ns is None else begin_ns + duration_ns
        wants_events = topics is None or EVENTS_TOPIC in topics
        wants_images = topics is not None and IMAGES_TOPIC in topics
        packetiser = Packetiser(*self._sensor, FRAME_ID, self._encoding)
        for t_ns, array in self._arrays():
            if end_ns is not None and t_ns >= end_ns:
                break
            if array.dtype.names is None:
                if wants_images and t_ns >= begin_ns:
                    yield RawMessage(IMAGES_TOPIC, IMAGE, t_ns, image_cdr(t_ns, FRAME_ID, array))
            elif wants_events:
                inside = array['t_ns'] >= (begin_ns if start_ns else 0)
                if end_ns is not None:
                    inside &= array['t_ns'] < end_ns
                for stamp_ns, cdr in packetiser.push(array[inside]):
                    yield RawMessage(EVENTS_TOPIC, EVENT_PACKET, stamp_ns, cdr)
        for stamp_ns, cdr in packetiser.flush():
            yield RawMessage(EVENTS_TOPIC, EVENT_PACKET, stamp_ns, cdr)
        self._is_done = True

    def progress(self) -> float:
        """See `EventSource.progress`; the file does not state how much it holds."""
        return 1.0 if self._is_done else 0.0

    def _open(self) -> Any:
        try:
            import aedat
        except ModuleNotFoundError as error:
            raise BagError(
                f'{self.path} is AEDAT4, which the package aedat reads: pip install aedat'
            ) from error
        try:
            return aedat.Decoder(str(self.path))
        except (RuntimeError, OSError, ValueError) as error:
            raise BagError(f'{self.path} cannot be read as AEDAT4: {error}') from error

    def _arrays(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """First time [ns] and content of each packet: events, or the pixels of a frame."""
        decoder = self._open()
        height, width = self._sensor
        while True:
            try:
                packet = next(decoder, None)
            except (RuntimeError, OSError, ValueError) as error:
                raise BagError(f'{self.path} is damaged: {error}') from error
            if packet is None:
                return
            if packet['stream_id'] == self._events_id and len(packet.get('events', ())):
                rows = packet['events']
                if rows['x'].max() >= width or rows['y'].max() >= height:
                    raise BagError(f'{self.path} has events off its {width}x{height} sensor')
                t_ns = rows['t'].astype(np.int64) * 1000
                yield int(t_ns[0]), make_events(t_ns, rows['x'], rows['y'], rows['on'])
            elif packet['stream_id'] == self._frames_id and 'frame' in packet:
                frame = packet['frame']
                pixels = np.asarray(frame['pixels'])
                if pixels.ndim == 3:  # BGR, with or without alpha
                    pixels = pixels[..., 2::-1]
                yield int(frame['t']) * 1000, np.ascontiguousarray(pixels)
