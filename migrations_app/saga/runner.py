"""
Run a saga from wherever its journal says that it is.

Rules (each with its reason in `docs/migration-steps.md`):

1. `started` is written before do, `done` with the output in one write after it.
2. A step that has started and is not done is done again.
3. On failure every step that may have started is undone, last first.
4. After the final step there is no undo.  After a complete copy a failure keeps the copy.
5. An undo that cannot succeed, and a failure after the final step, wait for a person.  Nothing loops for ever.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backends.drivers.errors import HostAway, Permanent, Transient
from migrations_app.saga.journal import Journal
from migrations_app.saga.step import CancelRequested, Interrupted, Parked, Step

logger = logging.getLogger(__name__)


class Result(enum.Enum):
    """How a run ended."""

    FINISHED = "finished"
    PARKED = "parked"
    UNDONE = "undone"
    TRY_LATER = "try_later"
    NEEDS_OPERATOR = "needs_operator"


@dataclass(frozen=True, slots=True)
class Outcome:
    """`step` and `error` say what stopped it, when something did."""

    result: Result
    step: Step | None = None
    error: Exception | None = None


def run(steps: Sequence[Step], journal: Journal, context: Any, *, max_failures: int) -> Outcome:
    """
    Work on the saga until it ends, rests, or must be tried later.

    `context.check(is_cancellable=...)` is called before each step and raises `Interrupted` or, as long as the record
    has not moved, `CancelRequested`.

    Raises:
        Interrupted: Lease lost, slice over, paused.  Nothing was decided.
    """
    if journal.undo_is_decided():
        return _undo(steps, journal, context, max_failures)
    for step in steps:
        if journal.is_done(step):
            continue
        try:
            context.check(is_cancellable=not _is_past(steps, journal, "final"))
            _do(step, journal, context)
        except Interrupted:
            raise
        except Parked:
            return Outcome(Result.PARKED, step)
        except CancelRequested:
            journal.decide_undo("cancelled", None)
            return _undo(steps, journal, context, max_failures)
        except HostAway as error:
            # Waited for without end: hours of copying are not undone for a host that is being mended.  Whoever does
            # not want to wait cancels, and undoing is tried a few times only.
            journal.waits(step, error)
            return Outcome(Result.TRY_LATER, step, error)
        except Exception as error:
            journal.failed(step, error)
            if _may_pass(error) and journal.failures() < max_failures:
                return Outcome(Result.TRY_LATER, step, error)
            if _is_past(steps, journal, "final") or _is_past(steps, journal, "completes_copy"):
                return Outcome(Result.NEEDS_OPERATOR, step, error)
            journal.decide_undo("failed", error)
            return _undo(steps, journal, context, max_failures)
    return Outcome(Result.FINISHED)


def _do(step: Step, journal: Journal, context: Any) -> None:
    journal.started(step)
    if step.final:
        seen = () if step.look is None else (step.look(context),)
        with journal.atomic():
            journal.done(step, step.do(context, *seen))
    else:
        journal.done(step, step.do(context))


def _undo(steps: Sequence[Step], journal: Journal, context: Any, max_failures: int) -> Outcome:
    for step in reversed(steps):
        if step.undo is None or journal.is_undone(step) or not journal.may_have_started(step):
            continue
        try:
            journal.undo_started(step)
            step.undo(context)
            journal.undone(step)
        except Interrupted:
            raise
        except Exception as error:
            journal.undo_failed(step, error)
            if _may_pass(error) and journal.failures() < max_failures:
                return Outcome(Result.TRY_LATER, step, error)
            return Outcome(Result.NEEDS_OPERATOR, step, error)
    return Outcome(Result.UNDONE)


def _may_pass(error: Exception) -> bool:
    """Tell whether trying again can help; an error that nobody foresaw gets the benefit of the doubt."""
    if isinstance(error, Permanent):
        return False
    if not isinstance(error, Transient):
        logger.error("unforeseen error in a migration step", exc_info=error)
    return True


def _is_past(steps: Sequence[Step], journal: Journal, mark: str) -> bool:
    return any(getattr(step, mark) and journal.is_done(step) for step in steps)
