"""`spike_depth convert`: one recording of events into another."""

from __future__ import annotations

import json as json_text
from typing import Literal


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
    """Converts a recording to a rosbag2 folder, or to an events.h5 as DSEC has it.

    Event times stay exact to the microsecond, and what the target cannot hold is reported.
    Images, calibrations, depth, transforms and all other topics go into a rosbag2 folder too. If
    no event is found, the exit status is 1 and there is no target.

    Args:
        source: ROS 1 or ROS 2 bag, DSEC folder, HDF5 file of events, Prophesee .raw or .dat, or
            .aedat4.
        target: folder to write; a name that ends in .h5 for an events.h5.
        storage: of a rosbag2 folder.
        encoding: of its events: evt3 takes 2-5 bytes each, mono 8 bytes and keeps nanoseconds.
        topic: topic of the events for an events.h5, where the source has several.
        start: skip so many seconds.
        duration: stop after so many seconds.
        sensor: size of the sensor where the source does not state it: WIDTHxHEIGHT.
        time_unit: s, ms, us or ns, where the times of an HDF5 file do not show it.
        json: print what was done as JSON.
    """
    from spike_depth_ros.cli.progress import progress_bar
    from spike_depth_ros.events.config import require
    from spike_depth_ros.recordings import convert_to, is_h5, open_source

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
