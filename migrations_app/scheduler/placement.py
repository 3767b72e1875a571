"""Filters on the pool as it stands: may and can anything be moved there, and is it another place?"""

from __future__ import annotations

from migrations_app.scheduler.codes import Code
from migrations_app.scheduler.human import duration_text, list_text, sentence, without_period
from migrations_app.scheduler.types import Category, MoveRequest, PoolView, Reason

AVAILABILITY_ZONES = "RESKEY:availability_zones"


def is_elsewhere(request: MoveRequest, pool: PoolView) -> list[Reason]:
    """
    The destination must be another place, not another name of the same.

    Cinder compares the text of the addresses, and leaves the rest to each driver.
    """
    volume = request.volume
    if pool.address == volume.pool:
        text = f"The volume is in pool {pool.address} already."
        return [Reason(Code.ALREADY_THERE, Category.DESTINATION, text, "Choose another pool.")]
    if pool.storage_id and pool.storage_id == volume.storage_id:
        text = (
            f"Pool {pool.address} is the same place as {volume.pool} under another name ({pool.storage_id})."
        )
        return [Reason(Code.SAME_PLACE, Category.DESTINATION, text, "Choose a pool on other storage.")]
    return []


def is_enabled(request: MoveRequest, pool: PoolView) -> list[Reason]:
    """Nothing is moved to a backend that an administrator has disabled; it may still be a source."""
    if pool.is_enabled:
        return []
    why = without_period(pool.disabled_reason) or "no reason was given"
    text = f"Backend {pool.address.without_pool} is disabled: {why}."
    remedy = f"Enable {pool.address.without_pool}, or choose another pool."
    return [Reason(Code.POOL_DISABLED, Category.DESTINATION, text, remedy)]


def is_up(request: MoveRequest, pool: PoolView) -> list[Reason]:
    """The numbers must be fresh: a pool that does not report may be full, or gone."""
    if pool.is_up:
        return []
    age = "it has never reported" if pool.age_seconds is None else _age(pool.age_seconds)
    # A reason is whole sentences, and tells the age itself where that is the cause.
    text = f"Pool {pool.address} is down: {sentence(pool.down_reason or age)}"
    host = pool.address.host
    remedy = f"Start the worker on host {host}, or run `manage.py refresh_backends` there."
    return [Reason(Code.POOL_DOWN, Category.DESTINATION, text, remedy)]


def _age(seconds: float) -> str:
    return f"its last report is {duration_text(seconds)} old"


def is_writable(request: MoveRequest, pool: PoolView) -> list[Reason]:
    """The storage itself may refuse to be written."""
    if not pool.is_read_only:
        return []
    text = f"Pool {pool.address} is read-only."
    remedy = f"Make its storage writable on host {pool.address.host}, then run `manage.py refresh_backends`."
    return [Reason(Code.READ_ONLY, Category.DESTINATION, text, remedy)]


def is_reachable(request: MoveRequest, pool: PoolView) -> list[Reason]:
    """From another host the volume comes over the network: a worker there must answer, on an address for that."""
    here, there = request.volume.pool.host, pool.address.host
    if here == there:
        return []
    what = f"The volume is on host {here} and pool {pool.address} on host {there}"
    if not pool.worker_is_up:
        text = f"{what}, whose worker is not running."
        return [
            Reason(
                Code.HOST_AWAY, Category.PLACEMENT, text, f"Start `manage.py volmig_worker` on host {there}."
            )
        ]
    if not pool.storage_address and not request.native_how:
        text = f"{what}, which has no address on which it serves volumes to other hosts."
        remedy = f"Set VOLMIG_STORAGE_ADDRESS on host {there} to its address on the storage network, and start its "
        remedy += "worker again."
        return [Reason(Code.NO_STORAGE_ADDRESS, Category.PLACEMENT, text, remedy)]
    return []


def is_in_zone(request: MoveRequest, pool: PoolView) -> list[Reason]:
    """
    A volume with an availability zone stays in it.

    Cinder checks this on retype but not on migrate, where neither key that its filter reads is set.
    Source: cinder `scheduler/filters/availability_zone_filter.py`.
    """
    zone = request.volume.availability_zone
    if not zone or zone == pool.availability_zone:
        return []
    text = f"The volume is in availability zone '{zone}', pool {pool.address} is in {_zone(pool)}."
    remedy = f"Choose a pool in zone '{zone}', or change the volume's availability zone."
    return [Reason(Code.OTHER_ZONE, Category.PLACEMENT, text, remedy)]


def is_in_zone_of_type(request: MoveRequest, pool: PoolView) -> list[Reason]:
    """The zones that a type allows hold for a move too; in Cinder a migrate can leave them."""
    if AVAILABILITY_ZONES not in request.volume.extra_specs:
        return []
    zones = [zone.strip() for zone in str(request.volume.extra_specs[AVAILABILITY_ZONES]).split(",")]
    zones = [zone for zone in zones if zone]
    if not zones or pool.availability_zone in zones:
        return []
    wanted = list_text([f"'{zone}'" for zone in zones])
    text = (
        f"The volume's type '{request.volume.type_name}' allows the availability zones {wanted} only, pool "
        f"{pool.address} is in {_zone(pool)}."
    )
    remedy = f"Choose a pool in one of these zones, or change {AVAILABILITY_ZONES} of the type."
    return [Reason(Code.ZONE_NOT_ALLOWED, Category.PLACEMENT, text, remedy)]


def _zone(pool: PoolView) -> str:
    return f"'{pool.availability_zone}'" if pool.availability_zone else "none"
