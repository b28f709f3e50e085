"""Writes results of an evaluation as JSON, Markdown and a page with pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spike_depth_ros.estimation.pictures import (
    beside,
    confidence_colors,
    depth_colors,
    event_colors,
    write_picture,
)
from spike_depth_ros.learning.evaluation import Result, Shown, plain
from spike_depth_ros.learning.pages import Figure, Row, Section, Table, markdown, write_page

NEAR_M, FAR_M, COLOR_MAP = 2.0, 100.0, 'turbo'
"""Range and colours of depth in pictures."""

COLUMNS: dict[str, str] = {
    'abs_rel': 'Abs Rel',
    'sq_rel': 'Sq Rel',
    'mae': 'MAE [m]',
    'rmse': 'RMSE [m]',
    'rmse_log': 'RMSE log',
    'silog': 'SI log',
    'delta1': 'δ<1.25',
    'delta2': 'δ<1.25²',
    'delta3': 'δ<1.25³',
    'false_obstacles': 'false obst.',
    'missed_obstacles': 'missed obst.',
    'aurc': 'AURC',
    'ece': 'ECE',
}
"""Figure -> heading, in the order of the main table."""

BANDS = {'abs_rel_0_10m': '0-10 m', 'abs_rel_10_20m': '10-20 m', 'abs_rel_20_40m': '20-40 m',
         'abs_rel_40_80m': '40-80 m'}  # fmt: skip

TRANSFER: dict[str, str] = {
    'abs_rel': 'Abs Rel',
    'rmse_log': 'RMSE log',
    'delta1': 'δ<1.25',
    'abs_rel_scaled': 'Abs Rel, one scale per map',
    'scale_error': 'scale error |ln s|',
    'scale_jitter': 'scale jitter',
    'planarity': 'planarity',
    'confidence_minus_hits': 'confidence - hits',
    'false_obstacles': 'false obst.',
    'beyond_in_rooms': 'beyond range in rooms',
}
"""Figure -> heading: how well depth transfers to other cameras and places."""

PROTOCOLS: dict[str, dict[str, str]] = {
    'metres without alignment, cap 80 m (DENSE, EventScape)': {
        'mae_10m': 'MAE to 10 m', 'mae_20m': 'MAE to 20 m', 'mae_30m': 'MAE to 30 m',
        'abs_rel': 'Abs Rel', 'rmse_log': 'RMSE log',
    },
    'DSEC tables of DepthAnyEvent: prediction and truth each divided by their own maximum of the '
    'frame, times 80': {
        'dsec_delta1': 'δ<1.25', 'dsec_abs_rel': 'Abs Rel', 'dsec_rmse': 'RMSE',
        'dsec_rmse_log': 'RMSE log',
    },
}  # fmt: skip
"""Protocol of published tables -> figure -> heading."""


def row_name(result: Result) -> str:
    """Returns the name of the predictor, and of the data if there are several sets."""
    return f'{result.name}, {result.set}' if result.set else result.name


def main_table(results: Sequence[Result], extra: dict[str, dict[str, Any]]) -> Table:
    """Returns one row per predictor and data set.

    Args:
        results: results of the evaluation.
        extra: predictor -> further columns, such as energy, measured on the first data set.
    """
    more = list(dict.fromkeys(key for columns in extra.values() for key in columns))
    first = results[0].set
    rows = [
        [
            row_name(r), r.parameters, *(r.figures[key] for key in COLUMNS), r.infer_ms,
            *(extra.get(r.name, {}).get(key, '') if r.set == first else '' for key in more),
        ]
        for r in results
    ]  # fmt: skip
    return Table(['', 'parameters', *COLUMNS.values(), 'ms', *more], rows)


def transfer_table(results: Sequence[Result]) -> Table:
    """Returns how depth transfers; with several data sets, shape relative to the first set."""
    home = {r.name: r.figures['abs_rel_scaled'] for r in results if r.set == results[0].set}
    several = any(r.set != results[0].set for r in results)
    ordered = sorted(results, key=lambda r: list(home).index(r.name))
    rows = [
        [
            row_name(r), *(r.figures[key] for key in TRANSFER),
            *([r.figures['abs_rel_scaled'] / home[r.name]] if several else []),
        ]
        for r in ordered
    ]  # fmt: skip
    ratio = [f'shape against {results[0].set}'] if several else []
    return Table(['', *TRANSFER.values(), *ratio], rows)


def protocol_tables(results: Sequence[Result]) -> dict[str, Table]:
    """Returns the figures of published tables, by protocol."""
    return {
        f'Protocol: {protocol}': Table(
            ['', *columns.values()],
            [[row_name(r), *(r.figures[key] for key in columns)] for r in results],
        )
        for protocol, columns in PROTOCOLS.items()
    }


def band_table(results: Sequence[Result]) -> Table:
    """Returns Abs Rel by distance."""
    rows = [[row_name(r), *(r.figures[key] for key in BANDS)] for r in results]
    return Table(['Abs Rel', *BANDS.values()], rows)


def group_tables(results: Sequence[Result]) -> dict[str, Table]:
    """Returns Abs Rel of each part of each group that has more than one part, by data set."""
    tables = {}
    for name in dict.fromkeys(r.set for r in results):
        here = [r for r in results if r.set == name]
        for group, parts in here[0].groups.items():
            if len(parts) > 1:
                counts = [f'{part} ({parts[part]["frames"]:.0f})' for part in parts]
                rows = [[r.name, *(r.groups[group][part]['abs_rel'] for part in parts)]
                        for r in here]  # fmt: skip
                title = f'{name}, by {group}' if name else f'By {group}'
                tables[title] = Table(['Abs Rel', *counts], rows)
    return tables


def write_report(
    folder: Path,
    title: str,
    facts: dict[str, Any],
    results: Sequence[Result],
    shown: Sequence[Shown],
    extra: dict[str, dict[str, Any]],
) -> Path:
    """Writes results.json, results.md, index.html and the pictures.

    Args:
        folder: output folder, created if necessary.
        title: title of the page.
        facts: conditions of the figures: data, cap, alignment, machine.
        results: one per predictor.
        shown: clips with the estimates of all predictors.
        extra: see `main_table`.

    Returns:
        The path of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first = results[0].set
    rows = [plain(r) | (extra.get(r.name, {}) if r.set == first else {}) for r in results]
    contents = {'facts': facts, 'results': rows}
    (folder / 'results.json').write_text(json.dumps(contents, indent=1) + '\n', encoding='utf-8')
    tables = {'': main_table(results, extra), 'By distance': band_table(results)}
    tables |= {'Transfer': transfer_table(results)} | protocol_tables(results)
    tables |= group_tables(results)
    said = [f'{key}: {value}' for key, value in facts.items()]
    text = '\n'.join(
        [f'# {title}', '', *said, '',
         *(f'## {name}\n\n{markdown(table)}' if name else markdown(table)
           for name, table in tables.items())]
    )  # fmt: skip
    (folder / 'results.md').write_text(text, encoding='utf-8')
    sections = [Section(name or 'Error', [table]) for name, table in tables.items()]
    sections.append(Section('Confidence', [_curves(folder, results)]))
    sections.append(Section('Pictures', [_pictures(folder, results, shown)]))
    page = folder / 'index.html'
    write_page(page, title, ' · '.join(said), sections)
    return page


