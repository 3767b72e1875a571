"""An NFS server that is away for longer than the lease, and one that comes back with another file system."""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from backends import services as inventory
from backends.drivers.types import MIB
from migrations_app import presentation, services
from migrations_app.states import State
from tests import moving
from tests.acceptance.conftest import wait_until
from tests.vm_guest.worker import Worker

pytestmark = pytest.mark.django_db(transaction=True)

LEASE_SECONDS = 10


def assert_arrived(migration, volume, before, there):
    assert (migration.state, migration.error_text) == (State.DONE, "")
    assert moving.digest_of(volume) == before
    inventory.delete_volume(volume)
    assert moving.names_on(there) == set()


@pytest.fixture
def start(nfs_server, random_volume, tmp_path, settings):
    """Return a function that starts to copy slowly to a mount: the volume, its digest, the backend, the worker."""
    settings.VOLMIG_LEASE_SECONDS = LEASE_SECONDS
    settings.VOLMIG_RETRY_SECONDS = 1
    volume = random_volume(12 * MIB)
    with ExitStack() as mounts:

        def start(version: str = "3"):
            path = mounts.enter_context(nfs_server.mounted(tmp_path / "mount", version)) / tmp_path.name
            path.mkdir()
            before = moving.digest_of(volume)
            there = moving.register("there", "directory", {"path": str(path)})
            worker = Worker.slow(volume, there.address, tmp_path)
            return volume, before, there, worker

        yield start
        nfs_server.answer()


def test_server_that_is_away_for_longer_than_the_lease_is_waited_for(start, nfs_server, monkeypatch):
    monkeypatch.setattr(presentation, "_STALLED_SECONDS", 5)
    volume, before, there, worker = start()
    nfs_server.be_silent()
    began_at, left, text = time.monotonic(), [], ""
    while time.monotonic() - began_at < LEASE_SECONDS + 5 or "has not answered for" not in text:
        assert time.monotonic() - began_at < 60, text
        worker.migration.refresh_from_db()
        left.append(worker.migration.lease_expires_at - timezone.now())
        text = presentation.progress(worker.migration).state_text
        time.sleep(0.5)
    nfs_server.answer()
    worker.hurry()
    worker.end()
    assert "Copying: the storage has not answered for " in text
    # Who renews the lease does not wait for the server.
    assert min(left) > timedelta(seconds=LEASE_SECONDS / 2)
    assert worker.migration.epoch == 1
    assert_arrived(worker.migration, volume, before, there)


def test_worker_that_got_no_time_for_as_long_as_its_lease_gives_way(start, nfs_server, run_to_end):
    volume, before, there, worker = start()
    nfs_server.be_silent()
    worker.wait_for_stall()
    os.kill(worker.process.pid, signal.SIGSTOP)
    time.sleep(LEASE_SECONDS + 1)
    os.kill(worker.process.pid, signal.SIGCONT)
    time.sleep(1)
    # It waits for what it has asked for, and asks for nothing more.
    assert worker.process.is_alive()
    nfs_server.answer()
    worker.end()
    assert "lost; another worker goes on" in worker.log.read_text()
    services.set_bandwidth(worker.migration, None, moving.ACTOR)
    migration = run_to_end(worker.migration)
    assert migration.epoch > 1
    assert_arrived(migration, volume, before, there)


@pytest.mark.parametrize("version", ["3", "4.2"])
def test_stale_handles_are_told_and_the_copy_is_rolled_back_when_the_file_system_is_back(
    version, start, nfs_server, run_to_end
):
    volume, before, there, worker = start(version)
    nfs_server.serve_another()
    try:
        worker.end()
        migration = run_to_end(worker.migration)
        first = migration.journal.filter(kind="failed").first().text
        # Version 4 cannot recover what it had open.
        assert re.search(r"Writing .* failed: .* \((ESTALE|EIO)\)", first)
        assert migration.state == State.NEEDS_OPERATOR
        assert "does not exist. Create it, or mount the file system" in migration.error_text
    finally:
        nfs_server.serve_own()
    # The client remembers what was not there; of two file systems in turn, it takes the older one's word for outdated.
    Path("/proc/sys/vm/drop_caches").write_text("2")
    wait_until(lambda: os.path.exists(there.options["path"]), seconds=90, every=1)
    assert moving.digest_of(volume) == before
    migration = run_to_end(services.retry_migration(migration, moving.ACTOR))
    assert migration.state == State.FAILED
    assert moving.digest_of(volume) == before
    assert moving.names_on(there) == set()


def test_copy_goes_on_when_the_file_system_is_back_in_time(start, nfs_server, run_to_end):
    volume, before, there, worker = start()
    nfs_server.serve_another()
    try:
        worker.end()
        assert "(ESTALE)" in worker.migration.error_text
    finally:
        nfs_server.serve_own()
    worker.hurry()
    migration = run_to_end(worker.migration)
    assert_arrived(migration, volume, before, there)
