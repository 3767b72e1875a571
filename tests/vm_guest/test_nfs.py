"""The directory driver keeps every promise on NFS, served by the guest's own kernel."""

from __future__ import annotations

import os
import shutil

import pytest

from backends.drivers.base import DriverContext
from backends.drivers.conformance import PROMISES, Peer, run_promises
from backends.drivers.directory import DirectoryDriver, DirectoryOptions
from backends.drivers.pool_directory import MARKER
from backends.drivers.types import MIB
from tests.loopfs import skip_or_fail
from tests.vm_guest.conftest import sh

SKIPPED = {"snapshots_come_and_go": "the driver has no snapshots"}


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """An ext4 file system, served."""
    for tool in ("exportfs", "rpc.nfsd", "rpc.mountd"):
        if shutil.which(tool) is None:
            skip_or_fail("nfs", f"`{tool}` is not on this machine")
    folder = tmp_path_factory.mktemp("nfs")
    sh("modprobe", "-a", "loop", "ext4", "nfsd", "nfsv4", "nfsv3")
    with (folder / "image").open("wb") as file:
        file.truncate(200 * MIB)
    sh("mkfs.ext4", "-q", str(folder / "image"))
    (folder / "served").mkdir()
    sh("mount", "-o", "loop", str(folder / "image"), str(folder / "served"))
    for name in ("rpc_pipefs", "v4recovery"):
        os.makedirs(f"/var/lib/nfs/{name}", exist_ok=True)
    sh("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
    served = f"{folder}/served *(rw,no_root_squash,insecure,fsid=0,no_subtree_check,sync)\n"
    with open("/etc/exports", "w") as file:
        file.write(served)
    sh("exportfs", "-ra")
    sh("rpc.nfsd", "-N", "3", "4")
    sh("rpc.mountd", "-N", "3")
    return folder


@pytest.fixture(scope="module", params=["4.2", "4.1"])
def directories(request, export):
    point = export / f"mnt-{request.param}"
    point.mkdir()
    sh("mount", "-t", "nfs4", "-o", f"vers={request.param},hard", "127.0.0.1:/", str(point))
    one, two = point / f"one-{request.param}", point / f"two-{request.param}"
    one.mkdir()
    two.mkdir()
    yield request.param, one, two
    sh("umount", str(point))


@pytest.mark.parametrize("promise", [promise.__name__ for promise in PROMISES])
def test_directory_driver_keeps(promise, directories):
    version, one, two = directories

    def maker(path):
        return lambda: DirectoryDriver(DriverContext("h@nfs", "h", DirectoryOptions(path=str(path))))

    (result,) = run_promises(maker(one), "main", peer=Peer(maker(two), "main"), only={promise})
    assert result.passed, result.error_text
    assert result.skipped_reason == SKIPPED.get(promise)
    # What was deleted while it was open keeps such a name until the client has told the server that it is closed.
    left = {name for path in (one, two) for name in os.listdir(path) if not name.startswith(".nfs")}
    assert left <= {MARKER}
    (stats,) = maker(one)().pools()
    assert stats.capabilities == {"file_system": "nfs4", "keeps_holes": version == "4.2"}
