"""Logs conditions when they begin, when they change, and once a minute while they last."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Iterator
from typing import Any

REPEAT_S = 60.0
"""A condition that lasts is logged again after this time."""

SETTLED_S = 5.0
"""A condition that returns within a minute is logged only if it was absent for this time, so that
alternating conditions do not flood the log."""

MOST_PER_REPEAT = 6
"""Maximum number of lines about one subject within `REPEAT_S`."""


class _Subject:
    """State of one subject: its current condition and the times of its log lines."""

    def __init__(self) -> None:
        self.condition = ''
        self.since_s = -math.inf
        self.logged_s: dict[str, float] = {}

    def is_due(self, condition: str, now_s: float) -> bool:
        """Updates the current condition; returns True if it must be logged."""
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
    """Writes to the log of a node without flooding it; thread-safe.

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
            subject: topic of the sentence, such as 'calibration'.
            sentence: text of the log line; empty if the subject has no condition now.
            condition: identifies the condition if the sentence contains changing numbers; by
                default the sentence.
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
        """Records that the subject has no condition now."""
        with self._lock:
            if subject in self._subjects:
                self._subjects[subject].is_due('', time.monotonic())

    def _is_due(self, subject: str, level: str, sentence: str, condition: str) -> bool:
        """Conditions of different levels differ, so that a worse level is logged."""
        if not sentence:
            self.over(subject)
            return False
        with self._lock:
            known = self._subjects.setdefault(subject, _Subject())
            return known.is_due(f'{level} {condition or sentence}', time.monotonic())


class _ToNode(logging.Handler):
    """Forwards the records of Python's logging to the logger of a node."""

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
    """Context in which log records of the modules without ROS appear in the node's log."""
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
