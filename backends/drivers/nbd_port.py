"""A port over an NBD server, through libnbd."""

from __future__ import annotations

import errno
import mmap
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

from backends.drivers.errors import ConnectionLost, DriverError, NotPermitted, NotReady
from backends.drivers.nbd_connection import Connection
from backends.drivers.oserrors import translate_os_error
from backends.drivers.ports import Extent, ExtentKind, Port
from backends.drivers.types import MIB, OpenMode

#: Commands that are under way at once, each on a connection of its own where the server allows it.
CONNECTIONS = 6
#: A read or write that has moved no byte for so long is given up, and the connection with it.
STALL_SECONDS = 30.0
# Flushing and zeroing move no bytes at all until they are done, and a full cache takes its time.
_SILENT_FACTOR = 10
_TICK_SECONDS = 0.5
# After the first connection, for the others: a server that lets fewer in says nothing.
_MORE_SECONDS = 2.0

# The protocol counts in 32 bits; QEMU's limit for one request is a little below 2 GiB.
# Source: NBD protocol, "Block size constraints" and NBD_CMD_BLOCK_STATUS.
_LONGEST_ZERO = 256 * MIB
_LONGEST_STATUS = 1024 * MIB
_LONGEST_TRANSFER = 32 * MIB
_ZEROS = memoryview(mmap.mmap(-1, MIB))


def load_libnbd() -> ModuleType:
    """
    Return the module `nbd`.

    Raises:
        NotReady: It is missing; the remedy names the package.
    """
    try:
        import nbd
    except ImportError as error:
        raise NotReady(
            "This needs libnbd's Python module 'nbd', which is not there.",
            remedy="On Debian: apt-get install python3-libnbd, then `make install` again.",
        ) from error
    return nbd


