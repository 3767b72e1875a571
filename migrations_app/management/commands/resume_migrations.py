"""Let a paused migration go on; ring for migrations that nobody works on."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from backends.cli import Exit, UsageError, VolmigCommand, user_name
from migrations_app import services
from migrations_app.cli.end import EXITS, wait_for
from migrations_app.cli.text import RESTING, short_id
from migrations_app.models import VolumeMigration
from migrations_app.presentation import summary
from migrations_app.services import Actor
from migrations_app.states import State


class Command(VolmigCommand):
    """`resume_migrations`."""

    help = (
        "With an id: let a paused migration go on from its checkpoint. Without: wake the workers for every "
        "migration that has something to do and that nobody works on; a worker does so by itself, this is for the "
        "impatient, and harmless at any time. With --wait the migration is followed to its end, and worked on here "
        "when no worker takes it."
    )
    examples = (
        "manage.py resume_migrations 3f2a9c10",
        "manage.py resume_migrations 3f2a9c10 --wait",
        "manage.py resume_migrations --now",
    )
    exits = (Exit.DONE, Exit.UNEXPECTED, Exit.USAGE, Exit.REFUSED, *EXITS)

    def add_options(self, parser: CommandParser) -> None:
        parser.add_argument(
            "migration", metavar="ID", nargs="?", help="The id of a paused one, or its beginning."
        )
        parser.add_argument(
            "--now",
            action="store_true",
            help="Ring for all at once, also for those whose next try is not yet due.",
        )
        parser.add_argument(
            "--wait", action="store_true", help="Show the migration's progress until it has ended."
        )

    def perform(self, **options: Any) -> Exit:
        if options["wait"] and not options["migration"]:
            raise UsageError("--wait needs an ID.")
        if options["migration"]:
            return self._resume(services.find_migration(options["migration"]), options)
        rung = services.resume_migrations(now=options["now"])
        self.emit([{"id": m.pk, "volume_name": m.volume_name, "state": str(m.state)} for m in rung])
        if not rung:
            self.say("Nothing waits: every migration is worked on, waits for its next try, or has ended.")
        for migration in rung:
            self.say(f"{short_id(migration)}  {migration.volume_name}: host '{migration.host}' was rung")
        return Exit.DONE

    def _resume(self, migration: VolumeMigration, options: dict[str, Any]) -> Exit:
        # One that has ended meanwhile is still worth waiting for: it tells how.
        if migration.state == State.PAUSED or not (options["wait"] and migration.state in RESTING):
            migration = services.resume_migration(migration, Actor(user_name()))
        services.resume_migrations(now=options["now"])
        if options["wait"]:
            return wait_for(self, migration)
        self.emit(summary(migration))
        self.say(f"The migration of '{migration.volume_name}' goes on.")
        self.say(f"  Follow it: manage.py list_migrations {short_id(migration)}")
        return Exit.DONE
