"""What runs a checkpoint: engines with one interface, and the same numbers but for rounding."""

from __future__ import annotations

import copy
import functools
import hashlib
import logging
import os
import platform
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from spike_depth_ros.events.config import cache_folder
from spike_depth_ros.network.checkpoint import Checkpoint
from spike_depth_ros.network.cuda_graph import RecordedStep
from spike_depth_ros.network.inference import CpuInference, serves
from spike_depth_ros.network.inference_layers import SpikeConvolution
from spike_depth_ros.network.spiking_transformer import SpikingTransformer

log = logging.getLogger(__name__)

MAX_RECORDED = 8
"""Shapes of windows, and of parts of them, that a GPU keeps a recording of; more would fill it."""


class EngineError(ValueError):
    """The engine or the device asked for is not to be had here, or the input does not fit."""


class Engine(Protocol):
    """Runs one network on one stream of windows.

    Attributes:
        device: where it runs, for people to read.
        carries: whether the steps of a window may come in several calls, all but the last ones
            by `carry`.
    """

    device: str
    carries: bool

    def infer(self, spikes: np.ndarray, state: Any | None) -> tuple[np.ndarray, Any]:
        """One depth map.

        Args:
            spikes: (T, 2, H, W) uint8, H and W multiples of 8.
            state: what the call before returned, or None to begin at rest. An engine may change
                it in place: it serves once.

        Returns:
            (3, H, W) float32: log_depth, range_logit, log_scale as in `Prediction`; and the
            state after the window.

        Raises:
            EngineError: the shape does not fit.
        """

    def carry(self, spikes: np.ndarray, state: Any | None) -> Any:
        """The state that `infer` returns for the same arguments, without the work of a map.

        `infer` of the remaining steps of the window then gives the map of the whole window.
        """


