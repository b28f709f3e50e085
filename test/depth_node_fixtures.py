"""Fixtures for tests of the depth node: a tiny checkpoint, and a node that runs it."""

import dataclasses

import pytest

WINDOW_MS = 20


@pytest.fixture(scope='session')
def checkpoint():
    """Untrained, for windows of 20 ms; sensors of 64 columns are binned 2x2."""
    import torch
    from untrained import untrained_checkpoint

    from spike_depth_ros.events.config import SpikeConfig

    torch.set_num_threads(1)
    spikes = SpikeConfig(window_ms=WINDOW_MS, steps=2, max_width_px=32)
    return dataclasses.replace(untrained_checkpoint('tiny'), spikes=spikes)


@pytest.fixture(scope='session')
def checkpoint_file(checkpoint, tmp_path_factory):
    from spike_depth_ros.network.checkpoint import save_checkpoint

    path = tmp_path_factory.mktemp('models') / 'tiny.safetensors'
    save_checkpoint(path, checkpoint)
    return path


@pytest.fixture
def start(graph, checkpoint_file, monkeypatch):
    """Makes a depth node and brings it to active, unless told otherwise.

    Nothing is too old for it: how fast a machine is does not change what comes out.
    """
    from graph import overrides
    from rclpy.lifecycle import TransitionCallbackReturn

    from spike_depth_ros.ros import pipeline
    from spike_depth_ros.ros.depth_node import DepthNode

    monkeypatch.setattr(pipeline, 'MESSAGE_AGE_S', 60.0)

    def start(activate=True, configure=True, cli_args=None, quick=True, **values):
        given = {'checkpoint': str(checkpoint_file), 'num_threads': 1, 'autostart': False,
                 'diagnostics_period_s': 0.1, 'max_latency_ms': 60_000.0,
                 'window_queue': 100, **values}  # fmt: skip
        node = DepthNode(cli_args=cli_args, parameter_overrides=overrides(given))
        graph.add(node, quick=quick)
        if configure:
            assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS, node.last_error
            if activate:
                assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        return node

    return start
