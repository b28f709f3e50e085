import re
from pathlib import Path

from test_layers import LAYERS

ROOT = Path(__file__).resolve().parents[1]


def test_every_convention_names_a_test_that_exists():
    rows = re.findall(r'^\| (.+?) \| .+ \| `(test_\w+\.py)` \|$',
                      (ROOT / 'CONVENTIONS.md').read_text(), re.MULTILINE)  # fmt: skip
    assert len(rows) >= 15
    assert not [file for _, file in rows if not (ROOT / 'test' / file).is_file()]


def test_the_layers_are_those_that_are_enforced():
    rows = re.findall(r'^\d  (.+?)   +\S', (ROOT / 'CONVENTIONS.md').read_text(), re.MULTILINE)
    written = [tuple(room.strip('/') for room in row.split()) for row in rows]
    assert written == [tuple(r for r in rooms if r != '__main__') for rooms in LAYERS]
