"""The saga's journal in the database.  Every write carries the lease: see `Lease.write`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Coalesce, Now

from backends.drivers.errors import DriverError
from backends.models import Volume
from migrations_app.lease import Lease
from migrations_app.models import JournalEntry, VolumeMigration
from migrations_app.saga.step import Output, Step
from migrations_app.states import State, migration_status

_Kind = JournalEntry.Kind


class DatabaseJournal:
    """The journal of one migration, as its lease holder sees and writes it."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._entries = list(
            JournalEntry.objects.filter(migration_id=lease.migration_id).values_list("step", "kind", "output")
        )
        self._failures = self._failures_in_row()

    # -- reading ----------------------------------------------------------------------------------------------

    def is_done(self, step: Step) -> bool:
        return self._has(step, _Kind.DONE)

    def may_have_started(self, step: Step) -> bool:
        return self._has(step, _Kind.STARTED)

    def is_undone(self, step: Step) -> bool:
        return self._has(step, _Kind.UNDONE)

    def output(self, step_name: str) -> Output:
        for step, kind, output in reversed(self._entries):
            if step == step_name and kind == _Kind.DONE:
                return output
        return {}

    def undo_is_decided(self) -> bool:
        return any(kind == _Kind.UNDO_DECIDED for _, kind, _ in self._entries)

    def undo_reason(self) -> str:
        """Return `cancelled` or `failed`, empty when nothing is undone."""
        for _, kind, output in reversed(self._entries):
            if kind == _Kind.UNDO_DECIDED:
                return output["why"]
        return ""

    def failures(self) -> int:
        return self._failures

    # -- writing ----------------------------------------------------------------------------------------------

    def started(self, step: Step) -> None:
        is_first = not self._has(step, _Kind.STARTED)
        # A step that goes on keeps the progress of its last attempt; a new one has none yet.
        fields = {"phase_done_bytes": 0, "phase_total_bytes": None, "speed_bytes_per_second": None}
        has_progress = is_first and step.state in (State.MOVING, State.COPYING, State.VERIFYING)
        with transaction.atomic():
            self._set_state(
                State(step.state),
                started_at=_keep_first("started_at"),
                **(fields if has_progress else {}),
            )
            if is_first:
                self._add(step.name, _Kind.STARTED)

    def done(self, step: Step, output: Output) -> None:
        with transaction.atomic():
            self._lease.write(failures=0)
            self._add(step.name, _Kind.DONE, output)
        self._failures = 0

    def failed(self, step: Step, error: Exception) -> None:
        self._fail(step, _Kind.FAILED, error)

    def waits(self, step: Step, error: Exception) -> None:
        code, text = error_code(error), error_text(error)
        is_news = not self._entries or self._entries[-1][:2] != (step.name, _Kind.WAITING)
        with transaction.atomic():
            self._lease.write(error_code=code, error_text=text)
            if is_news:
                self._add(step.name, _Kind.WAITING, {"code": code}, text)

    def decide_undo(self, why: str, error: Exception | None) -> None:
        with transaction.atomic():
            self._set_state(State.UNDOING, failures=0)
            self._add("", _Kind.UNDO_DECIDED, {"why": why})
        self._failures = 0

    def undo_started(self, step: Step) -> None:
        with transaction.atomic():
            self._lease.write(failures=F("failures"))
            self._add(step.name, _Kind.UNDO_STARTED)

    def undone(self, step: Step) -> None:
        with transaction.atomic():
            self._lease.write(failures=0)
            self._add(step.name, _Kind.UNDONE)
        self._failures = 0

    def undo_failed(self, step: Step, error: Exception) -> None:
        self._fail(step, _Kind.UNDO_FAILED, error)

    @contextmanager
    def atomic(self) -> Iterator[None]:
        remembered = list(self._entries)
        try:
            with transaction.atomic():
                yield
        except BaseException:
            self._entries = remembered
            raise

    # -- inside -----------------------------------------------------------------------------------------------

    def _failures_in_row(self) -> int:
        return VolumeMigration.objects.values_list("failures", flat=True).get(pk=self._lease.migration_id)

    def _has(self, step: Step, kind: str) -> bool:
        return any(name == step.name and entry == kind for name, entry, _ in self._entries)

    def _add(self, step_name: str, kind: _Kind, output: Output | None = None, text: str = "") -> None:
        JournalEntry.objects.create(
            migration_id=self._lease.migration_id,
            epoch=self._lease.epoch,
            step=step_name,
            kind=kind,
            output=output or {},
            text=text,
        )
        self._entries.append((step_name, kind.value, output or {}))

    def _fail(self, step: Step, kind: _Kind, error: Exception) -> None:
        code, text = error_code(error), error_text(error)
        with transaction.atomic():
            # Counted in the row: a checkpoint since the last failure has set it back.
            self._lease.write(failures=F("failures") + 1, error_code=code, error_text=text)
            self._add(step.name, kind, {"code": code}, text)
        self._failures = self._failures_in_row()

    def _set_state(self, state: State, **fields: object) -> None:
        """Move the row and, with it, what the volume shows."""
        self._lease.write(state=state, **fields)
        Volume.objects.filter(locked_by_migration=self._lease.migration_id).update(
            migration_status=migration_status(state)
        )


def _keep_first(field: str) -> object:
    return Coalesce(field, Now())


def error_code(error: Exception) -> str:
    """Return the stable name of *error* for programs."""
    return error.code if isinstance(error, DriverError) else "unforeseen"


def error_text(error: Exception) -> str:
    """Return the sentence about *error* for people."""
    if isinstance(error, DriverError):
        return str(error)
    return f"Unforeseen error {type(error).__name__}: {error}. The worker's log has the details."
