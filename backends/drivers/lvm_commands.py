"""
LVM's commands, as values and errors of this project.

Every report is JSON in bytes.  Every change is one command, and LVM commits the metadata of one command as a whole: a
killed command has happened or has not.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.drivers.commands import Finished, run_command
from backends.drivers.errors import (
    AlreadyExists,
    CorruptData,
    DriverError,
    InUse,
    NoSpace,
    NotFound,
    NotPermitted,
    NotReady,
    Permanent,
    Transient,
)

_REPORT_SECONDS = 30.0
# Waits for other LVM commands of the host, and for the kernel to suspend and resume devices under load.
_CHANGE_SECONDS = 120.0

#: Tag with the size that was asked for: LVM itself counts in extents.
SIZE_TAG = "volmig.size="
#: Tag of the snapshots that were made here; they are not listed as volumes.
SNAPSHOT_TAG = "volmig.snapshot"

# No field of a segment among these: it would turn a volume of two segments into two rows.
_LV_FIELDS = (
    "lv_name,lv_uuid,lv_size,lv_attr,lv_tags,lv_kernel_major,lv_kernel_minor,lv_active,lv_device_open,lv_role,"
    "lv_layout,origin,pool_lv,lv_health_status,data_percent,metadata_percent"
)
_AS_JSON = ("--reportformat", "json", "--units", "b", "--nosuffix")
_VG_FIELDS = "vg_name,vg_uuid,vg_size,vg_free,vg_extent_size,vg_permissions,vg_exported,vg_partial"

# What LVM 2.03 says, in the C locale, and what it means.  The first of which all parts are there counts.
_MEANINGS: tuple[tuple[type[DriverError], tuple[str, ...]], ...] = (
    (NotReady, ("/dev/mapper/control: open failed: No such",)),
    (NotPermitted, ("Permission denied",)),
    (NotPermitted, ("Operation not permitted",)),
    (AlreadyExists, ("already exists in volume group",)),
    (NotReady, ("Volume group", "not found")),
    (NotFound, ("Failed to find logical volume",)),
    (NotFound, ("Existing logical volume", "not found")),
    (NoSpace, ("nsufficient free space",)),
    (NoSpace, ("nsufficient suitable",)),
    (NoSpace, ("free space in thin pool", "reached threshold")),
    (NoSpace, ("No free space",)),
    (NoSpace, ("is out of free space",)),
    (InUse, (" in use",)),
    (InUse, ("is used by another device",)),
    (InUse, ("Device or resource busy",)),
    (InUse, ("can be resized only while inactive",)),
    (InUse, ("locked by other host",)),
    (NotReady, ("is exported",)),
    (NotPermitted, ("is read-only",)),
    (NotPermitted, ("while PVs are missing",)),
    (Transient, ("Can't get lock",)),
    # Also of a physical volume that is read-only: LVM does not tell one from the other.
    (CorruptData, ("Error writing device",)),
    (CorruptData, ("Error reading device",)),
)


@dataclass(frozen=True, slots=True)
class VolumeGroup:
    """A volume group as LVM reports it."""

    name: str
    uuid: str
    size_bytes: int
    free_bytes: int
    extent_bytes: int
    is_writable: bool
    is_exported: bool
    is_partial: bool


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """
    A logical volume as LVM reports it.

    `device_bytes` is what the extents give, `size_bytes` what was asked for.  `device` is (major, minor), `None` while
    it is not active.  The percentages are those of a thin pool, or of a thin volume's mapped part.
    """

    name: str
    uuid: str
    vg_uuid: str
    device_bytes: int
    tags: frozenset[str]
    device: tuple[int, int] | None
    is_open: bool
    roles: frozenset[str]
    layout: frozenset[str]
    origin: str
    thin_pool: str
    health: str
    data_percent: float | None
    metadata_percent: float | None
    is_zeroed: bool

    @property
    def size_bytes(self) -> int:
        sizes = [tag.removeprefix(SIZE_TAG) for tag in self.tags if tag.startswith(SIZE_TAG)]
        # The larger of two: an extend was killed between adding one tag and removing the other, or somebody's
        # hand was there.  Never more than there is.
        known = [int(size) for size in sizes if size.isdigit()]
        return min([max(known, default=self.device_bytes), self.device_bytes])

    @property
    def dm_uuid(self) -> str:
        """What the kernel calls the device; survives a rename, and is never given twice."""
        return "LVM-" + (self.vg_uuid + self.uuid).replace("-", "")


class Lvm:
    """
    The LVM commands of one volume group.

    Args:
        vg: Its name; checked by the driver's options, so that it cannot be taken for a flag.
    """

    def __init__(self, vg: str, backend: str) -> None:
        self.vg = vg
        self.backend = backend

    # -- reports ---------------------------------------------------------------------------------------------

    def everything(self, operation: str) -> tuple[VolumeGroup, list[LogicalVolume]]:
        """
        Return the volume group and every visible logical volume of it: volumes, snapshots and thin pools.

        Raises:
            NotReady: There is none of that name, or LVM does not work here.
        """
        # Each LVM command looks at every disk of the host anew: one is quicker than two.
        fields = ["--configreport", "vg", "-o", _VG_FIELDS, "--configreport", "lv", "-o", _LV_FIELDS]
        for kind, field in (("pv", "pv_name"), ("seg", "seg_start"), ("pvseg", "pvseg_start")):
            fields += ["--configreport", kind, "-o", field]
        report = self._report(["lvm", "fullreport", *_AS_JSON, *fields, self.vg], operation, "")
        try:
            (group,) = report["vg"]
        except (LookupError, ValueError) as error:
            raise NotReady(
                f"There is no volume group '{self.vg}', or several are called so.",
                **self._fields(operation, ""),
            ) from error
        return _volume_group(group), [_logical_volume(row, group["vg_uuid"]) for row in report["lv"]]

    def volume(self, name: str, operation: str) -> LogicalVolume:
        """
        Return the logical volume *name*.

        Raises:
            NotFound.
        """
        command = ["lvs", *_AS_JSON, "-o", f"vg_uuid,{_LV_FIELDS}", f"{self.vg}/{name}"]
        (row,) = self._report(command, operation, name)["lv"]
        return _logical_volume(row, row["vg_uuid"])

    def _report(self, command: list[str], operation: str, volume: str) -> Mapping[str, Any]:
        finished = self._run(command, _REPORT_SECONDS, operation, volume)
        try:
            return json.loads(finished.stdout)["report"][0]
        except (ValueError, LookupError) as error:
            raise Permanent(
                f"`{command[0]}` printed something that is no report: {finished.said}",
                **self._fields(operation, volume),
            ) from error

    # -- changes ---------------------------------------------------------------------------------------------

    def change(self, operation: str, volume: str, *command: str) -> str:
        """
        Run a command that changes something and return what it printed.

        Nobody is there to answer its questions, so they are answered yes.

        Raises:
            What LVM's message means, see `_MEANINGS`; `TimedOut`.
        """
        full = [command[0], "--yes", *command[1:]]
        return self._run(full, _CHANGE_SECONDS, operation, volume).stdout

    def _run(self, command: list[str], seconds: float, operation: str, volume: str) -> Finished:
        finished = run_command(
            command,
            timeout_seconds=seconds,
            package="lvm2",
            environment={"LVM_SUPPRESS_FD_WARNINGS": "1"},
            # LVM waits for its locks so that it can be interrupted, and ignores it where a change must be ended.
            stop_signal=signal.SIGINT,
            **self._fields(operation, volume),
        )
        if finished.status:
            raise self._error(command, finished, operation, volume)
        return finished

    def _error(self, command: list[str], finished: Finished, operation: str, volume: str) -> DriverError:
        kind = next(
            (kind for kind, texts in _MEANINGS if all(text in finished.stderr for text in texts)), Permanent
        )
        subject = f"'{volume}' in volume group '{self.vg}'" if volume else f"volume group '{self.vg}'"
        # Warnings about backups of metadata are not why it failed.
        lines = [line.strip() for line in finished.stderr.splitlines() if "WARNING:" not in line]
        said = " ".join(filter(None, lines)) or finished.said
        return kind(f"{command[0]} on {subject} failed: {said}", **self._fields(operation, volume))

    def _fields(self, operation: str, volume: str) -> dict[str, str]:
        return {"backend": self.backend, "operation": operation, "volume": volume}


def _volume_group(row: Mapping[str, Any]) -> VolumeGroup:
    return VolumeGroup(
        name=row["vg_name"],
        uuid=row["vg_uuid"],
        size_bytes=int(row["vg_size"]),
        free_bytes=int(row["vg_free"]),
        extent_bytes=int(row["vg_extent_size"]),
        is_writable=row["vg_permissions"] != "read-only",
        is_exported=bool(row["vg_exported"]),
        is_partial=bool(row["vg_partial"]),
    )


def _logical_volume(row: Mapping[str, Any], vg_uuid: str) -> LogicalVolume:
    major, minor = int(row["lv_kernel_major"]), int(row["lv_kernel_minor"])
    return LogicalVolume(
        name=row["lv_name"],
        uuid=row["lv_uuid"],
        vg_uuid=vg_uuid,
        device_bytes=int(row["lv_size"]),
        tags=_words(row["lv_tags"]),
        device=(major, minor) if row["lv_active"] and minor >= 0 else None,
        is_open=row["lv_device_open"] == "open",
        roles=_words(row["lv_role"]),
        layout=_words(row["lv_layout"]),
        origin=row["origin"],
        thin_pool=row["pool_lv"],
        health=row["lv_health_status"],
        data_percent=_percent(row["data_percent"]),
        metadata_percent=_percent(row["metadata_percent"]),
        # Source: lvs(8), the eighth character of lv_attr.
        is_zeroed=row["lv_attr"][7:8] == "z",
    )


def _words(text: str) -> frozenset[str]:
    return frozenset(filter(None, text.split(",")))


def _percent(text: str) -> float | None:
    return float(text) if text else None
