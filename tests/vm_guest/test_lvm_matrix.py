"""
Real migrations from and to logical volumes and NFS: every byte arrives, and nothing is left behind.

Every disk was full of old data before its first volume was made.  What needs no device-mapper is in
`tests/integration/test_file_systems_matrix.py`.
"""

from __future__ import annotations

import pytest

from backends import services as inventory
from backends.drivers.lvm import DEVICE_TO_DEVICE
from backends.drivers.types import MIB
from migrations_app import services
from migrations_app.models import GENERIC, JournalEntry
from tests import moving
from tests.vm_guest.conftest import Place
from tests.vm_guest.shell import sh

pytestmark = pytest.mark.django_db(transaction=True)

LVM = ("thick", "thin")
HERE = (*LVM, "nfs")
FILES = ("ext4", "xfs", "qcow2")
CELLS = [
    *((source, destination) for source in HERE for destination in (*HERE, *FILES)),
    *((source, destination) for source in FILES for destination in HERE),
]
SIZE_BYTES = 12 * MIB + 4097


@pytest.fixture(scope="session")
def directories(tmp_path_factory, nfs_server):
    """An ext4, an xfs and an NFS file system, each at the directory of its name."""
    folder = tmp_path_factory.mktemp("mounts")
    sh("modprobe", "-a", "loop", "ext4", "xfs")
    for kind, size in (("ext4", 128 * MIB), ("xfs", 320 * MIB)):
        image, point = folder / f"{kind}.img", folder / kind
        with image.open("wb") as file:
            file.truncate(size)
        sh(f"mkfs.{kind}", "-q", str(image))
        point.mkdir()
        sh("mount", "-o", "loop", str(image), str(point))
    with nfs_server.mounted(folder / "nfs", "4.2"):
        yield folder
    for kind in ("ext4", "xfs"):
        sh("umount", str(folder / kind))


@pytest.fixture
def make(volume_groups, directories, tmp_path):
    """Return a function that registers the backend of a kind: the source is `one`, the destination `two`."""

    def make(kind: str, name: str, vg: str | None = None):
        if kind in LVM:
            place = Place(vg or volume_groups[name == "two"], kind == "thin")
            return moving.register(name, "lvm", place.options)
        # Images lie beside raw files, not in memory: QEMU opens them with O_DIRECT.
        path = directories / {"qcow2": "ext4"}.get(kind, kind) / f"{tmp_path.name}-{name}"
        path.mkdir()
        return moving.register(name, "qcow2" if kind == "qcow2" else "directory", {"path": str(path)})

    return make


@pytest.fixture
def move(run_to_end, volumes_left):
    """Return a function that moves a new volume, checks everything, and returns the migration."""

    def move(here, there, kind: str):
        volume = moving.new_volume(here, "vol", SIZE_BYTES)
        migration = moving.move(run_to_end, volume, there.address, force_host_copy=True)
        assert migration.method == GENERIC
        if kind == "thin":
            # What was a hole or zeros takes no room at the destination either.
            assert allocated(volume) <= 1 * MIB
        assert volumes_left() == ({volume.object_name} if kind in LVM else set())
        inventory.delete_volume(volume)
        assert volumes_left() == set()
        return migration

    return move


@pytest.mark.parametrize(("source", "destination"), CELLS, ids=lambda value: value)
def test_every_byte_arrives(source, destination, make, move):
    move(make(source, "one"), make(destination, "two"), destination)


@pytest.mark.parametrize(("source", "destination"), [("thick", "thin"), ("thin", "thick")])
def test_two_pools_of_one_volume_group_are_copied_device_to_device(
    source, destination, make, volume_groups, run_to_end, volumes_left
):
    here, there = (
        make(kind, name, volume_groups[0]) for kind, name in ((source, "one"), (destination, "two"))
    )
    volume = moving.new_volume(here, "vol", SIZE_BYTES)
    assert services.dry_run(volume, there.address).verdict.native_declined == DEVICE_TO_DEVICE
    migration = moving.move(run_to_end, volume, there.address)
    output = migration.journal.get(step="move_natively", kind=JournalEntry.Kind.DONE).output
    assert output == {"moved": False, "reason": DEVICE_TO_DEVICE}
    inventory.delete_volume(volume)
    assert volumes_left() == set()


def allocated(volume) -> int:
    with inventory.make_driver(volume.pool.backend) as driver:
        return driver.describe(volume.pool.name, volume.object_name).allocated_bytes
