"""`spike_depth view`: events, depth, confidence and cloud in rerun, live or from a recording."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spike_depth_ros.cli.progress import progress_bar
from spike_depth_ros.estimation.pictures import event_colors
from spike_depth_ros.events.calibration_file import read_calibration
from spike_depth_ros.events.config import require
from spike_depth_ros.recordings import BagError, open_recording

if TYPE_CHECKING is True:  # jsonargparse executes a plain TYPE_CHECKING block
    from spike_depth_ros.cli.rerun_log import RerunLog
    from spike_depth_ros.recordings import Recording


def view(
    source: str = '',
    node: str = '/depth_node',
    checkpoint: str = 'default',
    topic: str = '',
    sensor: str = '',
    time_unit: str = '',
    calibration: str = '',
    duration: float = 0.0,
    save: str = '',
    web: bool = False,
) -> None:
    """Shows events, depth, confidence and point cloud without RViz.

    Without a source, it subscribes to the topics of a running depth node. With one, it runs the
    network on the recording itself, without ROS.

    Args:
        source: a recording that `info` reads; empty: the topics of a depth node.
        node: fully qualified name of that node.
        checkpoint: for a recording: 'default', 'fast' or the path of a checkpoint.
        topic: for a recording: the topic of the events, if there are several.
        sensor: for a recording: sensor size WIDTHxHEIGHT, if it does not state it.
        time_unit: for a recording: s, ms, us or ns, if an HDF5 file does not show it.
        calibration: for a recording: calibration file; empty: the one that it holds.
        duration: stop after so many seconds; 0: at the end, or at Ctrl-C.
        save: write this .rrd file in place of opening the viewer.
        web: show the viewer in a browser.
    """
    from spike_depth_ros.cli.rerun_log import RerunLog

    require(0 <= duration < 1e9, 'duration', duration, '0 to 1e9 seconds')
    with RerunLog(save, web) as log:
        if source:
            with open_recording(source, topic, sensor, time_unit) as recording:
                _show_recording(log, recording, checkpoint, calibration, duration)
        else:
            _show_topics(log, node, duration)
    if save:
        print(f'wrote {save}; show it with: rerun {save}')


def _show_recording(
    log: RerunLog, recording: Recording, checkpoint: str, calibration: str, duration: float
) -> None:
    """Runs the network on a recording and shows each depth frame."""
    from spike_depth_ros.estimation.estimator import DepthEstimator, EstimatorOptions

    duration_s = duration or None
    with progress_bar('view') as progress:
        camera = read_calibration(calibration) if calibration else recording.camera()
        size = (camera.height, camera.width) if camera else recording.geometry
        if size is None:
            raise BagError(
                f'{recording.path} does not state the size of its sensor: give --sensor'
            )
        estimator = DepthEstimator(checkpoint, *size, camera, EstimatorOptions(streaming=True))
        seen = 0
        for events in recording.events(duration_s=duration_s):
            seen += len(events)
            for window in estimator.windower.push(events):
                frame = estimator.infer(window)
                height, width = frame.depth_m.shape
                log.at(frame.stamp_ns)
                log.picture('events', event_colors(window.spikes)[:height, :width])
                log.depth(frame.depth_m)
                log.confidence(frame.confidence)
                if estimator.camera is not None:
                    log.cloud(frame.depth_m, estimator.camera)
            progress(recording.progress(), seen)


def _show_topics(log: RerunLog, node: str, duration: float) -> None:
    """Shows what a depth node publishes until `duration` seconds are over, or Ctrl-C."""
    from spike_depth_ros.ros.live_view import show

    print(f'showed {show(log, node, duration or None)} depth images of {node}')
