"""Change how fast a migration may be."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from backends.cli import argument
from backends.quantities import parse_speed
from migrations_app import services
from migrations_app.cli.verb import VerbCommand
from migrations_app.models import VolumeMigration
from migrations_app.scheduler.human import bytes_text
from migrations_app.services import Actor


class Command(VerbCommand):
    """`set_bandwidth`."""

    help = "Change the bandwidth limit of a migration; a running copy feels it within a second."
    examples = ("manage.py set_bandwidth 3f2a9c10 100MiB", "manage.py set_bandwidth 3f2a9c10 none")

    def add_more_options(self, parser: CommandParser) -> None:
        parser.add_argument(
            "bandwidth",
            metavar="SPEED",
            type=argument(_speed),
            help="Bytes a second, such as 100MiB; none takes the limit away.",
        )

    def decide(self, migration: VolumeMigration, actor: Actor, options: dict[str, Any]) -> VolumeMigration:
        return services.set_bandwidth(migration, options["bandwidth"], actor)

    def told(self, migration: VolumeMigration) -> str:
        limit = migration.bandwidth_bytes_per_second
        how = f"at most {bytes_text(limit)} a second" if limit else "as fast as it goes"
        return f"The migration of '{migration.volume_name}' copies {how}."


def _speed(text: str) -> int | None:
    return None if text.strip().lower() == "none" else parse_speed(text)
