"""Queues between the threads of the node: bounded by count and by age, the oldest goes first."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar('T')

FAULTS = (ValueError, TypeError, LookupError, ArithmeticError, OSError, RuntimeError, MemoryError)
"""What the work on one item may raise (torch and rclpy raise RuntimeErrors): counted, survived."""

MAX_FAULTS = 3
"""After so many faults in a row a worker is given up: the next item would fail as well."""

_log = logging.getLogger(__name__)


TOGETHER = 16
"""So many items that came with one message do not push each other out of a queue."""


class Arrived(NamedTuple, Generic[T]):
    """An item, and when the message that completed it came in (`time.monotonic`)."""

    item: T
    arrived_s: float


class AgingQueue(Generic[T]):
    """First in, first out; what is too many or too old is dropped from the front and counted.

    Args:
        max_count: most items that wait, but for `TOGETHER` that came at once.
        max_age_s: items that arrived longer ago are dropped.
        patience_s: once something has been waiting at every `get` for longer than this, `get`
            takes the newest and drops the others, until for as long there were no others. A queue
            that outlasts a hiccup is one of too much work: it saves no item and delays them all.

    Attributes:
        dropped: number of items dropped so far.
        closed: True from `close` on.
    """

    def __init__(self, max_count: int, max_age_s: float, patience_s: float = math.inf) -> None:
        self.max_age_s = max_age_s
        self._patience_s = patience_s
        self._behind_since_s: float | None = None
        self._hurried_until_s = -math.inf
        self.dropped = 0
        self._max_count = max_count
        self._items: deque[Arrived[T]] = deque()
        self._changed = threading.Condition()
        self.closed = False

    def put(self, item: T, arrived_s: float) -> None:
        """Appends an item; never waits."""
        with self._changed:
            if self.closed:
                return
            self._items.append(Arrived(item, arrived_s))
            while self._are_too_many() or self._oldest_age_s() > self.max_age_s:
                self._drop()
            self._changed.notify()

    def get(self) -> Arrived[T] | None:
        """Waits for an item that is not too old; None once the queue is closed."""
        with self._changed:
            self._hurry()
            while True:
                while not self._items and not self.closed:
                    self._changed.wait()
                if self.closed:
                    return None
                if self._oldest_age_s() <= self.max_age_s:
                    return self._items.popleft()
                self._drop()

    def clear(self) -> None:
        """Forgets what waits, without counting it as dropped."""
        with self._changed:
            self._items.clear()

    def close(self) -> None:
        """Ends all waiting; what comes from now on is ignored."""
        with self._changed:
            self.closed = True
            self._items.clear()
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def age_s(self) -> float:
        """How long the oldest item has waited; 0 if none waits."""
        with self._changed:
            return self._oldest_age_s()

    def _oldest_age_s(self) -> float:
        return time.monotonic() - self._items[0].arrived_s if self._items else 0.0

    def _are_too_many(self) -> bool:
        count = len(self._items)
        at_once = count > 0 and self._items[0].arrived_s == self._items[-1].arrived_s
        return count > (max(TOGETHER, self._max_count) if at_once else self._max_count)

    def _hurry(self) -> None:
        """Drops all but the newest, if the queue stands or has stood until just now."""
        if not self._items:
            self._behind_since_s = None
            return
        now_s = time.monotonic()
        if self._behind_since_s is None:
            self._behind_since_s = now_s
        stands = now_s - self._behind_since_s > self._patience_s
        if stands or (now_s < self._hurried_until_s and len(self._items) > 1):
            self._hurried_until_s = now_s + self._patience_s
            while len(self._items) > 1:
                self._drop()

    def _drop(self) -> None:
        self._items.popleft()
        self.dropped += 1


class Worker(Generic[T]):
    """A thread that does one thing with each item of a queue, and survives a bad item.

    Args:
        name: of the thread, for logs.
        queue: where the items come from.
        work: called with each item and its time of arrival.
        on_fault: called with a sentence for each item that failed.
        niceness: how far the thread steps back behind the others when cores are few (Linux).
        begin: called first, in the thread; may fail as the work on an item may.

    Attributes:
        faults: number of items that failed.
        given_up: why the worker has stopped; empty while it works.
    """

    def __init__(
        self,
        name: str,
        queue: AgingQueue[T],
        work: Callable[[T, float], None],
        on_fault: Callable[[str], None],
        niceness: int = 0,
        begin: Callable[[], object] = lambda: None,
    ) -> None:
        self.faults = 0
        self.given_up = ''
        self._faults_in_a_row = 0
        self._queue, self._work, self._on_fault, self._begin = queue, work, on_fault, begin
        self._niceness = niceness
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Waits for the end of the thread, after its queue was closed; False if it lasts."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        reason = f'thread {self._thread.name} ended by an error that nobody expected'
        if self._niceness and sys.platform == 'linux':  # elsewhere it would be the process's
            with contextlib.suppress(PermissionError):  # it stands further back already
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)
        try:
            self._loop()
            reason = self.given_up
        finally:
            self.given_up = reason

    def _loop(self) -> None:
        self._survive(self._begin)
        while not self.given_up and (arrival := self._queue.get()) is not None:
            self._survive(self._work, *arrival)

    def _survive(self, work: Callable[..., object], *given: Any) -> None:
        try:
            work(*given)
            self._faults_in_a_row = 0
        except FAULTS as error:
            _log.debug('fault in %s', self._thread.name, exc_info=True)
            self.faults += 1
            self._faults_in_a_row += 1
            sentence = f'{self._thread.name}: {type(error).__name__}: {error}'
            self._on_fault(sentence)
            if self._faults_in_a_row >= MAX_FAULTS:
                self.given_up = f'{self._faults_in_a_row} faults in a row, the last was {sentence}'
