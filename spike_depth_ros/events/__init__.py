"""Bytes -> events -> spike tensors: decoding, windows, accumulation and the camera model.

wire      a ROS message -> header and payload; `EventStream`: all messages of a topic -> events
codecs    a payload -> events, one `Decoder` per stream
jumps     rejects wrong event times and detects jumps of the clock
windows   events -> windows of equal length
spikes    a window -> spike tensor
camera    calibration: pixels to rays
config    configuration that travels with a checkpoint
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spike_depth_ros.events.arrays import EVENT_DTYPE, make_events
    from spike_depth_ros.events.camera import Camera
    from spike_depth_ros.events.codecs import CODECS
    from spike_depth_ros.events.config import SpikeConfig
    from spike_depth_ros.events.spikes import accumulate, pixel_map
    from spike_depth_ros.events.windows import TimeWindower
    from spike_depth_ros.events.wire import EventStream

__all__ = [
    'CODECS',
    'EVENT_DTYPE',
    'Camera',
    'EventStream',
    'SpikeConfig',
    'TimeWindower',
    'accumulate',
    'make_events',
    'pixel_map',
]

_MODULES = {
    'CODECS': 'codecs',
    'EVENT_DTYPE': 'arrays',
    'Camera': 'camera',
    'EventStream': 'wire',
    'SpikeConfig': 'config',
    'TimeWindower': 'windows',
    'accumulate': 'spikes',
    'make_events': 'arrays',
    'pixel_map': 'spikes',
}


def __getattr__(name: str) -> Any:
    """Imports a name on first access, because the kernels take seconds to load."""
    if name not in _MODULES:
        raise AttributeError(f'{__name__} has no {name!r}; it has {__all__}')
    return getattr(importlib.import_module(f'{__name__}.{_MODULES[name]}'), name)
