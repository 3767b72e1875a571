"""The database goes away, the disk becomes read-only, the clock jumps: with real processes and real files."""

from __future__ import annotations

import os
import subprocess
import threading
import time

import pytest
from django.db import connection, transaction

from backends.drivers.types import MIB
from migrations_app import services
from migrations_app.models import JournalEntry, VolumeMigration
from migrations_app.services import Options
from migrations_app.states import State
from tests.acceptance.conftest import wait_for_end, wait_until
from tests.acceptance.test_worker import SLOW, end_at_full_speed, has_checkpoint
from tests.conftest import digest, object_path
from tests.loopfs import mounted

pytestmark = [pytest.mark.acceptance, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def full_volume(two_backends, make_volume):
    volume = make_volume(two_backends[0], "full", 160 * MIB, filled=False)
    with object_path(volume).open("r+b") as file:
        file.write(os.urandom(160 * MIB))
    return volume


def test_database_that_goes_away_is_only_a_delay(start_worker, full_volume, actor):
    before = digest(object_path(full_volume))
    migration = services.request_migration(full_volume, "testhost@b", actor, SLOW)
    start_worker()
    wait_until(lambda: has_checkpoint(migration))
    if connection.vendor == "postgresql":
        for _ in range(3):
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            time.sleep(1)
    else:
        # Nobody can write for longer than the lease: the worker stops by its own clock.
        with transaction.atomic():
            VolumeMigration.objects.filter(pk=migration.pk).update(rung_at=None)
            time.sleep(8)
    end_at_full_speed(migration)
    assert (migration.state, migration.error_text) == (State.RETAINED, "")
    assert digest(object_path(full_volume)) == before


def test_destination_that_becomes_read_only_fails_with_the_reason(
    start_worker, full_volume, make_backend, actor, tmp_path
):
    source = object_path(full_volume)
    before = digest(source)
    with mounted("ext4", tmp_path, size_bytes=320 * MIB) as place:
        make_backend("loop", place)
        migration = services.request_migration(full_volume, "testhost@loop", actor, SLOW)
        start_worker()
        wait_until(lambda: has_checkpoint(migration))
        # As after an error of the disk: ext4 stops its journal and refuses every write.
        subprocess.run(["mount", "-o", "remount,abort", place], check=True)
        wait_for_end(migration, seconds=90)
        assert migration.state in (State.NEEDS_OPERATOR, State.FAILED), migration.state
        assert migration.error_text
        assert f"The volume is complete where it was: testhost@a#main as '{source.stem}'" in (
            migration.data_location
        ) or migration.data_location.startswith("The volume is where it was: testhost@a#main")
    assert object_path(full_volume) == source
    assert digest(source) == before


def test_same_migration_asked_for_twice_in_one_instant_is_accepted_once(full_volume, actor):
    from migrations_app.errors import Busy

    answers: list[object] = []
    barrier = threading.Barrier(2)

    def ask() -> None:
        barrier.wait()
        try:
            answers.append(services.request_migration(full_volume, "testhost@b", actor))
        except Busy as busy:
            answers.append(busy)
        finally:
            connection.close()

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(type(a).__name__ for a in answers) == ["Busy", "VolumeMigration"]
    (busy,) = (a for a in answers if isinstance(a, Busy))
    assert [r.code for r in busy.reasons] == ["already_migrating"]


def test_duplicate_deliveries_do_the_work_once(start_worker, full_volume, actor):
    from migrations_app import dispatch

    migration = services.request_migration(full_volume, "testhost@b", actor, Options(force_host_copy=True))
    for _ in range(10):
        with transaction.atomic():
            dispatch.ring(migration.pk, "testhost")
    start_worker()
    wait_for_end(migration)
    assert migration.state == State.RETAINED
    counts = JournalEntry.objects.filter(migration=migration, kind="done").values_list("step", flat=True)
    assert sorted(counts) == sorted(set(counts))
    assert migration.epoch == 1
