"""Conditions in a log: when they begin, when they change, and once a minute while they last."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Iterator
from typing import Any

REPEAT_S = 60.0
"""A condition that lasts is logged again after this long."""

SETTLED_S = 5.0
"""A condition that returns is logged again within a minute only if it had been over for this long;
so conditions that alternate do not flood the log."""

MOST_PER_REPEAT = 6
"""Lines about one subject within `REPEAT_S`, however many conditions it has."""


class _Subject:
    """What is known of one subject: its present condition, and what was logged when."""

    def __init__(self) -> None:
        self.condition = ''
        self.since_s = -math.inf
        self.logged_s: dict[str, float] = {}

    def is_due(self, condition: str, now_s: float) -> bool:
        """Takes the present condition; True if it is to be logged."""
        was_settled = now_s - self.since_s >= SETTLED_S
        changed = condition != self.condition
        if changed:
            self.condition, self.since_s = condition, now_s
        if not condition:
            return False
        recent = {c: s for c, s in self.logged_s.items() if now_s - s < REPEAT_S}
        returned = condition in recent and not (changed and was_settled)
        if returned or (condition not in recent and len(recent) >= MOST_PER_REPEAT):
            return False
        self.logged_s = {**recent, condition: now_s}
        return True


class ConditionLog:
    """Writes to a node's log without flooding it; may be used from any thread.

    Args:
        logger: of the node.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._subjects: dict[str, _Subject] = {}
        self._lock = threading.Lock()

    def info(self, subject: str, sentence: str, condition: str = '') -> None:
        """Logs a condition of a subject, if it is due.

        Args:
            subject: what the sentence is about, such as 'calibration'.
            sentence: for people; empty: there is nothing to say of the subject now.
            condition: what tells two conditions apart; by default the sentence. Give it where the
                sentence holds numbers that change all the time.
        """
        if self._is_due(subject, 'info', sentence, condition):
            self._logger.info(sentence)

    def warning(self, subject: str, sentence: str, condition: str = '') -> None:
        """See `info`."""
        if self._is_due(subject, 'warning', sentence, condition):
            self._logger.warning(sentence)

    def error(self, subject: str, sentence: str, condition: str = '') -> None:
        """See `info`."""
        if self._is_due(subject, 'error', sentence, condition):
            self._logger.error(sentence)

    def over(self, subject: str) -> None:
        """Notes that nothing is to be said of the subject now."""
        with self._lock:
            if subject in self._subjects:
                self._subjects[subject].is_due('', time.monotonic())

    def _is_due(self, subject: str, level: str, sentence: str, condition: str) -> bool:
        """One subject at two levels has two conditions: what gets worse is logged."""
        if not sentence:
            self.over(subject)
            return False
        with self._lock:
            known = self._subjects.setdefault(subject, _Subject())
            return known.is_due(f'{level} {condition or sentence}', time.monotonic())


class _ToNode(logging.Handler):
    """Hands the records of Python's logging to the logger of a node."""

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        elif record.levelno >= logging.INFO:
            self._logger.info(text)
        else:
            self._logger.debug(text)


@contextlib.contextmanager
def logging_to_node(logger: Any) -> Iterator[None]:
    """While it lasts, what the parts without ROS log appears in the node's log."""
    ours = logging.getLogger('spike_depth_ros')
    handler, level, propagate = _ToNode(logger), ours.level, ours.propagate
    ours.addHandler(handler)
    ours.setLevel(logging.DEBUG)  # the node's own level decides
    ours.propagate = False
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)
        ours.propagate = propagate
