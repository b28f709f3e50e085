"""ECF, the compression that Prophesee's HDF5 files use (HDF5 filter 0x8ECF).

A chunk holds a header of 32 bits (number of events << 2, two flags), the time of the first
event (64 bits, us), and then the columns one after the other: times as steps with run lengths; y
as runs; x as base and mask; p as runs. The flags say that x and p, or y, x and p, are packed into
12 or 24 bits per event instead. All is little-endian. Format: github.com/prophesee-ai/hdf5_ecf.
"""

# mypy: no-check-untyped-defs, allow-untyped-defs
# (compiled kernels: numba infers their types)

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.events.compiled import compiled

ECF_FILTER = 0x8ECF
MAX_CHUNK_EVENTS = 65_535
"""Most events that a chunk may hold."""
CD_DTYPE = np.dtype([('x', '<u2'), ('y', '<u2'), ('p', '<i2'), ('t', '<i8')])
"""One event of Prophesee's CD/events; t in us."""

_SLACK = 6  # what the last group of a packed column may write behind the last event


class EcfError(ValueError):
    """A chunk is not ECF, or it is cut off."""


def decode_ecf(chunk: bytes) -> NDArray[Any]:
    """Decodes one chunk.

    Args:
        chunk: the bytes, as they are stored.

    Returns:
        (N,) `CD_DTYPE`.

    Raises:
        EcfError: too many events, or the chunk is cut off.
    """
    if len(chunk) < 12:
        raise EcfError(f'an ECF chunk of {len(chunk)} bytes has no header')
    data = np.frombuffer(chunk, np.uint8)
    head = int.from_bytes(chunk[:4], 'little')
    count = head >> 2
    if count > MAX_CHUNK_EVENTS:
        raise EcfError(f'an ECF chunk claims {count} events, expected at most {MAX_CHUNK_EVENTS}')
    t = np.zeros(count, np.int64)
    x, y, p = (np.zeros(count + _SLACK, np.int64) for _ in range(3))
    first_us = int(np.frombuffer(chunk, '<i8', 1, 4)[0])
    at = _times(data, 12, first_us, t)
    if head >> 1 & 1:
        at = _packed_yxp(data, at, count, y, x, p)
    else:
        at = _runs(data, at, count, y, 2, 5)
        if head & 1:
            at = _packed_xp(data, at, count, x, p)
        else:
            at = _masks(data, at, count, x)
            at = _runs(data, at, count, p, 1, 7)
    if at < 0:
        raise EcfError(f'an ECF chunk of {count} events is cut off after {len(chunk)} bytes')
    events = np.empty(count, CD_DTYPE)
    events['t'] = t
    for name, column in (('x', x), ('y', y), ('p', p)):
        events[name] = column[:count]
    return events


@compiled()
def _word(data, at, size):
    """The little-endian number of `size` bytes at `at`."""
    value = 0
    for k in range(size):
        value |= np.int64(data[at + k]) << (8 * k)
    return value


@compiled()
def _times(data, at, first_us, out):
    """Times as steps and run lengths, 4 bits each.

    A run length of 15 says that 16 bits with it follow. A step of 15 says that the other 4 bits
    belong to a longer step, low bits first. Returns the offset behind the times, -1 if cut off.
    """
    now_us, i = first_us, 0
    while i < len(out):
        if at + 3 > len(data) and (at >= len(data) or data[at] & 15 == 15):
            return -1
        step, count = np.int64(data[at]) >> 4, np.int64(data[at]) & 15
        if step == 15:
            long_us, shift = 0, 0
            while step == 15:
                if shift < 63:
                    long_us |= count << shift
                shift += 4
                at += 1
                if at >= len(data):
                    return -1
                step, count = np.int64(data[at]) >> 4, np.int64(data[at]) & 15
            now_us += long_us
            continue
        now_us += step
        at += 1
        if count == 15:
            count = _word(data, at, 2)
            at += 2
        for _ in range(min(count, len(out) - i)):
            out[i] = now_us
            i += 1
    return at


@compiled()
def _runs(data, at, total, out, size, bits):
    """Values with run lengths of `bits` bits in words of `size` bytes; all ones: 16 bits follow.

    Returns the offset behind them, -1 if cut off.
    """
    i, most = 0, (1 << bits) - 1
    while i < total:
        if at < 0 or at + size > len(data):
            return -1
        word = _word(data, at, size)
        at += size
        value, count = word >> bits, word & most
        if count == most:
            if at + 2 > len(data):
                return -1
            count = _word(data, at, 2)
            at += 2
        for _ in range(min(count, total - i)):
            out[i] = value
            i += 1
    return at


@compiled()
def _masks(data, at, total, out):
    """X as a base (11 bits) and a mask of the 5 columns right of it. -1 if cut off."""
    i = 0
    while i < total:
        if at < 0 or at + 2 > len(data):
            return -1
        word = _word(data, at, 2)
        at += 2
        out[i] = word >> 5
        i += 1
        for k in range(5):
            if word >> (4 - k) & 1 and i < total:
                out[i] = (word >> 5) + k + 1
                i += 1
    return at


@compiled()
def _packed_xp(data, at, total, x, p):
    """X and p in 12 bits, four events in three 16-bit words. -1 if cut off."""
    for i in range(0, total, 4):
        if at < 0 or at + 6 > len(data):
            return -1
        a, b, c = _word(data, at, 2), _word(data, at + 2, 2), _word(data, at + 4, 2)
        at += 6
        four = (a >> 4, a & 15 | b >> 8 << 4, b & 255 | c >> 12 << 8, c & 4095)
        for k in range(4):
            x[i + k], p[i + k] = four[k] >> 1, four[k] & 1
    return at


@compiled()
def _packed_yxp(data, at, total, y, x, p):
    """y, x and p in 24 bits, four events in three 32-bit words. -1 if cut off."""
    for i in range(0, total, 4):
        if at < 0 or at + 12 > len(data):
            return -1
        a, b, c = _word(data, at, 4), _word(data, at + 4, 4), _word(data, at + 8, 4)
        at += 12
        four = (a >> 8, a & 255 | b >> 16 << 8, b & 65535 | c >> 24 << 16, c & 16777215)
        for k in range(4):
            y[i + k], x[i + k], p[i + k] = four[k] >> 12, four[k] >> 1 & 2047, four[k] & 1
    return at
