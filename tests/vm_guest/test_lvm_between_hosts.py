"""
Logical volumes that move from one host to another one.

Both hosts are this guest, and each has a disk of its own: the LVM of one does not see the other's, so that nothing is
activated or changed by the wrong host without an error.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path

import pytest

from backends import services as inventory
from backends.drivers.types import MIB
from migrations_app import services
from migrations_app.models import RemoteCall
from migrations_app.services import Options
from migrations_app.states import State
from tests import moving
from tests.acceptance.conftest import is_running, wait_until
from tests.acceptance.hosts import digest_there, driver_there, names_there
from tests.vm_guest.conftest import Place
from tests.vm_guest.shell import sh
from tests.vm_guest.worker import OTHER, OtherHost, Worker

pytestmark = pytest.mark.django_db(transaction=True)

# No whole number of extents, so that the device is larger than the volume; whole sectors, for iSCSI.
SIZE_BYTES = 9 * MIB + 512
SERVERS = {"nbdkit", "tgtd", "qemu-nbd"}
# Everything takes ten times as long under emulation.
SETTINGS = {"VOLMIG_SILENCE_SECONDS": 40, "VOLMIG_RETRY_SECONDS": 1}


@pytest.fixture
def system_dirs(volume_groups, tmp_path):
    """LVM's configuration of either host."""
    common = Path("/etc/lvm/lvm.conf").read_text()
    folders = tmp_path / "lvm-here", tmp_path / "lvm-there"
    for folder, disk in zip(folders, ("vda", "vdb"), strict=True):
        folder.mkdir()
        only = f'devices {{ filter=["a|^/dev/{disk}$|", "r|.*|"] '
        (folder / "lvm.conf").write_text(common.replace("devices {", only, 1))
    return folders


@pytest.fixture
def on_other_host(system_dirs, monkeypatch):
    """This process is the first host; return a context in which it is the other one."""
    monkeypatch.setenv("LVM_SYSTEM_DIR", str(system_dirs[0]))

    @contextmanager
    def on_other_host():
        os.environ["LVM_SYSTEM_DIR"] = str(system_dirs[1])
        try:
            yield
        finally:
            os.environ["LVM_SYSTEM_DIR"] = str(system_dirs[0])

    return on_other_host


@pytest.fixture
def start_other(system_dirs, tmp_path):
    """Return a function that starts the other host's worker."""
    started = []

    def start(export: str = "nbd") -> OtherHost:
        environment = {"LVM_SYSTEM_DIR": str(system_dirs[1])}
        started.append(OtherHost(tmp_path, environment, VOLMIG_EXPORT=export, **SETTINGS))
        return started[-1]

    yield start
    for host in started:
        host.kill()
        print(host.log.read_text()[-6000:])


@pytest.fixture
def make(volume_groups, tmp_path, on_other_host):
    """Return a function that registers a backend of a kind on one of the hosts."""

    def make(kind: str, host: str):
        is_here = host == moving.HOST
        if kind == "directory":
            path = tmp_path / host
            path.mkdir()
            options = {"path": str(path)}
        else:
            options = Place(volume_groups[not is_here], kind == "thin").options
        driver = "directory" if kind == "directory" else "lvm"
        return inventory.register_backend(f"{host}@{kind}", driver, options)

    return make


def servers() -> set[str]:
    """Return the names of the programs that serve volumes and run."""
    names = set()
    for path in Path("/proc").glob("[0-9]*/comm"):
        if is_running(int(path.parent.name)):
            names.add(path.read_text().strip())
    return names & SERVERS


def state_of(vg: str, name: str) -> list[str]:
    return sh("lvs", "--noheadings", "-o", "lv_active,lv_device_open", f"{vg}/{name}").split()


def test_each_host_sees_its_own_group_only(volume_groups, on_other_host):
    assert sh("vgs", "--noheadings", "-o", "vg_name").split() == [volume_groups[0]]
    with on_other_host():
        assert sh("vgs", "--noheadings", "-o", "vg_name").split() == [volume_groups[1]]


@pytest.mark.parametrize(
    ("source", "destination", "export", "kind"),
    [
        # Nobody can punch holes into a thin volume, which a target would do.
        ("thick", "thin", "iscsi", "nbd"),
        ("thin", "thick", "nbd", "nbd"),
        ("thick", "directory", "nbd", "nbd"),
        ("directory", "thick", "nbd", "nbd"),
        ("thin", "thick", "iscsi", "iscsi"),
    ],
)
def test_volume_moves_to_another_host_whole(
    source, destination, export, kind, make, start_other, on_other_host, volume_groups, run_to_end
):
    here, there = make(source, moving.HOST), make(destination, OTHER)
    other = start_other(export)
    volume = moving.new_volume(here, "vol", SIZE_BYTES)
    before = moving.digest_of(volume)
    migration = run_to_end(
        services.request_migration(volume, there.address, moving.ACTOR, Options(delete_source=True))
    )
    assert (migration.state, migration.error_text) == (State.DONE, "")
    assert moving.names_on(here) == set()
    kinds = RemoteCall.objects.filter(operation="open").values_list("result__kind", flat=True)
    assert list(kinds) == [kind, kind]
    assert not RemoteCall.objects.exclude(state="ended", secret="").exists()
    wait_until(lambda: len(other.tree()) == 2)
    assert servers() == set()
    with on_other_host():
        assert digest_there(volume) == before
        assert names_there(there) == {volume.object_name}
        if destination != "directory":
            # As LVM makes it; nobody holds it.
            assert state_of(volume_groups[1], volume.object_name) == ["active"]
        with driver_there(there) as driver:
            driver.delete(volume.pool.name, volume.object_name)
            assert not list(driver.list_volumes(volume.pool.name))


@pytest.mark.parametrize(("destination", "export"), [("thin", "nbd"), ("thick", "iscsi")])
def test_copy_goes_on_after_kill_9_of_the_other_host(
    destination, export, make, start_other, on_other_host, tmp_path, run_to_end, volume_groups
):
    here, there = make("thick", moving.HOST), make(destination, OTHER)
    other = start_other(export)
    volume = moving.new_volume(here, "vol", 24 * MIB)
    before = moving.digest_of(volume)
    worker = Worker.slow(volume, there.address, tmp_path)
    tree = other.tree()
    assert servers()
    other.kill()
    wait_until(lambda: not any(map(is_running, tree)), seconds=10)
    # With that this host attaches what the other one serves by iSCSI.
    assert servers() <= {"qemu-nbd"}
    # From now on zeros are written, too: what lies behind the checkpoint is not known.
    start_other(export)
    worker.hurry()
    worker.end()
    migration = run_to_end(worker.migration)
    assert (migration.state, migration.error_text) == (State.DONE, "")
    assert moving.names_on(here) == set()
    assert servers() == set()
    with on_other_host():
        assert digest_there(volume) == before
        assert names_there(there) == {volume.object_name}
        assert state_of(volume_groups[1], volume.object_name) == ["active"]
        with driver_there(there) as driver:
            driver.delete(volume.pool.name, volume.object_name)
