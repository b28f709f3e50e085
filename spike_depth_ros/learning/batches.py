"""Batches of clips: their selection, order and stacking.

The order depends on the seed and the iteration only, so an interrupted run resumes exactly, and
several processes share the batches that one process would have.
"""

from __future__ import annotations

import dataclasses
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from spike_depth_ros.events.config import ConfigError, SpikeConfig, from_dict
from spike_depth_ros.learning.datasets import DATASETS
from spike_depth_ros.learning.datasets.augment import AugmentConfig, augment
from spike_depth_ros.learning.datasets.sample import Sample


class Batch(NamedTuple):
    """Clips of K windows; all padded right and below to one size."""

    spikes: Tensor  # (K, T, B, 2, H, W) uint8
    depth_m: Tensor  # (K, B, 1, H, W) float32: NaN unknown, +inf beyond
    focal_px: Tensor  # (B,) float32
    image: Tensor | None  # (K, B, 3, H, W) uint8 RGB, black where there was none
    pictured: Tensor  # (K, B) bool: where there is an image
    size: Tensor  # (B, 2) int64: height and width without padding


def open_clips(
    name: str, values: dict[str, Any], spikes: SpikeConfig, clip_windows: int, images: bool
) -> Sequence[list[Sample]]:
    """Opens a data set of `DATASETS`.

    Args:
        name: its name.
        values: fields of its configuration; those shared with the training run (`spikes`,
            `clip_windows`, `images`) are filled in.
        spikes: configuration of the spike tensors.
        clip_windows: windows per clip.
        images: whether the colour images are needed.

    Raises:
        ConfigError: an unknown name or field.
        DatasetError: the data is missing or damaged.
    """
    if name not in DATASETS:
        raise ConfigError(f'no data set {name!r}; there are {sorted(DATASETS)}')
    entry = DATASETS[name]
    fields = {field.name for field in dataclasses.fields(entry.config)}
    shared = {'spikes': spikes, 'clip_windows': clip_windows, 'images': images}
    given = {key: value for key, value in shared.items() if key in fields}
    try:
        config: Any = from_dict(entry.config, {**given, **values})
    except ConfigError as error:
        if values:
            raise
        raise ConfigError(
            f'no data is given ({error}): name a file of config/train/, or --config '
            'config/evaluate/synthetic.yaml to measure'
        ) from error
    return entry(config)


class Draw(NamedTuple):
    """One clip to read, and the seed of its augmentation."""

    clip: int
    seed: tuple[int, ...]


class TrainingClips(Dataset):
    """Clips with a new augmentation for each use."""

    def __init__(self, clips: Sequence[list[Sample]], config: AugmentConfig) -> None:
        self.clips, self.config = clips, config

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, draw: Draw) -> list[Sample]:
        rng = np.random.default_rng(draw.seed)
        return augment(self.clips[draw.clip], self.config, rng)


