"""What can be measured: checkpoints as the node runs them, and baselines that see no events.

A predictor maps a clip to depth and confidence at its end.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch

from spike_depth_ros.estimation.depth_frame import Limits, interpret
from spike_depth_ros.estimation.estimator import DepthEstimator, EstimatorOptions
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.config import DepthRange
from spike_depth_ros.events.windows import Window
from spike_depth_ros.learning.datasets.sample import Sample
from spike_depth_ros.network.checkpoint import Checkpoint, load_checkpoint

NO_LIMITS = Limits(0.0, math.inf, 0.0)


class Estimate(NamedTuple):
    """Depth at the end of a clip."""

    depth_m: np.ndarray  # (h, w) float32: NaN no answer, +inf beyond range
    confidence: np.ndarray  # (h, w) float32 in [0, 1]
    infer_ms: float  # for the last window
    before: tuple[np.ndarray, ...] = ()  # depth at the end of the windows before, oldest first


class Predictor(Protocol):
    """Anything that predicts depth."""

    name: str
    parameters: int

    def __call__(self, clip: list[Sample]) -> Estimate:
        """Depth at the end of the clip's last window."""


def checkpoint_name(path: str | Path, parts: int = 0) -> str:
    """Short name of a checkpoint: its file, with the folder of the run where that is needed.

    Args:
        path: of the checkpoint.
        parts: least number of parts of the path, to distinguish equal names.
    """
    path = Path(path)
    whole = (path.with_suffix('') if path.suffix == '.safetensors' else path).parts
    needed = 2 if whole[-1] in ('best', 'last') else 1
    return '/'.join(whole[-max(parts, needed) :])


class CheckpointPredictor:
    """A checkpoint, run by the node's own `DepthEstimator`.

    Args:
        path: of the checkpoint.
        streaming: the state is carried through all windows of a clip; otherwise only the last
            window is used.
        engine: a key of `ENGINES`.
        device: 'auto', 'cpu' or 'cuda'.
        threads: for inference; 0 for all cores but one.

    Attributes:
        checkpoint: as it was loaded.
    """

    def __init__(
        self, path: str | Path, streaming: bool = True, engine: str = 'torch',
        device: str = 'auto', threads: int = 0,
    ) -> None:  # fmt: skip
        self.checkpoint: Checkpoint = load_checkpoint(path)
        self.name = checkpoint_name(path)
        self.parameters = sum(p.numel() for p in self.checkpoint.model.parameters())
        self._options = EstimatorOptions(streaming=streaming)
        self._engine = (engine, device, threads)
        self._estimators: dict[str, DepthEstimator] = {}

    def __call__(self, clip: list[Sample]) -> Estimate:
        """See `Predictor`."""
        estimator = self._estimator(clip[-1].meta)
        estimator.reset()
        windows = clip if self._options.streaming else clip[-1:]
        frames = []
        for i, sample in enumerate(windows):
            t1_ns = int(sample.meta['stamp_ns'])
            t0_ns = t1_ns - int(sample.meta['window_ns'])
            window = Window(t0_ns, t1_ns, sample.spikes, int(sample.spikes.sum()), fresh=i == 0)
            start_s = time.perf_counter()
            frames.append(estimator.infer(window))
            infer_ms = (time.perf_counter() - start_s) * 1e3
        before = tuple(frame.depth_m for frame in frames[:-1])
        return Estimate(frames[-1].depth_m, frames[-1].confidence, infer_ms, before)

    def _estimator(self, meta: dict) -> DepthEstimator:
        """The estimator for the clip's sensor, with the clip's focal length."""
        width, height = map(int, meta['sensor'].split('x'))
        estimator = self._estimators.get(meta['sensor'])
        if estimator is None:
            lens = Camera(width, height, 1.0, 1.0, 0.0, 0.0)
            estimator = DepthEstimator(
                self.checkpoint, height, width, lens, self._options, *self._engine
            )
            self._estimators[meta['sensor']] = estimator
        assert estimator.camera is not None
        focal_px = float(meta['focal_px'])
        estimator.camera = dataclasses.replace(estimator.camera, fx=focal_px, fy=focal_px)
        return estimator


