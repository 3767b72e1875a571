"""
Watching one migration to its end from a terminal.

When nobody takes it, the work is done here: a first try of the project needs no worker, and a host whose worker is
down is not stuck.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from django.conf import settings
from django.db import connection
from django.utils import timezone

from backends.cli import VolmigCommand
from migrations_app import draining, hosts, worker
from migrations_app.cli.screen import Screen
from migrations_app.cli.text import RESTING
from migrations_app.lease import is_dead
from migrations_app.models import VolumeMigration
from migrations_app.presentation import progress
from migrations_app.states import WORKING

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.25
#: How long a worker may take to answer the bell before the work is done here.
PATIENCE_SECONDS = 2.0
#: After this a person wants to know why nothing happens.
_EXPLAIN_SECONDS = 8.0
_STOP_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Followed:
    """`is_over` is false when the person stopped watching; `was_here`: this process did the work."""

    migration: VolumeMigration
    is_over: bool
    was_here: bool


def follow(command: VolmigCommand, migration_id: uuid.UUID) -> Followed:
    """Return when the migration rests or the person presses Ctrl-C; shows its progress meanwhile."""
    with Screen(command) as screen, _WorkHere(migration_id) as here:
        try:
            migration = _watch(migration_id, screen, here)
            return Followed(migration, True, here.has_started)
        except KeyboardInterrupt:
            if here.has_started:
                screen.tell("Stopping at the next checkpoint (Ctrl-C again: at once) ...")
                here.stop()
            return Followed(_load(migration_id), False, here.has_started)


def _watch(migration_id: uuid.UUID, screen: Screen, here: _WorkHere) -> VolumeMigration:
    idle_since = time.monotonic()
    is_explained = False
    while True:
        migration = _load(migration_id)
        screen.show(migration, progress(migration))
        if migration.state in RESTING:
            return migration
        if not _is_idle(migration):
            idle_since = time.monotonic()
        idle = time.monotonic() - idle_since
        if idle > PATIENCE_SECONDS and not here.has_started and _may_work_here(migration):
            screen.tell("No worker has taken it, so this process does the work.")
            here.start()
        elif idle > _EXPLAIN_SECONDS and not is_explained and not here.has_started:
            screen.tell(_why_idle(migration))
            is_explained = True
        time.sleep(_LOOK_SECONDS)


def _load(migration_id: uuid.UUID) -> VolumeMigration:
    return VolumeMigration.objects.select_related(
        "source_pool__backend", "destination_pool__backend", "volume"
    ).get(pk=migration_id)


def _is_idle(migration: VolumeMigration) -> bool:
    """Tell whether there is something to do and nobody does it."""
    now = timezone.now()
    if migration.state not in WORKING or (migration.retry_at and migration.retry_at > now):
        return False
    lease = migration.lease_expires_at
    return not migration.owner or lease is None or lease < now or is_dead(migration.owner)


def _may_work_here(migration: VolumeMigration) -> bool:
    # A worker that is alive but busy keeps to the host's limit; working beside it would break that.
    return migration.host == settings.VOLMIG_HOST and not hosts.is_alive(migration.host)


def _why_idle(migration: VolumeMigration) -> str:
    if hosts.is_alive(migration.host):
        return (
            f"The worker of host '{migration.host}' is busy with other migrations; this one waits its turn."
        )
    return (
        f"No worker of host '{migration.host}' has taken it yet. "
        "Is one running there? Start it with: manage.py volmig_worker"
    )


class _WorkHere:
    """Does a worker's work on one migration, in a thread of this process."""

    def __init__(self, migration_id: uuid.UUID) -> None:
        self._migration_id = migration_id
        self._is_over = threading.Event()
        # Not waited for at the end of the process: the checkpoint is enough.
        self._thread = threading.Thread(target=self._work, name="work here", daemon=True)
        self.has_started = False

    def start(self) -> None:
        self.has_started = True
        self._thread.start()

    def stop(self) -> None:
        """Return when the work has stopped at a checkpoint, or after a while."""
        self._is_over.set()
        draining.drain()
        self._thread.join(_STOP_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        if self.has_started and kind is None:
            self._thread.join(_STOP_SECONDS)

    def _work(self) -> None:
        try:
            while not self._is_over.is_set():
                try:
                    worker.advance(self._migration_id)
                except Exception:
                    # As a worker does: most likely the database, which may come back.
                    logger.exception("migration %s: could not go on", self._migration_id)
                self._is_over.wait(_LOOK_SECONDS)
        finally:
            connection.close()
