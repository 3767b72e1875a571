"""A token bucket: at most so many bytes a second, changeable while it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

#: The most that may go out at once after a rest, in seconds of the limit: small, so that a limit is felt at once.
_BURST_SECONDS = 0.25
_LONGEST_SLEEP_SECONDS = 0.1


class Throttle:
    """`take` waits until its bytes may go.  Without a limit it costs a comparison."""

    def __init__(
        self,
        bytes_per_second: int | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._limit = bytes_per_second
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._tokens = 0.0
        self._at = clock()

    @property
    def bytes_per_second(self) -> int | None:
        return self._limit

    def set_limit(self, bytes_per_second: int | None) -> None:
        """Change the limit; whoever waits feels it within a tenth of a second."""
        with self._lock:
            if bytes_per_second != self._limit:
                self._limit = bytes_per_second
                self._tokens = min(self._tokens, 0.0) if bytes_per_second else 0.0
                self._at = self._clock()

    def take(self, count: int, check: Callable[[], bool]) -> bool:
        """
        Return true when *count* bytes may go, false when *check* said to stop waiting.

        *check* is called while waiting and may also raise.  A count above the burst goes into debt, which the next
        caller waits off.
        """
        while True:
            with self._lock:
                if not self._limit:
                    return True
                now = self._clock()
                self._tokens = min(
                    self._tokens + (now - self._at) * self._limit, self._limit * _BURST_SECONDS
                )
                self._at = now
                if self._tokens >= 0:
                    self._tokens -= count
                    return True
                wait = -self._tokens / self._limit
            if check():
                return False
            self._sleep(min(wait, _LONGEST_SLEEP_SECONDS))
