"""Wake what nobody works on, and delete what was kept long enough."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone

from migrations_app import dispatch
from migrations_app.lease import is_dead
from migrations_app.models import VolumeMigration
from migrations_app.states import WORKING, State

#: A bell that was not answered is rung again after this.
_RING_AGAIN_SECONDS = 5
#: Where something is kept, and what deletes it.
PURGES = {State.RETAINED: State.DELETING_SOURCE, State.ROLLED_BACK: State.UNDOING}


def resume_migrations(host: str | None = None, *, now: bool = False) -> list[VolumeMigration]:
    """
    Ring for migrations that have something to do and that nobody works on; return them.

    Called every minute by a schedule, each second by the worker's supervisor, and by hand.  Any number may run.  Of
    those that wait only as many are rung for as the host has free slots, oldest first: bells for the others would
    pile up in the queue.

    Args:
        host: Only those whose next step is this host's.
        now: Ring for all of them, also when the last bell is fresh or a retry is not yet due.
    """
    rung = []
    for migration in _to_ring(host, now=now):
        with transaction.atomic():
            fields: dict[str, Any] = {"rung_at": Now(), **({"retry_at": None} if now else {})}
            VolumeMigration.objects.filter(pk=migration.pk).update(**fields)
            dispatch.ring(migration.pk, migration.host)
            rung.append(migration)
    return rung


def waiting_and_running(host: str) -> tuple[list[uuid.UUID], int]:
    """Return which migrations wait for a worker of *host*, and how many are worked on."""
    held = VolumeMigration.objects.filter(
        state__in=WORKING, source_pool__backend__host=host, lease_expires_at__gt=Now()
    ).values_list("owner", flat=True)
    running = sum(not is_dead(owner) for owner in held)
    return [m.pk for m in _waiting(host)], running


def _waiting(host: str | None) -> list[VolumeMigration]:
    """Return what has something to do now and is worked on by nobody, oldest first."""
    rows = (
        VolumeMigration.objects.filter(state__in=WORKING)
        .filter(Q(retry_at=None) | Q(retry_at__lte=Now()))
        .select_related("source_pool__backend")
        .order_by("created_at")
    )
    if host is not None:
        rows = rows.filter(source_pool__backend__host=host)
    idle = list(rows.filter(Q(lease_expires_at=None) | Q(lease_expires_at__lt=Now())))
    # A lease whose owner is known to be dead need not run out.
    return idle + [m for m in rows.filter(lease_expires_at__gte=Now()) if is_dead(m.owner)]


def _to_ring(host: str | None, *, now: bool) -> list[VolumeMigration]:
    if now:
        VolumeMigration.objects.filter(state__in=WORKING, lease_expires_at=None).update(retry_at=None)
        return _waiting(host)
    chosen: list[VolumeMigration] = []
    by_host: dict[str, list[VolumeMigration]] = {}
    for migration in _waiting(host):
        by_host.setdefault(migration.host, []).append(migration)
    stale = timezone.now() - timedelta(seconds=_RING_AGAIN_SECONDS)
    for name, migrations in by_host.items():
        free = max(0, settings.Q_CLUSTER["workers"] - waiting_and_running(name)[1])
        chosen += [m for m in migrations[:free] if m.rung_at is None or m.rung_at < stale]
    return chosen


def purge_expired_sources(host: str | None = None) -> list[VolumeMigration]:
    """
    Start the deletion of everything kept whose time is over; return the migrations.

    Kept are sources after a move, and copies that were written to before a roll-back.  Safe to repeat: yes.
    """
    rows = VolumeMigration.objects.filter(state__in=PURGES, purge_after__lte=Now()).select_related(
        "source_pool__backend"
    )
    if host is not None:
        rows = rows.filter(source_pool__backend__host=host)
    started = []
    for migration in rows:
        with transaction.atomic():
            if start_purge(migration):
                started.append(migration)
    return started


def start_purge(migration: VolumeMigration) -> bool:
    """Let a worker delete what *migration* keeps; false when it keeps nothing any more."""
    state = State(migration.state)
    if state not in PURGES or (migration.purge_after is None and state is State.ROLLED_BACK):
        return False
    moved = VolumeMigration.objects.filter(pk=migration.pk, state=state).update(
        state=PURGES[state], purge_after=Now(), epoch=F("epoch") + 1
    )
    if moved:
        dispatch.ring(migration.pk, migration.host)
    return bool(moved)
