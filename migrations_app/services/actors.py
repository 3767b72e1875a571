"""Who asks, and how it is written down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib.admin.models import CHANGE, LogEntry

from backends import services as inventory
from migrations_app.models import JournalEntry, VolumeMigration

#: With fewer characters an id is not looked for by its beginning.
_SHORTEST_ID = 4


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks, and through which door."""

    name: str
    via: str = VolumeMigration.Via.COMMAND
    user: Any = None

    @classmethod
    def of(cls, user: Any, via: str) -> Actor:
        return cls(user.get_username(), via, user)


def find_migration(text: str) -> VolumeMigration:
    """Return the migration whose id is *text* or begins with it.  Raises `inventory.UnknownName`."""
    query = VolumeMigration.objects.select_related("source_pool__backend", "destination_pool__backend")
    digits = text.strip().lower().replace("-", "")
    # As PostgreSQL writes an id; SQLite's lookup takes the hyphens away again.
    parts = (digits[start:end] for start, end in ((0, 8), (8, 12), (12, 16), (16, 20), (20, None)))
    wanted = "-".join(part for part in parts if part)
    found = list(query.filter(pk__startswith=wanted)[:2]) if len(digits) >= _SHORTEST_ID else []
    if len(found) == 1:
        return found[0]
    if found:
        raise inventory.UnknownName(f"Several migrations begin with '{text}'. Write more of the id.")
    raise inventory.UnknownName(
        f"There is no migration '{text}'. `manage.py list_migrations` shows the last ones."
    )


def reload(migration: VolumeMigration) -> VolumeMigration:
    return VolumeMigration.objects.select_related("source_pool__backend", "destination_pool__backend").get(
        pk=migration.pk
    )


def note(migration: VolumeMigration, actor: Actor, kind: JournalEntry.Kind, text: str) -> None:
    """Write an act of a person into the journal and, when it is a user of the site, into the admin's history."""
    JournalEntry.objects.create(migration=migration, kind=kind, text=text, actor=actor.name)
    if actor.user is not None and migration.volume_id:
        LogEntry.objects.log_actions(
            actor.user.pk,
            [migration.volume],
            CHANGE,
            change_message=f"{text} ({actor.via})",
            single_object=True,
        )
