"""Each rule of the runner is needed: without it, some death or failure breaks an invariant."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import pytest

from migrations_app.saga import runner
from migrations_app.saga.step import Step
from tests.saga.world import (
    BROKEN,
    DESTINATION,
    LOST,
    SOURCE,
    MemoryJournal,
    Story,
    Violation,
    World,
    live,
    steps_of,
)


@dataclass
class Wrong:
    """A runner with one rule broken."""

    journal: type[MemoryJournal] = MemoryJournal
    make_steps: Callable[[World], list[Step]] = steps_of
    patches: tuple[tuple[str, object], ...] = ()


class UndoesOnlyWhatIsDone(MemoryJournal):
    may_have_started = MemoryJournal.is_done


class WritesNoStarted(MemoryJournal):
    def started(self, step: Step) -> None:
        pass


class ForgetsThatUndoWasDecided(MemoryJournal):
    def undo_is_decided(self) -> bool:
        return False


class CountsNoFailures(MemoryJournal):
    def failures(self) -> int:
        return 0


class HasNoTransactions(MemoryJournal):
    def atomic(self) -> object:
        return nullcontext()


def _done_before_do(step: Step, journal: MemoryJournal, context: object) -> None:
    journal.started(step)
    journal.done(step, {})
    step.do(context)


def _swallows_undo_errors(steps, journal, context, max_failures) -> runner.Outcome:
    for step in reversed(steps):
        if step.undo is not None and journal.may_have_started(step):
            try:
                step.undo(context)
            except Exception:
                continue
    return runner.Outcome(runner.Result.UNDONE)


def _source_first(world: World) -> list[Step]:
    *rest, switch, delete = steps_of(world)
    world.db.is_locked = True

    def delete_now(_: object) -> dict:
        world.storage.pop(SOURCE, None)
        world.tick("source deleted")
        return {}

    return [*rest, dataclasses.replace(delete, do=delete_now), switch]


def _two_writes(world: World) -> list[Step]:
    def switch(_: object) -> dict:
        world.db.record = (DESTINATION[0], world.db.record[1])
        world.tick("pool written")
        world.db.record = DESTINATION
        world.db.is_locked = False
        return {}

    return [dataclasses.replace(s, do=switch) if s.final else s for s in steps_of(world)]


def _not_final(world: World) -> list[Step]:
    return [dataclasses.replace(s, final=False) for s in steps_of(world)]


WRONG = {
    "undoes only what is done": Wrong(journal=UndoesOnlyWhatIsDone),
    "deletes the source before the switch": Wrong(make_steps=_source_first),
    "switches in two writes": Wrong(journal=HasNoTransactions, make_steps=_two_writes),
    "has no transaction around the switch": Wrong(journal=HasNoTransactions),
    "writes done before do": Wrong(patches=(("_do", _done_before_do),)),
    "writes no started": Wrong(journal=WritesNoStarted),
    "forgets that undo was decided": Wrong(journal=ForgetsThatUndoWasDecided),
    "undoes after the final step": Wrong(patches=(("_is_past", lambda *_: False),)),
    "swallows errors of undo": Wrong(patches=(("_undo", _swallows_undo_errors),)),
    "tries for ever": Wrong(journal=CountsNoFailures),
    "has no point of no return": Wrong(make_steps=_not_final),
}


def _stories() -> Iterator[Callable[[tuple[int, ...]], Story]]:
    yield lambda kills: Story(kills=kills, deletes_source=True)
    yield lambda kills: Story(kills=kills)
    for name in ("move_natively", "create_destination", "copy", "verify", "switch", "delete_source"):
        for when in ("do", "reply"):
            for error in (BROKEN, LOST):
                for moves in (False, True):
                    yield lambda kills, n=name, w=when, e=error, m=moves: Story(
                        kills=kills, deletes_source=True, moves_natively=m, errors={(n, w): [e]}
                    )
    undo_fails = {("move_natively", "undo"): [BROKEN], ("create_destination", "undo"): [BROKEN]}
    yield lambda kills: Story(kills=kills, errors={("verify", "do"): [BROKEN], **undo_fails})
    for check in range(1, 8):
        yield lambda kills, c=check: Story(kills=kills, cancel_at_check=c)


def _first_violation(wrong: Wrong) -> str:
    """Return what goes wrong first, empty when nothing ever does."""
    for story in _stories():
        for kill in range(70):
            try:
                live(story((kill,)), make_steps=wrong.make_steps, make_journal=wrong.journal)
            except Violation as violation:
                return str(violation)
    return ""


@pytest.mark.parametrize("name", WRONG)
def test_wrong_runner_is_caught(name, monkeypatch):
    wrong = WRONG[name]
    for attribute, value in wrong.patches:
        monkeypatch.setattr(runner, attribute, value)
    violation = _first_violation(wrong)
    print(f"{name}: {violation}")
    assert violation


def test_right_runner_is_not_caught():
    assert _first_violation(Wrong()) == ""
