"""The directory driver keeps every promise, on each file system that this machine can make."""

import os

import pytest

from backends.drivers.base import DriverContext
from backends.drivers.conformance import PROMISES, Peer, run_promises
from backends.drivers.directory import DirectoryDriver, DirectoryOptions
from backends.drivers.pool_directory import MARKER, PoolDirectory
from tests.loopfs import mounted


@pytest.fixture(scope="module", params=["plain", "named_temporary_files", "ext4", "xfs", "btrfs"])
def directories(request, tmp_path_factory):
    """Two directories of one file system."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "named_temporary_files":
            patch.setattr(PoolDirectory, "can_make_unnamed", False)
        if request.param in ("plain", "named_temporary_files"):
            yield make_two(folder)
        else:
            with mounted(request.param, folder) as mount_point:
                yield make_two(mount_point)


def make_two(parent):
    for name in ("one", "two"):
        (parent / name).mkdir()
    return parent / "one", parent / "two"


def driver_maker(path):
    return lambda: DirectoryDriver(DriverContext("h@files", "h", DirectoryOptions(path=str(path))))


#: What a directory of raw files does not have.
SKIPPED = {"snapshots_come_and_go": "the driver has no snapshots"}


@pytest.mark.parametrize("promise", [promise.__name__ for promise in PROMISES])
def test_directory_driver_keeps(promise, directories):
    one, two = directories
    (result,) = run_promises(driver_maker(one), "main", peer=Peer(driver_maker(two), "main"), only={promise})
    assert result.passed, result.error_text
    assert result.skipped_reason == SKIPPED.get(promise)
    for directory in directories:
        assert set(os.listdir(directory)) <= {MARKER}
