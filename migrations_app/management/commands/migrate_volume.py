"""Move a volume to another backend."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from backends import services as inventory
from backends.cli import Exit, VolmigCommand, argument, user_name
from backends.models import Volume
from backends.quantities import parse_speed
from migrations_app import services
from migrations_app.cli.end import EXITS, wait_for
from migrations_app.cli.text import short_id, warning_lines
from migrations_app.errors import NoValidPool
from migrations_app.models import VolumeMigration
from migrations_app.presentation import summary
from migrations_app.scheduler.human import bytes_text, duration_text
from migrations_app.services import Actor, DryRun, Options


class Command(VolmigCommand):
    """`migrate_volume`."""

    help = (
        "Move a volume to another backend or pool: the copy is read back and compared, then the record is "
        "switched, and the source is kept for a while. The volume must not be in use meanwhile. "
        "With --wait the progress is shown, and the work is done here when no worker takes it."
    )
    examples = (
        "manage.py migrate_volume web-1 --to store1@hdd --wait",
        "manage.py migrate_volume web-1 --to store1@hdd#main --dry-run",
        "manage.py migrate_volume web-1 --to store1@hdd --bandwidth 100MiB --json",
    )
    exits = (Exit.DONE, Exit.UNEXPECTED, Exit.USAGE, Exit.REFUSED, *EXITS)

    def add_options(self, parser: CommandParser) -> None:
        parser.add_argument("volume", metavar="VOLUME", help="Name or id.")
        parser.add_argument(
            "--to",
            required=True,
            metavar="HOST@BACKEND[#POOL]",
            help="Where to; without #POOL the backend's best pool is taken.",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="Say what would happen and change nothing."
        )
        parser.add_argument("--wait", action="store_true", help="Show the progress until it has ended.")
        parser.add_argument(
            "--force-host-copy",
            action="store_true",
            help="Copy even when the storage could move the volume on its own.",
        )
        parser.add_argument(
            "--delete-source", action="store_true", help="Delete the source at once instead of keeping it."
        )
        parser.add_argument(
            "--verify",
            choices=VolumeMigration.Verify.values,
            default=VolumeMigration.Verify.FULL,
            help="full (default): read the copy back and compare; none: trust the storage.",
        )
        parser.add_argument(
            "--bandwidth",
            type=argument(parse_speed),
            metavar="SPEED",
            help="At most so many bytes a second, such as 100MiB.",
        )

    def perform(self, **options: Any) -> Exit:
        volume = inventory.find_volume(options["volume"])
        wishes = Options(
            force_host_copy=options["force_host_copy"],
            delete_source=options["delete_source"],
            verify=options["verify"],
            bandwidth_bytes_per_second=options["bandwidth"],
        )
        try:
            if options["dry_run"]:
                return self._show_dry_run(services.dry_run(volume, options["to"], wishes))
            migration = services.request_migration(volume, options["to"], Actor(user_name()), wishes)
        except NoValidPool as error:
            if options["traceback"]:
                raise
            return self._refuse(volume, error, wishes)
        if options["wait"]:
            return wait_for(self, migration)
        self.emit(summary(migration))
        self.say(f"Accepted: '{volume.name}' moves to {migration.destination_pool}.")
        self.say(f"  Migration: {migration.pk}")
        for line in warning_lines(migration):
            self.alarm(line)
        self.say(f"  Follow it: manage.py list_migrations {short_id(migration)}")
        self.say(f"  Stop it:   manage.py cancel_migration {short_id(migration)}")
        return Exit.DONE

    def _refuse(self, volume: Volume, error: NoValidPool, wishes: Options) -> Exit:
        code = self.show_refusal(error)
        found = services.destinations(volume, wishes)
        fitting = [str(verdict.address) for verdict in found.verdicts if verdict.fits]
        if found.can_move:
            self.warn(f"It could go to: {', '.join(fitting)}.")
        return code

    def _show_dry_run(self, answer: DryRun) -> Exit:
        verdict = answer.verdict
        self.emit(answer.as_dict())
        self.say(f"'{answer.volume.name}' would move to {verdict.address}. Nothing was changed.")
        if verdict.native_how:
            self.say(f"  How:        by the storage ({verdict.native_how})")
        else:
            self.say(f"  How:        {verdict.method_text}; {verdict.native_declined}")
        self.say(f"  Time:       {duration_text(verdict.estimate_seconds)}")
        self.say(
            f"  Free there: {bytes_text(verdict.free_bytes)}, after it {bytes_text(verdict.free_after_bytes)}"
        )
        if answer.warnings:
            self.warn("Warnings:")
            self.warn_reasons(answer.warnings)
        return Exit.DONE
