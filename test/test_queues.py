"""Queues that drop their oldest, and workers that survive a bad item."""

import math
import os
import sys
import threading
import time

import pytest

from spike_depth_ros.ros import queues
from spike_depth_ros.ros.queues import MAX_FAULTS, AgingQueue, Worker

SOON_S = 60.0
TOGETHER = 16
NICEST = 19  # of Linux


def test_count_drops_the_oldest():
    queue = AgingQueue(2, math.inf)
    for arrived_s, item in enumerate('abc'):
        queue.put(item, float(arrived_s))
    assert (len(queue), queue.dropped) == (2, 1)
    assert [queue.get().item, queue.get().item] == ['b', 'c']


def test_a_queue_of_one_holds_the_newest():
    queue = AgingQueue(1, math.inf)
    for item in range(5):
        queue.put(item, 7.0)
    assert (len(queue), queue.dropped, queue.get().item) == (1, 4, 4)


def test_what_came_at_once_stays_together_within_reason():
    queue = AgingQueue(2, math.inf, together=TOGETHER)
    for item in range(TOGETHER):
        queue.put(item, 7.0)
    assert (len(queue), queue.dropped) == (TOGETHER, 0)
    queue.put('one more', 7.0)
    assert (len(queue), queue.dropped) == (TOGETHER, 1)
    queue.put('later', 8.0)  # now what waited longer goes
    assert (len(queue), queue.dropped) == (2, TOGETHER)


def test_age_drops_the_oldest():
    queue = AgingQueue(10, 60.0)
    now_s = time.monotonic()
    queue.put('older', now_s - 59.0)
    queue.put('old', now_s - 58.0)
    assert (len(queue), queue.dropped) == (2, 0)
    assert queue.age_s >= 59.0
    queue.max_age_s = 58.5
    queue.put('new', now_s)  # nobody takes anything: what waits is bounded all the same
    assert (len(queue), queue.dropped) == (2, 1)
    queue.max_age_s = 30.0
    assert queue.get().item == 'new'
    assert (queue.dropped, queue.age_s) == (2, 0.0)


def test_a_queue_that_stands_gives_its_newest_until_it_keeps_up(monkeypatch):
    now_s = 0.0
    monkeypatch.setattr('spike_depth_ros.ros.queues.time.monotonic', lambda: now_s)
    queue = AgingQueue(3, math.inf, patience_s=1.0)

    def taken(*items):
        for item in items:
            queue.put(item, now_s)
        return queue.get().item

    def taken_after_a_wait(item):
        threading.Timer(0.05, lambda: queue.put(item, now_s)).start()
        return queue.get().item

    assert taken('a', 'b') == 'a'
    now_s = 1.0
    assert taken('c', 'd') == 'b', 'in order at first'
    now_s = 1.5
    assert taken('e') == 'e', 'something has waited for more than a second'
    assert queue.dropped == 2
    assert taken_after_a_wait('f') == 'f', 'for once it was empty'
    now_s = 2.0
    assert taken('g', 'h') == 'h', 'but it stood until just now'
    assert taken_after_a_wait('i') == 'i'
    now_s = 2.9
    assert taken('j', 'k') == 'k'
    assert taken_after_a_wait('l') == 'l'
    now_s = 3.95
    assert [taken('m', 'n'), queue.get().item] == ['m', 'n'], 'no others for a second: in order'
    assert queue.dropped == 4


def test_an_offer_is_taken_when_nothing_waits_and_withdrawn_by_an_item():
    queue = AgingQueue(2, 60.0)
    now_s = time.monotonic()
    queue.offer('first', now_s)
    queue.offer('second', now_s)
    assert queue.get().item == 'second'
    queue.offer('third', now_s)
    queue.put('item', now_s)
    assert queue.get().item == 'item'
    queue.put('item', now_s)
    queue.offer('fourth', now_s)
    assert [queue.get().item for _ in range(2)] == ['item', 'fourth']
    queue.offer('fifth', now_s)
    queue.clear()
    threading.Timer(0.05, queue.offer, ['sixth', now_s]).start()
    assert queue.get().item == 'sixth'
    queue.close()
    queue.offer('seventh', now_s)
    assert (queue.get(), queue.dropped) == (None, 0)


def test_clear_is_no_drop_and_close_ends_the_waiting():
    queue = AgingQueue(10, math.inf)
    queue.put('a', 0.0)
    queue.clear()
    assert (len(queue), queue.dropped) == (0, 0)
    threading.Timer(0.05, queue.close).start()
    assert queue.get() is None
    queue.put('b', 0.0)
    assert len(queue) == 0


