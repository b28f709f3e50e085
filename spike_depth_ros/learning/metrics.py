"""Error figures of depth maps, with one fixed definition each.

A figure is computed per frame and averaged over frames; fractions (false obstacles, calibration)
are pooled over pixels. A pixel counts if its truth is finite, positive and within the cap, and
if it was predicted; predictions are clipped to the cap, "beyond range" (+inf) counts as the cap.
Repositories disagree on most of these definitions, so the cap and the alignment are always
stated with the numbers.

The figures of transfer separate shape from scale: ln s is the median of ln(depth / truth) over
the finite predictions of a frame, the scale that minimises the mean of |ln(depth / (s truth))|.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from spike_depth_ros.learning.planarity import fit_plane

CAP_M = 80.0
NEAREST_M = 0.1
"""Predictions are clipped from below to this, so that every logarithm is finite."""

BANDS_M = ((0.0, 10.0), (10.0, 20.0), (20.0, 40.0), (40.0, 80.0))
MAE_CUTS_M = (10.0, 20.0, 30.0)
OBSTACLE_M = 40.0
"""Sky that is predicted nearer than this is a false obstacle."""

FLAT = 0.01
"""Planarity is measured where the truth itself is a plane within this RMS of ln depth."""

RATIO = 1.25
COVERAGES = np.linspace(0.05, 1.0, 20)
CONFIDENCE_BINS = 10
ALIGNMENTS = ('none', 'median', 'lsq')

SCALARS = (
    'abs_rel', 'sq_rel', 'sq_rel_gt2', 'mae', *(f'mae_{cut:.0f}m' for cut in MAE_CUTS_M),
    'rmse', 'rmse_log', 'silog_var', 'silog', 'delta1', 'delta2', 'delta3',
    *(f'abs_rel_{low:.0f}_{high:.0f}m' for low, high in BANDS_M),
    'coverage', 'aurc', 'ause',
    'abs_rel_scaled', 'scale_error', 'scale_jitter', 'planarity', 'confidence_minus_hits',
    'dsec_abs_rel', 'dsec_rmse', 'dsec_rmse_log', 'dsec_delta1',
)  # fmt: skip
"""Names of the metrics that are averaged over frames, in the order of `Frame.scalars`."""


class Frame(NamedTuple):
    """The contribution of one depth map to the averages."""

    scalars: np.ndarray  # (len(SCALARS),) float64, NaN where the frame has no such pixel
    risk: np.ndarray  # (len(COVERAGES),) abs_rel of the most confident pixels; NaN if none
    sky: np.ndarray  # (2,) sky pixels predicted nearer than OBSTACLE_M, sky pixels
    missed: np.ndarray  # (2,) pixels nearer than that predicted beyond range, all such pixels
    closed: np.ndarray  # (2,) the same in frames without anything farther, such as rooms
    calibration: np.ndarray  # (CONFIDENCE_BINS, 3) pixels, sum of confidence, hits


def frame_metrics(
    depth_m: np.ndarray,
    confidence: np.ndarray,
    truth_m: np.ndarray,
    cap_m: float = CAP_M,
    alignment: str = 'none',
    earlier_scales: Sequence[float] = (),
) -> Frame:
    """Compares one depth map with its truth.

    Args:
        depth_m: (H, W) metres; NaN no answer, +inf beyond range, -inf too close (REP 117).
        confidence: (H, W) in [0, 1].
        truth_m: (H, W) metres; NaN unknown, +inf sky.
        cap_m: truth beyond this does not count.
        alignment: 'none' for metres as predicted, 'median' or 'lsq': see `align`.
        earlier_scales: `log_scale` of the depth maps before this one in its clip, in order;
            'scale_jitter' is the root mean square of the steps from map to map.

    Raises:
        ValueError: shapes differ, or an unknown alignment.
    """
    if depth_m.shape != truth_m.shape or confidence.shape != truth_m.shape:
        raise ValueError(
            f'depth {depth_m.shape}, confidence {confidence.shape} and truth {truth_m.shape} '
            'must be of one shape'
        )
    depth_m, truth_m = depth_m.astype(np.float64), truth_m.astype(np.float64)
    counted, mask = _compared(depth_m, truth_m, cap_m)
    truth = truth_m[mask]
    answer = depth_m[mask]
    finite = np.isfinite(answer)  # "beyond range" stays that, whatever the scale
    answer[finite] = align(answer[finite], truth[finite], alignment)
    answer = np.clip(answer, NEAREST_M, cap_m)
    figures = _errors(answer, truth) | _risk(answer, truth, confidence[mask])
    figures |= _transfer(depth_m, truth_m, cap_m) | _frame_maximum(answer, truth)
    figures['coverage'] = mask.sum() / counted.sum() if counted.any() else np.nan
    figures['confidence_minus_hits'] = _mean(confidence[mask]) - figures['delta1']
    steps = np.diff([*earlier_scales, log_scale(depth_m, truth_m, cap_m)])
    figures['scale_jitter'] = _mean(steps**2) ** 0.5 if earlier_scales else np.nan
    near = counted & (truth_m < OBSTACLE_M)
    sky = np.isposinf(truth_m)
    missed = np.array([np.isposinf(depth_m[near]).sum(), near.sum()], np.float64)
    return Frame(
        np.array([figures[name] for name in SCALARS]),
        figures['risk'],
        np.array([(depth_m[sky] < OBSTACLE_M).sum(), sky.sum()], np.float64),
        missed,
        missed * _is_closed(truth_m),
        _calibration(depth_m, confidence, truth_m, cap_m),
    )


def _compared(
    depth_m: np.ndarray, truth_m: np.ndarray, cap_m: float
) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the pixels whose truth counts, and of those that were also predicted."""
    counted = np.isfinite(truth_m) & (truth_m > 0) & (truth_m <= cap_m)
    return counted, counted & ~np.isnan(depth_m)


