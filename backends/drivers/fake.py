"""
A storage system that lives in the memory of this process, for tests and for trying things out.

Driver objects of one process that have the same option `store` see the same storage.  It keeps what real
storage keeps (exclusive opening, room, holes), and forgets what was not flushed when a test calls
`FakeStore.lose_power`.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from backends.drivers.base import Driver
from backends.drivers.errors import (
    AlreadyExists,
    CorruptData,
    InUse,
    NoSpace,
    NotFound,
    NotPermitted,
    NotReady,
)
from backends.drivers.options import Options, option
from backends.drivers.ports import Extent, ExtentKind, Port
from backends.drivers.types import (
    GIB,
    Capabilities,
    Declined,
    MovePlan,
    MoveStatus,
    OpenMode,
    PoolStats,
    StoredVolume,
    Support,
    Usage,
    is_object_name,
)

PAGE_BYTES = 4096
_NO_PAGE = bytes(PAGE_BYTES)
_DIRTY_PAGE = b"\xa5" * PAGE_BYTES
_identities = itertools.count(1)


@dataclass(frozen=True)
class FakeOptions(Options):
    """Options of the fake driver."""

    store: str = option("Name of the storage in memory; backends with one name share it.", default="default")
    pools: str = option("Names of the pools, separated by commas.", default="main", example="fast,slow")
    capacity_bytes: int = option("Size of each pool in bytes.", default=10 * GIB)
    password: str = option("Password; nothing is done with it.", default="", secret=True)
    slow_move_polls: int = option("How often a native move is looked at before it is finished.", default=0)
    dirty_new_volumes: bool = option("Whether a new volume holds something else than zeros.", default=False)

    def __post_init__(self) -> None:
        wrong = [name for name in self.pool_names if not is_object_name(name)]
        if wrong or not self.pool_names:
            raise ValueError(f"pools: '{self.pools}' is not a list of names such as fast,slow")

    @property
    def pool_names(self) -> list[str]:
        """The pools, in the order given."""
        return [name.strip() for name in self.pools.split(",")]


@dataclass
class FakeVolume:
    """One volume.  Tests may set `snapshots` and `usage`."""

    name: str
    size_bytes: int
    is_thin: bool
    is_dirty: bool = False
    identity: str = field(default_factory=lambda: f"fake-{next(_identities)}")
    snapshots: list[str] = field(default_factory=list)
    usage: list[Usage] = field(default_factory=list)
    #: What a page holds; a page that is missing was never written.
    pages: dict[int, bytes] = field(default_factory=dict)
    #: What a page held at the last flush (None: nothing), for pages written since.
    unflushed: dict[int, bytes | None] = field(default_factory=dict)
    #: The port that has it open exclusively.
    holder: FakePort | None = None
    #: Identity of the volume that a native move made this one from.
    moved_from: str = ""

    @property
    def blank_page(self) -> bytes:
        """What a page reads as that was never written."""
        return _DIRTY_PAGE if self.is_dirty else _NO_PAGE

    @property
    def allocated_bytes(self) -> int:
        return len(self.pages) * PAGE_BYTES if self.is_thin else self.size_bytes

    def set_page(self, index: int, content: bytes | None) -> None:
        """Give a page its content, None for none at all."""
        self.unflushed.setdefault(index, self.pages.get(index))
        self.restore_page(index, content)

    def restore_page(self, index: int, content: bytes | None) -> None:
        if content is None:
            self.pages.pop(index, None)
        else:
            self.pages[index] = content


class FakeStore:
    """A storage system: pools of volumes.  `FakeStore.named` finds or makes it."""

    _all: dict[str, FakeStore] = {}
    _all_lock = threading.Lock()

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = threading.RLock()
        self.volumes: dict[tuple[str, str], FakeVolume] = {}
        #: Polls left of each move that runs by itself.
        self.moves: dict[tuple[str, str, str, str], int] = {}
        #: Set to make every `check` fail with `NotReady`.
        self.broken = ""

    @classmethod
    def named(cls, name: str) -> FakeStore:
        with cls._all_lock:
            return cls._all.setdefault(name, FakeStore(name))

    @classmethod
    def forget_all(cls) -> None:
        """Start afresh, between tests."""
        with cls._all_lock:
            cls._all.clear()

    def volume(self, pool: str, name: str) -> FakeVolume:
        """Return the volume; `KeyError` when there is none."""
        return self.volumes[pool, name]

    def in_pool(self, pool: str) -> list[FakeVolume]:
        with self.lock:
            return [volume for (where, _), volume in self.volumes.items() if where == pool]

    def allocated_bytes(self, pool: str) -> int:
        return sum(volume.allocated_bytes for volume in self.in_pool(pool))

    def storage_id(self, pool: str) -> str:
        return f"fake:{self.name}/{pool}"

    def lose_power(self) -> None:
        """Forget what was written since the last flush of each port, and who had what open."""
        with self.lock:
            for volume in self.volumes.values():
                for index, content in volume.unflushed.items():
                    volume.restore_page(index, content)
                volume.unflushed.clear()
                volume.holder = None


class FakePort(Port):
    """A volume of a `FakeStore`."""

    block_size_bytes = PAGE_BYTES

    def __init__(
        self, store: FakeStore, pool: str, volume: FakeVolume, mode: OpenMode, capacity_bytes: int
    ) -> None:
        self._store = store
        self._pool = pool
        self._volume = volume
        self._mode = mode
        self._capacity_bytes = capacity_bytes
        self._is_open = True
        self.size_bytes = volume.size_bytes
        self.reads_zero_when_new = not volume.is_dirty
        self.is_exclusive = mode is not OpenMode.VERIFY

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        self._check(offset, length)
        position, end = offset, offset + length
        if self._volume.is_dirty and length:
            # What was never written is not zero, so there are no holes.
            yield Extent(offset, length, ExtentKind.DATA)
            return
        for start, stop in self._written_runs(offset, end):
            if start > position:
                yield Extent(position, start - position, ExtentKind.HOLE)
            yield Extent(start, stop - start, ExtentKind.DATA)
            position = stop
        if position < end:
            yield Extent(position, end - position, ExtentKind.HOLE)

    def _written_runs(self, offset: int, end: int) -> list[tuple[int, int]]:
        """Return the (start, end) of neighbouring pages that were written, cut to the range."""
        with self._store.lock:
            indexes = sorted(self._volume.pages)
        runs: list[tuple[int, int]] = []
        for index in indexes:
            start, stop = max(offset, index * PAGE_BYTES), min(end, (index + 1) * PAGE_BYTES)
            if start >= stop:
                continue
            if runs and runs[-1][1] == start:
                start = runs.pop()[0]
            runs.append((start, stop))
        return runs

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._check(offset, len(buffer))
        with self._store.lock:
            for index, start, stop, at in _pages_of(offset, len(buffer)):
                page = self._volume.pages.get(index, self._volume.blank_page)
                buffer[at : at + stop - start] = page[start:stop]

    def write(self, offset: int, buffer: memoryview) -> None:
        self._check_writable("write")
        self._check(offset, len(buffer))
        with self._store.lock:
            self._check_room(offset, len(buffer))
            for index, start, stop, at in _pages_of(offset, len(buffer)):
                old = self._volume.pages.get(index, self._volume.blank_page)
                new = bytes(buffer[at : at + stop - start])
                self._volume.set_page(index, old[:start] + new + old[stop:])

    def zero(self, offset: int, length: int) -> None:
        self._check_writable("zero")
        self._check(offset, length)
        with self._store.lock:
            for index, start, stop, _ in _pages_of(offset, length):
                if stop - start == PAGE_BYTES and not self._volume.is_dirty:
                    self._volume.set_page(index, None)
                    continue
                old = self._volume.pages.get(index, self._volume.blank_page)
                self._volume.set_page(index, old[:start] + bytes(stop - start) + old[stop:])

    def flush(self) -> None:
        self._check(0, 0)
        with self._store.lock:
            self._volume.unflushed.clear()

    def close(self) -> None:
        with self._store.lock:
            if self._volume.holder is self:
                self._volume.holder = None
            self._is_open = False

    def __str__(self) -> str:
        return f"a port opened as {self._mode.value}"

    def _check(self, offset: int, length: int) -> None:
        if not self._is_open:
            raise ValueError(f"the port of {self._volume.name} is closed")
        if offset < 0 or length < 0 or offset + length > self.size_bytes:
            raise ValueError(f"{length} bytes at {offset} are not inside {self.size_bytes} bytes")
        if self._store.volumes.get((self._pool, self._volume.name)) is not self._volume:
            raise CorruptData(f"The volume '{self._volume.name}' was deleted while it was open.")

    def _check_writable(self, operation: str) -> None:
        if self._mode is not OpenMode.WRITE:
            raise NotPermitted(
                f"'{self._volume.name}' was opened as {self._mode.value} and cannot be written.",
                operation=operation,
                volume=self._volume.name,
                remedy="",
            )

    def _check_room(self, offset: int, length: int) -> None:
        if not self._volume.is_thin:
            return
        missing = sum(index not in self._volume.pages for index, *_ in _pages_of(offset, length))
        if self._store.allocated_bytes(self._pool) + missing * PAGE_BYTES > self._capacity_bytes:
            raise NoSpace(
                f"The pool '{self._pool}' is full ({self._capacity_bytes} bytes).",
                operation="write",
                volume=self._volume.name,
            )


def _pages_of(offset: int, length: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (page, first byte in it, end in it, position in the range) for each page of the range."""
    position, end = offset, offset + length
    while position < end:
        index, start = divmod(position, PAGE_BYTES)
        stop = min(PAGE_BYTES, start + end - position)
        yield index, start, stop, position - offset
        position += stop - start


