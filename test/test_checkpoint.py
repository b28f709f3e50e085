"""Checkpoints: what goes in comes out; what is damaged, foreign or too new is refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from untrained import untrained_checkpoint

from spike_depth_ros.events.config import DepthRange, SpikeConfig
from spike_depth_ros.network.checkpoint import (
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    save_checkpoint,
)
from spike_depth_ros.network.registry import build

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = sorted((ROOT / 'models').glob('*.safetensors'))


@pytest.fixture(scope='module')
def saved(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp('checkpoint') / 'net.safetensors'
    model = build('tiny').eval()
    card = {'trained': True, 'iterations': 12, 'seeds': [1, 2]}
    spikes, depth = SpikeConfig(window_ms=20.0, steps=2), DepthRange(1.0, 80.0, 300.0)
    save_checkpoint(path, Checkpoint(model, 'spiking_transformer', spikes, depth, card))
    return path


def rewritten(saved: Path, path: Path, tensors: dict | None = None, **header: str | None) -> Path:
    """A copy with changed tensors or header entries (None: left out)."""
    with safe_open(str(saved), 'pt') as file:
        metadata = {**file.metadata(), **header}
    kept = {key: value for key, value in metadata.items() if value is not None}
    save_file({**load_file(saved), **(tensors or {})}, path, kept)
    return path


def test_reading_does_not_wait_for_pytorchs_compiler(saved):
    code = (
        'import sys; from spike_depth_ros.network.checkpoint import load_checkpoint; '
        f'load_checkpoint({str(saved)!r}); print("torch._dynamo" in sys.modules)'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, check=True, text=True)
    assert done.stdout == 'False\n'


def test_round_trip(saved):
    loaded = load_checkpoint(saved)
    assert loaded.model_name == 'spiking_transformer'
    assert loaded.spikes == SpikeConfig(window_ms=20.0, steps=2)
    assert loaded.depth_range == DepthRange(1.0, 80.0, 300.0)
    assert loaded.card == {'trained': True, 'iterations': 12, 'seeds': [1, 2]}
    assert loaded.trained
    assert not loaded.model.training
    stored = load_file(saved)
    assert all(torch.equal(v, stored[k]) for k, v in loaded.model.state_dict().items())


def test_the_file_holds_little_more_than_the_weights(saved):
    weights = sum(t.numel() * t.element_size() for t in load_file(saved).values())
    assert saved.stat().st_size < weights + 40_000
    assert not list(saved.parent.glob('*.partial'))


def test_rivals_have_checkpoints_too(tmp_path):
    path = tmp_path / 'unet.safetensors'
    save_checkpoint(path, untrained_checkpoint('unet_small'))
    loaded = load_checkpoint(path)
    assert loaded.model_name == 'unet'
    assert loaded.model(torch.zeros(4, 1, 2, 32, 40)).log_depth.shape == (1, 1, 32, 40)


@pytest.mark.parametrize('shipped', SHIPPED, ids=lambda file: file.stem)
def test_what_is_shipped_loads(shipped):
    checkpoint = load_checkpoint(shipped)
    with safe_open(str(shipped), 'pt') as file:
        assert 'digest' in file.metadata()
    assert shipped.with_suffix('.md').is_file(), 'it wants a card for people too'
    assert shipped.stat().st_size < 3_000_000
    assert 'trained' in checkpoint.card
    spikes = np.random.default_rng(0).poisson(0.1, (checkpoint.spikes.steps, 1, 2, 64, 88))
    prediction = checkpoint.model(torch.from_numpy(spikes.astype(np.uint8)))
    assert prediction.log_depth.std() > 1e-3, 'it must answer, not be constant'


def test_refuses_what_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match='no checkpoint at'):
        load_checkpoint(tmp_path / 'nothing.safetensors')
    with pytest.raises(CheckpointError, match='no checkpoint at'):
        load_checkpoint(tmp_path)
    for content in (b'', b'PK\x03\x04 a pickle', bytes(100), b'\xff' * 64):
        path = tmp_path / 'x.safetensors'
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match='damaged'):
            load_checkpoint(path)


def test_refuses_every_truncation(saved, tmp_path):
    content = saved.read_bytes()
    path = tmp_path / 'cut.safetensors'
    for share in (0.001, 0.1, 0.5, 0.99):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(CheckpointError, match='damaged'):
            load_checkpoint(path)


@pytest.mark.parametrize(
    ('header', 'says'),
    [
        ({'format': 'pt'}, "format 'pt'"),
        ({'format': None}, 'format None'),
        ({'version': '2'}, 'newer than the 1'),
        ({'version': '٣'}, 'version'),
        ({'version': 'one'}, 'version'),
        ({'version': '9' * 5000}, 'version'),
        ({'card': '{"seed": ' + '9' * 5000 + '}'}, 'cannot be used'),
        ({'depth_range': '{"min_m": 1e-300, "max_m": 1e300}'}, 'min_m'),
        ({'model': 'gpt'}, "network 'gpt'"),
        ({'card': None}, 'card'),
        ({'card': '[1]'}, 'not a table'),
        ({'card': '{'}, 'cannot be used'),
        ({'spikes': '{"window_ms": "long"}'}, 'window_ms'),
        ({'spikes': '{"window_ms": 50.0, "colour": 3}'}, 'colour'),
        ({'depth_range': '{"min_m": 5.0, "max_m": 1.0}'}, 'min_m'),
        ({'model_config': '{"dim": 47}'}, 'dim'),
        ({'model_config': '[' * 100_000}, 'cannot be used'),
    ],
)
def test_refuses_a_wrong_header(saved, tmp_path, header, says):
    path = rewritten(saved, tmp_path / 'x.safetensors', **header)
    with pytest.raises(CheckpointError, match=says):
        load_checkpoint(path)


def test_refuses_weights_of_another_network(saved, tmp_path):
    # as wide as can be: found out before any memory is asked for
    wide = json.dumps({'dim': 2048, 'depth': 64, 'heads': 1, 'head_dim': 2048})
    with pytest.raises(CheckpointError, match='does not fit its own description'):
        load_checkpoint(rewritten(saved, tmp_path / 'a.safetensors', model_config=wide))
    name = 'stem.convs.0.conv.weight'
    wrong = {
        'expected': {name: torch.zeros(6, 2, 5, 5)},
        'F16': {name: load_file(saved)[name].half()},
        'too much': {'surplus': torch.zeros(1)},
        'not finite': {name: torch.full((6, 2, 3, 3), float('nan'))},
    }
    for says, tensors in wrong.items():
        with pytest.raises(CheckpointError, match=says):
            load_checkpoint(rewritten(saved, tmp_path / 'b.safetensors', tensors))


def test_refuses_flipped_bits(saved, tmp_path):
    """In the header, in the first and last weight, and anywhere."""
    content, path = saved.read_bytes(), tmp_path / 'flipped.safetensors'
    start = 8 + int.from_bytes(content[:8], 'little')
    wanted = load_file(saved)
    rng = np.random.default_rng(0)
    places = [start, len(content) - 1, *rng.integers(0, len(content), 60)]
    for at in [*places, *rng.integers(8, start, 100)]:
        flipped = bytearray(content)
        flipped[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(flipped))
        with pytest.raises(CheckpointError):
            load_checkpoint(path)
    name = 'stem.convs.0.conv.weight'
    with pytest.raises(CheckpointError, match='is damaged: its content does not have the digest'):
        load_checkpoint(rewritten(saved, path, {name: wanted[name] + 1}))
    with pytest.raises(CheckpointError, match='does not have the digest'):
        load_checkpoint(rewritten(saved, path, card='{"trained": false}'))
    with pytest.raises(CheckpointError, match=r"has the fields \['colour'\], expected"):
        load_checkpoint(rewritten(saved, path, colour='red'))


def test_a_checkpoint_without_a_digest_loads_with_a_warning(saved, tmp_path, caplog):
    load_checkpoint(saved)
    assert not caplog.records
    load_checkpoint(rewritten(saved, tmp_path / 'old.safetensors', digest=None))
    assert 'carries no digest' in caplog.text


def test_refuses_a_place_that_cannot_be_written(saved, tmp_path):
    (tmp_path / 'file').write_text('in the way')
    with pytest.raises(CheckpointError, match='cannot write'):
        save_checkpoint(tmp_path / 'file' / 'net.safetensors', load_checkpoint(saved))


def test_nothing_in_the_package_unpickles():
    for file in (ROOT / 'spike_depth_ros').rglob('*.py'):
        source = file.read_text(encoding='utf-8')
        for word in ('import pickle', 'torch.load(', 'allow_pickle=True'):
            assert word not in source, f'{file} says {word}'
