"""Create a volume."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from backends import services
from backends.cli import VolmigCommand, argument
from backends.cli_rows import volume_dict
from backends.quantities import parse_bytes
from migrations_app.scheduler.human import bytes_text


class Command(VolmigCommand):
    """`create_volume`."""

    help = "Create an empty volume on a pool of this host."
    examples = (
        "manage.py create_volume web-1 --size 10GiB --pool store1@ssd#main",
        "manage.py create_volume db-1 --size 512MiB --pool store1@ssd --type gold",
    )

    def add_options(self, parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME")
        parser.add_argument(
            "--size",
            required=True,
            type=argument(parse_bytes),
            help="Such as 10GiB (1024s), 10GB (1000s), or plain bytes.",
        )
        parser.add_argument(
            "--pool", required=True, metavar="HOST@BACKEND#POOL", help="#POOL: if it has several."
        )
        parser.add_argument("--type", metavar="TYPE", help="A volume type.")
        parser.add_argument("--description", default="")

    def perform(self, **options: Any) -> None:
        pool = services.find_pool(options["pool"])
        volume_type = services.find_volume_type(options["type"]) if options["type"] else None
        volume = services.create_volume(
            options["name"],
            options["size"],
            pool,
            volume_type=volume_type,
            description=options["description"],
        )
        self.emit(volume_dict(volume))
        self.say(f"Created the volume '{volume.name}' of {bytes_text(volume.size_bytes)} on {pool}.")
        self.say(f"Its id is {volume.pk}.")
