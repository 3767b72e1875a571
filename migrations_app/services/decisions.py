"""
What a person decides about a migration that has stopped: retry, finish, roll back, resolve, keep or purge a source.

Every verb is one compare-and-set: of two people who decide at the same time one wins and the other is told.
"""

from __future__ import annotations

import enum
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from backends.drivers.errors import DriverError
from backends.models import Volume
from migrations_app import dispatch
from migrations_app.errors import NotNow
from migrations_app.models import JournalEntry, VolumeMigration
from migrations_app.remote.driver import driver_for
from migrations_app.services.actors import Actor, note, reload
from migrations_app.services.asking import Options
from migrations_app.services.requesting import request_migration
from migrations_app.services.upkeep import PURGES, start_purge
from migrations_app.services.wishes import has_complete_copy, not_now
from migrations_app.states import CANCELLABLE, MigrationStatus, State
from migrations_app.steps import STEPS, retention

_Kind = JournalEntry.Kind
_SWITCH = next(step.name for step in STEPS if step.final)


class Truth(enum.StrEnum):
    """What an operator may say of a migration that cannot go on by itself."""

    AT_SOURCE = "at_source"
    AT_DESTINATION = "at_destination"
    SETTLED = "settled"


# -- after it has stopped -----------------------------------------------------------------------------------------


def retry_migration(migration: VolumeMigration, actor: Actor) -> VolumeMigration:
    """
    Return the migration that tries again.

    One that has failed or was cancelled is asked for anew, with the same destination and options.  One that waits for a
    decision goes on where it stopped: forward after a complete copy or the switch, otherwise with undoing.

    Raises:
        NotNow: It neither failed nor waits for a decision.
        RequestRefused: As `request_migration`, for a new one.
    """
    if migration.state in (State.FAILED, State.CANCELLED):
        volume = migration.volume
        if volume is None:
            raise NotNow(f"The volume '{migration.volume_name}' is gone; there is nothing to migrate.")
        options = Options(
            migration.force_host_copy,
            migration.delete_source,
            migration.verify,
            migration.bandwidth_bytes_per_second,
        )
        again = request_migration(volume, str(migration.destination_pool), actor, options)
        VolumeMigration.objects.filter(pk=again.pk).update(retry_of=migration)
        return reload(again)
    return _go_on(migration, actor, "Retry asked for.", "retried")


def finish_migration(migration: VolumeMigration, actor: Actor) -> VolumeMigration:
    """
    Return the migration, which goes forward from its complete copy to the switch.

    Raises:
        NotNow: It does not wait for a decision, or has no complete copy.
    """
    if not has_complete_copy(migration):
        raise NotNow(
            f"The migration of '{migration.volume_name}' has no complete copy that could be switched to."
        )
    return _go_on(migration, actor, "Finish asked for.", "finished")


def _go_on(migration: VolumeMigration, actor: Actor, text: str, what: str) -> VolumeMigration:
    is_undoing = migration.journal.filter(kind=_Kind.UNDO_DECIDED).exists()
    with transaction.atomic():
        if not VolumeMigration.objects.filter(pk=migration.pk, state=State.NEEDS_OPERATOR).update(
            state=State.UNDOING
            if is_undoing
            else State.QUEUED
            if migration.locks_volume
            else State.DELETING_SOURCE,
            failures=0,
            retry_at=None,
            error_code="",
            error_text="",
            cancel_requested_at=None,
        ):
            raise not_now(reload(migration), what)
        note(migration, actor, _Kind.DECISION, text)
        dispatch.ring(migration.pk, migration.host)
    return reload(migration)


