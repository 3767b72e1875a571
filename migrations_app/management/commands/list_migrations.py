"""Show migrations, or one with all its steps."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from backends.cli import VolmigCommand, argument
from backends.cli_tables import Column, show_table
from backends.quantities import parse_count
from migrations_app import services
from migrations_app.cli.text import (
    RESTING,
    outcome_lines,
    progress_text,
    short_id,
    time_text,
    verb_lines,
    warning_lines,
)
from migrations_app.models import VolumeMigration
from migrations_app.presentation import progress, steps, summary
from migrations_app.states import State

_COLUMNS = (
    Column("ID"),
    Column("VOLUME"),
    Column("FROM"),
    Column("TO"),
    Column("STATE"),
    Column("PROGRESS"),
    Column("ASKED"),
)
_STEP_COLUMNS = (
    Column("STEP"),
    Column("STATUS"),
    Column("STARTED"),
    Column("FINISHED"),
    Column("WHAT", may_wrap=True),
)


class Command(VolmigCommand):
    """`list_migrations`."""

    help = "Show migrations, newest first; with an id one of them, with its steps and its journal."
    examples = (
        "manage.py list_migrations --state copying --state queued",
        "manage.py list_migrations 3f2a9c10",
    )

    def add_options(self, parser: CommandParser) -> None:
        parser.add_argument("migration", nargs="?", metavar="ID", help="The id, or its beginning.")
        parser.add_argument(
            "--state",
            action="append",
            choices=[state.value for state in State],
            metavar="STATE",
            help=f"Only migrations in this state; may be repeated. One of: {', '.join(State)}.",
        )
        parser.add_argument(
            "--limit", type=argument(parse_count), default=20, metavar="N", help="At most so many (20)."
        )

    def perform(self, **options: Any) -> None:
        if options["migration"]:
            self._show_one(services.find_migration(options["migration"]))
        else:
            self._show_list(options["state"], options["limit"])

    def _show_list(self, states: list[str] | None, limit: int) -> None:
        rows = VolumeMigration.objects.select_related(
            "source_pool__backend", "destination_pool__backend"
        ).prefetch_related("journal")
        found = list((rows.filter(state__in=states) if states else rows)[: limit + 1])
        migrations = found[:limit]
        self.emit([summary(migration) for migration in migrations])
        if not migrations:
            self.say("There are no such migrations.")
            return
        show_table(self, _COLUMNS, [_row(migration) for migration in migrations])
        if len(found) > limit:
            self.warn(f"There are more than these {limit}; ask for more with --limit.")

    def _show_one(self, migration: VolumeMigration) -> None:
        journal = list(migration.journal.all())
        self.emit(
            {
                **summary(migration),
                "verbs": services.verbs_for(migration),
                "journal": [
                    {
                        "at": e.at,
                        "kind": e.kind,
                        "step": e.step,
                        "text": e.text,
                        "output": e.output,
                        "actor": e.actor,
                    }
                    for e in journal
                ],
            }
        )
        for line in _details(migration):
            self.say(line)
        for line in warning_lines(migration):
            self.alarm(line)
        for line in verb_lines(migration):
            self.say(line)
        self.say()
        rows = [
            [s.label, s.status, time_text(s.started_at), time_text(s.finished_at), s.text]
            for s in steps(migration)
        ]
        show_table(self, _STEP_COLUMNS, rows)
        self.say()
        self.say("Journal:")
        for entry in journal:
            words = " ".join(filter(None, [entry.step, str(entry.kind), entry.actor and f"by {entry.actor}"]))
            self.say(f"  {time_text(entry.at)}  {words}" + (f": {entry.text}" if entry.text else ""))


def _row(migration: VolumeMigration) -> list[str]:
    view = progress(migration)
    return [
        short_id(migration),
        migration.volume_name,
        str(migration.source_pool),
        str(migration.destination_pool),
        str(migration.state),
        progress_text(view),
        time_text(migration.created_at),
    ]


def _details(migration: VolumeMigration) -> list[str]:
    view = progress(migration)
    lines = [
        f"Migration {migration.pk}",
        f"  Volume:    {migration.volume_name}",
        f"  From:      {migration.source_pool} '{migration.source_object_name}'",
        f"  To:        {migration.destination_pool} '{migration.destination_object_name}'",
        f"  Asked:     {time_text(migration.created_at)} by {migration.requested_by_name}"
        f" ({migration.requested_via})",
    ]
    if migration.state in RESTING:
        return [*lines, *outcome_lines(migration)]
    numbers = progress_text(view)
    lines.append(f"  Now:       {view.state_text}" + (f": {numbers}" if numbers else ""))
    if view.attempts > 1:
        lines.append(f"  Attempts:  {view.attempts}")
    if migration.error_text:
        lines.append(f"  Last error: {migration.error_text}")
    return lines
