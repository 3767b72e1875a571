"""
What a person sees of a migration: its steps, how far it is, how long it still takes.

Plain values for the API, the admin and the commands, so that all three show the same.  Reads the journal: use
`prefetch_related("journal")` for more than one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from django.utils import timezone

from backends.drivers.errors import HostAway
from migrations_app.copying.progress import remaining_seconds
from migrations_app.lease import is_dead
from migrations_app.models import JournalEntry, VolumeMigration
from migrations_app.states import WORKING, State, migration_status
from migrations_app.step_views import steps
from migrations_app.steps import STEPS

_Kind = JournalEntry.Kind
Verification = Literal["equal", "not verified", "moved by the storage", "not reached"]

#: A speed that was reported longer ago says nothing about now.
_STALE_SECONDS = 10.0
#: Every heartbeat says that there was progress, unless the storage has not answered for this long.
_STALLED_SECONDS = 30.0
#: Only these phases count bytes.
_COUNTED = frozenset({State.MOVING, State.COPYING, State.VERIFYING})
_MOVED = frozenset({State.RETAINED, State.DONE})
#: The volume is not, and will not be, what was copied.
_NO_COPY = frozenset({State.CANCELLED, State.FAILED, State.ROLLED_BACK})
#: Not over: a worker has something to do, or will have when the pause ends.
_UNDER_WAY = WORKING | {State.PAUSED}

#: After these the phase is worked on anew.
_BEGINS = frozenset({_Kind.STARTED, _Kind.INTERRUPTED, _Kind.FAILED, _Kind.WAITING})

_STATE_TEXTS = {
    State.QUEUED: "Waiting for a worker",
    State.PREPARING: "Preparing",
    State.MOVING: "Being moved by the storage",
    State.COPYING: "Copying",
    State.VERIFYING: "Reading back and comparing",
    State.SWITCHING: "Switching the record",
    State.PAUSED: "Paused",
    State.UNDOING: "Undoing",
    State.DELETING_SOURCE: "Moved; deleting the source",
    State.RETAINED: "Moved; the source is kept",
    State.DONE: "Moved; the source is deleted",
    State.CANCELLED: "Cancelled",
    State.FAILED: "Failed",
    State.NEEDS_OPERATOR: "Needs a decision",
    State.ROLLED_BACK: "Rolled back",
}

_VERIFICATIONS: dict[str, Verification] = {
    "yes": "equal",
    "no": "not verified",
    "by the storage": "moved by the storage",
}


@dataclass(frozen=True, slots=True)
class ProgressView:
    """
    How far a migration is.  `None` is unknown; numbers are never made up.

    `percent` is of the phase `phase_label`, and 100 only when the volume has moved.  `attempts` counts how
    often work was begun, 0 before the first time; `is_resumed`: an earlier copy is being continued.
    """

    state_text: str
    phase_label: str
    done_bytes: int | None
    total_bytes: int | None
    percent: int | None
    bytes_per_second: int | None
    eta_seconds: float | None
    attempts: int
    is_resumed: bool


# -- progress ------------------------------------------------------------------------------------------------


def progress(migration: VolumeMigration) -> ProgressView:
    """Return how far *migration* is."""
    state = State(migration.state)
    entries = list(migration.journal.all())
    attempts = _attempts(migration, entries)
    done, total = _bytes(migration, state)
    speed = _speed(migration) if done is not None and state in _COUNTED else None
    return ProgressView(
        state_text=_state_text(migration, state, entries),
        phase_label=_phase_label(state, entries),
        done_bytes=done,
        total_bytes=total,
        percent=_percent(state, done, total),
        bytes_per_second=speed,
        eta_seconds=remaining_seconds(done or 0, total, speed, _elapsed_seconds(migration, entries)),
        attempts=attempts,
        is_resumed=attempts > 1 and migration.copied_up_to_bytes > 0,
    )


def _state_text(migration: VolumeMigration, state: State, entries: Sequence[JournalEntry]) -> str:
    if migration.cancel_requested_at and state in WORKING:
        return "Cancelling"
    if state is State.UNDOING and not migration.locks_volume:
        return "Rolled back; deleting the copy"
    if state is State.ROLLED_BACK and migration.purge_after:
        return "Rolled back; the copy is kept"
    if migration.pause_requested_at and state in WORKING:
        return f"{_STATE_TEXTS[state]}: will pause at the next checkpoint"
    if migration.retry_at and state in WORKING and migration.error_code == HostAway("").code:
        host = migration.destination_pool.backend.host
        return f"{_STATE_TEXTS[state]}: waiting for the worker of host '{host}'"
    stalled = _stalled_seconds(migration, state, entries)
    if stalled is not None:
        return f"{_STATE_TEXTS[state]}: the storage has not answered for {stalled:.0f} seconds"
    if migration.retry_at and state in WORKING:
        return f"{_STATE_TEXTS[state]}: waiting to try again"
    if state in WORKING and state is not State.QUEUED and not migration.owner:
        return f"{_STATE_TEXTS[state]}: waiting for a worker to go on"
    if state in WORKING and _has_stopped(migration):
        return f"{_STATE_TEXTS[state]}: its worker has stopped, another one will go on"
    return _STATE_TEXTS[state]


def _stalled_seconds(
    migration: VolumeMigration, state: State, entries: Sequence[JournalEntry]
) -> float | None:
    """Return for how long the storage has kept a living worker waiting; `None` when it does not."""
    if state not in _COUNTED or migration.progress_at is None or not migration.owner:
        return None
    begins = [e.at for e in entries if e.kind in _BEGINS]
    seconds = (timezone.now() - max([migration.progress_at, *begins[-1:]])).total_seconds()
    return seconds if seconds >= _STALLED_SECONDS and not _has_stopped(migration) else None


def _has_stopped(migration: VolumeMigration) -> bool:
    """Tell whether the worker that owns *migration* is gone, or has not been heard of for too long."""
    lease = migration.lease_expires_at
    if not migration.owner or lease is None:
        return False
    return lease < timezone.now() or is_dead(migration.owner)


def _phase_label(state: State, entries: Sequence[JournalEntry]) -> str:
    if state not in _UNDER_WAY:
        return ""
    names = [e.step for e in entries if e.step]
    return next((s.label for s in STEPS if names and s.name == names[-1]), "")


def _bytes(migration: VolumeMigration, state: State) -> tuple[int | None, int | None]:
    total = migration.phase_total_bytes
    is_counted = state in _COUNTED or state is State.PAUSED
    is_cancelling = is_counted and migration.cancel_requested_at is not None
    if total is None or is_cancelling or (not is_counted and state not in _MOVED):
        return None, None
    return (total if state in _MOVED else min(migration.phase_done_bytes, total)), total


def _percent(state: State, done: int | None, total: int | None) -> int | None:
    if state in _MOVED:
        return 100
    if done is None or not total:
        return None
    return min(99, done * 100 // total)


def _speed(migration: VolumeMigration) -> int | None:
    if not migration.owner or migration.progress_at is None or _has_stopped(migration):
        return None
    age = (timezone.now() - migration.progress_at).total_seconds()
    return migration.speed_bytes_per_second if age <= _STALE_SECONDS else None


def _elapsed_seconds(migration: VolumeMigration, entries: Sequence[JournalEntry]) -> float | None:
    """Return for how long the running phase has been worked on without a break."""
    begins = [e.at for e in entries if e.kind in _BEGINS]
    if not begins or migration.progress_at is None:
        return None
    return (migration.progress_at - begins[-1]).total_seconds()


def _attempts(migration: VolumeMigration, entries: Sequence[JournalEntry]) -> int:
    if migration.started_at is None:
        return 0
    breaks = sum(e.kind in (_Kind.INTERRUPTED, _Kind.FAILED) for e in entries)
    was_final = any(e.kind == _Kind.UNDO_DECIDED and e.output.get("why") == "failed" for e in entries)
    was_final = was_final or migration.state == State.NEEDS_OPERATOR
    return 1 + breaks - (1 if was_final and breaks else 0)


# -- verification --------------------------------------------------------------------------------------------


def verification(migration: VolumeMigration) -> Verification:
    """Return what is known of the copy: compared and `equal`, or why it was not compared."""
    if migration.destination_digest:
        return "equal"
    done = [e for e in migration.journal.all() if e.step == "verify" and e.kind == _Kind.DONE]
    answer = done[-1].output.get("verified", "") if done else ""
    return _VERIFICATIONS.get(answer, "not reached")


def warning(migration: VolumeMigration) -> str:
    """Return what a person must not overlook (shown in red), empty when there is nothing."""
    if migration.verify != VolumeMigration.Verify.NONE or migration.state in _NO_COPY:
        return ""
    match verification(migration):
        case "not verified":
            return "NOT VERIFIED, as asked: nobody has compared the copy with the source."
        case "not reached":
            return "This copy will NOT BE VERIFIED, as asked."
    return ""


# -- as values for JSON --------------------------------------------------------------------------------------


def summary(migration: VolumeMigration) -> dict[str, Any]:
    """
    Return everything that a program is told of *migration*: one shape for the API and for `--json`.

    Both pools and their backends should be loaded.
    """
    return {
        "id": migration.pk,
        "volume": migration.volume_id,
        "volume_name": migration.volume_name,
        "size_bytes": migration.size_bytes,
        "source": str(migration.source_pool),
        "source_object_name": migration.source_object_name,
        "destination": str(migration.destination_pool),
        "destination_object_name": migration.destination_object_name,
        "state": str(migration.state),
        "migration_status": migration_status(State(migration.state)),
        "method": migration.method,
        "progress": asdict(progress(migration)),
        "steps": [asdict(step) for step in steps(migration)],
        "error": _error(migration),
        "data_location": migration.data_location,
        "source_state": str(migration.source_state),
        "purge_after": migration.purge_after,
        "verify": str(migration.verify),
        "verification": verification(migration),
        "warning": warning(migration),
        "source_digest": migration.source_digest,
        "destination_digest": migration.destination_digest,
        "data_bytes": migration.data_bytes,
        "zero_bytes": migration.zero_bytes,
        "hole_bytes": migration.hole_bytes,
        "force_host_copy": migration.force_host_copy,
        "delete_source": migration.delete_source,
        "bandwidth_bytes_per_second": migration.bandwidth_bytes_per_second,
        "requested_by": migration.requested_by_name,
        "requested_via": str(migration.requested_via),
        "retry_of": migration.retry_of_id,
        "cancel_requested_at": migration.cancel_requested_at,
        "pause_requested_at": migration.pause_requested_at,
        "retry_at": migration.retry_at,
        "created_at": migration.created_at,
        "started_at": migration.started_at,
        "finished_at": migration.finished_at,
    }


def _error(migration: VolumeMigration) -> dict[str, str] | None:
    if not migration.error_code:
        return None
    return {"code": migration.error_code, "text": migration.error_text}
