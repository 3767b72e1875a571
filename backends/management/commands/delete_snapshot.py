"""Delete a snapshot."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from backends import services
from backends.cli import VolmigCommand
from backends.cli_rows import snapshot_dict


class Command(VolmigCommand):
    """`delete_snapshot`."""

    help = (
        "Delete a snapshot of a volume of this host. The volume itself is not changed; there is no way back."
    )
    examples = (
        "manage.py delete_snapshot web-1 'before the upgrade'",
        "manage.py delete_snapshot web-1 0b6c2a4e-9d1f-4f55-8a53-3c1f2f6f7a11 --json",
    )

    def add_options(self, parser: CommandParser) -> None:
        parser.add_argument("volume", metavar="VOLUME", help="Name or id.")
        parser.add_argument(
            "snapshot", metavar="SNAPSHOT", help="Name or id; an unknown one lists what there is."
        )

    def perform(self, **options: Any) -> None:
        volume = services.find_volume(options["volume"])
        snapshot = services.find_snapshot(volume, options["snapshot"])
        # Taken before: a deleted row has no id any more.
        document = snapshot_dict(snapshot)
        services.delete_snapshot(snapshot)
        self.emit({**document, "deleted": True})
        self.say(f"Deleted the snapshot '{snapshot.name}' of '{volume.name}'.")
