"""The RBD driver keeps every promise, on a real cluster of one host."""

import pytest

from backends.drivers.base import DriverContext
from backends.drivers.conformance import PROMISES, run_promises
from backends.drivers.errors import InUse, NotReady
from backends.drivers.rbd import RbdDriver, RbdOptions
from backends.drivers.types import MIB, OpenMode
from tests.ceph_lab import ceph_cluster
from tests.nbd import require_nbd

SKIPPED = {
    "thick_volumes_take_their_room": "the pool has no thick volumes",
    "what_was_flushed_can_be_read_beside_the_writer": "the driver does not let a volume be read while it is written",
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    require_nbd()
    with ceph_cluster(tmp_path_factory.mktemp("ceph"), ["volumes", "backups"]) as lab:
        yield lab


@pytest.fixture
def make_driver(cluster):
    options = RbdOptions(pools="volumes, backups", conf=str(cluster.conf))
    return lambda: RbdDriver(DriverContext("h@ceph", "h", options))


@pytest.fixture
def driver(make_driver):
    with make_driver() as driver:
        driver.check()
        yield driver


@pytest.mark.parametrize("promise", [promise.__name__ for promise in PROMISES])
def test_rbd_driver_keeps(promise, make_driver):
    (result,) = run_promises(make_driver, "volumes", only={promise})
    assert result.passed, result.error_text
    assert result.skipped_reason == SKIPPED.get(promise)
    with make_driver() as driver:
        assert [driver._cluster.rbd.RBD().list(driver._cluster.pool(p)) for p in ("volumes", "backups")] == [
            [],
            [],
        ]


def test_watcher_is_a_user_and_keeps_the_image(driver, make_driver):
    driver.create("volumes", "vol", MIB)
    with make_driver() as guest, guest._cluster.image("volumes", "vol", "open", is_read_only=False):
        (usage,) = driver.usage("volumes", "vol")
        assert usage.by.startswith("client ")
        for mode in (OpenMode.SOURCE, OpenMode.WRITE):
            with pytest.raises(InUse, match="watches it"):
                driver.open("volumes", "vol", mode)
        with pytest.raises(InUse, match="watches it"):
            driver.delete("volumes", "vol")
    driver.delete("volumes", "vol")


def test_image_with_snapshots_is_not_deleted(driver):
    driver.create("volumes", "vol", MIB)
    driver.create_snapshot("volumes", "vol", "daily")
    with pytest.raises(InUse, match="it has the snapshots daily"):
        driver.delete("volumes", "vol")
    driver.delete_snapshot("volumes", "vol", "daily")
    driver.delete("volumes", "vol")


def test_what_is_missing_is_named(cluster, tmp_path):
    def check(**options):
        with RbdDriver(DriverContext("h@ceph", "h", RbdOptions(**options))) as driver:
            driver.check()

    with pytest.raises(NotReady, match="no pool 'nowhere'"):
        check(pools="nowhere", conf=str(cluster.conf))
    with pytest.raises(NotReady, match=r"nowhere\.conf"):
        check(pools="volumes", conf=str(tmp_path / "nowhere.conf"))
