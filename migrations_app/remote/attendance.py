"""Whether a host's attendant does what it is there for, as its supervisor sees it."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db.models.functions import Now

from migrations_app.models import RemoteCall


def is_late(host: str) -> bool:
    """Tell whether another host waits for *host* longer than it should."""
    limit = Now() - timedelta(seconds=settings.VOLMIG_HANG_SECONDS)
    return RemoteCall.objects.filter(
        host=host, state=RemoteCall.State.ASKED, is_wanted=True, asked_at__lt=limit
    ).exists()
