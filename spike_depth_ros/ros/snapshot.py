"""What `~/snapshot` writes: the newest result and the events before it, for looking at later."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path

import numpy as np

from spike_depth_ros.estimation import pictures
from spike_depth_ros.events.arrays import join_events
from spike_depth_ros.events.atomic_write import partial_path
from spike_depth_ros.ros.depth_parameters import DepthParameters
from spike_depth_ros.ros.results import Result


def write_snapshot(result: Result, recent: list[np.ndarray], parameters: DepthParameters) -> Path:
    """Writes `snapshot_STAMP.npz` and two pictures beside it, into `snapshot_dir`.

    Args:
        result: what to save: depth_m, confidence, spikes, intrinsics.
        recent: event arrays; those after the window's end are left out.
        parameters: saved as JSON text; they say which folder, made if missing.

    Returns:
        The path of the .npz, which `numpy.load` reads without pickle.

    Raises:
        OSError, RuntimeError: the folder cannot be written, or its `~` is of nobody.
    """
    window, frame, camera = result.job.window, result.frame, result.job.estimator.camera
    events = join_events(recent)
    folder = Path(parameters.snapshot_dir).expanduser()
    path = folder / f'snapshot_{result.job.stamp_ns}.npz'
    depth = pictures.depth_colors(frame.depth_m, parameters.color_map,
                                  parameters.color_min_m, parameters.color_max_m)  # fmt: skip
    height, width = frame.depth_m.shape
    events_picture = pictures.event_colors(window.spikes)[:height, :width]
    with contextlib.ExitStack() as stack:  # on a full disk none of the three is left behind
        partial, depth_file, events_file = (
            stack.enter_context(partial_path(path.with_suffix(suffix)))
            for suffix in ('.npz', '.depth.png', '.events.png')
        )
        depth_file.write_bytes(pictures.png(depth))
        events_file.write_bytes(pictures.png(events_picture))
        with partial.open('wb') as file:
            np.savez(  # not compressed: events go on coming in meanwhile
                file,
                events=events[events['t_ns'] < window.t1_ns],
                spikes=window.spikes,
                depth_m=frame.depth_m,
                confidence=frame.confidence,
                camera_matrix=np.eye(3) if camera is None else camera.matrix,
                window_ns=np.array([window.t0_ns, window.t1_ns]),
                stamp_ns=result.job.stamp_ns,
                parameters=json.dumps(dataclasses.asdict(parameters)),
            )
    return path
