"""A minute of what `make soak` does for an hour and a day."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_nodes_survive_all_faults_and_an_hour_of_events_takes_no_memory():
    command = [sys.executable, str(Path(__file__).with_name('soak.py'))]
    options = ['--minutes', '0.7', '--hours', '0.2', '--flat', '0.05']
    done = subprocess.run(command + options, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert 'disk full at a snapshot' in done.stdout
