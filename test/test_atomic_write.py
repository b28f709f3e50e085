"""A target is there as a whole, or not at all."""

import multiprocessing

import pytest

from spike_depth_ros.events.atomic_write import PartialPath, partial_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_name_appears_at_the_end(tmp_path):
    with partial_path(tmp_path / 'new' / 'a.txt') as partial:
        partial.write_text('one')
        assert names(tmp_path / 'new') == ['.a.txt.partial']
    assert names(tmp_path / 'new') == ['a.txt']
    with partial_path(tmp_path / 'new' / 'a.txt') as partial:
        partial.write_text('two')
    assert (tmp_path / 'new' / 'a.txt').read_text() == 'two'


def write_and_fail(target, shared):
    with partial_path(target, shared) as partial:
        partial.write_text('half')
        raise KeyboardInterrupt


@pytest.mark.parametrize('shared', [False, True])
def test_an_error_leaves_what_was_there(tmp_path, shared):
    (tmp_path / 'a.txt').write_text('old')
    with pytest.raises(KeyboardInterrupt):
        write_and_fail(tmp_path / 'a.txt', shared)
    assert names(tmp_path) == ['a.txt']
    assert (tmp_path / 'a.txt').read_text() == 'old'


def test_remains_of_a_killed_writer_are_replaced(tmp_path):
    killed = PartialPath(tmp_path / 'folder')
    killed.path.mkdir()
    (killed.path / 'half').write_text('x')
    with partial_path(tmp_path / 'folder') as partial:
        partial.mkdir()
        (partial / 'whole').write_text('y')
    assert names(tmp_path) == ['folder']
    assert names(tmp_path / 'folder') == ['whole']


def write_shared(target, text):
    with partial_path(target, shared=True) as partial:
        partial.write_text(text)


def test_processes_that_write_one_target_do_not_meet(tmp_path):
    with partial_path(tmp_path / 'a.txt', shared=True) as partial:
        partial.write_text('mine')
        other = multiprocessing.get_context('spawn').Process(
            target=write_shared, args=(tmp_path / 'a.txt', 'theirs')
        )
        other.start()
        other.join()
        assert (tmp_path / 'a.txt').read_text() == 'theirs'
    assert (tmp_path / 'a.txt').read_text() == 'mine'
    assert names(tmp_path) == ['a.txt']
