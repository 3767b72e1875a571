"""
Real migrations between what needs a kernel of its own and what is reached by network: Ceph, and the LUNs of an array.

Both are served by the machine below the guest (`tests/vm/storage.py`).
"""

from __future__ import annotations

import functools
import json
import os

import pytest

from backends import services as inventory
from backends.drivers.types import MIB
from backends.models import Volume
from migrations_app import services
from migrations_app.copying.digests import SEGMENT_BYTES
from migrations_app.models import GENERIC
from migrations_app.services import Options
from migrations_app.states import State
from tests import moving
from tests.ceph_lab import told_room
from tests.iscsi_lab import IQN, SECRET, USER
from tests.loopfs import skip_or_fail
from tests.nbd import require_nbd
from tests.vm.storage import LARGE, POOL, SCATTERED, VARIABLE
from tests.vm_guest.conftest import Place
from tests.vm_guest.shell import sh
from tests.vm_guest.worker import killed_after_checkpoint

pytestmark = pytest.mark.django_db(transaction=True)

LVM = ("thick", "thin")
HERE = (*LVM, "nfs", "xfs")
CELLS = [*(("rbd", kind) for kind in HERE), *((kind, "rbd") for kind in HERE)]
SIZE_BYTES = 12 * MIB + 4097
_SERVED = json.loads(os.environ.get(VARIABLE, "{}"))


@functools.cache
def served(kind):
    """Return how storage of the kind is reached."""
    require_nbd()
    told = _SERVED.get(kind, {"missing": "the machine was started without servers"})
    if "missing" in told:
        skip_or_fail(kind, told["missing"])
    return told


@pytest.fixture(scope="session")
def conf(tmp_path_factory):
    """The configuration file of the cluster."""
    path = tmp_path_factory.mktemp("ceph") / "ceph.conf"
    path.write_text(f"[global]\nmon_host = {served('rbd')['mon_host']}\nauth_client_required = none\n")
    with told_room([POOL]):
        yield path


@pytest.fixture
def luns():
    """How the LUNs are told of by who made them: size and digest by name."""
    return served("iscsi")["luns"]


@pytest.fixture
def adopt(luns):
    """Return a function that returns a LUN as a volume of the array."""

    def adopt(lun: str) -> Volume:
        options = {
            "portal": served("iscsi")["portal"],
            "iqn": IQN,
            "chap_user": USER,
            "chap_secret": SECRET,
        }
        array = moving.register("array", "iscsi", options)
        return Volume.objects.create(
            name="vol", size_bytes=luns[lun]["size_bytes"], pool=array.pools.get(), object_name=lun
        )

    return adopt


@pytest.fixture(scope="session")
def xfs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("xfs")
    sh("modprobe", "-a", "loop", "xfs")
    with (folder / "image").open("wb") as image:
        image.truncate(320 * MIB)
    sh("mkfs.xfs", "-q", str(folder / "image"))
    (folder / "xfs").mkdir()
    sh("mount", "-o", "loop", str(folder / "image"), str(folder / "xfs"))
    yield folder / "xfs"
    sh("umount", str(folder / "xfs"))


@pytest.fixture(scope="session")
def nfs(tmp_path_factory, nfs_server):
    with nfs_server.mounted(tmp_path_factory.mktemp("nfs") / "nfs", "4.2") as point:
        yield point


@pytest.fixture
def make(volume_groups, request, tmp_path):
    """Return a function that registers the backend of a kind."""

    def make(kind: str, name: str):
        if kind == "rbd":
            conf = request.getfixturevalue("conf")
            return moving.register(name, "rbd", {"pools": POOL, "conf": str(conf)})
        if kind in LVM:
            return moving.register(name, "lvm", Place(volume_groups[0], kind == "thin").options)
        path = request.getfixturevalue(kind) / tmp_path.name
        path.mkdir()
        return moving.register(name, "directory", {"path": str(path)})

    return make


@pytest.mark.parametrize(("source", "destination"), CELLS, ids=lambda value: value)
def test_every_byte_arrives(source, destination, make, run_to_end, volumes_left):
    here, there = make(source, "one"), make(destination, "two")
    volume = moving.new_volume(here, "vol", SIZE_BYTES)
    migration = moving.move(run_to_end, volume, there.address)
    assert migration.method == GENERIC
    if destination == "thin":
        # What was a hole or zeros takes no room at the destination either.
        assert allocated(volume) <= 1 * MIB
    assert volumes_left() == ({volume.object_name} if destination in LVM else set())
    inventory.delete_volume(volume)
    assert moving.names_on(there) == volumes_left() == set()


@pytest.mark.parametrize("destination", HERE)
def test_lun_of_an_array_is_migrated_away(destination, adopt, make, luns, run_to_end, volumes_left):
    volume, there = adopt(SCATTERED), make(destination, "two")
    array = volume.pool.backend
    migration = run_to_end(services.request_migration(volume, there.address, moving.ACTOR, Options()))
    assert (migration.state, migration.method, migration.error_text) == (State.RETAINED, GENERIC, "")
    assert moving.digest_of(volume) == luns[SCATTERED]["digest"]
    if destination == "thin":
        assert allocated(volume) <= 1 * MIB
    assert moving.names_on(there) == {volume.object_name}
    # Only the array's administrator can delete it.
    assert moving.names_on(array) == set(luns)
    inventory.delete_volume(volume)
    assert moving.names_on(there) == volumes_left() == set()


def test_copy_from_an_array_goes_on_after_kill_9(adopt, make, luns, tmp_path, run_to_end, volumes_left):
    # The first segment is there soon; the second takes a minute, and half of it may be under way by then.
    volume, there = adopt(LARGE), make("thick", "two")
    options = Options(bandwidth_bytes_per_second=MIB)
    migration = run_to_end(killed_after_checkpoint(volume, there.address, options, tmp_path))
    assert (migration.state, migration.error_text) == (State.RETAINED, "")
    assert moving.digest_of(volume) == luns[LARGE]["digest"]
    assert moving.names_on(there) == {volume.object_name}
    inventory.delete_volume(volume)
    assert moving.names_on(there) == volumes_left() == set()


@pytest.mark.parametrize(("source", "destination"), [("rbd", "thin"), ("thick", "rbd"), ("thin", "rbd")])
def test_copy_between_both_goes_on_after_kill_9(
    source, destination, make, tmp_path, run_to_end, volumes_left
):
    here, there = make(source, "one"), make(destination, "two")
    volume = inventory.create_volume("vol", SEGMENT_BYTES + 60 * MIB, here.pools.get())
    moving.write_random(volume, {0: 4 * MIB, SEGMENT_BYTES: 60 * MIB})
    before = moving.digest_of(volume)
    # A thick volume is read from end to end.  The second segment takes a quarter of a minute.
    options = Options(bandwidth_bytes_per_second=4 * MIB, delete_source=True)
    migration = run_to_end(killed_after_checkpoint(volume, there.address, options, tmp_path))
    assert (migration.state, migration.error_text) == (State.DONE, "")
    assert moving.digest_of(volume) == before
    assert moving.names_on(here) == set()
    assert moving.names_on(there) == {volume.object_name}
    inventory.delete_volume(volume)
    assert moving.names_on(there) == volumes_left() == set()


def allocated(volume) -> int:
    with inventory.make_driver(volume.pool.backend) as driver:
        return driver.describe(volume.pool.name, volume.object_name).allocated_bytes
