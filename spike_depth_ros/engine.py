"""What runs a checkpoint: engines with one interface and the same numbers."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from spike_depth_ros.model.checkpoint import Checkpoint
from spike_depth_ros.model.spiking_transformer import SpikingTransformer


class EngineError(ValueError):
    """The engine or the device asked for is not to be had here, or the input does not fit."""


class Engine(Protocol):
    """Runs one network on one stream of windows.

    Attributes:
        device: where it runs, for people to read.
    """

    device: str

    def infer(self, spikes: np.ndarray, state: Any | None) -> tuple[np.ndarray, Any]:
        """One depth map.

        Args:
            spikes: (T, 2, H, W) uint8, H and W multiples of 8.
            state: what the call before returned, or None to begin at rest.

        Returns:
            (3, H, W) float32: log_depth, range_logit, log_scale as in `Prediction`; and the
            state after the window.

        Raises:
            EngineError: the shape does not fit.
        """


class TorchEngine:
    """The reference: eager torch, batch normalisation folded, fused neurons.

    Args:
        checkpoint: what to run.
        device: 'auto', 'cpu' or 'cuda' (also 'cuda:1'...).
        threads: for inference; 0 for all cores but one.
        dtype: of weights and activations; membranes and averages stay float32.
    """

    def __init__(
        self, checkpoint: Checkpoint, device: str = 'auto', threads: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        self._device = torch.device(choose_device(device))
        self.device = str(self._device)
        torch.set_num_threads(thread_count(threads))
        model = checkpoint.model
        ready = model.folded() if isinstance(model, SpikingTransformer) else copy.deepcopy(model)
        for module in ready.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.to(dtype)
        ready = ready.eval().requires_grad_(False).to(self._device)
        self._model: Any = ready.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def infer(self, spikes: np.ndarray, state: Any | None) -> tuple[np.ndarray, Any]:
        """See `Engine.infer`."""
        check_spikes(spikes)
        batch = torch.from_numpy(spikes)[:, None].to(self._device)  # (T, 1, 2, H, W)
        prediction, state = self._model.step(batch, state)
        return torch.cat(prediction, dim=1)[0].float().cpu().numpy(), state


ENGINES: dict[str, Callable[[Checkpoint, str, int], Engine]] = {
    'torch': TorchEngine,
    'torch_bf16': functools.partial(TorchEngine, dtype=torch.bfloat16),
}
"""Engine name -> factory(checkpoint, device, threads)."""


def choose_device(device: str) -> str:
    """Makes 'auto' a device, and refuses one that is not there.

    Raises:
        EngineError: not a device, or none such here.
    """
    if device == 'auto':
        return 'cuda' if torch.cuda.is_available() else 'cpu'
    kind, _, index = device.partition(':')
    if kind not in ('cpu', 'cuda') or (index and not index.isdigit()):
        raise EngineError(f'device is {device!r}, expected auto, cpu or cuda')
    if kind == 'cuda' and not torch.cuda.is_available():
        raise EngineError('device is cuda, but torch finds no CUDA GPU here: use auto or cpu')
    if kind == 'cuda' and index and int(index) >= torch.cuda.device_count():
        raise EngineError(f'device is {device!r}, but there are {torch.cuda.device_count()} GPUs')
    return device


def thread_count(threads: int) -> int:
    """Threads to use: as given, or one fewer than there are cores, for the rest of the robot."""
    return threads if threads > 0 else max(1, len(os.sched_getaffinity(0)) - 1)


def check_spikes(spikes: np.ndarray) -> None:
    """Raises an `EngineError` unless `spikes` is (T, 2, H, W) uint8, H and W multiples of 8."""
    shape = spikes.shape
    fits = spikes.ndim == 4 and shape[0] > 0 and shape[1] == 2 and min(shape[2:]) > 0
    if not fits or shape[2] % 8 or shape[3] % 8 or spikes.dtype != np.uint8:
        raise EngineError(
            f'spikes are {spikes.dtype} {shape}, expected uint8 (T, 2, H, W), multiples of 8'
        )
