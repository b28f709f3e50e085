"""`spike_depth evaluate`: measures the error of one checkpoint."""

from __future__ import annotations

from pathlib import Path

from spike_depth_ros.cli.compare import compare
from spike_depth_ros.learning.settings import EvaluationData


def evaluate(
    checkpoint: str,
    data: EvaluationData = EvaluationData(),
    out: Path = Path('out/evaluate'),
    streaming: bool = True,
    cap_m: float = 80.0,
    alignment: str = 'none',
    engine: str = 'torch',
    device: str = 'auto',
    threads: int = 1,
) -> None:
    """Measures one checkpoint with the same processing as the node.

    `spike_depth evaluate models/default.safetensors --config config/evaluate/synthetic.yaml`
    writes results.json, results.md and a page with pictures.

    Args:
        checkpoint: checkpoint to measure.
        data: evaluation data, one set or several; never the training data.
        out: folder of the report.
        streaming: carry the network state through all windows of a clip, as in the node; otherwise
            only the last window is used.
        cap_m: ignore ground truth beyond this distance.
        alignment: none (metres as predicted), median or lsq (least squares).
        engine: key of `ENGINES`.
        device: auto, cpu or cuda.
        threads: number of threads for inference.
    """
    compare([checkpoint], data, out, streaming, cap_m, alignment, engine, device, threads)
