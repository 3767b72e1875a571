"""Every migration ends, whatever its worker and its storage do, and an old worker can change nothing."""

from __future__ import annotations

import dataclasses
import random
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import transaction
from django.utils import timezone

from backends import services as inventory
from backends.drivers.errors import ConnectionLost
from backends.drivers.fake import FakeStore
from backends.models import Volume
from migrations_app import lease as leases
from migrations_app import segments, services, steps, worker
from migrations_app.copying import read_behind
from migrations_app.journal import DatabaseJournal
from migrations_app.lease import Lease
from migrations_app.models import JournalEntry, VolumeMigration
from migrations_app.saga.step import LeaseLost
from migrations_app.services import Options
from migrations_app.states import State
from migrations_app.steps import STEPS
from migrations_app.work import Run
from tests.conftest import digest, object_path
from tests.faults import CutWrites, FaultPlan, FaultyDriver, Raise
from tests.integration.boundaries import SEGMENT, Killed, small_segments

pytestmark = pytest.mark.django_db(transaction=True)
COPY = Options(force_host_copy=True)


@pytest.fixture(autouse=True)
def quick_checkpoints(monkeypatch, settings):
    settings.VOLMIG_CHECKPOINT_SECONDS = 0
    settings.VOLMIG_RETRY_SECONDS = 0
    # The worker that is simulated to be dead is this process.
    monkeypatch.setattr(leases, "is_dead", lambda owner: True)
    with small_segments():
        yield


@pytest.fixture
def volume(two_backends, make_volume) -> Volume:
    volume = make_volume(two_backends[0], size_bytes=6 * SEGMENT + 17, filled=False)
    object_path(volume).write_bytes(random.Random(1).randbytes(6 * SEGMENT + 17))
    return volume


@pytest.fixture
def plan(monkeypatch) -> FaultPlan:
    """Faults of every driver that is made from now on."""
    plan, real = FaultPlan(), inventory.make_driver
    monkeypatch.setattr(inventory, "make_driver", lambda backend: FaultyDriver(real(backend), plan))
    return plan


def _work(migration: VolumeMigration, rounds: int = 60) -> VolumeMigration:
    for _ in range(rounds):
        with suppress(Killed):
            worker.advance(migration.pk)
        migration.refresh_from_db()
        if not migration.is_working:
            return migration
    raise AssertionError(f"it never ends: {migration.state}, {migration.failures} failures")


def _require_undone(migration: VolumeMigration, volume: Volume, before: str) -> None:
    assert digest(object_path(volume)) == before
    assert volume.locked_by_migration is None
    assert list((object_path(volume).parent.parent / "b").glob("volmig-*")) == []
    assert "Nothing is left at the destination" in migration.data_location


# -- failures that never pass -----------------------------------------------------------------------------------


def test_storage_that_never_comes_back_ends_failed_with_everything_undone(volume, actor, plan, settings):
    before = digest(object_path(volume))
    migration = services.request_migration(volume, "testhost@b", actor, COPY)
    plan.add("open", *[None, *[Raise(ConnectionLost("gone"))] * settings.VOLMIG_MAX_ATTEMPTS])
    migration = _work(migration)
    assert (migration.state, migration.error_code) == (State.FAILED, "connection_lost")
    assert plan.is_used_up
    _require_undone(migration, volume, before)


