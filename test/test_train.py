"""The training loop on a tiny data set made here: it learns, resumes, shares work, keeps out."""

import copy
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from spike_depth_ros.events.config import ConfigError, DepthRange, SpikeConfig, from_dict
from spike_depth_ros.learning import run, run_folder
from spike_depth_ros.learning.batches import DrawnBatches, collate, groups_by_size, loader, spread
from spike_depth_ros.learning.datasets import DATASETS
from spike_depth_ros.learning.datasets.augment import NO_AUGMENTATION
from spike_depth_ros.learning.datasets.sample import Sample
from spike_depth_ros.learning.module import DepthTraining, FeatureTap, carried
from spike_depth_ros.learning.norms import measure_norms, norms
from spike_depth_ros.learning.optimizer import (
    METHODS,
    Muon,
    follow,
    orthogonal,
    parameter_groups,
    rate,
)
from spike_depth_ros.learning.settings import (
    OPTIMIZERS,
    DataChoice,
    LossConfig,
    Machine,
    ModelChoice,
    MoreClips,
    OptimizerConfig,
    Schedule,
    TeacherChoice,
    TrainConfig,
)
from spike_depth_ros.network.checkpoint import load_checkpoint
from spike_depth_ros.network.registry import PRESETS, build
from spike_depth_ros.network.teacher import TEACHERS

torch.set_num_threads(1)
STEPS = 4


@dataclasses.dataclass(frozen=True)
class PlanesConfig:
    """Ground and sky; the nearer the ground, the more events."""

    clips: int = 4
    clip_windows: int = 1
    seed: int = 0
    height: int = 32
    width: int = 48
    images: bool = False


class Planes(list):
    @staticmethod
    def open(config):
        return Planes(plane_clip(config, index) for index in range(config.clips))


class PlanesEntry:
    config = PlanesConfig

    def __call__(self, config):
        return Planes.open(config)


def plane_clip(config, index):
    rng = np.random.default_rng((config.seed, index))
    horizon = int(rng.integers(8, 16))
    eye_m = rng.uniform(1, 3)
    rows = np.arange(config.height)[:, None] - horizon + 0.5
    depth = np.where(rows > 0, 40 * eye_m / np.maximum(rows, 0.5), np.inf)
    depth = np.broadcast_to(depth, (config.height, config.width)).astype(np.float32).copy()
    depth[depth > 90] = np.inf
    image = np.where(np.isinf(depth), 200, np.clip(200 - depth, 0, 255)).astype(np.uint8)
    samples = []
    for window in range(config.clip_windows):
        chance = np.where(np.isinf(depth), 0.0, 2 / (depth + 2))
        spikes = rng.random((STEPS, 2, *depth.shape)) < chance
        meta = {'focal_px': 40.0, 'cx_px': 24.0, 'cy_px': 16.0, 'index': index, 'stamp_ns': window,
                'window_ns': 50_000_000, 'event_count': int(spikes.sum())}  # fmt: skip
        rgb = np.repeat(image[..., None], 3, axis=2) if config.images else None
        samples.append(Sample(spikes.astype(np.uint8), depth, np.isfinite(depth), rgb, meta))
    return samples


@pytest.fixture(autouse=True)
def planes(monkeypatch):
    monkeypatch.setitem(DATASETS, 'planes', PlanesEntry())


def config(**changes):
    schedule = {'max_iterations': 30, 'batch_size': 4, 'validate_every': 30, 'log_every': 10,
                'validation_clips': 2, 'save_every': 1000}  # fmt: skip
    schedule |= changes.pop('schedule', {})
    whole = {
        'model': ModelChoice('tiny'),
        'data': DataChoice('planes', {}, {'seed': 0}, NO_AUGMENTATION, workers=0),
        'optimizer': OptimizerConfig(warmup=5, learning_rate=5e-3, ema_decay=0.9),
        'depth_range': DepthRange(focal_px=40.0),
        'machine': Machine(accelerator='cpu', threads=1),
        'schedule': Schedule(**schedule),
    }
    return TrainConfig(**(whole | changes))


