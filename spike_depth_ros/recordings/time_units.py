"""The unit of the times of a file that does not state it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.recordings.source import BagError

UNITS_NS = {'s': 1_000_000_000, 'ms': 1_000_000, 'us': 1_000, 'ns': 1}

YEAR_2001_S = 1e9
MOST_RATE_HZ = 3e9
"""No sensor sends more events per second."""
USUAL_RATE_HZ = 2e4
"""A recording with fewer events per second than this may be one in a finer unit."""
LEAST_RATE_HZ = 1.0
UNUSUAL_RATE_HZ = 1e8
"""A recording with more events per second than this may be one in a coarser unit."""


def find_time_unit(path: Path, sample: NDArray[Any], count: int, last: NDArray[Any]) -> int:
    """Nanoseconds of one unit of some times.

    Times since 1970 show their unit by their size. Fractions are seconds, or milliseconds if all
    are multiples of 1/1000. Whole numbers that are all multiples of 1000 are nanoseconds of a
    camera that counts microseconds. Others are microseconds, unless so few or so many events per
    second would follow that another unit is as likely.

    Args:
        path: the file, for the sentence of an error.
        sample: (N,) the first times, as stored.
        count: number of events in the file.
        last: (3,) the last times; the middle one counts, so that a wrong one does not decide.

    Raises:
        BagError: several units are possible, and the sentence says how to state one; or the times
            fall or are not numbers.
    """
    # from the middle of the sample on: what a file begins with may be of an earlier run
    first, end = float(np.median(sample)), float(np.median(last))
    if not np.isfinite(sample).all():
        raise BagError(f'{path} holds times that are not numbers among the first {len(sample)}')
    if end < first:
        raise BagError(
            f'{path}: the times fall from {first:.15g} to {end:.15g}: sort the events by time, or '
            'undo the wraps of their clock'
        )
    count_after = count - len(sample) // 2
    whole = sample.dtype.kind != 'f' or bool(np.array_equal(sample, np.rint(sample)))
    for name in ('s', 'ms', 'us', 'ns'):
        since_1970 = YEAR_2001_S <= first * UNITS_NS[name] / 1e9 < 4 * YEAR_2001_S
        if since_1970 and (name in ('us', 'ns') or not whole):
            return UNITS_NS[name]
    rates_hz = {
        name: count_after / (end - first) * 1e9 / unit_ns if end > first else np.inf
        for name, unit_ns in UNITS_NS.items()
    }
    possible = [n for n in UNITS_NS if LEAST_RATE_HZ <= rates_hz[n] <= MOST_RATE_HZ]
    if whole:
        likely = _of_whole_numbers(sample, rates_hz)
    else:
        with np.errstate(over='ignore', invalid='ignore'):
            parts = sample * 1e3
            thousandths = bool(np.allclose(parts, np.rint(parts), rtol=0, atol=1e-4))
        likely = ['ms'] if thousandths else ['s']
        if rates_hz[likely[0]] < USUAL_RATE_HZ and thousandths:
            likely = ['ms', 'us']
    likely = [name for name in likely if name in possible]
    if count < 2 and whole:
        return UNITS_NS['us']
    if len(likely) != 1:
        raise BagError(
            f'{path}: the times {sample[0]} to {last[-1]} of {count} events may be in '
            f'{likely or possible or list(UNITS_NS)}: state the unit with --time-unit, one of '
            f'{list(UNITS_NS)}'
        )
    return UNITS_NS[likely[0]]


def _of_whole_numbers(sample: NDArray[Any], rates_hz: dict[str, float]) -> list[str]:
    steps = np.unique(sample)
    if len(steps) > 8 and not (steps.astype(np.int64) % 1000).any():
        return ['ns']
    if rates_hz['us'] > UNUSUAL_RATE_HZ:
        return ['s', 'ms', 'us']
    return ['us'] if rates_hz['us'] >= USUAL_RATE_HZ else ['us', 'ns']