def test_storage_that_often_goes_away_but_lets_the_copy_get_on_is_no_failure(volume, actor, plan, settings):
    """Only failures without any progress in between are counted together."""
    before = digest(object_path(volume))
    migration = services.request_migration(volume, "testhost@b", actor, COPY)
    plan.add("open", None)
    for _ in range(settings.VOLMIG_MAX_ATTEMPTS + 1):
        # The source is opened, then the destination; a segment and a half goes well each time.
        plan.add("open", None, CutWrites(SEGMENT + SEGMENT // 2, ConnectionLost("gone")))
    migration = _work(migration)
    assert (migration.state, migration.error_text) == (State.RETAINED, "")
    assert digest(object_path(volume)) == before


@pytest.mark.parametrize("name", [s.name for s in STEPS])
def test_migration_that_kills_its_worker_in_each_step_ends(volume, actor, monkeypatch, name):
    before = digest(object_path(volume))

    def die(run: Run, *seen: object) -> None:
        raise Killed

    mine = tuple(dataclasses.replace(s, do=die) if s.name == name else s for s in STEPS)
    monkeypatch.setattr(worker, "STEPS", mine)
    options = Options(force_host_copy=True, delete_source=True)
    migration = _work(services.request_migration(volume, "testhost@b", actor, options))
    assert migration.state in (State.FAILED, State.NEEDS_OPERATOR)
    assert (
        f"The worker died {migration.journal.filter(kind='interrupted').count()} times"
        in migration.error_text
    )
    assert digest(object_path(volume)) == before
    if migration.state == State.FAILED:
        _require_undone(migration, volume, before)


def test_undo_that_kills_its_worker_each_time_waits_for_a_person(volume, actor, monkeypatch):
    before = digest(object_path(volume))

    def die(run: Run) -> None:
        raise Killed

    mine = tuple(dataclasses.replace(s, undo=die) if s.undo else s for s in STEPS)
    monkeypatch.setattr(worker, "STEPS", mine)
    monkeypatch.setattr(steps.engine, "copy", _raise_permanent)
    migration = _work(services.request_migration(volume, "testhost@b", actor, COPY))
    assert migration.state == State.NEEDS_OPERATOR
    assert "The worker died" in migration.error_text
    assert "A part of a copy may still be at" in migration.data_location
    assert digest(object_path(volume)) == before


def _raise_permanent(*args, **kwargs):
    raise steps.CorruptData("bad block")


# -- slices -----------------------------------------------------------------------------------------------------


def test_slice_too_short_for_one_segment_still_gets_on(volume, actor):
    """A low bandwidth limit, or a slow disk: a segment may take longer than a slice."""
    before = digest(object_path(volume))
    migration = services.request_migration(volume, "testhost@b", actor, COPY)
    for _ in range(60):
        worker.advance(migration.pk, slice_seconds=0)
        migration.refresh_from_db()
        if not migration.is_working:
            break
    assert migration.state == State.RETAINED
    assert digest(object_path(volume)) == before
    assert JournalEntry.objects.filter(migration=migration, kind="done", step="copy").count() == 1


# -- the source -------------------------------------------------------------------------------------------------


@pytest.fixture
def fake_backend(db):
    FakeStore.forget_all()
    yield inventory.register_backend("testhost@f", "fake", {"store": "s"})
    FakeStore.forget_all()


def test_source_is_deleted_after_a_copy_to_another_kind_of_storage(volume, actor, fake_backend):
    source = object_path(volume)
    options = Options(delete_source=True)
    migration = _work(services.request_migration(volume, "testhost@f", actor, options))
    assert (migration.state, migration.error_text) == (State.DONE, "")
    assert not source.exists()
    assert ("main", migration.destination_object_name) in FakeStore.named("s").volumes


def test_source_is_purged_though_the_volume_has_moved_on_meanwhile(volume, actor, make_backend):
    source = object_path(volume)
    make_backend("c")
    first = _work(services.request_migration(volume, "testhost@b", actor, COPY))
    options = Options(force_host_copy=True, delete_source=True)
    assert _work(services.request_migration(volume, "testhost@c", actor, options)).state == State.DONE
    VolumeMigration.objects.filter(pk=first.pk).update(purge_after=timezone.now() - timedelta(hours=1))
    services.purge_expired_sources()
    first = _work(first)
    assert (first.state, first.error_text) == (State.DONE, "")
    assert not source.exists()
    assert object_path(volume).exists()


def test_source_is_kept_when_the_copy_is_not_where_the_record_says(volume, actor):
    source = object_path(volume)
    migration = _work(services.request_migration(volume, "testhost@b", actor, COPY))
    object_path(volume).rename(object_path(volume).with_suffix(".gone"))
    VolumeMigration.objects.update(purge_after=timezone.now() - timedelta(hours=1))
    services.purge_expired_sources()
    migration = _work(migration)
    assert migration.state == State.NEEDS_OPERATOR
    assert source.exists()


# -- an old worker ----------------------------------------------------------------------------------------------


@pytest.fixture
def taken(volume, actor) -> tuple[VolumeMigration, Lease, DatabaseJournal]:
    """A migration, and the lease and journal of a worker that was thought to be dead and is not."""
    migration = services.request_migration(volume, "testhost@b", actor, COPY)
    old = Lease.claim(migration.pk)
    journal = DatabaseJournal(old)
    assert Lease.claim(migration.pk).epoch == old.epoch + 1
    return migration, old, journal


def test_worker_whose_lease_was_taken_changes_neither_the_row_nor_the_journal(taken):
    migration, old, journal = taken
    step, error = STEPS[0], ConnectionLost("gone")
    row = VolumeMigration.objects.filter(pk=migration.pk).values().get()
    entries = list(migration.journal.values_list("pk", flat=True))
    for write in (
        lambda: journal.started(step),
        lambda: journal.done(step, {"x": 1}),
        lambda: journal.failed(step, error),
        lambda: journal.decide_undo("failed", error),
        lambda: journal.undo_started(step),
        lambda: journal.undone(step),
        lambda: journal.undo_failed(step, error),
        lambda: old.write(state=State.DONE),
        lambda: old.renew(phase_done_bytes=1),
        lambda: old.release(state=State.DONE),
    ):
        with pytest.raises(LeaseLost):
            write()
    assert VolumeMigration.objects.filter(pk=migration.pk).values().get() == row
    assert list(migration.journal.values_list("pk", flat=True)) == entries
    with pytest.raises(LeaseLost):
        old.fence()


def test_worker_whose_lease_was_taken_cannot_switch_the_record(taken, volume, two_backends):
    migration, old, journal = taken
    migration = VolumeMigration.objects.select_related(
        "source_pool__backend", "destination_pool__backend", "volume"
    ).get(pk=migration.pk)
    run = Run(migration, old, journal, slice_ends_at=float("inf"))
    with run.destination() as driver:
        driver.create("main", migration.destination_object_name, migration.size_bytes)
    before = Volume.objects.values().get(pk=volume.pk)
    with pytest.raises(LeaseLost), transaction.atomic():
        steps.switch(run, steps.look_before_switch(run))
    assert Volume.objects.values().get(pk=volume.pk) == before


def test_lease_that_was_not_renewed_stops_the_work_before_the_database_gives_it_away(
    volume, actor, settings, monkeypatch
):
    migration = services.request_migration(volume, "testhost@b", actor, COPY)
    lease = Lease.claim(migration.pk)
    lease.fence()
    now = leases.boot_time()
    monkeypatch.setattr(leases, "boot_time", lambda: now + settings.VOLMIG_LEASE_SECONDS * 0.8)
    with pytest.raises(LeaseLost):
        lease.fence()


def test_worker_that_lost_its_lease_in_the_middle_of_a_copy_leaves_it_to_the_next(volume, actor, monkeypatch):
    before = digest(object_path(volume))
    migration = services.request_migration(volume, "testhost@b", actor, COPY)
    real, claimed = segments.save, []

    def save_and_lose(run, copied):
        real(run, copied)
        if not claimed:
            claimed.append(Lease.claim(migration.pk))

    monkeypatch.setattr(segments, "save", save_and_lose)
    assert worker.advance(migration.pk) == "lease lost"
    migration.refresh_from_db()
    assert (migration.owner, migration.epoch) == (claimed[0].owner, claimed[0].epoch)
    assert _work(migration).state == State.RETAINED
    assert digest(object_path(volume)) == before
    assert Path(object_path(volume)).parent.name == "b"


def _save_slowly(patch: pytest.MonkeyPatch) -> None:
    """Make every copy one that waits for its source, and give the destination time between the checkpoints."""
    patch.setattr(read_behind, "SLOW_SOURCE_SHARE", 0.0)
    real = segments.save

    def save(run, copied):
        time.sleep(0.1)
        real(run, copied)

    patch.setattr(segments, "save", save)


def test_copy_from_a_slow_source_is_compared_before_it_is_complete(volume, actor, run_to_end, monkeypatch):
    _save_slowly(monkeypatch)
    real, compared = steps.engine.read_back, []

    def read_back(port, *, first_segment, **rest):
        compared.append((rest.get("end_segment"), first_segment))
        return real(port, first_segment=first_segment, **rest)

    monkeypatch.setattr(steps.engine, "read_back", read_back)
    migration = run_to_end(services.request_migration(volume, "testhost@b", actor, COPY))
    assert (migration.state, migration.error_text) == (State.RETAINED, "")
    assert migration.destination_digest == migration.source_digest != ""
    # The last pass is that of the step `verify`, and has only the rest to read.
    assert compared[-1][0] is None
    assert compared[-1][1] >= 3


def test_destination_that_loses_bytes_is_found_out_before_the_copy_is_complete(volume, actor, monkeypatch):
    _save_slowly(monkeypatch)
    before = digest(object_path(volume))
    real = segments.compare

    def flip_then_compare(run, read):
        real(run, [dataclasses.replace(r, digest="0" * 64) if r.index == 1 else r for r in read])

    monkeypatch.setattr(segments, "compare", flip_then_compare)
    migration = _work(services.request_migration(volume, "testhost@b", actor, COPY))
    assert migration.state == State.FAILED
    assert (
        "The copy differs from the source between 256.0 KiB and 512.0 KiB (segment 1)" in migration.error_text
    )
    assert not JournalEntry.objects.filter(migration=migration, step="copy", kind="done").exists()
    volume.refresh_from_db()
    _require_undone(migration, volume, before)
