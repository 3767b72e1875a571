"""A move inside a Ceph cluster survives its worker, ends with its process, and leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backends.drivers import rbd_copy
from backends.drivers.base import DriverContext
from backends.drivers.errors import ConnectionLost
from backends.drivers.rbd import RbdDriver, RbdOptions
from backends.drivers.types import MIB, MoveStatus, OpenMode
from tests.ceph_lab import ceph_cluster
from tests.nbd import require_nbd

ROOT = Path(__file__).resolve().parents[2]
SIZE = 64 * MIB
#: So small and one after the other that a copy takes seconds.
SLOW = "rbd_default_order = 15\nrbd_concurrent_management_ops = 1"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    require_nbd()
    with ceph_cluster(tmp_path_factory.mktemp("ceph"), ["volumes", "backups"], client=SLOW) as lab:
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


@pytest.fixture
def there(driver):
    return dict(driver.pools()[1].location_info)


@pytest.fixture
def content(driver):
    """Make the volume `vol`, and return what it holds."""
    content = os.urandom(SIZE)
    driver.create("volumes", "vol", SIZE)
    with driver.open("volumes", "vol", OpenMode.WRITE) as port:
        port.write(0, memoryview(content))
        port.flush()
    yield content
    for pool, name in (("volumes", "vol"), ("backups", "new")):
        driver.delete(pool, name)
    assert_nothing_is_left(driver)


def assert_nothing_is_left(driver):
    """Neither an image, nor a note, nor a process."""
    io = driver._cluster.pool("backups")
    wait_until(lambda: not copying_processes(driver), 5)
    for pool in ("volumes", "backups"):
        assert driver._cluster.rbd.RBD().list(driver._cluster.pool(pool)) == []
    assert [o.key for o in io.list_objects() if "volmig" in o.key] == []


def copying_processes(driver) -> list[int]:
    """Return the processes that copy in this cluster; other tests may run beside."""
    conf = driver.options.conf.encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if b"backends.drivers.rbd_copy" in words and conf in words:
            found.append(int(folder.name))
    return found


def wait_until(what, seconds):
    ends_at = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends_at, f"not so after {seconds} s"
        time.sleep(0.02)


def move(driver, there) -> MoveStatus:
    return driver.start_move("volumes", "vol", there, "backups", "new")


def poll(driver, there) -> MoveStatus:
    return driver.poll_move("volumes", "vol", there, "backups", "new")


def wait_for_move(driver, there):
    wait_until(lambda: poll(driver, there).is_finished, 60)


def holds(driver, pool, name, content) -> bool:
    with driver.open(pool, name, OpenMode.SOURCE) as port:
        found = memoryview(bytearray(SIZE))
        port.read_into(0, found)
    return bytes(found) == content


def test_move_shows_how_far_it_is(driver, there, content):
    seen = []
    assert not move(driver, there).is_finished
    while not (status := poll(driver, there)).is_finished:
        seen.append(status.done_bytes)
        time.sleep(0.2)
    assert seen == sorted(seen)
    assert 0 < seen[-1] < SIZE
    assert holds(driver, "backups", "new", content)
    assert holds(driver, "volumes", "vol", content)


def test_next_worker_finds_the_copy_of_a_killed_one(cluster, driver, there, content):
    code = (
        "import json, os, signal, sys\n"
        "from backends.drivers.base import DriverContext\n"
        "from backends.drivers.rbd import RbdDriver, RbdOptions\n"
        "driver = RbdDriver(DriverContext('h@ceph', 'h', RbdOptions(pools='volumes,backups', conf=sys.argv[1])))\n"
        "driver.start_move('volumes', 'vol', json.loads(sys.argv[2]), 'backups', 'new')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(cluster.conf), json.dumps(there)], cwd=ROOT, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    (pid,) = copying_processes(driver)
    assert not move(driver, there).is_finished
    assert copying_processes(driver) == [pid]
    wait_for_move(driver, there)
    assert holds(driver, "backups", "new", content)


def test_killed_copy_is_noticed_and_begun_anew(driver, there, content):
    move(driver, there)
    # In the middle: of one that was killed before, the next one would wait for Ceph to forget it.
    wait_until(lambda: poll(driver, there).done_bytes, 20)
    (pid,) = copying_processes(driver)
    os.kill(pid, signal.SIGKILL)

    with pytest.raises(
        ConnectionLost, match="inside the cluster ended early: The process that copied is gone"
    ):
        wait_for_move(driver, there)
    started = time.monotonic()
    assert not move(driver, there).is_finished
    assert time.monotonic() - started < 10
    wait_for_move(driver, there)
    assert holds(driver, "backups", "new", content)


@pytest.mark.parametrize("who", ["running", "stopped", "killed"])
def test_cancelled_move_leaves_nothing(who, driver, there, content):
    move(driver, there)
    (pid,) = copying_processes(driver)
    time.sleep(0.5)
    if who != "running":
        os.kill(pid, signal.SIGSTOP if who == "stopped" else signal.SIGKILL)
    started = time.monotonic()
    driver.cancel_move("volumes", "vol", there, "backups", "new")
    assert time.monotonic() - started < 5
    assert driver._cluster.rbd.RBD().list(driver._cluster.pool("backups")) == []
    if who == "stopped":
        # Whatever it still had to write was refused.
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not copying_processes(driver), 5)
    assert holds(driver, "volumes", "vol", content)


def test_copy_that_nobody_asks_about_ends_and_cleans_up(driver, there, content, monkeypatch):
    monkeypatch.setattr(rbd_copy, "INTEREST_SECONDS", 1.0)
    move(driver, there)
    wait_until(lambda: not copying_processes(driver), 10)
    assert driver._cluster.rbd.RBD().list(driver._cluster.pool("backups")) == []
    assert [o.key for o in driver._cluster.pool("backups").list_objects() if "volmig" in o.key] == []
    assert holds(driver, "volumes", "vol", content)


def test_silent_store_delays_the_copy_and_does_not_end_it(cluster, driver, there, content, monkeypatch):
    monkeypatch.setattr("backends.drivers.rbd_cluster._ANSWER_SECONDS", 2)
    move(driver, there)
    (pid,) = copying_processes(driver)
    os.kill(cluster.processes["osd"].pid, signal.SIGSTOP)
    try:
        time.sleep(4)
    finally:
        os.kill(cluster.processes["osd"].pid, signal.SIGCONT)
    assert copying_processes(driver) == [pid]
    wait_for_move(driver, there)
    assert holds(driver, "backups", "new", content)
