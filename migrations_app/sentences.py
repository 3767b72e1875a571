"""Sentences that tell an administrator where the data is."""

from __future__ import annotations

from migrations_app.journal import DatabaseJournal
from migrations_app.models import VolumeMigration
from migrations_app.states import State
from migrations_app.steps import STEPS

_SWITCH = next(step for step in STEPS if step.final)
_COMPLETE = next(step for step in STEPS if step.completes_copy)


def data_location(migration: VolumeMigration, state: State, journal: DatabaseJournal) -> str:
    """Return where the volume's data is when *migration* comes to rest in *state*."""
    source = f"{migration.source_pool} as '{migration.source_object_name}'"
    destination = f"{migration.destination_pool} as '{migration.destination_object_name}'"
    if state is State.ROLLED_BACK:
        return f"The volume is where it was: {source}. The copy at the destination was deleted."
    if journal.is_done(_SWITCH) and not journal.undo_is_decided():
        return _after_switch(migration, state, source, destination)
    if state is State.NEEDS_OPERATOR:
        return _before_switch(journal, source, destination)
    return f"The volume is where it was: {source}. Nothing is left at the destination."


def _after_switch(migration: VolumeMigration, state: State, source: str, destination: str) -> str:
    here = f"The volume is complete at {destination}."
    if state is State.RETAINED:
        return f"{here} The source is kept at {source}."
    if state is State.NEEDS_OPERATOR:
        # Why the old source was not deleted may be that the copy is missing: nothing is promised about either.
        return (
            f"The record points at {destination}. The old source may still be at {source}; "
            "keep it until the cause is found."
        )
    return f"{here} The source was deleted."


def _before_switch(journal: DatabaseJournal, source: str, destination: str) -> str:
    here = f"The volume is complete where it was: {source}."
    if journal.undo_is_decided():
        return f"{here} A part of a copy may still be at {destination}; it can be deleted."
    if journal.is_done(_COMPLETE):
        return f"{here} A complete copy is at {destination}; the record was not switched to it."
    return here
