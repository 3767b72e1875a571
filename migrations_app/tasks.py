"""What django-q2 calls.  Nothing here raises: a failed task means nothing, the row says everything."""

from __future__ import annotations

import logging
import uuid

from django.conf import settings

from backends import services as inventory
from migrations_app import services, worker
from migrations_app.remote.asking import forget_old_calls

logger = logging.getLogger(__name__)


def advance(migration_id: str) -> str:
    """Answer the bell for one migration."""
    try:
        return worker.advance(uuid.UUID(migration_id))
    except Exception:
        # Most likely the database: the lease runs out and the sweep rings again.
        logger.exception("migration %s: the worker could not go on", migration_id)
        return "could not go on"


def sweep() -> str:
    """Ring for what nobody works on, delete what was kept long enough, forget old idempotency keys."""
    services.forget_old_requests()
    forget_old_calls()
    purged = services.purge_expired_sources()
    rung = services.resume_migrations()
    return f"{len(rung)} rung, {len(purged)} sources to delete"


def refresh() -> str:
    """Refresh the statistics of this host's backends."""
    result = inventory.refresh_host(settings.VOLMIG_HOST)
    return f"{len(result)} backends, {sum(map(bool, result.values()))} with errors"
