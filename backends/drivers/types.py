"""Plain values that cross the driver contract.  Sizes are bytes; `None` means unknown."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9_-])?"
_ADDRESS = re.compile(rf"(?P<host>{_PART})@(?P<backend>{_PART})(?:#(?P<pool>{_PART}))?")
_OBJECT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True, order=True)
class PoolAddress:
    """
    The place of a volume, written `host@backend#pool`; without `#pool` it names the whole backend.

    Source of the grammar: Cinder `volume_utils.extract_host`.
    """

    host: str
    backend: str
    pool: str | None = None

    @classmethod
    def parse(cls, text: str) -> PoolAddress:
        """Return the address in *text*; `ValueError` with an example when it is none."""
        match = _ADDRESS.fullmatch(text.strip())
        if match is None:
            raise ValueError(
                f"'{text}' is not an address. Write HOST@BACKEND or HOST@BACKEND#POOL, "
                "for example store1@ssd#main; each part is made of letters, digits, '.', '_' and '-'."
            )
        return cls(match["host"], match["backend"], match["pool"])

    def __str__(self) -> str:
        return f"{self.host}@{self.backend}" + (f"#{self.pool}" if self.pool else "")

    @property
    def without_pool(self) -> PoolAddress:
        """The address of the backend."""
        return PoolAddress(self.host, self.backend)


def is_object_name(name: str) -> bool:
    """Tell whether *name* may be the name of a volume on storage: no path, no flag, at most 128 characters."""
    return _OBJECT_NAME.fullmatch(name) is not None


class Support(enum.Enum):
    """How a driver answers a wish: not at all, by doing the work itself in the core, or with the storage's help."""

    NONE = "none"
    EMULATED = "emulated"
    NATIVE = "native"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a driver declares about itself.  Callers ask these flags, never the driver's name."""

    # May a volume take less room than its size?
    thin: Support = Support.NONE
    # May a volume be given all its room when it is made?
    thick: Support = Support.NONE
    # Does a volume that was just made read as zeros from end to end?
    reads_zero_when_new: bool = False
    # Can the driver move a volume to another pool without the generic copy?
    move: Support = Support.NONE
    # Can the storage hold snapshots of a volume?
    snapshots: Support = Support.NONE
    # Can the driver tell that something outside is using a volume?
    usage_detection: Support = Support.NONE
    # Can several hosts reach the same pool?
    is_shared: bool = False


@dataclass(frozen=True, slots=True)
class PoolStats:
    """
    One pool as its driver sees it now.

    `storage_id` names the place itself (not the path to it): two pools with one `storage_id` are one place.
    `location_info` is what drivers compare to find out whether they can move a volume natively; it is a JSON
    object with at least `driver` and `version`.
    """

    name: str
    storage_id: str
    total_bytes: int | None
    free_bytes: int | None
    provisioned_bytes: int | None
    volume_count: int
    thin_provisioning_support: bool
    thick_provisioning_support: bool
    is_infinite: bool = False
    is_read_only: bool = False
    location_info: Mapping[str, Any] = field(default_factory=dict)
    capabilities: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredVolume:
    """
    A volume as it lies on the storage.

    `identity` changes when the object is replaced by another one of the same name, and outlives a reboot (for a
    file: its inode).  `allocated_bytes` is the room that it takes, `None` when the storage does not say.
    `changed` is some text that differs after every write; empty when the storage does not say (block devices).
    """

    name: str
    size_bytes: int
    allocated_bytes: int | None
    identity: str
    changed: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """Somebody outside who uses a volume: *by* for people (`process 4711 (qemu)`), *how* (`holds a lock`)."""

    by: str
    how: str

    def __str__(self) -> str:
        return f"{self.by} {self.how}"


class OpenMode(enum.Enum):
    """
    Why a volume is opened.

    SOURCE: read while nobody else may write; WRITE: fill a destination, exclusively;
    VERIFY: read back what the device holds, not what the page cache remembers.
    """

    SOURCE = "source"
    WRITE = "write"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True)
class MovePlan:
    """
    A native move that the driver can make.

    `how` is shown to people (`reflink`).  `keeps_source` tells whether an independent source stays behind
    that can be kept for a while; when it does not, the old name goes as soon as the record has moved.
    `is_instant`: done in seconds whatever the size.
    """

    how: str
    keeps_source: bool
    is_instant: bool = True


@dataclass(frozen=True, slots=True)
class Declined:
    """The driver leaves the move to the generic copy, for this reason.  A result, not an error."""

    reason: str


@dataclass(frozen=True, slots=True)
class MoveStatus:
    """How far a native move is.  `is_finished`: a complete volume of the new name lies at the destination."""

    plan: MovePlan
    is_finished: bool
    done_bytes: int | None = None
    total_bytes: int | None = None
