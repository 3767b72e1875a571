"""States of a migration, the legal moves between them, and the `migration_status` that follows."""

from __future__ import annotations

import enum


class State(enum.StrEnum):
    """Where a migration stands, in the words of the page."""

    QUEUED = "queued"
    PREPARING = "preparing"
    MOVING = "moving"
    COPYING = "copying"
    VERIFYING = "verifying"
    SWITCHING = "switching"
    PAUSED = "paused"
    UNDOING = "undoing"
    DELETING_SOURCE = "deleting_source"
    RETAINED = "retained"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"
    NEEDS_OPERATOR = "needs_operator"
    ROLLED_BACK = "rolled_back"


class MigrationStatus(enum.StrEnum):
    """Cinder's words, shown on the volume.  Source: cinder `objects/fields.py` and `volume/manager.py`."""

    STARTING = "starting"
    MIGRATING = "migrating"
    COMPLETING = "completing"
    SUCCESS = "success"
    ERROR = "error"


#: A worker has something to do (or will have, when a pause ends): the sweep rings for these.
WORKING = frozenset(
    {
        State.QUEUED,
        State.PREPARING,
        State.MOVING,
        State.COPYING,
        State.VERIFYING,
        State.SWITCHING,
        State.UNDOING,
        State.DELETING_SOURCE,
    }
)

#: Over; nothing happens any more by itself.
ENDED = frozenset({State.DONE, State.CANCELLED, State.FAILED, State.ROLLED_BACK})

#: Cancel still means "as if nothing had happened".
CANCELLABLE = frozenset(
    {State.QUEUED, State.PREPARING, State.MOVING, State.COPYING, State.VERIFYING, State.PAUSED}
)

_FORWARD = (
    State.QUEUED,
    State.PREPARING,
    State.MOVING,
    State.COPYING,
    State.VERIFYING,
    State.SWITCHING,
)

#: From each state, the states that may follow.
MOVES: dict[State, frozenset[State]] = {
    **{
        state: frozenset(
            {*_FORWARD, State.PAUSED, State.UNDOING, State.DELETING_SOURCE, State.RETAINED, State.DONE}
            | {State.FAILED, State.CANCELLED, State.NEEDS_OPERATOR}
        )
        for state in _FORWARD
    },
    State.PAUSED: frozenset({State.QUEUED, State.UNDOING, State.CANCELLED}),
    State.UNDOING: frozenset({State.FAILED, State.CANCELLED, State.ROLLED_BACK, State.NEEDS_OPERATOR}),
    State.DELETING_SOURCE: frozenset({State.DONE, State.RETAINED, State.NEEDS_OPERATOR}),
    State.RETAINED: frozenset({State.DELETING_SOURCE, State.DONE, State.UNDOING, State.ROLLED_BACK}),
    State.NEEDS_OPERATOR: frozenset({State.QUEUED, State.UNDOING, State.DELETING_SOURCE, *ENDED}),
    State.FAILED: frozenset(),
    State.DONE: frozenset(),
    State.CANCELLED: frozenset(),
    # A copy that was written to before the record went back is kept for a while, then deleted.
    State.ROLLED_BACK: frozenset({State.UNDOING}),
}

_STATUS: dict[State, MigrationStatus | None] = {
    State.QUEUED: MigrationStatus.STARTING,
    State.PREPARING: MigrationStatus.MIGRATING,
    State.MOVING: MigrationStatus.MIGRATING,
    State.COPYING: MigrationStatus.MIGRATING,
    State.VERIFYING: MigrationStatus.MIGRATING,
    State.PAUSED: MigrationStatus.MIGRATING,
    State.UNDOING: MigrationStatus.MIGRATING,
    State.SWITCHING: MigrationStatus.COMPLETING,
    State.DELETING_SOURCE: MigrationStatus.SUCCESS,
    State.RETAINED: MigrationStatus.SUCCESS,
    State.DONE: MigrationStatus.SUCCESS,
    State.FAILED: MigrationStatus.ERROR,
    State.NEEDS_OPERATOR: MigrationStatus.ERROR,
    State.CANCELLED: None,
    State.ROLLED_BACK: None,
}


def migration_status(state: State) -> MigrationStatus | None:
    """Return Cinder's `migration_status` for *state*."""
    return _STATUS[state]


def may_follow(state: State, following: State) -> bool:
    """Tell whether *following* may come after *state*."""
    return following in MOVES[state]
