"""What people decide about migrations: pause, resume, retry, finish, roll back, resolve, keep, purge."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest

from backends import services as inventory
from backends.models import Volume
from migrations_app import services, worker
from migrations_app.copying import engine
from migrations_app.errors import NotNow
from migrations_app.models import JournalEntry, VolumeMigration
from migrations_app.services import Options, Truth
from migrations_app.states import State
from tests.conftest import digest, object_path
from tests.integration.boundaries import BLOCK, small_segments

pytestmark = pytest.mark.django_db(transaction=True)

COPY = Options(force_host_copy=True)


@pytest.fixture
def volume(two_backends, make_volume) -> Volume:
    return make_volume(two_backends[0])


@pytest.fixture
def moved(volume, actor, run_to_end) -> VolumeMigration:
    return run_to_end(services.request_migration(volume, "testhost@b", actor, COPY))


def leftovers(volume: Volume) -> list[Path]:
    return sorted((object_path(volume).parents[1] / "b").glob("volmig-*"))


@pytest.fixture
def stuck_before_switch(volume, actor, run_to_end, monkeypatch) -> VolumeMigration:
    """A migration with a complete copy that could not be switched to."""
    migration = services.request_migration(volume, "testhost@b", actor, COPY)
    Volume.objects.filter(pk=volume.pk).update(object_name="somebody-changed-this")
    original = volume.object_name
    with monkeypatch.context() as patch:
        from migrations_app import steps

        patch.setattr(steps, "_check_identity", lambda *_: None)
        migration = run_to_end(migration)
    Volume.objects.filter(pk=volume.pk).update(object_name=original)
    assert migration.state == State.NEEDS_OPERATOR
    assert "A complete copy is at testhost@b#main" in migration.data_location
    return migration


# -- pause and resume ---------------------------------------------------------------------------------------------


def test_queued_migration_pauses_at_once_and_goes_on_when_resumed(volume, actor, run_to_end):
    before = digest(object_path(volume))
    migration = services.request_migration(volume, "testhost@b", actor, COPY)
    migration = services.pause_migration(migration, actor)
    assert migration.state == State.PAUSED
    assert worker.advance(migration.pk) == "nothing to do"
    with pytest.raises(inventory.VolumeBusy):
        inventory.attach(volume, "server")
    assert services.resume_migrations() == []
    services.pause_migration(migration, actor)
    migration = run_to_end(services.resume_migration(migration, actor))
    assert migration.state == State.RETAINED
    assert digest(object_path(volume)) == before
    assert JournalEntry.objects.filter(migration=migration, kind="wish").count() == 2


@pytest.fixture
def few_at_once():
    with small_segments():
        yield


@pytest.mark.usefixtures("few_at_once")
def test_running_copy_pauses_at_a_checkpoint(two_backends, make_volume, actor, run_to_end, monkeypatch):
    # Full, and larger than what may be under way when the first segment is saved.
    size_bytes = 4 * engine.THREADS * BLOCK
    volume = make_volume(two_backends[0], size_bytes=size_bytes, filled=False)
    object_path(volume).write_bytes(random.Random(1).randbytes(size_bytes))
    before = digest(object_path(volume))
    migration = services.request_migration(volume, "testhost@b", actor, COPY)
    from migrations_app import segments, steps

    real = segments.save
    monkeypatch.setattr(steps.settings, "VOLMIG_CHECKPOINT_SECONDS", 0)

    def save_then_pause(run, copied):
        real(run, copied)
        run.wishes.pause = True

    with monkeypatch.context() as patch:
        patch.setattr(segments, "save", save_then_pause)
        VolumeMigration.objects.filter(pk=migration.pk).update(pause_requested_at=None)
        assert worker.advance(migration.pk) == "paused"
    migration.refresh_from_db()
    assert migration.state == State.PAUSED
    assert 0 < migration.copied_up_to_bytes < migration.size_bytes
    assert (migration.owner, migration.lease_expires_at) == ("", None)
    VolumeMigration.objects.filter(pk=migration.pk).update(pause_requested_at=migration.created_at)
    migration = run_to_end(services.resume_migration(migration, actor))
    assert migration.state == State.RETAINED
    assert digest(object_path(volume)) == before


def test_paused_migration_can_be_cancelled(volume, actor, run_to_end):
    migration = services.request_migration(volume, "testhost@b", actor, COPY)
    services.pause_migration(migration, actor)
    migration = run_to_end(services.cancel_migration(migration, actor))
    assert migration.state == State.CANCELLED
    with pytest.raises(NotNow, match="cannot be resumed now"):
        services.resume_migration(migration, actor)


def test_bandwidth_is_checked_and_refused_after_the_end(moved, volume, actor):
    with pytest.raises(ValueError, match="1 byte per second or more"):
        services.set_bandwidth(moved, 0, actor)
    with pytest.raises(NotNow, match="'retained' and cannot be throttled now"):
        services.set_bandwidth(moved, 1000, actor)


# -- retry, finish, resolve -----------------------------------------------------------------------------------------


def test_failed_migration_is_asked_for_anew(volume, actor, run_to_end):
    migration = services.request_migration(volume, "testhost@b", actor, COPY)
    run_to_end(services.cancel_migration(migration, actor))
    migration.refresh_from_db()
    again = services.retry_migration(migration, actor)
    assert again.retry_of == migration
    assert again.force_host_copy
    assert run_to_end(again).state == State.RETAINED


def test_finish_switches_to_the_complete_copy(stuck_before_switch, volume, actor, run_to_end):
    before = digest(object_path(volume))
    assert services.verbs_for(stuck_before_switch) == ("finish", "cancel", "retry", "resolve")
    copies = leftovers(volume)
    migration = run_to_end(services.finish_migration(stuck_before_switch, actor))
    assert migration.state == State.RETAINED
    assert [object_path(volume)] == copies
    assert digest(object_path(volume)) == before
    assert not JournalEntry.objects.filter(migration=migration, step="copy", kind="started").count() > 1


def test_complete_copy_can_be_thrown_away(stuck_before_switch, volume, actor, run_to_end):
    before = digest(object_path(volume))
    migration = run_to_end(services.cancel_migration(stuck_before_switch, actor))
    assert migration.state == State.CANCELLED
    assert leftovers(volume) == []
    assert digest(object_path(volume)) == before


def test_finish_needs_a_complete_copy(moved, volume, actor):
    with pytest.raises(NotNow, match="cannot be finished now"):
        services.finish_migration(moved, actor)


@pytest.mark.parametrize(
    ("truth", "state", "place"),
    [(Truth.AT_SOURCE, State.FAILED, "a"), (Truth.AT_DESTINATION, State.RETAINED, "b")],
)
def test_operator_says_where_the_data_is(truth, state, place, stuck_before_switch, volume, actor):
    before = digest(object_path(volume))
    with pytest.raises(NotNow, match="Type the volume's name, 'vol-1'"):
        services.resolve_migration(stuck_before_switch, truth, actor, typed_name="vol")
    with pytest.raises(NotNow, match="say 'at_source' or 'at_destination'"):
        services.resolve_migration(stuck_before_switch, Truth.SETTLED, actor, typed_name="vol-1")
    migration = services.resolve_migration(stuck_before_switch, truth, actor, typed_name="vol-1")
    assert migration.state == state
    assert "By an operator's word the volume is at testhost@" + place in migration.data_location
    assert object_path(volume).parent.name == place
    assert digest(object_path(volume)) == before
    assert volume.locked_by_migration is None
    assert len(leftovers(volume)) == 1


# -- roll back ------------------------------------------------------------------------------------------------------


def test_roll_back_returns_to_the_source_and_removes_the_copy(moved, volume, actor, run_to_end):
    before = digest(object_path(volume))
    migration = services.roll_back(moved, actor)
    assert object_path(volume).parent.name == "a"
    assert digest(object_path(volume)) == before
    migration = run_to_end(migration)
    assert migration.state == State.ROLLED_BACK
    assert migration.data_location.startswith("The volume is where it was: testhost@a#main")
    assert leftovers(volume) == []
    assert volume.migration_status is None
    with pytest.raises(NotNow, match="'rolled_back' and cannot be rolled back now"):
        services.roll_back(migration, actor)


def test_roll_back_of_a_volume_that_was_written_to_needs_consent_and_keeps_the_copy(
    moved, volume, actor, run_to_end
):
    destination = object_path(volume)
    with destination.open("r+b") as file:
        file.write(b"written after the switch")
    with pytest.raises(NotNow, match="was written to since it was migrated"):
        services.roll_back(moved, actor)
    migration = services.roll_back(moved, actor, accepts_loss=True)
    assert migration.state == State.ROLLED_BACK
    assert destination.exists()
    assert object_path(volume).parent.name == "a"
    assert [f.kind for f in services.examine()] == []
    migration = run_to_end(services.purge_now(migration, actor))
    assert migration.state == State.ROLLED_BACK
    assert not destination.exists()
    assert object_path(volume).exists()


def test_roll_back_is_refused_while_the_volume_is_used_or_moved_on(moved, volume, actor, run_to_end):
    inventory.attach(volume, "server-1")
    with pytest.raises(NotNow, match="was attached since"):
        services.roll_back(moved, actor)
    with pytest.raises(NotNow, match="'in-use'. Detach it first"):
        services.roll_back(moved, actor, accepts_loss=True)
    moved.refresh_from_db()
    assert moved.state == State.RETAINED
    inventory.detach(volume)
    run_to_end(services.request_migration(volume, "testhost@a", actor, COPY))
    with pytest.raises(NotNow, match="is not at testhost@b#main any more"):
        services.roll_back(moved, actor, accepts_loss=True)


def test_roll_back_whose_copy_could_not_be_deleted_is_settled_at_the_source(
    moved, volume, actor, run_to_end, monkeypatch
):
    from backends.drivers.errors import NotPermitted
    from migrations_app import steps

    def refuse(run):
        raise NotPermitted("The destination refuses.")

    undos = tuple(
        dataclasses.replace(s, undo=refuse) if s.name == "create_destination" else s for s in steps.STEPS
    )
    monkeypatch.setattr(worker, "STEPS", undos)
    migration = run_to_end(services.roll_back(moved, actor))
    assert migration.state == State.NEEDS_OPERATOR
    assert services.verbs_for(migration) == ("retry", "resolve")
    migration = services.resolve_migration(migration, Truth.SETTLED, actor, typed_name="vol-1")
    assert migration.state == State.ROLLED_BACK
    assert migration.data_location.startswith("The volume is at testhost@a#main")
    assert migration.source_state == VolumeMigration.Source.IN_PLACE
    assert object_path(volume).parent.name == "a"


# -- keeping and purging ----------------------------------------------------------------------------------------------


def test_source_is_kept_longer_and_purged_when_asked(moved, volume, actor, run_to_end):
    until = moved.purge_after
    migration = services.keep_longer(moved, 5, actor)
    assert (migration.purge_after - until).total_seconds() == pytest.approx(5 * 3600, abs=1)
    with pytest.raises(ValueError, match="1 to 8760 hours"):
        services.keep_longer(moved, 0, actor)
    migration = run_to_end(services.purge_now(migration, actor))
    assert migration.state == State.DONE
    with pytest.raises(NotNow, match="cannot be purged now"):
        services.purge_now(migration, actor)
    with pytest.raises(NotNow, match="cannot be kept longer now"):
        services.keep_longer(migration, 5, actor)


def test_source_is_not_deleted_without_a_stored_proof(moved, volume, actor, run_to_end):
    moved.segments.update(destination_digest="")
    migration = run_to_end(services.purge_now(moved, actor))
    assert migration.state == State.NEEDS_OPERATOR
    assert "the proof that the copy equals it is not complete" in migration.error_text
    assert (object_path(volume).parents[1] / "a" / f"{migration.source_object_name}.raw").exists()
    assert services.verbs_for(migration) == ("retry", "resolve")
    migration = services.resolve_migration(migration, Truth.SETTLED, actor, typed_name="vol-1")
    assert migration.state == State.DONE


def test_source_that_was_written_to_during_the_copy_is_not_switched_away_from(
    volume, actor, run_to_end, monkeypatch
):
    from migrations_app import steps

    real = steps.engine.copy

    def copy_then_write(*args, **kwargs):
        result = real(*args, **kwargs)
        with object_path(volume).open("r+b") as file:
            file.write(b"behind the copy's back")
        return result

    monkeypatch.setattr(steps.engine, "copy", copy_then_write)
    migration = run_to_end(services.request_migration(volume, "testhost@b", actor, COPY))
    assert migration.state == State.FAILED
    assert "Somebody wrote to" in migration.error_text
    assert object_path(volume).parent.name == "a"
    assert leftovers(volume) == []
