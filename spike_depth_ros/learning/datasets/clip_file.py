"""A complete clip on disk: one compressed npz without pickles, with separate arrays per window.

Arrays per window k: `spikes_k` (S, 2, H, W) uint8, `depth_k` (h, w) float16 (0.05 %, +inf for
sky), `image_k` (h, w, 3) uint8 if stored; and `meta`, the JSON of a list of `Sample.meta`.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spike_depth_ros.events.atomic_write import partial_path
from spike_depth_ros.learning.datasets.sample import DatasetError, Sample


class ClipWindows(NamedTuple):
    """The part of a clip to read."""

    first: int
    stop: int
    steps: int  # a divisor of the steps on disk
    images: bool


def write_clip_file(path: Path, samples: list[Sample], images: bool) -> None:
    """Writes a clip; the file appears under its name only when it is complete."""
    members: dict[str, np.ndarray] = {'meta': np.array(json.dumps([s.meta for s in samples]))}
    for k, sample in enumerate(samples):
        members[f'spikes_{k}'] = sample.spikes
        members[f'depth_{k}'] = sample.depth_m.astype(np.float16)
        if images and sample.image is not None:
            members[f'image_{k}'] = sample.image
    with partial_path(path, shared=True) as partial, partial.open('wb') as file:
        np.savez_compressed(file, **members)  # type: ignore[arg-type]


def read_clip_file(path: Path, wanted: ClipWindows) -> list[Sample]:
    """Reads some windows of a clip.

    Raises:
        DatasetError: the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as members:
            metas = json.loads(str(members['meta']))
            return [
                _sample(members, k, metas[k], wanted) for k in range(wanted.first, wanted.stop)
            ]
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile,
            zlib.error) as error:  # fmt: skip
        raise DatasetError(
            f'{path} is damaged ({error!r}): remove it to have it rendered again'
        ) from error


def merge_steps(spikes: np.ndarray, steps: int) -> np.ndarray:
    """Adds adjacent time bins, which gives the result of `accumulate` with fewer steps.

    Args:
        spikes: (S, 2, H, W) uint8.
        steps: a divisor of S.
    """
    have = len(spikes)
    if have == steps:
        return spikes
    grouped = spikes.reshape(steps, have // steps, *spikes.shape[1:])
    counts: np.ndarray = np.minimum(grouped.sum(axis=1, dtype=np.uint16), 255)
    return counts.astype(np.uint8)


def _sample(
    members: Mapping[str, np.ndarray], k: int, meta: dict[str, Any], wanted: ClipWindows
) -> Sample:
    depth_m = members[f'depth_{k}'].astype(np.float32)
    image = members[f'image_{k}'] if wanted.images else None
    spikes = merge_steps(members[f'spikes_{k}'], wanted.steps)
    return Sample(spikes, depth_m, np.isfinite(depth_m), image, meta)
