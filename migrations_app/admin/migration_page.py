"""What the page of one migration shows."""

from __future__ import annotations

from typing import Any

from django.db.models import Q
from django.urls import reverse

from migrations_app import presentation
from migrations_app.admin.verbs import allowed_verbs
from migrations_app.admin.worker_hosts import needs_worker
from migrations_app.models import VolumeMigration
from migrations_app.states import WORKING, State

#: What lies somewhere besides the volume itself: the source after a move, the copy after a roll-back.
KEPT = Q(state=State.RETAINED) | Q(state=State.ROLLED_BACK, purge_after__isnull=False)

_NEXT_STEPS = {
    State.FAILED: [
        "Nothing has to be tidied up: what was made at the destination has been removed.",
        "Mend the cause, then migrate the volume again.",
    ],
    State.NEEDS_OPERATOR: [
        "Nothing is done by itself any more, and nothing is deleted.",
        "Compare the two places above with what the storage holds, mend the cause, then press a button.",
    ],
}


def page_context(migration: VolumeMigration, user: Any) -> dict[str, Any]:
    """Return what the page and its live part need; *migration* with pools, volume and journal loaded."""
    state = State(migration.state)
    is_active = state in WORKING
    return {
        "migration": migration,
        "progress": presentation.progress(migration),
        "steps": presentation.steps(migration),
        "journal": list(migration.journal.all()),
        "is_active": is_active,
        "has_trouble": state in (State.FAILED, State.NEEDS_OPERATOR),
        # A step that failed and is tried again has a reason that people should see meanwhile.
        "is_struggling": is_active and bool(migration.error_text),
        "host": migration.host,
        "needs_worker": needs_worker(migration),
        "next_steps": _NEXT_STEPS.get(state, []),
        "is_retained": state == State.RETAINED,
        "buttons": _buttons(migration, user),
        "may_migrate_again": _may_migrate_again(migration, state, user),
        "verified": _verified(migration),
        "verdict": migration.verdict or {},
        "old_copy": _old_copy(migration, state),
    }


def _buttons(migration: VolumeMigration, user: Any) -> list[tuple[Any, str]]:
    """Return what may be done now, each with the address that asks for it."""
    name = "admin:migrations_app_volumemigration"
    return [
        (verb, reverse(f"{name}_{verb.name}", args=[migration.pk])) for verb in allowed_verbs(migration, user)
    ]


def _may_migrate_again(migration: VolumeMigration, state: State, user: Any) -> bool:
    is_free = state in (State.FAILED, State.CANCELLED, State.ROLLED_BACK)
    return is_free and migration.volume_id is not None and user.has_perm("migrations_app.migrate_volume")


def _old_copy(migration: VolumeMigration, state: State) -> str:
    """Return what is, or will be, done with the source."""
    if migration.source_state != VolumeMigration.Source.IN_PLACE:
        return migration.get_source_state_display()
    if state not in WORKING:
        return "in place: the volume was not moved"
    return "deleted after the move" if migration.delete_source else "kept for a while after the move"


def _verified(migration: VolumeMigration) -> str:
    """Return in a sentence what is known of the copy being equal."""
    if migration.destination_digest and migration.destination_digest == migration.source_digest:
        return "The copy was read back from the device and is equal to the source."
    if migration.verify == VolumeMigration.Verify.NONE:
        return "Nothing is verified, as asked."
    if migration.state in (State.FAILED, State.CANCELLED, State.ROLLED_BACK):
        return "Nothing: what was copied has been thrown away."
    if migration.state in (State.RETAINED, State.DONE):
        return "The storage moved the volume itself; nothing was copied that could differ."
    if migration.source_digest:
        return "The source was read completely; the copy has not been compared to its end."
    return "Not yet: the copy is compared after it is complete."