class FakeDriver(Driver):
    """Pools of volumes in memory."""

    name = "fake"
    label = "Memory of this process (for tests)"
    storage_protocol = "fake"
    options_class = FakeOptions
    capabilities = Capabilities(
        thin=Support.NATIVE,
        thick=Support.NATIVE,
        reads_zero_when_new=True,
        move=Support.NATIVE,
        snapshots=Support.NATIVE,
        usage_detection=Support.NATIVE,
    )

    @property
    def store(self) -> FakeStore:
        """The storage that this driver object sees."""
        return FakeStore.named(self.options.store)

    # -- the backend -----------------------------------------------------------------------------------------

    def check(self) -> None:
        if self.store.broken:
            raise NotReady(self.store.broken, backend=self.context.backend, operation="check")
        for pool in self.options.pool_names:
            known = self.context.known_storage_ids.get(pool)
            if known not in (None, self.store.storage_id(pool)):
                raise NotReady(
                    f"The pool '{pool}' is {self.store.storage_id(pool)}, but {known} was registered.",
                    backend=self.context.backend,
                    operation="check",
                )

    def pools(self) -> list[PoolStats]:
        return [self._stats(pool) for pool in self.options.pool_names]

    def _stats(self, pool: str) -> PoolStats:
        volumes = self.store.in_pool(pool)
        capacity = self.options.capacity_bytes
        return PoolStats(
            name=pool,
            storage_id=self.store.storage_id(pool),
            total_bytes=capacity,
            free_bytes=max(0, capacity - self.store.allocated_bytes(pool)),
            provisioned_bytes=sum(volume.size_bytes for volume in volumes),
            volume_count=len(volumes),
            thin_provisioning_support=True,
            thick_provisioning_support=True,
            location_info={
                "driver": self.name,
                "version": 1,
                "host": self.context.host,
                "store": self.options.store,
                "pool": pool,
                "storage_id": self.store.storage_id(pool),
                "slow_move_polls": self.options.slow_move_polls,
            },
        )

    # -- volumes ---------------------------------------------------------------------------------------------

    def _list_volumes(self, pool: str) -> Iterator[StoredVolume]:
        self._check_pool(pool)
        return iter([_stored(volume) for volume in self.store.in_pool(pool)])

    def _describe(self, pool: str, name: str) -> StoredVolume:
        return _stored(self._find(pool, name, "describe"))

    def _create(self, pool: str, name: str, size_bytes: int, thin: bool) -> StoredVolume:
        self._check_pool(pool)
        with self.store.lock:
            self._refuse_existing(pool, name, "create")
            if not thin:
                self._check_room(pool, name, size_bytes)
            volume = FakeVolume(name, size_bytes, is_thin=thin, is_dirty=self.options.dirty_new_volumes)
            self.store.volumes[pool, name] = volume
            return _stored(volume)

    def _delete(self, pool: str, name: str) -> None:
        with self.store.lock:
            volume = self._find(pool, name, "delete")
            users = [f"{volume.holder} holds it"] if volume.holder else list(map(str, volume.usage))
            if users:
                self._refuse_in_use(volume, "delete", "; ".join(users))
            del self.store.volumes[pool, name]

    def _rename(self, pool: str, name: str, new_name: str) -> None:
        with self.store.lock:
            volume = self._find(pool, name, "rename")
            self._refuse_existing(pool, new_name, "rename")
            del self.store.volumes[pool, name]
            volume.name = new_name
            self.store.volumes[pool, new_name] = volume

    def _extend(self, pool: str, name: str, size_bytes: int) -> StoredVolume:
        with self.store.lock:
            volume = self._find(pool, name, "extend")
            volume.size_bytes = size_bytes
            return _stored(volume)

    def _create_snapshot(self, pool: str, name: str, snapshot: str) -> None:
        with self.store.lock:
            snapshots = self._find(pool, name, "create_snapshot").snapshots
            if snapshot not in snapshots:
                snapshots.append(snapshot)

    def _delete_snapshot(self, pool: str, name: str, snapshot: str) -> None:
        with self.store.lock:
            snapshots = self._find(pool, name, "delete_snapshot").snapshots
            if snapshot in snapshots:
                snapshots.remove(snapshot)

    @property
    def reads_beside_writer(self) -> bool:
        return True

    def _open(self, pool: str, name: str, mode: OpenMode) -> Port:
        with self.store.lock:
            volume = self._find(pool, name, "open")
            port = FakePort(self.store, pool, volume, mode, self.options.capacity_bytes)
            if port.is_exclusive:
                if volume.holder:
                    self._refuse_in_use(volume, "open", f"{volume.holder} holds it")
                volume.holder = port
            return port

    def _usage(self, pool: str, name: str) -> list[Usage]:
        return list(self._find(pool, name, "usage").usage)

    def _snapshots(self, pool: str, name: str) -> list[str]:
        return list(self._find(pool, name, "snapshots").snapshots)

    # -- native moves ----------------------------------------------------------------------------------------

    @classmethod
    def plan_move(cls, source: Mapping[str, Any], destination: Mapping[str, Any]) -> MovePlan | Declined:
        if source.get("driver") != cls.name or destination.get("driver") != cls.name:
            return Declined("Only a move inside one fake store can be made by it.")
        if source.get("store") != destination.get("store"):
            return Declined(f"'{source.get('store')}' and '{destination.get('store')}' are two stores.")
        if source.get("storage_id") == destination.get("storage_id"):
            return Declined("Source and destination are the same pool.")
        return MovePlan("fake clone", keeps_source=True, is_instant=not source.get("slow_move_polls"))

    def _start_move(
        self, pool: str, name: str, destination: Mapping[str, Any], destination_pool: str, new_name: str
    ) -> MoveStatus | Declined:
        with self.store.lock:
            plan = self.plan_move(self._stats(pool).location_info, destination)
            if isinstance(plan, Declined):
                return plan
            source = self._find(pool, name, "start_move")
            made = self.store.volumes.get((destination_pool, new_name))
            if made is not None and made.moved_from != source.identity:
                self._refuse_existing(destination_pool, new_name, "start_move")
            key = (pool, name, destination_pool, new_name)
            if made is None:
                self.store.moves.setdefault(key, self.options.slow_move_polls)
            return self._move_status(key, plan, source)

    def poll_move(
        self, pool: str, name: str, destination: Mapping[str, Any], destination_pool: str, new_name: str
    ) -> MoveStatus:
        with self.store.lock:
            plan = self.plan_move(self._stats(pool).location_info, destination)
            source = self._find(pool, name, "poll_move")
            key = (pool, name, destination_pool, new_name)
            if isinstance(plan, Declined) or (
                key not in self.store.moves and (destination_pool, new_name) not in self.store.volumes
            ):
                raise NotFound(
                    f"No move of '{name}' to '{new_name}' was started.",
                    backend=self.context.backend,
                    operation="poll_move",
                    volume=name,
                )
            if key in self.store.moves:
                self.store.moves[key] -= 1
            return self._move_status(key, plan, source)

    def _move_status(self, key: tuple[str, str, str, str], plan: MovePlan, source: FakeVolume) -> MoveStatus:
        """Return the status of the move, making the destination when no polls are left."""
        left = self.store.moves.get(key, 0)
        if left > 0:
            done = source.size_bytes - source.size_bytes * left // (self.options.slow_move_polls + 1)
            return MoveStatus(plan, is_finished=False, done_bytes=done, total_bytes=source.size_bytes)
        if self.store.moves.pop(key, None) is not None:
            *_, destination_pool, new_name = key
            self.store.volumes[destination_pool, new_name] = FakeVolume(
                new_name,
                source.size_bytes,
                is_thin=source.is_thin,
                is_dirty=source.is_dirty,
                pages=dict(source.pages),
                moved_from=source.identity,
            )
        return MoveStatus(plan, is_finished=True, done_bytes=source.size_bytes, total_bytes=source.size_bytes)

    def cancel_move(
        self, pool: str, name: str, destination: Mapping[str, Any], destination_pool: str, new_name: str
    ) -> None:
        with self.store.lock:
            self.store.moves.pop((pool, name, destination_pool, new_name), None)
            source = self.store.volumes.get((pool, name))
            made = self.store.volumes.get((destination_pool, new_name))
            if source is not None and made is not None and made.moved_from == source.identity:
                del self.store.volumes[destination_pool, new_name]

    # -- shared ----------------------------------------------------------------------------------------------

    def _check_pool(self, pool: str) -> None:
        if pool not in self.options.pool_names:
            raise NotReady(f"There is no pool '{pool}'.", backend=self.context.backend)

    def _find(self, pool: str, name: str, operation: str) -> FakeVolume:
        self._check_pool(pool)
        try:
            return self.store.volume(pool, name)
        except KeyError:
            raise NotFound(
                f"There is no volume '{name}' in pool '{pool}'.",
                backend=self.context.backend,
                operation=operation,
                volume=name,
            ) from None

    def _refuse_existing(self, pool: str, name: str, operation: str) -> None:
        if (pool, name) in self.store.volumes:
            raise AlreadyExists(
                f"There is a volume '{name}' in pool '{pool}' already.",
                backend=self.context.backend,
                operation=operation,
                volume=name,
                remedy="Nothing was changed.",
            )

    def _refuse_in_use(self, volume: FakeVolume, operation: str, who: str) -> None:
        raise InUse(
            f"'{volume.name}' is in use: {who}.",
            backend=self.context.backend,
            operation=operation,
            volume=volume.name,
        )

    def _check_room(self, pool: str, name: str, size_bytes: int) -> None:
        free = self.options.capacity_bytes - self.store.allocated_bytes(pool)
        if size_bytes > free:
            raise NoSpace(
                f"The pool '{pool}' has {free} bytes free; '{name}' needs {size_bytes}.",
                backend=self.context.backend,
                operation="create",
                volume=name,
            )


def _stored(volume: FakeVolume) -> StoredVolume:
    return StoredVolume(volume.name, volume.size_bytes, volume.allocated_bytes, volume.identity)
