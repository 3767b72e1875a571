"""
Every verb of a migration: ask, request, cancel, wake, purge.

The only writer of migration state besides the worker that holds the lease.  The admin, the API and the commands
parse, call one of these, and show.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.admin.models import CHANGE, LogEntry
from django.db import IntegrityError, transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone

from backends import services as inventory
from backends.models import Pool, Volume
from migrations_app import dispatch, views_of_rows
from migrations_app.errors import Busy, NotNow, NoValidPool, UnknownDestination
from migrations_app.lease import is_dead
from migrations_app.models import GENERIC, JournalEntry, VolumeMigration
from migrations_app.scheduler import filters, verdicts
from migrations_app.scheduler.codes import Code
from migrations_app.scheduler.types import Category, MoveRequest, Reason, Verdict
from migrations_app.states import CANCELLABLE, WORKING, MigrationStatus, State

logger = logging.getLogger(__name__)

#: A bell that was not answered is rung again after this.
_RING_AGAIN_SECONDS = 5
#: With fewer characters an id is not looked for by its beginning.
_SHORTEST_ID = 4


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks, and through which door."""

    name: str
    via: str = VolumeMigration.Via.COMMAND
    user: Any = None

    @classmethod
    def of(cls, user: Any, via: str) -> Actor:
        return cls(user.get_username(), via, user)


@dataclass(frozen=True, slots=True)
class Options:
    """How it is to be done.  `bandwidth_bytes_per_second`: `None` is as fast as it goes."""

    force_host_copy: bool = False
    delete_source: bool = False
    verify: str = VolumeMigration.Verify.FULL
    bandwidth_bytes_per_second: int | None = None


