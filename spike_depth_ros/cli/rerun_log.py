"""Events, depth, confidence and cloud as a rerun recording (rerun-sdk is an optional extra)."""

from __future__ import annotations

import numpy as np
import rerun
import rerun.blueprint as blueprint

from spike_depth_ros.estimation.pictures import confidence_colors, depth_colors
from spike_depth_ros.events.camera import Camera

NEAR_M, FAR_M = 1.0, 60.0
COLOR_MAP = 'turbo'
POINT_RADIUS_PX = -1.5
"""rerun reads a negative radius as pixels of the screen."""

EYE_M, LOOK_AT_M = (-4.0, -5.0, -9.0), (0.0, 1.0, 16.0)
"""The cloud is first seen from above, behind and left of the camera, in its optical frame."""

PICTURES = ('events', 'depth', 'confidence')


class RerunLog:
    """Writes frames to a rerun viewer or file; use it as a context manager.

    Args:
        save: path of an .rrd file; empty opens the viewer.
        web: serve the viewer to a browser in place of the native one.
    """

    def __init__(self, save: str = '', web: bool = False) -> None:
        self._stream = rerun.RecordingStream('spike_depth')
        if save:
            self._stream.save(save, default_blueprint=_layout())
        elif web:
            address = self._stream.serve_grpc(default_blueprint=_layout())
            rerun.serve_web_viewer(connect_to=address)
        else:
            self._stream.spawn(default_blueprint=_layout())
        self._stream.log('cloud', rerun.ViewCoordinates.RDF, static=True)
        self._rays: dict[Camera, np.ndarray] = {}

    def at(self, stamp_ns: int) -> None:
        """Sets the time of what follows [ns]."""
        self._stream.set_time('stamp', timestamp=np.datetime64(stamp_ns, 'ns'))

    def picture(self, name: str, rgb: np.ndarray) -> None:
        """Logs one of `PICTURES`, (H, W, 3) uint8."""
        self._stream.log(name, rerun.Image(rgb).compress())

    def depth(self, depth_m: np.ndarray) -> None:
        """Logs an (H, W) depth image as a picture."""
        self.picture('depth', depth_colors(depth_m, COLOR_MAP, NEAR_M, FAR_M))

    def confidence(self, confidence: np.ndarray) -> None:
        """Logs (H, W) confidence as a picture."""
        self.picture('confidence', confidence_colors(confidence))

    def cloud(self, depth_m: np.ndarray, camera: Camera) -> None:
        """Logs the points of a depth image, coloured by depth."""
        if camera not in self._rays:
            self._rays = {camera: camera.rays()}
        rays = self._rays[camera]
        shown = np.isfinite(depth_m) & np.isfinite(rays).all(axis=-1)
        points = rays[shown] * depth_m[shown][:, None]
        colors = depth_colors(depth_m, COLOR_MAP, NEAR_M, FAR_M)[shown]
        self._stream.log('cloud', rerun.Points3D(points, colors=colors, radii=POINT_RADIUS_PX))

    def __enter__(self) -> RerunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()
        self._stream.disconnect()


def _layout() -> blueprint.Blueprint:
    views = [blueprint.Spatial2DView(origin=name, name=name) for name in PICTURES]
    cloud = blueprint.Spatial3DView(
        origin='cloud', name='cloud', line_grid=False, eye_controls=blueprint.EyeControls3D(
            position=EYE_M, look_target=LOOK_AT_M, eye_up=(0.0, -1.0, 0.0)
        ),
    )  # fmt: skip
    return blueprint.Blueprint(
        blueprint.Horizontal(cloud, blueprint.Vertical(*views), column_shares=[2, 1]),
        collapse_panels=True,
    )
