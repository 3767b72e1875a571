"""Make a snapshot of a volume."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from backends import services
from backends.cli import VolmigCommand, argument
from backends.cli_rows import snapshot_dict


class Command(VolmigCommand):
    """`create_snapshot`."""

    help = (
        "Make a snapshot of a volume of this host, where its storage can. "
        "A volume with snapshots cannot be migrated."
    )
    examples = (
        "manage.py create_snapshot web-1 --name 'before the upgrade'",
        "manage.py create_snapshot web-1 --name monday --json",
    )

    def add_options(self, parser: CommandParser) -> None:
        parser.add_argument("volume", metavar="VOLUME", help="Name or id.")
        parser.add_argument("--name", required=True, type=argument(_name), help="What it shall be called.")

    def perform(self, **options: Any) -> None:
        volume = services.find_volume(options["volume"])
        snapshot = services.create_snapshot(volume, options["name"])
        self.emit(snapshot_dict(snapshot))
        self.say(f"Made the snapshot '{snapshot.name}' of '{volume.name}'.")
        self.say(f"Its id is {snapshot.pk}.")


def _name(text: str) -> str:
    if not 1 <= len(text.strip()) <= 255:
        raise ValueError("a name has 1 to 255 characters")
    return text.strip()
