"""
An NBD server for a port: how a volume of any driver is served to another host.

It listens on a Unix socket only; whoever lets others in stands before it (`tls_front.py`).  The server works on the
port itself, so that what the port promises (its locks, its way past the page cache, its exact size) holds for whoever
is served, and so that every write passes the fence of this process.
"""

from __future__ import annotations

import errno
import logging
import mmap
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

from backends.drivers.errors import ConnectionLost, DriverError, InUse, NoSpace, NotPermitted, TimedOut
from backends.drivers.ports import ExtentKind, Port
from backends.drivers.types import MIB, OpenMode

logger = logging.getLogger(__name__)

# Source of all numbers: the NBD protocol, https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
_NBDMAGIC, _IHAVEOPT, _OPTION_REPLY = 0x4E42444D41474943, 0x49484156454F5054, 0x3E889045565A9
_REQUEST, _SIMPLE, _CHUNK = 0x25609513, 0x67446698, 0x668E33EF
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_OPT_ABORT, _OPT_INFO, _OPT_GO, _OPT_STRUCTURED, _OPT_SET_META = 2, 6, 7, 8, 10
_REP_ACK, _REP_INFO, _REP_META = 1, 3, 4
_REP_UNSUPPORTED, _REP_INVALID = 2**31 + 1, 2**31 + 3
_INFO_EXPORT, _INFO_BLOCK_SIZE = 0, 3
_HAS_FLAGS, _READ_ONLY, _SEND_FLUSH, _SEND_ZEROES, _MULTI_CONN = 1, 2, 4, 64, 256
_READ, _WRITE, _DISCONNECT, _FLUSH, _ZERO, _STATUS = 0, 1, 2, 3, 6, 7
_FLAG_NO_HOLE, _FLAG_ONE_EXTENT = 2, 8
_CHUNK_DONE = 1
_CHUNK_NONE, _CHUNK_DATA, _CHUNK_STATUS, _CHUNK_ERROR = 0, 1, 5, 2**15 + 1
_ALLOCATION, _CONTEXT_ID = b"base:allocation", 1
_HOLE_AND_ZERO = 3
_NBD_ESHUTDOWN = 108

#: Larger requests are refused; the client is told so.
_LARGEST_BYTES = 32 * MIB
_MOST_EXTENTS = 4096
_LONGEST_OPTION = 64 * 1024


