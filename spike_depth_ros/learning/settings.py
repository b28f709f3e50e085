"""Configuration of training and evaluation: frozen dataclasses, read from one YAML file."""

from __future__ import annotations

import dataclasses
from typing import Any

from spike_depth_ros.events.config import DepthRange, SpikeConfig, require
from spike_depth_ros.learning.datasets.augment import AugmentConfig


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights of the losses (0 omits one) and their constants; see `learning.losses`.

    Attributes:
        laplace: likelihood of the depth error under the predicted scale, in metres.
        laplace_beta: 0 plain likelihood, 1 the depth gradient of an L1 loss.
        scale_invariant: scale-invariant log loss.
        scale_invariant_balance: lambda, 0 to 1: 1 ignores a common factor of all depths.
        relative: relative error of metres; depth that is too far costs more than depth that is
            too near by the same factor.
        gradient: multi-scale gradient loss.
        gradient_scales: number of scales of the gradient loss.
        range: cross-entropy of the probability of being within range.
        beyond: pulls the depth of pixels beyond range to the far end.
        domain: L1 distance from the teacher's features.
        semantic: distance from the teacher's similarities between patches.
        only_event_patches: features are compared only at patches with an event.
    """

    laplace: float = 1.0
    laplace_beta: float = 1.0
    scale_invariant: float = 0.5
    scale_invariant_balance: float = 0.85
    relative: float = 0.0
    gradient: float = 0.25
    gradient_scales: int = 4
    range: float = 0.5
    beyond: float = 0.1
    domain: float = 0.5
    semantic: float = 0.5
    only_event_patches: bool = True

    def __post_init__(self) -> None:
        for name in ('laplace', 'scale_invariant', 'relative', 'gradient', 'range', 'beyond',
                     'domain', 'semantic'):  # fmt: skip
            require(getattr(self, name) >= 0, name, getattr(self, name), '0 or more')
        for name in ('laplace_beta', 'scale_invariant_balance'):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), '0 to 1')
        require(1 <= self.gradient_scales <= 8, 'gradient_scales', self.gradient_scales, '1 to 8')
        require(
            bool(self.laplace or self.scale_invariant or self.relative),
            'laplace, scale_invariant and relative', 0.0,
            'at least one above 0, or nothing trains the depth',
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ModelChoice:
    """The network to train.

    Attributes:
        name: key of `MODELS` or `PRESETS`.
        config: fields that differ from its default configuration.
        weights: checkpoint to start from; '' for a new network.
    """

    name: str = 'spiking_transformer'
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    weights: str = ''


@dataclasses.dataclass(frozen=True)
class MoreClips:
    """A further source of training clips.

    Attributes:
        fields: fields of the data set's configuration. They may contain their own `clip_windows`;
            the number of windows with a loss is at most that of the first source.
        times: how often each of these clips is used for each use of a clip of `DataChoice.train`.
    """

    fields: dict[str, Any]
    times: int = 1

    def __post_init__(self) -> None:
        require(self.times >= 1, 'times', self.times, 'at least 1')


@dataclasses.dataclass(frozen=True)
class DataChoice:
    """The data for training and for validation.

    Attributes:
        name: key of `DATASETS`.
        train: fields of that data set's configuration, for training.
        validation: the same for validation; never the data on which figures are published.
        augment: strength of the augmentation of training clips.
        workers: number of loader processes; 0 loads in the training process.
        more: further sources of training clips, of the same data set.
    """

    name: str = 'synthetic'
    train: dict[str, Any] = dataclasses.field(default_factory=dict)
    validation: dict[str, Any] = dataclasses.field(default_factory=dict)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    workers: int = 1
    more: list[MoreClips] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        require(self.workers >= 0, 'workers', self.workers, '0 or more')


@dataclasses.dataclass(frozen=True)
class TeacherChoice:
    """The teacher whose features the student imitates.

    Attributes:
        name: key of `TEACHERS`; '' trains without a teacher.
        source: its weights: a hub id, a folder or a checkpoint.
        cache: folder for its features; '' computes them every time. Useful only without
            augmentation, which changes the images.
    """

    name: str = ''
    source: str = ''
    cache: str = ''


OPTIMIZERS = ('adamw', 'muon')


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser, with linear warm-up and cosine decay.

    Attributes:
        name: adamw (Loshchilov and Hutter, ICLR 2019) or muon (Jordan 2024).
        learning_rate: greatest learning rate.
        final_rate: last learning rate, as a fraction of the greatest.
        warmup: iterations until the greatest learning rate.
        weight_decay: of weights; biases, norms and neurons have none.
        clip_norm: greatest norm of the gradient; 0 does not clip.
        ema_decay: of the moving average of the weights, which is validated and saved; 0 uses
            the weights themselves.
        norm_momentum: momentum of the running statistics of batch normalisations.
        norm_clips: number of training clips on which the statistics of the averaged weights are
            measured before each validation, and those of the student when they are frozen.
            Running statistics are those of earlier weights: with them, short runs validated at
            1.5 times the error of the same weights with statistics of their own. 0 keeps the
            running statistics.
        freeze_norms: fraction of the run after which the statistics are fixed and used in
            training too, as in inference. Otherwise the network stays adapted to the statistics
            of its small batches of mixed scenes.
    """

    name: str = 'adamw'
    learning_rate: float = 2e-3
    final_rate: float = 0.02
    warmup: int = 200
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    norm_momentum: float = 0.03
    norm_clips: int = 64
    freeze_norms: float = 0.4

    def __post_init__(self) -> None:
        require(self.name in OPTIMIZERS, 'name', self.name, f'one of {OPTIMIZERS}')
        require(self.learning_rate > 0, 'learning_rate', self.learning_rate, 'above 0')
        require(0 <= self.final_rate <= 1, 'final_rate', self.final_rate, '0 to 1')
        require(self.warmup >= 0, 'warmup', self.warmup, '0 or more')
        require(self.weight_decay >= 0, 'weight_decay', self.weight_decay, '0 or more')
        require(self.clip_norm >= 0, 'clip_norm', self.clip_norm, '0 or more')
        require(0 <= self.ema_decay < 1, 'ema_decay', self.ema_decay, '0 to below 1')
        require(0 < self.norm_momentum <= 1, 'norm_momentum', self.norm_momentum, 'above 0, to 1')
        require(self.norm_clips >= 0, 'norm_clips', self.norm_clips, '0 or more')
        require(0 <= self.freeze_norms <= 1, 'freeze_norms', self.freeze_norms, '0 to 1')


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Length of the run, batches, and intervals of validation.

    Attributes:
        max_iterations: steps of the optimiser.
        batch_size: clips per step, of all processes together.
        clip_windows: consecutive windows per clip; the state is carried through them, the
            gradient stops at each window.
        warm_windows: the first windows of a clip, which only fill the membranes: no loss, no
            gradient, a fraction of the cost. Clips of another length have as many windows with a
            loss, at their end, or all they have.
        rest: probability that the state of a clip is reset before a window, so that the network
            also learns to start.
        validate_every: iterations between validations.
        validation_clips: clips per validation, evenly spread; 0 uses all.
        log_every: iterations between lines of the log.
        save_every: iterations between saved states.
        cap_m: cap of the validation metrics.
        seed: of weights, order and augmentation.
    """

    max_iterations: int = 4000
    batch_size: int = 8
    clip_windows: int = 1
    warm_windows: int = 0
    rest: float = 0.1
    validate_every: int = 500
    validation_clips: int = 160
    log_every: int = 20
    save_every: int = 200
    cap_m: float = 80.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ('max_iterations', 'batch_size', 'clip_windows', 'validate_every',
                     'log_every', 'save_every'):  # fmt: skip
            require(getattr(self, name) >= 1, name, getattr(self, name), 'at least 1')
        require(
            0 <= self.warm_windows < self.clip_windows,
            'warm_windows',
            self.warm_windows,
            f'0 to {self.clip_windows - 1}, below clip_windows',
        )
        require(self.validation_clips >= 0, 'validation_clips', self.validation_clips, '0 or more')
        require(0 <= self.rest <= 1, 'rest', self.rest, '0 to 1')
        require(self.cap_m > 0, 'cap_m', self.cap_m, 'above 0')


@dataclasses.dataclass(frozen=True)
class Machine:
    """The machine; the names are those of lightning.

    Attributes:
        accelerator: auto, cpu or gpu.
        devices: number of processes per host, one device each; 0 for all devices.
        nodes: hosts.
        strategy: auto, ddp, ddp_find_unused_parameters_true...
        precision: 32-true, bf16-mixed or 16-mixed.
        threads: threads of each process for arithmetic; 0 for the default of torch.
    """

    accelerator: str = 'auto'
    devices: int = 1
    nodes: int = 1
    strategy: str = 'auto'
    precision: str = '32-true'
    threads: int = 0

    def __post_init__(self) -> None:
        require(self.devices >= 0, 'devices', self.devices, '0 or more')
        require(self.nodes >= 1, 'nodes', self.nodes, 'at least 1')
        require(self.threads >= 0, 'threads', self.threads, '0 or more')


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training run: everything that determines its outcome."""

    model: ModelChoice = dataclasses.field(default_factory=ModelChoice)
    data: DataChoice = dataclasses.field(default_factory=DataChoice)
    spikes: SpikeConfig = dataclasses.field(default_factory=SpikeConfig)
    depth_range: DepthRange = dataclasses.field(default_factory=DepthRange)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    teacher: TeacherChoice = dataclasses.field(default_factory=TeacherChoice)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    schedule: Schedule = dataclasses.field(default_factory=Schedule)
    machine: Machine = dataclasses.field(default_factory=Machine)


