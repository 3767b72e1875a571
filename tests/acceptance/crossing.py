"""A copy in the middle, between the workers of two hosts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backends.drivers.types import MIB
from migrations_app import process_tree, services
from migrations_app.models import JournalEntry, RemoteCall
from migrations_app.states import State
from tests.acceptance.conftest import wait_until
from tests.acceptance.hosts import digest_there, names_there, register_there, start_other
from tests.acceptance.test_worker import SLOW, end_at_full_speed, has_checkpoint
from tests.conftest import digest, object_path

TO = "otherhost@b"


class Crossing:
    """A copy in the middle, between two workers."""

    def __init__(self, start_worker, full_volume, there, actor, **far: str) -> None:
        self.start_worker, self.volume, self.there = start_worker, full_volume, there
        self.source = object_path(full_volume)
        self.before = digest(self.source)
        self.far = start_other(start_worker, there, **far)
        self.migration = services.request_migration(full_volume, TO, actor, SLOW)
        self.near = start_worker()
        wait_until(lambda: has_checkpoint(self.migration))

    @property
    def attendant(self) -> int:
        return next(p for p in process_tree.children_of(self.far.pid) if "--attendant-only" in command_of(p))

    @property
    def export(self) -> int:
        return process_tree.children_of(self.attendant)[0]

    @property
    def server(self) -> int:
        return process_tree.children_of(self.export)[0]

    @property
    def call(self) -> RemoteCall:
        return RemoteCall.objects.get(operation="open", state="serving")

    def assert_arrives_whole(self) -> None:
        end_at_full_speed(self.migration)
        assert (self.migration.state, self.migration.error_text) == (State.RETAINED, "")
        assert digest_there(self.volume) == self.before
        assert names_there(self.there) == {self.volume.object_name}
        assert digest(self.source) == self.before
        # It went on from its checkpoint instead of beginning again.
        started = JournalEntry.objects.filter(migration=self.migration, step="copy", kind="started")
        assert started.count() == 1
        wait_until(lambda: not RemoteCall.objects.exclude(state="ended").exists(), seconds=5)


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


@pytest.fixture
def there(tmp_path, transactional_db):
    return register_there("b", "directory", tmp_path / "there")


@pytest.fixture
def full_volume(make_backend, make_volume):
    volume = make_volume(make_backend("a"), "full", 192 * MIB, filled=False)
    with object_path(volume).open("r+b") as file:
        for _ in range(192):
            file.write(os.urandom(MIB))
    return volume


@pytest.fixture
def crossing(start_worker, full_volume, there, actor) -> Crossing:
    return Crossing(start_worker, full_volume, there, actor)


@pytest.fixture
def by_iscsi(start_worker, full_volume, there, actor) -> Crossing:
    """A copy in the middle, over iSCSI."""
    return Crossing(start_worker, full_volume, there, actor, VOLMIG_EXPORT="iscsi")
