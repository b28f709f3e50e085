"""Inference on the CPU: what the network itself gives, by compiled loops and laid out weights."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dyadic import CONFIG, exact_counts, exact_network

from spike_depth_ros.network import inference_kernels as kernels
from spike_depth_ros.network import inference_layers
from spike_depth_ros.network.inference import MAX_SHAPES, CpuInference, serves
from spike_depth_ros.network.inference_head import _between
from spike_depth_ros.network.inference_layers import (
    MAX_PACKED,
    Convolution,
    SpikeConvolution,
)
from spike_depth_ros.network.spiking_transformer import SpikingTransformer

needs_bytes = pytest.mark.skipif(
    not SpikeConvolution.is_available(), reason='this torch has no 8-bit convolutions here'
)


@pytest.fixture(
    scope='module',
    params=[
        {'neuron': 'lif'},
        {'neuron': 'plif'},
        {'heads': 1, 'mlp_ratio': 2, 'mlp_kernel': 1, 'depth': 3},
    ],
    ids=lambda change: ' '.join(map(str, change.values())),
)
def network(request) -> SpikingTransformer:
    return exact_network(dataclasses.replace(CONFIG, **request.param))


def prepared(network: SpikingTransformer) -> CpuInference:
    return CpuInference(network, torch.float32, 1)


def reference(network: SpikingTransformer, windows: list[np.ndarray]) -> list[np.ndarray]:
    """Maps of the network's own step, its state carried."""
    maps, state = [], None
    for window in windows:
        with torch.no_grad():
            prediction, state = network.step(torch.from_numpy(window)[:, None], state)
        maps.append(torch.cat(prediction, dim=1)[0].numpy())
    return maps


def counts(steps: int, height: int = 64, width: int = 64, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.choice([0, 1, 4, 9], (steps, 2, height, width), p=[0.85, 0.1, 0.03, 0.02]).astype(
        np.uint8
    )


def test_gives_the_maps_of_the_network(network):
    ready, memory = prepared(network), None
    windows = [exact_counts(seed=seed)[:, 0].numpy() for seed in range(3)]
    for window, want in zip(windows, reference(network, windows), strict=True):
        maps, memory = ready.step(window, memory)
        np.testing.assert_allclose(maps, want, atol=2e-5)
    assert memory.seen == 12


@pytest.mark.parametrize('size', [(8, 8), (40, 56), (72, 24)])
def test_maps_of_any_size(network, size):
    window = counts(2, *size)
    window[:, :, 4:] = 0  # few spikes, whose averages over tokens leave little to round
    maps, _ = prepared(network).step(window, None)
    assert maps.shape == (3, *size)
    # tokens that are no power of two make the scale of attention inexact: a spike may flip
    far = np.abs(maps - reference(network, [window])[0]) > 1e-4
    assert far.mean() < 0.01


def test_stream_equals_window(network):
    ready, memory = prepared(network), None
    window = exact_counts(steps=6)[:, 0].numpy()
    whole, end = ready.step(window, None)
    for part in (window[:1], window[1:4], window[4:]):
        maps, memory = ready.step(part, memory)
    np.testing.assert_allclose(maps, whole, atol=2e-5)
    for one, other in zip(memory.arrays, end.arrays, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize('dtype', [torch.float32, pytest.param(torch.int8, marks=needs_bytes)])
def test_streams_of_one_network_do_not_meet(network, dtype):
    ready = CpuInference(network, dtype, 1)
    first, second = (counts(2, seed=seed) for seed in (1, 2))
    _, memory = ready.step(first, None)
    want, _ = ready.step(second, memory)
    _, memory = ready.step(first, None)
    ready.step(second, None)  # of another stream
    maps, _ = ready.step(second, memory)
    np.testing.assert_array_equal(maps, want)


@needs_bytes
@pytest.mark.parametrize('stride', [1, 2])
def test_convolves_bytes_with_rounded_weights(stride):
    generator = torch.Generator().manual_seed(stride)
    conv = torch.nn.Conv2d(5, 6, 3, stride, padding=1).requires_grad_(False)
    conv.weight.copy_(torch.randn(conv.weight.shape, generator=generator))
    conv.weight[1] = 0
    spikes = (torch.rand((2, 5, 8, 8), generator=generator) < 0.3).to(torch.uint8)
    spikes = spikes.to(memory_format=torch.channels_last)
    rounded = conv.weight.clone()
    for channel in rounded:
        step = max(float(channel.abs().max()) / 127, 1e-9)
        channel.copy_((channel / step).round() * step)
    want = F.conv2d(spikes.float(), rounded, conv.bias, stride, 1)
    ready = SpikeConvolution(conv)
    np.testing.assert_allclose(ready(spikes), want, atol=1e-5)


def test_without_onednn_the_same(network, monkeypatch):
    window = exact_counts()[:, 0].numpy()
    want, _ = prepared(network).step(window, None)
    monkeypatch.setattr(Convolution, 'packs', False)
    monkeypatch.setattr(inference_layers, 'COUNTS_BYTES', False)
    maps, _ = prepared(network).step(window, None)
    np.testing.assert_allclose(maps, want, atol=2e-5)


@pytest.mark.parametrize('size', [(64, 80), (72, 64)])
def test_memory_of_another_size_is_refused(network, size):
    ready = prepared(network)
    _, memory = ready.step(counts(1, 64, 72), None)
    with pytest.raises(ValueError, match='begin at rest'):
        ready.step(counts(1, *size), memory)


@pytest.mark.parametrize(
    ('change', 'served'),
    [
        ({}, True),
        ({'heads': 1, 'mlp_ratio': 2, 'mlp_kernel': 1, 'tau': 3.0}, True),
        ({'stem': 'pool'}, False),
        ({'head': 'linear'}, False),
        ({'head_spiking': True}, False),
        ({'neuron': 'plif'}, True),
        ({'neuron': 'ilif'}, False),
    ],
)
def test_knows_which_networks_it_serves(change, served):
    assert serves(SpikingTransformer(dataclasses.replace(CONFIG, **change))) == served
    assert not serves(torch.nn.Identity())


def test_threads_that_share_a_network_take_turns(network):
    ready = prepared(network)
    windows = [counts(2, seed=seed) for seed in range(8)]
    wanted = [ready.step(window, None)[0] for window in windows]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda window: ready.step(window, None)[0], windows * 4))
    for maps, want in zip(found, wanted * 4, strict=True):
        np.testing.assert_array_equal(maps, want)


