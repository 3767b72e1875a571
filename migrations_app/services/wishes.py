"""
Wishes about a running migration: cancel, pause, resume, bandwidth.

Written into the row; the worker reads them several times a second.
"""

from __future__ import annotations

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from migrations_app import dispatch
from migrations_app.errors import NotNow
from migrations_app.models import JournalEntry, VolumeMigration
from migrations_app.services.actors import Actor, note, reload
from migrations_app.states import CANCELLABLE, WORKING, State
from migrations_app.steps import STEPS

_Kind = JournalEntry.Kind
_COMPLETE = next(step.name for step in STEPS if step.completes_copy)


def cancel_migration(migration: VolumeMigration, actor: Actor) -> VolumeMigration:
    """
    Return the migration, which will end `cancelled`: destination removed, volume as it was.

    Safe to repeat: yes.

    Raises:
        NotNow: It has ended, or the record has moved already.
    """
    with transaction.atomic():
        asked = _cancellable(migration).update(
            cancel_requested_at=Now(),
            cancel_requested_by=actor.name,
            pause_requested_at=None,
            retry_at=None,
            failures=0,
        )
        migration = reload(migration)
        if asked:
            # Nobody works on one that rests; it is queued so that a worker undoes what was made.
            VolumeMigration.objects.filter(
                pk=migration.pk, state__in=[State.PAUSED, State.NEEDS_OPERATOR]
            ).update(state=State.QUEUED)
            note(migration, actor, _Kind.WISH, "Cancel asked for.")
            dispatch.ring(migration.pk, migration.host)
        elif not (migration.cancel_requested_at and migration.state in WORKING | {State.CANCELLED}):
            raise NotNow(
                f"The migration of '{migration.volume_name}' is '{migration.get_state_display()}' and cannot be "
                "cancelled any more."
            )
    return migration


def _cancellable(migration: VolumeMigration) -> QuerySet[VolumeMigration]:
    """Return the row if a cancel can still mean "as if nothing had happened"."""
    states = set(CANCELLABLE)
    if has_complete_copy(migration):
        # It waits for a decision before the switch: throwing the copy away is one.
        states.add(State.NEEDS_OPERATOR)
    return VolumeMigration.objects.filter(
        pk=migration.pk, state__in=states, locks_volume=True, cancel_requested_at=None
    )


def has_complete_copy(migration: VolumeMigration) -> bool:
    """Tell whether a complete, checked copy exists that nobody has decided to throw away."""
    entries = set(migration.journal.values_list("step", "kind"))
    return (_COMPLETE, _Kind.DONE) in entries and ("", _Kind.UNDO_DECIDED) not in entries


def pause_migration(migration: VolumeMigration, actor: Actor) -> VolumeMigration:
    """
    Return the migration, which stands still at its next checkpoint, or at once when nobody works on it.

    Safe to repeat: yes.

    Raises:
        NotNow: It has moved, ended, or is being undone.
    """
    with transaction.atomic():
        asked = VolumeMigration.objects.filter(
            pk=migration.pk,
            state__in=CANCELLABLE - {State.PAUSED},
            pause_requested_at=None,
            cancel_requested_at=None,
        ).update(pause_requested_at=Now())
        if asked:
            # Nobody holds it: there is nothing to wait for.
            VolumeMigration.objects.filter(pk=migration.pk, owner="", state=State.QUEUED).update(
                state=State.PAUSED
            )
            note(migration, actor, _Kind.WISH, "Pause asked for.")
        migration = reload(migration)
        if migration.pause_requested_at is None:
            raise not_now(migration, "paused")
    return migration


def resume_migration(migration: VolumeMigration, actor: Actor) -> VolumeMigration:
    """
    Return the migration, which goes on from its checkpoint.  Also takes back a pause that has not happened yet.

    Safe to repeat: yes.

    Raises:
        NotNow: It has ended.
    """
    with transaction.atomic():
        asked = VolumeMigration.objects.filter(pk=migration.pk).exclude(pause_requested_at=None)
        if asked.update(pause_requested_at=None):
            VolumeMigration.objects.filter(pk=migration.pk, state=State.PAUSED).update(
                state=State.QUEUED, retry_at=None
            )
            note(migration, actor, _Kind.WISH, "Resume asked for.")
            dispatch.ring(migration.pk, migration.host)
        migration = reload(migration)
        if migration.state not in WORKING:
            raise not_now(migration, "resumed")
    return migration


def set_bandwidth(migration: VolumeMigration, bytes_per_second: int | None, actor: Actor) -> VolumeMigration:
    """
    Return the migration with its new limit; a running copy feels it within a second.  `None` takes the limit away.

    Raises:
        NotNow: It has ended.
        ValueError: The limit is not positive.
    """
    if bytes_per_second is not None and bytes_per_second < 1:
        raise ValueError("A bandwidth limit is 1 byte per second or more; leave it empty for none.")
    with transaction.atomic():
        if not VolumeMigration.objects.filter(pk=migration.pk, state__in=CANCELLABLE).update(
            bandwidth_bytes_per_second=bytes_per_second
        ):
            raise not_now(reload(migration), "throttled")
        limit = f"{bytes_per_second} bytes per second" if bytes_per_second else "none"
        note(migration, actor, _Kind.WISH, f"Bandwidth limit: {limit}.")
    return reload(migration)


def not_now(migration: VolumeMigration, what: str) -> NotNow:
    return NotNow(
        f"The migration of '{migration.volume_name}' is '{migration.get_state_display()}' and cannot be {what} now."
    )
