"""One training step: losses of depth and of imitation of a teacher, over the windows of a clip."""

from __future__ import annotations

import copy
import math
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from spike_depth_ros.estimation.depth_frame import Limits, interpret
from spike_depth_ros.events.config import ConfigError
from spike_depth_ros.learning import losses
from spike_depth_ros.learning.batches import Batch
from spike_depth_ros.learning.metrics import DepthMetrics, frame_metrics
from spike_depth_ros.learning.norms import measure_norms, network_input, norms, to_device
from spike_depth_ros.learning.optimizer import METHODS, follow, parameter_groups, rate
from spike_depth_ros.learning.report_pages import sample_picture
from spike_depth_ros.learning.settings import TrainConfig
from spike_depth_ros.network.head import Prediction
from spike_depth_ros.network.spiking_transformer import SpikingTransformer
from spike_depth_ros.network.teacher import Teacher

STRIDE_PX = 8
SMOOTHING = 0.98
"""Decay of logged losses: exponential means over about 50 iterations."""

PICTURES = 6
"""Number of validation clips that are logged as pictures."""

FEATURE_LAYERS: dict[str, Callable[[Any], list[nn.Module]]] = {
    'SpikingTransformer': lambda network: list(network.blocks),
    'UNet': lambda network: [network.body.down[-1]],
    'E2Depth': lambda network: list(network.residuals),
    'SpikeT': lambda network: list(network.residuals),
}
"""Class of a network -> its layers of stride 8 that can imitate a teacher, the deepest last."""


class FeatureTap:
    """Records the outputs of some layers of a network.

    Args:
        network: one of `FEATURE_LAYERS`.
        count: number of layers, from the deepest.

    Raises:
        ConfigError: the network has no such layers.
    """

    def __init__(self, network: nn.Module, count: int) -> None:
        kind = type(network).__name__
        layers = FEATURE_LAYERS[kind](network) if kind in FEATURE_LAYERS else []
        if not layers:
            raise ConfigError(
                f'{kind} has no layers that can imitate a teacher: train it without '
                "(--teacher.name ''), or choose one of " + ', '.join(sorted(FEATURE_LAYERS))
            )
        self.layers = layers[-count:]
        self._recorded: list[Tensor] = []
        for layer in self.layers:
            layer.register_forward_hook(
                lambda _module, _inputs, output: self._recorded.append(output)
            )

    def take(self) -> list[Tensor]:
        """The outputs since the last call, (B, C, h, w) each: (T, B, C, h, w) is averaged."""
        recorded, self._recorded = self._recorded, []
        return [maps.mean(0) if maps.ndim == 5 else maps for maps in recorded]