def depth_errors(
    depth_m: np.ndarray, truth_m: np.ndarray, cap_m: float = CAP_M
) -> dict[str, float]:
    """The error metrics of one depth map alone, those of Eigen et al. (NeurIPS 2014).

    The arguments are those of `frame_metrics`; the figures have the names of `SCALARS`.
    """
    mask = _compared(depth_m, truth_m, cap_m)[1]
    answer = np.clip(depth_m[mask].astype(np.float64), NEAREST_M, cap_m)
    return _errors(answer, truth_m[mask].astype(np.float64))


def align(answer: np.ndarray, truth: np.ndarray, alignment: str) -> np.ndarray:
    """Aligns predictions with the truth, for methods without metric scale.

    'median' scales by the ratio of medians (SfMLearner, CVPR 2017); 'lsq' is the scale and
    shift of depth with the least squared error; 'none' changes nothing.

    Raises:
        ValueError: an unknown alignment.
    """
    if alignment not in ALIGNMENTS:
        raise ValueError(f'alignment is {alignment!r}, expected one of {ALIGNMENTS}')
    if alignment == 'none' or answer.size == 0:
        return answer
    if alignment == 'median':
        return np.asarray(answer * (np.median(truth) / np.median(answer)))
    design = np.stack([answer, np.ones_like(answer)], axis=1)
    return np.asarray(design @ np.linalg.lstsq(design, truth, rcond=None)[0])


def log_scale(depth_m: np.ndarray, truth_m: np.ndarray, cap_m: float = CAP_M) -> float:
    """Median of ln(depth / truth) over the finite predictions: ln s; NaN without any."""
    with np.errstate(invalid='ignore'):
        both = np.isfinite(depth_m) & (truth_m > 0) & (truth_m <= cap_m)
    if not both.any():
        return np.nan
    answer = np.clip(depth_m[both].astype(np.float64), NEAREST_M, cap_m)
    return float(np.median(np.log(answer) - np.log(truth_m[both])))


