"""A small corpus for each target of the fuzz driver; `make fuzz` runs the long campaign."""

import fuzz
import pytest

BATCHES = {True: 40, False: 1}  # by whether an input is a file; others come 1,024 at a time


@pytest.mark.slow
@pytest.mark.parametrize('name', fuzz.TARGETS)
def test_damaged_input_is_survived(name, tmp_path):
    target = fuzz.TARGETS[name]
    batches = BATCHES[target.is_file]
    result = fuzz.run_target(name, target, 0, iter(range(batches)), tmp_path)
    assert (result.cases, result.failures) == (batches * target.batch, [])
    if target.is_file and name != 'recording/folder':  # of a folder the intact files are played
        assert result.refused > 0
