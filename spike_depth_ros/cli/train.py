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

    The same command resumes an interrupted run. The run folder receives best.safetensors and
    last.safetensors, which the node can load, and a TensorBoard log.

    Args:
        out: folder of the run.
        model: the network.
        data: training and validation data.
        spikes: how events become the input tensor.
        depth_range: depth range of the output.
        loss: weights of the losses.
        teacher: the teacher whose features are distilled.
        optimizer: the optimiser.
        schedule: duration, batches and validation.
        machine: devices and precision.
    """
    from spike_depth_ros.learning.run import train as run

    config = TrainConfig(
        model, data, spikes, depth_range, loss, teacher, optimizer, schedule, machine
    )
    print(run(config, out))
