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

MAX_FAULTS = 3
"""After so many faults in a row a worker pauses: the next item would fail as well."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""The pauses of a worker double from the first to the longest while its faults go on."""

_log = logging.getLogger(__name__)


class Arrived(NamedTuple, Generic[T]):
    """An item, and when the message that completed it came in (`time.monotonic`)."""

    item: T
    arrived_s: float


class AgingQueue(Generic[T]):
    """First in, first out; items that are too many or too old are dropped from the front.

    Args:
        max_count: most items that wait.
        max_age_s: items that arrived longer ago are dropped.
        patience_s: once something has been waiting at every `get` for longer than this, `get`
            takes the newest item and drops the others, until there were no others for as long. A
            queue that outlasts a hiccup is one of too much work: it saves no item and delays all.
        together: so many items that arrived at once, with one message, do not push each other out.

    Attributes:
        dropped: number of items dropped so far.
        closed: True from `close` on.
    """

    def __init__(
        self, max_count: int, max_age_s: float, patience_s: float = math.inf, together: int = 1
    ) -> None:
        self.max_age_s = max_age_s
        self._patience_s = patience_s
        self._together = max(together, max_count)
        self._behind_since_s: float | None = None
        self._hurried_until_s = -math.inf
        self.dropped = 0
        self._max_count = max_count
        self._items: deque[Arrived[T]] = deque()
        self._offer: Arrived[T] | None = None
        self._changed = threading.Condition()
        self.closed = False

    def put(self, item: T, arrived_s: float) -> None:
        """Appends an item; never waits."""
        with self._changed:
            if self.closed:
                return
            self._items.append(Arrived(item, arrived_s))
            self._offer = None
            while self._are_too_many() or self._oldest_age_s() > self.max_age_s:
                self._drop()
            self._changed.notify()

    def offer(self, item: T, arrived_s: float) -> None:
        """Gives work for the time in which nothing else waits.

        It replaces the offer before, and the next `put` withdraws it; neither counts as dropped.
        """
        with self._changed:
            if not self.closed:
                self._offer = Arrived(item, arrived_s)
                self._changed.notify()

    def get(self) -> Arrived[T] | None:
        """Waits for an item that is not too old, or an offer; None once the queue is closed."""
        with self._changed:
            self._hurry()
            while True:
                while not self._items and not self.closed:
                    if self._offer is not None:
                        offer, self._offer = self._offer, None
                        return offer
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
            self._offer = None

    def wait_for_close(self, timeout_s: float) -> bool:
        """Waits until the queue is closed, for at most `timeout_s`; says whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self.closed, timeout_s)

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
        return count > (self._together if at_once else self._max_count)

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
    """A thread that does one thing with each item of a queue, and survives every fault.

    After `MAX_FAULTS` faults in a row it pauses before it tries again, longer each time.

    Args:
        name: of the thread, for logs.
        queue: where the items come from.
        work: called with each item and its time of arrival.
        on_fault: called with a sentence for each item that failed.
        niceness: by how much the priority of the thread is lower than the others' (Linux).
        begin: called first, in the thread; may fail as the work on an item may.

    Attributes:
        name: of the thread.
        faults: number of items that failed.
        trouble: why the worker pauses, from the last of `MAX_FAULTS` faults in a row until an
            item succeeds; empty while it works.
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
        self.name = name
        self.faults = 0
        self.trouble = ''
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
        if self._niceness and sys.platform == 'linux':  # elsewhere it would be the process's
            with contextlib.suppress(PermissionError):  # its priority is lower already
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)
        self._survive(self._begin)
        while (arrival := self._queue.get()) is not None:
            self._survive(self._work, *arrival)

    def _survive(self, work: Callable[..., object], *given: Any) -> None:
        try:
            work(*given)
        except Exception as error:  # of whatever kind: the next item may be a good one
            _log.debug('fault in %s', self.name, exc_info=True)
            self.faults += 1
            self._faults_in_a_row += 1
            sentence = f'{self.name}: {type(error).__name__}: {error}'
            self._on_fault(sentence)
            if self._faults_in_a_row >= MAX_FAULTS:
                self._pause(sentence)
        else:
            self._faults_in_a_row = 0
            self.trouble = ''

    def _pause(self, sentence: str) -> None:
        doublings = min(self._faults_in_a_row - MAX_FAULTS, 16)
        pause_s = min(FIRST_PAUSE_S * 2**doublings, LONGEST_PAUSE_S)
        self.trouble = (
            f'{self._faults_in_a_row} faults in a row, trying again every {pause_s:g} s; '
            f'the last was {sentence}'
        )
        self._queue.wait_for_close(pause_s)
