"""The steps of a migration as a person sees them: what came of each, or why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from migrations_app.models import JournalEntry, VolumeMigration
from migrations_app.saga.step import Step
from migrations_app.scheduler.human import bytes_text
from migrations_app.states import WORKING, State
from migrations_app.steps import STEPS

_Kind = JournalEntry.Kind
StepStatus = Literal["waiting", "running", "done", "failed", "undone"]


@dataclass(frozen=True, slots=True)
class StepView:
    """One step.  `text` is what came of it, or why not; empty when there is nothing to say."""

    name: str
    label: str
    status: StepStatus
    started_at: datetime | None
    finished_at: datetime | None
    text: str


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
    status, text = _rolled_back(step, entries) or _status(migration, step, last, entries)
    is_over = status in ("done", "failed", "undone")
    return StepView(
        step.name,
        step.label,
        status,
        None if status == "waiting" else started,
        _end_of(last, entries) if is_over else None,
        text,
    )


def _rolled_back(step: Step, entries: Sequence[JournalEntry]) -> tuple[StepStatus, str] | None:
    """Return what became of the switch and of what follows it when the record went back to the source."""
    if not any(e.kind == _Kind.UNDO_DECIDED and e.output.get("why") == "rolled_back" for e in entries):
        return None
    if step.final:
        return "undone", "The record was switched back."
    return ("undone", "The source is the volume again.") if step is STEPS[-1] else None


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
            if migration.state == State.PAUSED:
                return "waiting", f"Paused, and tried again when resumed, after: {last.text}"
            is_tried_again = is_working and undo is None
            return ("running", f"Tried again after: {last.text}") if is_tried_again else ("failed", last.text)
        case _Kind.WAITING if is_working and undo is None and migration.retry_at is not None:
            return "running", migration.error_text
    if migration.state == State.PAUSED:
        return "waiting", "Paused at its last checkpoint."
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
