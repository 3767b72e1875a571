"""From the record of a backend to its driver."""

from __future__ import annotations

from django.conf import settings

from backends import secrets
from backends.drivers.base import Driver, DriverContext
from backends.drivers.options import build_options
from backends.drivers.registry import driver_class
from backends.models import Backend


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
