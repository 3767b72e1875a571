"""Real migrations from and to logical volumes: every byte arrives, and nothing is left behind."""

from __future__ import annotations

import pytest

from backends import services as inventory
from backends.drivers.types import MIB
from migrations_app.models import GENERIC
from tests import moving
from tests.vm_guest.conftest import Place, sh

pytestmark = pytest.mark.django_db(transaction=True)

LVM = ("thick-one", "thin-one", "thick-two", "thin-two")
FILES = ("ext4", "xfs", "qcow2")
CELLS = [
    *((source, destination) for source in ("thick-one", "thin-one") for destination in (*LVM[2:], *FILES)),
    *((source, destination) for source in FILES for destination in ("thick-two", "thin-two")),
    # Two pools of one volume group.
    ("thick-one", "thin-one"),
    ("thin-one", "thick-one"),
]


@pytest.fixture(scope="session")
def mount_points(tmp_path_factory):
    """An ext4 and an xfs file system on a disk of their own."""
    folder = tmp_path_factory.mktemp("mounts")
    sh("modprobe", "-a", "loop", "ext4", "xfs")
    for kind, size in (("ext4", 256 * MIB), ("xfs", 400 * MIB)):
        image, point = folder / f"{kind}.img", folder / kind
        with image.open("wb") as file:
            file.truncate(size)
        sh(f"mkfs.{kind}", "-q", str(image))
        point.mkdir()
        sh("mount", "-o", "loop", str(image), str(point))
    yield folder
    for kind in ("ext4", "xfs"):
        sh("umount", str(folder / kind))


@pytest.fixture
def make(volume_groups, mount_points, tmp_path):
    """Return a function that registers the backend of a kind."""
    places = {
        f"{kind}-{number}": Place(vg, kind == "thin")
        for number, vg in zip(("one", "two"), volume_groups, strict=True)
        for kind in ("thick", "thin")
    }

    def make(kind: str):
        if kind in places:
            return moving.register(kind, "lvm", places[kind].options)
        if kind == "qcow2":
            # Not in memory: QEMU opens images with O_DIRECT.
            images = mount_points / "ext4" / tmp_path.name
            images.mkdir()
            return moving.register(kind, "qcow2", {"path": str(images)})
        return moving.register(kind, "directory", {"path": str(mount_points / kind)})

    return make


@pytest.mark.parametrize(("source", "destination"), CELLS, ids=lambda value: value)
def test_every_byte_arrives(source, destination, make, run_to_end, volumes_left):
    here = make(source)
    make(destination)
    volume = moving.new_volume(here, "vol")
    migration = moving.move(run_to_end, volume, f"testhost@{destination}")
    assert migration.method == GENERIC
    if destination in LVM and source in LVM:
        assert "Copied device to device on this host." in str(migration.journal.all().values_list("output"))
    if destination.startswith("thin"):
        # What was a hole or zeros takes no room at the destination either.
        assert allocated(volume) <= 1 * MIB
    assert volumes_left() == ({volume.object_name} if destination in LVM else set())
    inventory.delete_volume(volume)
    assert volumes_left() == set()


def allocated(volume) -> int:
    with inventory.make_driver(volume.pool.backend) as driver:
        return driver.describe(volume.pool.name, volume.object_name).allocated_bytes