def run(work, items):
    """Lets a worker work on the items; returns it and the sentences of its faults."""
    queue, said, seen = AgingQueue(100, math.inf), [], threading.Semaphore(0)

    def noted(item, arrived_s):
        try:
            work(item)
        finally:
            seen.release()

    worker = Worker('work', queue, noted, said.append)
    for item in items:
        queue.put(item, 0.0)
    worker.start()
    for _ in items:
        while not seen.acquire(timeout=0.01) and not worker.join(0.0):
            pass
    queue.close()
    assert worker.join(SOON_S)
    return worker, said


def test_a_bad_item_is_counted_and_said_and_the_next_is_done():
    done = []

    def work(item):
        done.append(10 // item)

    worker, said = run(work, [1, 0, 2])
    assert (done, worker.faults, worker.trouble) == ([10, 5], 1, '')
    assert said == ['work: ZeroDivisionError: integer division or modulo by zero']


def test_faults_in_a_row_are_tried_again_after_pauses_that_double(monkeypatch):
    pauses = []
    monkeypatch.setattr(
        AgingQueue, 'wait_for_close', lambda self, pause_s: pauses.append(pause_s) or False
    )
    worker, said = run(lambda item: [].pop(), range(MAX_FAULTS + 6))
    assert worker.faults == MAX_FAULTS + 6 == len(said)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert '9 faults in a row, trying again every 30 s' in worker.trouble
    assert 'IndexError: pop from empty list' in worker.trouble


def test_an_item_that_succeeds_ends_the_trouble(monkeypatch):
    monkeypatch.setattr(queues, 'FIRST_PAUSE_S', 0.0)
    worker, _ = run(lambda item: 1 // item, [0] * (MAX_FAULTS + 1) + [1])
    assert (worker.faults, worker.trouble) == (MAX_FAULTS + 1, '')


def test_a_close_ends_a_pause():
    queue, said = AgingQueue(100, math.inf), threading.Semaphore(0)
    worker = Worker('work', queue, lambda item, _: 1 // item, lambda _: said.release())
    for _ in range(MAX_FAULTS):
        queue.put(0, 0.0)
    worker.start()
    for _ in range(MAX_FAULTS):
        assert said.acquire(timeout=SOON_S)
    queue.close()
    assert worker.join(SOON_S)


def test_a_bug_ends_no_thread():
    done = []

    def work(item):
        assert item, 'a bug'
        done.append(item)

    worker, said = run(work, [0, 1])
    assert (done, worker.faults, len(said)) == ([1], 1, 1)


@pytest.mark.skipif(sys.platform != 'linux', reason='threads have a niceness on Linux only')
def test_a_nice_worker_steps_back_and_the_process_does_not():
    queue, seen = AgingQueue(1, math.inf), []

    def work(item, arrived_s):
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        queue.close()

    own = os.getpriority(os.PRIO_PROCESS, 0)
    worker = Worker('work', queue, work, print, niceness=own + 1)
    queue.put('a', 0.0)
    worker.start()
    assert worker.join(SOON_S)
    assert (seen, os.getpriority(os.PRIO_PROCESS, 0)) == ([min(own + 1, NICEST)], own)


def test_a_worker_of_a_process_that_stands_further_back_works(monkeypatch):
    def refuse(*_):
        raise PermissionError('only root comes forward')

    monkeypatch.setattr(os, 'setpriority', refuse)
    queue, done = AgingQueue(1, math.inf), []
    worker = Worker('work', queue, lambda item, _: (done.append(item), queue.close()), print, 10)
    queue.put('a', 0.0)
    worker.start()
    assert worker.join(SOON_S)
    assert (done, worker.trouble) == (['a'], '')


def test_what_a_worker_begins_with_comes_first_in_its_thread_and_may_fail():
    queue, done, said = AgingQueue(1, math.inf), [], []

    def begin():
        done.append(threading.current_thread().name)
        raise RuntimeError('cold')

    def work(item, arrived_s):
        done.append(item)
        queue.close()

    worker = Worker('work', queue, work, said.append, begin=begin)
    queue.put('a', 0.0)
    worker.start()
    assert worker.join(SOON_S)
    assert (done, worker.faults, worker.trouble) == (['work', 'a'], 1, '')
    assert said == ['work: RuntimeError: cold']


def test_join_tells_that_a_worker_is_busy():
    queue, go_on = AgingQueue(1, math.inf), threading.Event()
    worker = Worker('work', queue, lambda item, arrived_s: go_on.wait(SOON_S), print)
    worker.start()
    queue.put('a', 0.0)
    while len(queue):
        time.sleep(0.001)
    queue.close()
    assert not worker.join(0.05)
    go_on.set()
    assert worker.join(SOON_S)
