"""Which of the shipped networks this machine runs: chosen once, the same from boot to boot."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import hashlib
import json
import logging
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import torch

from spike_depth_ros import __version__
from spike_depth_ros.estimation.engine import thread_count
from spike_depth_ros.estimation.estimator import SHIPPED
from spike_depth_ros.events.atomic_write import partial_path
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.config import cache_folder
from spike_depth_ros.ros.depth_parameters import DepthParameters

log = logging.getLogger(__name__)


@dataclasses.dataclass
class Choice:
    """What is remembered.

    Attributes:
        circumstances: machine, versions and settings that the choice is valid for.
        network: a key of `SHIPPED`; empty: not chosen yet.
        reason: what was measured.
        date: when, in ISO 8601.
        file: where it is remembered; '' if nowhere.
    """

    circumstances: dict[str, str]
    network: str = ''
    reason: str = ''
    date: str = ''
    file: str = ''

    def sentence(self) -> str:
        """The choice for the log, and how to change it."""
        where = f'; remembered in {self.file}' if self.file else ''
        return (
            f'network {self.network!r}, chosen {self.date[:10] or "now"}: {self.reason}{where}; '
            'the parameter network decides otherwise'
        )


def circumstances(parameters: DepthParameters, camera: Camera | None) -> dict[str, str]:
    """What a choice depends on: another value of any of these means another choice."""
    return {
        'machine': f'{platform.node()} {_processor()}',
        'cores': str(len(os.sched_getaffinity(0))),
        'threads': str(thread_count(parameters.num_threads)),
        'version': f'{__version__}, torch {torch.__version__}',
        'engine': f'{parameters.engine} on {parameters.device}',
        'window': f'{parameters.window_ms:g} ms every {parameters.stride_ms:g} ms',
        'sensor': f'{camera.width}x{camera.height} {parameters.roi}' if camera else 'unknown',
    }


@contextlib.contextmanager
def remembered(parameters: DepthParameters, camera: Camera | None) -> Iterator[Choice]:
    """The choice that was made before, or an empty one to fill in, which is then remembered.

    A second node that is started at the same time waits here until the first one has chosen, so
    that both run the same network and neither disturbs the measurement of the other.
    """
    valid_for = circumstances(parameters, camera)
    key = hashlib.sha256(json.dumps(valid_for, sort_keys=True).encode()).hexdigest()[:16]
    with contextlib.ExitStack() as stack:
        try:
            path = cache_folder() / f'network-{key}.json'
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(path.with_suffix('.lock').open('w'))
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            log.warning(
                f'cannot remember the choice of network: {error}; set the parameter network'
            )
            yield Choice(valid_for)
            return
        choice = _read(path, valid_for)
        if choice is not None:
            yield choice
            return
        choice = Choice(valid_for)
        choice.date = datetime.datetime.now().astimezone().isoformat(timespec='seconds')
        choice.file = str(path)
        yield choice
        try:
            with partial_path(path) as partial:
                partial.write_text(json.dumps(dataclasses.asdict(choice), indent=2), 'utf-8')
        except OSError as error:
            log.warning(
                f'cannot remember the choice of network: {error}; set the parameter network'
            )


def _read(path: Path, valid_for: dict[str, str]) -> Choice | None:
    """What was written; None if there is nothing, or nothing that can be used."""
    try:
        choice = Choice(**{**json.loads(path.read_text('utf-8')), 'file': str(path)})
    except (OSError, ValueError, TypeError):
        return None
    usable = choice.network in SHIPPED and choice.circumstances == valid_for
    return choice if usable and isinstance(choice.date, str) else None


def _processor() -> str:
    """Model name of the processor, which `platform.processor` does not know on Linux."""
    with contextlib.suppress(OSError):
        for line in Path('/proc/cpuinfo').read_text('utf-8').splitlines():
            if line.startswith(('model name', 'Model')):
                return line.partition(':')[2].strip()
    return platform.processor()
