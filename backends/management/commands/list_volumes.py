"""Show volumes, newest first."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from django.db.models import QuerySet

from backends import services
from backends.cli import VolmigCommand, argument
from backends.cli_rows import volume_dict
from backends.cli_tables import Column, show_table
from backends.models import Volume
from backends.quantities import parse_count
from migrations_app.scheduler.human import bytes_text

_COLUMNS = (
    Column("NAME"),
    Column("SIZE", is_number=True),
    Column("POOL"),
    Column("TYPE"),
    Column("STATUS"),
    Column("MIGRATION"),
    Column("ID"),
)


class Command(VolmigCommand):
    """`list_volumes`."""

    help = "Show volumes, newest first."
    examples = ("manage.py list_volumes --pool store1@ssd", "manage.py list_volumes --limit 1000 --json")

    def add_options(self, parser: CommandParser) -> None:
        parser.add_argument("--pool", metavar="HOST@BACKEND[#POOL]", help="Only volumes of this place.")
        parser.add_argument(
            "--limit", type=argument(parse_count), default=50, metavar="N", help="At most so many (50)."
        )

    def perform(self, **options: Any) -> None:
        limit = options["limit"]
        found = list(_volumes(options["pool"])[: limit + 1])
        volumes = found[:limit]
        self.emit([volume_dict(volume) for volume in volumes])
        if not volumes:
            self.say("There are no such volumes.")
            return
        show_table(self, _COLUMNS, [_row(volume) for volume in volumes])
        if len(found) > limit:
            self.warn(f"There are more than these {limit}; ask for more with --limit.")


def _volumes(place: str | None) -> QuerySet[Volume]:
    volumes = Volume.objects.select_related("pool__backend", "volume_type")
    if place is None:
        return volumes
    if "#" in place:
        return volumes.filter(pool=services.find_pool(place))
    return volumes.filter(pool__backend=services.find_backend(place))


def _row(volume: Volume) -> list[str]:
    return [
        volume.name,
        bytes_text(volume.size_bytes),
        str(volume.pool),
        volume.volume_type.name if volume.volume_type else "",
        volume.status,
        volume.migration_status or "",
        str(volume.pk),
    ]
