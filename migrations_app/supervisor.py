"""
`volmig_worker`: keeps one host's cluster running, rings forgotten bells, tells the truth about the host.

The supervisor is one process with two children: the cluster (`cluster.py`), which does this host's migrations, and the
attendant (`remote/attendant.py`), which answers other hosts.  It owns no migration itself.  When a child dies, or takes
no work although it should, it is started anew; unfinished migrations go on from their checkpoints.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, close_old_connections
from django.db.models.functions import Now

from migrations_app import dispatch, services
from migrations_app.cluster import GRACE_SECONDS
from migrations_app.models import WorkerHost
from migrations_app.remote import attendance
from migrations_app.schedules import ensure_schedules

logger = logging.getLogger(__name__)

_TICK_SECONDS = 1.0
_HEARTBEAT_SECONDS = 5.0
_LONGEST_RESTART_WAIT_SECONDS = 30.0
#: A cluster that ran so long is healthy: the next restart is not delayed.
_HEALTHY_SECONDS = 60.0


def run_supervisor() -> int:
    """Run until SIGTERM or SIGINT; return the exit status."""
    return Supervisor(settings.VOLMIG_HOST).run()


class _Part:
    """A child of the supervisor that is to run always: the cluster, or the attendant."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self._next_start = 0.0
        self._wait_seconds = 0.0

    def keep(self) -> str:
        """Start it when it does not run; return what has happened, empty when nothing has."""
        process, now = self._process, time.monotonic()
        if process is not None and process.poll() is None:
            return ""
        note = ""
        if process is not None:
            is_healthy = now - self.started_at > _HEALTHY_SECONDS
            longer = min(_LONGEST_RESTART_WAIT_SECONDS, max(1.0, self._wait_seconds * 2))
            self._wait_seconds = 0.0 if is_healthy else longer
            self._next_start = now + self._wait_seconds
            note = f"The {self.name} ended with status {process.returncode} and was started again."
            logger.error("%s Waiting %.0f s.", note, self._wait_seconds)
            self._process = None
        if now >= self._next_start:
            self.started_at = now
            # A process group of its own: Ctrl-C in a terminal reaches the supervisor, which drains the child.
            self._process = subprocess.Popen(self._command, start_new_session=True)
        return note

    def ask_to_end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait_for_end(self, seconds: float) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(max(0.1, seconds))
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill it; its own children die with it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Supervisor:
    """One host's supervisor."""

    def __init__(
        self, host: str, command: list[str] | None = None, attendant_command: list[str] | None = None
    ) -> None:
        self.host = host
        base = [sys.executable, sys.argv[0], "volmig_worker"]
        self._cluster = _Part("cluster", command or [*base, "--cluster-only"])
        self._attendant = _Part("attendant", attendant_command or [*base, "--attendant-only"])
        self._restarts = 0
        self._note = ""
        self._wants_stop = False
        self._heartbeat_at = 0.0
        self._waiting_since: dict[UUID, float] = {}

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._database(self._prepare)
        while not self._wants_stop:
            self._keep_children()
            self._database(self._tick)
            self._wait(_TICK_SECONDS)
        self._database(lambda: self._beat(is_draining=True))
        self._end_children()
        self._database(self._forget)
        return 0

    # -- the children ---------------------------------------------------------------------------------------------

    def _keep_children(self) -> None:
        for part in (self._cluster, self._attendant):
            note = part.keep()
            if note:
                self._restarts += 1
                self._note = note

    def _end_children(self) -> None:
        ends_at = time.monotonic() + GRACE_SECONDS + 0.5
        for part in (self._cluster, self._attendant):
            part.ask_to_end()
        for part in (self._cluster, self._attendant):
            part.wait_for_end(ends_at - time.monotonic())

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._wants_stop and time.monotonic() < end:
            time.sleep(min(0.2, seconds))

    def _stop(self, signum: int, frame: Any) -> None:
        self._wants_stop = True

    # -- the database ---------------------------------------------------------------------------------------------

    def _database(self, work: Callable[[], None]) -> None:
        """Do *work*; a database that is away is no reason to stop: running copies have their own fence."""
        try:
            close_old_connections()
            work()
        except DatabaseError:
            logger.exception("the database cannot be used now; trying again")

    def _prepare(self) -> None:
        ensure_schedules(self.host)
        dispatch.ring_refresh(self.host)

    def _tick(self) -> None:
        services.resume_migrations(self.host)
        if time.monotonic() - self._heartbeat_at >= _HEARTBEAT_SECONDS:
            self._beat()
        if self._hangs():
            self._note = "The cluster took no work for too long and was started again."
            logger.error(self._note)
            self._waiting_since.clear()
            self._cluster.kill()
        if attendance.is_late(self.host) and self._has_run_long(self._attendant):
            self._note = "The attendant answered no other host for too long and was started again."
            logger.error(self._note)
            self._attendant.kill()

    def _has_run_long(self, part: _Part) -> bool:
        return time.monotonic() - part.started_at >= settings.VOLMIG_HANG_SECONDS

    def _hangs(self) -> bool:
        """Tell whether a bell has gone unanswered for long although the host has a free slot."""
        now = time.monotonic()
        waiting, running = services.waiting_and_running(self.host)
        self._waiting_since = {pk: self._waiting_since.get(pk, now) for pk in waiting}
        if running >= settings.Q_CLUSTER["workers"] or not self._has_run_long(self._cluster):
            # A slot that was busy until now may just have become free.
            self._waiting_since = dict.fromkeys(self._waiting_since, now)
            return False
        return any(now - since > settings.VOLMIG_HANG_SECONDS for since in self._waiting_since.values())

    def _beat(self, *, is_draining: bool = False) -> None:
        self._heartbeat_at = time.monotonic()
        WorkerHost.objects.update_or_create(
            host=self.host,
            defaults={
                "heartbeat_at": Now(),
                "pid": os.getpid(),
                "slots": settings.Q_CLUSTER["workers"],
                "restarts": self._restarts,
                "note": self._note,
                "is_draining": is_draining,
                "storage_address": settings.VOLMIG_STORAGE_ADDRESS,
            },
            create_defaults={
                "started_at": Now(),
                "heartbeat_at": Now(),
                "pid": os.getpid(),
                "slots": settings.Q_CLUSTER["workers"],
                "storage_address": settings.VOLMIG_STORAGE_ADDRESS,
            },
        )

    def _forget(self) -> None:
        WorkerHost.objects.filter(host=self.host, pid=os.getpid()).delete()
