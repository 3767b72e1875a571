"""Images of Ceph's block device, RBD: the pools of one cluster are the pools of one backend."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from backends.drivers import rbd_moves
from backends.drivers.base import Driver, DriverContext
from backends.drivers.errors import AlreadyExists, InUse, NotFound, NotReady, Unsupported
from backends.drivers.nbd_port import NbdPort
from backends.drivers.nbd_server import ServerEnded, qemu_nbd
from backends.drivers.options import Options, option
from backends.drivers.ports import Port
from backends.drivers.qemu_img import qemu_error
from backends.drivers.rbd_cluster import Cluster
from backends.drivers.rbd_copy import MOVING, Copy
from backends.drivers.rbd_holders import ImageHold, users_of
from backends.drivers.served_port import opened
from backends.drivers.types import (
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

_SECTOR_BYTES = 512
#: Key of an image's metadata: the exact size, where it is no multiple of a sector.
_SIZE_KEY = "volmig.size"
#: An image of this name is being made; it is renamed when it is complete.
_MAKING = "volmig-making."
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Opening more images than this every minute would load the cluster; their sum is then unknown.
_MOST_SUMMED = 500


@dataclass(frozen=True)
class RbdOptions(Options):
    """Options of the RBD driver."""

    pools: str = option("Names of the pools, separated by commas.", example="volumes,backups")
    conf: str = option("Configuration file of the cluster.", default="/etc/ceph/ceph.conf")
    user: str = option("Name of the Ceph client, without `client.`.", default="admin")

    def __post_init__(self) -> None:
        problems = [
            f"pools: '{pool}' cannot be the name of a pool"
            for pool in self.pool_names or [""]
            if not is_object_name(pool)
        ]
        if not os.path.isabs(self.conf):
            problems.append(f"conf: '{self.conf}' is not an absolute path")
        if not _USER.fullmatch(self.user):
            problems.append(f"user: '{self.user}' cannot be the name of a client")
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def pool_names(self) -> list[str]:
        return [pool.strip() for pool in self.pools.split(",") if pool.strip()]


class RbdDriver(Driver):
    """
    Control goes through librbd's Python module, data through QEMU's RBD driver and NBD.

    An open port watches its image, and a port is only opened where nobody else does: of two that open at the same time,
    each sees the other.  A guest that runs, a kernel mapping and another worker are watchers, too.
    """

    name = "rbd"
    label = "Ceph RBD images"
    storage_protocol = "rbd"
    options_class = RbdOptions
    capabilities = Capabilities(
        thin=Support.NATIVE,
        reads_zero_when_new=True,
        move=Support.NATIVE,
        snapshots=Support.NATIVE,
        usage_detection=Support.NATIVE,
    )

    def __init__(self, context: DriverContext) -> None:
        super().__init__(context)
        self._connected: Cluster | None = None

    @property
    def _cluster(self) -> Cluster:
        if self._connected is None:
            self._connected = Cluster(self.options.conf, self.options.user, self.context.backend)
        return self._connected

    def close(self) -> None:
        if self._connected is not None:
            self._connected.close()
            self._connected = None

    # -- the backend -----------------------------------------------------------------------------------------

    def check(self) -> None:
        for pool in self.options.pool_names:
            known = self.context.known_storage_ids.get(pool)
            found = self._storage_id(pool)
            if known not in (None, found):
                raise NotReady(
                    f"Pool '{pool}' is not the one that was registered (its identity is {found} instead of {known}).",
                    remedy="Register it as another backend, or correct the option 'conf'.",
                    **self._fields("check"),
                )

    def _storage_id(self, pool: str) -> str:
        io = self._cluster.pool(pool)
        with self._cluster.errors(f"Asking for the identity of pool '{pool}'", "check"):
            return f"{self._cluster.fsid}/{io.get_pool_id()}"

    def pools(self) -> list[PoolStats]:
        # Two clusters can have one fsid: one was restored from the other.
        monitors = sorted(mon["public_addr"] for mon in self._cluster.ask("mon dump")["mons"])
        usage = {pool["name"]: pool["stats"] for pool in self._cluster.ask("df")["pools"]}
        return [self._pool_stats(pool, monitors, usage.get(pool, {})) for pool in self.options.pool_names]

    def _pool_stats(self, pool: str, monitors: list[str], usage: Mapping[str, int]) -> PoolStats:
        images = self._image_names(pool)
        # Without a manager daemon nobody counts, and everything is said to be 0.
        free = usage.get("max_avail") or None
        total = None if free is None else free + usage.get("stored", usage.get("bytes_used", 0))
        provisioned = None
        if len(images) <= _MOST_SUMMED:
            provisioned = sum(volume.size_bytes for volume in self._list_volumes(pool))
        storage_id = self._storage_id(pool)
        return PoolStats(
            name=pool,
            storage_id=storage_id,
            total_bytes=total,
            free_bytes=free,
            provisioned_bytes=provisioned,
            volume_count=len(images),
            thin_provisioning_support=True,
            thick_provisioning_support=False,
            location_info={
                "driver": self.name,
                "version": 1,
                "host": self.context.host,
                "fsid": storage_id.split("/")[0],
                "monitors": monitors,
                "pool": pool,
                "storage_id": storage_id,
            },
        )

    def _image_names(self, pool: str) -> list[str]:
        io = self._cluster.pool(pool)
        with self._cluster.errors(f"Listing pool '{pool}'", "list_volumes"):
            names = self._cluster.rbd.RBD().list(io)
        return [name for name in names if is_object_name(name) and not name.startswith((_MAKING, MOVING))]

    # -- volumes ---------------------------------------------------------------------------------------------

    def _list_volumes(self, pool: str) -> Iterator[StoredVolume]:
        self._require_pool(pool, "list_volumes")
        found = []
        for name in self._image_names(pool):
            # Deleted since the pool was listed.
            with suppress(NotFound), self._cluster.image(pool, name, "list_volumes") as image:
                found.append(_stored(image, name, None))
        return iter(found)

    def _describe(self, pool: str, name: str) -> StoredVolume:
        self._require_pool(pool, "describe", name)
        with self._cluster.image(pool, name, "describe") as image:
            return _stored(image, name, self._allocated(image))

    def _allocated(self, image: Any) -> int | None:
        # Without the feature, every object of the image would be asked for.
        if not image.features() & self._cluster.rbd.RBD_FEATURE_FAST_DIFF:
            return None
        lengths: list[int] = []
        image.diff_iterate(
            0, image.size(), None, lambda _, length, exists: lengths.append(length if exists else 0),
            whole_object=True,
        )  # fmt: skip
        return sum(lengths)

    def _create(self, pool: str, name: str, size_bytes: int, thin: bool) -> StoredVolume:
        self._require_pool(pool, "create", name)
        if not thin:
            raise Unsupported("RBD images are always thin.", **self._fields("create", name))
        io, rbd = self._cluster.pool(pool), self._cluster.rbd.RBD()
        size = -(-size_bytes // _SECTOR_BYTES) * _SECTOR_BYTES
        with self._cluster.errors(f"Making '{name}' in pool '{pool}'", "create", name):
            if size == size_bytes:
                rbd.create(io, name, size, old_format=False)
                return self._describe(pool, name)
            if name in rbd.list(io):
                raise self._exists(pool, name, "create")
            # QEMU counts in sectors.  The name is given last: an image of the wrong size never carries it.
            self._remove(pool, _MAKING + name)
            rbd.create(io, _MAKING + name, size, old_format=False)
            with self._cluster.image(pool, _MAKING + name, "create", is_read_only=False) as image:
                image.metadata_set(_SIZE_KEY, str(size_bytes))
            try:
                rbd.rename(io, _MAKING + name, name)
            except self._cluster.rbd.ImageExists:
                self._remove(pool, _MAKING + name)
                raise
        return self._describe(pool, name)

    def _delete(self, pool: str, name: str) -> None:
        self._require_pool(pool, "delete", name)
        self._remove(pool, _MAKING + name)
        with self._cluster.image(pool, name, "delete") as image:
            if snapshots := [snapshot["name"] for snapshot in image.list_snaps()]:
                raise InUse(
                    f"'{name}' was not deleted: it has the snapshots {', '.join(snapshots)}.",
                    remedy="Delete the snapshots first.",
                    **self._fields("delete", name),
                )
            users = users_of(self._cluster, image, is_fencing=True)
        if users:
            raise self._in_use(name, "deleted", users, "delete")
        self._remove(pool, name)

    def _remove(self, pool: str, name: str) -> None:
        # Asked first: whoever may not write can still be told that there is nothing.
        with suppress(NotFound):
            with self._cluster.image(pool, name, "delete"):
                pass
            with self._cluster.errors(f"Removing '{name}' from pool '{pool}'", "delete", name):
                self._cluster.rbd.RBD().remove(self._cluster.pool(pool), name)

    def _rename(self, pool: str, name: str, new_name: str) -> None:
        self._require_pool(pool, "rename", name)
        with self._cluster.image(pool, name, "rename"):
            if name == new_name:
                raise self._exists(pool, new_name, "rename")
        io = self._cluster.pool(pool)
        with self._cluster.errors(f"Renaming '{name}' to '{new_name}' in pool '{pool}'", "rename", name):
            self._cluster.rbd.RBD().rename(io, name, new_name)

    def _exists(self, pool: str, name: str, operation: str) -> AlreadyExists:
        return AlreadyExists(
            f"There is an image '{name}' in pool '{pool}'.",
            remedy="Nothing was changed.",
            **self._fields(operation, name),
        )

    def _extend(self, pool: str, name: str, size_bytes: int) -> StoredVolume:
        with self._cluster.image(pool, name, "extend", is_read_only=False) as image:
            if users := users_of(self._cluster, image, is_fencing=True):
                raise self._in_use(name, "extended", users, "extend")
            image.resize(-(-size_bytes // _SECTOR_BYTES) * _SECTOR_BYTES)
            image.metadata_set(_SIZE_KEY, str(size_bytes))
        return self._describe(pool, name)

    # -- opening and usage -----------------------------------------------------------------------------------

    def _open(self, pool: str, name: str, mode: OpenMode) -> Port:
        self._require_pool(pool, "open", name)
        size_bytes = self._describe(pool, name).size_bytes
        with ExitStack() as resources:
            hold = None if mode is OpenMode.VERIFY else self._hold(pool, name, mode, resources)

            def serve(stack: ExitStack) -> Port:
                server = stack.enter_context(
                    qemu_nbd(self._source(pool, name), is_read_only=mode is not OpenMode.WRITE)
                )
                if hold is not None:
                    hold.note_server()
                return NbdPort(
                    server.uri,
                    mode,
                    shown=f"rbd:{pool}/{name}",
                    backend=self.context.backend,
                    volume=name,
                    reads_zero_when_new=True,
                )

            try:
                return opened(
                    serve, size_bytes, resources.pop_all(), is_exclusive=mode is not OpenMode.VERIFY
                )
            except ServerEnded as error:
                what = f"Opening rbd:{pool}/{name}"
                raise qemu_error(what, error.message, self._fields("open", name)) from error

    def _hold(self, pool: str, name: str, mode: OpenMode, resources: ExitStack) -> ImageHold:
        hold = ImageHold(Cluster(self.options.conf, self.options.user, self.context.backend), pool, name)
        resources.callback(hold.close)
        if hold.users:
            raise self._in_use(name, f"opened as {mode.value}", hold.users, "open")
        return hold

    def _source(self, pool: str, name: str) -> str:
        """Return what QEMU opens; source: qemu(1), `rbd:pool/image:key=value…`, where a backslash escapes."""
        conf = re.sub(r"([\\:@])", r"\\\1", self.options.conf)
        return f"rbd:{pool}/{name}:id={self.options.user}:conf={conf}"

    def _in_use(self, name: str, what: str, users: list[Usage], operation: str) -> InUse:
        return InUse(
            f"'{name}' was not {what}: {'; '.join(map(str, users))}.", **self._fields(operation, name)
        )

    def _usage(self, pool: str, name: str) -> list[Usage]:
        with self._cluster.image(pool, name, "usage") as image:
            return users_of(self._cluster, image)

    # -- snapshots -------------------------------------------------------------------------------------------

    def _snapshots(self, pool: str, name: str) -> list[str]:
        with self._cluster.image(pool, name, "snapshots") as image:
            return [snapshot["name"] for snapshot in image.list_snaps()]

    def _create_snapshot(self, pool: str, name: str, snapshot: str) -> None:
        with (
            self._cluster.image(pool, name, "create_snapshot", is_read_only=False) as image,
            suppress(self._cluster.rbd.ImageExists),
        ):
            image.create_snap(snapshot)

    def _delete_snapshot(self, pool: str, name: str, snapshot: str) -> None:
        with (
            self._cluster.image(pool, name, "delete_snapshot", is_read_only=False) as image,
            suppress(self._cluster.rbd.ImageNotFound),
        ):
            if image.is_protected_snap(snapshot):
                raise InUse(
                    f"The snapshot '{snapshot}' of '{name}' is protected: there are clones of it.",
                    remedy="Flatten or delete the clones, then unprotect it.",
                    **self._fields("delete_snapshot", name),
                )
            image.remove_snap(snapshot)

    # -- native moves ----------------------------------------------------------------------------------------

    @classmethod
    def plan_move(cls, source: Mapping[str, Any], destination: Mapping[str, Any]) -> MovePlan | Declined:
        return rbd_moves.plan(source, destination)

    def _start_move(
        self, pool: str, name: str, destination: Mapping[str, Any], destination_pool: str, new_name: str
    ) -> MoveStatus | Declined:
        here = next(stats for stats in self.pools() if stats.name == pool)
        answer = self.plan_move(here.location_info, destination)
        if isinstance(answer, Declined):
            return answer
        found = self._describe(pool, name)
        copy = self._copy_of(pool, name, destination_pool, new_name)
        return rbd_moves.status(self._cluster, copy, found.size_bytes, may_start=True)

    def poll_move(
        self, pool: str, name: str, destination: Mapping[str, Any], destination_pool: str, new_name: str
    ) -> MoveStatus:
        found = self.describe(pool, name)
        copy = self._copy_of(pool, name, destination_pool, new_name)
        return rbd_moves.status(self._cluster, copy, found.size_bytes, may_start=False)

    def cancel_move(
        self, pool: str, name: str, destination: Mapping[str, Any], destination_pool: str, new_name: str
    ) -> None:
        if isinstance(self.plan_move({**destination, "storage_id": ""}, destination), Declined):
            return
        try:
            copy = self._copy_of(pool, name, destination_pool, new_name)
        except NotFound:
            return
        rbd_moves.cancel(self._cluster, copy)

    def _copy_of(self, pool: str, name: str, destination_pool: str, new_name: str) -> Copy:
        with self._cluster.image(pool, name, "start_move") as image:
            identity = image.id()
        return Copy(self.options.conf, self.options.user, pool, name, identity, destination_pool, new_name)

    # -- shared ----------------------------------------------------------------------------------------------

    def _require_pool(self, pool: str, operation: str, name: str = "") -> None:
        if pool not in self.options.pool_names:
            raise NotReady(
                f"There is no pool '{pool}'; the pools are {', '.join(self.options.pool_names)}.",
                **self._fields(operation, name),
            )

    def _fields(self, operation: str, name: str = "") -> dict[str, str]:
        return {"backend": self.context.backend, "operation": operation, "volume": name}


def _stored(image: Any, name: str, allocated_bytes: int | None) -> StoredVolume:
    size = image.size()
    try:
        exact = int(image.metadata_get(_SIZE_KEY))
    except (KeyError, ValueError):
        exact = size
    # Otherwise somebody resized the image with another tool.
    is_current = 0 <= size - exact < _SECTOR_BYTES
    return StoredVolume(name, exact if is_current else size, allocated_bytes, f"image {image.id()}")
