"""`spike_depth evaluate`: measures checkpoints and trivial baselines."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from spike_depth_ros.events.config import require
from spike_depth_ros.learning.pages import markdown
from spike_depth_ros.learning.settings import SCALES, EvaluationData, OdometryErrors, ScaleSettings
from spike_depth_ros.recordings import recordings_in


def evaluate(
    checkpoints: list[str],
    data: EvaluationData = EvaluationData(),
    out: Path = Path('out/evaluate'),
    streaming: bool = True,
    cap_m: float = 80.0,
    alignment: str = 'none',
    engine: str = 'torch',
    device: str = 'auto',
    threads: int = 1,
    recordings: str = '',
    scale: Literal['all', 'none', 'odometry', 'height', 'oracle'] = 'all',
    camera_pose: str = '',
    camera_height_m: float = 0.0,
    odometry_errors: OdometryErrors = OdometryErrors(),
    skip_s: float = 1.0,
) -> None:
    """Measures checkpoints, the per-pixel mean depth map and a constant on the same clips.

    `spike_depth evaluate A.safetensors B.safetensors --config config/evaluate/synthetic.yaml`
    writes results.json, results.md and a page with pictures. Events are processed as in the node.

    `spike_depth evaluate default --recordings out/drives` measures one checkpoint on recordings
    with ground truth instead, such as those of `synth --layout bag`, once for each source of the
    metric scale, and writes scale.json.

    Args:
        checkpoints: checkpoints to measure.
        data: evaluation data, one set or several; never the training data.
        out: folder of the report.
        streaming: carry the network state through all windows of a clip, as in the node; otherwise
            only the last window is used.
        cap_m: ignore ground truth beyond this distance.
        alignment: none (metres as predicted), median or lsq (least squares).
        engine: key of `ENGINES`.
        device: auto, cpu or cuda.
        threads: number of threads for inference.
        recordings: a recording with ground truth, or a folder of them.
        scale: source of the metric scale, for recordings: none (the network alone), odometry,
            height (of the camera above the ground), oracle (the ground truth) or all of them.
        camera_pose: pose of the camera in the frame of the odometry, as the parameter of
            depth_node; empty: the same frame, or /tf_static of the recording.
        camera_height_m: height of the camera above the ground [m]; 0: unknown.
        odometry_errors: errors to add to the odometry of the recordings.
        skip_s: of each recording, leave out the first seconds.
    """
    from spike_depth_ros.learning.comparison import run

    if recordings:
        require(len(checkpoints) == 1, 'checkpoints', checkpoints, 'one, to measure recordings')
        scales: tuple[str, ...] = (scale,) if scale != 'all' else SCALES
        if scale == 'all' and not camera_height_m:
            scales = tuple(name for name in SCALES if name != 'height')
        settings = ScaleSettings(
            scales, camera_pose, camera_height_m, odometry_errors, skip_s, cap_m
        )
        _measure_recordings(checkpoints[0], recordings, settings, out, (engine, device, threads))
        return
    logging.getLogger('spike_depth_ros').setLevel(logging.WARNING)
    page, table = run(
        checkpoints, data, out, streaming, cap_m, alignment, (engine, device, threads),
        lambda indices: iter(tqdm(indices, unit='clip', disable=None)),
    )  # fmt: skip
    print(table)
    print(page)


def _measure_recordings(
    checkpoint: str, folder: str, settings: ScaleSettings, out: Path, engine: tuple[str, str, int]
) -> None:
    """Measures each recording of a folder, prints the tables and writes scale.json."""
    from spike_depth_ros.estimation.estimator import checkpoint_path
    from spike_depth_ros.learning.scale_evaluation import mean_table, measure, recording_table
    from spike_depth_ros.network.checkpoint import load_checkpoint

    loaded = load_checkpoint(checkpoint_path(checkpoint))
    paths = recordings_in(folder)
    results = {
        path.name: measure(path, loaded, settings, *engine)
        for path in tqdm(paths, unit='recording', disable=None)
    }
    out.mkdir(parents=True, exist_ok=True)
    plain = {
        'checkpoint': checkpoint,
        'settings': dataclasses.asdict(settings),
        'recordings': {
            name: {scale: figures._asdict() for scale, figures in found.items()}
            for name, found in results.items()
        },
    }
    (out / 'scale.json').write_text(json.dumps(plain, indent=2), 'utf-8')
    print(markdown(recording_table(results)))
    print(markdown(mean_table(results)))
