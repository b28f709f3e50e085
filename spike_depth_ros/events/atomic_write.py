"""Files and folders that appear under their name only when they are complete.

The writer works on a hidden path beside the target and renames it at the end. A process that is
killed leaves the hidden path behind and never a half-written target.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


class PartialPath:
    """A hidden path beside a target, which becomes the target or is removed.

    Attributes:
        target: the final path.
        path: where to write until then; `commit` renames it.
    """

    def __init__(self, target: str | Path, shared: bool = False) -> None:
        """Removes what an interrupted writer of the same target left, and makes the parent folder.

        Args:
            target: the final path.
            shared: several processes may write this target at once. Each gets a path of its own,
                and the last one to finish wins.

        Raises:
            OSError: the parent folder cannot be created.
        """
        self.target = Path(target)
        suffix = f'{os.getpid()}.partial' if shared else 'partial'
        self.path = self.target.with_name(f'.{self.target.name}.{suffix}')
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self.discard()

    def commit(self) -> None:
        """Gives the path its final name; an existing file of that name is replaced.

        Raises:
            OSError: it cannot be renamed.
        """
        self.path.replace(self.target)

    def discard(self) -> None:
        """Removes the path; nothing happens if it does not exist."""
        if self.path.is_dir():
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            self.path.unlink(missing_ok=True)


@contextlib.contextmanager
def partial_path(target: str | Path, shared: bool = False) -> Iterator[Path]:
    """Gives a path to write to, which becomes `target` unless the block raises.

    The arguments are those of `PartialPath`.
    """
    partial = PartialPath(target, shared)
    try:
        yield partial.path
        partial.commit()
    finally:
        partial.discard()
