"""
What a person sees of a migration: its steps, how far it is, how long it still takes.

Plain values for the API, the admin and the commands, so that all three show the same.  Reads the journal: use
`prefetch_related("journal")` for more than one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from django.utils import timezone

from migrations_app.copying.progress import remaining_seconds
from migrations_app.lease import is_dead
from migrations_app.models import JournalEntry, VolumeMigration
from migrations_app.saga.step import Step
from migrations_app.scheduler.human import bytes_text
from migrations_app.states import WORKING, State, migration_status
from migrations_app.steps import STEPS

_Kind = JournalEntry.Kind
StepStatus = Literal["waiting", "running", "done", "failed", "undone"]

#: A speed that was reported longer ago says nothing about now.
_STALE_SECONDS = 10.0
#: Only these phases count bytes.
_COUNTED = frozenset({State.MOVING, State.COPYING, State.VERIFYING})
_MOVED = frozenset({State.RETAINED, State.DONE})

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


@dataclass(frozen=True, slots=True)
class StepView:
    """One step.  `text` is what came of it, or why not; empty when there is nothing to say."""

    name: str
    label: str
    status: StepStatus
    started_at: datetime | None
    finished_at: datetime | None
    text: str


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


# -- steps ---------------------------------------------------------------------------------------------------


def steps(migration: VolumeMigration) -> list[StepView]:
    """Return every step of *migration* in order, those that did not begin included."""
    entries = list(migration.journal.all())
    return [_step_view(migration, step, entries) for step in STEPS]


def _step_view(migration: VolumeMigration, step: Step, entries: Sequence[JournalEntry]) -> StepView:
    mine = [e for e in entries if e.step == step.name]
    started = next((e.at for e in mine if e.kind == _Kind.STARTED), None)
    last = mine[-1] if mine else None
    if last is None or started is None:
        return StepView(step.name, step.label, "waiting", None, None, "")
    status, text = _status(migration, step, last, entries)
    is_over = status in ("done", "failed", "undone")
    return StepView(
        step.name,
        step.label,
        status,
        None if status == "waiting" else started,
        _end_of(last, entries) if is_over else None,
        text,
    )


def _status(
    migration: VolumeMigration, step: Step, last: JournalEntry, entries: Sequence[JournalEntry]
) -> tuple[StepStatus, str]:
    """Return the status of a step that has begun, and what there is to say."""
    is_working = migration.state in WORKING
    undo = next((e for e in entries if e.kind == _Kind.UNDO_DECIDED), None)
    match last.kind:
        case _Kind.DONE:
            return "done", done_text(step.name, last.output)
        case _Kind.UNDONE:
            return "undone", ""
        case _Kind.UNDO_STARTED:
            return ("running" if is_working else "failed"), "Being undone."
        case _Kind.UNDO_FAILED:
            return ("running" if is_working else "failed"), f"Could not be undone: {last.text}"
        case _Kind.FAILED:
            is_tried_again = is_working and undo is None
            return ("running", f"Tried again after: {last.text}") if is_tried_again else ("failed", last.text)
    if migration.state == State.RETAINED:
        return "waiting", "The source is kept for now."
    if undo is not None:
        return "undone", "Stopped half-way."
    return ("running", "") if is_working else ("failed", migration.error_text)


def _end_of(last: JournalEntry, entries: Sequence[JournalEntry]) -> datetime | None:
    if last.kind != _Kind.STARTED:
        return last.at
    # A step that was stopped has no end of its own: what was decided then is its end.
    ends = (_Kind.UNDO_DECIDED, _Kind.ENDED)
    return next((e.at for e in entries if e.id > last.id and e.kind in ends), None)


def done_text(step_name: str, output: dict[str, Any]) -> str:
    """Return in a sentence what a finished step has put into the journal."""
    if "skipped" in output:
        return f"Not needed: {output['skipped']}."
    match step_name:
        case "check_source":
            allocated = output.get("allocated_bytes")
            size = "" if allocated is None else f" It takes {bytes_text(allocated)}."
            return f"Found, whole and free.{size}"
        case "move_natively":
            return f"Moved by {output['how']}." if output.get("moved") else f"No: {output.get('reason', '')}"
        case "create_destination":
            return f"Made '{output.get('name', '')}'."
        case "copy":
            return _copy_text(output)
        case "verify":
            return _verify_text(output)
        case "switch":
            return f"The volume is now at {output.get('pool', '')} as '{output.get('object_name', '')}'."
        case "delete_source":
            return f"Deleted '{output.get('deleted', '')}'."
    return ""


def _copy_text(output: dict[str, Any]) -> str:
    data, zero, hole = (output.get(f"{kind}_bytes") or 0 for kind in ("data", "zero", "hole"))
    return f"{bytes_text(data)} of data, {bytes_text(zero)} of zeros, {bytes_text(hole)} of holes."


def _verify_text(output: dict[str, Any]) -> str:
    match output.get("verified"):
        case "yes":
            return f"Read back and equal: {output.get('destination_digest', '')}"
        case "by the storage":
            return f"Not copied, so nothing to compare ({output.get('how', '')})."
    return "Not verified, as asked."


# -- progress ------------------------------------------------------------------------------------------------


def progress(migration: VolumeMigration) -> ProgressView:
    """Return how far *migration* is."""
    state = State(migration.state)
    entries = list(migration.journal.all())
    attempts = _attempts(migration, entries)
    done, total = _bytes(migration, state)
    speed = _speed(migration) if done is not None and state in _COUNTED else None
    return ProgressView(
        state_text=_state_text(migration, state),
        phase_label=_phase_label(state, entries),
        done_bytes=done,
        total_bytes=total,
        percent=_percent(state, done, total),
        bytes_per_second=speed,
        eta_seconds=remaining_seconds(done or 0, total, speed, _elapsed_seconds(migration, entries)),
        attempts=attempts,
        is_resumed=attempts > 1 and migration.copied_up_to_bytes > 0,
    )


def _state_text(migration: VolumeMigration, state: State) -> str:
    if migration.cancel_requested_at and state in WORKING:
        return "Cancelling"
    if migration.retry_at and state in WORKING:
        return f"{_STATE_TEXTS[state]}: waiting to try again"
    if state in WORKING and state is not State.QUEUED and not migration.owner:
        return f"{_STATE_TEXTS[state]}: waiting for a worker to go on"
    if state in WORKING and _has_stopped(migration):
        return f"{_STATE_TEXTS[state]}: its worker has stopped, another one will go on"
    return _STATE_TEXTS[state]


def _has_stopped(migration: VolumeMigration) -> bool:
    """Tell whether the worker that owns *migration* is gone, or has not been heard of for too long."""
    lease = migration.lease_expires_at
    if not migration.owner or lease is None:
        return False
    return lease < timezone.now() or is_dead(migration.owner)


def _phase_label(state: State, entries: Sequence[JournalEntry]) -> str:
    if state not in WORKING:
        return ""
    names = [e.step for e in entries if e.step]
    return next((s.label for s in STEPS if names and s.name == names[-1]), "")


def _bytes(migration: VolumeMigration, state: State) -> tuple[int | None, int | None]:
    total = migration.phase_total_bytes
    is_cancelling = state in _COUNTED and migration.cancel_requested_at is not None
    if total is None or is_cancelling or (state not in _COUNTED and state not in _MOVED):
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
    begins = [e.at for e in entries if e.kind in (_Kind.STARTED, _Kind.INTERRUPTED, _Kind.FAILED)]
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
        "cancel_requested_at": migration.cancel_requested_at,
        "retry_at": migration.retry_at,
        "created_at": migration.created_at,
        "started_at": migration.started_at,
        "finished_at": migration.finished_at,
    }


def _error(migration: VolumeMigration) -> dict[str, str] | None:
    if not migration.error_code:
        return None
    return {"code": migration.error_code, "text": migration.error_text}