def roll_back(migration: VolumeMigration, actor: Actor, *, accepts_loss: bool = False) -> VolumeMigration:
    """
    Return the migration; the record points at the source again, at once, and the copy is removed.

    Possible while the source is kept.  What was written to the volume since the switch lies at the destination only:
    it would be lost, so that a volume that was written to is refused unless *accepts_loss*; the copy is then kept as
    long as a source is.

    Raises:
        NotNow: The source is not kept any more, the volume was moved on, is in use, or was written to since.
    """
    migration = reload(migration)
    if migration.state != State.RETAINED:
        raise not_now(migration, "rolled back")
    was_changed = _changed_since_switch(migration)
    if was_changed and not accepts_loss:
        raise NotNow(
            f"{was_changed} What was written since would not be in the source. Roll back only if that may be lost."
        )
    with transaction.atomic():
        if not VolumeMigration.objects.filter(pk=migration.pk, state=State.RETAINED).update(
            epoch=F("epoch") + 1,
            owner="",
            source_state=VolumeMigration.Source.IN_PLACE,
            # A copy that holds the only version of some bytes is kept for a while.
            state=State.ROLLED_BACK if was_changed else State.UNDOING,
            purge_after=Now() + retention() if was_changed else None,
            data_location=f"The volume is at {migration.source_pool} again, as '{migration.source_object_name}'.",
        ):
            raise not_now(reload(migration), "rolled back")
        back = Volume.objects.filter(
            pk=migration.volume_id,
            pool=migration.destination_pool,
            object_name=migration.destination_object_name,
            status=Volume.Status.AVAILABLE,
            locked_by_migration=None,
        ).update(
            pool=migration.source_pool,
            object_name=migration.source_object_name,
            migration_status=None,
            updated_at=Now(),
        )
        if not back:
            raise NotNow(_why_no_way_back(migration))
        JournalEntry.objects.create(
            migration=migration, kind=_Kind.UNDO_DECIDED, output={"why": "rolled_back"}, actor=actor.name
        )
        note(migration, actor, _Kind.DECISION, "Rolled back to the source.")
        if not was_changed:
            dispatch.ring(migration.pk, migration.host)
    return reload(migration)


def _changed_since_switch(migration: VolumeMigration) -> str:
    """Return a sentence when the volume was, or may have been, written to since the switch."""
    if migration.volume is None:
        return ""
    if migration.volume.attachments.filter(attached_at__gte=migration.finished_at).exists():
        return f"The volume '{migration.volume_name}' was attached since it was migrated."
    entry = migration.journal.filter(step=_SWITCH, kind=_Kind.DONE).last()
    before = entry.output.get("changed", "") if entry else ""
    backend = migration.destination_pool.backend
    if before:
        try:
            with driver_for(backend) as driver:
                now = driver.describe(migration.destination_pool.name, migration.destination_object_name)
        except DriverError as error:
            return f"The storage of the volume could not be asked whether it was written to: {error}."
        if now.changed != before:
            return f"The volume '{migration.volume_name}' was written to since it was migrated."
    return ""


def _why_no_way_back(migration: VolumeMigration) -> str:
    volume = migration.volume
    if volume is None:
        return f"The volume '{migration.volume_name}' is gone."
    volume.refresh_from_db()
    if volume.locked_by_migration:
        return f"Another migration ({volume.locked_by_migration}) works on '{volume.name}'."
    if volume.status != Volume.Status.AVAILABLE:
        return f"The volume '{volume.name}' is '{volume.status}'. Detach it first."
    return f"The volume '{volume.name}' is not at {migration.destination_pool} any more."


def resolve_migration(
    migration: VolumeMigration, truth: Truth, actor: Actor, *, typed_name: str
) -> VolumeMigration:
    """
    Return the migration, ended by an operator's word about where the data is.  Deletes nothing anywhere.

    Args:
        truth: `at_source`: the record stays; `at_destination`: the record is switched to the destination;
            `settled`: after the switch (or the way back), the rest was tidied up by hand.
        typed_name: The volume's name, typed by the operator: nobody should do this by a slip.

    Raises:
        NotNow: It does not wait for a decision, the name is another one, or the word does not fit.
    """
    if typed_name != migration.volume_name:
        raise NotNow(f"Type the volume's name, '{migration.volume_name}', to resolve its migration.")
    has_switched = not migration.locks_volume
    if has_switched != (truth is Truth.SETTLED):
        raise NotNow(
            "The record has been switched already: only 'settled' can be said."
            if has_switched
            else "The record has not been switched: say 'at_source' or 'at_destination'."
        )
    settled = State.ROLLED_BACK if _is_rolled_back(migration) else State.DONE
    state = {Truth.AT_SOURCE: State.FAILED, Truth.AT_DESTINATION: State.RETAINED, Truth.SETTLED: settled}[
        truth
    ]
    with transaction.atomic():
        if not VolumeMigration.objects.filter(pk=migration.pk, state=State.NEEDS_OPERATOR).update(
            state=state, locks_volume=False, **_resolved_fields(migration, truth)
        ):
            raise not_now(reload(migration), "resolved")
        _release_volume(migration, truth)
        note(migration, actor, _Kind.DECISION, f"Resolved: {truth.value}.")
    return reload(migration)


