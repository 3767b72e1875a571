"""
A world in memory for the runner: a database with transactions, storage without them, and a death at any moment.

Everything that happens passes `World.tick`; a test chooses at which ticks the process dies.  The invariants that
must hold at every instant are looked at in each tick, the others when a saga has come to rest.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from backends.drivers.errors import ConnectionLost, CorruptData, NotFound, Permanent
from migrations_app.saga import runner
from migrations_app.saga.runner import Outcome, Result
from migrations_app.saga.step import CancelRequested, Interrupted, Output, Parked, SliceOver, Step

SOURCE, DESTINATION = ("a", "volume-1"), ("b", "volmig-1")
DATA = b"ab"
MAX_FAILURES = 3
#: A saga that is worked on this often without coming to rest never will.
MAX_ROUNDS = 60

#: What all tests did together, printed at the end.
COUNTED: Counter = Counter()


class Killed(BaseException):
    """The process is gone: nothing catches this."""


class Violation(AssertionError):
    """An invariant does not hold."""


@dataclass
class Database:
    """What transactions protect."""

    record: tuple[str, str] = SOURCE
    is_locked: bool = True
    segments: int = 0
    failures: int = 0
    log: list[tuple[str, str, Output]] = field(default_factory=list)


@dataclass
class Story:
    """What shall happen: the ticks at which the process dies, errors by step and direction, wishes."""

    kills: Collection[int] = ()
    #: (step, do or undo) -> the error of each call, None for a call that goes well; the last one stays.
    errors: dict[tuple[str, str], list[Exception | None]] = field(default_factory=dict)
    cancel_at_check: int = 0
    interrupt_at_check: int = 0
    moves_natively: bool = False
    keeps_source: bool = True
    deletes_source: bool = False


class World:
    def __init__(self, story: Story) -> None:
        self.story = story
        self.db = Database()
        self.storage: dict[tuple[str, str], bytes] = {SOURCE: DATA}
        self.ticks: list[str] = []
        self.checks = 0
        self.outcome: Outcome | None = None

    def tick(self, label: str) -> None:
        self.ticks.append(label)
        # At this instant another process, or an administrator, may read the record.
        if not self._in_transaction:
            self.require_record(label)
        COUNTED["boundaries"] += 1
        if len(self.ticks) in self.story.kills:
            COUNTED["deaths"] += 1
            raise Killed(label)

    _in_transaction = False

    def require_record(self, when: str) -> None:
        if self.storage.get(self.db.record) != DATA:
            raise Violation(f"{when}: the record points at {self.db.record}, which is not complete")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        before, was_in = dataclasses.replace(self.db, log=list(self.db.log)), self._in_transaction
        self._in_transaction = True
        try:
            yield
            if not was_in:
                self.tick("before commit")
        except BaseException:
            self.db = before
            raise
        finally:
            self._in_transaction = was_in
        self.tick("after commit")

    def fail(self, step: str, direction: str) -> None:
        """Raise the error that is due for this call."""
        errors = self.story.errors.get((step, direction))
        error = (errors.pop(0) if len(errors) > 1 else errors[0]) if errors else None
        if error is not None:
            # A new one each time: a raised error collects the tracebacks of all who raised it.
            raise type(error)(*error.args)

    # -- the run's context --------------------------------------------------------------------------------------

    def check(self, *, is_cancellable: bool) -> None:
        self.checks += 1
        if self.checks == self.story.interrupt_at_check:
            raise SliceOver
        if self.story.cancel_at_check and self.checks >= self.story.cancel_at_check and is_cancellable:
            raise CancelRequested


class MemoryJournal:
    """The journal of a `World`; each write is a transaction, with a chance to die before and after it."""

    def __init__(self, world: World) -> None:
        self._world = world

    def _has(self, step: Step, kind: str) -> bool:
        return any(name == step.name and entry == kind for name, entry, _ in self._world.db.log)

    def is_done(self, step: Step) -> bool:
        return self._has(step, "done")

    def may_have_started(self, step: Step) -> bool:
        return self._has(step, "started")

    def is_undone(self, step: Step) -> bool:
        return self._has(step, "undone")

    def output(self, step_name: str) -> Output:
        return next((o for name, kind, o in self._world.db.log if name == step_name and kind == "done"), {})

    def undo_is_decided(self) -> bool:
        return any(kind == "undo_decided" for _, kind, _ in self._world.db.log)

    def failures(self) -> int:
        return self._world.db.failures

    def _write(self, step: str, kind: str, output: Output | None = None, failures: int | None = None) -> None:
        self._world.tick(f"before {kind} {step}")
        with self._world.transaction():
            self._world.db.log.append((step, kind, output or {}))
            if failures is not None:
                self._world.db.failures = failures

    def started(self, step: Step) -> None:
        self._write(step.name, "started")

    def done(self, step: Step, output: Output) -> None:
        self._write(step.name, "done", output, 0)

    def failed(self, step: Step, error: Exception) -> None:
        self._write(step.name, "failed", None, self.failures() + 1)

    def waits(self, step: Step, error: Exception) -> None:
        self._write(step.name, "waiting")

    def decide_undo(self, why: str, error: Exception | None) -> None:
        self._write("", "undo_decided", {"why": why}, 0)

    def undo_started(self, step: Step) -> None:
        self._write(step.name, "undo_started")

    def undone(self, step: Step) -> None:
        self._write(step.name, "undone", None, 0)

    def undo_failed(self, step: Step, error: Exception) -> None:
        self._write(step.name, "undo_failed", None, self.failures() + 1)

    def atomic(self) -> object:
        return self._world.transaction()


# -- the steps, shaped like those of a migration --------------------------------------------------------------------


def steps_of(world: World) -> list[Step]:
    """Return steps like `migrations_app.steps.STEPS`, working on *world*; each can die and fail half-way."""

    def was_moved() -> bool:
        return bool(MemoryJournal(world).output("move_natively").get("moved"))

    def check_source(_: object) -> Output:
        if SOURCE not in world.storage:
            raise NotFound("no source")
        return {}

    def move_natively(_: object) -> Output:
        if world.story.moves_natively:
            world.storage[DESTINATION] = world.storage[SOURCE]
            world.tick("moved")
        return {"moved": world.story.moves_natively, "keeps_source": world.story.keeps_source}

    def create_destination(_: object) -> Output:
        if not was_moved():
            world.storage.setdefault(DESTINATION, bytes(len(DATA)))
        return {}

    def copy_data(_: object) -> Output:
        if was_moved():
            return {}
        for index in range(world.db.segments, len(DATA)):
            written = world.storage.get(DESTINATION)
            if written is None:
                raise NotFound("no destination")
            # Something half written that only the repetition mends.
            world.storage[DESTINATION] = written[:index] + b"?" + written[index + 1 :]
            world.tick(f"half of segment {index}")
            written = world.storage[DESTINATION]
            world.storage[DESTINATION] = written[:index] + DATA[index : index + 1] + written[index + 1 :]
            world.tick(f"segment {index}")
            with world.transaction():
                world.db.segments, world.db.failures = index + 1, 0
        return {}

    def verify(_: object) -> Output:
        if world.storage.get(DESTINATION) != world.storage.get(SOURCE):
            raise CorruptData("the copy differs")
        return {}

    def switch(_: object) -> Output:
        if DESTINATION not in world.storage:
            raise NotFound("no destination")
        world.db.record = DESTINATION
        world.tick("record switched")
        world.db.is_locked = False
        return {}

    def delete_source(_: object) -> Output:
        if (
            MemoryJournal(world).output("move_natively").get("keeps_source")
            and not world.story.deletes_source
        ):
            raise Parked
        if world.db.record == SOURCE:
            raise Permanent("the record points at it")
        world.storage.pop(SOURCE, None)
        return {}

    def delete_destination(_: object) -> None:
        if world.db.record == DESTINATION:
            raise Permanent("the record points at it")
        world.storage.pop(DESTINATION, None)

    return [
        _step(world, "check_source", check_source),
        _step(world, "move_natively", move_natively, delete_destination),
        _step(world, "create_destination", create_destination, delete_destination),
        _step(world, "copy", copy_data),
        _step(world, "verify", verify, completes_copy=True),
        _step(world, "switch", switch, final=True),
        _step(world, "delete_source", delete_source),
    ]


def _step(world: World, name: str, do: Callable, undo: Callable | None = None, **marks: bool) -> Step:
    def do_and_die(context: object) -> Output:
        world.tick(f"{name} begins")
        world.fail(name, "do")
        output = do(context)
        world.tick(f"{name} is done but not written down")
        world.fail(name, "reply")
        return output

    def undo_and_die(context: object) -> None:
        world.tick(f"undo of {name} begins")
        world.fail(name, "undo")
        undo(context)
        world.tick(f"{name} is undone but not written down")

    return Step(name, name, name, do_and_die, undo_and_die if undo else None, **marks)


def twice(steps: Sequence[Step]) -> list[Step]:
    """Return the steps with everything done, and undone, two times."""

    def both(function: Callable | None) -> Callable | None:
        return function and (lambda context: (function(context), function(context))[1])

    return [dataclasses.replace(s, do=both(s.do), undo=both(s.undo)) for s in steps]


# -- working on it ----------------------------------------------------------------------------------------------


def live(
    story: Story,
    *,
    make_steps: Callable[[World], Sequence[Step]] = steps_of,
    make_journal: Callable[[World], MemoryJournal] = MemoryJournal,
) -> World:
    """Work on one saga, by one process after the other, until it rests; return the world then, invariants checked."""
    COUNTED["sagas"] += 1
    world = World(story)
    steps = make_steps(world)
    for _ in range(MAX_ROUNDS):
        try:
            outcome = runner.run(steps, make_journal(world), world, max_failures=MAX_FAILURES)
        except Killed:
            # As a new lease does after a death.
            world.db.failures += 1
        except Interrupted:
            pass
        else:
            if outcome.result is not Result.TRY_LATER:
                world.outcome = outcome
                if outcome.result is Result.UNDONE:
                    world.db.is_locked = False
                require_invariants(world)
                return world
    raise Violation("it never ends")


def require_invariants(world: World) -> None:
    """Raise `Violation` unless the world is as a saga at rest must leave it."""
    world.require_record("at the end")
    result, db = world.outcome.result, world.db
    if db.record == DESTINATION and any(kind == "undo_decided" for _, kind, _ in db.log):
        raise Violation("it was undone after the record had moved")
    if result is Result.NEEDS_OPERATOR:
        if world.outcome.error is None or world.outcome.step is None:
            raise Violation("it waits for a person without saying why")
        return
    if DESTINATION in world.storage and db.record != DESTINATION:
        raise Violation("something is left at the destination")
    if db.is_locked:
        raise Violation("the volume is locked for ever")
    is_switched = result in (Result.FINISHED, Result.PARKED)
    if (db.record == DESTINATION) != is_switched:
        raise Violation(f"it ended {result.value} with the record at {db.record}")
    if (SOURCE in world.storage) != (result is not Result.FINISHED):
        raise Violation(
            f"it ended {result.value} with the source {'kept' if SOURCE in world.storage else 'gone'}"
        )


LOST = ConnectionLost("the storage went away")
BROKEN = CorruptData("input/output error")
UNFORESEEN = ValueError("nobody thought of this")
