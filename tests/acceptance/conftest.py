"""Real worker processes on the test's own database."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.db import connection

from migrations_app import process_tree
from migrations_app.models import VolumeMigration

ROOT = Path(__file__).resolve().parents[2]
MANAGE = [sys.executable, str(ROOT / "manage.py")]


def _database_url() -> str:
    name = connection.settings_dict["NAME"]
    if connection.vendor == "sqlite":
        return f"sqlite:///{name}"
    return urlunsplit(urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}"))


def wait_until(what: Callable[[], object], *, seconds: float = 30, every: float = 0.05) -> object:
    """Return the first true answer of *what*; fail with the last one when none comes in time."""
    end = time.monotonic() + seconds
    while True:
        answer = what()
        if answer:
            return answer
        if time.monotonic() > end:
            pytest.fail(f"still not so after {seconds} s: {what}")
        time.sleep(every)


def wait_for_end(migration: VolumeMigration, *, seconds: float = 60) -> VolumeMigration:
    def ended() -> bool:
        migration.refresh_from_db()
        return not migration.is_working

    wait_until(ended, seconds=seconds)
    return migration


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Worker:
    """A worker started as its user would start it."""

    def __init__(self, env: dict[str, str], command: str, log: Path) -> None:
        self.log, self.env = log, env
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*MANAGE, command],
                env=env,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # A test run that is killed leaves no worker behind.
                preexec_fn=process_tree.die_with_parent,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def tree(self) -> list[int]:
        return [self.pid, *process_tree.descendants_of(self.pid)]

    def stop(self) -> None:
        tree = self.tree()
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        for pid in tree:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def start_worker(transactional_db: None, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Return a function that starts `manage.py volmig_worker` (or `qcluster`) on the test's database."""
    workers: list[Worker] = []
    env = {
        **os.environ,
        "DATABASE_URL": _database_url(),
        "VOLMIG_LEASE_SECONDS": "6",
        "VOLMIG_RETRY_SECONDS": "1",
        "VOLMIG_CHECKPOINT_SECONDS": "1",
        "VOLMIG_HANG_SECONDS": "6",
    }

    def start(command: str = "volmig_worker", **more: str) -> Worker:
        workers.append(Worker({**env, **more}, command, tmp_path / "worker.log"))
        return workers[-1]

    yield start
    for worker in workers:
        worker.stop()
    if log := tmp_path / "worker.log":
        print(log.read_text()[-6000:] if log.exists() else "")
