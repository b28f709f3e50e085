"""Engines: the same maps as the network itself, streaming included; bad input refused."""

import copy
import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from dyadic import exact_counts, exact_network
from untrained import untrained_checkpoint

from spike_depth_ros.cli import bench_infer
from spike_depth_ros.estimation import engine as engine_module
from spike_depth_ros.estimation.engine import (
    ENGINES,
    EngineError,
    TorchEngine,
    choose_device,
    fast_engines,
    thread_count,
)
from spike_depth_ros.events.config import DepthRange, SpikeConfig
from spike_depth_ros.network.checkpoint import Checkpoint
from spike_depth_ros.network.inference_layers import SpikeConvolution
from spike_depth_ros.network.neurons import Neuron
from spike_depth_ros.network.spiking_transformer import SpikingTransformer

CHECKPOINT = Checkpoint(
    exact_network(), 'spiking_transformer', SpikeConfig(), DepthRange(), {'trained': False}
)

needs_bytes = pytest.mark.skipif(
    not SpikeConvolution.is_available(), reason='this torch has no 8-bit convolutions here'
)


def windows(count: int = 2) -> list[np.ndarray]:
    return [exact_counts(seed=seed)[:, 0].numpy() for seed in range(count)]


def reference(spikes: list[np.ndarray]) -> list[np.ndarray]:
    """Maps of the checkpoint's own network, its state carried from window to window."""
    maps, state = [], None
    for window in spikes:
        with torch.no_grad():
            prediction, state = CHECKPOINT.model.step(torch.from_numpy(window)[:, None], state)
        maps.append(torch.cat(prediction, dim=1)[0].numpy())
    return maps


def test_torch_agrees_with_the_network():
    engine = ENGINES['torch'](CHECKPOINT, 'cpu', 1)
    state = None
    for window, want in zip(windows(), reference(windows()), strict=True):
        maps, state = engine.infer(window, state)
        assert maps.shape == (3, 64, 64)
        assert maps.dtype == np.float32
        np.testing.assert_allclose(maps, want, atol=2e-5)


def test_bfloat16_follows_its_own_stream():
    # random weights multiply every rounding, so that only the order of steps can be compared
    engine = ENGINES['torch_bf16'](CHECKPOINT, 'cpu', 1)
    (window,) = windows(1)
    whole, _ = engine.infer(window, None)
    state = None
    for step in window:
        maps, state = engine.infer(step[None], state)
    np.testing.assert_allclose(maps, whole, atol=1e-2)
    assert maps.std() > 1e-3


@needs_bytes
def test_bytes_lose_nothing_of_weights_that_fit_in_them():
    model = copy.deepcopy(CHECKPOINT.model)
    for name, conv in model.named_modules():
        if isinstance(conv, torch.nn.Conv2d) and name.startswith(('stem', 'blocks')):
            conv.weight.data.clamp_(-0.96875, 0.96875)[:, 0, 0, 0] = 127 / 128
    checkpoint = dataclasses.replace(CHECKPOINT, model=model)
    engines = [ENGINES[name](checkpoint, 'cpu', 1) for name in ('torch', 'torch_int8')]
    states = [None, None]
    for window in windows(3):
        (want, maps), states = zip(
            *(engine.infer(window, state) for engine, state in zip(engines, states, strict=True)),
            strict=True,
        )
        np.testing.assert_allclose(maps, want, atol=2e-5)
        assert want.std() > 1e-3


@needs_bytes
def test_bytes_are_refused_where_they_cannot_be():
    with pytest.raises(EngineError, match='fusion head'):
        ENGINES['torch_int8'](untrained_checkpoint('unet_small'), 'cpu', 1)
    config = dataclasses.replace(CHECKPOINT.model.config, neuron='ilif')
    other = dataclasses.replace(CHECKPOINT, model=SpikingTransformer(config).eval())
    with pytest.raises(EngineError, match='plif'):
        ENGINES['torch_int8'](other, 'cpu', 1)


