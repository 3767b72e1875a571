"""Delete a volume with its data."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from backends import services
from backends.cli import UsageError, VolmigCommand
from backends.cli_rows import volume_dict
from migrations_app.scheduler.human import bytes_text


class Command(VolmigCommand):
    """`delete_volume`."""

    help = (
        "Delete a volume of this host and its data. There is no way back. Refused while it is attached, migrates or "
        "has snapshots."
    )
    examples = (
        "manage.py delete_volume web-1 --yes-delete-the-data",
        "manage.py delete_volume 7d0c1a52-5a0e-4b7b-9a43-5d8a2f0c9e10 --yes-delete-the-data --json",
    )

    def add_options(self, parser: CommandParser) -> None:
        parser.add_argument("volume", metavar="VOLUME", help="Name or id.")
        parser.add_argument(
            "--yes-delete-the-data",
            action="store_true",
            help="Needed: without it only what would go is said.",
        )

    def perform(self, **options: Any) -> None:
        volume = services.find_volume(options["volume"])
        what = f"the volume '{volume.name}' ({bytes_text(volume.size_bytes)} on {volume.pool})"
        if not options["yes_delete_the_data"]:
            raise UsageError(
                f"Nothing was deleted. This would delete {what} and its data for ever. "
                "If that is meant, add --yes-delete-the-data."
            )
        services.delete_volume(volume)
        self.emit({**volume_dict(volume), "deleted": True})
        self.say(f"Deleted {what}.")
