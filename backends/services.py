"""
The inventory's verbs: register, refresh, create, attach.

Nothing here knows migrations; a volume that one of them owns carries its id in `locked_by_migration`, and every
verb that would change the volume refuses then, by compare-and-set.
"""

from __future__ import annotations

import difflib
import logging
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from backends import secrets
from backends.drivers.base import Driver, DriverContext
from backends.drivers.errors import BadOptions, DriverError, NotFound, Unsupported, VolmigError
from backends.drivers.options import build_options, describe_options
from backends.drivers.registry import driver_class
from backends.drivers.types import PoolAddress, PoolStats
from backends.models import Attachment, Backend, Pool, Snapshot, Volume, VolumeType, split_options
from migrations_app.scheduler.human import duration_text
from migrations_app.scheduler.types import StorageFacts

logger = logging.getLogger(__name__)


class InventoryRefused(VolmigError):
    """The inventory cannot do that now; the text says why and what to do."""

    code = "refused"


class VolumeBusy(InventoryRefused):
    """The volume is in a state in which this may not be done."""

    code = "volume_busy"


class UnknownName(InventoryRefused):
    """There is nothing of that name; the text lists what there is."""

    code = "unknown"


# -- drivers --------------------------------------------------------------------------------------------------


def make_driver(backend: Backend) -> Driver:
    """
    Return a driver object for *backend*, without any I/O.

    Raises:
        BadOptions, NotReady: The stored options do not fit the driver, or cannot be decrypted.
    """
    cls = driver_class(backend.driver)
    values = {**backend.options, **secrets.unseal(backend.secret_options)}
    return cls(
        DriverContext(
            backend=backend.address,
            host=backend.host,
            options=build_options(cls.options_class, values),
            known_storage_ids={p.name: p.storage_id for p in backend.pools.all() if p.storage_id},
        )
    )


def is_local(backend: Backend) -> bool:
    """Tell whether this process runs on the host that reaches the storage."""
    return backend.host == settings.VOLMIG_HOST


# -- backends and their reports ---------------------------------------------------------------------------------


def masked_options(backend: Backend) -> dict[str, Any]:
    """Return the options with the secret ones masked, for every page and answer."""
    try:
        cls = driver_class(backend.driver)
    except BadOptions:
        # One backend whose driver is gone must not take the list of all away; secrets are not among these.
        return dict(backend.options)
    hidden = {
        info.name: secrets.MASK
        for info in describe_options(cls.options_class)
        if info.is_secret and backend.secret_options
    }
    return {**backend.options, **hidden}


def set_options(backend: Backend, values: Mapping[str, Any]) -> None:
    """
    Put *values* into *backend* (not saved), secrets encrypted.  A secret that is masked or empty keeps its value.

    Raises:
        BadOptions: Names everything that is wrong.
    """
    cls = driver_class(backend.driver)
    secret_names = {info.name for info in describe_options(cls.options_class) if info.is_secret}
    kept = secrets.unseal(backend.secret_options) if backend.secret_options else {}
    given = {k: v for k, v in values.items() if k not in secret_names or v not in ("", None, secrets.MASK)}
    merged = {**{k: v for k, v in kept.items() if k in secret_names}, **given}
    build_options(cls.options_class, merged)
    backend.options, secret = split_options(merged, secret_names)
    backend.secret_options = secrets.seal(secret)


def register_backend(address: str, driver: str, options: Mapping[str, Any], **fields: Any) -> Backend:
    """
    Return the new backend `host@backend`, with its pools when its host is this one.

    Raises:
        InventoryRefused: The address is taken or no address.
        BadOptions, NotReady ...: What the driver says of the options and the storage; nothing was saved.
    """
    try:
        parsed = PoolAddress.parse(address)
    except ValueError as error:
        raise InventoryRefused(str(error)) from None
    if parsed.pool:
        raise InventoryRefused(f"'{address}' names a pool; a backend is written HOST@BACKEND.")
    backend = Backend(host=parsed.host, name=parsed.backend, driver=driver, **fields)
    set_options(backend, options)
    try:
        backend.full_clean(validate_unique=False, validate_constraints=False)
        with transaction.atomic():
            backend.save()
            if is_local(backend):
                _store_report(backend, _ask(backend))
    except ValidationError as error:
        raise InventoryRefused(" ".join(error.messages)) from None
    except IntegrityError:
        raise InventoryRefused(
            f"There is a backend '{address}' already. Change it in the admin, or choose another name."
        ) from None
    return backend


