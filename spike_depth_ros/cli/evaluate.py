"""`spike_depth evaluate`: measures one checkpoint."""

from __future__ import annotations

from pathlib import Path

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
    """Measures one checkpoint through the node's own pipeline.

    `spike_depth evaluate models/default.safetensors --config config/evaluate/synthetic.yaml`
    writes results.json, results.md and a page with pictures.

    Args:
        checkpoint: to measure.
        data: to measure on, one set or several; never data of its training.
        out: folder of the report.
        streaming: the state is carried through all windows of a clip, as in the node; otherwise
            only the last window is used.
        cap_m: truth beyond this does not count.
        alignment: none for metres as predicted, median or lsq.
        engine: key of `ENGINES`.
        device: auto, cpu or cuda.
        threads: for inference.
    """
    from spike_depth_ros.cli.compare import compare

    compare([checkpoint], data, out, streaming, cap_m, alignment, engine, device, threads)
