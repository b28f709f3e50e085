"""`spike_depth board`: a test on real events without ground truth."""

from __future__ import annotations

import json as jsonlib

import numpy as np

from spike_depth_ros.learning.pages import Table, markdown


def board(
    checkpoint: str, recording: str, topic: str | None = None, json: bool = False, threads: int = 1
) -> None:
    """Measures the flatness of depth on a planar board that fills the view of a recording.

    The spread is 1.4826 times the median of |ln depth - ln depth of the best plane|. It is 0 for a
    plane and equals the standard deviation for a normal distribution.

    Args:
        checkpoint: checkpoint to test.
        recording: any recording of events, see `spike_depth info`.
        topic: topic of the events, if there are several.
        json: print one JSON object instead of a table.
        threads: number of threads for inference.
    """
    from spike_depth_ros.learning.board import BoardMap, board_maps
    from spike_depth_ros.network.checkpoint import load_checkpoint

    maps = board_maps(load_checkpoint(checkpoint), recording, topic, threads)
    columns = np.array(maps, np.float64).T
    if json:
        lists = {
            name: column.tolist() for name, column in zip(BoardMap._fields, columns, strict=True)
        }
        print(jsonlib.dumps(lists))
        return
    rows = [
        [label, *(float(value) for value in reduce(columns, axis=1))]
        for label, reduce in (('median', np.nanmedian), ('least', np.nanmin), ('most', np.nanmax))
    ]
    print(markdown(Table([f'{len(maps)} maps', *BoardMap._fields], rows)))
