"""What config/evaluate/unseen.yaml holds out is in no training, validation or calibration."""

from pathlib import Path

import pytest
import yaml

from spike_depth_ros.events.config import from_dict
from spike_depth_ros.learning.datasets.recipe import SyntheticConfig

CONFIG = Path(__file__).resolve().parents[1] / 'config'
PLACES, MOTION, SENSOR, HEIGHTS_M = {'warehouse', 'forest'}, 'walking', 'crowded', (0.5, 0.9)


def read(path):
    return yaml.safe_load(path.read_text(encoding='utf-8'))['data']


def sources():
    """(name, SyntheticConfig) of everything that weights or confidence are fitted to."""
    found = []
    for path in sorted((CONFIG / 'train').glob('*.yaml')):
        data = read(path)
        if data['name'] == 'synthetic':
            more = [source['fields'] for source in data.get('more', [])]
            parts = [data['train'], data['validation'], *more]
            found += [(f'{path.stem} {i}', part) for i, part in enumerate(parts)]
    sets = read(CONFIG / 'evaluate' / 'calibration.yaml')['sets']
    found += [(f'calibration {name}', part) for name, part in sets.items()]
    return [(name, from_dict(SyntheticConfig, part)) for name, part in found]


def unseen():
    sets = read(CONFIG / 'evaluate' / 'unseen.yaml')['sets']
    return {name: from_dict(SyntheticConfig, part) for name, part in sets.items()}


def touches(config):
    """The families held out of training that a configuration touches."""
    low, high = config.heights_m or (1.2, 1.8)  # scenes of the first part, but for small robots
    return {
        'places': not config.scenes or bool(PLACES & {*config.scenes}),
        'walking': MOTION in config.motions,
        'crowded readout': SENSOR in config.sensor_models,
        '0.5 to 0.9 m high': low < HEIGHTS_M[1] and high > HEIGHTS_M[0],
    }


@pytest.mark.parametrize(('name', 'config'), sources(), ids=lambda part: str(part)[:20])
def test_training_touches_nothing_that_is_held_out(name, config):
    assert not any(touches(config).values()), name
    assert config.split != 'test'


def test_each_set_holds_out_one_thing():
    sets = unseen()
    assert not any(touches(sets['seen']).values())
    for name, config in sets.items():
        assert config.split == 'test'
        assert {key for key, value in touches(config).items() if value} == {name} - {'seen'}


def test_all_of_a_set_is_of_its_family():
    sets = unseen()
    assert set(sets['places'].scenes) == PLACES
    assert sets['walking'].motions == (MOTION,)
    assert sets['crowded readout'].sensor_models == (SENSOR,)
    assert sets['0.5 to 0.9 m high'].heights_m == HEIGHTS_M


def test_no_training_sensor_saturates_as_the_held_out_one():
    from spike_depth_ros.sim.sensors import SENSOR_MODELS

    trained = {model for _, config in sources() for model in config.sensor_models} - {'preset'}
    assert SENSOR not in trained
    limit = SENSOR_MODELS[SENSOR]['readout_mev_s'][1]
    assert all(SENSOR_MODELS[model]['readout_mev_s'][0] > limit for model in trained)
