"""Energy of a checkpoint on a data set: the mean over some of its windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from spike_depth_ros.learning.datasets.sample import Sample
from spike_depth_ros.learning.pages import Table
from spike_depth_ros.network.checkpoint import Checkpoint
from spike_depth_ros.network.energy import EnergyReport, measure_energy

DECODERS = ('body.up', 'decoders')
"""Decoder layers of the baselines: they count as head, not as encoder."""

HEADER = ['layer', 'part', 'input rate', 'spikes only', 'dense MMAC', 'MMAC', 'MAC -> AC [M]',
          'uJ']  # fmt: skip


def mean_energy(
    checkpoint: Checkpoint, clips: Sequence[list[Sample]], chosen: Sequence[int]
) -> EnergyReport:
    """Measures the last window of each chosen clip, from rest.

    Args:
        checkpoint: of a network that sees events.
        clips: the data.
        chosen: indices of the clips.

    Raises:
        ValueError: the network sees images.
    """
    if getattr(checkpoint.model, 'reads', 'spikes') != 'spikes':
        raise ValueError(
            f'{checkpoint.model_name} sees images: energy is defined for networks that see events'
        )
    reports = [
        measure_energy(checkpoint.model, torch.from_numpy(clips[i][-1].spikes)[:, None])
        for i in chosen
    ]
    count = len(reports)
    layers = []
    for same in zip(*(report.layers for report in reports), strict=True):
        means = {
            key: sum(getattr(layer, key) for layer in same) / count
            for key in ('rate', 'dense_macs', 'macs', 'acs')
        }
        # without events any input looks like spikes, so all windows must agree
        spiking = all(layer.spiking for layer in same)
        part = 'head' if same[0].name.startswith(DECODERS) else same[0].part
        layers.append(dataclasses.replace(same[0], part=part, spiking=spiking, **means))
    return EnergyReport(
        tuple(layers),
        sum(report.weight_bytes for report in reports) / count,
        sum(report.state_bytes for report in reports) / count,
        sum(report.activation_bytes for report in reports) / count,
    )


def energy_table(report: EnergyReport) -> Table:
    """One row per product of a layer, for one depth map."""
    rows = [
        [
            layer.name, layer.part, layer.rate, 'yes' if layer.spiking else 'no',
            layer.dense_macs * 1e-6, layer.macs * 1e-6, layer.acs * 1e-6, layer.compute_pj * 1e-6,
        ]
        for layer in report.layers
    ]  # fmt: skip
    return Table(HEADER, rows)


def energy_totals(report: EnergyReport, window_ms: float) -> Table:
    """Encoder, head, both, and memory traffic, which the others do not include."""
    maps_hz = 1e3 / window_ms
    parts = [
        ('encoder', report.compute_pj('encoder')),
        ('head', report.compute_pj('head')),
        ('encoder and head', report.compute_pj()),
        ('memory traffic, apart', report.memory_pj),
    ]
    rows = [[name, pj * 1e-6, pj * 1e-9 * maps_hz] for name, pj in parts]
    return Table(['', 'uJ per map', f'mW at {maps_hz:g} maps/s'], rows)


def energy_columns(report: EnergyReport) -> dict[str, float]:
    """The columns of a comparison."""
    return {
        'encoder uJ': report.compute_pj('encoder') * 1e-6,
        'head uJ': report.compute_pj('head') * 1e-6,
        'total uJ': report.compute_pj() * 1e-6,
    }
