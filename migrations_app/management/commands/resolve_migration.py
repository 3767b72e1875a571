"""Say where the data of a stopped migration is."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from migrations_app import services
from migrations_app.cli.verb import VerbCommand
from migrations_app.models import VolumeMigration
from migrations_app.services import Actor, Truth


class Command(VerbCommand):
    """`resolve_migration`."""

    help = (
        "End a migration that waits for a decision by your word about where the data is. Deletes nothing anywhere. "
        "Look at both storages before: the record is believed from then on."
    )
    examples = (
        "manage.py resolve_migration 3f2a9c10 --truth at_source --type-name web-1",
        "manage.py resolve_migration 3f2a9c10 --truth settled --type-name web-1",
    )
    notes = (
        "what can be said:",
        "  at_source       before the switch: the volume is where it was; the record stays",
        "  at_destination  before the switch: the copy is the volume; the record is switched to it",
        "  settled         after the switch: the rest was tidied up by hand",
    )

    def add_more_options(self, parser: CommandParser) -> None:
        parser.add_argument("--truth", required=True, choices=[t.value for t in Truth], help="See below.")
        parser.add_argument(
            "--type-name",
            required=True,
            metavar="NAME",
            help="The volume's name, so that it is not done by a slip.",
        )

    def decide(self, migration: VolumeMigration, actor: Actor, options: dict[str, Any]) -> VolumeMigration:
        return services.resolve_migration(
            migration, Truth(options["truth"]), actor, typed_name=options["type_name"]
        )

    def told(self, migration: VolumeMigration) -> str:
        return migration.data_location
