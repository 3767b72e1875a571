"""
The process of a host's worker that answers other hosts.

It looks for calls in the database several times a second, which needs no message that could be lost, and gives each
call a process of its own: a storage that hangs holds up nobody else, and a volume that is served is given up by ending
its process, whatever that does at the moment.  The slots of the host's own migrations are not used: two hosts that
move volumes to each other would otherwise wait for each other.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import DatabaseError, close_old_connections, connections
from django.db.models.functions import Now

from backends.drivers import tls_front
from backends.drivers.errors import ConnectionLost
from migrations_app import process_tree
from migrations_app.lease import is_dead, new_owner
from migrations_app.models import RemoteCall
from migrations_app.remote.answering import answer, end
from migrations_app.remote.rights import LOOKING, lease_left

logger = logging.getLogger(__name__)

_State = RemoteCall.State

# Calls come in groups: right after one the next is likely.
_BUSY_PAUSE_SECONDS, _IDLE_PAUSE_SECONDS = 0.03, 0.25
_BUSY_SECONDS = 5.0
_BEAT_SECONDS = 2.0
#: Calls that are answered at the same time, volumes that are served not counted.
_MOST_AT_ONCE = 16
_STOP_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class _Child:
    """A process that answers one call."""

    pid: int
    call: RemoteCall


def run_attendant() -> int:
    """Run until SIGTERM or SIGINT; return the exit status.  The caller is a process of its own."""
    process_tree.die_with_parent()
    process_tree.children_die_too()
    return Attendant(settings.VOLMIG_HOST).run()


class Attendant:
    """One host's attendant."""

    def __init__(self, host: str) -> None:
        self.host = host
        self._owner = new_owner()
        self._children: dict[int, _Child] = {}
        self._wants_stop = False
        self._beat_at = 0.0
        self._busy_until = 0.0

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        while not self._wants_stop:
            self._database(self._tick)
            is_busy = time.monotonic() < self._busy_until
            time.sleep(_BUSY_PAUSE_SECONDS if is_busy else _IDLE_PAUSE_SECONDS)
        self._stop(list(self._children.values()))
        return 0

    def _on_stop(self, signum: int, frame: Any) -> None:
        self._wants_stop = True

    def _database(self, work: Callable[[], None]) -> None:
        try:
            close_old_connections()
            work()
        except DatabaseError:
            logger.exception("the database cannot be used now; trying again")
            connections.close_all()

    # -- one look ------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._reap()
        if time.monotonic() - self._beat_at >= _BEAT_SECONDS:
            self._beat_at = time.monotonic()
            self._beat()
        free = _MOST_AT_ONCE - sum(child.call.operation != "open" for child in self._children.values())
        asked = RemoteCall.objects.filter(host=self.host, state=_State.ASKED).select_related("backend")
        for call in asked.order_by("asked_at")[: max(0, free)]:
            self._busy_until = time.monotonic() + _BUSY_SECONDS
            self._take(call)

    def _beat(self) -> None:
        """Say that the calls are worked on; end what has lost its right, and what a dead attendant has left."""
        pids = {child.call.pk for child in self._children.values()}
        RemoteCall.objects.filter(pk__in=pids).exclude(state=_State.ENDED).update(heard_at=Now())
        for child in list(self._children.values()):
            if child.call.operation not in LOOKING and not lease_left(child.call):
                self._stop([child])
        left = RemoteCall.objects.filter(host=self.host, state__in=[_State.RUNNING, _State.SERVING])
        for call in left.exclude(pk__in=pids):
            if is_dead(call.worker):
                end(
                    call, ConnectionLost(f"The worker of host '{self.host}' ended during '{call.operation}'.")
                )
        # Keys of processes that were killed.
        tls_front.sweep()

    def _take(self, call: RemoteCall) -> None:
        """Give *call* a process, when nobody else has taken it."""
        rivals = [child for child in self._children.values() if _is_rival(child, call)]
        if rivals:
            self._stop(rivals)
        rows = RemoteCall.objects.filter(pk=call.pk, state=_State.ASKED, is_wanted=True)
        if not rows.update(state=_State.RUNNING, worker=self._owner, heard_at=Now()):
            return
        # A connection cannot be shared by two processes.
        connections.close_all()
        pid = os.fork()
        if pid == 0:
            self._work(call)
        self._children[pid] = _Child(pid, call)

    def _work(self, call: RemoteCall) -> None:
        """In the child: answer, and never return."""
        status = 1
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            answer(call)
            status = 0
        except BaseException:
            logger.exception("%s for migration %s could not be answered", call, call.migration_id)
        finally:
            with suppress(Exception):
                connections.close_all()
            os._exit(status)

    # -- the ends of children ------------------------------------------------------------------------------------

    def _reap(self) -> None:
        for pid, child in list(self._children.items()):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                self._forget(child, status)

    def _forget(self, child: _Child, status: int) -> None:
        del self._children[child.pid]
        code = os.waitstatus_to_exitcode(status)
        if code:
            error = f"The process that did '{child.call.operation}' on host '{self.host}' ended with status {code}."
            self._database(lambda: end(child.call, ConnectionLost(error)))

    def _stop(self, children: list[_Child]) -> None:
        """End these children: with a signal that they may heed, then with one that they cannot refuse."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for child in children:
                if child.pid in self._children:
                    os.kill(child.pid, number)
            ends_at = time.monotonic() + _STOP_SECONDS
            while time.monotonic() < ends_at:
                self._reap()
                if not any(child.pid in self._children for child in children):
                    return
                time.sleep(0.02)


def _is_rival(child: _Child, call: RemoteCall) -> bool:
    """
    Tell whether *child* must end before *call* may begin.

    That is what an earlier epoch of the same migration still does: its asker has lost the lease, and a process that
    is frozen would hold the volume for ever.  And what the same epoch does not want any more.
    """
    other = child.call
    if call.operation in LOOKING or other.migration_id is None or other.migration_id != call.migration_id:
        return False
    if other.epoch < call.epoch:
        return True
    return RemoteCall.objects.filter(pk=other.pk, is_wanted=False).exists()