def clip_picture(clip: Shown) -> np.ndarray:
    """Draws events and ground truth above, depth and confidence of each predictor below.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    truth_m = clip.sample.depth_m
    height, width = truth_m.shape
    pairs = [(event_colors(clip.sample.spikes[..., :height, :width]), _depth(truth_m))]
    pairs += [(_depth(a.depth_m), confidence_colors(a.confidence)) for a in clip.estimates]
    rows = [beside(pair, height) for pair in pairs]
    line = np.full((4, rows[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([part for row in rows for part in (row, line)][:-1])


def sample_picture(
    spikes: np.ndarray, truth_m: np.ndarray, depth_m: np.ndarray, confidence: np.ndarray
) -> np.ndarray:
    """Draws events, ground truth, depth and confidence of one sample side by side.

    Args:
        spikes: (T, 2, H, W) uint8.
        truth_m: (H, W) metres.
        depth_m: (H, W) metres, as predicted.
        confidence: (H, W) in [0, 1].

    Returns:
        (H, 4 W + gaps, 3) uint8 RGB.
    """
    parts = event_colors(spikes), _depth(truth_m), _depth(depth_m), confidence_colors(confidence)
    return beside(parts, len(truth_m))


def _depth(depth_m: np.ndarray) -> np.ndarray:
    return depth_colors(depth_m, COLOR_MAP, NEAR_M, FAR_M)


def _pictures(folder: Path, results: Sequence[Result], shown: Sequence[Shown]) -> Row:
    names = ', '.join(dict.fromkeys(r.name for r in results))
    figures = []
    for i, clip in enumerate(shown):
        file = f'clip_{i}.png'
        write_picture(folder / file, clip_picture(clip))
        place = f'{clip.sample.meta.get("sequence", "")}, {clip.sample.meta.get("sensor", "")}'
        figures.append(
            Figure(file, f'{place}: events and ground truth; depth and confidence of {names}')
        )
    return Row(figures)


def _curves(folder: Path, results: Sequence[Result]) -> Figure:
    """Draws risk against coverage, and the fraction of correct pixels against confidence."""
    import matplotlib as mpl

    mpl.use('Agg')
    from matplotlib import pyplot as plt

    plots = (
        ('coverage', 'risk', 'fraction of the most confident pixels', 'their Abs Rel'),
        ('confidence', 'share_right', 'confidence', 'share right'),
    )
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    for axis, (x, y, across, up) in zip(axes, plots, strict=True):
        for result in results:
            axis.plot(result.curves[x], result.curves[y], marker='.', label=row_name(result))
        axis.set(xlabel=across, ylabel=up)
        axis.grid(alpha=0.3)
    axes[1].plot([0, 1], [0, 1], color='grey', linestyle=':')
    axes[0].legend()
    figure.savefig(folder / 'confidence.png', dpi=90)
    plt.close(figure)
    return Figure('confidence.png', 'risk-coverage curve; calibration of the confidence')
