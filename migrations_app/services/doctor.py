"""
The doctor: compares the rows with what really lies on this host's pools, and says for each difference what to do.

It does something only when asked, only where it is safe, and looks again right before it does.
"""

from __future__ import annotations

import enum
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from backends import services as inventory
from backends.drivers.conformance import NAME_PREFIX, is_left
from backends.drivers.errors import DriverError
from backends.drivers.types import StoredVolume
from backends.models import Backend, Pool, Volume
from migrations_app import dispatch
from migrations_app.lease import is_dead
from migrations_app.models import VolumeMigration
from migrations_app.remote.driver import driver_for
from migrations_app.scheduler.human import bytes_text
from migrations_app.states import ENDED, WORKING, State

_DERIVED = "volmig-"
#: A volume that is being created or deleted for longer was left so by a crash.
_STUCK_MINUTES = 10


class Kind(enum.StrEnum):
    """What was found."""

    UNFINISHED = "unfinished_migration"
    NEEDS_DECISION = "needs_decision"
    LEFTOVER = "leftover"
    SOURCE_LEFT = "source_left"
    MISSING = "missing_object"
    SIZE_DIFFERS = "size_differs"
    STUCK = "stuck_volume"
    STALE_LOCK = "stale_lock"
    UNKNOWN_OBJECT = "object_without_row"
    NOT_EXAMINED = "not_examined"


@dataclass(frozen=True)
class Finding:
    """
    One difference.  `text` is what was found, `proposal` what the doctor would do, or what a person should.

    `is_safe`: `mend` does it, after looking again; nothing that could be the only copy of anything is touched.
    """

    kind: Kind
    subject: str
    text: str
    proposal: str
    is_safe: bool = False
    migration_id: str = ""
    volume_id: str = ""
    _mend: Callable[[], bool] | None = field(default=None, repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind.value,
            "subject": self.subject,
            "text": self.text,
            "proposal": self.proposal,
            "is_safe": self.is_safe,
            "migration": self.migration_id or None,
            "volume": self.volume_id or None,
        }


def examine(host: str | None = None) -> list[Finding]:
    """Return every difference between the rows and the storage of *host* (this one).  Changes nothing."""
    host = host or settings.VOLMIG_HOST
    return [*_migrations(host), *_locks(host), *_volumes(host), *_pools(host)]


def mend(finding: Finding) -> bool:
    """
    Return true when the difference was mended, false when it was gone or is not safe to mend.

    Raises:
        DriverError: The storage refused.
    """
    return bool(finding.is_safe and finding._mend and finding._mend())


# -- rows -----------------------------------------------------------------------------------------------------------


def _migrations(host: str) -> Iterator[Finding]:
    rows = VolumeMigration.objects.filter(source_pool__backend__host=host).select_related(
        "source_pool__backend"
    )
    for migration in rows.filter(state__in=WORKING):
        expired = migration.lease_expires_at is None or migration.lease_expires_at < timezone.now()
        waits = migration.retry_at is not None and migration.retry_at > timezone.now()
        if (expired or is_dead(migration.owner)) and not waits:
            yield Finding(
                Kind.UNFINISHED,
                str(migration),
                f"The migration of '{migration.volume_name}' is '{migration.state}' and nobody works on it.",
                "Ring for a worker; it goes on from its checkpoint.",
                is_safe=True,
                migration_id=str(migration.pk),
                _mend=lambda m=migration: _ring(m),
            )
    for migration in rows.filter(state=State.NEEDS_OPERATOR):
        yield Finding(
            Kind.NEEDS_DECISION,
            str(migration),
            f"The migration of '{migration.volume_name}' waits for a decision: {migration.error_text}",
            f"{migration.data_location} Decide on its page, or with retry, finish or resolve.",
            migration_id=str(migration.pk),
        )


def _ring(migration: VolumeMigration) -> bool:
    with transaction.atomic():
        dispatch.ring(migration.pk, migration.host)
    return True


def _locks(host: str) -> Iterator[Finding]:
    for volume in Volume.objects.filter(pool__backend__host=host).exclude(locked_by_migration=None):
        if VolumeMigration.objects.filter(pk=volume.locked_by_migration, locks_volume=True).exists():
            continue
        yield Finding(
            Kind.STALE_LOCK,
            volume.name,
            f"The volume '{volume.name}' is locked by migration {volume.locked_by_migration}, which has ended "
            "or is gone.",
            "Take the lock away.",
            is_safe=True,
            volume_id=str(volume.pk),
            _mend=lambda v=volume: bool(
                Volume.objects.filter(pk=v.pk, locked_by_migration=v.locked_by_migration).update(
                    locked_by_migration=None
                )
            ),
        )


