"""A host that is away is waited for; what is undone without it is tried a few times only."""

from __future__ import annotations

from backends.drivers.errors import HostAway, Permanent
from migrations_app.saga.runner import Result, run
from migrations_app.saga.step import Step
from tests.saga.world import MemoryJournal, Story, World


class Context:
    def check(self, *, is_cancellable: bool = True) -> None:
        pass


class Host:
    """Another host: `calls` is what was asked of it."""

    def __init__(self) -> None:
        self.is_away = True
        self.calls: list[str] = []

    def ask(self, what: str) -> dict:
        self.calls.append(what)
        if self.is_away:
            raise HostAway("away")
        return {}


def test_step_waits_without_end_and_goes_on_when_the_host_is_back():
    host, journal = Host(), MemoryJournal(World(Story()))
    steps = [Step("make", "Make", "preparing", lambda _: host.ask("make"))]
    for _ in range(50):
        outcome = run(steps, journal, Context(), max_failures=3)
        assert (outcome.result, journal.failures()) == (Result.TRY_LATER, 0)
    host.is_away = False
    assert run(steps, journal, Context(), max_failures=3).result is Result.FINISHED


def test_undoing_is_given_up_and_waits_for_a_person():
    host, journal = Host(), MemoryJournal(World(Story()))

    def fail(_: object) -> dict:
        raise Permanent("no")

    steps = [Step("make", "Make", "preparing", fail, undo=lambda _: host.ask("remove"))]
    results = [run(steps, journal, Context(), max_failures=3).result for _ in range(3)]
    assert results == [Result.TRY_LATER, Result.TRY_LATER, Result.NEEDS_OPERATOR]
    host.is_away = False
    assert run(steps, journal, Context(), max_failures=3).result is Result.UNDONE


def test_storage_is_looked_at_before_the_transaction_of_a_final_step():
    world = World(Story())
    journal, seen = MemoryJournal(world), []

    class Watched(MemoryJournal):
        def atomic(self):
            seen.append("transaction")
            return super().atomic()

    def look(_: object) -> str:
        seen.append("look")
        return "what was seen"

    def do(_: object, found: str) -> dict:
        seen.append(found)
        return {}

    journal = Watched(world)
    step = Step("switch", "Switch", "switching", do, final=True, look=look)
    assert run([step], journal, Context(), max_failures=3).result is Result.FINISHED
    assert seen == ["look", "transaction", "what was seen"]
