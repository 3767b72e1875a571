"""Migrations as the commands tell them."""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone

from migrations_app import services
from migrations_app.models import VolumeMigration
from migrations_app.presentation import ProgressView, warning
from migrations_app.scheduler.human import bytes_text, duration_text
from migrations_app.states import State

MOVED = frozenset({State.RETAINED, State.DONE})
#: Where a migration stays until a person or the clock does something.
RESTING = MOVED | {*(State.PAUSED, State.FAILED, State.CANCELLED, State.NEEDS_OPERATOR, State.ROLLED_BACK)}
#: How each verb is typed; `{id}` is the migration.
_COMMANDS = {
    "cancel": "cancel_migration {id} --wait",
    "pause": "pause_migration {id}",
    "resume": "resume_migrations {id}",
    "set_bandwidth": "set_bandwidth {id} 100MiB",
    "retry": "retry_migration {id} --wait",
    "finish": "finish_migration {id} --wait",
    "roll_back": "roll_back_migration {id} --wait",
    "resolve": "resolve_migration {id} --truth {truth} --type-name NAME",
    "purge_now": "purge_source {id} --wait",
    "keep_longer": "keep_source {id} --hours 24",
}


def short_id(migration: VolumeMigration) -> str:
    """Return as much of the id as a person types."""
    return str(migration.pk)[:8]


def verb_lines(migration: VolumeMigration) -> list[str]:
    """Return the commands that can be typed now, the likeliest first."""
    truth = "at_source|at_destination" if migration.locks_volume else "settled"
    lines = [
        _COMMANDS[verb].format(id=short_id(migration), truth=truth) for verb in services.verbs_for(migration)
    ]
    heads = ("  Possible:  manage.py ", "             manage.py ")
    return [heads[bool(index)] + line for index, line in enumerate(lines)]


def warning_lines(migration: VolumeMigration) -> list[str]:
    """Return what must not be overlooked; shown in red."""
    text = warning(migration)
    return [f"  Warning:   {text}"] if text else []


def time_text(moment: datetime | None) -> str:
    return "" if moment is None else f"{timezone.localtime(moment):%Y-%m-%d %H:%M:%S %Z}"


def progress_text(view: ProgressView) -> str:
    """Return `41 %, 4.1 GiB of 10.0 GiB, 210.0 MiB/s, about 30 s left`; only what is known."""
    parts = []
    if view.percent is not None:
        parts.append(f"{view.percent} %")
    if view.done_bytes is not None:
        parts.append(f"{bytes_text(view.done_bytes)} of {bytes_text(view.total_bytes)}")
    if view.bytes_per_second:
        parts.append(f"{bytes_text(view.bytes_per_second)}/s")
    if view.eta_seconds is not None:
        parts.append(f"{duration_text(view.eta_seconds)} left")
    return ", ".join(parts)


def outcome_lines(migration: VolumeMigration) -> list[str]:
    """Return how a migration ended: where the data is, what was checked, how long it took, what to do."""
    name, state = migration.volume_name, State(migration.state)
    if state in MOVED:
        return [
            f"Moved '{name}' from {migration.source_pool} to {migration.destination_pool}.",
            f"  Where:     {migration.data_location}",
            f"  Verified:  {_verified(migration)}",
            f"  Took:      {_took(migration)}",
            f"  Source:    {_source(migration)}",
        ]
    heading = {
        State.PAUSED: f"The migration of '{name}' is paused; the volume stays locked.",
        State.CANCELLED: f"The migration of '{name}' was cancelled.",
        State.NEEDS_OPERATOR: f"The migration of '{name}' stopped and needs a decision.",
        State.ROLLED_BACK: f"The migration of '{name}' was rolled back.",
    }.get(state, f"The migration of '{name}' failed.")
    why = [f"  Why:       {migration.error_text}"] if migration.error_text else []
    where = migration.data_location or f"The volume is where it was: {migration.source_pool}."
    kept = [f"  Copy:      kept until {time_text(migration.purge_after)}, then deleted"] * bool(
        migration.purge_after
    )
    go_on = [f"  Go on:     manage.py resume_migrations {short_id(migration)}"] * (state is State.PAUSED)
    look = f"  Look:      manage.py list_migrations {short_id(migration)}"
    return [heading, *why, f"  Where:     {where}", *kept, *go_on, look]


def _verified(migration: VolumeMigration) -> str:
    if migration.destination_digest:
        return (
            f"read back from the destination and equal to the source, digest {migration.destination_digest}"
        )
    if migration.verify == VolumeMigration.Verify.NONE:
        return "no, as asked"
    return f"the storage moved it ({migration.method}); nothing was copied, so there is nothing to compare"


def _took(migration: VolumeMigration) -> str:
    if not migration.started_at or not migration.finished_at:
        return "unknown"
    seconds = (migration.finished_at - migration.started_at).total_seconds()
    text = f"{seconds:.1f} s by {migration.method or 'unknown'}"
    if migration.data_bytes is None:
        return text
    speed = f", {bytes_text(int(migration.data_bytes / seconds))}/s" if seconds > 0 else ""
    return f"{text}, {bytes_text(migration.data_bytes)} of data{speed}"


def _source(migration: VolumeMigration) -> str:
    if migration.source_state == VolumeMigration.Source.DELETED:
        return "deleted"
    if migration.purge_after is None:
        return "kept until somebody deletes it: there is no proof that the copy equals it"
    return f"kept until {time_text(migration.purge_after)}, then deleted"
