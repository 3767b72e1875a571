"""
A worker that is killed in the middle of a migration between storages of different kinds: the next one goes on.

Every byte arrives, and nothing is left: no server, no process, no image that somebody watches, no unfinished object.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from backends import services as inventory
from backends.drivers.types import MIB
from backends.models import Backend, Volume
from migrations_app import services
from migrations_app.models import JournalEntry, VolumeMigration
from migrations_app.services import Options
from migrations_app.states import State
from tests import moving
from tests.acceptance.conftest import wait_for_end, wait_until
from tests.ceph_lab import ceph_cluster_with_room
from tests.iscsi_lab import IQN, SECRET, USER, iscsi_target
from tests.nbd import require_nbd

pytestmark = [pytest.mark.acceptance, pytest.mark.django_db(transaction=True)]

SIZE = 96 * MIB
#: 64 MiB, one checkpoint, take two seconds.
SLOWLY = 32 * MIB
#: So that a copy inside the cluster takes seconds.
SLOW_CLUSTER = "rbd_default_order = 15\nrbd_concurrent_management_ops = 1"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    require_nbd()
    with ceph_cluster_with_room(
        tmp_path_factory.mktemp("ceph"), ["volumes", "backups"], client=SLOW_CLUSTER
    ) as lab:
        yield lab


@pytest.fixture
def make(tmp_path, request):
    """Return a function that registers the backend of a kind."""

    def make(kind: str, name: str) -> Backend:
        if kind == "rbd":
            conf = request.getfixturevalue("cluster").conf
            return moving.register(name, "rbd", {"pools": "volumes, backups", "conf": str(conf)})
        require_nbd()
        (tmp_path / name).mkdir()
        return moving.register(name, kind, {"path": str(tmp_path / name)})

    return make


def full_volume(backend: Backend, pool: str) -> Volume:
    place = backend.pools.get(name=pool)
    volume = inventory.create_volume("vol", SIZE, place)
    moving.write_random(volume, {0: SIZE})
    return volume


def processes_about(*names: str) -> list[str]:
    """Return the command lines that hold one of *names*."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = os.fsdecode(path.read_bytes()).replace("\0", " ")
        except OSError:
            continue
        if any(name in line for name in names):
            found.append(line)
    return found


def kill_in_the_middle(migration: VolumeMigration) -> None:
    def is_in_the_middle() -> bool:
        migration.refresh_from_db()
        if migration.state == State.MOVING:
            return bool(processes_about(migration.destination_object_name))
        return migration.state == State.COPYING and migration.copied_up_to_bytes > 0

    wait_until(is_in_the_middle)
    os.kill(int(migration.owner.split()[2]), signal.SIGKILL)
    wait_until(lambda: JournalEntry.objects.filter(migration=migration, kind="interrupted"), seconds=10)


def go_on(migration: VolumeMigration, seconds: float) -> None:
    VolumeMigration.objects.filter(pk=migration.pk).update(bandwidth_bytes_per_second=None)
    wait_for_end(migration, seconds=seconds)


def assert_whole(
    migration: VolumeMigration, volume: Volume, before: str, *, keeps_source: bool = False, portal: str = ""
) -> None:
    assert migration.state == (State.RETAINED if keeps_source else State.DONE), migration.error_text
    assert moving.digest_of(volume) == before
    assert moving.names_on(volume.pool.backend) == {volume.object_name}
    names = migration.destination_object_name, f"iscsi://{portal}" if portal else migration.source_object_name
    wait_until(lambda: not processes_about(*names), seconds=5)


@pytest.mark.parametrize(
    ("source", "destination"),
    [("rbd", "directory"), ("directory", "rbd"), ("qcow2", "directory"), ("directory", "qcow2")],
)
def test_copy_goes_on_from_its_checkpoint(source, destination, make, start_worker):
    pools = {"rbd": "volumes"}
    here, there = make(source, "here"), make(destination, "there")
    volume = full_volume(here, pools.get(source, "main"))
    before = moving.digest_of(volume)
    migration = services.request_migration(
        volume,
        f"testhost@there#{pools.get(destination, 'main')}",
        moving.ACTOR,
        Options(force_host_copy=True, delete_source=True, bandwidth_bytes_per_second=SLOWLY),
    )
    start_worker()
    kill_in_the_middle(migration)
    go_on(migration, 60)
    # A killed client of Ceph is a watcher for half a minute more, unless somebody knows that it is dead.
    assert not JournalEntry.objects.filter(migration=migration, kind="failed").exists()
    assert JournalEntry.objects.filter(migration=migration, step="copy", kind="started").count() == 1
    assert_whole(migration, volume, before)
    assert moving.names_on(here) == set()
    inventory.delete_volume(volume)
    assert moving.names_on(there) == set()


def test_move_inside_the_cluster_goes_on_without_its_worker(make, start_worker):
    ceph = make("rbd", "ceph")
    volume = full_volume(ceph, "volumes")
    before = moving.digest_of(volume)
    migration = services.request_migration(
        volume, "testhost@ceph#backups", moving.ACTOR, Options(delete_source=True)
    )
    start_worker()
    kill_in_the_middle(migration)
    go_on(migration, 60)
    assert migration.method == "rbd deep copy"
    assert_whole(migration, volume, before)
    inventory.delete_volume(volume)
    assert moving.names_on(ceph) == set()


def test_copy_of_a_lun_goes_on_from_its_checkpoint(make, start_worker, tmp_path):
    with iscsi_target(tmp_path) as target:
        disk = tmp_path / "disk.raw"
        with disk.open("wb") as file:
            for _ in range(SIZE // (8 * MIB)):
                file.write(os.urandom(8 * MIB))
        target.add_lun(1, disk)
        options = {"portal": target.portal, "iqn": IQN, "chap_user": USER, "chap_secret": SECRET}
        array = moving.register("array", "iscsi", options)
        make("directory", "there")
        volume = Volume.objects.create(
            name="old", size_bytes=SIZE, pool=array.pools.get(), object_name="lun-1"
        )
        before = moving.digest_of(volume)
        migration = services.request_migration(
            volume, "testhost@there", moving.ACTOR, Options(bandwidth_bytes_per_second=SLOWLY)
        )
        start_worker()
        kill_in_the_middle(migration)
        go_on(migration, 60)
        assert_whole(migration, volume, before, keeps_source=True, portal=target.portal)
