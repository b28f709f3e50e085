"""Sorting of events by time."""

from __future__ import annotations

import numpy as np

from spike_depth_ros.events.compiled import compiled


def sorted_by_time(events: np.ndarray) -> np.ndarray:
    """Returns a copy sorted by time; simultaneous events keep their order.

    It is a bucket sort, several times as fast as `argsort` because times are spread evenly.
    """
    ordered = np.empty_like(events)
    if len(events) and not _bucket_sort(events, ordered):
        ordered[:] = events[np.argsort(events['t_ns'], kind='stable')]
    return ordered


@compiled()
def _bucket_sort(events, ordered):
    """Sorts `events` into `ordered`; returns False, without a result, if few buckets hold most."""
    n = len(events)
    first, last = events['t_ns'].min(), events['t_ns'].max()
    buckets = n // 2 + 1
    scale = buckets / (last - first + 1)
    starts = np.zeros(buckets + 1, np.int64)
    for i in range(n):
        starts[min(int((events[i].t_ns - first) * scale), buckets - 1) + 1] += 1
    if starts.max() > 256:
        return False
    for b in range(buckets):
        starts[b + 1] += starts[b]
    ends = starts[:-1].copy()
    for i in range(n):
        event = events[i]
        b = min(int((event.t_ns - first) * scale), buckets - 1)
        k = ends[b]
        ends[b] += 1
        while k > starts[b] and ordered[k - 1].t_ns > event.t_ns:
            ordered[k] = ordered[k - 1]
            k -= 1
        ordered[k] = event
    return True
