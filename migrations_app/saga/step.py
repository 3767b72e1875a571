"""What a step of a saga is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Output = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """
    One step.  `do` and `undo` get the run's context.

    `do` returns a JSON object and must be idempotent: after a crash it is called again and finishes from any
    half-way point.  `undo` must be idempotent too and accept that nothing was made; it is called for every step
    that *may* have started.

    `final`: the point of no return; `do` runs in one transaction with the journal's `done`.
    `completes_copy`: when this step is done, a complete and checked copy exists; a failure after it keeps the copy.
    `look`: what a final step wants to know of the storage; called right before its transaction, which must not wait for
    a storage, and which another host could not see into.  Its answer is given to `do`.
    `state`: what the row shows while the step runs.
    """

    name: str
    label: str
    state: str
    do: Callable[..., Output]
    undo: Callable[[Any], None] | None = None
    final: bool = False
    completes_copy: bool = False
    look: Callable[[Any], Any] | None = None


class Interrupted(Exception):
    """The run stops here without any decision; somebody else, or a later run, goes on."""


class LeaseLost(Interrupted):
    """Another worker owns the migration now: nothing may be written any more, neither rows nor blocks."""


class SliceOver(Interrupted):
    """This task has worked long enough; the next one goes on from the checkpoint."""


class CancelRequested(Exception):
    """An administrator wants it as if nothing had happened."""


class PauseRequested(Interrupted):
    """An administrator wants it to stand still for now."""


class Parked(Exception):
    """The saga rests here until something from outside wakes it; `output` is kept in the journal."""
