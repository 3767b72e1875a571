"""
Who owns a migration: a lease in the row, renewed by a heartbeat, fenced by an epoch.

Times are the database's clock, so that hosts need not agree.  The owner itself looks at a clock of its own that
also runs while the machine sleeps, and stops before the database thinks that the lease is over.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, close_old_connections, connection, transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from migrations_app import bandwidth
from migrations_app.models import JournalEntry, VolumeMigration
from migrations_app.saga.step import LeaseLost
from migrations_app.states import WORKING

logger = logging.getLogger(__name__)

#: How often wishes are read.
WISHES_SECONDS = 0.3
#: How often the lease is renewed, progress with it.
RENEWAL_SECONDS = 1.0
#: The owner stops when this share of the lease is left without a renewal.
_MARGIN = 0.25


def _process_mark(pid: int | str) -> str:
    """Return what tells this process from a later one of the same number; `FileNotFoundError` when it is gone."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX":
        raise FileNotFoundError(f"process {pid} has ended")
    return fields[19]


def _machine_mark() -> str:
    """Return what must be equal for process numbers to mean the same: this boot, this pid namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    return f"{boot}-{Path('/proc/self/ns/pid').stat().st_ino}"


def new_owner() -> str:
    """Return the name of one claim by this process."""
    pid = os.getpid()
    return f"{settings.VOLMIG_HOST} {_machine_mark()} {pid} {_process_mark(pid)} {secrets.token_hex(4)}"


def is_dead(owner: str) -> bool:
    """
    Tell whether the process that claimed as *owner* is known to be gone.

    Only for processes of this host and boot; of all others nothing is known, and their lease must run out.
    """
    try:
        host, machine, pid, mark, _ = owner.split(" ")
    except ValueError:
        return False
    if host != settings.VOLMIG_HOST:
        return False
    if machine.split("-")[0] != _machine_mark().split("-")[0]:
        return True
    if machine != _machine_mark():
        return False
    try:
        return _process_mark(pid) != mark
    except (FileNotFoundError, ProcessLookupError):
        return True


def end_frozen(owner: str) -> int | None:
    """
    Kill the process that claimed as *owner*, if it runs on this host, and return its number.

    For a former owner that is frozen with the destination open: its lease is over, so it may not change anything any
    more, and nobody else can write while it lives.
    """
    try:
        host, machine, pid, _, _ = owner.split(" ")
    except ValueError:
        return None
    if (
        host != settings.VOLMIG_HOST
        or machine != _machine_mark()
        or is_dead(owner)
        or int(pid) == os.getpid()
    ):
        return None
    os.kill(int(pid), signal.SIGKILL)
    return int(pid)


def process_of(owner: str) -> str:
    """Return the number of the process that claimed as *owner*, empty when the name is none."""
    parts = owner.split(" ")
    return parts[2] if len(parts) == 5 else ""


def _lease_end() -> Any:
    return Now() + timedelta(seconds=settings.VOLMIG_LEASE_SECONDS)


@dataclass(slots=True)
class Wishes:
    """What administrators asked of the running migration."""

    cancel: bool = False
    pause: bool = False
    bandwidth_bytes_per_second: int | None = None


class Lease:
    """The right to work on one migration."""

    def __init__(self, migration_id: UUID, owner: str, epoch: int, claimed_at: float) -> None:
        self.migration_id = migration_id
        self.owner = owner
        self.epoch = epoch
        self._lost = threading.Event()
        self._renewed_at = claimed_at

    @classmethod
    def claim(cls, migration_id: UUID) -> Lease | None:
        """
        Return the lease, or `None` when there is nothing to do or somebody else does it.

        One compare-and-set.  A lease of a process that is known to be dead is taken at once.
        """
        started = boot_time()
        owner = new_owner()
        row = VolumeMigration.objects.filter(pk=migration_id).values("owner", "epoch").first()
        if row is None:
            return None
        free = Q(lease_expires_at=None) | Q(lease_expires_at__lt=Now())
        if row["owner"] and is_dead(row["owner"]):
            free |= Q(owner=row["owner"], epoch=row["epoch"])
        with transaction.atomic():
            claimed = (
                VolumeMigration.objects.filter(pk=migration_id, epoch=row["epoch"], state__in=WORKING)
                .filter(free)
                .filter(Q(retry_at=None) | Q(retry_at__lte=Now()))
                .update(
                    epoch=F("epoch") + 1,
                    owner=owner,
                    lease_expires_at=_lease_end(),
                    retry_at=None,
                    progress_at=None,
                    # Counted as a failure until progress shows otherwise: a migration that kills its worker each
                    # time must not do so for ever.
                    failures=F("failures") + (1 if row["owner"] else 0),
                    **({"former_owner": row["owner"], "former_owner_at": Now()} if row["owner"] else {}),
                )
            )
            if not claimed:
                return None
            lease = cls(migration_id, owner, row["epoch"] + 1, started)
            if row["owner"]:
                JournalEntry.objects.create(
                    migration_id=migration_id,
                    epoch=lease.epoch,
                    kind=JournalEntry.Kind.INTERRUPTED,
                    text=f"The worker '{row['owner']}' stopped without a word; '{owner}' goes on.",
                )
        return lease

    # -- writing ------------------------------------------------------------------------------------------------

    def write(self, **fields: Any) -> None:
        """
        Change the row if it is still ours.

        Raises:
            LeaseLost: It is not; nothing was changed.
        """
        changed = VolumeMigration.objects.filter(
            pk=self.migration_id, owner=self.owner, epoch=self.epoch
        ).update(**fields)
        if changed != 1:
            self._lost.set()
            raise LeaseLost(f"Migration {self.migration_id} is worked on by somebody else.")

    def renew(self, **fields: Any) -> None:
        """Renew the lease and write *fields* with it.  Raises `LeaseLost`."""
        started = boot_time()
        self.write(lease_expires_at=_lease_end(), **fields)
        self._renewed_at = started

    def wishes(self) -> Wishes:
        """Return what administrators ask of the migration now."""
        row = VolumeMigration.objects.values("cancel_requested_at", "pause_requested_at").get(
            pk=self.migration_id
        )
        return Wishes(
            cancel=row["cancel_requested_at"] is not None,
            pause=row["pause_requested_at"] is not None,
            bandwidth_bytes_per_second=bandwidth.share(self.migration_id),
        )

    def release(self, **fields: Any) -> None:
        """Give the migration back and write *fields* with it.  Raises `LeaseLost`."""
        self.write(owner="", lease_expires_at=None, **fields)

    # -- looking ------------------------------------------------------------------------------------------------

    def fence(self) -> None:
        """
        Return while the lease is surely ours, without asking the database.

        Raises:
            LeaseLost: It may have been taken by now; not one more block may be written.
        """
        safe_seconds = settings.VOLMIG_LEASE_SECONDS * (1 - _MARGIN)
        if self._lost.is_set() or boot_time() - self._renewed_at > safe_seconds:
            self._lost.set()
            raise LeaseLost(f"The lease on migration {self.migration_id} could not be renewed in time.")


def boot_time() -> float:
    """Return seconds on a clock that runs while the machine sleeps and that nobody can set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Heartbeat:
    """
    Renews a lease from a thread of its own while a `with` block works.

    `progress` is called for the fields to write at each beat; `on_wishes` gets what administrators asked.
    """

    def __init__(
        self, lease: Lease, progress: Callable[[], dict[str, Any]], on_wishes: Callable[[Wishes], None]
    ) -> None:
        self._lease = lease
        self._progress = progress
        self._on_wishes = on_wishes
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        try:
            renewed_at = time.monotonic()
            while not self._stop.wait(WISHES_SECONDS):
                close_old_connections()
                try:
                    self._on_wishes(self._lease.wishes())
                    if time.monotonic() - renewed_at >= RENEWAL_SECONDS:
                        self._lease.renew(**self._progress())
                        renewed_at = time.monotonic()
                except LeaseLost:
                    return
                except DatabaseError:
                    # The fence stops the work in time if the database does not come back.
                    logger.warning("could not renew the lease on %s", self._lease.migration_id, exc_info=True)
                    connection.close()
        finally:
            connection.close()
