"""Prints what setup.py asks for, in pip's form, except what is installed without its requirements.

Usage: requirements.py SETUP_PY [EXTRA ...]
Without the name of an extra all of them are printed; `-` stands for none.
"""

import runpy
import sys
from pathlib import Path
from unittest import mock

NEEDS_OF_SPIKINGJELLY = ['h5py', 'loguru<1', 'matplotlib', 'numpy', 'packaging', 'requests', 'scipy', 'tqdm']


def main(setup_py: Path, extras: list[str]) -> None:
    """Reads the arguments of `setup()` without running it."""
    with mock.patch('setuptools.setup') as setup:
        runpy.run_path(str(setup_py))
    arguments = setup.call_args.kwargs
    known = arguments['extras_require']
    unknown = sorted(set(extras) - {*known, '-'})
    if unknown:
        sys.exit(f'EXTRAS names {", ".join(unknown)}, expected some of: {", ".join(known)}')
    wanted = [*arguments['install_requires'], *NEEDS_OF_SPIKINGJELLY]
    for extra in extras or known:
        wanted += known.get(extra, [])
    print('\n'.join(name for name in wanted if not name.startswith('spikingjelly')))


if __name__ == '__main__':
    main(Path(sys.argv[1]), sys.argv[2:])
