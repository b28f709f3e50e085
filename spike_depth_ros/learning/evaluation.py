"""Measures predictors on the same clips: over all clips, and by groups of clips."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from spike_depth_ros.learning.datasets.sample import Sample
from spike_depth_ros.learning.metrics import CAP_M, DepthMetrics, frame_metrics, log_scale
from spike_depth_ros.learning.predictors import Estimate, Predictor

SPARSE, DENSE = 0.05, 0.3
"""Events per pixel and window below which a clip is 'sparse', and above which 'dense'."""

ALL = 'all'


def _density(sample: Sample) -> str:
    per_pixel = float(sample.spikes.sum()) / sample.depth_m.size
    return 'sparse' if per_pixel < SPARSE else 'dense' if per_pixel > DENSE else 'medium'


def _scene(sample: Sample) -> str | None:
    if sample.meta.get('dataset') != 'synthetic':
        return None
    return str(sample.meta['sequence']).rsplit('_', 2)[0]  # 'street_0000012_03'


def _scene_and_sensor(sample: Sample) -> str | None:
    scene = _scene(sample)
    return None if scene is None else f'{scene} {sample.meta["sensor"]}'


def _light(sample: Sample) -> str | None:
    night = sample.meta.get('night')
    return None if night is None else 'night' if night else 'day'


GROUPS: dict[str, Callable[[Sample], str | None]] = {
    'sensor': lambda sample: sample.meta.get('sensor'),
    'scene': _scene,
    'scene and sensor': _scene_and_sensor,
    'light': _light,
    'motion': lambda sample: sample.meta.get('motion'),
    'sensor model': lambda sample: sample.meta.get('sensor_model'),
    'condition': lambda sample: sample.meta.get('condition'),
    'events': _density,
}
"""Group -> the part of it to which a sample belongs; None where that is unknown."""


class Result(NamedTuple):
    """The measurements of one predictor."""

    name: str
    parameters: int
    figures: dict[str, float]  # over all clips, see `DepthMetrics`
    groups: dict[str, dict[str, dict[str, float]]]  # group -> part -> figures
    curves: dict[str, list[float]]
    infer_ms: float  # median for one window
    set: str = ''  # name of the data, where there are several


class Shown(NamedTuple):
    """One clip with the estimates of all predictors, for pictures."""

    sample: Sample
    estimates: list[Estimate]


def evaluate(
    predictors: Sequence[Predictor],
    clips: Sequence[list[Sample]],
    chosen: Sequence[int],
    cap_m: float = CAP_M,
    alignment: str = 'none',
    pictures: int = 6,
    progress: Callable[[Sequence[int]], Iterator[int]] = iter,
) -> tuple[list[Result], list[Shown]]:
    """Runs every predictor on every clip.

    Args:
        predictors: to measure.
        clips: the data.
        chosen: indices of the clips to use.
        cap_m: see `learning.metrics`.
        alignment: see `learning.metrics`.
        pictures: number of clips to return for pictures, evenly spread.
        progress: wraps the indices, to show progress.
    """
    tallies: list[dict[tuple[str, str], DepthMetrics]] = [{} for _ in predictors]
    times: list[list[float]] = [[] for _ in predictors]
    wanted = set(np.linspace(0, len(chosen) - 1, min(pictures, len(chosen))).round().astype(int))
    shown = []
    for place, index in enumerate(progress(chosen)):
        clip = clips[index]
        parts = [(ALL, ALL), *_parts(clip[-1])]
        estimates = []
        for predictor, tally, took in zip(predictors, tallies, times, strict=True):
            estimate = predictor(clip)
            truth_m = clip[-1].depth_m
            frame = frame_metrics(
                estimate.depth_m, estimate.confidence, truth_m, cap_m, alignment,
                earlier_scales(estimate, clip, cap_m),
            )  # fmt: skip
            for part in parts:
                tally.setdefault(part, DepthMetrics()).update(frame)
            took.append(estimate.infer_ms)
            estimates.append(estimate)
        if place in wanted:
            shown.append(Shown(clip[-1], estimates))
    results = [
        _result(predictor, tally, took)
        for predictor, tally, took in zip(predictors, tallies, times, strict=True)
    ]
    return results, shown


def earlier_scales(estimate: Estimate, clip: list[Sample], cap_m: float) -> list[float]:
    """`log_scale` of the maps before the last one, without the first, which began from rest."""
    truths = [sample.depth_m for sample in clip[:-1]][-len(estimate.before) :]
    pairs = list(zip(estimate.before, truths, strict=True)) if estimate.before else []
    scales = [log_scale(depth_m, truth_m, cap_m) for depth_m, truth_m in pairs[1:]]
    return [scale for scale in scales if not np.isnan(scale)]


def _parts(sample: Sample) -> list[tuple[str, str]]:
    named = ((group, part_of(sample)) for group, part_of in GROUPS.items())
    return [(group, part) for group, part in named if part is not None]


def _result(
    predictor: Predictor, tally: dict[tuple[str, str], DepthMetrics], took: list[float]
) -> Result:
    groups: dict[str, dict[str, dict[str, float]]] = {}
    for (group, part), metrics in sorted(tally.items()):
        if group != ALL:
            groups.setdefault(group, {})[part] = metrics.compute()
    whole = tally[ALL, ALL]
    return Result(
        predictor.name,
        predictor.parameters,
        whole.compute(),
        groups,
        whole.curves(),
        float(np.median(took)),
    )


def plain(result: Result) -> dict[str, Any]:
    """The result in JSON types: NaN and infinities become null."""
    return {key: _plain(value) for key, value in result._asdict().items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
