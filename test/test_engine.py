"""Engines: the same maps as the network itself, streaming included; bad input refused."""

import numpy as np
import pytest
import torch

from spike_depth_ros.engine import ENGINES, EngineError, choose_device, thread_count
from spike_depth_ros.model.checkpoint import untrained_checkpoint

CHECKPOINT = untrained_checkpoint('tiny')


def windows(count: int = 2, height: int = 64, width: int = 88) -> list[np.ndarray]:
    rng = np.random.default_rng(4)
    return [rng.poisson(0.1, (4, 2, height, width)).astype(np.uint8) for _ in range(count)]


def reference(spikes: list[np.ndarray]) -> list[np.ndarray]:
    """Maps of the checkpoint's own network, its state carried from window to window."""
    maps, state = [], None
    for window in spikes:
        with torch.no_grad():
            prediction, state = CHECKPOINT.model.step(torch.from_numpy(window)[:, None], state)
        maps.append(torch.cat(prediction, dim=1)[0].numpy())
    return maps


def test_torch_agrees_with_the_network():
    engine = ENGINES['torch'](CHECKPOINT, 'cpu', 1)
    state = None
    for window, want in zip(windows(), reference(windows()), strict=True):
        maps, state = engine.infer(window, state)
        assert maps.shape == (3, 64, 88)
        assert maps.dtype == np.float32
        np.testing.assert_allclose(maps, want, atol=2e-5)


def test_bfloat16_follows_its_own_stream():
    # random weights multiply every rounding, so that only the order of steps can be compared
    engine = ENGINES['torch_bf16'](CHECKPOINT, 'cpu', 1)
    (window,) = windows(1)
    whole, _ = engine.infer(window, None)
    state = None
    for step in window:
        maps, state = engine.infer(step[None], state)
    np.testing.assert_allclose(maps, whole, atol=1e-2)
    assert maps.std() > 1e-3


def test_a_state_can_be_used_twice():
    engine = ENGINES['torch'](CHECKPOINT, 'cpu', 1)
    first, second = windows()
    _, state = engine.infer(first, None)
    maps, _ = engine.infer(second, state)
    again, _ = engine.infer(second, state)
    np.testing.assert_array_equal(maps, again)


def test_rivals_run_too():
    engine = ENGINES['torch'](untrained_checkpoint('unet_small'), 'cpu', 1)
    maps, _ = engine.infer(windows(1)[0], None)
    assert maps.shape == (3, 64, 88)


@pytest.mark.parametrize(
    'wrong',
    [
        np.zeros((4, 2, 60, 88), np.uint8),
        np.zeros((4, 3, 64, 88), np.uint8),
        np.zeros((0, 2, 64, 88), np.uint8),
        np.zeros((4, 2, 0, 88), np.uint8),
        np.zeros((2, 64, 88), np.uint8),
        np.zeros((4, 2, 64, 88), np.float32),
    ],
)
def test_refuses_other_input(wrong):
    with pytest.raises(EngineError, match='expected uint8'):
        ENGINES['torch'](CHECKPOINT, 'cpu', 1).infer(wrong, None)


def test_devices():
    assert choose_device('cpu') == 'cpu'
    assert choose_device('auto') in ('cpu', 'cuda')
    with pytest.raises(EngineError, match="'tpu'"):
        choose_device('tpu')
    if not torch.cuda.is_available():
        with pytest.raises(EngineError, match='no CUDA GPU'):
            choose_device('cuda')


def test_threads():
    assert thread_count(3) == 3
    assert thread_count(0) >= 1
