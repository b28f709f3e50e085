"""The `spike_depth` command: a table of verbs, each a typed function in a module of its own.

The module of a verb is imported only when the verb is called, and torch only when it runs, so that
`--help` answers at once.
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
"""What a shell reports of a program that SIGPIPE ends."""


class Verb(NamedTuple):
    """The function of a verb, and its line in the overview."""

    function: str  # module:name within spike_depth_ros.cli
    summary: str


VERBS: dict[str, Verb] = {
    'demo': Verb('demo:demo', 'run the nodes on a drive and write a report with pictures'),
    'info': Verb('info:info', 'say what a bag, event file, data set or checkpoint holds'),
    'warm-up': Verb('warm_up:warm_up', 'compile what depth_node needs, choose its network'),
    'replay': Verb('replay:replay', 'play any event source to a ROS 2 topic'),
    'convert': Verb('convert:convert', 'turn one event source into another'),
    'synth': Verb('synth:synth', 'render synthetic drives with exact depth'),
    'clips': Verb('clips:clips', 'make the synthetic clips of a configuration ahead of time'),
    'train': Verb('train:train', 'train a network'),
    'evaluate': Verb('evaluate:evaluate', 'measure the error of one checkpoint'),
    'compare': Verb('compare:compare', 'table of checkpoints: error, energy, speed'),
    'ablate': Verb('ablate:ablate', 'table of what each part of the method is worth'),
    'calibrate': Verb('calibrate:calibrate', 'fit the confidence of a checkpoint to its hits'),
    'board': Verb('board:board', 'flatness of a flat board in a recording of real events'),
    'energy': Verb('energy:energy', 'energy of a checkpoint, layer by layer'),
    'export': Verb('export:export', 'write the file that the fast engines run'),
    'bench ingest': Verb('bench_ingest:ingest', 'speed of decoding and accumulation'),
    'bench infer': Verb('bench_infer:infer', 'speed of inference'),
    'bench node': Verb('bench_node:node', 'latency and load of the node'),
    'bench train': Verb('bench_train:train', 'speed of a training step'),
}


def overview() -> str:
    """The text of `spike_depth --help`."""
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
            'spike_depth VERB --help says more about a verb.',
        ]
    )


def flags_spelt_out(verb: Callable[..., None], arguments: list[str]) -> list[str]:
    """Rewrites a bare `--flag` as `--flag=true`, which jsonargparse requires."""
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
    """Rewrites leading items as a list where the first parameter is one: `compare A B`."""
    first = next(iter(inspect.signature(verb).parameters.values()))
    if first.annotation not in (list[str], 'list[str]'):
        return arguments
    count = next((i for i, a in enumerate(arguments) if a.startswith('-')), len(arguments))
    return [*([json.dumps(arguments[:count])] if count else []), *arguments[count:]]


def config_spelt_out(verb: Callable[..., None], arguments: list[str]) -> list[str]:
    """Rewrites a leading YAML file: `train NAME.yaml` becomes `train --config NAME.yaml`.

    A verb whose first argument is required takes the file as that argument.
    """
    first = next(iter(inspect.signature(verb).parameters.values()))
    is_config = bool(arguments) and arguments[0].endswith(('.yaml', '.yml'))
    is_config &= first.default is not inspect.Parameter.empty
    return ['--config', *arguments] if is_config else arguments


def _words(arguments: list[str]) -> int:
    """Returns the number of words of the verb: `bench` has a second one."""
    return 2 if any(name.startswith(f'{arguments[0]} ') for name in VERBS if arguments) else 1


def main(arguments: list[str] | None = None) -> None:
    """Runs the verb that the command line names; exits with status 2 if there is no such verb."""
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
    except BrokenPipeError:  # the reader of our output has ended, as in `info X | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE_STATUS)
    except (ValueError, OSError) as error:
        # every error class of the I/O layers is one of these: their sentence is the message
        logging.getLogger(__name__).debug('traceback', exc_info=True)
        print(f'spike_depth {name}: {error}', file=sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:
        logging.getLogger(__name__).debug('traceback', exc_info=True)
        print(
            f'spike_depth {name}: the package {error.name} is not installed here; `make setup` '
            'brings all that is needed, ROS 2 included unless one is sourced',
            file=sys.stderr,
        )
        sys.exit(1)
    except KeyboardInterrupt:
        print(f'spike_depth {name}: interrupted', file=sys.stderr)
        sys.exit(130)