class NbdPort(Port):
    """
    An export of an NBD server.

    Several threads work on several connections where the server promises that a flush on one covers all
    (NBD_FLAG_CAN_MULTI_CONN) and lets so many in; otherwise several commands are under way on one.  Every command is
    sent asynchronously and waited for with a watchdog, because a server that hangs says nothing and libnbd would wait
    for ever.  After a stall the port is broken for good; a new one must be opened.

    What VERIFY reads is what the server has: one that caches (QEMU without `--cache=none`) answers from memory.

    Args:
        uri: As libnbd takes it: `nbd+unix:///name?socket=/path`, `nbd://host:port/name`, `nbds://…`.
        shown: What the messages call it, in place of the URI.
        is_exclusive: The server serves nobody else.
        prepare: Called with each libnbd handle before it connects, for TLS.
    """

    def __init__(
        self,
        uri: str,
        mode: OpenMode,
        *,
        shown: str = "",
        backend: str = "",
        volume: str = "",
        reads_zero_when_new: bool = False,
        is_exclusive: bool = False,
        connections: int = CONNECTIONS,
        stall_seconds: float | None = None,
        prepare: Callable[[Any], None] = lambda handle: None,
    ) -> None:
        self._nbd = load_libnbd()
        self.mode = mode
        self.shown = shown or uri
        self.reads_zero_when_new = reads_zero_when_new
        self.is_exclusive = is_exclusive
        self._uri = uri
        self._prepare = prepare
        self._backend = backend
        self._volume = volume
        self._stall_seconds = STALL_SECONDS if stall_seconds is None else stall_seconds
        self._error: DriverError | None = None
        self._is_interrupted = False
        self._edge_lock = threading.Lock()
        self._idle: queue.LifoQueue[Connection] = queue.LifoQueue()
        self._connections: list[Connection] = []
        try:
            self._open(connections)
        except BaseException:
            self.close()
            raise

    # -- opening ---------------------------------------------------------------------------------------------

    def _open(self, connections: int) -> None:
        handle = self._connect().handle
        self.size_bytes = handle.get_size()
        minimum = handle.get_block_size(self._nbd.SIZE_MINIMUM)
        self._minimum_bytes = max(1, minimum)
        self.block_size_bytes = max(4096, minimum, handle.get_block_size(self._nbd.SIZE_PREFERRED))
        maximum = handle.get_block_size(self._nbd.SIZE_MAXIMUM) or _LONGEST_TRANSFER
        self._maximum_bytes = min(maximum, _LONGEST_TRANSFER) // self._minimum_bytes * self._minimum_bytes
        self._can_zero = handle.can_zero()
        self._can_flush = handle.can_flush()
        self._knows_extents = handle.can_meta_context(self._nbd.CONTEXT_BASE_ALLOCATION)
        if self.mode is OpenMode.WRITE and handle.is_read_only():
            raise NotPermitted(f"{self.shown} is served read-only.", **self._fields("open"))
        if handle.can_multi_conn():
            self._connect_more(connections - 1)
        # As many commands at once as were asked for, evenly.
        for number in range(max(connections, len(self._connections))):
            self._idle.put(self._connections[number % len(self._connections)])

    def _connect(self) -> Connection:
        connection = self._begin_to_connect()
        with self._errors("Connecting to", "open", connection):
            self._wait_until_connected(connection, self._stall_seconds)
        return connection

    def _begin_to_connect(self) -> Connection:
        handle = self._nbd.NBD()
        connection = Connection(handle, self._nbd)
        # Before it connects, so that `close` finds it whatever happens.
        self._connections.append(connection)
        with self._errors("Connecting to", "open", connection):
            handle.add_meta_context(self._nbd.CONTEXT_BASE_ALLOCATION)
            self._prepare(handle)
            handle.aio_connect_uri(self._uri)
        return connection

    def _wait_until_connected(self, connection: Connection, seconds: float) -> None:
        handle = connection.handle
        moved_at = time.monotonic()
        while handle.aio_is_connecting():
            self._check_interrupted()
            if handle.poll(int(min(_TICK_SECONDS, seconds) * 1000)):
                moved_at = time.monotonic()
            elif time.monotonic() - moved_at >= seconds:
                raise self._stalled(seconds)
        if not handle.aio_is_ready():
            raise ConnectionLost(f"{self.shown} did not answer as an NBD server.", **self._fields("open"))

    def _connect_more(self, count: int) -> None:
        """Open up to *count* connections more; what the server does not let in at once is done without."""
        begun = []
        for _ in range(count):
            with suppress(DriverError):
                begun.append(self._begin_to_connect())
        ends_at = time.monotonic() + _MORE_SECONDS
        for connection in begun:
            try:
                with self._errors("Connecting to", "open", connection):
                    self._wait_until_connected(connection, max(0.01, ends_at - time.monotonic()))
            except DriverError:
                self._check_interrupted()
        for connection in self._connections:
            if not connection.is_ready:
                connection.close()
        self._connections = [connection for connection in self._connections if connection.is_ready]

    # -- reading ---------------------------------------------------------------------------------------------

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        self._check_range(offset, length)
        end = offset + length
        position = offset
        waiting: Extent | None = None
        while position < end:
            for found in self._status(position, min(end - position, _LONGEST_STATUS)):
                position = found.end
                if waiting is not None and waiting.kind is found.kind:
                    waiting = Extent(waiting.offset, waiting.length + found.length, found.kind)
                    continue
                if waiting is not None:
                    yield waiting
                waiting = found
        if waiting is not None:
            yield waiting

    def _status(self, offset: int, length: int) -> list[Extent]:
        """Return what the server says about the beginning of the range; data where it says nothing."""
        whole = [Extent(offset, length, ExtentKind.DATA)]
        if not self._knows_extents:
            return whole
        start = offset // self._minimum_bytes * self._minimum_bytes
        stop = min(-(-(offset + length) // self._minimum_bytes) * self._minimum_bytes, self.size_bytes)
        answers: list[list[int]] = []

        def on_extents(context: str, _offset: int, entries: list[int], _error: object) -> int:
            if context == self._nbd.CONTEXT_BASE_ALLOCATION:
                answers.append(entries)
            return 0

        try:
            self._run(
                "Looking for holes in",
                "extents",
                lambda handle: handle.aio_block_status(stop - start, start, on_extents),
            )
        except DriverError as error:
            if not _is_refusal(error):
                raise
            self._knows_extents = False
            return whole
        return self._extents_of(answers[0], start, offset, offset + length) if answers else whole

    def _extents_of(self, entries: list[int], position: int, start: int, end: int) -> list[Extent]:
        is_hole = self._nbd.STATE_HOLE | self._nbd.STATE_ZERO
        result = []
        for length, flags in zip(entries[::2], entries[1::2], strict=True):
            # A server may answer about more than was asked.
            first, last = max(position, start), min(position + length, end)
            if first < last:
                kind = ExtentKind.HOLE if flags & is_hole == is_hole else ExtentKind.DATA
                result.append(Extent(first, last - first, kind))
            position += length
        return result or [Extent(start, end - start, ExtentKind.DATA)]

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._check_range(offset, len(buffer))
        start, stop = self._whole_blocks(offset, len(buffer))
        if (start, stop) == (offset, offset + len(buffer)):
            self._read(offset, buffer)
            return
        whole = memoryview(bytearray(stop - start))
        self._read(start, whole)
        buffer[:] = whole[offset - start : offset - start + len(buffer)]

    def _read(self, offset: int, buffer: memoryview) -> None:
        for at in range(0, len(buffer), self._maximum_bytes):
            part = buffer[at : at + self._maximum_bytes]
            self._run(
                f"Reading {len(part)} bytes at offset {offset + at} of",
                "read",
                lambda handle, part=part, at=at: handle.aio_pread(part, offset + at),
            )

    # -- writing ---------------------------------------------------------------------------------------------

    def write(self, offset: int, buffer: memoryview) -> None:
        self._check_writable("write")
        self._check_range(offset, len(buffer))
        start, stop = self._whole_blocks(offset, len(buffer))
        if (start, stop) == (offset, offset + len(buffer)):
            self._write(offset, buffer)
            return
        # The neighbours in the first and the last block may be written by another thread in the same way.
        with self._edge_lock:
            whole = memoryview(bytearray(stop - start))
            self._read(start, whole)
            whole[offset - start : offset - start + len(buffer)] = buffer
            self._write(start, whole)

    def _write(self, offset: int, buffer: memoryview) -> None:
        for at in range(0, len(buffer), self._maximum_bytes):
            part = buffer[at : at + self._maximum_bytes]
            self._run(
                f"Writing {len(part)} bytes at offset {offset + at} of",
                "write",
                lambda handle, part=part, at=at: handle.aio_pwrite(part, offset + at),
            )

    def zero(self, offset: int, length: int) -> None:
        self._check_writable("zero")
        self._check_range(offset, length)
        block = self._minimum_bytes
        first, last = -(-offset // block) * block, (offset + length) // block * block
        if not self._can_zero or first >= last:
            self._write_zeros(offset, length)
            return
        self._write_zeros(offset, first - offset)
        # Without NO_HOLE the server may give the room back.
        flags = self._nbd.CMD_FLAG_NO_HOLE if self.keeps_allocation else 0
        for at in range(first, last, _LONGEST_ZERO):
            count = min(_LONGEST_ZERO, last - at)
            self._run(
                f"Zeroing {count} bytes at offset {at} of",
                "zero",
                lambda handle, count=count, at=at: handle.aio_zero(count, at, None, flags),
                is_silent=True,
            )
        self._write_zeros(last, offset + length - last)

    def _write_zeros(self, offset: int, length: int) -> None:
        for at in range(0, length, len(_ZEROS)):
            self.write(offset + at, _ZEROS[: min(len(_ZEROS), length - at)])

    # -- finishing -------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """
        Flush on one connection, which covers all: that is what CAN_MULTI_CONN means.

        A server that cannot flush promises that what it has acknowledged is stable.
        Source: NBD protocol, NBD_FLAG_CAN_MULTI_CONN and NBD_FLAG_SEND_FLUSH.
        """
        if self._error is not None:
            raise self._error
        if not self._can_flush:
            return
        try:
            self._run("Flushing", "flush", lambda handle: handle.aio_flush(), is_silent=True)
        except DriverError as error:
            # What was lost is reported once; a second flush that succeeds proves nothing.
            self._error = error
            raise

    def interrupt(self) -> None:
        self._is_interrupted = True
        for connection in list(self._connections):
            connection.wake()

    def close(self) -> None:
        connections, self._connections = self._connections, []
        self._is_interrupted = True
        for connection in connections:
            connection.close()

    # -- shared ----------------------------------------------------------------------------------------------

    def _run(self, doing: str, operation: str, start: Callable[[Any], int], is_silent: bool = False) -> None:
        """Run one command on a free connection; return when the server has answered that it is done."""
        if self._error is not None and operation != "flush":
            raise self._error
        seconds = self._stall_seconds * (_SILENT_FACTOR if is_silent else 1)
        connection = self._take_connection()
        try:
            if connection.is_gone:
                raise self._error or ConnectionLost(f"{self.shown} is closed.", **self._fields(operation))
            with self._errors(doing, operation, connection):
                self._wait(connection, connection.start(start), seconds)
        except ConnectionLost as error:
            # Its buffer must not be filled any more after the caller was told; and whoever waits for a connection
            # must not wait for this one.
            connection.close()
            self._error = self._error or error
            raise
        finally:
            self._idle.put(connection)

    def _take_connection(self) -> Connection:
        while True:
            with suppress(queue.Empty):
                return self._idle.get(timeout=_TICK_SECONDS)
            if self._error is not None:
                raise self._error
            self._check_interrupted()

    def _wait(self, connection: Connection, cookie: int, seconds: float) -> None:
        started = time.monotonic()
        while not connection.has_completed(cookie):
            self._check_interrupted()
            if connection.is_gone:
                raise ConnectionLost(f"{self.shown} closed the connection.", **self._fields(""))
            connection.move(min(_TICK_SECONDS, seconds))
            if time.monotonic() - max(started, connection.moved_at) >= seconds:
                raise self._stalled(seconds)

    def _stalled(self, seconds: float) -> ConnectionLost:
        return ConnectionLost(
            f"{self.shown} has not moved a byte for {seconds:.0f} seconds.", **self._fields("")
        )

    def _check_interrupted(self) -> None:
        if self._is_interrupted:
            raise ConnectionLost(f"The work on {self.shown} was broken off.", **self._fields(""))

    @contextmanager
    def _errors(self, doing: str, operation: str, connection: Connection) -> Iterator[None]:
        try:
            yield
        except DriverError as error:
            error.operation = error.operation or operation
            raise
        except self._nbd.Error as error:
            # Its frames refer to the handle, which would stay open for as long as somebody keeps the error.
            error.__traceback__ = None
            number = error.errnum
            # libnbd calls what is said on a broken connection an invalid command; a missing socket is a server that
            # is not there.
            if connection.is_gone and number in (0, errno.EINVAL, errno.ENOENT):
                number = errno.ENOTCONN
            raise translate_os_error(
                OSError(number, error.string), f"{doing} {self.shown}", **self._fields(operation)
            ) from error

    def _whole_blocks(self, offset: int, length: int) -> tuple[int, int]:
        block = self._minimum_bytes
        return offset // block * block, min(-(-(offset + length) // block) * block, self.size_bytes)

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size_bytes:
            raise ValueError(
                f"{length} bytes at offset {offset} are not inside {self.shown} of {self.size_bytes} bytes"
            )

    def _check_writable(self, operation: str) -> None:
        if self.mode is not OpenMode.WRITE:
            raise NotPermitted(
                f"{self.shown} was opened as {self.mode.value} and cannot be written.",
                remedy="",
                **self._fields(operation),
            )

    def _fields(self, operation: str) -> dict[str, str]:
        return {"backend": self._backend, "operation": operation, "volume": self._volume}


def _is_refusal(error: DriverError) -> bool:
    """Tell whether the server does not know this command, in contrast to: it failed."""
    cause = error.__cause__
    return getattr(cause, "errnum", None) in (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
