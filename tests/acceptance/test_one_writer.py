"""Exactly one writer: a worker that was frozen past its lease changes nothing any more."""

from __future__ import annotations

import os
import signal
import time

import pytest

from backends.drivers.types import MIB
from migrations_app import process_tree, services
from migrations_app.models import JournalEntry, VolumeMigration
from migrations_app.services import Options
from migrations_app.states import State
from tests.acceptance.conftest import is_running, wait_for_end, wait_until
from tests.acceptance.test_worker import SLOW, has_checkpoint, owner_pid
from tests.conftest import digest, object_path

pytestmark = [pytest.mark.acceptance, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def running(start_worker, two_backends, make_volume, actor):
    """A copy in the middle, its volume and its digest, and the number of the process that copies."""
    volume = make_volume(two_backends[0], "full", 192 * MIB, filled=False)
    with object_path(volume).open("r+b") as file:
        for _ in range(192):
            file.write(os.urandom(MIB))
    before = digest(object_path(volume))
    migration = services.request_migration(volume, "testhost@b", actor, SLOW)
    worker = start_worker()
    wait_until(lambda: has_checkpoint(migration))
    return migration, volume, before, owner_pid(migration), worker


def freeze(worker) -> list[int]:
    """Stop the whole tree, so that nothing of it works on."""
    tree = worker.tree()
    for pid in tree:
        os.kill(pid, signal.SIGSTOP)
    return tree


def test_worker_that_wakes_up_after_its_lease_changes_nothing(running, start_worker):
    migration, volume, before, pid, worker = running
    tree = freeze(worker)
    start_worker()
    wait_until(
        lambda: JournalEntry.objects.filter(migration=migration, kind="interrupted").exists(), seconds=20
    )
    # The new owner waits for the lock that the frozen one holds.
    for stopped in tree:
        os.kill(stopped, signal.SIGCONT)
    VolumeMigration.objects.filter(pk=migration.pk).update(bandwidth_bytes_per_second=None)
    wait_for_end(migration)
    assert (migration.state, migration.error_text) == (State.RETAINED, "")
    assert digest(object_path(volume)) == before
    epochs = list(migration.journal.exclude(step="").order_by("id").values_list("epoch", flat=True))
    assert epochs == sorted(epochs)
    assert is_running(pid)


def test_worker_that_never_wakes_up_is_ended_and_the_copy_goes_on(running, start_worker):
    migration, volume, before, pid, worker = running
    os.kill(pid, signal.SIGSTOP)
    sentinel = process_tree.children_of(process_tree.children_of(worker.pid)[0])[0]
    # Only the copying process is frozen: another one of the same worker takes over.
    assert pid in process_tree.children_of(sentinel)
    VolumeMigration.objects.filter(pk=migration.pk).update(bandwidth_bytes_per_second=None)
    wait_for_end(migration, seconds=60)
    assert (migration.state, migration.error_text) == (State.RETAINED, "")
    assert digest(object_path(volume)) == before
    assert not is_running(pid)
    texts = " ".join(migration.journal.filter(kind="failed").values_list("text", flat=True))
    assert f"process {pid}" in texts


def test_hundred_kills_in_a_row_lose_nothing(start_worker, two_backends, make_volume, actor):
    """A sample of it; `VOLMIG_KILLS=100` makes it the whole hundred."""
    import random

    chance = random.Random(7)
    start_worker(VOLMIG_CHECKPOINT_SECONDS="0")
    volume = make_volume(two_backends[0], "often", 96 * MIB, filled=False)
    with object_path(volume).open("r+b") as file:
        file.write(os.urandom(96 * MIB))
    before = digest(object_path(volume))
    places = {"a": "b", "b": "a"}
    options = Options(force_host_copy=True, delete_source=True, bandwidth_bytes_per_second=400 * MIB)
    for round_number in range(int(os.environ.get("VOLMIG_KILLS", "6"))):
        here = object_path(volume).parent.name
        migration = services.request_migration(volume, f"testhost@{places[here]}", actor, options)
        time.sleep(chance.uniform(0.05, 0.7))
        migration.refresh_from_db()
        if migration.owner:
            os.kill(owner_pid(migration), signal.SIGKILL)
        wait_for_end(migration)
        assert migration.state == State.DONE, f"round {round_number}: {migration.error_text}"
        assert object_path(volume).parent.name == places[here]
        assert digest(object_path(volume)) == before, f"round {round_number}"
        assert services.examine() == []
