import numpy as np
import pytest

from spike_depth_ros.events.arrays import EVENT_DTYPE, join_events, make_events


def test_joined_events_are_those_of_the_parts_in_order():
    events = make_events(
        [-5, 2**40, 7, 8, 9], [1, 65535, 3, 4, 5], [0, 2, 4, 6, 8], [1, 0, 1, 0, 1]
    )
    joined = join_events([events[:2], events[2:2], events[2:]])
    assert joined.dtype == EVENT_DTYPE
    assert joined.tolist() == events.tolist()
    assert not joined.flags.writeable
    assert join_events([events[::2]]).tolist() == events[::2].tolist()  # not contiguous
    assert join_events([]).shape == (0,)


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="'p': 1"):
        make_events(np.arange(2), [0, 0], [0, 0], [1])
