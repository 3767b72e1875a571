"""Whether a backend can be used now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.utils import timezone

from backends.models import Backend
from migrations_app.scheduler.human import duration_text


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a backend can be a destination, and since when it has not been heard of."""

    is_up: bool
    down_reason: str
    age_seconds: float | None


def health(backend: Backend, reported_at: datetime | None = None) -> Health:
    """Return the health of *backend* from its last report (of the pool's, when given)."""
    reported = reported_at or backend.reported_at
    age = (timezone.now() - reported).total_seconds() if reported else None
    if backend.last_error:
        return Health(False, backend.last_error, age)
    if age is None:
        return Health(False, f"It has never reported. Is the worker of host '{backend.host}' running?", None)
    if age > settings.VOLMIG_STALE_REPORT_SECONDS:
        return Health(
            False,
            f"Its last report is {duration_text(age)} old, the limit is "
            f"{duration_text(settings.VOLMIG_STALE_REPORT_SECONDS).removeprefix('about ')}. "
            f"Is the worker of host '{backend.host}' running?",
            age,
        )
    return Health(True, "", age)