@pytest.mark.parametrize('name', ['tiny', 'unet_small'])
def test_a_network_learns_four_samples_by_heart(name, tmp_path):
    settings = config(model=ModelChoice(name), schedule={'max_iterations': 60})
    best = run.train(settings, tmp_path)
    card = load_checkpoint(best).card
    assert card['trained']
    assert card['iterations'] == 60
    assert card['validation']['abs_rel'] < 0.25
    assert card['validation']['false_obstacles'] < 0.05
    assert card['wall_s'] > 0
    figures = load_checkpoint(tmp_path / run.LAST).card['validation']
    assert set(figures) >= {'abs_rel', 'delta1', 'ece', 'aurc'}


def test_the_checkpoint_is_the_average_that_was_validated(tmp_path):
    settings = config(schedule={'max_iterations': 6, 'validate_every': 6})
    checkpoint = load_checkpoint(run.train(settings, tmp_path))
    clips = Planes.open(PlanesConfig(clips=4))
    chosen = [clips[i] for i in spread(4, 2)]
    from spike_depth_ros.estimation.depth_frame import Limits, interpret
    from spike_depth_ros.learning.metrics import DepthMetrics, frame_metrics

    metrics = DepthMetrics()
    for (sample,) in chosen:
        with torch.no_grad():
            maps = checkpoint.model(torch.from_numpy(sample.spikes)[:, None])
        depth_m, confidence = interpret(
            torch.cat(maps, 1)[0].numpy(), settings.depth_range, 1.0, Limits(0, math.inf, 0)
        )
        metrics.update(frame_metrics(depth_m, confidence, sample.depth_m, 80.0))
    assert metrics.compute()['abs_rel'] == pytest.approx(
        checkpoint.card['validation']['abs_rel'], rel=1e-3
    )


class PowerCut(BaseException):
    pass


def cut_power():
    raise PowerCut


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_for_all_processes_does_not_end_those_that_load(number):
    """As Ctrl-C in a terminal sends it: the step that it waits for still needs them."""
    batches = iter(loader(Planes.open(PlanesConfig(clips=8)), 1, batch_size=2))
    next(batches)
    (worker,) = batches._workers
    os.kill(worker.pid, number)
    assert len(list(batches)) == 3
    assert worker.is_alive()


@pytest.mark.parametrize('step_of_cut', [7, 3], ids=['in between', 'before a validation'])
@pytest.mark.parametrize('optimizer', OPTIMIZERS)
@pytest.mark.parametrize(
    ('cut', 'error'),
    [
        (cut_power, PowerCut),
        (lambda: os.kill(os.getpid(), signal.SIGINT), run.TrainingError),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), run.TrainingError),
    ],
    ids=['power cut', 'Ctrl-C', 'termination'],
)
def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    optimizer, cut, error, step_of_cut, tmp_path, monkeypatch
):
    settings = config(
        schedule={'max_iterations': 12, 'save_every': 5, 'validate_every': 4, 'clip_windows': 2},
        optimizer=OptimizerConfig(optimizer, warmup=5, ema_decay=0.9),
    )
    run.train(settings, tmp_path / 'whole')
    step, before = DepthTraining.training_step, signal.getsignal(signal.SIGINT)

    def failing(self, batch, batch_idx):
        loss = step(self, batch, batch_idx)  # in the middle of a step
        if self.global_step == step_of_cut:
            cut()
        return loss

    monkeypatch.setattr(DepthTraining, 'training_step', failing)
    with pytest.raises(error):
        run.train(settings, tmp_path / 'cut')
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.setattr(DepthTraining, 'training_step', step)
    run.train(settings, tmp_path / 'cut')
    for file in (run.LAST, run.BEST):
        again, want = (load_checkpoint(tmp_path / name / file) for name in ('cut', 'whole'))
        assert again.card['iterations'] == want.card['iterations']
        assert again.card['validation'] == want.card['validation']
        for (name, mine), theirs in zip(
            again.model.state_dict().items(), want.model.state_dict().values(), strict=True
        ):
            assert torch.equal(mine, theirs), name