class DrawnBatches(Sampler[list[Draw]]):
    """Endless shuffled epochs, split into batches of one group each.

    Args:
        groups: indices that may share a batch (clips of one size).
        batch_size: of all processes together.
        iterations: number of batches.
        seed: of the order.
        rank: of this process.
        world: number of processes; each gets an equal part of every batch.

    Attributes:
        start: first iteration; set before a run resumes.

    Raises:
        ConfigError: the batch cannot be divided equally.
    """

    def __init__(
        self, groups: Sequence[Sequence[int]], batch_size: int, iterations: int, seed: int,
        rank: int = 0, world: int = 1,
    ) -> None:  # fmt: skip
        if batch_size % world:
            raise ConfigError(
                f'batch_size is {batch_size}, expected a multiple of the {world} processes'
            )
        self.groups = [np.array(group) for group in groups]
        self.batch_size, self.iterations, self.seed = batch_size, iterations, seed
        self.rank, self.world = rank, world
        self.start = 0

    def __len__(self) -> int:
        return self.iterations

    def __iter__(self) -> Iterator[list[Draw]]:
        part = slice(self.rank, None, self.world)
        for iteration, batch in enumerate(self._batches()):
            if iteration >= self.iterations:
                return
            if iteration >= self.start:
                draws = [
                    Draw(int(index), (self.seed, iteration, place))
                    for place, index in enumerate(batch)
                ]
                yield draws[part]

    def _batches(self) -> Iterator[np.ndarray]:
        epoch = 0
        while True:
            rng = np.random.default_rng((self.seed, epoch))
            batches = []
            for group in self.groups:
                # the first clips of an epoch complete its last batch
                count = -(-len(group) // self.batch_size) * self.batch_size
                order = np.resize(rng.permutation(group), count)
                batches += list(order.reshape(-1, self.batch_size))
            for place in rng.permutation(len(batches)):
                yield batches[place]
            epoch += 1


def groups_by_size(clips: Sequence[list[Sample]], config: AugmentConfig) -> list[list[int]]:
    """Groups of indices of clips that can be stacked without padding.

    A data set gives the sizes by a method `sizes() -> Sequence[tuple[int, int]]`. Without it, and
    if augmentation crops all to one size, all clips form one group.
    """
    cropped = config.crop_height and config.crop_width
    if cropped or not hasattr(clips, 'sizes'):
        return [list(range(len(clips)))]
    groups = defaultdict(list)
    for index, size in enumerate(clips.sizes()):
        groups[size].append(index)
    return list(groups.values())


def collate(clips: list[list[Sample]]) -> Batch:
    """Stacks clips of equal numbers of windows."""
    height, width = np.max([clip[0].spikes.shape[-2:] for clip in clips], axis=0)

    def stacked(read: Callable[[Sample], np.ndarray], fill: float) -> Tensor:
        rows = [[_fit(read(sample), height, width, fill) for sample in clip] for clip in clips]
        return torch.from_numpy(np.stack([np.stack(row) for row in rows], axis=1))  # (K, B, ...)

    spikes = stacked(lambda sample: sample.spikes, 0).transpose(1, 2).contiguous()
    pictured = torch.tensor([[sample.image is not None for sample in clip] for clip in clips]).T
    return Batch(
        spikes,
        stacked(_supervised, np.nan),
        torch.tensor([clip[0].meta['focal_px'] for clip in clips], dtype=torch.float32),
        stacked(_channels_first, 0) if pictured.any() else None,
        pictured,
        torch.tensor([clip[0].depth_m.shape for clip in clips]),
    )


def loader(dataset: Any, workers: int, **options: Any) -> DataLoader:
    """A `DataLoader` of batches whose processes use one thread each.

    They ignore signals and end with their parent: Ctrl-C reaches them as well, and the step
    that the parent completes still needs them.
    """
    return DataLoader(
        dataset, collate_fn=collate, num_workers=workers, persistent_workers=workers > 0,
        worker_init_fn=_serve, prefetch_factor=4 if workers else None, **options,
    )  # fmt: skip


def spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` of `count` indices, evenly spread; all for 0."""
    if not wanted or wanted >= count:
        return list(range(count))
    return [int(i) for i in np.linspace(0, count - 1, wanted).round()]


def _serve(worker: int) -> None:
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _fit(maps: np.ndarray, height: int, width: int, fill: float) -> np.ndarray:
    """Pads the last two axes, right and below, to height x width."""
    margin = [(0, 0)] * (maps.ndim - 2)
    margin += [(0, height - maps.shape[-2]), (0, width - maps.shape[-1])]
    return np.pad(maps, margin, constant_values=fill)


def _supervised(sample: Sample) -> np.ndarray:
    """(1, h, w) metres; finite but invalid depth becomes NaN."""
    return np.where(np.isfinite(sample.depth_m) & ~sample.valid, np.nan, sample.depth_m)[None]


def _channels_first(sample: Sample) -> np.ndarray:
    if sample.image is None:
        return np.zeros((3, *sample.depth_m.shape), np.uint8)
    return np.asarray(sample.image).transpose(2, 0, 1)
