"""Ring for migrations that nobody works on."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from backends.cli import Exit, UsageError, VolmigCommand
from migrations_app import services
from migrations_app.cli.end import EXITS, wait_for
from migrations_app.cli.text import short_id


class Command(VolmigCommand):
    """`resume_migrations`."""

    help = (
        "Wake the workers for every migration that has something to do and that nobody works on. A worker does "
        "so by itself; this is for the impatient, and harmless at any time. With an id and --wait one migration "
        "is followed to its end, and worked on here when no worker takes it."
    )
    examples = ("manage.py resume_migrations --now", "manage.py resume_migrations 3f2a9c10 --wait")
    exits = (Exit.DONE, Exit.UNEXPECTED, Exit.USAGE, Exit.REFUSED, *EXITS)

    def add_options(self, parser: CommandParser) -> None:
        parser.add_argument("migration", metavar="ID", nargs="?", help="Only this one, together with --wait.")
        parser.add_argument(
            "--now", action="store_true", help="Ring for all at once, also for those whose next try is not yet due."
        )
        parser.add_argument("--wait", action="store_true", help="Show the migration's progress until it has ended.")

    def perform(self, **options: Any) -> Exit:
        if options["wait"] != bool(options["migration"]):
            raise UsageError("An ID and --wait go together.")
        migration = services.find_migration(options["migration"]) if options["migration"] else None
        rung = services.resume_migrations(now=options["now"])
        if migration is not None:
            return wait_for(self, migration)
        self.emit([{"id": m.pk, "volume_name": m.volume_name, "state": str(m.state)} for m in rung])
        if not rung:
            self.say("Nothing waits: every migration is worked on, waits for its next try, or has ended.")
        for migration in rung:
            self.say(f"{short_id(migration)}  {migration.volume_name}: host '{migration.host}' was rung")
        return Exit.DONE
