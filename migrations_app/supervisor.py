"""
`volmig_worker`: keeps one host's cluster running, rings forgotten bells, tells the truth about the host.

The supervisor is one process with a child: the cluster (`cluster.py`).  It owns no migration itself.  When the child
dies, or takes no work although it should, it is started anew; unfinished migrations go on from their checkpoints.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, close_old_connections
from django.db.models.functions import Now

from migrations_app import dispatch, services
from migrations_app.cluster import GRACE_SECONDS
from migrations_app.models import WorkerHost
from migrations_app.schedules import ensure_schedules

logger = logging.getLogger(__name__)

_TICK_SECONDS = 1.0
_HEARTBEAT_SECONDS = 5.0
_LONGEST_RESTART_WAIT_SECONDS = 30.0
#: A cluster that ran so long is healthy: the next restart is not delayed.
_HEALTHY_SECONDS = 60.0
#: A host whose heartbeat is older is not believed to be running.
HEARTBEAT_IS_STALE_SECONDS = 20


def run_supervisor() -> int:
    """Run until SIGTERM or SIGINT; return the exit status."""
    return Supervisor(settings.VOLMIG_HOST).run()


class Supervisor:
    """One host's supervisor."""

    def __init__(self, host: str, command: list[str] | None = None) -> None:
        self.host = host
        self._command = command or [sys.executable, sys.argv[0], "volmig_worker", "--cluster-only"]
        self._child: subprocess.Popen[bytes] | None = None
        self._child_started_at = 0.0
        self._restart_wait = 0.0
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
            self._keep_child()
            self._database(self._tick)
            time.sleep(_TICK_SECONDS)
        self._database(lambda: self._beat(is_draining=True))
        self._end_child()
        self._database(self._forget)
        return 0

    # -- the child ------------------------------------------------------------------------------------------------

    def _keep_child(self) -> None:
        child = self._child
        if child is not None and child.poll() is None:
            return
        now = time.monotonic()
        if child is not None:
            ran = now - self._child_started_at
            self._restart_wait = (
                0.0
                if ran > _HEALTHY_SECONDS
                else min(_LONGEST_RESTART_WAIT_SECONDS, max(1.0, self._restart_wait * 2))
            )
            self._restarts += 1
            self._note = f"The cluster ended with status {child.returncode} and was started again."
            logger.error("%s Waiting %.0f s.", self._note, self._restart_wait)
            self._wait(self._restart_wait)
        if not self._wants_stop:
            self._child_started_at = time.monotonic()
            # A process group of its own: Ctrl-C in a terminal reaches the supervisor, which drains the child.
            self._child = subprocess.Popen(self._command, start_new_session=True)

    def _end_child(self) -> None:
        child = self._child
        if child is None or child.poll() is not None:
            return
        child.terminate()
        try:
            child.wait(GRACE_SECONDS + 0.5)
        except subprocess.TimeoutExpired:
            self._kill_child()

    def _kill_child(self) -> None:
        """Kill the child; its own children die with it."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()

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
            self._kill_child()

    def _hangs(self) -> bool:
        """Tell whether a bell has gone unanswered for long although the host has a free slot."""
        now = time.monotonic()
        waiting, running = services.waiting_and_running(self.host)
        self._waiting_since = {pk: self._waiting_since.get(pk, now) for pk in waiting}
        if (
            running >= settings.Q_CLUSTER["workers"]
            or now - self._child_started_at < settings.VOLMIG_HANG_SECONDS
        ):
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
            },
            create_defaults={
                "started_at": Now(),
                "heartbeat_at": Now(),
                "pid": os.getpid(),
                "slots": settings.Q_CLUSTER["workers"],
            },
        )

    def _forget(self) -> None:
        WorkerHost.objects.filter(host=self.host, pid=os.getpid()).delete()


def is_alive(host: str) -> bool:
    """Tell whether the supervisor of *host* has been heard of lately."""
    return host in alive_hosts()


def alive_hosts() -> set[str]:
    """Return the hosts whose supervisor has been heard of lately."""
    limit = Now() - timedelta(seconds=HEARTBEAT_IS_STALE_SECONDS)
    return set(WorkerHost.objects.filter(heartbeat_at__gte=limit).values_list("host", flat=True))
