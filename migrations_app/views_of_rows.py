"""Rows made into the plain values that the scheduler judges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone

from backends import services as inventory
from backends.drivers.errors import BadOptions
from backends.drivers.registry import driver_class
from backends.drivers.types import Declined
from backends.models import Pool, Volume
from migrations_app import bandwidth, hosts
from migrations_app.models import GENERIC, VolumeMigration
from migrations_app.scheduler.types import PoolView, StorageFacts, VolumeView
from migrations_app.states import State


@dataclass(slots=True)
class Reserved:
    """What running migrations will still take from one pool that its report does not show."""

    physical_bytes: int = 0
    provisioned_bytes: int = 0
    migrations: int = 0


def volume_view(volume: Volume, facts: StorageFacts) -> VolumeView:
    """Return *volume* (with pool, backend and type loaded) as the scheduler sees it."""
    health = inventory.health(volume.pool.backend, volume.pool.reported_at)
    return VolumeView(
        id=str(volume.pk),
        name=volume.name,
        size_bytes=volume.size_bytes,
        pool=volume.pool.address,
        storage_id=volume.pool.storage_id,
        location_info=volume.pool.location_info,
        status=volume.status,
        migration_status=volume.migration_status,
        availability_zone=volume.availability_zone,
        type_name=volume.volume_type.name if volume.volume_type else "",
        extra_specs=volume.volume_type.extra_specs if volume.volume_type else {},
        attachments=tuple(str(a) for a in volume.attachments.filter(detached_at=None)),
        snapshots=tuple(s.name for s in volume.snapshots.all()),
        locked_by_migration=str(volume.locked_by_migration or ""),
        source_is_up=health.is_up,
        source_down_reason=health.down_reason,
        facts=facts,
    )


def pool_views(pools: QuerySet[Pool] | None = None) -> list[PoolView]:
    """Return every pool (or *pools*) as the scheduler sees it, with what running migrations have reserved."""
    rows = (Pool.objects.all() if pools is None else pools).select_related("backend")
    reserved, addresses = reservations(), hosts.storage_addresses()
    return [pool_view(pool, reserved[pool.pk], addresses) for pool in rows]


def pool_view(pool: Pool, reserved: Reserved, addresses: Mapping[str, str]) -> PoolView:
    """Return one pool; *addresses*: where each host with a running worker serves volumes."""
    backend = pool.backend
    health = inventory.health(backend, pool.reported_at)
    ratio = backend.max_over_subscription_ratio or settings.VOLMIG_MAX_OVER_SUBSCRIPTION_RATIO
    return PoolView(
        address=pool.address,
        driver=backend.driver,
        storage_protocol=_protocol(backend.driver),
        storage_id=pool.storage_id,
        location_info=pool.location_info,
        total_bytes=pool.total_bytes,
        free_bytes=pool.free_bytes,
        provisioned_bytes=pool.provisioned_bytes,
        is_infinite=pool.is_infinite,
        is_read_only=pool.is_read_only,
        thin_provisioning_support=pool.thin_provisioning_support,
        thick_provisioning_support=pool.thick_provisioning_support,
        reserved_percentage=backend.reserved_percentage,
        max_over_subscription_ratio=ratio,
        availability_zone=backend.availability_zone,
        is_enabled=backend.is_enabled,
        disabled_reason=backend.disabled_reason,
        is_up=health.is_up,
        down_reason=health.down_reason,
        age_seconds=health.age_seconds,
        volume_count=pool.volume_count,
        capabilities={**pool.capabilities, **backend.extra_capabilities},
        filter_function=backend.filter_function,
        goodness_function=backend.goodness_function,
        reserved_by_migrations_physical_bytes=reserved.physical_bytes,
        reserved_by_migrations_provisioned_bytes=reserved.provisioned_bytes,
        active_migrations=reserved.migrations,
        worker_is_up=backend.host in addresses,
        storage_address=addresses.get(backend.host, ""),
        max_bandwidth_bytes_per_second=bandwidth.smallest(backend.max_bandwidth_bytes_per_second),
    )


def reservations() -> defaultdict[int, Reserved]:
    """
    Return, by pool, what running migrations will still take: always from the rows, so that it cannot drift.

    What the pool's last report shows already is not counted twice: a volume that was made before it, and the bytes
    that were written before it (the bytes written until now, less the speed times the report's age).
    """
    result: defaultdict[int, Reserved] = defaultdict(Reserved)
    rows = VolumeMigration.objects.filter(locks_volume=True).select_related("destination_pool")
    for row in rows:
        pool = row.destination_pool
        mine = result[pool.pk]
        mine.migrations += 1
        if not _is_in_report(row, pool):
            mine.provisioned_bytes += row.size_bytes
        if row.method in ("", GENERIC):
            mine.physical_bytes += max(0, row.needed_bytes - _written_before_report(row, pool))
    return result


def _is_in_report(row: VolumeMigration, pool: Pool) -> bool:
    return bool(row.destination_made_at and pool.reported_at and row.destination_made_at < pool.reported_at)


def _written_before_report(row: VolumeMigration, pool: Pool) -> int:
    if not _is_in_report(row, pool) or pool.reported_at is None:
        return 0
    written = row.phase_done_bytes if row.state == State.COPYING else row.needed_bytes
    if row.state not in (State.COPYING, State.VERIFYING, State.SWITCHING):
        return 0
    age = (timezone.now() - pool.reported_at).total_seconds()
    since = age * row.speed_bytes_per_second if row.speed_bytes_per_second else row.needed_bytes
    return max(0, written - int(since))


def _protocol(driver: str) -> str:
    try:
        return driver_class(driver).storage_protocol
    except BadOptions:
        return ""


def plan_move(volume: VolumeView, pool: PoolView) -> tuple[str, str]:
    """Return (how, why declined) of a native move: what the source's driver says of the two `location_info`."""
    name = str(volume.location_info.get("driver", ""))
    try:
        plan: Any = driver_class(name).plan_move(volume.location_info, pool.location_info)
    except BadOptions:
        return "", "The source's pool has not reported where it is."
    if isinstance(plan, Declined):
        return "", plan.reason
    return plan.how, ""
