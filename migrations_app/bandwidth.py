"""
How fast one migration may go, so that all of a backend's migrations together keep to its limit.

Each running migration works out its share from the database at every heartbeat: the backend's limit divided by the
migrations that are moving data from or to it, on whatever host.  No worker talks to another one.
"""

from __future__ import annotations

from uuid import UUID

from django.db.models import Q
from django.db.models.functions import Now

from backends.drivers.types import KIB
from migrations_app.models import VolumeMigration
from migrations_app.states import State

_MOVING = (State.COPYING, State.VERIFYING)
#: Slower than this, the copy of one segment would outlive the queue's longest task and begin again for ever.
_FLOOR_BYTES_PER_SECOND = 64 * KIB
_SIDES = ("source_pool__backend", "destination_pool__backend")


def share(migration_id: UUID) -> int | None:
    """
    Return the bytes per second that the migration may move now; `None` for no limit.

    The smallest of its own limit and its shares in the limits of both backends.  A migration inside one backend
    counts once: its bytes are counted when they are read.  It is never less than 64 KiB per second.
    """
    row = VolumeMigration.objects.values(
        "bandwidth_bytes_per_second", *_SIDES, *(f"{side}__max_bandwidth_bytes_per_second" for side in _SIDES)
    ).get(pk=migration_id)
    limits: list[int | None] = [row["bandwidth_bytes_per_second"]]
    for side in _SIDES:
        limit = row[f"{side}__max_bandwidth_bytes_per_second"]
        limits.append(limit and limit // _count_moving(row[side], migration_id))
    return smallest(*limits)


def smallest(*limits: int | None) -> int | None:
    """Return the limit that is kept where all of these are set, never less than 64 KiB per second; `None` for none."""
    found = min((limit for limit in limits if limit is not None), default=None)
    return None if found is None else max(found, _FLOOR_BYTES_PER_SECOND)


def _count_moving(backend_id: int, migration_id: UUID) -> int:
    """Return how many migrations move data from or to the backend; this one is always one of them."""
    others = VolumeMigration.objects.exclude(pk=migration_id).filter(
        Q(source_pool__backend=backend_id) | Q(destination_pool__backend=backend_id),
        state__in=_MOVING,
        lease_expires_at__gt=Now(),
    )
    return 1 + others.count()
