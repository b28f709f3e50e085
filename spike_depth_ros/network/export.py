"""A network as an ONNX graph: state in, state out, any image size, no zeros baked in."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from spike_depth_ros.network.encoder import STRIDE
from spike_depth_ros.network.spiking_transformer import SpikingTransformer, State

MAX_STEPS = 64
"""Most time steps of a graph: each is written out in it."""

_EXAMPLE = (6, 7)  # tokens; both odd ones and even ones must come out right at every scale


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


NOT_EXPORTABLE = 'a fusion head that spikes, whose membranes at strides 16 and 32 are of odd sizes'


def exportable(model: SpikingTransformer) -> bool:
    """Whether `export_onnx` can make a graph of any image size; if not, it is `NOT_EXPORTABLE`."""
    return not (model.config.head_spiking and model.config.head == 'fusion')


def state_names(model: SpikingTransformer) -> list[str]:
    """What the state's tensors are called in the graph, in the order of `State.flat`.

    As inputs they end in `_in`, as outputs in `_out`.
    """
    state = model.rest(torch.zeros(1, 1, 2, STRIDE, STRIDE))
    membranes = [f'membrane_{i}' for i in range(len(state.membranes))]
    return ['seen', *membranes, *[f'readout_{i}' for i in range(len(state.readouts))]]


def export_onnx(model: SpikingTransformer, steps: int) -> bytes:
    """The folded network for chunks of `steps` time steps of one stream.

    Inputs: `spikes` (steps, 1, 2, H, W) uint8 and the state; outputs: `maps` (1, 3, H, W)
    (log_depth, range_logit, log_scale) and the state. H and W are free multiples of 8, from 40
    on.

    Returns:
        The ONNX file.
    """
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
    # what the exporter notes about every node weighs as much as the weights
    del proto.graph.value_info[:]
    for node in proto.graph.node:
        del node.metadata_props[:]
    return proto.SerializeToString()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter, which reports hundreds of nodes that it looked at."""
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
    """Axis -> its size in tokens, for the two last axes of an image-like tensor."""
    if tensor.ndim < 4:
        return {}
    axes = {}
    for axis, count, dim in zip((-2, -1), _EXAMPLE, tokens, strict=True):
        size = tensor.shape[axis]
        axes[tensor.ndim + axis] = dim * (size // count) if size > count else dim
    return axes