def test_a_resumed_run_remembers_its_best(tmp_path, monkeypatch):
    """Cut right after a validation, whose finding must not be forgotten."""
    settings = config(schedule={'max_iterations': 8, 'save_every': 4, 'validate_every': 4})
    step, end = DepthTraining.training_step, DepthTraining.on_validation_epoch_end

    def cut_at_six(self, batch, batch_idx):
        if self.global_step == 6:
            raise PowerCut
        return step(self, batch, batch_idx)

    def ever_worse(self):
        end(self)
        self.figures['abs_rel'] = 1.0 + self.global_step

    monkeypatch.setattr(DepthTraining, 'on_validation_epoch_end', ever_worse)
    monkeypatch.setattr(DepthTraining, 'training_step', cut_at_six)
    with pytest.raises(PowerCut):
        run.train(settings, tmp_path)
    monkeypatch.setattr(DepthTraining, 'training_step', step)
    run.train(settings, tmp_path)
    assert load_checkpoint(tmp_path / run.BEST).card['iterations'] == 4


def test_the_end_of_a_run_is_validated_and_can_be_gone_on_from(tmp_path):
    optimizer = OptimizerConfig(warmup=0, final_rate=1.0, freeze_norms=0.0)  # know no length
    short = {'max_iterations': 5, 'validate_every': 3}
    run.train(config(schedule=short, optimizer=optimizer), tmp_path / 'parts')
    card = load_checkpoint(tmp_path / 'parts' / run.LAST).card
    assert (card['iterations'], card['validation']['iteration']) == (5, 5)
    for folder in ('parts', 'whole'):
        longer = config(schedule=short | {'max_iterations': 8}, optimizer=optimizer)
        run.train(longer, tmp_path / folder)
    parts, whole = (load_checkpoint(tmp_path / name / run.LAST) for name in ('parts', 'whole'))
    assert parts.card['validation'] == whole.card['validation']
    assert whole.card['validation']['iteration'] == 8
    for mine, theirs in zip(
        parts.model.state_dict().values(), whole.model.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs)


def test_a_folder_belongs_to_one_run(tmp_path):
    run.train(config(schedule={'max_iterations': 2, 'validate_every': 2}), tmp_path)
    longer = config(schedule={'max_iterations': 3, 'validate_every': 2})
    run.train(longer, tmp_path)
    assert load_checkpoint(tmp_path / run.LAST).card['iterations'] == 3
    other = dataclasses.replace(longer, loss=LossConfig(gradient=1.0))
    with pytest.raises(run.TrainingError, match=r"settings in \['loss'\]"):
        run.train(other, tmp_path)
    assert json.loads((tmp_path / run_folder.CONFIG).read_text())['loss']['gradient'] == 0.25


def test_the_teacher_teaches_and_stays_outside(tmp_path):
    data = DataChoice('planes', {}, {'seed': 0}, NO_AUGMENTATION, workers=0)
    short = {'max_iterations': 3, 'validate_every': 3}
    rgb = config(model=ModelChoice('rgb_unet', {'width': 4}), data=data, schedule=short)
    source = run.train(rgb, tmp_path / 'teacher')
    teacher = TeacherChoice('rgb', str(source), str(tmp_path / 'cache'))
    settings = config(teacher=teacher, data=data, schedule=short)
    module = DepthTraining(settings, run.make_student(settings), run.make_teacher(teacher))
    assert not any('teacher' in name for name, _ in module.named_parameters())
    assert [type(a).__name__ for a in module.adapters] == ['Conv2d', 'Conv2d']
    batch = collate(list(Planes.open(PlanesConfig(images=True))))
    answer, _ = module.student.step(batch.spikes[0], None)
    terms = module._window_losses(answer, batch, 0)
    assert {'domain', 'semantic'} <= set(terms)
    (terms['domain'] + terms['semantic']).backward()
    assert module.student.blocks[0].mlp.conv1.conv.weight.grad.abs().sum() > 0
    assert module.student.head.out.weight.grad is None
    run.train(settings, tmp_path / 'student')
    assert load_checkpoint(tmp_path / 'student' / run.BEST).card['teacher'] == 'rgb'
    assert any((tmp_path / 'cache').iterdir())