class PortServer:
    """
    Serves *port* on the Unix socket *path* until `close`.

    Args:
        fence: Called right before each change; raises when the right to write is gone.
        on_error: Called with the first error of the port, for whoever tells it to a person.
    """

    def __init__(
        self,
        port: Port,
        path: str,
        mode: OpenMode,
        *,
        fence: Callable[[], None] = lambda: None,
        on_error: Callable[[DriverError], None] = lambda error: None,
    ) -> None:
        self.port = port
        self.is_writable = mode is OpenMode.WRITE
        # Some volumes keep their room whatever the client wants.
        self.keeps_allocation = port.keeps_allocation
        self.fence = fence
        self._on_error = on_error
        self._lock = threading.Lock()
        self._clients: set[socket.socket] = set()
        self._is_closed = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._accept, name="export", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Return when no request is worked on any more, or soon after.  Safe to repeat: yes."""
        with self._lock:
            self._is_closed = True
            clients = list(self._clients)
        for sock in (self._listener, *clients):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(1)

    def note(self, error: DriverError) -> None:
        self._on_error(error)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._is_closed:
                    client.close()
                    return
                self._clients.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            _Session(self, client).run()
        except (OSError, EOFError):
            pass
        except Exception:
            logger.exception("a client of an export was given up")
        finally:
            with self._lock:
                self._clients.discard(client)
            client.close()


class _Session:
    """One connection; requests are answered one after the other, clients open several connections."""

    def __init__(self, server: PortServer, sock: socket.socket) -> None:
        self._server = server
        self._port = server.port
        self._sock = sock
        self._is_structured = False
        self._knows_allocation = False
        # Page-aligned, so that a port can read and write it past the page cache.
        self._memory = mmap.mmap(-1, MIB)
        self._buffer = memoryview(self._memory)

    def run(self) -> None:
        if self._negotiate():
            while self._answer():
                pass

    # -- before the first request ----------------------------------------------------------------------------

    def _negotiate(self) -> bool:
        """Return true when the client wants to begin, false when it leaves."""
        self._sock.sendall(struct.pack(">QQH", _NBDMAGIC, _IHAVEOPT, _FIXED_NEWSTYLE | _NO_ZEROES))
        self._receive(4)
        while True:
            _, option, length = struct.unpack(">QII", self._receive(16))
            if length > _LONGEST_OPTION:
                return False
            data = bytes(self._receive(length))
            if option == _OPT_ABORT:
                self._reply(option, _REP_ACK)
                return False
            if option in (_OPT_GO, _OPT_INFO):
                self._tell_export(option)
                if option == _OPT_GO:
                    return True
            elif option == _OPT_STRUCTURED and not data:
                self._is_structured = True
                self._reply(option, _REP_ACK)
            elif option == _OPT_SET_META:
                self._set_contexts(option, data)
            else:
                self._reply(option, _REP_UNSUPPORTED)

    def _tell_export(self, option: int) -> None:
        flags = _HAS_FLAGS | _SEND_FLUSH | _MULTI_CONN
        flags |= _SEND_ZEROES if self._server.is_writable else _READ_ONLY
        self._reply(option, _REP_INFO, struct.pack(">HQH", _INFO_EXPORT, self._port.size_bytes, flags))
        preferred = min(self._port.block_size_bytes, _LARGEST_BYTES)
        sizes = struct.pack(">HIII", _INFO_BLOCK_SIZE, 1, preferred, _LARGEST_BYTES)
        self._reply(option, _REP_INFO, sizes)
        self._reply(option, _REP_ACK)

    def _set_contexts(self, option: int, data: bytes) -> None:
        if not self._is_structured:
            self._reply(option, _REP_INVALID)
            return
        self._knows_allocation = _ALLOCATION in _queries(data)
        if self._knows_allocation:
            self._reply(option, _REP_META, struct.pack(">I", _CONTEXT_ID) + _ALLOCATION)
        self._reply(option, _REP_ACK)

    def _reply(self, option: int, kind: int, data: bytes = b"") -> None:
        self._sock.sendall(struct.pack(">QIII", _OPTION_REPLY, option, kind, len(data)) + data)

    # -- requests --------------------------------------------------------------------------------------------

    def _answer(self) -> bool:
        """Answer one request; false when the client takes its leave."""
        header = self._receive(28)
        magic, flags, kind, cookie, offset, length = struct.unpack(">IHHQQI", header)
        if magic != _REQUEST or kind == _DISCONNECT:
            return False
        if kind == _WRITE and length > _LARGEST_BYTES:
            return False
        payload = self._receive(length) if kind == _WRITE else None
        try:
            self._check(kind, offset, length)
            match kind:
                case 0:
                    self._read(cookie, offset, length)
                    return True
                case 1:
                    self._server.fence()
                    self._port.write(offset, payload)
                case 3:
                    self._port.flush()
                case 6:
                    self._server.fence()
                    self._port.keeps_allocation = self._server.keeps_allocation or bool(flags & _FLAG_NO_HOLE)
                    self._port.zero(offset, length)
                case 7:
                    self._status(cookie, offset, length, bool(flags & _FLAG_ONE_EXTENT))
                    return True
        except _Refused as refused:
            self._fail(kind, cookie, refused.number)
        except DriverError as error:
            self._server.note(error)
            self._fail(kind, cookie, _number_of(error))
        except Exception:
            # The fence, or something nobody foresaw: the client must not believe anything from here on.
            logger.warning("an export ends", exc_info=True)
            self._fail(kind, cookie, _NBD_ESHUTDOWN)
            return False
        else:
            self._sock.sendall(struct.pack(">IIQ", _SIMPLE, 0, cookie))
        return True

    def _check(self, kind: int, offset: int, length: int) -> None:
        if kind not in (_READ, _WRITE, _FLUSH, _ZERO, _STATUS):
            raise _Refused(errno.EINVAL)
        if kind in (_WRITE, _ZERO) and not self._server.is_writable:
            raise _Refused(errno.EPERM)
        if kind != _FLUSH and offset + length > self._port.size_bytes:
            raise _Refused(errno.ENOSPC if kind in (_WRITE, _ZERO) else errno.EINVAL)
        if kind == _READ and length > _LARGEST_BYTES:
            raise _Refused(errno.EINVAL)
        if kind == _STATUS and not (self._knows_allocation and length):
            raise _Refused(errno.EINVAL)

    def _read(self, cookie: int, offset: int, length: int) -> None:
        buffer = self._room(length)
        if length:
            self._port.read_into(offset, buffer)
        if self._is_structured:
            kind = _CHUNK_DATA if length else _CHUNK_NONE
            head = struct.pack(">IHHQI", _CHUNK, _CHUNK_DONE, kind, cookie, 8 + length if length else 0) + (
                struct.pack(">Q", offset) if length else b""
            )
        else:
            head = struct.pack(">IIQ", _SIMPLE, 0, cookie)
        self._send(head, buffer)

    def _status(self, cookie: int, offset: int, length: int, is_one: bool) -> None:
        entries = b""
        for count, extent in enumerate(self._port.extents(offset, length), 1):
            flags = _HOLE_AND_ZERO if extent.kind is ExtentKind.HOLE else 0
            entries += struct.pack(">II", extent.length, flags)
            if is_one or count == _MOST_EXTENTS:
                break
        head = struct.pack(">IHHQI", _CHUNK, _CHUNK_DONE, _CHUNK_STATUS, cookie, 4 + len(entries))
        self._sock.sendall(head + struct.pack(">I", _CONTEXT_ID) + entries)

    def _fail(self, kind: int, cookie: int, number: int) -> None:
        if self._is_structured and kind in (_READ, _STATUS):
            head = struct.pack(">IHHQI", _CHUNK, _CHUNK_DONE, _CHUNK_ERROR, cookie, 6)
            self._sock.sendall(head + struct.pack(">IH", number, 0))
        else:
            self._sock.sendall(struct.pack(">IIQ", _SIMPLE, number, cookie))

    # -- bytes -----------------------------------------------------------------------------------------------

    def _room(self, length: int) -> memoryview:
        if length > len(self._buffer):
            self._memory = mmap.mmap(-1, length)
            self._buffer = memoryview(self._memory)
        return self._buffer[:length]

    def _receive(self, length: int) -> memoryview:
        """Return *length* bytes, valid until the next call."""
        buffer = self._room(length)
        rest = buffer
        while rest:
            count = self._sock.recv_into(rest)
            if not count:
                raise EOFError
            rest = rest[count:]
        return buffer

    def _send(self, head: bytes, data: memoryview) -> None:
        sent = self._sock.sendmsg([head, data])
        if sent < len(head):
            self._sock.sendall(head[sent:])
            sent = len(head)
        self._sock.sendall(data[sent - len(head) :])


class _Refused(Exception):
    """The request itself is wrong."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _queries(data: bytes) -> list[bytes]:
    """Return the names of the contexts that a client asks for; empty when what it sent makes no sense."""
    names: list[bytes] = []
    try:
        (length,) = struct.unpack_from(">I", data)
        (count,) = struct.unpack_from(">I", data, 4 + length)
        position = 8 + length
        for _ in range(count):
            (length,) = struct.unpack_from(">I", data, position)
            names.append(data[position + 4 : position + 4 + length])
            position += 4 + length
    except struct.error:
        return []
    return names


def _number_of(error: DriverError) -> int:
    """Return what the client is told; the text goes another way."""
    if isinstance(error, NoSpace):
        return errno.ENOSPC
    if isinstance(error, NotPermitted):
        return errno.EPERM
    if isinstance(error, (ConnectionLost, TimedOut, InUse)):
        return _NBD_ESHUTDOWN
    return errno.EIO
