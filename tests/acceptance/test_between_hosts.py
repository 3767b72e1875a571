"""Migrations from one host to another one, with a real worker for each."""

from __future__ import annotations

import subprocess

import pytest

from backends.drivers.types import MIB
from migrations_app import services
from migrations_app.models import RemoteCall, VolumeMigration, WorkerHost
from migrations_app.services import Options
from migrations_app.states import State
from tests.acceptance.conftest import MANAGE, wait_for_end, wait_until
from tests.acceptance.hosts import (
    digest_there,
    driver_there,
    names_there,
    register_there,
    start_other,
    volume_there,
)
from tests.conftest import digest, object_path

pytestmark = [pytest.mark.acceptance, pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize(
    ("driver", "export", "kind", "size_bytes"),
    [
        ("directory", "nbd", "nbd", 150 * MIB + 4097),
        ("qcow2", "nbd", "nbd", 150 * MIB + 4097),
        ("directory", "iscsi", "iscsi", 150 * MIB + 512),
        # iSCSI knows whole sectors of paths only.
        ("directory", "iscsi", "nbd", 20 * MIB + 1),
        ("qcow2", "iscsi", "nbd", 20 * MIB),
    ],
)
def test_volume_moves_to_another_host_whole(
    driver, export, kind, size_bytes, start_worker, make_backend, make_volume, actor, tmp_path
):
    here, there = make_backend("a"), register_there("b", driver, tmp_path / "there")
    start_other(start_worker, there, VOLMIG_EXPORT=export)
    start_worker()
    volume = make_volume(here, size_bytes=size_bytes)
    source, before = object_path(volume), digest(object_path(volume))
    answer = services.dry_run(volume, "otherhost@b")
    assert answer.verdict.method_text == "generic copy over the network from host testhost to host otherhost"
    migration = services.request_migration(volume, "otherhost@b", actor, Options(delete_source=True))
    wait_for_end(migration)
    assert (migration.state, migration.error_text) == (State.DONE, "")
    assert digest_there(volume) == before
    assert names_there(there) == {volume.object_name}
    assert not source.exists()
    kinds = RemoteCall.objects.filter(operation="open").values_list("result__kind", flat=True)
    assert list(kinds) == [kind, kind]
    assert not RemoteCall.objects.exclude(state="ended").exists()
    assert not RemoteCall.objects.exclude(secret="").exists()


def test_hosts_that_move_volumes_to_each_other_do_not_wait_for_each_other(
    start_worker, make_backend, make_volume, actor, tmp_path
):
    """All slots of both hosts need the other one at the same time."""
    here, there = make_backend("a"), register_there("b", "directory", tmp_path / "there")
    start_other(start_worker, there)
    near = start_worker(VOLMIG_STORAGE_ADDRESS="127.0.0.1")
    wait_until(lambda: WorkerHost.objects.filter(host="testhost", pid=near.pid).exists())
    ours = [make_volume(here, f"ours-{n}") for n in range(2)]
    theirs = [volume_there(there, f"theirs-{n}") for n in range(2)]
    digests = [digest(object_path(v)) for v in ours] + [digest_there(v) for v in theirs]
    moves = [(v, "otherhost@b") for v in ours] + [(v, "testhost@a") for v in theirs]
    options = Options(delete_source=True)
    migrations = [services.request_migration(volume, to, actor, options) for volume, to in moves]
    for migration in migrations:
        wait_for_end(migration, seconds=90)
        assert (migration.state, migration.error_text) == (State.DONE, "")
    assert [digest_there(v) for v in ours] + [digest(object_path(v)) for v in theirs] == digests
    assert names_there(there) == {v.object_name for v in ours}


def test_doctor_asks_the_other_host_before_it_deletes_what_was_left(
    start_worker, make_backend, make_volume, actor, tmp_path
):
    here, there = make_backend("a"), register_there("b", "directory", tmp_path / "there")
    volume = make_volume(here)
    far = start_other(start_worker, there)
    migration = services.request_migration(volume, "otherhost@b", actor)
    with driver_there(there) as driver:
        driver.check()
        driver.create("main", migration.destination_object_name, volume.size_bytes)
    services.resolve_migration(_stopped(migration), services.Truth.AT_SOURCE, actor, typed_name=volume.name)
    doctor = [*MANAGE, "doctor", "--fix"]
    # Whether the volume itself is whole can be told by its own host only, and nobody answers there.
    done = subprocess.run(doctor, env={**far.env, "VOLMIG_HOST": "otherhost"}, capture_output=True, text=True)
    assert "the volume itself is not whole" in done.stdout
    assert names_there(there) == {migration.destination_object_name}
    near = start_worker()
    wait_until(lambda: WorkerHost.objects.filter(host="testhost", pid=near.pid).exists())
    done = subprocess.run(doctor, env={**far.env, "VOLMIG_HOST": "otherhost"}, capture_output=True, text=True)
    assert (done.returncode, names_there(there)) == (0, set()), done.stdout


def _stopped(migration: VolumeMigration) -> VolumeMigration:
    VolumeMigration.objects.filter(pk=migration.pk).update(state=State.NEEDS_OPERATOR)
    migration.refresh_from_db()
    return migration