def test_a_teacher_says_nothing_where_there_is_no_image(tmp_path, monkeypatch):
    """One image of two, or none: the run continues, and no features pile up."""
    data = DataChoice('planes', {}, {}, NO_AUGMENTATION, workers=0)
    rgb = config(model=ModelChoice('rgb_unet', {'width': 8}), data=data,
                 schedule={'max_iterations': 2, 'validate_every': 2})  # fmt: skip
    teacher = TeacherChoice('rgb', str(run.train(rgb, tmp_path / 'teacher')))
    settings = config(teacher=teacher, data=data)
    module = DepthTraining(settings, run.make_student(settings), run.make_teacher(teacher))
    monkeypatch.setattr(module, 'log', lambda *_, **__: None)
    monkeypatch.setattr(module, 'log_dict', lambda *_, **__: None)
    heard = []
    monkeypatch.setattr(module, '_log_smoothed', heard.append)
    clips = Planes.open(PlanesConfig(2, images=True))
    blind = [[sample._replace(image=None) for sample in clip] for clip in clips]
    for batch in (clips, [clips[0], blind[1]], blind, clips):
        module.training_step(collate(batch), 0).backward()
    both, one, none, again = (float(terms['domain'].detach()) for terms in heard)
    assert both > one > none == 0.0
    assert again == pytest.approx(both, rel=0.1)  # the batch statistics have moved
    assert module._tap.take() == []
    assert all(p.grad is not None for p in module.adapters.parameters())


def test_a_network_without_layers_to_teach_is_refused():
    with pytest.raises(ConfigError, match='RgbUNet has no layers'):
        FeatureTap(build('rgb_unet'), 1)
    with pytest.raises(ConfigError, match='E2Depth has no layers'):
        FeatureTap(build('e2depth_small', {'residual_blocks': 0}), 1)


def test_what_the_card_says_of_a_validation_is_of_this_run(tmp_path):
    short = {'max_iterations': 4, 'validate_every': 3}
    run.train(config(schedule=short), tmp_path / 'once')
    once = load_checkpoint(tmp_path / 'once' / run.LAST).card['validation']
    assert once['iteration'] == 4
    run.train(config(schedule=short), tmp_path / 'once')
    assert load_checkpoint(tmp_path / 'once' / run.LAST).card['validation'] == once


def test_a_preset_that_has_changed_is_told(tmp_path, monkeypatch):
    run.train(config(schedule={'max_iterations': 1}), tmp_path)
    monkeypatch.setitem(PRESETS, 'tiny', ('spiking_transformer', {'dim': 24, 'depth': 1}))
    with pytest.raises(run.TrainingError, match=r"other settings in \['network'\]"):
        run.train(config(schedule={'max_iterations': 2}), tmp_path)


def test_weights_of_another_range_and_more_clips_than_before_are_told(tmp_path, caplog):
    short = {'max_iterations': 1}
    start = run.train(config(schedule=short), tmp_path / 'a')
    other = config(
        schedule=short, model=ModelChoice('tiny', weights=str(start)),
        spikes=SpikeConfig(window_ms=40.0),
    )  # fmt: skip
    run.train(other, tmp_path / 'b')
    assert 'was trained with spikes' in caplog.text
    state = torch.load(tmp_path / 'b' / run.STATE, weights_only=True)
    keeper = run.Keeper(tmp_path, other, 'tiny')
    keeper.load_state_dict(next(iter(state['callbacks'].values())))
    assert keeper._clips == 4
    keeper.on_train_start(SimpleNamespace(datamodule=SimpleNamespace(training=[0] * 5)), None)
    keeper.teardown(None, None, 'fit')
    assert 'began with 4 clips and resumes with 5' in caplog.text


def test_a_machine_that_is_not_here_is_told(tmp_path):
    if torch.cuda.is_available():
        pytest.skip('here is a GPU')
    with pytest.raises(ConfigError, match='this machine cannot provide'):
        run.train(config(machine=Machine(accelerator='gpu', threads=1)), tmp_path)


