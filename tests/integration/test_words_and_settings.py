"""Every sentence is rendered, every table is complete, and settings that break a promise are refused."""

from __future__ import annotations

import itertools

import pytest

from migrations_app import sentences
from migrations_app.checks import queue_settings, storage_address
from migrations_app.models import VolumeMigration
from migrations_app.services import Options, request_migration
from migrations_app.states import (
    CANCELLABLE,
    ENDED,
    MOVES,
    WORKING,
    MigrationStatus,
    State,
    may_follow,
    migration_status,
)
from migrations_app.steps import STEPS

# -- sentences ----------------------------------------------------------------------------------------------------


class _Journal:
    """A journal in which the first *done* steps are done."""

    def __init__(self, done: int, is_undone: bool) -> None:
        self._done = {s.name for s in STEPS[:done]}
        self._is_undone = is_undone

    def is_done(self, step) -> bool:
        return step.name in self._done

    def undo_is_decided(self) -> bool:
        return self._is_undone


_SWITCHED = [s.final for s in STEPS].index(True) + 1
_COMPLETE = [s.completes_copy for s in STEPS].index(True) + 1


@pytest.fixture
def migration(two_backends, make_volume, actor) -> VolumeMigration:
    return request_migration(make_volume(two_backends[0]), "testhost@b", actor, Options())


@pytest.mark.django_db(transaction=True)
def test_every_sentence_names_the_place_of_the_data(migration):
    resting = (State.DONE, State.RETAINED, State.CANCELLED, State.FAILED, State.NEEDS_OPERATOR)
    texts = set()
    for state, done, is_undone in itertools.product(resting, range(len(STEPS) + 1), (False, True)):
        text = sentences.data_location(migration, state, _Journal(done, is_undone))
        texts.add(text)
        place = ("testhost@b#main", migration.destination_object_name)
        if done < _SWITCHED or is_undone:
            place = ("testhost@a#main", migration.source_object_name)
        assert all(part in text for part in place), text
        assert text.endswith(".")
        assert "None" not in text
        assert "{" not in text
    assert len(texts) == 7


@pytest.mark.django_db(transaction=True)
def test_nobody_is_told_that_a_source_is_needless_before_somebody_has_looked(migration):
    """What stops the deletion may be that the copy is missing or not proven."""
    text = sentences.data_location(migration, State.NEEDS_OPERATOR, _Journal(_SWITCHED, False))
    assert "not needed" not in text
    assert "complete" not in text
    assert migration.source_object_name in text
    assert migration.destination_object_name in text


@pytest.mark.django_db(transaction=True)
def test_complete_copy_that_was_kept_is_named(migration):
    text = sentences.data_location(migration, State.NEEDS_OPERATOR, _Journal(_COMPLETE, False))
    assert f"A complete copy is at testhost@b#main as '{migration.destination_object_name}'" in text


# -- states ---------------------------------------------------------------------------------------------------------


def test_every_state_has_its_moves_and_its_status():
    assert set(MOVES) == set(State)
    for state in State:
        assert migration_status(state) is None or isinstance(migration_status(state), MigrationStatus)
        assert state not in MOVES[state] or state in WORKING


def test_from_every_working_state_an_end_can_be_reached():
    for start in WORKING | {State.PAUSED, State.NEEDS_OPERATOR, State.RETAINED}:
        reached, todo = set(), {start}
        while todo:
            state = todo.pop()
            reached.add(state)
            todo |= MOVES[state] - reached
        assert reached & ENDED, start


def test_every_state_can_be_reached_from_the_first():
    reached, todo = set(), {State.QUEUED}
    while todo:
        state = todo.pop()
        reached.add(state)
        todo |= MOVES[state] - reached
    assert reached == set(State)


def test_what_can_be_cancelled_has_not_moved_and_may_be_undone():
    assert CANCELLABLE.isdisjoint(ENDED | {State.SWITCHING, State.DELETING_SOURCE, State.RETAINED})
    for state in CANCELLABLE:
        assert may_follow(state, State.UNDOING)
        assert migration_status(state) in (MigrationStatus.STARTING, MigrationStatus.MIGRATING)


def test_working_states_are_not_ended_and_steps_show_working_states():
    assert WORKING.isdisjoint(ENDED)
    assert {State(step.state) for step in STEPS} <= WORKING


def test_the_steps_have_one_point_of_no_return_with_a_complete_copy_before_it():
    names = [s.name for s in STEPS]
    assert len(set(names)) == len(names)
    assert [s.final for s in STEPS].count(True) == [s.completes_copy for s in STEPS].count(True) == 1
    assert _COMPLETE < _SWITCHED
    assert not [s.name for s in STEPS[_SWITCHED - 1 :] if s.undo]


# -- settings -------------------------------------------------------------------------------------------------------


def test_settings_as_shipped_are_accepted():
    assert queue_settings(None) == []


@pytest.mark.parametrize(
    ("number", "queue", "others"),
    [
        (1, {"retry": 3600, "timeout": 3600}, {}),
        (2, {"timeout": 300}, {"VOLMIG_SLICE_SECONDS": 300}),
        (3, {}, {"VOLMIG_LEASE_SECONDS": 5}),
        (4, {"sync": True}, {}),
    ],
)
def test_each_setting_that_breaks_a_promise_is_refused(settings, number, queue, others):
    settings.Q_CLUSTER = {**settings.Q_CLUSTER, **queue}
    for name, value in others.items():
        setattr(settings, name, value)
    _require_one_problem(number)


def test_connection_pool_is_refused(settings, monkeypatch):
    monkeypatch.setitem(settings.DATABASES["default"], "OPTIONS", {"pool": True})
    _require_one_problem(5)


def _require_one_problem(number: int) -> None:
    (problem,) = queue_settings(None)
    assert problem.id == f"volmig.E00{number}"
    assert problem.hint
    assert problem.msg.endswith(".")


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_volumes_are_not_served_on_every_address(settings, address):
    settings.VOLMIG_STORAGE_ADDRESS = address
    (problem,) = storage_address(None)
    assert problem.id == "volmig.E006"
    assert "storage network" in problem.hint


def test_a_missing_tool_for_serving_volumes_is_told(settings, monkeypatch):
    settings.VOLMIG_STORAGE_ADDRESS = "192.0.2.1"
    monkeypatch.setattr("migrations_app.checks.shutil.which", lambda tool: None)
    assert [p.id for p in storage_address(None)] == ["volmig.W007", "volmig.W007"]
    assert "apt-get install nbdkit" in storage_address(None)[0].hint
