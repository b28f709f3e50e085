"""What is ready before the first events, and which network that is."""

import dataclasses
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from depth_node_fixtures import WINDOW_MS
from untrained import untrained_checkpoint

from spike_depth_ros.estimation.estimator import EstimatorOptions
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.config import ConfigError, cache_folder
from spike_depth_ros.network.checkpoint import save_checkpoint
from spike_depth_ros.ros import loaded_network, network_choice
from spike_depth_ros.ros.depth_parameters import DepthParameters
from spike_depth_ros.ros.loaded_network import LoadedNetwork, load_network, time_steps, warm_up
from spike_depth_ros.ros.params import ParameterError

CAMERA = Camera(60, 40, 50.0, 50.0, 29.5, 19.5)
AUTO = DepthParameters(num_threads=1)


@pytest.fixture
def networks(checkpoint, tmp_path, monkeypatch):
    """Two shipped networks; `busy` is the share of the time that a window takes, settable."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    files = {'default': tmp_path / 'better.safetensors', 'fast': tmp_path / 'faster.safetensors'}
    for file in files.values():
        save_checkpoint(file, checkpoint)
    measured = []

    def run_empty_window(network, options, camera):
        measured.append(network.path.name)
        return measured.busy * WINDOW_MS / 1e3

    class Measured(list):
        busy = 0.5

    measured = Measured()
    monkeypatch.setattr(loaded_network, 'SHIPPED', files)
    monkeypatch.setattr(network_choice, 'SHIPPED', files)
    monkeypatch.setattr(loaded_network, 'shipped', Path)
    monkeypatch.setattr(loaded_network, 'warm_up', lambda *_: None)
    monkeypatch.setattr(LoadedNetwork, 'run_empty_window', run_empty_window)
    return measured


@pytest.mark.parametrize(('busy', 'taken'), [(0.5, 'better'), (0.7, 'faster')])
def test_the_faster_network_runs_where_the_better_takes_too_long(networks, busy, taken):
    networks.busy = busy
    assert load_network(AUTO, None).path.stem == taken


def test_the_choice_is_measured_once_and_the_same_from_boot_to_boot(networks, caplog):
    caplog.set_level('INFO')
    assert load_network(AUTO, None).path.stem == 'better'
    measurements = len(networks)
    networks.busy = 0.9  # the next boot is a busy one
    assert load_network(AUTO, None).path.stem == 'better'
    assert len(networks) == measurements
    (file,) = cache_folder().glob('*.json')
    kept = json.loads(file.read_text())
    assert kept['network'] == 'default'
    assert kept['reason'] == 'a window takes default 10 ms of 12 ms allowed'
    assert {'machine', 'version', 'threads', 'engine'} <= set(kept['circumstances'])
    assert f'remembered in {file}' in caplog.text


@pytest.mark.parametrize('changed', [
    {'num_threads': 2}, {'stride_ms': 10.0}, {'engine': 'torch'},
])  # fmt: skip
def test_other_circumstances_are_another_choice(networks, changed):
    load_network(AUTO, None)
    measurements = len(networks)
    load_network(dataclasses.replace(AUTO, **changed), None)
    assert len(networks) > measurements


@pytest.mark.parametrize('damage', ['', '{', '[]', '{"network": "default"}', '{"network": 3}'])
def test_a_damaged_memory_is_measured_anew(networks, damage):
    load_network(AUTO, None)
    (file,) = cache_folder().glob('*.json')
    good = file.read_text()
    file.write_text(damage)
    measurements = len(networks)
    assert load_network(AUTO, None).path.stem == 'better'
    assert len(networks) > measurements
    assert json.loads(file.read_text())['network'] == json.loads(good)['network']


def test_where_nothing_can_be_remembered_it_is_chosen_all_the_same(
    networks, tmp_path, monkeypatch, caplog
):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    assert load_network(AUTO, None).path.stem == 'better'
    assert 'cannot remember the choice of network' in caplog.text


def test_two_nodes_that_start_together_take_the_same(networks, monkeypatch):
    chosen = []
    busy = iter([0.9, 0.1])  # would be two answers

    def choose(parameters, camera, choice):
        networks.busy = next(busy)
        return original(parameters, camera, choice)

    original = loaded_network._choose
    monkeypatch.setattr(loaded_network, '_choose', choose)
    nodes = [
        threading.Thread(target=lambda: chosen.append(load_network(AUTO, None).path.stem))
        for _ in range(2)
    ]
    for node in nodes:
        node.start()
    for node in nodes:
        node.join()
    assert chosen == ['faster', 'faster']


def test_parameters_pin_the_network(networks, tmp_path):
    networks.busy = 0.9
    pinned = dataclasses.replace(AUTO, network='default')
    assert load_network(pinned, None).path.stem == 'better'
    given = dataclasses.replace(pinned, checkpoint=str(tmp_path / 'faster.safetensors'))
    assert load_network(given, None).path.stem == 'faster'
    by_url = dataclasses.replace(AUTO, checkpoint=f'file://{tmp_path}/better.safetensors')
    assert load_network(by_url, None).path.stem == 'better'
    assert networks == []


@pytest.mark.parametrize(('url', 'words'), [
    ('package://nobodys_package/x.safetensors', 'the package nobodys_package is not installed'),
    ('package://nobodys_package', 'expected a path, file:///PATH or package://PACKAGE/FILE'),
    ('https://somewhere/x.safetensors', 'expected a path, file:///PATH or package://PACKAGE/FILE'),
])  # fmt: skip
def test_a_url_that_leads_nowhere_is_named(url, words):
    with pytest.raises(ParameterError) as refused:
        load_network(dataclasses.replace(AUTO, checkpoint=url), None)
    assert words in str(refused.value)
    assert f'checkpoint is {url!r}' in str(refused.value)


class Recording:
    """Notes the shapes that it runs."""

    device = 'cpu'

    def __init__(self):
        self.shapes = []

    def infer(self, spikes, state):
        self.shapes.append(spikes.shape)
        return np.zeros((3, *spikes.shape[2:]), np.float32), None


def test_the_warm_up_runs_windows_of_the_awaited_camera(checkpoint):
    engine = Recording()
    warm_up(LoadedNetwork(Path('x'), checkpoint, engine), EstimatorOptions(), CAMERA)
    assert engine.shapes == [(2, 2, 24, 24), (2, 2, 24, 32)]


def test_what_other_processes_take_of_the_processor_does_not_count(checkpoint, monkeypatch):
    """A window of 3 s of which the process had the processor for 1 s takes 1 s."""

    class Slow(Recording):
        now_s = cpu_s = 0.0

        def infer(self, spikes, state):
            self.now_s += 3.0
            self.cpu_s += 1.0
            return super().infer(spikes, state)

    engine = Slow()
    monkeypatch.setattr(loaded_network.time, 'perf_counter', lambda: engine.now_s)
    monkeypatch.setattr(loaded_network.time, 'process_time', lambda: engine.cpu_s)
    network = LoadedNetwork(Path('x'), checkpoint, engine)
    assert network.run_empty_window(EstimatorOptions(), CAMERA) == 1.0


class Timed(Recording):
    """Takes 2 s for each call and 1 s for each step."""

    carries, now_s = True, 0.0

    def infer(self, spikes, state):
        self.now_s += 2.0 + len(spikes)
        return super().infer(spikes, state)

    def carry(self, spikes, state):
        return self.infer(spikes, state)[1]


def test_steps_are_run_early_where_that_leaves_time(checkpoint, monkeypatch):
    engine = Timed()
    monkeypatch.setattr(loaded_network.time, 'perf_counter', lambda: engine.now_s)
    monkeypatch.setattr(loaded_network.time, 'process_time', lambda: engine.now_s)
    spikes = dataclasses.replace(checkpoint.spikes, window_ms=20.0, steps=4)
    network = LoadedNetwork(Path('x'), dataclasses.replace(checkpoint, spikes=spikes), engine)
    assert not network.runs_early(AUTO), 'nothing was measured'
    step_s = time_steps(network, EstimatorOptions(), CAMERA)
    assert step_s == 3.0
    assert {shape[0] for shape in engine.shapes} == {1, 2, 3}
    for step_ms, stride_ms, early in (
        (2.9, 0.0, True), (3.1, 0.0, False), (2.9, 5.0, True), (3.1, 100.0, False),
    ):  # fmt: skip
        network = network._replace(step_s=step_ms / 1e3)
        assert network.runs_early(dataclasses.replace(AUTO, stride_ms=stride_ms)) == early
        assert network.runs_early(dataclasses.replace(AUTO, early_steps='on'))
        assert not network.runs_early(dataclasses.replace(AUTO, early_steps='off'))
    # every window begins at rest: as many steps in half the time
    apart = dataclasses.replace(AUTO, streaming=False, stride_ms=10.0)
    assert not network._replace(step_s=1.6e-3).runs_early(apart)
    assert network._replace(step_s=1.4e-3).runs_early(apart)


def test_a_network_that_needs_whole_windows_runs_no_steps_early(tmp_path):
    save_checkpoint(tmp_path / 'unet.safetensors', untrained_checkpoint('unet_small'))
    given = dataclasses.replace(
        AUTO, checkpoint=str(tmp_path / 'unet.safetensors'), engine='torch', device='cpu'
    )
    network = load_network(given, CAMERA)
    assert not network.runs_early(given)
    for refused in (network.check, lambda asked: load_network(asked, CAMERA)):
        with pytest.raises(ConfigError, match="early_steps is 'on', but this network needs whole"):
            refused(dataclasses.replace(given, early_steps='on'))