def _transfer(depth_m: np.ndarray, truth_m: np.ndarray, cap_m: float) -> dict[str, float]:
    """Error after one scale per map, error of that scale, and planarity of planes."""
    ln_s = log_scale(depth_m, truth_m, cap_m)
    asked = (truth_m > 0) & (truth_m <= cap_m) & ~np.isnan(depth_m)
    scaled = np.clip(depth_m[asked] / np.exp(ln_s), NEAREST_M, cap_m)
    figures = {
        'abs_rel_scaled': _mean(np.abs(scaled - truth_m[asked]) / truth_m[asked]),
        'scale_error': abs(ln_s),
        'planarity': np.nan,
    }
    truth_plane = fit_plane(truth_m)
    if truth_plane is not None and np.isfinite(truth_m).all() and truth_plane.rms < FLAT:
        plane = fit_plane(depth_m)
        figures['planarity'] = np.nan if plane is None else plane.spread
    return figures


def _frame_maximum(answer: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The protocol of the DSEC tables of DepthAnyEvent (arXiv 2509.15224), which is not metres.

    Prediction and truth are each divided by their own maximum of the frame, times `CAP_M`.
    """
    if truth.size:
        answer, truth = (CAP_M * maps / maps.max() for maps in (answer, truth))
    errors = _errors(np.clip(answer, NEAREST_M, None), truth)
    return {f'dsec_{name}': errors[name] for name in ('abs_rel', 'rmse', 'rmse_log', 'delta1')}


def _is_closed(truth_m: np.ndarray) -> bool:
    """Whether nothing in the frame is farther than `OBSTACLE_M`, as in a room."""
    known = truth_m[~np.isnan(truth_m)]
    return bool(known.size) and bool((known < OBSTACLE_M).all())


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else np.nan


def _errors(answer: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The error metrics of one frame (Eigen et al., NeurIPS 2014); `sq_rel_gt2` as in E2Depth."""
    error = np.abs(answer - truth)
    log = np.log(answer) - np.log(truth)
    relative = error / truth
    ratio = np.exp(np.abs(log))
    variance = max(_mean(log**2) - _mean(log) ** 2, 0.0) if log.size else np.nan
    figures = {
        'abs_rel': _mean(relative),
        'sq_rel': _mean(error**2 / truth),
        'sq_rel_gt2': _mean(relative**2),
        'mae': _mean(error),
        'rmse': _mean(error**2) ** 0.5,
        'rmse_log': _mean(log**2) ** 0.5,
        'silog_var': variance,
        'silog': variance**0.5,
    }
    figures |= {f'mae_{cut:.0f}m': _mean(error[truth <= cut]) for cut in MAE_CUTS_M}
    figures |= {f'delta{i}': _mean(ratio < RATIO**i) for i in (1, 2, 3)}
    for low, high in BANDS_M:
        inside = (truth > low) & (truth <= high)
        figures[f'abs_rel_{low:.0f}_{high:.0f}m'] = _mean(relative[inside])
    return figures


def _risk(answer: np.ndarray, truth: np.ndarray, confidence: np.ndarray) -> dict:
    """Risk-coverage curve, its area (Geifman et al., ICLR 2019) and the excess over an oracle."""
    if not truth.size:
        return {'risk': np.full(COVERAGES.size, np.nan), 'aurc': np.nan, 'ause': np.nan}
    relative = np.abs(answer - truth) / truth
    kept = np.ceil(np.round(COVERAGES * truth.size, 9)).astype(int)
    surest = relative[np.argsort(-confidence, kind='stable')]
    risk, best = (np.cumsum(order)[kept - 1] / kept for order in (surest, np.sort(relative)))
    return {'risk': risk, 'aurc': float(risk.mean()), 'ause': float((risk - best).mean())}


def _calibration(
    depth_m: np.ndarray, confidence: np.ndarray, truth_m: np.ndarray, cap_m: float
) -> np.ndarray:
    """Per bin of confidence: pixels, sum of confidence, hits.

    A hit is a finite prediction within a factor `RATIO` of the truth, or "beyond range" for sky
    or a truth beyond the cap.
    """
    asked = ~np.isnan(depth_m) & ~np.isnan(truth_m)
    answer, truth, sure = depth_m[asked], truth_m[asked], confidence[asked].astype(np.float64)
    with np.errstate(divide='ignore', invalid='ignore'):
        close = np.abs(np.log(np.maximum(answer, NEAREST_M)) - np.log(truth)) < np.log(RATIO)
    right = np.where(np.isposinf(answer), truth > cap_m, close)
    place = np.clip((sure * CONFIDENCE_BINS).astype(int), 0, CONFIDENCE_BINS - 1)
    return np.stack(
        [
            np.bincount(place, weights=weights, minlength=CONFIDENCE_BINS)
            for weights in (np.ones_like(sure), sure, right)
        ],
        axis=1,
    )


class DepthMetrics(Metric):
    """Averages `Frame`s over all processes of a distributed run."""

    full_state_update = False
    scalars: Tensor
    risk: Tensor
    sky: Tensor
    missed: Tensor
    closed: Tensor
    calibration: Tensor
    frames: Tensor

    def __init__(self) -> None:
        super().__init__()
        shapes = {'scalars': (2, len(SCALARS)), 'risk': (2, len(COVERAGES)), 'sky': (2,),
                  'missed': (2,), 'closed': (2,), 'calibration': (CONFIDENCE_BINS, 3),
                  'frames': ()}  # fmt: skip
        for name, shape in shapes.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx='sum')

    def update(self, frame: Frame) -> None:
        """Adds one frame."""
        for name in ('scalars', 'risk'):
            values = getattr(frame, name)
            sums = np.stack([np.nan_to_num(values), ~np.isnan(values)])
            self._add_to(name, sums)
        for name in ('sky', 'missed', 'closed', 'calibration'):
            self._add_to(name, getattr(frame, name))
        self.frames = self.frames + 1

    def _add_to(self, name: str, values: np.ndarray) -> None:
        """Adds to a sum on whichever device the trainer has put it."""
        total = getattr(self, name)
        setattr(self, name, total + torch.as_tensor(values, device=total.device))

    def compute(self) -> dict[str, float]:
        """The averages by name; NaN where no frame had such a pixel.

        Beside `SCALARS`: `false_obstacles` (fraction of sky pixels predicted nearer than 40 m),
        `missed_obstacles` (fraction of pixels nearer than 40 m predicted beyond range), `ece`
        (expected calibration error, Guo et al., ICML 2017, eq. 3), `beyond_in_rooms` (fraction of
        pixels predicted beyond range in frames whose whole truth is nearer than 40 m) and
        `frames`.
        """
        means = self.scalars[0] / self.scalars[1]
        figures = dict(zip(SCALARS, means.tolist(), strict=True))
        figures['false_obstacles'] = float(self.sky[0] / self.sky[1])
        figures['missed_obstacles'] = float(self.missed[0] / self.missed[1])
        figures['beyond_in_rooms'] = float(self.closed[0] / self.closed[1])
        pixels, sure, right = self.calibration.unbind(1)
        figures['ece'] = float((sure - right).abs().sum() / pixels.sum())
        figures['frames'] = int(self.frames)
        return figures

    def curves(self) -> dict[str, list[float]]:
        """The risk-coverage curve and, per filled bin, mean confidence and fraction of hits."""
        pixels, sure, right = (
            column[self.calibration[:, 0] > 0] for column in self.calibration.unbind(1)
        )
        return {
            'coverage': COVERAGES.tolist(),
            'risk': _plain(self.risk[0] / self.risk[1]),
            'confidence': _plain(sure / pixels),
            'share_right': _plain(right / pixels),
        }


def _plain(values: Tensor) -> list[float]:
    return [float(v) for v in values]