@dataclass(frozen=True, slots=True)
class Destinations:
    """Where a volume may go: every pool with its verdict, best first, and what speaks against moving it at all."""

    volume: Volume
    request: MoveRequest
    reasons: tuple[Reason, ...]
    warnings: tuple[Reason, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def can_move(self) -> bool:
        return not self.reasons and any(v.fits for v in self.verdicts)

    def as_dict(self) -> dict[str, Any]:
        return {
            "volume": {
                "id": str(self.volume.pk),
                "name": self.volume.name,
                "size_bytes": self.volume.size_bytes,
                "pool": str(self.volume.pool),
            },
            "can_move": self.can_move,
            "reasons": [r.as_dict() for r in self.reasons],
            "warnings": [w.as_dict() for w in self.warnings],
            "destinations": [v.as_dict() for v in self.verdicts],
        }


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a request would have been answered: accepted, to this pool, with this verdict."""

    volume: Volume
    verdict: Verdict
    warnings: tuple[Reason, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        return {
            "volume": str(self.volume.pk),
            "accepted": True,
            "verdict": self.verdict.as_dict(),
            "warnings": [w.as_dict() for w in self.warnings],
        }


# -- asking ---------------------------------------------------------------------------------------------------


def destinations(volume: Volume, *, force_host_copy: bool = False) -> Destinations:
    """
    Return every pool with its verdict for *volume*.

    Looks at the storage when it is reached from this host.  Nothing is changed or reserved.
    """
    volume = _load(volume.pk)
    request = _move_request(volume, force_host_copy)
    reasons, warnings = verdicts.check_volume(request)
    ranked = verdicts.rank(
        request, views_of_rows.pool_views(), plan_move=views_of_rows.plan_move, filters=_filters()
    )
    return Destinations(volume, request, tuple(reasons), tuple(warnings), tuple(ranked))


def dry_run(volume: Volume, destination: str, options: Options | None = None) -> DryRun:
    """
    Return what `request_migration` would answer now; the same code without the writing.

    Raises:
        RequestRefused: As `request_migration`.
    """
    volume = _load(volume.pk)
    request = _move_request(volume, (options or Options()).force_host_copy)
    verdict, warnings = _judge(request, destination)
    return DryRun(volume, verdict, warnings)


def _load(volume_id: uuid.UUID) -> Volume:
    return Volume.objects.select_related("pool__backend", "volume_type").get(pk=volume_id)


def _move_request(volume: Volume, force_host_copy: bool, facts: Any = None) -> MoveRequest:
    facts = facts or inventory.inspect_volume(volume)
    if volume.locked_by_migration:
        # Who uses it is the migration's own worker: nobody should be told to end that.
        facts = replace(facts, usage=())
    return MoveRequest(
        volume=views_of_rows.volume_view(volume, facts),
        force_host_copy=force_host_copy,
        copy_bytes_per_second=measured_copy_speed(),
    )


def _filters() -> Sequence[Callable[..., list[Reason]]]:
    return (*filters.DEFAULT_FILTERS, *filters.load(settings.VOLMIG_SCHEDULER_FILTERS))


def measured_copy_speed() -> float | None:
    """Return the median speed of the last generic copies, as a basis of estimates; `None` before the first."""
    rows = (
        VolumeMigration.objects.filter(
            state__in=[State.RETAINED, State.DONE], method=GENERIC, data_bytes__gt=64 * 2**20
        )
        .exclude(finished_at=None)
        .exclude(started_at=None)
        .order_by("-created_at")
        .values_list("data_bytes", "started_at", "finished_at")[:9]
    )
    speeds = sorted(size / max(0.1, (end - start).total_seconds()) for size, start, end in rows)
    return speeds[len(speeds) // 2] if speeds else None


def _judge(request: MoveRequest, destination: str) -> tuple[Verdict, tuple[Reason, ...]]:
    """Return the verdict of the pool that would be taken.  Raises `RequestRefused` with every reason."""
    volume_reasons, warnings = verdicts.check_volume(request)
    choice = verdicts.choose(
        request,
        views_of_rows.pool_views(),
        destination,
        plan_move=views_of_rows.plan_move,
        filters=_filters(),
    )
    reasons = [*volume_reasons, *choice.reasons]
    if not reasons and choice.verdict is not None:
        return choice.verdict, (*warnings, *choice.verdict.warnings)
    name = request.volume.name
    if request.volume.locked_by_migration:
        raise Busy(f"The volume '{name}' is being migrated already.", reasons)
    if any(r.code == Code.UNKNOWN_DESTINATION for r in reasons):
        raise UnknownDestination(f"The volume '{name}' was not migrated.", reasons)
    raise NoValidPool(f"The volume '{name}' cannot be migrated to {destination}.", reasons)


# -- requesting -----------------------------------------------------------------------------------------------


def request_migration(
    volume: Volume, destination: str, actor: Actor, options: Options | None = None
) -> VolumeMigration:
    """
    Return the accepted migration: the volume is locked, the room reserved, the worker's bell rung.

    Args:
        destination: `HOST@BACKEND` (its best pool is taken) or `HOST@BACKEND#POOL`.

    Raises:
        Busy: Another migration owns the volume.
        UnknownDestination: There is no such backend or pool; the reason names the nearest.
        NoValidPool: It may not go there; every reason is in `.reasons`.

    The storage is asked before the transaction, so that no lock is held while it answers; the verdict is taken
    inside it, one request at a time, so that two that do not fit together are not both accepted.
    """
    options = options or Options()
    facts = inventory.inspect_volume(_load(volume.pk))
    try:
        with transaction.atomic():
            _one_request_at_a_time()
            volume = _load(volume.pk)
            request = _move_request(volume, options.force_host_copy, facts)
            verdict, _ = _judge(request, destination)
            migration = _create(volume, request, verdict, options, actor)
            dispatch.ring(migration.pk, migration.host)
    except IntegrityError:
        raise Busy(
            f"The volume '{volume.name}' is being migrated already.", [_locked_reason(volume.name)]
        ) from None
    logger.info("%s: %s to %s, asked by %s", migration.pk, volume.name, verdict.address, actor.name)
    return migration


def _one_request_at_a_time() -> None:
    """
    Let requests pass one by one, so that each sees what the one before has reserved.

    SQLite does so by itself (immediate transactions); elsewhere all pools' rows are locked, in one order.
    """
    list(Pool.objects.select_for_update().order_by("pk").values_list("pk"))


def _create(
    volume: Volume, request: MoveRequest, verdict: Verdict, options: Options, actor: Actor
) -> VolumeMigration:
    pool = Pool.objects.select_related("backend").get(
        backend__host=verdict.address.host, backend__name=verdict.address.backend, name=verdict.address.pool
    )
    migration_id = uuid.uuid4()
    locked = Volume.objects.filter(
        pk=volume.pk, locked_by_migration=None, status=Volume.Status.AVAILABLE, pool=volume.pool
    ).update(locked_by_migration=migration_id, migration_status=MigrationStatus.STARTING)
    if not locked:
        raise Busy(f"The volume '{volume.name}' was changed meanwhile.", [_locked_reason(volume.name)])
    is_thin = (
        request.volume.extra_specs.get("provisioning:type") != "thick" and pool.thin_provisioning_support
    )
    allocated = request.volume.facts.allocated_bytes
    migration = VolumeMigration.objects.create(
        id=migration_id,
        volume=volume,
        volume_name=volume.name,
        size_bytes=volume.size_bytes,
        source_pool=volume.pool,
        source_object_name=volume.object_name,
        destination_pool=pool,
        destination_is_thin=is_thin,
        needed_bytes=allocated if is_thin and allocated is not None else volume.size_bytes,
        force_host_copy=options.force_host_copy,
        delete_source=options.delete_source,
        verify=options.verify,
        bandwidth_bytes_per_second=options.bandwidth_bytes_per_second,
        requested_by=actor.user,
        requested_by_name=actor.name,
        requested_via=actor.via,
        verdict=verdict.as_dict(),
    )
    _note(migration, actor, JournalEntry.Kind.REQUESTED, f"Move to {pool} asked for.")
    return migration


def _locked_reason(name: str) -> Reason:
    return Reason(
        Code.ALREADY_MIGRATING,
        Category.VOLUME,
        f"Another request for '{name}' was accepted first.",
        "Look at the volume's migrations; cancel the running one if it is not what you want.",
    )


# -- cancelling -----------------------------------------------------------------------------------------------


def cancel_migration(migration: VolumeMigration, actor: Actor) -> VolumeMigration:
    """
    Return the migration, which will end `cancelled`: destination removed, volume as it was.

    Safe to repeat: yes.

    Raises:
        NotNow: It has ended, or the record has moved already.
    """
    with transaction.atomic():
        asked = VolumeMigration.objects.filter(
            pk=migration.pk, state__in=CANCELLABLE, cancel_requested_at=None
        ).update(cancel_requested_at=Now(), cancel_requested_by=actor.name, retry_at=None)
        migration = _reload(migration)
        if asked:
            # Nobody works on a pausing migration; it is queued so that a worker undoes what was made.
            VolumeMigration.objects.filter(pk=migration.pk, state=State.PAUSED).update(state=State.QUEUED)
            _note(migration, actor, JournalEntry.Kind.WISH, "Cancel asked for.")
            dispatch.ring(migration.pk, migration.host)
        elif not (migration.cancel_requested_at and migration.state in WORKING | {State.CANCELLED}):
            raise NotNow(
                f"The migration of '{migration.volume_name}' is '{migration.get_state_display()}' and cannot be "
                "cancelled any more."
            )
    return migration


# -- waking and purging -----------------------------------------------------------------------------------------


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
    Start the deletion of every kept source whose time is over; return their migrations.

    Safe to repeat: yes.
    """
    rows = VolumeMigration.objects.filter(state=State.RETAINED, purge_after__lte=Now()).select_related(
        "source_pool__backend"
    )
    if host is not None:
        rows = rows.filter(source_pool__backend__host=host)
    started = []
    for migration in rows:
        with transaction.atomic():
            if VolumeMigration.objects.filter(pk=migration.pk, state=State.RETAINED).update(
                state=State.DELETING_SOURCE, epoch=F("epoch") + 1
            ):
                dispatch.ring(migration.pk, migration.host)
                started.append(migration)
    return started


def _reload(migration: VolumeMigration) -> VolumeMigration:
    return VolumeMigration.objects.select_related("source_pool__backend", "destination_pool__backend").get(
        pk=migration.pk
    )


def find_migration(text: str) -> VolumeMigration:
    """Return the migration whose id is *text* or begins with it.  Raises `inventory.UnknownName`."""
    query = VolumeMigration.objects.select_related("source_pool__backend", "destination_pool__backend")
    digits = text.strip().lower().replace("-", "")
    # As PostgreSQL writes an id; SQLite's lookup takes the hyphens away again.
    parts = (digits[start:end] for start, end in ((0, 8), (8, 12), (12, 16), (16, 20), (20, None)))
    wanted = "-".join(part for part in parts if part)
    found = list(query.filter(pk__startswith=wanted)[:2]) if len(digits) >= _SHORTEST_ID else []
    if len(found) == 1:
        return found[0]
    if found:
        raise inventory.UnknownName(f"Several migrations begin with '{text}'. Write more of the id.")
    raise inventory.UnknownName(
        f"There is no migration '{text}'. `manage.py list_migrations` shows the last ones."
    )


def _note(migration: VolumeMigration, actor: Actor, kind: JournalEntry.Kind, text: str) -> None:
    """Write an act of a person into the journal and, when it is a user of the site, into the admin's history."""
    JournalEntry.objects.create(migration=migration, kind=kind, text=text, actor=actor.name)
    if actor.user is not None and migration.volume_id:
        LogEntry.objects.log_actions(
            actor.user.pk,
            [migration.volume],
            CHANGE,
            change_message=f"{text} ({actor.via})",
            single_object=True,
        )
