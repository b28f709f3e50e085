"""`spike_depth export`: writes a checkpoint as an ONNX graph for deployment elsewhere."""

from __future__ import annotations

from pathlib import Path

from spike_depth_ros.events.atomic_write import partial_path


def export(checkpoint: str, out: str = '', steps: int = 0) -> None:
    """Exports a checkpoint as an ONNX graph whose state is an input and an output.

    Args:
        checkpoint: spiking transformer to export.
        out: path of the ONNX file; empty: the checkpoint's name with the suffix .onnx, in the
            current folder.
        steps: time steps per call; 0: as in training. Streaming with a shorter stride needs a
            graph with fewer steps.

    Raises:
        ValueError: the network cannot be exported, or `steps` is out of range.
    """
    from spike_depth_ros.network.checkpoint import load_checkpoint
    from spike_depth_ros.network.export import export_onnx

    loaded = load_checkpoint(checkpoint)
    count = steps or loaded.spikes.steps
    graph = export_onnx(loaded.model, count)
    file = Path(out or Path(checkpoint).with_suffix('.onnx').name)
    with partial_path(file) as partial:
        partial.write_bytes(graph)
    print(f'{file}: {len(graph) / 1e6:.2f} MB, {count} steps per call')
