"""The network: spikes inside, exact streaming, exact folding, attention that is alive."""

import dataclasses

import pytest
import torch
from dyadic import CONFIG, exact_counts, exact_network
from torch import nn

from spike_depth_ros.events.config import ConfigError
from spike_depth_ros.learning.module import carried
from spike_depth_ros.network.encoder import (
    SpikingSelfAttention,
    SpikingTransformerConfig,
    compress,
)
from spike_depth_ros.network.layers import ConvBN, Readout
from spike_depth_ros.network.neurons import Neuron
from spike_depth_ros.network.registry import PRESETS, build, preset_spikes
from spike_depth_ros.network.spiking_transformer import SpikingTransformer, State

VARIANTS = {
    'default': CONFIG,
    'pool': dataclasses.replace(CONFIG, stem='pool', mlp_kernel=1, mlp_ratio=2),
    'linear': dataclasses.replace(CONFIG, head='linear'),
    'spiking head': dataclasses.replace(CONFIG, head_spiking=True),
    'spiking linear': dataclasses.replace(CONFIG, head='linear', head_spiking=True),
    'plif': dataclasses.replace(CONFIG, neuron='plif'),
    'ilif': dataclasses.replace(CONFIG, neuron='ilif'),
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def edges(steps: int = 4, batch: int = 1, height: int = 64, width: int = 88) -> torch.Tensor:
    """Counts as a moving edge and noise make them: sparse, clustered, more than one at times."""
    generator = torch.Generator().manual_seed(3)
    rates = torch.full((steps, batch, 2, height, width), 0.02)
    for t in range(steps):
        rates[t, :, 1, :, 20 + 3 * t : 24 + 3 * t] = 2.0
        rates[t, :, 0, 30 + t : 32 + t] = 1.0
    return torch.poisson(rates, generator).clamp(max=255).to(torch.uint8)


def network(config: SpikingTransformerConfig = CONFIG) -> SpikingTransformer:
    """Seeded, with the running statistics of two batches, in evaluation mode."""
    torch.manual_seed(0)
    model = SpikingTransformer(config).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of all that is seen
    with torch.no_grad():
        for _ in range(2):
            model(edges(batch=2))
    return model.eval()


def record_inputs(model: nn.Module, kind: type) -> dict[str, list[torch.Tensor]]:
    """Inputs that reach the modules of a class, by name, filled as the model runs."""
    seen: dict[str, list[torch.Tensor]] = {}
    for name, module in model.named_modules():
        if isinstance(module, kind):
            module.register_forward_pre_hook(
                lambda _, args, name=name: seen.setdefault(name, []).append(args[0].detach())
            )
    return seen


@pytest.mark.parametrize('name', VARIANTS)
def test_maps_of_the_input_size(name):
    prediction = network(VARIANTS[name])(edges(batch=2))
    for maps in prediction:
        assert maps.shape == (2, 1, 64, 88)
        assert maps.dtype == torch.float32
        assert torch.isfinite(maps).all()
    assert ((prediction.log_depth >= 0) & (prediction.log_depth <= 1)).all()


@pytest.mark.parametrize('size', [(264, 352), (184, 320), (40, 40), (8, 8)])
def test_odd_token_grids(size):
    assert network()(edges(1, 1, *size)).log_depth.shape[-2:] == size


@pytest.mark.parametrize('name', ['default', 'pool', 'plif', 'spiking head', 'spiking linear'])
def test_convolutions_see_only_spikes(name):
    model = network(VARIANTS[name])
    seen = record_inputs(model, ConvBN)
    with torch.no_grad():
        model(edges())
    spiking = {n: x for n, x in seen.items() if not n.startswith('head') or 'spiking' in name}
    counts = spiking.pop('stem.convs.0')
    assert not set(counts[0].unique().tolist()) <= {0.0, 1.0}, 'the first sees counts'
    assert len(spiking) >= 3 + 2 * 4
    for where, inputs in spiking.items():
        for x in inputs:
            assert set(x.unique().tolist()) <= {0.0, 1.0}, where
            assert x.mean() > 0, f'{where} is dead'


def test_integer_spikes_stay_within_their_levels():
    model = network(VARIANTS['ilif'])
    seen = record_inputs(model, ConvBN)
    with torch.no_grad():
        model(edges())
    values = {v for n, xs in seen.items() if n.startswith('blocks') for x in xs for v in
              x.unique().tolist()}  # fmt: skip
    assert values <= {0.0, 1.0, 2.0, 3.0, 4.0}
    assert max(values) > 1


@pytest.mark.parametrize('name', VARIANTS)
def test_stream_equals_batch(name):
    model = exact_network(VARIANTS[name])
    spikes = exact_counts(steps=6)
    with torch.no_grad():
        whole, last = model.step(spikes, None)
        state = None
        for chunk in spikes.split([1, 2, 1, 2]):
            streamed, state = model.step(chunk, state)
    # the encoder to the bit; averages and head but for the last bits of other sums
    encoder = [n for n, m in model.named_modules() if isinstance(m, Neuron) and 'head' not in n]
    for got, want in zip(state.membranes[: len(encoder)], last.membranes, strict=False):
        assert torch.equal(got, want)
    for got, want in zip((*streamed, *state.flat()), (*whole, *last.flat()), strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-5)


def test_forward_starts_from_rest_and_steps_do_not():
    model = network()
    with torch.no_grad():
        first, state = model.step(edges(), None)
        second, _ = model.step(edges(), state)
        again = model(edges())
        explicit, _ = model.step(edges(), model.rest(edges()))
    assert torch.equal(first.log_depth, again.log_depth)
    assert torch.equal(first.log_depth, explicit.log_depth)
    assert not torch.equal(first.log_depth, second.log_depth)


@pytest.mark.parametrize('head_spiking', [False, True])
def test_the_state_can_be_had_without_an_answer(head_spiking):
    network = build('tiny', {'head_spiking': head_spiking}).eval()
    windows = torch.randint(0, 3, (2, 3, 2, 2, 32, 48), dtype=torch.uint8)
    state = None
    for window in windows:
        alone, (_, state) = network.carry(window, state), network.step(window, state)
        assert all(map(torch.equal, alone.flat(), state.flat()))


@pytest.mark.parametrize('name', VARIANTS)
def test_rest_has_the_form_of_every_state(name):
    model = network(VARIANTS[name])
    with torch.no_grad():
        _, state = model.step(edges(batch=2), None)
    rest = model.rest(edges(batch=2))
    assert [x.shape for x in rest.flat()] == [x.shape for x in state.flat()]
    assert not any(x.any() for x in rest.flat())


def test_a_sample_goes_back_to_rest_alone():
    model = network()
    spikes = edges(batch=2)
    with torch.no_grad():
        _, state = model.step(spikes, None)
        mixed, _ = model.step(spikes, carried(state, torch.tensor([True, False])))
        whole, _ = model.step(spikes, state)
        fresh = model(spikes)
    torch.testing.assert_close(mixed.log_depth[0], whole.log_depth[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(mixed.log_depth[1], fresh.log_depth[1], atol=1e-6, rtol=0)


def test_truncated_backpropagation_needs_a_detached_state():
    model = network().train()
    _, state = model.step(edges(), None)
    assert state.membranes[0].requires_grad
    detached = carried(state, torch.tensor([True]))
    assert isinstance(detached, State)
    assert not any(x.requires_grad for x in detached.flat())


@pytest.mark.parametrize('name', ['default', 'pool', 'ilif'])
def test_folding_is_exact(name):
    model = exact_network(VARIANTS[name])
    folded = model.folded()
    assert not any(isinstance(m, (nn.BatchNorm2d, ConvBN)) for m in folded.modules())
    spikes, other = {}, {}
    for net, kept in ((model, spikes), (folded, other)):
        for where, module in net.named_modules():
            if isinstance(module, Neuron):
                module.register_forward_hook(
                    lambda _, __, out, where=where, kept=kept: kept.__setitem__(where, out)
                )
    with torch.no_grad():
        for got, want in zip(folded(exact_counts()), model(exact_counts()), strict=True):
            torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    for where, fired in spikes.items():
        assert fired.any(), where
        assert torch.equal(fired, other[where]), where


def test_folding_a_convolution():
    layer = ConvBN(6, 5, 3, stride=2, gain=1.7)
    layer.train()
    layer(torch.randn(8, 6, 9, 11) * 3 + 1)
    layer.eval()
    x = torch.randn(2, 6, 9, 11)
    torch.testing.assert_close(layer.folded()(x), layer(x), atol=1e-5, rtol=1e-5)


def gradients(output: torch.Tensor, *of: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum(), of
    )


def test_a_resting_normalisation_learns_inside_its_convolution():
    torch.manual_seed(0)
    layer = ConvBN(6, 5, 3, stride=2, gain=1.7)
    layer(torch.randn(8, 6, 9, 11) * 3 + 1)
    layer.eval()
    x = torch.randn(2, 6, 9, 11, requires_grad=True)
    of = (x, *layer.parameters())
    apart = layer.bn(layer.conv(x))
    torch.testing.assert_close(layer(x), apart, atol=1e-5, rtol=1e-5)
    for got, want in zip(gradients(layer(x), *of), gradients(apart, *of), strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_attention_in_linear_order_is_exact():
    # integers below 2^24: the order of the products cannot matter, not by one bit
    attention = SpikingSelfAttention(CONFIG)
    steps, height, width = 2, 9, 11
    qkv = (torch.rand(steps, 1, 96, height, width) < 0.3).float()
    with torch.no_grad():
        got = attention.attend(qkv)
    q, k, v = qkv.flatten(0, 1).flatten(2).view(steps, 3, 2, 16, -1).double().unbind(1)
    quadratic = (q.transpose(-1, -2) @ k) @ v.transpose(-1, -2)  # (T, heads, N, d)
    want = (quadratic.float() / (height * width)).transpose(-1, -2).reshape(got.shape)
    assert torch.equal(got, want)


@pytest.mark.parametrize('depth', [2, 4])
def test_attention_fires_and_learns(depth):
    model = network(dataclasses.replace(CONFIG, depth=depth)).train()
    rates = {}
    for name, module in model.named_modules():
        if name.endswith('attention.act_out'):
            module.register_forward_hook(
                lambda _, __, out, name=name: rates.__setitem__(name, out.mean().item())
            )
    model(edges(batch=2)).log_depth.mean().backward()
    assert len(rates) == depth
    for name, rate in rates.items():
        assert 0.02 < rate < 0.6, (name, rate)
    for block in model.blocks:
        grad = block.attention.qkv.conv.weight.grad
        for part in grad.chunk(3):  # q, k and v each
            assert part.norm() > 1e-7
            assert (part.flatten(1).norm(dim=1) > 0).float().mean() > 0.9


def test_every_parameter_learns():
    for config in VARIANTS.values():
        model = network(config).train()
        prediction = model(edges(batch=2))
        sum(maps.square().mean() for maps in prediction).backward()
        unused = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
        if config.head == 'linear' and not config.head_spiking:
            # averages of maps that this head does not read
            unused -= {n for n in unused if n.startswith('readouts') and n != 'readouts.3.logit'}
        assert not unused, config


def test_readout_weights_sum_to_one():
    readout = Readout(4, 8)
    constant = torch.full((3, 2, 4, 5, 5), 0.7)
    average, total = readout(constant, None, torch.zeros(2))
    torch.testing.assert_close(average, constant[0])
    average, _ = readout(constant[:1], total, torch.full((2,), 3.0))
    torch.testing.assert_close(average, constant[0])


def test_readout_by_hand():
    readout = Readout(1, 8)
    nn.init.constant_(readout.logit, 0.0)  # decay 1/2
    steps = torch.tensor([1.0, 0.0, 4.0]).view(3, 1, 1, 1, 1)
    average, _ = readout(steps, None, torch.zeros(1))
    # (1/4 * 1 + 1/2 * 0 + 1 * 4) / (1/4 + 1/2 + 1)
    assert average.item() == pytest.approx(4.25 / 1.75)


def test_the_order_of_the_steps_matters():
    model = network()
    with torch.no_grad():
        forwards, backwards = model(edges()), model(edges().flip(0))
    assert (forwards.log_depth - backwards.log_depth).abs().max() > 1e-3


def test_counts_are_compressed_once():
    counts = torch.tensor([0, 1, 4, 9, 255], dtype=torch.uint8).view(1, 1, 1, 1, 5)
    both = counts.expand(1, 1, 2, 1, 5)
    for given in (both, both.float()):
        assert compress(given, torch.float32)[0, 0, 1, 0].tolist() == [0, 1, 2, 3, 3]


@pytest.mark.parametrize(
    'shape', [(4, 2, 64, 88), (4, 1, 3, 64, 88), (4, 1, 2, 60, 88), (0, 1, 2, 64, 88)]
)
def test_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match='expected'):
        network()(torch.zeros(shape))


@pytest.mark.parametrize(
    'wrong', [{'dim': 60}, {'heads': 3}, {'depth': 0}, {'stem': 'lava'}, {'head': 'hydra'},
              {'mlp_kernel': 5}, {'mlp_ratio': 0}, {'head_dim': 18}],
)  # fmt: skip
def test_refuses_impossible_shapes_of_itself(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SpikingTransformerConfig(**wrong)


def test_presets():
    with torch.device('meta'):
        sizes = {
            name: sum(p.numel() for p in build(name).parameters())
            for name in ('tiny', 'small', 'base')
        }
    assert sizes['tiny'] < 0.25e6 < sizes['small'] < 0.7e6 < sizes['base']
    assert PRESETS['base'][1]['dim'] == 384
    assert preset_spikes('base').steps == 16
    assert preset_spikes('small').steps == 4


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('channels', [3, 8, 64])
def test_compiled_readout_averages_as_the_differentiable_one(dtype, channels):
    torch.manual_seed(0)
    readout = Readout(channels, 8)
    steps = torch.randn(3, 1, channels, 6, 10).to(dtype)
    total, seen = torch.randn(1, channels, 6, 10), torch.full((1,), 2.0)
    for before in (None, total):
        want, want_total = readout(steps, before, seen)
        with torch.no_grad():
            average, after = readout(steps, before, seen)
        assert average.dtype == dtype
        torch.testing.assert_close(after, want_total.detach(), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(average, want.detach(), atol=1e-5, rtol=1e-2)
