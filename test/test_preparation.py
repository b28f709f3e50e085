"""What is ready before the first events, and which network that is."""

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest
from depth_node_fixtures import WINDOW_MS

from spike_depth_ros.estimation.estimator import EstimatorOptions
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.network.checkpoint import save_checkpoint
from spike_depth_ros.ros import preparation
from spike_depth_ros.ros.depth_parameters import DepthParameters

LOG = logging.getLogger(__name__)


@pytest.mark.parametrize(('busy', 'taken'), [(0.5, 0), (0.7, 1)])
def test_the_faster_network_runs_where_the_better_takes_too_long(
    checkpoint, tmp_path, monkeypatch, caplog, busy, taken
):  # fmt: skip
    files = [tmp_path / 'better.safetensors', tmp_path / 'faster.safetensors']
    for file in files:
        save_checkpoint(file, checkpoint)
    monkeypatch.setattr(preparation, 'CHECKPOINTS', files)
    monkeypatch.setattr(preparation, 'shipped', Path)
    monkeypatch.setattr(preparation, 'warm_up', lambda *_: busy * WINDOW_MS / 1e3)
    parameters = DepthParameters(num_threads=1)
    assert preparation.prepare(parameters, None, LOG).path == files[taken]
    assert ('better.safetensors takes 14 ms for each 20 ms' in caplog.text) == taken
    given = dataclasses.replace(parameters, checkpoint=str(files[0]))
    assert preparation.prepare(given, None, LOG).path == files[0]


def test_the_warm_up_meets_the_awaited_camera_and_times_its_windows(checkpoint, monkeypatch):
    class Clocked:
        """Takes 9 s for the first window, then 5, 3 and 4."""

        device, now_s, shapes = 'cpu', 0.0, []
        takes_s = iter([9.0, 5.0, 3.0, 4.0])

        def infer(self, spikes, state):
            self.now_s += next(self.takes_s)
            self.shapes.append(spikes.shape)
            return np.zeros((3, *spikes.shape[2:]), np.float32), None

    engine = Clocked()
    monkeypatch.setattr(preparation.time, 'perf_counter', lambda: engine.now_s)
    camera = Camera(60, 40, 50.0, 50.0, 29.5, 19.5)
    assert preparation.warm_up(checkpoint, engine, EstimatorOptions(), camera) == 3.0
    assert engine.shapes == [(2, 2, 24, 24), *[(2, 2, 24, 32)] * 3]
