"""One connection to an NBD server, on which several threads have commands under way."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any

from backends.drivers.errors import ConnectionLost


class Connection:
    """
    One libnbd handle; several threads may each have a command under way.

    Whoever waits for its command moves the bytes of all, one thread at a time: it waits for the socket without holding
    the lock, so that others can start commands meanwhile, which wakes it, because the socket may have to be waited for
    in another way then.  Every call of libnbd on the handle is made with the lock held, so that nothing is read into
    anybody's buffer after `close`.
    """

    def __init__(self, handle: Any, nbd: ModuleType) -> None:
        self.handle = handle
        self.moved_at = time.monotonic()
        self._nbd = nbd
        self._lock = threading.Lock()
        self._mover = threading.Lock()
        self._moved = threading.Condition()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)
        self._polled = (-1, 0)

    def __del__(self) -> None:
        os.close(self._bell)

    @property
    def is_gone(self) -> bool:
        handle = self.handle
        return handle is None or handle.aio_is_dead() or handle.aio_is_closed()

    @property
    def is_ready(self) -> bool:
        handle = self.handle
        return handle is not None and handle.aio_is_ready()

    def start(self, command: Callable[[Any], int]) -> int:
        """Start the command, and return what it is known by."""
        with self._lock:
            if self.handle is None:
                raise ConnectionLost("The connection is closed.")
            cookie = command(self.handle)
        if self._mover.locked():
            self.wake()
        return cookie

    def has_completed(self, cookie: int) -> bool:
        with self._lock:
            return self.handle is not None and bool(self.handle.aio_command_completed(cookie))

    def wake(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_write(self._bell, 1)

    def move(self, seconds: float) -> None:
        """Return when bytes were moved, here or by another thread, or after *seconds*."""
        if not self._mover.acquire(blocking=False):
            with self._moved:
                # Asked again, or the one who moves may have told everybody already.
                if self._mover.locked():
                    self._moved.wait(seconds)
            return
        try:
            before = self._under_way()
            # Nobody else is told before there is something to tell.
            while self._move(seconds) and self._under_way() == before:
                pass
        finally:
            self._mover.release()
            with self._moved:
                self._moved.notify_all()

    def _under_way(self) -> int:
        with self._lock:
            return (
                self.handle.aio_in_flight() if self.handle is not None and self.handle.aio_is_ready() else -1
            )

    def _move(self, seconds: float) -> bool:
        """Wait for the socket, or for the bell, and move what there is; tell whether to go on."""
        with self._lock:
            if self.handle is None:
                return False
            fd, wanted = self.handle.aio_get_fd(), self._wanted()
        if self._polled != (fd, wanted):
            self._poll.register(fd, wanted)
            self._polled = fd, wanted
        events = dict(self._poll.poll(seconds * 1000))
        if self._bell in events:
            with suppress(BlockingIOError):
                os.eventfd_read(self._bell)
        found = events.get(fd, 0)
        with self._lock:
            # Another thread may have started a command since.
            wanted = self._wanted() if found and self.handle is not None else 0
            if wanted & select.POLLIN and found & ~select.POLLOUT:
                self.handle.aio_notify_read()
            elif wanted & select.POLLOUT and found & ~select.POLLIN:
                self.handle.aio_notify_write()
            else:
                return False
        self.moved_at = time.monotonic()
        return self._bell not in events

    def _wanted(self) -> int:
        direction = self.handle.aio_get_direction()
        wanted = select.POLLIN if direction & self._nbd.AIO_DIRECTION_READ else 0
        return wanted | (select.POLLOUT if direction & self._nbd.AIO_DIRECTION_WRITE else 0)

    def close(self) -> None:
        # libnbd's Python module closes a handle when nobody refers to it any more.  Nothing is read into a buffer
        # from now on even if somebody does: libnbd works only inside its calls.
        with self._lock:
            handle, self.handle = self.handle, None
            if handle is not None and handle.aio_is_ready():
                with suppress(Exception):
                    handle.aio_disconnect()
        self.wake()
