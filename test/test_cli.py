"""The command's own words: overview, help and mistakes. What the verbs do is tested elsewhere."""

import importlib
import json
import subprocess
import sys

import pytest

from spike_depth_ros.cli import VERBS, main, overview

HEAVY = ('torch', 'rclpy', 'lightning', 'matplotlib', 'spikingjelly')

LOOK = f"""
import contextlib, io, json, sys
from spike_depth_ros.cli import VERBS, main
found = {{}}
for verb in ('', *VERBS):
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as text:
        main([*verb.split(), '--help'])
    found[verb] = [text.getvalue().splitlines()[0], *(set({HEAVY}) & set(sys.modules))]
print(json.dumps(found))
"""


def test_help_needs_nothing_heavy():
    done = subprocess.run([sys.executable, '-c', LOOK], capture_output=True, check=True, text=True)
    found = json.loads(done.stdout)
    assert found == {verb: [found[verb][0]] for verb in ('', *VERBS)}
    assert all(line.startswith('usage: spike_depth') for line, *_ in found.values())


def test_overview_names_every_verb():
    lines = overview().splitlines()
    for name, verb in VERBS.items():
        assert any(line.startswith(f'  {name} ') and verb.summary in line for line in lines)


@pytest.mark.parametrize('name', VERBS)
def test_every_option_is_explained(name):
    module, function = VERBS[name].function.split(':')
    verb = getattr(importlib.import_module(f'spike_depth_ros.cli.{module}'), function)
    explained = verb.__doc__.split('Args:')[1]
    options = [option for option in verb.__annotations__ if option != 'return']
    assert options
    assert all(f'\n        {option}: ' in explained for option in options)
    assert 'config' not in options  # jsonargparse takes that name for itself


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['fly'], "no verb 'fly'"),
        (['bench'], "no verb 'bench'"),
        (['bench', 'fly'], "no verb 'bench fly'"),
        (['info'], 'the following arguments are required: path'),
        (['info', 'x', '--colour', 'red'], '--colour'),
        (['info', 'x', '--start', 'soon'], 'start'),
    ],
)
def test_mistakes_are_named_and_end_with_2(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert sentence in capsys.readouterr().err


def test_without_a_verb_the_overview_is_shown(capsys):
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 0
    assert overview() in capsys.readouterr().out


def test_a_missing_package_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'safetensors', None)
    with pytest.raises(SystemExit) as end:
        main(['info', 'x.safetensors'])
    assert end.value.code == 1
    assert 'the package safetensors is not installed' in capsys.readouterr().err