def _resolved_fields(migration: VolumeMigration, truth: Truth) -> dict[str, Any]:
    source = f"{migration.source_pool} as '{migration.source_object_name}'"
    destination = f"{migration.destination_pool} as '{migration.destination_object_name}'"
    if truth is Truth.AT_SOURCE:
        return {
            "finished_at": Now(),
            "data_location": f"By an operator's word the volume is at {source}. "
            f"Something may be left at {destination}.",
        }
    if truth is Truth.AT_DESTINATION:
        return {
            "finished_at": Now(),
            # Without a proof nothing is deleted by itself.
            "purge_after": None,
            "source_state": VolumeMigration.Source.KEPT,
            "data_location": f"By an operator's word the volume is at {destination}. The source is kept at {source}.",
        }
    place = source if _is_rolled_back(migration) else destination
    return {
        "purge_after": None,
        "data_location": f"The volume is at {place}. By an operator's word nothing else is left to do.",
    }


def _is_rolled_back(migration: VolumeMigration) -> bool:
    """Tell whether the record went back to the source after the switch."""
    return migration.journal.filter(kind=_Kind.UNDO_DECIDED, output__why="rolled_back").exists()


def _release_volume(migration: VolumeMigration, truth: Truth) -> None:
    place: dict[str, Any] = {}
    if truth is Truth.AT_DESTINATION:
        place = {"pool": migration.destination_pool, "object_name": migration.destination_object_name}
    status = MigrationStatus.ERROR if truth is Truth.AT_SOURCE else MigrationStatus.SUCCESS
    Volume.objects.filter(locked_by_migration=migration.pk).update(
        locked_by_migration=None, migration_status=status, updated_at=Now(), **place
    )


# -- kept sources ---------------------------------------------------------------------------------------------------


def purge_now(migration: VolumeMigration, actor: Actor) -> VolumeMigration:
    """
    Return the migration, whose kept source (after a roll-back: kept copy) is deleted now.

    Raises:
        NotNow: Nothing is kept.
    """
    with transaction.atomic():
        migration = reload(migration)
        if not start_purge(migration):
            raise not_now(migration, "purged")
        note(migration, actor, _Kind.DECISION, "Purge asked for.")
    return reload(migration)


def keep_longer(migration: VolumeMigration, hours: int, actor: Actor) -> VolumeMigration:
    """
    Return the migration, whose source is kept *hours* longer than until now planned.

    Raises:
        NotNow: No source is kept.
        ValueError: *hours* is not 1 to 8,760.
    """
    if not 1 <= hours <= 8760:
        raise ValueError("A source can be kept 1 to 8760 hours longer.")
    with transaction.atomic():
        kept = VolumeMigration.objects.filter(pk=migration.pk, state__in=PURGES).exclude(purge_after=None)
        if not kept.update(purge_after=F("purge_after") + timedelta(hours=hours)):
            raise not_now(reload(migration), "kept longer")
        note(migration, actor, _Kind.DECISION, f"Source kept {hours} hours longer.")
    return reload(migration)


def verbs_for(migration: VolumeMigration) -> tuple[str, ...]:
    """Return the names of what can be decided about *migration* now, the likeliest first."""
    state, verbs = State(migration.state), []
    if state in CANCELLABLE:
        verbs += ["resume" if migration.pause_requested_at else "pause", "cancel", "set_bandwidth"]
    if state in (State.FAILED, State.CANCELLED):
        verbs.append("retry")
    if state is State.RETAINED:
        verbs.append("roll_back")
    if state is State.RETAINED or (state is State.ROLLED_BACK and migration.purge_after):
        verbs += ["purge_now", *(["keep_longer"] if migration.purge_after else [])]
    if state is State.NEEDS_OPERATOR:
        if migration.locks_volume and has_complete_copy(migration):
            verbs += ["finish", "cancel"]
        verbs += ["retry", "resolve"]
    if migration.cancel_requested_at and "cancel" in verbs:
        verbs.remove("cancel")
    return tuple(verbs)
