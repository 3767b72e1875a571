"""Commands that do one thing to one migration."""

from __future__ import annotations

from typing import Any, ClassVar

from django.core.management.base import CommandParser

from backends.cli import Exit, VolmigCommand, user_name
from migrations_app import services
from migrations_app.cli.end import EXITS, wait_for
from migrations_app.cli.text import short_id, warning_lines
from migrations_app.models import VolumeMigration
from migrations_app.presentation import progress, summary
from migrations_app.services import Actor

_PLAIN_EXITS = (Exit.DONE, Exit.UNEXPECTED, Exit.USAGE, Exit.REFUSED)


class VerbCommand(VolmigCommand):
    """Finds the migration, lets `decide` call one service, and tells what came of it."""

    #: Whether `--wait` makes sense: something is done afterwards.
    can_wait: ClassVar[bool] = False
    #: Where a waiting command finds what it was asked for, beyond a volume that has moved.
    wanted_states: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.exits = (*_PLAIN_EXITS, *EXITS) if cls.can_wait else _PLAIN_EXITS

    # -- what a command writes ------------------------------------------------------------------------------

    def decide(self, migration: VolumeMigration, actor: Actor, options: dict[str, Any]) -> VolumeMigration:
        """Call the service."""
        raise NotImplementedError

    def told(self, migration: VolumeMigration) -> str:
        """Return in a sentence what was accepted."""
        raise NotImplementedError

    def add_more_options(self, parser: CommandParser) -> None:
        """Declare arguments beside the id."""

    # -- inside ---------------------------------------------------------------------------------------------

    def add_options(self, parser: CommandParser) -> None:
        parser.add_argument("migration", metavar="ID", help="The migration's id, or its beginning.")
        self.add_more_options(parser)
        if self.can_wait:
            parser.add_argument(
                "--wait",
                action="store_true",
                help="Show the progress until it rests; work here if no worker does.",
            )

    def perform(self, **options: Any) -> Exit:
        migration = services.find_migration(options["migration"])
        migration = self.decide(migration, Actor(user_name()), options)
        if options.get("wait"):
            code = wait_for(self, migration)
            migration.refresh_from_db()
            return Exit.DONE if migration.state in self.wanted_states else code
        self.emit(summary(migration))
        self.say(self.told(migration))
        for line in warning_lines(migration):
            self.alarm(line)
        self.say(f"  State:     {progress(migration).state_text}")
        self.say(f"  Follow it: manage.py list_migrations {short_id(migration)}")
        return Exit.DONE
