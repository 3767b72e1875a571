"""
What a worker does when the bell rings: claim, run the saga, write down how it ended.

`advance` may be called by anybody, any number of times, at the same time: the lease lets one of them work.
"""

from __future__ import annotations

import logging
import time
import uuid
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from backends.drivers.errors import Permanent
from backends.models import Volume
from migrations_app import dispatch, sentences
from migrations_app.copying.io_priority import set_io_priority
from migrations_app.journal import DatabaseJournal, error_code, error_text
from migrations_app.lease import Heartbeat, Lease
from migrations_app.models import JournalEntry, VolumeMigration
from migrations_app.saga.runner import Outcome, Result, run
from migrations_app.saga.step import Interrupted, LeaseLost, PauseRequested, SliceOver, Step
from migrations_app.states import MigrationStatus, State, migration_status
from migrations_app.steps import STEPS, retention
from migrations_app.work import Run

logger = logging.getLogger(__name__)

#: A worker that dies this often without any progress is killed by the migration itself.
_DEATHS_FACTOR = 3
#: How a migration ends whose undo was decided for this reason.
_UNDONE = {"cancelled": State.CANCELLED, "failed": State.FAILED, "rolled_back": State.ROLLED_BACK}


def advance(migration_id: uuid.UUID, *, slice_seconds: float | None = None) -> str:
    """
    Work on one migration for one slice and return in a few words what came of it.

    Args:
        slice_seconds: How long; `None` means the setting.

    Safe to repeat: yes, and to run twice at the same time.
    """
    lease = Lease.claim(migration_id)
    if lease is None:
        return "nothing to do"
    set_io_priority(settings.VOLMIG_IO_PRIORITY)
    migration = VolumeMigration.objects.select_related(
        "source_pool__backend", "destination_pool__backend", "volume"
    ).get(pk=migration_id)
    journal = DatabaseJournal(lease)
    seconds = settings.VOLMIG_SLICE_SECONDS if slice_seconds is None else slice_seconds
    work = Run(migration, lease, journal, slice_ends_at=time.monotonic() + seconds)
    work.on_wishes(lease.wishes())
    try:
        with Heartbeat(lease, work.progress_fields, work.on_wishes):
            outcome = _run(work)
        return _write_outcome(work, outcome)
    except LeaseLost:
        logger.warning("lease on %s lost; another worker goes on", migration_id)
        return "lease lost"
    except SliceOver:
        lease.release(**work.progress_fields())
        dispatch.ring(migration_id, migration.host)
        return "slice over"
    except PauseRequested:
        _pause(work)
        return "paused"
    except Interrupted:
        lease.release()
        return "interrupted"


def _run(work: Run) -> Outcome:
    maximum = settings.VOLMIG_MAX_ATTEMPTS
    if work.migration.failures > maximum * _DEATHS_FACTOR:
        is_undo = work.journal.undo_is_decided()
        current = (
            _to_undo(work) if is_undo else next((s for s in STEPS if not work.journal.is_done(s)), STEPS[-1])
        )
        error = Permanent(
            f"The worker died {work.migration.failures} times in the step '{current.label}' without any progress.",
            remedy="Look into the worker's log and the host's memory before trying again.",
        )
        if is_undo:
            work.journal.undo_failed(current, error)
            return Outcome(Result.NEEDS_OPERATOR, current, error)
        work.journal.failed(current, error)
        if any(s.final and work.journal.is_done(s) for s in STEPS):
            return Outcome(Result.NEEDS_OPERATOR, current, error)
        work.journal.decide_undo("failed", error)
    return run(STEPS, work.journal, work, max_failures=maximum)


def _to_undo(work: Run) -> Step:
    """Return the step whose undo comes next."""
    journal = work.journal
    left = (s for s in reversed(STEPS) if s.undo and journal.may_have_started(s) and not journal.is_undone(s))
    return next(left, STEPS[0])


def _write_outcome(work: Run, outcome: Outcome) -> str:
    match outcome.result:
        case Result.FINISHED:
            _end(work, State.DONE, finished_at=_unless_set(work))
        case Result.PARKED:
            _park(work)
        case Result.UNDONE:
            _end(work, _UNDONE[work.journal.undo_reason()], finished_at=Now(), purge_after=None)
        case Result.NEEDS_OPERATOR:
            _needs_operator(work, outcome)
        case Result.TRY_LATER:
            _try_later(work, outcome)
    return outcome.result.value


def _unless_set(work: Run) -> object:
    return work.migration.finished_at or Now()


def _end(work: Run, state: State, **fields: object) -> None:
    with transaction.atomic():
        work.lease.release(
            state=state,
            locks_volume=False,
            data_location=sentences.data_location(work.migration, state, work.journal),
            **(_cause(work) if state is State.FAILED else {"error_code": "", "error_text": ""}),
            **fields,
        )
        Volume.objects.filter(locked_by_migration=work.migration.pk).update(
            locked_by_migration=None, migration_status=migration_status(state)
        )
        _note_end(work, state)


def _cause(work: Run) -> dict[str, str]:
    """Return why the migration failed; in the row stands what went wrong with the undo, if anything did."""
    failures = JournalEntry.objects.filter(migration_id=work.migration.pk, kind=JournalEntry.Kind.FAILED)
    last = failures.order_by("pk").last()
    return {"error_code": last.output["code"], "error_text": last.text} if last else {}


def _park(work: Run) -> None:
    """The record has moved and the source is kept for a while."""
    with transaction.atomic():
        work.lease.release(
            state=State.RETAINED,
            locks_volume=False,
            purge_after=Now() + retention(),
            finished_at=Now(),
            error_code="",
            error_text="",
            data_location=sentences.data_location(work.migration, State.RETAINED, work.journal),
        )
        _note_end(work, State.RETAINED)


def _needs_operator(work: Run, outcome: Outcome) -> None:
    error = outcome.error or Permanent("Nobody knows why.")
    with transaction.atomic():
        work.lease.release(
            state=State.NEEDS_OPERATOR,
            error_code=error_code(error),
            error_text=error_text(error),
            data_location=sentences.data_location(work.migration, State.NEEDS_OPERATOR, work.journal),
        )
        Volume.objects.filter(locked_by_migration=work.migration.pk).update(
            migration_status=MigrationStatus.ERROR
        )
        _note_end(work, State.NEEDS_OPERATOR)


def _pause(work: Run) -> None:
    """Stand still at the checkpoint until an administrator resumes or cancels."""
    with transaction.atomic():
        work.lease.release(state=State.PAUSED, **work.progress_fields())
        JournalEntry.objects.create(
            migration_id=work.migration.pk, epoch=work.lease.epoch, kind=JournalEntry.Kind.PAUSED
        )


def _try_later(work: Run, outcome: Outcome) -> None:
    wait = settings.VOLMIG_RETRY_SECONDS * 2 ** max(0, work.journal.failures() - 1)
    work.lease.release(retry_at=Now() + timedelta(seconds=wait))
    logger.warning("%s: %s; tried again in %s s", work.migration.pk, outcome.error, wait)


def _note_end(work: Run, state: State) -> None:
    JournalEntry.objects.create(
        migration_id=work.migration.pk,
        epoch=work.lease.epoch,
        kind=JournalEntry.Kind.ENDED,
        output={"state": state.value},
    )
