"""Parameters of a node as one table: a frozen dataclass with a specification per field.

The table declares the parameters with descriptors and checks changes. `parameter_pages` generates
the commented file in `config/` and the tables in `docs/` from it.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Collection, Iterable
from typing import Any, Generic, NamedTuple, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy

P = TypeVar('P')

RELIABILITY = {
    'reliable': ReliabilityPolicy.RELIABLE,
    'best_effort': ReliabilityPolicy.BEST_EFFORT,
}
"""Values of the parameters that choose a QoS reliability."""

TYPE_NAMES = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'a text'}


class ParameterError(ValueError):
    """A parameter has an impossible value or type."""


@dataclasses.dataclass
class Live(Generic[P]):
    """Current values of the parameters of a node, shared by its parts.

    Attributes:
        now: a table, which is replaced as a whole when a parameter changes.
    """

    now: P


class Spec(NamedTuple):
    """Allowed values and description of one parameter."""

    text: str
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    live: bool


def parameter(
    default: bool | int | float | str,
    text: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Iterable[str] = (),
    live: bool = False,
) -> Any:
    """One field of a parameter table.

    Args:
        default: its type is the type of the parameter.
        text: shown by `ros2 param describe`.
        low: smallest value allowed, with `high`.
        high: greatest value allowed, with `low`.
        choices: the strings allowed; empty for any.
        live: the parameter may change while the node is configured.
    """
    spec = Spec(text, low, high, tuple(choices), live)
    return dataclasses.field(default=default, metadata={'spec': spec})


def specs(table: type) -> dict[str, Spec]:
    """Returns name -> specification of all parameters of a table."""
    return {field.name: field.metadata['spec'] for field in dataclasses.fields(table)}


def reason_against(table: type, name: str, value: Any) -> str:
    """Returns why `value` is not allowed for a parameter; empty if it is allowed."""
    spec = specs(table)[name]
    expected = type(getattr(table, name))
    if type(value) is not expected:
        return f'{name} is {value!r}, expected {TYPE_NAMES[expected]}'
    if spec.choices and value not in spec.choices:
        return f'{name} is {value!r}, expected one of {", ".join(spec.choices)}'
    if spec.low is not None and spec.high is not None and not spec.low <= value <= spec.high:
        return f'{name} is {value:g}, expected {spec.low:g} to {spec.high:g}'
    return ''


def declare(node: Node, table: type) -> None:
    """Declares all parameters of a table with descriptors; whole numbers are accepted for floats.

    Raises:
        ParameterError: the command line or the params file gives an impossible value.
    """
    for name in specs(table):
        _declare_one(node, table, name)


def given_names(node: Node) -> Collection[str]:
    """Returns the names of all parameters of the command line and params file, declared or not."""
    return node._parameter_overrides.keys()  # there is no public accessor


def warn_of_unknown(node: Node, table: type) -> None:
    """Warns of parameters of the command line and the params file that look misspelt.

    rclpy accepts them silently, so a misspelt one would seem to be set. Other unknown parameters
    may belong to other nodes, for example those below `/**` in a shared file.
    """
    for name in given_names(node):
        if not node.has_parameter(name) and not name.startswith('qos_overrides.'):
            near = difflib.get_close_matches(name, specs(table), 1, cutoff=0.8)
            if near:
                node.get_logger().warning(f'there is no parameter {name}: is it {near[0]}?')
            else:
                node.get_logger().debug(f'there is no parameter {name}')


def read(node: Node, table: type[P]) -> P:
    """Returns the current values of all parameters of a table."""
    return table(**{name: node.get_parameter(name).value for name in specs(table)})


def whole_numbers_as_floats(table: type, changes: list[Parameter]) -> list[Parameter]:
    """Converts whole numbers to floats, for `add_pre_set_parameters_callback`."""

    def converted(change: Parameter) -> Parameter:
        wants_float = type(getattr(table, change.name, None)) is float
        if wants_float and type(change.value) is int:
            return Parameter(change.name, value=float(change.value))
        return change

    return [converted(change) for change in changes]


def judge(
    current: P, changes: list[Parameter], settled: str, check: Callable[[P], None]
) -> SetParametersResult:
    """Accepts or rejects a change, for `add_on_set_parameters_callback`.

    Args:
        current: values of the table before the change.
        changes: requested values; parameters of other tables are accepted.
        settled: reason why parameters that are not live may not change now; empty if they may.
        check: raises a ValueError if the values of the table contradict each other.
    """
    table = type(current)
    ours = {c.name: c.value for c in changes if c.name in specs(table)}
    for name, value in ours.items():
        reason = reason_against(table, name, value)
        changed = value != getattr(current, name)
        if not reason and settled and changed and not specs(table)[name].live:
            reason = f'{name} {settled}'
        if reason:
            return SetParametersResult(successful=False, reason=reason)
    try:
        if ours:
            check(dataclasses.replace(current, **ours))  # type: ignore[type-var]
    except ValueError as error:
        return SetParametersResult(successful=False, reason=str(error))
    return SetParametersResult(successful=True)


def _declare_one(node: Node, table: type, name: str) -> None:
    default, descriptor = getattr(table, name), _descriptor(table, name)
    try:
        value = node.declare_parameter(name, default, descriptor).value
    except (InvalidParameterValueException, InvalidParameterTypeException):
        value = _given_value(node, name, default)
        if type(default) is float and type(value) is int:
            value = float(value)
        if not reason_against(table, name, value):
            node.declare_parameter(name, value, descriptor, ignore_override=True)
    if reason := reason_against(table, name, value):
        raise ParameterError(reason)


def _given_value(node: Node, name: str, default: Any) -> Any:
    """Returns the value of the command line or params file, of any type."""
    value = node.declare_parameter(name, default, ParameterDescriptor(dynamic_typing=True)).value
    node.undeclare_parameter(name)
    return value


def _descriptor(table: type, name: str) -> ParameterDescriptor:
    spec, default = specs(table)[name], getattr(table, name)
    descriptor = ParameterDescriptor(description=spec.text)
    if spec.choices:
        descriptor.additional_constraints = f'one of {", ".join(spec.choices)}'
    if spec.low is not None and spec.high is not None:
        if type(default) is int:
            limits = IntegerRange(from_value=int(spec.low), to_value=int(spec.high), step=1)
            descriptor.integer_range = [limits]
        else:
            limits = FloatingPointRange(from_value=spec.low, to_value=spec.high, step=0.0)
            descriptor.floating_point_range = [limits]
    return descriptor
