"""How migrations between two hosts begin, end and are refused, and who is let in at the door."""

# ruff: noqa: F811 - fixtures are taken by their names.
from __future__ import annotations

import time
from pathlib import Path

import pytest
from django.db.models.functions import Now

from backends import secrets
from backends.drivers import iscsi_front, tls_front
from backends.drivers.errors import DriverError
from backends.drivers.nbd_port import NbdPort, load_libnbd
from backends.drivers.types import MIB, OpenMode
from migrations_app import services
from migrations_app.errors import NoValidPool
from migrations_app.models import RemoteCall, VolumeMigration
from migrations_app.states import State
from tests.acceptance.conftest import wait_for_end, wait_until
from tests.acceptance.crossing import TO, by_iscsi, command_of, crossing, full_volume, there  # noqa: F401
from tests.acceptance.hosts import names_there, register_there, start_other
from tests.acceptance.test_worker import end_at_full_speed
from tests.conftest import digest, object_path
from tests.loopfs import mounted

pytestmark = [pytest.mark.acceptance, pytest.mark.django_db(transaction=True)]


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
        assert key not in command_of(pid)
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
        assert secret not in command_of(pid)
    by_iscsi.assert_arrives_whole()
