"""A training run: one command starts, resumes and completes it in one folder.

The folder holds config.json, the state from which to resume, the TensorBoard log, and two
checkpoints for the node: best.safetensors and last.safetensors.
"""

from __future__ import annotations

import ctypes
import dataclasses
import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Subset

from spike_depth_ros.events.config import ConfigError
from spike_depth_ros.learning.batches import (
    Batch,
    DrawnBatches,
    TrainingClips,
    collate,
    groups_by_size,
    loader,
    open_clips,
    spread,
)
from spike_depth_ros.learning.calibration import change_range
from spike_depth_ros.learning.module import DepthTraining
from spike_depth_ros.learning.run_folder import BEST, LAST, STATE, TrainingError, claim
from spike_depth_ros.learning.settings import MoreClips, TeacherChoice, TrainConfig
from spike_depth_ros.network.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from spike_depth_ros.network.registry import PRESETS, build
from spike_depth_ros.network.teacher import TEACHERS, CachedTeacher, Teacher

log = logging.getLogger(__name__)

NORM_SEED = 1_000_000
"""Added to the run's seed for the clips on which normalisations are measured."""


class ClipsOfRun(lightning.LightningDataModule):
    """The training and validation clips of a run.

    Args:
        config: of the run.
        reads_images: whether the student reads colour images.
        taught: whether a teacher reads them; validation has no teacher.
    """

    def __init__(self, config: TrainConfig, reads_images: bool, taught: bool) -> None:
        super().__init__()
        self.config = config
        data, shared = config.data, (config.spikes, config.schedule.clip_windows)
        images = reads_images or taught
        sources = [MoreClips(data.train), *data.more]
        opened = [open_clips(data.name, source.fields, *shared, images) for source in sources]
        self.training: Any = ConcatDataset(opened)  # type: ignore[arg-type]
        self.validation = open_clips(data.name, data.validation, *shared, reads_images)
        self.groups: list[list[int]] = []
        first = 0
        for source, clips in zip(sources, opened, strict=True):
            self.groups += [
                [first + index for index in group] * source.times
                for group in groups_by_size(clips, data.augment)
            ]
            first += len(clips)

    def norm_batches(self) -> Iterator[Batch]:
        """Training batches on which to measure the statistics of batch normalisations.

        They are the same at every call and in every process.
        """
        size = self.config.schedule.batch_size
        count = -(-self.config.optimizer.norm_clips // size)
        clips = TrainingClips(self.training, self.config.data.augment)
        seed = self.config.schedule.seed + NORM_SEED
        for draws in DrawnBatches(self.groups, size, count, seed):
            yield collate([clips[draw] for draw in draws])

    def train_dataloader(self) -> DataLoader:
        """Batches from the present iteration on."""
        config, trainer = self.config, self._trainer
        batches = DrawnBatches(
            self.groups, config.schedule.batch_size, config.schedule.max_iterations,
            config.schedule.seed, trainer.global_rank, trainer.world_size,
        )  # fmt: skip
        batches.start = trainer.global_step
        clips = TrainingClips(self.training, config.data.augment)
        return loader(clips, config.data.workers, batch_sampler=batches)

    def val_dataloader(self) -> DataLoader:
        """The validation clips of this process, one at a time."""
        chosen = spread(len(self.validation), self.config.schedule.validation_clips)
        if len(chosen) < self._trainer.world_size:
            raise ConfigError(
                f'{len(chosen)} validation clips for {self._trainer.world_size} processes, '
                'expected one for each: raise schedule.validation_clips or lower machine.devices'
            )
        part = chosen[self._trainer.global_rank :: self._trainer.world_size]
        return loader(Subset(self.validation, part), min(self.config.data.workers, 1))  # type: ignore[arg-type]

    @property
    def _trainer(self) -> lightning.Trainer:
        assert self.trainer is not None
        return self.trainer


class Keeper(lightning.Callback):
    """Saves the state of the run and its checkpoints.

    Args:
        folder: of the run.
        config: of the run.
        name: of the network in `MODELS`.
    """

    def __init__(self, folder: Path, config: TrainConfig, name: str) -> None:
        self.folder, self.config, self.name = folder, config, name
        self.best = float('inf')
        self._clips = 0
        self._stopping = False
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Makes signals stop the run after a whole step; lightning would interrupt the step."""
        clips = len(trainer.datamodule.training)
        if self._clips not in (0, clips):
            log.warning('the run began with %s clips and resumes with %s: its batches differ from '
                        'those of an uninterrupted run', self._clips, clips)  # fmt: skip
        self._clips = clips
        if threading.current_thread() is threading.main_thread():
            self._handlers = {
                number: signal.signal(number, self._stop)
                for number in (signal.SIGINT, signal.SIGTERM)
            }

    def _stop(self, number: int, frame: Any) -> None:
        self._stopping = True
        signal.signal(number, signal.SIG_DFL)  # a second signal ends the process at once
        log.info('stopping after this step')

    def teardown(self, trainer: Any, module: Any, stage: str) -> None:
        """Restores the signal handlers."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def state_dict(self) -> dict[str, Any]:
        """State to save with the run."""
        return {'best': self.best, 'clips': self._clips}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores it."""
        self.best = float(state_dict['best'])
        self._clips = int(state_dict.get('clips', 0))

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        """Saves the state every `save_every` iterations."""
        step, schedule = trainer.global_step, self.config.schedule
        if step % schedule.validate_every == 0:
            return  # the state is saved after the validation that follows
        # a signal may have reached any process; all stop together, after a whole step
        stopping = self._is_stopping(trainer)
        if stopping or step % schedule.save_every == 0:
            self._save_state(trainer)
        if stopping:
            raise self._interrupted()

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        """Saves the checkpoints for the node, then the state."""
        if trainer.sanity_checking or not trainer.global_step:
            return
        self._save_weights(trainer, module, LAST)
        if module.figures['abs_rel'] < self.best:
            self.best = module.figures['abs_rel']
            self._save_weights(trainer, module, BEST)
        self._save_state(trainer)
        if self._is_stopping(trainer):
            raise self._interrupted()

    def _is_stopping(self, trainer: Any) -> bool:
        return bool(trainer.strategy.reduce_boolean_decision(self._stopping, all=False))

    def _interrupted(self) -> TrainingError:
        state = str(self.folder / STATE)
        return TrainingError(f'interrupted; the same command resumes from {state!r}')

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Saves everything once more."""
        self._save_state(trainer)
        self._save_weights(trainer, module, LAST)
        if not (self.folder / BEST).exists():
            self._save_weights(trainer, module, BEST)

    def _save_state(self, trainer: Any) -> None:
        part = self.folder / f'{STATE}.part'
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            part.replace(self.folder / STATE)

    def _save_weights(self, trainer: Any, module: DepthTraining, file: str) -> None:
        if not trainer.is_global_zero:
            return
        network = module.averaged if self.config.optimizer.ema_decay else module.student
        save_checkpoint(self.folder / file, Checkpoint(
            network, self.name, self.config.spikes, self.config.depth_range,
            card(self.config, module),
        ))  # fmt: skip


def card(config: TrainConfig, module: DepthTraining) -> dict[str, Any]:
    """How a checkpoint was made, for its header."""
    return {
        'trained': True,
        'preset': config.model.name,
        'data': {'name': config.data.name, 'train': config.data.train,
                 'more': [dataclasses.asdict(source) for source in config.data.more],
                 'validation': config.data.validation},
        'teacher': config.teacher.name,
        'clip_windows': config.schedule.clip_windows,
        'seed': config.schedule.seed,
        'iterations': module.global_step,
        'batch_size': config.schedule.batch_size,
        'wall_s': round(module.wall_s, 1),
        'validation': {'cap_m': config.schedule.cap_m, 'iteration': module.validated_at} | {
            name: None if value != value else round(float(value), 5)
            for name, value in module.figures.items()
        },
    }  # fmt: skip


def train(config: TrainConfig, folder: Path) -> Path:
    """Trains, from the start or from the state in the folder.

    Args:
        config: of the run.
        folder: of the run; created if missing.

    Returns:
        The best checkpoint.

    Raises:
        TrainingError: the folder holds a run with another configuration, or it was interrupted.
        ConfigError: a choice that is not available.
    """
    name = PRESETS.get(config.model.name, (config.model.name,))[0]
    if config.machine.threads:
        torch.set_num_threads(config.machine.threads)
    keep_freed_memory()
    lightning.seed_everything(config.schedule.seed, verbose=False)
    student = make_student(config)
    claim(folder, config, student)
    reads_images = getattr(student, 'reads', 'spikes') == 'image'
    clips = ClipsOfRun(config, reads_images, bool(config.teacher.name))
    teacher = make_teacher(config.teacher)  # after the data, since it may need a download
    module = DepthTraining(config, student, teacher)
    log.info(
        '%s: %s parameters, %s training clips, %s validation clips; %s',
        config.model.name, f'{sum(p.numel() for p in student.parameters()):,}',
        len(clips.training), len(clips.validation), folder,
    )  # fmt: skip
    state = folder / STATE
    logging.getLogger('lightning.pytorch').setLevel(logging.WARNING)
    trainer = make_trainer(config, folder, Keeper(folder, config, name))
    with warnings.catch_warnings():
        # batches follow from the iteration, so the loader needs no state of its own
        warnings.filterwarnings('ignore', message='.*dataloader is not resumable.*')
        warnings.filterwarnings('ignore', message='.*does not have many workers.*')
        # the averaged weights are not trained, and stay in eval mode
        warnings.filterwarnings('ignore', message='.*in eval mode at the start of training.*')
        warnings.filterwarnings('ignore', message='.*smaller than the logging interval.*')
        # metrics are reduced by torchmetrics; logged losses are those of one process
        warnings.filterwarnings('ignore', message='.*sync_dist=True.*')
        warnings.filterwarnings('ignore', message='.*LeafSpec.* is deprecated.*')
        trainer.fit(module, clips, ckpt_path=state if state.exists() else None, weights_only=True)
        if module.validated_at < trainer.global_step:  # the last interval was cut short
            trainer.validate(module, clips, verbose=False)
    return folder / BEST


def keep_freed_memory() -> None:
    """Lets the allocator keep the memory that a step frees, for the next step.

    glibc would return large blocks to the system, which clears each page when it is allocated
    again: a tenth of the time of a step on a CPU. Has no effect without glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is not None:
        mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD


def make_student(config: TrainConfig) -> nn.Module:
    """The network to train, new or from a checkpoint of the same configuration."""
    student = build(config.model.name, config.model.config, config.spikes.steps)
    if config.model.weights:
        start = load_checkpoint(config.model.weights)
        if start.model_config != student.config:
            raise ConfigError(
                f'{config.model.weights!r} holds {start.model_config}, the run asks for '
                f'{student.config}: make model.name and model.config the same'
            )
        if start.spikes != config.spikes:
            log.warning(
                '%s was trained with spikes %s, not %s: its first predictions will be off',
                config.model.weights, start.spikes, config.spikes,
            )  # fmt: skip
        if start.depth_range != config.depth_range:
            log.info('%s was trained with %s: its last layer is fitted to %s',
                     config.model.weights, start.depth_range, config.depth_range)  # fmt: skip
            change_range(start.model, start.depth_range, config.depth_range)
        student.load_state_dict(start.model.state_dict())
    # convolutions on the CPU are up to twice as fast in this layout, most of all in bfloat16
    student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return student.train()


def make_teacher(choice: TeacherChoice) -> Teacher | None:
    """The chosen teacher, with its cache."""
    if not choice.name:
        return None
    if choice.name not in TEACHERS:
        raise ConfigError(f'no teacher {choice.name!r}; there are {sorted(TEACHERS)}')
    teacher = TEACHERS[choice.name](choice.source)
    return CachedTeacher(teacher, choice.cache) if choice.cache else teacher


def make_trainer(config: TrainConfig, folder: Path, keeper: Keeper) -> lightning.Trainer:
    """Lightning's trainer for a configuration."""
    machine, schedule = config.machine, config.schedule
    return _lightning(
        accelerator=machine.accelerator,
        devices=machine.devices or 'auto',
        num_nodes=machine.nodes,
        strategy=machine.strategy,
        precision=machine.precision,
        max_steps=schedule.max_iterations,
        max_epochs=-1,
        val_check_interval=schedule.validate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=1,
        log_every_n_steps=schedule.log_every,
        gradient_clip_val=config.optimizer.clip_norm or None,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[keeper, TQDMProgressBar(refresh_rate=schedule.log_every)],
        logger=TensorBoardLogger(folder, name='', version=''),
        default_root_dir=folder,
    )


def _lightning(**options: Any) -> lightning.Trainer:
    try:
        return lightning.Trainer(**options)
    except MisconfigurationException as error:
        raise ConfigError(
            f'this machine cannot provide the settings of machine: {error}'
        ) from error
