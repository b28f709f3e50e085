"""ROS 1 messages as the CDR of ROS 2 types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.events.codecs.self_contained import LAST_ROW_BYTES, ROW_BYTES
from spike_depth_ros.events.wire import EVENT_TYPES, Packet, pack_event_array
from spike_depth_ros.recordings.event_types import ARRAY, ARRAY_2014
from spike_depth_ros.recordings.messages import new_typestore
from spike_depth_ros.recordings.source import BagError

_ROS1_EVENT = np.dtype(
    [('x', '<u2'), ('y', '<u2'), ('sec', '<u4'), ('nanosec', '<u4'), ('p', 'u1')]
)  # ROS 1 packs without padding
_EVENT_2014 = np.dtype([('x', '<u2'), ('y', '<u2'), ('t_us', '<u8'), ('p', 'u1')])
_CDR_ROW = np.dtype(
    {
        'names': ['y', 'sec', 'nanosec', 'p', 'next_x'],
        'formats': ['<u2', '<u4', '<u4', 'u1', '<u2'],
        'offsets': [0, 4, 8, 12, 14],
        'itemsize': ROW_BYTES,
    }
)


class Ros1Translator:
    """ROS 1 bytes of one message to the CDR of the ROS 2 type of the same name.

    Some types have gained fields since, such as the variance of a Range: these become 0.

    Args:
        definitions: of the recorded types, by name.
        event_types: what recorded types of events are, by name (see `event_types.event_type`).
        sensor: (height, width) [px] for events whose messages do not state it.
    """

    def __init__(
        self,
        definitions: Mapping[str, str],
        event_types: Mapping[str, str],
        sensor: tuple[int, int] | None,
    ) -> None:
        from rosbags.typesys import Stores, TypesysError, get_types_from_msg, get_typestore

        self._store, self._recorded = new_typestore(), get_typestore(Stores.EMPTY)
        for name, text in definitions.items():
            try:
                types = get_types_from_msg(text, name)
            except TypesysError:  # of one topic, which no other should suffer from
                continue
            for store in (self._store, self._recorded):
                known = store.fielddefs
                store.register({k: v for k, v in types.items() if k not in known})
        self._cache: dict[str, object] = {}
        self._special: dict[str, Callable[[bytes, int], bytes]] = {}
        for name, kind in event_types.items():
            if EVENT_TYPES.get(kind) is EVENT_TYPES[ARRAY]:
                self._special[name] = ros1_event_array
            elif kind == ARRAY_2014 and sensor is not None:
                self._special[name] = lambda data, stamp_ns: event_array_of_2014(
                    data, stamp_ns, sensor
                )

    def knows(self, type_name: str) -> bool:
        """Whether it can translate messages of that type."""
        return type_name in self._special or bool(
            type_name in self._recorded.fielddefs and self.definition(type_name)
        )

    def definition(self, type_name: str) -> str:
        """The definition that it gives the type; empty if the embedded one is not whole."""
        from rosbags.typesys import TypesysError

        try:
            return str(self._store.generate_msgdef(type_name, ros_version=2)[0])
        except (TypesysError, KeyError):
            return ''

    def __call__(self, type_name: str, data: bytes, stamp_ns: int) -> bytes | memoryview:
        """Translates one message that was recorded at `stamp_ns`."""
        from rosbags.convert.converter import is_same_wireformat, migrate_bytes

        if type_name in self._special:
            return self._special[type_name](data, stamp_ns)
        if is_same_wireformat(self._recorded, self._store, type_name, type_name):
            return self._store.ros1_to_cdr(data, type_name)
        return migrate_bytes(self._recorded, self._store, type_name, type_name, self._cache, data,
                             src_is2=False, dst_is2=True)  # fmt: skip


def ros1_event_array(data: bytes, recorded_ns: int = 0) -> bytes:
    """A ROS 1 `EventArray` of the dvs_msgs layout as the CDR of the ROS 2 one.

    rosbags would do this event by event; here it is one view of the bytes.

    Args:
        data: the message.
        recorded_ns: not used, since the message has a stamp of its own.

    Raises:
        BagError: the message is cut off.
    """
    if len(data) < 16:
        raise BagError(f'EventArray of {len(data)} bytes is cut off')
    _, sec, nanosec, name_length = np.frombuffer(data, '<u4', 4).tolist()
    frame_id = data[16 : 16 + name_length].decode(errors='replace')
    body = 16 + name_length
    if len(data) < body + 12:
        raise BagError(f'EventArray of {len(data)} bytes is cut off')
    height, width, count = np.frombuffer(data, '<u4', 3, body).tolist()
    if len(data) < body + 12 + count * _ROS1_EVENT.itemsize:
        raise BagError(f'EventArray claims {count} events in {len(data)} bytes')
    rows = np.frombuffer(data, _ROS1_EVENT, count, body + 12)
    stamp_ns = sec * 10**9 + nanosec
    return pack_event_array(
        Packet(stamp_ns, frame_id, height, width, None, 0, 'event_array', _cdr_body(rows))
    )


def event_array_of_2014(data: bytes, recorded_ns: int, sensor: tuple[int, int]) -> bytes:
    """An `EventArray` of the first dvs_msgs as the CDR of the present one.

    Args:
        data: the message: the number of events, and the events.
        recorded_ns: its stamp; the message has none.
        sensor: (height, width) [px]; the message does not state it.

    Raises:
        BagError: the message is cut off.
    """
    count = int.from_bytes(data[:4], 'little')
    if len(data) < 4 + count * _EVENT_2014.itemsize:
        raise BagError(f'EventArray claims {count} events in {len(data)} bytes')
    old = np.frombuffer(data, _EVENT_2014, count, 4)
    rows = np.empty(count, _ROS1_EVENT)
    for name in ('x', 'y', 'p'):
        rows[name] = old[name]
    rows['sec'], rows['nanosec'] = old['t_us'] // 10**6, old['t_us'] % 10**6 * 1000
    return pack_event_array(
        Packet(recorded_ns, '', *sensor, None, 0, 'event_array', _cdr_body(rows))
    )


def _cdr_body(rows: NDArray[Any]) -> NDArray[Any]:
    """ROS 1 events, (N,) `_ROS1_EVENT`, as the CDR body of an `Event[]`: 16 bytes each.

    CDR aligns the times to 4 bytes, so x and y of all but the first event move to the padding
    before their row.
    """
    table = np.zeros(len(rows), _CDR_ROW)
    for name in ('y', 'sec', 'nanosec', 'p'):
        table[name] = rows[name]
    table['next_x'][:-1] = rows['x'][1:]
    body = table.view(np.uint8)
    body[:4] = rows[:1].view(np.uint8)[:4]
    return body[: len(body) - ROW_BYTES + LAST_ROW_BYTES] if len(rows) else body
