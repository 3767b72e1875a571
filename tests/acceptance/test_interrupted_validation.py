"""`validate_backend` on real pools, interrupted and killed: what is left, and what the next run does with it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from backends.drivers.conformance import NAME_PREFIX, leftovers, remove_leftovers
from backends.services import make_driver
from tests import moving
from tests.acceptance.conftest import MANAGE, _database_url, wait_until
from tests.ceph_lab import ceph_cluster
from tests.nbd import require_nbd

pytestmark = [pytest.mark.acceptance, pytest.mark.django_db(transaction=True)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    require_nbd()
    with ceph_cluster(tmp_path_factory.mktemp("ceph"), ["volumes", "backups"]) as lab:
        yield lab


@pytest.fixture
def make_backend(request, tmp_path):
    """Return a function that registers the backend of a kind."""

    def make(kind: str):
        if kind == "rbd":
            conf = str(request.getfixturevalue("cluster").conf)
            return moving.register("pool", "rbd", {"pools": "volumes, backups", "conf": conf})
        require_nbd()
        (tmp_path / "pool").mkdir()
        return moving.register("pool", kind, {"path": str(tmp_path / "pool")})

    return make


class Validation:
    """A run of the command, in a process of its own."""

    def __init__(self, pool: object) -> None:
        self.process = subprocess.Popen(
            [*MANAGE, "validate_backend", str(pool)],
            env={**os.environ, "DATABASE_URL": _database_url(), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Whoever runs the tests in the background has it ignored, and children with them.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def end_in_the_middle(self, number: signal.Signals) -> int:
        """Wait until volumes are made and deleted; send the signal; return the status."""
        for line in self.process.stdout:
            if "size zero is refused" in line:
                break
        time.sleep(0.2)
        self.process.send_signal(number)
        self.said = self.process.communicate(timeout=60)[0]
        return self.process.returncode


CASES = [
    ("directory", signal.SIGINT),
    ("directory", signal.SIGTERM),
    ("qcow2", signal.SIGINT),
    ("rbd", signal.SIGTERM),
]


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_interrupted_run_leaves_nothing(kind, number, make_backend):
    backend = make_backend(kind)
    run = Validation(backend.pools.first())
    assert run.end_in_the_middle(number) == 130, run.said
    assert moving.names_on(backend) == set()
    assert_no_server(backend)


@pytest.mark.parametrize("kind", ["directory", "qcow2", "rbd"])
def test_what_a_killed_run_has_left_can_be_removed(kind, make_backend, monkeypatch):
    backend = make_backend(kind)
    pool = backend.pools.first()
    left: set[str] = set()
    while not left:
        run = Validation(pool)
        assert run.end_in_the_middle(signal.SIGKILL) == -signal.SIGKILL
        left = moving.names_on(backend)
    assert all(name.startswith(NAME_PREFIX) for name in left)
    assert_no_server(backend)
    # It might be of a run that is under way on another host.
    done = remove_leftovers(lambda: make_driver(backend), pool.name)
    assert (set(done.kept), done.removed) == (left, ())
    monkeypatch.setattr(leftovers, "OLD_SECONDS", -10)
    done = remove_leftovers(lambda: make_driver(backend), pool.name)
    assert (set(done.removed), done.problems) == (left, ())
    assert moving.names_on(backend) == set()


def test_old_leftovers_are_removed_by_the_next_run(make_backend):
    backend = make_backend("directory")
    pool = backend.pools.first()
    old, new = (f"{NAME_PREFIX}{int(time.time()) - age:x}-abcdef-a0" for age in (4000, 5))
    with make_driver(backend) as driver:
        driver.check()
        for name in (old, new, "somebody-elses"):
            driver.create(pool.name, name, 4096)
    run = Validation(pool)
    said = run.process.communicate(timeout=120)[0]
    assert run.process.returncode == 0, said
    assert f"removed  '{old}' on {pool}, which an earlier run had left" in said
    assert f"1 objects on {pool} are of another run that is under way, or was killed within the last" in said
    assert re.search(r"[1-9]\d* promises kept, 0 broken", said)
    assert moving.names_on(backend) == {new, "somebody-elses"}


def assert_no_server(backend) -> None:
    place = backend.options.get("path") or backend.options["conf"]

    def servers() -> list[str]:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = os.fsdecode(path.read_bytes())
            except OSError:
                continue
            if line.startswith("qemu-nbd") and place in line:
                found.append(line)
        return found

    wait_until(lambda: not servers(), seconds=5)
