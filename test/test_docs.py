"""The Python of README and documentation runs as it stands."""

import re
from pathlib import Path

import numpy as np
import pytest
from graph import HEIGHT, WIDTH, some_events

from spike_depth_ros.events.camera import Camera
from spike_depth_ros.recordings import BagWriter

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
BLOCK = re.compile(r'^```python\n(.*?)^```', re.MULTILINE | re.DOTALL)
EXAMPLES = [page for page in PAGES if BLOCK.search(page.read_text(encoding='utf-8'))]


@pytest.mark.parametrize('page', EXAMPLES, ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    camera = Camera(WIDTH, HEIGHT, 60.0, 60.0, 31.5, 23.5)
    with BagWriter(tmp_path / 'my_bag') as bag:
        bag.add_camera_info('/event_camera/camera_info', 0, camera, 'camera_optical_frame')
        bag.add_events(some_events(0, 105), HEIGHT, WIDTH)
        depth_m = np.ones((HEIGHT, WIDTH), np.float32)
        bag.add_depth_32fc1('/ground_truth/depth', 50_000_000, depth_m, 'camera_optical_frame')
    names = {'__name__': 'example'}
    for code in BLOCK.findall(page.read_text(encoding='utf-8')):
        exec(compile(code, page.name, 'exec'), names)  # the examples of this repository
    assert capsys.readouterr().out, 'an example shows something'


def test_there_are_examples():
    assert ROOT / 'docs' / 'tutorial.md' in EXAMPLES
