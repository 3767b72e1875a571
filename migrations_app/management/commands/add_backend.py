"""Register a backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from backends import services as inventory
from backends.cli import UsageError, VolmigCommand, argument, as_dict, key_value
from backends.drivers.options import describe_options
from backends.drivers.registry import driver_class, driver_names
from backends.models import Backend
from backends.quantities import parse_speed
from migrations_app import dispatch
from migrations_app.scheduler.human import bytes_text
from migrations_app.schedules import ensure_schedules


class Command(VolmigCommand):
    """`add_backend`."""

    help = (
        "Register a storage backend. On its own host the storage is asked at once, and nothing is registered "
        "when it cannot be used; of another host its worker will ask."
    )
    examples = (
        "manage.py add_backend store1@ssd --driver directory --option path=/srv/ssd",
        "manage.py add_backend store1@hdd --driver directory --option path=/srv/hdd --capability tier=cold",
    )

    @property
    def notes(self) -> tuple[str, ...]:
        """Return every driver with its options."""
        lines = ["drivers and their options:"]
        for name in driver_names():
            cls = driver_class(name)
            lines.append(f"  {name}: {cls.label}")
            for info in describe_options(cls.options_class):
                needed = "required" if info.is_required else f"default {info.default!r}"
                secret = ", secret" if info.is_secret else ""
                lines.append(f"    {info.name}: {info.help_text} ({needed}{secret})")
        return tuple(lines)

    def add_options(self, parser: CommandParser) -> None:
        pair = argument(key_value)
        parser.add_argument(
            "address", metavar="HOST@NAME", help="HOST is the machine that reaches the storage."
        )
        parser.add_argument("--driver", required=True, choices=driver_names())
        parser.add_argument(
            "--option",
            action="append",
            default=[],
            type=pair,
            metavar="KEY=VALUE",
            help="A driver option; may be repeated.",
        )
        parser.add_argument(
            "--secret-option-file",
            action="append",
            default=[],
            type=pair,
            metavar="KEY=PATH",
            help="A driver option read from a file, so that no secret stands in the list of processes.",
        )
        parser.add_argument("--availability-zone", default="", metavar="ZONE")
        parser.add_argument(
            "--reserved-percentage",
            type=int,
            default=0,
            metavar="N",
            help="Room that no volume may use, 0 to 100.",
        )
        parser.add_argument(
            "--max-over-subscription-ratio",
            type=float,
            metavar="RATIO",
            help="Provisioned over total that thin pools may reach, 1.0 or more.",
        )
        parser.add_argument(
            "--max-bandwidth",
            type=argument(parse_speed),
            metavar="SPEED",
            help="Bytes per second, such as 200MiB, that all migrations from and to it may move together.",
        )
        parser.add_argument(
            "--capability",
            action="append",
            default=[],
            type=pair,
            metavar="KEY=VALUE",
            help="What volume types may ask for; may be repeated.",
        )

    def perform(self, **options: Any) -> None:
        secrets = [(key, _read(Path(path))) for key, path in options["secret_option_file"]]
        backend = inventory.register_backend(
            options["address"],
            options["driver"],
            as_dict([*options["option"], *secrets], "Driver options"),
            availability_zone=options["availability_zone"],
            reserved_percentage=options["reserved_percentage"],
            max_over_subscription_ratio=options["max_over_subscription_ratio"],
            max_bandwidth_bytes_per_second=options["max_bandwidth"],
            extra_capabilities=as_dict(options["capability"], "Capabilities"),
        )
        ensure_schedules(backend.host)
        if not inventory.is_local(backend):
            dispatch.ring_refresh(backend.host)
        self._report(backend)

    def _report(self, backend: Backend) -> None:
        pools = list(backend.pools.all())
        self.emit(
            {
                "address": backend.address,
                "driver": backend.driver,
                "options": inventory.masked_options(backend),
                "pools": [f"{backend.address}#{pool.name}" for pool in pools],
            }
        )
        self.say(f"Registered the backend {backend}.")
        for pool in pools:
            room = "no limit" if pool.is_infinite else f"{bytes_text(pool.free_bytes)} free"
            self.say(f"  {backend.address}#{pool.name}: {room}")
        if not pools:
            self.say(f"Its pools are known when the worker of host '{backend.host}' has reported them.")


def _read(path: Path) -> str:
    try:
        return path.read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"The file '{path}' cannot be read: {reason}.") from None
