"""The disk below a volume group falls silent, is slow, refuses writes or loses them; and is well again later."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.utils import timezone

from backends import services as inventory
from backends.drivers.types import MIB
from migrations_app import presentation, services
from migrations_app.services import Options
from migrations_app.states import State
from tests import moving
from tests.vm_guest.worker import Worker

pytestmark = pytest.mark.django_db(transaction=True)

LEASE_SECONDS = 10


@pytest.fixture
def start(faulty_disk, random_volume, tmp_path):
    """Return a function that starts to copy slowly to the disk: the volume, its digest, the backend, the worker."""

    def start(size_bytes: int):
        volume = random_volume(size_bytes)
        before = moving.digest_of(volume)
        there = moving.register("faulty", "lvm", {"vg": "vg-faulty"})
        worker = Worker.slow(volume, there.address, tmp_path)
        return volume, before, there, worker

    return start


@pytest.mark.parametrize("then", ["wait", "cancel"])
def test_silence_longer_than_the_lease_is_told_and_ends_well(then, start, faulty_disk, settings, monkeypatch):
    settings.VOLMIG_LEASE_SECONDS = LEASE_SECONDS
    monkeypatch.setattr(presentation, "_STALLED_SECONDS", 5)
    volume, before, there, worker = start(10 * MIB)
    faulty_disk.stop_answering()
    try:
        worker.wait_for_stall()
        time.sleep(LEASE_SECONDS + 2)
        worker.migration.refresh_from_db()
        text = presentation.progress(worker.migration).state_text
        left = worker.migration.lease_expires_at - timezone.now()
        if then == "cancel":
            services.cancel_migration(worker.migration, moving.ACTOR)
            time.sleep(2)
            assert worker.process.is_alive()
    finally:
        faulty_disk.go_on()
    assert "Copying: the storage has not answered for " in text
    assert left > timedelta(seconds=LEASE_SECONDS / 2)
    if then == "wait":
        worker.hurry()
    worker.end()
    migration = worker.migration
    assert migration.epoch == 1
    assert (migration.state, migration.error_text) == (State.DONE if then == "wait" else State.CANCELLED, "")
    assert moving.digest_of(volume) == before
    inventory.delete_volume(volume)
    assert moving.names_on(there) == set()


def test_writes_that_fail_for_a_while_fail_the_migration_and_leave_nothing(start, faulty_disk, run_to_end):
    volume, before, there, worker = start(16 * MIB)
    faulty_disk.refuse_writes("error_writes")
    worker.hurry()
    worker.end()
    migration = run_to_end(worker.migration)
    # LVM cannot write that the volume is gone, either.
    assert migration.state == State.NEEDS_OPERATOR
    assert "lvremove" in migration.error_text
    assert moving.digest_of(volume) == before
    faulty_disk.be_well()
    migration = run_to_end(services.retry_migration(migration, moving.ACTOR))
    assert migration.state == State.FAILED
    assert "Input/output error" in migration.error_text
    assert moving.digest_of(volume) == before
    assert moving.names_on(there) == set()


def test_writes_that_are_lost_without_a_word_are_found_before_the_switch(start, faulty_disk, run_to_end):
    volume, before, there, worker = start(10 * MIB)
    faulty_disk.refuse_writes("drop_writes")
    worker.wait_until(lambda migration: migration.state == State.VERIFYING, "verification")
    # What was lost stays lost; LVM can write down again that the copy is deleted.
    faulty_disk.be_well()
    worker.hurry()
    worker.end()
    migration = run_to_end(worker.migration)
    assert (migration.state, migration.error_code) == (State.FAILED, "corrupt_data")
    assert "The copy differs from the source between 0 B and 10.0 MiB" in migration.error_text
    assert not migration.journal.filter(step="switch").exists()
    volume.refresh_from_db()
    assert volume.pool == migration.source_pool
    assert moving.digest_of(volume) == before
    assert moving.names_on(there) == set()


def test_slow_disk_is_only_slow(faulty_disk, random_volume, run_to_end):
    volume = random_volume(12 * MIB)
    before = moving.digest_of(volume)
    there = moving.register("faulty", "lvm", {"vg": "vg-faulty"})
    faulty_disk.answer_late(40)
    migration = services.request_migration(volume, there.address, moving.ACTOR, Options(delete_source=True))
    migration = run_to_end(migration)
    assert (migration.state, migration.error_text) == (State.DONE, "")
    assert moving.digest_of(volume) == before
    inventory.delete_volume(volume)
    assert moving.names_on(there) == set()
