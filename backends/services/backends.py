"""Backends: their options, their registration, and what they report."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from backends import secrets
from backends.drivers.errors import BadOptions, DriverError
from backends.drivers.options import build_options, describe_options
from backends.drivers.registry import driver_class
from backends.drivers.types import PoolAddress, PoolStats
from backends.models import Backend, Pool, split_options
from backends.services.driving import is_local, make_driver
from backends.services.errors import InventoryRefused

logger = logging.getLogger(__name__)


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
