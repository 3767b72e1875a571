"""An NFS server that goes away while a volume is copied to it, and what its versions cannot do."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack

import pytest

from backends import services as inventory
from backends.drivers.base import DriverContext
from backends.drivers.directory import DirectoryDriver, DirectoryOptions
from backends.drivers.errors import InUse
from backends.drivers.types import MIB, OpenMode
from migrations_app import services
from migrations_app.states import State
from tests import moving
from tests.vm_guest.nfs import Server
from tests.vm_guest.worker import Worker

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def mount(nfs_server, tmp_path):
    """Return a function that mounts the server and returns a new directory on it."""

    def mount(version: str, options: str = "hard", name: str = "volumes"):
        point = tmp_path / f"mount-{version}"
        path = mounts.enter_context(nfs_server.mounted(point, version, options)) / f"{tmp_path.name}-{name}"
        path.mkdir(exist_ok=True)
        return path

    with ExitStack() as mounts:
        yield mount
        nfs_server.export()
        nfs_server.answer()


def driver(path):
    return DirectoryDriver(DriverContext("h@nfs", "h", DirectoryOptions(path=str(path))))


def start(volume, path, tmp_path):
    """Start to copy the volume to the directory, slowly; return the backend and the worker, which has begun."""
    there = moving.register("there", "directory", {"path": str(path)})
    return there, Worker.slow(volume, there.address, tmp_path)


@pytest.mark.parametrize(("first", "second"), [("4.2", "3"), ("3", "4.2")])
def test_hosts_with_different_versions_exclude_each_other(first, second, mount):
    one, other = driver(mount(first)), driver(mount(second))
    one.check()
    other.check()
    one.create("main", "vol", MIB, thin=True)
    with one.open("main", "vol", OpenMode.WRITE):
        with pytest.raises(InUse, match="holds a lock on it"):
            other.open("main", "vol", OpenMode.SOURCE)
        with pytest.raises(InUse):
            other.delete("main", "vol")
    other.open("main", "vol", OpenMode.SOURCE).close()
    other.delete("main", "vol")


def test_copy_to_a_hard_mount_waits_for_its_server(mount, nfs_server, random_volume, tmp_path):
    volume = random_volume(24 * MIB)
    before = moving.digest_of(volume)
    there, worker = start(volume, mount("4.2"), tmp_path)
    nfs_server.be_silent()
    worker.wait_for_stall()
    nfs_server.answer()
    worker.hurry()
    worker.end()
    assert (worker.migration.state, worker.migration.error_text) == (State.DONE, "")
    assert moving.digest_of(volume) == before
    inventory.delete_volume(volume)
    assert moving.names_on(there) == set()


@pytest.mark.parametrize(
    ("options", "stop", "go_on", "error"),
    [
        # What no answer within the mount's own time is called depends on the operation.
        ("soft,timeo=10,retrans=1", Server.be_silent, Server.answer, r"\((EIO|ETIMEDOUT)\)"),
        ("hard", Server.unexport, Server.export, r"\((EACCES|ESTALE)\)"),
    ],
    ids=["silent-to-a-soft-mount", "not-served-any-more"],
)
def test_server_that_is_gone_is_told_in_bounded_time_and_its_share_is_cleaned_up_later(
    options, stop, go_on, error, mount, nfs_server, random_volume, tmp_path, run_to_end
):
    volume, path = random_volume(24 * MIB), mount("4.2", options)
    before = moving.digest_of(volume)
    there, worker = start(volume, path, tmp_path)
    stop(nfs_server)
    started = time.monotonic()
    worker.end()
    migration = run_to_end(worker.migration)
    assert time.monotonic() - started < 150
    # What was made cannot be removed now.
    assert migration.state == State.NEEDS_OPERATOR
    assert f"Delete in {path}" in migration.error_text
    assert re.search(error, migration.error_text)
    go_on(nfs_server)
    migration = run_to_end(services.retry_migration(migration, moving.ACTOR))
    assert migration.state == State.FAILED
    assert moving.digest_of(volume) == before
    assert moving.names_on(there) == set()
