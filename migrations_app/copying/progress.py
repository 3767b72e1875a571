"""Counting what is done, and saying how long the rest takes without making it up."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable

#: An estimate from less than this is a guess.
_MINIMUM_SECONDS = 3.0
_WINDOW_SECONDS = 20.0


class Progress:
    """
    Bytes done of bytes to do in one phase, with the speed of the last seconds.

    Updated by the copying threads, read by the heartbeat: safe from any thread.
    """

    def __init__(self, total_bytes: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self.total_bytes = total_bytes
        self.done_bytes = 0
        self._samples: collections.deque[tuple[float, int]] = collections.deque([(clock(), 0)])

    def begin(self, total_bytes: int | None, done_bytes: int = 0) -> None:
        """Start a new phase; *done_bytes* were done by earlier runs and do not count for the speed."""
        with self._lock:
            self.total_bytes = total_bytes
            self.done_bytes = done_bytes
            self._samples = collections.deque([(self._clock(), done_bytes)])

    def add(self, count: int) -> None:
        with self._lock:
            self.done_bytes += count
            now = self._clock()
            if now - self._samples[-1][0] >= 0.2:
                self._samples.append((now, self.done_bytes))
            while len(self._samples) > 2 and now - self._samples[1][0] > _WINDOW_SECONDS:
                self._samples.popleft()

    def bytes_per_second(self) -> float | None:
        """Return the speed of the last seconds; `None` until it means something."""
        with self._lock:
            started, done = self._samples[0]
            elapsed = self._clock() - started
            moved = self.done_bytes - done
        return moved / elapsed if elapsed >= 1.0 and moved else None


def remaining_seconds(
    done_bytes: int, total_bytes: int | None, bytes_per_second: float | None, elapsed_seconds: float | None
) -> float | None:
    """Return how long the rest takes, or `None` while nobody can know."""
    if not total_bytes or not bytes_per_second or elapsed_seconds is None:
        return None
    if elapsed_seconds < _MINIMUM_SECONDS or done_bytes * 50 < total_bytes:
        return None
    return max(0.0, (total_bytes - done_bytes) / bytes_per_second)
