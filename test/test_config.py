import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spike_depth_ros.events.config import (
    ConfigError,
    DepthRange,
    SpikeConfig,
    from_dict,
    shipped,
    to_dict,
)


@dataclasses.dataclass(frozen=True)
class Example:
    number: float
    flag: bool = True
    sizes: tuple[int, ...] = (1, 2)


def test_json_round_trip():
    example = Example(0.5, False, (3, 4, 5))
    assert from_dict(Example, json.loads(json.dumps(to_dict(example)))) == example
    assert from_dict(SpikeConfig, to_dict(SpikeConfig())) == SpikeConfig()


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({}, "needs the fields \\['number'\\]"),
        ({'number': 1.0, 'colour': 2}, "no field \\['colour'\\]"),
        ({'number': 'one'}, "number is 'one', expected float"),
        ({'number': 1.0, 'flag': 1}, 'flag is 1, expected bool'),
        ({'number': 1.0, 'sizes': [1, 'two']}, "sizes is 'two', expected int"),
        ([1], 'must be a table'),
    ],
)
def test_strict(values, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(Example, values)


def test_whole_numbers_pass_as_floats():
    assert from_dict(Example, {'number': 2}) == Example(2.0)


def test_log_depth_by_hand():
    """(80 m, alpha 3.70378) is E2Depth's range for outdoor driving: 1.97 m to 80 m."""
    depth = DepthRange(min_m=80 * math.exp(-3.70378), max_m=80.0)
    assert depth.alpha == pytest.approx(3.70378)
    assert depth.min_m == pytest.approx(1.97, abs=0.005)
    got = depth.normalise(np.array([80.0, depth.min_m, 80 / math.e, 0.1, 500, np.inf, np.nan]))
    np.testing.assert_allclose(got, [1, 0, 1 - 1 / 3.70378, 0, 1, 1, np.nan], atol=1e-6)


@given(st.floats(0.5, 100.0))
def test_denormalise_inverts(depth_m):
    depth = DepthRange()
    assert depth.denormalise(depth.normalise(np.array([depth_m])))[0] == pytest.approx(
        depth_m, rel=1e-5
    )


@pytest.mark.parametrize(
    ('cls', 'change'),
    [
        (DepthRange, {'min_m': 0.0}),
        (DepthRange, {'min_m': 200.0}),
        (DepthRange, {'max_m': math.inf}),
        (DepthRange, {'focal_px': 0.0}),
        (SpikeConfig, {'steps': 0}),
        (SpikeConfig, {'window_ms': 0.0}),
        (SpikeConfig, {'max_width_px': 1}),
    ],
)
def test_impossible_values_are_named(cls, change):
    (name,) = change
    with pytest.raises(ConfigError, match=f'{name} is'):
        dataclasses.replace(cls(), **change)


def test_shipped_files():
    assert shipped('package.xml').is_file()
    with pytest.raises(ConfigError, match='not in the package'):
        shipped('config/none.yaml')