@dataclasses.dataclass(frozen=True)
class EvaluationData:
    """The data to measure on.

    Attributes:
        name: key of `DATASETS`.
        test: fields of that data set's configuration, for measuring.
        fit: fields for fitting the trivial baselines: training data; empty omits them.
        clips: at most this many of each set, evenly spread; 0 uses all.
        clip_windows: windows per clip; the last one is measured.
        sets: several such data in place of `test`, name -> fields: they stand side by side in
            the tables, and the first is what the others are compared with.
    """

    name: str = 'synthetic'
    test: dict[str, Any] = dataclasses.field(default_factory=dict)
    fit: dict[str, Any] = dataclasses.field(default_factory=dict)
    clips: int = 0
    clip_windows: int = 1
    sets: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        require(self.clips >= 0, 'clips', self.clips, '0 or more')
        require(self.clip_windows >= 1, 'clip_windows', self.clip_windows, 'at least 1')
        require(not (self.test and self.sets), 'sets', self.sets, 'empty where test is given')

    @property
    def named(self) -> dict[str, dict[str, Any]]:
        """Name -> fields of all sets; a single one has the name ''."""
        return self.sets or {'': self.test}


SCALES = ('none', 'odometry', 'height', 'oracle')
"""Sources of the scale: the network alone; the motion of the camera; its height above the ground;
the ground truth of each map, which is the limit of any single factor."""


