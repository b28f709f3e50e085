"""A small corpus for each target of the fuzz driver; `make fuzz` runs the long campaign."""

import fuzz
import pytest

CASES = {True: 40, False: 400}  # by whether an input is a file


@pytest.mark.slow
@pytest.mark.parametrize('name', fuzz.TARGETS)
def test_damaged_input_is_survived(name, tmp_path):
    target = fuzz.TARGETS[name]
    cases = CASES[target.is_file]
    result = fuzz.run_target(name, target, 0, iter(range(cases)), tmp_path)
    assert (result.cases, result.failures) == (cases, [])
    if target.is_file and name != 'recording/folder':  # of a folder the intact files are played
        assert result.refused > 0