def test_what_is_kept_for_a_shape_is_bounded_and_makes_no_difference(network):
    ready = prepared(network)
    sizes = [(8 * n, 16) for n in range(1, MAX_PACKED + 3)]
    first = [ready.step(counts(1, *size), None)[0] for size in sizes]
    assert len(ready._kept) == MAX_SHAPES
    assert len(ready._head._out._packed) == MAX_PACKED
    for size, want in zip(sizes, first, strict=True):
        np.testing.assert_array_equal(ready.step(counts(1, *size), None)[0], want)


def test_keeps_to_its_threads(network):
    before = torch.get_num_threads()
    ready = CpuInference(network, torch.float32, 1)
    ready.step(counts(1), None)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)


@pytest.mark.parametrize('few', [(9, 11), (5, 1)])
def test_enlarges_as_torch_does(few):
    height, width = 2 * few[0] - 1, 2 * few[1]
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn((1, 3, *few), generator=generator)
    fine = torch.randn((1, 3, height, width), generator=generator)
    want = fine + F.interpolate(coarse, (height, width), mode='bilinear')
    here = fine[0].permute(1, 2, 0).contiguous().numpy()
    positive = np.empty_like(here)
    (rows, shares_y), (columns, shares_x) = _between(few[0], height), _between(few[1], width)
    source = coarse[0].permute(1, 2, 0).contiguous().numpy()
    kernels.enlarge(source, here, positive, rows, columns, shares_y, shares_x)
    np.testing.assert_allclose(here, want[0].permute(1, 2, 0), atol=1e-5)
    np.testing.assert_array_equal(positive, np.maximum(here, 0))


def test_unfolds_each_pixel_into_four():
    four = np.arange(2 * 3 * 8, dtype=np.float32).reshape(2, 3, 8)
    fine = np.full((4, 6, 2), -20, np.float32)
    kernels.unfold(four, fine)
    for y, x in np.ndindex(4, 6):
        part = 2 * (2 * (y % 2) + x % 2)  # upper left, upper right, lower left, lower right
        want = np.maximum(four[y // 2, x // 2, part : part + 2] - 20, 0)
        np.testing.assert_array_equal(fine[y, x], want)


@pytest.mark.parametrize('size', [(4, 5), (1, 1), (2, 1)])
def test_doubles_as_torch_does(size):
    maps = torch.randn((3, *size), generator=torch.Generator().manual_seed(0))
    out = np.empty((3, 2 * size[0], 2 * size[1]), np.float32)
    kernels.double(maps.numpy(), out)
    np.testing.assert_allclose(
        out, F.interpolate(maps[None], scale_factor=2, mode='bilinear')[0], atol=1e-6
    )


def test_bfloat16_is_rounded_to_even():
    values = torch.tensor([1.0, 1.00390625, 1.01171875, 3.3, 0.0]).view(1, 1, -1)
    values = values.float().contiguous()
    bits = values.bfloat16().view(torch.uint16).numpy()
    total, out = np.full((1, 5), 7, np.float32), np.empty((1, 1, 5), np.uint16)
    zero, one = np.zeros(5, np.float32), np.ones(5, np.float32)
    third = (one / np.float32(3)).astype(np.float32)
    nothing = np.zeros_like(bits)
    kernels.add_and_average(bits, nothing, one, zero, total, zero, third, out, 0, True)
    np.testing.assert_array_equal(total[0], values.bfloat16().float()[0, 0])
    want = (torch.from_numpy(total) * torch.from_numpy(third)).bfloat16().view(torch.uint16)
    np.testing.assert_array_equal(out[0], want.numpy())
