"""A worker in a process of its own, for what cannot be done to the process of the tests."""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from django.db import connections
from django.db.models.functions import Now
from django.test import override_settings

from backends import services as inventory
from backends.drivers.types import MIB
from backends.models import Volume
from migrations_app import process_tree, services, work
from migrations_app import worker as product
from migrations_app.copying.digests import SEGMENT_BYTES
from migrations_app.models import VolumeMigration, WorkerHost
from migrations_app.remote.attendant import run_attendant
from migrations_app.services import Options
from migrations_app.states import State
from tests import moving

# A stall is told after so many seconds, in place of half a minute.
_STALL_SECONDS = 2


def _say_to(log: Path) -> None:
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    sys.stdout = sys.stderr = os.fdopen(fd, "w", buffering=1)
    logging.getLogger("migrations_app").addHandler(logging.StreamHandler(sys.stderr))


def _advance(migration_id: object, log: Path) -> None:
    _say_to(log)
    work.engine.Guards = functools.partial(work.engine.Guards, stall_seconds=_STALL_SECONDS)
    with override_settings(VOLMIG_CHECKPOINT_SECONDS=1):
        product.advance(migration_id)


class Worker:
    """Works on one migration; what it says goes to the file `log`."""

    def __init__(self, migration: VolumeMigration, folder: Path) -> None:
        self.migration = migration
        self.log = folder / "worker.log"
        # A fork: to start a new interpreter takes ten seconds under emulation.  Databases do not survive one.
        connections.close_all()
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=_advance, args=(migration.pk, self.log))
        self.process.start()

    @classmethod
    def slow(cls, volume: Volume, destination: str, folder: Path) -> Worker:
        """Return a worker that has begun to copy, and takes long for it until it is told to hurry."""
        options = Options(bandwidth_bytes_per_second=MIB, delete_source=True)
        worker = cls(services.request_migration(volume, destination, moving.ACTOR, options), folder)
        worker.wait_until(lambda migration: migration.state == State.COPYING, "copy")
        # Only now both volumes are open.
        worker.wait_until(lambda migration: migration.phase_done_bytes, "progress")
        return worker

    def hurry(self) -> None:
        services.set_bandwidth(self.migration, None, moving.ACTOR)

    def wait_until(self, is_so: Callable[[VolumeMigration], object], what: str, seconds: float = 120) -> None:
        ends_at = time.monotonic() + seconds
        while not is_so(self.migration):
            assert time.monotonic() < ends_at, f"no {what}: {self.log.read_text()}"
            assert self.process.is_alive(), f"ended without {what}: {self.log.read_text()}"
            time.sleep(0.2)
            self.migration.refresh_from_db()

    def wait_for_stall(self) -> None:
        """Return when it has said that the storage does not answer, and is still copying."""
        self.wait_until(lambda _: "the storage has not answered for" in self.log.read_text(), "stall")
        assert self.migration.state == State.COPYING

    def wait_for_checkpoint(self) -> int:
        """Return how much is copied, as soon as that is saved for the first time."""
        self.wait_until(lambda migration: migration.copied_up_to_bytes, "checkpoint")
        return self.migration.copied_up_to_bytes

    def end(self, seconds: float = 120) -> None:
        """Wait until it has done what it could."""
        self.process.join(seconds)
        assert self.process.exitcode == 0, self.log.read_text()
        self.migration.refresh_from_db()

    def kill(self) -> None:
        """`kill -9`; and let its lease be over at once."""
        self.process.kill()
        self.process.join()
        VolumeMigration.objects.filter(pk=self.migration.pk).update(
            bandwidth_bytes_per_second=None, lease_expires_at=self.migration.created_at
        )
        self.migration.refresh_from_db()


def killed_after_checkpoint(
    volume: Volume, destination: str, options: Options, folder: Path
) -> VolumeMigration:
    """Return a migration whose worker was killed in the middle of the second segment of the copy."""
    worker = Worker(services.request_migration(volume, destination, moving.ACTOR, options), folder)
    checkpoint = worker.wait_for_checkpoint()
    worker.kill()
    assert worker.migration.state == State.COPYING
    # The next worker goes on behind it.
    assert checkpoint == worker.migration.copied_up_to_bytes == SEGMENT_BYTES
    return worker.migration


#: The name of the other host, and where it serves volumes.
OTHER, _OTHER_ADDRESS = "otherhost", "127.0.0.1"


def _be_other_host(log: Path, environment: dict[str, str], values: dict[str, object]) -> None:
    process_tree.die_with_parent()
    _say_to(log)
    os.environ.update(environment)
    with override_settings(VOLMIG_HOST=OTHER, VOLMIG_STORAGE_ADDRESS=_OTHER_ADDRESS, **values):
        if os.fork() == 0:
            os._exit(run_attendant())
        inventory.refresh_host(OTHER)
        fields = {"pid": os.getpid(), "slots": 1, "storage_address": _OTHER_ADDRESS}
        while True:
            WorkerHost.objects.update_or_create(
                host=OTHER,
                defaults={"heartbeat_at": Now()},
                create_defaults={**fields, "started_at": Now(), "heartbeat_at": Now()},
            )
            time.sleep(2)


class OtherHost:
    """
    The worker of another host: what answers for it, below what beats for it.

    A fork as well, in place of `volmig_worker`, whose three interpreters take half a minute to start here.
    """

    def __init__(self, folder: Path, environment: dict[str, str], **values: object) -> None:
        self.log = folder / "other-host.log"
        WorkerHost.objects.filter(host=OTHER).delete()
        connections.close_all()
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=_be_other_host, args=(self.log, environment, values))
        self.process.start()
        ends_at = time.monotonic() + 60
        while not WorkerHost.objects.filter(host=OTHER).exists():
            assert time.monotonic() < ends_at, self.log.read_text()
            assert self.process.is_alive(), self.log.read_text()
            time.sleep(0.2)

    def tree(self) -> list[int]:
        return [self.process.pid, *process_tree.descendants_of(self.process.pid)]

    def kill(self) -> None:
        """`kill -9` of the worker, with which everything below it ends."""
        self.process.kill()
        self.process.join()
