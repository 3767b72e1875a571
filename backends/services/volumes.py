"""Volumes: make, extend, snapshot, delete; and what the storage says of one."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from backends.drivers.base import Driver
from backends.drivers.errors import DriverError, NotFound, Unsupported
from backends.models import Pool, Snapshot, Volume, VolumeType
from backends.services.attaching import why_not
from backends.services.driving import is_local, make_driver
from backends.services.errors import InventoryRefused, VolumeBusy
from migrations_app.scheduler.types import StorageFacts


def create_volume_type(name: str, extra_specs: Mapping[str, str], *, description: str = "") -> VolumeType:
    """Return the new volume type.  Raises `InventoryRefused` when the name is taken or no name."""
    volume_type = VolumeType(name=name, extra_specs=dict(extra_specs), description=description)
    try:
        volume_type.full_clean()
    except ValidationError as error:
        raise InventoryRefused(" ".join(error.messages)) from None
    volume_type.save()
    return volume_type


def create_volume(
    name: str,
    size_bytes: int,
    pool: Pool,
    *,
    volume_type: VolumeType | None = None,
    description: str = "",
) -> Volume:
    """
    Return a new, empty volume on *pool*.

    The row is there before the object is (status `creating`), so that a crash leaves nothing nameless.

    Raises:
        InventoryRefused: The pool's host is another one.
        DriverError: What the storage says; the row is gone again.
    """
    if not is_local(pool.backend):
        raise InventoryRefused(
            f"The pool {pool} is reached from host '{pool.backend.host}'; run this command there "
            f"(this is '{settings.VOLMIG_HOST}')."
        )
    volume_id = uuid.uuid4()
    volume = Volume(
        id=volume_id,
        name=name,
        description=description,
        size_bytes=size_bytes,
        pool=pool,
        object_name=f"volume-{volume_id}",
        volume_type=volume_type,
        availability_zone=pool.backend.availability_zone,
        status=Volume.Status.CREATING,
    )
    try:
        volume.full_clean(exclude=["pool", "volume_type"])
    except ValidationError as error:
        raise InventoryRefused(
            "; ".join(f"{k}: {' '.join(v)}" for k, v in error.message_dict.items())
        ) from None
    volume.save()
    is_thin = (volume_type.extra_specs if volume_type else {}).get("provisioning:type") != "thick"
    try:
        with make_driver(pool.backend) as driver:
            driver.check()
            driver.create(
                pool.name, volume.object_name, size_bytes, thin=is_thin and pool.thin_provisioning_support
            )
    except DriverError:
        volume.delete()
        raise
    Volume.objects.filter(pk=volume.pk).update(status=Volume.Status.AVAILABLE)
    Pool.objects.filter(pk=pool.pk).update(
        provisioned_bytes=F("provisioned_bytes") + size_bytes, volume_count=F("volume_count") + 1
    )
    volume.refresh_from_db()
    return volume


def extend_volume(volume: Volume, size_bytes: int) -> Volume:
    """
    Return the volume with its new, larger size.

    The row is held while the storage works, so that no migration can begin meanwhile.  A crash in between leaves the
    object larger than the record says; the same call again mends that.

    Raises:
        VolumeBusy: It migrates, is attached, or is not `available`.
        InventoryRefused: The size is not larger, or the storage is another host's.
        DriverError: What the storage says; the record is unchanged.
    """
    if size_bytes <= volume.size_bytes:
        raise InventoryRefused(
            f"The volume '{volume.name}' has {volume.size_bytes} bytes; it can only grow, not become {size_bytes}."
        )
    with _held(volume, "extended") as (pool, driver):
        driver.extend(pool.name, volume.object_name, size_bytes)
        Volume.objects.filter(pk=volume.pk).update(size_bytes=size_bytes)
    volume.refresh_from_db()
    return volume


def create_snapshot(volume: Volume, name: str) -> Snapshot:
    """
    Return the new snapshot.  As `extend_volume`: refused while the volume migrates.

    Raises:
        VolumeBusy, DriverError (`Unsupported` when the storage has no snapshots).
    """
    snapshot = Snapshot(volume=volume, name=name)
    with _held(volume, "snapshotted") as (pool, driver):
        driver.create_snapshot(pool.name, volume.object_name, f"snapshot-{snapshot.pk}")
        snapshot.save()
    return snapshot


def delete_snapshot(snapshot: Snapshot) -> None:
    """Return when the snapshot is gone.  Raises as `create_snapshot`."""
    volume = snapshot.volume
    with _held(volume, "changed") as (pool, driver):
        driver.delete_snapshot(pool.name, volume.object_name, f"snapshot-{snapshot.pk}")
        snapshot.delete()


def delete_volume(volume: Volume) -> None:
    """
    Return when the volume and its data are gone.

    Raises:
        VolumeBusy: It migrates, is attached, or has snapshots.
        DriverError: What the storage says; the volume is still there, as `error_deleting`.
    """
    pool = _local_pool(volume)
    taken = Volume.objects.filter(
        pk=volume.pk,
        locked_by_migration=None,
        status__in=[Volume.Status.AVAILABLE, Volume.Status.ERROR, Volume.Status.ERROR_DELETING],
    ).update(status=Volume.Status.DELETING)
    if not taken:
        raise VolumeBusy(why_not(volume.pk, "deleted"))
    if volume.snapshots.exists():
        # Asked after the row was taken: from then on no snapshot can be made.
        Volume.objects.filter(pk=volume.pk).update(status=volume.status)
        raise VolumeBusy(f"The volume '{volume.name}' has snapshots. Delete them first.")
    try:
        with make_driver(pool.backend) as driver:
            driver.check()
            driver.delete(pool.name, volume.object_name)
    except DriverError as error:
        Volume.objects.filter(pk=volume.pk).update(status=Volume.Status.ERROR_DELETING, error_text=str(error))
        raise
    Volume.objects.filter(pk=volume.pk).delete()


def _local_pool(volume: Volume) -> Pool:
    pool = Pool.objects.select_related("backend").get(pk=volume.pool_id)
    if not is_local(pool.backend):
        raise InventoryRefused(
            f"The pool {pool} is reached from host '{pool.backend.host}'; do this there "
            f"(this is '{settings.VOLMIG_HOST}')."
        )
    return pool


@contextmanager
def _held(volume: Volume, what: str) -> Iterator[tuple[Pool, Driver]]:
    """Keep every migration away from *volume* while its storage is changed, in one transaction."""
    pool = _local_pool(volume)
    with make_driver(pool.backend) as driver:
        driver.check()
        with transaction.atomic():
            taken = Volume.objects.filter(
                pk=volume.pk, status=Volume.Status.AVAILABLE, locked_by_migration=None
            ).update(updated_at=Now())
            if not taken:
                raise VolumeBusy(why_not(volume.pk, what))
            yield pool, driver


def inspect_volume(volume: Volume) -> StorageFacts:
    """
    Return what the storage says of *volume*, looking at the storage itself.

    Never raises for what the storage says: a request for a verdict must be answered.
    """
    backend = volume.pool.backend
    if not is_local(backend):
        return StorageFacts(unavailable_reason=f"The storage is reached from host '{backend.host}' only.")
    try:
        with make_driver(backend) as driver:
            driver.check()
            found = driver.describe(volume.pool.name, volume.object_name)
            usage = tuple(map(str, driver.usage(volume.pool.name, volume.object_name)))
            try:
                snapshots = tuple(driver.snapshots(volume.pool.name, volume.object_name))
            except Unsupported:
                snapshots = ()
    except NotFound as error:
        return StorageFacts(missing=str(error))
    except DriverError as error:
        return StorageFacts(unavailable_reason=str(error))
    return StorageFacts(found.size_bytes, found.allocated_bytes, usage, snapshots)
