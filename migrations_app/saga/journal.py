"""What the runner needs of a journal."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from migrations_app.saga.step import Output, Step


class Journal(Protocol):
    """
    An intent log.  Every write is fenced: it raises `LeaseLost` when another worker owns the migration.

    Written before a step (`started`) and, in one write with its output, after it (`done`).
    """

    def is_done(self, step: Step) -> bool: ...

    def may_have_started(self, step: Step) -> bool: ...

    def is_undone(self, step: Step) -> bool: ...

    def output(self, step_name: str) -> Output: ...

    def undo_is_decided(self) -> bool: ...

    def started(self, step: Step) -> None: ...

    def done(self, step: Step, output: Output) -> None: ...

    def failed(self, step: Step, error: Exception) -> None: ...

    def waits(self, step: Step, error: Exception) -> None:
        """The step could not be tried: what it needs is away.  Not a failure, and not counted as one."""
        ...

    def decide_undo(self, why: str, error: Exception | None) -> None: ...

    def undo_started(self, step: Step) -> None: ...

    def undone(self, step: Step) -> None: ...

    def undo_failed(self, step: Step, error: Exception) -> None: ...

    def failures(self) -> int:
        """Return how often in a row something failed without any progress in between."""
        ...

    def atomic(self) -> AbstractContextManager[None]:
        """Everything inside, journal writes included, happens together or not at all."""
        ...
