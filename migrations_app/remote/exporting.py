"""
Serve one volume to another host.  The process that serves is the export: when it ends, nobody can write any more.

It ends when the asker does not want it any more, when the lease is over, when the worker of this host stops, and with
its door; then the other side sees a lost connection and goes on from its checkpoint.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import threading
import time
from contextlib import ExitStack
from typing import Any

from django.conf import settings
from django.db import DatabaseError, close_old_connections, connection

from backends import secrets
from backends import services as inventory
from backends.drivers.errors import ConnectionLost, DriverError, NotReady
from backends.drivers.types import OpenMode
from migrations_app.copying.io_priority import set_io_priority
from migrations_app.models import RemoteCall
from migrations_app.remote.doors import Door, door
from migrations_app.remote.rights import RemoteFence
from migrations_app.remote.values import pack_error
from migrations_app.saga.step import LeaseLost

logger = logging.getLogger(__name__)

_State = RemoteCall.State

_LOOK_SECONDS = 0.3


class _Export:
    """One volume while it is served."""

    def __init__(self, call: RemoteCall) -> None:
        self._call = call
        self._fence = RemoteFence(call)
        self._must_stop = False
        self._error: DriverError | None = None
        self._is_error_told = False
        signal.signal(signal.SIGTERM, self._on_stop)

    def _on_stop(self, signum: int, frame: Any) -> None:
        self._must_stop = True

    def run(self) -> None:
        call, arguments = self._call, self._call.arguments
        if not settings.VOLMIG_STORAGE_ADDRESS:
            raise NotReady(
                f"Host '{call.host}' has no address on which it serves volumes to other hosts.",
                operation="open",
                remedy=f"Set VOLMIG_STORAGE_ADDRESS on host '{call.host}' and start its worker again.",
            )
        mode = OpenMode(arguments["mode"])
        self._fence.renew()
        set_io_priority(settings.VOLMIG_IO_PRIORITY)
        with ExitStack() as opened:
            driver = opened.enter_context(inventory.make_driver(call.backend))
            port = opened.enter_context(driver.open(arguments["pool"], arguments["name"], mode))
            way_in = opened.enter_context(
                door(port, mode, secrets.unseal(call.secret), str(call.pk), self._fence.check, self._note)
            )
            threading.Thread(target=self._guard, args=(way_in.process,), daemon=True).start()
            if self._tell(way_in):
                self._watch(way_in.process)
        if self._error is not None:
            raise self._error

    def _tell(self, way_in: Door) -> bool:
        """Let the asker come; false when it does not want any more."""
        rows = RemoteCall.objects.filter(pk=self._call.pk, state=_State.RUNNING, is_wanted=True)
        return bool(rows.update(state=_State.SERVING, result=way_in.told))

    def _watch(self, server: subprocess.Popen[bytes]) -> None:
        """Return when the asker is done.  Raises when it must end for another reason."""
        while True:
            if self._must_stop:
                raise ConnectionLost(f"The worker of host '{self._call.host}' is being stopped.")
            if server.poll() is not None:
                raise ConnectionLost(
                    f"The server of the volume on host '{self._call.host}' ended with status {server.returncode}."
                )
            try:
                close_old_connections()
                self._fence.renew()
                self._tell_error()
                if not RemoteCall.objects.filter(pk=self._call.pk, is_wanted=True).exists():
                    return
            except DatabaseError:
                logger.warning("the database cannot be used now", exc_info=True)
                connection.close()
                self._fence.check()
            time.sleep(_LOOK_SECONDS)

    def _guard(self, server: subprocess.Popen[bytes]) -> None:
        """
        End the server when the lease has run out by this host's clock.

        From a thread of its own: a database that is away can keep the other one waiting for minutes.
        """
        while server.returncode is None:
            try:
                self._fence.check()
            except LeaseLost:
                server.kill()
                return
            time.sleep(_LOOK_SECONDS)

    def _note(self, error: DriverError) -> None:
        """
        Keep the first error of the port and tell it to the asker before the asker hears of its number.

        Called from the threads that serve.
        """
        if self._error is None:
            self._error = error
            self._tell_error()
            connection.close()

    def _tell_error(self) -> None:
        if self._error is not None and not self._is_error_told:
            self._is_error_told = True
            RemoteCall.objects.filter(pk=self._call.pk).update(error=pack_error(self._error, self._call.host))


def serve(call: RemoteCall) -> None:
    """
    Serve the volume that *call* asks for until it is not wanted any more.

    Raises:
        DriverError: What the driver says, or why it could not be served any longer.
        LeaseLost: The migration is worked on by somebody else.
    """
    _Export(call).run()