def refresh_backend(backend: Backend) -> None:
    """
    Ask the storage of *backend* how it is and store the answer, or why there was none.

    Raises:
        DriverError: The storage did not answer properly; that is stored too and shown.

    Safe to repeat: yes.
    """
    try:
        stats = _ask(backend)
    except DriverError as error:
        Backend.objects.filter(pk=backend.pk).update(last_error=str(error), last_error_at=Now())
        raise
    with transaction.atomic():
        _store_report(backend, stats)


def refresh_host(host: str) -> dict[str, str]:
    """Refresh every backend of *host* and return address -> error text, empty text when it went well."""
    result: dict[str, str] = {}
    for backend in Backend.objects.filter(host=host).prefetch_related("pools"):
        try:
            refresh_backend(backend)
            result[backend.address] = ""
        except DriverError as error:
            logger.warning("backend %s: %s", backend.address, error)
            result[backend.address] = str(error)
    return result


def _ask(backend: Backend) -> list[PoolStats]:
    with make_driver(backend) as driver:
        driver.check()
        return driver.pools()


def _store_report(backend: Backend, stats: list[PoolStats]) -> None:
    for pool in stats:
        Pool.objects.update_or_create(
            backend=backend,
            name=pool.name,
            defaults={
                "storage_id": pool.storage_id,
                "total_bytes": pool.total_bytes,
                "free_bytes": pool.free_bytes,
                "provisioned_bytes": pool.provisioned_bytes,
                "volume_count": pool.volume_count,
                "is_infinite": pool.is_infinite,
                "is_read_only": pool.is_read_only,
                "thin_provisioning_support": pool.thin_provisioning_support,
                "thick_provisioning_support": pool.thick_provisioning_support,
                "location_info": dict(pool.location_info),
                "capabilities": dict(pool.capabilities),
                "reported_at": Now(),
            },
        )
    Backend.objects.filter(pk=backend.pk).update(reported_at=Now(), last_error="", last_error_at=None)


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a backend can be a destination, and since when it has not been heard of."""

    is_up: bool
    down_reason: str
    age_seconds: float | None


def health(backend: Backend, reported_at: datetime | None = None) -> Health:
    """Return the health of *backend* from its last report (of the pool's, when given)."""
    reported = reported_at or backend.reported_at
    age = (timezone.now() - reported).total_seconds() if reported else None
    if backend.last_error:
        return Health(False, backend.last_error, age)
    if age is None:
        return Health(False, f"It has never reported. Is the worker of host '{backend.host}' running?", None)
    if age > settings.VOLMIG_STALE_REPORT_SECONDS:
        return Health(
            False,
            f"Its last report is {duration_text(age)} old, the limit is "
            f"{duration_text(settings.VOLMIG_STALE_REPORT_SECONDS).removeprefix('about ')}. "
            f"Is the worker of host '{backend.host}' running?",
            age,
        )
    return Health(True, "", age)


# -- finding by what a person types ----------------------------------------------------------------------------


def find_volume(text: str) -> Volume:
    """
    Return the volume whose id or name is *text*.

    Raises:
        UnknownName: There is none, or the name fits several; the text lists their ids.
    """
    query = Volume.objects.select_related("pool__backend", "volume_type")
    try:
        return query.get(pk=uuid.UUID(text))
    except (ValueError, Volume.DoesNotExist):
        pass
    found = list(query.filter(name=text)[:6])
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(str(v.pk) for v in found)
        raise UnknownName(f"Several volumes are called '{text}'. Use the id of one of them: {ids}.")
    # Only names that begin alike: there may be a million.
    names = query.filter(name__istartswith=text[:2]).order_by("name").values_list("name", flat=True)[:1000]
    meant = _did_you_mean(text, list(names))
    raise UnknownName(f"There is no volume '{text}'. {meant}`manage.py list_volumes` shows what there is.")


def _did_you_mean(text: str, names: list[str]) -> str:
    """Return a question that names the nearest of *names*, empty when none is near."""
    by_lower_case = {name.lower(): name for name in names}
    near = difflib.get_close_matches(text.strip().lower(), list(by_lower_case), n=1)
    return f"Did you mean '{by_lower_case[near[0]]}'? " if near else ""


def find_backend(address: str) -> Backend:
    """Return the backend `HOST@BACKEND`.  Raises `UnknownName` listing what there is."""
    try:
        parsed = PoolAddress.parse(address)
        return Backend.objects.get(host=parsed.host, name=parsed.backend)
    except (ValueError, Backend.DoesNotExist):
        known = [b.address for b in Backend.objects.all()[:200]]
        listed = ", ".join(known[:20]) or "none yet"
        meant = _did_you_mean(address, known)
        raise UnknownName(f"There is no backend '{address}'. {meant}There are: {listed}.") from None


def find_pool(address: str) -> Pool:
    """Return the pool `HOST@BACKEND#POOL`; without `#POOL` the only one of the backend.  Raises `UnknownName`."""
    try:
        parsed = PoolAddress.parse(address)
    except ValueError as error:
        raise UnknownName(str(error)) from None
    pools = Pool.objects.select_related("backend").filter(
        backend__host=parsed.host, backend__name=parsed.backend
    )
    found = list(pools.filter(name=parsed.pool) if parsed.pool else pools)
    if len(found) == 1:
        return found[0]
    known = [str(p) for p in Pool.objects.select_related("backend")[:200]]
    listed = ", ".join(known[:20]) or "none yet"
    raise UnknownName(f"'{address}' is not one pool. {_did_you_mean(address, known)}There are: {listed}.")


def find_volume_type(name: str) -> VolumeType:
    """Return the volume type *name*.  Raises `UnknownName` listing what there is."""
    found = VolumeType.objects.filter(name=name).first()
    if found is not None:
        return found
    known = list(VolumeType.objects.values_list("name", flat=True)[:200])
    listed = ", ".join(known[:20]) or "none yet"
    raise UnknownName(f"There is no volume type '{name}'. {_did_you_mean(name, known)}There are: {listed}.")


# -- volume types -----------------------------------------------------------------------------------------------


def find_snapshot(volume: Volume, text: str) -> Snapshot:
    """Return the snapshot of *volume* whose id or name is *text*.  Raises `UnknownName` listing what there is."""
    snapshots = list(volume.snapshots.all())
    found = [s for s in snapshots if text in (str(s.pk), s.name)]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(str(s.pk) for s in found)
        raise UnknownName(
            f"Several snapshots of '{volume.name}' are called '{text}'. Use the id of one: {ids}."
        )
    listed = ", ".join(f"'{s.name}'" for s in snapshots[:20]) or "none"
    raise UnknownName(f"The volume '{volume.name}' has no snapshot '{text}'. It has: {listed}.")


def create_volume_type(name: str, extra_specs: Mapping[str, str], *, description: str = "") -> VolumeType:
    """Return the new volume type.  Raises `InventoryRefused` when the name is taken or no name."""
    volume_type = VolumeType(name=name, extra_specs=dict(extra_specs), description=description)
    try:
        volume_type.full_clean()
    except ValidationError as error:
        raise InventoryRefused(" ".join(error.messages)) from None
    volume_type.save()
    return volume_type


# -- volumes ----------------------------------------------------------------------------------------------------


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


# -- changing a volume --------------------------------------------------------------------------------------------


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
        raise VolumeBusy(_why_not(volume.pk, "deleted"))
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
                raise VolumeBusy(_why_not(volume.pk, what))
            yield pool, driver


# -- attaching ---------------------------------------------------------------------------------------------------


def attach(volume: Volume, attached_to: str, *, mountpoint: str = "", user: Any = None) -> Attachment:
    """
    Return the new attachment; the volume is `in-use` from now on.

    Raises:
        VolumeBusy: It migrates, is attached already, or is not `available`.
    """
    with transaction.atomic():
        taken = Volume.objects.filter(
            pk=volume.pk, status=Volume.Status.AVAILABLE, locked_by_migration=None
        ).update(status=Volume.Status.IN_USE)
        if not taken:
            raise VolumeBusy(_why_not(volume.pk, "attached"))
        return Attachment.objects.create(
            volume_id=volume.pk, attached_to=attached_to, mountpoint=mountpoint, attached_by=user
        )


def detach(volume: Volume) -> Attachment:
    """
    Return the attachment that has just ended; the volume is `available` again.

    Raises:
        VolumeBusy: It migrates, or is not attached.
    """
    with transaction.atomic():
        freed = Volume.objects.filter(
            pk=volume.pk, status=Volume.Status.IN_USE, locked_by_migration=None
        ).update(status=Volume.Status.AVAILABLE)
        attachment = Attachment.objects.filter(volume_id=volume.pk, detached_at=None).first()
        if not freed or attachment is None:
            raise VolumeBusy(_why_not(volume.pk, "detached"))
        attachment.detached_at = timezone.now()
        attachment.save(update_fields=["detached_at"])
        return attachment


def _why_not(volume_id: uuid.UUID, what: str) -> str:
    volume = Volume.objects.get(pk=volume_id)
    if volume.locked_by_migration:
        return (
            f"The volume '{volume.name}' cannot be {what} while migration {volume.locked_by_migration} works on it. "
            "Wait until it has ended, or cancel it."
        )
    current = volume.attachments.filter(detached_at=None).first()
    if current and what == "attached":
        return f"The volume '{volume.name}' is attached to {current} already. Detach it first."
    return f"The volume '{volume.name}' cannot be {what}: its status is '{volume.status}'."


# -- what the storage says of a volume --------------------------------------------------------------------------


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
