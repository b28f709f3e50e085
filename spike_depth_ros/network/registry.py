"""The table of networks: the only place that maps names to them."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from spike_depth_ros.events.config import ConfigError, SpikeConfig, from_dict
from spike_depth_ros.network.baselines import E2Depth, E2DepthConfig, UNet, UNetConfig
from spike_depth_ros.network.encoder import SpikingTransformerConfig
from spike_depth_ros.network.spike_t import SpikeT, SpikeTConfig
from spike_depth_ros.network.spiking_transformer import SpikingTransformer
from spike_depth_ros.network.teacher import RgbUNet, RgbUNetConfig

MODELS: dict[str, tuple[type, type[nn.Module]]] = {
    'spiking_transformer': (SpikingTransformerConfig, SpikingTransformer),
    'unet': (UNetConfig, UNet),
    'e2depth': (E2DepthConfig, E2Depth),
    'spike_t': (SpikeTConfig, SpikeT),
    'rgb_unet': (RgbUNetConfig, RgbUNet),  # sees the image: a teacher, not for the node
}
"""Model name -> (its frozen configuration dataclass, its module)."""

_PAPER = {'mlp_ratio': 4, 'mlp_kernel': 1, 'stem': 'pool'}

PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    'tiny': ('spiking_transformer', {'dim': 48, 'depth': 2, 'heads': 1, 'head_dim': 32}),
    'small': (
        'spiking_transformer',
        {'dim': 64, 'depth': 5, 'heads': 1, 'head_dim': 48, 'neuron': 'plif'},
    ),
    'base': ('spiking_transformer', {'dim': 384, 'heads': 12, 'head_dim': 128, **_PAPER}),
    'unet_small': ('unet', {'width': 17}),
    'unet_published': ('unet', {'width': 75}),
    'e2depth_small': ('e2depth', {'width': 7, 'residual_blocks': 3}),
    'e2depth_published': ('e2depth', {'width': 32}),
    'spike_t_small': ('spike_t', {'width': 15}),
    'spike_t_published': ('spike_t', {'width': 96}),
}
"""Preset name -> (model name, what differs from its default configuration).

`tiny` and `small` are for robots on CPUs; `base` is the paper's, for 640 x 480 at full size.
"""

_SPIKES = {'base': SpikeConfig(window_ms=50.0, steps=16, max_width_px=640)}


def preset_spikes(preset: str) -> SpikeConfig:
    """How events become the input that a preset is made for."""
    return _SPIKES.get(preset, SpikeConfig())


def build(name: str, values: dict[str, Any] | None = None, steps: int = 0) -> nn.Module:
    """Makes the network `name` (of `MODELS` or `PRESETS`), untrained.

    Args:
        name: a model, or a preset whose values `values` overrides.
        values: configuration fields in their JSON form.
        steps: time bins per window, for the networks that are bound to their number; 0 leaves
            it to `values`.

    Raises:
        ConfigError: an unknown name, or a configuration that does not fit it.
    """
    model, preset = PRESETS.get(name, (name, {}))
    if model not in MODELS:
        raise ConfigError(
            f'no network {name!r}; there are {sorted(MODELS)} and the presets {sorted(PRESETS)}'
        )
    config_class, module_class = MODELS[model]
    bound = steps and 'steps' in {field.name for field in dataclasses.fields(config_class)}
    shared = {'steps': steps} if bound else {}
    return module_class(from_dict(config_class, {**shared, **preset, **(values or {})}))
