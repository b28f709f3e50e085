"""Losses against numbers computed by hand and against loops over pixels."""

import math

import pytest
import torch

from spike_depth_ros.events.config import ConfigError, DepthRange
from spike_depth_ros.learning import losses
from spike_depth_ros.learning.settings import LossConfig
from spike_depth_ros.network.head import Prediction

torch.set_num_threads(1)
NAN, INF = math.nan, math.inf


def image(rows):
    """(1, 1, H, W) from rows."""
    return torch.tensor([[rows]], dtype=torch.float64)


def random_pair(seed=0, shape=(3, 1, 9, 11)):
    generator = torch.Generator().manual_seed(seed)
    residual = torch.randn(shape, generator=generator, dtype=torch.float64)
    return residual, torch.rand(shape, generator=generator) < 0.7


def test_target_is_canonical_and_knows_three_kinds_of_pixel():
    depth_range = DepthRange(min_m=1.0, max_m=100.0, focal_px=200.0)
    depth_m = torch.tensor([[[[10.0, NAN, INF, 60.0, 0.1]]], [[[10.0, 0.0, -INF, 99.0, 101.0]]]])
    truth = losses.target(depth_m, torch.tensor([100.0, 200.0]), depth_range)
    # the first camera has half the canonical focal length: things look twice as far
    assert truth.in_range.tolist() == [[[[True, False, False, False, True]]],
                                       [[[True, False, False, True, False]]]]  # fmt: skip
    assert truth.beyond.tolist() == [[[[False, False, True, True, False]]],
                                     [[[False, False, False, False, True]]]]  # fmt: skip
    expected = [math.log(20), 0, 0, 0, 0, math.log(10), 0, 0, math.log(99), 0]
    torch.testing.assert_close(truth.log_depth.flatten(), torch.tensor(expected))


def test_natural_log_inverts_the_normalised_depth():
    depth_range = DepthRange()
    metres = torch.tensor([0.5, 3.0, 77.0, 100.0])
    normalised = torch.as_tensor(depth_range.normalise(metres.numpy()))
    torch.testing.assert_close(losses.natural_log(normalised, depth_range), metres.log())


def test_scale_invariant_by_hand():
    residual, mask = image([[1.0, 3.0, 99.0]]), torch.tensor([[[[True, True, False]]]])
    # mean of squares 5, mean 2
    assert losses.scale_invariant(residual, mask, 0.0).item() == pytest.approx(5)
    assert losses.scale_invariant(residual, mask, 0.5).item() == pytest.approx(3)
    assert losses.scale_invariant(residual, mask, 1.0).item() == pytest.approx(1)


def test_scale_invariant_against_pairs():
    residual, mask = random_pair()
    expected = 0.0
    for r, m in zip(residual, mask, strict=True):
        d = r[m]
        pairs = (d[:, None] - d[None, :]) ** 2  # Eigen et al., eq. 2: the same loss over pairs
        expected += pairs.sum().item() / (2 * d.numel() ** 2) / 3
    assert losses.scale_invariant(residual, mask, 1.0).item() == pytest.approx(expected)


def test_relative_error_is_that_of_metres():
    residual, mask = random_pair(6)
    residual = residual.clamp(max=1)  # no gross error among them
    said_m, true_m = 10 * residual.exp(), 10
    errors = (said_m - true_m).abs() / true_m
    expected = sum(e[m].mean() for e, m in zip(errors, mask, strict=True)) / 3
    torch.testing.assert_close(losses.relative_error(residual, mask), expected)


def test_relative_error_grows_gently_once_it_is_gross():
    residual = image([[3.0, 1.0, -3.0]]).requires_grad_()
    everywhere = torch.ones_like(residual, dtype=torch.bool)
    # e (1 + 2) - 1, e - 1 and 1 - e^-3
    expected = (3 * math.e - 1 + math.e - 1 + 1 - math.exp(-3)) / 3
    loss = losses.relative_error(residual, everywhere)
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    slopes = [math.e / 3, math.e / 3, -math.exp(-3) / 3]
    torch.testing.assert_close(residual.grad.flatten(), torch.tensor(slopes, dtype=torch.float64))


def test_gradient_by_hand():
    residual = image([[0.0, 1.0], [0.0, 4.0]])
    everywhere = torch.ones_like(residual, dtype=torch.bool)
    # dx: 1 and 4, mean 2.5; dy: 0 and 3, mean 1.5; the second scale has one pixel
    assert losses.multi_scale_gradient(residual, everywhere, 2).item() == pytest.approx(4)
    corner = torch.tensor([[[[True, True], [True, False]]]])
    assert losses.multi_scale_gradient(residual, corner, 1).item() == pytest.approx(1 + 0)


