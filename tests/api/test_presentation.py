"""What a person sees of a migration, for every turn that it can take."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from backends.drivers.errors import ConnectionLost, NoSpace
from migrations_app import presentation, services, steps, worker
from migrations_app.lease import new_owner
from migrations_app.models import JournalEntry, VolumeMigration
from migrations_app.scheduler.types import Reason
from migrations_app.states import State
from tests.conftest import HOST, object_path

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def migration(two_backends, make_volume, actor) -> VolumeMigration:
    volume = make_volume(two_backends[0])
    options = services.Options(force_host_copy=True)
    return services.request_migration(volume, f"{HOST}@b", actor, options)


@pytest.fixture
def break_step(monkeypatch):
    """Return a function that lets a step raise: `break_step("copy", ConnectionLost("gone"))`."""

    def break_it(name: str, error: Exception | None) -> None:
        def fail(run):
            raise error

        changed = [
            type(s)(
                s.name, s.label, s.state, fail if s.name == name else s.do, s.undo, s.final, s.completes_copy
            )
            for s in steps.STEPS
        ]
        monkeypatch.setattr(worker, "STEPS", tuple(changed))

    return break_it


def statuses(migration) -> dict[str, str]:
    return {step.name: step.status for step in presentation.steps(migration)}


def set_row(migration, **fields) -> VolumeMigration:
    VolumeMigration.objects.filter(pk=migration.pk).update(**fields)
    migration.refresh_from_db()
    return migration


def copying(migration, **fields) -> VolumeMigration:
    """Return *migration* as a worker shows it in the middle of a copy."""
    now = timezone.now()
    entry = JournalEntry.objects.create(migration=migration, step="copy", kind="started")
    JournalEntry.objects.filter(pk=entry.pk).update(at=now - timedelta(seconds=30))
    row = {
        "state": State.COPYING,
        "owner": "somebody",
        "lease_expires_at": now + timedelta(seconds=30),
        "started_at": now - timedelta(seconds=31),
        "progress_at": now,
        "phase_done_bytes": 300,
        "phase_total_bytes": 1000,
        "speed_bytes_per_second": 10,
    }
    return set_row(migration, **{**row, **fields})


def test_before_it_begins_everything_waits(migration):
    assert set(statuses(migration).values()) == {"waiting"}
    view = presentation.progress(migration)
    assert view.state_text == "Waiting for a worker"
    assert (view.percent, view.eta_seconds, view.attempts, view.is_resumed) == (None, None, 0, False)


def test_a_running_copy_tells_speed_and_time(migration):
    view = presentation.progress(copying(migration))
    assert view.phase_label == "Copy"
    assert (view.percent, view.bytes_per_second, view.eta_seconds) == (30, 10, 70.0)
    assert statuses(migration)["copy"] == "running"


def test_the_time_is_unknown_at_the_beginning(migration):
    assert presentation.progress(copying(migration, phase_done_bytes=5)).eta_seconds is None


def test_it_is_not_100_percent_before_the_phase_is_done(migration):
    assert presentation.progress(copying(migration, phase_done_bytes=1000)).percent == 99
    assert presentation.progress(copying(migration, phase_done_bytes=2000)).done_bytes == 1000


def test_an_old_speed_is_no_speed(migration):
    view = presentation.progress(copying(migration, progress_at=timezone.now() - timedelta(seconds=20)))
    assert view.bytes_per_second is None
    assert view.eta_seconds is None
    assert view.percent == 30


def test_a_worker_that_was_killed_has_no_speed(migration):
    killed = new_owner().split(" ")
    killed[2] = str(2**22 + 1)
    view = presentation.progress(copying(migration, owner=" ".join(killed)))
    assert "its worker has stopped" in view.state_text
    assert view.bytes_per_second is None


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"owner": ""}, "waiting for a worker to go on"),
        ({"retry_at": timezone.now() + timedelta(hours=1)}, "waiting to try again"),
        ({"lease_expires_at": timezone.now() - timedelta(hours=1)}, "its worker has stopped"),
        ({"cancel_requested_at": timezone.now()}, "Cancelling"),
    ],
)
def test_what_keeps_it_is_told(migration, fields, text):
    view = presentation.progress(copying(migration, **fields))
    assert text in view.state_text
    assert view.percent is None or "Cancelling" not in view.state_text


def test_a_phase_begins_without_the_numbers_of_the_last(migration, monkeypatch):
    seen = []

    def look(run):
        seen.append(presentation.progress(VolumeMigration.objects.get()))
        return {"verified": "yes"}

    changed = [
        type(s)(
            s.name, s.label, s.state, look if s.name == "verify" else s.do, s.undo, s.final, s.completes_copy
        )
        for s in steps.STEPS
    ]
    monkeypatch.setattr(worker, "STEPS", tuple(changed))
    worker.advance(migration.pk)
    assert [(view.phase_label, view.percent) for view in seen] == [("Read back and compare", None)]


def test_when_it_has_moved_only_the_source_waits(migration, run_to_end):
    run_to_end(migration)
    assert statuses(migration) == {
        **dict.fromkeys([s.name for s in steps.STEPS], "done"),
        "delete_source": "waiting",
    }
    view = presentation.progress(migration)
    assert (view.percent, view.attempts) == (100, 1)
    assert all(step.text for step in presentation.steps(migration))


def test_a_failure_that_may_pass_is_tried_again(migration, break_step):
    break_step("copy", ConnectionLost("The storage went away."))
    worker.advance(migration.pk)
    migration.refresh_from_db()
    step = next(s for s in presentation.steps(migration) if s.name == "copy")
    assert step.status == "running"
    assert "The storage went away." in step.text
    assert step.finished_at is None
    view = presentation.progress(migration)
    assert view.attempts == 2
    assert "try again" in view.state_text


def test_a_failure_shows_what_was_undone(migration, break_step):
    break_step("copy", NoSpace("The pool is full."))
    worker.advance(migration.pk)
    migration.refresh_from_db()
    assert migration.state == State.FAILED
    shown = statuses(migration)
    assert shown["check_source"] == "done"
    assert shown["create_destination"] == "undone"
    assert shown["copy"] == "failed"
    assert shown["verify"] == "waiting"
    copy = next(s for s in presentation.steps(migration) if s.name == "copy")
    assert "The pool is full." in copy.text
    assert copy.finished_at
    assert presentation.progress(migration).attempts == 1
    summary = presentation.summary(migration)
    assert summary["error"]["code"] == "no_space"
    assert summary["migration_status"] == "error"


def test_a_copy_that_was_cancelled_has_an_end(migration):
    copying(migration, state=State.CANCELLED, owner="", lease_expires_at=None)
    JournalEntry.objects.create(migration=migration, kind="undo_decided", output={"why": "cancelled"})
    copy = next(s for s in presentation.steps(migration) if s.name == "copy")
    assert copy.status == "undone"
    assert copy.finished_at
    assert presentation.progress(migration).percent is None


def test_a_paused_copy_waits_and_shows_how_far_it_is(migration, actor):
    copying(migration, state=State.PAUSED, owner="", lease_expires_at=None, pause_requested_at=timezone.now())
    view = presentation.progress(migration)
    assert (view.state_text, view.phase_label, view.percent) == ("Paused", "Copy", 30)
    assert (view.bytes_per_second, view.eta_seconds) == (None, None)
    copy = next(s for s in presentation.steps(migration) if s.name == "copy")
    assert (copy.status, copy.text) == ("waiting", "Paused at its last checkpoint.")
    JournalEntry.objects.create(
        migration=migration, step="copy", kind="failed", text="The storage went away."
    )
    copy = next(s for s in presentation.steps(migration) if s.name == "copy")
    assert copy.status == "waiting"
    assert copy.text.endswith("after: The storage went away.")


def test_a_pause_that_has_not_happened_yet_is_told(migration):
    view = presentation.progress(copying(migration, pause_requested_at=timezone.now()))
    assert view.state_text == "Copying: will pause at the next checkpoint"


def test_a_roll_back_tells_that_the_record_went_back(migration, actor, run_to_end):
    run_to_end(migration)
    rolled = services.roll_back(migration, actor)
    assert presentation.progress(rolled).state_text == "Rolled back; deleting the copy"
    run_to_end(rolled)
    shown = {s.name: (s.status, s.text) for s in presentation.steps(rolled)}
    assert shown["switch"] == ("undone", "The record was switched back.")
    assert shown["delete_source"] == ("undone", "The source is the volume again.")
    assert shown["create_destination"][0] == "undone"
    assert presentation.progress(rolled).state_text == "Rolled back"
    assert presentation.summary(rolled)["migration_status"] is None


def test_a_roll_back_that_keeps_the_copy_says_so(migration, actor, run_to_end):
    run_to_end(migration)
    with object_path(migration.volume).open("r+b") as file:
        file.write(b"written after the switch")
    rolled = services.roll_back(migration, actor, accepts_loss=True)
    assert presentation.progress(rolled).state_text == "Rolled back; the copy is kept"
    assert presentation.summary(rolled)["purge_after"]
    shown = {s.name: s.status for s in presentation.steps(rolled)}
    assert shown["switch"] == "undone"
    assert shown["create_destination"] == "done"


@pytest.mark.parametrize("kind", JournalEntry.Kind)
def test_every_kind_of_entry_can_be_shown(migration, kind):
    JournalEntry.objects.create(migration=migration, step="copy", kind="started")
    JournalEntry.objects.create(migration=migration, step="copy", kind=kind, output={"why": "failed"})
    for state in State:
        set_row(migration, state=state)
        assert presentation.summary(migration)["steps"]


def test_a_copy_that_is_not_compared_is_told_before_and_after(migration, run_to_end):
    assert presentation.warning(migration) == ""
    set_row(migration, verify="none")
    assert presentation.warning(migration) == "This copy will NOT BE VERIFIED, as asked."
    run_to_end(migration)
    assert presentation.verification(migration) == "not verified"
    assert presentation.warning(migration).startswith("NOT VERIFIED, as asked")
    summary = presentation.summary(migration)
    assert summary["verification"] == "not verified"
    assert summary["warning"]
    rolled = services.roll_back(migration, services.Actor("somebody"))
    assert presentation.warning(run_to_end(rolled)) == ""


@pytest.mark.parametrize("state", State)
def test_every_state_has_words(migration, state):
    assert presentation.progress(set_row(migration, state=state)).state_text
    assert presentation.summary(migration)["state"] == state.value


def test_reasons_have_the_shape_that_the_schema_tells():
    from migrations_app.api.schema import ReasonSchema

    assert set(ReasonSchema().fields) == set(Reason.__dataclass_fields__)
