"""Which message types are events: by the definition that a bag embeds, else by their name.

Packages of many names define the same two messages, and one name has had two definitions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spike_depth_ros.events.wire import EVENT_TYPES

if TYPE_CHECKING:
    from rosbags.interfaces import MessageDefinition

PACKET, ARRAY = 'event_camera_msgs/msg/EventPacket', 'dvs_msgs/msg/EventArray'
ARRAY_2014 = 'dvs_msgs/msg/EventArray of 2014'
"""The first dvs_msgs: no header and no size, `uint64 time` in us."""

_HEADER, _TIME = 'std_msgs/msg/Header', 'builtin_interfaces/msg/Time'
_BYTE = ('bool', 'uint8', 'int8', 'byte', 'char', 'octet')
_EVENT = ('uint16', 'uint16', _TIME, 'byte')
_LAYOUTS: dict[tuple[object, ...], str] = {
    (_HEADER, 'uint32', 'uint32', 'uint64', 'uint64', 'string', 'byte', ('byte',)): PACKET,
    (_HEADER, 'uint32', 'uint32', (_EVENT,)): ARRAY,
    ((('uint16', 'uint16', 'uint64', 'byte'),),): ARRAY_2014,
}
"""Types of the fields, nested -> what it is. A sequence is a tuple of one element."""
_NAMES = {
    PACKET: ('header', 'height', 'width', 'seq', 'time_base', 'encoding', 'is_bigendian',
             'events'),
    ARRAY: ('header', 'height', 'width', 'events'),
    ARRAY_2014: ('events',),
}  # fmt: skip
"""Names of the fields: two numbers of one type must not have changed places."""


def normalised(type_name: str) -> str:
    """A type name with '/msg/', which ROS 1 and some recorders leave out."""
    package, _, name = type_name.partition('/')
    return f'{package}/msg/{name}' if name and '/' not in name else type_name


def event_type(type_name: str, definition: MessageDefinition) -> str | None:
    """What messages of a type are on the wire.

    Args:
        type_name: the recorded type.
        definition: what the bag embeds for it.

    Returns:
        A key of `EVENT_TYPES`, or `ARRAY_2014`; None if they are no events. A type of a known name
        counts as what its definition says; without a definition its name counts.
    """
    name = normalised(type_name)
    types = _parsed(name, definition)
    if types is None:
        return name if name in EVENT_TYPES else None
    found = _LAYOUTS.get(_layout(types, name, 0))
    if found is None or tuple(field for field, _ in types[name][1]) != _NAMES[found]:
        return None
    if name in EVENT_TYPES and EVENT_TYPES[name] is EVENT_TYPES.get(found):
        return name
    return found


def _parsed(name: str, definition: MessageDefinition) -> dict[str, Any] | None:
    """The types that a definition defines; None if there is none, or it is not whole."""
    from rosbags.interfaces import MessageDefinitionFormat
    from rosbags.typesys import TypesysError, get_types_from_idl, get_types_from_msg

    try:
        if definition.format is MessageDefinitionFormat.IDL:
            types = get_types_from_idl(definition.data)
        elif definition.format is MessageDefinitionFormat.MSG:
            types = get_types_from_msg(definition.data, name)
        else:
            return None
    except TypesysError:
        return None
    return dict(types) if types.get(name, ((), ()))[1] else None


def _layout(types: dict[str, Any], name: str, depth: int) -> tuple[object, ...]:
    """Types of the fields of a message, those of its own package resolved."""
    return tuple(_field(types, kind, depth) for _, kind in types[name][1])


def _field(types: dict[str, Any], kind: Any, depth: int) -> object:
    from rosbags.interfaces import Nodetype

    node, detail = kind
    if node is Nodetype.BASE:
        return 'byte' if detail[0] in _BYTE else detail[0]
    if node is Nodetype.NAME:
        is_known = detail in (_HEADER, _TIME) or detail not in types or depth > 2
        return detail if is_known else _layout(types, detail, depth + 1)
    if node is Nodetype.SEQUENCE:
        return (_field(types, detail[0], depth),)
    return (str(node), str(detail))
