"""The report of a demo run: figures, pictures, a video and a page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from spike_depth_ros.cli.report import machine
from spike_depth_ros.estimation.pictures import (
    beside,
    cloud_picture,
    confidence_colors,
    depth_colors,
    write_picture,
    write_video,
)
from spike_depth_ros.learning.pages import Figure, Paragraph, Row, Section, Table, write_page
from spike_depth_ros.ros.probe import Recording

NEAR_M, FAR_M = 2.0, 80.0
TRUTH_TOLERANCE_NS = 5_000_000


def write_report(folder: Path, recording: Recording, drive: str, made: bool) -> dict[str, Any]:
    """Writes the report of one run.

    Args:
        folder: existing folder of the report.
        recording: outputs of the nodes as received by a subscriber, at least one depth map.
        drive: path of the recording that was played.
        made: True if the package rendered the drive itself.

    Returns:
        The content of demo.json.
    """
    figures = measure(recording) | {'drive': drive, 'machine': machine()}
    middle = sorted(recording.depth_m)[len(recording.depth_m) // 2]
    pictures = _pictures(recording, middle)
    for name, picture in pictures.items():
        write_picture(folder / f'{name}.png', picture)
    overview = [pictures[name] for name in OVERVIEW if name in pictures]
    write_picture(folder / 'demo.png', beside(overview, height_px=overview[0].shape[0]))
    figures['no_video_because'] = _write_video(folder, recording, figures['maps_per_s'])
    (folder / 'demo.json').write_text(json.dumps(figures, indent=2) + '\n', encoding='utf-8')
    _write_html(folder, figures, pictures, made)
    return figures


def _write_video(folder: Path, recording: Recording, maps_per_s: float) -> str:
    """Writes demo.webm; returns the reason if OpenCV cannot encode it, else an empty string."""
    try:
        write_video(folder / 'demo.webm', _frames(recording), max(1.0, maps_per_s))
    except OSError as error:
        return str(error)
    return ''


def measure(recording: Recording) -> dict[str, Any]:
    """Computes the figures of a run: rates, latency, losses and, with ground truth, errors.

    Latency is the time from the end of a window to the arrival of its depth map at the subscriber.
    """
    span_s = max(recording.arrival_s[-1] - recording.arrival_s[0], 1e-3)
    work = _status(recording, 'work')
    figures: dict[str, Any] = {
        'depth_maps': len(recording.depth_m),
        'maps_per_s': (len(recording.arrival_s) - 1) / span_s,
        'events_per_s': float(np.median(recording.events_per_s or [0.0])),
        'latency_ms_p50': float(np.percentile(recording.latency_ms, 50)),
        'latency_ms_p99': float(np.percentile(recording.latency_ms, 99)),
        'dropped_windows': int(work.get('dropped windows', 0)),
        'dropped_messages': int(work.get('dropped messages', 0)),
        'node_says': recording.said,
    }
    pairs = list(_with_truth(recording))
    if pairs:
        from spike_depth_ros.learning.metrics import DepthMetrics, frame_metrics

        metrics = DepthMetrics()
        for depth_m, confidence, truth_m in pairs:
            metrics.update(frame_metrics(depth_m, confidence, truth_m))
        computed = metrics.compute()
        figures['truth_maps'] = len(pairs)
        errors = {name: round(float(computed[name]), 4) for name in ERRORS}
        figures['error'] = {name: value for name, value in errors.items() if np.isfinite(value)}
    return figures


def _status(recording: Recording, name: str) -> dict[str, str]:
    """Returns the last diagnostics status with this name, or an empty table."""
    found = [v for key, v in recording.diagnostics.items() if key.endswith(f': {name}')]
    return found[-1] if found else {}


def _with_truth(recording: Recording) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields depth, confidence and ground truth of each map with ground truth at its stamp."""
    stamps = np.array(sorted(recording.truth_m), np.int64)
    for stamp, depth_m in sorted(recording.depth_m.items()):
        if not len(stamps):
            return
        nearest = int(stamps[np.abs(stamps - stamp).argmin()])
        truth_m = recording.truth_m[nearest]
        factor = -(-truth_m.shape[1] // depth_m.shape[1])
        truth_m = truth_m[::factor, ::factor]
        fits = truth_m.shape == depth_m.shape and abs(nearest - stamp) <= TRUTH_TOLERANCE_NS
        if fits and stamp in recording.confidence:
            yield depth_m, recording.confidence[stamp], truth_m


def _pictures(recording: Recording, stamp: int) -> dict[str, np.ndarray]:
    """Draws the pictures of one moment; topics without messages are left out."""
    depth_m = recording.depth_m[stamp]
    pictures = {'depth': depth_colors(depth_m, 'turbo', NEAR_M, FAR_M)}
    if recording.events:
        pictures['events'] = _nearest(recording.events, stamp)
    if recording.confidence:
        pictures['confidence'] = confidence_colors(_nearest(recording.confidence, stamp))
    if recording.clouds:
        cloud = _nearest(recording.clouds, stamp)
        colors = depth_colors(cloud[..., 2], 'turbo', NEAR_M, FAR_M)
        pictures['cloud'] = cloud_picture(cloud[..., :3].reshape(-1, 3), colors.reshape(-1, 3))
    if recording.truth_m:
        pictures['truth'] = depth_colors(
            _nearest(recording.truth_m, stamp), 'turbo', NEAR_M, FAR_M
        )
    return pictures


def _nearest(store: dict[int, np.ndarray], stamp: int) -> np.ndarray:
    return store[min(store, key=lambda other: abs(other - stamp))]


def _frames(recording: Recording) -> Iterator[np.ndarray]:
    """Yields the frames of the video: events, depth and, if available, ground truth."""
    for stamp, depth_m in sorted(recording.depth_m.items()):
        parts = [depth_colors(depth_m, 'turbo', NEAR_M, FAR_M)]
        if recording.events:
            parts.insert(0, _nearest(recording.events, stamp))
        if recording.truth_m:
            truth_m = _nearest(recording.truth_m, stamp)
            parts.append(depth_colors(truth_m, 'turbo', NEAR_M, FAR_M))
        yield beside(parts)


OVERVIEW = ('events', 'depth', 'truth', 'confidence')
ERRORS = {
    'abs_rel': 'Abs Rel',
    'rmse_log': 'RMSE log',
    'delta1': 'share of pixels within a factor of 1.25',
    'mae_20m': 'mean absolute error up to 20 m [m]',
    'false_obstacles': 'share of sky pixels with depth below 40 m',
}
CAPTIONS = {
    'events': 'Events of one window: ON is red, OFF is blue.',
    'depth': f'Depth, {NEAR_M:g} m (red) to {FAR_M:g} m (blue), logarithmic; grey: beyond range.',
    'truth': 'Ground-truth depth at that moment.',
    'confidence': 'Confidence: the probability that depth is within a factor of 1.25.',
    'cloud': 'The point cloud, seen from above and behind the camera.',
}


def _write_html(folder: Path, figures: dict[str, Any], shown: Iterable[str], made: bool) -> None:
    rates = [
        ('depth maps', figures['depth_maps']),
        ('depth maps per second', figures['maps_per_s']),
        ('events per second', figures['events_per_s']),
        ('latency from the end of a window to the subscriber, median [ms]',
         figures['latency_ms_p50']),
        ('the same, 99th percentile [ms]', figures['latency_ms_p99']),
        ('dropped windows', figures['dropped_windows']),
        ('dropped messages', figures['dropped_messages']),
    ]  # fmt: skip
    moment = Row([Figure(f'{name}.png', CAPTIONS[name]) for name in CAPTIONS if name in shown])
    video: Figure | Paragraph = Figure(
        'demo.webm', 'Events, depth and ground truth, if available.'
    )
    if figures['no_video_because']:
        video = Paragraph(f'No video: {figures["no_video_because"]}.')
    sections = [
        Section('One moment', [moment]),
        Section('The drive', [video]),
        Section('Speed', [Table(('figure', 'value'), rates)]),
    ]
    if 'error' in figures:
        note = f'{figures["truth_maps"]} maps against exact depth up to 80 m, not aligned.'
        errors = Table(('figure', 'value'), [(ERRORS[k], v) for k, v in figures['error'].items()])
        sections.append(Section('Error', [errors, Paragraph(note)]))
    says = Table(('part', 'status'), list(figures['node_says'].items()))
    sections.append(Section('Status of the node', [says]))
    here = figures['machine']
    facts = [(key, here[key]) for key in ('cpu', 'cores', 'memory_gb', 'gpu', 'system', 'python')]
    sections.append(Section('Machine', [Table(('', ''), [*facts, *here['packages'].items()])]))
    played = 'a synthetic drive rendered by this package' if made else figures['drive']
    write_page(folder / 'report.html', 'Depth from events', f'Played: {played}.', sections)
