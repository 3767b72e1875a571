"""What happens to a migration between two hosts when either side is killed, frozen or stopped, or a stranger knocks."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from django.db.models.functions import Now

from backends import secrets
from backends.drivers import iscsi_front, tls_front
from backends.drivers.errors import DriverError
from backends.drivers.nbd_port import NbdPort, load_libnbd
from backends.drivers.types import MIB, OpenMode
from migrations_app import presentation, process_tree, services
from migrations_app.errors import NoValidPool
from migrations_app.models import JournalEntry, RemoteCall, VolumeMigration
from migrations_app.states import State
from tests.acceptance.conftest import is_running, wait_for_end, wait_until
from tests.acceptance.hosts import digest_there, names_there, register_there, start_other
from tests.acceptance.test_worker import SLOW, end_at_full_speed, has_checkpoint, owner_pid
from tests.conftest import digest, object_path
from tests.loopfs import mounted

pytestmark = [pytest.mark.acceptance, pytest.mark.django_db(transaction=True)]

TO = "otherhost@b"


@pytest.fixture
def there(tmp_path, transactional_db):
    return register_there("b", "directory", tmp_path / "there")


@pytest.fixture
def full_volume(make_backend, make_volume):
    volume = make_volume(make_backend("a"), "full", 192 * MIB, filled=False)
    with object_path(volume).open("r+b") as file:
        for _ in range(192):
            file.write(os.urandom(MIB))
    return volume


class Crossing:
    """A copy in the middle, between two workers."""

    def __init__(self, start_worker, full_volume, there, actor, **far: str) -> None:
        self.start_worker, self.volume, self.there = start_worker, full_volume, there
        self.source = object_path(full_volume)
        self.before = digest(self.source)
        self.far = start_other(start_worker, there, **far)
        self.migration = services.request_migration(full_volume, TO, actor, SLOW)
        self.near = start_worker()
        wait_until(lambda: has_checkpoint(self.migration))

    @property
    def attendant(self) -> int:
        return next(p for p in process_tree.children_of(self.far.pid) if "--attendant-only" in _command(p))

    @property
    def export(self) -> int:
        return process_tree.children_of(self.attendant)[0]

    @property
    def server(self) -> int:
        return process_tree.children_of(self.export)[0]

    @property
    def call(self) -> RemoteCall:
        return RemoteCall.objects.get(operation="open", state="serving")

    def assert_arrives_whole(self) -> None:
        end_at_full_speed(self.migration)
        assert (self.migration.state, self.migration.error_text) == (State.RETAINED, "")
        assert digest_there(self.volume) == self.before
        assert names_there(self.there) == {self.volume.object_name}
        assert digest(self.source) == self.before
        # It went on from its checkpoint instead of beginning again.
        started = JournalEntry.objects.filter(migration=self.migration, step="copy", kind="started")
        assert started.count() == 1
        wait_until(lambda: not RemoteCall.objects.exclude(state="ended").exists(), seconds=5)


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


@pytest.fixture
def crossing(start_worker, full_volume, there, actor) -> Crossing:
    return Crossing(start_worker, full_volume, there, actor)


@pytest.mark.parametrize("victim", ["server", "export", "attendant"])
def test_kill_on_the_destination_host_is_only_a_delay(victim, crossing):
    pid = getattr(crossing, victim)
    below = process_tree.descendants_of(pid)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_running, [pid, *below])), seconds=5)
    crossing.assert_arrives_whole()


def test_kill_of_the_copying_process_ends_what_it_had_open_on_the_other_host(crossing):
    export, first = crossing.export, crossing.call
    os.kill(owner_pid(crossing.migration), signal.SIGKILL)
    wait_until(lambda: not is_running(export), seconds=10)
    crossing.assert_arrives_whole()
    assert crossing.migration.remote_calls.get(pk=first.pk).epoch < crossing.migration.epoch


def test_worker_of_the_destination_that_is_killed_is_waited_for(crossing):
    tree = crossing.far.tree()
    os.kill(crossing.far.pid, signal.SIGKILL)
    crossing.far.process.wait()
    wait_until(lambda: not any(map(is_running, tree)), seconds=5)

    def waits() -> bool:
        crossing.migration.refresh_from_db()
        return crossing.migration.error_code == "host_away" and crossing.migration.retry_at is not None

    wait_until(waits, seconds=45)
    assert presentation.progress(crossing.migration).state_text == (
        "Copying: waiting for the worker of host 'otherhost'"
    )
    assert "Start `manage.py volmig_worker` on host 'otherhost'" in crossing.migration.error_text
    assert crossing.migration.copied_up_to_bytes > 0
    start_other(crossing.start_worker)
    crossing.assert_arrives_whole()


def test_worker_of_the_destination_that_is_stopped_ends_in_time_and_is_waited_for(crossing):
    tree = crossing.far.tree()
    crossing.far.process.terminate()
    started = time.monotonic()
    assert crossing.far.process.wait(6) == 0
    assert time.monotonic() - started < 5
    wait_until(lambda: not any(map(is_running, tree)), seconds=1)
    start_other(crossing.start_worker)
    crossing.assert_arrives_whole()


def test_frozen_source_worker_can_write_nothing_after_its_lease(crossing):
    tree = crossing.near.tree()
    export, server = crossing.export, crossing.server
    told = crossing.call.result
    for pid in tree:
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: not is_running(export) and not is_running(server), seconds=15)
    # Nobody holds the destination and nobody listens any more: whatever wakes up finds no way to it.
    (copied,) = names_there(crossing.there)
    path = Path(crossing.there.options["path"]) / f"{copied}.raw"
    at_the_end = digest(path)
    with pytest.raises(DriverError):
        NbdPort(tls_front.uri(told["address"], told["port"]), OpenMode.WRITE)
    for pid in tree:
        os.kill(pid, signal.SIGCONT)
    time.sleep(0.2)
    assert digest(path) == at_the_end or crossing.migration.epoch > 1
    crossing.assert_arrives_whole()


def test_another_worker_takes_over_from_a_frozen_one(crossing):
    pid = owner_pid(crossing.migration)
    os.kill(pid, signal.SIGSTOP)
    crossing.assert_arrives_whole()
    if is_running(pid):
        os.kill(pid, signal.SIGCONT)


def test_strangers_are_refused_at_the_door(crossing):
    libnbd, told = load_libnbd(), crossing.call.result
    plain = f"nbd://{told['address']}:{told['port']}/"
    with pytest.raises(DriverError, match="requires TLS"):
        NbdPort(plain, OpenMode.VERIFY)
    with tls_front.key_file(tls_front.new_key()) as path, pytest.raises(DriverError, match="TLS"):
        NbdPort(
            tls_front.uri(told["address"], told["port"]),
            OpenMode.WRITE,
            prepare=lambda handle: tls_front.use_key(handle, path, libnbd.TLS_REQUIRE),
        )
    crossing.assert_arrives_whole()


def test_key_stands_in_no_place_that_others_can_read(crossing):
    key = secrets.unseal(crossing.call.secret)["nbd"]
    assert len(key) == 64
    for pid in [*crossing.far.tree(), *crossing.near.tree()]:
        assert key not in _command(pid)
        assert key not in Path(f"/proc/{pid}/environ").read_text()
    assert key not in str(RemoteCall.objects.values_list())
    assert key not in crossing.near.log.read_text()
    for folder in Path("/dev/shm").glob("volmig-export-*"):
        assert folder.stat().st_mode & 0o077 == 0
    end_at_full_speed(crossing.migration)
    assert not RemoteCall.objects.exclude(secret="").exists()


def test_cancel_in_the_middle_leaves_nothing_on_either_host(crossing, actor):
    started = time.monotonic()
    services.cancel_migration(crossing.migration, actor)
    wait_for_end(crossing.migration, seconds=10)
    assert time.monotonic() - started < 4
    assert crossing.migration.state == State.CANCELLED
    assert names_there(crossing.there) == set()
    assert object_path(crossing.volume) == crossing.source
    assert digest(crossing.source) == crossing.before


def test_roll_back_deletes_the_copy_on_the_other_host(crossing, actor):
    crossing.assert_arrives_whole()
    services.roll_back(crossing.migration, actor)
    wait_for_end(crossing.migration)
    assert crossing.migration.state == State.ROLLED_BACK
    assert names_there(crossing.there) == set()
    assert digest(object_path(crossing.volume)) == crossing.before


def test_destination_without_a_worker_is_refused_with_the_remedy(start_worker, full_volume, there, actor):
    start_other(start_worker, there).stop()
    with pytest.raises(NoValidPool) as refused:
        services.request_migration(full_volume, TO, actor)
    (reason,) = refused.value.reasons
    assert reason.code == "host_away"
    assert reason.remedy == "Start `manage.py volmig_worker` on host otherhost."


def test_destination_without_an_address_is_refused_with_the_remedy(start_worker, full_volume, there, actor):
    start_other(start_worker, there, VOLMIG_STORAGE_ADDRESS="")
    with pytest.raises(NoValidPool) as refused:
        services.request_migration(full_volume, TO, actor)
    assert [reason.code for reason in refused.value.reasons] == ["no_storage_address"]


def test_address_that_the_host_does_not_have_fails_with_the_remedy_and_leaves_nothing(
    start_worker, full_volume, there, actor
):
    start_other(start_worker, there, VOLMIG_STORAGE_ADDRESS="192.0.2.1")
    before = digest(object_path(full_volume))
    migration = services.request_migration(full_volume, TO, actor)
    start_worker()
    wait_for_end(migration)
    assert migration.state == State.FAILED
    assert "This host cannot serve volumes on '192.0.2.1'" in migration.error_text
    assert "Set VOLMIG_STORAGE_ADDRESS" in migration.error_text
    assert names_there(there) == set()
    assert digest(object_path(full_volume)) == before


def test_full_disk_on_the_other_host_is_told_in_its_own_words(start_worker, full_volume, actor, tmp_path):
    with mounted("ext4", tmp_path, 150 * MIB) as mount_point:
        there = register_there("b", "directory", mount_point / "there")
        far = start_other(start_worker, there)
        # The pool's own numbers would refuse it.
        there.pools.update(free_bytes=10**12, total_bytes=10**12, reported_at=Now())
        migration = services.request_migration(full_volume, TO, actor)
        near = start_worker()
        try:
            wait_for_end(migration)
            assert (migration.state, migration.error_code) == (State.FAILED, "no_space")
            assert "[otherhost@b]" in migration.error_text
            assert "ENOSPC" in migration.error_text
            assert names_there(there) == set()
        finally:
            near.stop()
            far.stop()


def test_worker_that_goes_away_after_the_request_is_waited_for_and_cancel_needs_it_not(
    start_worker, full_volume, there, actor
):
    far = start_other(start_worker, there)
    migration = services.request_migration(full_volume, TO, actor)
    far.stop()
    start_worker()
    wait_until(lambda: VolumeMigration.objects.filter(pk=migration.pk, error_code="host_away").exists())
    migration.refresh_from_db()
    assert migration.failures == 0
    assert "The worker of host 'otherhost' is not running." in migration.error_text
    assert migration.journal.filter(kind="waiting").count() == 1
    services.cancel_migration(migration, actor)
    wait_for_end(migration, seconds=10)
    assert migration.state == State.CANCELLED


@pytest.fixture
def by_iscsi(start_worker, full_volume, there, actor) -> Crossing:
    """A copy in the middle, over iSCSI."""
    return Crossing(start_worker, full_volume, there, actor, VOLMIG_EXPORT="iscsi")


def test_lun_is_let_in_with_the_secret_only(by_iscsi):
    told = by_iscsi.call.result
    assert told["kind"] == "iscsi"
    place = told["iqn"], told["address"], told["port"]
    names = {"shown": "x", "backend": "b", "volume": "v", "reads_zero_when_new": True, "is_exclusive": True}
    with pytest.raises(DriverError, match="Authentication failure"):
        iscsi_front.open_lun(
            *place, iscsi_front.new_secret(), OpenMode.WRITE, size_bytes=told["size_bytes"], **names
        )
    secret = secrets.unseal(by_iscsi.call.secret)["iscsi"]
    for pid in [*by_iscsi.far.tree(), *by_iscsi.near.tree()]:
        assert secret not in _command(pid)
    by_iscsi.assert_arrives_whole()


def test_killed_target_is_only_a_delay(by_iscsi):
    os.kill(by_iscsi.server, signal.SIGKILL)
    by_iscsi.assert_arrives_whole()


def test_frozen_source_worker_loses_its_lun_with_its_lease(by_iscsi):
    tree = by_iscsi.near.tree()
    export, server = by_iscsi.export, by_iscsi.server
    for pid in tree:
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: not is_running(export) and not is_running(server), seconds=15)
    for pid in tree:
        os.kill(pid, signal.SIGCONT)
    by_iscsi.assert_arrives_whole()


def test_frozen_export_is_replaced(crossing):
    """It neither answers nor can be asked to end; its rival is let in only when it is gone."""
    export = crossing.export
    os.kill(export, signal.SIGSTOP)
    wait_until(lambda: not is_running(export), seconds=60)
    crossing.assert_arrives_whole()