def test_state_runs_through_a_clip_and_its_gradient_ends_at_each_window():
    network = build('tiny')
    first, second = torch.randint(0, 3, (2, STEPS, 2, 2, 32, 32), dtype=torch.uint8)
    _, state = network.step(first, None)
    kept = carried(state, torch.tensor([True, False]))
    assert not any(part.requires_grad for part in kept.flat())
    with torch.no_grad():
        network.eval()
        _, state = network.step(first, None)
        after = network.step(second, carried(state, torch.tensor([True, False])))[0].log_depth
        rest = network(second).log_depth
        going_on = network.step(second, state)[0].log_depth
    torch.testing.assert_close(after[0], going_on[0])
    torch.testing.assert_close(after[1], rest[1])
    assert not torch.allclose(going_on[1], rest[1])


def test_warm_windows_bring_the_membranes_and_teach_nothing(monkeypatch):
    batch = collate(list(Planes.open(PlanesConfig(clip_windows=2))))
    settings = config(schedule={'clip_windows': 2, 'warm_windows': 1})
    module = DepthTraining(settings, build('tiny').eval())
    everyone = torch.ones(len(batch.focal_px), dtype=torch.bool)
    monkeypatch.setattr(module, '_kept', lambda k, like: everyone)
    monkeypatch.setattr(module, '_log_smoothed', lambda values: None)
    loss = module.training_step(batch, 0)
    with torch.no_grad():
        _, state = module.student.step(batch.spikes[0], None)
    answer, _ = module.student.step(batch.spikes[1], state)
    torch.testing.assert_close(loss, sum(module._window_losses(answer, batch, 1).values()))
    # a longer clip has as many windows that count, at its end
    longer = collate(list(Planes.open(PlanesConfig(clip_windows=3))))
    with torch.no_grad():
        state = module.student.step(longer.spikes[:2].flatten(0, 1), None)[1]
        loss = module.training_step(longer, 0)
    answer, _ = module.student.step(longer.spikes[2], state)
    torch.testing.assert_close(loss, sum(module._window_losses(answer, longer, 2).values()))
    with pytest.raises(ConfigError, match='warm_windows is 2, expected 0 to 1'):
        Schedule(clip_windows=2, warm_windows=2)


def test_rates_and_groups():
    settings = OptimizerConfig(warmup=10, final_rate=0.1)
    assert rate(0, 110, settings) == pytest.approx(0.1)
    assert rate(9, 110, settings) == 1
    assert rate(60, 110, settings) == pytest.approx(0.1 + 0.9 / 2)
    assert rate(110, 110, settings) == pytest.approx(0.1)
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    wide, thin = parameter_groups(network, settings)
    assert [p.shape for p in wide['params']] == [(2, 3)]
    assert len(thin['params']) == 3
    assert thin['weight_decay'] == 0


def test_momentum_is_made_orthogonal():
    generator = torch.Generator().manual_seed(0)
    for shape in ((2, 6, 40), (2, 40, 6)):
        matrices = torch.randn(shape, generator=generator)
        u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
        close = orthogonal(matrices)
        # the same singular vectors, so that this is diagonal
        values = u.mT @ close @ vh.mT
        on = values.diagonal(dim1=1, dim2=2)
        assert ((on > 0.6) & (on < 1.3)).all()
        assert (values - torch.diag_embed(on)).abs().max() < 1e-4
    assert not orthogonal(torch.zeros(1, 3, 3)).any()


def test_kernels_move_as_matrices_and_the_rest_as_adamw_says():
    generator = torch.Generator().manual_seed(0)
    kernel, bias = torch.randn((4, 3, 3, 3), generator=generator), torch.ones(4)
    ours = [torch.nn.Parameter(kernel.clone()), torch.nn.Parameter(bias.clone())]
    matrix, vector = (
        torch.nn.Parameter(kernel.flatten(1).clone()),
        torch.nn.Parameter(bias.clone()),
    )
    optimizers = [
        Muon(ours, lr=0.1, weight_decay=0.5),
        torch.optim.Muon([matrix], lr=0.1, weight_decay=0.5, adjust_lr_fn='match_rms_adamw'),
        torch.optim.AdamW([vector], lr=0.1, weight_decay=0.5),
    ]
    for _ in range(3):
        gradient, slope = torch.randn((4, 27), generator=generator), torch.arange(4.0)
        ours[0].grad, ours[1].grad = gradient.view_as(kernel), slope.clone()
        matrix.grad, vector.grad = gradient.clone(), slope.clone()
        for optimizer in optimizers:
            optimizer.step()
    # torch's iterates in bfloat16
    torch.testing.assert_close(ours[0].flatten(1), matrix, atol=0.02, rtol=0)
    assert (ours[0].flatten(1) - kernel.flatten(1)).abs().max() > 0.2
    assert torch.equal(ours[1], vector)
    saved = optimizers[0].state_dict()
    taken_up = Muon(ours, lr=0.1)
    taken_up.load_state_dict(saved)
    assert torch.equal(taken_up.state[ours[0]]['momentum'], saved['state'][0]['momentum'])
    assert set(METHODS) == set(OPTIMIZERS)


