import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_convention_names_a_test_that_exists():
    rows = re.findall(r'^\| (.+?) \| .+ \| `(test_\w+\.py)` \|$',
                      (ROOT / 'CONVENTIONS.md').read_text(), re.MULTILINE)  # fmt: skip
    assert len(rows) >= 15
    assert not [file for _, file in rows if not (ROOT / 'test' / file).is_file()]
