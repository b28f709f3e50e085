"""`spike_depth convert`: converts a recording of events."""

from __future__ import annotations

import json as json_text
from typing import Literal

from spike_depth_ros.cli.progress import progress_bar
from spike_depth_ros.events.config import require
from spike_depth_ros.recordings import convert_to, is_h5, open_source


def convert(
    source: str,
    target: str,
    storage: Literal['mcap', 'sqlite3'] = 'mcap',
    encoding: Literal['evt3', 'mono'] = 'evt3',
    topic: str = '',
    start: float = 0.0,
    duration: float | None = None,
    sensor: str = '',
    time_unit: str = '',
    json: bool = False,
) -> None:
    """Converts a recording to a rosbag2 folder or to an events.h5 in the layout of DSEC.

    Event times are exact to the microsecond, and anything that the target cannot hold is reported.
    A rosbag2 folder also receives images, calibrations, depth, transforms and all other topics. If
    no event is found, the exit status is 1 and no target is written.

    Args:
        source: ROS 1 or ROS 2 bag, DSEC folder, HDF5 file of events, Prophesee .raw or .dat, or
            .aedat4.
        target: folder to write; a name that ends in .h5 selects an events.h5.
        storage: storage format of a rosbag2 folder.
        encoding: event encoding of a rosbag2 folder: evt3 takes 2-5 bytes per event, mono takes 8
            bytes and keeps nanoseconds.
        topic: topic of the events to write to events.h5, if the source has several.
        start: number of seconds to skip.
        duration: number of seconds to convert; all by default.
        sensor: sensor size WIDTHxHEIGHT, if the source does not state it.
        time_unit: s, ms, us or ns, if the unit of an HDF5 file cannot be inferred.
        json: print a summary as JSON.
    """
    require(0 <= start < 1e9, 'start', start, '0 to 1e9 seconds')
    require(duration is None or 0 < duration < 1e9, 'duration', duration, 'up to 1e9 seconds')
    duration_ns = None if duration is None else round(duration * 1e9)
    with (
        open_source(
            source, topic or None, encoding, not is_h5(target), sensor, time_unit
        ) as opened,
        progress_bar('convert') as progress,
    ):
        opened.check_start(round(start * 1e9))
        done = convert_to(
            opened, target, storage, encoding, round(start * 1e9), duration_ns, progress
        )
    if json:
        report = {'target': target, 'events': done.events, 'messages': done.messages,
                  'dropped': dict(done.dropped)}  # fmt: skip
        print(json_text.dumps(report, indent=1))
        return
    print(f'{done.events:,} events to {target}')
    for name, count in sorted(done.messages.items()):
        print(f'  {count:,} messages of {name}')
    print(
        'dropped: ' + (', '.join(f'{n:,} {name}' for name, n in done.dropped.items()) or 'nothing')
    )
