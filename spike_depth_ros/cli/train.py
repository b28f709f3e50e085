"""`spike_depth train`: trains a network from one YAML file."""

from __future__ import annotations

from pathlib import Path

from spike_depth_ros.events.config import DepthRange, SpikeConfig
from spike_depth_ros.learning.settings import (
    DataChoice,
    LossConfig,
    Machine,
    ModelChoice,
    OptimizerConfig,
    Schedule,
    TeacherChoice,
    TrainConfig,
)


def train(
    out: Path = Path('runs/train'),
    model: ModelChoice = ModelChoice(),
    data: DataChoice = DataChoice(),
    spikes: SpikeConfig = SpikeConfig(),
    depth_range: DepthRange = DepthRange(),
    loss: LossConfig = LossConfig(),
    teacher: TeacherChoice = TeacherChoice(),
    optimizer: OptimizerConfig = OptimizerConfig(),
    schedule: Schedule = Schedule(),
    machine: Machine = Machine(),
) -> None:
    """Trains a network: `spike_depth train config/train/NAME.yaml [--key value]`.

    The same command goes on with a run that was interrupted. The folder of the run receives
    best.safetensors and last.safetensors, which the node runs, and a TensorBoard log.

    Args:
        out: folder of the run.
        model: which network.
        data: what to train on.
        spikes: how events become its input.
        depth_range: what its depth means.
        loss: weights of the losses.
        teacher: whom it copies features from.
        optimizer: how its weights move.
        schedule: how long, how much at once.
        machine: what it runs on.
    """
    from spike_depth_ros.learning.run import train as run

    config = TrainConfig(
        model, data, spikes, depth_range, loss, teacher, optimizer, schedule, machine
    )
    print(run(config, out))
