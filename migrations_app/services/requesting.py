"""Accept a migration: verdict, reservation, lock, row and bell in one transaction."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable

from django.db import IntegrityError, transaction

from backends import services as inventory
from backends.models import Pool, Volume
from migrations_app import dispatch
from migrations_app.errors import Busy
from migrations_app.models import JournalEntry, VolumeMigration
from migrations_app.scheduler.codes import Code
from migrations_app.scheduler.types import Category, MoveRequest, Reason, Verdict
from migrations_app.services.actors import Actor, note
from migrations_app.services.asking import Options, judge, load_volume, move_request
from migrations_app.states import MigrationStatus

logger = logging.getLogger(__name__)


def request_migration(
    volume: Volume,
    destination: str,
    actor: Actor,
    options: Options | None = None,
    *,
    in_transaction: Callable[[VolumeMigration], None] | None = None,
) -> VolumeMigration:
    """
    Return the accepted migration: the volume is locked, the room reserved, the worker's bell rung.

    Args:
        destination: `HOST@BACKEND` (its best pool is taken) or `HOST@BACKEND#POOL`.
        in_transaction: Called with the new migration; what it writes is there exactly when the migration is.

    Raises:
        Busy: Another migration owns the volume.
        UnknownDestination: There is no such backend or pool; the reason names the nearest.
        NoValidPool: It may not go there; every reason is in `.reasons`.

    The storage is asked before the transaction, so that no lock is held while it answers; the verdict is taken
    inside it, one request at a time, so that two that do not fit together are not both accepted.
    """
    options = options or Options()
    facts = inventory.inspect_volume(load_volume(volume.pk))
    try:
        with transaction.atomic():
            _one_request_at_a_time()
            volume = load_volume(volume.pk)
            request = move_request(volume, options, facts)
            verdict, _ = judge(request, destination)
            migration = _create(volume, request, verdict, options, actor)
            if in_transaction is not None:
                in_transaction(migration)
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
    note(migration, actor, JournalEntry.Kind.REQUESTED, f"Move to {pool} asked for.")
    return migration


def _locked_reason(name: str) -> Reason:
    return Reason(
        Code.ALREADY_MIGRATING,
        Category.VOLUME,
        f"Another request for '{name}' was accepted first.",
        "Look at the volume's migrations; cancel the running one if it is not what you want.",
    )
