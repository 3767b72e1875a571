"""Show the backends, pool by pool."""

from __future__ import annotations

from typing import Any

from backends import services
from backends.cli import VolmigCommand
from backends.cli_tables import Column, show_table
from backends.models import Backend, Pool
from migrations_app.scheduler.human import bytes_text

_COLUMNS = (
    Column("POOL"),
    Column("STATE"),
    Column("TOTAL", is_number=True),
    Column("FREE", is_number=True),
    Column("VOLUMES", is_number=True),
    Column("PROVISIONING"),
    Column("WHY", may_wrap=True),
)


class Command(VolmigCommand):
    """`list_backends`."""

    help = "Show every pool with its state, its room and its volumes."
    examples = ("manage.py list_backends", "manage.py list_backends --json")

    def perform(self, **options: Any) -> None:
        backends = list(Backend.objects.prefetch_related("pools"))
        self.emit([_as_dict(backend) for backend in backends])
        if not backends:
            self.say("There are no backends yet. Register one: manage.py add_backend --help")
            return
        show_table(self, _COLUMNS, [row for backend in backends for row in _rows(backend)])


def _state(backend: Backend, pool: Pool | None = None) -> tuple[str, str]:
    health = services.health(backend, pool.reported_at if pool else None)
    if health.is_up and not backend.is_enabled:
        return "disabled", backend.disabled_reason
    return ("up" if health.is_up else "down"), health.down_reason


def _rows(backend: Backend) -> list[list[str]]:
    pools = list(backend.pools.all())
    if not pools:
        state, why = _state(backend)
        return [[backend.address, state, "", "", "", "", why]]
    return [_pool_row(backend, pool) for pool in pools]


def _pool_row(backend: Backend, pool: Pool) -> list[str]:
    state, why = _state(backend, pool)
    total, free = pool.total_bytes, pool.free_bytes
    return [
        f"{backend.address}#{pool.name}",
        state,
        "infinite" if pool.is_infinite else bytes_text(total),
        "infinite" if pool.is_infinite else bytes_text(free),
        str(pool.volume_count),
        provisioning(pool),
        why,
    ]


def provisioning(pool: Pool) -> str:
    """Return `thin`, `thick`, both or nothing."""
    kinds = (("thin", pool.thin_provisioning_support), ("thick", pool.thick_provisioning_support))
    return ", ".join(name for name, is_supported in kinds if is_supported)


def _as_dict(backend: Backend) -> dict[str, Any]:
    state, why = _state(backend)
    return {
        "address": backend.address,
        "driver": backend.driver,
        "options": services.masked_options(backend),
        "state": state,
        "reason": why,
        "availability_zone": backend.availability_zone,
        "is_enabled": backend.is_enabled,
        "reported_at": backend.reported_at,
        "pools": [_pool_dict(backend, pool) for pool in backend.pools.all()],
    }


def _pool_dict(backend: Backend, pool: Pool) -> dict[str, Any]:
    state, why = _state(backend, pool)
    return {
        "address": f"{backend.address}#{pool.name}",
        "state": state,
        "reason": why,
        "total_bytes": pool.total_bytes,
        "free_bytes": pool.free_bytes,
        "is_infinite": pool.is_infinite,
        "volume_count": pool.volume_count,
        "provisioning": provisioning(pool),
    }
