"""Fused parts of a training step: numbers and gradients of the layers that they replace."""

import copy

import pytest
import torch
from torch import nn

from spike_depth_ros.network import fused, fused_layout
from spike_depth_ros.network.encoder import SpikingSelfAttention, SpikingTransformerConfig
from spike_depth_ros.network.layers import Readout
from spike_depth_ros.network.neurons import Neuron, Tape, set_backend

SHAPE = (3, 2, 10, 7, 9)  # T, B, C, H, W; no multiple of any vector length


def normal(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def norm_layer() -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(SHAPE[2])
    nn.init.normal_(norm.weight, 2.0, 0.3, generator=torch.Generator().manual_seed(5))
    nn.init.normal_(norm.bias, 0.5, 0.3, generator=torch.Generator().manual_seed(6))
    return norm


def in_layout(x: torch.Tensor, channels_last: bool) -> torch.Tensor:
    if not channels_last:
        return x
    return x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)


def gradients(outputs: list[torch.Tensor], leaves: list[torch.Tensor]) -> list[torch.Tensor]:
    """Of a sum of the outputs in which every element weighs something else."""
    loss = sum((y * normal(tuple(y.shape), seed=9)).sum() for y in outputs)
    return list(torch.autograd.grad(loss, leaves))


def assert_close(got: list[torch.Tensor], want: list[torch.Tensor], atol: float = 1e-6) -> None:
    for one, other in zip(got, want, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(
            one, other, atol=atol * float(other.detach().abs().max()), rtol=1e-6
        )


def both_ways(x, residual, membrane, surrogate='atan', tau=2.0, kind='lif'):
    """Outputs, gradients and norm of a normalised layer of neurons, in one go and in parts."""
    results = []
    for backend in ('fused', 'torch'):
        neuron = set_backend(Neuron(SHAPE[2], 1, kind, tau, surrogate=surrogate), backend)
        own = list(neuron.parameters())
        for leak in own:
            nn.init.normal_(leak, 0.0, 0.1, generator=torch.Generator().manual_seed(7))
        norm = norm_layer()
        leaves = [x.clone().requires_grad_(), norm.weight, norm.bias]
        tape = Tape()
        if membrane is not None:
            leaves.append(membrane.clone().requires_grad_())
            tape = Tape([leaves[-1]])
        if residual is None:
            outputs = [neuron(leaves[0], tape, norm)]
        else:
            leaves.append(residual.clone().requires_grad_())
            outputs = list(neuron.join(leaves[0], tape, norm, leaves[-1]))
        outputs.append(tape.after[0])
        results.append((outputs, gradients(outputs, [*leaves, *own]), norm))
    return results


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('joins', [False, True])
@pytest.mark.parametrize('at_rest', [False, True])
@pytest.mark.parametrize('kind', ['lif', 'plif'])
def test_normalised_neurons_equal_their_parts(channels_last, joins, at_rest, kind):
    x = in_layout(normal() * 3 + 1, channels_last)
    residual = in_layout(normal(seed=1), channels_last) if joins else None
    membrane = None if at_rest else torch.rand(SHAPE[1:])
    (outputs, grads, norm), (want, want_grads, want_norm) = both_ways(
        x, residual, membrane, kind=kind
    )
    spikes = want[-2]
    assert 0.05 < spikes.mean() < 0.6
    assert torch.equal(outputs[-2], spikes)
    assert_close(outputs, want)
    assert_close(grads, want_grads)
    assert_close(list(norm.buffers())[:2], list(want_norm.buffers())[:2])
    assert norm.num_batches_tracked == want_norm.num_batches_tracked == 1


@pytest.mark.parametrize(
    ('surrogate', 'tau', 'kind'),
    [('sigmoid', 2.0, 'lif'), ('atan', 3.0, 'lif'), ('sigmoid', 2.0, 'plif')],
)
def test_other_dynamics(surrogate, tau, kind):
    (outputs, grads, _), (want, want_grads, _) = both_ways(
        normal(), None, None, surrogate, tau, kind
    )
    assert torch.equal(outputs[0], want[0])
    assert_close(grads, want_grads)


def test_bfloat16_learns_as_float32_does():
    x, residual = normal().bfloat16(), normal(seed=1).bfloat16()
    (outputs, grads, _), _ = both_ways(x, residual, None)
    _, (want, want_grads, _) = both_ways(x.float(), residual.float(), None)
    assert [y.dtype for y in outputs] == [torch.bfloat16, torch.bfloat16, torch.float32]
    # a current next to the threshold may be rounded across it
    assert (outputs[1].float() != want[1]).float().mean() < 2e-3
    for got, other in zip(grads, want_grads, strict=True):
        assert (got.float() - other).norm() < 0.02 * other.norm()


@pytest.mark.parametrize('momentum', [0.1, None])
def test_normalisation_equals_torch(momentum):
    norm, reference = norm_layer(), norm_layer()
    norm.momentum = reference.momentum = momentum
    x, residual = (normal() * 2 - 5).requires_grad_(), normal(seed=1).requires_grad_()
    for seed in (0, 1):  # twice, for the running statistics
        batch = x + seed
        got = fused.normalise(batch, norm, residual)
        want = residual + reference(batch.flatten(0, 1)).view_as(batch)
        assert_close([got], [want])
        assert_close(
            gradients([got], [x, residual, norm.weight, norm.bias]),
            gradients([want], [x, residual, reference.weight, reference.bias]),
        )
    assert_close(list(norm.buffers())[:2], list(reference.buffers())[:2])
    assert norm.num_batches_tracked == 2


def test_a_mean_far_from_zero_keeps_its_digits():
    norm, reference = norm_layer(), norm_layer().double()
    x = normal() + 1000
    want = reference(x.flatten(0, 1).double()).view_as(x)
    torch.testing.assert_close(fused.normalise(x, norm), want.float(), atol=1e-3, rtol=0)


@pytest.mark.parametrize('heads', [1, 2])
def test_attention_equals_its_parts(heads):
    attention = SpikingSelfAttention(SpikingTransformerConfig(dim=16, heads=heads))
    plain = set_backend(copy.deepcopy(attention), 'torch')
    qkv = (torch.rand(3, 2, 48, 4, 5) < 0.3).float().requires_grad_()
    scale = torch.rand(16, requires_grad=True)
    for scales in (None, scale):
        got, want = attention.attend(qkv, scales), plain.attend(qkv, scales)
        of = [qkv] if scales is None else [qkv, scale]
        assert_close([got], [want])
        assert_close(gradients([got], of), gradients([want], of))


def test_readout_equals_its_parts():
    readout = Readout(SHAPE[2], 8)
    plain = set_backend(copy.deepcopy(readout), 'torch')
    x, total = normal().requires_grad_(), normal(SHAPE[1:], seed=1).requires_grad_()
    seen = torch.tensor([0.0, 4.0])
    for before in (None, total):
        results = []
        for layer in (readout, plain):
            outputs = list(layer(x, before, seen))
            of = [x, layer.logit] if before is None else [x, layer.logit, total]
            results.append((outputs, gradients(outputs, of)))
        assert_close(results[0][0], results[1][0])
        assert_close(results[0][1], results[1][1])


def test_threads_share_the_work(monkeypatch):
    x, residual, membrane = normal(), normal(seed=1), torch.rand(SHAPE[1:])
    (whole, grads, _), _ = both_ways(x, residual, membrane)
    monkeypatch.setattr(fused_layout, '_WORTH_A_THREAD', 1)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 3)
    (parts, part_grads, _), _ = both_ways(x, residual, membrane)
    assert_close(parts, whole)
    assert_close(part_grads, grads)
