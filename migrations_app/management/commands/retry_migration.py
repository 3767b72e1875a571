"""Try a migration again."""

from __future__ import annotations

from typing import Any

from migrations_app import services
from migrations_app.cli.verb import VerbCommand
from migrations_app.models import VolumeMigration
from migrations_app.services import Actor


class Command(VerbCommand):
    """`retry_migration`."""

    help = (
        "Try again. A migration that failed or was cancelled is asked for anew, with the same destination and "
        "options; one that waits for a decision goes on where it stopped."
    )
    examples = ("manage.py retry_migration 3f2a9c10", "manage.py retry_migration 3f2a9c10 --wait")
    can_wait = True

    def decide(self, migration: VolumeMigration, actor: Actor, options: dict[str, Any]) -> VolumeMigration:
        return services.retry_migration(migration, actor)

    def told(self, migration: VolumeMigration) -> str:
        if migration.retry_of_id:
            where = f"'{migration.volume_name}' moves to {migration.destination_pool}"
            return f"Accepted: {where}, as migration {migration.pk}."
        return f"The migration of '{migration.volume_name}' goes on where it stopped."
