"""
Every verb of a migration.

The only writer of migration state besides the worker that holds the lease.  The admin, the API and the commands
parse, call one of these, and show.
"""

from migrations_app.services.actors import Actor, find_migration
from migrations_app.services.asking import (
    Destinations,
    DryRun,
    Options,
    destinations,
    dry_run,
    measured_copy_speed,
)
from migrations_app.services.decisions import (
    Truth,
    finish_migration,
    keep_longer,
    purge_now,
    resolve_migration,
    retry_migration,
    roll_back,
    verbs_for,
)
from migrations_app.services.doctor import Finding, examine, mend
from migrations_app.services.mending import Mended, mend_all
from migrations_app.services.once import forget_old_requests, request_once
from migrations_app.services.requesting import request_migration
from migrations_app.services.upkeep import purge_expired_sources, resume_migrations, waiting_and_running
from migrations_app.services.wishes import (
    cancel_migration,
    has_complete_copy,
    pause_migration,
    resume_migration,
    set_bandwidth,
)

__all__ = [
    "Actor",
    "Destinations",
    "DryRun",
    "Finding",
    "Mended",
    "Options",
    "Truth",
    "cancel_migration",
    "destinations",
    "dry_run",
    "examine",
    "find_migration",
    "finish_migration",
    "forget_old_requests",
    "has_complete_copy",
    "keep_longer",
    "measured_copy_speed",
    "mend",
    "mend_all",
    "pause_migration",
    "purge_expired_sources",
    "purge_now",
    "request_migration",
    "request_once",
    "resolve_migration",
    "resume_migration",
    "resume_migrations",
    "retry_migration",
    "roll_back",
    "set_bandwidth",
    "verbs_for",
    "waiting_and_running",
]
