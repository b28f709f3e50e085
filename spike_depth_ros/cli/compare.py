"""`spike_depth compare`: tabulates several checkpoints and trivial baselines."""

from __future__ import annotations

import logging
from pathlib import Path

from tqdm import tqdm

from spike_depth_ros.learning.settings import EvaluationData


def compare(
    checkpoints: list[str],
    data: EvaluationData = EvaluationData(),
    out: Path = Path('out/compare'),
    streaming: bool = True,
    cap_m: float = 80.0,
    alignment: str = 'none',
    engine: str = 'torch',
    device: str = 'auto',
    threads: int = 1,
) -> None:
    """Measures checkpoints, the per-pixel mean depth map and a constant on the same clips.

    `spike_depth compare A.safetensors B.safetensors --config config/evaluate/synthetic.yaml`
    writes results.json, results.md and a page with pictures.

    Args:
        checkpoints: checkpoints to measure.
        data: evaluation data, one set or several.
        out: folder of the report.
        streaming: carry the network state through all windows of a clip, as in the node; otherwise
            only the last window is used.
        cap_m: ignore ground truth beyond this distance.
        alignment: none (metres as predicted), median or lsq (least squares).
        engine: key of `ENGINES`.
        device: auto, cpu or cuda.
        threads: number of threads for inference.
    """
    from spike_depth_ros.learning.comparison import run

    logging.getLogger('spike_depth_ros').setLevel(logging.WARNING)
    page, table = run(
        checkpoints, data, out, streaming, cap_m, alignment, (engine, device, threads),
        lambda indices: iter(tqdm(indices, unit='clip', disable=None)),
    )  # fmt: skip
    print(table)
    print(page)