# -- volumes against their objects ------------------------------------------------------------------------------------


def _volumes(host: str) -> Iterator[Finding]:
    for pool, objects in _objects_by_pool(host):
        if objects is None:
            continue
        for volume in Volume.objects.filter(pool=pool):
            yield from _volume(volume, objects.get(volume.object_name))


def _volume(volume: Volume, found: StoredVolume | None) -> Iterator[Finding]:
    limit = timezone.now() - timedelta(minutes=_STUCK_MINUTES)
    if volume.status in (Volume.Status.CREATING, Volume.Status.DELETING):
        if volume.updated_at < limit:
            yield _stuck(volume, found)
    elif found is None:
        yield Finding(
            Kind.MISSING,
            volume.name,
            f"The volume '{volume.name}' should lie on {volume.pool} as '{volume.object_name}', and does not.",
            "Find out what happened to it. Look for objects without a row on the other pools; nothing is changed.",
            volume_id=str(volume.pk),
        )
    elif found.size_bytes != volume.size_bytes:
        yield Finding(
            Kind.SIZE_DIFFERS,
            volume.name,
            f"The volume '{volume.name}' has {bytes_text(found.size_bytes)} ({found.size_bytes} bytes) on the storage, "
            f"the record says {bytes_text(volume.size_bytes)} ({volume.size_bytes} bytes).",
            "If it was being extended, extend it again to the size wanted. Otherwise find out who resized it.",
            volume_id=str(volume.pk),
        )


def _stuck(volume: Volume, found: StoredVolume | None) -> Finding:
    what = (
        f"The volume '{volume.name}' has been '{volume.status}' since {volume.updated_at:%Y-%m-%d %H:%M} UTC"
    )
    rows = Volume.objects.filter(pk=volume.pk, status=volume.status)
    if found is None:
        return Finding(
            Kind.STUCK,
            volume.name,
            f"{what}; there is no object.",
            "Remove the row; there is nothing behind it.",
            is_safe=True,
            volume_id=str(volume.pk),
            _mend=lambda: bool(rows.delete()[0]),
        )
    if volume.status == Volume.Status.CREATING and found.size_bytes == volume.size_bytes:
        return Finding(
            Kind.STUCK,
            volume.name,
            f"{what}; its object is there and has the right size.",
            "Set it to 'available'.",
            is_safe=True,
            volume_id=str(volume.pk),
            _mend=lambda: bool(rows.update(status=Volume.Status.AVAILABLE)),
        )
    return Finding(
        Kind.STUCK,
        volume.name,
        f"{what}; its object is still there.",
        "Set it to 'error_deleting'; delete it again if that is wanted.",
        is_safe=True,
        volume_id=str(volume.pk),
        _mend=lambda: bool(rows.update(status=Volume.Status.ERROR_DELETING)),
    )


# -- objects against the rows ---------------------------------------------------------------------------------


def _pools(host: str) -> Iterator[Finding]:
    for pool, objects in _objects_by_pool(host):
        if objects is None:
            yield Finding(
                Kind.NOT_EXAMINED,
                str(pool),
                f"The pool {pool} could not be looked at: {_why_not_examined(pool.backend)}",
                "Mend the backend, then examine again."
                if inventory.is_local(pool.backend)
                else f"Examine on host '{pool.backend.host}'.",
            )
            continue
        known = set(Volume.objects.filter(pool=pool).values_list("object_name", flat=True))
        for stored in sorted(objects.values(), key=lambda o: o.name):
            if stored.name not in known:
                yield from _object(pool, stored)


def _why_not_examined(backend: Backend) -> str:
    if not inventory.is_local(backend):
        return f"it is reached from host '{backend.host}'."
    return backend.last_error or "the storage did not answer."