@needs_bytes
def test_auto_tries_bytes_where_the_processor_has_vnni(monkeypatch):
    for has in (True, False):
        monkeypatch.setattr(torch.cpu, '_is_vnni_supported', lambda has=has: has)
        assert ('torch_int8' in fast_engines(CHECKPOINT)) == has
    assert 'torch_int8' not in fast_engines(untrained_checkpoint('unet_small'))


@needs_bytes
def test_bytes_stay_on_the_processor_whatever_else_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert ENGINES['torch_int8'](CHECKPOINT, 'auto', 1).device == 'cpu'
    with pytest.raises(EngineError, match="'cuda', but torch_int8 runs on the cpu"):
        ENGINES['torch_int8'](CHECKPOINT, 'cuda', 1)


def test_bytes_are_refused_without_their_convolutions(monkeypatch):
    monkeypatch.setattr(SpikeConvolution, 'is_available', lambda: False)
    assert 'torch_int8' not in fast_engines(CHECKPOINT)
    with pytest.raises(EngineError, match='no 8-bit'):
        ENGINES['torch_int8'](CHECKPOINT, 'cpu', 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')
@pytest.mark.parametrize('kept', [1, 4])
def test_a_recorded_window_gives_what_its_layers_give(kept, monkeypatch):
    monkeypatch.setattr(engine_module, 'MAX_RECORDED', kept)
    recorded = ENGINES['cuda'](CHECKPOINT, 'cuda', 1)
    layers = TorchEngine(CHECKPOINT, 'cuda', 1, torch.float16)
    state = state_of_layers = None
    first, second = windows()
    for window in (first, second, second[:1], first):
        maps, state = recorded.infer(window, state)
        want, state_of_layers = layers.infer(window, state_of_layers)
        np.testing.assert_allclose(maps, want, atol=1e-2)
    again = [recorded.infer(first, state)[0] for _ in range(2)]
    np.testing.assert_array_equal(*again)
    np.testing.assert_allclose(
        recorded.infer(first, None)[0], layers.infer(first, None)[0], atol=1e-2
    )


@pytest.mark.parametrize(
    'name',
    [
        'torch',
        'torch_bf16',
        pytest.param('torch_int8', marks=needs_bytes),
        pytest.param(
            'cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
        ),
    ],
)
def test_carried_steps_are_those_of_the_window_on_a_cpu_to_the_bit(name):
    engine = ENGINES[name](CHECKPOINT, 'cuda' if name == 'cuda' else 'cpu', 1)
    assert engine.carries
    whole_state = state = None
    for window, parts in zip(windows(3), ([1, 2, 3], [2], [3]), strict=True):
        whole, whole_state = engine.infer(window, whole_state)
        begin = 0
        for end in parts:
            state = engine.carry(window[begin:end], state)
            begin = end
        maps, state = engine.infer(window[begin:], state)
        np.testing.assert_allclose(maps, whole, rtol=0, atol=1e-2 if name == 'cuda' else 0)
        assert whole.std() > 1e-3


def test_networks_of_whole_windows_carry_no_steps():
    assert not ENGINES['torch'](untrained_checkpoint('unet_small'), 'cpu', 1).carries


@pytest.mark.parametrize('name', ['torch', 'torch_bf16'])
def test_rivals_run_too(name):
    engine = ENGINES[name](untrained_checkpoint('unet_small'), 'cpu', 1)
    maps, _ = engine.infer(windows(1)[0], None)
    assert maps.shape == (3, 64, 64)


@pytest.mark.parametrize(
    'wrong',
    [
        np.zeros((4, 2, 60, 88), np.uint8),
        np.zeros((4, 3, 64, 88), np.uint8),
        np.zeros((0, 2, 64, 88), np.uint8),
        np.zeros((4, 2, 0, 88), np.uint8),
        np.zeros((2, 64, 88), np.uint8),
        np.zeros((4, 2, 64, 88), np.float32),
    ],
)
def test_refuses_other_input(wrong):
    with pytest.raises(EngineError, match='expected uint8'):
        ENGINES['torch'](CHECKPOINT, 'cpu', 1).infer(wrong, None)


def test_devices():
    assert choose_device('cpu') == 'cpu'
    assert choose_device('auto') in ('cpu', 'cuda')
    with pytest.raises(EngineError, match="'tpu'"):
        choose_device('tpu')
    if not torch.cuda.is_available():
        with pytest.raises(EngineError, match='no CUDA GPU'):
            choose_device('cuda')
    with pytest.raises(EngineError, match=r'needs a GPU|no CUDA GPU'):
        ENGINES['cuda'](CHECKPOINT, 'cpu', 1)


@pytest.mark.parametrize(
    ('given', 'kept'), [({}, 'PASSIVE'), ({'OMP_WAIT_POLICY': 'ACTIVE'}, 'ACTIVE')]
)
def test_openmp_does_not_spin_unless_it_is_told_to(given, kept):
    code = (
        'import os, sys, spike_depth_ros; '
        'print("torch" in sys.modules, os.environ["OMP_WAIT_POLICY"])'
    )
    rest = {name: value for name, value in os.environ.items() if name != 'OMP_WAIT_POLICY'}
    said = subprocess.check_output([sys.executable, '-c', code], env=rest | given, text=True)
    assert said.split() == ['False', kept]


def test_threads():
    assert thread_count(3) == 3
    assert thread_count(0) >= 1


def test_auto_picks_one_and_remembers_it(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert fast_engines(CHECKPOINT)[0] == 'torch'
    engine = ENGINES['auto'](CHECKPOINT, 'cpu', 1)
    (note,) = (tmp_path / 'spike_depth_ros').iterdir()
    assert note.read_text() in fast_engines(CHECKPOINT)
    assert note.read_text() in engine.device
    note.write_text('torch')
    assert ENGINES['auto'](CHECKPOINT, 'cpu', 1).device == 'cpu (torch)'
    note.write_text('abacus')
    ENGINES['auto'](CHECKPOINT, 'cpu', 1)
    assert note.read_text() in fast_engines(CHECKPOINT), 'measured anew'


def test_bench_infer_prints_rows_with_peers(monkeypatch):
    monkeypatch.setattr(bench_infer, 'SIZES_PX', {'tiny': (40, 48)})
    monkeypatch.setattr(engine_module, 'has_bfloat16', lambda: True)
    quantised = ('torch_int8',) if SpikeConvolution.is_available() else ()
    names = ('torch', 'torch_bf16', *quantised, 'cuda')
    rows = list(bench_infer.infer_rows(CHECKPOINT, names, 1, 1))
    named = {row['name']: row for row in rows}
    assert named['torch, tiny']['value'] > 0
    assert named['torch against E2Depth, tiny']['peer'] == 'E2Depth, 10.7 M'
    assert named['torch_bf16 against spikingjelly in eager torch, tiny']['ratio'] > 0
    assert named['torch, streaming step of 4, tiny']['unit'] == 'ms'
    for name in ('torch', *quantised):
        assert named[f'{name}, share of the matrix product peak']['ratio'] > 0
    assert all(row.keys() == rows[0].keys() for row in rows)
    neurons = [module for module in CHECKPOINT.model.modules() if isinstance(module, Neuron)]
    assert {neuron.backend for neuron in neurons} == {'auto'}, 'left as it was'


def test_bench_infer_leaves_out_what_would_be_emulated(monkeypatch):
    monkeypatch.setattr(engine_module, 'has_bfloat16', lambda: False)
    assert list(bench_infer._start(CHECKPOINT, ('torch', 'torch_bf16'), 1)) == ['torch']
