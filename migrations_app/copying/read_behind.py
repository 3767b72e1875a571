"""Read a copy back beside the copying, where that costs no time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from backends.drivers.errors import DriverError
from backends.drivers.ports import Port
from migrations_app.copying import engine
from migrations_app.copying.engine import Guards, SegmentResult, Waits

logger = logging.getLogger(__name__)

#: Few: the copy comes first.
_THREADS = 4
#: From this share of the waiting on, the copy waits for its source, and the destination has time to be read.
SLOW_SOURCE_SHARE = 0.67


class ReadBehind:
    """
    Reads what was copied and flushed, in order, in a thread of its own.

    Only while the copy waits for its source: on a destination that is busy writing, the two would wait for each other.
    Whatever cannot be read here is left to whoever reads the rest.  Used by one thread, which must `close` it.

    Args:
        open_port: Returns a second port of the destination, which sees what was flushed through the first.
        first_segment: The first one that was not read back before.
        copying: The guards of the copy.
    """

    def __init__(self, open_port: Callable[[], Port], first_segment: int, copying: Guards) -> None:
        self._open_port = open_port
        self._copying = copying
        self._seen = Waits()
        self._changed = threading.Condition()
        self._next_segment = self._end_segment = first_segment
        self._results: list[SegmentResult] = []
        self._is_over = False
        self._port: Port | None = None
        self._thread: threading.Thread | None = None

    def offer(self, end_segment: int) -> None:
        """Say that everything before *end_segment* is copied and flushed; it is read if the destination has time."""
        if not self._waits_for_source() or self._copying.throttle.bytes_per_second:
            return
        if self._thread is None and not self._is_over:
            self._start()
        with self._changed:
            self._end_segment = end_segment
            self._changed.notify_all()

    def take(self) -> list[SegmentResult]:
        """Return the segments that were read since the last call, in order."""
        with self._changed:
            results, self._results = self._results, []
        return results

    def close(self) -> None:
        """Stop reading; what was read remains to be taken.  Safe to repeat: yes."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        if self._port is not None:
            self._port.interrupt()
        if self._thread is not None:
            self._thread.join()
        if self._port is not None:
            self._port.close()

    def _waits_for_source(self) -> bool:
        """Tell what the copy has waited for since this was asked last."""
        now = self._copying.waits
        source = now.source_seconds - self._seen.source_seconds
        destination = now.destination_seconds - self._seen.destination_seconds
        self._seen = Waits(now.source_seconds, now.destination_seconds)
        return source > 0 and source >= SLOW_SOURCE_SHARE * (source + destination)

    def _start(self) -> None:
        try:
            port = self._port = self._open_port()
        except DriverError:
            logger.warning("the copy cannot be read back while it is written", exc_info=True)
            self._is_over = True
            return
        self._thread = threading.Thread(target=self._work, args=[port], name="read-behind")
        self._thread.start()

    def _work(self, port: Port) -> None:
        guards = Guards(check=lambda: self._is_over, throttle=self._copying.throttle, checkpoint_seconds=0)
        try:
            while (end := self._wait()) is not None:
                engine.read_back(
                    port,
                    first_segment=self._next_segment,
                    end_segment=end,
                    guards=guards,
                    checkpoint=self._keep,
                    threads=_THREADS,
                )
        except Exception:
            if not self._is_over:
                logger.warning("the copy is not read back any more while it is written", exc_info=True)

    def _wait(self) -> int | None:
        """Return up to where to read now, or `None` when it is over."""
        with self._changed:
            while self._next_segment >= self._end_segment and not self._is_over:
                self._changed.wait()
            return None if self._is_over else self._end_segment

    def _keep(self, segments: list[SegmentResult] | tuple) -> None:
        with self._changed:
            self._results.extend(segments)
            self._next_segment = segments[-1].index + 1
            self._changed.notify_all()
