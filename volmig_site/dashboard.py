"""What the start page shows, each part only to those who may see its rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.utils import timezone

from backends import services as inventory
from backends.models import Backend, Pool, Volume
from migrations_app import views_of_rows
from migrations_app.admin.worker_hosts import HostView, worker_hosts
from migrations_app.models import VolumeMigration
from migrations_app.states import WORKING, State

_SHOWN = 8
_POOLS_SHOWN = 24
_FAILED_WITHIN = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class PoolRoom:
    """One pool with what running migrations will still take there."""

    pool: Pool
    reserved_bytes: int


@dataclass(frozen=True, slots=True)
class DownBackend:
    """A backend that cannot be a destination now, and why."""

    backend: Backend
    reason: str


@dataclass(slots=True)
class Dashboard:
    """The start page.  `None` and empty lists: nothing there, or not for this user."""

    may_see_storage: bool = False
    may_see_migrations: bool = False
    running: list[VolumeMigration] = field(default_factory=list)
    running_count: int = 0
    waiting: list[VolumeMigration] = field(default_factory=list)
    failed: list[VolumeMigration] = field(default_factory=list)
    kept: list[VolumeMigration] = field(default_factory=list)
    kept_count: int = 0
    down: list[DownBackend] = field(default_factory=list)
    pools: list[PoolRoom] = field(default_factory=list)
    pool_count: int = 0
    backend_count: int = 0
    hosts: list[HostView] = field(default_factory=list)
    has_volumes: bool = False
    has_migrations: bool = False

    @property
    def attention_count(self) -> int:
        return len(self.waiting) + len(self.failed) + len(self.down)

    @property
    def up_count(self) -> int:
        return self.backend_count - len(self.down)

    @property
    def is_new(self) -> bool:
        """Nothing has been moved yet: show the first steps."""
        return self.may_see_storage and self.may_see_migrations and not self.has_migrations


def dashboard(user: Any) -> Dashboard:
    """Return the start page as *user* may see it."""
    page = Dashboard(
        may_see_storage=user.has_perm("backends.view_backend"),
        may_see_migrations=user.has_perm("migrations_app.view_volumemigration"),
    )
    if page.may_see_migrations:
        _add_migrations(page)
    if page.may_see_storage:
        _add_storage(page)
    return page


def _add_migrations(page: Dashboard) -> None:
    rows = VolumeMigration.objects.select_related(
        "source_pool__backend", "destination_pool__backend"
    ).prefetch_related("journal")
    active = rows.filter(state__in=[*WORKING, State.PAUSED])
    page.running = list(active[:_SHOWN])
    page.running_count = active.count() if len(page.running) == _SHOWN else len(page.running)
    page.waiting = list(rows.filter(state=State.NEEDS_OPERATOR)[:_SHOWN])
    page.failed = list(
        rows.filter(state=State.FAILED, finished_at__gte=timezone.now() - _FAILED_WITHIN)[:_SHOWN]
    )
    kept = rows.filter(state=State.RETAINED).order_by("purge_after", "id")
    page.kept = list(kept[:_SHOWN])
    page.kept_count = kept.count() if len(page.kept) == _SHOWN else len(page.kept)
    page.hosts = worker_hosts()
    page.has_migrations = VolumeMigration.objects.exists()


def _add_storage(page: Dashboard) -> None:
    backends = list(Backend.objects.all())
    page.backend_count = len(backends)
    for backend in backends:
        health = inventory.health(backend)
        if not health.is_up:
            page.down.append(DownBackend(backend, health.down_reason))
    pools = list(Pool.objects.select_related("backend"))
    page.pool_count = len(pools)
    # The fullest first: they are what somebody has to do something about.
    pools.sort(key=lambda pool: (-_used_share(pool), str(pool.address)))
    reserved = views_of_rows.reservations()
    page.pools = [PoolRoom(pool, reserved[pool.pk].physical_bytes) for pool in pools[:_POOLS_SHOWN]]
    page.has_volumes = Volume.objects.exists()


def _used_share(pool: Pool) -> float:
    if not pool.total_bytes or pool.free_bytes is None:
        return 0.0
    return 1 - pool.free_bytes / pool.total_bytes
