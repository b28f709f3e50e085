"""Files that people have reported, with the content that is right, where they lie beside us."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from recordings import events_in

from spike_depth_ros.cli import main
from spike_depth_ros.recordings import BagError, convert_to, open_source

CASES = Path(__file__).resolve().parents[2] / 'shared' / 'cases'
EXPECTED = (
    json.loads((CASES / 'expected.json').read_text(encoding='utf-8'))
    if (CASES / 'expected.json').is_file()
    else {}
)
SENSOR = {'10a_tumvie_like-events_left.h5': '1280x720', '11a_float_seconds.h5': '640x480'}

pytestmark = pytest.mark.skipif(not EXPECTED, reason=f'no reported files at {CASES}')


def counted(events: np.ndarray) -> dict:
    return {
        'events': len(events),
        'on': int(events['p'].sum()),
        'sum_x': int(events['x'].sum(dtype=np.int64)),
        'sum_y': int(events['y'].sum(dtype=np.int64)),
        't_first_us': int(events['t_ns'][0]) // 1000,
        't_last_us': int(events['t_ns'][-1]) // 1000,
    }


@pytest.mark.parametrize('name', EXPECTED)
def test_expected(name, tmp_path):
    """Converted to events.h5, where stale events at the start do not count."""
    expected = EXPECTED[name]
    with open_source(CASES / name, sensor=SENSOR.get(name)) as source:
        if 'width' in expected:
            assert source.geometry == (expected['height'], expected['width'])
        done = convert_to(source, tmp_path / 'events.h5')
    found = counted(events_in(tmp_path / 'events.h5'))
    assert found == {key: expected[key] for key in found}
    assert done.events == expected['events']
    if name == '28b_stale_start.raw':
        assert sum(done.dropped.values()) == 30


@pytest.mark.parametrize(
    ('name', 'sensor', 'events', 'geometry'),
    [
        ('01_dv_ros_msgs.bag', None, 4000, (480, 640)),
        ('18a_dvs_msgs_2014.bag', '128x128', 4000, (128, 128)),
    ],
)
def test_bags(name, sensor, events, geometry):
    with open_source(CASES / name, sensor=sensor) as source:
        assert source.geometry == geometry
    assert len(events_in(CASES / name, sensor=sensor)) == events


def test_aedat4():
    events = events_in(CASES / 'dv_sample.aedat4')
    assert counted(events) == {
        'events': 6676,
        'on': 3563,
        'sum_x': 721_626,
        'sum_y': 1_424_056,
        't_first_us': 1_589_163_147_368_868,
        't_last_us': 1_589_163_147_538_809,
    }


@pytest.mark.parametrize(
    ('name', 'sentence'),
    [
        ('02i_geometry_mismatch.raw', r'contradict each other.* 640x480.* 1280x720'),
        ('06b_prophesee_cd_events_ecf.hdf5', 'ECF filter .*HDF5_PLUGIN_PATH'),
        ('10a_tumvie_like-events_left.h5', '--sensor WIDTHxHEIGHT'),
        ('11f_float_xy.h5', r'--sensor|x is 166.5, expected whole pixels'),
        ('18a_dvs_msgs_2014.bag', '--sensor WIDTHxHEIGHT'),
        ('18d_killed.bag.active', 'rosbag reindex 18d_killed.bag.active'),
    ],
)
def test_refused(name, sentence, capsys):
    with pytest.raises(SystemExit) as exit_code:
        main(['info', str(CASES / name)])
    assert exit_code.value.code == 1
    assert re.search(sentence, capsys.readouterr().err)


def test_float_positions_are_refused():
    with pytest.raises(BagError, match=r'x is 166.5, expected whole pixels'):
        events_in(CASES / '11f_float_xy.h5', sensor='640x480')
