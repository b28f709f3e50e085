"""Prints what setup.py asks for, in pip's form, less what must go in without its own needs.

Usage: requirements.py SETUP_PY
"""

import runpy
import sys
from pathlib import Path
from unittest import mock

EXTRAS = ('train', 'engines', 'test', 'docs')
NEEDS_OF_SPIKINGJELLY = ['h5py', 'loguru<1', 'matplotlib', 'numpy', 'packaging', 'requests', 'scipy', 'tqdm']


def main(setup_py: Path) -> None:
    """Reads the arguments of `setup()` without running it."""
    with mock.patch('setuptools.setup') as setup:
        runpy.run_path(str(setup_py))
    arguments = setup.call_args.kwargs
    wanted = [*arguments['install_requires'], *NEEDS_OF_SPIKINGJELLY]
    for extra in EXTRAS:
        wanted += arguments['extras_require'][extra]
    print('\n'.join(name for name in wanted if not name.startswith('spikingjelly')))


if __name__ == '__main__':
    main(Path(sys.argv[1]))
