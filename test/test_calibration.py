"""The last layer takes another depth range, and confidence that says how often it is right."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn
from untrained import untrained_checkpoint

from spike_depth_ros.estimation.familiarity import from_card
from spike_depth_ros.events.config import ConfigError, DepthRange, SpikeConfig
from spike_depth_ros.learning.calibration import (
    Calibration,
    Outputs,
    apply_calibration,
    change_range,
    collect_outputs,
    fit_calibration,
    interpolate,
    output_layer,
)
from spike_depth_ros.learning.datasets.sample import Sample
from spike_depth_ros.network.checkpoint import load_checkpoint, save_checkpoint
from spike_depth_ros.network.registry import build

torch.set_num_threads(1)
LN_RATIO = math.log(1.25)


def spikes(seed=0, height=32, width=48):
    rng = np.random.default_rng(seed)
    return rng.poisson(0.3, (4, 2, height, width)).astype(np.uint8)


def answer_of(network, seed=0):
    with torch.no_grad():
        return network(torch.from_numpy(spikes(seed))[:, None])


@pytest.mark.parametrize('name', ['tiny', 'unet_small', 'e2depth_small', 'spike_t_small'])
def test_every_network_has_one_output_layer(name):
    with torch.device('meta'):
        network = build(name, {}, 4)
    assert output_layer(network).out_channels == 3


def test_a_network_without_such_a_layer_is_refused():
    with pytest.raises(ConfigError, match='no last convolution'):
        output_layer(nn.Sequential(nn.Conv2d(3, 4, 1)))


def test_another_range_means_nearly_the_same_metres():
    old, new = DepthRange(), DepthRange(min_m=0.2, focal_px=200.0)
    network = copy.deepcopy(untrained_checkpoint('tiny').model)
    layer = output_layer(network)
    with torch.no_grad():  # outputs that spread over the range
        layer.weight[0] *= 1.5 / answer_of(network).log_depth.logit().std()
        layer.bias[0] += 0.6 - answer_of(network).log_depth.logit().mean()
    before = answer_of(network)
    change_range(network, old, new)
    after = answer_of(network)
    metres = old.denormalise(before.log_depth.numpy()) / old.focal_px
    same = new.denormalise(after.log_depth.numpy()) / new.focal_px
    inside = (before.log_depth.numpy() > 0.15) & (before.log_depth.numpy() < 0.95)
    assert inside.mean() > 0.5
    assert np.median(np.abs(np.log(same / metres))[inside]) < 0.1
    assert torch.equal(after.range_logit, before.range_logit)
    assert torch.equal(after.log_scale, before.log_scale)


def simulated(scale_gain, scale_offset, range_gain, count=200_000):
    """Pixels that hit exactly as often as the outputs, once calibrated so, say."""
    rng = np.random.default_rng(0)
    raw, logit = rng.normal(-1.0, 1.0, count), rng.normal(1.0, 2.0, count)
    ln_b = -1.5 + 4.0 * np.tanh((scale_gain * raw + scale_offset) / 4.0)
    near = rng.random(count) < 1 / (1 + np.exp(-range_gain * logit))
    hit = near & (rng.random(count) < 1 - np.exp(-LN_RATIO / np.exp(ln_b)))
    parts = (raw, logit, near, hit)
    return Outputs(*(torch.tensor(x, dtype=torch.float32) for x in parts[:2]),
                   *(torch.tensor(x) for x in parts[2:]))  # fmt: skip


def test_the_fit_finds_what_made_the_data():
    found = fit_calibration(simulated(0.6, 0.9, 0.4))
    assert found == pytest.approx((0.6, 0.9, 0.4), abs=0.03)
    assert fit_calibration(simulated(1.0, 0.0, 1.0)) == pytest.approx((1, 0, 1), abs=0.03)


def test_without_pixels_beyond_range_its_output_stays():
    outputs = simulated(1.0, 0.5, 1.0)
    rooms = Outputs(*(part[outputs.in_range] for part in outputs))
    assert fit_calibration(rooms).range_gain == 1.0


def test_a_calibration_is_built_into_the_weights():
    network = copy.deepcopy(untrained_checkpoint('tiny').model)
    before = answer_of(network)
    apply_calibration(network, Calibration(0.5, 1.0, 0.25))
    after = answer_of(network)
    assert torch.equal(after.log_depth, before.log_depth)
    torch.testing.assert_close(after.range_logit, 0.25 * before.range_logit)
    assert (after.log_scale > before.log_scale).any()
    # the output is bounded before it is enlarged: compare where both are one pixel's own value
    raw = 4.0 * torch.atanh((before.log_scale + 1.5) / 4.0)
    expected = -1.5 + 4.0 * torch.tanh((0.5 * raw + 1.0) / 4.0)
    torch.testing.assert_close(after.log_scale, expected, atol=0.02, rtol=0)


def test_outputs_are_those_at_the_end_of_a_clip():
    checkpoint = untrained_checkpoint('tiny')
    depth_m = np.full((30, 45), 8.0, np.float32)
    depth_m[:10], depth_m[10:12] = np.inf, np.nan
    meta = {'focal_px': 256.0}
    clip = [Sample(spikes(k), depth_m, np.isfinite(depth_m), None, meta) for k in range(2)]
    found = collect_outputs(checkpoint, [clip])
    assert len(found.hit) == 28 * 45  # fewer than the limit: every known pixel
    assert int(found.in_range.sum()) == 18 * 45
    state = None
    with torch.no_grad():
        for sample in clip:
            seen = torch.from_numpy(sample.spikes)[:, None]
            answer, state = checkpoint.model.step(seen, state)
    known = ~np.isnan(depth_m)
    inside = answer.range_logit[0, 0, :30, :45].numpy()[known]
    np.testing.assert_allclose(found.range_logit, inside, atol=1e-4)
    metres = checkpoint.depth_range.denormalise(answer.log_depth[0, 0, :30, :45].numpy())[known]
    right = np.isfinite(depth_m[known]) & (np.abs(np.log(metres / 8.0)) < LN_RATIO)
    assert (found.hit.numpy() == right).mean() > 0.999
    unknown = [clip[0]._replace(depth_m=np.full_like(depth_m, np.nan))]
    with pytest.raises(ConfigError, match='no known depth'):
        collect_outputs(checkpoint, [unknown])


def test_the_verb_writes_a_calibrated_checkpoint(tmp_path, monkeypatch):
    from spike_depth_ros.cli import main
    from spike_depth_ros.learning.datasets import DATASETS

    @dataclasses.dataclass(frozen=True)
    class Config:
        seed: int = 0

    class Entry:
        config = Config

        def __call__(self, config):
            depth_m = np.full((32, 48), 8.0, np.float32)
            depth_m[:10] = np.inf
            meta = {'focal_px': 256.0, 'window_ns': 50_000_000}
            return [[Sample(spikes(config.seed + k), depth_m, depth_m < 99, None, meta)]
                    for k in range(3)]  # fmt: skip

    monkeypatch.setitem(DATASETS, 'walls', Entry())
    before, after = tmp_path / 'a.safetensors', tmp_path / 'b.safetensors'
    save_checkpoint(before, untrained_checkpoint('tiny'))
    sets = '{one: {seed: 1}, two: {seed: 2}}'
    main(['calibrate', str(before), '--out', str(after), '--data.name', 'walls',
          '--data.sets', sets, '--data.clips', '2'])  # fmt: skip
    loaded = load_checkpoint(after)
    facts = loaded.card['calibration']
    assert facts['clips'] == 4
    assert (from_card(loaded.card) is None) == (loaded.card['familiarity']['power'] == 0)
    old, new = (answer_of(load_checkpoint(path).model) for path in (before, after))
    assert torch.equal(old.log_depth, new.log_depth)
    torch.testing.assert_close(new.range_logit, facts['range_gain'] * old.range_logit)


def test_weights_between_two_networks():
    first, second = untrained_checkpoint('tiny', seed=0), untrained_checkpoint('tiny', seed=1)
    between = interpolate(first, second, 0.75).state_dict()
    pairs = zip(first.model.state_dict().items(), second.model.state_dict().values(), strict=True)
    for (name, a), b in pairs:
        if a.is_floating_point():
            torch.testing.assert_close(between[name], 0.25 * a + 0.75 * b)
    other = dataclasses.replace(second, depth_range=DepthRange(min_m=0.2))
    start = interpolate(first, other, 0.0)
    expected = copy.deepcopy(first.model)
    change_range(expected, first.depth_range, other.depth_range)
    assert torch.equal(output_layer(start).bias, output_layer(expected).bias)
    with pytest.raises(ConfigError, match='expected the same'):
        interpolate(first, untrained_checkpoint('small'), 0.5)


def test_the_verb_writes_an_average(tmp_path):
    from spike_depth_ros.cli import main

    files = [tmp_path / name for name in ('a.safetensors', 'b.safetensors', 'c.safetensors')]
    for seed, file in enumerate(files[:2]):
        plain = untrained_checkpoint('tiny', seed=seed)
        card = plain.card | {'calibration': {}, 'familiarity': {}}
        save_checkpoint(file, dataclasses.replace(plain, card=card))
    main(['average', *map(str, files[:2]), '--share', '0.25', '--out', str(files[2])])
    bias = [output_layer(load_checkpoint(file).model).bias for file in files]
    torch.testing.assert_close(bias[2], 0.75 * bias[0] + 0.25 * bias[1])
    card = load_checkpoint(files[2]).card
    assert card['average']['share'] == 0.25
    assert not {'calibration', 'familiarity'} & set(card)  # they held for other weights


def test_the_verb_adds_a_change_to_a_third_network(tmp_path):
    from spike_depth_ros.cli import main

    files = [tmp_path / f'{name}.safetensors' for name in 'abcd']
    for seed, file in enumerate(files[:3]):
        found = untrained_checkpoint('tiny', seed=seed)
        spikes = SpikeConfig(steps=2 if seed == 2 else 4)
        save_checkpoint(file, dataclasses.replace(found, spikes=spikes))
    main(['average', *map(str, files[:2]), '--share', '0.5', '--onto', str(files[2]),
          '--out', str(files[3])])  # fmt: skip
    bias = [output_layer(load_checkpoint(file).model).bias for file in files]
    torch.testing.assert_close(bias[3], bias[2] + 0.5 * (bias[1] - bias[0]))
    assert load_checkpoint(files[3]).spikes.steps == 2
