"""`spike_depth export`: writes the file that the fast engines run."""

from __future__ import annotations


def export(checkpoint: str, out: str = '', steps: int = 0) -> None:
    """Exports a checkpoint as an ONNX graph, its state an input and an output.

    Without `out` the graph goes into this user's cache, where the engines onnxruntime and
    openvino look for it, and where the engine auto takes note of it.

    Args:
        checkpoint: what to export.
        out: path of the ONNX file; empty: into the cache.
        steps: time steps per call; 0: as the checkpoint was trained. Streaming in smaller
            strides needs a graph of its own, with fewer.

    Raises:
        ValueError: the network cannot be exported.
    """
    from pathlib import Path

    from spike_depth_ros.estimation.engine import EngineError
    from spike_depth_ros.events.atomic_write import partial_path
    from spike_depth_ros.network import runtimes
    from spike_depth_ros.network.checkpoint import load_checkpoint
    from spike_depth_ros.network.export import MAX_STEPS, NOT_EXPORTABLE, exportable
    from spike_depth_ros.network.spiking_transformer import SpikingTransformer

    loaded = load_checkpoint(checkpoint)
    if not isinstance(loaded.model, SpikingTransformer):
        raise EngineError(
            f'{checkpoint!r} is a {loaded.model_name}; only spiking transformers are exported'
        )
    if not exportable(loaded.model):
        raise EngineError(f'{checkpoint!r} has {NOT_EXPORTABLE}: no graph can hold them')
    count = steps or loaded.spikes.steps
    if not 1 <= count <= MAX_STEPS:
        raise EngineError(f'steps is {count}, expected 1 to {MAX_STEPS}')
    graph = runtimes.cached_graph(loaded.model, count)
    file = runtimes.cache_folder() / runtimes.graph_key(loaded.model, count)
    if out:
        file = Path(out)
        with partial_path(file) as partial:
            partial.write_bytes(graph)
    print(f'{file}: {len(graph) / 1e6:.2f} MB, {count} steps per call')
