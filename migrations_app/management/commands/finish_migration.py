"""Finish a migration whose switch failed."""

from __future__ import annotations

from typing import Any

from migrations_app import services
from migrations_app.cli.verb import VerbCommand
from migrations_app.models import VolumeMigration
from migrations_app.services import Actor


class Command(VerbCommand):
    """`finish_migration`."""

    help = (
        "Go forward from a complete, checked copy whose switch failed: the record is switched to it. Possible while "
        "the migration waits for a decision."
    )
    examples = ("manage.py finish_migration 3f2a9c10", "manage.py finish_migration 3f2a9c10 --wait")
    can_wait = True

    def decide(self, migration: VolumeMigration, actor: Actor, options: dict[str, Any]) -> VolumeMigration:
        return services.finish_migration(migration, actor)

    def told(self, migration: VolumeMigration) -> str:
        return f"The migration of '{migration.volume_name}' goes forward from its complete copy."
