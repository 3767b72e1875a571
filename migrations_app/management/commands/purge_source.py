"""Delete a kept source now."""

from __future__ import annotations

from typing import Any

from migrations_app import services
from migrations_app.cli.verb import VerbCommand
from migrations_app.models import VolumeMigration
from migrations_app.services import Actor
from migrations_app.states import State


class Command(VerbCommand):
    """`purge_source`."""

    help = (
        "Delete the kept source of a migration now instead of when its time is over; after a roll-back the kept "
        "copy. It is deleted only when the proof that the copy equals it is complete. There is no way back."
    )
    examples = ("manage.py purge_source 3f2a9c10", "manage.py purge_source 3f2a9c10 --wait")
    can_wait = True
    wanted_states = frozenset({State.ROLLED_BACK})

    def decide(self, migration: VolumeMigration, actor: Actor, options: dict[str, Any]) -> VolumeMigration:
        return services.purge_now(migration, actor)

    def told(self, migration: VolumeMigration) -> str:
        return f"What the migration of '{migration.volume_name}' keeps is being deleted."
