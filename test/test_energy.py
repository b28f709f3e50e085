"""Energy: counted by hand, and as spikingjelly's operation counters count."""

import dataclasses
import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from spikingjelly.activation_based import op_counter
from torch import nn

from spike_depth_ros.network.encoder import SpikingTransformerConfig
from spike_depth_ros.network.energy import (
    E_AC_PJ,
    E_MAC_PJ,
    E_MEMORY_PJ_PER_BYTE,
    count_energy,
    measurable,
    measure_energy,
)
from spike_depth_ros.network.registry import build
from spike_depth_ros.network.spiking_transformer import SpikingTransformer

CONFIG = SpikingTransformerConfig(dim=32, depth=2, heads=2, head_dim=16)


def windows(batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.poisson(torch.full((3, batch, 2, 40, 48), 0.15), generator).to(torch.uint8)


def network(config: SpikingTransformerConfig = CONFIG) -> SpikingTransformer:
    torch.manual_seed(0)
    model = SpikingTransformer(config)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(windows(2))
    return model.eval()


class Toy(nn.Module):
    """One convolution whose input is the spikes themselves, T and B as its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 5, 3, padding=1, bias=False)

    def forward(self, spikes: torch.Tensor) -> torch.Tensor:
        return self.conv(spikes.flatten(0, 1).float())


def test_a_convolution_by_hand():
    spikes = torch.zeros(1, 1, 2, 4, 4)
    spikes[0, 0, 0, 1, 1] = 1  # inside: 9 weights of 5 kernels
    spikes[0, 0, 1, 0, 0] = 1  # in the corner: 4 of them
    report = measure_energy(Toy(), spikes)
    assert report.activation_bytes == 2 * 16 / 8 + 5 * 16 * 4  # spikes are bits
    assert report.weight_bytes == 5 * 2 * 9 * 4
    (layer,) = report.layers
    assert layer.spiking
    assert (layer.acs, layer.macs) == ((9 + 4) * 5, 0)
    assert layer.dense_macs == 2 * 9 * 5 * 16
    assert layer.rate == 2 / 32
    assert layer.compute_pj == pytest.approx(65 * 0.9)
    spikes[0, 0, 1, 0, 0] = 2  # no spike any more: every product is a multiplication
    report = measure_energy(Toy(), spikes)
    assert report.activation_bytes == 2 * 16 * 4 + 5 * 16 * 4
    (layer,) = report.layers
    assert not layer.spiking
    assert (layer.acs, layer.macs) == (0, 1440)
    assert layer.compute_pj == pytest.approx(1440 * 4.6)


def test_a_measurement_does_not_wait_for_pytorchs_compiler():
    """In a live node it would stop the stream for seconds."""
    code = (
        'import sys, torch; from spike_depth_ros.network.energy import measure_energy; '
        'from spike_depth_ros.network.registry import build; '
        'measure_energy(build("tiny"), torch.zeros(1, 1, 2, 32, 32)); '
        'print("torch._dynamo" in sys.modules)'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, check=True, text=True)
    assert done.stdout == 'False\n'


def test_convolutions_agree_with_spikingjelly():
    model = network()
    report = measure_energy(model, windows())
    macs, synops = op_counter.MACCounter(), op_counter.SynOpCounter()
    with torch.no_grad(), op_counter.DispatchCounterMode([macs, synops]):
        model.folded()(windows())
    ours = {'mac': 0.0, 'ac': 0.0}
    for layer in report.layers:
        if 'attention#' not in layer.name and not layer.name.endswith('attention'):
            ours['mac'] += layer.macs
            ours['ac'] += layer.acs
    conv = torch.ops.aten.convolution.default
    linear = torch.ops.aten.addmm.default
    theirs = macs.get_counts()['Global']
    assert ours['mac'] == theirs[conv] + theirs[linear]
    assert ours['ac'] == synops.get_counts()['Global'][conv]


def test_attention_follows_the_published_formula():
    # T * H * N * d^2 * (min(fr_k, fr_v) + fr_q)
    model = network().folded()
    kept = []
    block = model.blocks[1].attention
    block.act_qkv.register_forward_hook(lambda _, __, out: kept.append(out))
    with torch.no_grad():
        model(windows())
    q, k, v = (part.mean().item() for part in kept[0].chunk(3, dim=2))
    want = 3 * 2 * 30 * 16**2 * (min(k, v) + q)
    report = measure_energy(network(), windows())
    pair = [layer for layer in report.layers if layer.name.startswith('blocks.1.attention')
            and layer.name.split('.')[-1].split('#')[0] == 'attention']  # fmt: skip
    assert len(pair) == 2
    assert all(layer.spiking for layer in pair)
    assert sum(layer.acs for layer in pair) == pytest.approx(want)


def test_encoder_spikes_and_head_does_not():
    report = measure_energy(network(), windows())
    spiking = {layer.name: layer.spiking for layer in report.layers}
    assert not spiking.pop('stem.convs.0'), 'it sees counts'
    assert not spiking.pop('place'), 'it sees coordinates'
    assert all(on for name, on in spiking.items() if not name.startswith('head'))
    assert not any(on for name, on in spiking.items() if name.startswith('head'))
    assert report.compute_pj('head') > 0
    assert report.compute_pj() == pytest.approx(
        report.compute_pj('encoder') + report.compute_pj('head')
    )


def test_a_spiking_head_spikes():
    report = measure_energy(network(dataclasses.replace(CONFIG, head_spiking=True)), windows())
    head = [layer for layer in report.layers if layer.part == 'head']
    assert sum(layer.spiking for layer in head) >= len(head) - 1, 'but for the pooled context'


def test_integer_spikes_are_additions():
    report = measure_energy(network(dataclasses.replace(CONFIG, neuron='ilif')), windows())
    assert all(layer.spiking for layer in report.layers if layer.name.startswith('blocks'))


def test_per_map_and_totals():
    one, two = (measure_energy(network(), windows().expand(-1, b, -1, -1, -1)) for b in (1, 2))
    assert two.compute_pj() == pytest.approx(one.compute_pj(), rel=1e-2)
    assert two.memory_pj == pytest.approx(one.memory_pj, rel=1e-2)
    figures = one.to_dict()
    assert figures['total_uj'] == pytest.approx(
        sum(layer['macs'] * E_MAC_PJ + layer['acs'] * E_AC_PJ for layer in figures['layers']) / 1e6
    )
    traffic_bytes = one.weight_bytes + one.state_bytes + one.activation_bytes
    assert one.memory_pj == traffic_bytes * E_MEMORY_PJ_PER_BYTE


def test_what_is_remembered_is_read_and_written():
    spikes, model = windows(), network()
    # the state of rest has one number for each of the membranes and running sums
    state = model.rest(spikes)
    numbers = sum(maps.numel() for maps in (*state.membranes, *state.readouts))
    assert measure_energy(model, spikes).state_bytes == 8 * len(spikes) * numbers
    # E2Depth: hidden and cell of widths 14, 28, 56 at strides 2, 4, 8, once for the window
    numbers = 2 * (14 * 16 * 20 + 28 * 8 * 10 + 56 * 4 * 5)
    report = measure_energy(build('e2depth_small'), torch.zeros(4, 1, 2, 32, 40))
    assert report.state_bytes == 8 * numbers
    assert measure_energy(build('unet_small'), torch.zeros(4, 1, 2, 32, 40)).state_bytes == 0


@pytest.mark.parametrize('rival', ['unet_small', 'e2depth_small', 'spike_t_small'])
def test_rivals_multiply(rival):
    torch.manual_seed(0)
    model = build(rival).train()
    spikes = torch.poisson(torch.full((4, 1, 2, 32, 40), 0.2)).to(torch.uint8)
    report = measure_energy(model, spikes)
    # a window is one input of theirs: the weights are read once, not at every step
    assert report.weight_bytes == 4 * sum(p.numel() for p in model.parameters())
    assert model.training, 'left as it was'
    macs = op_counter.MACCounter()
    with torch.no_grad(), op_counter.DispatchCounterMode([macs]):
        model.eval()(spikes)
    conv = torch.ops.aten.convolution.default
    counted = sum(layer.macs for layer in report.layers)
    assert counted >= macs.get_counts()['Global'][conv] > 0


def four_steps() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.poisson(torch.full((4, 1, 2, 32, 40), 0.2), generator).to(torch.uint8)


@pytest.mark.parametrize('name', ['tiny', 'unet_small', 'e2depth_small', 'spike_t_small'])
def test_a_measurement_with_pauses_is_the_same(name):
    torch.manual_seed(0)
    model, spikes, seen = build(name), four_steps(), []
    ready = measurable(model)
    for layer in ready.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            layer.register_forward_pre_hook(lambda *_: seen.append('product'))
    report = count_energy(ready, spikes, lambda: seen.append('pause'))
    assert report == measure_energy(model, spikes)
    after_products = [now for last, now in itertools.pairwise(seen) if last == 'product']
    assert len(after_products) > 1
    assert set(after_products) == {'pause'}


class EnoughError(Exception):
    """What ends a measurement."""


def test_a_measurement_that_is_abandoned_leaves_no_trace():
    ready, spikes = measurable(network()), windows()
    calls = []
    whole = count_energy(ready, spikes, lambda: calls.append('pause'))
    for end in (1, 2, len(calls) // 2, len(calls)):
        left = iter(range(end - 1))

        def pause(left=left):
            if next(left, None) is None:
                raise EnoughError

        with pytest.raises(EnoughError):
            count_energy(ready, spikes, pause)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in ready.modules())
        assert count_energy(ready, spikes) == whole


def test_a_network_that_is_measured_runs_elsewhere_meanwhile():
    torch.manual_seed(0)
    model, spikes = build('e2depth_small').train(), four_steps()
    alone, elsewhere = measure_energy(model, spikes), []

    def run():
        with torch.no_grad():
            return model.training, model(spikes).log_depth

    with ThreadPoolExecutor(1) as other:

        def pause():
            elsewhere.append(len(elsewhere) == 20 and other.submit(run).result())

        assert count_energy(measurable(model), spikes, pause) == alone
    training, answer = elsewhere[20]
    assert training
    assert answer.shape[-2:] == spikes.shape[-2:]
