"""The rivals have the published sizes, one interface, and the memory they claim."""

import pytest
import torch

from spike_depth_ros.events.config import ConfigError
from spike_depth_ros.network.baselines import UNet, UNetConfig, bins_as_channels
from spike_depth_ros.network.registry import MODELS, PRESETS, build
from spike_depth_ros.network.spike_t import SwinBlock, _merge, _partition

torch.set_num_threads(1)
RIVALS = ('unet', 'e2depth', 'spike_t')


def spikes(steps=4, batch=2, height=24, width=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (steps, batch, 2, height, width)
    return torch.randint(0, 3, shape, generator=generator, dtype=torch.uint8)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ('preset', 'published'),
    [('unet_published', 10.7e6), ('e2depth_published', 10.7e6), ('spike_t_published', 20.55e6)],
)
def test_parameter_counts_as_published(preset, published):
    with torch.device('meta'):
        assert parameters(build(preset)) == pytest.approx(published, rel=0.02)


@pytest.mark.parametrize(
    ('preset', 'rel'),
    [('unet_small', 0.03), ('e2depth_small', 0.03), ('spike_t_small', 0.1)],  # steps of 3
)
def test_small_widths_match_the_small_spiking_network(preset, rel):
    assert parameters(build(preset)) == pytest.approx(parameters(build('small')), rel=rel)


@pytest.mark.parametrize('name', RIVALS)
@pytest.mark.parametrize('size', [(24, 32), (33, 50)])
def test_any_size_in_the_same_size_out(name, size):
    torch.manual_seed(0)
    model = build(name).eval()
    prediction = model(spikes(height=size[0], width=size[1]))
    for maps in prediction:
        assert maps.shape == (2, 1, *size)
        assert maps.isfinite().all()
    assert (prediction.log_depth >= 0).all()
    assert (prediction.log_depth <= 1).all()


@pytest.mark.parametrize('name', RIVALS)
def test_samples_of_a_batch_do_not_see_each_other(name):
    torch.manual_seed(0)
    model = build(name).eval()
    x = spikes()
    both, alone = model(x), model(x[:, 1:])
    torch.testing.assert_close(both.log_depth[1:], alone.log_depth, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', RIVALS)
def test_every_parameter_learns(name):
    torch.manual_seed(0)
    model = build(name)
    second = model.step(spikes(seed=1), model.step(spikes())[1])[0]
    sum(maps.square().mean() for maps in second).backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle


def test_only_e2depth_remembers():
    torch.manual_seed(0)
    for name in RIVALS:
        model = build(name).eval()
        before, now = spikes(seed=1), spikes(seed=2)
        rest = model(now).log_depth
        carried = model.step(now, model.step(before)[1])[0].log_depth
        assert torch.equal(rest, carried) == (name != 'e2depth')
        torch.testing.assert_close(model.step(now)[0].log_depth, rest)


def test_bins_become_channels_in_time_order():
    x = torch.zeros(2, 1, 2, 1, 1)
    x[0, 0, 1], x[1, 0, 0] = 1, 3
    expected = torch.log1p(torch.tensor([0.0, 1.0, 3.0, 0.0]))
    torch.testing.assert_close(bins_as_channels(x, 2).flatten(), expected)
    with pytest.raises(ValueError, match='T = 4'):
        UNet(UNetConfig(steps=4))(x)


def test_windows_partition_and_merge():
    x = torch.arange(2 * 3 * 14 * 21 * 2.0).view(2, 3, 14, 21, 2)
    windows = _partition(x)
    assert windows.shape == (2 * 2 * 3, 3 * 49, 2)
    # window (row 1, column 2) of the second image, its token of block 1, row 3, column 4
    assert torch.equal(windows[6 + 3 + 2][49 + 3 * 7 + 4], x[1, 1, 7 + 3, 14 + 4])
    assert torch.equal(_merge(windows, x.shape), x)


@pytest.mark.parametrize('shifted', [False, True])
def test_windowed_attention_against_a_loop_over_pairs(shifted):
    torch.manual_seed(0)
    block = SwinBlock(6, 3, 2, shifted).double().eval()
    x = torch.randn(1, 2, 10, 9, 6, dtype=torch.double)
    got = block._attend(x)
    shift = 3 if shifted else 0
    d, h, w = 2, 10, 9
    q, k, v = block.qkv(x).view(d, h, w, 3, 3, 2).permute(3, 4, 0, 1, 2, 5)
    padded_h, padded_w = 14, 14

    def window(row, column):
        # windows are cut after a cyclic shift; what wrapped round is a window part of its own
        r, c = (row - shift) % padded_h, (column - shift) % padded_w
        return r // 7, c // 7, row < shift, column < shift

    def bias(head, a, b):
        offset = [
            (i - shift) % n - (j - shift) % n if n == 14 else i - j
            for i, j, n in zip(a, b, (2, 14, 14), strict=True)
        ]
        row = ((offset[0] + 1) * 13 + offset[1] + 6) * 13 + offset[2] + 6
        return block.bias[row, head]

    for place in [(0, 0, 0), (1, 4, 5), (0, 9, 8), (1, 2, 8)]:
        others = [
            (t, i, j) for t in range(d) for i in range(h) for j in range(w)
            if window(i, j) == window(*place[1:])
        ]  # fmt: skip
        heads = []
        for head in range(3):
            score = torch.stack(
                [q[head][place] @ k[head][o] / 2**0.5 + bias(head, place, o) for o in others]
            )
            heads.append(score.softmax(0) @ torch.stack([v[head][o] for o in others]))
        torch.testing.assert_close(got[0][place], block.project(torch.cat(heads)))


def test_networks_bound_to_a_number_of_bins_get_it():
    assert build('unet', steps=8).config.steps == 8
    assert build('unet', {'steps': 2}, steps=8).config.steps == 2
    assert build('e2depth_small').config.steps == 4
    build('tiny', steps=8)  # takes any number


def test_unknown_names_and_fields_are_refused():
    with pytest.raises(ConfigError, match='no network'):
        build('resnet')
    with pytest.raises(ConfigError, match='no field'):
        build('unet', {'depth': 3})
    for preset, (name, _) in PRESETS.items():
        assert name in MODELS, preset
