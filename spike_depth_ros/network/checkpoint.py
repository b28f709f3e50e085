"""A checkpoint: one file that holds weights and everything that gives them their meaning.

The file is safetensors (https://github.com/huggingface/safetensors): tensors, and a header of
strings in which the configurations and the card lie as JSON. Nothing in it can execute.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spike_depth_ros.events.atomic_write import partial_path
from spike_depth_ros.events.config import ConfigError, DepthRange, SpikeConfig, from_dict, to_dict
from spike_depth_ros.network.registry import MODELS

FORMAT = 'spike_depth_ros'
VERSION = 1
"""Raised whenever a file of the new kind would be misread by the code before it."""

_MAX_CARD_CHARS = 1_000_000
_FIELDS = ('format', 'version', 'model', 'model_config', 'spikes', 'depth_range', 'card')

log = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, foreign, too new, or does not fit its own description."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A network and everything that makes its numbers.

    Attributes:
        model: the network, in evaluation mode, on the CPU.
        model_name: a key of `MODELS`.
        spikes: how events become its input.
        depth_range: what its normalised depth means in metres.
        card: how it came about, free form but for `trained` (bool): whether its depth means
            anything.
    """

    model: nn.Module
    model_name: str
    spikes: SpikeConfig
    depth_range: DepthRange
    card: dict[str, Any]

    @property
    def model_config(self) -> Any:
        """The configuration dataclass of the network."""
        return self.model.config

    @property
    def trained(self) -> bool:
        """False for seeded random weights, which say nothing about the scene."""
        return bool(self.card.get('trained', False))


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint; an existing file is replaced in one step, never left half written.

    Raises:
        CheckpointError: the place cannot be written.
    """
    from safetensors.torch import save

    file = Path(path)
    header = {
        'format': FORMAT,
        'version': str(VERSION),
        'model': checkpoint.model_name,
        'model_config': json.dumps(to_dict(checkpoint.model_config)),
        'spikes': json.dumps(to_dict(checkpoint.spikes)),
        'depth_range': json.dumps(to_dict(checkpoint.depth_range)),
        'card': json.dumps(checkpoint.card),
    }
    weights = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in checkpoint.model.state_dict().items()
    }
    header['digest'] = _digest(header, weights)
    try:
        with partial_path(file) as partial:
            partial.write_bytes(save(weights, header))
    except OSError as error:
        raise CheckpointError(f'cannot write the checkpoint {str(file)!r}: {error}') from error


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a checkpoint, strictly: every tensor and every field must be what it should be.

    Raises:
        CheckpointError: with one sentence that says what is wrong.
    """
    from safetensors import SafetensorError, safe_open

    file = Path(path).expanduser()
    if not file.is_file():
        raise CheckpointError(f'no checkpoint at {str(file)!r}')
    try:
        with safe_open(str(file), 'pt') as tensors:
            stored = tensors.metadata()
            header = _header(stored, file)
            model = _empty_model(header, file)
            _check_tensors(tensors, model, file)
            weights = {name: tensors.get_tensor(name) for name in model.state_dict()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f'checkpoint {str(file)!r} is damaged or not a safetensors file: {error}'
        ) from error
    broken = [name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise CheckpointError(
            f'checkpoint {str(file)!r} has weights that are not finite: {broken[:3]}'
        )
    _check_digest(stored, weights, file)
    model.load_state_dict(weights, strict=True, assign=True)
    return Checkpoint(
        model.eval().requires_grad_(False), header['model'], header['spikes'],
        header['depth_range'], header['card'],
    )  # fmt: skip


def _header(metadata: dict[str, str] | None, file: Path) -> dict[str, Any]:
    """The parsed header of a file of ours, or a `CheckpointError`."""
    metadata = metadata or {}
    if metadata.get('format') != FORMAT:
        raise CheckpointError(
            f'{str(file)!r} is a safetensors file, but no checkpoint of {FORMAT}: its header says '
            f'format {metadata.get("format")!r}'
        )
    version = metadata.get('version', '')
    if not re.fullmatch('[1-9][0-9]{0,8}', version):
        raise CheckpointError(f'checkpoint {str(file)!r} has the format version {version!r}')
    if int(version) > VERSION:
        raise CheckpointError(
            f'checkpoint {str(file)!r} is of format version {version}, newer than the {VERSION} '
            f'that this {FORMAT} reads: update the package'
        )
    if len(metadata.get('card', '')) > _MAX_CARD_CHARS:
        raise CheckpointError(f'the card of checkpoint {str(file)!r} is too long')
    model = metadata.get('model', '')
    if model not in MODELS:
        raise CheckpointError(
            f'checkpoint {str(file)!r} is for a network {model!r}, known are {sorted(MODELS)}'
        )
    try:
        card = json.loads(metadata['card'])
        if not isinstance(card, dict):
            raise CheckpointError(f'the card of checkpoint {str(file)!r} is not a table')
        return {
            'model': model,
            'model_config': from_dict(MODELS[model][0], json.loads(metadata['model_config'])),
            'spikes': from_dict(SpikeConfig, json.loads(metadata['spikes'])),
            'depth_range': from_dict(DepthRange, json.loads(metadata['depth_range'])),
            'card': card,
        }
    except CheckpointError:
        raise
    except (KeyError, ValueError, RecursionError) as error:  # not JSON, or no such configuration
        raise CheckpointError(
            f'the header of checkpoint {str(file)!r} cannot be used: {error!r}'
        ) from error


def _digest(header: dict[str, str], weights: dict[str, torch.Tensor]) -> str:
    """SHA-256 of the header's fields and of all tensors: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in _FIELDS:
        digest.update(f'{name}\0{header[name]}\0'.encode())
    for name, tensor in sorted(weights.items()):
        digest.update(f'{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0'.encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check_digest(header: dict[str, str], weights: dict[str, torch.Tensor], file: Path) -> None:
    """Raises a `CheckpointError` unless the file holds what was saved."""
    unknown = sorted(set(header) - {*_FIELDS, 'digest'})
    if unknown:
        raise CheckpointError(
            f'the header of checkpoint {str(file)!r} has the fields {unknown[:3]}, expected '
            f'{[*_FIELDS, "digest"]}'
        )
    if 'digest' not in header:
        log.warning('checkpoint %s carries no digest, so damage to it goes unnoticed: load and '
                    'save it once to add one', file)  # fmt: skip
    elif header['digest'] != _digest(header, weights):
        raise CheckpointError(
            f'checkpoint {str(file)!r} is damaged: its content does not have the digest that it '
            'was saved with; copy or download it again'
        )


def _empty_model(header: dict[str, Any], file: Path) -> nn.Module:
    """The network without memory for its weights: a wrong size costs nothing to find out."""
    try:
        with torch.device('meta'):
            return MODELS[header['model']][1](header['model_config'])
    except (ConfigError, RuntimeError, TypeError, OverflowError) as error:
        raise CheckpointError(
            f'checkpoint {str(file)!r} describes a network that cannot be: {error}'
        ) from error


def _check_tensors(tensors: Any, model: nn.Module, file: Path) -> None:
    """Raises a `CheckpointError` unless names, shapes and types are those of `model`."""
    expected = model.state_dict()
    names = set(tensors.keys())
    missing, surplus = sorted(set(expected) - names), sorted(names - set(expected))
    if missing or surplus:
        raise CheckpointError(
            f'checkpoint {str(file)!r} does not fit its own description: it lacks {missing[:3]} '
            f'and has {surplus[:3]} too much ({len(missing)} and {len(surplus)} in all)'
        )
    types = {'F32': torch.float32, 'I64': torch.int64}
    for name, tensor in expected.items():
        stored = tensors.get_slice(name)
        shape, dtype = tuple(stored.get_shape()), types.get(stored.get_dtype())
        if shape != tuple(tensor.shape) or dtype != tensor.dtype:
            raise CheckpointError(
                f'checkpoint {str(file)!r} has {name} as {stored.get_dtype()} {shape}, expected '
                f'{tensor.dtype} {tuple(tensor.shape)}'
            )
