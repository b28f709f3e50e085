"""The text at the start of a Prophesee .raw file: format of its words, size of its sensor.

Old headers leave out the size, the format or the order of the halves of EVT2.1 words. The camera's
identity then states them: its system id, its plugin or the generation of its sensor, as in OpenEB
(hal_psee_plugins, psee_raw_file_header).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from spike_depth_ros.events.codecs import EVT2_CLOCK, EVT3_CLOCK, HighClock
from spike_depth_ros.recordings.source import BagError, sensor_size

HEADER_BYTES = 1 << 16
SAMPLE_BYTES = 1 << 16
_STATED_ONCE = ('format', 'evt', 'geometry', 'width', 'height')


class RawFormat(NamedTuple):
    """Where a format keeps the upper bits of its time."""

    encoding: str  # of the EventPacket
    word: str  # numpy dtype
    code_shift: int  # the type is what lies above
    time_high: int  # the type that holds the upper bits of the time
    high_shift: int  # where they lie in the word
    clock: HighClock
    vectors: tuple[int, ...] = ()  # types whose words are followed by a mask word


FORMATS = {
    'EVT2': RawFormat('evt2', '<u4', 28, 8, 0, EVT2_CLOCK),
    'EVT21': RawFormat('evt21', '<u8', 60, 8, 32, EVT2_CLOCK),
    'EVT3': RawFormat('evt3', '<u2', 12, 8, 0, EVT3_CLOCK),
    'EVT4': RawFormat('evt4', '<u4', 28, 14, 0, EVT2_CLOCK, (12, 13)),
}
"""By the name in the header; constants from docs.prophesee.ai, "Encoding formats", and OpenEB."""

_VERSIONS = {'2': 'EVT2', '2.1': 'EVT21', '3': 'EVT3', '4': 'EVT4'}
_VGA, _HD, _GENX = (480, 640), (720, 1280), (320, 320)
_SYSTEMS = {
    **dict.fromkeys((21, 23, 25, 28, 29, 33, 34, 35, 41, 151, 153, 161, 162), (_VGA, 'EVT2')),
    40: (_VGA, 'EVT3'),
    **dict.fromkeys((26, 31, 39), (_HD, 'EVT2')),
    **dict.fromkeys((30, 46, 48, 49, 50), (_HD, 'EVT3')),
    **dict.fromkeys((59, 64), (_GENX, '')),
}
"""System id -> (height, width) and format, the latter where no line of the header states it."""
_FIRST_LITTLE_SYSTEM = 55
"""From this system id on, the halves of an EVT2.1 word are in little-endian order."""
_GENERATIONS = {'3': _VGA, '3.0': _VGA, '3.1': _VGA, '4': _HD, '4.0': _HD, '4.1': _HD,
                '4.2': _HD, '320': _GENX}  # fmt: skip
_SENSORS = {'gen31': _VGA, 'gen3': _VGA, 'gen41': _HD, 'gen4': _HD, 'imx636': _HD,
            'genx320': _GENX}  # fmt: skip
"""What the name of a plugin or of a sensor contains -> (height, width); the first match counts."""


class RawHeader(NamedTuple):
    """What the text before the words states, or the camera's identity."""

    format: RawFormat
    swapped: bool  # EVT2.1 in its legacy form: the two halves of a word are exchanged
    geometry: tuple[int, int]  # (height, width)
    length: int  # bytes


class _Fields(NamedTuple):
    """The lines of a header."""

    values: dict[str, str]  # by lower-case name
    format: str  # name of the format as stated, '' if it is not
    settings: dict[str, str]  # options of the format
    length: int  # bytes

    @property
    def system_id(self) -> int | None:
        """The system id of a camera of Prophesee; other makers count otherwise."""
        makers = {self.values.get(f'{part}integrator_name', 'Prophesee').lower()
                  for part in ('', 'camera_', 'plugin_')}  # fmt: skip
        text = self.values.get('system_id', '')
        if makers != {'prophesee'} or not re.fullmatch(r'(0x[0-9a-fA-F]+|\d+)', text):
            return None
        return int(text, 16 if text.startswith('0x') else 10)

    @property
    def sensor_name(self) -> str:
        """The key of `_SENSORS` that the plugin or the sensor is named after, '' if none."""
        names = f'{self.values.get("sensor_name", "")} {self.values.get("plugin_name", "")}'
        return next((key for key in _SENSORS if key in names.lower()), '')

    @property
    def generation(self) -> str:
        """The generation of the sensor as stated, '' if it is not."""
        return self.values.get('sensor_generation') or self.values.get('generation') or ''


def read_fields(start: bytes, path: Path) -> tuple[dict[str, str], int]:
    """Reads the lines that start with '% ' at the start of a file.

    Returns:
        The values by lower-case name, and the bytes that the lines take.

    Raises:
        BagError: there is no such line.
    """
    values: dict[str, str] = {}
    length = 0
    while start[length : length + 2] in (b'% ', b'%\t'):
        end = start.find(b'\n', length)
        if end < 0:
            if len(start) == HEADER_BYTES:
                raise BagError(f'{path}: the header is longer than {HEADER_BYTES} bytes')
            break
        words = start[length + 2 : end].decode('ascii', 'replace').split(maxsplit=1)
        length = end + 1
        if words == ['end']:
            break
        if words:
            name, value = words[0].lower(), words[1].strip() if len(words) > 1 else ''
            if name in _STATED_ONCE and values.get(name, value) != value:
                raise _contradiction(path, {name: value, f'{name} ': values[name]})
            values[name] = value
    if not length:
        raise BagError(
            f'{path} does not start with the header of a Prophesee file, lines such as '
            '"% evt 3.0", "% geometry 1280x720" and "% end". Where it was cut off, write such '
            f'lines into a file and join the two: cat HEADER {path.name} > whole{path.suffix}'
        )
    return values, length


