"""
Real migrations between drivers of every kind that this host can serve: every byte arrives, nothing is left behind.

What needs a kernel of its own (logical volumes, NFS): `tests/vm_guest/test_lvm_matrix.py`, `test_networked_storage.py`.
"""

from __future__ import annotations

import pytest

from backends import services as inventory
from backends.models import Volume
from migrations_app import services
from migrations_app.models import GENERIC, VolumeMigration
from migrations_app.services import Options
from migrations_app.states import State
from tests import moving
from tests.ceph_lab import ceph_cluster_with_room
from tests.iscsi_lab import IQN, SECRET, USER, iscsi_target
from tests.nbd import require_nbd

pytestmark = pytest.mark.django_db(transaction=True)

KINDS = ("directory", "qcow2", "rbd")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    require_nbd()
    with ceph_cluster_with_room(tmp_path_factory.mktemp("ceph"), ["volumes", "backups"]) as lab:
        yield lab


@pytest.fixture
def make(tmp_path, request):
    """Return a function that registers the backend of a kind."""

    def make(kind: str, name: str):
        if kind == "rbd":
            conf = request.getfixturevalue("cluster").conf
            return moving.register(name, "rbd", {"pools": "volumes", "conf": str(conf)})
        require_nbd()
        (tmp_path / name).mkdir()
        return moving.register(name, kind, {"path": str(tmp_path / name)})

    return make


@pytest.mark.parametrize("destination", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_every_byte_arrives(source, destination, make, run_to_end):
    if source == destination == "rbd":
        pytest.skip("moved natively, see below")
    volume = moving.new_volume(make(source, "here"), "vol")
    make(destination, "there")
    migration = moving.move(run_to_end, volume, "testhost@there", force_host_copy=True)
    assert migration.method == GENERIC
    inventory.delete_volume(volume)
    assert moving.names_on(volume.pool.backend) == set()


@pytest.fixture
def ceph(cluster):
    return moving.register("ceph", "rbd", {"pools": "volumes, backups", "conf": str(cluster.conf)})


def test_pools_of_one_cluster_move_natively(ceph, run_to_end):
    volume = moving.new_volume(ceph, "vol", pool="volumes")
    migration = moving.move(run_to_end, volume, "testhost@ceph#backups")
    assert migration.method == "rbd deep copy"
    assert volume.pool.name == "backups"
    inventory.delete_volume(volume)
    assert moving.names_on(ceph) == set()


@pytest.mark.parametrize("destination", KINDS)
def test_lun_of_an_array_is_adopted_and_migrated_away(destination, make, tmp_path, run_to_end):
    with iscsi_target(tmp_path) as target:
        disk = tmp_path / "disk.raw"
        with disk.open("wb") as file:
            file.truncate(24 * 1024 * 1024)
            for offset, content in moving.scattered(24 * 1024 * 1024):
                file.seek(offset)
                file.write(content)
        target.add_lun(1, disk)
        options = {"portal": target.portal, "iqn": IQN, "chap_user": USER, "chap_secret": SECRET}
        array = moving.register("array", "iscsi", options)
        make(destination, "there")
        volume = Volume.objects.create(
            name="old", size_bytes=disk.stat().st_size, pool=array.pools.get(), object_name="lun-1"
        )
        before = moving.digest_of(volume)
        migration = run_to_end(services.request_migration(volume, "testhost@there", moving.ACTOR, Options()))
        assert (migration.state, migration.error_text) == (State.RETAINED, "")
        assert moving.digest_of(volume) == before
        assert moving.names_on(array) == {"lun-1"}
        inventory.delete_volume(volume)
        VolumeMigration.objects.all().delete()
