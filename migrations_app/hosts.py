"""Which hosts have a running worker, and where they serve volumes: what each supervisor writes about itself."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from django.db.models.functions import Now
from django.utils import timezone

from migrations_app.models import WorkerHost
from migrations_app.scheduler.human import duration_text

#: A host whose heartbeat is older is not believed to be running.
HEARTBEAT_IS_STALE_SECONDS = 20


def _alive() -> object:
    limit = Now() - timedelta(seconds=HEARTBEAT_IS_STALE_SECONDS)
    return WorkerHost.objects.filter(heartbeat_at__gte=limit)


def is_alive(host: str) -> bool:
    """Tell whether the supervisor of *host* has been heard of lately."""
    return host in alive_hosts()


def alive_hosts() -> set[str]:
    """Return the hosts whose supervisor has been heard of lately."""
    return set(_alive().values_list("host", flat=True))


def storage_addresses() -> Mapping[str, str]:
    """Return, by host whose worker is running, the address on which it serves volumes; empty for none."""
    return dict(_alive().values_list("host", "storage_address"))


def absence_text(host: str) -> str:
    """Return a sentence that says since when the worker of *host* has not been heard of."""
    heard: datetime | None = (
        WorkerHost.objects.filter(host=host).values_list("heartbeat_at", flat=True).first()
    )
    if heard is None:
        return f"The worker of host '{host}' is not running."
    age = (timezone.now() - heard).total_seconds()
    return (
        f"The worker of host '{host}' has not been heard of for {duration_text(age).removeprefix('about ')}."
    )
