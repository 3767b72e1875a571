"""Logical volumes of LVM: one volume group is one pool, or one thin pool inside of it is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backends.drivers.base import Driver, DriverContext
from backends.drivers.block_device_port import BlockDevicePort
from backends.drivers.errors import (
    AlreadyExists,
    CorruptData,
    DriverError,
    InUse,
    NoSpace,
    NotFound,
    NotReady,
    Unsupported,
)
from backends.drivers.lvm_commands import SIZE_TAG, SNAPSHOT_TAG, LogicalVolume, Lvm, VolumeGroup
from backends.drivers.lvm_devices import open_device, users_of_volume
from backends.drivers.lvm_pools import health_of_thin_pool, identity, pool_stats
from backends.drivers.options import Options, option
from backends.drivers.ports import Port
from backends.drivers.types import (
    MIB,
    Capabilities,
    Declined,
    MovePlan,
    OpenMode,
    PoolStats,
    StoredVolume,
    Support,
    Usage,
    is_object_name,
)

# LVM's own rule, less what could be a flag or cannot be part of a pool's name.
_LVM_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_WIPES = ("none", "zero")
_WIPE_STEP = 256 * MIB
#: Why LVM declines to move between two pools of one host: the generic copy does it as well.
DEVICE_TO_DEVICE = "Copied device to device on this host."


@dataclass(frozen=True)
class LvmOptions(Options):
    """Options of the LVM driver."""

    vg: str = option("Name of the volume group; it must exist.", example="vg-data")
    thin_pool: str = option(
        "Name of a thin pool in the volume group; without it, volumes take all their room when they are made.",
        default="",
        example="pool0",
    )
    wipe: str = option(
        "What is done to a volume before it is deleted: `none`, or `zero` (all of it is overwritten).",
        default="none",
    )

    def __post_init__(self) -> None:
        problems = []
        if not _LVM_NAME.fullmatch(self.vg) or not is_object_name(self.vg):
            problems.append(f"vg: '{self.vg}' cannot be the name of a volume group")
        if self.thin_pool and not is_object_name(self.pool):
            problems.append(f"thin_pool: '{self.thin_pool}' cannot be the name of a thin pool")
        if self.wipe not in _WIPES:
            problems.append(f"wipe: '{self.wipe}' is none of {', '.join(_WIPES)}")
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def pool(self) -> str:
        """Name of the one pool: `vg`, or `vg.thinpool`."""
        return f"{self.vg}.{self.thin_pool}" if self.thin_pool else self.vg


class LvmDriver(Driver):
    """
    One volume group or thin pool.

    The exact size of a volume is kept in a tag that is written by the same command that makes it; a volume without
    the tag has the size of its extents.  A volume is only ever told by its UUID from another one of its name.
    """

    name = "lvm"
    label = "Logical volumes of LVM, thick or thin"
    storage_protocol = "block"
    options_class = LvmOptions
    capabilities = Capabilities(
        thin=Support.NATIVE,
        thick=Support.NATIVE,
        # Old blocks of deleted volumes shine through thick ones; the port of a thin one says that it does not.
        reads_zero_when_new=False,
        snapshots=Support.NATIVE,
        usage_detection=Support.NATIVE,
    )

    def __init__(self, context: DriverContext) -> None:
        super().__init__(context)
        self.lvm = Lvm(self.options.vg, context.backend)
        # Of the volume group; it never changes.
        self._extent_bytes: int | None = None

    # -- the backend -----------------------------------------------------------------------------------------

    def check(self) -> None:
        group, pool, _ = self._look("check")
        if group.is_exported:
            raise NotReady(
                f"The volume group '{group.name}' is exported.",
                remedy=f"Run `vgimport {group.name}`.",
                **self._fields("check"),
            )
        if pool is not None and self.options.wipe == "zero" and not pool.is_zeroed:
            raise NotReady(
                f"The thin pool '{pool.name}' hands out blocks without zeroing them, which defeats 'wipe'.",
                remedy=f"Run `lvchange --zero y {group.name}/{pool.name}`, or set wipe to none.",
                **self._fields("check"),
            )

    def pools(self) -> list[PoolStats]:
        group, pool, lvs = self._look("pools")
        volumes = [self._stored(lv) for lv in lvs if self._is_volume(lv)]
        return [pool_stats(self.options.pool, self.context.host, group, pool, volumes)]

    def _look(self, operation: str) -> tuple[VolumeGroup, LogicalVolume | None, list[LogicalVolume]]:
        """Return the group, the thin pool if that is what this is, and everything in the group."""
        group, lvs = self.lvm.everything(operation)
        self._extent_bytes = group.extent_bytes
        pool = None
        if self.options.thin_pool:
            pool = next((lv for lv in lvs if lv.name == self.options.thin_pool), None)
            if pool is None or not {"thin", "pool"} <= pool.layout:
                raise NotReady(
                    f"There is no thin pool '{self.options.thin_pool}' in volume group '{group.name}'.",
                    remedy="Make it, or correct the option 'thin_pool'.",
                    **self._fields(operation),
                )
        self._require_identity(group, pool)
        return group, pool, lvs

    def _extents(self, size_bytes: int) -> int:
        """Return how many extents hold so many bytes."""
        if self._extent_bytes is None:
            self._look("create")
        return -(-size_bytes // self._extent_bytes)

    def _require_identity(self, group: VolumeGroup, pool: LogicalVolume | None) -> None:
        known = self.context.known_storage_ids.get(self.options.pool)
        found = identity(group, pool)
        if known not in (None, found):
            raise NotReady(
                f"'{self.options.pool}' is not the volume group or thin pool that was registered "
                f"(its identity is {found} instead of {known}).",
                remedy="Register it as another backend, or bring the old one back.",
                **self._fields("check"),
            )

    # -- volumes ---------------------------------------------------------------------------------------------

    def _is_volume(self, lv: LogicalVolume) -> bool:
        """Tell whether it is a volume of this pool, and neither a snapshot nor a part of LVM's machinery."""
        if SNAPSHOT_TAG in lv.tags or "thicksnapshot" in lv.roles or "pool" in lv.layout:
            return False
        return lv.thin_pool == self.options.thin_pool and "private" not in lv.roles

    def _stored(self, lv: LogicalVolume) -> StoredVolume:
        allocated: int | None = lv.device_bytes
        if self.options.thin_pool:
            # LVM prints two decimals; rounded up, so that nothing that is there is called nothing.
            percent = lv.data_percent
            allocated = None if percent is None else int(min(100.0, percent + 0.005) / 100 * lv.device_bytes)
            if percent == 0:
                allocated = 0
        return StoredVolume(lv.name, lv.size_bytes, allocated, identity=lv.uuid)

    def _find(self, pool: str, name: str, operation: str) -> LogicalVolume:
        self._require_pool(pool, operation, name)
        lv = self.lvm.volume(name, operation)
        if not self._is_volume(lv):
            raise NotFound(
                f"'{name}' in volume group '{self.options.vg}' is not a volume of pool '{pool}', but "
                f"{', '.join(sorted(lv.layout | lv.roles))}.",
                **self._fields(operation, name),
            )
        return lv

    def _list_volumes(self, pool: str) -> Iterator[StoredVolume]:
        self._require_pool(pool, "list_volumes")
        return iter([self._stored(lv) for lv in self._look("list_volumes")[2] if self._is_volume(lv)])

    def _describe(self, pool: str, name: str) -> StoredVolume:
        return self._stored(self._find(pool, name, "describe"))

    def _create(self, pool: str, name: str, size_bytes: int, thin: bool) -> StoredVolume:
        self._require_pool(pool, "create", name)
        if thin != bool(self.options.thin_pool):
            raise Unsupported(
                f"Pool '{pool}' makes only {'thin' if self.options.thin_pool else 'thick'} volumes.",
                **self._fields("create", name),
            )
        tag = ["--addtag", f"{SIZE_TAG}{size_bytes}"]
        extents = self._extents(size_bytes)
        if thin:
            place = ["--virtualsize", f"{extents * self._extent_bytes}b"]
            place += ["--thin", f"{self.options.vg}/{self.options.thin_pool}"]
        else:
            # Signatures of what lay there before are wiped, so that no scan takes the volume for an old disk.
            place = ["--extents", str(extents), "--wipesignatures", "y", self.options.vg]
        self.lvm.change("create", name, "lvcreate", "--name", name, *tag, *place)
        return self._describe(pool, name)

    def _delete(self, pool: str, name: str) -> None:
        lv = self._find(pool, name, "delete")
        snapshots = self._snapshots_of(lv, "delete")
        if snapshots and not self.options.thin_pool:
            raise self._has_snapshots(name, snapshots)
        if self.options.wipe == "zero" and not self.options.thin_pool:
            self._wipe(pool, lv)
        self._remove(lv, "delete")

    def _wipe(self, pool: str, lv: LogicalVolume) -> None:
        with self._open_device(lv, OpenMode.WRITE, "delete", size_bytes=lv.device_bytes) as port:
            for at in range(0, lv.device_bytes, _WIPE_STEP):
                port.zero(at, min(_WIPE_STEP, lv.device_bytes - at))
            port.flush()

    def _remove(self, lv: LogicalVolume, operation: str) -> None:
        # The selection is made while LVM holds its lock: an object of that name that was made since is left alone,
        # and so is one that got a snapshot since, which LVM would remove with it.
        wanted = f'lv_uuid="{lv.uuid}" && lv_role!="thickorigin"'
        path = f"{self.options.vg}/{lv.name}"
        said = self.lvm.change(operation, lv.name, "lvremove", "--select", wanted, path)
        if "successfully removed" in said:
            return
        try:
            left = self.lvm.volume(lv.name, operation)
        except NotFound:
            return
        if left.uuid == lv.uuid:
            raise self._has_snapshots(lv.name, self._snapshots_of(left, operation))

    def _rename(self, pool: str, name: str, new_name: str) -> None:
        self._find(pool, name, "rename")
        if name == new_name:
            raise AlreadyExists(f"'{name}' has that name already.", remedy="", **self._fields("rename", name))
        self.lvm.change("rename", name, "lvrename", self.options.vg, name, new_name)

    def _extend(self, pool: str, name: str, size_bytes: int) -> StoredVolume:
        lv = self._find(pool, name, "extend")
        users = self._users(lv)
        if users:
            raise InUse(
                f"'{name}' was not extended: {'; '.join(map(str, users))}.", **self._fields("extend", name)
            )
        extents = self._extents(size_bytes)
        path = f"{self.options.vg}/{name}"
        if extents * self._extent_bytes > lv.device_bytes:
            self.lvm.change("extend", name, "lvextend", "--extents", str(extents), path)
        # Killed before this, the volume has its old size on a larger device, and a repetition goes on from there.
        old = [part for tag in lv.tags if tag.startswith(SIZE_TAG) for part in ("--deltag", tag)]
        self.lvm.change("extend", name, "lvchange", *old, "--addtag", f"{SIZE_TAG}{size_bytes}", path)
        return self._describe(pool, name)

    # -- snapshots -------------------------------------------------------------------------------------------

    def _snapshots(self, pool: str, name: str) -> list[str]:
        return self._snapshots_of(self._find(pool, name, "snapshots"), "snapshots")

    def _snapshots_of(self, lv: LogicalVolume, operation: str) -> list[str]:
        if "origin" not in lv.roles:
            return []
        return sorted(other.name for other in self.lvm.everything(operation)[1] if other.origin == lv.name)

    def _has_snapshots(self, name: str, snapshots: list[str]) -> InUse:
        return InUse(
            f"'{name}' was not deleted: it has the snapshots {', '.join(snapshots)}, which would go with it.",
            remedy="Delete the snapshots first.",
            **self._fields("delete", name),
        )

    def _create_snapshot(self, pool: str, name: str, snapshot: str) -> None:
        lv = self._find(pool, name, "create_snapshot")
        if snapshot in self._snapshots_of(lv, "create_snapshot"):
            return
        # A thick snapshot that is as large as its origin never overflows.
        room = [] if self.options.thin_pool else ["--extents", "100%ORIGIN"]
        path = f"{self.options.vg}/{name}"
        self.lvm.change(
            "create_snapshot", name, "lvcreate", "--snapshot", "--name", snapshot, "--addtag", SNAPSHOT_TAG,
            *room, path,
        )  # fmt: skip

    def _delete_snapshot(self, pool: str, name: str, snapshot: str) -> None:
        lv = self._find(pool, name, "delete_snapshot")
        if snapshot in self._snapshots_of(lv, "delete_snapshot"):
            self._remove(self.lvm.volume(snapshot, "delete_snapshot"), "delete_snapshot")

    # -- opening ---------------------------------------------------------------------------------------------

    @property
    def reads_beside_writer(self) -> bool:
        # The map of a thin volume is read when the port is opened, and does not follow what is written later.
        return not self.options.thin_pool

    def _open(self, pool: str, name: str, mode: OpenMode) -> Port:
        lv = self._find(pool, name, "open")
        return self._open_device(lv, mode, "open", size_bytes=lv.size_bytes)

    def _open_device(
        self, lv: LogicalVolume, mode: OpenMode, operation: str, *, size_bytes: int
    ) -> BlockDevicePort:
        active = self._activated(lv, operation)
        return open_device(
            active,
            mode,
            size_bytes=size_bytes,
            shown_path=f"/dev/{self.options.vg}/{lv.name}",
            is_thin=bool(self.options.thin_pool),
            explain=self._explain,
            fields=self._fields(operation, lv.name),
        )

    def _activated(self, lv: LogicalVolume, operation: str) -> LogicalVolume:
        """Return the volume with its device; `lvchange -aey` is exclusive where several hosts share the group."""
        if lv.device is None:
            path = f"{self.options.vg}/{lv.name}"
            self.lvm.change(
                operation, lv.name, "lvchange", "--activate", "ey", "--ignoreactivationskip", path
            )
            lv = self.lvm.volume(lv.name, operation)
        if lv.device is None:
            raise NotReady(
                f"'{lv.name}' was activated and has no device.",
                remedy="Look at the kernel log, and whether LVM's `volume_list` leaves it out.",
                **self._fields(operation, lv.name),
            )
        return lv

    def _explain(self, error: DriverError) -> DriverError:
        """Say that the thin pool is full where the device only says that it failed."""
        if not self.options.thin_pool or not isinstance(error, (CorruptData, NoSpace)):
            return error
        try:
            problem = health_of_thin_pool(self.lvm.volume(self.options.thin_pool, error.operation))
        except DriverError:
            return error
        if not problem:
            return error
        return NoSpace(f"{error.message} {problem}", **self._fields(error.operation, error.volume))

    def _usage(self, pool: str, name: str) -> list[Usage]:
        return self._users(self._find(pool, name, "usage"))

    def _users(self, lv: LogicalVolume) -> list[Usage]:
        return users_of_volume(lv, lambda: self.lvm.volume(lv.name, "usage").is_open)

    # -- native moves ----------------------------------------------------------------------------------------

    @classmethod
    def plan_move(cls, source: Mapping[str, Any], destination: Mapping[str, Any]) -> MovePlan | Declined:
        if source.get("driver") != cls.name or destination.get("driver") != cls.name:
            return Declined("One of the two pools is not LVM.")
        if source.get("storage_id") == destination.get("storage_id"):
            return Declined("Source and destination are the same pool.")
        if source.get("host") != destination.get("host"):
            return Declined(
                f"The volume groups are on two hosts, {source.get('host')} and {destination.get('host')}."
            )
        return Declined(DEVICE_TO_DEVICE)

    def _start_move(
        self, pool: str, name: str, destination: Mapping[str, Any], destination_pool: str, new_name: str
    ) -> Declined:
        (here,) = self.pools()
        answer = self.plan_move(here.location_info, destination)
        assert isinstance(answer, Declined), "LVM's commands cannot move a volume between groups"
        return answer

    # -- shared ----------------------------------------------------------------------------------------------

    def _require_pool(self, pool: str, operation: str, name: str = "") -> None:
        if pool != self.options.pool:
            raise NotReady(
                f"There is no pool '{pool}'; the pool is '{self.options.pool}'.",
                **self._fields(operation, name),
            )

    def _fields(self, operation: str, name: str = "") -> dict[str, str]:
        return {"backend": self.context.backend, "operation": operation, "volume": name}
