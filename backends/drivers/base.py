"""
The driver contract.

Life of a driver object::

    __init__ (no I/O) -> check() -> pools / describe / create / open / ... in any order -> close()

A driver object is made for one unit of work and thrown away; nothing that must survive may live in it, and `close`
is not guaranteed to be called.  Names of volumes are given by the core; a driver never invents one.  The public
methods check arguments once and call the `_hooks` that a driver writes.

What storage must guarantee: a volume that was created is found by its name until it is deleted; bytes that were
written and flushed are read back; an object that was deleted does not come back.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, Self

from backends.drivers.errors import AlreadyExists, NotFound, NotReady, Permanent, Unsupported
from backends.drivers.options import Options
from backends.drivers.ports import Port
from backends.drivers.types import (
    Capabilities,
    Declined,
    MovePlan,
    MoveStatus,
    OpenMode,
    PoolStats,
    StoredVolume,
    Usage,
    is_object_name,
)


@dataclass(frozen=True)
class DriverContext:
    """
    What a driver is made from.

    `known_storage_ids` maps a pool's name to the identity that it had when it was registered; a driver raises
    `NotReady` when another place answers under that name (a file system that is not mounted).
    """

    backend: str
    host: str
    options: Options
    known_storage_ids: Mapping[str, str] = field(default_factory=dict)


class Driver(abc.ABC):
    """One backend, seen from the host that can reach it."""

    #: Name used in `add_backend --driver`.
    name: ClassVar[str]
    #: One line for people.
    label: ClassVar[str]
    #: Shown as `storage_protocol`.
    storage_protocol: ClassVar[str]
    capabilities: ClassVar[Capabilities]
    options_class: ClassVar[type[Options]]

    def __init__(self, context: DriverContext) -> None:
        self.context = context
        self.options: Any = context.options

    # -- the backend ------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def check(self) -> None:
        """
        Return when the backend can be used as configured.

        Called before the first other call of a driver object, and by `refresh_backends`.

        Raises:
            NotReady: With what is missing and how to mend it.
            NotPermitted, ConnectionLost, TimedOut.

        Safe to repeat: yes.
        """

    @abc.abstractmethod
    def pools(self) -> list[PoolStats]:
        """
        Return every pool with its statistics as they are now, at least one.

        Safe to repeat: yes.  Must not take more than a few seconds: it is called every minute.
        """

    # -- volumes ----------------------------------------------------------------------------------------------

    def list_volumes(self, pool: str) -> Iterator[StoredVolume]:
        """Yield what lies on *pool*, volumes of other owners included, in no order.  Safe to repeat: yes."""
        self._check_pool_name(pool)
        return self._list_volumes(pool)

    def describe(self, pool: str, name: str) -> StoredVolume:
        """
        Return the volume *name* as it lies on the storage.

        Raises:
            NotFound: There is none.

        Safe to repeat: yes.
        """
        self._check_names(pool, name)
        return self._describe(pool, name)

    def create(self, pool: str, name: str, size_bytes: int, *, thin: bool = True) -> StoredVolume:
        """
        Return the volume just made, of exactly *size_bytes* (1 or more), found by `describe` from now on.

        Raises:
            AlreadyExists: Nothing was changed.
            NoSpace, NotPermitted, Unsupported (when *thin* cannot be given).

        Safe to repeat: no, see `ensure`.  Durable on return: yes.
        """
        self._check_names(pool, name)
        if size_bytes < 1:
            raise Permanent(
                f"A volume of {size_bytes} bytes cannot be made; the size must be 1 byte or more.",
                backend=self.context.backend,
                operation="create",
                volume=name,
            )
        return self._create(pool, name, size_bytes, thin)

    def ensure(self, pool: str, name: str, size_bytes: int, *, thin: bool = True) -> StoredVolume:
        """
        Return the volume *name*, made now or by an earlier call.

        Raises:
            AlreadyExists: There is one of that name and another size.
            As `create`.

        Safe to repeat: yes.  Durable on return: yes.
        """
        try:
            return self.create(pool, name, size_bytes, thin=thin)
        except AlreadyExists:
            found = self.describe(pool, name)
            if found.size_bytes != size_bytes:
                raise AlreadyExists(
                    f"'{name}' exists in pool '{pool}' with {found.size_bytes} bytes instead of {size_bytes}.",
                    backend=self.context.backend,
                    operation="ensure",
                    volume=name,
                    remedy="Look at what it is; nothing was changed.",
                ) from None
            return found

    def delete(self, pool: str, name: str) -> None:
        """
        Return when there is no volume *name*; it is no error that there was none.

        Raises:
            InUse: Somebody holds it; nothing was changed.
            NotPermitted, ConnectionLost.

        Safe to repeat: yes.  Durable on return: yes.
        """
        self._check_names(pool, name)
        try:
            self._delete(pool, name)
        except NotFound:
            return

    def rename(self, pool: str, name: str, new_name: str) -> None:
        """
        Return when the volume *name* is called *new_name*.

        Raises:
            NotFound: There is no *name*.
            AlreadyExists: There is a *new_name*; nothing was changed.

        Safe to repeat: no; after a lost reply look with `describe`.  Durable on return: yes.
        """
        self._check_names(pool, name)
        self._check_names(pool, new_name)
        self._rename(pool, name, new_name)

    def open(self, pool: str, name: str, mode: OpenMode) -> Port:
        """
        Return the volume as a port, to be used in a `with` block.

        SOURCE and WRITE exclude each other and every other user that takes part in the storage's locking.

        Raises:
            NotFound.
            InUse: Somebody else holds it; the message says who, as far as it can be found out.

        Safe to repeat: yes.
        """
        self._check_names(pool, name)
        return self._open(pool, name, mode)

    @property
    def reads_beside_writer(self) -> bool:
        """
        Tell whether a VERIFY port may be opened beside a WRITE port, and sees all that was flushed through that one.

        If not overridden: false; the copy is then read back when all of it is made.
        """
        return False

    def usage(self, pool: str, name: str) -> list[Usage]:
        """
        Return who uses the volume outside of this project; empty when nobody does as far as can be told.

        Raises:
            NotFound.

        Safe to repeat: yes.
        """
        self._check_names(pool, name)
        return self._usage(pool, name)

    def snapshots(self, pool: str, name: str) -> list[str]:
        """
        Return the names of the snapshots that the storage itself holds of the volume.

        Raises:
            NotFound.

        If not overridden: none.   Safe to repeat: yes.
        """
        self._check_names(pool, name)
        return self._snapshots(pool, name)

    def extend(self, pool: str, name: str, size_bytes: int) -> StoredVolume:
        """
        Return the volume with its new size; what was added reads as zeros if new volumes do.

        Called only with more than the recorded size, while nobody uses the volume.

        Raises:
            NotFound, InUse, NoSpace, NotPermitted.
            Unsupported: The storage cannot, or *size_bytes* is less than the volume has.

        If not overridden: `Unsupported`.   Safe to repeat: yes.   Durable on return: yes.
        """
        self._check_names(pool, name)
        found = self._describe(pool, name)
        if found.size_bytes == size_bytes:
            return found
        if found.size_bytes > size_bytes:
            raise Unsupported(
                f"'{name}' has {found.size_bytes} bytes; volumes are never made smaller.",
                backend=self.context.backend,
                operation="extend",
                volume=name,
            )
        return self._extend(pool, name, size_bytes)

    def create_snapshot(self, pool: str, name: str, snapshot: str) -> None:
        """
        Return when the storage holds a snapshot of the volume, listed by `snapshots`.

        If not overridden: `Unsupported`.   Safe to repeat: yes.   Durable on return: yes.
        """
        self._check_names(pool, name)
        self._check_names(pool, snapshot)
        self._create_snapshot(pool, name, snapshot)

    def delete_snapshot(self, pool: str, name: str, snapshot: str) -> None:
        """Return when the volume has no such snapshot.  If not overridden: `Unsupported`.  Safe to repeat: yes."""
        self._check_names(pool, name)
        self._check_names(pool, snapshot)
        self._delete_snapshot(pool, name, snapshot)

    # -- native moves -----------------------------------------------------------------------------------------

    @classmethod
    def plan_move(cls, source: Mapping[str, Any], destination: Mapping[str, Any]) -> MovePlan | Declined:
        """
        Return how this driver would move a volume between two pools, from their `location_info` alone.

        Called by the scheduler for every destination, on any host: no I/O.  What is found here is checked again
        by `start_move`.

        If not overridden: declines.
        """
        return Declined(f"The driver '{cls.name}' has no move of its own.")

    def start_move(
        self, pool: str, name: str, destination: Mapping[str, Any], destination_pool: str, new_name: str
    ) -> MoveStatus | Declined:
        """
        Start, or look at, the move of *name* to *destination_pool* under *new_name*.

        The source stays complete and readable until `finish_move`: the record still points at it.

        Args:
            destination: `location_info` of the destination pool.

        Returns:
            The status of the move, finished or not (see `poll_move`), or why the driver leaves it to the copy.
            After `Declined` nothing was made at the destination.

        Safe to repeat: yes, also after a kill at any point.  Durable once finished: yes.
        """
        self._check_names(pool, name)
        self._check_names(destination_pool, new_name)
        return self._start_move(pool, name, destination, destination_pool, new_name)

    def poll_move(
        self, pool: str, name: str, destination: Mapping[str, Any], destination_pool: str, new_name: str
    ) -> MoveStatus:
        """
        Return how far a started move is.  Called every few seconds until it is finished.

        If not overridden: for drivers whose `start_move` always finishes; raises `Unsupported`.
        """
        raise Unsupported(f"The driver '{self.name}' has no moves that run by themselves.")

    def cancel_move(
        self, pool: str, name: str, destination: Mapping[str, Any], destination_pool: str, new_name: str
    ) -> None:
        """
        Return when the source is as before and nothing of *new_name* is left.

        Called before the record has moved, also when nothing was started.

        If not overridden: does nothing; the core deletes *new_name* at the destination.   Safe to repeat: yes.
        """

    def finish_move(
        self, pool: str, name: str, destination: Mapping[str, Any], destination_pool: str, new_name: str
    ) -> None:
        """
        Return when the source is gone and the destination stands alone.  Called after the record has moved.

        If not overridden: deletes *name*.   Safe to repeat: yes.
        """
        self.delete(pool, name)

    # -- life ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give back what the object holds.  Safe to repeat: yes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- hooks that a driver writes -------------------------------------------------------------------------------

    @abc.abstractmethod
    def _list_volumes(self, pool: str) -> Iterator[StoredVolume]: ...

    @abc.abstractmethod
    def _describe(self, pool: str, name: str) -> StoredVolume: ...

    @abc.abstractmethod
    def _create(self, pool: str, name: str, size_bytes: int, thin: bool) -> StoredVolume: ...

    @abc.abstractmethod
    def _delete(self, pool: str, name: str) -> None: ...

    @abc.abstractmethod
    def _rename(self, pool: str, name: str, new_name: str) -> None: ...

    @abc.abstractmethod
    def _open(self, pool: str, name: str, mode: OpenMode) -> Port: ...

    @abc.abstractmethod
    def _usage(self, pool: str, name: str) -> list[Usage]: ...

    def _snapshots(self, pool: str, name: str) -> list[str]:
        self._describe(pool, name)
        return []

    def _extend(self, pool: str, name: str, size_bytes: int) -> StoredVolume:
        raise Unsupported(f"The driver '{self.name}' cannot extend volumes.", backend=self.context.backend)

    def _create_snapshot(self, pool: str, name: str, snapshot: str) -> None:
        raise Unsupported(f"The driver '{self.name}' has no snapshots.", backend=self.context.backend)

    def _delete_snapshot(self, pool: str, name: str, snapshot: str) -> None:
        raise Unsupported(f"The driver '{self.name}' has no snapshots.", backend=self.context.backend)

    def _start_move(
        self, pool: str, name: str, destination: Mapping[str, Any], destination_pool: str, new_name: str
    ) -> MoveStatus | Declined:
        return Declined(f"The driver '{self.name}' has no move of its own.")

    # -- argument checks ------------------------------------------------------------------------------------------

    def _check_pool_name(self, pool: str) -> None:
        if not is_object_name(pool):
            raise NotReady(f"'{pool}' is not a pool of {self.context.backend}.", backend=self.context.backend)

    def _check_names(self, pool: str, name: str) -> None:
        self._check_pool_name(pool)
        if not is_object_name(name):
            raise Permanent(
                f"'{name}' cannot be the name of a volume: 1 to 128 letters, digits, '.', '_' and '-', "
                "the first a letter or a digit.",
                backend=self.context.backend,
                volume=name,
            )