def test_gradient_against_a_loop():
    residual, mask = random_pair(1)
    expected = 0.0
    for r, m in zip(residual[:, 0], mask[:, 0], strict=True):
        for step in (1, 2, 4):
            small, ok = r[::step, ::step], m[::step, ::step]
            for di, dj in ((0, 1), (1, 0)):
                differences = [
                    abs(small[i + di, j + dj] - small[i, j]).item()
                    for i in range(small.shape[0] - di)
                    for j in range(small.shape[1] - dj)
                    if ok[i, j] and ok[i + di, j + dj]
                ]
                expected += sum(differences) / max(len(differences), 1) / 3
    assert losses.multi_scale_gradient(residual, mask, 3).item() == pytest.approx(expected)


def test_laplace_is_the_likelihood_of_torch():
    residual, mask = random_pair(2)
    log_scale = random_pair(3)[0]
    nll = -torch.distributions.Laplace(0.0, log_scale.exp()).log_prob(residual)
    expected = sum(n[m].mean() for n, m in zip(nll, mask, strict=True)) / 3
    torch.testing.assert_close(losses.laplace_nll(residual, log_scale, mask, 0.0), expected)


def test_beta_gives_depth_the_gradient_of_an_l1_loss():
    residual, mask = random_pair(4)
    log_scale = random_pair(5)[0].requires_grad_()
    residual.requires_grad_()
    losses.laplace_nll(residual, log_scale, mask, 1.0).backward()
    l1 = losses.masked_mean(residual.abs(), mask)
    torch.testing.assert_close(residual.grad, torch.autograd.grad(l1, residual)[0])
    # the scale is at rest exactly where it equals the error
    assert (log_scale.grad.sign() == torch.sign(log_scale.exp() - residual.abs()) * mask).all()


def test_range_loss_by_hand():
    truth = losses.target(
        torch.tensor([[[[5.0, INF, NAN, 500.0]]]]), torch.tensor([256.0]), DepthRange()
    )
    logits = torch.tensor([[[[0.0, 2.0, 9.0, -2.0]]]])
    expected = (math.log(2) + math.log(1 + math.exp(2)) + math.log(1 + math.exp(-2))) / 3
    assert losses.range_loss(logits, truth).item() == pytest.approx(expected)


def perfect(depth_m, depth_range):
    truth = losses.target(depth_m, torch.full((depth_m.shape[0],), 256.0), depth_range)
    normalised = torch.where(truth.in_range, 1 + (truth.log_depth - math.log(depth_range.max_m))
                             / depth_range.alpha, 1.0)  # fmt: skip
    logit = torch.where(truth.in_range, 20.0, -20.0)
    return Prediction(normalised, logit, torch.full_like(normalised, -7.0)), truth


def test_a_perfect_answer_costs_nothing_and_any_fault_costs():
    depth_m = torch.tensor([[[[2.0, 7.0], [INF, 30.0]]], [[[NAN, 3.0], [90.0, INF]]]])
    depth_range = DepthRange()
    answer, truth = perfect(depth_m, depth_range)
    config = LossConfig(relative=1.0)
    best = losses.depth_losses(answer, truth, depth_range, config)
    shares = {'scale_invariant', 'relative', 'gradient', 'range', 'beyond'}
    assert set(best) == {'laplace', *shares}
    for name in shares:
        assert best[name].item() == pytest.approx(0, abs=1e-5)
    faults = {
        'laplace': answer._replace(log_depth=answer.log_depth * 0.9),
        'scale_invariant': answer._replace(log_depth=answer.log_depth * 0.9),
        'relative': answer._replace(log_depth=answer.log_depth * 0.9),
        'gradient': answer._replace(log_depth=answer.log_depth * 0.9),
        'range': answer._replace(range_logit=-answer.range_logit),
        'beyond': answer._replace(log_depth=answer.log_depth * 0.9),
    }
    for name, fault in faults.items():
        assert losses.depth_losses(fault, truth, depth_range, config)[name] > best[name] + 1e-4


