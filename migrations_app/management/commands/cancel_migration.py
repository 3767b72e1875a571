"""Cancel a migration."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from backends.cli import Exit, VolmigCommand, user_name
from migrations_app import services
from migrations_app.cli.end import wait_for
from migrations_app.cli.text import short_id
from migrations_app.presentation import summary
from migrations_app.services import Actor


class Command(VolmigCommand):
    """`cancel_migration`."""

    help = (
        "Cancel a migration: what was made at the destination is removed, the volume is as it was. "
        "Possible until the record has moved. May be repeated."
    )
    examples = ("manage.py cancel_migration 3f2a9c10", "manage.py cancel_migration 3f2a9c10 --wait")
    exits = (Exit.DONE, Exit.UNEXPECTED, Exit.USAGE, Exit.REFUSED, Exit.FAILED, Exit.INTERRUPTED)

    def add_options(self, parser: CommandParser) -> None:
        parser.add_argument("migration", metavar="ID", help="The id, or its beginning.")
        parser.add_argument(
            "--wait",
            action="store_true",
            help="Wait until it is undone; it is undone here if no worker does it.",
        )

    def perform(self, **options: Any) -> Exit:
        migration = services.find_migration(options["migration"])
        migration = services.cancel_migration(migration, Actor(user_name()))
        if options["wait"]:
            code = wait_for(self, migration)
            # It was cancelled, as asked; that it moved before is what was not asked for.
            return {Exit.CANCELLED: Exit.DONE, Exit.DONE: Exit.FAILED}.get(code, code)
        self.emit(summary(migration))
        self.say(f"The migration of '{migration.volume_name}' is being cancelled.")
        self.say(f"  Follow it: manage.py list_migrations {short_id(migration)}")
        return Exit.DONE
