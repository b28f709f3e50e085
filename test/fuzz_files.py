"""Good files of the formats that are not bags, for `fuzz.py` to damage."""

from pathlib import Path

import h5py
import numpy as np
from recordings import H, W, evt2_words, evt3_words, evt21_words, some_events, young
from test_aedat4 import write_aedat4
from test_formats import ecf_chunk, evt4_words, write_columns, write_dat

EVENTS = young(some_events(200))

HEADERS = [
    ('evt 2.0', evt2_words),
    ('evt 3.0', evt3_words),
    ('format EVT4;height=12;width=40', evt4_words),
    ('evt 2.1', lambda e: evt21_words(e, True)),
]


def raw_seeds(folder: Path) -> list[bytes]:
    """Headers with many lines, so that damage meets all of them."""
    lines = ['camera_integrator_name Prophesee', 'plugin_integrator_name Prophesee',
             'plugin_name hal_plugin_imx636_evk4', 'sensor_generation 4.2', 'system_ID 49',
             f'geometry {W}x{H}']  # fmt: skip
    return [
        ''.join(f'% {line}\n' for line in (*lines, first, 'end')).encode() + words(EVENTS)
        for first, words in HEADERS
    ]


def dat_seeds(folder: Path) -> list[bytes]:
    return [write_dat(folder / 'seed.dat', EVENTS).read_bytes()]


def hdf5_seeds(folder: Path) -> list[bytes]:
    """Columns in microseconds and in seconds, and a table as Prophesee has it."""
    found = []
    for times in (lambda us: us, lambda us: us / 1e6):
        path = write_columns(folder / 'seed.h5', EVENTS, ('xs', 'ys', 'ts', 'ps'), times)
        found.append(path.read_bytes())
    table = np.empty(len(EVENTS), [('x', '<u2'), ('y', '<u2'), ('p', '<i2'), ('t', '<i8')])
    for name in 'xyp':
        table[name] = EVENTS[name]
    table['t'] = EVENTS['t_ns'] // 1000
    with h5py.File(folder / 'seed.h5', 'w') as file:
        file.attrs['geometry'] = f'{W}x{H}'
        file['CD/events'] = table
    return [*found, (folder / 'seed.h5').read_bytes()]


def aedat4_seeds(folder: Path) -> list[bytes]:
    frame = (3_000_001, np.zeros((3, 4), np.uint8), 0)
    return [
        write_aedat4(folder / 'seed.aedat4', EVENTS, compression=k, frames=[frame]).read_bytes()
        for k in (0, 2, 3)
    ]


def ecf_seeds(folder: Path) -> list[bytes]:
    return [ecf_chunk(EVENTS, packing) for packing in (0, 1, 2)]


KALIBR = b"""cam0:
  camera_model: pinhole
  distortion_coeffs: [-0.3, 0.1, 0.001, -0.002]
  distortion_model: radtan
  intrinsics: [250.5, 251.0, 170.0, 130.0]
  resolution: [346, 260]
"""

OPENCV = b"""%YAML:1.0
---
image_width: 346
image_height: 260
camera_matrix: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 250.5, 0., 170., 0., 251., 130., 0., 0., 1. ]
distortion_coefficients: !!opencv-matrix
   rows: 1
   cols: 5
   dt: d
   data: [ -0.3, 0.1, 0., 0., 0. ]
"""