def test_the_average_follows():
    average, network = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    network.weight.data.fill_(3.0)
    network.num_batches_tracked.fill_(7)
    follow(average, network, 0.75)
    assert average.weight.tolist() == [1.5, 1.5]
    assert average.num_batches_tracked == 7


def test_batch_statistics_stand_still_in_the_later_part(monkeypatch, tmp_path):
    seen = []
    step = DepthTraining.training_step

    def watching(self, batch, batch_idx):
        statistics = [norm.running_mean.clone() for norm in norms(self.student)]
        loss = step(self, batch, batch_idx)
        after = [norm.running_mean for norm in norms(self.student)]
        seen.append(all(map(torch.equal, statistics, after)))
        return loss

    monkeypatch.setattr(DepthTraining, 'training_step', watching)
    optimizer = OptimizerConfig(freeze_norms=0.5, norm_momentum=0.25)
    run.train(config(optimizer=optimizer, schedule={'max_iterations': 6, 'validate_every': 2}),
              tmp_path)  # fmt: skip
    assert seen == [False] * 3 + [True] * 3


class Counting(torch.nn.Module):
    """Two windows of a clip meet one normalisation; the state must run through them."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(2)
        self.states = []

    def step(self, spikes, state):
        self.states.append(state)
        return self.norm(spikes.float().mean(0)), len(self.states)


def test_statistics_are_measured_for_the_present_weights():
    network = Counting().eval()
    network.norm.running_mean.fill_(99.0)
    network.norm.momentum = 0.03
    batches = [collate([plane_clip(PlanesConfig(clip_windows=2), i) for i in pair])
               for pair in ((0, 1), (2, 3))]  # fmt: skip
    measure_norms(network, batches)
    windows = [batch.spikes[k].float().mean(0) for batch in batches for k in range(2)]
    means = torch.stack([x.mean((0, 2, 3)) for x in windows]).mean(0)
    variances = torch.stack([x.var((0, 2, 3)) for x in windows]).mean(0)
    torch.testing.assert_close(network.norm.running_mean, means)
    torch.testing.assert_close(network.norm.running_var, variances, rtol=1e-4, atol=1e-7)
    assert network.states == [None, 1, None, 3]
    assert not network.norm.training
    assert network.norm.momentum == 0.03


@pytest.mark.parametrize('freeze', [1.0, 0.5])
def test_saved_statistics_belong_to_the_saved_weights(freeze, tmp_path):
    """What is saved is what measuring the saved weights gives, until the norms are frozen."""
    settings = config(
        optimizer=OptimizerConfig(freeze_norms=freeze, norm_clips=8, learning_rate=2e-2),
        schedule={'max_iterations': 4, 'validate_every': 2},
    )
    run.train(settings, tmp_path)
    saved = load_checkpoint(tmp_path / run.LAST).model
    measured = copy.deepcopy(saved)
    clips = run.ClipsOfRun(settings, reads_images=False, taught=False)
    measure_norms(measured, clips.norm_batches())
    pairs = list(zip(norms(saved), norms(measured), strict=True))
    same = [torch.allclose(a.running_var, b.running_var, rtol=1e-3) for a, b in pairs]
    assert all(same) == (freeze == 1.0)


def draws(groups=((0, 1, 2, 3, 4, 5), (6, 7, 8)), size=4, iterations=9, start=0, **options):
    batches = DrawnBatches(groups, size, iterations, seed=3, **options)
    batches.start = start
    return list(batches)


def test_batches_hold_one_group_and_all_clips_equally_often():
    batches = draws(iterations=300)
    for batch in batches:
        assert {draw.clip > 5 for draw in batch} in ({True}, {False})
    counts = np.bincount([draw.clip for batch in batches for draw in batch])
    assert counts.min() > 0.6 * counts.max()
    assert len({draw.seed for batch in batches for draw in batch}) == 1200


def test_batches_go_on_anywhere_and_split_between_processes():
    whole = draws()
    assert draws(start=5) == whole[5:]
    halves = [draws(rank=rank, world=2) for rank in (0, 1)]
    for batch, one, two in zip(whole, *halves, strict=True):
        assert sorted(batch) == sorted(one + two)
        assert len(one) == len(two)


def test_collate_pads_and_keeps_what_is_unknown():
    small = plane_clip(PlanesConfig(height=16, width=24, clip_windows=2, images=True), 0)
    large = plane_clip(PlanesConfig(height=32, width=32, clip_windows=2, images=True), 1)
    large[0].valid[20, 5] = False
    batch = collate([small, large])
    assert batch.spikes.shape == (2, STEPS, 2, 2, 32, 32)
    assert batch.depth_m.shape == (2, 2, 1, 32, 32)
    assert batch.image.shape == (2, 2, 3, 32, 32)
    assert batch.size.tolist() == [[16, 24], [32, 32]]
    np.testing.assert_array_equal(batch.spikes[1, :, 0, :, :16, :24], small[1].spikes)
    assert batch.depth_m[0, 0, 0, 16:].isnan().all()
    assert batch.depth_m[0, 1, 0, 20, 5].isnan()
    assert batch.depth_m[1, 1, 0, 20, 5].isfinite()
    np.testing.assert_array_equal(batch.image[0, 1].permute(1, 2, 0), large[0].image)


def test_groups_come_from_the_data_set():
    class Sized(list):
        def sizes(self):
            return [(8, 8), (16, 8), (8, 8)]

    assert groups_by_size(Sized([0, 1, 2]), NO_AUGMENTATION) == [[0, 2], [1]]
    crop = dataclasses.replace(NO_AUGMENTATION, crop_height=8, crop_width=8)
    assert groups_by_size(Sized([0, 1, 2]), crop) == [[0, 1, 2]]
    assert spread(10, 3) == [0, 4, 9]
    assert spread(2, 3) == [0, 1]


def test_two_windows_and_a_spike_config_reach_the_data():
    settings = config(spikes=SpikeConfig(steps=STEPS), schedule={'clip_windows': 2})
    clips = run.ClipsOfRun(settings, reads_images=False, taught=True)
    assert len(clips.training[0]) == 2
    assert clips.training[0][0].image is not None
    assert clips.validation[0][0].image is None  # no teacher is there to look at it


def test_further_clips_come_as_often_as_asked_and_keep_their_length():
    data = DataChoice(
        'planes', {'clip_windows': 1}, {'seed': 9}, NO_AUGMENTATION, workers=0,
        more=[MoreClips({'clip_windows': 3, 'seed': 5}, 3)],
    )  # fmt: skip
    clips = run.ClipsOfRun(config(data=data), reads_images=False, taught=False)
    first, further = clips.groups
    assert first == list(range(len(first)))
    assert sorted(further) == sorted(3 * [len(first) + i for i in range(len(further) // 3)])
    assert len(clips.training) == len(first) + len(further) // 3
    assert {len(clips.training[i]) for i in first} == {1}
    assert {len(clips.training[i]) for i in further} == {3}


@pytest.fixture
def job(tmp_path):
    """A program that trains in as many processes, into that folder, for so many iterations."""
    script = tmp_path / 'job.py'
    script.write_text(
        textwrap.dedent(f"""
        import dataclasses, sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_train
        from spike_depth_ros.learning.datasets import DATASETS
        from spike_depth_ros.learning import run
        from spike_depth_ros.learning.settings import Machine, ModelChoice

        DATASETS['planes'] = test_train.PlanesEntry()
        devices = int(sys.argv[1])
        machine = Machine('cpu', devices, strategy='ddp' if devices > 1 else 'auto', threads=1)
        # without batch statistics, which each process has of its own part
        settings = test_train.config(model=ModelChoice('e2depth_small'), machine=machine,
            schedule={{'max_iterations': int(sys.argv[3]), 'clip_windows': 2,
                      'validate_every': 5}})
        if __name__ == '__main__':
            run.train(settings, Path(sys.argv[2]))
    """)
    )
    return [sys.executable, str(script)]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_terminating_one_of_two_processes_stops_both_after_a_whole_step(job, tmp_path):
    running = subprocess.Popen([*job, '2', 'run', '100000'], cwd=tmp_path, text=True,
                               stderr=subprocess.PIPE)  # fmt: skip
    until_s = time.monotonic() + 240
    while not (tmp_path / 'run' / run.LAST).exists():  # after the first validation
        assert time.monotonic() < until_s
        time.sleep(0.1)
    running.terminate()
    _, said = running.communicate(timeout=120)
    assert 'interrupted; the same command resumes' in said
    state = torch.load(tmp_path / 'run' / run.STATE, weights_only=True)
    assert state['global_step'] >= 5


@pytest.mark.slow
@pytest.mark.timeout(600)  # two runs of at most 240 s
def test_two_processes_learn_what_one_does(job, tmp_path):
    for devices, name in (('1', 'one'), ('2', 'two')):
        subprocess.run([*job, devices, name, '8'], check=True, timeout=240, cwd=tmp_path)
    one, two = (load_checkpoint(tmp_path / name / run.LAST) for name in ('one', 'two'))
    assert two.card['validation']['iteration'] == one.card['iterations'] == 8
    assert two.card['validation']['abs_rel'] == pytest.approx(
        one.card['validation']['abs_rel'], rel=1e-3
    )
    for (name, mine), theirs in zip(
        one.model.state_dict().items(), two.model.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4, msg=name)


CONFIGS = sorted((Path(__file__).resolve().parents[1] / 'config' / 'train').glob('*.yaml'))


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_describes_a_run(path, monkeypatch, tmp_path):
    from spike_depth_ros.cli import main

    seen = []
    monkeypatch.setattr(run, 'train', lambda settings, out: seen.append(settings) or out)
    main(['train', str(path), '--out', str(tmp_path), '--schedule.batch_size', '2'])
    (settings,) = seen
    assert settings.schedule.batch_size == 2
    entry = DATASETS[settings.data.name]
    shared = {'spikes': settings.spikes, 'clip_windows': settings.schedule.clip_windows}
    training = from_dict(entry.config, shared | settings.data.train)
    validation = from_dict(entry.config, shared | settings.data.validation)
    assert training.split != validation.split
    for source in settings.data.more:
        assert from_dict(entry.config, shared | source.fields).split == training.split
    with torch.device('meta'):
        build(settings.model.name, settings.model.config)
    if settings.teacher.name:
        assert settings.teacher.name in TEACHERS


def test_the_configurations_that_were_asked_for_are_there():
    wanted = {'synthetic', 'dsec', 'dense', 'dense_spike', 'mvsec', 'rgb_teacher', 'smoke'}
    assert wanted <= {path.stem for path in CONFIGS}


def test_the_benchmark_times_the_same_step_with_both_neurons():
    from spike_depth_ros.cli.bench_train import _step, step_rows

    rows = list(step_rows('tiny', (2, 2, 2, 32, 32), 1))
    assert [row['peer'] is not None for row in rows] == [True, True, False]
    assert all(row['value'] > 0 and row['unit'] == 'ms/window' for row in rows)
    # large enough for statistics of the batch at stride 32: those of two pixels only tell signs
    spikes = torch.poisson(torch.full((2, 3, 2, 64, 96), 0.3), torch.Generator().manual_seed(0))
    ours, theirs = (
        _step('tiny', backend, False, spikes.byte()) for backend in ('auto', 'spikingjelly')
    )
    for _ in range(2):
        torch.testing.assert_close(ours(), theirs(), rtol=1e-4, atol=1e-5)