class TorchEngine:
    """torch with batch normalisation folded and fused neurons; on a CPU by `CpuInference`.

    Args:
        checkpoint: what to run.
        device: 'auto', 'cpu' or 'cuda' (also 'cuda:1'...).
        threads: for inference; 0 for all cores but one.
        dtype: of weights and activations; membranes and averages stay float32. int8: only of
            weights that meet spikes, by `CpuInference`.

    Raises:
        EngineError: no such device, or int8 where it cannot be.
    """

    def __init__(
        self, checkpoint: Checkpoint, device: str = 'auto', threads: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        if dtype == torch.int8:
            _check_bytes(checkpoint, device)
            device = 'cpu'
        self._device = torch.device(choose_device(device))
        self.device = str(self._device)
        torch.set_num_threads(thread_count(threads))
        self._dtype = dtype
        model = checkpoint.model
        self.carries = isinstance(model, SpikingTransformer)
        self._fast: CpuInference | None = None
        if self._device.type == 'cpu' and serves(model):
            self._fast = CpuInference(model, dtype, torch.get_num_threads())
            return
        ready = model.folded() if isinstance(model, SpikingTransformer) else copy.deepcopy(model)
        # ours casts by itself, where it must
        self._casts = dtype != torch.float32 and not isinstance(model, SpikingTransformer)
        for module in ready.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.to(dtype)
        ready = ready.eval().requires_grad_(False).to(self._device)
        self._model: Any = ready.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def infer(self, spikes: np.ndarray, state: Any | None) -> tuple[np.ndarray, Any]:
        """See `Engine.infer`."""
        check_spikes(spikes)
        if self._fast is not None:
            answer: tuple[np.ndarray, Any] = _checked(self._fast.step, spikes, state)
            return answer
        with torch.autocast(self._device.type, self._dtype, enabled=self._casts):
            prediction, state = self._model.step(self._batch(spikes), state)
        return torch.cat(prediction, dim=1)[0].float().cpu().numpy(), state

    @torch.inference_mode()
    def carry(self, spikes: np.ndarray, state: Any | None) -> Any:
        """See `Engine.carry`."""
        check_spikes(spikes)
        if self._fast is not None:
            return _checked(self._fast.carry, spikes, state)
        return self._model.carry(self._batch(spikes), state)

    def _batch(self, spikes: np.ndarray) -> torch.Tensor:
        """(T, 2, H, W) to (T, 1, 2, H, W) on the device."""
        return torch.from_numpy(spikes)[:, None].to(self._device)


class CudaEngine(TorchEngine):
    """Half precision on a GPU, a window of a spiking transformer as one CUDA graph.

    Args:
        checkpoint: what to run.
        device: 'auto' or 'cuda' (also 'cuda:1'...).
        threads: of the processor.

    Raises:
        EngineError: there is no such GPU.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = 'cuda', threads: int = 0) -> None:
        chosen = choose_device('cuda' if device == 'auto' else device)
        if chosen == 'cpu':
            raise EngineError(
                "device is 'cpu', but the engine cuda needs a GPU: use auto or torch"
            )
        super().__init__(checkpoint, chosen, threads, torch.float16)
        self._recorded: dict[tuple[Any, ...], RecordedStep] = {}

    @torch.inference_mode()
    def infer(self, spikes: np.ndarray, state: Any | None) -> tuple[np.ndarray, Any]:
        """See `Engine.infer`."""
        check_spikes(spikes)
        if not isinstance(self._model, SpikingTransformer):
            return super().infer(spikes, state)
        return self._replay(spikes, state, answers=True)

    @torch.inference_mode()
    def carry(self, spikes: np.ndarray, state: Any | None) -> Any:
        """See `Engine.carry`."""
        check_spikes(spikes)
        return self._replay(spikes, state, answers=False)[1]

    def _replay(self, spikes: np.ndarray, state: Any | None, answers: bool) -> tuple[Any, Any]:
        """Maps, None unless it `answers`, and the next state."""
        key = (answers, *spikes.shape)
        with torch.cuda.device(self._device):
            recorded = self._recorded.pop(key, None)
            if recorded is None:
                if len(self._recorded) == MAX_RECORDED:
                    del self._recorded[next(iter(self._recorded))]  # the one not used for longest
                recorded = RecordedStep(self._model, spikes.shape, answers)
            self._recorded[key] = recorded
            return recorded(spikes, state)


def _auto(checkpoint: Checkpoint, device: str = 'auto', threads: int = 0) -> Engine:
    """The fastest engine of this machine, by a short measurement whose outcome is kept."""
    if choose_device(device) != 'cpu':
        return CudaEngine(checkpoint, device, threads)
    names = fast_engines(checkpoint)
    key = _choice_key(checkpoint, names, thread_count(threads))
    try:
        chosen = (cache_folder() / key).read_text(encoding='utf-8').strip()
    except (OSError, UnicodeDecodeError):
        chosen = ''
    if chosen not in names:
        steps = checkpoint.spikes.steps
        times_s = {n: _time_s(ENGINES[n](checkpoint, 'cpu', threads), steps) for n in names}
        chosen = min(times_s, key=lambda name: times_s[name])
        said = ', '.join(f'{name} {1e3 * time_s:.0f}' for name, time_s in times_s.items())
        log.info('fastest engine here is %s (ms per map: %s)', chosen, said)
        try:
            cache_folder().mkdir(parents=True, exist_ok=True)
            (cache_folder() / key).write_text(chosen, encoding='utf-8')
        except OSError as error:
            log.warning('cannot keep the choice of engine: %s', error)
    engine = ENGINES[chosen](checkpoint, 'cpu', threads)
    engine.device = f'{engine.device} ({chosen})'
    return engine


def fast_engines(checkpoint: Checkpoint) -> list[str]:
    """The engines that may be the fastest on this CPU for this checkpoint."""
    names = ['torch']
    if has_bfloat16():
        names.append('torch_bf16')
    bytes_fit = serves(checkpoint.model) and SpikeConvolution.is_available()
    if bytes_fit and torch.cpu._is_vnni_supported():
        names.append('torch_int8')
    return names


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 itself; otherwise it is slower than float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _check_bytes(checkpoint: Checkpoint, device: str) -> None:
    """Raises an `EngineError` unless 8-bit weights can run here."""
    if device not in ('auto', 'cpu'):
        raise EngineError(f'device is {device!r}, but torch_int8 runs on the cpu: use cuda')
    if not serves(checkpoint.model):
        raise EngineError(
            'torch_int8 runs spiking transformers with stem stride, fusion head and lif or plif '
            f'neurons, this {checkpoint.model_name} is another network: use the engine torch'
        )
    if not SpikeConvolution.is_available():
        raise EngineError('this torch has no 8-bit convolutions for this processor: use torch')


def _choice_key(checkpoint: Checkpoint, names: list[str], threads: int) -> str:
    """A file name for the choice among these engines, for this network on this machine."""
    here = f'{platform.processor()} {platform.node()} {torch.__version__} {threads} {names}'
    what = f'{checkpoint.model_name} {checkpoint.model_config} {checkpoint.spikes}'
    return f'engine-{hashlib.sha256((here + what).encode()).hexdigest()[:24]}.txt'


def _time_s(engine: Engine, steps: int) -> float:
    """Shortest of a few windows of a common size, after one to warm up [s].

    Of wall clock and processor time the shorter counts: with one thread the latter does not depend
    on the load of the machine.
    """
    spikes = np.zeros((steps, 2, 264, 352), np.uint8)
    spikes[:, :, ::7, ::5] = 1
    times_s = []
    for _ in range(11):
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        engine.infer(spikes, None)
        times_s.append(min(time.perf_counter() - start_s, time.process_time() - start_cpu_s))
    return min(times_s[1:])


ENGINES: dict[str, Callable[..., Engine]] = {
    'auto': _auto,
    'torch': TorchEngine,
    'torch_bf16': functools.partial(TorchEngine, dtype=torch.bfloat16),
    'torch_int8': functools.partial(TorchEngine, dtype=torch.int8),
    'cuda': CudaEngine,
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


def _checked(step: Callable[..., Any], spikes: np.ndarray, state: Any | None) -> Any:
    """Calls `step`; a state that does not fit is an `EngineError`."""
    try:
        return step(spikes, state)
    except ValueError as error:
        raise EngineError(str(error)) from error


def check_spikes(spikes: np.ndarray) -> None:
    """Raises an `EngineError` unless `spikes` is (T, 2, H, W) uint8, H and W multiples of 8."""
    shape = spikes.shape
    fits = spikes.ndim == 4 and shape[0] > 0 and shape[1] == 2 and min(shape[2:]) > 0
    if not fits or shape[2] % 8 or shape[3] % 8 or spikes.dtype != np.uint8:
        raise EngineError(
            f'spikes are {spikes.dtype} {shape}, expected uint8 (T, 2, H, W), multiples of 8'
        )
