"""Neurons: every backend gives spikingjelly's spikes to the bit and its gradients to 1e-6."""

import pytest
import torch
from spikingjelly.activation_based import functional, surrogate
from spikingjelly.activation_based import neuron as reference

from spike_depth_ros.events.config import ConfigError
from spike_depth_ros.network.neurons import (
    BACKENDS,
    LEAK_GAIN,
    SURROGATES,
    Neuron,
    Tape,
    set_backend,
)

SHAPE = (4, 2, 6, 9, 7)  # T, B, C, H, W; N is no multiple of any vector length
OURS = [backend for backend in BACKENDS if backend != 'spikingjelly']


def currents(scale: float = 1.5) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)) * scale


def run(neuron: Neuron, current: torch.Tensor, membrane: torch.Tensor | None):
    """Spikes, last membrane, and the gradients by current and first membrane."""
    x = current.clone().requires_grad_()
    v = torch.zeros(current.shape[1:]) if membrane is None else membrane.clone()
    tape = Tape([v.requires_grad_()])
    spikes = neuron(x, tape)
    weights = torch.linspace(-1, 1, spikes.numel(), device=x.device).view(spikes.shape)
    ((spikes * weights).sum() + (tape.after[0] * weights[0]).sum()).backward()
    return spikes.detach(), tape.after[0].detach(), x.grad, v.grad


def expected(kind: str, slope: str, current: torch.Tensor, membrane: torch.Tensor | None):
    """The same from spikingjelly's own modules."""
    spike = {'atan': surrogate.ATan(), 'sigmoid': surrogate.Sigmoid()}[slope]
    node = (
        reference.LIFNode(2.0, True, 1.0, 0.0, spike, detach_reset=True, step_mode='m')
        if kind == 'lif'
        else reference.ILIFNode(2.0, 1.0, surrogate.MultiLevelSpikeCount(4), True, 'm')
    )
    x = current.clone().requires_grad_()
    v = torch.zeros(current.shape[1:]) if membrane is None else membrane.clone()
    node.v = v.requires_grad_()
    spikes = node(x)
    weights = torch.linspace(-1, 1, spikes.numel()).view(spikes.shape)
    ((spikes * weights).sum() + (node.v * weights[0]).sum()).backward()
    return spikes.detach(), node.v.detach(), x.grad, v.grad


