"""May this volume go there?  The scheduler's answer for rows."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from django.conf import settings

from backends import services as inventory
from backends.models import Volume
from migrations_app import bandwidth, views_of_rows
from migrations_app.errors import Busy, NoValidPool, UnknownDestination
from migrations_app.models import GENERIC, VolumeMigration
from migrations_app.scheduler import filters, verdicts
from migrations_app.scheduler.codes import Code
from migrations_app.scheduler.types import MoveRequest, Reason, Verdict
from migrations_app.states import State


@dataclass(frozen=True, slots=True)
class Options:
    """How it is to be done.  `bandwidth_bytes_per_second`: `None` is as fast as it goes."""

    force_host_copy: bool = False
    delete_source: bool = False
    verify: str = VolumeMigration.Verify.FULL
    bandwidth_bytes_per_second: int | None = None


@dataclass(frozen=True, slots=True)
class Destinations:
    """Where a volume may go: every pool with its verdict, best first, and what speaks against moving it at all."""

    volume: Volume
    request: MoveRequest
    reasons: tuple[Reason, ...]
    warnings: tuple[Reason, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def can_move(self) -> bool:
        return not self.reasons and any(v.fits for v in self.verdicts)

    def as_dict(self) -> dict[str, Any]:
        return {
            "volume": {
                "id": str(self.volume.pk),
                "name": self.volume.name,
                "size_bytes": self.volume.size_bytes,
                "pool": str(self.volume.pool),
            },
            "can_move": self.can_move,
            "reasons": [r.as_dict() for r in self.reasons],
            "warnings": [w.as_dict() for w in self.warnings],
            "destinations": [v.as_dict() for v in self.verdicts],
        }


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a request would have been answered: accepted, to this pool, with this verdict."""

    volume: Volume
    verdict: Verdict
    warnings: tuple[Reason, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        return {
            "volume": str(self.volume.pk),
            "accepted": True,
            "verdict": self.verdict.as_dict(),
            "warnings": [w.as_dict() for w in self.warnings],
        }


def destinations(volume: Volume, options: Options | None = None) -> Destinations:
    """
    Return every pool with its verdict for *volume*.

    Looks at the storage when it is reached from this host.  Nothing is changed or reserved.
    """
    volume = load_volume(volume.pk)
    request = move_request(volume, options or Options())
    reasons, warnings = verdicts.check_volume(request)
    ranked = verdicts.rank(
        request, views_of_rows.pool_views(), plan_move=views_of_rows.plan_move, filters=_filters()
    )
    return Destinations(volume, request, tuple(reasons), tuple(warnings), tuple(ranked))


def dry_run(volume: Volume, destination: str, options: Options | None = None) -> DryRun:
    """
    Return what `request_migration` would answer now; the same code without the writing.

    Raises:
        RequestRefused: As `request_migration`.
    """
    volume = load_volume(volume.pk)
    request = move_request(volume, options or Options())
    verdict, warnings = judge(request, destination)
    return DryRun(volume, verdict, warnings)


def load_volume(volume_id: uuid.UUID) -> Volume:
    return Volume.objects.select_related("pool__backend", "volume_type").get(pk=volume_id)


def move_request(volume: Volume, options: Options, facts: Any = None) -> MoveRequest:
    facts = facts or inventory.inspect_volume(volume)
    if volume.locked_by_migration:
        # Who uses it is the migration's own worker: nobody should be told to end that.
        facts = replace(facts, usage=())
    return MoveRequest(
        volume=views_of_rows.volume_view(volume, facts),
        force_host_copy=options.force_host_copy,
        copy_bytes_per_second=measured_copy_speed(),
        bandwidth_bytes_per_second=bandwidth.smallest(
            options.bandwidth_bytes_per_second, volume.pool.backend.max_bandwidth_bytes_per_second
        ),
        is_verified=options.verify != VolumeMigration.Verify.NONE,
    )


def _filters() -> Sequence[Callable[..., list[Reason]]]:
    return (*filters.DEFAULT_FILTERS, *filters.load(settings.VOLMIG_SCHEDULER_FILTERS))


def measured_copy_speed() -> float | None:
    """Return the median speed of the last copies without a limit, a basis of estimates; `None` before the first."""
    rows = (
        VolumeMigration.objects.filter(
            state__in=[State.RETAINED, State.DONE],
            method=GENERIC,
            data_bytes__gt=64 * 2**20,
            bandwidth_bytes_per_second=None,
        )
        .exclude(finished_at=None)
        .exclude(started_at=None)
        .order_by("-created_at")
        .values_list("data_bytes", "started_at", "finished_at")[:9]
    )
    speeds = sorted(size / max(0.1, (end - start).total_seconds()) for size, start, end in rows)
    return speeds[len(speeds) // 2] if speeds else None


def judge(request: MoveRequest, destination: str) -> tuple[Verdict, tuple[Reason, ...]]:
    """Return the verdict of the pool that would be taken.  Raises `RequestRefused` with every reason."""
    volume_reasons, warnings = verdicts.check_volume(request)
    choice = verdicts.choose(
        request,
        views_of_rows.pool_views(),
        destination,
        plan_move=views_of_rows.plan_move,
        filters=_filters(),
    )
    reasons = [*volume_reasons, *choice.reasons]
    if not reasons and choice.verdict is not None:
        return choice.verdict, (*warnings, *choice.verdict.warnings)
    name = request.volume.name
    if request.volume.locked_by_migration:
        raise Busy(f"The volume '{name}' is being migrated already.", reasons)
    if any(r.code == Code.UNKNOWN_DESTINATION for r in reasons):
        raise UnknownDestination(f"The volume '{name}' was not migrated.", reasons)
    raise NoValidPool(f"The volume '{name}' cannot be migrated to {destination}.", reasons)
