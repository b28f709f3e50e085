"""Configuration as frozen dataclasses with a strict JSON form.

They hold everything that determines the output of a checkpoint besides the network itself: the
conversion of events to spikes and the depth range. They are stored with the weights.
"""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np
from numpy.typing import NDArray

T = TypeVar('T')


class ConfigError(ValueError):
    """A configuration value is of the wrong type, out of range or unknown."""


@dataclasses.dataclass(frozen=True)
class SpikeConfig:
    """Conversion of events to the spike tensor that the network reads.

    Attributes:
        window_ms: length of the time window of one depth map.
        steps: number T of equal time bins in the window.
        max_width_px: largest width of the grid; wider sensors are binned k x k by the smallest
            sufficient integer k.
        multiple_px: height and width of the tensor are padded to a multiple of this.
    """

    window_ms: float = 50.0
    steps: int = 4
    max_width_px: int = 352
    multiple_px: int = 8

    def __post_init__(self) -> None:
        require(0.1 <= self.window_ms <= 10_000, 'window_ms', self.window_ms, '0.1 to 10000')
        require(1 <= self.steps <= 1024, 'steps', self.steps, '1 to 1024')
        require(self.max_width_px >= 8, 'max_width_px', self.max_width_px, 'at least 8')
        require(1 <= self.multiple_px <= 256, 'multiple_px', self.multiple_px, '1 to 256')

    @property
    def window_ns(self) -> int:
        """Window length in ns."""
        return round(self.window_ms * 1e6)


@dataclasses.dataclass(frozen=True)
class DepthRange:
    """Metric range of the normalised log-depth output.

    `normalise` is d_log = 1 + ln(d / max_m) / ln(max_m / min_m), clipped to [0, 1]
    (E2Depth, section 3; alpha = ln(max_m / min_m)).

    The network predicts *canonical* depth: metres for a camera of focal length `focal_px`. A near
    scene through a wide lens and a far scene through a long lens give the same image, so depth is
    rescaled for a camera of another focal length f: d_m = d_canonical * f / focal_px (Metric3D,
    ICCV 2023, eq. 1), with f in pixels of the network's input grid.

    Attributes:
        min_m: least canonical depth.
        max_m: greatest canonical depth; pixels beyond it are reported as beyond range (+inf).
        focal_px: focal length of the canonical camera.
    """

    min_m: float = 0.5
    max_m: float = 100.0
    focal_px: float = 256.0

    def __post_init__(self) -> None:
        require(0 < self.min_m < self.max_m, 'min_m', self.min_m, f'0 < min_m < {self.max_m}')
        require(math.isfinite(self.max_m), 'max_m', self.max_m, 'finite')
        require(0 < self.focal_px < math.inf, 'focal_px', self.focal_px, '0 to finite')
        require(math.isfinite(self.max_m / self.min_m), 'min_m', self.min_m, 'not as near 0')

    @property
    def alpha(self) -> float:
        """ln(max_m / min_m): difference of ln depth per unit of normalised log depth."""
        return math.log(self.max_m / self.min_m)

    def normalise(self, depth_m: NDArray[Any]) -> NDArray[Any]:
        """Converts canonical metres to normalised log depth; NaN stays NaN, +inf becomes 1."""
        with np.errstate(divide='ignore'):
            log_depth = 1.0 + np.log(np.asarray(depth_m, np.float32) / self.max_m) / self.alpha
        clipped: NDArray[np.float32] = np.clip(log_depth, 0.0, 1.0).astype(np.float32)
        return clipped

    def denormalise(self, log_depth: NDArray[Any]) -> NDArray[Any]:
        """Converts normalised log depth to canonical metres, the inverse of `normalise`."""
        clipped = np.clip(np.asarray(log_depth, np.float32), 0.0, 1.0)
        depth_m: NDArray[np.float32] = self.max_m * np.exp((clipped - 1.0) * self.alpha)
        return depth_m.astype(np.float32)


def shipped(path: str) -> Path:
    """Finds a file that comes with the package, such as 'config/depth.yaml'.

    In a checkout the file lies beside the package's folder; after installation by colcon or pip
    it lies in `share/spike_depth_ros` of the prefix.

    Raises:
        ConfigError: the file is in neither place.
    """
    package = Path(__file__).resolve().parents[1]
    places = [package.parent / path]
    places += [prefix / 'share' / package.name / path for prefix in package.parents[1:6]]
    for place in places:
        if place.exists():
            return place
    raise ConfigError(f'{path} is not in the package: neither at {places[0]} nor installed')


def cache_folder() -> Path:
    """The folder in which this user keeps what takes long to find out or to compile.

    It is below `XDG_CACHE_HOME`, or below `~/.cache`.

    Raises:
        OSError: the user has no home.
    """
    root = os.environ.get('XDG_CACHE_HOME')
    try:
        return (Path(root) if root else Path.home() / '.cache') / 'spike_depth_ros'
    except RuntimeError as error:
        raise OSError(f'{error}: set XDG_CACHE_HOME to a folder that may be written to') from error


def require(condition: bool, name: str, value: Any, expected: str) -> None:
    """Raises a `ConfigError` with the value and the expectation unless `condition` holds."""
    if not condition:
        raise ConfigError(f'{name} is {value!r}, expected {expected}')


def to_dict(config: Any) -> dict[str, Any]:
    """Returns the JSON-ready form of a configuration dataclass (tuples become lists)."""
    plain = dataclasses.asdict(config)
    return {key: list(v) if isinstance(v, tuple) else v for key, v in plain.items()}


def from_dict(cls: type[T], values: dict[str, Any]) -> T:
    """Builds `cls` from its JSON form, strictly.

    Args:
        cls: a frozen dataclass whose fields are bool, int, float, str or tuples of those.
        values: result of `to_dict`, or content of a user's file.

    Raises:
        ConfigError: a field is unknown, missing without a default, or of another type.
    """
    if not isinstance(values, dict):
        raise ConfigError(f'{cls.__name__} must be a table of fields, got {values!r}')
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ConfigError(f'{cls.__name__} has no field {unknown}; it has {sorted(fields)}')
    missing = [
        name
        for name, field in fields.items()
        if name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f'{cls.__name__} needs the fields {missing}')
    hints = get_type_hints(cls)
    return cls(**{name: _checked(name, value, hints[name]) for name, value in values.items()})


def _checked(name: str, value: Any, hint: Any) -> Any:
    """Returns `value` as the annotated type `hint`, or raises a `ConfigError`."""
    if getattr(hint, '__origin__', None) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f'{name} is {value!r}, expected a list')
        return tuple(_checked(name, item, hint.__args__[0]) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise ConfigError(f'{name} is {value}, expected a float') from error
    if type(value) is not hint:
        raise ConfigError(f'{name} is {value!r}, expected {hint.__name__}')
    return value
