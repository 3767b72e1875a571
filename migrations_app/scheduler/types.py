"""What goes into the scheduler and what comes out.  Sizes are bytes; `None` means unknown."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from backends.drivers.types import PoolAddress


class Category(enum.StrEnum):
    """What a reason is about: the page groups them so."""

    VOLUME = "volume"
    DESTINATION = "destination"
    CAPACITY = "capacity"
    PLACEMENT = "placement"
    TYPE = "type"


@dataclass(frozen=True, slots=True)
class Reason:
    """
    Why not (or, as a warning, what to know).

    `code` is stable and for programs, `text` one sentence with the numbers, `remedy` what would make it fit.
    """

    code: str
    category: Category
    text: str
    remedy: str = ""

    def as_dict(self) -> dict[str, str]:
        return {
            "code": str(self.code),
            "category": self.category.value,
            "text": self.text,
            "remedy": self.remedy,
        }


@dataclass(frozen=True, slots=True)
class StorageFacts:
    """
    What the storage itself says of the volume at this moment.

    `usage` and `snapshots` are texts for people.  `missing` is set when there is no such object on the
    storage.  `unavailable_reason` is set when the storage could not be asked; the rest is then empty.
    """

    size_bytes: int | None = None
    allocated_bytes: int | None = None
    usage: Sequence[str] = ()
    snapshots: Sequence[str] = ()
    missing: str = ""
    unavailable_reason: str = ""


@dataclass(frozen=True, slots=True)
class VolumeView:
    """The volume to be moved, as plain values."""

    id: str
    name: str
    size_bytes: int
    pool: PoolAddress
    storage_id: str
    location_info: Mapping[str, Any]
    status: str
    migration_status: str | None
    availability_zone: str = ""
    type_name: str = ""
    extra_specs: Mapping[str, str] = field(default_factory=dict)
    attachments: Sequence[str] = ()
    snapshots: Sequence[str] = ()
    locked_by_migration: str = ""
    source_is_up: bool = True
    source_down_reason: str = ""
    facts: StorageFacts = StorageFacts()


@dataclass(frozen=True, slots=True)
class PoolView:
    """
    A possible destination, as plain values: the pool's report joined with its backend's settings.

    `reserved_by_migrations_*`: what running migrations to this pool will still take that the report does not
    show yet (`physical`: data to be written; `provisioned`: size of volumes not yet made).
    `age_seconds`: age of the report, `None` when there was none.
    """

    address: PoolAddress
    driver: str
    storage_protocol: str
    storage_id: str
    location_info: Mapping[str, Any]
    total_bytes: int | None
    free_bytes: int | None
    provisioned_bytes: int | None
    is_infinite: bool
    is_read_only: bool
    thin_provisioning_support: bool
    thick_provisioning_support: bool
    reserved_percentage: int
    max_over_subscription_ratio: float
    availability_zone: str
    is_enabled: bool
    disabled_reason: str
    is_up: bool
    down_reason: str
    age_seconds: float | None
    volume_count: int
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    filter_function: str = ""
    goodness_function: str = ""
    reserved_by_migrations_physical_bytes: int = 0
    reserved_by_migrations_provisioned_bytes: int = 0
    active_migrations: int = 0
    #: The worker of the pool's host runs, and serves volumes to other hosts on this address (empty: it does not).
    worker_is_up: bool = False
    storage_address: str = ""
    #: What the backend limits all its migrations together to.
    max_bandwidth_bytes_per_second: int | None = None


@dataclass(frozen=True, slots=True)
class MoveRequest:
    """What is asked, with what the scheduler may take into account."""

    volume: VolumeView
    force_host_copy: bool = False
    #: Measured speed of a generic copy here, its reading back included, for the estimate; `None` when nothing was
    #: copied yet.
    copy_bytes_per_second: float | None = None
    #: What the request, or the source's backend, limits it to; the data passes once more when it is read back.
    bandwidth_bytes_per_second: int | None = None
    is_verified: bool = True
    #: How the driver would move the volume itself to the pool under judgement.  `judge` sets it, callers
    #: leave it empty: it differs from pool to pool, and a filter or weigher is given nothing but the request
    #: and the pool.
    native_how: str = ""


@dataclass(frozen=True, slots=True)
class ScorePart:
    """One weigher's share of the score: `raw` as measured, `normalised` 0..1 among the candidates."""

    name: str
    label: str
    raw: float
    normalised: float
    multiplier: float

    @property
    def points(self) -> float:
        return self.normalised * self.multiplier


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    The scheduler's answer for one volume and one pool.

    `reasons` is every reason against, empty when it fits.  `native_how` is set (`reflink`) when the driver
    would move it itself; otherwise `native_declined` says why not.  `network` is set (`from host a to host b`)
    when the copy goes from one host to another one.  `free_after_bytes`: physical room left when the move is done.
    """

    address: PoolAddress
    reasons: tuple[Reason, ...]
    warnings: tuple[Reason, ...] = ()
    native_how: str = ""
    native_declined: str = ""
    network: str = ""
    free_bytes: int | None = None
    free_after_bytes: int | None = None
    estimate_seconds: float | None = None
    score: float = 0.0
    parts: tuple[ScorePart, ...] = ()

    @property
    def fits(self) -> bool:
        return not self.reasons

    @property
    def method_text(self) -> str:
        """How the volume would be moved, for people."""
        if self.native_how:
            return f"native ({self.native_how})"
        return f"generic copy over the network {self.network}" if self.network else "generic copy"

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as JSON values: one shape for the API, the commands and the stored request."""
        return {
            "destination": str(self.address),
            "fits": self.fits,
            "reasons": [r.as_dict() for r in self.reasons],
            "warnings": [r.as_dict() for r in self.warnings],
            "method": self.method_text,
            "network": self.network,
            "native_declined": self.native_declined,
            "free_bytes": self.free_bytes,
            "free_after_bytes": self.free_after_bytes,
            "estimate_seconds": self.estimate_seconds,
            "score": round(self.score, 4),
            "score_parts": [
                {
                    "name": p.name,
                    "label": p.label,
                    "raw": p.raw,
                    "normalised": round(p.normalised, 4),
                    "multiplier": p.multiplier,
                }
                for p in self.parts
            ],
        }


@dataclass(frozen=True, slots=True)
class Choice:
    """
    The answer to "move it to this address".

    `verdict` is the best pool that fits, `None` when none does; `reasons` then says why, every cause once.
    `candidates` is the verdict on every pool that the address names, best first; empty when it names none.
    """

    verdict: Verdict | None
    reasons: tuple[Reason, ...] = ()
    candidates: tuple[Verdict, ...] = ()


class PlanMove(Protocol):
    """
    Signature of the function that says whether the source's driver can move a volume natively (see `judge`).
    """

    def __call__(self, volume: VolumeView, pool: PoolView) -> tuple[str, str]:
        """Return (`how`, `why_declined`); exactly one of them is non-empty."""
        ...
