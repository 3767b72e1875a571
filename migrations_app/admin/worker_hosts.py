"""Whether somebody works on each host, as the pages show it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from django.utils import timezone

from backends.models import Backend
from migrations_app import hosts
from migrations_app.lease import is_dead
from migrations_app.models import VolumeMigration, WorkerHost
from migrations_app.states import WORKING


@dataclass(frozen=True, slots=True)
class HostView:
    """One host.  `worker` is `None` when none was started there, or the last one has ended as it should."""

    host: str
    worker: WorkerHost | None
    is_alive: bool
    running: int
    waiting: int

    @property
    def state_text(self) -> str:
        if self.worker is None:
            return "not running"
        if not self.is_alive:
            return "silent"
        return "stopping" if self.worker.is_draining else "running"

    @property
    def tone(self) -> str:
        tones = {"running": "green", "stopping": "amber", "silent": "red"}
        return tones.get(self.state_text, "red" if self.waiting else "grey")

    @property
    def needs_worker(self) -> bool:
        """There is something to do and nobody who would do it."""
        return bool(self.waiting) and not self.is_alive


def worker_hosts() -> list[HostView]:
    """Return every host that has a backend or a worker, in the order of their names."""
    alive = hosts.alive_hosts()
    workers = {worker.host: worker for worker in WorkerHost.objects.all()}
    running, waiting = _counts()
    names = {*workers, *waiting, *running, *Backend.objects.values_list("host", flat=True).distinct()}
    return [
        HostView(host, workers.get(host), host in alive, running[host], waiting[host])
        for host in sorted(names)
    ]


def needs_worker(migration: VolumeMigration) -> bool:
    """Tell whether *migration* stands still because no worker of its host is running."""
    if migration.state not in WORKING or _is_held(migration.owner, migration.lease_expires_at):
        return False
    return not hosts.is_alive(migration.host)


def _counts() -> tuple[Counter[str], Counter[str]]:
    """Return, by host, how many migrations are worked on, and how many wait for a worker."""
    running: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    rows = VolumeMigration.objects.filter(state__in=WORKING).order_by()
    for host, owner, lease in rows.values_list("source_pool__backend__host", "owner", "lease_expires_at"):
        (running if _is_held(owner, lease) else waiting)[host] += 1
    return running, waiting


def _is_held(owner: str, lease: object) -> bool:
    return bool(owner) and lease is not None and lease > timezone.now() and not is_dead(owner)