def test_what_is_unknown_gets_no_gradient():
    depth_m = torch.tensor([[[[2.0, NAN], [INF, 30.0]]]])
    depth_range = DepthRange()
    truth = losses.target(depth_m, torch.tensor([256.0]), depth_range)
    maps = torch.randn(1, 3, 2, 2, requires_grad=True)
    answer = Prediction(maps[:, :1].sigmoid(), maps[:, 1:2], maps[:, 2:])
    sum(losses.depth_losses(answer, truth, depth_range, LossConfig()).values()).backward()
    assert (maps.grad[0, :, 0, 1] == 0).all()
    assert (maps.grad[0, :, 0, 0] != 0).all()
    assert maps.grad[0, 1, 1, 0] != 0  # sky teaches the range
    assert maps.grad[0, 2, 1, 0] == 0  # but not the scale


def test_a_large_batch_is_the_mean_of_its_parts():
    depth_m = torch.rand(4, 1, 8, 8) * 150
    depth_m[torch.rand(4, 1, 8, 8) < 0.4] = NAN
    depth_range, focal = DepthRange(), torch.full((4,), 256.0)
    answer = Prediction(torch.rand(4, 1, 8, 8), torch.randn(4, 1, 8, 8), torch.randn(4, 1, 8, 8))

    def cost(part):
        truth = losses.target(depth_m[part], focal[part], depth_range)
        chosen = Prediction(*(maps[part] for maps in answer))
        return sum(losses.depth_losses(chosen, truth, depth_range, LossConfig()).values())

    parts = [cost(slice(0, 2)), cost(slice(2, 4))]
    torch.testing.assert_close(cost(slice(0, 4)), sum(parts) / 2)


def test_nothing_known_costs_nothing():
    answer = Prediction(*(torch.zeros(1, 1, 4, 4, requires_grad=True) for _ in range(3)))
    truth = losses.target(torch.full((1, 1, 4, 4), NAN), torch.tensor([256.0]), DepthRange())
    total = sum(losses.depth_losses(answer, truth, DepthRange(), LossConfig()).values())
    assert total.item() == 0


def test_domain_loss_by_hand_and_blind_to_scale():
    student = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(1, 4, 1, 1)
    teacher = torch.tensor([1.0, 1.0, -1.0, -1.0]).view(1, 4, 1, 1)
    # mean 0 and variance 1 already: |0|, |-2|, |2|, |0|
    assert losses.domain_loss(student, teacher).item() == pytest.approx(1, abs=1e-4)
    assert losses.domain_loss(5 * teacher + 3, teacher).item() == pytest.approx(0, abs=1e-4)


def test_domain_loss_counts_masked_patches_only():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 1, 6, 3, 4)
    mask = torch.tensor([[[[True, False, False, True]] * 3]])
    kept = [f[..., [0, 3]] for f in (student, teacher)]
    torch.testing.assert_close(
        losses.domain_loss(student, teacher, mask), losses.domain_loss(*kept)
    )


def test_semantic_loss_against_a_loop():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 3, 4), torch.randn(2, 7, 3, 4)
    mask = torch.rand(2, 1, 3, 4) < 0.6
    expected = 0.0
    for s, t, m in zip(student, teacher, mask, strict=True):
        s, t, m = s.flatten(1).T, t.flatten(1).T, m.flatten()
        gaps = [
            abs(torch.cosine_similarity(s[i], s[j], 0) - torch.cosine_similarity(t[i], t[j], 0))
            for i in range(12) for j in range(12) if m[i] and m[j]
        ]  # fmt: skip
        expected += sum(gaps).item() / len(gaps) / 2
    assert losses.semantic_loss(student, teacher, mask).item() == pytest.approx(expected, rel=1e-5)


def test_semantic_loss_thins_large_maps_evenly():
    torch.manual_seed(0)
    student, teacher = torch.randn(1, 5, 33, 40), torch.randn(1, 7, 33, 40)
    thin = losses.semantic_loss(student[..., ::3, ::3], teacher[..., ::3, ::3])
    torch.testing.assert_close(losses.semantic_loss(student, teacher), thin)


def test_patches_with_events():
    spikes = torch.zeros(3, 1, 2, 16, 24, dtype=torch.uint8)
    spikes[2, 0, 1, 9, 17] = 4
    expected = torch.zeros(1, 1, 2, 3, dtype=torch.bool)
    expected[0, 0, 1, 2] = True
    assert torch.equal(losses.patches_with_events(spikes, 8), expected)


@pytest.mark.parametrize('values', [{'gradient': -1.0}, {'laplace_beta': 2.0},
                                    {'laplace': 0.0, 'scale_invariant': 0.0}])  # fmt: skip
def test_impossible_weights_are_refused(values):
    with pytest.raises(ConfigError):
        LossConfig(**values)