class ImagePredictor:
    """A network that sees the colour image: an upper bound for what it can teach.

    Args:
        checkpoint: of an `rgb_unet`.
        name: shown in tables.
    """

    def __init__(self, checkpoint: Checkpoint, name: str) -> None:
        self.checkpoint, self.name = checkpoint, name
        self.parameters = sum(p.numel() for p in checkpoint.model.parameters())

    @torch.inference_mode()
    def __call__(self, clip: list[Sample]) -> Estimate:
        """See `Predictor`.

        Raises:
            ValueError: the data has no images.
        """
        sample = clip[-1]
        if sample.image is None:
            raise ValueError(f'{self.name} sees images, and this data was opened without them')
        start_s = time.perf_counter()
        image = torch.from_numpy(np.ascontiguousarray(sample.image.transpose(2, 0, 1)))[None]
        maps = torch.cat(self.checkpoint.model(image), dim=1)[0].numpy()
        depth_range = self.checkpoint.depth_range
        scale = float(sample.meta['focal_px']) / depth_range.focal_px
        depth_m, confidence = interpret(maps, depth_range, scale, NO_LIMITS)
        return Estimate(depth_m, confidence, (time.perf_counter() - start_s) * 1e3)


class MeanMap:
    """The mean depth of each pixel over the training data: a baseline that sees nothing.

    The mean is of log canonical depth, per image size. A pixel that was beyond range more often
    than not is predicted as beyond range.

    Args:
        clips: training data.
        depth_range: defines canonical depth and the limit of the range.
    """

    name = 'per-pixel mean map'

    def __init__(self, clips: Iterable[list[Sample]], depth_range: DepthRange) -> None:
        self._range = depth_range
        sums: dict[tuple[int, ...], np.ndarray] = {}
        for clip in clips:
            sample = clip[-1]
            near, beyond, log_depth = _canonical(sample, depth_range)
            total = sums.setdefault(near.shape, np.zeros((3, *near.shape)))
            total += np.stack([near, beyond, log_depth])
        self._maps = {}
        self._middle = math.exp(
            sum(log_depth.sum() for _, _, log_depth in sums.values())
            / max(sum(near.sum() for near, _, _ in sums.values()), 1)
        )
        for size, (near, beyond, log_depth) in sums.items():
            mean = np.exp(log_depth / np.maximum(near, 1))
            # a pixel never seen within range is beyond it, or has the mean of the image size
            middle = np.exp(log_depth.sum() / max(near.sum(), 1))
            mean[near == 0] = middle
            mean[beyond > near] = np.inf
            self._maps[size] = mean
        self.parameters = sum(mean.size for mean in self._maps.values())

    def __call__(self, clip: list[Sample]) -> Estimate:
        """See `Predictor`; gives one depth for an image size that was not in the data."""
        sample = clip[-1]
        shape = sample.depth_m.shape
        canonical = self._maps.get(shape, np.full(shape, self._middle))
        depth_m = canonical * float(sample.meta['focal_px']) / self._range.focal_px
        return Estimate(depth_m.astype(np.float32), np.full(depth_m.shape, 0.5, np.float32), 0.0)


class Constant:
    """One canonical depth for every pixel: the mean of its logarithm over the training data.

    Args:
        clips: training data.
        depth_range: defines canonical depth and the limit of the range.
    """

    name = 'constant'
    parameters = 1

    def __init__(self, clips: Iterable[list[Sample]], depth_range: DepthRange) -> None:
        self._range = depth_range
        count, total = 0, 0.0
        for clip in clips:
            near, _, log_depth = _canonical(clip[-1], depth_range)
            count, total = count + int(near.sum()), total + float(log_depth.sum())
        self._canonical = math.exp(total / max(count, 1))

    def __call__(self, clip: list[Sample]) -> Estimate:
        """See `Predictor`."""
        depth_m = self._canonical * float(clip[-1].meta['focal_px']) / self._range.focal_px
        shape = clip[-1].depth_m.shape
        return Estimate(np.full(shape, depth_m, np.float32), np.full(shape, 0.5, np.float32), 0.0)


def open_predictor(
    path: str, streaming: bool, engine: str, device: str, threads: int
) -> CheckpointPredictor | ImagePredictor:
    """A checkpoint of any network as a predictor."""
    runner = CheckpointPredictor(path, streaming, engine, device, threads)
    if getattr(runner.checkpoint.model, 'reads', 'spikes') == 'image':
        return ImagePredictor(runner.checkpoint, runner.name)
    return runner


def _canonical(sample: Sample, depth_range: DepthRange) -> tuple[np.ndarray, ...]:
    """Masks of what is within and beyond range, and log canonical depth (0 elsewhere)."""
    with np.errstate(invalid='ignore'):
        canonical = sample.depth_m * (depth_range.focal_px / float(sample.meta['focal_px']))
        near = (canonical > 0) & (canonical < depth_range.max_m)
        beyond = canonical >= depth_range.max_m
    return near, beyond, np.log(np.where(near, canonical, 1.0))
