"""Filters and small pieces of the pages.  What they look like stands in `templates/volmig/`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django import template
from django.utils import timezone
from django.utils.timesince import timesince

from backends import services as inventory
from backends.models import Backend, Pool, Volume
from migrations_app import presentation
from migrations_app.models import VolumeMigration
from migrations_app.scheduler.human import bytes_text, duration_text
from migrations_app.states import WORKING, MigrationStatus, State

register = template.Library()

_TONES: dict[str, str] = {
    State.QUEUED: "grey",
    State.PAUSED: "amber",
    State.UNDOING: "amber",
    State.DELETING_SOURCE: "green",
    State.RETAINED: "green",
    State.DONE: "green",
    State.CANCELLED: "grey",
    State.ROLLED_BACK: "grey",
    State.FAILED: "red",
    State.NEEDS_OPERATOR: "alarm",
}
_MIGRATION_STATUS_TONES: dict[str, str] = {MigrationStatus.SUCCESS: "green", MigrationStatus.ERROR: "red"}
_VOLUME_TONES: dict[str, str] = {
    Volume.Status.AVAILABLE: "green",
    Volume.Status.IN_USE: "amber",
    Volume.Status.ERROR: "red",
    Volume.Status.ERROR_DELETING: "red",
}
#: What is over in less is told to the tenth.
_SHORT_SECONDS = 10


@register.filter("bytes")
def bytes_filter(number: Any) -> str:
    """Return a number of bytes for people; what a stored verdict does not have is unknown."""
    return bytes_text(number if isinstance(number, int) else None)


@register.filter("duration")
def duration_filter(seconds: Any) -> str:
    """Return a duration for people; what is no number is unknown."""
    return duration_text(seconds if isinstance(seconds, (int, float)) else None)


@register.filter
def took(start: datetime | None, end: datetime | None = None) -> str:
    """Return how long it was from *start* to *end* (to now when there is no end), exact to the second or better."""
    if start is None:
        return ""
    exact = max(0.0, ((end or timezone.now()) - start).total_seconds())
    if end is not None and exact < _SHORT_SECONDS:
        return f"{int(exact * 10) / 10} s"
    seconds = int(exact)
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


@register.filter
def ago(moment: datetime | None) -> str:
    """Return how long ago *moment* was, in its largest unit."""
    if moment is None:
        return "never"
    text = timesince(moment, depth=1)
    return "just now" if text.startswith("0") else f"{text} ago"


@register.filter
def until(moment: datetime | None) -> str:
    """Return how long it is until *moment*, coarsely; says so when it has passed."""
    if moment is None:
        return ""
    seconds = (moment - timezone.now()).total_seconds()
    return duration_text(seconds) if seconds > 0 else "a moment: it is due"


@register.filter
def short(text: Any) -> str:
    """Return the beginning of a digest or an id."""
    return str(text)[:12] + "…" if len(str(text)) > 12 else str(text)


@register.inclusion_tag("volmig/chip.html")
def chip(tone: str, text: str) -> dict[str, str]:
    """Any state in two words."""
    return {"tone": tone, "text": text}


@register.inclusion_tag("volmig/chip.html")
def migration_chip(migration: VolumeMigration) -> dict[str, str]:
    """The state of a migration in two words."""
    return {"tone": _TONES.get(migration.state, "blue"), "text": migration.state.replace("_", " ")}


@register.inclusion_tag("volmig/chip.html")
def volume_chip(volume: Volume) -> dict[str, str]:
    """The status of a volume."""
    return {"tone": _VOLUME_TONES.get(volume.status, "grey"), "text": volume.status.replace("_", " ")}


@register.inclusion_tag("volmig/chip.html")
def migration_status_chip(volume: Volume) -> dict[str, str]:
    """Cinder's `migration_status` of a volume."""
    status = volume.migration_status or ""
    return {"tone": _MIGRATION_STATUS_TONES.get(status, "blue"), "text": status}


@register.inclusion_tag("volmig/chip.html")
def backend_chip(backend: Backend) -> dict[str, str]:
    """Whether a backend can be a destination, with the reason as the tooltip."""
    health = inventory.health(backend)
    if not health.is_up:
        return {"tone": "red", "text": "down", "title": health.down_reason}
    if not backend.is_enabled:
        return {"tone": "grey", "text": "disabled", "title": backend.disabled_reason}
    return {"tone": "green", "text": "up"}


@register.inclusion_tag("volmig/progress.html")
def progress_bar(migration: VolumeMigration, is_small: bool = False) -> dict[str, Any]:
    """How far a migration is.  *is_small*: for a row of a table."""
    return {
        "progress": presentation.progress(migration),
        "is_small": is_small,
        "is_working": migration.state in WORKING,
        "is_queued": migration.state == State.QUEUED,
        "tone": _TONES.get(migration.state, "blue"),
    }


@register.inclusion_tag("volmig/capacity.html")
def capacity_bar(pool: Pool, reserved_bytes: int = 0) -> dict[str, Any]:
    """Used, reserved and free room of a pool, with a mark where the promised sizes end."""
    total, free = pool.total_bytes, pool.free_bytes
    if pool.is_infinite or not total or free is None:
        return {"pool": pool, "is_known": False}
    used = total - free
    reserved = min(reserved_bytes, free)
    provisioned = pool.provisioned_bytes
    return {
        "pool": pool,
        "is_known": True,
        "used_bytes": used,
        "reserved_bytes": reserved_bytes,
        "used_width": round(used * 100 / total, 2),
        "reserved_width": round(reserved * 100 / total, 2),
        "percent": round(used * 100 / total),
        "provisioned_percent": round((provisioned or 0) * 100 / total),
        # Half a point from the end, so that the mark is not cut in two.
        "provisioned_at": min(99.5, round((provisioned or 0) * 100 / total, 2)),
        "is_nearly_full": (used + reserved) * 10 >= total * 9,
    }


@register.inclusion_tag("volmig/room.html")
def room_bar(verdict: Any, totals: Mapping[str, int | None]) -> dict[str, Any]:
    """Free room of a destination now and when the volume is there."""
    total, free, after = totals.get(str(verdict.address)), verdict.free_bytes, verdict.free_after_bytes
    context: dict[str, Any] = {"verdict": verdict, "total": total}
    if total and free is not None and after is not None:
        taken = max(0, min(free, free - after))
        context["used_width"] = round((total - free) * 100 / total, 2)
        context["taken_width"] = round(taken * 100 / total, 2)
        context["is_too_much"] = after < 0
    return context


@register.filter
def signed(number: float) -> str:
    """Return a number with its sign, for what adds up."""
    return f"{number:+.2f}"


@register.simple_tag
def backend_trouble(backend: Backend) -> str:
    """Return why a backend takes no volumes now; empty when it does."""
    health = inventory.health(backend)
    return health.down_reason or ("" if backend.is_enabled else backend.disabled_reason)
