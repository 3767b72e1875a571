"""Pause a migration."""

from __future__ import annotations

from typing import Any

from migrations_app import services
from migrations_app.cli.text import short_id
from migrations_app.cli.verb import VerbCommand
from migrations_app.models import VolumeMigration
from migrations_app.services import Actor


class Command(VerbCommand):
    """`pause_migration`."""

    help = (
        "Let a migration stand still at its next checkpoint, or at once when nobody works on it. The volume stays "
        "locked. It goes on from there with resume_migrations ID. May be repeated."
    )
    examples = ("manage.py pause_migration 3f2a9c10", "manage.py pause_migration 3f2a9c10 --json")

    def decide(self, migration: VolumeMigration, actor: Actor, options: dict[str, Any]) -> VolumeMigration:
        return services.pause_migration(migration, actor)

    def told(self, migration: VolumeMigration) -> str:
        go_on = f"manage.py resume_migrations {short_id(migration)}"
        return f"The migration of '{migration.volume_name}' is to stand still. Let it go on with: {go_on}"
