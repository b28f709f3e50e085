"""Metric depth from event cameras by a spiking transformer, for ROS 2.

with open_recording('drive') as recording:
    estimator = DepthEstimator('default', *recording.geometry, camera=recording.camera())
    for events in recording.events():
        for frame in estimator.push(events):
            frame.stamp_ns, frame.depth_m, frame.confidence
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spike_depth_ros.estimation.depth_frame import DepthFrame
    from spike_depth_ros.estimation.estimator import DepthEstimator, EstimatorOptions
    from spike_depth_ros.recordings.recording import open_recording

__all__ = ['DepthEstimator', 'DepthFrame', 'EstimatorOptions', 'open_recording']

__version__ = '0.2.0'

# Set before torch and numba load OpenMP: threads that spin for long starve the rest of the robot,
# a short spin bridges the gaps between layers. Values of the environment are kept.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
os.environ.setdefault('GOMP_SPINCOUNT', '3000')

_MODULES = {
    'DepthEstimator': 'estimation.estimator',
    'DepthFrame': 'estimation.estimator',
    'EstimatorOptions': 'estimation.estimator',
    'open_recording': 'recordings.recording',
}


def __getattr__(name: str) -> Any:
    """Imports a name when it is asked for: torch and kernels take seconds."""
    if name not in _MODULES:
        raise AttributeError(f'{__name__} has no {name!r}; it has {__all__}')
    return getattr(importlib.import_module(f'{__name__}.{_MODULES[name]}'), name)
