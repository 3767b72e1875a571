"""Values and errors of the driver contract as JSON, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from backends.drivers import errors
from backends.drivers.errors import DriverError, Transient
from backends.drivers.types import PoolStats, StoredVolume, Usage
from migrations_app.saga.step import LeaseLost

_VALUES: dict[str, type] = {cls.__name__: cls for cls in (PoolStats, StoredVolume, Usage)}
_LEASE_LOST = "LeaseLost"


def pack(value: Any) -> Any:
    """Return *value*, an answer of a driver, as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"is": type(value).__name__, **dataclasses.asdict(value)}
    if isinstance(value, list | tuple):
        return [pack(item) for item in value]
    return value


def unpack(value: Any) -> Any:
    """Return what `pack` was given."""
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if isinstance(value, dict) and "is" in value:
        fields = dict(value)
        return _VALUES[fields.pop("is")](**fields)
    return value


def pack_error(error: BaseException, host: str) -> dict[str, str]:
    """Return what went wrong on *host* as JSON values."""
    if isinstance(error, LeaseLost):
        return {"class": _LEASE_LOST, "message": str(error)}
    if not isinstance(error, DriverError):
        error = Transient(
            f"Unforeseen error {type(error).__name__} on host '{host}': {error}.",
            remedy="The log of that host's worker has the details.",
        )
    # A class of a driver's own is told as the contract's class that it belongs to.
    name = next(cls.__name__ for cls in type(error).__mro__ if getattr(errors, cls.__name__, None) is cls)
    return {
        "class": name,
        "message": error.message,
        "backend": error.backend,
        "operation": error.operation,
        "volume": error.volume,
        "remedy": error.remedy,
    }


def unpack_error(packed: Mapping[str, str]) -> Exception:
    """Return the error, of the same class and with the same words."""
    fields = dict(packed)
    name, message = fields.pop("class"), fields.pop("message")
    if name == _LEASE_LOST:
        return LeaseLost(message)
    return getattr(errors, name, Transient)(message, **fields)
