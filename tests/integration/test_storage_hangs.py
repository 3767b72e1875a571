"""Storage that stops answering: every call ends in time and says why, a cancel is heard, and the copy goes on later."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import pytest
from django.db import connection

from backends import services as inventory
from backends.drivers import iscsi, nbd_port, rbd_cluster
from backends.drivers.base import DriverContext
from backends.drivers.errors import ConnectionLost, TimedOut
from backends.drivers.nbd_port import NbdPort
from backends.drivers.qcow2 import Qcow2Driver, Qcow2Options
from backends.drivers.rbd import RbdDriver, RbdOptions
from backends.drivers.types import MIB, OpenMode
from backends.models import Volume
from migrations_app import services, worker
from migrations_app.models import VolumeMigration
from migrations_app.services import Options
from migrations_app.states import State
from tests import moving
from tests.ceph_lab import ceph_cluster_with_room
from tests.iscsi_lab import IQN, SECRET, USER, iscsi_target
from tests.nbd import require_nbd

SIZE = 24 * MIB
#: What a call may take beyond its own limit.
SLACK = 4.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    require_nbd()
    with ceph_cluster_with_room(tmp_path_factory.mktemp("ceph"), ["volumes"]) as lab:
        yield lab


@pytest.fixture
def target(tmp_path):
    require_nbd()
    with iscsi_target(tmp_path) as target:
        disk = tmp_path / "disk.raw"
        disk.write_bytes(os.urandom(SIZE))
        target.add_lun(1, disk)
        yield target


@pytest.fixture(autouse=True)
def short_patience(monkeypatch):
    monkeypatch.setattr(rbd_cluster, "_ANSWER_SECONDS", 1)
    monkeypatch.setattr(rbd_cluster, "_CONNECT_SECONDS", 1)
    monkeypatch.setattr(iscsi, "_TOOL_SECONDS", 1.0)
    monkeypatch.setattr(nbd_port, "STALL_SECONDS", 1.0)
    monkeypatch.setattr("backends.drivers.nbd_server._START_SECONDS", 2.0)


@contextlib.contextmanager
def stopped(pid: int):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def within(seconds: float):
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


def rbd_driver(cluster) -> RbdDriver:
    return RbdDriver(DriverContext("h@ceph", "h", RbdOptions(pools="volumes", conf=str(cluster.conf))))


def iscsi_driver(target) -> iscsi.IscsiDriver:
    options = {"portal": target.portal, "iqn": IQN, "chap_user": USER, "chap_secret": SECRET}
    return iscsi.IscsiDriver(DriverContext("h@array", "h", iscsi.IscsiOptions(**options)))


# -- single calls -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["osd", "mon"])
def test_control_of_a_silent_cluster_ends_in_time(who, cluster):
    with rbd_driver(cluster) as driver:
        driver.create("volumes", "vol", MIB)
        calls = {
            "pools": driver.pools,
            "describe": lambda: driver.describe("volumes", "vol"),
            "create": lambda: driver.create("volumes", "other", MIB),
            "open": lambda: driver.open("volumes", "vol", OpenMode.SOURCE),
            "usage": lambda: driver.usage("volumes", "vol"),
            "delete": lambda: driver.delete("volumes", "vol"),
        }
        if who == "mon":
            # A client that is connected works on without it; one that comes does not get in.
            calls = {"check": lambda: rbd_driver(cluster).check(), "pools": driver.pools}
        with stopped(cluster.processes[who].pid):
            for name, call in calls.items():
                with within(1 + SLACK), pytest.raises(TimedOut, match="has not answered in time") as caught:
                    call()
                assert "See `ceph status`" in str(caught.value), name
        for name in ("vol", "other"):
            driver.delete("volumes", name)
        assert list(driver.list_volumes("volumes")) == []


def test_port_on_a_silent_cluster_is_given_back_in_time(cluster):
    with rbd_driver(cluster) as driver:
        driver.create("volumes", "vol", 16 * MIB)
        port = driver.open("volumes", "vol", OpenMode.WRITE)
        with stopped(cluster.processes["osd"].pid):
            threading.Timer(0.3, port.interrupt).start()
            with within(2), pytest.raises(ConnectionLost, match="broken off"):
                port.write(0, memoryview(b"x" * MIB))
            with within(8):
                port.close()
        driver.delete("volumes", "vol")


def test_silent_target_ends_every_call_in_time(target):
    driver = iscsi_driver(target)
    with driver.open("luns", "lun-1", OpenMode.SOURCE) as port, stopped(target.process.pid):
        for call in (
            driver.check,
            driver.pools,
            lambda: driver.describe("luns", "lun-1"),
            lambda: driver.open("luns", "lun-1", OpenMode.SOURCE),
        ):
            with (
                within(1 + SLACK),
                pytest.raises(
                    TimedOut, match=f"{target.portal} has not answered REPORT LUNS within 1 seconds"
                ),
            ):
                call()
        with within(1 + SLACK), pytest.raises(ConnectionLost, match="has not moved a byte for 1 seconds"):
            port.read_into(8 * MIB, memoryview(bytearray(MIB)))
        with within(6):
            port.close()


def test_stopped_server_of_an_image_ends_in_time(tmp_path):
    require_nbd()
    driver = Qcow2Driver(DriverContext("h@images", "h", Qcow2Options(path=str(tmp_path))))
    driver.check()
    driver.create("main", "vol", 8 * MIB)
    port = driver.open("main", "vol", OpenMode.WRITE)
    (usage,) = (use for use in driver.usage("main", "vol") if "qemu-nbd" in str(use))
    server = int(str(usage).split()[1])
    os.kill(server, signal.SIGSTOP)
    with within(1 + SLACK), pytest.raises(ConnectionLost, match="has not moved a byte"):
        port.write(0, memoryview(b"x" * MIB))
    with within(6):
        port.close()
    assert not os.path.exists(f"/proc/{server}")
    driver.delete("main", "vol")


# -- migrations -------------------------------------------------------------------------------------------------


@pytest.fixture
def make_migration(request, tmp_path):
    """Return a function that asks for a migration, and returns it with the process that can be stopped."""

    def make(source: str, destination: str) -> tuple[VolumeMigration, int]:
        pid = 0
        for name, kind in (("here", source), ("there", destination)):
            if kind == "iscsi":
                target = request.getfixturevalue("target")
                pid = target.process.pid
                options = {"portal": target.portal, "iqn": IQN, "chap_user": USER, "chap_secret": SECRET}
            elif kind == "rbd":
                cluster = request.getfixturevalue("cluster")
                pid = cluster.processes["osd"].pid
                options = {"pools": "volumes", "conf": str(cluster.conf)}
            else:
                (tmp_path / name).mkdir()
                options = {"path": str(tmp_path / name)}
            backend = moving.register(name, kind, options)
            if name == "here" and kind == "iscsi":
                volume = Volume.objects.create(
                    name="old", size_bytes=SIZE, pool=backend.pools.get(), object_name="lun-1"
                )
            elif name == "here":
                volume = moving.new_volume(backend, "vol", SIZE)
        options = Options(force_host_copy=True, delete_source=source != "iscsi")
        return services.request_migration(volume, "testhost@there", moving.ACTOR, options), pid

    return make


def stop_in_the_middle(monkeypatch, pid: int, method: str) -> threading.Event:
    """Let the storage stop answering at the third call; the event is set then."""
    real, calls, is_stopped = getattr(NbdPort, method), [], threading.Event()

    def call(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            os.kill(pid, signal.SIGSTOP)
            is_stopped.set()
        return real(self, *arguments)

    monkeypatch.setattr(NbdPort, method, call)
    return is_stopped


CASES = [
    ("iscsi", "directory", "read_into"),
    ("rbd", "directory", "read_into"),
    ("directory", "rbd", "write"),
]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("source", "destination", "method"), CASES)
def test_migration_goes_on_when_the_storage_comes_back(
    source, destination, method, make_migration, monkeypatch, run_to_end
):
    migration, pid = make_migration(source, destination)
    before = moving.digest_of(migration.volume)
    is_stopped = stop_in_the_middle(monkeypatch, pid, method)
    try:
        with within(25):
            assert worker.advance(migration.pk) == "try_later"
        assert is_stopped.is_set()
        migration.refresh_from_db()
        assert migration.state == State.COPYING
        VolumeMigration.objects.filter(pk=migration.pk).update(retry_at=None)
        # Still silent: the next attempt ends in time, too.
        with within(15):
            assert worker.advance(migration.pk) == "try_later"
    finally:
        os.kill(pid, signal.SIGCONT)
    run_to_end(migration)
    assert migration.state == (State.RETAINED if source == "iscsi" else State.DONE), migration.error_text
    assert moving.digest_of(migration.volume) == before
    if source != "iscsi":
        inventory.delete_volume(migration.volume)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("source", "destination", "method"), CASES)
def test_cancel_is_heard_while_the_storage_is_silent(
    source, destination, method, make_migration, monkeypatch, run_to_end
):
    migration, pid = make_migration(source, destination)
    monkeypatch.setattr(nbd_port, "STALL_SECONDS", 60.0)
    before = moving.digest_of(migration.volume)
    is_stopped = stop_in_the_middle(monkeypatch, pid, method)
    cancelled_at = []

    def cancel() -> None:
        assert is_stopped.wait(30)
        time.sleep(1)
        services.cancel_migration(migration, moving.ACTOR)
        cancelled_at.append(time.monotonic())
        connection.close()

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        result = worker.advance(migration.pk)
        ended_at = time.monotonic()
        thread.join()
        # What lies on the silent storage cannot be removed yet.
        assert result == ("try_later" if destination == "rbd" else "undone")
        assert ended_at - cancelled_at[0] < (12 if destination == "rbd" else 8)
    finally:
        os.kill(pid, signal.SIGCONT)
    run_to_end(migration)
    assert migration.state == State.CANCELLED
    assert moving.names_on(migration.destination_pool.backend) == set()
    assert moving.digest_of(migration.volume) == before
    if source != "iscsi":
        inventory.delete_volume(migration.volume)
