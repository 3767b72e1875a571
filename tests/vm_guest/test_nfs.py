"""The directory driver keeps every promise on NFS, served by the guest's own kernel."""

from __future__ import annotations

import os

import pytest

from backends.drivers.base import DriverContext
from backends.drivers.conformance import PROMISES, Peer, run_promises
from backends.drivers.directory import DirectoryDriver, DirectoryOptions
from backends.drivers.pool_directory import MARKER

SKIPPED = {"snapshots_come_and_go": "the driver has no snapshots"}


@pytest.fixture(scope="module", params=["4.2", "3"])
def directories(request, nfs_server, tmp_path_factory):
    point = tmp_path_factory.mktemp("mount") / request.param
    with nfs_server.mounted(point, request.param):
        one, two = point / f"one-{request.param}", point / f"two-{request.param}"
        one.mkdir()
        two.mkdir()
        yield request.param, one, two


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
    kind = "nfs4" if version == "4.2" else "nfs"
    assert stats.capabilities == {"file_system": kind, "keeps_holes": version == "4.2"}
