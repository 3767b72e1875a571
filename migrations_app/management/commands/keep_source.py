"""Keep a source longer."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from backends.cli import argument
from backends.quantities import parse_count
from migrations_app import services
from migrations_app.cli.text import time_text
from migrations_app.cli.verb import VerbCommand
from migrations_app.models import VolumeMigration
from migrations_app.services import Actor


class Command(VerbCommand):
    """`keep_source`."""

    help = (
        "Keep the source of a migration longer than planned; after a roll-back the copy. The hours are added to the "
        "time until which it is kept now."
    )
    examples = (
        "manage.py keep_source 3f2a9c10 --hours 24",
        "manage.py keep_source 3f2a9c10 --hours 168 --json",
    )

    def add_more_options(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--hours", required=True, type=argument(_hours), metavar="N", help="1 to 8760, which is a year."
        )

    def decide(self, migration: VolumeMigration, actor: Actor, options: dict[str, Any]) -> VolumeMigration:
        return services.keep_longer(migration, options["hours"], actor)

    def told(self, migration: VolumeMigration) -> str:
        return f"Kept until {time_text(migration.purge_after)}."


def _hours(text: str) -> int:
    hours = parse_count(text)
    if hours > 8760:
        raise ValueError(f"{hours} hours are more than a year; at most 8760 at a time")
    return hours
