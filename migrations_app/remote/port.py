"""A volume of another host, opened here: the client of what that host's worker serves for this one use."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from django.db import DatabaseError, close_old_connections, connection

from backends.drivers import iscsi_front, tls_front
from backends.drivers.errors import ConnectionLost, DriverError, Transient
from backends.drivers.nbd_port import NbdPort, load_libnbd
from backends.drivers.nbd_server import ServerEnded
from backends.drivers.ports import Extent, Port
from backends.drivers.types import OpenMode
from backends.models import Backend
from migrations_app.models import RemoteCall
from migrations_app.remote import asking
from migrations_app.remote.asking import Right
from migrations_app.remote.doors import ISCSI, NBD, secrets_for_any_door

logger = logging.getLogger(__name__)

_WATCH_SECONDS = 2.0


def open_port(backend: Backend, pool: str, name: str, mode: OpenMode, right: Right | None) -> Port:
    """
    Return the volume as a port.  It is served, and locked, by the other host's worker until the port is closed.

    Raises:
        As `asking.ask`, and as the driver's `open` there.
        NotReady: The other host has no address for serving, or lacks a tool.
        ConnectionLost: It serves, but cannot be reached from here.
    """
    load_libnbd()
    secrets = secrets_for_any_door()
    arguments = {"pool": pool, "name": name, "mode": mode.value}
    with ExitStack() as until_it_works:
        call = asking.ask(backend, "open", arguments, right, secret=secrets)
        until_it_works.callback(_close, call)
        told = call.result
        shown = f"'{name}' on host '{backend.host}' ({told['address']} port {told['port']})"
        try:
            port = _enter(told, secrets, mode, shown, backend.address, name, until_it_works)
        except (ConnectionLost, ServerEnded) as error:
            raise ConnectionLost(
                error.message,
                backend=backend.address,
                operation="open",
                volume=name,
                remedy=f"Check that this host reaches {told['address']} (VOLMIG_STORAGE_ADDRESS of host "
                f"'{backend.host}') and that no firewall is between them. {ConnectionLost.default_remedy}",
            ) from error
        if told["kind"] == ISCSI:
            until_it_works.enter_context(_given_up_at_the_end_of(call, port))
        remote = RemotePort(port, call, until_it_works.pop_all(), tells_all=told["kind"] == NBD)
        remote.keeps_allocation = told["keeps_allocation"]
        return remote


def _enter(
    told: dict[str, Any],
    secrets: dict[str, str],
    mode: OpenMode,
    shown: str,
    backend: str,
    volume: str,
    resources: ExitStack,
) -> Port:
    """Return the port behind the door that the other host has opened."""
    fields = {
        "shown": shown,
        "backend": backend,
        "volume": volume,
        "reads_zero_when_new": told["reads_zero_when_new"],
        "is_exclusive": told["is_exclusive"],
    }
    if told["kind"] == ISCSI:
        place = told["iqn"], told["address"], told["port"]
        return iscsi_front.open_lun(*place, secrets[ISCSI], mode, size_bytes=told["size_bytes"], **fields)
    libnbd = load_libnbd()
    path = resources.enter_context(tls_front.key_file(secrets[NBD]))
    return NbdPort(
        tls_front.uri(told["address"], told["port"]),
        mode,
        prepare=lambda handle: tls_front.use_key(handle, path, libnbd.TLS_REQUIRE),
        **fields,
    )


def _close(call: RemoteCall) -> None:
    try:
        asking.close(call)
    except DatabaseError:
        # Without the database nothing can be told; what is served ends with the lease.
        logger.warning("could not tell that '%s' is closed", call, exc_info=True)


@contextmanager
def _given_up_at_the_end_of(call: RemoteCall, port: Port) -> Iterator[None]:
    """
    Break off what *port* waits for when the other host serves the volume no more.

    The end of an NBD server is seen by its client at once.  libiscsi connects again for ever, and a flush or a zeroing
    that hangs looks like one that takes long.
    """
    is_done = threading.Event()
    thread = threading.Thread(target=_watch, args=(call, port, is_done), name="watch-call", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_done.set()
        thread.join()


def _watch(call: RemoteCall, port: Port, is_done: threading.Event) -> None:
    try:
        while not is_done.wait(_WATCH_SECONDS):
            try:
                close_old_connections()
                if asking.is_over(call):
                    port.interrupt()
                    return
            except DatabaseError:
                # The lease ends the work in time if the database does not come back.
                logger.warning("could not look whether '%s' is still served", call, exc_info=True)
                connection.close()
    finally:
        connection.close()


class RemotePort(Port):
    """
    A port whose errors are told in the words of the host that serves it.

    The protocols know numbers only; what the driver there said stands in the call's row.

    Args:
        tells_all: Whatever the driver there says is in the row before its number comes here.  A number without words
            is then not the storage's: what served it is ending, and says something on its way.  What this side
            refuses without asking has no number, which would be the error's cause.
    """

    def __init__(self, port: Port, call: RemoteCall, resources: ExitStack, *, tells_all: bool) -> None:
        self._port = port
        self._call = call
        self._tells_all = tells_all
        self._resources = resources
        self.size_bytes = port.size_bytes
        self.block_size_bytes = port.block_size_bytes
        self.reads_zero_when_new = port.reads_zero_when_new
        self.is_exclusive = port.is_exclusive

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        with self._words():
            yield from self._port.extents(offset, length)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        with self._words():
            self._port.read_into(offset, buffer)

    def write(self, offset: int, buffer: memoryview) -> None:
        with self._words():
            self._port.write(offset, buffer)

    def zero(self, offset: int, length: int) -> None:
        # Whoever opened this port may have changed its mind about the room.
        self._port.keeps_allocation = self.keeps_allocation
        with self._words():
            self._port.zero(offset, length)

    def flush(self) -> None:
        with self._words():
            self._port.flush()

    def interrupt(self) -> None:
        self._port.interrupt()

    def close(self) -> None:
        self._port.close()
        self._resources.close()

    @contextmanager
    def _words(self) -> Iterator[None]:
        try:
            yield
        except DriverError as error:
            said = self._what_was_said()
            if said is not None:
                raise said from error
            if self._tells_all and error.__cause__ is not None and not isinstance(error, Transient):
                raise ConnectionLost(
                    f"The server of the volume on host '{self._call.host}' ended in the middle: {error.message}",
                    backend=error.backend,
                    operation=error.operation,
                    volume=error.volume,
                ) from error
            raise

    def _what_was_said(self) -> Exception | None:
        try:
            close_old_connections()
            return asking.what_went_wrong(self._call)
        except DatabaseError:
            return None
        finally:
            if threading.current_thread() is not threading.main_thread():
                # A thread that copies needs a connection of its own this once only.
                connection.close()