def _object(pool: Pool, stored: StoredVolume) -> Iterator[Finding]:
    room = f"{bytes_text(stored.size_bytes)}, taking {bytes_text(stored.allocated_bytes)}"
    subject = f"{pool} '{stored.name}'"
    if stored.name.startswith(NAME_PREFIX):
        was_left = is_left(stored.name)
        yield Finding(
            Kind.LEFTOVER,
            subject,
            f"'{stored.name}' on {pool} ({room}) was left by an interrupted validation."
            if was_left
            else f"'{stored.name}' on {pool} ({room}) belongs to a validation of the last hour, which may still run.",
            "Delete it." if was_left else "Examine again in an hour.",
            is_safe=was_left,
            _mend=lambda: _delete(pool, stored),
        )
        return
    # A destination may since have become the source of the next migration: that one knows more about it.
    taken_from = _taken_from(pool, stored.name)
    if taken_from is not None:
        yield from _source_of(taken_from, pool, stored, room)
        return
    maker = _maker(stored.name)
    if maker is not None:
        yield from _made_by(maker, pool, stored, room)
        return
    yield Finding(
        Kind.UNKNOWN_OBJECT,
        subject,
        f"'{stored.name}' on {pool} ({room}) belongs to no volume and no migration.",
        "Find out whose it is. It is never deleted from here.",
    )


def _made_by(migration: VolumeMigration, pool: Pool, stored: StoredVolume, room: str) -> Iterator[Finding]:
    """What a migration made at its destination, or kept there, and no record points at."""
    if migration.state not in ENDED or migration.purge_after is not None:
        return
    is_safe = migration.destination_pool_id == pool.pk and _is_whole(migration.volume)
    yield Finding(
        Kind.LEFTOVER,
        f"{pool} '{stored.name}'",
        f"'{stored.name}' on {pool} ({room}) was made by the migration of '{migration.volume_name}', which is "
        f"'{migration.state}'; no record points at it.",
        "Delete it."
        if is_safe
        else "Find out what it is: it is not where the migration made it, or the volume itself is not whole.",
        is_safe=is_safe,
        migration_id=str(migration.pk),
        _mend=lambda: _delete(pool, stored),
    )


def _source_of(migration: VolumeMigration, pool: Pool, stored: StoredVolume, room: str) -> Iterator[Finding]:
    if migration.state not in ENDED:
        return
    yield Finding(
        Kind.SOURCE_LEFT,
        f"{pool} '{stored.name}'",
        f"'{stored.name}' on {pool} ({room}) was the source of the migration of '{migration.volume_name}', which is "
        f"'{migration.state}'; no record points at it.",
        "Compare it with the volume, then delete it by hand. It is never deleted from here.",
        migration_id=str(migration.pk),
    )


def _taken_from(pool: Pool, name: str) -> VolumeMigration | None:
    """Return the last migration that had this object as its source."""
    return (
        VolumeMigration.objects.filter(source_pool=pool, source_object_name=name)
        .order_by("-created_at")
        .first()
    )


def _is_whole(volume: Volume | None) -> bool:
    """Tell whether the volume lies where its record says, so that something else is not its only copy."""
    if volume is None:
        return False
    try:
        # It may have moved to another host, whose worker is then asked.
        with driver_for(volume.pool.backend) as driver:
            driver.check()
            return driver.describe(volume.pool.name, volume.object_name).size_bytes == volume.size_bytes
    except DriverError:
        return False


def _maker(name: str) -> VolumeMigration | None:
    if not name.startswith(_DERIVED):
        return None
    try:
        migration_id = uuid.UUID(name.removeprefix(_DERIVED))
    except ValueError:
        return None
    return VolumeMigration.objects.filter(pk=migration_id).first()


def _delete(pool: Pool, stored: StoredVolume) -> bool:
    """Delete an object that nothing points at, after looking again."""
    if Volume.objects.filter(object_name=stored.name).exists():
        return False
    maker = _maker(stored.name)
    if maker is not None:
        is_needed = maker.state not in ENDED or maker.purge_after is not None or not _is_whole(maker.volume)
        if is_needed or _taken_from(pool, stored.name) is not None:
            return False
    with inventory.make_driver(pool.backend) as driver:
        driver.check()
        driver.delete(pool.name, stored.name)
    return True


def _objects_by_pool(host: str) -> Iterable[tuple[Pool, dict[str, StoredVolume] | None]]:
    """Yield each pool of *host* with what lies on it by name; `None` when the storage does not answer."""
    for backend in Backend.objects.filter(host=host).prefetch_related("pools"):
        for pool in backend.pools.all():
            pool.backend = backend
            if not inventory.is_local(backend):
                yield pool, None
                continue
            try:
                with inventory.make_driver(backend) as driver:
                    driver.check()
                    yield pool, {o.name: o for o in driver.list_volumes(pool.name)}
            except DriverError:
                yield pool, None
