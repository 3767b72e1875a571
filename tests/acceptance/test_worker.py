"""What happens to a migration when its worker is killed, stopped or hangs: with real processes."""

from __future__ import annotations

import os
import signal
import time

import pytest

from backends.drivers.types import MIB
from migrations_app import process_tree, services
from migrations_app.lease import is_dead
from migrations_app.models import JournalEntry, VolumeMigration, WorkerHost
from migrations_app.services import Options
from migrations_app.states import State
from tests.acceptance.conftest import is_running, wait_for_end, wait_until
from tests.conftest import digest, object_path

pytestmark = [pytest.mark.acceptance, pytest.mark.django_db(transaction=True)]

#: Slow enough to be hit in the middle, and 64 MiB (one checkpoint) take two seconds.
SLOW = Options(force_host_copy=True, bandwidth_bytes_per_second=32 * MIB)


@pytest.fixture
def full_volume(two_backends, make_volume):
    volume = make_volume(two_backends[0], "full", 256 * MIB, filled=False)
    with object_path(volume).open("r+b") as file:
        for _ in range(256):
            file.write(os.urandom(MIB))
    return volume


def has_checkpoint(migration: VolumeMigration) -> bool:
    migration.refresh_from_db()
    return migration.state == State.COPYING and migration.copied_up_to_bytes > 0


def owner_pid(migration: VolumeMigration) -> int:
    migration.refresh_from_db()
    return int(migration.owner.split()[2])


def end_at_full_speed(migration: VolumeMigration) -> VolumeMigration:
    VolumeMigration.objects.filter(pk=migration.pk).update(bandwidth_bytes_per_second=None)
    return wait_for_end(migration)


def assert_moved_whole(migration: VolumeMigration, volume, before: str) -> None:
    assert (migration.state, migration.error_text) == (State.RETAINED, "")
    assert object_path(volume).parent.name == "b"
    assert digest(object_path(volume)) == before
    assert migration.source_digest == migration.destination_digest


@pytest.mark.parametrize("command", ["volmig_worker", "qcluster"])
def test_worker_does_what_was_asked_before_and_after_it_started(
    command, start_worker, two_backends, make_volume, actor
):
    first, second = (make_volume(two_backends[0], name) for name in ("early", "late"))
    digests = digest(object_path(first)), digest(object_path(second))
    early = services.request_migration(first, "testhost@b", actor, Options(force_host_copy=True))
    start_worker(command)
    assert_moved_whole(wait_for_end(early), first, digests[0])
    late = services.request_migration(second, "testhost@b", actor, Options(force_host_copy=True))
    assert_moved_whole(wait_for_end(late, seconds=10), second, digests[1])


def test_killed_worker_process_is_replaced_and_the_copy_goes_on(start_worker, full_volume, actor):
    before = digest(object_path(full_volume))
    migration = services.request_migration(full_volume, "testhost@b", actor, SLOW)
    start_worker()
    wait_until(lambda: has_checkpoint(migration))
    checkpoint = migration.copied_up_to_bytes
    os.kill(owner_pid(migration), signal.SIGKILL)
    wait_until(lambda: JournalEntry.objects.filter(migration=migration, kind="interrupted"), seconds=10)
    migration.refresh_from_db()
    assert migration.copied_up_to_bytes >= checkpoint
    assert_moved_whole(end_at_full_speed(migration), full_volume, before)
    assert JournalEntry.objects.filter(migration=migration, step="copy", kind="started").count() == 1


def test_kill_of_the_supervisor_leaves_no_process_and_the_next_start_goes_on(
    start_worker, full_volume, actor
):
    before = digest(object_path(full_volume))
    migration = services.request_migration(full_volume, "testhost@b", actor, SLOW)
    worker = start_worker()
    wait_until(lambda: has_checkpoint(migration))
    tree = worker.tree()
    assert len(tree) >= 6
    os.kill(worker.pid, signal.SIGKILL)
    worker.process.wait()
    wait_until(lambda: not any(map(is_running, tree)), seconds=2)
    migration.refresh_from_db()
    assert is_dead(migration.owner)
    assert migration.state == State.COPYING
    start_worker()
    assert_moved_whole(end_at_full_speed(migration), full_volume, before)


@pytest.mark.parametrize("everybody", [False, True], ids=["the supervisor", "every process"])
def test_sigterm_saves_a_checkpoint_and_ends_within_five_seconds(everybody, start_worker, full_volume, actor):
    before = digest(object_path(full_volume))
    migration = services.request_migration(full_volume, "testhost@b", actor, SLOW)
    worker = start_worker()
    wait_until(lambda: has_checkpoint(migration))
    tree = worker.tree()
    started = time.monotonic()
    for pid in tree if everybody else tree[:1]:
        os.kill(pid, signal.SIGTERM)
    assert worker.process.wait(6) == 0
    assert time.monotonic() - started < 5
    wait_until(lambda: not any(map(is_running, tree)), seconds=1)
    migration.refresh_from_db()
    assert (migration.owner, migration.lease_expires_at) == ("", None)
    assert not WorkerHost.objects.exists()
    start_worker()
    assert_moved_whole(end_at_full_speed(migration), full_volume, before)
    assert not JournalEntry.objects.filter(migration=migration, kind="interrupted").exists()


@pytest.mark.parametrize("which", ["cluster", "sentinel"])
def test_kill_in_the_middle_of_the_tree_takes_what_is_below_with_it(which, start_worker, full_volume, actor):
    before = digest(object_path(full_volume))
    migration = services.request_migration(full_volume, "testhost@b", actor, SLOW)
    worker = start_worker()
    wait_until(lambda: has_checkpoint(migration))
    cluster = process_tree.children_of(worker.pid)[0]
    victim = cluster if which == "cluster" else process_tree.children_of(cluster)[0]
    below = process_tree.descendants_of(victim)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: not any(map(is_running, below)), seconds=2)
    assert_moved_whole(end_at_full_speed(migration), full_volume, before)


def test_cancel_stops_a_running_copy_within_a_second_and_leaves_nothing(start_worker, full_volume, actor):
    source = object_path(full_volume)
    before = digest(source)
    migration = services.request_migration(full_volume, "testhost@b", actor, SLOW)
    start_worker()
    wait_until(lambda: has_checkpoint(migration))
    started = time.monotonic()
    services.cancel_migration(migration, actor)
    wait_for_end(migration, seconds=5)
    assert time.monotonic() - started < 2
    assert migration.state == State.CANCELLED
    assert object_path(full_volume) == source
    assert digest(source) == before
    assert not list((source.parent.parent / "b").glob("*volmig-?*-*"))
    assert full_volume.migration_status is None


def test_hung_cluster_is_noticed_and_started_again(start_worker, two_backends, make_volume, actor):
    """A killed idle worker takes the queue's lock with it: the cluster looks alive and takes no task any more."""
    volume = make_volume(two_backends[0])
    worker = start_worker()
    wait_until(lambda: len(worker.tree()) >= 6)
    time.sleep(2)
    cluster = process_tree.children_of(worker.pid)[0]
    sentinel = process_tree.children_of(cluster)[0]
    # Workers are the first children; the one that waits in the queue's read holds its lock.
    for pid in process_tree.children_of(sentinel)[:2]:
        os.kill(pid, signal.SIGKILL)
    migration = services.request_migration(volume, "testhost@b", actor, Options(force_host_copy=True))
    assert wait_for_end(migration, seconds=60).state == State.RETAINED
