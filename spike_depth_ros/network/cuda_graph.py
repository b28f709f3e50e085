"""A window on a GPU as one launch: the hundreds of a network recorded once, then replayed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from spike_depth_ros.network.spiking_transformer import SpikingTransformer, State

_WARM_UP = 3
"""Runs before the recording, in which libraries choose algorithms and set aside memory."""


class RecordedStep:
    """`SpikingTransformer.step` for windows of one shape.

    Args:
        model: on a GPU, in evaluation mode.
        shape: (T, 2, H, W) of the windows.
        answers: whether maps are wanted; else `SpikingTransformer.carry` is recorded.
    """

    def __init__(
        self, model: SpikingTransformer, shape: tuple[int, ...], answers: bool = True
    ) -> None:
        device = next(model.parameters()).device
        steps, channels, height, width = shape
        self._spikes = torch.zeros(
            (steps, 1, channels, height, width), dtype=torch.uint8, device=device
        )
        self._staged = torch.zeros_like(self._spikes, device='cpu').pin_memory()
        self._before = model.rest(self._spikes)
        self._graph = torch.cuda.CUDAGraph()
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                (model.step if answers else model.carry)(self._spikes, self._before)
        torch.cuda.current_stream(device).wait_stream(aside)
        # other threads may go on using the GPU meanwhile
        with torch.cuda.graph(self._graph, stream=aside, capture_error_mode='thread_local'):
            self._maps: Tensor | None = None
            if answers:
                prediction, self._after = model.step(self._spikes, self._before)
                self._maps = torch.cat(prediction, dim=1)[0].float()
            else:
                self._after = model.carry(self._spikes, self._before)

    def __call__(
        self, spikes: np.ndarray, state: State | None
    ) -> tuple[np.ndarray | None, State]:  # fmt: skip
        """Continues a stream.

        Args:
            spikes: (T, 2, H, W) uint8 window.
            state: before it; None: at rest.

        Returns:
            Maps (3, H, W), None unless it `answers`, and the next state.
        """
        self._staged[:, 0].copy_(torch.from_numpy(spikes))
        self._spikes.copy_(self._staged, non_blocking=True)
        # in one launch each, where tensor by tensor would take as long as the window itself
        before = list(self._before.flat())
        if state is None:
            torch._foreach_zero_(before)
        else:
            torch._foreach_copy_(before, list(state.flat()))
        self._graph.replay()
        after = self._after.map(torch.empty_like)  # the next replay writes where this one did
        torch._foreach_copy_(list(after.flat()), list(self._after.flat()))
        return None if self._maps is None else self._maps.cpu().numpy(), after
