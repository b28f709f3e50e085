"""Fixtures for tests of the depth node: a tiny checkpoint, and a node that runs it."""

import collections
import dataclasses
import re

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


class Log:
    """What the node has logged in this test."""

    def __init__(self, capfd):
        self._capfd, self._text = capfd, ''

    def read(self):
        self._text += self._capfd.readouterr().err
        return self._text

    def lines(self, *levels):
        """Lines of these levels, of all by default, without the time."""
        pattern = rf'^\[({"|".join(levels) or "[A-Z]+"})\] \[[0-9.]+\] \[depth_node\]: .*'
        found = [m.group(0) for m in re.finditer(pattern, self.read(), re.MULTILINE)]
        return [re.sub(r'\[[0-9.]+\] ', '', line, count=1) for line in found]


@pytest.fixture
def log(capfd):
    return Log(capfd)


@pytest.fixture
def quiet_log(log):
    """Fails the test if the node has flooded its log: each line once, and not too many of them."""
    yield
    lines = log.lines()
    often = {line: n for line, n in collections.Counter(lines).items() if n > 2}
    assert not often, 'at most once for each start of the node'
    assert len(lines) <= 25, lines


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
    monkeypatch.setattr(pipeline, 'PATIENCE_S', 60.0)

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
