"""Make a volume larger."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from backends import services
from backends.cli import VolmigCommand, argument
from backends.cli_rows import volume_dict
from backends.quantities import parse_bytes
from migrations_app.scheduler.human import bytes_text


class Command(VolmigCommand):
    """`extend_volume`."""

    help = (
        "Make a volume of this host larger; the new part reads as zeros. Refused while it is attached or migrates. "
        "The file system on it is not touched."
    )
    examples = (
        "manage.py extend_volume web-1 --size 20GiB",
        "manage.py extend_volume web-1 --size 20GiB --json",
    )

    def add_options(self, parser: CommandParser) -> None:
        parser.add_argument("volume", metavar="VOLUME", help="Name or id.")
        parser.add_argument(
            "--size",
            required=True,
            type=argument(parse_bytes),
            help="The whole new size, such as 20GiB (1024s), 20GB (1000s), or plain bytes.",
        )

    def perform(self, **options: Any) -> None:
        volume = services.extend_volume(services.find_volume(options["volume"]), options["size"])
        self.emit(volume_dict(volume))
        self.say(f"The volume '{volume.name}' has {bytes_text(volume.size_bytes)} now.")
