"""The exported graph: ONNX Runtime reproduces the maps of the network, streaming included."""

import dataclasses

import numpy as np
import pytest
import torch
from dyadic import CONFIG, exact_counts, exact_network

from spike_depth_ros.cli.export import export
from spike_depth_ros.events.config import DepthRange, SpikeConfig
from spike_depth_ros.network.checkpoint import Checkpoint, save_checkpoint
from spike_depth_ros.network.export import MAX_STEPS, ExportError, export_onnx, state_names
from spike_depth_ros.network.registry import build
from spike_depth_ros.network.spiking_transformer import SpikingTransformer

onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')


@pytest.fixture(scope='module', params=['lif', 'plif'])
def network(request) -> SpikingTransformer:
    return exact_network(dataclasses.replace(CONFIG, neuron=request.param))


@pytest.fixture(scope='module')
def graph(network) -> bytes:
    return export_onnx(network, 4)


def run(graph: bytes, network: SpikingTransformer, spikes: torch.Tensor, state: list[np.ndarray]):
    """Maps and next state, the inputs given by the names that `state_names` documents."""
    session = onnxruntime.InferenceSession(graph, providers=['CPUExecutionProvider'])
    names = state_names(network)
    given = {f'{name}_in': value for name, value in zip(names, state, strict=True)}
    wanted = ['maps', *[f'{name}_out' for name in names]]
    maps, *after = session.run(wanted, {'spikes': spikes.numpy(), **given})
    return maps, after


@pytest.mark.slow
def test_onnxruntime_reproduces_a_stream(graph, network):
    first, second = exact_counts(seed=0), exact_counts(seed=1)
    state = [tensor.numpy() for tensor in network.rest(first).flat()]
    with torch.no_grad():
        want, carried = network.step(first, None)
        want_next, _ = network.step(second, carried)
    maps, state = run(graph, network, first, state)
    np.testing.assert_allclose(maps, torch.cat(want, dim=1), atol=2e-4)
    maps, _ = run(graph, network, second, state)
    np.testing.assert_allclose(maps, torch.cat(want_next, dim=1), atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize('size', [(40, 40), (72, 88), (128, 64)])
def test_a_graph_takes_any_size(size, graph, network):
    spikes = torch.zeros((4, 1, 2, *size), dtype=torch.uint8)
    spikes[..., 8:24, 8:16] = 1
    maps, _ = run(graph, network, spikes, [t.numpy() for t in network.rest(spikes).flat()])
    with torch.no_grad():
        want = torch.cat(network(spikes), dim=1)
    np.testing.assert_allclose(maps, want, atol=2e-4)


@pytest.mark.slow
def test_a_graph_is_little_more_than_its_weights(graph, network):
    weights = sum(p.numel() * 4 for p in network.parameters())
    assert len(graph) < weights + 200_000


@pytest.mark.slow
def test_the_command_writes_a_graph_of_the_trained_number_of_steps(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    network = SpikingTransformer(dataclasses.replace(CONFIG, depth=1, head='linear')).eval()
    spikes = SpikeConfig(steps=2)
    file = tmp_path / 'models' / 'small.safetensors'
    save_checkpoint(file, Checkpoint(network, 'spiking_transformer', spikes, DepthRange(), {}))
    export(str(file))
    assert 'small.onnx' in capsys.readouterr().out
    session = onnxruntime.InferenceSession('small.onnx', providers=['CPUExecutionProvider'])
    assert session.get_inputs()[0].shape[:3] == [2, 1, 2]


def test_refuses_what_it_cannot_export(network):
    with pytest.raises(ExportError, match='UNet'):
        export_onnx(build('unet_small'), 4)
    with pytest.raises(ExportError, match='head that spikes'):
        export_onnx(SpikingTransformer(dataclasses.replace(CONFIG, head_spiking=True)), 4)
    for steps in (0, MAX_STEPS + 1):
        with pytest.raises(ExportError, match=f'steps is {steps}'):
            export_onnx(network, steps)
