"""What moves through the node: windows on their way to inference, depth on its way to topics."""

from __future__ import annotations

from typing import NamedTuple

from spike_depth_ros.estimation.depth_frame import DepthFrame, Limits
from spike_depth_ros.estimation.estimator import DepthEstimator, EstimatorOptions
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.windows import Begun, Window


class Job(NamedTuple):
    """A window on its way to inference."""

    window: Window
    estimator: DepthEstimator
    stamp_ns: int  # ROS time of the window's end
    frame_id: str
    limits: Limits


class EarlyJob(NamedTuple):
    """The steps of a window that are over, to be run before it is complete."""

    begun: Begun
    estimator: DepthEstimator


class Needs(NamedTuple):
    """What an estimator is built for."""

    height: int
    width: int
    camera: Camera
    options: EstimatorOptions


class Result(NamedTuple):
    """A depth frame on its way to the topics."""

    frame: DepthFrame
    job: Job
    arrived_s: float
