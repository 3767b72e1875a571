"""Waiting for a migration in a command, and telling how it ended."""

from __future__ import annotations

from backends.cli import Exit, VolmigCommand
from migrations_app.cli.follow import Followed, follow
from migrations_app.cli.text import MOVED, outcome_lines, short_id, warning_lines
from migrations_app.models import VolumeMigration
from migrations_app.presentation import summary
from migrations_app.states import State

#: What a waiting command may end with beyond what every command may.
EXITS = (Exit.FAILED, Exit.CANCELLED, Exit.INTERRUPTED)


def wait_for(command: VolmigCommand, migration: VolumeMigration) -> Exit:
    """Show *migration* until it rests or the person leaves, tell how it ended, and return the exit code."""
    followed = follow(command, migration.pk)
    if not followed.is_over:
        return _left(command, followed)
    command.emit(summary(followed.migration))
    for line in outcome_lines(followed.migration):
        command.say(line)
    for line in warning_lines(followed.migration):
        command.alarm(line)
    return exit_of(followed.migration)


def exit_of(migration: VolumeMigration) -> Exit:
    """Return the exit code for how *migration* ended.  A pause is what somebody wanted, not a failure."""
    if migration.state in MOVED or migration.state == State.PAUSED:
        return Exit.DONE
    return Exit.CANCELLED if migration.state == State.CANCELLED else Exit.FAILED


def _left(command: VolmigCommand, followed: Followed) -> Exit:
    migration = followed.migration
    command.emit({**summary(migration), "interrupted": True})
    command.warn("")
    if followed.was_here:
        command.warn("Stopped watching, and the work with it. It goes on from its last checkpoint:")
        command.warn(f"  Go on:     manage.py resume_migrations {short_id(migration)} --wait")
        command.warn("             or by itself as soon as a worker runs: manage.py volmig_worker")
    else:
        command.warn("Stopped watching; the migration goes on.")
        command.warn(f"  Follow it: manage.py list_migrations {short_id(migration)}")
    command.warn(f"  Stop it:   manage.py cancel_migration {short_id(migration)}")
    return Exit.INTERRUPTED
