"""Roll a migration back."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from migrations_app import services
from migrations_app.cli.verb import VerbCommand
from migrations_app.models import VolumeMigration
from migrations_app.services import Actor
from migrations_app.states import State


class Command(VerbCommand):
    """`roll_back_migration`."""

    help = (
        "Point the record at the kept source again, at once, and remove the copy. Possible while the source is kept. "
        "What was written to the volume since the move is in the copy only: then --accept-loss is needed, and the "
        "copy is kept as long as a source is."
    )
    examples = (
        "manage.py roll_back_migration 3f2a9c10 --wait",
        "manage.py roll_back_migration 3f2a9c10 --accept-loss",
    )
    can_wait = True
    wanted_states = frozenset({State.ROLLED_BACK})

    def add_more_options(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--accept-loss",
            action="store_true",
            help="What was written since the move need not be in the volume.",
        )

    def decide(self, migration: VolumeMigration, actor: Actor, options: dict[str, Any]) -> VolumeMigration:
        return services.roll_back(migration, actor, accepts_loss=options["accept_loss"])

    def told(self, migration: VolumeMigration) -> str:
        return f"The volume '{migration.volume_name}' is at {migration.source_pool} again."
