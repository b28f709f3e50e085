"""Measuring predictors on the same clips: all, and in groups that say where they are weak."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from spike_depth_ros.learning.datasets.sample import Sample
from spike_depth_ros.learning.metrics import CAP_M, DepthMetrics, frame_metrics, log_scale
from spike_depth_ros.learning.predictors import Estimate, Predictor

SPARSE, DENSE = 0.05, 0.3
"""Events per pixel and window: fewer is 'sparse', more is 'dense'."""

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
    """What was found out about one predictor."""

    name: str
    parameters: int
    figures: dict[str, float]  # over all clips, see `DepthMetrics`
    groups: dict[str, dict[str, dict[str, float]]]  # group -> part -> figures
    curves: dict[str, list[float]]
    infer_ms: float  # median for one window
    set: str = ''  # name of the data, where there are several


class Shown(NamedTuple):
    """One clip with the answers of all, for pictures."""

    sample: Sample
    answers: list[Estimate]


def evaluate(
    predictors: Sequence[Predictor],
    clips: Sequence[list[Sample]],
    chosen: Sequence[int],
    cap_m: float = CAP_M,
    alignment: str = 'none',
    pictures: int = 6,
    progress: Callable[[Sequence[int]], Iterator[int]] = iter,
) -> tuple[list[Result], list[Shown]]:
    """Lets every predictor answer every clip.

    Args:
        predictors: whom to measure.
        clips: the data.
        chosen: indices of the clips to use.
        cap_m: see `train.metrics`.
        alignment: see `train.metrics`.
        pictures: how many clips to hand back, evenly spread.
        progress: wraps the indices, to show how far it is.
    """
    tallies: list[dict[tuple[str, str], DepthMetrics]] = [{} for _ in predictors]
    times: list[list[float]] = [[] for _ in predictors]
    wanted = set(np.linspace(0, len(chosen) - 1, min(pictures, len(chosen))).round().astype(int))
    shown = []
    for place, index in enumerate(progress(chosen)):
        clip = clips[index]
        parts = [(ALL, ALL), *_parts(clip[-1])]
        answers = []
        for who, tally, took in zip(predictors, tallies, times, strict=True):
            answer = who(clip)
            truth_m = clip[-1].depth_m
            frame = frame_metrics(
                answer.depth_m, answer.confidence, truth_m, cap_m, alignment,
                earlier_scales(answer, clip, cap_m),
            )  # fmt: skip
            for part in parts:
                tally.setdefault(part, DepthMetrics()).update(frame)
            took.append(answer.infer_ms)
            answers.append(answer)
        if place in wanted:
            shown.append(Shown(clip[-1], answers))
    results = [
        _result(who, tally, took)
        for who, tally, took in zip(predictors, tallies, times, strict=True)
    ]
    return results, shown


def earlier_scales(answer: Estimate, clip: list[Sample], cap_m: float) -> list[float]:
    """`log_scale` of the maps before the last one, without the first, which began from rest."""
    truths = [sample.depth_m for sample in clip[:-1]][-len(answer.before) :]
    pairs = list(zip(answer.before, truths, strict=True)) if answer.before else []
    scales = [log_scale(depth_m, truth_m, cap_m) for depth_m, truth_m in pairs[1:]]
    return [scale for scale in scales if not np.isnan(scale)]


def _parts(sample: Sample) -> list[tuple[str, str]]:
    named = ((group, part_of(sample)) for group, part_of in GROUPS.items())
    return [(group, part) for group, part in named if part is not None]


def _result(
    who: Predictor, tally: dict[tuple[str, str], DepthMetrics], took: list[float]
) -> Result:
    groups: dict[str, dict[str, dict[str, float]]] = {}
    for (group, part), metrics in sorted(tally.items()):
        if group != ALL:
            groups.setdefault(group, {})[part] = metrics.compute()
    whole = tally[ALL, ALL]
    return Result(
        who.name, who.parameters, whole.compute(), groups, whole.curves(), float(np.median(took))
    )


def plain(result: Result) -> dict[str, Any]:
    """A result ready for JSON: NaN becomes null."""
    return _plain(result._asdict())


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