def stated_size(
    values: dict[str, str], settings: dict[str, str], path: Path
) -> tuple[int, int] | None:
    """The (height, width) that the lines state, None if none does.

    Raises:
        BagError: two lines contradict each other.
    """
    pair = re.fullmatch(r'(\d+)\s*[xX*, ]\s*(\d+)(?:\s*px)?', values.get('geometry', ''))
    stated = {
        'format': (settings.get('height', ''), settings.get('width', '')),
        'geometry': (pair[2], pair[1]) if pair else ('', ''),
        'height and width': (values.get('height', ''), values.get('width', '')),
    }
    sizes = {
        place: (int(height[:6]), int(width[:6]))
        for place, (height, width) in stated.items()
        if height.isdigit() and width.isdigit() and int(height[:6]) and int(width[:6])
    }
    if len(set(sizes.values())) > 1:
        raise _contradiction(path, {place: f'{w}x{h}' for place, (h, w) in sizes.items()})
    return next(iter(sizes.values()), None)


def _contradiction(path: Path, stated: dict[str, str]) -> BagError:
    """The error about lines that state different things."""
    lines = ', '.join(f'"% {name.strip()}" {_short(value)}' for name, value in stated.items())
    return BagError(f'{path}: the lines of the header contradict each other: {lines}')


def _short(text: str) -> str:
    """Text of a file for a sentence: at most 40 characters of it."""
    return text if len(text) <= 40 else f'{text[:40]}...'


def read_header(file: BinaryIO, path: Path, sensor: tuple[int, int] | None = None) -> RawHeader:
    """Reads the lines that start with '% ' before the words.

    Args:
        file: the open file, at its start.
        path: its name, for the sentence of an error.
        sensor: (height, width) [px] that the user states.

    Raises:
        BagError: no such lines, lines that contradict each other, an unknown format, or a sensor
            whose size is not stated.
    """
    values, length = read_fields(file.read(HEADER_BYTES), path)
    name, *options = values.get('format', '').split(';')
    settings = {key.lower(): value for key, _, value in (o.partition('=') for o in options)}
    fields = _Fields(values, name.strip().upper(), settings, length)
    format_name = _format_name(fields, path)
    stated = stated_size(values, settings, path)
    geometry = sensor_size(path, stated, sensor, _size_of_identity(fields))
    halves = (settings.get('endianness') or values.get('endianness', '')).lower()
    if halves == 'big':
        raise BagError(f'{path} is big-endian, expected little: record it again')
    swapped = format_name == 'EVT21' and _is_swapped(fields, halves, file)
    return RawHeader(FORMATS[format_name], swapped, geometry, length)


def _format_name(fields: _Fields, path: Path) -> str:
    """The key of `FORMATS`: as stated, else that of the camera's system."""
    version = fields.values.get('evt', '').removesuffix('.0')
    name = fields.format or _VERSIONS.get(version, '')
    if not name and not version:
        name = _SYSTEMS.get(fields.system_id or 0, (None, ''))[1]
    if name not in FORMATS:
        stated = _short(fields.values.get('format') or fields.values.get('evt') or 'not stated')
        raise BagError(f'{path}: the format is {stated!r}, expected one of {sorted(FORMATS)}')
    if _VERSIONS.get(version, name) != name:
        raise _contradiction(path, {'format': name, 'evt': fields.values['evt']})
    return name


def _size_of_identity(fields: _Fields) -> tuple[int, int] | None:
    """The size of the sensor by its generation, its name, or the camera's system id."""
    by_generation = _GENERATIONS.get(fields.generation)
    by_system = _SYSTEMS.get(fields.system_id or 0, (None, ''))[0]
    return by_generation or by_system or _SENSORS.get(fields.sensor_name)


def _is_swapped(fields: _Fields, halves: str, file: BinaryIO) -> bool:
    """Whether the halves of the EVT2.1 words are exchanged: as stated, by identity, by the words.

    Cameras of Prophesee before system 55 send the upper half first, those with a GenX320 do not.
    """
    if halves:
        return halves == 'legacy'
    if fields.system_id:
        return fields.system_id < _FIRST_LITTLE_SYSTEM
    if fields.generation in ('4.1', '4.2') or fields.sensor_name in ('gen41', 'imx636'):
        return True
    if fields.generation == '320' or fields.sensor_name == 'genx320':
        return False
    file.seek(fields.length)
    data = file.read(SAMPLE_BYTES)
    words = np.frombuffer(data, '<u4', len(data) // 8 * 2)
    # words of the type TIME_HIGH are frequent, and their lower half is empty
    low_first, high_first = words.reshape(-1, 2).T, words.reshape(-1, 2)[:, ::-1].T
    times = [int(np.count_nonzero((high >> 28 == 8) & (low == 0))) for low, high in
             (low_first, high_first)]  # fmt: skip
    return times[1] > times[0]
