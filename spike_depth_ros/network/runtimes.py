"""Runtimes that run an exported graph: ONNX bytes in, a function of arrays out."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from spike_depth_ros.events.atomic_write import partial_path
from spike_depth_ros.network.export import export_onnx
from spike_depth_ros.network.spiking_transformer import SpikingTransformer

log = logging.getLogger(__name__)

Run = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
"""All inputs of the graph, in their order, to all outputs in theirs; the inputs stay untouched."""


def onnxruntime_session(graph: bytes, threads: int, providers: Sequence[str]) -> Run:
    """Loads a graph into ONNX Runtime.

    Args:
        graph: the ONNX file.
        threads: for one operator.
        providers: execution providers, the preferred first.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # waking a thread for each of hundreds of small operators costs a quarter of the time, so they
    # spin within a run; between runs the cores belong to others
    options.add_session_config_entry('session.force_spinning_stop', '1')
    session = onnxruntime.InferenceSession(graph, options, providers=list(providers))
    names = [given.name for given in session.get_inputs()]

    def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        return session.run(None, dict(zip(names, inputs, strict=True)))

    return run


def gpu_providers() -> list[str]:
    """What the installed ONNX Runtime has for a GPU, the fastest first."""
    import onnxruntime

    available = onnxruntime.get_available_providers()
    return [p for p in ('TensorrtExecutionProvider', 'CUDAExecutionProvider') if p in available]


def openvino_session(graph: bytes, threads: int, precision: str) -> Run:
    """Loads a graph into OpenVINO on the CPU.

    Args:
        graph: the ONNX file.
        threads: for one operator.
        precision: 'f32' or 'bf16'.
    """
    import openvino

    options = {
        'INFERENCE_PRECISION_HINT': precision,
        'INFERENCE_NUM_THREADS': threads,
        'PERFORMANCE_HINT': 'LATENCY',
    }
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(graph), 'CPU', options)
    request = compiled.create_infer_request()
    order = range(len(compiled.outputs))

    def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        results = request.infer(dict(enumerate(inputs)), share_inputs=True)
        return [results[k] for k in order]

    return run


def cache_folder() -> Path:
    """Where exported graphs are kept: a folder of this user's."""
    root = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(root) / 'spike_depth_ros'


def graph_key(model: SpikingTransformer, steps: int) -> str:
    """A name for the graph of these very weights, made by this very code."""
    digest = hashlib.sha256(f'{torch.__version__} {model.config} {steps}'.encode())
    for source in sorted(Path(__file__).parent.glob('*.py')):
        digest.update(source.read_bytes())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return f'{digest.hexdigest()[:24]}-{steps}.onnx'


def cached_graph(model: SpikingTransformer, steps: int) -> bytes:
    """The graph of `model` for `steps` time steps: from the cache, else exported into it.

    Exporting takes the better part of a minute on two cores; a folder that cannot be written
    costs that minute every time, and nothing else.
    """
    file = cache_folder() / graph_key(model, steps)
    try:
        return file.read_bytes()
    except OSError:
        graph = export_onnx(model, steps)
    try:
        with partial_path(file, shared=True) as partial:
            partial.write_bytes(graph)
    except OSError:
        log.warning('cannot keep the exported graph in %s: it is made anew each time', file)
    return graph


def is_cached(model: SpikingTransformer, steps: int) -> bool:
    """Whether `cached_graph` would answer at once."""
    return (cache_folder() / graph_key(model, steps)).is_file()