@dataclasses.dataclass(frozen=True)
class OdometryErrors:
    """Errors that are added to the odometry of a recording.

    Attributes:
        factor: by which velocities are multiplied.
        late_ms: how much later than the motion its samples are stamped.
        rate_hz: samples are left out down to this rate; 0 keeps all.
        noise_mps: standard deviation of white noise on each component of the velocity.
        noise_radps: standard deviation of white noise on each component of the turning rate.
    """

    factor: float = 1.0
    late_ms: float = 0.0
    rate_hz: float = 0.0
    noise_mps: float = 0.0
    noise_radps: float = 0.0

    def __post_init__(self) -> None:
        require(0.1 <= self.factor <= 10, 'factor', self.factor, '0.1 to 10')
        require(abs(self.late_ms) <= 1000, 'late_ms', self.late_ms, '-1000 to 1000')
        for name in ('rate_hz', 'noise_mps', 'noise_radps'):
            require(getattr(self, name) >= 0, name, getattr(self, name), '0 or more')


@dataclasses.dataclass(frozen=True)
class ScaleSettings:
    """How to measure recordings.

    Attributes:
        scales: of `SCALES`.
        camera_pose: as the parameter of depth_node; '' for the identity or /tf_static.
        camera_height_m: of the camera above the ground, for the scale from height.
        odometry_errors: to add to the odometry.
        skip_s: depth maps of the first seconds are not compared with the ground truth.
        cap_m: ground truth beyond this does not count.
    """

    scales: tuple[str, ...] = SCALES
    camera_pose: str = ''
    camera_height_m: float = 0.0
    odometry_errors: OdometryErrors = dataclasses.field(default_factory=OdometryErrors)
    skip_s: float = 1.0
    cap_m: float = 80.0

    def __post_init__(self) -> None:
        for name in self.scales:
            require(name in SCALES, 'scale', name, f'one of {SCALES}')
        has_height = self.camera_height_m > 0 or 'height' not in self.scales
        require(has_height, 'camera_height_m', self.camera_height_m, 'more than 0 for its scale')
