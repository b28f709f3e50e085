"""The `spike_depth` command: a table of verbs, each a typed function in its own module.

A verb's module is imported only when the verb is called, and torch only when the verb runs, so
that `--help` is fast.
"""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import os
import sys
from collections.abc import Callable
from typing import NamedTuple

BROKEN_PIPE_STATUS = 141
"""Exit status that a shell reports for a program killed by SIGPIPE."""


class Verb(NamedTuple):
    """The function of a verb and its line in the overview."""

    function: str  # module:name within spike_depth_ros.cli
    summary: str


VERBS: dict[str, Verb] = {
    'demo': Verb('demo:demo', 'run the nodes on a drive and write a report with pictures'),
    'info': Verb('info:info', 'describe a bag, event file, data set or checkpoint'),
    'warm-up': Verb('warm_up:warm_up', 'compile kernels and choose the network of depth_node'),
    'replay': Verb('replay:replay', 'publish any event source on a ROS 2 topic'),
    'view': Verb('view:view', 'show events, depth and cloud in rerun, live or from a recording'),
    'convert': Verb('convert:convert', 'convert a recording to a bag or an events.h5'),
    'synth': Verb('synth:synth', 'render synthetic drives with exact depth'),
    'clips': Verb('clips:clips', 'render the synthetic clips of a configuration in advance'),
    'train': Verb('train:train', 'train a network'),
    'evaluate': Verb('evaluate:evaluate', 'measure error, energy and speed of checkpoints'),
    'ablate': Verb('ablate:ablate', 'tabulate the contribution of each part of the method'),
    'average': Verb('average:average', 'interpolate the weights of two checkpoints'),
    'calibrate': Verb('calibrate:calibrate', 'calibrate the confidence of a checkpoint'),
    'board': Verb('board:board', 'measure the flatness of depth on a planar board'),
    'energy': Verb('energy:energy', 'estimate the energy of a checkpoint per layer'),
    'export': Verb('export:export', 'export a checkpoint to ONNX'),
    'bench clips': Verb('bench_clips:clips', 'measure the speed of rendering, by scene'),
    'bench ingest': Verb('bench_ingest:ingest', 'measure the speed of decoding and accumulation'),
    'bench infer': Verb('bench_infer:infer', 'measure the speed of inference'),
    'bench node': Verb('bench_node:node', 'measure the latency and load of depth_node'),
    'bench train': Verb('bench_train:train', 'measure the speed of a training step'),
}


def overview() -> str:
    """Returns the text of `spike_depth --help`."""
    width = max(map(len, VERBS))
    lines = [f'  {name:<{width}}  {verb.summary}' for name, verb in VERBS.items()]
    return '\n'.join(
        [
            'usage: spike_depth VERB ...',
            '',
            'Metric depth from event cameras.',
            '',
            *lines,
            '',
            'Run spike_depth VERB --help for the options of a verb.',
        ]
    )


def flags_spelt_out(verb: Callable[..., None], arguments: list[str]) -> list[str]:
    """Rewrites a bare `--flag` as `--flag=true`, the form that jsonargparse requires."""
    flags = {
        f'--{name}'
        for name, parameter in inspect.signature(verb).parameters.items()
        if parameter.annotation in (bool, 'bool')
    }
    followers = [*arguments, ''][1:]
    return [
        f'{argument}=true' if argument in flags and follower not in ('true', 'false') else argument
        for argument, follower in zip(arguments, followers, strict=True)
    ]


def list_spelt_out(verb: Callable[..., None], arguments: list[str]) -> list[str]:
    """Rewrites leading arguments as a list if the first parameter is a list: `evaluate A B`."""
    first = next(iter(inspect.signature(verb).parameters.values()))
    if first.annotation not in (list[str], 'list[str]'):
        return arguments
    count = next((i for i, a in enumerate(arguments) if a.startswith('-')), len(arguments))
    return [*([json.dumps(arguments[:count])] if count else []), *arguments[count:]]


def config_spelt_out(verb: Callable[..., None], arguments: list[str]) -> list[str]:
    """Rewrites a leading YAML file: `train NAME.yaml` becomes `train --config NAME.yaml`.

    If the first parameter of a verb is required, the file is passed as that parameter instead.
    """
    first = next(iter(inspect.signature(verb).parameters.values()))
    is_config = bool(arguments) and arguments[0].endswith(('.yaml', '.yml'))
    is_config &= first.default is not inspect.Parameter.empty
    return ['--config', *arguments] if is_config else arguments


def _words(arguments: list[str]) -> int:
    """Returns the number of words in the verb's name: `bench X` has two."""
    return 2 if any(name.startswith(f'{arguments[0]} ') for name in VERBS if arguments) else 1


def main(arguments: list[str] | None = None) -> None:
    """Runs the verb named on the command line; exits with status 2 if there is no such verb."""
    arguments = sys.argv[1:] if arguments is None else arguments
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    name = next(
        (n for n in (' '.join(arguments[:2]), ' '.join(arguments[:1])) if n in VERBS), None
    )
    if name is None:
        wrong = [a for a in arguments[: _words(arguments)] if a not in ('-h', '--help')]
        if wrong:
            print(f'spike_depth: no verb {" ".join(wrong)!r}\n', file=sys.stderr)
        print(overview(), file=sys.stderr if wrong else sys.stdout)
        sys.exit(2 if wrong else 0)
    module, function = VERBS[name].function.split(':')
    try:
        from jsonargparse import auto_cli

        verb = getattr(importlib.import_module(f'{__name__}.{module}'), function)
        options = config_spelt_out(verb, flags_spelt_out(verb, arguments[len(name.split()) :]))
        options = list_spelt_out(verb, options)
        auto_cli(verb, args=options, prog=f'spike_depth {name}', as_positional=True,
                 fail_untyped=True)  # fmt: skip
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of stdout has exited, as in `info X | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE_STATUS)
    except (ValueError, OSError) as error:
        # All error classes of the I/O layers derive from these; their message is printed as it is.
        logging.getLogger(__name__).debug('traceback', exc_info=True)
        print(f'spike_depth {name}: {error}', file=sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:
        logging.getLogger(__name__).debug('traceback', exc_info=True)
        print(
            f'spike_depth {name}: the package {error.name} is not installed; `make setup` '
            'installs everything needed, including ROS 2 unless one is sourced',
            file=sys.stderr,
        )
        sys.exit(1)
    except KeyboardInterrupt:
        print(f'spike_depth {name}: interrupted', file=sys.stderr)
        sys.exit(130)
