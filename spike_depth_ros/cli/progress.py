"""A progress bar for work on a recording, which shows progress and the number of events."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from tqdm import tqdm


@contextlib.contextmanager
def progress_bar(name: str) -> Iterator[Callable[[float, int], None]]:
    """Shows a bar on a terminal; yields the function to call with progress and event count."""
    layout = '{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}'
    with tqdm(total=1.0, desc=name, bar_format=layout, disable=None, leave=False) as bar:

        def update(share: float, events: int) -> None:
            bar.set_postfix_str(f'{events / 1e6:.1f} Mev', refresh=False)
            bar.update(share - bar.n)

        yield update
