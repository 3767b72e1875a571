"""A driver of another host's backend: the same contract, asked of that host's worker."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from django.conf import settings

from backends import services as inventory
from backends.drivers.base import Driver, DriverContext
from backends.drivers.options import Options
from backends.drivers.ports import Port
from backends.drivers.registry import driver_class
from backends.drivers.types import (
    Capabilities,
    Declined,
    MoveStatus,
    OpenMode,
    PoolStats,
    StoredVolume,
    Support,
    Usage,
)
from backends.models import Backend
from migrations_app.remote.asking import Right, ask
from migrations_app.remote.port import open_port
from migrations_app.remote.values import unpack


def driver_for(backend: Backend, right: Right | None = None) -> Driver:
    """
    Return a driver of *backend*, wherever its host is.

    Args:
        right: Needed to change anything on another host; without it one can only look.
    """
    return inventory.make_driver(backend) if inventory.is_local(backend) else RemoteDriver(backend, right)


class RemoteDriver(Driver):
    """
    A backend of another host.

    Each call is one call there, with the same outcome: the same values, or an error of the same class with the same
    words; besides, any call may raise `HostAway`.  Native moves are the source's business and declined here.
    """

    name: ClassVar[str] = "remote"
    label: ClassVar[str] = "a backend of another host"
    storage_protocol: ClassVar[str] = ""
    capabilities: ClassVar[Capabilities] = Capabilities()
    options_class: ClassVar[type[Options]] = Options

    def __init__(self, backend: Backend, right: Right | None = None) -> None:
        # Options, and the secrets among them, are read where they are used.
        super().__init__(DriverContext(backend.address, settings.VOLMIG_HOST, Options()))
        self.backend = backend
        self._right = right
        there = driver_class(backend.driver)
        self.name, self.label, self.storage_protocol = there.name, there.label, there.storage_protocol
        self.capabilities = dataclasses.replace(there.capabilities, move=Support.NONE)

    def _ask(self, operation: str, **arguments: Any) -> Any:
        return unpack(ask(self.backend, operation, arguments, self._right).result)

    # -- looking ---------------------------------------------------------------------------------------------

    def check(self) -> None:
        self._ask("check")

    def pools(self) -> list[PoolStats]:
        return self._ask("pools")

    def list_volumes(self, pool: str) -> Iterator[StoredVolume]:
        self._check_pool_name(pool)
        return iter(self._ask("list_volumes", pool=pool))

    def _describe(self, pool: str, name: str) -> StoredVolume:
        return self._ask("describe", pool=pool, name=name)

    def _usage(self, pool: str, name: str) -> list[Usage]:
        return self._ask("usage", pool=pool, name=name)

    def _snapshots(self, pool: str, name: str) -> list[str]:
        return self._ask("snapshots", pool=pool, name=name)

    # -- changing --------------------------------------------------------------------------------------------

    def _create(self, pool: str, name: str, size_bytes: int, thin: bool) -> StoredVolume:
        return self._ask("create", pool=pool, name=name, size_bytes=size_bytes, thin=thin)

    def ensure(self, pool: str, name: str, size_bytes: int, *, thin: bool = True) -> StoredVolume:
        self._check_names(pool, name)
        return self._ask("ensure", pool=pool, name=name, size_bytes=size_bytes, thin=thin)

    def _delete(self, pool: str, name: str) -> None:
        self._ask("delete", pool=pool, name=name)

    def _rename(self, pool: str, name: str, new_name: str) -> None:
        self._ask("rename", pool=pool, name=name, new_name=new_name)

    def extend(self, pool: str, name: str, size_bytes: int) -> StoredVolume:
        self._check_names(pool, name)
        return self._ask("extend", pool=pool, name=name, size_bytes=size_bytes)

    def _create_snapshot(self, pool: str, name: str, snapshot: str) -> None:
        self._ask("create_snapshot", pool=pool, name=name, snapshot=snapshot)

    def _delete_snapshot(self, pool: str, name: str, snapshot: str) -> None:
        self._ask("delete_snapshot", pool=pool, name=name, snapshot=snapshot)

    def _open(self, pool: str, name: str, mode: OpenMode) -> Port:
        return open_port(self.backend, pool, name, mode, self._right)

    def _list_volumes(self, pool: str) -> Iterator[StoredVolume]:
        return self.list_volumes(pool)

    def _start_move(
        self, pool: str, name: str, destination: Mapping[str, Any], destination_pool: str, new_name: str
    ) -> MoveStatus | Declined:
        return Declined(f"A move from host '{self.backend.host}' is made by that host's worker.")
