"""`spike_depth demo`: runs the whole graph on one drive over real DDS and writes a report."""

from __future__ import annotations

import json
from pathlib import Path

from spike_depth_ros.cli.synth import synth
from spike_depth_ros.events.config import require, shipped

DRIVE_SENSOR = '346x260'


def demo(
    source: str = '',
    out: str = 'out/demo',
    seconds: float = 10.0,
    seed: int = 3_000_007,
    params: str = '',
    checkpoint: str = '',
    calibration: str = '',
    topic: str = '',
    view: str = '',
    record: bool = False,
    sensor: str = '',
    time_unit: str = '',
) -> None:
    """Runs replay_node and depth_node on a drive and writes a report folder.

    The two nodes run as separate processes with the parameters of config/depth.yaml; a third
    process subscribes to their outputs. The report holds pictures of events, depth, confidence and
    point cloud, a video, report.html and demo.json.

    Args:
        source: any recording that `convert` reads; empty: a synthetic drive rendered for the demo.
        out: folder of the report.
        seconds: duration of the drive to play.
        seed: world of the synthetic drive; the default is outside the ranges for training,
            validation and test (0 to 2,099,999).
        params: parameters file of the nodes; empty: the file installed with the package.
        checkpoint: path of a checkpoint; empty: the node chooses.
        calibration: calibration file of the camera; empty: the camera_info topic of the drive.
        topic: event topic of a bag that has several.
        view: '1' shows the outputs in rerun while the drive plays; a path that ends in .rrd writes
            them to that file.
        record: write the outputs to OUT/outputs, an MCAP bag that Foxglove (with the layout
            config/foxglove/depth.json) and rerun open.
        sensor: sensor size WIDTHxHEIGHT, if the source does not state it.
        time_unit: s, ms, us or ns, if the unit of an HDF5 file cannot be inferred.
    """
    from spike_depth_ros.ros.node_processes import Nodes, play

    require(view in ('', '1') or view.endswith('.rrd'), 'view', view, "'1', or a path in .rrd")
    folder = Path(out)
    parameters = params or str(shipped('config/depth.yaml'))
    nodes = Nodes(source, parameters, checkpoint, calibration, topic, sensor=sensor,
                  time_unit=time_unit)  # fmt: skip
    nodes.check()
    folder.mkdir(parents=True, exist_ok=True)
    if not source:
        drive = str(synthetic_drive(folder, DRIVE_SENSOR, seed, seconds))
        nodes = nodes._replace(drive=drive, odometry='/odom')
    viewing = None if not view else [] if view == '1' else ['--save', view]
    recording = play(nodes, seconds, viewing, folder / 'outputs' if record else None)
    if not recording.depth_m:
        reasons = [status.get('message', '') for status in recording.diagnostics.values()]
        raise OSError(f'the node published no depth; diagnostics: {"; ".join(reasons) or "none"}')
    from spike_depth_ros.cli.demo_report import write_report

    figures = write_report(folder, recording, nodes.drive, made=not source)
    print(json.dumps(figures, indent=2))
    print(f'\nreport: {folder / "report.html"}')
    if record:
        layout = shipped('config/foxglove/depth.json')
        print(f'outputs: {folder / "outputs"}; layout for Foxglove: {layout}')


def synthetic_drive(folder: Path, sensor: str, seed: int, seconds: float) -> Path:
    """Renders a street drive as a bag; an existing bag is reused."""
    drives = folder / f'drive-{sensor}-{seed}-{seconds:g}s'
    print(f'rendering {seconds:g} s of a synthetic drive (once)')
    synth(str(drives), scene='street', seed=seed, sequences=1, seconds=seconds, sensor=sensor,
          layout='bag')  # fmt: skip
    return next(path for path in sorted(drives.iterdir()) if not path.name.startswith('.'))
