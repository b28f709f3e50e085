"""Which of several sensors on one topic the node listens to."""

from __future__ import annotations

import math
import time

HOLD_S = 0.5
"""A sensor of another size is taken for a new one when the one before was silent for this long."""


class SensorGate:
    """Keeps to one sensor size where messages of several sizes alternate.

    Attributes:
        size: (height, width) of the sensor that is admitted; None before the first.
    """

    def __init__(self) -> None:
        self.size: tuple[int, int] | None = None
        self._seen_s = -math.inf

    def admits(self, size: tuple[int, int]) -> bool:
        """Takes the size of a message; True if it is that of the sensor kept to."""
        now_s = time.monotonic()
        if size != self.size and now_s - self._seen_s < HOLD_S:
            return False
        self.size, self._seen_s = size, now_s
        return True
