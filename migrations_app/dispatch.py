"""
The doorbell.  The only module that knows the queue.

A message carries a migration's id and means "look at this row".  It may be lost, doubled or late: the row and its
lease decide what is done, and the sweep rings again.  What django-q2 guarantees and what not is the reason; see
`docs/decisions/0002-the-queue-is-a-doorbell.md`.
"""

from __future__ import annotations

import uuid

from django.db import transaction
from django_q.tasks import async_task

ADVANCE = "migrations_app.tasks.advance"
REFRESH = "migrations_app.tasks.refresh"


def ring(migration_id: uuid.UUID, host: str) -> None:
    """
    Wake a worker of *host* for this migration, when the running transaction has been committed.

    Safe to repeat: yes.
    """
    transaction.on_commit(
        lambda: async_task(
            ADVANCE, str(migration_id), cluster=host, task_name=f"migrate {migration_id}"[:100]
        )
    )


def ring_refresh(host: str) -> None:
    """Let a worker of *host* refresh its backends' statistics now.  Safe to repeat: yes."""
    transaction.on_commit(lambda: async_task(REFRESH, cluster=host))