class DepthTraining(lightning.LightningModule):
    """Trains a student, with or without a teacher.

    Args:
        config: of the run.
        student: the network to train.
        teacher: gives the features to imitate; it is not part of this module, so it is in
            neither the optimiser nor a saved state.

    Attributes:
        averaged: the moving average of the student, which is validated and saved.
        figures: metrics of the last validation.
        validated_at: iteration of the last validation; 0 before the first.
        wall_s: time spent in training, over all resumed runs.
    """

    student: Any
    averaged: Any

    def __init__(
        self, config: TrainConfig, student: nn.Module, teacher: Teacher | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.student = student
        for norm in norms(student):
            norm.momentum = config.optimizer.norm_momentum
        self.averaged = copy.deepcopy(student).eval().requires_grad_(False)
        self.metrics = DepthMetrics()
        self.figures: dict[str, float] = {}
        self.validated_at = 0
        self.wall_s = 0.0
        self._since_s = time.monotonic()
        self._shown: list[tuple] = []
        self._smoothed: dict[str, tuple[Tensor | float, int]] = {}
        self._teacher = (teacher,)  # in a tuple, so that it does not become a submodule
        self._tap: FeatureTap | None = None
        self.adapters = nn.ModuleList()
        if teacher is not None:
            self._tap = FeatureTap(student, len(teacher.channels))
            widths = _feature_widths(student, self._tap, config.spikes.steps)
            wanted = teacher.channels[-len(widths) :]
            self.adapters.extend(
                nn.Identity() if i == o else nn.Conv2d(i, o, 1)
                for i, o in zip(widths, wanted, strict=True)
            )

    @property
    def teacher(self) -> Teacher | None:
        """The frozen teacher."""
        return self._teacher[0]

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Freezes the batch normalisations in the later part of the run."""
        if self.global_step < self._frozen_from:
            return
        if self.global_step == self._frozen_from > 0:
            self._measure_norms(self.student)
        for norm in norms(self.student):
            norm.eval()

    @property
    def _frozen_from(self) -> int:
        """The iteration from which the batch normalisations are frozen."""
        return math.ceil(self.config.optimizer.freeze_norms * self.config.schedule.max_iterations)

    def _measure_norms(self, network: nn.Module) -> None:
        """Gives a network the statistics of its own weights, where the configuration asks so."""
        if self.config.optimizer.norm_clips:
            with self.trainer.precision_plugin.forward_context():
                batches = self.trainer.datamodule.norm_batches()  # type: ignore[attr-defined]
                measure_norms(network, (to_device(batch, self.device) for batch in batches))
            if self._tap is not None:
                self._tap.take()  # these windows have no loss

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch of clips, averaged over the windows with a loss."""
        totals: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.device))
        state = None
        windows, schedule = len(batch.spikes), self.config.schedule
        warm = max(windows - (schedule.clip_windows - schedule.warm_windows), 0)
        for k in range(windows):
            if state is not None:
                state = carried(state, self._kept(k, batch.focal_px))
            seen = network_input(self.student, batch, k)
            if k < warm:
                # on a CPU the kernels with gradients are the fast ones for a batch
                with torch.set_grad_enabled(self.device.type == 'cpu'):
                    state = carry(self.student, seen, state)
                # otherwise older torch would use its half-precision copies of the weights, made
                # without a gradient, in the windows with a loss
                torch.clear_autocast_cache()
                if self._tap is not None:
                    self._tap.take()  # these windows have no loss
                continue
            answer, state = self.student.step(seen, state)
            for name, term in self._window_losses(answer, batch, k).items():
                totals[name] = totals[name] + term / (windows - warm)
        loss = torch.stack(list(totals.values())).sum()
        self._log_smoothed({'loss': loss, **totals})
        return loss

    def _log_smoothed(self, values: dict[str, Tensor]) -> None:
        """Logs means over the last iterations, since single batches vary much."""
        for name, value in values.items():
            mean, count = self._smoothed.get(name, (0.0, 0))
            keep = min(count / (count + 1), SMOOTHING)
            self._smoothed[name] = (keep * mean + (1 - keep) * value.detach(), count + 1)
        means = {name: mean for name, (mean, _) in self._smoothed.items()}
        self.log('loss', means.pop('loss'), prog_bar=True, batch_size=1)
        self.log_dict({f'train/{name}': mean for name, mean in means.items()}, batch_size=1)

    def _window_losses(self, answer: Prediction, batch: Batch, k: int) -> dict[str, Tensor]:
        config = self.config
        truth = losses.target(batch.depth_m[k], batch.focal_px, config.depth_range)
        terms = losses.depth_losses(answer, truth, config.depth_range, config.loss)
        if self._tap is None:
            return terms
        return terms | self._imitation(self._tap.take(), batch, k)

    def _imitation(self, own: list[Tensor], batch: Batch, k: int) -> dict[str, Tensor]:
        """Distances of the student's features in window k from the teacher's, where images exist.

        Without any image the terms are 0 but present, so that all processes have gradients for
        the same parameters.
        """
        weights, spikes = self.config.loss, batch.spikes[k]
        assert self.teacher is not None
        height, width = spikes.shape[-2:]
        image = spikes.new_zeros(spikes.shape[1], 3, height, width)
        if batch.image is not None:
            image = batch.image[k]
        mask = batch.pictured[k].view(-1, 1, 1, 1).expand(-1, 1, *own[0].shape[-2:])
        if weights.only_event_patches:
            mask = mask & losses.patches_with_events(spikes, STRIDE_PX)
        pairs = list(zip(own, self.adapters, self.teacher(image)[-len(own) :], strict=True))
        parts: dict[str, list[Tensor]] = {}
        for maps, adapter, wanted in pairs:
            if weights.domain:
                parts.setdefault('domain', []).append(
                    weights.domain * losses.domain_loss(adapter(maps), wanted, mask)
                )
            if weights.semantic:
                parts.setdefault('semantic', []).append(
                    weights.semantic * losses.semantic_loss(maps, wanted, mask)
                )
        return {name: torch.stack(terms).mean() for name, terms in parts.items()}

    def _kept(self, k: int, like: Tensor) -> Tensor:
        """(B,) bool: the clips of this process whose state is carried into window k."""
        schedule = self.config.schedule
        seed = hash((schedule.seed, self.global_step, k)) % 2**63
        generator = torch.Generator().manual_seed(seed)
        draws = torch.rand(schedule.batch_size, generator=generator)
        own = draws[self.global_rank :: self.trainer.world_size]
        return (own >= schedule.rest).to(like.device)

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """One step, and the update of the averaged weights."""
        super().optimizer_step(*arguments, **options)
        done = self.global_step + 1
        decay = min(self.config.optimizer.ema_decay, (1 + done) / (10 + done))
        follow(self.averaged, self.student, decay)
        now = time.monotonic()
        self.wall_s, self._since_s = self.wall_s + now - self._since_s, now

    def on_validation_start(self) -> None:
        """Validates in eval mode, with statistics that belong to the averaged weights."""
        self.averaged.eval()
        if not self.trainer.sanity_checking and self.global_step <= self._frozen_from:
            self._measure_norms(self.averaged)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds the last window of one clip to the metrics."""
        state = None
        for k in range(len(batch.spikes)):
            answer, state = self.averaged.step(network_input(self.averaged, batch, k), state)
        maps = torch.cat(answer, dim=1).float().cpu().numpy()
        for i, (height, width) in enumerate(batch.size.tolist()):
            image = maps[i, :, :height, :width]
            scale = float(batch.focal_px[i]) / self.config.depth_range.focal_px
            depth_m, confidence = interpret(
                image, self.config.depth_range, scale, Limits(0.0, math.inf, 0.0)
            )
            truth_m = batch.depth_m[-1, i, 0, :height, :width].cpu().numpy()
            cap_m = self.config.schedule.cap_m
            self.metrics.update(frame_metrics(depth_m, confidence, truth_m, cap_m))
            if len(self._shown) < PICTURES and batch_idx % 3 == 0:
                spikes = batch.spikes[-1, :, i, :, :height, :width].cpu().numpy()
                self._shown.append((spikes, truth_m, depth_m, confidence))

    def on_validation_epoch_end(self) -> None:
        """Computes and logs the metrics of this validation."""
        figures = self.metrics.compute()
        self.metrics.reset()
        if self.trainer.sanity_checking:  # one clip, untrained weights
            self._shown = []
            return
        self.figures, self.validated_at = figures, self.global_step
        known = {k: float(v) for k, v in self.figures.items() if not math.isnan(v)}
        self.log_dict({f'validation/{name}': value for name, value in known.items()})
        self.log('abs_rel', self.figures['abs_rel'], prog_bar=True, logger=False)
        board = getattr(self.logger, 'experiment', None)
        if board is not None and hasattr(board, 'add_image'):
            for i, shown in enumerate(self._shown):
                board.add_image(
                    f'validation/{i}', sample_picture(*shown), self.global_step, dataformats='HWC'
                )
        self._shown = []

    def configure_optimizers(self) -> Any:
        """The optimiser, and its schedule per iteration."""
        config = self.config.optimizer
        parts = nn.ModuleList([self.student, self.adapters])
        groups = parameter_groups(parts, config)
        # few calls for all tensors; `fused` makes one, but then lightning cannot clip gradients
        optimizer = METHODS[config.name](groups, lr=config.learning_rate, foreach=True)
        total = self.config.schedule.max_iterations
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda iteration: rate(iteration, total, config)
        )
        return {'optimizer': optimizer,
                'lr_scheduler': {'scheduler': schedule, 'interval': 'step'}}  # fmt: skip

    def on_fit_start(self) -> None:
        """Moves the teacher to the device of the student."""
        if isinstance(self.teacher, nn.Module) or hasattr(self.teacher, 'to'):
            self.teacher.to(self.device)  # type: ignore[union-attr]
        self._since_s = time.monotonic()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Saves the time spent and the metrics beside the weights."""
        checkpoint['wall_s'] = self.wall_s
        figures = {name: float(value) for name, value in self.figures.items()}
        checkpoint['validation'] = (self.validated_at, figures)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the time spent and the metrics of the last validation."""
        self.wall_s = float(checkpoint['wall_s'])
        self.validated_at, self.figures = checkpoint.get('validation', (0, {}))


def carry(network: Any, seen: Tensor, state: Any) -> Any:
    """The state of a network after a window, without computing depth where possible."""
    if isinstance(network, SpikingTransformer):
        return network.carry(seen, state)
    return network.step(seen, state)[1]


def carried(state: Any, keep: Tensor) -> Any:
    """The state for the next window: detached, and reset where not kept.

    Args:
        state: tensors (B, ...) in nested tuples, named or not; None stays None.
        keep: (B,) bool.
    """
    if state is None:
        return None
    if isinstance(state, Tensor):
        mask = keep.view(-1, *[1] * (state.ndim - 1))
        return torch.where(mask, state.detach(), torch.zeros_like(state))
    parts = [carried(part, keep) for part in state]
    return type(state)(*parts) if hasattr(state, '_fields') else tuple(parts)


def _feature_widths(network: nn.Module, tap: FeatureTap, steps: int) -> list[int]:
    """Channels of the recorded outputs, measured on an empty window."""
    was_training = network.training
    network.eval()
    with torch.no_grad():
        network(torch.zeros(steps, 1, 2, 32, 32, dtype=torch.uint8))
    network.train(was_training)
    return [maps.shape[1] for maps in tap.take()]
