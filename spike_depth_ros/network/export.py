"""Exports a spiking transformer as an ONNX graph: state in, state out, any image size."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from spike_depth_ros.network.encoder import STRIDE
from spike_depth_ros.network.spiking_transformer import SpikingTransformer, State

MAX_STEPS = 64
"""Most time steps of a graph, which unrolls them."""


class ExportError(ValueError):
    """The network cannot be exported, or not for so many time steps."""


_EXAMPLE = (6, 7)  # tokens: one odd and one even size show mistakes at every scale


class _Graph(nn.Module):
    """The network with its state as a flat list, its maps as one tensor."""

    def __init__(self, model: SpikingTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, spikes: Tensor, state: list[Tensor]) -> tuple[Tensor, ...]:
        readouts = len(self.model.readouts)
        before = State(state[0], tuple(state[1:-readouts]), tuple(state[-readouts:]))
        prediction, after = self.model.step(spikes, before)
        return (torch.cat(prediction, dim=1), *after.flat())


def state_names(model: SpikingTransformer) -> list[str]:
    """Names of the state's tensors, in the order of `State.flat`.

    The graph's inputs add `_in` to them, its outputs `_out`.
    """
    state = model.rest(torch.zeros(1, 1, 2, STRIDE, STRIDE))
    membranes = [f'membrane_{i}' for i in range(len(state.membranes))]
    return ['seen', *membranes, *[f'readout_{i}' for i in range(len(state.readouts))]]


def export_onnx(model: nn.Module, steps: int) -> bytes:
    """Exports the network, its normalisations folded, for `steps` time steps of one stream.

    Inputs: `spikes` (steps, 1, 2, H, W) uint8 and the state, zeros at rest; outputs: `maps`
    (1, 3, H, W) (log_depth, range_logit, log_scale) and the next state. The names of the state's
    tensors are those of `state_names`. H and W are free multiples of 8, at least 40.

    Returns:
        The ONNX file.

    Raises:
        ExportError: another network, too many steps, or a package is missing.
    """
    if not isinstance(model, SpikingTransformer):
        raise ExportError(
            f'only spiking transformers are exported, this network is a {type(model).__name__}'
        )
    if model.config.head_spiking and model.config.head == 'fusion':
        # membranes at strides 16 and 32 have sizes that no multiple of a symbol can express
        raise ExportError('a fusion head that spikes cannot be exported: use head linear')
    if not 1 <= steps <= MAX_STEPS:
        raise ExportError(f'steps is {steps}, expected 1 to {MAX_STEPS}')
    for package in ('onnx', 'onnxscript'):
        if importlib.util.find_spec(package) is None:
            raise ExportError(
                f'the export needs the package {package}: pip install spike_depth_ros[export]'
            )
    folded = model.folded()
    height, width = (STRIDE * tokens for tokens in _EXAMPLE)
    spikes = torch.zeros((steps, 1, 2, height, width), dtype=torch.uint8)
    state = list(folded.rest(spikes).flat())
    names = state_names(folded)
    tokens = [torch.export.Dim(name, min=5, max=512) for name in ('token_rows', 'token_columns')]
    with _quiet():
        program = torch.onnx.export(
            _Graph(folded).eval(),
            (spikes, state),
            input_names=['spikes', *[f'{name}_in' for name in names]],
            output_names=['maps', *[f'{name}_out' for name in names]],
            dynamic_shapes=(
                _free(spikes, tokens), [_free(tensor, tokens) for tensor in state]
            ),
            dynamo=True, verbose=False, optimize=True,
        )  # fmt: skip
    assert program is not None, 'the exporter of torch >= 2.6 returns a program'
    proto = program.model_proto
    # the exporter's notes about the nodes take as much space as the weights
    del proto.graph.value_info[:]
    for node in proto.graph.node:
        del node.metadata_props[:]
    return proto.SerializeToString()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter, which reports every node."""
    loggers = [logging.getLogger(name) for name in ('torch.onnx', 'onnxscript', 'onnx_ir')]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _free(tensor: Tensor, tokens: list[Any]) -> dict[int, Any]:
    """Axis -> its symbolic size, for the two last axes of an image-like tensor."""
    if tensor.ndim < 4:
        return {}
    axes = {}
    for axis, count, dim in zip((-2, -1), _EXAMPLE, tokens, strict=True):
        size = tensor.shape[axis]
        axes[tensor.ndim + axis] = dim * (size // count) if size > count else dim
    return axes