@pytest.mark.parametrize('slope', SURROGATES)
@pytest.mark.parametrize('kind', ['lif', 'ilif'])
@pytest.mark.parametrize('backend', OURS)
@pytest.mark.parametrize('at_rest', [True, False])
def test_equals_spikingjelly(backend, kind, slope, at_rest):
    membrane = None if at_rest else torch.rand(SHAPE[1:]) * 0.9
    layer = Neuron(6, 8, kind, surrogate=slope)
    layer.backend = backend
    spikes, after, by_current, by_membrane = run(layer, currents(), membrane)
    want = expected(kind, slope, currents(), membrane)
    assert torch.equal(spikes, want[0])
    assert torch.equal(after, want[1])
    torch.testing.assert_close(by_current, want[2], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(by_membrane, want[3], atol=1e-6, rtol=1e-6)
    assert 0.02 < (spikes > 0).float().mean() < 0.5


def plif(backend: str = 'auto') -> Neuron:
    """A layer whose channels have taken time constants from 1.1 to 10 steps."""
    layer = set_backend(Neuron(6, 8, 'plif'), backend)
    tau = torch.tensor([1.1, 1.5, 2.0, 3.0, 5.0, 10.0])
    with torch.no_grad():
        layer.leak.copy_(-(tau - 1).log() / LEAK_GAIN)
    torch.testing.assert_close(layer.share(), 1 / tau)
    return layer


@pytest.mark.parametrize('slope', SURROGATES)
@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('at_rest', [True, False])
def test_learnt_time_constants_equal_spikingjelly(backend, slope, at_rest):
    layer = plif(backend)
    layer.surrogate = slope
    membrane = torch.zeros(SHAPE[1:]) if at_rest else torch.rand(SHAPE[1:]) * 0.9
    spikes, after, by_current, by_membrane = run(layer, currents(5.0), membrane)
    x, v = currents(5.0).requires_grad_(), membrane.clone().requires_grad_()
    w = (LEAK_GAIN * layer.leak.detach()).view(-1, 1, 1).requires_grad_()
    spike = {'atan': surrogate.ATan(), 'sigmoid': surrogate.Sigmoid()}[slope]
    want, last, _ = functional.plif_multi_step(x, v, w, True, 1.0, 0.0, spike, True)
    weights = torch.linspace(-1, 1, want.numel()).view(want.shape)
    ((want * weights).sum() + (last * weights[0]).sum()).backward()
    assert torch.equal(spikes, want)
    assert torch.equal(after, last)
    torch.testing.assert_close(by_current, x.grad, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(by_membrane, v.grad, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(layer.leak.grad, LEAK_GAIN * w.grad.flatten(), atol=1e-4, rtol=1e-5)
    assert (spikes.mean((0, 1, 3, 4)) > 0.01).all()


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_learnt_time_constants_in_inference(dtype):
    current, membrane = currents().to(dtype), torch.rand(SHAPE[1:])
    with torch.no_grad():
        tape, reference_tape = Tape([membrane]), Tape([membrane])
        spikes = plif()(current, tape)
        want = plif('torch')(current.float(), reference_tape)
    assert spikes.dtype == dtype
    assert torch.equal(spikes.float(), want)
    assert torch.equal(tape.after[0], reference_tape.after[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')
@pytest.mark.parametrize('slope', SURROGATES)
@pytest.mark.parametrize('kind', ['lif', 'plif'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('at_rest', [True, False])
def test_one_kernel_on_a_gpu_gives_what_its_steps_give(kind, slope, dtype, channels_last, at_rest):
    layer = plif().cuda() if kind == 'plif' else Neuron(6, 8, tau=3.0).cuda()
    layer.surrogate = slope
    current = currents(3.0).to('cuda', dtype)
    if channels_last:
        current = current.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    membrane = torch.zeros(SHAPE[1:]) if at_rest else torch.rand(SHAPE[1:]) * 0.9
    results = []
    for backend in ('auto', 'torch'):
        layer.zero_grad()
        results.append([*run(set_backend(layer, backend), current, membrane.cuda()),
                        *(p.grad.clone() for p in layer.parameters())])  # fmt: skip
    (spikes, after, *gradients), (want, last, *by_steps) = results
    assert torch.equal(spikes, want)
    assert torch.equal(after, last)
    exact = dtype == torch.float32
    for got, expected_ in zip(gradients[:2], by_steps[:2], strict=True):
        tolerance = 1e-6 if exact else 2e-2
        torch.testing.assert_close(got, expected_, atol=tolerance, rtol=tolerance)
    for got, expected_ in zip(gradients[2:], by_steps[2:], strict=True):  # sums over all pixels
        tolerance = 1e-4 if exact else 5e-2
        torch.testing.assert_close(got, expected_, atol=tolerance, rtol=tolerance)
    assert 0.01 < spikes.float().mean() < 0.6


@pytest.mark.parametrize('kind', ['lif', 'plif'])
@pytest.mark.parametrize('backend', BACKENDS)
def test_by_hand(backend, kind):
    # tau 2: h = (v + x) / 2; the second step reaches 1 exactly and fires, the third starts at 0
    layer = Neuron(1, 1, kind)
    layer.backend = backend
    tape = Tape([torch.zeros(1, 1, 1, 1)])
    spikes = layer(torch.tensor([1.5, 1.25, 1.5, 1.0]).view(4, 1, 1, 1, 1), tape)
    assert spikes.flatten().tolist() == [0, 1, 0, 0]
    assert tape.after[0].item() == 0.875


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('channels_last', [False, True])
def test_inference_in_any_layout(dtype, channels_last):
    current = currents().to(dtype)
    if channels_last:
        current = current.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    membrane = torch.rand(SHAPE[1:])
    tape = Tape([membrane])
    with torch.no_grad():
        spikes = Neuron(6, 8)(current, tape)
    want = expected('lif', 'atan', current.float(), membrane)
    assert spikes.dtype == dtype
    assert spikes.stride() == current.stride()
    assert torch.equal(spikes.float(), want[0])
    assert torch.equal(tape.after[0], want[1])


def test_training_channels_last():
    layer = Neuron(6, 8)
    last = currents().permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    for got, want in zip(run(layer, last, None), run(layer, currents(), None), strict=True):
        assert torch.equal(got, want)


def test_inference_leaves_its_state_alone():
    membrane = torch.rand(SHAPE[1:])
    kept = membrane.clone()
    with torch.no_grad():
        Neuron(6, 8)(currents(), Tape([membrane]))
    assert torch.equal(membrane, kept)


def test_bfloat16_training_spikes_as_float32_does():
    rounded = currents().bfloat16()
    spikes, after, grad, _ = run(Neuron(6, 8), rounded, None)
    want = run(Neuron(6, 8), rounded.float(), None)
    assert torch.equal(spikes.float(), want[0])
    assert torch.equal(after, want[1])
    torch.testing.assert_close(grad.float(), want[2], atol=1e-2, rtol=1e-2)


def test_integer_spikes_are_binary_slots():
    # what hardware sees of an integer LIF: slot d of a count c holds 1 where d < c, so that
    # W c = sum over d of W slot_d (arXiv 2407.20708, eq. 8), an addition of weights
    neuron = Neuron(3, 8, 'ilif', levels=4)
    counts = neuron(4 * currents()[:, :, :3], Tape())
    assert set(counts.unique().tolist()) == {0.0, 1.0, 2.0, 3.0, 4.0}
    slots = [(slot < counts).float() for slot in range(4)]
    conv = torch.nn.Conv2d(3, 5, 3, bias=False)
    whole = sum(conv(slot.flatten(0, 1)) for slot in slots)
    torch.testing.assert_close(whole, conv(counts.flatten(0, 1)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    'wrong', [{'kind': 'izhikevich'}, {'tau': 1.0}, {'threshold': 0.0}, {'surrogate': 'relu'},
              {'levels': 0}],
)  # fmt: skip
def test_refuses_what_cannot_be(wrong):
    with pytest.raises(ConfigError, match=str(next(iter(wrong.values())))):
        Neuron(4, 8, **wrong)
    with pytest.raises(ConfigError, match='abacus'):
        set_backend(Neuron(4, 8), 'abacus')
