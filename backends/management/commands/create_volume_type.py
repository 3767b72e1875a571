"""Create a volume type."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from backends import services
from backends.cli import VolmigCommand, argument, as_dict, key_value


class Command(VolmigCommand):
    """`create_volume_type`."""

    help = (
        "Create a volume type: what its volumes ask of their pool, in Cinder's extra specs. "
        "A volume can only be moved to pools that meet its type."
    )
    examples = (
        "manage.py create_volume_type gold --spec tier=gold",
        "manage.py create_volume_type big --spec 'free_capacity_gb=>= 100' --spec provisioning:type=thick",
    )

    def add_options(self, parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME")
        parser.add_argument(
            "--spec",
            action="append",
            default=[],
            type=argument(key_value),
            metavar="KEY=VALUE",
            help="An extra spec; may be repeated.",
        )
        parser.add_argument("--description", default="")

    def perform(self, **options: Any) -> None:
        volume_type = services.create_volume_type(
            options["name"], as_dict(options["spec"], "Extra specs"), description=options["description"]
        )
        self.emit({"id": volume_type.pk, "name": volume_type.name, "extra_specs": volume_type.extra_specs})
        self.say(f"Created the volume type '{volume_type.name}'.")
